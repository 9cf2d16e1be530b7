"""Gradients of pictures larger than memory, tile by tile, without seams."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from nst_video.dreaming.objective import DreamObjective
from nst_video.optimization.tiles import spans

OVERLAP = 160  # pixels that neighbours share, if a tile is at least twice as large: what VGG's relu5_1 sees
_BLEND = 4  # the middle 1/4 of an overlap is where one tile fades into the next; the rest is context only


def ramps(length: int, tile: int) -> list[Tensor]:
    """The weight of each tile at its pixels; at every pixel of the picture they sum to 1."""
    found = spans(length, tile, OVERLAP)
    weights = [torch.ones(end - start) for start, end in found]
    for before, after, left, right in zip(found, found[1:], weights, weights[1:], strict=False):
        shared = before[1] - after[0]
        fade = max(1, shared // _BLEND)
        margin = (shared - fade) // 2
        rise = torch.zeros(shared)
        rise[margin : margin + fade] = (torch.arange(fade) + 0.5) / fade
        rise[margin + fade :] = 1
        right[:shared] *= rise
        left[-shared:] *= 1 - rise
    return weights


@dataclass(frozen=True)
class _Part:
    """A tile: where it lies, and how much of each of its pixels' gradient (h, w) counts."""

    rows: slice
    columns: slice
    weight: Tensor


def _parts(size: tuple[int, int], tile: int) -> list[_Part]:
    sides = [list(zip(spans(length, tile, OVERLAP), ramps(length, tile), strict=True)) for length in size]
    return [
        _Part(slice(*rows), slice(*columns), down[:, None] * across)
        for (rows, down), (columns, across) in product(*sides)
    ]


def tiled_gradient(
    objective: DreamObjective, image: Tensor, weights: Sequence[float], tile: int | None
) -> tuple[Tensor, Tensor]:
    """`objective.gradient` of (L, 3, H, W) in tiles of at most `tile` pixels a side; None or a small picture: whole."""
    height, width = image.shape[-2:]
    if tile is None or max(height, width) <= tile:
        return objective.gradient(image, weights)
    parts, pixels = _parts((height, width), tile), height * width
    # With one layer only the direction counts; several are weighed by what the whole picture has of each.
    several = sum(weight > 0 for weight in weights) > 1
    whole = _whole_terms(objective, image, parts) if several else image.new_ones(len(weights), len(image))
    gradient, terms = torch.zeros_like(image), torch.zeros_like(whole)
    for part in parts:
        found, values = objective.gradient(image[..., part.rows, part.columns], weights, whole)
        area = part.weight.numel() / pixels  # means over the tile -> means over the picture
        gradient[..., part.rows, part.columns] += found * part.weight.to(image) * area
        terms += values * float(part.weight.sum()) / pixels
    return gradient, terms


@torch.no_grad()
def _whole_terms(objective: DreamObjective, image: Tensor, parts: Sequence[_Part]) -> Tensor:
    """E of each spec over the whole picture: (specs, L)."""
    shares = [float(part.weight.sum()) / (image.shape[-2] * image.shape[-1]) for part in parts]
    found = [objective.terms(image[..., part.rows, part.columns]) for part in parts]
    return torch.stack([share * values for share, values in zip(shares, found, strict=True)]).sum(0)
