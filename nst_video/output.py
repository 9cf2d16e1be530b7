"""Where frames go: a muxed file, a gif, numbered pictures or one picture. All are made under a temporary name and
appear complete.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from nst_video.codecs import CONTAINERS, GIF, find_codec
from nst_video.color_tags import ENLARGE, SCALER_MATRIX, SCALER_RANGE
from nst_video.errors import ResourceError, UsageError
from nst_video.pictures import write_picture
from nst_video.probe import VideoInfo, exact
from nst_video.sequences import is_pattern, number_file
from nst_video.streams import Companions, Cut

log = logging.getLogger(__name__)

# What a full or failing disk is called by the system; "file too large" is a quota's way of saying so.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})


class Output(Protocol):
    """write for every frame, finish once (both on the encoding thread), then publish or, at any time, discard."""

    def write(self, rgb: np.ndarray, pts: int) -> None: ...
    def finish(self) -> None: ...
    def publish(self) -> None: ...
    def discard(self) -> None: ...


def open_output(kind: str, path: str, *, overwrite: bool, **settings: Any) -> Output:
    """The output for a kind that check_output returned; `settings` are those of VideoWriter."""
    if kind in ("video", "gif"):
        return VideoOutput(path, **settings)
    return (PictureOutput if kind == "picture" else SequenceOutput)(path)


class VideoOutput:
    """One encoded video stream with the source's other streams, muxed in step so that memory stays bounded."""

    def __init__(
        self,
        path: str,
        *,
        info: VideoInfo,
        size: tuple[int, int],
        codec: str,
        crf: float,
        preset: str,
        start: Fraction | float | None,
        end: Fraction | float | None,
    ) -> None:
        self.path, self.info, self.size = Path(path), info, size
        suffix = self.path.suffix.lower()
        encoder, self.codec = ("gif", GIF) if suffix == ".gif" else find_codec(codec, suffix, crf, preset)
        self._check_even(encoder)
        self.part = temporary(self.path)
        self.cut = start is not None
        self.end = None if end is None else info.start_pts * info.time_base + Fraction(end)
        self.shift: int | None = None  # source pts that becomes zero, known with the first frame
        self.pending: tuple[np.ndarray, int] | None = None  # waits for its successor, which gives its duration
        self.pts: list[int] = []
        self.durations: dict[int, int] = {}
        self.reformatter = VideoReformatter()
        with disk_errors(self.path):
            self.container = self._open_container(CONTAINERS.get(suffix, "gif"))
        self.stream = self._add_stream(encoder, self.codec.options(crf, preset), suffix)
        self.companions = Companions(info, self.container, suffix)

    def write(self, rgb: np.ndarray, pts: int) -> None:
        """Takes uint8 (H, W, 3) RGB at `pts` of the source's time base."""
        with disk_errors(self.path):
            if self.shift is None:
                self.shift = pts if self.cut else self.info.origin_pts
                self._begin(pts)
            if self.pending is not None:
                self._encode(*self.pending, duration=pts - self.pending[1])
            self.pending = (rgb, pts)

    def finish(self) -> None:
        """Encodes what waits and closes the file."""
        with disk_errors(self.path):
            if self.pending is not None:
                self._encode(*self.pending, duration=self._last_duration(self.pending[1]))
                self._mux(self.stream.encode(None))
                self.companions.mux_until(None)
            self.companions.close()
            self.container.close()

    def publish(self) -> None:
        """Checks the file against what was written, flushes it to the disk and gives it its name."""
        with disk_errors(self.path):
            self._verify()
            sync(self.part)
            os.replace(self.part, self.path)

    def discard(self) -> None:
        """Removes the temporary file; closing first, since an open muxer may write once more."""
        self.companions.close()
        try:
            self.container.close()
        except (av.error.FFmpegError, OSError, ValueError):
            log.debug("closing the abandoned %s failed", self.part)
        self.part.unlink(missing_ok=True)

    def _check_even(self, encoder: str) -> None:
        if "420" in self.codec.pixel_format and (self.size[0] % 2 or self.size[1] % 2):
            raise UsageError(f"{encoder} needs an even width and height; got {self.size[0]} x {self.size[1]}")

    def _open_container(self, container_format: str) -> Any:
        options = {}
        if container_format in ("mp4", "mov"):
            # Both clocks count in the source's units, so no time is rounded, the offsets in edit lists included.
            units = self.info.time_base.denominator
            options = {"video_track_timescale": str(units), "movie_timescale": str(units * max(1, -(-10000 // units)))}
        return av.open(str(self.part), "w", format=container_format, container_options=options)

    def _add_stream(self, encoder: str, options: dict[str, str], suffix: str) -> Any:
        stream = self.container.add_stream(encoder, rate=self.info.average_rate, options=options)
        stream.width, stream.height = self.size
        stream.pix_fmt = self.codec.pixel_format
        stream.codec_context.time_base = self.info.time_base
        stream.time_base = self.info.time_base
        if self.info.sample_aspect_ratio != 1:
            stream.codec_context.sample_aspect_ratio = self.info.sample_aspect_ratio
        if "yuv" in self.codec.pixel_format:
            color = self.info.color
            stream.codec_context.color_range = color.range
            stream.codec_context.colorspace = color.matrix
            stream.codec_context.color_primaries = color.primaries
            stream.codec_context.color_trc = color.transfer
        if suffix in self.codec.tags:
            stream.codec_context.codec_tag = self.codec.tags[suffix]
        return stream

    def _begin(self, first_pts: int) -> None:
        base = self.info.time_base
        first = first_pts * base if self.cut else None
        self.companions.start(Cut(first, self.end, (self.shift or 0) * base))

    def _encode(self, rgb: np.ndarray, pts: int, duration: int) -> None:
        frame = self._convert(rgb)
        frame.pts = pts - (self.shift or 0)
        frame.time_base = self.info.time_base
        frame.duration = duration
        self.pts.append(frame.pts)
        self.durations[frame.pts] = duration
        self._mux(self.stream.encode(frame))

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.duration = self.durations.pop(packet.pts, packet.duration)
            if packet.dts is not None:
                self.companions.mux_until(packet.dts * self.info.time_base)
            self.container.mux_one(packet)

    def _convert(self, rgb: np.ndarray) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        is_yuv = "yuv" in self.codec.pixel_format
        # The encoder would convert by itself, to untagged BT.601.
        return self.reformatter.reformat(
            frame,
            format=self.codec.pixel_format,
            src_color_range="JPEG",
            dst_colorspace=SCALER_MATRIX[self.info.color.matrix] if is_yuv else None,
            dst_color_range=SCALER_RANGE[self.info.color.range] if is_yuv else "JPEG",
            interpolation=ENLARGE,
            threads=1,
        )

    def _last_duration(self, pts: int) -> int:
        """The last frame lasts to the end of the source, if that is known and near; else as long as the frame before
        it, or one frame.
        """
        usual = (
            pts - (self.pts[-1] + (self.shift or 0))
            if self.pts
            else round(1 / (self.info.average_rate * self.info.time_base))
        )
        if self.info.duration is None or self.end is not None:
            return max(usual, 1)
        rest = self.info.start_pts + round(self.info.duration / self.info.time_base) - pts
        return rest if 0 < rest <= 10 * usual else max(usual, 1)

    def _verify(self) -> None:
        """Decodes the finished file: as many frames as were written, at their times, and every packet of sound."""
        with av.open("file:" + os.path.abspath(self.part)) as container:
            stream = container.streams.video[0]
            base = exact(stream.time_base)
            found: list[int] = []
            packets: dict[int, int] = {}
            stream.thread_type = "AUTO"
            for packet in container.demux():
                if packet.stream.type == "video" and packet.stream.index == stream.index:
                    found += [frame.pts for frame in packet.decode()]
                elif packet.size:
                    packets[packet.stream.index] = packets.get(packet.stream.index, 0) + 1
        wanted = [round(pts * self.info.time_base / base) for pts in self.pts]
        if found != wanted:
            raise ResourceError(
                f"{self.path} did not verify: {len(found)} of {len(wanted)} frames read back at their times; "
                "nothing was kept"
            )
        self.companions.verify(packets)


class PictureOutput:
    """A single picture."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.rgb: np.ndarray | None = None

    def write(self, rgb: np.ndarray, pts: int) -> None:
        """Keeps the one frame. Raises UsageError for a second."""
        if self.rgb is not None:
            raise UsageError(
                f"{self.path} is one picture and there are more frames; write a video, a folder, or frames/%05d.png"
            )
        self.rgb = rgb

    def finish(self) -> None:
        """Nothing waits."""

    def publish(self) -> None:
        """Writes the picture under its name, atomically."""
        if self.rgb is not None:
            write_picture(self.path, self.rgb)

    def discard(self) -> None:
        """Nothing was written yet."""
        self.rgb = None


class SequenceOutput:
    """Numbered pictures, made in a hidden folder beside the target and moved when all are there."""

    def __init__(self, path: str) -> None:
        target = Path(path)
        self.folder, self.pattern = (target.parent, target.name) if is_pattern(path) else (target, "%05d.png")
        self.part = temporary(self.folder)
        with disk_errors(self.folder):
            self.part.mkdir()
        self.names: list[str] = []

    def write(self, rgb: np.ndarray, pts: int) -> None:
        """Writes the next picture, numbered from 1 as other tools do."""
        name = number_file(self.pattern, len(self.names) + 1)
        write_picture(self.part / name, rgb)
        self.names.append(name)

    def finish(self) -> None:
        """Every picture was complete when it was written."""

    def publish(self) -> None:
        """Moves the pictures: the whole folder at once where there is none yet, else one by one over those of the same
        names.
        """
        with disk_errors(self.folder):
            if not self.folder.exists():
                os.replace(self.part, self.folder)
                return
            for name in self.names:
                os.replace(self.part / name, self.folder / name)
            self.part.rmdir()

    def discard(self) -> None:
        """Removes the hidden folder."""
        shutil.rmtree(self.part, ignore_errors=True)


def temporary(target: Path) -> Path:
    """A hidden name in the target's folder: on the same disk, so that renaming is atomic."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def sync(path: Path) -> None:
    """Waits until the file is on the disk: a rename that survives a power cut must not name an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses becomes a ResourceError with one line."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise ResourceError(f"cannot write {path}: {error.strerror}; nothing was kept") from error
        raise
