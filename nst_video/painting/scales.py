"""The scales of a first frame: their sizes, what each may take, and what the coarsest one starts from."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_COARSEST = 128  # long side in pixels of the first scale: there a receptive field spans long strokes
STEP = math.sqrt(2)  # from one scale to the next


def scales(size: tuple[int, int], smallest_side: int = 1) -> list[tuple[int, int]]:
    """(H, W) from a long side of about 128 pixels up to `size`, in steps of about sqrt(2); none below
    `smallest_side`.
    """
    long, short = max(size), min(size)
    coarsest = max(_COARSEST, math.ceil(smallest_side * long / short))
    steps = max(0, round(math.log(long / coarsest, STEP)))
    factors = [(coarsest / long) ** (1 - i / steps) for i in range(steps)]
    return [*((round(size[0] * factor), round(size[1] * factor)) for factor in factors), size]


def shares(total: int, parts: int, growth: float = 1.0) -> list[int]:
    """`total` evaluations over `parts` scales, each `growth` times as many as the one before as nearly as whole numbers
    go, at least one each, the rest to the finest.

    >>> shares(50, 4), shares(100, 4, math.sqrt(2))
    ([12, 12, 12, 14], [13, 19, 27, 41])
    """
    parts_of_all = [growth**number for number in range(parts)]
    coarse = [max(1, int(total * part / sum(parts_of_all))) for part in parts_of_all[:-1]]
    return [*coarse, max(1, total - sum(coarse))]


def parts(total: int, largest: int) -> list[int]:
    """`total` in equal parts of at most `largest`, the last one smaller where it does not come out even.

    >>> parts(60, 25), parts(20, 25)
    ([20, 20, 20], [20])
    """
    each = math.ceil(total / math.ceil(total / largest))
    return [min(each, total - done) for done in range(0, total, each)]


def resize(image: Tensor, size: Iterable[int]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, *size): bicubic, antialiased."""
    wanted = tuple(size)
    if tuple(image.shape[-2:]) == wanted:
        return image
    return F.interpolate(image, size=wanted, mode="bicubic", antialias=True, align_corners=False)


def _from_content(content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    return content


def _from_noise(content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    # One picture for all lanes, drawn on the CPU: the same seed gives the same start on every device.
    noise = torch.rand((1, *content.shape[1:]), generator=generator)
    return noise.to(content.device).expand_as(content).clone()


def _from_style(content: Tensor, styles: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The first style picture, covering the frame."""
    height, width = content.shape[-2:]
    factor = max(height / styles[0].shape[2], width / styles[0].shape[3])
    cover = resize(styles[0], (math.ceil(styles[0].shape[2] * factor), math.ceil(styles[0].shape[3] * factor)))
    top, left = (cover.shape[2] - height) // 2, (cover.shape[3] - width) // 2
    return cover[..., top : top + height, left : left + width].expand_as(content).clone()


STARTS = {"content": _from_content, "noise": _from_noise, "style": _from_style}
