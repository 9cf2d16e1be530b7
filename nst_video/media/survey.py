"""The one look at everything that comes from outside, before a render is planned: what the input is, whether the style
pictures can be read, and a pass over the part to render for the frames' times and the cuts.

`guarded.py` runs it in a process of its own.
"""

import io
import logging
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from nst_video.errors import InputError, UsageError
from nst_video.media.codecs import CONTAINERS
from nst_video.media.pictures import DEFAULT_MAX_PIXELS, READ_SUFFIXES, picture_size, read_picture
from nst_video.media.probe import probe
from nst_video.media.sequences import is_pattern
from nst_video.media.shots import CutFinder
from nst_video.media.soundtrack import Heard, Song, make_companions
from nst_video.media.streams import Cut
from nst_video.media.treatments import HOLDS
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import VideoInfo, scaled_size
from nst_video.options import OutputOptions
from nst_video.plain import fraction_of, plain, tuples

log = logging.getLogger(__name__)

SURVEY_SIDE = 192  # long side in pixels of the pass that looks for cuts: enough to tell pictures apart, quick to decode
GUIDE_SIDE = 256  # long side in pixels at which a guide is looked at


@dataclass(frozen=True)
class Request:
    """What to look at: the input, the part of it that `options` choose, and the style pictures; `output` is what the
    result will be written to, where there will be one; `guide` a picture or video that is dreamed of; `music` what is
    heard in place of the input's sound, and how that begins and ends.
    """

    input: str
    styles: tuple[str, ...]
    options: OutputOptions
    cut_threshold: float
    output: str = ""
    guide: str | None = None
    music: str | None = None
    music_end: str = "stop"
    music_start: Fraction = Fraction(0)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        data: dict[str, Any] = plain(asdict(self))
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Request":
        """What `to_json` wrote."""
        exact = {"options": OutputOptions(**tuples(data["options"])), "music_start": fraction_of(data["music_start"])}
        return cls(**tuples(data) | exact)


@dataclass(frozen=True)
class Survey:
    """What the pass over the input found; pts in units of `time_base` seconds, and when the last frame is over; shots
    as (first, last + 1); the song that the music makes.
    """

    time_base: Fraction
    pts: tuple[int, ...]
    end: int
    shots: tuple[tuple[int, int], ...]
    song: Song | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        data: dict[str, Any] = plain(asdict(self))
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Survey":
        """What `to_json` wrote."""
        song = data["song"] and Song.from_json(data["song"])
        return cls(fraction_of(data["time_base"]), tuple(data["pts"]), data["end"], tuples(data["shots"]), song)


def probe_input(path: str | os.PathLike[str], options: OutputOptions) -> VideoInfo:
    """What the input is; UsageError for a --rate or a --duration where the input has times of its own, InputError for
    one that is too long by what it says of itself.
    """
    info = probe(path, max_pixels=options.max_pixels, rate=options.rate, duration=options.duration)
    if options.duration is not None and info.kind != "picture":
        raise UsageError(f"--duration is for a single picture; {info.path} is a {info.kind}: choose a part with --end")
    held = info.kind == "picture" and options.duration is not None
    if options.rate is not None and info.kind != "sequence" and not held:
        advice = "; give --duration as well to make a video of it" if info.kind == "picture" else ""
        raise UsageError(f"--rate is for sequences of pictures; {info.path} is a {info.kind}{advice}")
    if options.still is None and info.duration is not None:
        end = info.duration if options.end is None else min(options.end, info.duration)
        _check_duration(info, end - (options.start or 0), options)
    return info


def with_duration(options: OutputOptions, song: Song | None, path: str) -> OutputOptions:
    """The options with the music's duration for a single picture that was given none of its own."""
    is_picture = Path(path).suffix.lower() in READ_SUFFIXES and not is_pattern(path)
    if song is None or options.duration is not None or options.still is not None or not is_picture:
        return options
    return replace(options, duration=song.seconds)


