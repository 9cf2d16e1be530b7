"""`nst-video dream`: dream on a video, with music or without."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nst_video.arguments import Parser, add_options, given_options, parsing
from nst_video.commands.rendering import add_reports, render
from nst_video.dreaming.specs import list_layers
from nst_video.jobs.stopping import Stopper
from nst_video.kinds import Time
from nst_video.settings import DREAM, preview, split_options
from nst_video.terminal import print_lines, say

EXAMPLES = """\
examples:
  nst-video dream in.mp4 out.mp4                         what is dreamed sticks to the things in the picture
  nst-video dream in.mp4 out.mp4 --layers relu4_3        eyes and shells instead of animals
  nst-video dream in.mp4 out.mp4 --layers relu5_1:87     one channel of a layer
  nst-video dream in.mp4 out.mp4 --guide flowers.jpg     dream of what is in another picture, or video
  nst-video dream in.mp4 try.mp4 --preview 5s            five small seconds, to see what comes
  nst-video dream photo.jpg dream.png                    a picture works as well
  nst-video dream photo.jpg out.mp4 --zoom 1.2 --duration 20      an endless zoom into one picture
  nst-video dream --list-layers vgg19                    what there is to dream

Stopping, going on, status and exit codes are those of the main command: see nst-video --help.
"""

# What is said otherwise than of a painting.
TOLD = {
    "drive": {
        "help": "let what is heard add to an option that takes a schedule, such as step=onset*0.5 or zoom=bass*0.3"
    },
    "encoder": {"help": "network whose layers are dreamed", "unset": "vgg19"},
}


class _ListLayers(argparse.Action):
    """Prints the layers of an encoder, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: Any, option: object = None) -> None:
        lines = list_layers(values)
        print_lines(
            f"{line.name:<14} {line.channels:>5} channels, pictures from {line.smallest_side} pixels on"
            + (f", also {', '.join(line.also)}" if line.also else "")
            for line in lines
        )
        parser.exit()


def make_parser() -> Parser:
    """The parser of `nst-video dream`; its options are the fields of their dataclasses."""
    parser = Parser(
        prog="nst-video dream",
        usage="nst-video dream IN OUT [options]",
        description="Lets a network dream on a video: what it sees in the picture grows, stays with the things in it, "
        "and moves with the music.",
        epilog=EXAMPLES,
    )
    parser.add_argument("input", metavar="IN", help="a video, gif, picture, folder of pictures or pattern f/%%05d.png")
    parser.add_argument("output", metavar="OUT", help="what to write; its suffix decides the kind")
    parser.add_argument(
        "--list-layers", metavar="ENCODER", action=_ListLayers, help="print the layers of a network, and end"
    )
    add_options(parser, DREAM, told=TOLD)
    report = add_reports(parser)
    report.add_argument(
        "--preview",
        metavar="TIME",
        action=parsing(Time()),
        help="render only so much, small and quickly, as --size 192 --quality draft do",
    )
    return parser


def run(words: Sequence[str], stopper: Stopper) -> int:
    """Begin a dream, or go on with one, with progress; report."""
    args = make_parser().parse_args(words)
    settings = split_options(given_options(args, DREAM), DREAM)
    if args.preview is not None:
        from nst_video.media.destination import output_kind  # PyAV comes with it, which --help does without
        from nst_video.media.pictures import PICTURE_SUFFIXES

        of_picture = Path(args.input).suffix.lower() in PICTURE_SUFFIXES and output_kind(args.output) != "picture"
        settings = preview(settings, args.preview, of_picture=of_picture)
        end, size = float(settings.options.end or 0), settings.effort.size
        lasting = f"--duration {end:g} " if settings.options.duration == settings.options.end else ""
        say(f"--preview renders as {lasting}--end {end:g} --size {size} --quality draft do")
    return render(["nst-video", "dream", *words], args, (), settings, stopper)
