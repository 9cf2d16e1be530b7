"""The render: frames go from reader past motion and stylizer into the writer, one way, in bounded memory."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

import numpy as np

from nst_video.errors import InputError, ResourceError, Stopped, UsageError, is_out_of_memory
from nst_video.jobs.job import Job
from nst_video.jobs.jobfolder import remove_folder
from nst_video.jobs.jobwriter import is_published
from nst_video.jobs.resume import open_job
from nst_video.jobs.sinks import FileSink, JobSink, Sink
from nst_video.media.destination import output_kind
from nst_video.media.survey import probe_input
from nst_video.painting.painted import FrameReport, Painted, report_of
from nst_video.painting.stepdown import Frugal
from nst_video.painting.upcoming import Feed
from nst_video.plan import Plan
from nst_video.planning import StyleLike, make_plan
from nst_video.settings import DREAM, PAINT, Section, Settings, in_keywords, split_options
from nst_video.stylizers import FrameStylizer, make_stylizer
from nst_video.words import counted

__all__ = [
    "FrameReport",
    "FrameStylizer",
    "Progress",
    "Result",
    "dream",
    "make_stylizer",
    "render_job",
    "render_plan",
    "stylize",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One frame is done, `done` of `frames`, of which `resumed` were done in earlier runs; `elapsed` seconds of this
    run. Pictures are uint8 (H, W, 3), `trace` the loss after each evaluation, `terms` the same for each of its weighted
    terms.
    """

    done: int
    frames: int
    elapsed: float
    report: FrameReport
    trace: tuple[float, ...]
    terms: dict[str, tuple[float, ...]]
    before: np.ndarray
    after: np.ndarray
    resumed: int = 0


@dataclass(frozen=True)
class Result:
    """A finished render: means over its frames, and a row for each; times in seconds. drift: see FrameReport."""

    output: str
    frames: int
    shots: int
    size: tuple[int, int]
    seconds: float
    seconds_per_frame: float
    evaluations: float
    losses: dict[str, float]
    drift: float | None
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
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> Result:
    """Paint a video, or a picture, in the style of one picture or several.

    A call that did not end, for whatever reason, is gone on with by the same call: what is finished is kept in the
    folder OUT.nst beside the output until that is complete. `restart=True` begins anew.

    Args:
        input: a video, an animated picture, a folder or pattern of pictures, or a single picture.
        style: a picture, or several as paths or (path, weight).
        output: the file to write; it appears only when it is complete.
        progress: called after every frame.
        stop: asked after every frame; where it says True, everything is saved and Stopped is raised.
        options: any option of the command line by its name with underscores, such as `keep_colors=True`; but no
            `--style`, as `style` takes several, and none of the reports (`--json`, `--trace`, `--plot`,
            `--contact-sheet`, `--debug`): what they tell is in the Result and goes to `progress`.

    Raises:
        NstVideoError: a UsageError, InputError or ResourceError that says in one line what was got and what is allowed;
            Stopped.

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
    with _in_keywords(PAINT):
        return _run(input, style, output, split_options(options), progress, stop)


def dream(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> Result:
    """Dream on a video, or on a picture that `duration` or `music` makes a video of: whatever the chosen layers of a
    network see in it grows, and moves with what it grew on.

    Arguments and errors are those of `stylize`, and so is going on with a call that did not end. options: those of
    `nst-video dream` by their names with underscores, such as `zoom=1.02`, without `--preview` and the reports.

    >>> import nst_video
    >>> result = nst_video.dream("in.mp4", "out.mp4", layers=["relu3_1"], size=64, octaves=1, iterations=2)
    >>> result.frames, result.size
    (4, (64, 36))
    """
    with _in_keywords(DREAM):
        return _run(input, (), output, split_options(options, DREAM), progress, stop)


@contextmanager
def _in_keywords(sections: Sequence[Section]) -> Iterator[None]:
    """Errors call options as callers from Python do."""
    try:
        yield
    except (UsageError, InputError, ResourceError) as error:  # Stopped may quote a command
        error.args = (in_keywords(str(error), sections),)
        raise


def _run(
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    settings: Settings,
    progress: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
) -> Result:
    """Render a picture in one go, anything else as a job."""
    for name, path in (("input", input), ("output", output)):
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"{name} is {path!r}; give the name of a file, as text or a path")
    if output_kind(output) == "picture":
        return render_plan(make_plan(input, styles, output, **vars(settings)), progress=progress, stop=stop)
    with open_job(input, styles, output, **vars(settings)) as job:
        return render_job(job, progress=progress, stop=stop)


def render_plan(
    plan: Plan,
    stylizer: FrameStylizer | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Render what the plan says in one go, with the plan's own stylizer unless another one is given; nothing is left
    of a render that does not end. `stylize` and `render_job` can be gone on with.

    Raises:
        InputError: the input is no longer what was planned, or breaks off.
        ResourceError: not enough memory or disk.
        Stopped: `stop`, which is asked after every frame, said so.
    """
    plan = replace(plan, lanes=())  # frames are written in order, as they come
    return _render(plan, stylizer, FileSink(plan, probe_input(plan.input, plan.options)), progress, stop)


