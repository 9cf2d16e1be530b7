"""What a step of the stylizer took and where it ended, for all lanes and for each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from nst_video.optimization.optimizers import Minimum


@dataclass(frozen=True)
class StepReport:
    """What one step took and where it ended.

    evaluations: of the loss and its gradient, rejected ones included. rejected: of the lane with most of them. losses:
    the weighted terms of the best image, mean over lanes. trace: the total after each evaluation, mean over lanes;
    scales of a first frame, and the parts between looks of a teacher, which moves the targets, one after the other.
    lanes: where there are several, the report of each.
    """

    evaluations: int
    rejected: int
    losses: dict[str, float]
    trace: tuple[float, ...]
    terms: dict[str, tuple[float, ...]] = field(default_factory=dict)  # like trace, for each weighted term
    lanes: "tuple[StepReport, ...]" = ()


def report_of(found: Sequence[Minimum]) -> StepReport:
    """One report of all scales, of minima that have been `read`."""
    last, accepted = found[-1].record, torch.cat([minimum.accepted for minimum in found])
    curves = {name: torch.cat([minimum.record[name] for minimum in found]) for name in last}
    # (terms and whether each evaluation was accepted, evaluations, lanes)
    table = torch.stack([*curves.values(), accepted.to(curves["loss"].dtype)])
    lanes = [_lane_report(list(last), table[:, :, lane].unbind(), len(last["loss"])) for lane in range(table.shape[2])]
    return batch_report(lanes)


def _lane_report(names: Sequence[str], rows: Sequence[Tensor], scale: int) -> StepReport:
    """The report of a lane: for each of the names a row of values, and one more of what was accepted. scale: the
    evaluations at the finest scale, of which the best is the result.
    """
    curves = dict(zip(names, rows, strict=False))
    best = int(curves["loss"][-scale:].nan_to_num(math.inf).argmin())
    ends = {name: float(values[-scale:][best]) for name, values in curves.items()}
    traces = {name: tuple(values.tolist()) for name, values in curves.items()}
    trace = traces.pop("loss")
    return StepReport(len(trace), int((rows[-1] == 0).sum()), ends, trace, traces)


def batch_report(lanes: Sequence[StepReport]) -> StepReport:
    """The report of several lanes, with those of each; of one lane its own."""
    if len(lanes) == 1:
        return lanes[0]

    def mean(curves: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(fmean(values) for values in zip(*curves, strict=True))

    return StepReport(
        evaluations=lanes[0].evaluations,
        rejected=max(lane.rejected for lane in lanes),
        losses={name: fmean(lane.losses[name] for lane in lanes) for name in lanes[0].losses},
        trace=mean(lane.trace for lane in lanes),
        terms={name: mean(lane.terms[name] for lane in lanes) for name in lanes[0].terms},
        lanes=tuple(lanes),
    )
