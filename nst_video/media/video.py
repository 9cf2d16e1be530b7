"""Frames in and out: the reader and the writer of everything that moves. Both work on background threads, so the caller
never waits for a codec.
"""

import math
import os
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from types import TracebackType
from typing import Self

import numpy as np

from nst_video.ahead import Ahead
from nst_video.errors import InputError, UsageError
from nst_video.media.channel import Channel
from nst_video.media.color_tags import ColorTags
from nst_video.media.conversion import ToRgb
from nst_video.media.decode import BRIEF, Span, decoded
from nst_video.media.destination import check_output
from nst_video.media.output import open_output
from nst_video.media.probe import probe
from nst_video.media.sequences import sequence_frames
from nst_video.media.soundtrack import Heard
from nst_video.media.videoinfo import Chapter, StreamInfo, VideoInfo, scaled_size

__all__ = [
    "Chapter",
    "ColorTags",
    "Frames",
    "StreamInfo",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "check_output",
    "probe",
    "scaled_size",
]

ON_ERROR = ("fail", "hold")
BATCHES_AHEAD = 2  # decoded while the caller works on one
FRAMES_BEHIND = 16  # handed over and not yet encoded
LARGEST_QUEUE = 1 << 27  # bytes that wait on either side; pictures of 4K fill it before the counts above


@dataclass(frozen=True)
class Frames:
    """Consecutive frames: uint8 (N, H, W, 3) RGB, one pts each in units of `time_base` seconds; at `end` the last of
    them is over.
    """

    rgb: np.ndarray
    pts: tuple[int, ...]
    time_base: Fraction
    end: int

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[3] != 3 or self.rgb.dtype != np.uint8 or len(self.pts) != len(self.rgb):
            raise ValueError(
                f"frames are uint8 (N, H, W, 3) with N pts; "
                f"got {self.rgb.dtype} {self.rgb.shape} and {len(self.pts)} pts"
            )

    @property
    def times(self) -> tuple[Fraction, ...]:
        """Presentation times in seconds, exact."""
        return tuple(pts * self.time_base for pts in self.pts)


