"""The render: frames go from reader past motion and stylizer into the writer, one way, in bounded memory."""

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nst_video.ahead import Ahead
from nst_video.errors import InputError, ResourceError
from nst_video.options import split_options
from nst_video.pictures import read_picture
from nst_video.plan import Plan, StyleLike, make_plan, open_input, probe_input
from nst_video.video import VideoWriter

if TYPE_CHECKING:
    from torch import Tensor

    from nst_video.motion import Motion
    from nst_video.stylizer import Controls, State, StepReport

_AHEAD = 2  # frames whose motion is computed before the stylizer asks for them


class FrameStylizer(Protocol):
    """Whatever turns frames into painted frames: see `stylizer.Stylizer`."""

    def initial_state(self, seed: int | None = None) -> "State":
        """The state before the first frame of a shot, with the seed of whatever is random in it."""

    def step(self, image: "Tensor", motion: "Motion", state: "State", controls: "Controls") -> "tuple[Tensor, State]":
        """The painted frame (1, 3, H, W) in [0, 1], and the state for the next one."""


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
class Progress:
    """One frame is done, `done` of `frames`: pictures uint8 (H, W, 3), `trace` the loss
    after each evaluation, `terms` the same for each of its weighted terms.
    """

    done: int
    frames: int
    elapsed: float
    report: FrameReport
    trace: tuple[float, ...]
    terms: dict[str, tuple[float, ...]]
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Result:
    """A finished render: means over its frames, and a row for each of them; times in seconds."""

    output: str
    frames: int
    shots: int
    size: tuple[int, int]
    seconds: float
    seconds_per_frame: float
    evaluations: float
    losses: dict[str, float]
    e_warp: float | None
    rows: tuple[FrameReport, ...]

    def to_json(self) -> dict[str, Any]:
        """The means as plain JSON types; the rows are what a trace holds."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}


def stylize(
    input: str | os.PathLike[str],
    style: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Result:
    """Paint a video, or a picture, in the style of one picture or several.

    Args:
        input: a video, an animated picture, a folder or pattern of pictures, or a single picture.
        style: a picture, or several as paths or (path, weight).
        output: the file to write; it appears only when it is complete.
        progress: called after every frame.
        options: any option of the command line by its name with underscores, such as `keep_colors=True`.

    Raises:
        NstVideoError: a UsageError, InputError or ResourceError that says in one line what was got and what is allowed.

    >>> import nst_video
    >>> result = nst_video.stylize("in.mp4", "style.jpg", "out.mp4", size=64, first_iterations=8, iterations=2)
    >>> result.frames, result.size
    (4, (64, 36))

    Two styles, the first one twice as strong; the colours of the video stay:

    >>> blend = [("style.jpg", 2), ("other.jpg", 1)]
    >>> result = nst_video.stylize(
    ...     "in.mp4", blend, "still.png", still=0.1, keep_colors=True, size=64, first_iterations=8
    ... )
    >>> result.frames
    1
    """
    effort, look, coherence, output_options, machine = split_options(options)
    plan = make_plan(
        input, style, output, effort=effort, look=look, coherence=coherence, options=output_options, machine=machine
    )
    return render_plan(plan, progress=progress)


def render_plan(
    plan: Plan, stylizer: FrameStylizer | None = None, *, progress: Callable[[Progress], None] | None = None
) -> Result:
    """Render what the plan says, with the plan's own stylizer unless another one is given.

    Raises:
        InputError: the input is no longer what was planned, or breaks off.
        ResourceError: not enough memory or disk.
    """
    import torch

    torch.set_num_threads(plan.machine.threads or torch.get_num_threads())
    torch.backends.cudnn.deterministic = True  # the same seed gives the same frames; the default may pick by timing
    rows: list[FrameReport] = []
    with _memory_errors(plan):
        stylizer = stylizer or make_stylizer(plan)
        begun = time.perf_counter()
        with _writer(plan) as writer, Ahead(_moving_frames(plan), depth=_AHEAD) as frames:
            for painted in _paint(plan, stylizer, frames):
                writer.write(painted.after[None], (painted.report.pts,))
                rows.append(painted.report)
                if progress is not None:
                    elapsed = time.perf_counter() - begun
                    progress(Progress(len(rows), plan.frames, elapsed, **vars(painted)))
            if len(rows) != plan.frames:
                raise InputError(
                    f"{plan.input} gave {len(rows)} frames where {plan.frames} were planned; did it change?"
                )
    return _result(plan, rows, time.perf_counter() - begun)


@dataclass(frozen=True)
class _Moving:
    """A frame on its way: its number, its timestamp, its picture, and how it follows from the frames before it."""

    number: int
    shot: int
    first: bool
    pts: int
    rgb: np.ndarray
    motion: "Motion"


@dataclass(frozen=True)
class _Painted:
    """A frame that is done."""

    report: FrameReport
    trace: tuple[float, ...]
    terms: dict[str, tuple[float, ...]]
    before: np.ndarray
    after: np.ndarray


def _moving_frames(plan: Plan) -> Generator[_Moving, None, None]:
    """Every frame of the plan with its motion; the window of reference frames is all it holds."""
    from nst_video.motion import MotionWindow

    window = MotionWindow(plan.coherence.references, plan.coherence.flow)
    beginnings = {first: shot for shot, (first, _) in enumerate(plan.shots)}
    shot = 0
    for number, (pts, rgb) in enumerate(islice(_read(plan), plan.frames)):
        if pts != plan.pts[number]:
            raise InputError(f"{plan.input} has frame {number} at {pts}, not at {plan.pts[number]}; it has changed")
        first = number in beginnings
        shot = beginnings.get(number, shot)
        yield _Moving(number, shot, first, pts, rgb, window.step(rgb, first=first))


def _read(plan: Plan) -> Iterator[tuple[int, np.ndarray]]:
    with open_input(plan.input, plan.options, size=plan.size) as reader:
        for batch in reader:
            yield from zip(batch.pts, batch.rgb, strict=True)


def _paint(plan: Plan, stylizer: FrameStylizer, frames: Iterator[_Moving]) -> Iterator[_Painted]:
    """The chain: each frame starts from what the one before it left, and every shot starts anew."""
    from nst_video.colors import to_image, to_rgb
    from nst_video.stylizer import Controls

    clock, device = 0.0, plan.machine.device
    for frame in frames:
        begun = time.perf_counter()
        now = float(frame.pts * plan.time_base)
        if frame.first:
            state, painted = stylizer.initial_state(plan.seeds[frame.shot]), None
        controls = Controls(time=now, dt=now - clock if frame.number else 0.0)
        motion = frame.motion.to(device)
        previous = painted
        painted, state = stylizer.step(to_image(frame.rgb[None], device), motion, state, controls)
        e_warp = None if previous is None else _warp_error(painted, previous, motion)
        done = time.perf_counter()
        yield _Painted(
            report=_report(frame, now, state.report, e_warp, done - begun),
            trace=state.report.trace if state.report else (),
            terms=state.report.terms if state.report else {},
            before=frame.rgb,
            after=to_rgb(painted)[0],
        )
        clock = now


def _warp_error(painted: "Tensor", previous: "Tensor", motion: "Motion") -> float | None:
    """E_warp against the frame before by the motion already known; None where no place of it can be trusted."""
    from nst_video.measures import warp_error

    error = warp_error(painted, previous, motion.flows[:, 0], motion.trust[:, 0])
    return None if math.isnan(error) else error


def _report(frame: _Moving, now: float, step: "StepReport | None", e_warp: float | None, took: float) -> FrameReport:
    """The row of a frame; a stylizer that does not count its work leaves zeros."""
    return FrameReport(
        frame=frame.number,
        pts=frame.pts,
        time=now,
        shot=frame.shot,
        evaluations=step.evaluations if step else 0,
        rejected=step.rejected if step else 0,
        losses=dict(step.losses) if step else {},
        e_warp=e_warp,
        took=took,
    )


def make_stylizer(plan: Plan) -> FrameStylizer:
    """The plan's encoder and style pictures, ready on the plan's device."""
    from nst_video.colors import to_image
    from nst_video.encoders import load_encoder
    from nst_video.stylizer import Stylizer

    machine, look = plan.machine, plan.look
    encoder = load_encoder(
        str(plan.effort.encoder),
        (*look.content_layers, *look.style_layers),
        pooling=plan.effort.pooling,
        device=machine.device,
        precision=machine.precision,
        weights=machine.weights,
        offline=machine.offline,
    )
    styles = [
        (to_image(read_picture(style.path, max_pixels=plan.options.max_pixels)[None], machine.device), style.weight)
        for style in plan.styles
    ]
    return Stylizer(encoder, styles, effort=plan.effort, look=look, coherence=plan.coherence)


def _writer(plan: Plan) -> VideoWriter:
    options = plan.options
    return VideoWriter(
        plan.output,
        info=probe_input(plan.input, options),
        size=plan.size,
        codec=options.codec,
        crf=options.crf,
        preset=options.preset,
        overwrite=options.overwrite,
        start=options.start,
        end=options.end,
    )


@contextmanager
def _memory_errors(plan: Plan) -> Iterator[None]:
    """What torch and Python raise when memory runs out, as one line that says what to do."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        # The allocators of the CPU and of MPS have no exception class of their own, only words.
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not all(word in str(error) for word in ("memory", "alloc")):
            raise
        width, height = plan.size
        raise ResourceError(
            f"not enough memory on {plan.machine.device} for frames of {width}x{height} pixels; choose a smaller --size"
        ) from error


def _result(plan: Plan, rows: Sequence[FrameReport], seconds: float) -> Result:
    terms = sorted({term for row in rows for term in row.losses})
    coherence = [row.e_warp for row in rows if row.e_warp is not None]
    return Result(
        output=plan.output,
        frames=len(rows),
        shots=len(plan.shots),
        size=plan.size,
        seconds=seconds,
        seconds_per_frame=seconds / len(rows),
        evaluations=fmean(row.evaluations for row in rows),
        losses={term: fmean(row.losses[term] for row in rows if term in row.losses) for term in terms},
        e_warp=fmean(coherence) if coherence else None,
        rows=tuple(rows),
    )
