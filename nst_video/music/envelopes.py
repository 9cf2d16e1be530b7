"""From cells to frames: rise and fall in seconds, then what each frame gets of it.

Everything that has to do with time happens on the cells, whose length does not depend on the video, so the same music
drives the same way at every frame rate.
"""

from collections.abc import Sequence

import numpy as np

from nst_video.music.features import SECONDS

NEARLY = 3.0  # time constants: after them 95 % of the way is done


def follow(values: np.ndarray, attack: float, release: float, *, short: bool) -> np.ndarray:
    """Values in cells, rising and falling no quicker than they may: `attack` is how many seconds it takes until 95 % of
    a rise is done, `release` the same of a fall; 0 means at once. What is `short` lasts as long as its rise takes.
    """
    held = _lasting(values, round(attack / SECONDS)) if short and attack else values
    up, down = _share(attack), _share(release)
    if up == down == 1:
        return held
    found, now = [], 0.0
    for value in held.tolist():
        now += (value - now) * (up if value > now else down)
        found.append(now)
    return np.asarray(found, np.float32)


def _share(seconds: float) -> float:
    """How much of the way is gone in one cell."""
    return 1 - float(np.exp(-NEARLY * SECONDS / seconds)) if seconds else 1.0


def _lasting(values: np.ndarray, cells: int) -> np.ndarray:
    """Each value for `cells` cells more, unless a larger one comes."""
    found, reach = values, 0
    while reach < cells:
        shift = min(max(reach, 1), cells - reach)  # twice as far each time
        found = np.maximum(found, np.concatenate([np.zeros(shift, values.dtype), found[:-shift]])[: len(values)])
        reach += shift
    return found


def at_frames(values: np.ndarray, edges: Sequence[float], *, short: bool) -> np.ndarray:
    """One value for each frame, which is shown from one of the `edges` (seconds) to the next: the largest in that time
    where moments are `short`, so that none is lost, else the mean. After the last cell it is 0.
    """
    bounds = np.asarray(edges, np.float64) / SECONDS
    firsts = np.floor(bounds[:-1] + 1e-6).astype(int)
    lasts = np.maximum(np.ceil(bounds[1:] - 1e-6).astype(int), firsts + 1)
    padded = np.concatenate([values, np.zeros(max(0, int(lasts[-1]) - len(values)), values.dtype)])
    taken = np.max if short else np.mean
    return np.asarray([taken(padded[first:last]) for first, last in zip(firsts, lasts, strict=True)], np.float64)
