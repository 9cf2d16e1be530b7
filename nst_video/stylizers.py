"""What renders frames: the painter or the dreamer that a plan asks for."""

from typing import TYPE_CHECKING, Protocol

from nst_video.dreaming.options import DreamOptions
from nst_video.media.pictures import read_picture
from nst_video.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from nst_video.controls import Controls
    from nst_video.flow.motion import Motion
    from nst_video.painting.state import State


class FrameStylizer(Protocol):
    """Whatever turns frames into painted frames: see `stylizer.Stylizer`."""

    def initial_state(self, seed: int | None = None) -> "State":
        """The state before the first frame of a shot, with the seed of whatever is random in it."""

    def step(self, image: "Tensor", motion: "Motion", state: "State", controls: "Controls") -> "tuple[Tensor, State]":
        """One frame (L, 3, H, W) in [0, 1] of each of L lanes -> the same painted, and the state for the next ones."""


def make_stylizer(plan: Plan) -> FrameStylizer:
    """What renders the plan's frames, ready on the plan's device."""
    return _make_painter(plan) if plan.dream is None else _make_dreamer(plan, plan.dream)


def _make_dreamer(plan: Plan, dream: DreamOptions) -> FrameStylizer:
    """The plan's encoder, and its guide."""
    from nst_video.dreaming.dreamer import load_dreamer
    from nst_video.dreaming.guides import open_guide

    machine = plan.machine
    return load_dreamer(
        dream,
        encoder=str(plan.effort.encoder),
        device=machine.device,
        precision=machine.precision,
        weights=machine.weights,
        offline=machine.offline,
        guide=None if dream.guide is None else open_guide(dream.guide, plan.options, machine.device),
        still=plan.options.duration is not None,
    )


def _make_painter(plan: Plan) -> FrameStylizer:
    """The plan's encoder and style pictures."""
    from nst_video.colors import to_image
    from nst_video.networks.encoders import load_encoder
    from nst_video.painting.stylizer import Stylizer
    from nst_video.painting.teacher import load_teacher, places_of

    machine, look = plan.machine, plan.look
    encoder = load_encoder(
        str(plan.effort.encoder),
        (*look.content_layers, *look.style_layers),
        pooling=plan.effort.pooling,
        device=machine.device,
        precision=machine.precision,
        weights=machine.weights,
        offline=machine.offline,
    )
    styles = [
        (to_image(read_picture(style.path, max_pixels=plan.options.max_pixels)[None], machine.device), style.weight)
        for style in plan.styles
    ]
    teacher = None
    if plan.effort.teacher == "on":
        teacher = load_teacher(
            encoder,
            look.style_layers,
            places=places_of(encoder, look),
            precision=machine.precision,
            offline=machine.offline,
            tile=plan.effort.tile,
        )
    return Stylizer(encoder, styles, effort=plan.effort, look=look, coherence=plan.coherence, teacher=teacher)
