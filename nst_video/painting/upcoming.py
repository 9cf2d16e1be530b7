"""The frames of a plan on their way to the stylizer: decoded, taken to the device, with their motion; all of it ahead
of the stylizer and, where there are cores, several frames at once.
"""

import math
import os
import threading
import time
import zlib
from bisect import bisect
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

from nst_video.ahead import Ahead, in_order
from nst_video.devices.workers import AHEAD, workers_for
from nst_video.errors import InputError, is_out_of_memory
from nst_video.media.survey import part_reader, probe_input
from nst_video.painting import lanes
from nst_video.painting.lanes import Lane
from nst_video.painting.painted import Standing
from nst_video.plan import Plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nst_video.flow.motion import Flows, Motion, MotionWindow, NoFlows, StillWindow, Unfound

_PATIENCE, _PAUSE = 5.0, 0.05  # seconds: of waiting for memory, and between two attempts


@dataclass(frozen=True)
class Upcoming:
    """A frame, and how it follows from the frames before it. rgb uint8 (H, W, 3), image (1, 3, H, W) on the device; pts
    in units of the plan's time base; seen: by what its picture is known again.

    ahead: of the last frames of a lane, the motion against the first frame of the next one. joint: of the very last,
    the motion of that frame against this one.
    """

    number: int
    shot: int
    first: bool
    pts: int
    rgb: np.ndarray
    seen: int
    image: "Tensor"
    motion: "Motion"
    ahead: "Motion | None" = None
    joint: "Motion | None" = None
    arrived: "torch.cuda.Event | None" = None  # when all of it is on the device

    def take(self) -> Self:
        """The same, once all of it is on the device; only the device waits for that."""
        if self.arrived is not None:
            import torch

            here = torch.cuda.current_stream(self.image.device)
            here.wait_event(self.arrived)
            motions = [motion for motion in (self.motion, self.ahead, self.joint) if motion is not None]
            for tensor in (self.image, *(part for motion in motions for part in (motion.flows, motion.trust))):
                tensor.record_stream(here)  # they were made on another stream, which else would use their place again
        return self


