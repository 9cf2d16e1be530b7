"""How long it takes until help is there, and until the first frame of a render is.

    python scripts/bench_startup.py [--rounds 3] [--clip CLIP] [--style STYLE] [--quality draft] [--threads 2]

Times are from the start of the process: by the clock, and of the processor with the child that looks at the files. On a
busy machine the latter says more. The stages are of the quickest round; what is imported counts where it is imported.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
# What is timed: the name of the stage, module and function. A stage that another one calls is in both. Those after
# make_stylizer are in modules that import torch, so they are looked up when that is called.
MAKER = ("loading networks and pictures", "nst_video.render", "make_stylizer")
PLANNING = (
    ("planning, imports of torch included", "nst_video.jobs.resume", "make_plan"),
    ("of that: looking at the files and the cuts", "nst_video.media.guarded", "Look.finish"),
    ("of that: device and precision, which imports torch", "nst_video.planning", "_settle_machine"),
)
PAINTING = (
    ("of that: loading a network, each", "nst_video.networks.encoders", "load_encoder"),
    ("painting the first frame", "nst_video.painting.stylizer", "Stylizer.step"),
    ("of that: looks of the teacher", "nst_video.painting.teacher", "Teacher.look"),
)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    arguments = parse_arguments()
    helps = [run([sys.executable, "-m", "nst_video", "--help"]) for _ in range(arguments.rounds)]
    print(
        f"--help: {min(wall for wall, _, _ in helps):.2f} s, {min(used for _, used, _ in helps):.2f} s of the processor"
    )
    with tempfile.TemporaryDirectory() as folder:
        renders = [first_frame(arguments, Path(folder) / f"{number}.mp4") for number in range(arguments.rounds)]
    walls, processors = [wall for wall, _, _ in renders], [used for _, used, _ in renders]
    print(f"first frame: {min(walls):.2f} s (the slowest {max(walls):.2f}), {min(processors):.2f} s of the processor")
    stages = json.loads(min(renders)[2])
    for name, (wall, used) in stages.items():
        print(f"  {name}: {wall:.2f} s, {used:.2f} s of the processor")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4")
    parser.add_argument("--style", type=Path, default=SAMPLES / "oil.jpg")
    parser.add_argument("--quality", default="draft")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def first_frame(arguments: argparse.Namespace, output: Path) -> tuple[float, float, str]:
    """Seconds until the first frame of a render, of the processor, and the stages as JSON."""
    threads = ["--threads", str(arguments.threads)] if arguments.threads else []
    words = [str(arguments.clip), str(arguments.style), str(output), "--quality", arguments.quality, *threads]
    return run([sys.executable, __file__, "--child", *words])


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds by the clock, of the processor with all children, and what it printed."""
    before, begun = os.times(), time.perf_counter()
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    wall, after = time.perf_counter() - begun, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, used, printed


def child(words: list[str]) -> None:
    """Run the command line until the first frame is done, then tell how long the stages took."""
    # As the command line does first of all: what is watched imports torch.
    import_module("nst_video.devices.process").settle()
    taken: dict[str, tuple[float, float]] = {}
    for stage in PLANNING:
        watch(*stage, taken)
    render: Any = import_module("nst_video.render")
    make = render.make_stylizer

    def make_watched(plan: Any) -> Any:
        for stage in PAINTING:
            watch(*stage, taken)
        return make(plan)

    def end(*_: object, **__: object) -> None:
        print(json.dumps(taken), flush=True)
        os._exit(0)

    render.make_stylizer, render._progress = make_watched, end
    watch(*MAKER, taken)
    import_module("nst_video.cli").main(words)


def watch(name: str, module: str, function: str, taken: dict[str, tuple[float, float]]) -> None:
    """Note under `name` what calls of a function take, added up."""
    *owners, last = function.split(".")
    owner: Any = import_module(module)
    for step in owners:
        owner = getattr(owner, step)
    original: Callable[..., Any] = getattr(owner, last)

    @wraps(original)
    def timed(*args: Any, **options: Any) -> Any:
        begun = time.perf_counter(), time.process_time()
        try:
            return original(*args, **options)
        finally:
            before = taken.get(name, (0.0, 0.0))
            taken[name] = before[0] + time.perf_counter() - begun[0], before[1] + time.process_time() - begun[1]

    setattr(owner, last, timed)


if __name__ == "__main__":
    main()
