"""What computing the convolutions in bfloat16 does to the result: the same stills painted in fp32 and in bf16.

    python scripts/bench_precision.py [--encoders vgg19 slim] [--size 160] [--evaluations 60] [--threads 2]
                                             [--device cpu]

Both are judged by VGG-19 in fp32. Two optimisations of the same picture part ways after a few steps, whatever the
difference between them is; so pixels differ, and the style distances scatter.
"""

import argparse
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from nst_video import EffortOptions, LookOptions, Motion, Stylizer
from nst_video.colors import to_image, to_rgb
from nst_video.devices.machine import devices
from nst_video.measures import STYLE_LAYERS, style_distance
from nst_video.media.pictures import read_picture
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.optimization.losses import gram
from nst_video.painting.scales import resize
from nst_video.painting.teacher import load_teacher

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
PICTURES, STYLES = ("chelsea", "rocket"), ("oil", "mosaic")


def main() -> None:
    """Paint, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["vgg19", "slim"])
    parser.add_argument("--size", type=int, default=160, help="long side in pixels")
    parser.add_argument("--evaluations", type=int, default=60, help="of a still")
    parser.add_argument("--device", default="cpu", choices=devices(), help="that paints; the CPU judges")
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    judge = load_encoder("vgg19", STYLE_LAYERS)
    print("| network | still | style | style distance, fp32 | bf16 | change | largest change of a pixel | mean |")
    print("|---" * 8 + "|", flush=True)
    for encoder in arguments.encoders:
        changes = []
        for still, style in product(PICTURES, STYLES):
            content, picture = (scaled(read(name), arguments.size) for name in (still, style))
            target = {layer: gram(features).mean for layer, features in judge(picture).items()}
            painted = {
                precision: paint(encoder, precision, content, read(style), arguments.evaluations, arguments.device)
                for precision in ("fp32", "bf16")
            }
            exact, fast = (style_distance(judge(image), target) for image in painted.values())
            apart = 255 * (painted["fp32"] - painted["bf16"]).abs()
            changes.append(fast / exact - 1)
            cells = (encoder, still, style, f"{exact:.4f}", f"{fast:.4f}", f"{changes[-1]:+.1%}")
            print(f"| {' | '.join(cells)} | {float(apart.max()):.0f} of 255 | {float(apart.mean()):.1f} |", flush=True)
        print(f"| {encoder} | mean | | | | {fmean(changes):+.1%} | | |", flush=True)


def read(name: str) -> Tensor:
    """A sample picture, (1, 3, H, W) in [0, 1]."""
    return to_image(read_picture(SAMPLES / f"{name}.jpg")[None])


def scaled(picture: Tensor, side: int) -> Tensor:
    """The picture with this long side."""
    factor = side / max(picture.shape[-2:])
    return resize(picture, [round(side * factor) for side in picture.shape[-2:]]).clamp(0, 1)


def paint(name: str, precision: str, content: Tensor, style: Tensor, evaluations: int, device: str = "cpu") -> Tensor:
    """A first frame as it would be written, (1, 3, H, W) in [0, 1] on the CPU."""
    look = LookOptions()
    layers = (*look.content_layers, *look.style_layers)
    encoder: Encoder = load_encoder(name, layers, precision=precision, device=device)
    effort = EffortOptions(size=max(content.shape[-2:]), encoder=name, first_iterations=evaluations, iterations=1)
    teacher = load_teacher(encoder, look.style_layers, precision=precision)
    stylizer = Stylizer(encoder, [(style.to(device), 1.0)], effort=effort, look=look, teacher=teacher)
    motion = Motion.none(1, *content.shape[-2:]).to(device)
    painted, _ = stylizer.step(content.to(device), motion, stylizer.initial_state())
    return to_image(to_rgb(painted))


if __name__ == "__main__":
    main()
