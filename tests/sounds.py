"""Sounds of known content: clicks, tones and drum loops, and files made of them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 44_100


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def put(sound: np.ndarray, time: float, part: np.ndarray) -> None:
    """Add `part` from `time` on, as far as there is room."""
    first = round(time * RATE)
    room = sound[first : first + len(part)]
    room += part[: len(room)]


def burst(height: float = 0.8, length: int = 64) -> np.ndarray:
    """A click of 3 kHz that begins with its loudest sample."""
    n = np.arange(length)
    return (height * np.cos(2 * np.pi * 3000 * n / RATE) * np.exp(-n / 12)).astype(np.float32)


def click_track(times, seconds: float, *, height: float = 0.8) -> np.ndarray:
    """Clicks that begin exactly at `times`."""
    sound = silence(seconds)
    for time in times:
        put(sound, time, burst(height))
    return sound


def tone(frequency: float, seconds: float, height: float = 0.5) -> np.ndarray:
    moments = np.arange(round(seconds * RATE)) / RATE
    return (height * np.sin(2 * np.pi * frequency * moments)).astype(np.float32)


def _kick() -> np.ndarray:
    t = np.arange(round(0.25 * RATE)) / RATE
    phase = 2 * np.pi * (50 * t + 60 * (1 - np.exp(-30 * t)) / 30)
    return (0.8 * np.sin(phase) * np.exp(-14 * t) * np.minimum(t / 0.002, 1)).astype(np.float32)


def _noise(rng: np.random.Generator, seconds: float, decay: float, height: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (height * rng.normal(size=len(t)) * np.exp(-t / decay)).astype(np.float32)


def beat_times(tempos) -> list[float]:
    """(beats/min, number of beats) parts -> the times of the beats; a pair of tempos changes evenly from one to the
    other.
    """
    times, now = [], 0.5
    for tempo, count in tempos:
        first, last = tempo if isinstance(tempo, tuple) else (tempo, tempo)
        for beat in range(count):
            times.append(now)
            now += 60 / (first + (last - first) * beat / count)
    return times


def drum_loop(tempos, *, seed: int = 0, swing: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, list[float]]:
    """Kick on 1 and 3, snare on 2 and 4, hi-hats on the eighths; (sound, the times of the beats)."""
    rng = np.random.default_rng(seed)
    times = beat_times(tempos)
    sound = silence(times[-1] + 1)
    for number, (time, after) in enumerate(zip(times, [*times[1:], 2 * times[-1] - times[-2]], strict=True)):
        put(sound, time, _kick() if number % 2 == 0 else _noise(rng, 0.2, 0.05, 0.25))
        for eighth in (0, 0.5 + swing):
            put(sound, time + eighth * (after - time), _noise(rng, 0.06, 0.015, 0.08))
        if number % 4 == 2:  # a kick off the beat, as loops have
            put(sound, time + 0.75 * (after - time), 0.5 * _kick())
    sound += noise * rng.normal(size=len(sound)).astype(np.float32)
    return np.clip(sound, -1, 1), times


def f_measure(found, true, within: float = 0.05) -> float:
    """Of beats: each true one is met by one found within so many seconds."""
    left = sorted(found)
    hits = 0
    for time in true:
        near = [beat for beat in left if abs(beat - time) <= within]
        if near:
            left.remove(min(near, key=lambda beat: abs(beat - time)))
            hits += 1
    return 2 * hits / (len(found) + len(true)) if len(found) + len(true) else 1.0


# suffix -> (encoder, sample format), of every kind of file that is read
RATES = {
    "23.976": Fraction(24000, 1001),
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30000, 1001),
    "30": Fraction(30),
    "60": Fraction(60),
}
ENCODERS = {
    ".wav": ("pcm_s16le", "s16"),
    ".flac": ("flac", "s16"),
    ".mp3": ("libmp3lame", "fltp"),
    ".m4a": ("aac", "fltp"),
    ".aac": ("aac", "fltp"),
    ".ogg": ("libopus", "flt"),
    ".opus": ("libopus", "flt"),
    ".mka": ("aac", "fltp"),
}


def write_sound(path: Path, sound: np.ndarray, *, rate: int = RATE, channels: int = 1) -> Path:
    """The sound as a file; its kind follows the suffix."""
    encoder, form = ENCODERS[path.suffix]
    layout = {1: "mono", 2: "stereo"}[channels]
    wanted = 48_000 if encoder == "libopus" else rate
    options = {".opus": "ogg", ".ogg": "ogg", ".mka": "matroska", ".aac": "adts"}
    with av.open(str(path), "w", format=options.get(path.suffix)) as container:
        stream = container.add_stream(encoder, rate=wanted, layout=layout)
        stream.codec_context.format = form
        resampler = av.AudioResampler(
            format=form, layout=layout, rate=wanted, frame_size=stream.codec_context.frame_size
        )
        for first in range(0, len(sound), rate):
            block = np.ascontiguousarray(sound[first : first + rate].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            for made in resampler.resample(frame):
                container.mux(stream.encode(made))
        for made in resampler.resample(None):
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return path
