"""Where frames go: a muxed file, a gif, numbered pictures or one picture. All are made under a temporary name and
appear complete.
"""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.container import OutputContainer

from nst_video.errors import ResourceError, UsageError
from nst_video.files import NOTHING_KEPT, disk_errors, settle, sync_folder, temporary
from nst_video.media.codecs import CONTAINERS, GIF, VideoCodec, find_codec
from nst_video.media.containers import unit
from nst_video.media.conversion import FromRgb
from nst_video.media.destination import folder_and_pattern, output_kind
from nst_video.media.gif_times import GIF_CLOCK, GifTimes
from nst_video.media.pictures import write_picture
from nst_video.media.sequences import number_file, numbered
from nst_video.media.soundtrack import Heard, make_companions
from nst_video.media.streams import Cut
from nst_video.media.videoinfo import VideoInfo
from nst_video.words import counted

log = logging.getLogger(__name__)

COARSEST_CLOCK = 10_000  # units a second, at least, that mp4 and mov files count in
ASPECT_IN_STREAM = frozenset({"libx264", "libx265"})  # of the pixels; the muxers of mkv and webm are not told it here
OWN_FILE = {"protocol_whitelist": "file"}


class Output(Protocol):
    """write for every frame, finish once (both on the encoding thread), then verify and publish or, at any time,
    discard. `part` is where the output is made, on the disk of its final place.
    """

    part: Path

    def write(self, rgb: np.ndarray, pts: int) -> None: ...
    def finish(self) -> None: ...
    def verify(self) -> None: ...
    def publish(self) -> None: ...
    def discard(self) -> None: ...


def open_output(kind: str, path: str, **settings: Any) -> Output:
    """The output for a kind that check_output returned; `settings` are those of VideoWriter."""
    if kind in ("video", "gif"):
        return VideoOutput(path, **settings)
    if settings.get("music") is not None:
        log.warning("%s: pictures have no sound; the music only drives them", path)
    return (PictureOutput if kind == "picture" else SequenceOutput)(path, settings.get("part"))


