"""The loss of one frame at one size, put together from losses.py with the weights that options and controls give."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nst_video.devices.transfer import overwrite, uploaded
from nst_video.networks.encoders import Encoder, mixed
from nst_video.optimization import losses
from nst_video.optimization.direct import NETWORKS, Direct, activations, can_evaluate
from nst_video.options import LookOptions


@dataclass(frozen=True)
class Weights:
    """alpha (content), beta_s (style), lambda_tv (total variation), gamma (temporal) of one frame: a number, on the
    device () or not, or one for each lane (L,).
    """

    content: float | Tensor
    style: float | Tensor
    tv: float | Tensor
    temporal: float | Tensor

    def on(self, device: torch.device) -> "Weights":
        """Numbers as tensors (), taken to a device together."""
        values = uploaded(torch.tensor(list(vars(self).values())), device)
        return Weights(**dict(zip(vars(self), values.unbind(), strict=True)))


@dataclass(frozen=True)
class Past:
    """What was painted before, moved onto this frame: warped (L, J, 3, H, W), and where each holds: trust (L, J, 1,
    H, W) in [0, 1].
    """

    warped: Tensor
    trust: Tensor


@dataclass(frozen=True)
class Missed:
    """What an encoder does not see that its teacher sees: activations (L, C, h, w) by layer, in its basis, to be added
    to its own. painting: of an image that was optimised, so of those near it; also says which style layers are compared
    as the teacher sees them. frame: of the frame it was painted from, for layers of the content.
    """

    painting: dict[str, Tensor] = field(default_factory=dict)
    frame: dict[str, Tensor] = field(default_factory=dict)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Missed":
        """With a function of every tensor in its place."""
        return self.joined(self, lambda own, _: function(own))

    def joined(self, other: "Missed", function: Callable[[Tensor, Tensor], Tensor]) -> "Missed":
        """With a function of every tensor and that of another one."""
        return Missed(
            {layer: function(value, other.painting[layer]) for layer, value in self.painting.items()},
            {layer: function(value, other.frame[layer]) for layer, value in self.frame.items()},
        )


NOTHING = Missed()


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
        missed: Missed = NOTHING,
    ):
        """content: the frame (L, 3, H, W). styles: layer -> target Gram matrix (1 or L, N, N), of what is missed too
        where it is known. missed: at the sizes of the layers.
        """
        self.encoder, self.styles, self.past, self.look, self.missed = encoder, styles, past, look, missed
        # On the device: weights that change from frame to frame are values like all others.
        self.weights = Weights(**{name: _per_lane(weight, content) for name, weight in vars(weights).items()})
        self.normaliser = losses.NORMALISERS[look.loss]
        self.exponent, self.device = look.tv_exponent, content.device
        self.shares = style_shares(look)
        # Whether the gradient is written out.
        self.direct = self.device.type in NETWORKS and type(self) is FrameObjective and can_evaluate(self)
        with torch.no_grad():
            self.seen = self._content_targets(content, look.content_layers)
        self._take_targets()

    def _content_targets(self, content: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """What the layers see in the frame, in the basis of the encoder."""
        on_gpu = self.direct and content.is_cuda
        features = activations(self.encoder, content, layers) if on_gpu else self._seen(content)
        return {layer: in_basis(self.encoder, features, layer) for layer in layers}

    @torch.no_grad()
    def _take_targets(self) -> None:
        """What the frame's activations are and, where the gradient is written out, what squared distances are to be
        multiplied with, the weights included: the same for all images.
        """
        missed = self.missed.frame
        self.targets = {layer: own + missed[layer] if layer in missed else own for layer, own in self.seen.items()}
        self.style_factors = self.content_factors = torch.zeros(0, device=self.device)
        if self.direct:
            wanted, rule, weights = list(self.targets.values()), self.normaliser, self.weights
            shares = [share / rule.style_energy(self.styles[layer]) for layer, share in self.shares.items()]
            self.style_factors = torch.stack([share * weights.style for share in shares])
            means = [1 / (rule.content_energy(target) * len(wanted) * target[0].numel()) for target in wanted]
            self.content_factors = torch.stack([mean * weights.content for mean in means])

    @property
    def written_out(self) -> Direct | None:
        """This loss with its gradient, where that is written out."""
        return Direct(self) if self.direct else None

    def basis(self, layer: str) -> Tensor | None:
        """(C, C), in which distances of this layer are meant; None where it is as it is."""
        bases: Mapping[str, Tensor] = self.encoder.bases  # type: ignore[assignment]
        return bases.get(layer)

    def structure(self) -> Hashable:
        """What is fixed about this loss: two that are equal here differ in nothing but the values of `tensors`."""
        shapes = tuple((name, value.shape, value.dtype, value.device) for name, value in self.tensors().items())
        return type(self), id(self.encoder), self.look, shapes

    def tensors(self) -> dict[str, Tensor]:
        """All values of the frame that the loss depends on, by name."""
        found = {f"weight {name}": value for name, value in vars(self.weights).items()}
        found |= {f"style {layer}": value for layer, value in self.styles.items()}
        found |= {f"content {layer}": value for layer, value in self.targets.items()}
        found |= {"style factors": self.style_factors, "content factors": self.content_factors}
        found |= {f"missed {layer}": value for layer, value in self.missed.painting.items()}
        return found if self.past is None else found | vars(self.past)

    def holding(self) -> "FrameObjective":
        """The same with copies of its tensors, to be written to by `take`."""
        other = copy(self)
        other.weights = Weights(**{name: value.clone() for name, value in vars(self.weights).items()})
        other.styles = {layer: value.clone() for layer, value in self.styles.items()}
        other.targets, other.seen = {layer: value.clone() for layer, value in self.targets.items()}, {}
        other.style_factors, other.content_factors = self.style_factors.clone(), self.content_factors.clone()
        other.missed = self.missed.mapped(torch.clone)
        other.past = self.past and Past(self.past.warped.clone(), self.past.trust.clone())
        return other

    def take(self, other: "FrameObjective") -> None:
        """Become `other`, which has the same structure, by overwriting every tensor."""
        overwrite(self.tensors().values(), other.tensors().values())

    def aimed_at(self, styles: Mapping[str, Tensor], missed: Missed | None = None) -> "FrameObjective":
        """The same with other target Gram matrices (1 or L, N, N), and with something else missed where it is given."""
        other = copy(self)
        other.styles, other.missed = styles, self.missed if missed is None else missed
        other._take_targets()
        return other

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Total (L,) and its weighted terms by name."""
        features = self._seen(image)
        found = {layer: self._statistics(features, layer) for layer in self.shares}
        terms = {
            "content": self.weights.content * self._content(features),
            "style": self.weights.style * self._style_of(found),
        } | self.pixel_terms(image)
        return torch.stack(list(terms.values())).sum(0), terms

    def _seen(self, image: Tensor) -> dict[str, Tensor]:
        """Activations of the encoder; on CUDA as they were computed: copies in float32 take as long as convolutions."""
        return self.encoder(image, native=True) if image.is_cuda else self.encoder(image)

    def pixel_terms(self, image: Tensor) -> dict[str, Tensor]:
        """The weighted terms that need no network."""
        terms = {
            "tv": self.weights.tv * losses.total_variation(image, self.exponent),
            "range": self.normaliser.range_weight * losses.out_of_range(image),
        }
        if self.past is not None:
            terms["temporal"] = self.weights.temporal * losses.temporal(image, self.past.warped, self.past.trust)
        return terms

    def _completed(self, features: Mapping[str, Tensor], layer: str) -> Tensor:
        """Activations in the encoder's basis with what it misses of them, as far as that is known."""
        own, missed = in_basis(self.encoder, features, layer), self.missed.painting
        return own + missed[layer] if layer in missed else own

    def _statistics(self, features: Mapping[str, Tensor], layer: str) -> Tensor:
        if layer in self.missed.painting:
            return losses.gram(self._completed(features, layer)).mean
        return style_statistics(self.encoder, features, layer)

    def _content(self, features: Mapping[str, Tensor]) -> Tensor:
        compare = self.normaliser.content
        each = [compare(self._completed(features, layer), target) for layer, target in self.targets.items()]
        return torch.stack(each).mean(0)

    def _style_of(self, found: Mapping[str, Tensor]) -> Tensor:
        """Of the mean Gram matrix (L, N, N) of each style layer."""
        compare = self.normaliser.style
        each = [share * compare(found[layer], self.styles[layer]) for layer, share in self.shares.items()]
        return torch.stack(each).sum(0)


def _per_lane(weight: float | Tensor, content: Tensor) -> Tensor:
    """A weight for each lane of content (L, 3, H, W), (L,)."""
    if isinstance(weight, Tensor):
        return weight.to(content).expand(len(content))
    return torch.full((len(content),), weight, device=content.device)


def in_basis(encoder: Encoder, features: Mapping[str, Tensor], layer: str) -> Tensor:
    """Activations (L, C, h, w) of `layer` in the encoder's basis, in which distances are meant, float32."""
    found = features[layer].float()
    return mixed(encoder.bases[layer], found) if layer in encoder.bases else found


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
