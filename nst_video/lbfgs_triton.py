"""What an iteration of L-BFGS does beside the loss, as six CUDA kernels, for where Triton and a C compiler are there.

The same as `LBFGS` in optimizers.py does with torch, where fifty steps on a few numbers each take longer than the two
passes over the pairs.
"""

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from nst_video.optimizers import LBFGS

_BLOCK = 2048  # pixels for one program
_TILE = 128  # pixels, times all pairs, that it has at a time


@triton.jit
def _compare(probes, parts, trial, image, gradient, pixels, BLOCK: tl.constexpr):
    """Step and change of the gradient, and their products."""
    lane, block = tl.program_id(0), tl.program_id(1)
    at = block * BLOCK + tl.arange(0, BLOCK)
    known = at < pixels
    start, own = lane.to(tl.int64) * pixels, lane.to(tl.int64) * 3 * pixels
    slope = tl.load(gradient + start + at, mask=known, other=0.0)
    slope = tl.where(tl.abs(slope) < float("inf"), slope, 0.0)
    tl.store(gradient + start + at, slope, mask=known)
    step = tl.load(trial + start + at, mask=known, other=0.0) - tl.load(image + start + at, mask=known, other=0.0)
    change = slope - tl.load(probes + own + 2 * pixels + at, mask=known, other=0.0)
    tl.store(probes + own + at, step, mask=known)
    tl.store(probes + own + pixels + at, change, mask=known)
    place = (lane * tl.num_programs(1) + block) * 3
    tl.store(parts + place, tl.sum(step * change))
    tl.store(parts + place + 1, tl.sum(step * step))
    tl.store(parts + place + 2, tl.sum(change * change))


@triton.jit
def _judge(sums, found, loss, length, slope, head, slot, filled, accepted, stored, decrease, least, M: tl.constexpr):
    """Whether the step and the pair are kept."""
    lane = tl.program_id(0)
    curvature, step, change = tl.load(sums + 3 * lane), tl.load(sums + 3 * lane + 1), tl.load(sums + 3 * lane + 2)
    new, old, scale = tl.load(found + lane), tl.load(loss + lane), tl.load(length + lane)
    finite = tl.abs(new) < float("inf")
    enough = new <= old + decrease * scale * tl.load(slope + lane)
    accept = finite & (enough | ~(tl.abs(old) < float("inf")))
    store = finite & (curvature > least * tl.sqrt(step) * tl.sqrt(change))
    at = tl.load(head + lane)
    tl.store(slot + lane, at)
    tl.store(head + lane, tl.where(store, (at + 1) % M, at))
    before = tl.load(filled + lane * M + at) != 0
    tl.store(filled + lane * M + at, before | store)
    tl.store(loss + lane, tl.where(accept, new, old))
    tl.store(length + lane, tl.where(accept, 1.0, 0.5 * scale))
    tl.store(accepted + lane, accept)
    tl.store(stored + lane, store)


@triton.jit
def _keep(probes, pairs, trial, image, gradient, slot, accepted, stored, pixels, M: tl.constexpr, BLOCK: tl.constexpr):
    """Image, gradient and pair where they are kept; else the pair that is in the slot, into the probes."""
    lane = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = at < pixels
    start, own = lane.to(tl.int64) * pixels, lane.to(tl.int64) * 3 * pixels
    if tl.load(accepted + lane) != 0:
        tl.store(image + start + at, tl.load(trial + start + at, mask=known), mask=known)
        tl.store(probes + own + 2 * pixels + at, tl.load(gradient + start + at, mask=known), mask=known)
    first = (lane * 2 * M + tl.load(slot + lane)).to(tl.int64) * pixels
    second = first + M * pixels
    if tl.load(stored + lane) != 0:
        tl.store(pairs + first + at, tl.load(probes + own + at, mask=known), mask=known)
        tl.store(pairs + second + at, tl.load(probes + own + pixels + at, mask=known), mask=known)
    else:
        tl.store(probes + own + at, tl.load(pairs + first + at, mask=known), mask=known)
        tl.store(probes + own + pixels + at, tl.load(pairs + second + at, mask=known), mask=known)