class VideoOutput:
    """One encoded video stream with the source's other streams, muxed in step so that memory stays bounded."""

    def __init__(
        self,
        path: str,
        *,
        info: VideoInfo,
        size: tuple[int, int],
        codec: str | None,
        crf: float,
        preset: str,
        start: Fraction | float | None,
        end: Fraction | float | None,
        until: int | None = None,
        part: Path | None = None,
        alone: bool = False,
        music: Heard | None = None,
    ) -> None:
        """until: pts at which the last frame is over, by default as long after it as the one before. part: where it is
        made, by default beside its final place. alone: without the source's other streams. music: what is heard in
        place of the source's own sound.
        """
        self.path, self.info, self.size = Path(path), info, size
        self.suffix = self.path.suffix.lower()
        self.gif = GifTimes(path) if self.suffix == ".gif" else None
        self.clock = info.time_base if self.gif is None else GIF_CLOCK  # seconds per unit of the output's times
        encoder, self.codec = ("gif", GIF) if self.gif else find_codec(codec, self.suffix, crf, preset)
        _check_even(encoder, self.codec, size)
        self.part = part or temporary(self.path)
        self.cut = start is not None
        self.end = None if end is None else info.start_pts * info.time_base + Fraction(end)
        self.until = until
        self.shift: int | None = None  # source pts that becomes zero, known with the first frame
        self.latest: int | None = None  # source pts of the last frame
        self.over = 0  # when that is over
        self.pending: tuple[np.ndarray, int] | None = None  # waits for its successor, which gives its duration
        self.pts: list[int] = []  # of the output's clock, as all that follows
        self.durations: dict[int, int] = {}
        self.delay: int | None = None  # of the first packet, from when it is decoded until it is shown
        self.convert = FromRgb(self.codec.pixel_format, info.color)
        self.container = self._open_container()
        self.stream = self._add_stream(encoder, self.codec.options(crf, preset))
        self.companions = make_companions(info, self.container, self.suffix, alone=alone, music=music)

    def write(self, rgb: np.ndarray, pts: int) -> None:
        """Takes uint8 (H, W, 3) RGB at `pts` of the source's time base."""
        with disk_errors(self.path):
            if self.shift is None:
                self._begin(pts)
            place = self._place(pts) if self.gif is None else self.gif.place(self._seconds(pts))
            if self.pending is not None:
                self._encode(*self.pending, until=place)
            self.pending = (rgb, place)
            self.over = pts + self.info.usual(pts, self.latest) if self.until is None else self.until
            self.latest = pts

    def finish(self) -> None:
        """Encodes what waits and closes the file."""
        with disk_errors(self.path):
            if self.pending is not None:
                until = self._place(self.over) if self.gif is None else self.gif.end(self._seconds(self.over))
                self._encode(*self.pending, until=until)
                self._mux_ending(self.stream.encode(None), until)
                self.companions.mux_until(None)
            self.companions.finish(self.path)

    def verify(self) -> None:
        """Checks the finished file against what was written."""
        with disk_errors(self.path):
            self._verify()
            self.companions.close()

    def publish(self) -> None:
        """Flushes the file to the disk and gives it its name."""
        with disk_errors(self.path):
            settle(self.part, self.path)

    def discard(self) -> None:
        """Removes the temporary file; closing first, since an open muxer may write once more."""
        self.companions.close()
        try:
            self.container.close()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            log.debug("closing the abandoned %s failed: %s", self.part, error)
        self.part.unlink(missing_ok=True)

    def _open_container(self) -> OutputContainer:
        container_format = CONTAINERS.get(self.suffix, "gif")
        options = {}
        if container_format in ("mp4", "mov"):
            # Both clocks count in the source's units, so no time is rounded, the offsets in edit lists included.
            units = self.info.time_base.denominator
            multiple = units * max(1, -(-COARSEST_CLOCK // units))
            options = {"video_track_timescale": str(units), "movie_timescale": str(multiple)}
        else:
            # Encoders start sound a little early; making room for that would change the pictures' times.
            options = {"avoid_negative_ts": "disabled"}
        # Without the protocol FFmpeg would take a colon in the name for one.
        name = "file:" + os.path.abspath(self.part)
        return av.open(name, "w", format=container_format, container_options=options)

    def _add_stream(self, encoder: str, options: dict[str, str]) -> Any:
        stream = self.container.add_stream(encoder, rate=self.info.average_rate, options=options)
        context: Any = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = self.codec.pixel_format
        context.time_base = stream.time_base = self.clock
        aspect = self.info.sample_aspect_ratio
        if aspect != 1:
            context.sample_aspect_ratio = aspect
            if self.suffix in (".mkv", ".webm", ".gif") and encoder not in ASPECT_IN_STREAM:
                shape = f"{aspect.numerator}:{aspect.denominator}"
                log.warning("%s: %s in %s cannot say that pixels are %s", self.path, encoder, self.suffix, shape)
        if "yuv" in self.codec.pixel_format:
            color = self.info.color
            context.color_range, context.colorspace = color.range, color.matrix
            context.color_primaries, context.color_trc = color.primaries, color.transfer
        if self.suffix in self.codec.tags:
            context.codec_tag = self.codec.tags[self.suffix]
        try:
            with _environment(self.codec.environment):
                context.open()
        except av.error.FFmpegError as error:
            width, height = self.size
            raise UsageError(f"{encoder} cannot encode {width} x {height} pixels with these options") from error
        return stream

    def _begin(self, first_pts: int) -> None:
        # A gif has no clock to start late on; transport streams start anywhere.
        self.shift = first_pts if self.cut or self.gif else self.info.origin_pts
        base = self.info.time_base
        cut = Cut(first_pts * base if self.cut else None, self.end, self.shift * base)
        self.companions.start(cut, self.stream, first=(first_pts - self.shift) * base)

    def _place(self, pts: int) -> int:
        return pts - (self.shift or 0)

    def _seconds(self, pts: int) -> Fraction:
        return self._place(pts) * self.info.time_base

    def _encode(self, rgb: np.ndarray, pts: int, until: int) -> None:
        frame = self.convert(rgb)
        frame.pts, frame.time_base = pts, self.clock
        self.pts.append(pts)
        self.durations[pts] = until - pts
        self._mux(self.stream.encode(frame))

    def _mux_ending(self, packets: list[av.Packet], until: int) -> None:
        """Mux the last packets so that mp4 states that all is over at `until`.

        A track of mp4 is as long as the packets take to be decoded, of which the last need not be shown last: it is
        given the rest of the time. It is decoded no earlier before it is shown than the first was, or it would seem to
        be shown for longer than there is.
        """
        self._mux(packets[:-1])
        for last in packets[-1:]:
            if CONTAINERS.get(self.suffix) in ("mp4", "mov") and self.delay is not None:
                assert last.pts is not None
                assert last.dts is not None
                last.dts = max(last.dts, last.pts - self.delay)
                rest = until - self.delay - last.dts
                self.durations[last.pts] = rest if rest > 0 else self.durations[last.pts]
            self._mux([last])

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            if self.delay is None and packet.pts is not None and packet.dts is not None:
                self.delay = packet.pts - packet.dts
            if packet.pts in self.durations:
                packet.duration = self.durations.pop(packet.pts)
            if packet.dts is not None:
                self.companions.mux_until(packet.dts * self.clock)
            self.companions.mux(packet)

    def _verify(self) -> None:
        """Decodes the finished file: as many frames as were written, at their times, and every packet of sound."""
        found: list[int] = []
        packets: dict[int, int] = {}
        try:
            with av.open("file:" + os.path.abspath(self.part), options=OWN_FILE) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                base = unit(stream)
                for packet in container.demux():
                    if packet.stream.index == stream.index:
                        found += [frame.pts for frame in stream.decode(packet) if frame.pts is not None]
                    elif packet.size:
                        packets[packet.stream.index] = packets.get(packet.stream.index, 0) + 1
        except av.error.FFmpegError as error:
            raise ResourceError(f"{self.path} did not verify ({error.strerror}){NOTHING_KEPT}") from error
        # Containers with a coarser clock (mkv: milliseconds) round to the nearest unit.
        wanted = [math.floor(pts * self.clock / base + Fraction(1, 2)) for pts in self.pts]
        if found != wanted:
            matching = sum(one == other for one, other in zip(found, wanted, strict=False))
            raise ResourceError(
                f"{self.path} did not verify: {matching} of {len(wanted)} frames read back at their times{NOTHING_KEPT}"
            )
        self.companions.verify(packets)


def _check_even(encoder: str, codec: VideoCodec, size: tuple[int, int]) -> None:
    odd_width = codec.pixel_format.startswith(("yuv420", "yuv422")) and size[0] % 2
    odd_height = codec.pixel_format.startswith("yuv420") and size[1] % 2
    if odd_width or odd_height:
        raise UsageError(f"{encoder} needs an even width and height; got {size[0]} x {size[1]}")


class PictureOutput:
    """A single picture."""

    def __init__(self, path: str, part: Path | None = None) -> None:
        self.path = path
        self.part = part or Path(path)
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

    def verify(self) -> None:
        """It is written in one piece."""

    def publish(self) -> None:
        """Writes the picture under its name, atomically."""
        if self.rgb is not None:
            write_picture(self.path, self.rgb)

    def discard(self) -> None:
        """Nothing was written yet."""
        self.rgb = None


class SequenceOutput:
    """Numbered pictures, made in a hidden folder and moved when all are there."""

    def __init__(self, path: str, part: Path | None = None) -> None:
        self.folder, self.pattern = folder_and_pattern(path)
        self.part = part or temporary(beside(path))
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

    def verify(self) -> None:
        """Every picture was written in one piece, and waits for the disk."""

    def publish(self) -> None:
        """Moves the pictures: the whole folder at once where there is none yet, else one by one over those of the same
        names.
        """
        with disk_errors(self.folder):
            sync_folder(self.part)
            if not self.folder.exists():
                os.replace(self.part, self.folder)
                sync_folder(self.folder.parent)
                return
            for name in self.names:
                os.replace(self.part / name, self.folder / name)
            sync_folder(self.folder)
            self.part.rmdir()
            left = len(numbered(str(self.folder / self.pattern))) - len(self.names)
            if left > 0:
                log.warning("%s still holds %s of an earlier, longer run", self.folder, counted(left, "picture"))

    def discard(self) -> None:
        """Removes the hidden folder."""
        shutil.rmtree(self.part, ignore_errors=True)


def beside(path: str) -> Path:
    """The name whose neighbours are on the output's disk: the output's own, or for a sequence one inside its folder
    once that is there, since what lies beside the folder may be another disk, or not writable.
    """
    if output_kind(path) != "sequence":
        return Path(path)
    folder, pattern = folder_and_pattern(path)
    return folder / pattern if folder.is_dir() else folder


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These environment variables for the time of the `with`."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
