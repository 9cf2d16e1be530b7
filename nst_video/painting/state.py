"""What a stylizer carries from frame to frame."""

from dataclasses import dataclass, field

from torch import Tensor

from nst_video.optimization.curvature import Curvature
from nst_video.optimization.objective import NOTHING, Missed
from nst_video.painting.stepreport import StepReport


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
