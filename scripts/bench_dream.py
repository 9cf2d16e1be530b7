"""How well dreams hold together, and what they cost: against frames dreamed alone, the usual blend, the recipe of 2015.

    python scripts/bench_dream.py FOLDER [--media MORE_FILES] [--clips bunny bikes pan] [--pairs 4] [--size 256]

Coherence: E_warp by the flow of the input where its geometry can be trusted, as `nst-video score` takes it, over pairs
of neighbouring frames sampled evenly from the clip, of the same frames dreamed
- with the memory of the Dreamer, from a first frame --warm-up frames before the pair;
- alone, each like the first frame of a shot of its own, with the seed of its own that such a shot has;
- alone, but with one seed for all: the same jitter already holds dreams of like frames together;
- with the usual blend: 85 % of the frame dreamed before, unmoved, mixed into the new one, which is dreamed with the
  effort of a first frame (what tools for video do), from --blend-warm-up frames before the pair.
Activations are those of the finished frames under the same network. Every clip's result is a file in FOLDER; a rerun
makes only what is missing.

Speed: a first frame against a plain transcription of the notebook of Mordvintsev et al. (2015), through the same
network, at equal octaves and iterations, by turns; time of the processor, which other programs disturb less.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import cv2
import numpy as np
import torch
from bench_quality import find, make_missing
from torch import Tensor

from nst_video.colors import to_image, to_rgb
from nst_video.controls import Controls
from nst_video.dreaming.dreamer import Dreamer, load_dreamer
from nst_video.dreaming.options import DreamOptions
from nst_video.flow.motion import Motion, MotionWindow, flow, to_flow, trust_mask
from nst_video.measures import warp_error
from nst_video.media.pictures import write_picture
from nst_video.media.video import VideoReader
from nst_video.networks.encoders import Encoder

ROOT = Path(__file__).resolve().parent.parent
BLEND = 0.85
RATE = 25.0


def main() -> None:
    """Measure, print the tables, and keep them in FOLDER."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    options = DreamOptions(layers=(arguments.layer,))
    dreamer = load_dreamer(options, encoder=arguments.encoder, precision=arguments.precision)
    clips = find(arguments.clips, [make_missing(arguments.folder / "clips"), *arguments.media], (".mp4",), "clip")
    rows = [
        kept(arguments.folder / f"{name}.json", partial(coherence, dreamer, name, path, arguments))
        for name, path in clips.items()
    ]
    precisions = [] if arguments.no_speed else ["fp32", "bf16"]
    speed = [kept(arguments.folder / f"speed-{name}.json", partial(speed_row, arguments, name)) for name in precisions]
    print("\n".join([*(coherence_table(rows) if rows else []), *map(speed_line, speed)]))


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of a JSON file, which is made first where it is missing."""
    if not path.exists():
        path.write_text(json.dumps(make(), indent=1), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--clips", nargs="*", default=["bunny", "pan"], help="clips: samples, made ones, or in --media")
    parser.add_argument("--media", nargs="+", type=Path, default=[ROOT / "samples"], help="folders with clips")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of frames that are compared")
    parser.add_argument("--warm-up", type=int, default=8, help="frames dreamed before a pair")
    parser.add_argument("--blend-warm-up", type=int, default=8, help="the same for the blend, whose frames are dear")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--encoder", default="vgg19", help="network that dreams")
    parser.add_argument("--layer", default="relu5_1", help="what it dreams")
    parser.add_argument("--precision", default="bf16", help="number format of its convolutions, for the coherence")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs for the speed")
    parser.add_argument("--no-speed", action="store_true", help="leave the speed out")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args()


# ------------------------------------------------------------------------------------------ coherence


@dataclass(frozen=True)
class Frame:
    """A frame (1, 3, H, W), its motion as a render has it, and the flow and trusted places of the score; those are None
    for the first frame of a window.
    """

    image: Tensor
    motion: Motion
    flow: Tensor | None
    trusted: Tensor | None


Ways = dict[str, Callable[[list[Frame]], list[Tensor]]]


def read_clip(path: Path, size: int) -> list[np.ndarray]:
    """The frames of a clip, uint8 (H, W, 3), with this long side."""
    with VideoReader(path) as reader:
        factor = size / max(reader.size)
        width, height = (round(side * factor) for side in reader.size)
        return [cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA) for batch in reader for rgb in batch.rgb]


def as_frames(rgbs: list[np.ndarray]) -> list[Frame]:
    """A window of a clip that begins with a first frame."""
    window, frames = MotionWindow((1,)), []
    for number, rgb in enumerate(rgbs):
        back = to_flow(flow(rgb, rgbs[number - 1])) if number else None
        trusted = trust_mask(back, to_flow(flow(rgbs[number - 1], rgb))) if back is not None else None
        frames.append(Frame(to_image(rgb[None]), window.step(rgb, number == 0), back, trusted))
    return frames


def coherence(dreamer: Dreamer, clip: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Means over the sampled pairs of each way to dream; a picture of the last pair beside it."""
    rgbs, long, short = read_clip(path, arguments.size), arguments.warm_up, arguments.blend_warm_up
    pairs = [round(place) for place in np.linspace(max(long, short) + 1, len(rgbs) - 1, arguments.pairs)]
    ways: Ways = {
        "input": lambda frames: [frame.image for frame in frames[-2:]],
        "memory": lambda frames: with_memory(dreamer, frames[-long - 2 :]),
        "alone": lambda frames: [alone(dreamer, frame.image, seed) for seed, frame in enumerate(frames[-2:])],
        "alone, one seed": lambda frames: [alone(dreamer, frame.image, 0) for frame in frames[-2:]],
        "blend": lambda frames: blended(dreamer, frames[-short - 2 :]),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for pair in pairs:
        frames = as_frames(rgbs[pair - max(long, short) - 1 : pair + 1])
        shown = {name: dream(frames)[-2:] for name, dream in ways.items()}
        for name, (before, after) in shown.items():
            error = pair_error(frames[-1], after, before)
            found[name].append((error, (activation(dreamer, before) + activation(dreamer, after)) / 2))
            say(f"{clip} {pair}: {name}: E_warp {error:.2e}, activation {found[name][-1][1]:.3g}")
        sheet = [np.concatenate([to_rgb(image)[0] for image in images]) for images in shown.values()]
        write_picture(arguments.folder / f"{clip}-{pair}.png", np.concatenate(sheet, axis=1))
    means = {name: tuple(fmean(column) for column in zip(*values, strict=True)) for name, values in found.items()}
    octaves, later = dreamer.options.octaves, round(dreamer.options.iterations)
    return {
        "clip": clip,
        "pairs": pairs,
        "e_warp": {name: values[0] for name, values in means.items()},
        "activation": {name: values[1] for name, values in means.items()},
        "evaluations": {"memory": octaves * later, "alone": octaves * dreamer.options.first_iterations},
        "rows": found,
    }


def pair_error(frame: Frame, current: Tensor, previous: Tensor) -> float:
    """E_warp of two neighbouring pictures by the flow of the input."""
    assert frame.flow is not None
    assert frame.trusted is not None
    return warp_error(current, previous, frame.flow, frame.trusted)


@torch.no_grad()
def activation(dreamer: Dreamer, image: Tensor) -> float:
    """What grows, in a finished picture, under the dreamer's network."""
    return float(dreamer.encoder(image)[dreamer.specs[0].layer].square().mean() / 2)


def with_memory(dreamer: Dreamer, frames: list[Frame]) -> list[Tensor]:
    """As a render does it; the first of the frames is the first of a shot."""
    state, found = dreamer.initial_state(0), []
    for number, frame in enumerate(frames):
        motion = frame.motion if number else none(frame.image)
        controls = Controls(time=number / RATE, dt=1 / RATE if number else 0.0)
        image, state = dreamer.step(frame.image, motion, state, controls)
        found.append(image)
    return found


def none(image: Tensor) -> Motion:
    """The motion of a first frame."""
    return Motion.none(1, image.shape[2], image.shape[3])


def alone(dreamer: Dreamer, image: Tensor, seed: int = 0) -> Tensor:
    """A frame as the first one of a shot."""
    return dreamer.step(image, none(image), dreamer.initial_state(seed))[0]


def blended(dreamer: Dreamer, frames: list[Frame]) -> list[Tensor]:
    """Each frame mixed with the one dreamed before, at the same place, and dreamed."""
    found: list[Tensor] = []
    for frame in frames:
        start = BLEND * found[-1] + (1 - BLEND) * frame.image if found else frame.image
        found.append(alone(dreamer, start))
    return found


def coherence_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: E_warp and activation of each way, and how many times ours the others' E_warp is."""
    names = list(rows[0]["e_warp"])
    others = [name for name in names if name not in ("input", "memory")]
    heads = ["clip", *(f"E_warp {name}" for name in names), *(f"{name} / memory" for name in others)]
    heads += [*(f"activation {name}" for name in names), "evaluations"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        errors, ours = row["e_warp"], row["e_warp"]["memory"]
        cells = [row["clip"], *(f"{errors[name]:.1e}" for name in names)]
        cells += [f"{errors[name] / ours:.1f}" for name in others]
        cells += [f"{row['activation'][name]:.3g}" for name in names]
        cells += [" against ".join(str(count) for count in row["evaluations"].values())]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


# ------------------------------------------------------------------------------------------ speed


def speed_row(arguments: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Seconds of the processor of a first frame, ours and plain, by turns."""
    options = DreamOptions(layers=(arguments.layer,))
    dreamer = load_dreamer(options, encoder=arguments.encoder, precision=precision)
    size = (arguments.size * 9 // 16, arguments.size)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    layer = dreamer.specs[0].layer
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: alone(dreamer, image),
        "plain": lambda: plain_dream(dreamer.encoder, layer, to_rgb(image)[0], options),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds + 1):
        for name in sorted(runs, reverse=number % 2 == 1):
            begun = time.process_time()
            runs[name]()
            if number > 0:  # the first round warms up
                times[name].append(time.process_time() - begun)
        say(f"speed {precision}: round {number}")
    ratios = [ours / plain for ours, plain in zip(times["ours"], times["plain"], strict=True)]
    return {
        "precision": precision,
        "ours": median(times["ours"]),
        "plain": median(times["plain"]),
        "ratio": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def speed_line(row: dict[str, Any]) -> str:
    """A sentence."""
    return (
        f"A first frame in {row['precision']}: {row['ours']:.2f} s of the processor, the recipe of 2015 "
        f"{row['plain']:.2f} s; ratio {row['ratio']:.3f} ({row['least']:.3f} to {row['most']:.3f})"
    )


def plain_dream(encoder: Encoder, layer: str, rgb: np.ndarray, options: DreamOptions) -> np.ndarray:
    """The notebook of 2015 on uint8 (H, W, 3): octaves, jitter by rolling over, normalised steps, clipping."""
    rng = np.random.default_rng(0)
    pictures = [rgb.astype(np.float32) / 255]
    for _ in range(options.octaves - 1):
        height, width = pictures[-1].shape[:2]
        smaller = (round(width / options.octave_scale), round(height / options.octave_scale))
        pictures.append(cv2.resize(pictures[-1], smaller, interpolation=cv2.INTER_LINEAR))
    detail = np.zeros_like(pictures[-1])
    for base in reversed(pictures):
        detail = cv2.resize(detail, (base.shape[1], base.shape[0]), interpolation=cv2.INTER_LINEAR)
        x = torch.from_numpy(base + detail).permute(2, 0, 1)[None].contiguous()
        for _ in range(options.first_iterations):
            down, right = (int(value) for value in rng.integers(-options.jitter // 2, options.jitter // 2 + 1, 2))
            x = torch.roll(x, (down, right), (2, 3)).requires_grad_()
            (gradient,) = torch.autograd.grad(encoder(x)[layer].square().sum() / 2, x)
            x = x.detach() + options.step / 255 * gradient / gradient.abs().mean()
            x = torch.roll(x, (-down, -right), (2, 3)).clamp(0, 1)
        detail = x[0].permute(1, 2, 0).numpy() - base
    return base + detail


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
