"""Dreams of shots, frame after frame: an earlier dream moves with the things in the picture and is dreamed on."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nst_video import colors
from nst_video.controls import Controls
from nst_video.dreaming.ascent import Climb, Octaves, ascend
from nst_video.dreaming.objective import DreamObjective
from nst_video.dreaming.options import DreamOptions
from nst_video.dreaming.specs import check_mix, check_octaves, dreamed_layers, parse_layers, pooling_for
from nst_video.dreaming.transforms import Map, Rates, look_through, look_up, lookup
from nst_video.errors import NstVideoError, UsageError
from nst_video.fields import chosen
from nst_video.flow.motion import Motion, inside, warp
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.painting.given import check_frame
from nst_video.painting.scales import resize
from nst_video.painting.state import State
from nst_video.painting.stepreport import StepReport
from nst_video.presets import resolve_dream

Guide = Tensor | Callable[[float], Tensor]

_CONTROLLED = ("step", "iterations", "smoothing", "memory", "zoom", "rotate", "shift_x", "shift_y")
_LEAST_LOST = 0.05  # of a dream, that is dreamed anew in every frame: even a perfect memory resamples
_GROWTH = 0.75  # power of what was lost, of 1, that is dreamed anew: below 1 the dream slowly grows, above it fades


class Dreamer:
    """Dreams into frames; a `FrameStylizer` of the render, as the Stylizer is.

    The dream of a frame is what was added to it. That of the frame before is moved along the flow, kept as far as the
    flow can be trusted, times `memory`, and added to the new frame; then each place climbs again about as far as it has
    lost, so that the dream is never much weaker or stronger than that of a first frame, and what is new keeps up.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: DreamOptions | None = None,
        *,
        guide: Guide | None = None,
        still: bool = False,
        seed: int = 0,
    ):
        """guide: a picture (1, 3, h, w) in [0, 1], or a function from seconds to one. still: the input is one picture
        shown again and again, so zoom, turn and shift move the picture itself and not only the dream in it. The encoder
        gives all layers of the options (`dreamed_layers`). seed: of a shot for which none is given.
        """
        self.encoder, self.options = encoder, resolve_dream(options or DreamOptions(), encoder=encoder.name)
        self.specs = parse_layers(self.options.layers, encoder.name)
        self.still, self.seed = still, seed
        # Of a frame, in pixels, so that the smallest octave is large enough.
        self.smallest_side = math.ceil(encoder.smallest_side * self.options.octave_scale ** (self.options.octaves - 1))
        self._guide = guide if callable(guide) and not isinstance(guide, Tensor) else None
        self._objective = DreamObjective(encoder, self.specs, guide if isinstance(guide, Tensor) else None)

    def initial_state(self, seed: int | None = None) -> State:
        """The state before the first frame of a shot; `seed` fixes the jitter of the whole shot."""
        return State(seed=self.seed if seed is None else seed)

    def step(
        self, image: Tensor, motion: Motion, state: State, controls: Controls = Controls()
    ) -> tuple[Tensor, State]:
        """One frame (L, 3, H, W) in [0, 1] of each of L shots -> the same dreamed, and the state for the next ones.

        UsageError for what is no such frame, where the octaves are too many for its size, or a control has no meaning.
        """
        check_frame(image, motion, state, any_size=True)  # a live session may change its size
        now = settings(self.options, controls)
        size = (image.shape[2], image.shape[3])
        check_octaves(size, self.options.octaves, self.options.octave_scale, self.encoder.name, self.encoder.layers)
        moved = Rates(now.zoom, now.rotate, now.shift_x, now.shift_y).over(controls.dt, size).inverse
        view = Map(complex(*state.view[:2]), complex(*state.view[2:])).after(moved) if self.still else Map()
        base = look_through(image, view)
        kept, detail = _carried(state, motion, moved, base)
        dreamed, trace = self._ascend(base, kept, detail, state, now, controls)
        state = replace(
            state,
            frame=state.frame + 1,
            outputs=dreamed[:, None],
            content=base,
            view=(view.turn.real, view.turn.imag, view.shift.real, view.shift.imag),
            report=self._report(trace),
        )
        if controls.strength is not None:
            dreamed = (base + controls.strength * (dreamed - base)).clamp(0, 1)
        return colors.keep_colors(dreamed, base) if self.options.keep_colors else dreamed, state

    def _ascend(
        self,
        base: Tensor,
        kept: Tensor | None,
        detail: Tensor | None,
        state: State,
        now: DreamOptions,
        controls: Controls,
    ) -> tuple[Tensor, list[Tensor]]:
        """The frame with its dream, and the activations before each step."""
        options, iterations, gain = self.options, float(now.iterations), None
        whole = options.first_iterations / (
            options.iterations or 1.0
        )  # dreams that iterations of a later frame make up
        if kept is not None and detail is not None:
            detail = now.memory * kept * detail
            gain = whole * (1 - now.memory * kept).clamp_min(_LEAST_LOST) ** _GROWTH
        else:
            iterations = options.first_iterations if controls.iterations is None else whole * iterations
        climb = Climb(now.step, iterations, now.smoothing, state.seed, state.frame, controls.layer_mix)
        octaves = Octaves(options.octaves, options.octave_scale, options.jitter, options.tile)
        objective = self._objective_at(controls.time)
        dreamed, trace = ascend(objective, base, climb, octaves, detail=detail, gain=gain)
        if not bool(dreamed.isfinite().all()):
            raise NstVideoError("the dream is not finite; try a smaller --step or --precision fp32")
        return dreamed, trace

    def _objective_at(self, time: float) -> DreamObjective:
        """With the guide of this moment, where it is a video."""
        return self._objective if self._guide is None else DreamObjective(self.encoder, self.specs, self._guide(time))

    def _report(self, trace: list[Tensor]) -> StepReport:
        """The only place where a step reads numbers back from the device: mean over lanes of sum_l w_l E_l."""
        if not trace:
            return StepReport(0, 0, {}, ())
        values = torch.stack(trace).mean(2).tolist()
        weighted = [[spec.weight * value for spec, value in zip(self.specs, row, strict=True)] for row in values]
        terms = {str(spec): tuple(row[index] for row in weighted) for index, spec in enumerate(self.specs)}
        return StepReport(
            evaluations=len(trace),
            rejected=0,
            losses={"activation": sum(weighted[-1])},
            trace=tuple(map(sum, weighted)),
            terms=terms if len(terms) > 1 else {},
        )


