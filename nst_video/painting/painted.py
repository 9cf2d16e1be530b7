"""A painted frame and its report, and how far painting is: what stands between painting and keeping."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FrameReport:
    """What one frame took and how it turned out.

    time: seconds in the input. losses: the weighted terms at the end. drift: mean squared difference to the previous
    painted frame moved along the flow that this one was painted with, where painting trusted it, in [0, 1]² (None on
    the first frame of a shot). It is no E_warp: the score finds a flow of its own in the input, trusts it by its
    geometry alone, and so counts places too whose colours say that the flow is wrong there, which painting leaves out.
    joint: the same between this frame and the next, where that is the first of the next lane. took: seconds from the
    frame's arrival to its end; of frames painted side by side each has its part.
    """

    frame: int
    pts: int
    time: float
    shot: int
    evaluations: int
    rejected: int
    losses: dict[str, float]
    drift: float | None
    took: float
    joint: float | None = None


@dataclass(frozen=True)
class Painted:
    """A frame that is done: pictures uint8 (H, W, 3), its report, and the losses after each evaluation."""

    report: FrameReport
    trace: tuple[float, ...]
    terms: dict[str, tuple[float, ...]]
    before: np.ndarray
    after: np.ndarray

    @property
    def row(self) -> dict[str, Any]:
        """The report and the losses after each evaluation, as plain JSON types: a line of a trace."""
        return row_of(self.report, self.trace, self.terms)


@dataclass(frozen=True)
class Standing:
    """How far a lane is: the next frame to paint, and what it starts from. state, image (1, 3, H, W): what the stylizer
    left of the frame before, and that frame as it was painted; None where the next frame begins a shot. seen: by what
    the last input pictures are known again. anchor (1, 3, H, W): the first frame of the lane as it was painted, for as
    long as the lane before it, which ends there, may need it.
    """

    frame: int = 0
    state: Any = None
    image: "Tensor | None" = None
    seen: tuple[int, ...] = ()
    anchor: "Tensor | None" = None


@dataclass(frozen=True)
class Round:
    """Frames that were painted side by side, at most one of each lane, without those that are thrown away; and how far
    all lanes are then: the next frame of each, and what it starts from.
    """

    painted: tuple[Painted, ...]
    positions: tuple[int, ...]
    standings: Callable[[], tuple[Standing, ...]]


def row_of(report: FrameReport, trace: Iterable[float], terms: Mapping[str, Iterable[float]]) -> dict[str, Any]:
    """A line of a trace."""
    curves = {"trace": _finite(trace), "terms": {name: _finite(values) for name, values in terms.items()}}
    return asdict(report) | curves


def report_of(row: Mapping[str, Any]) -> FrameReport:
    """The report in a line of a trace."""
    return FrameReport(**{item.name: row[item.name] for item in fields(FrameReport)})


def _finite(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [value if math.isfinite(value) else None for value in values]