@triton.jit
def _multiply(
    parts, probes, pairs, pixels, M: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr
):
    """Products of the three probes with all pairs, and of the gradient with itself, of a block of pixels."""
    lane, block = tl.program_id(0), tl.program_id(1)
    row = tl.arange(0, ROWS)
    of_step, of_change = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    of_slope, squares = tl.zeros((ROWS,), tl.float32), tl.zeros((TILE,), tl.float32)
    own = lane.to(tl.int64) * 3 * pixels
    lines = (lane * 2 * M + row).to(tl.int64)[:, None] * pixels
    for first in range(0, BLOCK, TILE):
        at = block * BLOCK + first + tl.arange(0, TILE)
        known = at < pixels
        vectors = tl.load(pairs + lines + at[None, :], mask=(row < 2 * M)[:, None] & known[None, :], other=0.0)
        step = tl.load(probes + own + at, mask=known, other=0.0)
        change = tl.load(probes + own + pixels + at, mask=known, other=0.0)
        slope = tl.load(probes + own + 2 * pixels + at, mask=known, other=0.0)
        of_step += tl.sum(vectors * step[None, :], axis=1)
        of_change += tl.sum(vectors * change[None, :], axis=1)
        of_slope += tl.sum(vectors * slope[None, :], axis=1)
        squares += slope * slope
    place = (lane * tl.num_programs(1) + block) * 4 * ROWS + row
    tl.store(parts + place, of_step)
    tl.store(parts + place + ROWS, of_change)
    tl.store(parts + place + 2 * ROWS, of_slope)
    tl.store(parts + place + 3 * ROWS, tl.where(row == 0, tl.sum(squares), 0.0))


