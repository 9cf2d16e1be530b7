"""Squared distances to a target with their gradient as single CUDA kernels, for where Triton and a C compiler are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from nst_video.optimization.direct import Matrices

_BLOCK = 1024


@triton.jit
def _matrix(parts, slope, sums, target, factor, count, stride, share, most, BLOCK: tl.constexpr):
    lane, block = tl.program_id(0), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    gap = share * tl.load(sums + lane * count + at, mask=known, other=0.0)
    gap -= tl.load(target + lane * stride + at, mask=known, other=0.0)
    weight = tl.load(factor + lane)
    tl.store(parts + lane * most + block, weight * tl.sum(gap * gap))
    tl.store(slope + lane * count + at, (4 * share * weight * gap).to(slope.dtype.element_ty), mask=known)


@triton.jit
def _activations(parts, slope, y, target, factor, height, width, C: tl.constexpr, BLOCK: tl.constexpr):
    line, block = tl.program_id(0), tl.program_id(1)
    e = block * BLOCK + tl.arange(0, BLOCK)
    known = e < width * C
    # `y` and the slope have a border of one pixel, the target has none.
    at = ((line // height).to(tl.int64) * (height + 2) + line % height + 1) * (width + 2) * C + C + e
    gap = tl.load(y + at, mask=known, other=0.0).to(tl.float32)
    gap -= tl.load(target + line.to(tl.int64) * width * C + e, mask=known, other=0.0)
    weight = tl.load(factor + line // height)
    tl.store(parts + line * tl.num_programs(1) + block, weight * tl.sum(gap * gap))
    tl.store(slope + at, (2 * weight * gap).to(slope.dtype.element_ty), mask=known)


def style(matrices: Sequence["Matrices"], factors: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Squared distances times factors (layers, L), together (L,), and for each layer twice the gradient by its sums."""
    lanes = factors.shape[1]
    # One sum for all of them: blocks that a smaller matrix lacks are zero.
    most = max(triton.cdiv(layer.sums[0].numel(), _BLOCK) for layer in matrices)
    parts = torch.zeros((len(matrices), lanes, most), device=factors.device)
    slopes = [torch.empty(layer.sums.shape, dtype=layer.exact, device=factors.device) for layer in matrices]
    for row, slope, factor, (sums, target, share, _) in zip(parts, slopes, factors, matrices, strict=True):
        count = sums[0].numel()
        stride = 0 if len(target) == 1 else count  # from the target of one lane to that of the next
        grid = (lanes, triton.cdiv(count, _BLOCK))
        _matrix[grid](row, slope, sums, target, factor, count, stride, share, most, BLOCK=_BLOCK)
    return parts.sum((0, 2)), slopes


def content(y: Tensor, target: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The squared distance (L,) of what lies inside the border of `y` (L, C, h + 2, w + 2) to the target, times
    factor (L,), and its gradient by `y`, whose border means nothing.
    """
    lanes, channels, height, width = target.shape
    grid = (lanes * height, triton.cdiv(width * channels, _BLOCK))
    parts, slope = torch.empty(grid, device=y.device), torch.empty_like(y)
    _activations[grid](parts, slope, y, _dense(target), factor, height, width, C=channels, BLOCK=_BLOCK)
    return parts.view(lanes, -1).sum(1), slope


def _dense(target: Tensor) -> Tensor:
    return target.contiguous(memory_format=torch.channels_last)
