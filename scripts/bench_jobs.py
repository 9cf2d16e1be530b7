"""What it costs that a render can be stopped and gone on with: paired runs of the same plan with and without a job.

    python scripts/bench_jobs.py [CLIP] [--quality draft] [--frames 40] [--pairs 3] [--first-iterations N] [--threads N]

Each run is a process of its own; every pair takes both kinds, in turn first the one and first the other. The time is
from the first frame to the finished and verified output; the processor's time of all threads is given beside it,
because it hardly depends on what else the machine does. With --handed-through nothing is painted, and the state that
checkpoints hold has its real size: what is left is what a job costs, without the noise of the painting.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

SAMPLES = Path(__file__).parent.parent / "samples"


class HandedThrough:
    """Hands every frame back, with a state as large as that of the real stylizer."""

    def __init__(self, plan: Any) -> None:
        from nst_video.optimization.curvature import Curvature
        from nst_video.painting.state import State

        width, height = plan.size
        self.state = State(
            outputs=torch.rand(1, max(plan.coherence.references), 3, height, width),
            content=torch.rand(1, 3, height, width),
            curvature=Curvature.empty(1, 3 * height * width, plan.effort.history),
        )

    def initial_state(self, seed: int | None = None) -> Any:
        """The same for every shot."""
        return self.state

    def step(self, image: Any, motion: Any, state: Any, controls: Any) -> tuple[Any, Any]:
        """The frame as it is."""
        return image, state


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One run in this process: seconds by the clock and of the processor, and the frames."""
    from nst_video.jobs.resume import open_job
    from nst_video.media.survey import probe_input
    from nst_video.options import EffortOptions, MachineOptions, OutputOptions
    from nst_video.planning import make_plan
    from nst_video.render import render_job, render_plan
    from nst_video.stylizers import make_stylizer

    rate = probe_input(args.clip, OutputOptions()).average_rate
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out.mp4")
        settings = {
            "effort": EffortOptions(quality=args.quality, first_iterations=args.first_iterations),
            "options": OutputOptions(end=Fraction(args.frames) / rate),
            "machine": MachineOptions(threads=args.threads),
        }
        plan = make_plan(args.clip, args.style, output, **settings)
        stylizer = HandedThrough(plan) if args.handed_through else make_stylizer(plan)
        begun, processor = time.perf_counter(), time.process_time()
        if args.run == "job":
            with open_job(args.clip, args.style, output, **settings) as job:
                result = render_job(job, stylizer)
        else:
            result = render_plan(make_plan(args.clip, args.style, output, **settings), stylizer)
        return {
            "seconds": time.perf_counter() - begun,
            "processor": time.process_time() - processor,
            "frames": result.frames,
        }


def main() -> None:
    """Run the pairs and report the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", default=str(SAMPLES / "bunny.mp4"))
    parser.add_argument("--style", default=str(SAMPLES / "oil.jpg"))
    parser.add_argument("--quality", default="draft")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--first-iterations", type=int, help="fewer make it shorter and the job's share larger")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--handed-through", action="store_true", help="without painting")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", choices=("job", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(measure(args)))
        return
    pairs = [_pair(number) for number in range(args.pairs)]
    report = {
        name: statistics.fmean(100 * (pair["job"][name] / pair["plain"][name] - 1) for pair in pairs)
        for name in ("seconds", "processor")
    }
    if args.json:
        print(json.dumps({"percent": report, "pairs": pairs}))
    else:
        each = ", ".join(f"{100 * (pair['job']['processor'] / pair['plain']['processor'] - 1):+.1f}" for pair in pairs)
        print(
            f"a job costs {report['processor']:+.1f} % of the processor's time ({each}) and {report['seconds']:+.1f} % "
            f"by the clock, over {len(pairs)} pairs of {pairs[0]['job']['frames']:.0f} frames: {_added(pairs):.1f} ms "
            "of the processor's time a frame"
        )


def _added(pairs: list[dict[str, dict[str, float]]]) -> float:
    """Milliseconds of the processor a frame that a job adds, mean over the pairs."""
    return statistics.fmean(
        1000 * (pair["job"]["processor"] - pair["plain"]["processor"]) / pair["job"]["frames"] for pair in pairs
    )


def _pair(number: int) -> dict[str, dict[str, float]]:
    order = ("job", "plain") if number % 2 else ("plain", "job")
    found = {}
    for kind in order:
        command = [sys.executable, __file__, *sys.argv[1:], "--run", kind]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[kind] = json.loads(done.stdout)
        print(f"pair {number + 1}, {kind}: {found[kind]}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
