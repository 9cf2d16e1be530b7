"""Neural style transfer of shots, frame after frame: coarse to fine at first, then a few steps from where the last
frame ended.

The optimisation of Gatys et al. 2016 on video as Ruder et al. 2016 framed it. It knows no media: images, motion and
state go in and out.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video import colors, losses
from nst_video.batches import LaneState
from nst_video.controls import Controls
from nst_video.encoders import Encoder, Vgg
from nst_video.errors import NstVideoError
from nst_video.fields import chosen
from nst_video.fill import paint_revealed
from nst_video.graphs import Graphs, launched, plainly
from nst_video.motion import Motion, look_up, sampling_grid, warp
from nst_video.objective import NOTHING, FrameObjective, Missed, Past, Weights, style_of
from nst_video.optimizers import Curvature, Minimum
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions
from nst_video.process import give_back_memory
from nst_video.stepreport import StepReport, report_of
from nst_video.teacher import Statistics, Teacher
from nst_video.tiled import TiledObjective, gram_sums
from nst_video.tiles import ALIGNED, can_be_cut

Judgement = tuple[Statistics, Missed]  # of a teacher: what to correct, and what is missed

_COARSEST = 128  # long side in pixels of the first scale: there a receptive field spans long strokes
_SCALE_STEP = math.sqrt(2)
_FIRST_STEP = 0.05  # root-mean-square change of a pixel, in [0, 1], while nothing is known about the curvature
_LOOK_EVALUATIONS = 14  # of a first frame, between looks of the teacher
_LOOK_FRAMES = 2  # later frames between looks of the teacher
_TAKEN = 0.7  # of a new correction, against the one before: less overshoots less
_CAREFUL = 0.2  # of the first step, when the first attempt gave values that are not finite
_MOVED_AT_ONCE = 1 << 24  # numbers of curvature pairs, on a GPU
_STYLE_PART = 640  # pixels along a side of a style picture that are always looked at in one piece


@dataclass(frozen=True)
class State:
    """What one frame of L lanes leaves for the next.

    outputs (L, K, 3, H, W): the last K <= max(J) results as optimised, newest first: not clipped, their colours not
    exchanged. content (L, 3, H, W): the frame that the newest was made from. curvature: pairs of L-BFGS. correction:
    what the teacher adds to the targets of the style layers, (L, C, C). missed: what it saw of the newest result and of
    its frame that the encoder did not. seed: of everything random in the shot. frame: frames done. view: of a dreamed
    still, where it is looked at (turn and shift of dreaming.transforms.Map, each real, imaginary).
    """

    seed: int = 0
    frame: int = 0
    outputs: Tensor | None = None
    content: Tensor | None = None
    curvature: Curvature | None = None
    report: StepReport | None = None
    correction: dict[str, Tensor] = field(default_factory=dict)
    missed: Missed = NOTHING
    view: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


class Stylizer:
    """Paints frames in the look of one style picture or a mix of several; `step` is all there is to it."""

    def __init__(
        self,
        encoder: Encoder,
        styles: Sequence[tuple[Tensor, float]],
        *,
        effort: EffortOptions,
        look: LookOptions | None = None,
        coherence: CoherenceOptions | None = None,
        teacher: Teacher | None = None,
    ):
        """styles: (image (1, 3, h, w) in [0, 1] at its own size, weight) each. effort: resolved, no None left. The
        encoder gives all layers of look. teacher: the encoder's, which corrects it now and then.
        """
        self.encoder, self.effort, self.teacher = encoder, effort, teacher
        self.smallest_side = max(network.smallest_side for network in (encoder, teacher and teacher.encoder) if network)
        self.look, self.coherence = look or LookOptions(), coherence or CoherenceOptions()
        self.styles = [image for image, _ in styles]
        self.mix = tuple(weight for _, weight in styles)
        self.graphs = Graphs()
        self._grams: dict[tuple[int, bool], list[Statistics]] = {}
        self._mixed: dict[tuple[int, bool], tuple[tuple[float, ...], Statistics]] = {}

    def initial_state(self, seed: int | None = None) -> State:
        """The state before the first frame of a shot; `seed` is the options' unless given."""
        return State(seed=self.effort.seed if seed is None else seed)

    def step(
        self, image: Tensor, motion: Motion, state: State, controls: Controls = Controls()
    ) -> tuple[Tensor, State]:
        """One frame (L, 3, H, W) in [0, 1] of each of L shots -> the same painted, and the state for the next ones.

        NstVideoError when the loss is not finite even after a more careful attempt.
        """
        if chosen(controls.strength, self.look.strength) == 0:
            return image, replace(self._remember(state, image, image, None, StepReport(0, 0, {}, ())), missed=NOTHING)
        if motion.references == 0 or state.outputs is None:
            found, (correction, missed) = self._first(image, state, controls)
        else:
            found, (correction, missed) = self._later(image, motion, state, controls)
        best = found[-1].image
        painted = colors.keep_colors(best, image) if self.look.keep_colors else best.clamp(0, 1)
        state = self._remember(state, image, best, found[-1].curvature, report_of(found))
        return painted, replace(state, correction=correction, missed=missed)

    def phase(self, motion: Motion, state: LaneState, controls: Controls) -> Hashable:
        """Lanes in which this is equal can be painted as one batch: the same work is done for each."""
        first = motion.references == 0 or state.batch.outputs is None
        return (
            first,
            state.seed if first and self.effort.init == "noise" else None,
            first or self._looks(state.frame, state.batch),
            state.batch.curvature is None,
            frozenset(state.batch.correction),
            frozenset(state.batch.missed.painting),
            replace(controls, time=0.0, dt=0.0),
        )

    def _looks(self, frame: int, state: State) -> bool:
        """Whether the teacher looks at a later frame of this number in its shot."""
        if self.teacher is None:
            return False
        known = state.correction and (state.missed.painting or not self.teacher.places)
        return frame % _LOOK_FRAMES == 0 or not known

    def _first(self, image: Tensor, state: State, controls: Controls) -> tuple[list[Minimum], Judgement]:
        """Coarse to fine, each scale from the one before: long strokes form while small and survive upsampling."""
        sizes = scales((image.shape[2], image.shape[3]), self.smallest_side)
        # What a small network misjudges is corrected at the finest scale, so there it has most to do.
        each = shares(self.effort.first_iterations or 0, len(sizes), _SCALE_STEP if self.teacher else 1.0)
        found: list[Minimum] = []
        correction: Statistics = {}
        frame: Statistics = {}
        for size, evaluations in zip(sizes, each, strict=True):
            content = resize(image, size)
            start, curvature = resize(found[-1].image, size) if found else self._start(content, state.seed), None
            objective = None
            give_back_memory()  # tensors of the last scale are of other sizes
            frame = self._missed_of(content)
            for part in parts(evaluations, _LOOK_EVALUATIONS if self.teacher else evaluations):
                correction, painting = self._look(start, controls, correction)
                missed = Missed(painting, frame)
                if objective is None:
                    objective = self.objective(content, controls, correction, missed=missed)
                else:
                    objective = objective.aimed_at(self.targets(content, controls, correction, missed), missed)
                found[-1:] = [replace(last, curvature=None) for last in found[-1:]]  # or every scale's would be held
                found.append(self._minimise(objective, start, content, part, curvature)[0])
                start, curvature = found[-1].image, found[-1].curvature
        correction, painting = self._look(start, controls, correction)
        give_back_memory()
        return found, (correction, Missed(painting, frame))

    def _later(
        self, image: Tensor, motion: Motion, state: State, controls: Controls
    ) -> tuple[list[Minimum], Judgement]:
        """From what was painted before, moved along the flow, and the fill where that is not to be had."""
        assert state.outputs is not None
        assert state.content is not None
        call = launched(self.graphs.call, image) if self._can_record(image, motion, state.frame) else plainly
        before = [state.outputs[:, j - 1] for j in self.coherence.references[: motion.references]]
        newest = state.outputs[:, 0].clamp(0, 1)
        fill = paint_revealed(image, 1 - motion.trust.sum(1), state.content, newest, call)
        styles, weights = self._styles(image, controls, state.missed), self.weights(controls).on(image.device)
        given = (image, motion, before, fill, weights, styles, state.correction, state.missed)
        start, objective, missed, grid = call(self._prepared, *given, lend=True)
        # A job that ran out of memory goes on with fewer pairs than there were.
        curvature = state.curvature and _moved(state.curvature.newest(self.effort.history), grid, image.shape)
        evaluations = round(chosen(controls.iterations, self.effort.iterations))

        def look(found: Minimum) -> Judgement:
            if not self._looks(state.frame, state):
                return state.correction, missed.mapped(torch.clone)
            own, wanted = (self._style(image, controls, taught=taught) for taught in (False, True))
            return call(self._judged, found.image, image, own, wanted, state.correction, missed)

        found, judgement = self._minimise(objective, start, image, evaluations, curvature, look)
        return [found], judgement

    def _prepared(
        self,
        image: Tensor,
        motion: Motion,
        before: Sequence[Tensor],
        fill: Tensor,
        weights: Weights,
        styles: Statistics,
        correction: Statistics,
        missed: Missed,
    ) -> tuple[Tensor, FrameObjective, Missed, Tensor]:
        """What a later frame starts from and its loss, what was missed carried along, and the sampling grid of the
        motion from the frame before. before: paintings (L, 3, H, W), one for each reference.
        """
        pictures = torch.stack([*before, *([] if motion.anchor is None else [motion.anchor])], dim=1)
        grid = sampling_grid(motion.flows.flatten(0, 1))
        # Bicubic: a bilinear look-up in every frame would blur whatever keeps moving.
        past = Past(look_up(pictures.flatten(0, 1), grid, "bicubic").view_as(pictures), motion.trust)
        held = motion.trust.sum(1)
        start = (past.warped * past.trust).sum(1) + (1 - held) * fill
        carried = missed.mapped(partial(_carried, flow=motion.flows[:, 0], held=held))
        objective = self._objective(image, _aimed(styles, correction, missed), weights, past, carried)
        return start, objective, carried, grid.unflatten(0, pictures.shape[:2])[:, 0]

    def _judged(
        self,
        painting: Tensor,
        image: Tensor,
        styles: Statistics,
        wanted: Statistics,
        correction: Statistics,
        missed: Missed,
    ) -> Judgement:
        """After the teacher has looked at the painting of a later frame, and at that. styles, wanted: as the encoder
        sees them and as the teacher does; correction, missed: what was known.
        """
        corrected, seen = self._compared(painting, styles, wanted, correction)
        new = Missed(seen, self._missed_of(image))
        return corrected, new.joined(missed, _settled) if missed.painting else new

    def _can_record(self, image: Tensor, motion: Motion, frame: int) -> bool:
        """Whether what belongs to a frame, of this number in its shot, may be done by graphs, which pay where many are
        alike: not at the beginning of a shot, where references become more, or at the end of a lane.

        Networks of other libraries may do what cannot be recorded; a picture in tiles takes longer than it takes to
        launch.
        """
        usual = frame >= max(self.coherence.references) and motion.anchor is None
        networks = (self.encoder, self.teacher and self.teacher.encoder)
        own = all(isinstance(getattr(network, "network", None), Vgg) for network in networks if network)
        return usual and own and not self._is_cut(image)

    def _is_cut(self, image: Tensor) -> bool:
        tile = self.effort.tile
        return tile is not None and max(image.shape[-2:]) > tile

    def _minimise(
        self,
        objective: FrameObjective,
        start: Tensor,
        content: Tensor,
        evaluations: int,
        curvature: Curvature | None,
        then: Callable[[Minimum], Any] = lambda found: None,
    ) -> tuple[Minimum, Any]:
        """The minimum from `start`; where a lane's loss is not finite, once more from the frame itself, with short
        steps and no memory. And what comes of it `then`: that is launched before the host waits for the loss, so that
        the device need not wait for the host.
        """
        search = partial(
            self.graphs.minimise,
            objective,
            evaluations=evaluations,
            optimizer=self.effort.optimizer,
            history=self.effort.history,
        )
        found = search(start, curvature=curvature, consume=True, first_step=_FIRST_STEP)
        result, found = then(found), found.read()
        if bool(found.loss.isfinite().all()):
            return found, result
        again = search(content, first_step=_CAREFUL * _FIRST_STEP).read()
        found = found.with_lanes(~found.loss.isfinite(), again)
        if not bool(found.loss.isfinite().all()):
            raise NstVideoError(f"the loss is not finite: {_terms(found)}; try smaller weights or --precision fp32")
        return found, then(found)

    def _start(self, content: Tensor, seed: int) -> Tensor:
        """What the coarsest scale of a first frame starts from, like `content` (L, 3, h, w)."""
        return STARTS[self.effort.init](content, self.styles, torch.Generator().manual_seed(seed))

    def objective(
        self,
        content: Tensor,
        controls: Controls,
        correction: Statistics,
        missed: Missed = NOTHING,
    ) -> FrameObjective:
        """The loss of images (L, 3, H, W) painted from the frame `content` of that size, which has no past."""
        targets = self.targets(content, controls, correction, missed)
        return self._objective(content, targets, self.weights(controls), None, missed)

    def _objective(
        self, content: Tensor, targets: Statistics, weights: Weights, past: Past | None, missed: Missed
    ) -> FrameObjective:
        cut = self.effort.tile if self._is_cut(content) else None
        make = FrameObjective if cut is None else partial(TiledObjective, tile=cut)
        return make(self.encoder, self.look, content=content, styles=targets, weights=weights, past=past, missed=missed)

    def weights(self, controls: Controls = Controls()) -> Weights:
        """The weights of a frame: controls before options before the loss's own.

        Style over content grows with the fourth power of the strength: with the square, half of it looked like all of
        it. Below 1 style and smoothing shrink, above 1 content does, so that the past holds as well as ever.
        """
        default, look = losses.NORMALISERS[self.look.loss], self.look
        power = chosen(controls.strength, look.strength) ** 4
        more, less = max(power, 1.0), min(power, 1.0)
        return Weights(
            content=chosen(controls.content_weight, look.content_weight, default.content_weight) / more,
            style=less * chosen(controls.style_weight, look.style_weight, default.style_weight),
            tv=less * chosen(controls.tv_weight, look.tv_weight, default.tv_weight),
            temporal=chosen(controls.temporal_weight, self.coherence.temporal_weight, default.temporal_weight),
        )

    def targets(
        self, image: Tensor, controls: Controls, correction: Statistics, missed: Missed = NOTHING
    ) -> Statistics:
        """Gram matrices of the style pictures at their size beside `image`: layer -> (1 or L, N, N). Corrected, and as
        the teacher sees them in layers of which it is known what is missed.
        """
        return _aimed(self._styles(image, controls, missed), correction, missed)

    def _styles(self, image: Tensor, controls: Controls, missed: Missed) -> Statistics:
        """The same before they are corrected."""
        styles = self._style(image, controls, taught=False)
        completed = styles.keys() & missed.painting.keys()
        taught = self._style(image, controls, taught=True) if completed else {}
        return styles | {layer: taught[layer] for layer in completed}

    def corrected(self, image: Tensor, controls: Controls, before: Statistics) -> Statistics:
        """The correction after the teacher has looked at `image` (L, 3, H, W); none where there is no teacher."""
        return self._look(image, controls, before)[0]

    def _look(self, image: Tensor, controls: Controls, before: Statistics) -> tuple[Statistics, Statistics]:
        """The same, and what is missed of `image`, layer -> (L, C, h, w)."""
        if self.teacher is None:
            return {}, {}
        styles, wanted = (self._style(image, controls, taught=taught) for taught in (False, True))
        return self._compared(image, styles, wanted, before)

    def _compared(
        self, image: Tensor, styles: Statistics, wanted: Statistics, before: Statistics
    ) -> tuple[Statistics, Statistics]:
        assert self.teacher is not None
        found, missed = self.teacher.look(image, styles, wanted, self.teacher.places)
        correction = {layer: _settled(new, before[layer]) if layer in before else new for layer, new in found.items()}
        return correction, missed

    def _missed_of(self, content: Tensor) -> Statistics:
        """What is missed of a frame (L, 3, H, W), layer of the content -> (L, C, h, w)."""
        return {} if self.teacher is None else self.teacher.look(content, {}, {}, self.look.content_layers)[1]

    def _style(self, image: Tensor, controls: Controls, *, taught: bool) -> Statistics:
        """The mix of the styles' Gram matrices (1, N, N), as the teacher sees them or as the encoder does."""
        side = max(self.smallest_side, round(max(image.shape[-2:]) * self.look.style_scale))
        if (side, taught) not in self._grams:
            tile = self._style_tile(image)
            self._grams[side, taught] = [self._statistics(self._at(style, side), taught, tile) for style in self.styles]
        mix = tuple(controls.style_mix or self.mix)
        kept = self._mixed.get((side, taught))
        if kept is None or kept[0] != mix:  # mostly it stays as it is
            pairs = list(zip([weight / sum(mix) for weight in mix], self._grams[side, taught], strict=True))
            layers = self._grams[side, taught][0]
            found = {layer: torch.stack([share * grams[layer] for share, grams in pairs]).sum(0) for layer in layers}
            kept = self._mixed[side, taught] = (mix, found)
        return kept[1]

    def _at(self, style: Tensor, long_side: int) -> Tensor:
        """A style picture with this long side, or larger where the encoder needs it."""
        height, width = style.shape[-2:]
        factor = max(long_side / max(height, width), self.smallest_side / min(height, width))
        return resize(style, (round(height * factor), round(width * factor)))

    def _style_tile(self, image: Tensor) -> int | None:
        """The long side of the parts in which style pictures are looked at beside `image`: of more pixels than that
        has, such as of squares beside wide frames or with a large scale, no memory has been planned for.
        """
        if not can_be_cut(self.encoder.name, self.encoder.layers):
            return self.effort.tile
        side = max(_STYLE_PART, math.isqrt(image.shape[-2] * image.shape[-1]) // ALIGNED * ALIGNED)
        return min(side, self.effort.tile or side)

    @torch.no_grad()
    def _statistics(self, style: Tensor, taught: bool, tile: int | None) -> Statistics:
        if taught and self.teacher:
            return self.teacher.statistics(style, tile)
        found = gram_sums(self.encoder, style, self.look.style_layers, tile)
        return {layer: style_of(self.encoder, gram.mean, layer) for layer, gram in found.items()}

    def _remember(
        self, state: State, image: Tensor, best: Tensor, curvature: Curvature | None, report: StepReport
    ) -> State:
        older = [] if state.outputs is None else [state.outputs[:, : max(self.coherence.references) - 1]]
        outputs = torch.cat([best[:, None], *older], dim=1)
        return replace(state, frame=state.frame + 1, outputs=outputs, content=image, curvature=curvature, report=report)


def _carried(values: Tensor, flow: Tensor, held: Tensor) -> Tensor:
    """Activations (L, C, h, w) moved along the flow (L, 2, H, W) of their pictures, as far as it holds (L, 1, H, W)."""
    (height, width), size = flow.shape[2:], values.shape[2:]
    across, down = F.interpolate(flow, size=size, mode="area").unbind(1)
    own = torch.stack([across * (size[1] / width), down * (size[0] / height)], dim=1)
    return warp(values, own) * F.interpolate(held, size=size, mode="area").clamp(0, 1)


def _aimed(styles: Statistics, correction: Statistics, missed: Missed) -> Statistics:
    """Targets of the style layers, corrected where it is not known place by place what is missed."""
    added = {layer: value for layer, value in correction.items() if layer not in missed.painting}
    return {layer: target + added[layer] if layer in added else target for layer, target in styles.items()}


def _settled(new: Tensor, before: Tensor) -> Tensor:
    """What is found after a look, of what is new and what was known."""
    return new.lerp(before, 1 - _TAKEN)


def _moved(curvature: Curvature, grid: Tensor, shape: Sequence[int]) -> Curvature:
    """The pairs of L images of `shape` moved by a grid (L, H, W, 2): what was learnt of a place goes with it."""

    def move(vectors: Tensor) -> Tensor:
        moved, by_row = torch.empty_like(vectors), (len(grid), -1, *shape[1:])
        rows, given = moved.view(by_row), vectors.view(by_row)
        # On a GPU each call costs; on a CPU a look-up takes several times what it looks up.
        together = max(1, _MOVED_AT_ONCE // given[:, 0].numel()) if vectors.is_cuda else 1
        for after, before in zip(rows.split(together, dim=1), given.split(together, dim=1), strict=True):
            after.copy_(look_up(before.flatten(1, 2).float(), grid).view_as(after))
        return moved

    return curvature.moved(move)


def _from_content(content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    return content


def _from_noise(content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    # One picture for all lanes, drawn on the CPU: the same seed gives the same start on every device.
    noise = torch.rand((1, *content.shape[1:]), generator=generator)
    return noise.to(content.device).expand_as(content).clone()


def _from_style(content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The first style picture, covering the frame."""
    height, width = content.shape[-2:]
    factor = max(height / styles[0].shape[2], width / styles[0].shape[3])
    cover = resize(styles[0], (math.ceil(styles[0].shape[2] * factor), math.ceil(styles[0].shape[3] * factor)))
    top, left = (cover.shape[2] - height) // 2, (cover.shape[3] - width) // 2
    return cover[..., top : top + height, left : left + width].expand_as(content).clone()


STARTS = {"content": _from_content, "noise": _from_noise, "style": _from_style}


def _terms(found: Minimum) -> str:
    return ", ".join(f"{name} {float(values[-1].mean()):.3g}" for name, values in found.record.items())


def scales(size: tuple[int, int], smallest_side: int = 1) -> list[tuple[int, int]]:
    """(H, W) from a long side of about 128 pixels up to `size`, in steps of about sqrt(2); none below
    `smallest_side`.
    """
    long, short = max(size), min(size)
    coarsest = max(_COARSEST, math.ceil(smallest_side * long / short))
    steps = max(0, round(math.log(long / coarsest, _SCALE_STEP)))
    factors = [(coarsest / long) ** (1 - i / steps) for i in range(steps)]
    return [*((round(size[0] * factor), round(size[1] * factor)) for factor in factors), size]


def shares(total: int, parts: int, growth: float = 1.0) -> list[int]:
    """`total` evaluations over `parts` scales, each `growth` times as many as the one before as nearly as whole numbers
    go, at least one each, the rest to the finest.

    >>> shares(50, 4), shares(100, 4, math.sqrt(2))
    ([12, 12, 12, 14], [13, 19, 27, 41])
    """
    parts_of_all = [growth**number for number in range(parts)]
    coarse = [max(1, int(total * part / sum(parts_of_all))) for part in parts_of_all[:-1]]
    return [*coarse, max(1, total - sum(coarse))]


def parts(total: int, largest: int) -> list[int]:
    """`total` in equal parts of at most `largest`, the last one smaller where it does not come out even.

    >>> parts(60, 25), parts(20, 25)
    ([20, 20, 20], [20])
    """
    each = math.ceil(total / math.ceil(total / largest))
    return [min(each, total - done) for done in range(0, total, each)]


def resize(image: Tensor, size: Iterable[int]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, *size): bicubic, antialiased."""
    wanted = tuple(size)
    if tuple(image.shape[-2:]) == wanted:
        return image
    return F.interpolate(image, size=wanted, mode="bicubic", antialias=True, align_corners=False)
