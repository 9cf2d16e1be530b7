"""The loss and gradient of a picture that is too large for memory, tile by tile: the same as in one piece.

The Gram matrices of the whole picture are the sums of those of its tiles. So a first pass without gradients adds them
up; they say what the loss is and how it changes with each entry of each matrix; and a second pass takes that back
through one tile after the other. What is kept for the way back is that of one tile, whatever the picture's size.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from nst_video.networks.encoders import Encoder
from nst_video.optimization import losses
from nst_video.optimization.losses import Gram
from nst_video.optimization.objective import FrameObjective, in_basis, style_of
from nst_video.optimization.tiles import Cell, cells, grid_of, overlap_of, stride_of


@dataclass(frozen=True)
class Tile:
    """A part of a picture, and what of it belongs to no other part."""

    rows: Cell
    columns: Cell

    def of(self, image: Tensor) -> Tensor:
        """The tile of pictures (L, C, H, W), as a view."""
        return image[..., self.rows.start : self.rows.end, self.columns.start : self.columns.end]

    def own(self, features: Tensor, stride: int) -> Tensor:
        """Of the activations of the tile (L, C, h, w), `stride` pixels apart, those that are its own, as a view."""
        down, across = (slice((c.first - c.start) // stride, -(-(c.last - c.start) // stride)) for c in self._sides)
        return features[..., down, across]

    def place(self, features: Tensor, stride: int) -> Tensor:
        """Of the activations of the whole picture those that are the tile's own, as a view."""
        down, across = (slice(c.first // stride, -(-c.last // stride)) for c in self._sides)
        return features[..., down, across]

    @property
    def _sides(self) -> tuple[Cell, Cell]:
        return self.rows, self.columns


def tiles(encoder: Encoder, size: tuple[int, int], tile: int | None) -> list[Tile]:
    """A picture of (H, W) in tiles of at most `tile` pixels a side; None, or a small picture: in one."""
    if tile is None or max(size) <= tile:
        return [Tile(*(Cell(0, length, 0, length) for length in size))]
    overlap, grid = overlap_of(encoder.name, encoder.layers), grid_of(encoder.name, encoder.layers)
    return [Tile(*sides) for sides in product(*(cells(length, tile, overlap, grid) for length in size))]


@torch.no_grad()
def gram_sums(encoder: Encoder, image: Tensor, layers: Iterable[str], tile: int | None = None) -> dict[str, Gram]:
    """Gram sums of the layers for pictures (L, 3, H, W), taken tile by tile."""
    return view(encoder, image, layers, (), tile)[0]


@torch.no_grad()
def view(
    encoder: Encoder, image: Tensor, sums: Iterable[str], places: Iterable[str], tile: int | None = None
) -> tuple[dict[str, Gram], dict[str, Tensor]]:
    """Gram sums of some layers for pictures (L, 3, H, W), and the activations (L, C, h, w) of others, taken tile by
    tile.
    """
    parts, sums, places = tiles(encoder, (image.shape[2], image.shape[3]), tile), tuple(sums), tuple(places)
    if len(parts) == 1:
        features = encoder(image, layers=(*sums, *places), native=image.is_cuda)
        found = {layer: losses.gram(features[layer]) for layer in sums}
        return found, {layer: features[layer].float() for layer in places}
    whole: dict[str, Tensor] = {}

    def grams() -> Iterator[dict[str, Gram]]:
        for part in parts:
            features = encoder(part.of(image), layers=(*sums, *places), native=image.is_cuda)
            for layer in places:
                stride = stride_of(encoder.name, layer)
                own = part.own(features[layer], stride).float()
                if layer not in whole:
                    size = (-(-length // stride) for length in image.shape[2:])
                    whole[layer] = own.new_empty((*own.shape[:2], *size))
                part.place(whole[layer], stride).copy_(own)
            yield _grams(encoder, part, features, sums)

    return _sum_of(grams()), whole


def _grams(encoder: Encoder, part: Tile, features: Mapping[str, Tensor], layers: Iterable[str]) -> dict[str, Gram]:
    return {layer: losses.gram(part.own(features[layer], stride_of(encoder.name, layer))) for layer in layers}


def _sum_of(grams: Iterator[dict[str, Gram]]) -> dict[str, Gram]:
    total = next(grams)
    for found in grams:
        total = {layer: total[layer] + found[layer] for layer in total}
    return total


class TiledObjective(FrameObjective):
    """A FrameObjective of pictures larger than `tile` pixels, which must be cut; the activations of a tile are all that
    it holds at a time. Differentiable once.
    """

    def __init__(self, *args: Any, tile: int, **options: Any):
        self.tile = tile
        super().__init__(*args, **options)

    def _content_targets(self, content: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        self.parts = tiles(self.encoder, (content.shape[2], content.shape[3]), self.tile)
        self.strides = {layer: stride_of(self.encoder.name, layer) for layer in self.encoder.layers}
        seen = view(self.encoder, content, (), layers, self.tile)[1]
        return {layer: in_basis(self.encoder, seen, layer) for layer in seen}

    def _take_targets(self) -> None:
        super()._take_targets()
        self.energies = {layer: self.normaliser.content_energy(target) for layer, target in self.targets.items()}

    def __call__(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Total (L,) and its weighted terms by name; only the total has a gradient."""
        joint, content, style = _OfTheNetwork.apply(image, self)
        pixels = self.pixel_terms(image)
        return torch.stack([joint, *pixels.values()]).sum(0), {"content": content, "style": style} | pixels

    def network_terms(self, image: Tensor, *, differentiate: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weighted content and style (L,) of pictures (L, 3, H, W), and the gradient of their sum, or None."""
        contents, sums = [], []
        with torch.no_grad():
            for part in self.parts:
                features = self.encoder(part.of(image))
                contents.append(self._content_of(part, features))
                sums.append(self._grams_of(part, features))
        content, grams = torch.stack(contents).sum(0), _sum_of(iter(sums))
        style, slopes = self._style_and_slopes(grams)
        gradient = self._gradient(image, slopes) if differentiate else None
        return content, style, gradient

    def _content_of(self, part: Tile, features: Mapping[str, Tensor]) -> Tensor:
        """What the tile adds to the weighted content term, (L,)."""
        each = []
        for layer, target in self.targets.items():
            own = self._completed_of(part, features, layer)
            gap = (own - part.place(target, self.strides[layer])).square().sum((1, 2, 3))
            each.append(gap / target[0].numel() / self.energies[layer])
        return self.weights.content * torch.stack(each).mean(0)

    def _completed_of(self, part: Tile, features: Mapping[str, Tensor], layer: str) -> Tensor:
        """The tile's own activations in the encoder's basis, with what it misses of them."""
        stride, missed = self.strides[layer], self.missed.painting
        own = in_basis(self.encoder, {layer: part.own(features[layer], stride)}, layer)
        return own + part.place(missed[layer], stride) if layer in missed else own

    def _grams_of(self, part: Tile, features: Mapping[str, Tensor]) -> dict[str, Gram]:
        """The tile's Gram sums of the style layers; of completed activations in the encoder's basis."""
        missed = self.missed.painting
        grams = _grams(self.encoder, part, features, [layer for layer in self.shares if layer not in missed])
        completed = [layer for layer in self.shares if layer in missed]
        return grams | {layer: losses.gram(self._completed_of(part, features, layer)) for layer in completed}

    def _style_and_slopes(self, grams: Mapping[str, Gram]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted style term (L,), and its gradient by the Gram sum of each layer, (L, N, N)."""
        totals = {layer: found.total.detach().requires_grad_() for layer, found in grams.items()}
        with torch.enable_grad():
            means = {layer: Gram(total, grams[layer].count).mean for layer, total in totals.items()}
            missed = self.missed.painting
            found = {
                layer: mean if layer in missed else style_of(self.encoder, mean, layer) for layer, mean in means.items()
            }
            style = self.weights.style * self._style_of(found)
            slopes = torch.autograd.grad(style.sum(), list(totals.values()))
        return style.detach(), dict(zip(totals, slopes, strict=True))

    def _gradient(self, image: Tensor, slopes: Mapping[str, Tensor]) -> Tensor:
        """The gradient of content and style by the pictures, taken back through one tile at a time."""
        gradient = torch.zeros_like(image)
        for part in self.parts:
            with torch.enable_grad():
                leaf = part.of(image).detach().requires_grad_()
                (found,) = torch.autograd.grad(self._along(part, self.encoder(leaf), slopes), leaf)
            part.of(gradient).add_(found)
        return gradient

    def _along(self, part: Tile, features: Mapping[str, Tensor], slopes: Mapping[str, Tensor]) -> Tensor:
        """A number that changes with the activations of the tile as the whole picture's content and style do."""
        grams = self._grams_of(part, features)
        style = [(slopes[layer] * found.total).sum() for layer, found in grams.items()]
        return torch.stack([self._content_of(part, features).sum(), *style]).sum()


class _OfTheNetwork(torch.autograd.Function):
    """Content and style of a tiled objective: their gradient is taken together with their value."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, objective: TiledObjective) -> tuple[Tensor, Tensor, Tensor]:
        content, style, gradient = objective.network_terms(image, differentiate=ctx.needs_input_grad[0])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(content, style)
        return content + style, content, style

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[:, None, None, None] * gradient, None
