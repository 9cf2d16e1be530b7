"""What passes between the parts of a live session: frames of the camera, painted frames, style pictures."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nst_video.live.desk import Look


@dataclass(frozen=True)
class Captured:
    """A frame of the camera: uint8 (H, W, 3) RGB as the camera gave it, not mirrored.

    number: counts every frame the camera gave, dropped ones included. time: when it was there, in seconds of
    time.monotonic().
    """

    rgb: np.ndarray
    number: int
    time: float


@dataclass(frozen=True)
class StylePicture:
    """A style that can be chosen: its file, a short name, and its pixels uint8 (h, w, 3) RGB."""

    path: str
    name: str
    rgb: np.ndarray


@dataclass(frozen=True)
class Shown:
    """A painted frame, ready for every output: uint8 (H, W, 3) RGB at the size of the window, not written to again.

    before: the camera's picture at the same size, mirrored like `rgb`. captured, finished: seconds of
    time.monotonic(). size: (width, height) in which it was painted. evaluations: of the loss for this frame. style:
    name of the style. device: where it was painted.
    """

    rgb: np.ndarray
    before: np.ndarray
    number: int
    captured: float
    finished: float
    size: tuple[int, int]
    evaluations: int
    style: str
    device: str


class Painter(Protocol):
    """What turns frames of the camera into painted ones; it is called from one thread, one frame after the other."""

    def paint(self, frame: Captured, look: Look, styles: tuple[StylePicture, ...], size: tuple[int, int]) -> Shown:
        """The frame painted, at (width, height) `size`. `styles` only ever grows; look.style is an index into it."""

    def close(self) -> None:
        """End what works in the background."""
