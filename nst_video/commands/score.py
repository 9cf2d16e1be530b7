"""`nst-video score`: how coherent and how painted a result is, in numbers."""

from collections.abc import Sequence
from dataclasses import asdict

from nst_video.arguments import HIDDEN, Parser, add_options, add_report, given_options, parse_style
from nst_video.errors import UsageError
from nst_video.jobs.stopping import Stopper
from nst_video.settings import split_options
from nst_video.terminal import counting, print_json, print_lines

HOW = """\
Give --start, --end, --stride, --still, --rate and --duration as in the render: they say which frames were painted.
--cut-threshold decides about cuts as it did there, --style-scale about the size at which the style is compared.
--reference paints some frames on their own, as the other options of quality, look and music say. A score is taken at
the size of OUT. Further options of a render, such as --codec, may stand there too, so that its command can be used
again, but for its --trace and --contact-sheet; they decide nothing here.
"""

# What a score does not ask for: its size is the output's, frames of --reference are each the first of a shot, and
# nothing is encoded.
DECIDES_NOTHING = (
    *("size", "iterations", "temporal_weight", "references", "flow", "lanes"),
    *("codec", "crf", "preset", "restart", "keep_job", "lossless"),
)


def make_parser() -> Parser:
    """The parser of `nst-video score`."""
    parser = Parser(
        prog="nst-video score",
        usage="nst-video score IN OUT --style STYLE [options]",
        description="Says in numbers how coherent a painted video is and how close to its style; neither counts alone.",
        epilog=HOW,
    )
    parser.add_argument("input", metavar="IN", help="what was painted")
    parser.add_argument("output", metavar="OUT", help="what came out")
    report = parser.add_argument_group("reports")
    report.add_argument(
        "--reference", metavar="N", type=int, default=0, help="compare with N pairs of frames painted alone"
    )
    report.add_argument("--json", action="store_true", help="print the means as JSON on stdout")
    add_report(report, "--csv", "write every frame's values")
    add_report(report, "--plot", "draw every frame's values: png, jpg, svg or pdf")
    report.add_argument("--debug", action="store_true", help="show where an error came from")
    told = dict.fromkeys(DECIDES_NOTHING, HIDDEN) | {"overwrite": {"help": "replace the reports if they exist"}}
    add_options(parser, style_help="a style picture that was used", told=told)
    return parser


def run(words: Sequence[str], stopper: Stopper) -> int:
    """Score a rendered file and report."""
    args = make_parser().parse_args(words)
    options = given_options(args)
    settings = split_options(options)
    styles = [parse_style(text) for text in args.styles]
    if not styles:
        raise UsageError("score needs the style picture: --style FILE; see nst-video score --help")
    if args.reference < 0:
        raise UsageError(f"--reference {args.reference} is out of range; allowed 0 or more")

    from nst_video.plan import named_files
    from nst_video.planning import style_shares
    from nst_video.plots import plot_score
    from nst_video.reports import check_reports
    from nst_video.score import score_video, write_csv

    check_reports(
        [args.csv, args.plot],
        (file for file, _ in named_files(args.input, style_shares(styles), settings)),
        output=args.output,
        overwrite=options["overwrite"],
        plot=args.plot,
    )
    with counting() as count:
        score = score_video(args.input, args.output, styles, reference=args.reference, progress=count, **options)
    if args.csv:
        write_csv(score.rows, args.csv)
    if args.plot:
        plot_score([asdict(row) for row in score.rows], args.plot)
    if args.json:
        print_json(score.to_json())
    else:
        print_lines(score.summary())
    return 0
