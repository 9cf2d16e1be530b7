"""What the motion costs beside the painting: processor time of both for the same later frames, medians, in one process.

    python scripts/bench_motion.py [--clip CLIP] [--style PICTURE] [--size 256] [--frames 8]

Processor time, on one thread, because a busy machine stretches the clock but not this.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from nst_video import CoherenceOptions, EffortOptions, LookOptions, MotionWindow, Stylizer, load_encoder
from nst_video.colors import to_image
from nst_video.media.pictures import read_picture
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import scaled_size
from nst_video.presets import resolve_effort

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
T = TypeVar("T")


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4")
    parser.add_argument("--style", type=Path, default=SAMPLES / "oil.jpg")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--frames", type=int, default=8, help="later frames that are timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    moving, painting = measure(arguments)
    share = median(moving) / median(painting)
    print(f"a later frame: motion {median(moving):.3f} s, painting {median(painting):.3f} s, ratio {share:.1%}")


def measure(arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of processor time for motion and for painting, of each frame that has all its references."""
    look, coherence = LookOptions(), CoherenceOptions()
    # Only later frames are timed, so the first one need not be good.
    effort = resolve_effort(EffortOptions(first_iterations=8))
    encoder = load_encoder("vgg19", (*look.content_layers, *look.style_layers))
    style = to_image(read_picture(arguments.style)[None])
    stylizer = Stylizer(encoder, [(style, 1.0)], effort=effort, look=look, coherence=coherence)
    window, state = MotionWindow(coherence.references, coherence.flow), stylizer.initial_state()
    moving, painting = [], []
    size = scaled_size(probe(arguments.clip), arguments.size)
    untimed = max(coherence.references)
    with VideoReader(arguments.clip, size=size) as reader:
        frames = (rgb for batch in reader for rgb in batch.rgb)
        for number, rgb in enumerate(islice(frames, untimed + arguments.frames)):
            motion, moved = timed(lambda rgb=rgb, first=number == 0: window.step(rgb, first=first))
            (_, state), painted = timed(lambda rgb=rgb, m=motion, s=state: stylizer.step(to_image(rgb[None]), m, s))
            if number >= untimed:
                moving.append(moved)
                painting.append(painted)
    return moving, painting


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the processor time it took in seconds."""
    begun = time.process_time()
    return work(), time.process_time() - begun


if __name__ == "__main__":
    sys.exit(main())
