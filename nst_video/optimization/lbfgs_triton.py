"""What an iteration of L-BFGS does beside the loss, as three CUDA kernels, for where Triton and a C compiler are there.

The same as `LBFGS` in optimizers.py does with torch, where fifty steps on a few numbers each take longer than the two
passes over the pairs. Those passes are all that takes time here: one for every product that may be needed, whatever is
decided, and one that keeps what is kept and combines the next trial. Neither step nor change of the gradient is written
but as a pair: to subtract and round once more is faster than to read.
"""

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from nst_video.optimization.optimizers import LBFGS

_PROGRAMS = 256  # of a lane, at most, that share its pixels: about two on each processor of an H100
_NUMBERS = 8192  # of the pairs, that such a program has at a time
_BLOCK = 512  # pixels of the next trial for one program


@triton.jit
def _finite(slope):
    """The gradient, 0 where it is no number."""
    return tl.where(tl.abs(slope) < float("inf"), slope, 0.0)


@triton.jit
def _stored(numbers, pairs):
    """Numbers as they are once they are pairs."""
    return numbers.to(pairs.dtype.element_ty).to(tl.float32)


@triton.jit
def _judge(found, loss, length, slope, decrease):
    """Whether the trial is accepted."""
    new, old = tl.load(found), tl.load(loss)
    enough = new <= old + decrease * tl.load(length) * tl.load(slope)
    return (tl.abs(new) < float("inf")) & (enough | ~(tl.abs(old) < float("inf")))


