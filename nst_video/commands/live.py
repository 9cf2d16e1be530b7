"""`nst-video live`: paint what the camera sees."""

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from nst_video.arguments import Parser, add_fields, made_of
from nst_video.jobs.stopping import Stopper
from nst_video.live.desk import key_lines
from nst_video.live.options import LiveOptions
from nst_video.options import MachineOptions
from nst_video.terminal import clock, print_json, say
from nst_video.words import counted

if TYPE_CHECKING:
    from nst_video.live.frames import Painter
    from nst_video.live.start import MakePainter

EXAMPLES = """\
examples:
  nst-video live style.jpg                              the first camera, in a window
  nst-video live night.jpg wave.jpg pictures/           several styles; more can be dropped into the folder
  nst-video live style.jpg --camera /dev/video2 --size 768 --full-screen
  nst-video live style.jpg --camera clip.mp4            a video stands for the camera, over and over
  nst-video live style.jpg --record out.mp4             record from the start
  nst-video live style.jpg --serve 8080                 in a browser, for machines without a display
  nst-video live --dream                                DeepDream

keys, in the window and on the web page:
{keys}

Recordings (r) and snapshots (s) made by key are named by their time, in --folder; nothing is ever replaced. A recording
gets its name when it ends, also by Ctrl-C; until then it is NAME.unfinished.mkv, which plays whatever happens.

exit codes: 0 done, 2 wrong usage, 3 no such camera or unusable input, 4 no display, camera busy, disk full, memory
short or a Python package missing, 129, 130 or 143 ended in good order by a closed terminal, Ctrl-C or SIGTERM
"""


def make_parser() -> Parser:
    """The parser of `nst-video live`; its options are the fields of their dataclasses."""
    parser = Parser(
        prog="nst-video live",
        usage="nst-video live STYLE [STYLE ...] [options]",
        description="Paints what the camera sees, as it sees it.",
        epilog=EXAMPLES.format(keys="\n".join("  {:<8}{}".format(*line.split("\t")) for line in key_lines())),
    )
    parser.add_argument("styles", metavar="STYLE", nargs="*", help="pictures whose look is taken, or folders of them")
    add_fields(parser, "live", fields(LiveOptions))
    # A session is as large as its --size says, and begins at once: it has no plan that memory could change.
    planned = ("memory_limit", "lanes")
    add_fields(parser, "machine", (item for item in fields(MachineOptions) if item.name not in planned))
    report = parser.add_argument_group("reports")
    report.add_argument("--json", action="store_true", help="print at the end how it went, as JSON on stdout")
    report.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def engine(options: LiveOptions, machine: MachineOptions) -> "Painter":
    """The painter of this package; torch comes with it."""
    from nst_video.live.engine import make_painter

    return make_painter(options, machine)


def run(words: Sequence[str], stopper: Stopper, make_painter: "MakePainter" = engine) -> int:
    """Run a live session with the painter that is made; report how it went."""
    args = make_parser().parse_args(words)
    options, machine = made_of(args, LiveOptions), made_of(args, MachineOptions)

    from nst_video.live.start import run_live

    stopper.kept = "a recording that was not complete yet is left as NAME.unfinished.mkv"
    with stopper.patience("ending in good order; a second signal stops at once") as asked:
        how = run_live(
            args.styles,
            options,
            machine,
            make_painter=make_painter,
            stop=asked,
        )
    say(
        f"{counted(how.frames, 'frame')} in {clock(how.seconds)}, {how.rate:.1f} a second, "
        f"latency {how.latency_median * 1000:.0f} ms (99 % within {how.latency_99 * 1000:.0f} ms), "
        f"{how.dropped:,} of the camera's frames not shown"
    )
    if args.json:
        print_json(how.to_json())
    return 0 if stopper.signal is None else 128 + stopper.signal
