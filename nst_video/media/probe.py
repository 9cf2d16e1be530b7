"""What a file holds, found out before any work is done; what cannot be used is refused here with one line."""

import logging
import math
import os
import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nst_video.errors import InputError
from nst_video.media.color_tags import HDR_TRANSFERS, SRGB, UNSPECIFIED, ColorTags, resolve_tags
from nst_video.media.containers import is_rgb, main_stream, open_input, unit
from nst_video.media.pictures import DEFAULT_MAX_PIXELS
from nst_video.media.sequences import Sequence, find_sequence
from nst_video.media.videoinfo import Chapter, StreamInfo, VideoInfo, exact

log = logging.getLogger(__name__)

INDEX_TAIL = 64  # entries
DEFAULT_RATE = Fraction(25)  # frames/s of an image sequence, which has no timing of its own
# Demuxers whose clock starts anywhere; what is made of them starts at zero.
FREE_CLOCK = frozenset({"mpegts"})
# Demuxers that know one duration for all frames of a stream, and by a tag where it ends ...
ONE_DURATION = frozenset({"matroska,webm"})
MKVMERGE_NOTE = "_STATISTICS_WRITING_APP"
# ... and those that know both of the stream itself.
MEASURED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})


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
