"""The painted picture as a camera of its own, for video calls and streaming programs (pyvirtualcam, an extra)."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from nst_video.errors import ResourceError, missing_package
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.worker import Worker

DRIVERS = (
    "Linux: install v4l2loopback and run `sudo modprobe v4l2loopback`; "
    "macOS and Windows: install OBS Studio and start its virtual camera once"
)

MakeDevice = Callable[[tuple[int, int], float], Any]


def make_device(size: tuple[int, int], rate: float) -> Any:
    """pyvirtualcam's camera of (width, height). Raises ResourceError where the package or a driver is missing."""
    try:
        import pyvirtualcam
    except ImportError as error:
        raise missing_package("--virtual-camera", "the package pyvirtualcam", "virtualcam") from error
    try:
        return pyvirtualcam.Camera(*size, rate, fmt=pyvirtualcam.PixelFormat.RGB)
    except RuntimeError as error:
        raise ResourceError(f"--virtual-camera found no driver to use ({error}); {DRIVERS}") from error


class VirtualCamera:
    """An output that other programs see as a camera; frames for which it has no time are dropped."""

    def __init__(self, size: tuple[int, int], rate: float, make: MakeDevice = make_device) -> None:
        """size: (width, height). Raises ResourceError where the package or a driver is missing."""
        self._size = size
        self._device = make(size, rate)
        self.name = str(self._device.device)
        self._number = -1
        self._worker: Worker[np.ndarray] = Worker("virtual camera", self._device.send, depth=1)

    def show(self, shown: Shown, facts: Facts) -> None:
        """Hand over a new picture, without overlays."""
        if shown.number == self._number:
            return
        self._number = shown.number
        if self._worker.error is not None:
            raise ResourceError(f"the virtual camera {self.name} failed: {self._worker.error}") from self._worker.error
        fitting = shown.rgb.shape[:2] == self._size[::-1]
        rgb = shown.rgb if fitting else cv2.resize(shown.rgb, self._size, interpolation=cv2.INTER_AREA)
        self._worker.offer(np.ascontiguousarray(rgb))

    def close(self) -> None:
        """Give the device back."""
        self._worker.close()
        self._device.close()
