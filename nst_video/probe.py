"""What a file holds, found out before any work is done; what cannot be used is refused here with one line."""

import logging
import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nst_video.color_tags import HDR_TRANSFERS, SRGB, UNSPECIFIED, ColorTags, resolve_tags
from nst_video.errors import InputError
from nst_video.pictures import DEFAULT_MAX_PIXELS
from nst_video.plain import fraction_of, plain, tuples
from nst_video.sequences import Sequence, find_sequence

log = logging.getLogger(__name__)

INDEX_TAIL = 64  # entries
DEFAULT_RATE = Fraction(25)  # frames/s of an image sequence, which has no timing of its own
VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,gif"
READABLE = "mp4, mov, mkv, webm, avi, ts and gif"
# Demuxers whose clock starts anywhere; what is made of them starts at zero.
FREE_CLOCK = frozenset({"mpegts"})
# Demuxers that know one duration for all frames of a stream, and by a tag where it ends ...
ONE_DURATION = frozenset({"matroska,webm"})
MKVMERGE_NOTE = "_STATISTICS_WRITING_APP"
# ... and those that know both of the stream itself.
MEASURED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})

# Titles in an unknown encoding are no reason to refuse a file; PyAV has let them pass by itself since version 19.
READING_NOTES: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

Kind = Literal["video", "gif", "sequence", "picture"]


@dataclass(frozen=True)
class StreamInfo:
    """A stream beside the one video stream that is painted."""

    index: int
    kind: str  # "audio", "subtitle", "data", "attachment", "video" (a second one, or a cover picture)
    codec: str
    language: str | None


@dataclass(frozen=True)
class Chapter:
    """Start and end in seconds of the file's clock."""

    start: Fraction
    end: Fraction
    title: str | None


