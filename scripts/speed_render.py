"""A whole render against painting its frames each on its own by the plain way: `bench_speed.py --render`."""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_quality import end_of, report_progress
from plain_gatys import PlainGatys, PlainSolver

from nst_video import EffortOptions, LookOptions, MachineOptions, OutputOptions, make_plan, render_plan
from nst_video.colors import to_image, to_rgb
from nst_video.media.pictures import read_picture
from nst_video.networks.encoders import load_encoder
from nst_video.painting.scales import resize
from nst_video.score import score_video

HISTORY = 100  # the default of torch.optim.LBFGS, which most tools leave as it is


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


class Alone:
    """Paints frames each on its own by the plain way, and notes what they take."""

    def __init__(self, style: Path, evaluations: int, size: tuple[int, int], device: str):
        look = LookOptions()
        self.network = load_encoder("vgg19", (*look.style_layers, *look.content_layers), device=device)
        picture = to_image(read_picture(style)[None], device)
        factor = max(size) / max(picture.shape[-2:])
        self.style = resize(picture, [round(side * factor) for side in picture.shape[-2:]])
        self.evaluations, self.device, self.taken = evaluations, device, []

    def __call__(self, frame: int, rgb: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> the same painted."""
        begun = time.perf_counter(), time.process_time()
        solver = PlainSolver(PlainGatys(self.network, to_image(rgb[None], self.device), self.style), HISTORY)
        solver.run(self.evaluations)
        painted = to_rgb(solver.image.detach())[0]
        self.taken.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        say(f"  frame {frame} on its own: {self.taken[-1][0]:.0f} s, {solver.evaluations} evaluations")
        return painted


def painted_alone(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """A `standard` render, and two of its frames painted on their own; the figures and a table."""
    device, output = arguments.devices[0], str(arguments.folder / "frames" / "%05d.png")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    end = end_of(arguments.clip, arguments.frames) if arguments.frames else None
    plan = make_plan(
        *(arguments.clip, arguments.style, output),
        effort=EffortOptions(quality="standard", size=arguments.size),
        options=OutputOptions(overwrite=True, end=end),
        machine=MachineOptions(device=device, threads=arguments.threads),
    )
    say(f"a render of {plan.frames} frames of {plan.size[0]}x{plan.size[1]} in {plan.machine.precision}")
    begun = time.perf_counter(), time.process_time()
    render_plan(plan, progress=report_progress)
    ours = time.perf_counter() - begun[0], time.process_time() - begun[1]
    alone = Alone(arguments.style, arguments.alone, plan.size, device)
    settings = {"device": device, "threads": arguments.threads, "end": end}
    score = score_video(arguments.clip, output, arguments.style, reference=1, paint=alone, **settings)
    assert score.reference is not None
    found = {
        "frames": plan.frames,
        "size": plan.size,
        "precision": plan.machine.precision,
        "threads": torch.get_num_threads(),
        "seconds": ours,
        "seconds_of_a_frame_alone": [median(values) for values in zip(*alone.taken, strict=True)],
        "evaluations_alone": arguments.alone,
        "e_warp": (score.reference.e_warp_ours, score.reference.e_warp_independent),
        "style": (score.reference.style_ours, score.reference.style_independent),
        "e_warp_all": score.e_warp,
        "style_all": score.style,
    }
    found["times_faster"] = [
        plan.frames * frame / whole for frame, whole in zip(found["seconds_of_a_frame_alone"], ours, strict=True)
    ]
    return found, render_table(found)


def render_table(found: dict[str, Any]) -> str:
    """Markdown."""
    wall, processor = found["seconds"]
    alone_wall, alone_processor = found["seconds_of_a_frame_alone"]
    frames, (width, height) = found["frames"], found["size"]
    alone = f"each on its own, {found['evaluations_alone']} evaluations, fp32: from 2 frames"
    rows = [
        (f"{frames} frames of {width}×{height}", f"`standard`, {found['precision']}", alone, "ratio"),
        ("---",) * 4,
        ("wall time", f"{wall:.0f} s", f"{frames * alone_wall:.0f} s", f"{found['times_faster'][0]:.0f}"),
        (
            "processor time",
            f"{processor:.0f} s",
            f"{frames * alone_processor:.0f} s",
            f"{found['times_faster'][1]:.0f}",
        ),
        *(
            (f"{name} of the 2 frames", f"{ours:.3g}", f"{theirs:.3g}", f"{theirs / ours:.2f}")
            for name, (ours, theirs) in (("E_warp", found["e_warp"]), ("style distance", found["style"]))
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
