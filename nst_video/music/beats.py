"""Where the beats are: tempo over time, then dynamic programming (Ellis, Beat Tracking by Dynamic Programming, 2007).

His method takes one tempo for the whole piece. Here the tempo is a path: of the periods that the autocorrelation of the
onsets around each moment speaks for, that sequence which is likely throughout and changes little (Viterbi).
"""

from collections.abc import Callable

import numpy as np

from nst_video.music.features import CELLS, SECONDS, local_peaks, smooth

SLOWEST, FASTEST = 45.0, 240.0  # beats/min
USUAL = 120.0  # beats/min: what people tap to when several tempos fit

_FINE = 2  # cells in a step of the tracker: 10 ms
_STEPS = CELLS // _FINE  # in a second
_PERIODS = 96  # candidates, evenly by octaves
_WINDOW = 6.0  # seconds in which the tempo is looked for
_EVERY = 0.5  # seconds between looks
_SPREAD = 0.9  # octaves about the usual tempo
_MULTIPLES = (1.0, 0.7, 0.3, 0.5)  # of a period, how much each speaks for it
_CHANGE = 40.0  # cost of a change of tempo by an octave, in looks of full likelihood
_JUMP = 4.0  # cost of any change at most: tempos do jump
_TIGHT = 100.0  # cost of a beat out of time: of the squared logarithm of how far
_REFINE = 0.03  # seconds in which the strongest onset near a beat is the beat
_QUIET = 4.0  # seconds without an onset in which there are no beats


def track_beats(onset: np.ndarray, on_step: Callable[[], None] = lambda: None) -> tuple[float, ...]:
    """Onset strength in cells -> the times of the beats in seconds, rising; none where there is nothing to follow.

    `on_step` is called now and then: a sign of life.
    """
    steps = len(onset) // _FINE
    if steps < _STEPS or not onset.any():
        return ()
    strength = _salience(onset[: steps * _FINE].reshape(-1, _FINE).max(1))
    if not strength.any():
        return ()
    periods = _period_path(strength)
    beats = _follow(strength, periods, on_step)
    return _refined(beats, onset)


def _salience(onset: np.ndarray) -> np.ndarray:
    """Onsets above what is usual around them, squared, so that a beat weighs more than what lies between beats; in
    units of their own spread.
    """
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    soft = np.convolve(onset, kernel / kernel.sum(), mode="same")
    above = np.square(np.maximum(soft - smooth(soft, 1.0 / _FINE), 0))
    spread = float(above.std())
    return above / spread if spread > 0 else np.zeros_like(above)


def _candidates() -> np.ndarray:
    return np.asarray(60 * _STEPS / np.geomspace(FASTEST, SLOWEST, _PERIODS))


def _period_path(strength: np.ndarray) -> np.ndarray:
    """The period of the beat at every step, in steps."""
    periods = _candidates()
    likely = _likelihoods(strength, periods)
    octaves = np.log2(periods)
    cost = np.minimum(_CHANGE * np.abs(octaves[:, None] - octaves[None, :]), _JUMP)
    score, came_from = likely[0], []
    for row in likely[1:]:
        total = score[:, None] - cost
        came_from.append(total.argmax(0))
        score = total.max(0) + row
    path = [int(score.argmax())]
    for choices in reversed(came_from):
        path.append(int(choices[path[-1]]))
    looks = np.arange(len(likely)) * _EVERY * _STEPS
    return np.interp(np.arange(len(strength)), looks, periods[path[::-1]])


def _likelihoods(strength: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """(looks, periods): how much the onsets around each look repeat after each period, 1 = entirely."""
    size = round(_WINDOW * _STEPS)
    hop = round(_EVERY * _STEPS)
    padded = np.pad(strength, size // 2)
    views = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    prior = -0.5 * (np.log2(60 * _STEPS / periods / USUAL) / _SPREAD) ** 2
    rows = []
    for first in range(0, len(views), 256):
        part = views[first : first + 256] * np.hanning(size)
        spectrum = np.fft.rfft(part, 2 * size, axis=1)
        repeats = np.fft.irfft(np.square(np.abs(spectrum)), axis=1)[:, :size]
        repeats /= np.maximum(repeats[:, :1], 1e-9)
        # The window itself makes long periods repeat less.
        own = np.fft.irfft(np.square(np.abs(np.fft.rfft(np.hanning(size), 2 * size))))[:size]
        repeats *= own[0] / np.maximum(own, 0.1 * own[0])
        rows.append(_combined(repeats, periods))
    return np.concatenate(rows) + 0.35 * prior


def _combined(repeats: np.ndarray, periods: np.ndarray) -> np.ndarray:
    total = np.zeros((len(repeats), len(periods)))
    for multiple, weight in enumerate(_MULTIPLES, 1):
        lags = np.minimum(periods * multiple, repeats.shape[1] - 2)
        left = np.floor(lags).astype(int)
        share = lags - left
        total += weight * ((1 - share) * repeats[:, left] + share * repeats[:, left + 1])
    return total / sum(_MULTIPLES)


def _follow(strength: np.ndarray, periods: np.ndarray, on_step: Callable[[], None]) -> np.ndarray:
    """The steps of the beats: those with the most onsets on them, as evenly in time as the periods say."""
    score = strength.copy()
    came_from = np.full(len(strength), -1)
    begun = False
    strongest = float(strength.max())
    cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for step in range(len(strength)):
        if step % 5000 == 0:
            on_step()
        key = round(periods[step] * 4)
        if key not in cache:
            back = np.arange(max(1, key // 8), key // 2 + 1)
            cache[key] = -back, -_TIGHT * np.square(np.log(back / (key / 4)))
        offsets, costs = cache[key]
        skip = max(0, int(-offsets[-1]) - step)
        if skip:
            offsets, costs = offsets[: len(offsets) - skip], costs[: len(costs) - skip]
        if len(offsets):
            totals = score[step + offsets] + costs
            best = int(totals.argmax())
            score[step] += totals[best]
            # Nothing is handed on before the first onset that counts.
            begun = begun or strength[step] > 0.01 * strongest
            came_from[step] = step + offsets[best] if begun else -1
    return _traced(score, came_from, periods)


def _traced(score: np.ndarray, came_from: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """From the best of the last beats back to the first."""
    tail = max(0, len(score) - round(float(periods[-1])))
    beats = [tail + int(score[tail:].argmax())]
    while came_from[beats[-1]] >= 0:
        beats.append(int(came_from[beats[-1]]))
    return np.asarray(beats[::-1])


def _refined(beats: np.ndarray, onset: np.ndarray) -> tuple[float, ...]:
    """Times in seconds: a beat is where the onset is that it was found by; where nothing sounds for long is none."""
    peaks = local_peaks(onset)
    peaks = peaks[onset[peaks] > 0.1]
    if not len(peaks):
        return ()
    times = (peaks + 0.5) * SECONDS
    found: list[float] = []
    for beat in (beats + 0.5) / _STEPS:
        near = np.nonzero(np.abs(times - beat) <= _REFINE)[0]
        time = float(times[near[onset[peaks[near]].argmax()]]) if len(near) else float(beat)
        if np.abs(times - time).min() <= _QUIET and (not found or time > found[-1]):
            found.append(time)
    return tuple(found[_first(found, times) : _last(found, times)])


def _first(found: list[float], times: np.ndarray) -> int:
    """The first beat that is not before all that sounds."""
    return int(np.searchsorted(found, times[0] - _REFINE))


def _last(found: list[float], times: np.ndarray) -> int:
    """One more than the last beat that is not after all that sounds."""
    return int(np.searchsorted(found, times[-1] + _REFINE))
