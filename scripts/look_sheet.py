"""One frame in many looks, as a contact sheet: every style picture at every size, and the options that change the look.

    python scripts/look_sheet.py SHEET.png [--clip CLIP] [--time 2] [--styles A.jpg B.jpg] [--sizes 256 512] [--looks]

Each picture is what `nst-video CLIP STYLE OUT.png --still TIME` gives; its style distance is printed. With --looks the
first style is also shown with other strengths, brush sizes, starts, the colours kept, and the published loss.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nst_video import stylize
from nst_video.measures import LAYERS
from nst_video.media.pictures import contact_sheet, read_picture, write_picture
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.score import score_frames

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
LOOKS: tuple[dict[str, Any], ...] = (
    {"strength": 0.5},
    {"strength": 2.0},
    {"style_scale": 0.5},
    {"style_scale": 2.0},
    {"keep_colors": True},
    {"init": "noise"},
    {"init": "style"},
    {"loss": "paper"},
    {"pooling": "max"},
    {"optimizer": "adam"},
)


def main() -> None:
    """Paint every look, print its figures and write the sheet."""
    arguments = parse_arguments()
    frames, painted = [], []
    judge = load_encoder("vgg19", LAYERS)
    with tempfile.TemporaryDirectory() as folder:
        for style, size, options in wanted(arguments):
            before, after = paint(Path(folder) / "still.png", arguments, style, size, options)
            distance = style_distance(before, after, style, options, judge)
            shown = ", ".join(f"{name} {value}" for name, value in options.items()) or "default"
            print(f"{style.stem} at {size} px, {shown}: style distance {distance:.4f}", flush=True)
            frames.append(before)
            painted.append(after)
    widest = max(picture.shape[1] for picture in painted)
    write_picture(arguments.sheet, contact_sheet(frames, painted, columns=arguments.columns, cell_width=widest))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4")
    parser.add_argument("--time", default="2")
    parser.add_argument("--styles", nargs="+", type=Path, default=sorted(SAMPLES.glob("*.jpg")))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256])
    parser.add_argument("--looks", action="store_true", help="also the options that change the look")
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


def wanted(arguments: argparse.Namespace) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Style, size and options of every picture of the sheet."""
    for style in arguments.styles:
        for size in arguments.sizes:
            yield style, size, {}
    for options in LOOKS if arguments.looks else ():
        yield arguments.styles[0], arguments.sizes[0], options


def paint(
    target: Path, arguments: argparse.Namespace, style: Path, size: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """The frame and what became of it, uint8 (H, W, 3) both."""
    seen: list[np.ndarray] = []
    stylize(
        arguments.clip,
        style,
        target,
        still=arguments.time,
        size=size,
        precision=arguments.precision,
        overwrite=True,
        progress=lambda done: seen.append(done.before),
        **options,
    )
    return seen[0], read_picture(target)


def style_distance(
    before: np.ndarray, after: np.ndarray, style: Path, options: dict[str, Any], judge: Encoder
) -> float:
    """The style distance of the one frame."""
    scale = float(options.get("style_scale", 1.0))
    return score_frames(before[None], after[None], [(read_picture(style), 1.0)], judge, style_scale=scale).style


if __name__ == "__main__":
    sys.exit(main())
