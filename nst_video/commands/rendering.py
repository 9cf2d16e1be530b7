"""What the commands that render have in common: reports, jobs, progress, the line at the end."""

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nst_video.arguments import add_report
from nst_video.errors import install
from nst_video.jobs.stopping import Stopper
from nst_video.settings import Settings
from nst_video.terminal import clock, counting, print_json, say
from nst_video.words import counted

if TYPE_CHECKING:
    from nst_video.jobs.job import Job
    from nst_video.plan import Plan
    from nst_video.planning import StyleLike
    from nst_video.render import Progress, Result


def add_reports(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add what a render can tell about itself; returns the group."""
    report = parser.add_argument_group("reports")
    report.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    add_report(
        report,
        "--trace",
        "write every frame's losses as JSON lines, and a plot beside them where matplotlib is installed",
    )
    add_report(
        report,
        "--plot",
        "draw what changes under the waveform with the beats, as png, jpg, svg or pdf, before rendering",
    )
    add_report(report, "--contact-sheet", "write a picture of frames, each above its painted one")
    report.add_argument("--debug", action="store_true", help="show where an error came from")
    return report


def render(
    command: Sequence[str],
    args: argparse.Namespace,
    styles: "Sequence[StyleLike]",
    settings: Settings,
    stopper: Stopper,
) -> int:
    """Begin the render that `args` (input, output and the reports) and the settings describe, or go on with it; returns
    the exit code. command: its words, for people who go on with it.
    """
    # OpenCV and PyAV come with these: not before the options are known to be right, and never for --help.
    from nst_video.jobs.resume import left_by, open_job, tidy
    from nst_video.media.destination import output_kind
    from nst_video.media.pictures import picture_format
    from nst_video.plan import named_files
    from nst_video.planning import make_plan, shares_of
    from nst_video.plots import EXTRA
    from nst_video.render import render_job, render_plan
    from nst_video.reports import check_reports, plot_of

    trace, sheet, plot = args.trace, args.contact_sheet, args.plot
    beside = plot_of(trace) if trace else None
    reports = [report for report in (trace, sheet, plot, beside) if report]
    if sheet:
        picture_format(sheet)  # an unknown suffix is refused now, not after the render
    tidy(args.output)  # before anything is refused because the render it belonged to is complete
    check_reports(
        reports,
        (file for file, _ in named_files(args.input, shares_of(styles, settings), settings)),
        output=args.output,
        overwrite=args.overwrite,
        plot=plot,
        beside=beside,
        ours=left_by(reports, args.output),
    )
    if trace and not beside:
        say(f"warning: {trace} gets no plot beside it, which needs matplotlib: {install(EXTRA)}")
    kind, target = output_kind(args.output), Path(args.output)
    if kind == "sequence" and not target.suffix and not target.exists():
        say(f"{args.output} has no suffix, so it will be a folder of pictures, 00001.png and so on")
    if kind == "picture":
        plan = make_plan(args.input, styles, args.output, **vars(settings))
        _draw(plan, plot)
        with _watching(plan.frames, trace, sheet) as tell:
            result = render_plan(plan, progress=tell)
    else:
        again = shlex.join(word for word in command if word != "--restart")
        with (
            open_job(args.input, styles, args.output, **vars(settings), command=again, reports=reports) as job,
            stopper.patience() as asked,
            stopper.keeping(job, again),
            _watching(job.plan.frames, trace, sheet, job) as tell,
        ):
            _draw(job.plan, plot)
            result = render_job(job, progress=tell, stop=asked)
    say(_summary(result))
    if args.json:
        print_json(result.to_json())
    return 0


def _draw(plan: "Plan", plot: Path | None) -> None:
    """The plot of what changes, where one is asked for."""
    from nst_video.timeline import plot_plan

    if plot is not None:
        plot_plan(plan, str(plot))
        say(f"{plot}: what changes")


@contextmanager
def _watching(
    frames: int, trace: Path | None, sheet: Path | None, job: "Job | None" = None
) -> Iterator[Callable[["Progress"], None]]:
    """A function to be told of every frame: it counts, and writes the reports, with what earlier runs left of them."""
    from nst_video.reports import making_contact_sheet, writing_trace

    if job and job.ledger.removing:  # all was done; what the reports would be made of may be gone
        trace = sheet = None
    with ExitStack() as stack:
        count = stack.enter_context(counting(frames, job.done if job else 0))
        watchers: list[Callable[[Progress], None]] = [lambda progress: count(progress.done, progress.frames)]
        if trace:
            watchers.append(stack.enter_context(writing_trace(trace, job.rows() if job else ())))
        if sheet:
            watchers.append(stack.enter_context(making_contact_sheet(sheet, frames, job.pairs() if job else {})))

        def tell(progress: "Progress") -> None:
            for watch in watchers:
                watch(progress)

        yield tell


def _summary(result: "Result") -> str:
    """What came out, in one line."""
    width, height = result.size
    coherence = "" if result.drift is None else f", drift {result.drift:.1e}"
    return (
        f"{result.output}: {counted(result.frames, 'frame')} of {width}x{height} in {clock(result.seconds)} "
        f"({result.seconds_per_frame:.2f} s and {result.evaluations:.1f} evaluations a frame{coherence})"
    )
