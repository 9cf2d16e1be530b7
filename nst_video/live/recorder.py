"""Recordings and snapshots of a live session.

A recording is written as Matroska under the name NAME.unfinished.mkv, which can be played whatever becomes of this
program, and is copied into its final file, packet by packet, when it ends.
"""

import logging
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np

from nst_video.errors import NstVideoError, ResourceError, UsageError
from nst_video.files import NOTHING_KEPT, discard, disk_errors, settle_new, temporary
from nst_video.live.desk import Desk
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.worker import Worker
from nst_video.media.codecs import CONTAINERS
from nst_video.media.color_tags import SRGB
from nst_video.media.destination import check_output
from nst_video.media.output import OWN_FILE, VideoOutput
from nst_video.media.pictures import write_picture
from nst_video.media.video import LARGEST_QUEUE
from nst_video.media.videoinfo import VideoInfo

log = logging.getLogger(__name__)

WAITING = 24  # frames that may wait for the encoder: a second
CLOCK = Fraction(1, 1000)  # seconds: the unit of Matroska, so that no time is rounded twice
# As little of the processor as possible, which belongs to the painter; without B-frames, so packets can be copied.
CODEC, PRESET, CRF = "libx264", "ultrafast", 20
UNFINISHED = ".unfinished.mkv"
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
TOLD = (NstVideoError, OSError, av.error.FFmpegError)  # ends a recording, and not the session
TIME_IN_NAMES = "live-%Y%m%d-%H%M%S"


def numbered(target: Path) -> Iterator[Path]:
    """The name itself, then with -2, -3 and so on before its suffix.

    >>> names = numbered(Path("a.mp4"))
    >>> str(next(names)), str(next(names))
    ('a.mp4', 'a-2.mp4')
    """
    yield target
    for number in count(2):
        yield target.with_name(f"{target.stem}-{number}{target.suffix}")


