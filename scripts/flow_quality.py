"""How good the flow on a GPU is beside OpenCV's: how much of a frame can be trusted, and how well it explains that.

    python scripts/flow_quality.py [CLIP ...] [--flows fast medium gpu] [--size 256] [--distances 1 4] [--pairs 2]

For pairs of frames so many frames apart: the mean trust, the squared difference (times 1e4, of values in [0, 1]) of the
frame and the other one moved along the flow where that is trusted and everywhere; on a GPU also milliseconds of one
flow both ways. Without a GPU Triton's interpreter finds the same numbers, in minutes.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

from nst_video import colors
from nst_video.flow import motion
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import scaled_size

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=[SAMPLES / "bunny.mp4"])
    parser.add_argument("--flows", nargs="+", default=["fast", "medium", "gpu"])
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--distances", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--pairs", type=int, default=2, help="of each clip and distance, ten frames apart")
    arguments = parser.parse_args()
    if DEVICE == "cpu":
        interpreted()
    given = [pair for clip in arguments.clips for pair in pairs(clip, arguments)]
    timed = DEVICE == "cuda"
    titles = ["flow", "trust", "difference where trusted", "everywhere", *["ms"] * timed]
    lines = [f"{len(given)} pairs, {DEVICE}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for flow in arguments.flows:
        trust, trusted, everywhere, seconds = zip(*(judged(*pair, flow) for pair in given), strict=True)
        cells = [f"{fmean(trust):.4f}", f"{1e4 * fmean(trusted):.3f}", f"{1e4 * fmean(everywhere):.2f}"]
        cells += [f"{1e3 * median(seconds):.2f}"] * timed
        lines.append(f"| {flow} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


def interpreted() -> None:
    """Let the flow on a GPU be found without one, by few programs, because they run one after the other."""
    from nst_video.flow import flow_triton

    vars(motion)["kernels"] = lambda name, device: flow_triton
    vars(flow_triton).update(_BLOCK=4096, _PATCHES=1024)


def pairs(clip: Path, arguments: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of a clip, each with one before it."""
    last = max(arguments.distances) + 10 * arguments.pairs
    with VideoReader(clip, size=scaled_size(probe(clip), arguments.size)) as reader:
        frames = list(islice((rgb for batch in reader for rgb in batch.rgb), last + 1))
    for distance in arguments.distances:
        for number in range(distance + 9, min(distance + 10 * arguments.pairs, len(frames)), 10):
            yield frames[number], frames[number - distance]


def judged(current: np.ndarray, reference: np.ndarray, preset: str) -> tuple[float, float, float, float]:
    """Trust, differences, and seconds of the flow with its trust."""
    seconds = []
    for _ in range(1 if DEVICE == "cpu" else 5):
        begun = time.perf_counter()
        found = motion.flows_between(current, [reference], preset).motion(DEVICE)
        trust = float(found.trust.mean())  # waits for the device
        seconds.append(time.perf_counter() - begun)
    one, other = (colors.to_image(rgb[None], DEVICE) for rgb in (current, reference))
    gap = (one - motion.warp(other, found.flows[0])).square().mean(1)
    held = found.trust[0, :, 0]
    return trust, float((gap * held).sum() / held.sum()), float(gap.mean()), median(seconds)


if __name__ == "__main__":
    main()
