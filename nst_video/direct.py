"""The loss of a frame and its gradient on a GPU, written out: the same numbers as objective.py and autograd give, in a
tenth of the steps.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.encoders import Encoder, Vgg
from nst_video.kernels import kernels
from nst_video.padded import Seen, padded

if TYPE_CHECKING:
    from nst_video.objective import FrameObjective


def can_evaluate(objective: "FrameObjective") -> bool:
    """Whether this loss is one of those that are written out here."""
    network = getattr(objective.encoder, "network", None)
    return (
        isinstance(network, Vgg)
        and network.padding == "replicate"
        and network.pool is F.avg_pool2d
        and objective.exponent == 1.0
    )


def positions(encoder: Encoder) -> dict[str, str]:
    """Layer -> its position in the network, which is a Vgg."""
    assert isinstance(encoder.network, Vgg)
    return {
        layer: module.removeprefix("features.") for module, layers in encoder.network.taps.items() for layer in layers
    }


def activations(encoder: Encoder, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """What some layers of a Vgg see in images (L, 3, H, W), as `Direct` compares it with: float32 (L, C, h, w)."""
    where = {layer: position for layer, position in positions(encoder).items() if layer in layers}
    seen = padded(encoder, frozenset(), frozenset(where.values())).see(image)
    return {layer: seen.features[position].float() for layer, position in where.items()}


class Direct:
    """The loss of a FrameObjective, whose tensors are read at every call."""

    def __init__(self, objective: "FrameObjective") -> None:
        """objective: one that `can_evaluate`."""
        self.objective = objective
        self.position = positions(objective.encoder)
        asked = (objective.shares, objective.targets)
        styles, contents = (frozenset(self.position[name] for name in layers) for layers in asked)
        self.network = padded(objective.encoder, styles, contents)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Total (L,) at an image (L, 3, H, W), its gradient, and the weighted terms by name."""
        seen = self.network.see(image)
        style, slopes = self._style(seen)
        content, gradients = self._content(seen)
        gradient = self.network.back(seen, slopes, gradients)
        terms = {"content": content, "style": style} | self._pixels(image, gradient)
        return torch.stack(list(terms.values())).sum(0), gradient, terms

    def _style(self, seen: Seen) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted term, and twice its gradient by the sums F F' of each layer."""
        objective = self.objective
        short, norms, factors = {}, [], []
        for layer, share in objective.shares.items():
            position, basis, target = self.position[layer], objective.basis(layer), objective.styles[layer]
            sums, places = seen.sums[position], self._places(seen, position)
            if basis is not None:
                sums = basis @ sums @ basis.mT
            short[layer] = torch.add(target, sums, alpha=-1 / places)  # what is missing to the target
            norms.append(torch.linalg.vector_norm(short[layer], dim=(1, 2)))
            factors.append(share / objective.style_energies[layer].expand(len(sums)))
        scaled = objective.weights.style * torch.stack(factors)
        style = (scaled * torch.stack(norms).square()).sum(0)
        slopes = {}
        for layer, factor in zip(short, scaled, strict=True):
            position, basis = self.position[layer], objective.basis(layer)
            slope = short[layer] * (-4 / self._places(seen, position) * factor)[:, None, None]
            slopes[position] = slope if basis is None else basis.mT @ slope @ basis
        return style, slopes

    @staticmethod
    def _places(seen: Seen, position: str) -> int:
        height, width = seen.sizes[position]
        return height * width

    def _content(self, seen: Seen) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted term, and its gradient by the activations of each layer."""
        objective, each, gradients = self.objective, [], {}
        for layer, target in objective.targets.items():
            position, basis = self.position[layer], objective.basis(layer)
            features = seen.features[position].float()
            if basis is not None:
                features = torch.einsum("ij,ljhw->lihw", basis, features)
            gap = features - target
            factor = objective.weights.content / (
                objective.content_energies[layer] * (len(objective.targets) * target[0].numel())
            )
            each.append(factor * torch.linalg.vector_norm(gap, dim=(1, 2, 3)).square())
            gradient = gap * (2 * factor)[:, None, None, None]
            gradients[position] = gradient if basis is None else torch.einsum("ij,lihw->ljhw", basis, gradient)
        return torch.stack(each).sum(0), gradients

    def _pixels(self, image: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """The terms that need no network; their gradient is added to the one given."""
        objective, single = self.objective, kernels("borders_triton", image.device)
        if single is None:
            leaf = image.detach().requires_grad_(True)
            with torch.enable_grad():
                terms = objective.pixel_terms(leaf)
                (own,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaf)
            gradient += own
            return {name: value.detach() for name, value in terms.items()}
        past = objective.past
        found = single.add_pixel_terms(
            gradient,
            image,
            past and (past.warped, past.trust),
            tv=objective.weights.tv,
            temporal=objective.weights.temporal,
            range_weight=objective.normaliser.range_weight,
        )
        names = ("tv", "range") if past is None else ("tv", "range", "temporal")
        return dict(zip(names, found, strict=False))
