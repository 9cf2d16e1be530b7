"""A painted frame and its report, and where a render begins: what stands between painting and keeping."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FrameReport:
    """What one frame took and how it turned out.

    time: seconds in the input. losses: the weighted terms at the end. e_warp: mean squared difference to the previous
    painted frame moved along the flow, where the flow is trusted, in [0, 1]² (None on the first frame of a shot).
    took: seconds from the frame's arrival to its end.
    """

    frame: int
    pts: int
    time: float
    shot: int
    evaluations: int
    rejected: int
    losses: dict[str, float]
    e_warp: float | None
    took: float


@dataclass(frozen=True)
class Painted:
    """A frame that is done: pictures uint8 (H, W, 3); what the next one starts from: the stylizer's state, the painted
    image (1, 3, H, W), and the CRC-32 of the last input pictures.
    """

    report: FrameReport
    trace: tuple[float, ...]
    terms: dict[str, tuple[float, ...]]
    before: np.ndarray
    after: np.ndarray
    state: Any
    image: "Tensor"
    seen: tuple[int, ...]

    @property
    def row(self) -> dict[str, Any]:
        """The report and the losses after each evaluation, as plain JSON types: a line of a trace."""
        return row_of(self.report, self.trace, self.terms)


@dataclass(frozen=True)
class Start:
    """The first frame to paint, and what the one before it left; `seconds` of work were done before."""

    frame: int = 0
    seconds: float = 0.0
    state: Any = None
    image: "Tensor | None" = None
    seen: tuple[int, ...] = ()


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
