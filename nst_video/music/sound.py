"""Any file with sound as one channel of samples at one rate, placed exactly: sample 0 is where the caller's clock is 0.

It runs in the process of its own that `guarded.py` starts; the main process gets features, never samples.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from nst_video.errors import InputError
from nst_video.media.containers import VIDEO_FORMATS, open_media, unit
from nst_video.media.pictures import DEFAULT_MAX_PIXELS
from nst_video.plain import fraction_of, plain

log = logging.getLogger(__name__)

RATE = 24_000  # samples/s: up to 12 kHz is heard, and a cell of 5 ms is a whole number of samples
LONGEST = 4 * 3600  # seconds
FORMATS = f"{VIDEO_FORMATS},wav,w64,mp3,flac,ogg,aac,aiff,caf"
READABLE = "flac, wav, mp3, m4a, aac, ogg, opus, aiff, or a video with sound"
GAP = 0.05  # seconds by which timestamps may be off before silence is put in or sound left out: mkv rounds them
SPARE = 0.01  # share of the packets that may be damaged, as notes at the end of an mp3 seem to be
SHORT = 1.0  # seconds that may be missing from what the header promises
# Demuxers that know how long the sound is; others guess by the size of the file.
EXACT = frozenset({"flac", "caf", "mov,mp4,m4a,3gp,3g2,mj2"})
_BLOCK = RATE  # samples of silence at a time


@dataclass(frozen=True)
class SoundRequest:
    """What to listen to: the first sound of a file, from `zero` seconds of the file's clock on (None: from its first
    sample) plus `start`, for `seconds` (None: to its end).
    """

    path: str
    zero: Fraction | None = None
    start: Fraction = Fraction(0)
    seconds: Fraction | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        data: dict[str, Any] = plain(asdict(self))
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SoundRequest":
        """What `to_json` wrote."""
        exact = {name: fraction_of(data[name]) for name in ("zero", "start", "seconds") if data[name] is not None}
        return cls(**data | exact)


@contextmanager
def open_sound(path: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[InputContainer]:
    """A file with sound opened for demuxing, as safely as a video: plain files of the allowed formats only."""
    with open_media(path, max_pixels, formats=FORMATS, what="a sound", readable=READABLE) as container:
        yield container


def check_decoded(path: str, any_sound: bool, *, packets: int, damaged: int) -> None:
    """InputError where no sound, or too few of all packets, could be decoded."""
    if not any_sound and not damaged:
        raise InputError(f"{path} holds no sound: it is 0 s long; give another file")
    if not any_sound:
        raise InputError(f"{path} holds no sound that can be decoded; convert it with another program")
    if damaged > max(1, SPARE * packets):
        raise InputError(
            f"{path} is damaged: {damaged} of {packets} parts of its sound cannot be decoded; "
            "convert it with another program"
        )


def sound_stream(container: InputContainer, path: str) -> AudioStream:
    """The first stream of sound that a decoder here knows; InputError where there is none."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not known:
        kinds = sorted({str(stream.type) for stream in container.streams})
        raise InputError(f"{path} has no sound (it holds {', '.join(kinds) or 'nothing'})")
    return known[0]


def samples(request: SoundRequest, on_step: Callable[[], None] = lambda: None) -> Iterator[np.ndarray]:
    """The sound as float32 blocks of one channel at RATE; what a decoder skips at the start, as encoders ask for, is
    skipped, and gaps in its times are silent. `on_step` is called for every packet: a sign of life.

    Raises InputError: no sound in it, damaged, or longer than 4 hours.
    """
    with open_sound(request.path, request.max_pixels) as container:
        yield from _Listener(request, container, on_step).blocks()


