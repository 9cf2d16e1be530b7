"""Painting: the lanes of a plan side by side, each frame from what the one before it in its lane left."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nst_video.colors import to_pixels
from nst_video.controls import Controls
from nst_video.curves import controls_at
from nst_video.devices.transfer import downloaded
from nst_video.errors import InputError
from nst_video.flow.motion import Motion
from nst_video.measures import warp_errors
from nst_video.optimization.graphs import Graphs, launched
from nst_video.painting.batches import LaneState, join_motions, join_states, split_state
from nst_video.painting.lanes import Lane, toward
from nst_video.painting.painted import FrameReport, Painted, Round, Standing
from nst_video.painting.upcoming import Feed, Upcoming
from nst_video.plan import Plan
from nst_video.stylizers import FrameStylizer

if TYPE_CHECKING:
    from nst_video.painting.stepreport import StepReport


@dataclass
class _Painter:
    """One lane, and how far it is. after: the lane that goes on where this one ends."""

    lane: Lane
    frame: int
    frames: Iterator[Upcoming]
    seen: deque[int]
    state: Any  # a LaneState, or that of a stylizer which knows no lanes
    image: Tensor | None
    anchor: Tensor | None
    after: "_Painter | None" = None

    @property
    def report(self) -> "StepReport | None":
        """Of the frame before."""
        return self._own_state.report

    @property
    def _own_state(self) -> Any:
        return self.state.state if isinstance(self.state, LaneState) else self.state

    @property
    def waits(self) -> bool:
        """Whether the next frame is to be drawn towards one that is not painted yet, as where the lane after this one
        had to go back.
        """
        after = self.after
        coming = after is not None and after.anchor is None and after.frame <= after.lane.first
        return coming and toward(self.lane, self.frame) > 0

    @property
    def standing(self) -> Standing:
        """What has to be kept to go on from here."""
        state = self._own_state
        return Standing(self.frame, state, self.image, tuple(self.seen), self.anchor)


@dataclass(frozen=True)
class _Work:
    """A frame to be painted. motion: with the next lane's first frame, where this one is drawn towards that."""

    painter: _Painter
    frame: Upcoming
    motion: Motion
    controls: Controls


def paint(
    plan: Plan, stylizer: FrameStylizer, feed: Feed, standings: Sequence[Standing]
) -> Generator[Round, None, None]:
    """Rounds: in each, every lane that is not at its end and waits for no other paints its next frame, and those at
    which the same work is to be done are one batch. Which these are depends on the plan alone, not on when the render
    was stopped, because the size of a batch decides how sums are rounded.
    """
    graphs = Graphs()  # of what is done with painted frames
    with ExitStack() as stack:
        painters = [_standing(plan, lane, at) for lane, at in zip(plan.ranges, standings, strict=True)]
        for number, (painter, standing) in enumerate(zip(painters, standings, strict=True)):
            if painter.lane.joins:
                painters[number - 1].after = painter
            if painter.frame < painter.lane.last:
                painter.frames = stack.enter_context(feed.frames(number, standing))
        while active := [one for one in painters if one.frame < one.lane.last and not one.waits]:
            groups = _groups(stylizer, [_work(plan, stylizer, painter) for painter in active])
            painted = [one for group in groups for one in _together(plan, stylizer, group, graphs)]
            _forget(painters)
            yield Round(
                tuple(sorted(painted, key=lambda one: one.report.frame)),
                tuple(painter.frame for painter in painters),
                lambda: tuple(painter.standing for painter in painters),
            )


def _standing(plan: Plan, lane: Lane, at: Standing) -> _Painter:
    """A lane where it was."""
    state = at.state if at.state is None or len(plan.ranges) == 1 else LaneState.alone(at.state)
    seen = deque(at.seen, maxlen=max(plan.coherence.references))
    return _Painter(lane, at.frame, iter(()), seen, state, at.image, at.anchor)


def _forget(painters: Sequence[_Painter]) -> None:
    """Of lanes that are at their end nothing is needed, nor of where one begins after the one before it is there."""
    for painter in painters:
        if painter.after is not None and painter.frame == painter.lane.last:
            painter.after.anchor = None
        if painter.frame == painter.lane.last:
            painter.state = painter.image = None
            painter.seen.clear()


def _work(plan: Plan, stylizer: FrameStylizer, painter: _Painter) -> _Work:
    """The next frame of a lane."""
    frame = next(painter.frames, None)
    if frame is None:
        raise InputError(f"{plan.input} ended at frame {painter.frame} of the {plan.frames} planned; did it change?")
    if frame.first:
        state = stylizer.initial_state(plan.seeds[frame.shot])
        painter.state, painter.image = LaneState.alone(state) if len(plan.ranges) > 1 else state, None
    frame.take()
    now, before = (float(plan.pts[max(number, 0)] * plan.time_base) for number in (frame.number, frame.number - 1))
    controls = controls_at(plan.curves, frame.number, time=now, dt=now - before)
    motion = frame.motion
    anchor = painter.after.anchor if painter.after else None
    share = toward(painter.lane, frame.number)
    if anchor is not None and frame.ahead is not None and not frame.first and share:
        motion = motion.drawn_to(anchor, frame.ahead, share)
    return _Work(painter, frame, motion, controls)


