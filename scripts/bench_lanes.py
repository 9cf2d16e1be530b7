"""Lanes: how fast a render is with 1, 2, 4, 8 of them, what the seams are like, and whether it is as good as with one.

    python scripts/bench_lanes.py [--clip CLIP] [--style PICTURE] [--lanes 1 2 4 8] [--frames 0] [--size 512]
                                  [--quality standard] [--encoder NAME] [--iterations N] [--device auto] [--score]
                                  [--json FILE]

A joint is where one lane of a shot ends and the next begins: the drift there stands beside the median elsewhere.
`--frames` makes the clip as long as that by playing it forwards and backwards. `--score` measures style and content of
all frames by VGG-19, which takes its time.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nst_video.devices.machine import device_name, resolve_machine
from nst_video.jobs.resume import open_job
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader, VideoWriter
from nst_video.options import MachineOptions
from nst_video.painting import lanes
from nst_video.painting.lanecount import TRIED, seconds_a_step
from nst_video.painting.painted import FrameReport
from nst_video.planning import make_plan
from nst_video.render import render_job
from nst_video.score import score_video
from nst_video.settings import split_options
from nst_video.stylizers import make_stylizer

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
LOSSES = ("style", "content", "loss")


def main() -> None:
    """Measure, print a table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4")
    parser.add_argument("--style", type=Path, default=SAMPLES / "oil.jpg")
    parser.add_argument(
        "--lanes", type=int, nargs="+", default=list(TRIED), help="0: as many as are measured to be best"
    )
    parser.add_argument("--frames", type=int, default=0, help="play the clip to and fro until it is so long")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--encoder")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--flow", default="medium")
    parser.add_argument("--teacher", default="on")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--warm-up", type=int, default=lanes.WARM_UP)
    parser.add_argument("--blend", type=int, default=lanes.BLEND)
    parser.add_argument("--score", action="store_true")
    parser.add_argument("--steps-only", action="store_true", help="only time steps of the stylizer by lanes")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    arguments = parser.parse_args()
    lanes.WARM_UP, lanes.BLEND, lanes.SHORTEST = arguments.warm_up, arguments.blend, 32
    with tempfile.TemporaryDirectory() as folder:
        clip = lengthened(arguments.clip, arguments.frames, Path(folder)) if arguments.frames else arguments.clip
        facts = {"device": device_name(resolve_machine(MachineOptions(device=arguments.device)).device)}
        facts["frames a second of steps, by lanes"] = stepping(arguments, clip, folder)
        print(facts)
        if not arguments.steps_only:
            facts["renders"] = [rendering(arguments, clip, count, folder) for count in arguments.lanes]
            show(facts["renders"])
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def options_of(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """Those of the render, by their names."""
    names = ("quality", "size", "encoder", "iterations", "flow", "device", "threads", "teacher")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return given | {"lanes": count or "auto", "cut_threshold": 0.0}


def lengthened(clip: Path, frames: int, folder: Path) -> Path:
    """The clip forwards, backwards, forwards ... without its sound."""
    info, target = probe(clip), folder / "clip.mp4"
    with VideoReader(clip) as reader:
        pictures = [rgb for batch in reader for rgb in batch.rgb]
    to_and_fro: Iterator[np.ndarray] = cycle(chain(pictures, pictures[-2:0:-1]))
    step = round(1 / (info.average_rate * info.time_base)) if info.average_rate else 512
    with VideoWriter(target, info=info, size=(info.width, info.height), crf=12, preset="veryfast") as writer:
        for number, rgb in enumerate(islice(to_and_fro, frames)):
            writer.write(rgb, info.start_pts + number * step)
    return target


def stepping(arguments: argparse.Namespace, clip: Path, folder: str) -> dict[int, float]:
    """Frames a second of the stylizer alone, as `--lanes auto` measures them."""
    settings = split_options(options_of(arguments, 1))
    plan = make_plan(clip, arguments.style, Path(folder, "steps.mp4"), **vars(settings))
    stylizer = make_stylizer(plan)
    return {count: count / seconds_a_step(stylizer, plan, count) for count in arguments.lanes if count}


def rendering(arguments: argparse.Namespace, clip: Path, count: int, folder: str) -> dict[str, Any]:
    """The figures of one render."""
    output, moments = Path(folder, f"out{count}.mp4"), []
    settings = split_options(options_of(arguments, count))
    begun = time.perf_counter()
    with open_job(clip, arguments.style, output, **vars(settings)) as job:
        result = render_job(job, progress=lambda progress: moments.append((time.perf_counter(), progress.done)))
    seconds = time.perf_counter() - begun
    # Without what comes before the first frames of all lanes, and what comes after the last.
    early = next(number for number, (_, done) in enumerate(moments) if done >= max(0.2 * result.frames, 2 * count))
    late = min(len(moments) - 1, round(0.9 * len(moments)))
    steady = (moments[late][1] - moments[early][1]) / (moments[late][0] - moments[early][0])
    found = {
        "lanes": len(job.plan.ranges),
        "frames": result.frames,
        "seconds": seconds,
        "frames a second": result.frames / seconds,
        "frames a second, steady": steady,
        **{name: result.losses[name] for name in LOSSES},
        **seams(result.rows),
    }
    if arguments.score:
        score = score_video(clip, output, arguments.style)
        found |= {"scored style": score.style, "scored content": score.content, "scored E_warp": score.e_warp}
    print(found, file=sys.stderr, flush=True)
    return found


def seams(rows: tuple[FrameReport, ...]) -> dict[str, Any]:
    """The drift at the joints, the largest among the frames that are drawn towards one, and elsewhere."""
    joints = [(row.frame, row.joint) for row in rows if row.joint is not None]
    near = {number for frame, _ in joints for number in range(frame - lanes.BLEND + 1, frame + 2)}
    drawn = [row.drift for row in rows if row.frame in near and row.drift is not None]
    elsewhere = [row.drift for row in rows if row.frame not in near and row.drift is not None]
    return {
        "drift, median elsewhere": median(elsewhere),
        "drift at the joints": [joint for _, joint in joints],
        "drift before the joints, largest": max(drawn, default=None),
    }


def show(renders: list[dict[str, Any]]) -> None:
    """A table; style and content in % of those of the first render."""
    first = renders[0]
    for one in renders:
        joints = ", ".join(f"{joint:.1e}" for joint in one["drift at the joints"]) or "none"
        scored = "scored style" in one
        shares = [f"{name} {100 * one[name] / first[name] - 100:+.1f} %" for name in ("style", "content")]
        if scored:
            names = ("scored style", "scored content")
            shares += [f"{name} {100 * one[name] / first[name] - 100:+.1f} %" for name in names]
        rates = f"{one['frames a second']:.1f} frames/s (steady {one['frames a second, steady']:.1f})"
        coherence = f"drift {one['drift, median elsewhere']:.1e}, at the joints {joints}"
        print(f"{one['lanes']} lanes: {rates}, {', '.join(shares)}; {coherence}")


if __name__ == "__main__":
    sys.exit(main())
