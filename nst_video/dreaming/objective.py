"""How much of what is to be dreamed is in a picture, and the gradient of that."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.dreaming.specs import LayerSpec
from nst_video.media.survey import GUIDE_SIDE
from nst_video.networks.encoders import Encoder

_CHUNK = 4096  # places of a picture that are compared with a guide at a time
_NOTHING = 1e-20


def activation(features: Tensor) -> Tensor:
    """1/2 mean F^2 of (L, C, h, w), one value per lane (Mordvintsev et al. 2015; the mean in place of the sum)."""
    return features.square().mean((1, 2, 3)) / 2


def guided(features: Tensor, guide: Tensor) -> Tensor:
    """Mean over places i of max_j <F_i, G_j> / C, one value per lane.

    features (L, C, h, w), guide (C, M): each place grows towards the place of the guide whose activations it has the
    largest dot product with, as in the notebook of 2015.
    """
    places = features.flatten(2).mT  # (L, h w, C)
    with torch.no_grad():
        best = torch.cat([(part @ guide).argmax(2) for part in places.split(_CHUNK, dim=1)], dim=1)
    return (places * guide.T[best]).mean((1, 2))


class DreamObjective:
    """The activations that are to grow: 1/2 mean F_l^2 of each spec, or with a guide how well each place fits it.

    Several specs are joined as sum_l w_l log E_l. For one alone that has the direction of E_l itself, which is all that
    a normalised step knows; for several it makes the weights mean the same at layers whose activations differ a
    hundredfold, as those of neighbouring blocks of VGG do.
    """

    def __init__(self, encoder: Encoder, specs: Sequence[LayerSpec], guide: Tensor | None = None):
        """guide: (1, 3, h, w) in [0, 1] at any size, or None."""
        self.encoder, self.specs = encoder, tuple(specs)
        self._guides = None if guide is None else self._guide_features(guide)

    @torch.no_grad()
    def _guide_features(self, guide: Tensor) -> list[Tensor]:
        """(C, M) for each spec."""
        height, width = guide.shape[-2:]
        factor = max(GUIDE_SIDE / max(height, width), self.encoder.smallest_side / min(height, width))
        size = (round(height * factor), round(width * factor))
        small = F.interpolate(guide, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        features = self.encoder(small)
        return [features[spec.layer][0, spec.channels].flatten(1) for spec in self.specs]

    def terms(self, image: Tensor) -> Tensor:
        """E_l of each spec, without its weight: (L, 3, h, w) -> (specs, L)."""
        features: Mapping[str, Tensor] = self.encoder(image)
        chosen = [features[spec.layer][:, spec.channels] for spec in self.specs]
        if self._guides is None:
            return torch.stack([activation(found) for found in chosen])
        return torch.stack([guided(found, guide) for found, guide in zip(chosen, self._guides, strict=True)])

    def gradient(
        self, image: Tensor, weights: Sequence[float], relative_to: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradient (L, 3, h, w) of sum_l w_l log E_l, and E (specs, L), at `image`.

        relative_to: E of the whole picture (specs, L), where `image` is a part of one.
        """
        with torch.enable_grad():
            x = image.detach().requires_grad_()
            terms = self.terms(x)
            whole = (terms.detach() if relative_to is None else relative_to).clamp_min(_NOTHING)
            joined = (terms.new_tensor(weights)[:, None] * terms / whole).sum()
            (gradient,) = torch.autograd.grad(joined, x)
        return gradient, terms.detach()
