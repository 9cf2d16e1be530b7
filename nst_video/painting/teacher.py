"""The network that a small encoder was distilled from, asked now and then, to correct what the small one gets wrong.

A distilled encoder is nearly right, and an optimiser finds where it is not: at the end its own Gram matrices agree with
the style's and the teacher's do not. So after some evaluations both look at the picture, and the target of the small
one is moved by what it has misjudged. This is the correction of a cheap model by an expensive one that is known as
output space mapping (Bandler et al. 2004, "Space mapping: the state of the art", section IX); the teacher is never
differentiated and looks only once in many evaluations.

In a deep layer a small network misjudges most, and place by place. There what the teacher sees beyond it is added to
its activations: near the picture that was looked at the loss is the teacher's, and only the way back is its own.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.errors import ResourceError
from nst_video.networks.encoders import Encoder, load_encoder, mixed
from nst_video.optimization.objective import in_basis, style_of
from nst_video.optimization.tiled import gram_sums, view
from nst_video.options import LookOptions

Statistics = dict[str, Tensor]  # layer of the small encoder -> Gram matrix (L or 1, C, C) in its basis


class Teacher:
    """Gram matrices and activations as the teacher sees them, in the basis of its pupil."""

    def __init__(
        self,
        encoder: Encoder,
        pupil: Encoder,
        layers: Iterable[str],
        *,
        places: Iterable[str] = (),
        tile: int | None = None,
    ) -> None:
        """encoder: the teacher. pupil: the encoder that was distilled from it. layers: those of the pupil to judge by
        their Gram matrices. places: those to judge place by place. tile: long side of the parts in which larger
        pictures are looked at, in pixels.
        """
        self.encoder, self.pupil, self.tile = encoder, pupil, tile
        self.origins = {layer: pupil.origins[layer] for layer in layers if layer in pupil.origins}
        self.places = {layer: pupil.origins[layer] for layer in places if layer in pupil.origins}

    @torch.no_grad()
    def statistics(self, image: Tensor, tile: int | None = None) -> Statistics:
        """P G P' of every layer to judge, for images (L, 3, H, W). tile: instead of that of all pictures."""
        layers = [origin.layer for origin in self.origins.values()]
        found = gram_sums(self.encoder, image, layers, tile or self.tile)
        return {
            layer: origin.projection @ found[origin.layer].mean @ origin.projection.mT
            for layer, origin in self.origins.items()
        }

    @torch.no_grad()
    def look(
        self, image: Tensor, targets: Mapping[str, Tensor], wanted: Mapping[str, Tensor], places: Iterable[str]
    ) -> tuple[Statistics, dict[str, Tensor]]:
        """What to add to `targets`, the style's Gram matrices as the pupil sees them, near `image` (L, 3, H, W); and
        what the pupil misses of it, (L, C, h, w) in its basis, for those of the `places` that the teacher judges.

        wanted: the targets as the teacher sees them. An image that reaches the sum for the pupil reaches `wanted` for
        the teacher, as long as the pupil misjudges it as it misjudges `image`.
        """
        by_place = {layer: self.places[layer] for layer in places if layer in self.places}
        own, found = view(self.pupil, image, wanted, by_place, self.tile)
        origins = [origin.layer for origin in by_place.values()]
        theirs, seen = view(self.encoder, image, [self.origins[layer].layer for layer in wanted], origins, self.tile)
        correction = {}
        for layer, target in wanted.items():
            projection, mean = self.origins[layer].projection, theirs[self.origins[layer].layer].mean
            misjudged = style_of(self.pupil, own[layer].mean, layer) - projection @ mean @ projection.mT
            correction[layer] = misjudged - (targets[layer] - target)
        missed = {
            layer: _beyond(mixed(origin.projection, seen[origin.layer]), in_basis(self.pupil, found, layer))
            for layer, origin in by_place.items()
        }
        return correction, missed


def _beyond(seen: Tensor, own: Tensor) -> Tensor:
    """What a teacher sees (L, C, h', w') and its pupil (L, C, h, w) does not, at the pupil's places."""
    if seen.shape != own.shape:  # networks without borders have fewer places
        seen = F.interpolate(seen, size=own.shape[2:], mode="bilinear")
    return seen - own


def places_of(pupil: Encoder, look: LookOptions) -> tuple[str, ...]:
    """The layers of which it is worth knowing place by place what a pupil misses: those of the content, and of the
    style the widest, which is the deepest. There what it sees leads an optimiser least to what the teacher sees.
    """
    styles = [layer for layer in look.style_layers if layer in pupil.origins]
    deepest = sorted(styles, key=lambda layer: len(pupil.origins[layer].projection))[-1:]
    contents = (layer for layer in look.content_layers if layer in pupil.origins)
    return tuple(dict.fromkeys((*deepest, *contents)))


def load_teacher(
    pupil: Encoder,
    layers: Iterable[str],
    *,
    places: Iterable[str] = (),
    precision: str = "fp32",
    offline: bool = False,
    tile: int | None = None,
) -> Teacher | None:
    """The teacher of an encoder for some of its layers, on its device; None where it has none. places, tile: see
    Teacher.

    ResourceError when the teacher's weights are not to be had.
    """
    taught, by_place = ([layer for layer in some if layer in pupil.origins] for some in (layers, places))
    if not taught:
        return None
    origins = [pupil.origins[layer] for layer in (*taught, *by_place)]
    name, device = origins[0].teacher, origins[0].projection.device
    layers = list(dict.fromkeys(origin.layer for origin in origins))
    try:
        encoder = load_encoder(name, layers, device=device, precision=precision, offline=offline)
    except ResourceError as error:
        raise ResourceError(
            f"{name}, the teacher of {pupil.name}, is not to be had; --teacher off does without: {error}"
        ) from error
    return Teacher(encoder, pupil, taught, places=by_place, tile=tile)
