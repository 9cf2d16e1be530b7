"""The session: camera -> painter -> outputs. The painter has a thread of its own, so that window and keys never wait
for it.
"""

import logging
import statistics
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from nst_video.live.camera import Camera
from nst_video.live.desk import Desk, Setting
from nst_video.live.frames import Painter, Shown, StylePicture
from nst_video.live.outputs import Facts, Output

log = logging.getLogger(__name__)

TICK = 0.01  # seconds between two looks at the keyboard
TELL_EVERY = 0.5  # seconds between two times that information is drawn anew while no new picture comes
RECENT = 1.0  # seconds over which rate and latency are told
PAINTER_WITHIN = 30.0  # seconds that the end of a session waits for the frame being painted


class Polled(Protocol):
    """What has keys that must be asked for: the window."""

    def poll(self) -> None: ...


@dataclass(frozen=True)
class Statistics:
    """How a session went. Times in seconds, latencies from capture to display; dropped: frames of the camera that were
    never shown because a newer one was there.
    """

    frames: int
    seconds: float
    rate: float
    camera_rate: float
    latency_median: float
    latency_99: float
    dropped: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


class Meter:
    """When pictures were shown, and how old they were."""

    def __init__(self) -> None:
        self._moments, self._latencies = array("d"), array("f")
        self._recent: deque[tuple[float, float]] = deque()
        self.dropped = 0
        self._number: int | None = None

    def skip(self) -> None:
        """What the camera gives until the next picture was not to be shown."""
        self._number = None

    def add(self, shown: Shown, moment: float) -> None:
        """`shown` was on the display at `moment`, in seconds of time.monotonic()."""
        latency = moment - shown.captured
        self._moments.append(moment)
        self._latencies.append(latency)
        self._recent.append((moment, latency))
        if self._number is not None:
            self.dropped += shown.number - self._number - 1
        self._number = shown.number

    def recent(self, now: float) -> tuple[float, float]:
        """(pictures shown in a second, median latency in seconds) of late; zeros where nothing was shown."""
        while self._recent and self._recent[0][0] < now - RECENT:
            self._recent.popleft()
        if len(self._recent) < 2:
            return 0.0, self._recent[0][1] if self._recent else 0.0
        span = self._recent[-1][0] - self._recent[0][0]
        return (len(self._recent) - 1) / max(span, 1e-6), statistics.median(latency for _, latency in self._recent)

    def statistics(self, camera_rate: float) -> Statistics:
        """All of it."""
        frames = len(self._moments)
        seconds = self._moments[-1] - self._moments[0] if frames else 0.0
        median, most = np.quantile(self._latencies, (0.5, 0.99)) if frames else (0.0, 0.0)
        rate = (frames - 1) / seconds if seconds else 0.0
        return Statistics(frames, seconds, rate, camera_rate, float(median), float(most), self.dropped)


class Pace:
    """Makes a loop run at most `rate` times a second, evenly."""

    def __init__(self, rate: float) -> None:
        self._interval, self._due = 1 / rate, time.monotonic()

    def wait(self, stop: threading.Event) -> None:
        """Wait until the next turn is due; a turn that came late does not make the following ones hurry."""
        now = time.monotonic()
        stop.wait(max(self._due - now, 0))
        self._due = max(self._due, now - self._interval) + self._interval


