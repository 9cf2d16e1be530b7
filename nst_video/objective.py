"""The loss of one frame at one size, put together from losses.py with the weights that options and controls give."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_video import losses
from nst_video.encoders import Encoder
from nst_video.options import LookOptions


@dataclass(frozen=True)
class Weights:
    """alpha (content), beta_s (style), lambda_tv (total variation), gamma (temporal) of one frame."""

    content: float
    style: float
    tv: float
    temporal: float


@dataclass(frozen=True)
class Past:
    """What was painted before, moved onto this frame: warped (L, J, 3, H, W), and where each holds: trust (L, J, 1,
    H, W) in [0, 1].
    """

    warped: Tensor
    trust: Tensor


class FrameObjective:
    """E = alpha content + beta_s style + lambda_tv TV + gamma temporal + range, a value per lane; called with an
    image (L, 3, H, W).

    content is averaged and style weighted over their layers. Gatys et al. 2016, eq. 7, with the temporal term of
    Ruder et al. 2016, eq. 7, and a departure from both: pixels outside [0, 1] are penalised, because what is clipped
    on writing has been optimised for nothing.
    """

    def __init__(
        self,
        encoder: Encoder,
        look: LookOptions,
        *,
        content: Tensor,
        styles: Mapping[str, Tensor],
        weights: Weights,
        past: Past | None = None,
    ):
        """content: the frame (L, 3, H, W). styles: layer -> target Gram matrix (1 or L, N, N)."""
        self.encoder, self.styles, self.weights, self.past = encoder, styles, weights, past
        self.normaliser = losses.NORMALISERS[look.loss]
        self.exponent = look.tv_exponent
        self.shares = style_shares(look)
        with torch.no_grad():
            self.targets = self._content_targets(content, look.content_layers)

    def _content_targets(self, content: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """What the layers see in the frame, in the basis of the encoder."""
        features = self.encoder(content)
        return {layer: in_basis(self.encoder, features, layer) for layer in layers}

    def aimed_at(self, styles: Mapping[str, Tensor]) -> "FrameObjective":
        """The same with other target Gram matrices (1 or L, N, N)."""
        other = copy(self)
        other.styles = styles
        return other

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Total (L,) and its weighted terms by name."""
        features = self.encoder(image)
        found = {layer: style_statistics(self.encoder, features, layer) for layer in self.shares}
        terms = {
            "content": self.weights.content * self._content(features),
            "style": self.weights.style * self._style_of(found),
        } | self._pixel_terms(image)
        return torch.stack(list(terms.values())).sum(0), terms

    def _pixel_terms(self, image: Tensor) -> dict[str, Tensor]:
        """The weighted terms that need no network."""
        terms = {
            "tv": self.weights.tv * losses.total_variation(image, self.exponent),
            "range": self.normaliser.range_weight * losses.out_of_range(image),
        }
        if self.past is not None:
            terms["temporal"] = self.weights.temporal * losses.temporal(image, self.past.warped, self.past.trust)
        return terms

    def _content(self, features: Mapping[str, Tensor]) -> Tensor:
        compare = self.normaliser.content
        each = [compare(in_basis(self.encoder, features, layer), target) for layer, target in self.targets.items()]
        return torch.stack(each).mean(0)

    def _style_of(self, found: Mapping[str, Tensor]) -> Tensor:
        """Of the mean Gram matrix (L, N, N) of each style layer."""
        compare = self.normaliser.style
        each = [share * compare(found[layer], self.styles[layer]) for layer, share in self.shares.items()]
        return torch.stack(each).sum(0)


def in_basis(encoder: Encoder, features: Mapping[str, Tensor], layer: str) -> Tensor:
    """Activations (L, C, h, w) of `layer` in the encoder's basis, in which distances are meant."""
    found = features[layer]
    return torch.einsum("ij,ljhw->lihw", encoder.bases[layer], found) if layer in encoder.bases else found


def style_statistics(encoder: Encoder, features: Mapping[str, Tensor], layer: str) -> Tensor:
    """Mean Gram matrix (L, C, C) of `layer` in the encoder's basis."""
    return style_of(encoder, losses.gram(features[layer]).mean, layer)


def style_of(encoder: Encoder, mean: Tensor, layer: str) -> Tensor:
    """A mean Gram matrix (L, C, C) of `layer` in the encoder's basis: B G B' costs nothing beside G = F F' / M."""
    return encoder.bases[layer] @ mean @ encoder.bases[layer].mT if layer in encoder.bases else mean


def style_shares(look: LookOptions) -> dict[str, float]:
    """lambda_l of every style layer, summing to 1."""
    given = look.style_layer_weights or (1.0,) * len(look.style_layers)
    return {layer: weight / sum(given) for layer, weight in zip(look.style_layers, given, strict=True)}
