"""`nst-video status`: how far an unfinished render is."""

from collections.abc import Sequence

from nst_video.arguments import Parser, add_report
from nst_video.jobs.stopping import Stopper
from nst_video.terminal import print_json, print_lines, say
from nst_video.words import counted


def make_parser() -> Parser:
    """The parser of `nst-video status`."""
    parser = Parser(
        prog="nst-video status",
        usage="nst-video status OUT [options]",
        description="Tells how far an unfinished render is, while it runs or after it was stopped.",
    )
    parser.add_argument("output", metavar="OUT", help="the output that the render was to write")
    add_report(parser, "--play", "write what is finished so far, with its sound, to a video")
    parser.add_argument("-y", dest="overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print it as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def run(words: Sequence[str], stopper: Stopper) -> int:
    """Tell about an unfinished render."""
    args = make_parser().parse_args(words)

    from nst_video.jobs.status import gather, lines, write_preview

    facts = gather(args.output)
    if args.play:
        frames = write_preview(args.output, args.play, overwrite=args.overwrite)
        say(f"{args.play}: the first {counted(frames, 'frame')}")
    if args.json:
        print_json(facts)
    else:
        print_lines(lines(facts))
    return 0
