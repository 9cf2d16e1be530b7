"""Lanes as one batch: their states and motions joined for a step of the stylizer, and taken apart after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.flow.motion import Motion
from nst_video.optimization.curvature import Curvature
from nst_video.painting.state import State
from nst_video.painting.stepreport import batch_report


@dataclass(frozen=True)
class LaneState:
    """The state of one of the lanes of a batch; nothing is copied as long as the same lanes stay together.

    seed, frame: as in its own State. kept: how many of the batch's outputs are its own.
    """

    batch: State
    lane: int
    lanes: int
    seed: int
    frame: int
    kept: int

    @staticmethod
    def alone(state: State) -> "LaneState":
        """Of a state of one lane."""
        return LaneState(state, 0, 1, state.seed, state.frame, 0 if state.outputs is None else state.outputs.shape[1])

    @property
    def state(self) -> State:
        """The lane's own state, in tensors that belong to the batch."""
        if self.lanes == 1:
            return self.batch
        part = state_of(self.batch, slice(self.lane, self.lane + 1))
        outputs = None if part.outputs is None else part.outputs[:, : self.kept]
        return replace(part, seed=self.seed, frame=self.frame, outputs=outputs)


def state_of(batch: State, lanes: slice) -> State:
    """The state of some lanes of a batch, in its tensors; seed and frame are the batch's."""

    def own(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[lanes]

    report = batch.report
    return replace(
        batch,
        outputs=own(batch.outputs),
        content=own(batch.content),
        curvature=batch.curvature
        and Curvature(**{name: value[lanes] for name, value in vars(batch.curvature).items()}),
        report=report and batch_report(report.lanes[lanes] or (report,)),
        correction={layer: added[lanes] for layer, added in batch.correction.items()},
        missed=batch.missed.mapped(lambda tensor: tensor[lanes]),
    )


def batch_of(states: Sequence[State]) -> State:
    """The states of lanes, with as many outputs each, as one, with as many pairs as all have; seed and frame are the
    first one's.
    """
    curvatures = [state.curvature for state in states if state.curvature is not None]
    fewest = min((curvature.history for curvature in curvatures), default=0)
    pairs = [vars(curvature.newest(fewest)) for curvature in curvatures]
    reports = [lane for state in states if state.report for lane in state.report.lanes or (state.report,)]
    return replace(
        states[0],
        outputs=_joined([state.outputs for state in states]),
        content=_joined([state.content for state in states]),
        curvature=Curvature(**{name: torch.cat([one[name] for one in pairs]) for name in pairs[0]}) if pairs else None,
        report=batch_report(reports) if reports else None,
        correction={layer: torch.cat([state.correction[layer] for state in states]) for layer in states[0].correction},
        missed=reduce(lambda one, other: one.joined(other, _with_lanes_of), (state.missed for state in states)),
    )


def _with_lanes_of(one: Tensor, other: Tensor) -> Tensor:
    return torch.cat([one, other])


def _joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(there) if there else None


def join_states(lanes: Sequence[LaneState], outputs: int) -> State:
    """The states of lanes of one phase as one, with at least so many `outputs`: of a lane that has fewer, the oldest
    stands for those before it too.
    """
    first = lanes[0].batch
    together = [(lane.batch is first, lane.lane) for lane in lanes] == [(True, at) for at in range(lanes[0].lanes)]
    if together and (first.outputs is None or first.outputs.shape[1] >= outputs):
        return first
    kept = max(outputs, *(lane.kept for lane in lanes))
    states = (lane.state for lane in lanes)
    # What their last steps took is in no report of them together: one may have been a first frame's.
    return batch_of([replace(state, outputs=_padded(state.outputs, kept), report=None) for state in states])


def _padded(outputs: Tensor | None, kept: int) -> Tensor | None:
    if outputs is None or outputs.shape[1] >= kept:
        return outputs
    return torch.cat([outputs, outputs[:, -1:].expand(-1, kept - outputs.shape[1], -1, -1, -1)], dim=1)


def split_state(batch: State, before: Sequence[LaneState], outputs: int) -> list[LaneState]:
    """What a step on joined states left for each of the lanes, of which each keeps at most so many `outputs`."""
    return [
        LaneState(batch, lane, len(before), was.seed, was.frame + 1, min(was.kept + 1, outputs))
        for lane, was in enumerate(before)
    ]


def join_motions(motions: Sequence[Motion]) -> Motion:
    """Motions of one lane each as one, with the references of the one that has most: what another lacks is not trusted
    anywhere.
    """
    if len(motions) == 1:
        return motions[0]
    most = max(motion.references for motion in motions)
    anchored = next((motion.anchor for motion in motions if motion.anchor is not None), None)
    filled = [_filled(motion, most, anchored) for motion in motions]
    return Motion(
        torch.cat([motion.flows for motion in filled]),
        torch.cat([motion.trust for motion in filled]),
        None if anchored is None else _joined([motion.anchor for motion in filled]),
    )


def _filled(motion: Motion, references: int, anchor: Tensor | None) -> Motion:
    """With so many references, and an anchor where another lane has one."""

    def fill(past: Tensor) -> Tensor:
        own, ahead = past.split([motion.references, past.shape[1] - motion.references], dim=1)
        full = F.pad(own, (0, 0) * 3 + (0, references - motion.references))
        missing = ahead.new_zeros((1, int(anchor is not None) - ahead.shape[1], *ahead.shape[2:]))
        return torch.cat([full, ahead, missing], dim=1)

    return Motion(fill(motion.flows), fill(motion.trust), motion.anchor if motion.anchor is not None else anchor)


def motion_of(batch: Motion, lanes: slice) -> Motion:
    """The motion of some lanes of a batch."""
    return Motion(batch.flows[lanes], batch.trust[lanes], None if batch.anchor is None else batch.anchor[lanes])
