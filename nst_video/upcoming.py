"""The frames of a plan on their way to the stylizer: decoded, taken to the device, with their motion; all of it ahead
of the stylizer and, where there are cores, several frames at once.
"""

import os
import zlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

from nst_video.ahead import Ahead, in_order
from nst_video.errors import InputError
from nst_video.painted import Start
from nst_video.plan import Plan
from nst_video.survey import open_input, probe_input

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nst_video.motion import Flows, Motion, MotionWindow, NoFlows, StillWindow

_AHEAD = 2  # frames that are quite ready before the stylizer asks for them
_MOST_WORKERS = 12
_HELD = 1 << 31  # bytes of frames whose motion is looked for; of each, by its pixels:
_HELD_BY_PIXEL = 120


@dataclass(frozen=True)
class Upcoming:
    """A frame, and how it follows from the frames before it. rgb uint8 (H, W, 3), image (1, 3, H, W) on the device; pts
    in units of the plan's time base; seen: by what its picture is known again.
    """

    number: int
    shot: int
    first: bool
    pts: int
    rgb: np.ndarray
    seen: int
    image: "Tensor"
    motion: "Motion"
    arrived: "torch.cuda.Event | None" = None  # when image and motion are there

    def take(self) -> tuple["Tensor", "Motion"]:
        """The image and the motion, once they are on the device; only the device waits for that."""
        if self.arrived is not None:
            import torch

            here = torch.cuda.current_stream(self.image.device)
            here.wait_event(self.arrived)
            for tensor in (self.image, self.motion.flows, self.motion.trust):
                tensor.record_stream(here)  # they were made on another stream, which else would use their place again
        return self.image, self.motion


def workers_for(threads: int, device: str, size: tuple[int, int]) -> int:
    """How many frames' motion is looked for at once with so many threads for a render of frames of (width, height).

    Optical flow takes a core a quarter of a second for a frame of 512x512 pixels. A CPU paints for longer than that, so
    painting has most of the cores; beside a GPU, which does not, they have nothing better to do.
    """
    share = threads // 4 if device == "cpu" else threads * 3 // 4
    fitting = _HELD // (size[0] * size[1] * _HELD_BY_PIXEL)
    return max(1, min(share, fitting, _MOST_WORKERS))


class Feed:
    """Makes the frames of a plan ready in threads of its own. A context manager."""

    def __init__(self, plan: Plan, *, workers: int | None = None) -> None:
        """workers: frames whose motion is looked for at once; None: as many as `workers_for` says."""
        threads = plan.machine.threads or os.cpu_count() or 1
        self._plan, self._device = plan, plan.machine.device
        self.workers = workers or workers_for(threads, self._device, plan.size)

    def __enter__(self) -> Self:
        import torch

        self._threads, self._cv_threads = torch.get_num_threads(), cv2.getNumThreads()
        if self.workers > 1:  # threads beside threads that each share out their work get in each other's way
            cv2.setNumThreads(1)
        alone = partial(torch.set_num_threads, 1) if self.workers > 1 else None
        self._pool = ThreadPoolExecutor(self.workers, "nst-video motion", initializer=alone)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)  # also of threads that are not there yet
        cv2.setNumThreads(self._cv_threads)

    def frames(self, start: Start) -> Ahead[Upcoming]:
        """Every frame of the plan from the start on; the window of reference frames, and those that are made ready, are
        all that it holds.
        """
        return Ahead(self._ready(start), depth=_AHEAD)

    def _ready(self, start: Start) -> Generator[Upcoming, None, None]:
        import torch

        stream = torch.cuda.Stream(self._device) if self._device.startswith("cuda") else None
        # One more than work, so that nobody waits while a frame is decoded.
        for found in in_order(self._found(start), self._pool, waiting=self.workers + (self.workers > 1)):
            yield found.on(self._device, stream)

    def _found(self, start: Start) -> "Generator[Callable[[], _Found], None, None]":
        """What has to be done for each frame and can be done for several at once."""
        from nst_video.motion import MotionWindow, StillWindow

        plan = self._plan
        still = plan.options.duration is not None
        window = StillWindow() if still else MotionWindow(plan.coherence.references, plan.coherence.flow)
        beginnings = {first: shot for shot, (first, _) in enumerate(plan.shots)}
        shot = sum(first <= start.frame for first in beginnings) - 1
        for number, rgb in _frames_from(plan, start, window):
            first = number in beginnings
            shot = beginnings.get(number, shot)
            facts = {"number": number, "shot": shot, "first": first, "pts": plan.pts[number], "rgb": rgb}
            yield partial(_find, facts, window.later(rgb, first), self._device)


