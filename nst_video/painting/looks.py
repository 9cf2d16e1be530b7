"""What a teacher has to say of paintings, when it is asked, and how that is carried on to the next frame."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.flow.motion import warp
from nst_video.optimization.objective import NOTHING, Missed
from nst_video.painting.state import State
from nst_video.painting.targets import StyleTargets
from nst_video.painting.teacher import Statistics, Teacher

_FRAMES = 2  # later frames between looks at a painting
_WITH_FRAME = 4  # between those at its frame as well: what is missed of that moves along the flow and hardly changes
_TAKEN = 0.7  # of a new correction, against the one before: less overshoots less


@dataclass(frozen=True)
class Judgement:
    """correction: what is added to the targets of the style layers, (L, C, C). missed: what the encoder does not see of
    a painting and of its frame.
    """

    correction: Statistics = field(default_factory=dict)
    missed: Missed = NOTHING

    def of(self, styles: Statistics) -> Statistics:
        """Targets of the style layers, corrected where it is not known place by place what is missed."""
        added = {layer: value for layer, value in self.correction.items() if layer not in self.missed.painting}
        return {layer: target + added[layer] if layer in added else target for layer, target in styles.items()}

    def carried(self, flow: Tensor, held: Tensor) -> "Judgement":
        """What is known of the frame before, of the one that follows by the flow (L, 2, H, W), as far as that holds
        (L, 1, H, W).
        """
        return Judgement(self.correction, self.missed.mapped(partial(_carried, flow=flow, held=held)))


UNKNOWN = Judgement()


class Looks:
    """Asks the teacher of an encoder, if there is one: nothing is known where there is none."""

    def __init__(self, teacher: Teacher | None, targets: StyleTargets, content_layers: Iterable[str]) -> None:
        self._teacher, self._targets, self._content_layers = teacher, targets, tuple(content_layers)

    def due(self, frame: int, state: State) -> bool:
        """Whether the teacher looks at a later frame of this number in its shot."""
        if self._teacher is None:
            return False
        known = state.correction and (state.missed.painting or not self._teacher.places)
        return frame % _FRAMES == 0 or not known

    def frame_due(self, frame: int, state: State) -> bool:
        """Whether it then looks at the frame itself as well, and not at its painting only."""
        return frame % _WITH_FRAME == 0 or not state.missed.frame

    def at(self, painting: Tensor, before: Statistics, frame: Statistics | None = None) -> Judgement:
        """After a look at a painting (L, 3, H, W). before: the correction until then. frame: what is missed of the
        frame it is painted from, as `of_frame` says.
        """
        if self._teacher is None:
            return UNKNOWN
        own, wanted = (self._targets.beside(painting, taught=taught) for taught in (False, True))
        correction, seen = self._compared(painting, own, wanted, before)
        return Judgement(correction, Missed(seen, frame or {}))

    def of_frame(self, content: Tensor) -> Statistics:
        """What is missed of a frame (L, 3, H, W), layer of the content -> (L, C, h, w)."""
        return {} if self._teacher is None else self._teacher.look(content, {}, {}, self._content_layers)[1]

    def judged(
        self, painting: Tensor, frame: Tensor | None, own: Statistics, wanted: Statistics, before: Judgement
    ) -> Judgement:
        """After a look at the painting of a later frame, and at that where it is given. own, wanted: the styles as the
        encoder sees them and as the teacher does. A function of tensors alone, as `Graphs.call` asks for.
        """
        correction, seen = self._compared(painting, own, wanted, before.correction)
        new = Missed(seen, before.missed.frame if frame is None else self.of_frame(frame))
        return Judgement(correction, new.joined(before.missed, _settled) if before.missed.painting else new)

    def _compared(
        self, image: Tensor, own: Statistics, wanted: Statistics, before: Statistics
    ) -> tuple[Statistics, Statistics]:
        assert self._teacher is not None
        found, missed = self._teacher.look(image, own, wanted, self._teacher.places)
        correction = {layer: _settled(new, before[layer]) if layer in before else new for layer, new in found.items()}
        return correction, missed


def _settled(new: Tensor, before: Tensor) -> Tensor:
    """What is found after a look, of what is new and what was known."""
    return new.lerp(before, 1 - _TAKEN)


def _carried(values: Tensor, flow: Tensor, held: Tensor) -> Tensor:
    """Activations (L, C, h, w) moved along the flow of their pictures, as far as it holds."""
    (height, width), size = flow.shape[2:], values.shape[2:]
    across, down = F.interpolate(flow, size=size, mode="area").unbind(1)
    own = torch.stack([across * (size[1] / width), down * (size[0] / height)], dim=1)
    return warp(values, own) * F.interpolate(held, size=size, mode="area").clamp(0, 1)
