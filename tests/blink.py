"""A stand-in for the dreamer that only shows the step as brightness: what is driven can be read off the frames."""

from fractions import Fraction

import numpy as np
import torch

from nst_video.media.video import VideoReader
from nst_video.painting.state import State
from nst_video.settings import DREAM, split_options

# One octave of the first layer takes the smallest frames; at rest the step is 0 and the frame black.
TINY = {"layers": ("relu1_1",), "size": 16, "octaves": 1, "step": 0.0}


class Blinker:
    """As bright as the step is long, from 0 to 1; it knows nothing else of a dream."""

    def initial_state(self, seed=None):
        return State()

    def step(self, image, motion, state, controls):
        return torch.full_like(image, min(float(controls.step or 0), 1.0)), state


def settings(**options):
    """The groups of options of a render by the stand-in."""
    return vars(split_options(TINY | options, DREAM))


def lit(path) -> list[Fraction]:
    """When the picture flashes: the times, in seconds, of frames that are bright after a dark one."""
    times, bright = [], []
    with VideoReader(path) as reader:
        for batch in reader:
            times += batch.times
            bright += list(batch.rgb.mean(axis=(1, 2, 3)) > 100)
    rises = np.diff(np.array(bright, int), prepend=0) > 0
    return [time for time, rise in zip(times, rises, strict=True) if rise]
