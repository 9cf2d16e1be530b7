"""Click tracks, and where the clicks of a finished file are heard."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48_000
CODECS = {".flac": "flac", ".wav": "pcm_s16le", ".mp3": "libmp3lame", ".m4a": "aac", ".opus": "libopus"}


def click_track(path: Path, seconds: float, times, *, rate: int = RATE, channels: int = 2) -> Path:
    """Sound by the suffix with a click, 5 ms of noise, at each of `times` (s), over a quiet hum."""
    samples = np.arange(round(seconds * rate))
    wave = 0.02 * np.sin(2 * np.pi * 110 * samples / rate)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, round(0.005 * rate))
    for time in times:
        first = round(time * rate)
        part = wave[first : first + len(noise)]
        part += noise[: len(part)]
    write_sound(path, np.repeat(wave[None].astype(np.float32), channels, axis=0), rate)
    return path


def write_sound(path: Path, wave: np.ndarray, rate: int = RATE, codec: str | None = None) -> None:
    """float32 (channels, n) in [-1, 1] as a file."""
    layout = {1: "mono", 2: "stereo"}[len(wave)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=rate)
        context = stream.codec_context
        context.layout = layout
        context.open()
        resampler = av.AudioResampler(context.format.name, layout, rate, frame_size=context.frame_size or 4096)
        for first in range(0, wave.shape[1], 4096):
            part = np.ascontiguousarray(wave[:, first : first + 4096])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            for ready in resampler.resample(frame):
                container.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            container.mux(stream.encode(ready))
        container.mux(stream.encode(None))


def heard(path: Path) -> tuple[np.ndarray, Fraction, int]:
    """(samples of the first channel, when the first is heard, rate): decoded sound, at the times it is shown at."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    rate = frames[0].sample_rate
    planes = [frame.to_ndarray() for frame in frames]
    channels = frames[0].layout.nb_channels
    mono = [plane[0] if len(plane) == channels else plane[0, ::channels] for plane in planes]
    wave = np.concatenate(mono)
    scale = {"i": float(np.iinfo(wave.dtype).max) if wave.dtype.kind == "i" else 1.0, "f": 1.0}[wave.dtype.kind]
    first = frames[0]
    return wave / scale, first.pts * Fraction(first.time_base.numerator, first.time_base.denominator), rate


def click_times(path: Path) -> list[float]:
    """When the clicks begin, in seconds of the file's clock."""
    wave, start, rate = heard(path)
    loud = np.flatnonzero(np.abs(wave) > 0.25)
    firsts = loud[np.diff(loud, prepend=-rate) > 0.05 * rate]
    return [float(start) + first / rate for first in firsts]


def spans(path: Path) -> tuple[float, float, float, float]:
    """(beginning, end) of the pictures and of the sound, in seconds, as the packets say."""
    found = []
    with av.open(str(path)) as container:
        for stream in (container.streams.video[0], container.streams.audio[0]):
            base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            container.seek(0)
            packets = [packet for packet in container.demux(stream) if packet.size]
            first = min(packet.pts for packet in packets)
            found += [float(first * base), float(max(p.pts + (p.duration or 0) for p in packets) * base)]
    return tuple(found)
