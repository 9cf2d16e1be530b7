"""The camera: a thread that always has the latest frame, of a device or of a file that plays like one.

A device is opened and read in that thread alone, because drivers block; whoever waits for it waits for a limited time.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nst_video.errors import InputError, NstVideoError, ResourceError
from nst_video.live.frames import Captured
from nst_video.media.guarded import look
from nst_video.media.probe import probe
from nst_video.media.survey import Request
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import scaled_size
from nst_video.options import OutputOptions

log = logging.getLogger(__name__)

FIRST_FRAME_WITHIN = 20.0  # seconds: some cameras warm up for ten
SILENT_AFTER = 1.5  # seconds without a frame that a person should be told of
RETRY_EVERY = 1.0  # seconds
RATE_OVER = 2.0  # seconds of which the frame rate is the mean
GIVEN_UP_AFTER = 1.0  # seconds that closing waits for a driver
LARGEST_SIDE = 1280  # pixels of a file's frames: what a camera gives, too
LATE = 0.5  # seconds that a file may lag behind its clock before the clock is set anew
USUAL_WIDTHS = (640, 1280, 1920)  # pixels, at 16:9; a device takes the nearest that it has
DEVICES = Path("/dev")  # where Linux has its cameras, as video0 and so on

# Frames, uint8 (H, W, 3) RGB, as they come, until the event is set. Ends, or raises, when no more will come.
Feed = Callable[[threading.Event], Generator[np.ndarray, None, None]]


class Capture(Protocol):
    """What is asked of a device: the part of cv2.VideoCapture that is used here."""

    def isOpened(self) -> bool: ...
    def set(self, what: int, value: float) -> bool: ...
    def read(self) -> tuple[bool, Any]: ...
    def release(self) -> None: ...


class Camera:
    """Has the newest frame of `feed`, and begins the feed anew as long as it ends or fails. Close it, or use `with`."""

    def __init__(self, feed: Feed, name: str, *, retry_every: float = RETRY_EVERY) -> None:
        """name: what a person calls it, such as "camera 0"."""
        self.name = name
        self._feed, self._retry_every = feed, retry_every
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._frame: Captured | None = None
        self._trouble: BaseException | None = None
        self._times: deque[float] = deque()
        self._thread = threading.Thread(target=self._run, name="nst-video camera", daemon=True)

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, within: float = FIRST_FRAME_WITHIN) -> Captured:
        """The first frame. Raises what stands against it: InputError where there is no such camera, ResourceError where
        it is busy or gives no picture.
        """
        self._thread.start()
        end = time.monotonic() + within
        while time.monotonic() < end:
            frame = self.newest(after=-1, timeout=0.1)
            if frame is not None:
                return frame
            if self._trouble is not None:
                raise self._trouble
        raise ResourceError(
            f"{self.name} gave no picture within {within:.0f} s; close other programs that use it, or plug it in again"
        )

    def newest(self, after: int, timeout: float) -> Captured | None:
        """The newest frame whose number is above `after`; None where none comes within `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_newer(after) or self._broken, timeout)
            return self._frame if self._is_newer(after) else None

    @property
    def rate(self) -> float:
        """Frames that it gave in a second of late; 0 where too few have come."""
        with self._changed:
            times = [moment for moment in self._times if moment > time.monotonic() - RATE_OVER]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 else 0.0

    @property
    def message(self) -> str:
        """What a person should know: that no frames come, and why; "" while they do."""
        trouble, frame = self._trouble, self._frame
        if trouble is not None:
            return f"{trouble} (waiting for it)"
        silent = frame is not None and time.monotonic() - frame.time > SILENT_AFTER
        return f"{self.name} gives no picture; waiting for it" if silent else ""

    def check(self) -> None:
        """Raises what no waiting makes good: a fault of this program."""
        if self._broken:
            assert self._trouble is not None
            raise self._trouble

    def close(self) -> None:
        """End the thread; one that a driver holds is left behind, it cannot keep the program from ending."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(GIVEN_UP_AFTER)
            if self._thread.is_alive():
                log.debug("%s does not come back from its driver; it is left", self.name)

    @property
    def _broken(self) -> bool:
        return self._trouble is not None and not isinstance(self._trouble, NstVideoError)

    def _is_newer(self, number: int) -> bool:
        return self._frame is not None and self._frame.number > number

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(self._feed(self._stop)) as frames:
                    for rgb in frames:
                        self._take(rgb)
                        if self._stop.is_set():
                            return
                if not self._stop.is_set():
                    self._say(ResourceError(f"{self.name} gives no more pictures"))
            except NstVideoError as error:
                self._say(error)
            except Exception as error:  # raised by `check` in the thread that waits for frames
                self._say(error)
                return
            self._stop.wait(self._retry_every)

    def _take(self, rgb: np.ndarray) -> None:
        now = time.monotonic()
        with self._changed:
            if self._trouble is not None and self._frame is not None:
                log.info("%s is back", self.name)
            self._trouble = None
            self._frame = Captured(rgb, self._frame.number + 1 if self._frame else 0, now)
            self._times.append(now)
            while self._times[0] < now - RATE_OVER:
                self._times.popleft()
            self._changed.notify_all()

    def _say(self, error: BaseException) -> None:
        with self._changed:
            if self._trouble is None and self._frame is not None:
                log.warning("%s", error)
            self._trouble = error
            self._changed.notify_all()


# ---------------------------------------------------------------------------------------------- where frames come from


def is_device(camera: str) -> bool:
    """Whether this names a device: a number, or a path such as /dev/video2; anything else is a file."""
    return camera.isdecimal() or Path(camera).is_char_device() or camera.startswith(f"{DEVICES}/video")


def open_camera(camera: str, width: int, rate: float) -> Camera:
    """The camera of that number, device path or file, not yet started. width (pixels) and rate (frames/s) are asked
    for; a device gives what it has.
    """
    if is_device(camera):
        name = f"camera {camera}"
        return Camera(device_feed(camera, name, width=width, rate=rate), name)
    return Camera(file_feed(camera), camera)


def open_capture(camera: str) -> Capture:
    """OpenCV's capture of a device, without the lines that OpenCV writes when it cannot."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    backend = cv2.CAP_V4L2 if DEVICES.is_dir() and os.name == "posix" and _has_v4l() else cv2.CAP_ANY
    capture: Capture = cv2.VideoCapture(int(camera) if camera.isdecimal() else camera, backend)
    return capture


def device_feed(
    camera: str, name: str, *, width: int, rate: float, open_capture: Callable[[str], Capture] = open_capture
) -> Feed:
    """The frames of a device, by number or path."""

    def feed(stop: threading.Event) -> Generator[np.ndarray, None, None]:
        import cv2

        capture = open_capture(camera)
        try:
            if not capture.isOpened():
                raise cannot_open(camera, name)
            _ask(capture, width, rate)
            first = True
            while not stop.is_set():
                with suppress(cv2.error):  # of a driver that gives half a picture: the same as none
                    good, bgr = capture.read()
                    if good and bgr is not None:
                        first = False
                        yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                        continue
                break
            if not stop.is_set():
                raise _no_picture(name, first)
        finally:
            capture.release()

    return feed


def _ask(capture: Capture, width: int, rate: float) -> None:
    """For compressed pictures first: many cameras reach their rate at larger sizes only so."""
    import cv2

    wide = next((usual for usual in USUAL_WIDTHS if usual >= width), USUAL_WIDTHS[-1])
    for what, value in (
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, wide),
        (cv2.CAP_PROP_FRAME_HEIGHT, wide * 9 // 16),
        (cv2.CAP_PROP_FPS, max(rate, 30)),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        capture.set(what, value)


def _no_picture(name: str, first: bool) -> ResourceError:
    if first:
        return ResourceError(f"{name} gives no picture; close other programs that use it, or plug it in again")
    return ResourceError(f"{name} was unplugged or taken by another program")


def cannot_open(camera: str, name: str, folder: Path = DEVICES) -> NstVideoError:
    """Why a device could not be opened, as far as that can be known, and what to do."""
    others = "a video file works as a camera too: --camera FILE"
    if not (folder.is_dir() and _has_v4l()):
        return ResourceError(
            f"{name} cannot be opened: it is not there, another program uses it, or this one may not use cameras "
            f"(see the system's privacy settings); try another number with --camera; {others}"
        )
    device = folder / f"video{camera}" if camera.isdecimal() else Path(camera)
    if not device.exists():
        there = sorted(str(path) for path in folder.glob("video*"))
        found = f"there are {', '.join(there)}" if there else "this machine has none; plug one in"
        return InputError(f"{name} is not there ({device}); {found}; {others}")
    if not os.access(device, os.R_OK | os.W_OK):
        return ResourceError(
            f"{name} may not be used by you ({device}: permission denied); join the group that owns it, usually video"
        )
    return ResourceError(
        f"{name} cannot be opened: another program uses it, or {device} gives no pictures; close that program, "
        "or choose another with --camera"
    )


def _has_v4l() -> bool:
    return os.uname().sysname == "Linux" if hasattr(os, "uname") else False


def check_file(path: str) -> None:
    """Look at a file in a process of its own before it is played. Raises what stands against it."""
    with look(Request(path, (), OutputOptions(on_error="hold"), cut_threshold=0)) as found:
        found.finish()


def file_feed(path: str, check: Callable[[str], None] = check_file) -> Feed:
    """A file as a camera: its frames at their times, over and over, long side at most LARGEST_SIDE."""
    checked = False

    def feed(stop: threading.Event) -> Generator[np.ndarray, None, None]:
        nonlocal checked
        if not checked:
            check(path)
            checked = True
        size = scaled_size(probe(path), LARGEST_SIDE)
        clock = _Clock(stop)
        while not stop.is_set():
            yield from _played(path, size, clock)

    return feed


def _played(path: str, size: tuple[int, int], clock: "_Clock") -> Generator[np.ndarray, None, None]:
    with VideoReader(path, size=size, on_error="hold", batch=1) as reader:
        clock.begin()
        for frames in reader:
            clock.wait_until(frames.times[0], (frames.end - frames.pts[0]) * frames.time_base)
            if clock.stop.is_set():
                return
            yield frames.rgb[0]


class _Clock:
    """When the frames of a file are due, from its first one on; each round begins where the one before ends."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._next: float | None = None  # when the next round begins; the first one begins with its first frame
        self._first: Fraction | None = None
        self._begun = 0.0

    def begin(self) -> None:
        """The next frame is the first of a round."""
        self._first = None

    def wait_until(self, moment: Fraction, lasts: Fraction) -> None:
        """Wait until this frame is due. moment: its time in the file; lasts: seconds until it is over."""
        if self._first is None:
            self._first, self._begun = moment, time.monotonic() if self._next is None else self._next
        due = self._begun + float(moment - self._first)
        late = time.monotonic() - due
        if late > LATE:  # decoding is too slow, or the machine slept: go on from here
            self._begun += late
            due += late
        self.stop.wait(max(due - time.monotonic(), 0))
        self._next = due + float(lasts)
