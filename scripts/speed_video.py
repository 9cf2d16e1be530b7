"""How many frames a second a whole video takes, and which part of the work is the slowest: `bench_speed.py --video`."""

import argparse
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np

from nst_video import EffortOptions, MachineOptions, OutputOptions, make_plan, render_plan
from nst_video.controls import Controls
from nst_video.flow.motion import Motion
from nst_video.painting.state import State
from nst_video.plan import Plan

SIDE = 512
FIRST = 8  # frames that are left out: the first one, and those with fewer references than the others
EVALUATIONS = 10


def square_clip(path: Path, source: Path, frames: int) -> None:
    """A video of 512x512 pixels, H.264: `source`, as often as it takes, forwards and backwards."""
    with av.open(str(source)) as container:
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    cycle = [*read, *read[-2:0:-1]]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(25), options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(frames):
            picture = cv2.resize(_middle(cycle[number % len(cycle)]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _middle(rgb: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a picture."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


class Nothing:
    """Hands every frame back as it is: all of a render but painting."""

    def initial_state(self, seed: int | None = None) -> State:
        """Empty."""
        return State()

    def step(self, image: Any, motion: Motion, state: State, controls: Controls) -> tuple[Any, State]:
        """The frame."""
        return image, state


def videos(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Rows for JSON, and a table."""
    clip = arguments.folder / "square.mp4"
    square_clip(clip, arguments.clip, arguments.frames or 240)
    rows = []
    for device in arguments.devices:
        for encoder in arguments.encoders:
            print(f"a video with {encoder} on {device}", file=sys.stderr, flush=True)
            plan = _plan(arguments, clip, encoder, device)
            painted = _rendered(plan, None)
            row = {"device": device, "encoder": encoder, "precision": plan.machine.precision, "frames": plan.frames}
            row |= {"evaluations": EVALUATIONS, "size": f"{SIDE}x{SIDE}", "threads": plan.machine.threads}
            rows.append(row | painted | {"all_but_painting": _rendered(plan, Nothing())["seconds"]})
    return rows, table_of(rows)


def _plan(arguments: argparse.Namespace, clip: Path, encoder: str, device: str) -> Plan:
    effort = EffortOptions(size=SIDE, encoder=encoder, first_iterations=100, iterations=EVALUATIONS)
    return make_plan(
        *(clip, arguments.style, str(arguments.folder / f"{encoder}.mp4")),
        effort=effort,
        options=OutputOptions(overwrite=True),
        machine=MachineOptions(device=device, threads=arguments.threads),
    )


def _rendered(plan: Plan, stylizer: Any) -> dict[str, float]:
    """Seconds of a frame when everything goes on at once, and of painting one, of a render."""
    stamps: list[float] = []
    begun = time.perf_counter()
    result = render_plan(plan, stylizer, progress=lambda _: stamps.append(time.perf_counter()))
    ended = time.perf_counter()
    frames = len(stamps) - FIRST
    return {
        "seconds": (ended - stamps[FIRST - 1]) / frames,  # until the file is there
        "painting": median(row.took for row in result.rows[FIRST:]),
        "first_frame": stamps[0] - begun,
    }


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    titles = (
        "device",
        "network",
        "precision",
        "frames/s",
        "of painting alone",
        "of all but painting",
        "bound by",
        "first frame",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        parts = {"painting": row["painting"], "motion and codecs": row["all_but_painting"]}
        cells = (
            *(row["device"], row["encoder"], row["precision"]),
            *(f"{1 / seconds:.1f}" for seconds in (row["seconds"], *parts.values())),
            max(parts, key=lambda name: parts[name]),
            f"{row['first_frame']:.1f} s",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
