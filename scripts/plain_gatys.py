"""Style transfer as every known tool does it, to compare with: torch.optim.LBFGS around a closure written by hand.

float32, the default memory layout, zeros round every layer, and a whole optimiser for each picture. The loss is that of
`nst_video` for a frame without a past but for the range of pixels, so that the results can be compared: content and
style in relative units, total variation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.networks.encoders import Encoder
from nst_video.networks.layers import ENCODER_LAYERS
from nst_video.options import LookOptions

CONTENT_WEIGHT, STYLE_WEIGHT, TV_WEIGHT = 0.05, 1.0, 0.5


@dataclass(frozen=True)
class Layer:
    """One convolution with its ReLU; `pool` before it where `pooled`."""

    name: str
    weight: Tensor
    bias: Tensor
    pooled: bool


def layers_of(encoder: Encoder) -> list[Layer]:
    """The convolutions of one of our VGGs, in float32 and the default layout."""
    names = list(ENCODER_LAYERS[encoder.name])
    network = encoder.network
    found = []
    for name, (position, convolution) in zip(names, network.features.items(), strict=False):  # type: ignore[union-attr, operator]
        weight, bias = (value.detach().float().contiguous().clone() for value in (convolution.weight, convolution.bias))
        found.append(Layer(name, weight, bias, position in network.pooled))  # type: ignore[operator]
    return found


def activations(layers: Sequence[Layer], image: Tensor) -> dict[str, Tensor]:
    """Image (1, 3, H, W) in [0, 1] -> every layer."""
    x, found = image, {}
    for layer in layers:
        if layer.pooled:
            x = F.avg_pool2d(x, 2)
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
        found[layer.name] = x
    return found


def gram(features: Tensor) -> Tensor:
    """(1, N, H, W) -> (N, N)."""
    flat = features.view(features.shape[1], -1)
    return torch.mm(flat, flat.t()) / flat.shape[1]


class PlainGatys:
    """One picture and one style; `solver` begins."""

    def __init__(self, encoder: Encoder, content: Tensor, style: Tensor, look: LookOptions = LookOptions()):
        """content, style: (1, 3, H, W) in [0, 1]."""
        self.layers, self.look, self.content = layers_of(encoder), look, content
        with torch.no_grad():
            self.content_targets = {name: activations(self.layers, content)[name] for name in look.content_layers}
            seen = activations(self.layers, style)
            self.style_targets = {name: gram(seen[name]) for name in look.style_layers}

    def loss(self, image: Tensor) -> Tensor:
        """A number."""
        found = activations(self.layers, image)
        content = torch.stack(
            [F.mse_loss(found[name], target) / target.square().mean() for name, target in self.content_targets.items()]
        ).mean()
        style = torch.stack(
            [
                F.mse_loss(gram(found[name]), target) / target.square().mean()
                for name, target in self.style_targets.items()
            ]
        ).mean()
        across, down = image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]
        tv = (across.square().sum() + down.square().sum()) / (image.shape[2] * image.shape[3])
        return CONTENT_WEIGHT * content + STYLE_WEIGHT * style + TV_WEIGHT * tv


class PlainSolver:
    """torch.optim.LBFGS on the pixels of one picture."""

    def __init__(self, problem: PlainGatys, history: int):
        self.problem = problem
        self.image = problem.content.clone().requires_grad_(True)
        self.evaluations = 0
        self.optimizer = torch.optim.LBFGS(
            [self.image], history_size=history, tolerance_grad=0, tolerance_change=0, max_iter=1
        )

    def fill(self) -> None:
        """Fill the history by iterations on a cheap function, so that the next ones cost what late ones cost."""
        # Badly conditioned, or its minimum would be reached long before the history is full.
        scale = torch.logspace(0, 4, self.image.numel(), device=self.image.device).view_as(self.image)
        target = self.image.detach() + 1.0

        def quadratic() -> Tensor:
            return (scale * (self.image - target).square()).sum()

        self._run(quadratic, self._history + 2)
        kept = len(self.optimizer.state[self.image]["old_dirs"])
        if kept < self._history:
            raise RuntimeError(f"the history has {kept} pairs, not {self._history}")
        self.image.data.copy_(self.problem.content)

    @property
    def _history(self) -> int:
        return int(self.optimizer.param_groups[0]["history_size"])

    def run(self, evaluations: int) -> None:
        """So many evaluations of the loss and its gradient, and as many steps."""

        def loss() -> Tensor:
            self.image.data.clamp_(0, 1)  # as the tutorials do, before every evaluation
            self.evaluations += 1
            return self.problem.loss(self.image)

        self._run(loss, evaluations)

    def _run(self, loss_of: Callable[[], Tensor], evaluations: int) -> None:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            return loss

        group = self.optimizer.param_groups[0]
        group["max_iter"], group["max_eval"] = evaluations, 10 * evaluations
        self.optimizer.step(closure)
