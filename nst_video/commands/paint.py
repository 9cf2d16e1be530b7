"""The main command: paint a video."""

from collections.abc import Sequence

from nst_video import __version__
from nst_video.arguments import Parser, add_options, given_options, parse_style
from nst_video.commands.rendering import add_reports, render
from nst_video.jobs.stopping import Stopper
from nst_video.settings import split_options

EXAMPLES = """\
examples:
  nst-video in.mp4 style.jpg out.mp4                    paint a video; sound and timing stay
  nst-video in.mp4 style.jpg look.png --still 2.5       try the look on one frame first
  nst-video in.mp4 style.jpg out.mp4 --quality draft    quicker and smaller
  nst-video in.mp4 style.jpg out.mp4 --style b.jpg=0.5  blend two styles, the second half as strong
  nst-video in.mp4 style.jpg out.mp4 --keep-colors --style-scale 1.5
  nst-video in.mp4 style.jpg out.mp4 --strength "0:0, 2s:1"   what changes: by frames, seconds (s), beats (b)
  nst-video in.mp4 style.jpg out.mp4 --start 0:10 --end 0:20 --size full
  nst-video photo.jpg style.jpg out.png                 a picture works as well
  nst-video frames/%05d.png style.jpg painted/%05d.png  and so does a sequence

other commands:
  nst-video live style.jpg                              paint what a camera sees, in a window; keys change the look
  nst-video dream in.mp4 out.mp4                        a network dreams on a video, with music or without
  nst-video score in.mp4 out.mp4 --style style.jpg      how coherent and how painted a result is, in numbers
  nst-video status out.mp4                              how far an unfinished render is; --play FILE.mp4 shows it
  nst-video info                                        versions, devices, and where the encoders' weights are
  (a file that is really called live, dream, score, status or info: write ./score)

A render that was stopped, killed or cut off goes on where it was when the same command is run again. Until it is
complete, what is finished is kept in the folder OUT.nst beside the output. Ctrl-C saves first; twice stops at once.

exit codes: 0 done, 2 wrong usage, 3 unusable input, 4 this machine cannot do it as it is (too little disk or memory, no
network, a folder that cannot be written to, a Python package or weights that are not there), 5 stopped and saved, 129,
130 or 143 stopped at once by a closed terminal, Ctrl-C or SIGTERM, 141 nobody reads what is printed
"""


def make_parser() -> Parser:
    """The parser of the main command; its options are the fields of their dataclasses."""
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
    add_reports(parser)
    return parser


def run(words: Sequence[str], stopper: Stopper) -> int:
    """Begin a render, or go on with one, with progress; report."""
    args = make_parser().parse_args(words)
    settings = split_options(given_options(args))
    styles = [parse_style(text) for text in (args.style, *args.styles)]
    return render(["nst-video", *words], args, styles, settings, stopper)
