"""Which size a frame can be painted in, from measured times, so that the asked frame rate holds.

Larger is better until one of two things suffers: the frame rate, or the number of optimisation steps in a second,
without which the painting could not follow the scene.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

_LONG_SIDES = (96, 112, 128, 144, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1920)
_STEPS_PER_SECOND = 12.0  # fewer, and paint lags behind what moves
_ROOM = 0.9  # of the time there is, that a larger size may be predicted to take
_LATE = 1.05  # of the time there is, that counts as too slow
_PATIENCE_DOWN, _PATIENCE_UP = 0.5, 2.0  # seconds for which it must be so
_PAUSE = 1.0  # seconds between two changes at least
_WARM_UP = 3.0  # seconds after the start in which times tell nothing yet
_LONGEST_WAIT = 60.0  # before a size is tried again that did not hold
_MEMORY = 9  # times that a median is taken of


class Recent:
    """The median of the last few times in seconds, which one hiccup does not move; 0 before the first."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=_MEMORY)

    @property
    def median(self) -> float:
        """Of what was added last."""
        return median(self.times) if self.times else 0.0

    def scale(self, factor: float) -> None:
        """Multiply everything, as another size would."""
        snapshot = self.times.copy()  # the painting thread may be adding to it
        self.times = deque((factor * value for value in snapshot), maxlen=_MEMORY)


@dataclass
class Timer:
    """Since when something has been so; `lasted` is how long."""

    since: float | None = None

    def lasted(self, is_so: bool, now: float) -> float:
        """Seconds for which it has been so, up to `now`."""
        self.since = (now if self.since is None else self.since) if is_so else None
        return 0.0 if self.since is None else now - self.since


class Controller:
    """Chooses the processing size.

    fps: frames wanted in a second. window: (width, height) of the output, which is also the largest size. smallest:
    least pixels of a side. begin: long side to begin with.
    """

    def __init__(self, fps: float, window: tuple[int, int], *, smallest: int, begin: int) -> None:
        self.fps = fps
        self.sizes = sizes(window, smallest)
        fitting = [index for index, size in enumerate(self.sizes) if max(size) <= begin]
        self.index = fitting[-1] if fitting else 0
        self.fixed, self.following, self.step = Recent(), Recent(), Recent()
        self.changed: float | None = None  # when the size last did
        self.slow, self.roomy = Timer(), Timer()
        self.wait, self.failed = _PATIENCE_UP, len(self.sizes)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) to paint in."""
        return self.sizes[self.index]

    def measured_step(self, seconds: float) -> None:
        """One optimisation step at the present size took this long."""
        self.step.times.append(seconds)

    def measured_frame(self, fixed: float, following: float, now: float) -> bool:
        """What a frame took beside the optimisation, up to `now`: at the size of the window, and at the present size.
        True where the size changes because of it.
        """
        self.fixed.times.append(fixed)
        self.following.times.append(following)
        slow = self.slow.lasted(self._load(self.index) > _LATE, now)
        room = self.index + 1 < len(self.sizes) and self._load(self.index + 1) < _ROOM
        roomy = self.roomy.lasted(room, now)
        if self.changed is None:
            self.changed = now + _WARM_UP - _PAUSE
        if now - self.changed < _PAUSE:
            return False
        if slow >= _PATIENCE_DOWN and self.index:
            self._go(self._fitting(), now)
            return True
        again = self.wait if self.index + 1 >= self.failed else _PATIENCE_UP
        if roomy >= again:
            self._go(self.index + 1, now)
            return True
        return False

    def _go(self, index: int, now: float) -> None:
        if index < self.index:  # a size that did not hold is tried again, but ever more rarely
            self.wait = min(2 * self.wait, _LONGEST_WAIT) if self.index >= self.failed else 2 * _PATIENCE_UP
            self.failed = self.index
        for recent in (self.following, self.step):
            recent.scale(self._ratio(index))
        self.index, self.changed = index, now
        self.slow, self.roomy = Timer(), Timer()

    def _fitting(self) -> int:
        """The largest smaller size that is predicted to hold."""
        return max((index for index in range(self.index) if self._load(index) < _ROOM), default=0)

    def _load(self, index: int) -> float:
        """Time taken at that size, as predicted from the present one, in units of the time there is."""
        ratio = self._ratio(index)
        frame = self.fixed.median + ratio * self.following.median
        return max(frame * self.fps, ratio * self.step.median * _STEPS_PER_SECOND)

    def _ratio(self, index: int) -> float:
        (width, height), (now_width, now_height) = self.sizes[index], self.size
        return width * height / (now_width * now_height)


def sizes(window: tuple[int, int], smallest: int) -> list[tuple[int, int]]:
    """(width, height) from small to the window's own, in its shape.

    >>> sizes((512, 288), 16)[:3]
    [(96, 54), (112, 63), (128, 72)]
    """
    long, short = max(window), min(window)
    found = []
    for side in (*(side for side in _LONG_SIDES if side < long), long):
        factor = side / long
        if round(short * factor) >= smallest or side == long:
            found.append((round(window[0] * factor), round(window[1] * factor)))
    return found