@triton.jit
def _aim(
    products,
    sy,
    yy,
    filled,
    head,
    slot,
    coefficients,
    scales,
    slopes,
    reach,
    M: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The coefficients of the direction: `_compact_direction` and what follows it, oldest pair first."""
    lane = tl.program_id(0)
    k = tl.arange(0, PAIRS)
    age, there = (tl.load(head + lane) + k) % M, k < M
    newest_slot = tl.load(slot + lane)
    real = (tl.load(filled + lane * M + age) != 0) & there
    own = products + lane * 4 * ROWS
    step_y, change_s = tl.load(own + M + age), tl.load(own + ROWS + age)
    change_y = tl.load(own + ROWS + M + age)
    slope_s, slope_y = tl.load(own + 2 * ROWS + age), tl.load(own + 2 * ROWS + M + age)
    square = tl.load(own + 3 * ROWS)
    row, column = age[:, None], age[None, :]
    at, inside = lane * M * M + row * M + column, there[:, None] & there[None, :]
    a, b = tl.load(sy + at, mask=inside, other=0.0), tl.load(yy + at, mask=inside, other=0.0)
    a = tl.where(row == newest_slot, step_y[None, :], a)
    a = tl.where(column == newest_slot, change_s[:, None], a)
    b = tl.where(row == newest_slot, change_y[None, :], b)
    b = tl.where(column == newest_slot, change_y[:, None], b)
    tl.store(sy + at, a, mask=inside)
    tl.store(yy + at, b, mask=inside)
    both, diagonal = real[:, None] & real[None, :], k[:, None] == k[None, :]
    exact_a, exact_b = tl.where(both, a, 0.0).to(tl.float64), tl.where(both, b, 0.0).to(tl.float64)
    sg, yg = tl.where(real, slope_s, 0.0).to(tl.float64), tl.where(real, slope_y, 0.0).to(tl.float64)
    curvature = tl.sum(tl.where(diagonal, exact_a, 0.0), axis=1)
    newest = tl.max(tl.where(real, k, -1), axis=0)
    lengths = tl.sum(tl.where(diagonal, exact_b, 0.0), axis=1)
    long = tl.sum(tl.where(k == newest, lengths, 0.0))
    scale = tl.sum(tl.where(k == newest, curvature, 0.0)) / tl.where(long > 0.0, long, 1.0)
    upper = tl.where(k[:, None] <= k[None, :], exact_a, 0.0)
    pivot = tl.where(real, curvature, 1.0)
    u = tl.zeros((PAIRS,), tl.float64)
    for turn in range(PAIRS):
        n = PAIRS - 1 - turn
        known = tl.sum(tl.sum(tl.where((k == n)[:, None], upper, 0.0), axis=0) * u)
        value = (tl.sum(tl.where(k == n, sg, 0.0)) - known) / tl.sum(tl.where(k == n, pivot, 0.0))
        u = tl.where(k == n, value, u)
    inner = curvature * u + scale * (tl.sum(exact_b * u[None, :], axis=1) - yg)
    steps = tl.zeros((PAIRS,), tl.float64)
    for n in range(PAIRS):
        known = tl.sum(tl.sum(tl.where((k == n)[None, :], upper, 0.0), axis=1) * steps)
        value = (tl.sum(tl.where(k == n, inner, 0.0)) - known) / tl.sum(tl.where(k == n, pivot, 0.0))
        steps = tl.where(k == n, value, steps)
    of_s = tl.where(real, steps, 0.0).to(tl.float32)
    of_y = tl.where(real, -scale * u, 0.0).to(tl.float32)
    plain = reach / tl.maximum(tl.sqrt(square), 1e-30)
    of_g = tl.where(newest >= 0, scale.to(tl.float32), plain)
    down = -(of_g * square + tl.sum(of_s * slope_s) + tl.sum(of_y * slope_y))
    downhill = down < 0
    tl.store(coefficients + lane * 2 * M + age, tl.where(downhill, -of_s, 0.0), mask=there)
    tl.store(coefficients + lane * 2 * M + M + age, tl.where(downhill, -of_y, 0.0), mask=there)
    tl.store(scales + lane, tl.where(downhill, -of_g, -plain))
    tl.store(slopes + lane, tl.where(downhill, down, -plain * square))


@triton.jit
def _combine(direction, probes, pairs, coefficients, scales, pixels, M: tl.constexpr, BLOCK: tl.constexpr):
    """The direction of a block of pixels."""
    lane = tl.program_id(0)
    # Backwards: the end of what was multiplied last is still in the cache.
    at = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK + tl.arange(0, BLOCK)
    known = at < pixels
    slope = probes + (lane.to(tl.int64) * 3 + 2) * pixels
    total = tl.load(scales + lane) * tl.load(slope + at, mask=known, other=0.0)
    line = pairs + lane.to(tl.int64) * 2 * M * pixels
    for row in tl.static_range(2 * M):
        weight = tl.load(coefficients + lane * 2 * M + row)
        total += weight * tl.load(line + at, mask=known, other=0.0)
        line += pixels
    tl.store(direction + lane.to(tl.int64) * pixels + at, total, mask=known)


def update(solver: "LBFGS", trial: Tensor, loss: Tensor, gradient: Tensor, *, decrease: float, least: float) -> Tensor:
    """Take in the loss (L,) and gradient (L, n) at a trial image (L, n), which are written to; bool (L,): accepted.

    decrease, least: constants of optimizers.py.
    """
    lanes, pixels = trial.shape
    m, memory, probes = solver.memory.history, solver.memory, solver.probes
    grid = (lanes, triton.cdiv(pixels, _BLOCK))
    parts = trial.new_empty((lanes, grid[1], 3))
    accepted, stored = (torch.empty(lanes, dtype=torch.bool, device=trial.device) for _ in range(2))
    flat = {"M": m, "BLOCK": _BLOCK}
    _compare[grid](probes, parts, trial, solver.image, gradient, pixels, BLOCK=_BLOCK)
    _judge[(lanes,)](
        parts.sum(1),
        loss,
        solver.loss,
        solver.length,
        solver.slope,
        memory.head,
        solver.slot,
        memory.filled,
        accepted,
        stored,
        decrease,
        least,
        M=m,
    )
    _keep[grid](probes, memory.pairs, trial, solver.image, gradient, solver.slot, accepted, stored, pixels, **flat)
    rows = triton.next_power_of_2(2 * m)
    products = trial.new_empty((lanes, grid[1], 4, rows))
    wide = {"ROWS": rows, "TILE": _TILE, **flat}
    _multiply[grid](products, probes, memory.pairs, pixels, **wide)
    coefficients, scales = trial.new_empty((lanes, 2 * m)), trial.new_empty(lanes)
    reach = solver.first_step * math.sqrt(pixels)
    small = {"M": m, "PAIRS": triton.next_power_of_2(m), "ROWS": rows}
    _aim[(lanes,)](
        products.sum(1),
        memory.sy,
        memory.yy,
        memory.filled,
        memory.head,
        solver.slot,
        coefficients,
        scales,
        solver.slope,
        reach,
        num_warps=1,
        **small,
    )
    blocks = (lanes, triton.cdiv(pixels, 1024))
    _combine[blocks](solver.direction, probes, memory.pairs, coefficients, scales, pixels, M=m, BLOCK=1024)
    return accepted