class VideoReader:
    """Iterates over batches of frames of a video, a gif, an image sequence or a picture, decoded ahead on a background
    thread.

    `size` is (width, height) as displayed (default: the input's, made even). `start` and `end` are seconds from the
    first frame and cut as editors do: the frame that is on screen at `start` is the first one and has that time, the
    last one is over at `end`; one that would be seen for less than a millisecond is left out. `still`, in their place,
    gives the one frame that is on screen then, with its own time. `stride` n takes every n-th frame. With on_error
    "fail" a damaged file raises InputError from the iteration, with "hold" the last good frame stands in and a line is
    logged. `on_step` is called, on that thread, for every packet or picture that is read. It can be iterated over once;
    use it in a `with` or close it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: tuple[int, int] | None = None,
        start: Fraction | float | None = None,
        end: Fraction | float | None = None,
        still: Fraction | float | None = None,
        stride: int = 1,
        on_error: str = "fail",
        batch: int = 8,
        max_pixels: int | None = None,
        rate: Fraction | None = None,
        duration: Fraction | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        if on_error not in ON_ERROR:
            raise UsageError(f"on_error {on_error!r} is unknown; it is one of {', '.join(ON_ERROR)}")
        if stride < 1 or batch < 1:
            raise UsageError(f"stride and batch are at least 1; got {stride} and {batch}")
        self.info = probe(path, max_pixels=max_pixels, rate=rate, duration=duration)
        if self.info.truncated and on_error == "fail":
            raise InputError(
                f"{path} is truncated: the file ends before its last frames; use what is there with --on-error hold"
            )
        self.size = size or scaled_size(self.info, "full")
        self.batch = batch
        self.on_error = on_error
        self.on_step = on_step
        self._span = self._span_of(start, end, still, stride)
        self._check_span(start, end, still)
        self._ahead: Ahead[Frames] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frames]:
        if self._ahead is not None:
            raise UsageError("a VideoReader can be iterated over once; make another")
        self._ahead = Ahead(self._batches(), depth=_depth(BATCHES_AHEAD, self.batch, self.size))
        with self._ahead as batches:
            yield from batches

    def close(self) -> None:
        """Stops decoding and frees the file; what was not yet delivered is lost."""
        if self._ahead is not None:
            self._ahead.__exit__(None, None, None)

    def _span_of(
        self,
        start: Fraction | float | None,
        end: Fraction | float | None,
        still: Fraction | float | None,
        stride: int,
    ) -> Span:
        def units(seconds: Fraction | float | None, unless: float) -> Fraction | float:
            return unless if seconds is None else self.info.start_pts + Fraction(seconds) / self.info.time_base

        first = units(start if still is None else still, -math.inf)
        brief = BRIEF / self.info.time_base
        return Span(first, units(end, math.inf), brief, stride, still=still is not None)

    def _check_span(
        self, start: Fraction | float | None, end: Fraction | float | None, still: Fraction | float | None
    ) -> None:
        for name, time in (("start", start), ("still", still)):
            if time is not None and time < 0:
                raise UsageError(f"{name} {float(time):g} s is before the beginning; it is at least 0")
        if end is not None and end <= (start or 0):
            raise UsageError(f"end {float(end):g} s is not after start {float(start or 0):g} s")

    def _batches(self) -> Generator[Frames, None, None]:
        pictures = self._pictures()
        while batch := tuple(islice(pictures, self.batch)):
            rgb, pts, over = zip(*batch, strict=True)
            yield Frames(np.stack(rgb), pts, self.info.time_base, over[-1])

    def _pictures(self) -> Iterator[tuple[np.ndarray, int, int]]:
        convert = ToRgb(self.info, self.size)
        before: tuple[object, np.ndarray] | None = None  # a picture that lasts is converted once
        source = decoded if self.info.kind in ("video", "gif") else sequence_frames
        for frame, pts, over in source(self.info, self._span, self.on_error, self.on_step):
            rgb = before[1] if before is not None and before[0] is frame else convert(frame)
            before = frame, rgb
            yield rgb, pts, over


class VideoWriter:
    """Writes frames to a video, a gif, an image sequence or a picture, by the suffix; encodes on a background thread.

    `info` is what probe found in the source: its time base, colour tags, sample aspect ratio, sound, subtitles,
    chapters and metadata are carried. With `start`/`end` (seconds, as given to the reader) the output begins at its
    first frame; with `music` that is heard in place of the source's sound. `until`: pts at which the last frame is over
    (`Frames.end`), by default as long after it as the one before. Everything goes to a temporary name, is verified, and
    is renamed when the `with` block ends without an error; otherwise nothing is left behind.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        info: VideoInfo,
        size: tuple[int, int],
        codec: str | None = None,
        crf: float = 18,
        preset: str = "medium",
        overwrite: bool = False,
        start: Fraction | float | None = None,
        end: Fraction | float | None = None,
        until: int | None = None,
        music: Heard | None = None,
    ) -> None:
        read = ((info.path, "the input itself"),)
        kind = check_output(path, sources=read, codec=codec, crf=crf, preset=preset, overwrite=overwrite)
        self.path = os.fspath(path)
        self.size = size
        settings = {"codec": codec, "crf": crf, "preset": preset, "start": start, "end": end, "until": until}
        self._output = open_output(kind, self.path, info=info, size=size, music=music, **settings)
        self._last_pts: int | None = None
        self._channel: Channel[tuple[np.ndarray, int]] = Channel(_depth(FRAMES_BEHIND, 1, size))
        self._thread = threading.Thread(target=self._encode, name="nst-video encode", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def write(self, rgb: np.ndarray, pts: tuple[int, ...] | list[int] | int) -> None:
        """uint8 (N, H, W, 3), or (H, W, 3) with one pts, in units of the source's time base, rising. Raises what the
        encoder raised.
        """
        pictures = rgb[None] if rgb.ndim == 3 else rgb
        times = (pts,) if isinstance(pts, int) else tuple(pts)
        width, height = self.size
        if pictures.dtype != np.uint8 or pictures.shape != (len(times), height, width, 3):
            raise ValueError(
                f"expected uint8 ({len(times)}, {height}, {width}, 3), one picture for each pts; "
                f"got {rgb.dtype} {rgb.shape}"
            )
        for picture, time in zip(pictures, times, strict=True):
            if self._last_pts is not None and time <= self._last_pts:
                raise ValueError(f"pts must rise; got {time} after {self._last_pts}")
            self._last_pts = time
            self._channel.put((picture.copy(), time))  # the caller may reuse its array

    def close(self) -> None:
        """Encodes what is left, verifies the file and gives it its name. Raises InputError if no frame was written."""
        try:
            self._channel.finish()
            self._thread.join()
            self._channel.check()
            if self._last_pts is None:
                raise InputError(f"no frames to write to {self.path}")
            self._output.verify()
            self._output.publish()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Stops and removes what was written so far; nothing appears under the output's name."""
        self._channel.close()
        self._thread.join()
        self._output.discard()

    def _encode(self) -> None:
        try:
            for picture, pts in self._channel:
                self._output.write(picture, pts)
            if not self._channel.closed:
                self._output.finish()
        except BaseException as error:
            self._channel.close(error)


def _depth(most: int, frames: int, size: tuple[int, int]) -> int:
    """How many items of `frames` frames wait at once: at most `most`, fewer where frames are large, at least one."""
    return max(1, min(most, LARGEST_QUEUE // (frames * size[0] * size[1] * 3)))