def check_recording(path: str) -> None:
    """Raises UsageError, before anything is opened, for a --record FILE that cannot be written or is there already."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--record {path}: cannot record {Path(path).suffix!r}; use {', '.join(SUFFIXES)}")
    if os.path.lexists(path):
        raise UsageError(f"--record {path}: the file exists, and a recording never replaces one; give another name")
    check_output(path, codec=CODEC, crf=CRF, preset=PRESET, overwrite=False)


def check_folder(folder: str) -> None:
    """Raises ResourceError for a --folder that is not there or cannot be written to."""
    if not os.path.isdir(folder):
        raise ResourceError(f"--folder {folder} is not a folder; make it first or choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"--folder {folder} is not writable; choose another")


class Recorder:
    """An output that records while the desk says so. What a recording meets, such as a full disk, ends it and is told;
    the session goes on.
    """

    def __init__(self, desk: Desk, folder: str = ".", first: str | None = None) -> None:
        """first: the file for the first recording; all others are named by their time, in `folder`."""
        self._desk, self._folder, self._first = desk, Path(folder), first
        self._recording: Recording | None = None
        self._ending: list[Recording] = []
        self._number = -1
        self.message = ""

    @property
    def file(self) -> str:
        """What is being recorded; "" while nothing is."""
        return str(self._recording.target) if self._recording else ""

    @property
    def lost(self) -> int:
        """Frames of this recording for which there was no time."""
        return self._recording.lost if self._recording else 0

    def show(self, shown: Shown, facts: Facts) -> None:
        """Begin, go on or end, as the desk says; overlays are not recorded."""
        self._hear()
        wanted = self._desk.setting.view.recording
        size = (shown.rgb.shape[1], shown.rgb.shape[0])
        if self._recording and not (wanted and self._recording.size == size):
            self._end()
        if wanted and self._recording is None:
            self._begin(size)
        if self._recording and shown.number != self._number:
            self._number = shown.number
            self._recording.write(shown.rgb, shown.captured)

    def close(self) -> None:
        """Finish what is being recorded, and wait for it."""
        self._end()
        for recording in self._ending:
            recording.close()
        self._hear()

    def _begin(self, size: tuple[int, int]) -> None:
        target = Path(self._first) if self._first else self._folder / (time.strftime(TIME_IN_NAMES) + ".mp4")
        self._first, self.message = None, ""
        self._recording = Recording(target, size)

    def _end(self) -> None:
        if self._recording is not None:
            self._recording.end()
            self._ending.append(self._recording)
            self._recording = None

    def _hear(self) -> None:
        """What became of the recordings that have ended; one that failed while it was wanted is wanted no more."""
        if self._recording is not None and self._recording.failed:
            self._desk.change(recording=False)
            self._end()
        for recording in [one for one in self._ending if one.ended]:
            self._ending.remove(recording)
            recording.check()
            if recording.outcome:
                self.message = recording.outcome


class Recording:
    """One recording: encoded, and finished, in a thread of its own."""

    def __init__(self, target: Path, size: tuple[int, int]) -> None:
        """size: (width, height) of its frames, even numbers."""
        self.target, self.size, self.lost = target, size, 0
        self.outcome = ""  # what a person must know about how it ended
        self._output: VideoOutput | None = None
        self._part = next(name for name in numbered(target.with_name(target.stem + UNFINISHED)) if not name.exists())
        self._begun: float | None = None
        self._last = -1
        depth = max(2, min(WAITING, LARGEST_QUEUE // (3 * size[0] * size[1])))
        self._worker: Worker[tuple[np.ndarray, int]] = Worker(
            "recording", self._encode, depth=depth, finish=self._finish
        )

    @property
    def failed(self) -> bool:
        """Whether it takes no more frames."""
        return self._worker.error is not None

    @property
    def ended(self) -> bool:
        """Whether all is done, and `outcome` known."""
        return self._worker.ended

    def write(self, rgb: np.ndarray, moment: float) -> None:
        """Take a frame of that moment (seconds of time.monotonic()); it is lost where the encoder is too far behind."""
        self._begun = moment if self._begun is None else self._begun
        pts = max(round((moment - self._begun) / CLOCK), self._last + 1)
        if self._worker.offer((rgb, pts)):
            self._last = pts
        else:
            self.lost += 1

    def end(self) -> None:
        """No more frames; does not wait."""
        self._worker.end()

    def close(self) -> None:
        """Wait until it is finished."""
        self._worker.close()

    def check(self) -> None:
        """Raises what is a fault of this program."""
        if self._worker.error is not None and not isinstance(self._worker.error, TOLD):
            raise self._worker.error

    def _encode(self, item: tuple[np.ndarray, int]) -> None:
        if self._output is None:
            self._output = _open(self.target, self._part, self.size)
        self._output.write(*item)

    def _finish(self) -> None:
        """Close the file and give it its name. What cannot be finished is left as it is, and said."""
        try:
            if self._output is None:
                raise self._worker.error or ResourceError(f"{self.target}: nothing came to be recorded")
            self._output.finish()
            self.target = _publish(self._part, self.target, self._output.pts)
            if self._worker.error is not None:
                raise self._worker.error
            log.info("recorded %s (%d frames, %d lost)", self.target, len(self._output.pts), self.lost)
        except TOLD as error:
            self.outcome = self._told(error)
            log.warning("%s", self.outcome)
            raise

    def _told(self, error: BaseException) -> str:
        if self._part.exists() and not self._part.stat().st_size:
            self._part.unlink()
        kept = next((path for path in (self.target, self._part) if path.exists()), None)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        what = reason.removesuffix(NOTHING_KEPT) if isinstance(error, NstVideoError) else f"{self.target}: {reason}"
        return f"recording ended: {what}; " + (f"what was recorded is in {kept}" if kept else "nothing was recorded")


def _open(target: Path, part: Path, size: tuple[int, int]) -> VideoOutput:
    info = VideoInfo(
        path=str(target),
        kind="video",
        width=size[0],
        height=size[1],
        time_base=CLOCK,
        average_rate=Fraction(25),
        color=SRGB,
        codec="",
        pixel_format="",
    )
    settings: dict[str, Any] = {"codec": CODEC, "crf": CRF, "preset": PRESET, "start": None, "end": None}
    with disk_errors(target):
        part.touch(exist_ok=False)  # FFmpeg makes it with the first packet, which is late to hear that it cannot
        output = VideoOutput(str(part), info=info, size=size, part=part, alone=True, **settings)
    # What is there after a crash is what was handed to the system: every packet, in short clusters.
    output.container.container_options.update(cluster_time_limit="500", flush_packets="1")
    return output


def _publish(part: Path, target: Path, pts: list[int]) -> Path:
    """The finished Matroska file under its name, in the container that its name asks for; returns that name."""
    if target.suffix.lower() == ".mkv":
        return settle_new(part, numbered(target))
    copied = temporary(target)
    try:
        with disk_errors(target):
            _copy_packets(part, copied, CONTAINERS[target.suffix.lower()])
            if _times(copied) != pts:
                raise ResourceError(f"{target} did not verify: its frames do not read back at their times")
            name = settle_new(copied, numbered(target))
    finally:
        discard(copied)
    discard(part)
    return name


def _copy_packets(part: Path, copied: Path, container: str) -> None:
    options = {"video_track_timescale": str(CLOCK.denominator)}
    with (
        av.open(_url(part), options=OWN_FILE) as source,
        av.open(_url(copied), "w", format=container, container_options=options) as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)


def _times(path: Path) -> list[int]:
    with av.open(_url(path), options=OWN_FILE) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [round((packet.pts or 0) * (packet.time_base or CLOCK) / CLOCK) for packet in packets]


def _url(path: Path) -> str:
    # Without the protocol FFmpeg would take a colon in the name for one.
    return "file:" + os.path.abspath(path)


class Snapshots:
    """An output that writes a PNG, named by its time, whenever one was asked for; overlays are not in it."""

    def __init__(self, folder: str = ".") -> None:
        self._folder, self._taken = Path(folder), 0
        self._worker: Worker[tuple[Path, np.ndarray]] = Worker("snapshots", self._write, depth=WAITING)
        self.message = ""

    def show(self, shown: Shown, facts: Facts) -> None:
        """Take the snapshots that were asked for since the last call, which are one."""
        asked = facts.setting.view.snapshots
        if asked != self._taken:
            self._taken = asked
            target = self._folder / (time.strftime(TIME_IN_NAMES) + ".png")
            if not self._worker.offer((target, shown.rgb)):
                self.message = "too many snapshots at once; one was left out"

    def close(self) -> None:
        """Wait for those that are being written."""
        self._worker.close()

    def _write(self, item: tuple[Path, np.ndarray]) -> None:
        target, rgb = item
        part = target.with_name(f".{temporary(target).name}{target.suffix}")
        try:
            write_picture(part, rgb)
            log.info("snapshot %s", settle_new(part, numbered(target)))
            self.message = ""
        except (NstVideoError, OSError) as error:
            self.message = f"no snapshot: {error}"
            log.warning("%s", self.message)
        finally:
            discard(part)