class _Listener:
    """One pass over the packets of a stream of sound."""

    def __init__(self, request: SoundRequest, container: InputContainer, on_step: Callable[[], None]):
        self.request, self.container, self.on_step = request, container, on_step
        self.path = request.path
        self.stream = sound_stream(container, self.path)
        self.zero: Fraction | None = None if request.zero is None else request.zero + request.start
        self.wanted = LONGEST * RATE if request.seconds is None else int(request.seconds * RATE)
        self.given = 0  # samples so far, from the clock's zero on
        self.skip = 0  # samples of what comes next that lie before it
        self.expected: Fraction | None = None  # when the next frame should begin
        self.form: tuple[Any, ...] = ()
        self.resampler: av.AudioResampler | None = None
        self.packets = self.damaged = 0

    def blocks(self) -> Iterator[np.ndarray]:
        for frame in self._frames():
            yield from self._place(frame)
            assert self.resampler is not None
            yield from self._cut(self.resampler.resample(frame))
            if self.given >= self.wanted:
                self._check_length()
                return
        yield from self._flush()
        self._check_whole()

    def _check_length(self) -> None:
        if self.request.seconds is None:
            raise InputError(f"{self.path} is more than {LONGEST // 3600} hours of sound; cut it shorter first")

    def _frames(self) -> Iterator[AudioFrame]:
        try:
            for packet in self.container.demux(self.stream):
                self.on_step()
                self.packets += 1
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    self.damaged += 1
                    continue
                yield from (frame for frame in frames if isinstance(frame, AudioFrame) and frame.samples)
        except av.error.FFmpegError as error:
            raise InputError(f"{self.path} is damaged {self._where()}; convert it with another program") from error

    def _place(self, frame: AudioFrame) -> Iterator[np.ndarray]:
        """Make ready for a frame: where it does not follow on the one before, begin anew at its own time."""
        time = frame.pts * unit(frame) if frame.pts is not None else self.expected or Fraction(0)
        form = (frame.sample_rate, frame.format.name, frame.layout.name)
        if self.expected is None or abs(time - self.expected) > GAP or form != self.form:
            yield from self._flush()
            if self.zero is None:
                self.zero = time + self.request.start
            target = round((time - self.zero) * RATE)
            # No further than is wanted: a clock that leaps may mean years.
            yield from self._silence(min(target, self.wanted) - self.given)
            self.skip = max(0, self.given - target)
            self.form = form
            self.resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            self.expected = time
        frame.pts = None  # the resampler need not know of small leaps
        self.expected += Fraction(frame.samples, frame.sample_rate)

    def _silence(self, count: int) -> Iterator[np.ndarray]:
        while count > 0:
            size = min(count, _BLOCK)
            self.given += size
            count -= size
            yield np.zeros(size, np.float32)

    def _flush(self) -> Iterator[np.ndarray]:
        if self.resampler is not None:
            yield from self._cut(self.resampler.resample(None))
            self.resampler = None

    def _cut(self, frames: list[AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            block = frame.to_ndarray().reshape(-1)
            left, self.skip = block[self.skip :], max(0, self.skip - len(block))
            left = left[: max(0, self.wanted - self.given)]
            self.given += len(left)
            if len(left):
                # Samples that are no numbers are what a damaged file of floats can hold.
                yield np.clip(np.nan_to_num(left, nan=0.0), -8, 8).astype(np.float32)

    def _check_whole(self) -> None:
        """What stood against it once everything has been read."""
        check_decoded(self.path, self.expected is not None, packets=self.packets, damaged=self.damaged)
        assert self.expected is not None
        promised = self.stream.duration * unit(self.stream) if self.stream.duration else Fraction(0)
        heard = self.expected - (self.stream.start_time or 0) * unit(self.stream)
        if self.container.format.name in EXACT and promised - heard > SHORT:
            raise InputError(
                f"{self.path} breaks off after {float(heard):.1f} s of the {float(promised):.1f} s that it promises; "
                "get a whole one, or convert it with another program"
            )

    def _where(self) -> str:
        return "from its start" if self.expected is None else f"after {float(self.expected):.1f} s"