@triton.jit
def _fours(numbers, ROWS: tl.constexpr, TILE: tl.constexpr):
    """Sums of four neighbours, which one thread has: a fourth is left for it to hold on to."""
    return tl.sum(tl.reshape(numbers, (ROWS, TILE // 4, 4)), axis=2)


@triton.jit
def _eight(a, b, c, d, e, f, TILE: tl.constexpr):
    """Vectors (TILE,) as columns of (TILE, 8), the last twice more: there has to be a power of two."""
    even, odd = tl.join(tl.join(a, e), tl.join(c, f)), tl.join(tl.join(b, f), tl.join(d, f))
    return tl.reshape(tl.join(even, odd), (TILE, 8))


@triton.jit
def _multiply(
    products,
    squares,
    accepted,
    trial,
    image,
    gradient,
    before,
    pairs,
    found,
    loss,
    length,
    slope,
    decrease,
    pixels,
    M: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Products of step, change and the gradient that is kept with all pairs and among themselves, over some tiles."""
    lane, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    # Which gradient is kept depends on nothing that is found here.
    accept = _judge(found + lane, loss + lane, length + lane, slope + lane, decrease)
    tl.store(accepted + lane, accept)
    row = tl.arange(0, ROWS)
    lines = pairs + (lane * 2 * M + row)[:, None] * pixels
    of_step, of_change = tl.zeros((ROWS, TILE // 4), tl.float32), tl.zeros((ROWS, TILE // 4), tl.float32)
    of_kept, own = tl.zeros((ROWS, TILE // 4), tl.float32), tl.zeros((TILE, 8), tl.float32)
    first = program * TILE
    while first < pixels:  # all programs together go through memory from its beginning to its end
        at = first + tl.arange(0, TILE)
        known = at < pixels
        held = tl.load(lines + at[None, :], mask=(row < 2 * M)[:, None] & known[None, :], other=0.0)
        vectors = held.to(tl.float32)
        new = tl.load(trial + lane * pixels + at, mask=known, other=0.0)
        step = _stored(new - tl.load(image + lane * pixels + at, mask=known, other=0.0), pairs)
        after = _finite(tl.load(gradient + lane * pixels + at, mask=known, other=0.0))
        last = tl.load(before + lane * 3 * pixels + at, mask=known, other=0.0)
        change, kept = _stored(after - last, pairs), tl.where(accept, after, last)
        of_step += _fours(vectors * step[None, :], ROWS, TILE)
        of_change += _fours(vectors * change[None, :], ROWS, TILE)
        of_kept += _fours(vectors * kept[None, :], ROWS, TILE)
        one = _eight(step, step, change, step, change, kept, TILE)
        own += one * _eight(change, step, change, kept, kept, kept, TILE)
        first += tl.num_programs(1) * TILE
    place, there = lane * tl.num_programs(1) + program, row < 2 * M
    products += place * 6 * M + row
    tl.store(products, tl.sum(of_step, axis=1), mask=there)
    tl.store(products + 2 * M, tl.sum(of_change, axis=1), mask=there)
    tl.store(products + 4 * M, tl.sum(of_kept, axis=1), mask=there)
    tl.store(squares + place * 8 + tl.arange(0, 8), tl.sum(own, axis=0))


@triton.jit
def _add_up(products, squares, totals, programs, M: tl.constexpr, PARTS: tl.constexpr):
    """Totals (6M + 8,) of what the programs of a lane have found."""
    part, eight, some = tl.arange(0, PARTS)[:, None], tl.arange(0, 8), tl.arange(0, 64)
    own = tl.load(squares + part * 8 + eight[None, :], mask=part < programs, other=0.0)
    for first in tl.static_range(0, 6 * M, 64):
        column = first + some
        inside = (part < programs) & (column < 6 * M)[None, :]
        numbers = tl.load(products + part * 6 * M + column[None, :], mask=inside, other=0.0)
        tl.store(totals + column, tl.sum(numbers, axis=0), mask=column < 6 * M)
    tl.store(totals + 6 * M + eight, tl.sum(own, axis=0))


@triton.jit
def _remember(totals, sy, yy, at, store, M: tl.constexpr, PAIRS: tl.constexpr):
    """Rows and columns of slot `at` where its pair is stored."""
    k = tl.arange(0, PAIRS)
    new = k < tl.where(store, M, 0)
    curvature, length = tl.load(totals + 6 * M), tl.load(totals + 6 * M + 2)
    step_y = tl.where(k == at, curvature, tl.load(totals + M + k, mask=new))
    change_s = tl.where(k == at, curvature, tl.load(totals + 2 * M + k, mask=new))
    change_y = tl.where(k == at, length, tl.load(totals + 3 * M + k, mask=new))
    tl.store(sy + at * M + k, step_y, mask=new)
    tl.store(sy + k * M + at, change_s, mask=new)
    tl.store(yy + at * M + k, change_y, mask=new)
    tl.store(yy + k * M + at, change_y, mask=new)


@triton.jit
def _solve(sy, yy, sg, yg, real, head, M: tl.constexpr, PAIRS: tl.constexpr):
    """Coefficients of s and y, by slot, and of the gradient: `_compact_direction`.

    Each unknown is told to all threads as soon as it is found, and each takes its part of the column off its own right
    side: nothing has to be summed, which would take longer than all the rest. Of slots that are empty all is 0.
    """
    k = tl.arange(0, PAIRS)
    age = (k - head + M) % M
    curvature = tl.load(sy + k * (M + 1), mask=real, other=1.0)
    ratio = curvature / tl.load(yy + k * (M + 1), mask=real, other=1.0)
    newest = tl.max(tl.where(real, age, -1), axis=0)
    scale = tl.sum(tl.where(real & (age == newest), ratio, 0.0))
    inverse = 1.0 / curvature.to(tl.float64)
    u, bent = sg * inverse, -yg
    for turn in tl.range(M, loop_unroll_factor=M if M <= 16 else 16):
        n = (head + (M - 1 - turn)) % M
        column = tl.load(sy + k * M + n, mask=real & (age < M - 1 - turn), other=0.0).to(tl.float64) * inverse
        line = tl.load(yy + k * M + n, mask=real, other=0.0).to(tl.float64)
        value = tl.gather(u, tl.full((PAIRS,), 0, tl.int32) + n, 0)
        u -= column * value
        bent += line * value
    steps = u + scale * bent * inverse
    for turn in tl.range(M, loop_unroll_factor=M if M <= 16 else 16):
        n = (head + turn) % M
        row = tl.load(sy + n * M + k, mask=real & (age > turn), other=0.0).to(tl.float64) * inverse
        steps -= row * tl.gather(steps, tl.full((PAIRS,), 0, tl.int32) + n, 0)
    return steps.to(tl.float32), (-scale * u).to(tl.float32), scale


@triton.jit(do_not_specialize=["programs"])
def _aim(
    products,
    squares,
    accepted,
    totals,
    found,
    loss,
    length,
    slope,
    least,
    reach,
    sy,
    yy,
    filled,
    head,
    slot,
    stored,
    coefficients,
    scales,
    programs,
    M: tl.constexpr,
    PAIRS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """All that is decided of a lane, and the coefficients of its direction: `LBFGS._update` but for the pixels."""
    lane, k = tl.program_id(0), tl.arange(0, PAIRS)
    there, parts = k < M, lane.to(tl.int64) * programs
    totals += lane * (6 * M + 8)
    sy += lane * M * M
    yy += lane * M * M
    # What is written below is read before a barrier, so that no warp can be too early with it.
    accept = tl.load(accepted + lane) != 0
    new, old, shrunk = tl.load(found + lane), tl.load(loss + lane), tl.load(length + lane)
    at, real = tl.load(head + lane).to(tl.int32), tl.load(filled + lane * M + k, mask=there, other=0) != 0
    _add_up(products + parts * 6 * M, squares + parts * 8, totals, programs, M, PARTS)
    tl.debug_barrier()
    own = totals + 6 * M
    curved = tl.load(own) > least * tl.sqrt(tl.load(own + 1)) * tl.sqrt(tl.load(own + 2))
    store = curved & (tl.abs(new) < float("inf"))
    _remember(totals, sy, yy, at, store, M, PAIRS)
    fresh, after = k == tl.where(store, at, -1), tl.where(store, (at + 1) % M, at)
    sg = tl.where(fresh, tl.load(own + 3), tl.load(totals + 4 * M + k, mask=there, other=0.0))
    yg = tl.where(fresh, tl.load(own + 4), tl.load(totals + 5 * M + k, mask=there, other=0.0))
    real = real | fresh
    square = tl.load(own + 5)
    tl.debug_barrier()
    exact_sg, exact_yg = tl.where(real, sg, 0.0).to(tl.float64), tl.where(real, yg, 0.0).to(tl.float64)
    of_s, of_y, of_g = _solve(sy, yy, exact_sg, exact_yg, real, after, M, PAIRS)
    plain = reach / tl.maximum(tl.sqrt(square), 1e-30)
    of_g = tl.where(tl.max(real.to(tl.int32), axis=0) != 0, of_g, plain)
    down = -(of_g * square + tl.sum(of_s * sg + of_y * yg))
    downhill = down < 0
    tl.store(coefficients + lane * 2 * M + k, tl.where(downhill, -of_s, 0.0), mask=there)
    tl.store(coefficients + lane * 2 * M + M + k, tl.where(downhill, -of_y, 0.0), mask=there)
    tl.store(scales + lane, tl.where(downhill, -of_g, -plain))
    tl.store(slope + lane, tl.where(downhill, down, -plain * square))
    tl.store(loss + lane, tl.where(accept, new, old))
    tl.store(length + lane, tl.where(accept, 1.0, 0.5 * shrunk))
    tl.store(filled + lane * M + k, real, mask=there)
    tl.store(slot + lane, at)
    tl.store(head + lane, after)
    tl.store(stored + lane, store)


@triton.jit
def _combine(
    trial,
    image,
    gradient,
    before,
    pairs,
    coefficients,
    scales,
    length,
    slot,
    accepted,
    stored,
    pixels,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Image, gradient and pair where they are kept, and the next trial, of a block of pixels."""
    lane = tl.program_id(0).to(tl.int64)
    # Backwards: the end of what was multiplied last is still in the cache.
    at = (tl.num_programs(1) - 1 - tl.program_id(1)) * BLOCK + tl.arange(0, BLOCK)
    accept, store, newest = tl.load(accepted + lane) != 0, tl.load(stored + lane) != 0, tl.load(slot + lane)
    known, kept, new = at < pixels, at < tl.where(accept, pixels, 0), at < tl.where(store, pixels, 0)
    trial += lane * pixels
    image += lane * pixels
    before += lane * 3 * pixels
    tried, here = tl.load(trial + at, mask=known), tl.load(image + at, mask=known)
    after, last = _finite(tl.load(gradient + lane * pixels + at, mask=known)), tl.load(before + at, mask=known)
    # A step that is not stored may be no number.
    step = tl.where(store, _stored(tried - here, pairs), 0.0)
    change = tl.where(store, _stored(after - last, pairs), 0.0)
    weights, line = coefficients + lane * 2 * M, pairs + lane * 2 * M * pixels
    total = tl.load(scales + lane) * tl.where(accept, after, last)
    total += tl.load(weights + newest) * step + tl.load(weights + M + newest) * change
    written = tl.where(store, newest, -1)
    for row in tl.range(2 * M, loop_unroll_factor=2 * M if M <= 10 else 20):
        others = at < tl.where(row % M == written, 0, pixels)
        total += tl.load(weights + row) * tl.load(line + at, mask=others, other=0.0).to(tl.float32)
        line += pixels
    own = pairs + lane * 2 * M * pixels + at
    tl.store(trial + at, tl.where(accept, tried, here) + tl.load(length + lane) * total, mask=known)
    tl.store(image + at, tried, mask=kept)
    tl.store(before + at, after, mask=kept)
    tl.store(own + newest * pixels, step, mask=new)
    tl.store(own + (newest + M) * pixels, change, mask=new)


def update(solver: "LBFGS", loss: Tensor, gradient: Tensor, *, decrease: float, least: float) -> Tensor:
    """Take in the loss (L,) and gradient (L, n) at the trial image; bool (L,): accepted.

    decrease, least: constants of optimizers.py and curvature.py.
    """
    trial, memory, m = solver.trial, solver.memory, solver.memory.history
    lanes, pixels = trial.shape
    rows = triton.next_power_of_2(2 * m)
    tile = min(max(_NUMBERS // rows, 16), 1024)
    turns = triton.cdiv(pixels, tile * _PROGRAMS)
    programs = triton.cdiv(pixels, tile * turns)
    parts = trial.new_empty((lanes, programs, 6 * m)), trial.new_empty((lanes, programs, 8))
    accepted, stored = (torch.empty(lanes, dtype=torch.bool, device=trial.device) for _ in range(2))
    vectors = (trial, solver.image, gradient.contiguous(), solver.gradient, memory.pairs)
    known = (loss, solver.loss, solver.length, solver.slope)
    wide = {"M": m, "ROWS": rows, "TILE": tile}
    _multiply[(lanes, programs)](*parts, accepted, *vectors, *known, decrease, pixels, **wide)
    coefficients, scales = trial.new_empty((lanes, 2 * m)), trial.new_empty(lanes)
    _aim[(lanes,)](
        *parts,
        accepted,
        trial.new_empty((lanes, 6 * m + 8)),
        *known,
        least,
        solver.first_step * math.sqrt(pixels),
        memory.sy,
        memory.yy,
        memory.filled,
        memory.head,
        solver.slot,
        stored,
        coefficients,
        scales,
        programs,
        M=m,
        PAIRS=triton.next_power_of_2(m),
        PARTS=triton.next_power_of_2(programs),
    )
    decided = (coefficients, scales, solver.length, solver.slot, accepted, stored)
    blocks = (lanes, triton.cdiv(pixels, _BLOCK))
    _combine[blocks](*vectors, *decided, pixels, M=m, BLOCK=_BLOCK)
    return accepted