class Feed:
    """Makes the frames of a plan ready in threads of its own. A context manager."""

    def __init__(self, plan: Plan, *, workers: int | None = None) -> None:
        """workers: frames whose motion is looked for at once; None: as many as `workers_for` says."""
        threads = plan.machine.threads or os.cpu_count() or 1
        self._plan, self._device, self._bringing = plan, plan.machine.device, threading.Lock()
        self.workers = workers or workers_for(threads, self._device, plan.size, plan.coherence.flow)

    def __enter__(self) -> Self:
        import torch

        from nst_video.optimization.graphs import Graphs

        self._call = Graphs().call  # of what is done on a GPU with every frame
        self._threads, self._cv_threads = torch.get_num_threads(), cv2.getNumThreads()
        if self.workers > 1:  # threads beside threads that each share out their work get in each other's way
            cv2.setNumThreads(1)
        alone = partial(torch.set_num_threads, 1)
        self._pool = ThreadPoolExecutor(self.workers, "nst-video motion", initializer=alone)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)  # also of threads that are not there yet
        cv2.setNumThreads(self._cv_threads)

    def frames(self, lane: int, standing: Standing) -> Ahead[Upcoming]:
        """Every frame of a lane of the plan from where it is on; the window of reference frames, and those that are
        made ready, are all that it holds.
        """
        return Ahead(self._ready(lane, standing), depth=AHEAD)

    def _ready(self, lane: int, standing: Standing) -> Generator[Upcoming, None, None]:
        # Each lane has its share of the threads, and one frame more, so that nobody waits while one is decoded.
        waiting = -(-self.workers // len(self._plan.ranges)) + (self.workers > 1)
        yield from in_order(self._found(lane, standing), self._pool, waiting=waiting)

    def _found(self, number: int, standing: Standing) -> Generator[Callable[[], Upcoming], None, None]:
        """What has to be done for each frame and can be done for several at once."""
        from nst_video.flow.motion import MotionWindow, StillWindow, flows_between

        plan, lane = self._plan, self._plan.ranges[number]
        still = plan.options.duration is not None
        window = StillWindow() if still else MotionWindow(plan.coherence.references, plan.coherence.flow)
        beginnings = [first for first, _ in plan.shots]
        for frame, rgb, goal in _with_goal(plan, number, _frames_from(plan, lane, standing, window)):
            first, shot = frame == lane.start or frame in beginnings, bisect(beginnings, frame) - 1
            facts = {"number": frame, "shot": shot, "first": first, "pts": plan.pts[frame], "rgb": rgb}
            calls: dict[str, Callable[[], Flows | NoFlows | Unfound]] = {"motion": window.later(rgb, first)}
            if goal is not None:
                calls["ahead"] = partial(flows_between, rgb, [goal], plan.coherence.flow)
            if goal is not None and frame == lane.last - 1:
                calls["joint"] = partial(flows_between, goal, [rgb], plan.coherence.flow)
            yield partial(self._make, facts, calls)

    def _make(self, facts: dict[str, Any], calls: "dict[str, Callable[[], Flows | NoFlows | Unfound]]") -> Upcoming:
        """What a thread of the pool does for a frame."""
        from nst_video.colors import to_image

        flows = {name: call() for name, call in calls.items()}

        def bring() -> Upcoming:
            with self._beside() as stream:
                image = to_image(facts["rgb"][None], self._device)
                motions: dict[str, Any] = {
                    name: found.motion(self._device, self._how(found)) for name, found in flows.items()
                }
                arrived = None if stream is None else stream.record_event()
            return Upcoming(**facts, seen=seen(facts["rgb"]), image=image, **motions, arrived=arrived)

        return patiently(bring)

    def _how(self, found: "Flows | NoFlows | Unfound") -> Callable[..., Any]:
        """How functions of tensors are called for a motion: by graphs where many are alike, which those with fewer
        references are not.
        """
        from nst_video.optimization.graphs import plainly

        usual = len(getattr(found, "references", ())) == len(self._plan.coherence.references)
        return self._call if usual else plainly

    @contextmanager
    def _beside(self) -> "Iterator[torch.cuda.Stream | None]":
        """A stream beside the one that paints, in use; None where there is no GPU. One thread has it at a time: so what
        a frame takes on the device, and the graphs that do it, are there once and not for every thread.
        """
        import torch

        from nst_video.devices.transfer import streams_of

        if not self._device.startswith("cuda"):
            yield None
            return
        stream = streams_of(torch.device(self._device)).feeding
        with self._bringing, torch.cuda.stream(stream):
            yield stream


def patiently(work: Callable[[], Upcoming]) -> Upcoming:
    """The result of the work, which is tried again for a while where memory runs out: what is painted meanwhile may be
    at its peak, or about to go on in smaller parts.
    """
    until = math.inf
    while True:
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            until = min(until, time.monotonic() + _PATIENCE)  # before the first failure work may have waited for others
            if not is_out_of_memory(error) or time.monotonic() >= until:
                raise
        time.sleep(_PAUSE)


def _with_goal(
    plan: Plan, number: int, frames: Iterator[tuple[int, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """The frames of a lane up to its end, the last ones of them with the picture that the lane after it begins with,
    where it goes on in the same shot.
    """
    lane, after = plan.ranges[number], plan.ranges[number + 1 : number + 2]
    goes_on = bool(after) and after[0].joins
    shot = max(first for first, _ in plan.shots if first <= lane.last)
    since = max(shot, lane.last - max(1, lanes.BLEND))
    last: list[tuple[int, np.ndarray]] = []
    for frame, rgb in frames:
        if goes_on and frame >= since:
            last.append((frame, rgb))
        else:
            yield frame, rgb, None
        if frame == lane.last - (not goes_on):
            break
    goal = last.pop()[1] if goes_on and last else None
    for frame, rgb in last:
        yield frame, rgb, goal


def _frames_from(
    plan: Plan, lane: Lane, standing: Standing, window: "MotionWindow | StillWindow"
) -> Iterator[tuple[int, np.ndarray]]:
    """The frames from where a lane is on, after the ones before it are in the window.

    They are known again by what was seen of them. Going there directly is quick; where that gives other pictures, as
    in a damaged file, everything is decoded from where it was begun then: where the lane begins, or the beginning.
    """
    before = standing.frame - len(standing.seen)
    shot = max(lane.start, *(first for first, _ in plan.shots if first <= standing.frame))
    sure = plan.options.on_error == "fail"  # only where every picture is whole, one may begin between them
    firsts = {before: sure and bool(standing.seen), lane.start: sure, 0: True}
    for first in (first for first, allowed in firsts.items() if allowed):
        frames = _numbered(plan, first)
        past = [(number, rgb) for number, rgb in islice(frames, standing.frame - first) if number >= before]
        if tuple(seen(rgb) for _, rgb in past) == standing.seen:
            for number, rgb in past:
                if number >= shot:
                    window.remember(rgb)
            yield from frames
            return
        frames.close()
    raise InputError(f"{plan.input} shows other pictures before frame {standing.frame} than it did; it has changed")


def _numbered(plan: Plan, first: int) -> Generator[tuple[int, np.ndarray], None, None]:
    """The frames from number `first` on."""
    start_pts = probe_input(plan.input, plan.options).start_pts
    start = (plan.pts[first] - start_pts) * plan.time_base if first else None
    with part_reader(plan.input, plan.options, size=plan.size, start=start) as reader:
        timed = (pair for batch in reader for pair in zip(batch.pts, batch.rgb, strict=True))
        for number, (pts, rgb) in enumerate(islice(timed, plan.frames - first), first):
            if pts != plan.pts[number]:
                raise InputError(f"{plan.input} has frame {number} at {pts}, not at {plan.pts[number]}; it has changed")
            yield number, rgb


def seen(rgb: np.ndarray) -> int:
    """By what a picture is known again: its CRC-32."""
    return zlib.crc32(np.ascontiguousarray(rgb).data)
