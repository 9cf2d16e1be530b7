"""Lanes: the parts of a render that are painted side by side, as one batch.

A lane is a range of frames. It begins at a cut where one is near, because there painting begins anew anyway. In the
middle of a shot it begins some frames earlier, with frames that are painted and thrown away, so that its first one that
is kept has a past; and the lane before it ends on it: its last frames are drawn towards the first of the next lane,
which has been painted long before (`toward`).
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WARM_UP = 16  # frames painted and thrown away before a range that begins within a shot
BLEND = 16  # frames at the end of a range that are drawn towards the range after it
SHORTEST = 64  # frames: of a shorter range, beginning and end would be too large a part
_PULL = 1.6
_NEAR = 0.15  # of a range's length: a cut this near is where it begins


@dataclass(frozen=True)
class Lane:
    """Frames `first` up to `last`, painted from frame `start` on; those before `first` are thrown away."""

    start: int
    first: int
    last: int

    @property
    def joins(self) -> bool:
        """Whether it goes on in the middle of a shot from where the lane before it ends."""
        return self.start < self.first

    def cut(self, shots: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """The shots (first, last + 1), or parts of shots, that its frames are."""
        within = ((max(first, self.first), min(last, self.last)) for first, last in shots)
        return tuple((first, last) for first, last in within if first < last)

    def begins(self, frame: int, shots: Sequence[tuple[int, int]]) -> bool:
        """Whether painting begins anew at a frame."""
        return frame == self.start or any(frame == first for first, _ in shots)


def lanes_of(shots: Sequence[tuple[int, int]], count: int) -> tuple[Lane, ...]:
    """Shots (first, last + 1) -> at most `count` lanes of about the same length, in order and without gaps.

    >>> lanes_of(((0, 90), (90, 200)), 2)
    (Lane(start=0, first=0, last=90), Lane(start=90, first=90, last=200))
    >>> lanes_of(((0, 200),), 2)
    (Lane(start=0, first=0, last=100), Lane(start=84, first=100, last=200))
    """
    frames, beginnings = shots[-1][1], [first for first, _ in shots]
    count = max(1, min(count, frames // SHORTEST))
    edges = [0]
    for number in range(1, count):
        even = frames * number // count
        nearest = min(beginnings, key=lambda first: abs(first - even))
        near = abs(nearest - even) <= _NEAR * frames / count
        edges.append(nearest if near and nearest > edges[-1] else even)
    return tuple(
        Lane(max(edge - WARM_UP, beginnings[bisect(beginnings, edge) - 1]), edge, last)
        for edge, last in pairwise([*edges, frames])
    )


def toward(lane: Lane, number: int) -> float:
    """The share by which frame `number` of a lane is drawn towards the first frame of the lane after it, 0 to 1.

    A share of 1 / (n + 1), n frames before the end, would be an equal part of the whole way for each of the last
    frames; but the loss, for which each lane is at a minimum of its own, holds back about a third of that.

    >>> [round(toward(Lane(0, 0, 100), number), 2) for number in (97, 98, 99)]
    [0.4, 0.53, 0.8]
    """
    left = lane.last - number
    return _PULL / (left + 1) if left <= BLEND else 0.0
