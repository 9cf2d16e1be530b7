"""Music in place of a clip's own sound: copied where the container holds it and its packets end where the pictures do,
else encoded sample for sample, as often as it has to be heard.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec import Codec
from av.container import InputContainer, OutputContainer

from nst_video.errors import InputError
from nst_video.media.codecs import can_encode
from nst_video.media.containers import unit
from nst_video.media.streams import BIT_RATE_OF_A_CHANNEL, LAYOUTS, Companions
from nst_video.media.treatments import HOLDS, codec_of, describe, is_known
from nst_video.media.videoinfo import VideoInfo
from nst_video.music.sound import check_decoded, open_sound, sound_stream
from nst_video.plain import fraction_of

log = logging.getLogger(__name__)

FADE = Fraction(3)  # seconds, at most, in which music that fades goes silent, and with it what it drives
# Codecs that lose nothing: encoding them anew gives the same samples, so they can end at any of them.
LOSSLESS = frozenset({"flac", "alac"})
_BATCH = 4096  # samples that are encoded at a time


@dataclass(frozen=True)
class Song:
    """Music for a video, as a look at it has found it.

    seconds: how long it is from `begin` on. packet: the longest of its packets, in seconds. ending: what happens where
    the video is longer: it begins again ("loop"), falls silent ("stop") or fades and falls silent ("fade", which also
    fades where the video ends first). begin: seconds of it that are left out.
    """

    path: str
    seconds: Fraction
    packet: Fraction
    ending: str = "stop"
    begin: Fraction = Fraction(0)

    def can_be_copied(self, seconds: Fraction, frame: Fraction) -> bool:
        """Whether whole packets, as they are, end within one `frame` of a video of so many seconds."""
        whole = self.begin == 0 and self.ending != "fade"
        return whole and self.packet / 2 <= frame and self.seconds >= seconds - frame

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Song":
        """What `plain` made of its fields."""
        return cls(**data | {name: fraction_of(data[name]) for name in ("seconds", "packet", "begin")})


@dataclass(frozen=True)
class Heard:
    """The song as it is heard under one video, which lasts so many seconds; `frame` is how long its last frame is."""

    song: Song
    seconds: Fraction
    frame: Fraction

    @classmethod
    def under(cls, song: Song, edges: Sequence[int], time_base: Fraction) -> "Heard":
        """As it is heard under frames at `edges`, in units of `time_base`, of which the last is where they end."""
        return cls(song, (edges[-1] - edges[0]) * time_base, (edges[-1] - edges[-2]) * time_base)


def make_companions(
    info: VideoInfo,
    output: OutputContainer,
    suffix: str,
    *,
    alone: bool = False,
    music: Heard | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Companions:
    """The source's streams beside the pictures, with the music, where there is any, in place of its sound; alone:
    nothing of all this.
    """
    companions = Companions(info, output, suffix, alone=alone, silent=music is not None, on_step=on_step)
    if music is not None and not alone:
        if suffix in HOLDS:
            source = companions.files.enter_context(open_sound(music.song.path))
            companions.play(Soundtrack(music, output, suffix, source, on_step))
        else:
            log.warning("%s holds pictures only; the music only drives them", suffix)
    return companions


def survey_song(
    path: str,
    ending: str,
    longest: Fraction,
    *,
    begin: Fraction = Fraction(0),
    on_step: Callable[[], None] = lambda: None,
) -> Song:
    """Decode all of the music once: how long it is, to the sample; InputError for what cannot be decoded to its end, is
    longer than `longest` seconds, or has no samples from `begin` on.
    """
    samples, rate, packet_length, end, packets, damaged = 0, 0, Fraction(0), None, 0, 0
    with open_sound(path) as container:
        stream: Any = sound_stream(container, path)
        if not is_known(stream.codec_context):
            raise InputError(f"{path} is damaged: the rate, channels or samples of its sound cannot be told")
        try:
            for packet in container.demux(stream):
                on_step()
                if packet.pts is not None and packet.duration:
                    end = (packet.pts + packet.duration - (stream.start_time or 0)) * unit(stream)
                packets += 1
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    damaged += 1
                    continue
                for frame in frames:
                    rate = rate or frame.sample_rate
                    if frame.sample_rate != rate:
                        raise InputError(f"{path} changes its sample rate in the middle; convert it first")
                    samples += frame.samples
                    packet_length = max(packet_length, Fraction(frame.samples, rate))
                    if samples > longest * rate:
                        raise InputError(
                            f"{path} is longer than {float(longest):g} s; use a shorter one, or raise --max-duration"
                        )
        except (av.error.FFmpegError, ValueError) as error:
            where = f" after {samples / rate:.2f} s" if rate else ""
            raise InputError(f"{path} is damaged{where}: its sound cannot be decoded; convert it first") from error
    check_decoded(path, samples > 0, packets=packets, damaged=damaged)
    seconds = Fraction(samples, rate)
    # Some decoders give the last packet whole, though its end is only there to fill it.
    if end is not None and 0 <= seconds - end < packet_length:
        seconds = end
    if seconds <= begin:
        raise InputError(f"{path} is {float(seconds):.2f} s long and so ends before --music-start {float(begin):g}")
    return Song(path, seconds - begin, packet_length, ending, begin)


class Soundtrack:
    """The stream of music in an output, and its packets in order, on the output's clock."""

    def __init__(
        self,
        heard: Heard,
        output: OutputContainer,
        suffix: str,
        source: InputContainer,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """source: the song, opened with `open_sound`, for as long as this lives. on_step: called for every packet that
        is read or made.
        """
        self.heard, self.source, self.on_step = heard, source, on_step
        template: Any = sound_stream(source, heard.song.path)
        holds, name, path = HOLDS[suffix], codec_of(template), heard.song.path
        refused = holds.refused_sound(template)
        lossless = name in LOSSLESS or name.startswith("pcm_")
        self.copies = refused is None and heard.song.can_be_copied(heard.seconds, heard.frame)
        if self.copies:
            self.stream: Any = output.add_stream_from_template(template, opaque=True)
            describe(self.stream, template)
            return
        encoder = name if refused is None and lossless and can_encode(name) else holds.sound_encoder
        if not (lossless and encoder in (name, "flac", "alac")):
            ends = "begin" if heard.song.begin else "end"
            why = f"{suffix} does not hold {refused}" if refused else f"it has to {ends} elsewhere than its packets do"
            log.warning("%s becomes %s: %s", path, encoder, why)
        self._add_encoded(output, template, encoder)

    def _add_encoded(self, output: OutputContainer, template: Any, encoder: str) -> None:
        source = template.codec_context
        rates = Codec(encoder, "w").audio_rates or [source.sample_rate]
        self.rate = max((rate for rate in rates if rate <= source.sample_rate), default=min(rates))
        self.layout = LAYOUTS.get(source.layout.nb_channels, "stereo")
        self.stream = output.add_stream(encoder, rate=self.rate)
        context: Any = self.stream.codec_context
        context.layout = self.layout
        formats = [one.name for one in Codec(encoder, "w").audio_formats or []]
        if source.format.name in formats:
            context.format = source.format.name  # as many bits as there are
        if encoder not in LOSSLESS and not encoder.startswith("pcm_"):
            context.bit_rate = BIT_RATE_OF_A_CHANNEL * context.layout.nb_channels
        describe(self.stream, template)
        context.open()

    def packets(self, start: Fraction) -> Iterator[av.Packet]:
        """Every packet; `start` is when the first frame is shown, in seconds of the output's clock."""
        return self._copied(start) if self.copies else self._encoded(start)

    def _copied(self, start: Fraction) -> Iterator[av.Packet]:
        """The packets that end nearest to the end of the video; what is heard first is heard at `start`."""
        source: Any = sound_stream(self.source, self.heard.song.path)
        base = unit(source)
        shift = round(start / base) - (source.start_time or 0)
        end = start + self.heard.seconds
        for packet in self.source.demux(source):
            self.on_step()
            if not packet.size or packet.dts is None:
                continue
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts += shift
            middle = (packet.dts + Fraction(packet.duration or 0) / 2) * base
            if middle >= end:
                return
            packet.stream = self.stream
            yield packet

    def _encoded(self, start: Fraction) -> Iterator[av.Packet]:
        """The samples of the whole video, no more and no fewer."""
        context: Any = self.stream.codec_context
        # Without a size of its own an encoder takes any; small ones interleave well.
        resampler = av.AudioResampler(
            format=context.format.name, layout=self.layout, rate=self.rate, frame_size=context.frame_size or _BATCH
        )
        done, offset = 0, round(start * self.rate)
        for samples in self._samples(round(self.heard.seconds * self.rate)):
            frame = av.AudioFrame.from_ndarray(samples, format=_planar(context.format.name), layout=self.layout)
            frame.sample_rate, frame.pts, frame.time_base = self.rate, offset + done, Fraction(1, self.rate)
            done += samples.shape[1]
            self.on_step()
            for ready in resampler.resample(frame):
                yield from self.stream.encode(ready)
        for ready in resampler.resample(None):
            yield from self.stream.encode(ready)
        yield from self.stream.encode(None)

    def _samples(self, wanted: int) -> Iterator[np.ndarray]:
        """`wanted` samples (channels, n) of the encoder's format: the music, again or silent where it is too short,
        faded where it is to fade.
        """
        song, done = self.heard.song, 0
        length = round(song.seconds * self.rate)
        sounding = wanted if song.ending == "loop" else min(wanted, length)
        fade = round(min(FADE, song.seconds) * self.rate) if song.ending == "fade" else 0
        while done < sounding:
            begun = done
            for part in self._decoded():
                samples = part[:, : min(sounding, begun + length) - done]
                if not samples.size:
                    break
                yield _faded(samples, sounding - done, fade) if fade else samples
                done += samples.shape[1]
            if done == begun or song.ending != "loop":  # the resampler may give a sample less than was counted
                break
        channels = av.AudioLayout(self.layout).nb_channels
        silence = _silence(self.stream.codec_context.format.name, channels)
        while done < wanted:
            count = min(_BATCH, wanted - done)
            yield np.repeat(silence, count, axis=1)
            done += count

    def _decoded(self) -> Iterator[np.ndarray]:
        """The whole music from its beginning, as planar samples of the encoder's rate and format."""
        target = _planar(self.stream.codec_context.format.name)
        resampler = av.AudioResampler(format=target, layout=self.layout, rate=self.rate)
        with open_sound(self.heard.song.path) as container:
            skip = round(self.heard.song.begin * self.rate)
            for frame in _frames(container, self.heard.song.path):
                frame.pts = None  # gaps in its clock are no silence: what was counted is what is heard
                for ready in resampler.resample(frame):
                    samples = ready.to_ndarray()
                    if samples.shape[1] > skip:
                        yield samples[:, skip:]
                    skip = max(0, skip - samples.shape[1])
            for ready in resampler.resample(None):
                yield ready.to_ndarray()[:, skip:]


def _frames(container: InputContainer, path: str) -> Iterator[Any]:
    """All that can be decoded: the survey has found that little cannot."""
    for packet in container.demux(sound_stream(container, path)):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _planar(format_name: str) -> str:
    return str(av.AudioFormat(format_name).planar.name)


def _silence(format_name: str, channels: int) -> np.ndarray:
    """One silent sample (channels, 1)."""
    frame = av.AudioFrame(format=_planar(format_name), layout="mono", samples=1)
    kind = frame.to_ndarray().dtype
    return np.full((channels, 1), 128 if kind == np.uint8 else 0, kind)


def _faded(samples: np.ndarray, left: int, fade: int) -> np.ndarray:
    """Samples (channels, n), the first of them `left` before the end, quieter the nearer to it."""
    remaining = left - np.arange(samples.shape[1])
    gain = np.minimum(1.0, remaining / fade)
    if samples.dtype == np.uint8:
        return np.rint(128 + (samples.astype(float) - 128) * gain).astype(np.uint8)
    faded = samples * gain
    return (np.rint(faded) if samples.dtype.kind == "i" else faded).astype(samples.dtype)
