"""Squared distances to a target, and their gradient, as single CUDA kernels, for where Triton and a C compiler are."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _gap(parts, sums, target, count, stride, share, most, BLOCK: tl.constexpr):
    lane, block = tl.program_id(0), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    gap = share * tl.load(sums + lane * count + at, mask=known, other=0.0)
    gap -= tl.load(target + lane * stride + at, mask=known, other=0.0)
    tl.store(parts + lane * most + block, tl.sum(gap * gap))


@triton.jit
def _scaled_gap(out, sums, target, factor, count, stride, share, BLOCK: tl.constexpr):
    lane = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = at < count
    gap = share * tl.load(sums + lane * count + at, mask=known, other=0.0)
    gap -= tl.load(target + lane * stride + at, mask=known, other=0.0)
    tl.store(out + lane * count + at, (tl.load(factor + lane) * gap).to(out.dtype.element_ty), mask=known)


@triton.jit
def _inner_gap(y, target, line, e, known, height, width, C: tl.constexpr):
    """What lies inside the border of `y` less the target, and where in `y` that is."""
    at = ((line // height).to(tl.int64) * (height + 2) + line % height + 1) * (width + 2) * C + C + e
    gap = tl.load(y + at, mask=known, other=0.0).to(tl.float32)
    return gap - tl.load(target + line.to(tl.int64) * width * C + e, mask=known, other=0.0), at


@triton.jit
def _content_gap(parts, y, target, height, width, C: tl.constexpr, BLOCK: tl.constexpr):
    line, block = tl.program_id(0), tl.program_id(1)
    e = block * BLOCK + tl.arange(0, BLOCK)
    gap, _ = _inner_gap(y, target, line, e, e < width * C, height, width, C)
    tl.store(parts + line * tl.num_programs(1) + block, tl.sum(gap * gap))


@triton.jit
def _scaled_content_gap(out, y, target, factor, height, width, C: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = e < width * C
    gap, at = _inner_gap(y, target, line, e, known, height, width, C)
    value = tl.load(factor + line // height) * gap
    tl.store(out + at, value.to(out.dtype.element_ty), mask=known)


def style_gaps(matrices: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The sum of squares of share x sums - target, (layers, L), of (sums (L, N, N), target (1 or L, N, N), share)."""
    lanes = len(matrices[0][0])
    # One sum for all of them: blocks that a smaller matrix lacks are zero.
    most = max(triton.cdiv(sums[0].numel(), _BLOCK) for sums, _, _ in matrices)
    parts = torch.zeros((len(matrices), lanes, most), device=matrices[0][0].device)
    for row, (sums, target, share) in zip(parts, matrices, strict=True):
        count = sums[0].numel()
        grid = (lanes, triton.cdiv(count, _BLOCK))
        _gap[grid](row, sums, target, count, _stride(target), share, most, BLOCK=_BLOCK)
    return parts.sum(2)


def style_slope(sums: Tensor, target: Tensor, share: float, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """factor (L,) times share x sums - target, (L, N, N)."""
    out = torch.empty(sums.shape, dtype=dtype, device=sums.device)
    count = sums[0].numel()
    grid = (len(sums), triton.cdiv(count, _BLOCK))
    _scaled_gap[grid](out, sums, target, factor, count, _stride(target), share, BLOCK=_BLOCK)
    return out


def _stride(target: Tensor) -> int:
    """From the target of one lane to that of the next."""
    return 0 if len(target) == 1 else target[0].numel()


def content_gap(y: Tensor, target: Tensor) -> Tensor:
    """The sum of squares (L,) of what lies inside the border of `y` (L, C, h + 2, w + 2) less the target."""
    lanes, channels, height, width = target.shape
    parts = torch.empty((lanes * height, triton.cdiv(width * channels, _BLOCK)), device=y.device)
    grid = (parts.shape[0], parts.shape[1])
    _content_gap[grid](parts, y, _dense(target), height, width, C=channels, BLOCK=_BLOCK)
    return parts.view(lanes, -1).sum(1)


def content_slope(y: Tensor, target: Tensor, factor: Tensor) -> Tensor:
    """factor (L,) times the same difference, in a buffer like `y` whose border means nothing."""
    lanes, channels, height, width = target.shape
    out = torch.empty_like(y)
    grid = (lanes * height, triton.cdiv(width * channels, _BLOCK))
    _scaled_content_gap[grid](out, y, _dense(target), factor, height, width, C=channels, BLOCK=_BLOCK)
    return out


def _dense(target: Tensor) -> Tensor:
    return target.contiguous(memory_format=torch.channels_last)
