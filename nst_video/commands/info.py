"""`nst-video info`: what this installation is."""

from collections.abc import Sequence

from nst_video.arguments import Parser
from nst_video.jobs.stopping import Stopper
from nst_video.terminal import print_json, print_lines


def make_parser() -> Parser:
    """The parser of `nst-video info`."""
    parser = Parser(prog="nst-video info", description="Tells versions, devices, and where the encoders' weights are.")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    return parser


def run(words: Sequence[str], stopper: Stopper) -> int:
    """Tell about this installation."""
    args = make_parser().parse_args(words)

    from nst_video.info import gather, lines

    facts = gather()
    if args.json:
        print_json(facts)
    else:
        print_lines(lines(facts))
    return 0