def _groups(stylizer: FrameStylizer, works: Sequence[_Work]) -> list[list[_Work]]:
    """The frames that can be painted as one batch, each time."""
    phase = getattr(stylizer, "phase", None)
    if phase is None or len(works) == 1:
        return [[work] for work in works]
    groups: dict[Hashable, list[_Work]] = {}
    for work in works:
        groups.setdefault(phase(work.motion, work.painter.state, work.controls), []).append(work)
    return list(groups.values())


def _together(plan: Plan, stylizer: FrameStylizer, works: Sequence[_Work], graphs: Graphs) -> Iterator[Painted]:
    """Paint frames as one batch; gives those that are kept."""
    begun = time.perf_counter()
    before = [work.painter.image for work in works]
    painted = _step(plan, stylizer, works)
    call = launched(graphs.call, painted)
    images, pixels = painted.split(1), call(to_pixels, painted, lend=True)
    # A picture that lasts may be zoomed into, of which the motion, which is none, knows nothing.
    lasting = plan.options.duration is not None
    errors = [
        None if lasting else _drift(image, old, work, call)
        for image, old, work in zip(images, before, works, strict=True)
    ]
    joints = [_joint(image, work, call) for image, work in zip(images, works, strict=True)]
    after, numbers = _read(pixels, [*errors, *joints])
    took = (time.perf_counter() - begun) / len(works)
    measured = zip(numbers[: len(works)], numbers[len(works) :], strict=True)
    for work, image, rgb, (error, joint) in zip(works, images, after, measured, strict=True):
        _go_on(work.painter, work.frame, image)
        if work.frame.number >= work.painter.lane.first:
            yield _painted(plan, work, rgb, took, error, joint)


def _step(plan: Plan, stylizer: FrameStylizer, works: Sequence[_Work]) -> Tensor:
    """The painted frames (L, 3, H, W); the lanes have their new states."""
    if len(plan.ranges) == 1:
        (work,) = works
        painter = work.painter
        image, painter.state = stylizer.step(work.frame.image, work.motion, painter.state, work.controls)
        return image
    states: list[LaneState] = [work.painter.state for work in works]
    motion, most = join_motions([work.motion for work in works]), max(plan.coherence.references)
    needed = plan.coherence.references[motion.references - 1] if motion.references else 0
    images = torch.cat([work.frame.image for work in works])
    painted, after = stylizer.step(images, motion, join_states(states, needed), works[0].controls)
    for work, state in zip(works, split_state(after, states, most), strict=True):
        work.painter.state = state
    return painted


def _go_on(painter: _Painter, frame: Upcoming, image: Tensor) -> None:
    painter.seen.append(frame.seen)
    painter.image, painter.frame = image, frame.number + 1
    if painter.lane.joins and frame.number == painter.lane.first:
        painter.anchor = image.clone()  # without the rest of the batch


def _drift(image: Tensor, before: Tensor | None, work: _Work, call: Callable[..., Tensor]) -> Tensor | None:
    """The drift against the frame before, by the motion already known; none of a lane's first frame, which is compared
    where the lane before it ends.
    """
    lane, motion = work.painter.lane, work.frame.motion
    if before is None or motion.references == 0 or (lane.joins and work.frame.number == lane.first):
        return None
    return call(warp_errors, image, before, motion.flows[:, 0], motion.trust[:, 0])


def _joint(image: Tensor, work: _Work, call: Callable[..., Tensor]) -> Tensor | None:
    """The drift of the first frame of the next lane against this one, the last of its own."""
    after, joint = work.painter.after, work.frame.joint
    if after is None or after.anchor is None or joint is None:
        return None
    return call(warp_errors, after.anchor, image, joint.flows[:, 0], joint.trust[:, 0])


def _read(pixels: Tensor, measured: Sequence[Tensor | None]) -> tuple[np.ndarray, list[float | None]]:
    """Both on the host, which waits for the device here and else only in a step of the stylizer; of what was measured
    (1,) the numbers, None where there is none and where no place could be trusted.
    """
    there = [one for one in measured if one is not None]
    rgb, *read = downloaded(pixels, *([torch.cat(there)] if there else []))
    numbers = iter(read[0].tolist() if read else [])
    found = [None if one is None else next(numbers) for one in measured]
    return rgb.numpy(), [None if number is None or math.isnan(number) else number for number in found]


def _painted(
    plan: Plan, work: _Work, rgb: np.ndarray, took: float, drift: float | None, joint: float | None
) -> Painted:
    """The frame and what there is to tell about it; a stylizer that does not count its work leaves zeros."""
    frame, step = work.frame, work.painter.report
    report = FrameReport(
        frame=frame.number,
        pts=frame.pts,
        time=float(frame.pts * plan.time_base),
        shot=frame.shot,
        evaluations=step.evaluations if step else 0,
        rejected=step.rejected if step else 0,
        losses=dict(step.losses) if step else {},
        drift=drift,
        took=took,
        joint=joint,
    )
    trace, terms = (step.trace, step.terms) if step else ((), {})
    return Painted(report, trace, terms, before=frame.rgb, after=rgb)
