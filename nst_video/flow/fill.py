"""What a place looks like at first that no earlier painted frame shows: revealed, or moved beyond what the flow can
follow.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices import products as matrices
from nst_video.devices.transfer import downloaded, uploaded
from nst_video.optimization.graphs import plainly

_MATCHING_SIDE = 256  # long side in pixels at which windows are compared: finer detail says nothing about the brush
_WINDOW = 16  # side of a window at that size: a stroke or two
_STRIDE = 4
# Cost of a match a whole picture's length away, in mean squared difference: between equals the nearer wins.
_NEARNESS = 0.02
_HOLE = 0.3  # a window with a pixel less held than this is painted anew
_FEW = (64, 1024)  # windows that are painted at once on a GPU, where they are not more


def paint_revealed(
    image: Tensor, hole: Tensor, content: Tensor, painted: Tensor, call: Callable[..., Tensor] = plainly
) -> Tensor:
    """The frame `image` (L, 3, H, W), painted in its hole (L, 1, H, W) like the most similar place of the frame before.

    content, painted (L, 3, H, W): the frame before, and what it was painted as. An image analogy (Hertzmann et al.
    2001) by windows: each window that touches the hole (values above 0.3 of 1) finds the window of `content` that it
    resembles most, and takes over what painting did to that one, `painted - content`. Taking over the difference
    keeps the new frame's own edges, where copying the paint would smear an old one's. Windows overlap and blend
    towards their centres. Outside them the frame is returned as it is; values stay in [0, 1].

    call: how a function of tensors is called; see `Graphs.call`. Which windows touch the hole is known on the host,
    which waits for that once.
    """
    factor, pictures = _factor(image), [part.split(1) for part in (image, content, painted)]
    (touched,) = downloaded(torch.stack([_windows(one, factor).amax((2, 3, 4)).flatten() for one in hole.split(1)]))
    found = []
    for lane, (own, *before) in enumerate(zip(*pictures, strict=True)):
        wanted = (touched[lane] > _HOLE).nonzero().flatten()
        if len(wanted) and image.is_cuda:
            wanted = uploaded(in_few_lengths(wanted, touched.shape[1]), image.device)
        found.append(call(_repainted, own, *before, wanted) if len(wanted) else own)
    return torch.cat(found)


def in_few_lengths(wanted: Tensor, most: int) -> Tensor:
    """The numbers of windows (n,) with the last one repeated, which changes nothing: there is a graph for each length,
    so there are few, of which `most` is the largest.
    """
    length = next(length for length in sorted({*_FEW, most}) if length >= len(wanted))
    return torch.cat([wanted, wanted[-1:].expand(length - len(wanted))])


def _factor(image: Tensor) -> int:
    """How many times larger a picture is than what is compared."""
    return max(1, round(max(image.shape[-2:]) / _MATCHING_SIDE))


def _repainted(image: Tensor, content: Tensor, painted: Tensor, wanted: Tensor) -> Tensor:
    """One picture (1, 3, H, W) with the wanted windows (n,), of which a number may come again, painted."""
    factor = _factor(image)
    matches = _best_matches(_small(image, factor), _small(content, factor), wanted)
    change = _chosen(_windows(painted - content, factor), matches)
    weight = _taper(_WINDOW * factor, image)
    counted = torch.cat([change.view(len(wanted), 3, -1), change.new_ones(len(wanted), 1, len(weight))], dim=1)
    total, share = _overlap(counted * weight, wanted, image, factor).split([3, 1], dim=1)
    return (image + torch.where(share > 1e-3, total / share.clamp_min(1e-3), 0.0)).clamp(0, 1)


def _small(image: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(image, factor, ceil_mode=True, count_include_pad=False) if factor > 1 else image


def _margins(size: Sequence[int], factor: int) -> tuple[int, int, int, int]:
    """left, right, top, bottom so that windows cover every pixel alike, whatever the size."""
    window, stride = _WINDOW * factor, _STRIDE * factor
    height, width = size
    return (window // 2, window // 2 + -width % stride, window // 2, window // 2 + -height % stride)


def _windows(image: Tensor, factor: int) -> Tensor:
    """(1, C, H, W) -> (rows, columns, C, side, side): a view of the windows of a grid, as many at every factor."""
    padded = F.pad(image, _margins(image.shape[-2:], factor), mode="replicate")[0]
    side, stride = _WINDOW * factor, _STRIDE * factor
    return padded.unfold(1, side, stride).unfold(2, side, stride).permute(1, 2, 0, 3, 4)


def _chosen(windows: Tensor, numbers: Tensor) -> Tensor:
    """The windows of those numbers, counted row by row: (n, C * side * side). Only they are copied."""
    columns = windows.shape[1]
    return windows[numbers // columns, numbers % columns].flatten(1)


def _best_matches(image: Tensor, content: Tensor, wanted: Tensor) -> Tensor:
    """Number of the window of `content` most like each wanted window of `image`."""
    candidates = _windows(content, 1)
    rows, columns = candidates.shape[:2]
    ours, theirs = _chosen(_windows(image, 1), wanted), candidates.flatten(0, 1).flatten(1)
    # |a - b|^2 = |a|^2 - 2 a.b + |b|^2, of which the first is the same for all candidates.
    difference = matrices.product(ours, theirs.mT).mul_(-2).add_(theirs.square().sum(1)).div_(ours.shape[1])
    nearness = _NEARNESS * (_STRIDE / max(image.shape[-2:])) ** 2
    down, across = (
        nearness * (torch.arange(count, device=image.device) - own[:, None]).square()
        for count, own in zip((rows, columns), (wanted // columns, wanted % columns), strict=True)
    )
    difference.unflatten(1, (rows, columns)).add_(down[:, :, None]).add_(across[:, None])
    return difference.argmin(1)


def _taper(side: int, like: Tensor) -> Tensor:
    """(side * side) weights, steep towards the centre: blending two textures half and half would wash both out."""
    hann = torch.hann_window(side + 2, periodic=False, dtype=like.dtype, device=like.device)[1:-1]
    return (hann[:, None] * hann).flatten() ** 4


def _overlap(values: Tensor, wanted: Tensor, image: Tensor, factor: int) -> Tensor:
    """Sum of the wanted windows' values (n, C, side * side) where they lie: (1, C, H, W)."""
    height, width = image.shape[-2:]
    left, right, top, bottom = _margins((height, width), factor)
    stride, blocks = _STRIDE * factor, _WINDOW // _STRIDE  # a window is of blocks, of which each lies in one of a grid
    rows, columns = (height + top + bottom) // stride, (width + left + right) // stride
    across = columns - blocks + 1
    grid = values.new_zeros(rows, columns, values.shape[1], stride, stride)
    parts = values.unflatten(2, (blocks, stride, blocks, stride))
    for row, column in product(range(blocks), repeat=2):
        # No two windows have the same block at the same place: nothing is added twice at once. Where a window comes
        # again, the same sum is written again.
        grid[wanted // across + row, wanted % across + column] += parts[:, :, row, :, column]
    summed = grid.permute(2, 0, 3, 1, 4).reshape(1, values.shape[1], rows * stride, columns * stride)
    return summed[..., top : top + height, left : left + width]