def render_job(
    job: Job,
    stylizer: FrameStylizer | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Result:
    """Render what is not yet finished of a job from `open_job`; arguments and errors as `render_plan`, but what is
    finished is kept, whatever happens.
    """
    if is_published(job):
        return _was_complete(job)
    return _render(job.plan, stylizer, JobSink(job, probe_input(job.plan.input, job.plan.options)), progress, stop)


def _render(
    plan: Plan,
    stylizer: FrameStylizer | None,
    sink: Sink,
    progress: Callable[[Progress], None] | None,
    stop: Callable[[], bool] | None,
) -> Result:
    """Every frame that the sink lacks, through the stylizer into the sink."""
    from nst_video.devices.machine import computing
    from nst_video.painting.rounds import paint

    rows = [report_of(row) for row in sink.rows()]
    resumed, stopped = len(rows), stop or (lambda: False)
    with _memory_errors(plan), computing(plan.machine), sink:
        begun = time.perf_counter()
        if resumed < plan.frames:
            stylizer = stylizer or Frugal(plan, make_stylizer, sink.replan)
            starts = sink.start(stylizer, plan.machine.device)
            with Feed(plan) as feed, closing(paint(plan, stylizer, feed, starts)) as rounds:
                for painted in rounds:
                    elapsed = time.perf_counter() - begun
                    at_stop = stopped() and len(rows) + len(painted.painted) < plan.frames
                    sink.write(painted, sink.seconds + elapsed, checkpoint=at_stop)
                    for frame in painted.painted:
                        rows.append(frame.report)
                        if progress is not None:
                            progress(_progress(frame, len(rows), plan.frames, resumed, elapsed))
                    if at_stop:
                        sink.stop()
                        raise _stopped(len(rows), plan, sink)
        if len(rows) != plan.frames:
            raise InputError(f"{plan.input} gave {len(rows)} frames where {plan.frames} were planned; did it change?")
        seconds = sink.seconds + time.perf_counter() - begun
        rows.sort(key=lambda row: row.frame)
        _tell_joints(rows)
        if not sink.finish(lambda: _result(plan, rows, seconds).to_json(), stopped):
            raise _stopped(len(rows), plan, sink)
    return _result(plan, rows, sink.seconds + time.perf_counter() - begun)


def _progress(painted: Painted, done: int, frames: int, resumed: int, elapsed: float) -> Progress:
    facts = {name: getattr(painted, name) for name in ("report", "trace", "terms", "before", "after")}
    return Progress(done, frames, elapsed, **facts, resumed=resumed)


def _stopped(done: int, plan: Plan, sink: Sink) -> Stopped:
    after = f"frame {done:,} of" if len(plan.ranges) == 1 else f"{counted(done, 'frame')} of"
    return Stopped(f"stopped after {after} {plan.frames:,}; {sink.how_to_go_on()}")


@contextmanager
def _memory_errors(plan: Plan) -> Iterator[None]:
    """What torch and Python raise when memory runs out, as one line that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        width, height = plan.size
        raise ResourceError(
            f"not enough memory on {plan.machine.device} for frames of {width}x{height} pixels; choose a smaller --size"
        ) from error


def _tell_joints(rows: Sequence[FrameReport]) -> None:
    """A line on how well lanes meet within a shot."""
    joints = [row.joint for row in rows if row.joint is not None]
    elsewhere = [row.drift for row in rows if row.drift is not None]
    if joints and elsewhere:
        worst, usual = max(joints), median(elsewhere)
        log.info("where lanes meet in a shot the drift is %.1e at most, in the median elsewhere %.1e", worst, usual)


def _result(plan: Plan, rows: Sequence[FrameReport], seconds: float) -> Result:
    terms = sorted({term for row in rows for term in row.losses})
    coherence = [error for row in rows for error in (row.drift, row.joint) if error is not None]
    return Result(
        output=plan.output,
        frames=len(rows),
        shots=len(plan.shots),
        size=plan.size,
        seconds=seconds,
        seconds_per_frame=seconds / len(rows),
        evaluations=fmean(row.evaluations for row in rows),
        losses={term: fmean(row.losses[term] for row in rows if term in row.losses) for term in terms},
        drift=fmean(coherence) if coherence else None,
        rows=tuple(rows),
    )


def _was_complete(job: Job) -> Result:
    """The result of a render that ended with its output in place, but not with the job removed."""
    log.info("%s is complete already", job.plan.output)
    facts: dict[str, Any] = dict(job.ledger.summary or {})
    rows = [report_of(row) for row in job.rows()]
    if not job.plan.options.keep_job:
        job.record(removing=True)
        remove_folder(job.folder, job.lock)
    facts |= {"output": job.plan.output, "size": job.plan.size}
    return Result(**facts, rows=tuple(rows) if len(rows) == job.plan.frames else ())