@dataclass(frozen=True)
class VideoInfo:
    """What was found in a video, a gif, an image sequence or a picture. Sizes are as displayed, after rotation; times
    are exact.
    """

    path: str
    kind: Kind
    width: int
    height: int
    time_base: Fraction  # seconds per unit of pts
    average_rate: Fraction  # frames/s
    color: ColorTags
    codec: str
    pixel_format: str
    sample_aspect_ratio: Fraction = Fraction(1)  # of a displayed pixel, width / height
    rotation: int = 0  # degrees clockwise (0, 90, 180, 270), already in width and height; the reader turns the pixels
    mirrored: bool = False  # left-right, before the rotation
    start_pts: int = 0  # pts of the first frame; start and end count from it
    origin_pts: int = 0  # what the writer subtracts: not zero only where the clock starts anywhere (transport streams)
    duration: Fraction | None = None  # seconds, of the video stream where that is known
    end_pts: int | None = None  # where the container says that the video stream ends
    duration_of_file: Fraction | None = None  # seconds, from zero to the last end of any stream, as the header promises
    declared_frames: int | None = None
    bit_depth: int = 8
    interlaced: bool = False
    truncated: bool = False  # the file ends before the data its header promises
    container: str = ""
    streams: tuple[StreamInfo, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    files: tuple[str, ...] = field(default=(), repr=False)  # of a sequence, in order; a picture may last many frames
    max_pixels: int = DEFAULT_MAX_PIXELS  # the limit it was found under, which holds for every later reading too

    def usual(self, pts: int, before: int | None) -> int:
        """How long a frame at `pts` is shown of which nothing else is known: as long as the one at `before`, or one
        frame of the average rate; in units of the time base.
        """
        return max(pts - before if before is not None else round(1 / (self.average_rate * self.time_base)), 1)

    def last_end(self, pts: int, before: int | None, own: int, *, whole: bool) -> int:
        """When the last frame of the source is over, which is at `pts` and follows the one at `before`.

        own: how long its packet says it is, 0 where that says nothing; whole: nothing of the source is missing.
        """
        by_packet = pts + (own or self.usual(pts, before))
        if not whole or self.end_pts is None:
            return by_packet
        if self.end_pts > pts:
            return self.end_pts
        # Where frames are decoded in another order than they are shown, packets of mp4 last as long as decoding waits,
        # and its streams seem to end too early; but nothing lasts longer than the file.
        end_of_file = round((self.duration_of_file or 0) / self.time_base)
        return min(by_packet, end_of_file) if end_of_file > pts else by_packet

    def no_frames(self, end: int | None, *, still: bool) -> InputError:
        """What is to be raised for a part, or a time, without frames; `end`: of the last frame of all, where that was
        found.
        """
        seconds = self.duration if end is None else (end - self.start_pts) * self.time_base
        length = f"{float(seconds):.3f} s long" if seconds else "of unknown length"
        where = "no frame at that time" if still else "no frames between start and end"
        return InputError(f"{self.path} has {where}; it is {length}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; fractions are written as "n/d"."""
        data: dict[str, Any] = plain(asdict(self))
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "VideoInfo":
        """What `to_json` wrote."""
        exact = {name: fraction_of(data[name]) for name in _FRACTIONS if data[name] is not None}
        return cls(
            **tuples(data)
            | exact
            | {
                "color": ColorTags(**data["color"]),
                "streams": tuple(StreamInfo(**stream) for stream in data["streams"]),
                "chapters": tuple(
                    Chapter(fraction_of(one["start"]), fraction_of(one["end"]), one["title"])
                    for one in data["chapters"]
                ),
            }
        )


_FRACTIONS = ("time_base", "average_rate", "sample_aspect_ratio", "duration", "duration_of_file")


def probe(
    path: str | os.PathLike[str],
    *,
    max_pixels: int | None = None,
    rate: Fraction | None = None,
    duration: Fraction | None = None,
) -> VideoInfo:
    """What `path` holds: a video file, a gif, a picture, a folder of pictures or a numbered pattern such as
    `frames/%05d.png`.

    `max_pixels` bounds width x height (default 67 million); `rate` is that of a sequence (default 25 frames/s);
    with a `duration` in seconds a single picture is as many frames of that rate as begin within it.

    Raises InputError when the file is missing, holds no video that can be read, is HDR, has no frames, or is too large.
    """
    name = os.fspath(path)
    limit = max_pixels or DEFAULT_MAX_PIXELS
    sequence = find_sequence(name, limit)
    if sequence is not None:
        return _describe_sequence(name, sequence, rate or DEFAULT_RATE, limit, duration)
    with open_input(name, limit) as container:
        return _describe(name, container, limit)


@contextmanager
def open_input(path: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[InputContainer]:
    """A video opened for demuxing; see `open_media`."""
    if os.path.isdir(path):
        raise InputError(
            f"{path} is a folder without pictures; give a video ({READABLE}), a picture or a folder of pictures"
        )
    with open_media(path, max_pixels, formats=VIDEO_FORMATS, what="a video", readable=READABLE) as container:
        yield container


@contextmanager
def open_media(path: str, max_pixels: int, *, formats: str, what: str, readable: str) -> Iterator[InputContainer]:
    """The file opened for demuxing: plain files of the allowed formats only, so a playlist cannot make it open other
    files or addresses; and no decoder of it makes frames of more than twice `max_pixels`. `formats` are FFmpeg's names;
    `what` such a file is and what is `readable` say the same to people.
    """
    if not path:
        raise InputError(f"the name of {what} is empty; give a file ({readable})")
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist")
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; give {what} ({readable})")
    if not os.path.isfile(path):
        raise InputError(f"{path} is not a file; pipes and devices cannot be read twice, so save it as a file first")
    # FFmpeg's own check, as opening decodes before the size can be asked for; it counts whole blocks, so it is coarse.
    limit = {"max_pixels": str(2 * max_pixels)}
    try:
        container = av.open(
            "file:" + os.path.abspath(path),
            mode="r",
            container_options={"protocol_whitelist": "file", "format_whitelist": formats},
            options=limit,
            **READING_NOTES,
        )
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied") from error
    except (av.error.FFmpegError, UnicodeError) as error:
        raise InputError(f"{path} is not {what} that can be read ({readable}), or is damaged from its start") from error
    with container:
        for stream in container.streams.video:
            if stream.codec_context is not None:
                stream.codec_context.options = limit
        yield container


def main_stream(container: InputContainer, path: str) -> VideoStream:
    """The video stream that is painted: the first that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = sorted({str(stream.type) for stream in container.streams})
    raise InputError(f"{path} has no video stream (it holds {', '.join(kinds) or 'nothing'})")


def scaled_size(
    of: VideoInfo | tuple[int, int], long_side: int | str, *, upscale: bool = False, even: bool = True
) -> tuple[int, int]:
    """(width, height) with the longer side at most `long_side` pixels ("full": unchanged) and the aspect kept; even
    unless told otherwise.

    A smaller input keeps its size unless `upscale`.

    >>> scaled_size((1280, 720), 512)
    (512, 288)
    >>> scaled_size((97, 63), "full")
    (96, 62)
    """
    width, height = (of.width, of.height) if isinstance(of, VideoInfo) else of
    step = 2 if even else 1
    if long_side == "full" or (max(width, height) <= int(long_side) and not upscale):
        return max(width // step * step, step), max(height // step * step, step)
    scale = Fraction(int(long_side), max(width, height))
    return max(round(width * scale / step) * step, step), max(round(height * scale / step) * step, step)


def _describe(path: str, container: InputContainer, max_pixels: int) -> VideoInfo:
    stream = main_stream(container, path)
    context = stream.codec_context
    if context is None:
        raise InputError(f"{path} holds video that no decoder here knows")
    _check_size(path, context.width, context.height, max_pixels)
    frame = _first_frame(path, container, stream)
    tags = _tags(frame, context)
    _check_hdr(path, tags.transfer)
    rotation, mirrored = orientation(frame)
    sideways = rotation in (90, 270)
    width, height = (frame.height, frame.width) if sideways else (frame.width, frame.height)
    aspect = exact(stream.sample_aspect_ratio) or Fraction(1)
    is_gif = container.format.name == "gif"
    # FFmpeg may guess a later start (of one long frame in mkv), and the first frame that decodes need not be the first.
    start_pts = min(_pts(frame), _pts(frame) if stream.start_time is None else stream.start_time)
    end_pts = _end(container, stream, start_pts)
    return VideoInfo(
        path=path,
        kind="gif" if is_gif else "video",
        width=width,
        height=height,
        time_base=unit(stream),
        average_rate=exact(stream.average_rate) or exact(stream.guessed_rate) or DEFAULT_RATE,
        color=resolve_tags(tags, (frame.width, frame.height), is_rgb=is_rgb(frame)),
        codec=context.name,
        pixel_format=frame.format.name,
        sample_aspect_ratio=1 / aspect if sideways else aspect,
        rotation=rotation,
        mirrored=mirrored,
        start_pts=start_pts,
        origin_pts=_origin(container, stream),
        duration=_duration(container, stream, start_pts, end_pts),
        end_pts=end_pts,
        duration_of_file=_duration_of_file(container, stream),
        declared_frames=stream.frames or None,
        bit_depth=max((component.bits for component in frame.format.components), default=8),
        interlaced=frame.interlaced_frame,
        truncated=_is_cut_short(path, container),
        container=container.format.name,
        streams=tuple(
            StreamInfo(other.index, other.type, _codec_name(other), other.metadata.get("language"))
            for other in container.streams
            if other.index != stream.index
        ),
        chapters=tuple(_chapter(entry) for entry in container.chapters()),
        max_pixels=max_pixels,
    )


def _describe_sequence(
    name: str, sequence: Sequence, rate: Fraction, max_pixels: int, duration: Fraction | None
) -> VideoInfo:
    width, height = sequence.size
    frames = len(sequence.files)
    if sequence.kind == "picture" and duration is not None:
        frames = max(1, math.ceil(duration * rate))
    return VideoInfo(
        path=name,
        kind=sequence.kind,
        width=width,
        height=height,
        time_base=1 / rate,
        average_rate=rate,
        color=SRGB,
        codec=Path(sequence.files[0]).suffix[1:].lower(),
        pixel_format="rgb24",
        duration=frames / rate,
        declared_frames=frames,
        files=sequence.files,
        max_pixels=max_pixels,
    )


def _first_frame(path: str, container: InputContainer, stream: VideoStream) -> VideoFrame:
    """The first frame that decodes: only it knows the rotation, the interlacing and the true pixel format."""
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue  # whether a damaged start is allowed is the reader's decision
            if frames:
                return frames[0]
    except av.error.FFmpegError as error:
        raise InputError(f"{path} is damaged: no frame could be decoded") from error
    raise InputError(f"{path} has no frames that can be decoded")


def _check_size(path: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InputError(
            f"{path} is {width} x {height} pixels; at most {max_pixels} pixels are read (raise it with --max-pixels)"
        )


def _check_hdr(path: str, transfer: int) -> None:
    if transfer in HDR_TRANSFERS:
        raise InputError(
            f"{path} is HDR video ({HDR_TRANSFERS[transfer]}); only SDR is handled: convert it to SDR (BT.709) first"
        )


_CLOCK = re.compile(r"(\d+):(\d+):(\d+\.\d+)")

# Signs of the display matrix (a, b, c, d) -> (degrees clockwise, mirrored left-right before turning).
_ORIENTATIONS = {
    (1, 0, 0, 1): (0, False),
    (0, 1, -1, 0): (90, False),
    (-1, 0, 0, -1): (180, False),
    (0, -1, 1, 0): (270, False),
    (-1, 0, 0, 1): (0, True),
    (1, 0, 0, -1): (180, True),
    (0, 1, 1, 0): (270, True),
    (0, -1, -1, 0): (90, True),
}


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """(degrees clockwise, mirrored) to apply to the pixels for display, from the frame's display matrix."""
    entries: Any = frame.side_data
    data = entries.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    signs = tuple((value > 1 << 14) - (value < -(1 << 14)) for value in (a, b, c, d))
    if signs not in _ORIENTATIONS:
        log.warning("the video is turned by an angle that is not a multiple of 90 degrees; it is left as stored")
        return 0, False
    return _ORIENTATIONS[signs]


def _tags(frame: VideoFrame, context: Any) -> ColorTags:
    """What the pictures say of themselves, or where they say nothing, what the container says of them."""

    def said(name: str, silent: tuple[int, ...]) -> int:
        own = getattr(frame, name)
        return getattr(context, name) if own in silent else own

    silent = (0, UNSPECIFIED)
    return ColorTags(
        range=said("color_range", (0,)),
        matrix=said("colorspace", (UNSPECIFIED,)),  # 0 is RGB
        primaries=said("color_primaries", silent),
        transfer=said("color_trc", silent),
    )


def is_rgb(frame: VideoFrame) -> bool:
    """Whether the frame holds RGB, so that no matrix or range applies."""
    return frame.format.is_rgb or frame.format.has_palette


def exact(rational: Any) -> Fraction | None:
    """PyAV's rational (a Fraction up to av 18, its own class later) as a Fraction; None when unknown."""
    return Fraction(rational.numerator, rational.denominator) if rational else None


def unit(timed: Any) -> Fraction:
    """Seconds per unit of the times of a stream, a packet or a frame of PyAV."""
    return Fraction(timed.time_base.numerator, timed.time_base.denominator)


def _pts(frame: VideoFrame) -> int:
    return frame.pts if frame.pts is not None else frame.dts or 0


def _origin(container: InputContainer, stream: VideoStream) -> int:
    if container.format.name not in FREE_CLOCK or container.start_time is None:
        return 0
    return round(Fraction(container.start_time, av.time_base) / unit(stream))


def _end(container: InputContainer, stream: VideoStream, start_pts: int) -> int | None:
    """Where the stream ends by what its container says of it alone, in units of its time base."""
    if container.format.name in MEASURED and stream.duration:
        return start_pts + stream.duration
    noted = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))  # mkv has no other place for a stream's
    if container.format.name not in ONE_DURATION or not noted:
        return None
    seconds = int(noted[1]) * 3600 + int(noted[2]) * 60 + Fraction(noted[3])
    # FFmpeg notes when the stream ends, mkvmerge, with much else, how long it is.
    return round(seconds / unit(stream)) + start_pts * (MKVMERGE_NOTE in stream.metadata)


def _duration(container: InputContainer, stream: VideoStream, start_pts: int, end_pts: int | None) -> Fraction | None:
    units = stream.duration or (end_pts - start_pts if end_pts is not None else 0)
    if units > 0:
        return units * unit(stream)
    return Fraction(container.duration, av.time_base) if container.duration else None


def _duration_of_file(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if container.format.name == "avi":
        # Its demuxer corrects the duration to what is there; the count stays as promised.
        return stream.frames * unit(stream)
    if not container.duration:
        return None
    return Fraction(container.duration, av.time_base)


def _is_cut_short(path: str, container: InputContainer) -> bool:
    """Whether the index names data beyond the end of the file; what is written last lies last, but for reordering."""
    size = os.path.getsize(path)
    ends = (entry for stream in container.streams for entry in stream.index_entries[-INDEX_TAIL:])
    return any(entry.pos + entry.size > size for entry in ends)


def _codec_name(stream: Any) -> str:
    return (
        stream.codec_context.name if stream.codec_context is not None else getattr(stream, "name", None)
    ) or "unknown"


def _chapter(entry: Any) -> Chapter:
    base = exact(entry["time_base"]) or Fraction(1)
    return Chapter(entry["start"] * base, entry["end"] * base, entry["metadata"].get("title"))
