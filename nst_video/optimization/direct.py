"""The loss of a frame and its gradient, written out: the same numbers as objective.py and autograd give, in a tenth of
the steps on a GPU, and with less to read and write on a CPU.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices.kernels import kernels
from nst_video.networks.encoders import Encoder, mixed
from nst_video.networks.inplace import InplaceVgg
from nst_video.networks.padded import PaddedVgg, Seen
from nst_video.networks.vgg import Vgg
from nst_video.optimization import pixels

if TYPE_CHECKING:
    from nst_video.optimization.objective import FrameObjective

# Type of device -> the network whose way back is written out for it; others (Apple's) are left to autograd.
NETWORKS: dict[str, type[InplaceVgg] | type[PaddedVgg]] = {"cpu": InplaceVgg, "cuda": PaddedVgg}


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
    """What layers of a Vgg see in images (L, 3, H, W) on a GPU, that `Direct` compares with: float32 (L, C, h, w)."""
    where = {layer: position for layer, position in positions(encoder).items() if layer in layers}
    network = prepared(encoder, frozenset(), frozenset(where.values()), PaddedVgg)
    seen = network.see(image)
    return {layer: network.activations(seen, position).float() for layer, position in where.items()}


def prepared(
    encoder: Encoder, sums: frozenset[str], features: frozenset[str], network: type[InplaceVgg] | type[PaddedVgg]
) -> InplaceVgg | PaddedVgg:
    """The network of an encoder which has a Vgg, for what is asked of its layers by position; made once."""
    if (network, sums, features) not in encoder.prepared:
        assert isinstance(encoder.network, Vgg)
        encoder.prepared[network, sums, features] = network(encoder.network, sums, features)
    made: InplaceVgg | PaddedVgg = encoder.prepared[network, sums, features]
    return made


class Direct:
    """The loss of a FrameObjective, whose tensors are read at every call."""

    def __init__(self, objective: "FrameObjective", network: type[InplaceVgg] | type[PaddedVgg] | None = None) -> None:
        """objective: one that `can_evaluate`. network: instead of its device's own."""
        self.objective = objective
        self.position = positions(objective.encoder)
        # What is missed is added to activations, so they are asked for instead of their sums.
        self.completed = [layer for layer in objective.shares if layer in objective.missed.painting]
        asked = (objective.shares.keys() - self.completed, {*objective.targets, *self.completed})
        sums, features = (frozenset(self.position[name] for name in layers) for layers in asked)
        network = network or NETWORKS[objective.device.type]
        self.network = prepared(objective.encoder, sums, features, network)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Total (L,) at an image (L, 3, H, W), its gradient, and the weighted terms by name."""
        seen = self.network.see(image)
        completed = {layer: self._completed(seen, layer) for layer in self.completed}
        style, slopes = self._style(seen, completed)
        content, gradients = self._content(seen)
        for layer, features in completed.items():
            own = self._taken_back(layer, features, slopes.pop(self.position[layer]))
            gradients[self.position[layer]] = own + gradients.get(self.position[layer], 0)
        gradient = self.network.back(seen, slopes, gradients)
        terms = {"content": content, "style": style} | self._pixels(image, gradient)
        return torch.stack(list(terms.values())).sum(0), gradient, terms

    def _completed(self, seen: Seen, layer: str) -> Tensor:
        """Activations (L, C, h, w) in the encoder's basis with what it misses of them, as far as that is known."""
        objective, basis = self.objective, self.objective.basis(layer)
        features = self.network.activations(seen, self.position[layer]).float()
        if basis is not None:
            features = mixed(basis, features)
        missed = objective.missed.painting
        return features + missed[layer] if layer in missed else features

    def _taken_back(self, layer: str, features: Tensor, slope: Tensor) -> Tensor:
        """The gradient by the encoder's own activations, of `_completed` ones of which twice that by the sums is
        `slope`.
        """
        gradient = (slope @ features.flatten(2)).view_as(features)
        basis = self.objective.basis(layer)
        return gradient if basis is None else mixed(basis.mT, gradient)

    def _style(self, seen: Seen, completed: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted term, and twice its gradient by the sums F F' of each layer, in the basis where `completed`."""
        objective, matrices = self.objective, []
        for layer in objective.shares:
            position, basis = self.position[layer], self._basis(layer, completed)
            height, width = seen.sizes[position]
            if layer in completed:
                flat = completed[layer].flatten(2)
                sums, exact = flat @ flat.mT, torch.float32
            elif basis is not None:
                sums, exact = basis @ seen.sums[position] @ basis.mT, torch.float32
            else:
                sums, exact = seen.sums[position], self.network.dtype
            matrices.append(Matrices(sums, objective.styles[layer], 1 / (height * width), exact))
        single = kernels("optimization.losses_triton", objective.style_factors.device)
        term, found = (single.style if single else _style)(matrices, objective.style_factors)
        slopes = {}
        for layer, slope in zip(objective.shares, found, strict=True):
            basis = self._basis(layer, completed)
            slopes[self.position[layer]] = slope if basis is None else basis.mT @ slope @ basis
        return term, slopes

    def _basis(self, layer: str, completed: Mapping[str, Tensor]) -> Tensor | None:
        """In which the sums of a layer are yet to be seen."""
        return None if layer in completed else self.objective.basis(layer)

    def _content(self, seen: Seen) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted term, and its gradient by the activations of each layer, or by their buffer."""
        objective, each, gradients = self.objective, [], {}
        single = kernels("optimization.losses_triton", objective.content_factors.device)
        for (layer, target), factor in zip(objective.targets.items(), objective.content_factors, strict=True):
            position, basis = self.position[layer], objective.basis(layer)
            if single and basis is None and layer not in objective.missed.painting:
                term, gradients[position] = single.content(seen.buffers[position], target, factor)
            else:
                gap = self._completed(seen, layer) - target
                term = factor * torch.linalg.vector_norm(gap, dim=(1, 2, 3)).square()
                gradient = gap * (2 * factor)[:, None, None, None]
                gradients[position] = gradient if basis is None else mixed(basis.mT, gradient)
            each.append(term)
        return sum(each[1:], start=each[0]), gradients

    def _pixels(self, image: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """The terms that need no network; their gradient is added to the one given."""
        objective, past = self.objective, self.objective.past
        found = (kernels("networks.borders_triton", image.device) or pixels).add_pixel_terms(
            gradient,
            image,
            past and (past.warped, past.trust),
            tv=objective.weights.tv,
            temporal=objective.weights.temporal,
            range_weight=objective.normaliser.range_weight,
        )
        names = ("tv", "range") if past is None else ("tv", "range", "temporal")
        return dict(zip(names, found, strict=False))


class Matrices(NamedTuple):
    """What the style of a layer is judged by: share * sums (L, N, N) against a target (1 or L, N, N), and the number
    format that the slope is asked for in.
    """

    sums: Tensor
    target: Tensor
    share: float
    exact: torch.dtype


def _style(matrices: Iterable[Matrices], factors: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Squared distances times factors (layers, L), together (L,), and for each layer twice the gradient by its sums."""
    term, slopes = torch.zeros_like(factors[0]), []
    for (sums, target, share, exact), factor in zip(matrices, factors, strict=True):
        gap = torch.sub(target, sums, alpha=share)
        term += factor * torch.linalg.vector_norm(gap, dim=(1, 2)).square()
        slopes.append(gap.mul_((-4 * share * factor)[:, None, None]).to(exact))
    return term, slopes
