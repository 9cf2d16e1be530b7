"""Opening files with FFmpeg: only the containers and protocols that are allowed, and what PyAV says of their times."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nst_video.errors import InputError
from nst_video.media.pictures import DEFAULT_MAX_PIXELS

VIDEO_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,gif"
READABLE = "mp4, mov, mkv, webm, avi, ts and gif"

# Titles in an unknown encoding are no reason to refuse a file; PyAV has let them pass by itself since version 19.
READING_NOTES: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


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


def is_rgb(frame: VideoFrame) -> bool:
    """Whether the frame holds RGB, so that no matrix or range applies."""
    return frame.format.is_rgb or frame.format.has_palette


def unit(timed: Any) -> Fraction:
    """Seconds per unit of the times of a stream, a packet or a frame of PyAV."""
    return Fraction(timed.time_base.numerator, timed.time_base.denominator)
