"""Compares our L-BFGS with torch.optim.LBFGS and Adam on real frames, and measures what it costs beside the network.

    python scripts/bench_optimizers.py --output FOLDER [--frames 5] [--evaluations 50] [--size 256] [--precision fp32]

Every solver starts from the frame itself and minimises the same loss with the same number of evaluations of it; a
line search pays for its own. FOLDER gets losses.json, table.md and losses.png (the mean of the lowest loss so far).
The overhead is what an iteration takes beyond the loss and its gradient, measured within the same iterations.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from nst_video.colors import to_image
from nst_video.media.pictures import read_picture
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import scaled_size
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.optimization.objective import FrameObjective, style_statistics
from nst_video.optimization.optimizers import LBFGS, Objective, minimise
from nst_video.options import EffortOptions, LookOptions
from nst_video.painting.scales import resize
from nst_video.painting.stylizer import Stylizer
from nst_video.plots import plot_trace

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
HISTORY = 10
ADAM_RATES = (0.005, 0.02, 0.05)
WARM_UP = 3  # iterations that are not timed: the first ones allocate

Solver = Callable[[Objective, Tensor, int], list[float]]  # (objective, start, evaluations) -> loss of each evaluation


@dataclass(frozen=True)
class Problem:
    """One frame in one style."""

    name: str
    objective: FrameObjective
    frame: Tensor


def main() -> None:
    """Solve every problem with every solver, then time our iterations."""
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    problems = make_problems(arguments)
    traces: dict[str, list[list[float]]] = {name: [] for name in SOLVERS}
    for problem in problems:
        for name, solve in SOLVERS.items():
            found = solve(problem.objective, problem.frame, arguments.evaluations)
            traces[name].append(list(accumulate(found[: arguments.evaluations], lowest)))
            print(f"{problem.name}, {name}: {traces[name][-1][-1]:.5f}", file=sys.stderr, flush=True)
    overhead = [overhead_of(problem, arguments.evaluations) for problem in problems[:: len(arguments.styles)]]
    report(arguments.output, [problem.name for problem in problems], traces, overhead)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4", help="where the frames come from")
    parser.add_argument("--styles", nargs="+", type=Path, default=[SAMPLES / "oil.jpg", SAMPLES / "mosaic.jpg"])
    parser.add_argument("--frames", type=int, default=5, help="frames, evenly spaced over the clip")
    parser.add_argument("--evaluations", type=int, default=50, help="of the loss and its gradient, for each solver")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------- problems


def make_problems(arguments: argparse.Namespace) -> list[Problem]:
    """Every frame in every style, with the default look."""
    look = LookOptions()
    encoder = load_encoder("vgg19", (*look.style_layers, *look.content_layers), precision=arguments.precision)
    weights = Stylizer(encoder, [], effort=EffortOptions()).weights()
    frames = spaced_frames(arguments.clip, arguments.size, arguments.frames)
    grams = {path.stem: style_grams(encoder, look, path, arguments.size) for path in arguments.styles}
    return [
        Problem(
            f"frame {number}, {style}",
            FrameObjective(encoder, look, content=frame, styles=targets, weights=weights),
            frame,
        )
        for number, frame in frames.items()
        for style, targets in grams.items()
    ]


def spaced_frames(clip: Path, size: int, count: int) -> dict[int, Tensor]:
    """`count` frames of a clip by number, (1, 3, H, W), from the first to the last."""
    with VideoReader(clip, size=scaled_size(probe(clip), size)) as reader:
        rgbs = [rgb for batch in reader for rgb in batch.rgb]
    numbers = [round(index * (len(rgbs) - 1) / max(count - 1, 1)) for index in range(count)]
    return {number: to_image(rgbs[number][None]) for number in numbers}


@torch.no_grad()
def style_grams(encoder: Encoder, look: LookOptions, path: Path, size: int) -> dict[str, Tensor]:
    """Targets of a style picture with a long side of `size`."""
    picture = to_image(read_picture(path)[None])
    factor = size / max(picture.shape[-2:])
    features = encoder(resize(picture, [round(side * factor) for side in picture.shape[-2:]]))
    return {layer: style_statistics(encoder, features, layer) for layer in look.style_layers}


# ---------------------------------------------------------------------------------------------- solvers


def ours(objective: Objective, start: Tensor, evaluations: int, **options: Any) -> list[float]:
    """A solver of nst_video."""
    found = minimise(objective, start, evaluations=evaluations, history=HISTORY, **options)
    return [float(loss) for loss in found.record["loss"].mean(1)]


def torchs(objective: Objective, start: Tensor, evaluations: int, line_search: str | None) -> list[float]:
    """torch.optim.LBFGS with lr 1, stopped by nothing but the number of evaluations."""
    image, seen = start.clone().requires_grad_(True), []
    solver = torch.optim.LBFGS(
        [image],
        lr=1.0,
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=HISTORY,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn=line_search,
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = objective(image)[0].sum()
        loss.backward()
        seen.append(loss.item())
        return loss

    solver.step(closure)
    return seen


SOLVERS: Mapping[str, Solver] = {
    "ours": ours,
    "torch": partial(torchs, line_search=None),
    "torch, strong Wolfe": partial(torchs, line_search="strong_wolfe"),
    **{f"Adam {rate:g}": partial(ours, optimizer="adam", first_step=rate) for rate in ADAM_RATES},
}


def lowest(before: float, loss: float) -> float:
    """The lower of the two; a loss that is not a number does not count."""
    return loss if loss < before else before


# ---------------------------------------------------------------------------------------------- overhead


class TimedLBFGS(LBFGS):
    """Notes how long each evaluation of the loss and its gradient takes."""

    def _evaluate(self, flat: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        began = perf_counter()
        found = super()._evaluate(flat)
        self.evaluation_seconds = perf_counter() - began
        return found


@dataclass(frozen=True)
class Overhead:
    """Medians over the iterations of one problem."""

    evaluation_ms: float
    beside_ms: float
    share: float


def overhead_of(problem: Problem, iterations: int) -> Overhead:
    """What an iteration takes beside its evaluation, each pair measured in one iteration."""
    solver = TimedLBFGS(problem.objective, problem.frame, first_step=0.05, curvature=None, history=HISTORY)
    inside, beside = [], []
    for _ in range(iterations):
        began = perf_counter()
        solver.iterate()
        inside.append(solver.evaluation_seconds)
        beside.append(perf_counter() - began - solver.evaluation_seconds)
    inside, beside = inside[WARM_UP:], beside[WARM_UP:]
    shares = [extra / network for extra, network in zip(beside, inside, strict=True)]
    return Overhead(1000 * median(inside), 1000 * median(beside), median(shares))


# ---------------------------------------------------------------------------------------------- report


def report(
    folder: Path, names: Sequence[str], traces: Mapping[str, list[list[float]]], overhead: list[Overhead]
) -> None:
    """Write the files and print the tables."""
    timing = {key: median(getattr(one, key) for one in overhead) for key in vars(overhead[0])}
    record = {"problems": names, "lowest_loss": traces, "overhead": timing}
    (folder / "losses.json").write_text(json.dumps(record), encoding="utf-8")
    means = {name: [fmean(column) for column in zip(*found, strict=True)] for name, found in traces.items()}
    plot_trace(means, folder / "losses.png", title="lowest loss so far, mean over frames and styles")
    text = (
        f"{losses_table(names, traces)}\n\n"
        f"L-BFGS, {torch.get_num_threads()} threads: loss and gradient {timing['evaluation_ms']:.1f} ms, everything "
        f"else {timing['beside_ms']:.2f} ms an iteration: {100 * timing['share']:.2f} %\n"
    )
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)


def losses_table(names: Sequence[str], traces: Mapping[str, list[list[float]]]) -> str:
    """Markdown: the lowest loss of each solver on each problem, and the mean."""
    rows = [["", *traces], ["---", *("---:" for _ in traces)]]
    for number, name in enumerate(names):
        rows.append([name, *(f"{found[number][-1]:.4f}" for found in traces.values())])
    rows.append(["mean", *(f"{fmean(trace[-1] for trace in found):.4f}" for found in traces.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
