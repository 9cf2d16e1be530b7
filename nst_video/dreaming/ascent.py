"""Gradient ascent over octaves: broad shapes form small, finer ones are added at each larger size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.dreaming.objective import DreamObjective
from nst_video.dreaming.smoothing import balanced, natural_colors, unit
from nst_video.dreaming.specs import octave_sizes
from nst_video.dreaming.tiles import tiled_gradient
from nst_video.painting.scales import resize

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Climb:
    """How one frame is climbed: step in levels of 255; iterations of each octave, the last one in part where that is no
    whole number; mix: weights by which the iterations are dealt out to the specs, None: every one climbs them all.
    seed: of the jitter. frame: its number in the shot.
    """

    step: float
    iterations: float
    smoothing: float
    seed: int
    frame: int = 0
    mix: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Octaves:
    """The sizes that are dreamed: how many, and how much larger each is. jitter: pixels over which the picture is
    shifted about. tile: side of the parts in which gradients are taken, None: in one piece.
    """

    count: int
    scale: float
    jitter: int
    tile: int | None = None


def ascend(
    objective: DreamObjective,
    base: Tensor,
    climb: Climb,
    octaves: Octaves,
    *,
    detail: Tensor | None = None,
    gain: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Dream into `base` (L, 3, H, W) in [0, 1], on top of the `detail` (L, 3, H, W) of an earlier dream.

    gain: (L, 1, H, W), the length of the steps at each place, times climb.step. Returns base + dream, in [0, 1], and
    the activations E (specs, L) before each step.

    Each octave starts from its own view of base and detail plus what the smaller octaves have *changed*: so the fine
    parts of an earlier dream are not lost to the small sizes (with no earlier dream that is the notebook of 2015).
    """
    whole = base if detail is None else base + detail
    change: Tensor | None = None
    trace: list[Tensor] = []
    x = whole.clamp(0, 1)
    if climb.iterations <= 0 or climb.step == 0:
        return x, []
    sizes = octave_sizes((base.shape[2], base.shape[3]), octaves.count, octaves.scale)
    for number, (size, weights) in enumerate(zip(sizes, dealt(objective, climb, octaves.count), strict=True)):
        start = resize(whole, size)
        x = (start if change is None else start + resize(change, size)).clamp(0, 1)
        here = None if gain is None else resize(gain, size)
        for index, shift in enumerate(offsets(climb.seed, number, size, octaves.jitter, len(weights))):
            gradient, terms = tiled_gradient(objective, shifted(x, shift), weights[index], octaves.tile)
            length = climb.step / 255 * min(1.0, climb.iterations - index)
            x = stepped(x, unshifted(gradient, shift), length if here is None else length * here, climb.smoothing)
            trace.append(terms)
        change = x - start
    return x, trace


def stepped(x: Tensor, gradient: Tensor, length: float | Tensor, smoothing: float) -> Tensor:
    """One step along the gradient, `length` long in the mean over pixels or by place, inside [0, 1].

    The nearer a value is to black or white, the less it goes on towards it: colours do not clip.
    """
    direction = unit(natural_colors(balanced(gradient, smoothing)))
    # 2 (1 - x) d where d > 0, 2 x d where d < 0, in one pass.
    return (x + length * torch.addcmul(direction, direction.abs(), 1 - 2 * x)).clamp(0, 1)


def dealt(objective: DreamObjective, climb: Climb, octaves: int) -> list[list[tuple[float, ...]]]:
    """For each octave, for each of its iterations, the weights of the specs.

    A mix of layers is dealt out: each iteration climbs one of them, in turns whose numbers follow the mix, over the
    frames too (a golden-ratio sequence). Blending two losses would show two dreams one through the other.
    """
    count = math.ceil(climb.iterations)
    specs = objective.specs
    if climb.mix is None:
        return [[tuple(spec.weight for spec in specs)] * count for _ in range(octaves)]
    turns = iter(deal(climb.mix, octaves * count, climb.frame * octaves * count))
    one = [tuple(float(index == chosen) for index in range(len(specs))) for chosen in range(len(specs))]
    return [[one[next(turns)] for _ in range(count)] for _ in range(octaves)]


def deal(mix: Sequence[float], count: int, start: int = 0) -> list[int]:
    """`count` numbers of specs in the proportions of `mix`, evenly mingled, from number `start` of the sequence on.

    >>> deal((1, 1), 6), deal((3, 1), 8), deal((0, 1), 3)
    ([1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0, 0, 1], [1, 1, 1])
    """
    ends = [sum(mix[: index + 1]) / sum(mix) for index in range(len(mix))]
    places = [(start + index + 1) * _GOLDEN % 1 for index in range(count)]
    return [next(index for index, end in enumerate(ends) if place < end) for place in places]


def offsets(seed: int, octave: int, size: tuple[int, int], jitter: int, count: int) -> list[tuple[int, int]]:
    """(down, right) in pixels by which the picture is shifted at each iteration of an octave, the same in every frame.

    Never more than an eighth of the short side, either way.
    """
    reach = min(jitter // 2, min(size) // 8)
    generator = torch.Generator().manual_seed((seed + 0x9E3779B97F4A7C15 * (octave + 1)) % 2**63)
    pairs = torch.randint(-reach, reach + 1, (count, 2), generator=generator)
    return [(int(down), int(right)) for down, right in pairs]


def shifted(x: Tensor, shift: tuple[int, int]) -> Tensor:
    """(L, C, H, W) moved down and right, its border repeated: rolling it over would put an edge into the picture."""
    (height, width), (down, right) = x.shape[-2:], shift
    seen = x[..., max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    return F.pad(seen, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="replicate")


def unshifted(gradient: Tensor, shift: tuple[int, int]) -> Tensor:
    """The gradient moved back; 0 for what was out of sight."""
    height, width = gradient.shape[-2:]
    down, right = shift
    seen = gradient[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    return F.pad(seen, (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0)))