class Painting:
    """The painter at work in its thread: always on the newest frame of the camera, `rate` times a second at most."""

    def __init__(
        self,
        camera: Camera,
        painter: Painter,
        desk: Desk,
        styles: Callable[[], tuple[StylePicture, ...]],
        *,
        size: tuple[int, int],
        rate: float,
    ) -> None:
        self._camera, self._painter, self._desk, self._styles = camera, painter, desk, styles
        self._size, self._pace = size, Pace(rate)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._shown: Shown | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nst-video painter", daemon=True)
        self._thread.start()

    def newest(self, after: int, timeout: float) -> Shown | None:
        """The newest painted frame whose number is above `after`; None where none comes within `timeout` seconds.

        Raises what the painter or the camera's thread raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._is_newer(after), timeout)
            if self._error is not None:
                raise self._error
            return self._shown if self._is_newer(after) else None

    def close(self) -> None:
        """End, after the frame that is being painted."""
        self._stop.set()
        self._thread.join(PAINTER_WITHIN)
        if self._thread.is_alive():
            log.warning("the painter does not come to an end; it is left")

    def _is_newer(self, number: int) -> bool:
        return self._shown is not None and self._shown.number > number

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _step(self) -> None:
        setting = self._desk.setting
        if setting.view.frozen and self._shown is not None:
            self._stop.wait(TICK)
            return
        self._pace.wait(self._stop)
        self._camera.check()
        frame = self._camera.newest(after=self._shown.number if self._shown else -1, timeout=0.1)
        if frame is None or self._stop.is_set():
            return
        shown = self._painter.paint(frame, setting.look, self._styles(), self._size)
        with self._changed:
            self._shown = shown
            self._changed.notify_all()


@contextmanager
def closing_all(outputs: Sequence[Output]) -> Iterator[None]:
    """Close every output at the end, last one first, also where one of them cannot be closed in good order."""
    errors: list[BaseException] = []
    try:
        yield
    finally:
        for output in reversed(outputs):
            try:
                output.close()
            except Exception as error:
                log.warning("%s could not be closed: %s", type(output).__name__, error)
                errors.append(error)
    if errors:
        raise errors[0]


class Session:
    """A session: shows what the painter makes of the camera until the desk, or `stop`, says that it is over."""

    def __init__(
        self,
        camera: Camera,
        painter: Painter,
        desk: Desk,
        styles: Callable[[], tuple[StylePicture, ...]],
        outputs: Sequence[Output],
        *,
        size: tuple[int, int],
        rate: float,
        window: Polled | None = None,
        recorder: Any = None,
    ) -> None:
        """size: (width, height) of the pictures shown. window and recorder are among the outputs: the one has keys to
        be asked for, the other can say what is being recorded. The camera must have been started.
        """
        self._camera, self._painter, self._desk, self._styles = camera, painter, desk, styles
        self._outputs, self._window, self._recorder = tuple(outputs), window, recorder
        self._size, self._rate = size, rate
        self.meter = Meter()

    def run(self, stop: Callable[[], bool] = lambda: False) -> Statistics:
        """Run it. Whatever ends it, nothing is being painted any more when it returns; the outputs are still open."""
        painting = Painting(self._camera, self._painter, self._desk, self._styles, size=self._size, rate=self._rate)
        try:
            self._show_all(painting, stop)
        finally:
            painting.close()
        return self.meter.statistics(self._camera.rate)

    def _show_all(self, painting: Painting, stop: Callable[[], bool]) -> None:
        shown: Shown | None = None
        told: tuple[Setting, str] | None = None
        drawn, number = 0.0, -1
        while not stop():
            if self._window is not None:
                self._window.poll()
            setting = self._desk.setting
            if setting.view.quit:
                return
            new = painting.newest(after=number, timeout=TICK)
            number = new.number if new else number
            if setting.view.frozen and shown is not None:
                new = None  # what was being painted when the picture was frozen is never shown
                self.meter.skip()
            facts = self._facts(setting)
            now = (setting, facts.message)
            shown = new or shown
            if shown is None or (new is None and now == told and facts.time - drawn < TELL_EVERY):
                continue
            for output in self._outputs:
                output.show(shown, facts)
            told, drawn = now, time.monotonic()
            if new is not None:
                self.meter.add(new, drawn)

    def _facts(self, setting: Setting) -> Facts:
        now = time.monotonic()
        rate, latency = self.meter.recent(now)
        messages = (self._camera.message, *(getattr(output, "message", "") for output in self._outputs))
        return Facts(
            time=now,
            setting=setting,
            rate=rate,
            camera_rate=self._camera.rate,
            latency=latency,
            dropped=self.meter.dropped,
            recording=self._recorder.file if self._recorder else "",
            lost=self._recorder.lost if self._recorder else 0,
            message=next(filter(None, messages), ""),
            styles=tuple(picture.name for picture in self._styles()),
        )
