"""What paintings are to look like: the Gram matrices of a mix of style pictures, beside frames of any size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nst_video.networks.encoders import Encoder
from nst_video.optimization.objective import Missed, style_of
from nst_video.optimization.tiled import gram_sums
from nst_video.optimization.tiles import ALIGNED, can_be_cut
from nst_video.options import LookOptions
from nst_video.painting.scales import resize
from nst_video.painting.teacher import Statistics, Teacher

_PART = 640  # pixels along a side of a style picture that are always looked at in one piece


class StyleTargets:
    """The mix, as the encoder sees it and as its teacher does. Each size is looked at once."""

    def __init__(
        self,
        encoder: Encoder,
        styles: Sequence[tuple[Tensor, float]],
        look: LookOptions,
        *,
        teacher: Teacher | None = None,
        tile: int | None = None,
    ) -> None:
        """styles: (image (1, 3, h, w) in [0, 1] at its own size, weight) each. tile: long side of the parts in which
        the loss is taken.
        """
        self._encoder, self._teacher, self._look, self._tile = encoder, teacher, look, tile
        self.pictures = [image for image, _ in styles]
        self._shares = [weight / sum(weight for _, weight in styles) for _, weight in styles]
        self.smallest_side = max(network.smallest_side for network in (encoder, teacher and teacher.encoder) if network)
        self._seen: dict[tuple[int, bool], Statistics] = {}

    def beside(self, image: Tensor, *, taught: bool = False) -> Statistics:
        """layer -> (1, N, N), of the size that the style has beside an image (L, 3, H, W); `taught`: as the teacher
        sees them.
        """
        side = max(self.smallest_side, round(max(image.shape[-2:]) * self._look.style_scale))
        if (side, taught) not in self._seen:
            tile = self._part(image)
            each = [self._statistics(self._at(picture, side), taught, tile) for picture in self.pictures]
            self._seen[side, taught] = {
                layer: torch.stack([share * of[layer] for share, of in zip(self._shares, each, strict=True)]).sum(0)
                for layer in each[0]
            }
        return self._seen[side, taught]

    def completed(self, image: Tensor, missed: Missed) -> Statistics:
        """The same, as the teacher sees them in layers of which it is known what is missed."""
        styles = self.beside(image)
        layers = styles.keys() & missed.painting.keys()
        taught = self.beside(image, taught=True) if layers else {}
        return styles | {layer: taught[layer] for layer in layers}

    def _at(self, style: Tensor, long_side: int) -> Tensor:
        """A style picture with this long side, or larger where the encoder needs it."""
        height, width = style.shape[-2:]
        factor = max(long_side / max(height, width), self.smallest_side / min(height, width))
        return resize(style, (round(height * factor), round(width * factor)))

    def _part(self, image: Tensor) -> int | None:
        """The long side of the parts in which style pictures are looked at beside `image`: of more pixels than that
        has, such as of squares beside wide frames or with a large scale, no memory has been planned for.
        """
        if not can_be_cut(self._encoder.name, self._encoder.layers):
            return self._tile
        side = max(_PART, math.isqrt(image.shape[-2] * image.shape[-1]) // ALIGNED * ALIGNED)
        return min(side, self._tile or side)

    @torch.no_grad()
    def _statistics(self, style: Tensor, taught: bool, tile: int | None) -> Statistics:
        if taught and self._teacher:
            return self._teacher.statistics(style, tile)
        found = gram_sums(self._encoder, style, self._look.style_layers, tile)
        return {layer: style_of(self._encoder, gram.mean, layer) for layer, gram in found.items()}
