"""The main command: paint a video."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nst_video import __version__
from nst_video.arguments import Parser, add_options, given_options, parse_style
from nst_video.options import split_options
from nst_video.stopping import Stopper
from nst_video.terminal import clock, counting, print_json, say

if TYPE_CHECKING:
    from nst_video.job import Job
    from nst_video.render import Progress, Result

EXAMPLES = """\
examples:
  nst-video in.mp4 style.jpg out.mp4                    paint a video; sound and timing stay
  nst-video in.mp4 style.jpg look.png --still 2.5       try the look on one frame first
  nst-video in.mp4 style.jpg out.mp4 --quality draft    quicker and smaller
  nst-video in.mp4 style.jpg out.mp4 --style b.jpg=0.5  blend two styles, the second half as strong
  nst-video in.mp4 style.jpg out.mp4 --keep-colors --style-scale 1.5
  nst-video in.mp4 style.jpg out.mp4 --start 0:10 --end 0:20 --size full
  nst-video photo.jpg style.jpg out.png                 a picture works as well
  nst-video frames/%05d.png style.jpg painted/%05d.png  and so does a sequence

other commands:
  nst-video live style.jpg                              paint what a camera sees, in a window; keys change the look
  nst-video score in.mp4 out.mp4 --style style.jpg      how coherent and how painted a result is, in numbers
  nst-video status out.mp4                              how far an unfinished render is; --play FILE.mp4 shows it
  nst-video info                                        versions, devices, and where the encoders' weights are
  (a file that is really called live, score, status or info: write ./score)

A render that was stopped, killed or cut off goes on where it was when the same command is run again. Until it is
complete, what is finished is kept in the folder OUT.nst beside the output. Ctrl-C saves first; twice stops at once.

exit codes: 0 done, 2 wrong usage, 3 unusable input, 4 not enough disk, memory or network, 5 stopped and saved, 129, 130
or 143 stopped at once by a closed terminal, Ctrl-C or SIGTERM
"""


def make_parser() -> Parser:
    """The parser of the main command; its options are the fields of the dataclasses in options.py."""
    parser = Parser(
        prog="nst-video",
        usage="nst-video IN STYLE OUT [options]",
        description="Paints a video in the style of any picture, without flicker and with its sound.",
        epilog=EXAMPLES,
    )
    parser.add_argument("input", metavar="IN", help="a video, gif, picture, folder of pictures or pattern f/%%05d.png")
    parser.add_argument("style", metavar="STYLE", help="the picture whose look is taken, as FILE or FILE=WEIGHT")
    parser.add_argument("output", metavar="OUT", help="what to write; its suffix decides the kind")
    parser.add_argument("--version", action="version", version=f"nst-video {__version__}")
    add_options(parser, style_help="another style picture to blend in")
    report = parser.add_argument_group("reports")
    report.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    report.add_argument(
        "--trace", metavar="FILE", help="write every frame's losses as JSON lines, and a plot beside them"
    )
    report.add_argument("--contact-sheet", metavar="FILE", help="write a picture of frames, each above its painted one")
    report.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def run(words: Sequence[str], stopper: Stopper) -> int:
    """Begin a render, or go on with one, with progress; report."""
    args = make_parser().parse_args(words)
    groups = ("effort", "look", "coherence", "options", "machine")
    settings: dict[str, Any] = dict(zip(groups, split_options(given_options(args)), strict=True))

    # OpenCV and PyAV come with these: not before the options are known to be right, and never for --help.
    from nst_video.codecs import output_kind
    from nst_video.pictures import picture_format
    from nst_video.plan import make_plan
    from nst_video.render import render_job, render_plan
    from nst_video.reports import check_reports, plot_of
    from nst_video.resume import left_by, open_job, tidy

    styles = [parse_style(text) for text in (args.style, *args.styles)]
    trace, sheet = (Path(name) if name else None for name in (args.trace, args.contact_sheet))
    reports = [report for report in (trace, sheet, plot_of(trace) if trace else None) if report]
    if sheet:
        picture_format(sheet)  # an unknown suffix is refused now, not after the render
    tidy(args.output)  # before anything is refused because the render it belonged to is complete
    check_reports(
        reports,
        [args.input, args.output, *(file for file, _ in styles)],
        overwrite=args.overwrite,
        plotting=bool(trace),
        ours=left_by(reports, args.output),
    )
    if output_kind(args.output) == "picture":
        plan = make_plan(args.input, styles, args.output, **settings)
        with _watching(plan.frames, trace, sheet) as tell:
            result = render_plan(plan, progress=tell)
    else:
        again = shlex.join(["nst-video", *(word for word in words if word != "--restart")])
        with (
            open_job(args.input, styles, args.output, **settings, command=again, reports=reports) as job,
            stopper.patience() as asked,
            stopper.keeping(job, again),
            _watching(job.plan.frames, trace, sheet, job) as tell,
        ):
            result = render_job(job, progress=tell, stop=asked)
    say(_summary(result))
    if args.json:
        print_json(result.to_json())
    return 0


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
    coherence = "" if result.e_warp is None else f", E_warp {result.e_warp:.1e}"
    return (
        f"{result.output}: {result.frames} frames of {width}x{height} in {clock(result.seconds)} "
        f"({result.seconds_per_frame:.2f} s and {result.evaluations:.1f} evaluations a frame{coherence})"
    )
