"""The streams beside the pictures: copied where the container holds them, made over where it does not, and left out
with a stated line where neither makes sense.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
from av.codec import Codec
from av.container import InputContainer, OutputContainer

from nst_video.errors import InputError, ResourceError
from nst_video.files import NOTHING_KEPT
from nst_video.media.containers import main_stream, open_input, unit
from nst_video.media.treatments import Treatment, codec_of, describe, fresh_metadata, treat
from nst_video.media.videoinfo import VideoInfo, exact

log = logging.getLogger(__name__)

EMPTY_MOV_TEXT = 2  # bytes: mp4 shows nothing by an empty line, which its muxer puts in by itself
SEEK_MARGIN = (
    5  # seconds read before a cut, so that no packet is missed that lies earlier in the file than the pictures
)
LONGEST_LINE = 60  # seconds read before a cut where there are subtitles, for those that are on screen when it begins
BIT_RATE_OF_A_CHANNEL = 96_000  # bit/s of made-over sound
# What muxers call a packet or a stream that they cannot write. A full or failing disk has errors of its own.
MUXER_ERRORS = (
    *(av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError, av.error.BSFNotFoundError),
    *(av.error.BufferTooSmallError, av.error.ExternalError, av.error.BugError, av.error.UnknownError),
)
# What decoding and encoding anew raise for damaged packets, beside running out of memory, which is no packet's fault.
CARRIER_ERRORS = (*MUXER_ERRORS, av.error.PermissionError, ValueError)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # what every encoder here takes, by the number of channels


@dataclass(frozen=True)
class Cut:
    """Seconds of the source's clock: packets with first <= time < last are kept (None: open), minus `shift`."""

    first: Fraction | None
    last: Fraction | None
    shift: Fraction

    def has(self, time: Fraction) -> bool:
        """Whether a packet at `time` is kept."""
        return (self.first is None or time >= self.first) and (self.last is None or time < self.last)

    def trim(self, line: av.Packet) -> bool:
        """Whether any of a line of subtitles is kept; its packet is changed to begin and end with the cut."""
        if line.pts is None or not line.duration:  # such as pictures, which are on screen until the next takes over
            return self.has((line.pts or line.dts or 0) * unit(line))
        first = line.pts if self.first is None else max(line.pts, round(self.first / unit(line)))
        last = line.pts + line.duration
        if self.last is not None:
            last = min(last, round(self.last / unit(line)))
        line.pts = line.dts = first
        line.duration = max(last - first, 0)
        return first < last