def part_reader(
    path: str | os.PathLike[str],
    options: OutputOptions,
    *,
    size: tuple[int, int],
    start: Fraction | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> VideoReader:
    """The reader of the part that is rendered, as (width, height) pictures; of one of its frames on where `start` is
    that frame's time.
    """
    return VideoReader(
        path,
        size=size,
        start=options.start if start is None else start,
        end=options.end,
        still=options.still,
        stride=options.stride,
        on_error=options.on_error,
        max_pixels=options.max_pixels,
        rate=options.rate,
        duration=options.duration,
        on_step=on_step,
    )


def check_styles(request: Request, on_picture: Callable[[str, int], None]) -> None:
    """Decode every style picture, after telling `on_picture` its name and then its size in pixels as well (0 before);
    InputError for one that cannot be used.
    """
    for path in request.styles:
        _decoded(path, request.options.max_pixels, on_picture)


def small_picture(path: str, side: int, on_picture: Callable[[str, int], None]) -> np.ndarray:
    """A picture as uint8 (H, W, 3) sRGB with a long side of `side` pixels at most. `on_picture` and errors as in
    `check_styles`.
    """
    rgb = _decoded(path, DEFAULT_MAX_PIXELS, on_picture)
    height, width = rgb.shape[:2]
    if max(height, width) <= side:
        return rgb
    return cv2.resize(rgb, scaled_size((width, height), side, even=False), interpolation=cv2.INTER_AREA)


def _decoded(path: str, max_pixels: int, on_picture: Callable[[str, int], None]) -> np.ndarray:
    on_picture(path, 0)
    on_picture(path, math.prod(picture_size(path, max_pixels=max_pixels)))
    return read_picture(path, max_pixels=max_pixels)


def check_guide(request: Request, on_step: Callable[[], None] = lambda: None) -> None:
    """Decode every frame of the guide as the render will; InputError for one that cannot be used."""
    if request.guide is not None:
        with open_guide(request.guide, request.options, on_step) as reader:
            for _ in reader:
                pass


def open_guide(path: str, options: OutputOptions, on_step: Callable[[], None] = lambda: None) -> VideoReader:
    """The reader of a guide, small."""
    info = probe(path, max_pixels=options.max_pixels)
    return VideoReader(path, size=scaled_size(info, GUIDE_SIDE), max_pixels=options.max_pixels, on_step=on_step)


def survey(info: VideoInfo, request: Request, on_step: Callable[[], None] = lambda: None) -> Survey:
    """Decode the part to render once, small: time base, exact pts, shots. Holds one batch of small frames at a time."""
    options = request.options
    finder = CutFinder(request.cut_threshold if info.kind != "picture" else 0)  # a picture that lasts has no cuts
    pts: list[int] = []
    end = info.start_pts
    size = scaled_size(info, SURVEY_SIDE)
    with part_reader(info.path, options, size=size, on_step=on_step) as reader:
        for batch in reader:
            pts.extend(batch.pts)
            end = batch.end
            if options.still is None:
                _check_duration(info, (end - pts[0]) * info.time_base, options)
            for rgb in batch.rgb:
                finder.step(rgb)
    return Survey(info.time_base, tuple(pts), end, finder.shots())


def rehearse(info: VideoInfo, request: Request, found: Survey, on_step: Callable[[], None] = lambda: None) -> None:
    """Carry sound, subtitles and the rest to nowhere as the render will carry them to its output, so that what cannot
    be decoded or written is found before the first frame and not after the last. InputError where it cannot.
    """
    first_pts = found.pts[0]
    suffix, options, base = Path(request.output).suffix.lower(), request.options, info.time_base
    if suffix not in HOLDS:
        return
    last = None if options.end is None else info.start_pts * base + options.end
    cut = Cut(
        None if options.start is None else first_pts * base,
        last,
        (info.origin_pts if options.start is None else first_pts) * base,
    )
    output = av.open(Nowhere(), "w", format=CONTAINERS[suffix], container_options={"avoid_negative_ts": "disabled"})
    song = found.song
    music = None if song is None else Heard.under(song, (*found.pts, found.end), base)
    companions = make_companions(info, output, suffix, music=music, on_step=on_step)
    try:
        if companions.carriers or music:
            companions.start(cut, _Painted())
            companions.mux_until(None)
            companions.finish(request.output)
    finally:
        companions.close()


class _Painted:
    """Stands for the stream of pictures, which is not there yet."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.disposition = 0


class Nowhere(io.RawIOBase):
    """A file that forgets what is written to it, but not where."""

    def __init__(self) -> None:
        super().__init__()
        self.place = self.end = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Forget the bytes; returns their number."""
        count = memoryview(data).nbytes
        self.place += count
        self.end = max(self.end, self.place)
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; returns it."""
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.end}[whence]
        return self.place

    def tell(self) -> int:
        """The place."""
        return self.place


def _check_duration(info: VideoInfo, seconds: Fraction, options: OutputOptions) -> None:
    if seconds > options.max_duration:
        raise InputError(
            f"{info.path} is {float(seconds):g} s long; at most {float(options.max_duration):g} s are rendered "
            "(choose a part with --start and --end, or raise --max-duration)"
        )
