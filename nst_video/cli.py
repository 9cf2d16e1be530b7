"""The command line, built from options.py: the only place that prints, draws progress or ends the program."""

import argparse
import json
import logging
import os
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nst_video import __version__
from nst_video.errors import NstVideoError, ResourceError, Stopped, UsageError
from nst_video.kinds import Choice, Flag
from nst_video.options import OPTION_GROUPS, flag_name, parse_option, split_options
from nst_video.stopping import Stopper, Terminated

if TYPE_CHECKING:
    from nst_video.job import Job
    from nst_video.render import Progress, Result

_LINE_EVERY = 10.0  # seconds between lines of progress where there is no terminal for a bar

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
  nst-video score in.mp4 out.mp4 --style style.jpg      how coherent and how painted a result is, in numbers
  nst-video status out.mp4                              how far an unfinished render is; --play FILE.mp4 shows it
  nst-video info                                        versions, devices, and where the encoders' weights are
  (a file that is really called score, status or info: write ./score)

A render that was stopped, killed or cut off goes on where it was when the same command is run again. Until it is
complete, what is finished is kept in the folder OUT.nst beside the output. Ctrl-C saves first; twice stops at once.

exit codes: 0 done, 2 wrong usage, 3 unusable input, 4 not enough disk, memory or network, 5 stopped and saved, 129, 130
or 143 stopped at once by a closed terminal, Ctrl-C or SIGTERM
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` when None); returns the exit code. `--help` and `--version` raise SystemExit."""
    words = list(sys.argv[1:] if argv is None else argv)
    # torch's threads spin while they wait for each other; on cores that decoding, flow, encoding or another program
    # share, that is many times slower than sleeping. The OpenMP library reads this once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stopper = Stopper(_tell)
    try:
        with stopper.heeding(), _log_lines():
            command = COMMANDS.get(words[0]) if words else None
            return _paint(words, stopper) if command is None else command(words[1:])
    except Stopped as stopped:
        _say(str(stopped))
        return stopped.exit_code
    except NstVideoError as error:
        return _complain(words, str(error), error.exit_code)
    except MemoryError:  # outside the render, which says more about it
        return _complain(words, "not enough memory; choose a smaller --size", ResourceError.exit_code)
    except OSError as error:  # of the files beside the output; the library turns all others into its own errors
        return _complain(words, f"{error.filename or 'a file'}: {error.strerror or error}", ResourceError.exit_code)
    except KeyboardInterrupt:  # where signals could not be heeded
        return _complain(words, f"interrupted; {stopper.kept}", 128 + signal.SIGINT)
    except Terminated as end:
        return _complain(words, f"{end.meaning}; {stopper.kept}", end.exit_code)


def _complain(words: Sequence[str], message: str, code: int) -> int:
    if "--debug" in words:
        traceback.print_exc()
    print(f"nst-video: error: {' '.join(message.split())}", file=sys.stderr)
    return code


class _Lines(logging.Handler):
    """Log records as plain lines on stderr, above the bar; the input is read twice, so each line shows once."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record."""
        from tqdm import tqdm

        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        line = level + record.getMessage()
        if line not in self.shown:
            self.shown.add(line)
            tqdm.write(f"nst-video: {line}", file=sys.stderr)


@contextmanager
def _log_lines() -> Iterator[None]:
    logger, handler = logging.getLogger("nst_video"), _Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # about notes in pictures that it cannot read
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# ---------------------------------------------------------------------------------------------- arguments


class _Parser(argparse.ArgumentParser):
    """Wrong usage ends in one line like every other error, instead of in the whole synopsis."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Wrong usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the main command; its options are the fields of the dataclasses in options.py."""
    parser = _Parser(
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


def make_score_parser() -> argparse.ArgumentParser:
    """The parser of `nst-video score`."""
    parser = _Parser(
        prog="nst-video score",
        usage="nst-video score IN OUT --style STYLE [options]",
        description="Says in numbers how coherent a painted video is and how close to its style; neither counts alone.",
        epilog="The other options are those of the render: --start, --end, --stride and --style-scale as they were "
        "there; the rest only decides how the frames of --reference are painted.",
    )
    parser.add_argument("input", metavar="IN", help="what was painted")
    parser.add_argument("output", metavar="OUT", help="what came out")
    report = parser.add_argument_group("reports")
    report.add_argument(
        "--reference", metavar="N", type=int, default=0, help="compare with N pairs of frames painted alone"
    )
    report.add_argument("--json", action="store_true", help="print the means as JSON on stdout")
    report.add_argument("--csv", metavar="FILE", help="write every frame's values")
    report.add_argument("--plot", metavar="FILE", help="draw every frame's values into a PNG")
    report.add_argument("--debug", action="store_true", help="show where an error came from")
    add_options(parser, style_help="a style picture that was used")
    return parser


def make_info_parser() -> argparse.ArgumentParser:
    """The parser of `nst-video info`."""
    parser = _Parser(prog="nst-video info", description="Tells versions, devices, and where the encoders' weights are.")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def make_status_parser() -> argparse.ArgumentParser:
    """The parser of `nst-video status`."""
    parser = _Parser(
        prog="nst-video status",
        usage="nst-video status OUT [options]",
        description="Tells how far an unfinished render is, while it runs or after it was stopped.",
    )
    parser.add_argument("output", metavar="OUT", help="the output that the render was to write")
    parser.add_argument("--play", metavar="FILE", help="write what is finished so far, with its sound, to a video")
    parser.add_argument("-y", dest="overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print it as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def add_options(parser: argparse.ArgumentParser, *, style_help: str) -> None:
    """Add every field of the options' dataclasses, by group, and the repeatable --style."""
    for title, group in OPTION_GROUPS.items():
        section = parser.add_argument_group(title)
        for item in fields(group):
            _add_option(section, item.name, item.default, **item.metadata)
        if title == "look":
            section.add_argument(
                "--style", dest="styles", metavar="FILE=WEIGHT", action="append", default=[], help=style_help
            )


def _add_option(
    section: Any, name: str, default: Any, *, kind: Any, help: str, metavar: str | None, short: str | None, unset: str
) -> None:
    """One field of an options dataclass as an argument; its range is checked where the dataclass is made."""
    flags = [short, flag_name(name)] if short else [flag_name(name)]
    if isinstance(kind, Flag):
        section.add_argument(*flags, action="store_true", default=default, help=help)
        return
    choices = "{" + ",".join(kind.names) + "}" if isinstance(kind, Choice) else None
    shown = unset if default is None else ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    section.add_argument(
        *flags,
        metavar=metavar or choices or "VALUE",
        type=parse_option(name, kind),
        default=default,
        help=f"{help} (default: {shown})" if shown else help,
    )


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of all option fields by name."""
    return {item.name: getattr(args, item.name) for group in OPTION_GROUPS.values() for item in fields(group)}


def parse_style(text: str) -> tuple[str, float]:
    """FILE or FILE=WEIGHT -> (file, weight); a file whose own name looks like FILE=WEIGHT is taken as it is.

    >>> parse_style("night.jpg=0.3"), parse_style("night.jpg")
    (('night.jpg', 0.3), ('night.jpg', 1.0))
    """
    file, equals, weight = text.rpartition("=")
    if not equals or os.path.exists(text):
        return text, 1.0
    try:
        return file, float(weight)
    except ValueError:
        return text, 1.0


# ---------------------------------------------------------------------------------------------- the main command


def _paint(words: Sequence[str], stopper: Stopper) -> int:
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
    _say(_summary(result))
    if args.json:
        _print_json(result.to_json())
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
        count = stack.enter_context(_counting(frames, job.done if job else 0))
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
        f"{result.output}: {result.frames} frames of {width}x{height} in {_clock(result.seconds)} "
        f"({result.seconds_per_frame:.2f} s and {result.evaluations:.1f} evaluations a frame{coherence})"
    )


def _clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _say(line: str) -> None:
    print(f"nst-video: {line}", file=sys.stderr, flush=True)


def _tell(line: str) -> None:
    """As `_say`, from a signal handler: the program may be printing just now."""
    os.write(sys.stderr.fileno(), f"nst-video: {line}\n".encode())


def _print_json(facts: Mapping[str, object]) -> None:
    print(json.dumps(facts, allow_nan=False))


@contextmanager
def _counting(frames: int | None = None, resumed: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A function to be told (done, all) frames: draws a bar on a terminal, says a line now and then elsewhere. Frames
    that were `resumed` count as done, but not for the pace.
    """
    if not sys.stderr.isatty():
        yield _lines_of_progress(resumed)
        return
    from tqdm import tqdm

    with tqdm(total=frames, initial=resumed, unit="frame", file=sys.stderr, dynamic_ncols=True) as bar:

        def draw(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield draw


def _lines_of_progress(resumed: int) -> Callable[[int, int], None]:
    begun = told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if done in (resumed + 1, total) or now - told >= _LINE_EVERY:
            told = now
            rate = (done - resumed) / max(now - begun, 1e-9)
            _say(f"frame {done} of {total}, {rate:.2f} frames/s, {_clock((total - done) / rate)} left")

    return tell


# ---------------------------------------------------------------------------------------------- other commands


def _score(words: Sequence[str]) -> int:
    """Score a rendered file and report."""
    args = make_score_parser().parse_args(words)
    options = given_options(args)
    split_options(options)
    styles = [parse_style(text) for text in args.styles]
    if not styles:
        raise UsageError("score needs the style picture: --style FILE; see nst-video score --help")
    if args.reference < 0:
        raise UsageError(f"--reference {args.reference} is out of range; allowed 0 or more")

    from nst_video.plots import plot_score
    from nst_video.reports import check_reports
    from nst_video.score import score_video, write_csv

    reports = [Path(name) if name else None for name in (args.csv, args.plot)]
    check_reports(
        reports,
        [args.input, args.output, *(file for file, _ in styles)],
        overwrite=options["overwrite"],
        plotting=bool(args.plot),
    )
    with _counting() as count:
        score = score_video(args.input, args.output, styles, reference=args.reference, progress=count, **options)
    if args.csv:
        write_csv(score.rows, args.csv)
    if args.plot:
        plot_score([asdict(row) for row in score.rows], args.plot)
    if args.json:
        _print_json(score.to_json())
    else:
        print("\n".join(score.summary()))
    return 0


def _info(words: Sequence[str]) -> int:
    """Tell about this installation."""
    args = make_info_parser().parse_args(words)

    from nst_video.info import gather, lines

    facts = gather()
    if args.json:
        _print_json(facts)
    else:
        print("\n".join(lines(facts)))
    return 0


def _status(words: Sequence[str]) -> int:
    """Tell about an unfinished render."""
    args = make_status_parser().parse_args(words)

    from nst_video.status import gather, lines, write_preview

    facts = gather(args.output)
    if args.play:
        frames = write_preview(args.output, args.play, overwrite=args.overwrite)
        _say(f"{args.play}: the first {frames:,} frames")
    if args.json:
        _print_json(facts)
    else:
        print("\n".join(lines(facts)))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"score": _score, "status": _status, "info": _info}
