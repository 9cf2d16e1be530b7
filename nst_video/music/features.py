"""What is in a sound, moment by moment: onsets, loudness, bands, brightness and chroma, on a grid of cells of 5 ms.

Cell k is what is heard from k to k + 1 times 5 ms. Everything is worked out as the samples come, in bounded memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nst_video.music.sound import RATE

CELL = 120  # samples
CELLS = RATE // CELL  # in a second: 200
SECONDS = 1 / CELLS  # of a cell
# Hz from, to; 1 is the loudest that a band gets, so each moves over its whole range.
BANDS = {"bass": (20.0, 150.0), "mid": (150.0, 2500.0), "treble": (2500.0, 12_000.0)}
SILENT = 5e-4  # peak of a sound (1 = full scale, -66 dB) that counts as none: the noise of a silent track is less

_ONSET, _BAND, _CHROMA = 512, 1024, 8192  # samples of the windows: 21 ms for times, 43 for bands, 341 for notes
_CHROMA_EVERY = 8  # cells
_HEARD = 24  # bands in which onsets are heard
_COMPRESSION = 30.0  # of loudness: onsets are heard in the quiet of a band too
_HIGHEST_NOTE, _LOWEST_NOTE = 4200.0, 60.0  # Hz: the piano's upper end, and where notes are too close to tell apart
_A4 = 440.0
_LOUD = 98  # percentile that counts as 1: the odd bang does not make the rest small
_FAINT = 0.03  # of the loudest band: less, such as what the window lets through from it, is not raised to 1
_CENTROID = (100.0, 10_000.0)  # Hz that count as 0 and as 1, evenly by octaves
_GATE = 0.003  # of the loudest moment: what is quieter has no notes
_CHUNK = 4096  # cells worked out at once
# The change between two windows is greatest for a sound that begins this far behind the middle of the second one.
_ONSET_LEAD = 160  # samples, measured with clicks and drums (scripts/bench_music.py)


@dataclass(frozen=True)
class Features:
    """Cells of float32, each feature in [0, 1]; chroma is (12, cells), C first. peak: of the samples, before anything.
    wave: the peak of every cell, for a picture of the sound.
    """

    onset: np.ndarray
    rms: np.ndarray
    bass: np.ndarray
    mid: np.ndarray
    treble: np.ndarray
    centroid: np.ndarray
    chroma: np.ndarray
    wave: np.ndarray
    peak: float
    samples: int

    @property
    def silent(self) -> bool:
        """Whether there is nothing to hear."""
        return self.peak < SILENT


class Analyser:
    """Takes samples block by block, gives features at the end."""

    def __init__(self) -> None:
        self._windows = {
            "onset": _Windows(_ONSET, 1, CELL - _ONSET_LEAD, _log_bands),
            "band": _Windows(_BAND, 1, CELL // 2, _bands),
            "chroma": _Windows(_CHROMA, _CHROMA_EVERY, CELL * _CHROMA_EVERY // 2, _pitch_classes),
        }
        self._rest = np.zeros(0, np.float32)
        self._energy: list[np.ndarray] = []
        self._wave: list[np.ndarray] = []
        self._samples = 0

    def feed(self, block: np.ndarray) -> None:
        """float32 (n,) samples that follow on those before."""
        self._samples += len(block)
        for windows in self._windows.values():
            windows.feed(block)
        joined = np.concatenate([self._rest, block])
        whole = len(joined) // CELL * CELL
        self._count(joined[:whole])
        self._rest = joined[whole:]

    def _count(self, block: np.ndarray) -> None:
        cells = block.reshape(-1, CELL)
        self._energy.append(np.square(cells, dtype=np.float64).mean(1).astype(np.float32))
        self._wave.append(np.abs(cells).max(1) if len(cells) else np.zeros(0, np.float32))

    def finish(self) -> Features:
        """The features of all that was fed; the last cell may be part silence."""
        if len(self._rest):
            self._count(np.pad(self._rest, (0, CELL - len(self._rest))))
        energy, wave = np.concatenate(self._energy or [_NOTHING]), np.concatenate(self._wave or [_NOTHING])
        count = len(energy)
        found = {name: windows.finish(count) for name, windows in self._windows.items()}
        bands, centroid = found["band"][:, :3].T, found["band"][:, 3]
        loud = np.sqrt(smooth(energy, 0.04))
        least = _FAINT * max((_percentile(band) for band in bands), default=0.0)
        chroma = np.repeat(found["chroma"], _CHROMA_EVERY, axis=0)[:count].T
        return Features(
            onset=_onsets(found["onset"]),
            rms=_scaled(loud),
            **{name: _scaled(band, least) for name, band in zip(BANDS, bands, strict=True)},
            centroid=np.where(loud > _GATE * loud.max(initial=0), centroid, 0).astype(np.float32),
            chroma=_notes(chroma),
            wave=wave,
            peak=float(wave.max(initial=0)),
            samples=self._samples,
        )


_NOTHING = np.zeros(0, np.float32)


class _Windows:
    """Spectra of overlapping windows, one for every `every` cells, each made into a few numbers at once."""

    def __init__(self, size: int, every: int, middle: int, measure: Callable[[np.ndarray], np.ndarray]):
        """`middle`: the sample, counted from the first of its cells, that lies in the middle of a window."""
        self.size, self.hop, self.measure = size, CELL * every, measure
        self.every = every
        self.shape = np.hanning(size + 1)[:-1].astype(np.float32)
        lead = size // 2 - middle  # samples of the first window that lie before the sound
        self.waiting = np.zeros(max(lead, 0), np.float32)
        self.drop = max(-lead, 0)
        self.found: list[np.ndarray] = []

    def feed(self, block: np.ndarray) -> None:
        left = block[self.drop :]
        self.drop = max(0, self.drop - len(block))
        self.waiting = np.concatenate([self.waiting, left])
        self._work(max(0, (len(self.waiting) - self.size) // self.hop + 1))

    def _work(self, count: int) -> None:
        for first in range(0, count, _CHUNK):
            many = min(_CHUNK, count - first)
            begin = first * self.hop
            part = self.waiting[begin : begin + (many - 1) * self.hop + self.size]
            views = np.lib.stride_tricks.sliding_window_view(part, self.size)[:: self.hop]
            spectrum = np.abs(np.fft.rfft(views * self.shape, axis=1)).astype(np.float32) / (self.size / 4)
            self.found.append(self.measure(spectrum))
        self.waiting = self.waiting[count * self.hop :]

    def finish(self, cells: int) -> np.ndarray:
        """One row for each `every` of so many cells."""
        wanted = -(-cells // self.every)
        missing = wanted - sum(map(len, self.found))
        needed = max(0, (missing - 1) * self.hop + self.size - len(self.waiting)) if missing > 0 else 0
        self.waiting = np.concatenate([self.waiting, np.zeros(needed, np.float32)])
        self._work(max(0, missing))
        width = len(self.measure(np.zeros((1, self.size // 2 + 1), np.float32))[0])
        return np.concatenate([np.zeros((0, width), np.float32), *self.found])[:wanted]


def _frequencies(size: int) -> np.ndarray:
    return np.fft.rfftfreq(size, 1 / RATE)


def _log_filters() -> np.ndarray:
    """(bins, bands): triangles, evenly by octaves from 60 Hz up, no narrower than the window can tell apart."""
    edges = np.geomspace(60.0, RATE / 2, _HEARD + 2)
    frequencies = _frequencies(_ONSET)
    narrow = RATE / _ONSET
    filters = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        below, above = max(middle - low, narrow), max(high - middle, narrow)
        rising, falling = (frequencies - middle + below) / below, (middle + above - frequencies) / above
        filters.append(np.clip(np.minimum(rising, falling), 0, None))
    return np.stack(filters, axis=1).astype(np.float32)


_FILTERS = _log_filters()


def _log_bands(spectrum: np.ndarray) -> np.ndarray:
    return (spectrum @ _FILTERS).astype(np.float16)


def _bands(spectrum: np.ndarray) -> np.ndarray:
    """Amplitude of bass, mid and treble, and the centroid as octaves in [0, 1]."""
    frequencies = _frequencies(_BAND)
    power = np.square(spectrum)
    columns = [
        np.sqrt(power[:, (frequencies >= low) & (frequencies < high)].sum(1) / 3)  # a Hann window spreads by 3/2
        for low, high in BANDS.values()
    ]
    total = spectrum.sum(1)
    centre = (spectrum @ frequencies) / np.maximum(total, 1e-12)
    low, high = _CENTROID
    bright = np.log(np.maximum(centre, 1e-9) / low) / np.log(high / low)
    return np.stack([*columns, np.clip(bright, 0, 1)], axis=1).astype(np.float32)


def _pitch_classes(spectrum: np.ndarray) -> np.ndarray:
    """The peaks of the spectra as amplitudes of the 12 pitch classes, C first."""
    found = np.zeros((len(spectrum), 12), np.float32)
    left, middle, right = spectrum[:, :-2], spectrum[:, 1:-1], spectrum[:, 2:]
    rows, columns = np.nonzero((middle > left) & (middle >= right) & (middle > 0.01 * spectrum.max(1, keepdims=True)))
    if not len(rows):
        return found
    a, b, c = (np.log(np.maximum(part[rows, columns], 1e-12)) for part in (left, middle, right))
    curved = a - 2 * b + c
    shift = np.where(curved < 0, 0.5 * (a - c) / np.minimum(curved, -1e-12), 0)
    pitch = (columns + 1 + np.clip(shift, -0.5, 0.5)) * RATE / _CHROMA
    inside = (pitch >= _LOWEST_NOTE) & (pitch <= _HIGHEST_NOTE)
    notes = np.round(12 * np.log2(pitch[inside] / _A4)).astype(int) + 9  # A is 9 above C
    np.add.at(found, (rows[inside], notes % 12), middle[rows[inside], columns[inside]])
    return found


def _notes(chroma: np.ndarray) -> np.ndarray:
    """(12, n): the strongest note of every moment is 1; where it is quiet there are none."""
    strongest = chroma.max(0, initial=0)
    loud = strongest > _GATE * strongest.max(initial=0)
    return np.where(loud, chroma / np.maximum(strongest, 1e-12), 0).astype(np.float32)


def _onsets(bands: np.ndarray) -> np.ndarray:
    """Spectral flux: how much louder the bands get from one cell to the next, (n, bands) -> (n,) in [0, 1]."""
    if not len(bands):
        return _NOTHING
    loudest = max(float(bands.max()), 1e-12)
    flux = np.zeros(len(bands), np.float32)
    before = np.zeros((1, bands.shape[1]), np.float32)
    for first in range(0, len(bands), _CHUNK):
        part = np.log1p(_COMPRESSION / loudest * bands[first : first + _CHUNK].astype(np.float32))
        flux[first : first + len(part)] = np.maximum(np.diff(part, axis=0, prepend=before), 0).mean(1)
        before = part[-1:]
    tops = flux[local_peaks(flux)]
    # Of the beginnings, not of all cells: in a sparse sound nearly all are 0.
    tops = tops[tops > 0.1 * tops.max(initial=0)]
    return np.clip(flux / max(float(np.percentile(tops, 90)) if len(tops) else 0.0, 1e-12), 0, 1).astype(np.float32)


def local_peaks(values: np.ndarray) -> np.ndarray:
    """The indices of what is larger than what is before it, and no smaller than what follows."""
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    return np.nonzero((padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:]))[0]


def smooth(values: np.ndarray, seconds: float) -> np.ndarray:
    """The mean over a window of about `seconds` round every cell; what lies outside counts as 0."""
    size = max(1, round(seconds * CELLS)) | 1
    sums = np.cumsum(np.pad(values.astype(np.float64), (size // 2 + 1, size // 2)))
    return (sums[size:] - sums[:-size]) / size


def _percentile(values: np.ndarray) -> float:
    return float(np.percentile(values, _LOUD)) if len(values) else 0.0


def _scaled(values: np.ndarray, least: float = 0.0) -> np.ndarray:
    """0 stays 0, and the 98th percentile of what is heard becomes 1."""
    audible = values[values > _GATE * values.max(initial=0)]
    return np.clip(values / max(_percentile(audible), least, 1e-12), 0, 1).astype(np.float32)
