"""Optical flow on a GPU, for where Triton and a C compiler are: dense inverse search and a variational refinement.

Kroeger et al. 2016 with the terms of Brox et al. 2004, as OpenCV's DIS has them, which works on a CPU. There patches
take over from their neighbours in the order of a scan; here all do so at once, in rounds. All pictures are grey in
[0, 255], a flow w is (B, 2, h, w) in pixels of its level, and `source(x) ~ target(x + w(x))`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

_PATCH, _STRIDE = 8, 3  # pixels
_ROUNDS, _STEPS = 2, 8  # of looking at the neighbours, and of descent after each
_FINEST = 1  # level at which the search ends: half the size
_OUTER, _SWEEPS, _OMEGA = 5, 5, 1.6  # of the refinement: robust weights anew, relaxations for each, and their factor
_BRIGHTNESS, _GRADIENT, _SMOOTH = 5.0, 10.0, 20.0  # weights of what stays, and of smoothness
_BLOCK, _PATCHES = 256, 8  # pixels, and patches, for one program


@triton.jit
def _at(image, y, x, height, width, known):
    """`image` at whole places, those outside at its edge."""
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    return tl.load(image + y * width + x, mask=known, other=0.0)


@triton.jit
def _between(image, y, x, height, width, known):
    """`image` at any places, bilinear."""
    y = tl.minimum(tl.maximum(y, 0.0), height - 1.0)
    x = tl.minimum(tl.maximum(x, 0.0), width - 1.0)
    top, left = tl.floor(y), tl.floor(x)
    below, beside = y - top, x - left
    i, j = top.to(tl.int32), left.to(tl.int32)
    upper = _at(image, i, j, height, width, known) * (1 - beside) + _at(image, i, j + 1, height, width, known) * beside
    i += 1
    lower = _at(image, i, j, height, width, known) * (1 - beside) + _at(image, i, j + 1, height, width, known) * beside
    return upper * (1 - below) + lower * below


@triton.jit
def _even(values, PIXELS: tl.constexpr):
    """Patches (P, PIXELS) without their mean."""
    return values - (tl.sum(values, axis=1) / PIXELS)[:, None]


@triton.jit
def _gaps(target, template, y, x, dy, dx, height, width, known, PIXELS: tl.constexpr):
    """What patches differ by when they lie at (y + dy, x + dx) of the target, and the sum of its squares."""
    gap = _even(_between(target, y + dy[:, None], x + dx[:, None], height, width, known), PIXELS) - template
    return gap, tl.sum(gap * gap, axis=1)


@triton.jit
def _sobel(image, i, j, height, width, known):
    """Slopes of the image (down, across)."""
    down = _at(image, i + 1, j, height, width, known) - _at(image, i - 1, j, height, width, known)
    across = _at(image, i, j + 1, height, width, known) - _at(image, i, j - 1, height, width, known)
    down, across = 0.25 * down, 0.25 * across
    for side in tl.static_range(-1, 2, 2):
        after, before = (
            _at(image, i + 1, j + side, height, width, known),
            _at(image, i - 1, j + side, height, width, known),
        )
        down += 0.125 * (after - before)
        after, before = (
            _at(image, i + side, j + 1, height, width, known),
            _at(image, i + side, j - 1, height, width, known),
        )
        across += 0.125 * (after - before)
    return down, across


@triton.jit
def _first(number, side, PATCH: tl.constexpr, STRIDE: tl.constexpr):
    """Where patches begin along a side: the last one where it ends with it."""
    return tl.maximum(tl.minimum(number * STRIDE, side - PATCH), 0)


@triton.jit
def _search(
    found,
    start,
    source,
    target,
    height,
    width,
    rows,
    columns,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    STEPS: tl.constexpr,
    PATCHES: tl.constexpr,
):
    """The flow of patches: the best of their own and their neighbours' at the start, then Gauss-Newton steps."""
    PIXELS: tl.constexpr = PATCH * PATCH
    pair, count = tl.program_id(0), rows * columns
    p = tl.program_id(1) * PATCHES + tl.arange(0, PATCHES)
    there = p < count
    row, column = p // columns, p % columns
    e = tl.arange(0, PIXELS)
    i = _first(row, height, PATCH, STRIDE)[:, None] + (e // PATCH)[None, :]
    j = _first(column, width, PATCH, STRIDE)[:, None] + (e % PATCH)[None, :]
    known = there[:, None] & (e >= 0)[None, :]
    source += pair * height * width
    target += pair * height * width
    template = _even(_at(source, i, j, height, width, known), PIXELS)
    y, x = i.to(tl.float32), j.to(tl.float32)
    flows = start + 2 * pair * count
    first_dx = tl.load(flows + p, mask=there, other=0.0)
    first_dy = tl.load(flows + count + p, mask=there, other=0.0)
    gap, best = _gaps(target, template, y, x, first_dy, first_dx, height, width, known, PIXELS)
    for turn in range(8):
        over = turn + turn // 4  # of nine, all but the middle
        near_row = tl.minimum(tl.maximum(row + over // 3 - 1, 0), rows - 1)
        near_column = tl.minimum(tl.maximum(column + over % 3 - 1, 0), columns - 1)
        near = near_row * columns + near_column
        dx = tl.load(flows + near, mask=there, other=0.0)
        dy = tl.load(flows + count + near, mask=there, other=0.0)
        new, error = _gaps(target, template, y, x, dy, dx, height, width, known, PIXELS)
        better = error < best
        best, gap = tl.where(better, error, best), tl.where(better[:, None], new, gap)
        first_dx, first_dy = tl.where(better, dx, first_dx), tl.where(better, dy, first_dy)
    down, across = _sobel(source, i, j, height, width, known)
    down, across = _even(down, PIXELS), _even(across, PIXELS)
    yy, xx, xy = tl.sum(down * down, axis=1), tl.sum(across * across, axis=1), tl.sum(down * across, axis=1)
    scale = 1 / tl.maximum(xx * yy - xy * xy, 1e-3)
    best_dx, best_dy = first_dx, first_dy
    for _ in range(STEPS):
        of_x, of_y = tl.sum(gap * across, axis=1), tl.sum(gap * down, axis=1)
        dx = best_dx - scale * (yy * of_x - xy * of_y)
        dy = best_dy - scale * (xx * of_y - xy * of_x)
        new, error = _gaps(target, template, y, x, dy, dx, height, width, known, PIXELS)
        better = error < best  # where not, the same step is found again
        best, gap = tl.where(better, error, best), tl.where(better[:, None], new, gap)
        best_dx, best_dy = tl.where(better, dx, best_dx), tl.where(better, dy, best_dy)
    lost = (best_dx - first_dx) * (best_dx - first_dx) + (best_dy - first_dy) * (best_dy - first_dy) > PATCH * PATCH
    tl.store(found + 2 * pair * count + p, tl.where(lost, first_dx, best_dx), mask=there)
    tl.store(found + (2 * pair + 1) * count + p, tl.where(lost, first_dy, best_dy), mask=there)


@triton.jit
def _spread(
    flow,
    patches,
    source,
    target,
    height,
    width,
    rows,
    columns,
    PATCH: tl.constexpr,
    STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The flow of each pixel: of the patches that cover it, weighted by how well they explain it."""
    pair, pixels, count = tl.program_id(0), height * width, rows * columns
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = at < pixels
    i, j = at // width, at % width
    target += pair * pixels
    own = tl.load(source + pair * pixels + at, mask=known, other=0.0)
    flows = patches + 2 * pair * count
    total_dx, total_dy = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    weight = tl.zeros((BLOCK,), tl.float32)
    y, x = i.to(tl.float32), j.to(tl.float32)
    last_row, last_column = tl.minimum(i // STRIDE + 1, rows - 1), tl.minimum(j // STRIDE + 1, columns - 1)
    for turn in range((PATCH // STRIDE + 2) * (PATCH // STRIDE + 2)):
        row = last_row - turn // (PATCH // STRIDE + 2)
        column = last_column - turn % (PATCH // STRIDE + 2)
        top, left = _first(row, height, PATCH, STRIDE), _first(column, width, PATCH, STRIDE)
        covers = known & (row >= 0) & (column >= 0)
        covers = covers & (top <= i) & (i < top + PATCH) & (left <= j) & (j < left + PATCH)
        place = row * columns + column
        dx = tl.load(flows + place, mask=covers, other=0.0)
        dy = tl.load(flows + count + place, mask=covers, other=0.0)
        gap = tl.abs(_between(target, y + dy, x + dx, height, width, covers) - own)
        share = tl.where(covers, 1 / tl.maximum(gap, 1.0), 0.0)
        total_dx += share * dx
        total_dy += share * dy
        weight += share
    weight = tl.where(known, weight, 1.0)
    tl.store(flow + 2 * pair * pixels + at, total_dx / weight, mask=known)
    tl.store(flow + (2 * pair + 1) * pixels + at, total_dy / weight, mask=known)


@triton.jit
def _warp(mean, change, source, target, flow, height, width, BLOCK: tl.constexpr):
    """Mean and difference of the target moved along the flow and the source."""
    pair, pixels = tl.program_id(0), height * width
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = at < pixels
    dx = tl.load(flow + 2 * pair * pixels + at, mask=known, other=0.0)
    dy = tl.load(flow + (2 * pair + 1) * pixels + at, mask=known, other=0.0)
    y, x = (at // width).to(tl.float32) + dy, (at % width).to(tl.float32) + dx
    moved = _between(target + pair * pixels, y, x, height, width, known)
    own = tl.load(source + pair * pixels + at, mask=known, other=0.0)
    tl.store(mean + pair * pixels + at, 0.5 * (moved + own), mask=known)
    tl.store(change + pair * pixels + at, moved - own, mask=known)


@triton.jit
def _slopes(image, i, j, height, width, known):
    """Central differences (down, across)."""
    down = _at(image, i + 1, j, height, width, known) - _at(image, i - 1, j, height, width, known)
    across = _at(image, i, j + 1, height, width, known) - _at(image, i, j - 1, height, width, known)
    return 0.5 * down, 0.5 * across


@triton.jit
def _add_constancy(xx, xy, yy, bx, by, ax, ay, az, weight):
    """The normal equations of one more equation ax dx + ay dy + az = 0."""
    of_x, of_y = weight * ax, weight * ay
    return xx + of_x * ax, xy + of_x * ay, yy + of_y * ay, bx - of_x * az, by - of_y * az


@triton.jit
def _linearise(system, mean, change, flow, step, brightness, gradient, smooth, height, width, BLOCK: tl.constexpr):
    """The equations of every pixel with the robust weights that are right now: xx, xy, yy, bx, by, and the weight of
    smoothness.
    """
    pair, pixels = tl.program_id(0), height * width
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = at < pixels
    i, j = at // width, at % width
    mean += pair * pixels
    change += pair * pixels
    flow += 2 * pair * pixels
    step += 2 * pair * pixels
    dx = tl.load(step + at, mask=known, other=0.0)
    dy = tl.load(step + pixels + at, mask=known, other=0.0)
    iy, ix = _slopes(mean, i, j, height, width, known)
    it = tl.load(change + at, mask=known, other=0.0)
    ity, itx = _slopes(change, i, j, height, width, known)
    here = 2 * tl.load(mean + at, mask=known, other=0.0)
    ixx = 0.25 * (_at(mean, i, j + 2, height, width, known) + _at(mean, i, j - 2, height, width, known) - here)
    iyy = 0.25 * (_at(mean, i + 2, j, height, width, known) + _at(mean, i - 2, j, height, width, known) - here)
    _, below = _slopes(mean, i + 1, j, height, width, known)
    _, above = _slopes(mean, i - 1, j, height, width, known)
    ixy = 0.5 * (below - above)
    share = 1 / (ix * ix + iy * iy + 0.01)
    gap = ix * dx + iy * dy + it
    weight = brightness * share / tl.sqrt(share * gap * gap + 1e-6)
    xx, xy, yy = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    bx, by = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    xx, xy, yy, bx, by = _add_constancy(xx, xy, yy, bx, by, ix, iy, it, weight)
    share_x, share_y = 1 / (ixx * ixx + ixy * ixy + 0.01), 1 / (ixy * ixy + iyy * iyy + 0.01)
    gap_x, gap_y = ixx * dx + ixy * dy + itx, ixy * dx + iyy * dy + ity
    weight = gradient / tl.sqrt(share_x * gap_x * gap_x + share_y * gap_y * gap_y + 1e-6)
    xx, xy, yy, bx, by = _add_constancy(xx, xy, yy, bx, by, ixx, ixy, itx, weight * share_x)
    xx, xy, yy, bx, by = _add_constancy(xx, xy, yy, bx, by, ixy, iyy, ity, weight * share_y)
    steep = tl.full((BLOCK,), 1e-6, tl.float32)
    for channel in tl.static_range(2):
        of_flow = _slopes(flow + channel * pixels, i, j, height, width, known)
        of_step = _slopes(step + channel * pixels, i, j, height, width, known)
        down, across = of_flow[0] + of_step[0], of_flow[1] + of_step[1]
        steep += down * down + across * across
    system += 6 * pair * pixels + at
    tl.store(system, xx, mask=known)
    tl.store(system + pixels, xy, mask=known)
    tl.store(system + 2 * pixels, yy, mask=known)
    tl.store(system + 3 * pixels, bx, mask=known)
    tl.store(system + 4 * pixels, by, mask=known)
    tl.store(system + 5 * pixels, smooth / tl.sqrt(steep), mask=known)


@triton.jit
def _relax(step, flow, system, omega, colour, height, width, BLOCK: tl.constexpr):
    """Successive over-relaxation of the pixels of one colour of a chessboard."""
    pair, pixels = tl.program_id(0), height * width
    half = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    across = (width + 1) // 2
    i = half // across
    j = 2 * (half % across) + (i + colour) % 2
    known = (i < height) & (j < width)
    at = i * width + j
    flow += 2 * pair * pixels
    step += 2 * pair * pixels
    system += 6 * pair * pixels
    own = tl.load(system + 5 * pixels + at, mask=known, other=0.0)
    flow_x = tl.load(flow + at, mask=known, other=0.0)
    flow_y = tl.load(flow + pixels + at, mask=known, other=0.0)
    total = tl.zeros((BLOCK,), tl.float32)
    pull_x, pull_y = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for side in tl.static_range(4):
        near_i = i + ((2 * side - 1) if side < 2 else 0)
        near_j = j + (0 if side < 2 else (2 * side - 5))
        inside = known & (near_i >= 0) & (near_i < height) & (near_j >= 0) & (near_j < width)
        near = near_i * width + near_j
        weight = tl.where(inside, 0.5 * (own + tl.load(system + 5 * pixels + near, mask=inside, other=0.0)), 0.0)
        near_x = tl.load(flow + near, mask=inside, other=0.0) + tl.load(step + near, mask=inside, other=0.0)
        near_y = tl.load(flow + pixels + near, mask=inside, other=0.0)
        near_y += tl.load(step + pixels + near, mask=inside, other=0.0)
        total += weight
        pull_x += weight * (near_x - flow_x)
        pull_y += weight * (near_y - flow_y)
    xx = tl.load(system + at, mask=known, other=1.0) + total
    xy = tl.load(system + pixels + at, mask=known, other=0.0)
    yy = tl.load(system + 2 * pixels + at, mask=known, other=1.0) + total
    bx = tl.load(system + 3 * pixels + at, mask=known, other=0.0) + pull_x
    by = tl.load(system + 4 * pixels + at, mask=known, other=0.0) + pull_y
    dx = tl.load(step + at, mask=known, other=0.0)
    dy = tl.load(step + pixels + at, mask=known, other=0.0)
    dx += omega * ((bx - xy * dy) / xx - dx)
    dy += omega * ((by - xy * dx) / yy - dy)
    tl.store(step + at, dx, mask=known)
    tl.store(step + pixels + at, dy, mask=known)


def flow(source: Tensor, target: Tensor) -> Tensor:
    """Flow (B, 2, H, W) in pixels between grey pictures (B, H, W) float32 in [0, 255]:
    `source(x) ~ target(x + flow(x))`.
    """
    levels = coarsest(*source.shape[1:]) + 1
    pyramids = [_pyramid(pictures, levels) for pictures in (source, target)]
    found = source.new_zeros((len(source), 2, *pyramids[0][-1].shape[1:]))
    for level in range(levels - 1, min(_FINEST, levels - 1) - 1, -1):
        one, other = (pyramid[level] for pyramid in pyramids)
        found = _refined(one, other, _dense(one, other, _resized(found, one.shape[1:])))
    return _resized(found, source.shape[1:])


def coarsest(height: int, width: int) -> int:
    """The level, by halves of the size, at which the search begins: about four patches are as long as the picture
    there, and one is no longer than its shorter side.
    """
    long, short = max(height, width) / (4 * _PATCH), min(height, width) / _PATCH
    return max(0, min(int(math.log2(long) + 0.5), int(math.log2(short))))


def _pyramid(pictures: Tensor, levels: int) -> list[Tensor]:
    found = [pictures]
    for _ in range(levels - 1):
        height, width = found[-1].shape[1:]
        found.append(F.adaptive_avg_pool2d(found[-1], (height // 2, width // 2)))
    return [level.contiguous() for level in found]


def _resized(flow: Tensor, size: Sequence[int]) -> Tensor:
    """A flow at the size (height, width) of another level, in its pixels."""
    if flow.shape[2:] == tuple(size):
        return flow
    x, y = size[1] / flow.shape[3], size[0] / flow.shape[2]
    larger = F.interpolate(flow, size=tuple(size), mode="bilinear")
    return torch.stack([larger[:, 0] * x, larger[:, 1] * y], dim=1)


def _dense(source: Tensor, target: Tensor, start: Tensor) -> Tensor:
    """The search by patches at one level, from a flow."""
    pairs, height, width = source.shape
    rows, columns = (triton.cdiv(max(side - _PATCH, 0), _STRIDE) + 1 for side in (height, width))
    i, j = (_middles(count, side, source.device) for count, side in ((rows, height), (columns, width)))
    found = start[:, :, i][..., j].contiguous()
    grid = (pairs, triton.cdiv(rows * columns, _PATCHES))
    places = {"PATCH": _PATCH, "STRIDE": _STRIDE}
    for _ in range(_ROUNDS):
        begun, found = found, torch.empty_like(found)
        sizes = (height, width, rows, columns)
        _search[grid](found, begun, source, target, *sizes, **places, STEPS=_STEPS, PATCHES=_PATCHES)
    flow = torch.empty_like(start)
    _spread[_blocks(source)](flow, found, source, target, height, width, rows, columns, **places, BLOCK=_BLOCK)
    return flow


def _middles(count: int, side: int, device: torch.device) -> Tensor:
    """Where the middle of each of `count` patches along a side is."""
    first = (torch.arange(count, device=device) * _STRIDE).clamp(max=max(side - _PATCH, 0))
    return (first + _PATCH // 2).clamp(max=side - 1)


def _refined(source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """A flow that also is smooth and keeps brightness and gradients in every pixel."""
    pairs, height, width = source.shape
    mean, change, step = torch.empty_like(source), torch.empty_like(source), torch.zeros_like(flow)
    system = source.new_empty((pairs, 6, height, width))
    grid, size = _blocks(source), (height, width)
    halves = (pairs, triton.cdiv(height * ((width + 1) // 2), _BLOCK))
    _warp[grid](mean, change, source, target, flow, *size, BLOCK=_BLOCK)
    for _ in range(_OUTER):
        weights = (_BRIGHTNESS, _GRADIENT, _SMOOTH)
        _linearise[grid](system, mean, change, flow, step, *weights, *size, BLOCK=_BLOCK)
        for sweep in range(2 * _SWEEPS):
            _relax[halves](step, flow, system, _OMEGA, sweep % 2, *size, BLOCK=_BLOCK)
    return flow + step


def _blocks(pictures: Tensor) -> tuple[int, int]:
    """A grid of programs: the pictures, and the blocks of each."""
    return len(pictures), triton.cdiv(pictures[0].numel(), _BLOCK)
