"""How a new frame of the camera follows from the one that was painted last: where everything went, what is new, and
the camera's noise taken out.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from nst_video.colors import to_image
from nst_video.flow.motion import drop_noise, flow, to_flow, trust

_FLOW = "medium"  # worth its 5 ms: a painting shows every place where the flow is wrong
_NOISE = 4 / 255  # difference of a place from what was seen there before that may be the sensor's noise alone
_NOISES = 1 / 255, 8 / 255  # least and most that a large picture is taken to have of it
_TAKEN = 0.15  # of a new frame where it differs by less than that: the average over some 6 frames stays


@dataclass(frozen=True)
class Step:
    """From the frame that was painted last to this one, at one size.

    content: float32 (H, W, 3) RGB in [0, 1], the new frame without noise. lookup: float32 (H, W, 2), the place in the
    old frame (x, y) of each pixel of the new one, None where nothing moved. trust: float32 (H, W) in [0, 1].
    """

    content: np.ndarray
    lookup: np.ndarray | None
    trust: np.ndarray

    def moved(self, array: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
        """What an array (H, W, C) of the old frame becomes in the new one; the picture's edges go on outside."""
        return array if self.lookup is None else _look_up(array, self.lookup, interpolation)


def follow(content: np.ndarray, rgb: np.ndarray) -> Step:
    """The step from `content` (float32, as a Step's) to a new frame `rgb`, uint8 (H, W, 3) of the same size."""
    old = to_uint8(content)
    backward, forward = (to_flow(flow(*pair, _FLOW)) for pair in ((rgb, old), (old, rgb)))
    current, reference = to_image(rgb[None]), to_image(old[None])
    backward = drop_noise(backward, current, reference)
    certain = trust(current, reference, backward, forward)[0, 0].numpy()
    vectors = backward[0].permute(1, 2, 0).numpy()
    lookup = _grid(*rgb.shape[:2]) + vectors if vectors.any() else None
    step = Step(content, lookup, certain)
    return Step(_denoised(step.moved(content), rgb, certain), lookup, certain)


def _denoised(before: np.ndarray, rgb: np.ndarray, certain: np.ndarray) -> np.ndarray:
    """The new frame averaged with the ones before it, wherever the difference looks like noise."""
    new = rgb.astype(np.float32) / 255
    difference = cv2.blur(np.abs(new - before).mean(2), (3, 3))
    share = np.clip(difference / _NOISE - 1, _TAKEN, 1)
    share = np.maximum(share, 1 - certain)[..., None]
    return before + share * (new - before)


class Calm:
    """Takes the noise out of the camera's pictures where nothing moves: what is drawn from them would shimmer."""

    def __init__(self) -> None:
        self.before: np.ndarray | None = None
        self.grey: np.ndarray | None = None

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> float32 in [0, 1], averaged with those before it where it differs by noise alone."""
        new = rgb.astype(np.float32) / 255
        grey = cv2.cvtColor(new, cv2.COLOR_RGB2GRAY)
        if self.before is None or self.grey is None or self.before.shape != new.shape:
            self.before, self.grey = new, grey
            return new
        difference = cv2.blur(cv2.absdiff(grey, self.grey), (7, 7))
        # Of most pictures a quarter stands still, and all that differs there is noise.
        noise = float(np.clip(np.percentile(difference[::4, ::4], 25), *_NOISES))
        share = np.clip((difference / noise - 1.5) * 2, _TAKEN, 1)
        self.before = self.before + share[..., None] * (new - self.before)
        self.grey = self.grey + share * (grey - self.grey)
        return self.before


def _look_up(array: np.ndarray, lookup: np.ndarray, interpolation: int) -> np.ndarray:
    found = cv2.remap(array, lookup, None, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(array.shape)


def _grid(height: int, width: int) -> np.ndarray:
    """The place (x, y) of every pixel: float32 (H, W, 2)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=2)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """float32 (H, W, 3) -> uint8 in [0, 255], rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
