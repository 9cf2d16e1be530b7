"""How many frames a second can be made ready for painting: decoded, with their motion, on the device; nothing is
painted.

    python scripts/bench_feed.py [--clip CLIP] [--size 512] [--frames 60] [--workers 1 2 ...] [--flow medium]
                                 [--device auto] [--json]

By the number of frames whose motion is looked for at once; the last figure is decoding alone.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from nst_video.devices.machine import device_name
from nst_video.devices.workers import workers_for
from nst_video.media.video import VideoReader
from nst_video.options import CoherenceOptions, EffortOptions, MachineOptions
from nst_video.painting.painted import Standing
from nst_video.painting.upcoming import Feed
from nst_video.plan import Plan
from nst_video.planning import make_plan

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def main() -> None:
    """Print the rates, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4")
    parser.add_argument("--size", type=int, default=512, help="long side in pixels")
    parser.add_argument("--square", action="store_true", help="as many pixels high as wide")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--workers", type=int, nargs="*", help="how many at once; the default: 1, 2, 4 ... and ours")
    parser.add_argument("--flow", choices=("ultrafast", "fast", "mixed", "medium"), default="medium")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plan = planned(arguments)
    ours = workers_for(plan.machine.threads or 1, plan.machine.device, plan.size)
    counts = arguments.workers or sorted({1, 2, ours, *(n for n in (4, 8, 16) if n < (os.cpu_count() or 1))})
    rates = {count: rate(plan, arguments.frames, count) for count in counts}
    decoding = decode_rate(plan, arguments.frames)
    facts = {
        "device": device_name(plan.machine.device),
        "cores": os.cpu_count(),
        "size": plan.size,
        "flow": arguments.flow,
        "our choice": ours,
        "frames a second, by workers": rates,
        "decoding alone": decoding,
    }
    if arguments.json:
        print(json.dumps(facts))
        return
    print(f"{facts['device']}, {facts['cores']} cores, {plan.size[0]}x{plan.size[1]}, flow {arguments.flow}")
    for count, found in rates.items():
        print(f"{count:3} at once: {found:6.1f} frames/s{' (our choice)' if count == ours else ''}")
    print(f"decoding alone: {decoding:6.1f} frames/s")


def planned(arguments: argparse.Namespace) -> Plan:
    """A render of the clip; nothing of it is painted."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(
            arguments.clip,
            SAMPLES / "oil.jpg",
            Path(folder, "out.mp4"),
            effort=EffortOptions(size=arguments.size),
            coherence=CoherenceOptions(flow=arguments.flow),
            machine=MachineOptions(device=arguments.device),
        )
    return replace(plan, size=(arguments.size, arguments.size)) if arguments.square else plan


def rate(plan: Plan, most: int, workers: int) -> float:
    """Frames a second that are made ready, after those that fill the pipe."""
    with Feed(plan, workers=workers) as feed, feed.frames(0, Standing()) as frames:
        for _, frame in zip(range(6), frames, strict=False):
            frame.take()
        begun, count = time.perf_counter(), 0
        for frame in frames:
            motion = frame.take().motion
            count += 1
            if count == most:
                break
        float(motion.trust.sum())  # waits for the device
        return count / (time.perf_counter() - begun)


def decode_rate(plan: Plan, most: int) -> float:
    """Frames a second that are decoded and scaled, from the first on."""
    begun, count = time.perf_counter(), 0
    with VideoReader(plan.input, size=plan.size) as reader:
        for batch in reader:
            count += len(batch.pts)
            if count >= most:
                break
    return count / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