class Companions:
    """The source's other streams, muxed in step with the video so that neither side is held in memory."""

    def __init__(
        self,
        info: VideoInfo,
        output: OutputContainer,
        suffix: str,
        *,
        alone: bool = False,
        silent: bool = False,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """alone: the source has nothing to add. silent: it has no sound to add. on_step: called for every packet that
        is read.
        """
        self.on_step = on_step
        self.output, self.path = output, info.path
        self.refused = 0  # packets that the muxer did not take
        self.damaged: set[int] = set()  # streams of which packets were left out, by their index in the source
        self.files = ExitStack()
        self.carriers: dict[int, _Carrier] = {}  # by the stream's index in the source
        self.counts: dict[int, int] = {}  # packets muxed, by the stream's index in the output
        self.sound: list[int] = []  # indices in the output
        self.feeds: list[_Feed] = []
        self.music: Music | None = None
        self.silent = silent
        self.source: InputContainer | None = None
        if info.kind in ("video", "gif") and not alone:
            self.source = self.files.enter_context(open_input(info.path, info.max_pixels))
            self._plan(info, suffix)

    def play(self, music: "Music") -> None:
        """Takes music in, which has added its stream to the output; before `start`."""
        self.music = music
        self.sound.append(music.stream.index)

    def start(self, cut: Cut, painted: Any, first: Fraction = Fraction(0)) -> None:
        """Begins reading, and carries chapters and metadata, those of the video to the stream `painted`.

        `cut` is known with the first frame, and so is when that is shown: `first` seconds of the output's clock.
        """
        if self.source is not None:
            describe(painted, main_stream(self.source, self.source.name))
            self.output.metadata.update(fresh_metadata(self.source.metadata))
            self.output.set_chapters(_chapters(self.source.chapters(), cut))
            self.feeds.append(_Feed(self._packets(cut)))
        if self.music is not None:
            self.feeds.append(_Feed(self.music.packets(first)))
        if not self.feeds:
            return
        try:
            self.output.start_encoding()
        except MUXER_ERRORS as error:
            raise InputError(
                f"{self.path} has sound or subtitles that cannot be written ({error.strerror}); convert it first"
            ) from error

    def mux_until(self, time: Fraction | None) -> None:
        """Muxes every packet up to `time` seconds of the output's clock (None: all)."""
        for feed in self.feeds:
            for packet in feed.until(time):
                if packet.size:  # the last one of some encoders only corrects the header
                    self.counts[packet.stream.index] = self.counts.get(packet.stream.index, 0) + 1
                self.mux(packet)

    def mux(self, packet: av.Packet) -> None:
        """Muxes a packet of any stream, the painted one included.

        The muxer queues, so what it does not take may be another packet than this one. It is one of a damaged stream,
        and left out: the pictures have been made for this file, and that they are all there is verified in the end.
        """
        try:
            self.output.mux_one(packet)
        except MUXER_ERRORS as error:
            if not self.refused:
                log.warning("%s: packets that cannot be written are left out (%s)", self.path, error.strerror)
            self.refused += 1

    def verify(self, packets: dict[int, int]) -> None:
        """Compares the packets of sound read back from the finished file, by stream index, with those muxed.

        Raises ResourceError when some are missing that the muxer took.
        """
        for index in self.sound:
            if packets.get(index, 0) < self.counts.get(index, 0) - self.refused:
                raise ResourceError(
                    f"the output did not verify: {packets.get(index, 0)} of {self.counts.get(index, 0)} packets of "
                    f"sound read back{NOTHING_KEPT}"
                )

    def finish(self, path: str | os.PathLike[str]) -> None:
        """Closes the output, which will be called `path`. Raises InputError where a damaged stream forbids that."""
        try:
            self.output.close()
        except MUXER_ERRORS as error:
            raise InputError(
                f"{self.path} has sound or subtitles that cannot be written to {os.fspath(path)} ({error.strerror}); "
                "convert it first"
            ) from error

    def close(self) -> None:
        """Closes the source."""
        self.files.close()

    def _plan(self, info: VideoInfo, suffix: str) -> None:
        assert self.source is not None
        for treatment in treat(self.source, main_stream(self.source, info.path).index, suffix):
            stream = self.source.streams[treatment.index]
            if self.silent and stream.type == "audio":
                log.info("%s: the music takes the place of its sound", info.path)
                continue
            if treatment.note:
                verdict = "left out" if treatment.action == "drop" else "made over"
                log.warning(
                    "%s: %s stream %d is %s: %s", info.path, treatment.kind, stream.index, verdict, treatment.note
                )
            if treatment.action != "drop":
                try:
                    carrier = CARRIERS[treatment.action, stream.type](self.output, stream, treatment)
                except CARRIER_ERRORS as error:
                    log.warning("%s: %s stream %d is left out: %s", info.path, treatment.kind, stream.index, error)
                    continue
                self.carriers[stream.index] = carrier
                if stream.type == "audio":
                    self.sound.append(carrier.stream.index)

    def _packets(self, cut: Cut) -> Iterator[av.Packet]:
        assert self.source is not None
        carried = {index for index in self.carriers if self.source.streams[index].type != "attachment"}
        if not carried:
            return
        _skip_to(self.source, cut)
        for packet in self._readable(carried):
            carrier = self.carriers[packet.stream.index]
            if packet.size and packet.stream.type == "video":  # a cover picture, which has no time
                packet.pts = packet.dts = 0
                yield from self._carried(packet, carrier.carry(packet, Fraction(0)))
            elif packet.size and packet.dts is not None:
                time = (packet.pts if packet.pts is not None else packet.dts) * unit(packet)
                if cut.last is not None and time > cut.last + SEEK_MARGIN:
                    break
                if cut.trim(packet) if packet.stream.type == "subtitle" else cut.has(time):
                    yield from self._carried(packet, carrier.carry(packet, cut.shift))
        for carrier in self.carriers.values():
            yield from carrier.flush()

    def _readable(self, indices: set[int]) -> Iterator[av.Packet]:
        """The packets as far as the file can be read; how much of the pictures that is, their decoder says."""
        assert self.source is not None
        try:
            for packet in self.source.demux():
                self.on_step()
                if packet.stream.index in indices:
                    yield packet
        except av.error.FFmpegError as error:
            log.warning("%s: sound and subtitles end where it cannot be read (%s)", self.path, error.strerror)

    def _carried(self, packet: av.Packet, made: Iterator[av.Packet]) -> Iterator[av.Packet]:
        """What a carrier makes of a packet; nothing where it is damaged, and a line for the first of a stream."""
        kind, index, seconds = packet.stream.type, packet.stream.index, float((packet.dts or 0) * unit(packet))
        try:
            yield from made
        except CARRIER_ERRORS as error:
            if index not in self.damaged:
                what = f"{kind} stream {index}: damaged packets from {seconds:.2f} s on"
                log.warning("%s: %s are left out (%s)", self.path, what, error)
            self.damaged.add(index)


class Music(Protocol):
    """Sound that is not the source's: see soundtrack.Soundtrack."""

    stream: Any

    def packets(self, start: Fraction) -> Iterator[av.Packet]: ...


class _Feed:
    """Packets in the order of their times, of which one may be waiting for its turn."""

    def __init__(self, packets: Iterator[av.Packet]) -> None:
        self.packets = packets
        self.waiting: av.Packet | None = None

    def until(self, time: Fraction | None) -> Iterator[av.Packet]:
        """Those up to `time` in seconds (None: all)."""
        while True:
            packet = self.waiting or next(self.packets, None)
            self.waiting = None
            if packet is None:
                return
            if time is not None and packet.dts is not None and packet.dts * unit(packet) > time:
                self.waiting = packet
                return
            yield packet


class _Carrier(Protocol):
    """Brings the packets of one stream of the source into one stream of the output."""

    stream: Any

    def carry(self, packet: av.Packet, shift: Fraction) -> Iterator[av.Packet]: ...
    def flush(self) -> Iterator[av.Packet]: ...


class _Copy:
    """The packets as they are, their times shifted."""

    def __init__(self, output: OutputContainer, template: Any, treatment: Treatment) -> None:
        self.stream = output.add_stream_from_template(template, opaque=True)
        self.fills_gaps = codec_of(template) == "mov_text"
        self.last: int | None = None  # time of the last packet of sound
        describe(self.stream, template)

    def carry(self, packet: av.Packet, shift: Fraction) -> Iterator[av.Packet]:
        if self.fills_gaps and packet.size <= EMPTY_MOV_TEXT:
            return
        units = round(shift / unit(packet))
        packet.pts = None if packet.pts is None else packet.pts - units
        packet.dts = None if packet.dts is None else packet.dts - units
        if packet.dts is not None and packet.stream.type == "audio":
            if self.last is not None and packet.dts <= self.last:
                raise ValueError("its clock goes back")
            self.last = packet.dts
        packet.stream = self.stream
        yield packet

    def flush(self) -> Iterator[av.Packet]:
        yield from ()


class _Sound:
    """Decoded and encoded again, sample for sample at the same times."""

    def __init__(self, output: OutputContainer, template: Any, treatment: Treatment) -> None:
        source = template.codec_context
        rates = Codec(treatment.encoder, "w").audio_rates or [source.sample_rate]
        rate = max((rate for rate in rates if rate <= source.sample_rate), default=min(rates))
        layout = LAYOUTS.get(source.layout.nb_channels, "stereo")
        self.stream: Any = output.add_stream(treatment.encoder, rate=rate)
        context: Any = self.stream.codec_context
        context.layout = layout
        context.bit_rate = BIT_RATE_OF_A_CHANNEL * context.layout.nb_channels
        describe(self.stream, template)
        context.open()
        size = context.frame_size or None
        self.resampler = av.AudioResampler(format=context.format.name, layout=layout, rate=rate, frame_size=size)

    def carry(self, packet: av.Packet, shift: Fraction) -> Iterator[av.Packet]:
        frames: list[Any] = list(packet.decode())
        for frame in frames:
            if frame.pts is None:
                raise ValueError("it has no time")
            frame.pts -= round(shift / unit(frame))
            for ready in self.resampler.resample(frame):
                yield from self.stream.encode(ready)

    def flush(self) -> Iterator[av.Packet]:
        for ready in self.resampler.resample(None):
            yield from self.stream.encode(ready)
        yield from self.stream.encode(None)


class _Text:
    """Subtitles in another text format, line by line."""

    def __init__(self, output: OutputContainer, template: Any, treatment: Treatment) -> None:
        self.stream: Any = output.add_stream(treatment.encoder)
        self.stream.time_base = template.time_base
        template.codec_context.open(strict=False)  # the style header is known from then on, and the encoder asks for it
        context: Any = self.stream.codec_context
        context.subtitle_header = template.codec_context.subtitle_header
        describe(self.stream, template)

    def carry(self, packet: av.Packet, shift: Fraction) -> Iterator[av.Packet]:
        decoder: Any = packet.stream.codec_context
        lines = decoder.decode2(packet)
        if lines is None or len(lines) == 0 or packet.pts is None:
            return
        encoded = self.stream.codec_context.encode_subtitle(lines)
        encoded.stream, encoded.time_base = self.stream, packet.time_base
        encoded.pts = encoded.dts = packet.pts - round(shift / unit(packet))
        encoded.duration = packet.duration
        yield encoded

    def flush(self) -> Iterator[av.Packet]:
        yield from ()


CARRIERS: dict[tuple[str, str], Callable[[OutputContainer, Any, Treatment], _Carrier]] = {
    ("copy", "audio"): _Copy,
    ("copy", "subtitle"): _Copy,
    ("copy", "attachment"): _Copy,
    ("copy", "video"): _Copy,  # a cover picture
    ("encode", "audio"): _Sound,
    ("encode", "subtitle"): _Text,
}


def _skip_to(source: InputContainer, cut: Cut) -> None:
    margin = LONGEST_LINE if source.streams.subtitles else SEEK_MARGIN
    if cut.first is None or cut.first <= margin:
        return
    try:
        source.seek(int((cut.first - margin) * av.time_base))
    except av.error.FFmpegError:
        log.debug("no seeking in %s: it is read from its beginning", source.name)


def _chapters(chapters: list[Any], cut: Cut) -> list[Any]:
    """The chapters that reach into the cut, clipped to it, on the output's clock."""
    kept = []
    for chapter in chapters:
        base = exact(chapter["time_base"]) or Fraction(1)
        start, end = chapter["start"] * base, chapter["end"] * base
        start = start if cut.first is None else max(start, cut.first)
        end = end if cut.last is None else min(end, cut.last)
        if start < end:
            kept.append({**chapter, "start": round((start - cut.shift) / base), "end": round((end - cut.shift) / base)})
    return kept