@dataclass(frozen=True)
class _Found:
    """What a thread of the pool found out about a frame. motion: of one that is painted on the CPU; of another it is
    made of the flows where that is quicker, on the device.
    """

    facts: dict[str, Any]
    flows: "Flows | NoFlows"
    motion: "Motion | None"

    def on(self, device: str, stream: "torch.cuda.Stream | None") -> Upcoming:
        """The frame on the device, where all is done on a stream of its own, beside what is painted meanwhile."""
        from nst_video.colors import to_image

        with nullcontext() if stream is None else _on(stream):
            image = to_image(self.facts["rgb"][None], device)
            motion = self.motion or self.flows.motion(device)
            return Upcoming(
                **self.facts, image=image, motion=motion, arrived=None if stream is None else stream.record_event()
            )


def _on(stream: "torch.cuda.Stream") -> AbstractContextManager[None]:
    import torch

    context: AbstractContextManager[None] = torch.cuda.stream(stream)
    return context


def _find(facts: dict[str, Any], flows: "Callable[[], Flows | NoFlows]", device: str) -> _Found:
    """What a thread of the pool does for a frame."""
    found = flows()
    return _Found({**facts, "seen": seen(facts["rgb"])}, found, found.motion() if device == "cpu" else None)


def _frames_from(plan: Plan, start: Start, window: "MotionWindow | StillWindow") -> Iterator[tuple[int, np.ndarray]]:
    """The frames from the start on, after the ones before it are in the window.

    They are known again by what was seen of them. Going there directly is quick; where that gives other pictures, as
    in a damaged file, everything is decoded from the beginning as it was then.
    """
    before = start.frame - len(start.seen)
    shot = max(first for first, _ in plan.shots if first <= start.frame)
    # Without anything to know them by, a seek cannot be trusted.
    for directly in (True, False) if start.seen and plan.options.on_error == "fail" else (False,):
        first = before if directly else 0
        frames = _numbered(plan, first)
        past = [(number, rgb) for number, rgb in islice(frames, start.frame - first) if number >= before]
        if tuple(seen(rgb) for _, rgb in past) == start.seen:
            for number, rgb in past:
                if number >= shot:
                    window.remember(rgb)
            yield from frames
            return
        frames.close()
    raise InputError(f"{plan.input} shows other pictures before frame {start.frame} than it did; it has changed")


def _numbered(plan: Plan, first: int) -> Generator[tuple[int, np.ndarray], None, None]:
    """The frames from number `first` on."""
    start_pts = probe_input(plan.input, plan.options).start_pts
    start = (plan.pts[first] - start_pts) * plan.time_base if first else None
    with open_input(plan.input, plan.options, size=plan.size, start=start) as reader:
        timed = (pair for batch in reader for pair in zip(batch.pts, batch.rgb, strict=True))
        for number, (pts, rgb) in enumerate(islice(timed, plan.frames - first), first):
            if pts != plan.pts[number]:
                raise InputError(f"{plan.input} has frame {number} at {pts}, not at {plan.pts[number]}; it has changed")
            yield number, rgb


def seen(rgb: np.ndarray) -> int:
    """By what a picture is known again: its CRC-32."""
    return zlib.crc32(np.ascontiguousarray(rgb).data)
