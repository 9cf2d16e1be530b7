"""Running out of memory in the middle of a render: the frame is done again with less, and the render goes on."""

import gc
import logging
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nst_video.errors import is_out_of_memory
from nst_video.optimization.budget import FEW_PAIRS
from nst_video.optimization.tiles import ALIGNED, MINIMAL_TILE, can_be_cut
from nst_video.plan import Plan
from nst_video.stylizers import FrameStylizer

if TYPE_CHECKING:
    from torch import Tensor

    from nst_video.controls import Controls
    from nst_video.flow.motion import Motion
    from nst_video.painting.state import State

log = logging.getLogger(__name__)


def smaller(plan: Plan, lanes: int = 1) -> Plan | None:
    """The plan with half as many lanes as one batch where there were several, else with few curvature pairs, else with
    its pictures in parts of half the side; None where they are as small as they may be.
    """
    if lanes > 1:
        return replace(plan, together=(lanes + 1) // 2)
    if plan.dream is None and plan.effort.optimizer == "lbfgs" and plan.effort.history > FEW_PAIRS:
        return replace(plan, effort=replace(plan.effort, history=FEW_PAIRS))
    group = "effort" if plan.dream is None else "dream"
    options: Any = getattr(plan, group)
    now = min(options.tile or max(plan.size), max(plan.size))
    encoder, layers = str(plan.effort.encoder), (*plan.look.content_layers, *plan.look.style_layers)
    if now <= MINIMAL_TILE or not (plan.dream or can_be_cut(encoder, layers)):
        return None
    tile = max(MINIMAL_TILE, now // 2 // (2 * ALIGNED) * 2 * ALIGNED)
    return replace(plan, **{group: replace(options, tile=tile)})


def _difference(plan: Plan, before: Plan) -> str:
    """How a smaller plan does what the one before it did, in words."""
    if plan.together != before.together:
        return f"{plan.together} lanes at a time"
    if plan.effort.history != before.effort.history:
        return f"with {plan.effort.history} curvature pairs"
    return f"in parts of {(plan.dream or plan.effort).tile} pixels"


class Frugal:
    """The stylizer of a plan, made anew from a smaller one when memory runs out."""

    def __init__(self, plan: Plan, make: Callable[[Plan], FrameStylizer], keep: Callable[[Plan], None]) -> None:
        """make: the stylizer of a plan. keep: is told the plan that is gone on with."""
        self.plan, self._make, self._keep = plan, make, keep
        self._stylizer = make(plan)

    def initial_state(self, seed: int | None = None) -> "State":
        """The stylizer's."""
        return self._stylizer.initial_state(seed)

    def step(self, image: "Tensor", motion: "Motion", state: "State", controls: "Controls") -> "tuple[Tensor, State]":
        """The stylizer's, again with less where memory runs out; raises what it raised where there is no less."""
        while True:
            try:
                if len(image) > (self.plan.together or len(image)):
                    return self._in_groups(image, motion, state, controls)
                return self._stylizer.step(image, motion, state, controls)
            except (MemoryError, RuntimeError) as error:
                lanes = min(len(image), self.plan.together or len(image))
                less = smaller(self.plan, lanes) if is_out_of_memory(error) else None
                if less is None:
                    raise
            # Not before the exception is gone, which holds on to all that was computed.
            self._go_on_with(less)

    def phase(self, motion: "Motion", state: Any, controls: "Controls") -> Hashable:
        """The stylizer's; of one that knows no lanes, none is like another."""
        phase = getattr(self._stylizer, "phase", None)
        return object() if phase is None else phase(motion, state, controls)

    def _in_groups(
        self, image: "Tensor", motion: "Motion", state: "State", controls: "Controls"
    ) -> "tuple[Tensor, State]":
        """The lanes of a batch a few at a time."""
        import torch

        from nst_video.painting.batches import batch_of, motion_of, state_of

        together, painted = int(self.plan.together or 1), []
        for first in range(0, len(image), together):
            lanes = slice(first, first + together)
            painted.append(
                self._stylizer.step(image[lanes], motion_of(motion, lanes), state_of(state, lanes), controls)
            )
        images, states = zip(*painted, strict=True)
        return torch.cat(images), batch_of(states)

    def _go_on_with(self, plan: Plan) -> None:
        import torch

        how = _difference(plan, self.plan)
        log.warning("memory ran out; this frame is done again, and all from here on, %s", how)
        self._keep(plan)
        self.plan = plan
        del self._stylizer  # before the next one is made
        gc.collect()
        if plan.machine.device.startswith("cuda"):
            torch.cuda.empty_cache()
        self._stylizer = self._make(plan)