def settings(options: DreamOptions, controls: Controls) -> DreamOptions:
    """The options with what the controls say in their places; UsageError where that is out of range."""
    given: dict[str, Any] = {name: chosen(getattr(controls, name), getattr(options, name)) for name in _CONTROLLED}
    if controls.strength is not None and not 0 <= controls.strength < math.inf:
        raise UsageError(f"strength {controls.strength} of a frame is out of range; allowed 0 or more")
    if controls.layer_mix is not None:
        check_mix(controls.layer_mix, options.layers)
    return replace(options, **given)


def _carried(state: State, motion: Motion, moved: Map, base: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """How far each place (L, 1, H, W) was seen before, and the dream (L, 3, H, W) that it had; None without a past.

    moved: the map back along zoom, turn and shift since the frame before.
    """
    if motion.references == 0 or state.outputs is None or state.content is None:
        return None, None
    size = (base.shape[2], base.shape[3])
    dream = resize(state.outputs[:, 0] - state.content, size)  # a live session may have changed its size
    flow, trust = motion.flows[:, 0], motion.trust[:, 0]
    if not moved.still:
        path = lookup(moved, size, base.device).expand_as(flow)
        flow, trust = warp(flow, path) + path, warp(trust, path) * inside(path)
        trust = trust * inside(flow)
    return trust, look_up(dream, flow)


def load_dreamer(
    options: DreamOptions,
    *,
    encoder: str = "vgg19",
    device: str = "cpu",
    precision: str = "fp32",
    weights: str | Path | None = None,
    offline: bool = False,
    guide: Guide | None = None,
    still: bool = False,
) -> Dreamer:
    """A Dreamer with its encoder; arguments and errors as `load_encoder` and Dreamer."""
    options = resolve_dream(options, encoder=encoder)
    network = load_encoder(
        encoder,
        dreamed_layers(options.layers, encoder),
        pooling=pooling_for(encoder),
        device=device,
        precision=precision,
        weights=weights,
        offline=offline,
    )
    return Dreamer(network, options, guide=guide, still=still)
