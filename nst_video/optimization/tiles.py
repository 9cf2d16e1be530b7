"""How a picture that is too large for memory is cut: tiles that overlap, and the part of each that is its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from nst_video.errors import UsageError
from nst_video.networks.layers import ENCODER_LAYERS, Layer, check_layers, find_layer

MINIMAL_TILE = 256  # less would be mostly overlap
ALIGNED = 32  # tiles begin at multiples of this, so that every pool halves the same pixels as in one piece


@dataclass(frozen=True)
class Cell:
    """A tile along one side, pixels `start` up to `end`, of which `first` up to `last` belong to no other tile."""

    start: int
    end: int
    first: int
    last: int


def spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """(start, end) of tiles of at most `tile` pixels that cover `length`; neighbours share `overlap` or a little more,
    but half a tile at most.

    >>> spans(900, 512, 160), spans(500, 512, 160)
    ([(0, 512), (352, 864), (704, 900)], [(0, 500)])
    """
    if length <= tile:
        return [(0, length)]
    stride = max(ALIGNED, (tile - min(overlap, tile // 2)) // ALIGNED * ALIGNED)
    starts = [0]
    while starts[-1] + tile < length:
        starts.append(starts[-1] + stride)
    return [(start, min(start + tile, length)) for start in starts]


def cells(length: int, tile: int, overlap: int, grid: int) -> list[Cell]:
    """The same tiles, what two of them share divided in the middle, at a multiple of `grid` pixels.

    >>> cells(900, 512, 160, 16)[1]
    Cell(start=352, end=864, first=432, last=784)
    """
    found = spans(length, tile, overlap)
    cuts = [(after + (end - after) // 2) // grid * grid for (_, end), (after, _) in pairwise(found)]
    return [
        Cell(start, end, first, last)
        for (start, end), first, last in zip(found, [0, *cuts], [*cuts, length], strict=True)
    ]


def can_be_cut(encoder: str, layers: Iterable[str]) -> bool:
    """Whether it is known how far these layers see, so that tiles give the same as the picture in one piece."""
    known = encoder in ENCODER_LAYERS
    return known and all(_entry(encoder, layer).reach is not None for layer in check_layers(encoder, layers))


def grid_of(encoder: str, layers: Iterable[str]) -> int:
    """Pixels that the deepest pool of these layers joins along a side: where tiles may be cut."""
    return max(stride_of(encoder, layer) for layer in layers)


def stride_of(encoder: str, layer: str) -> int:
    """Pixels from one place of a layer to the next, in a network whose border is laid on before each convolution."""
    return _entry(encoder, layer).smallest_side


def overlap_of(encoder: str, layers: Iterable[str]) -> int:
    """Pixels that neighbouring tiles must share so that no place of these layers sees that it is in a tile; UsageError
    where `can_be_cut` says no.

    >>> overlap_of("vgg19", ["relu5_1", "relu4_2"]), overlap_of("slim", ["relu5_1"])
    (160, 128)
    """
    asked = tuple(layers)
    grid = grid_of(encoder, asked)
    return 2 * -(-_reach(encoder, asked) // grid) * grid


def _reach(encoder: str, layers: Iterable[str]) -> int:
    """The most pixels that a place of these layers sees to each side."""
    known = [_entry(encoder, layer).reach for layer in layers]
    reaches = [reach for reach in known if reach is not None]
    if len(reaches) < len(known):
        raise UsageError(
            f"--tile cannot be had with {encoder}: how far its layers see is not known, so the parts would not give "
            "the same picture; leave it out and choose a smaller --size, or take --encoder vgg19"
        )
    return max(reaches)


def _entry(encoder: str, layer: str) -> Layer:
    return ENCODER_LAYERS[encoder][find_layer(encoder, layer)]
