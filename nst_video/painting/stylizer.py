"""Neural style transfer of shots, frame after frame: coarse to fine at first, then a few steps from where the last
frame ended.

The optimisation of Gatys et al. 2016 on video as Ruder et al. 2016 framed it. It knows no media: images, motion and
state go in and out.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nst_video import colors
from nst_video.controls import Controls
from nst_video.devices.process import give_back_memory
from nst_video.errors import NstVideoError
from nst_video.fields import chosen
from nst_video.flow.fill import paint_revealed
from nst_video.flow.motion import Motion, look_up, sampling_grid
from nst_video.networks.encoders import Encoder
from nst_video.networks.vgg import Vgg
from nst_video.optimization import losses
from nst_video.optimization.curvature import Curvature, stored_as
from nst_video.optimization.graphs import Graphs, launched, plainly
from nst_video.optimization.objective import NOTHING, FrameObjective, Missed, Past, Weights
from nst_video.optimization.optimizers import Minimum
from nst_video.optimization.tiled import TiledObjective
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions
from nst_video.painting.batches import LaneState
from nst_video.painting.given import check_frame, check_ready, check_styles
from nst_video.painting.looks import UNKNOWN, Judgement, Looks
from nst_video.painting.scales import STARTS, STEP, parts, resize, scales, shares
from nst_video.painting.state import State
from nst_video.painting.stepreport import StepReport, report_of
from nst_video.painting.targets import StyleTargets
from nst_video.painting.teacher import Statistics, Teacher

_FIRST_STEP = 0.05  # root-mean-square change of a pixel, in [0, 1], while nothing is known about the curvature
_CAREFUL = 0.2  # of the first step, when the first attempt gave values that are not finite
_LOOK_EVALUATIONS = 14  # of a first frame, between looks of the teacher
_MOVED_AT_ONCE = 1 << 24  # numbers of curvature pairs, on a GPU


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
        encoder gives all layers of look. teacher: the encoder's, which corrects it now and then. UsageError for styles
        that are not like that.
        """
        check_styles(styles)
        self.encoder, self.effort, self.teacher = encoder, effort, teacher
        self.look, self.coherence = look or LookOptions(), coherence or CoherenceOptions()
        self.styles = StyleTargets(encoder, styles, self.look, teacher=teacher, tile=effort.tile)
        self.looks = Looks(teacher, self.styles, self.look.content_layers)
        self.graphs = Graphs()

    def initial_state(self, seed: int | None = None) -> State:
        """The state before the first frame of a shot; `seed` is the options' unless given."""
        return State(seed=self.effort.seed if seed is None else seed)

    def step(
        self, image: Tensor, motion: Motion, state: State, controls: Controls = Controls()
    ) -> tuple[Tensor, State]:
        """One frame (L, 3, H, W) in [0, 1] of each of L shots -> the same painted, and the state for the next ones.

        UsageError for what is no such frame, or of another size than what came before it; NstVideoError when the loss
        is not finite even after a more careful attempt.
        """
        check_ready(self.effort, self.styles.pictures)
        check_frame(image, motion, state)
        if chosen(controls.strength, self.look.strength) == 0:
            return image, replace(self._remember(state, image, image, None, StepReport(0, 0, {}, ())), missed=NOTHING)
        if motion.references == 0 or state.outputs is None:
            found, known = self._first(image, state, controls)
        else:
            found, known = self._later(image, motion, state, controls)
        best = found[-1].image
        call = self._calling(image, motion, state.frame)
        painted = call(colors.keep_colors, best, image) if self.look.keep_colors else best.clamp(0, 1)
        state = self._remember(state, image, best, found[-1].curvature, report_of(found))
        return painted, replace(state, correction=known.correction, missed=known.missed)

    def phase(self, motion: Motion, state: LaneState, controls: Controls) -> Hashable:
        """Lanes in which this is equal can be painted as one batch: the same work is done for each."""
        first = motion.references == 0 or state.batch.outputs is None
        return (
            first,
            state.seed if first and self.effort.init == "noise" else None,
            first or self.looks.due(state.frame, state.batch),
            first or self.looks.frame_due(state.frame, state.batch),
            state.batch.curvature is None,
            frozenset(state.batch.correction),
            frozenset(state.batch.missed.painting),
            replace(controls, time=0.0, dt=0.0),
        )

    def _first(self, image: Tensor, state: State, controls: Controls) -> tuple[list[Minimum], Judgement]:
        """Coarse to fine, each scale from the one before: long strokes form while small and survive upsampling."""
        sizes = scales((image.shape[2], image.shape[3]), self.styles.smallest_side)
        # What a small network misjudges is corrected at the finest scale, so there it has most to do.
        each = shares(self.effort.first_iterations or 0, len(sizes), STEP if self.teacher else 1.0)
        found: list[Minimum] = []
        known = UNKNOWN
        frame: Statistics = {}
        for size, evaluations in zip(sizes, each, strict=True):
            content = resize(image, size)
            start, curvature = resize(found[-1].image, size) if found else self._start(content, state.seed), None
            objective = None
            give_back_memory()  # tensors of the last scale are of other sizes
            frame = self.looks.of_frame(content)
            for part in parts(evaluations, _LOOK_EVALUATIONS if self.teacher else evaluations):
                known = self.looks.at(start, known.correction, frame)
                if objective is None:
                    objective = self.objective(content, controls, known)
                else:
                    objective = objective.aimed_at(self.targets(content, known), known.missed)
                found[-1:] = [replace(last, curvature=None) for last in found[-1:]]  # or every scale's would be held
                found.append(self._minimise(objective, start, content, part, curvature)[0])
                start, curvature = found[-1].image, found[-1].curvature
        known = self.looks.at(start, known.correction, frame)
        give_back_memory()
        return found, known

    def _later(
        self, image: Tensor, motion: Motion, state: State, controls: Controls
    ) -> tuple[list[Minimum], Judgement]:
        """From what was painted before, moved along the flow, and the fill where that is not to be had."""
        assert state.outputs is not None
        assert state.content is not None
        call = self._calling(image, motion, state.frame)
        before = [state.outputs[:, j - 1] for j in self.coherence.references[: motion.references]]
        newest = state.outputs[:, 0].clamp(0, 1)
        fill = paint_revealed(image, 1 - motion.trust.sum(1), state.content, newest, call)
        styles, weights = self.styles.completed(image, state.missed), self.weights(controls).on(image.device)
        given = (image, motion, before, fill, weights, styles, Judgement(state.correction, state.missed))
        start, objective, missed, grid = call(self._prepared, *given, lend=True)
        # A job that ran out of memory goes on with fewer pairs than there were.
        curvature = state.curvature and _moved(state.curvature.newest(self.effort.history), grid, image.shape)
        evaluations = round(chosen(controls.iterations, self.effort.iterations))

        def look(found: Minimum) -> Judgement:
            if not self.looks.due(state.frame, state):
                return Judgement(state.correction, missed.mapped(torch.clone))
            own, wanted = (self.styles.beside(image, taught=taught) for taught in (False, True))
            frame = image if self.looks.frame_due(state.frame, state) else None
            return call(self.looks.judged, found.image, frame, own, wanted, Judgement(state.correction, missed))

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
        known: Judgement,
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
        targets, known = known.of(styles), known.carried(motion.flows[:, 0], held)
        objective = self._objective(image, targets, weights, past, known)
        return start, objective, known.missed, grid.unflatten(0, pictures.shape[:2])[:, 0]

    def _calling(self, image: Tensor, motion: Motion, frame: int) -> Callable[..., Any]:
        """How to call a function of what belongs to a frame of this number in its shot: see `Graphs.call`."""
        return launched(self.graphs.call, image) if self._can_record(image, motion, frame) else plainly

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
        steps and no memory. And what comes of it `then`: the device does that while the host waits for the loss only,
        and goes on.
        """
        search = partial(
            self.graphs.minimise,
            objective,
            evaluations=evaluations,
            optimizer=self.effort.optimizer,
            history=self.effort.history,
        )
        found = search(start, curvature=curvature, consume=True, first_step=_FIRST_STEP)
        read = found.begin_read()
        result, found = then(found), read()
        if bool(found.loss.isfinite().all()):
            return found, result
        read = search(content, first_step=_CAREFUL * _FIRST_STEP).begin_read()
        found = found.with_lanes(~found.loss.isfinite(), read())
        if not bool(found.loss.isfinite().all()):
            raise NstVideoError(f"the loss is not finite: {_terms(found)}; try smaller weights or --precision fp32")
        return found, then(found)

    def _start(self, content: Tensor, seed: int) -> Tensor:
        """What the coarsest scale of a first frame starts from, like `content` (L, 3, h, w)."""
        return STARTS[self.effort.init](content, self.styles.pictures, torch.Generator().manual_seed(seed))

    def objective(self, content: Tensor, controls: Controls, known: Judgement) -> FrameObjective:
        """The loss of images (L, 3, H, W) painted from the frame `content` of that size, which has no past."""
        return self._objective(content, self.targets(content, known), self.weights(controls), None, known)

    def _objective(
        self, content: Tensor, targets: Statistics, weights: Weights, past: Past | None, known: Judgement
    ) -> FrameObjective:
        tile = self.effort.tile if self._is_cut(content) else None
        make = FrameObjective if tile is None else partial(TiledObjective, tile=tile)
        return make(
            self.encoder,
            self.look,
            content=content,
            styles=targets,
            weights=weights,
            past=past,
            missed=known.missed,
        )

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

    def targets(self, image: Tensor, known: Judgement = UNKNOWN) -> Statistics:
        """Gram matrices of the style pictures at their size beside `image`: layer -> (1 or L, N, N). Corrected, and as
        the teacher sees them in layers of which it is known what is missed.
        """
        return known.of(self.styles.completed(image, known.missed))

    def _remember(
        self, state: State, image: Tensor, best: Tensor, curvature: Curvature | None, report: StepReport
    ) -> State:
        older = [] if state.outputs is None else [state.outputs[:, : max(self.coherence.references) - 1]]
        outputs = torch.cat([best[:, None], *older], dim=1)
        return replace(state, frame=state.frame + 1, outputs=outputs, content=image, curvature=curvature, report=report)


def _moved(curvature: Curvature, grid: Tensor, shape: Sequence[int]) -> Curvature:
    """The pairs of L images of `shape` moved by a grid (L, H, W, 2): what was learnt of a place goes with it."""

    def move(vectors: Tensor) -> Tensor:
        # As pairs are here, whatever they were where the state comes from.
        moved = torch.empty_like(vectors, dtype=stored_as(vectors.device))
        by_row = (len(grid), -1, *shape[1:])
        rows, given = moved.view(by_row), vectors.view(by_row)
        # On a GPU each call costs; on a CPU a look-up takes several times what it looks up.
        together = max(1, _MOVED_AT_ONCE // given[:, 0].numel()) if vectors.is_cuda else 1
        for after, before in zip(rows.split(together, dim=1), given.split(together, dim=1), strict=True):
            after.copy_(look_up(before.flatten(1, 2).float(), grid).view_as(after))
        return moved

    return curvature.moved(move)


def _terms(found: Minimum) -> str:
    return ", ".join(f"{name} {float(values[-1].mean()):.3g}" for name, values in found.record.items())
