"""How many lanes a render has: as many as were asked for, or as measured, and no more than memory has room for."""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from nst_video.curves import controls_at
from nst_video.devices.memory import available_memory
from nst_video.errors import is_out_of_memory
from nst_video.optimization.budget import Need
from nst_video.painting import lanes as ranges
from nst_video.plan import Plan
from nst_video.stylizers import FrameStylizer, make_stylizer

log = logging.getLogger(__name__)

TRIED = (1, 2, 4, 8)  # lanes
_ENOUGH = 0.9  # of the best throughput: fewer lanes have fewer beginnings and seams


def with_lanes(plan: Plan) -> Plan:
    """The plan with its lanes: its frames in ranges, and how many of these are one batch."""
    asked, longest = plan.machine.lanes, len(ranges.lanes_of(plan.shots, max(TRIED)))
    # A dream's frame needs the one before, and the frames of a picture that lasts are all the same.
    if plan.dream is not None or plan.options.duration is not None:
        asked = 1
    elif asked == "auto":
        # On a CPU one lane fills all cores; see EXPERIMENTS.md.
        asked = measured_lanes(plan, longest) if plan.machine.device.startswith("cuda") and longest > 1 else 1
    count = len(ranges.lanes_of(plan.shots, int(asked)))
    lanes, together = room(plan, count)
    if plan.machine.lanes not in ("auto", lanes):
        why = (
            "memory has no room for more" if lanes < count else f"each has {ranges.SHORTEST} frames of a video or more"
        )
        log.warning("painted in %s of %s lanes: %s", lanes, plan.machine.lanes, why)
    return replace(
        plan,
        machine=replace(plan.machine, lanes=lanes),
        lanes=ranges.lanes_of(plan.shots, lanes) if lanes > 1 else (),
        together=together if together < lanes else None,
    )


def room(plan: Plan, lanes: int) -> tuple[int, int]:
    """At most so many lanes that memory has room for; and how many of them as one batch."""
    effort, machine = plan.effort, plan.machine
    need = Need.of(plan.size, effort, plan.look, machine, flow=plan.coherence.flow)
    available = available_memory(machine.device, machine.memory_limit)
    if lanes == 1 or need is None or available is None:
        return lanes, lanes
    pairs = effort.history if effort.optimizer == "lbfgs" else 0
    choices = ((count, together) for count in range(lanes, 1, -1) for together in range(count, 0, -1))
    fitting = (
        choice
        for choice in choices
        if need.fits(available, history=pairs, tile=effort.tile, lanes=choice[0], together=choice[1])
    )
    return next(fitting, (1, 1))


def measured_lanes(plan: Plan, most: int) -> int:
    """The fewest lanes, at most so many, with which frames are painted about as fast as with any number."""
    from nst_video.devices.machine import computing

    taken: dict[int, float] = {}
    with computing(plan.machine):
        stylizer = make_stylizer(plan)
        for lanes in (lanes for lanes in TRIED if lanes <= most and room(plan, lanes) == (lanes, lanes)):
            try:
                taken[lanes] = seconds_a_step(stylizer, plan, lanes)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or not taken:
                    raise
                break
    chosen = fewest_of(taken)
    shown = ", ".join(f"{lanes}: {lanes / seconds:.1f}" for lanes, seconds in taken.items())
    log.info("%s lanes: frames a second by lanes %s", chosen, shown)
    return chosen


def fewest_of(seconds: Mapping[int, float]) -> int:
    """Lanes -> seconds of a step of so many; the fewest with which nearly as many frames are done as with the best.

    >>> fewest_of({1: 0.010, 2: 0.012, 4: 0.020, 8: 0.039})
    4
    """
    frames = {lanes: lanes / taken for lanes, taken in seconds.items()}
    return min(lanes for lanes, rate in frames.items() if rate >= _ENOUGH * max(frames.values()))


# Of a teacher that looks at a painting and its frame, then, when something is known, at a painting, and at both again.
_FIRST_STEPS = 5


def seconds_a_step(stylizer: FrameStylizer, plan: Plan, lanes: int, steps: int = 4) -> float:
    """How long a step takes that paints a later frame of so many lanes, of pictures that are noise: mean of some, after
    those that make ready whatever has to be, such as graphs.
    """
    import torch

    from nst_video.flow.motion import Motion
    from nst_video.painting.state import State

    (width, height), device, references = plan.size, plan.machine.device, plan.coherence.references
    noise = torch.rand((lanes, 3, height, width), generator=torch.Generator().manual_seed(0)).to(device)
    flows = torch.zeros((lanes, len(references), 2, height, width), device=device)
    motion = Motion(flows, torch.full_like(flows[:, :, :1], 1 / len(references)))
    outputs = noise[:, None].expand(-1, max(references), -1, -1, -1).contiguous()
    state = State(frame=max(references), outputs=outputs, content=noise)
    controls, begun = controls_at(plan.curves, 0), 0.0
    for number in range(_FIRST_STEPS + steps):
        begun = begun if number > _FIRST_STEPS else time.perf_counter()
        painted, state = stylizer.step(noise, motion, state, controls)
        painted[:, 0, 0, 0].tolist()  # waits for the device
    return (time.perf_counter() - begun) / steps
