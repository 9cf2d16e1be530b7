"""The steps of borders.py as single CUDA kernels, for where Triton and a compiler of C are there."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nst_video.networks.borders import PARTS

_BLOCK = 2048  # numbers for one program


@triton.jit
def _edge(y, rows, columns, ZERO: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    picture = tl.program_id(0).to(tl.int64) * rows * columns * C
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place, c = e // C, e % C
    side = place - 2 * columns
    i = tl.where(place < columns, 0, tl.where(side < 0, rows - 1, 1 + side // 2))
    j = tl.where(place < columns, place, tl.where(side < 0, place - columns, (side % 2) * (columns - 1)))
    known = place < 2 * (columns + rows - 2)
    if ZERO:
        value = tl.zeros((BLOCK,), y.dtype.element_ty)
    else:
        from_i = tl.minimum(tl.maximum(i, 1), rows - 2)
        from_j = tl.minimum(tl.maximum(j, 1), columns - 2)
        value = tl.load(y + picture + (from_i * columns + from_j) * C + c, mask=known)
    tl.store(y + picture + (i * columns + j) * C + c, value, mask=known)


@triton.jit
def _bordered(out, y, rows, columns, C: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = e < columns * C
    i = tl.minimum(tl.maximum(line % rows - 1, 0), rows - 3)
    j = tl.minimum(tl.maximum(e // C - 1, 0), columns - 3)
    picture = (line // rows).to(tl.int64) * (rows - 2) * (columns - 2) * C
    value = tl.load(y + picture + (i * (columns - 2) + j) * C + e % C, mask=known)
    tl.store(out + line.to(tl.int64) * columns * C + e, value, mask=known)


@triton.jit
def _pooled(out, y, rows, columns, to_rows, to_columns, C: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = e < to_columns * C
    i = tl.minimum(tl.maximum(line % to_rows - 1, 0), to_rows - 3)
    j = tl.minimum(tl.maximum(e // C - 1, 0), to_columns - 3)
    c = e % C
    picture = (line // to_rows).to(tl.int64) * rows * columns * C
    up, down = picture + (2 * i + 1) * columns * C, picture + tl.minimum(2 * i + 2, rows - 2) * columns * C
    left, right = (2 * j + 1) * C + c, tl.minimum(2 * j + 2, columns - 2) * C + c
    total = tl.load(y + up + left, mask=known).to(tl.float32) + tl.load(y + up + right, mask=known).to(tl.float32)
    total += tl.load(y + down + left, mask=known).to(tl.float32) + tl.load(y + down + right, mask=known).to(tl.float32)
    tl.store(out + line.to(tl.int64) * to_columns * C + e, (0.25 * total).to(out.dtype.element_ty), mask=known)


@triton.jit
def _inner(i, j, rows, columns):
    """Whether columns j of the line i lie inside the border."""
    last = tl.where((i >= 1) & (i <= rows - 2), columns - 2, 0)
    return (j >= 1) & (j <= last)


@triton.jit
def _across(g, at, known, j, columns, C: tl.constexpr):
    """What a line of a gradient has at columns j, what fell on its ends included."""
    found = tl.load(g + at, mask=known, other=0.0).to(tl.float32)
    found += tl.load(g + at - C, mask=known & (j == 1), other=0.0).to(tl.float32)
    return found + tl.load(g + at + C, mask=known & (j == columns - 2), other=0.0).to(tl.float32)


@triton.jit
def _folded(g, picture, i, j, c, known, rows, columns, C: tl.constexpr):
    """A gradient at (i, j), what fell on the border included."""
    width = columns * C
    at = picture + i * width + j * C + c
    found = _across(g, at, known, j, columns, C)
    if i == 1:
        found += _across(g, at - width, known, j, columns, C)
    if i == rows - 2:
        found += _across(g, at + width, known, j, columns, C)
    return found


@triton.jit
def _passed(
    out, y, g, extra, rows, columns, HAS_G: tl.constexpr, HAS_EXTRA: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr
):
    line = tl.program_id(0)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    i, j, c = line % rows, e // C, e % C
    picture = (line // rows).to(tl.int64) * rows * columns * C
    known = _inner(i, j, rows, columns)
    at = picture + i * columns * C + e
    value = tl.zeros((BLOCK,), tl.float32)
    if HAS_G:
        value += _folded(g, picture, i, j, c, known, rows, columns, C)
    if HAS_EXTRA:
        value += tl.load(extra + at, mask=known, other=0.0).to(tl.float32)
    lit = tl.load(y + at, mask=known, other=0.0).to(tl.float32) > 0
    value = tl.where(known & lit, value, 0.0)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=e < columns * C)


@triton.jit
def _unpooled(
    out, y, g, extra, rows, columns, of_rows, of_columns, HAS_EXTRA: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr
):
    line = tl.program_id(0)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    i, j, c = line % rows, e // C, e % C
    known = _inner(i, j, rows, columns)
    at = (line // rows).to(tl.int64) * rows * columns * C + i * columns * C + e
    picture = (line // rows).to(tl.int64) * of_rows * of_columns * C
    of_i, of_j = (tl.maximum(i, 1) - 1) // 2 + 1, (tl.maximum(j, 1) - 1) // 2 + 1
    value = _folded(g, picture, of_i, of_j, c, known, of_rows, of_columns, C)
    # The last of an odd number is alone in its average.
    value *= tl.where((i == rows - 2) & (rows % 2 == 1), 1.0, 0.5)
    value *= tl.where((j == columns - 2) & (columns % 2 == 1), 1.0, 0.5)
    if HAS_EXTRA:
        value += tl.load(extra + at, mask=known, other=0.0).to(tl.float32)
    lit = tl.load(y + at, mask=known, other=0.0).to(tl.float32) > 0
    value = tl.where(known & lit, value, 0.0)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=e < columns * C)


@triton.jit
def _split(out, image, height, width, C: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    e = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    c, known = e % C, e < (width + 2) * C
    i = tl.minimum(tl.maximum(line % (height + 2) - 1, 0), height - 1)
    j = tl.minimum(tl.maximum(e // C - 1, 0), width - 1)
    picture = (line // (height + 2)).to(tl.int64) * 3 * height * width
    x = tl.load(image + picture + (c % 3) * height * width + i * width + j, mask=known, other=0.0)
    first = x.to(tl.bfloat16).to(tl.float32)
    second = (x - first).to(tl.bfloat16).to(tl.float32)
    part = c // 3
    value = tl.where(part == 1, second, tl.where(part == 2, x - first - second, first))
    value = tl.where(part == 4, 1.0, tl.where(part == 5, 0.0, value))
    tl.store(out + line.to(tl.int64) * (width + 2) * C + e, value.to(tl.bfloat16), mask=known)


@triton.jit
def _joined(out, g, rows, columns, C: tl.constexpr, BLOCK: tl.constexpr):
    line = tl.program_id(0)  # of one channel of a picture
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    i, c = line % (rows - 2), (line // (rows - 2)) % 3
    picture = (line // (rows - 2) // 3).to(tl.int64) * rows * columns * C
    known = j < columns - 2
    value = _folded(g, picture, i + 1, j + 1, c, known, rows, columns, C)
    value += _folded(g, picture, i + 1, j + 1, c + 3, known, rows, columns, C)
    tl.store(out + line.to(tl.int64) * (columns - 2) + j, value, mask=known)


def _lines(buffer: Tensor) -> tuple[int, int]:
    """A grid of programs: the lines of all pictures, and the blocks of one."""
    return buffer.shape[0] * buffer.shape[2], triton.cdiv(buffer.shape[3] * buffer.shape[1], _BLOCK)


def _set_edge(y: Tensor, zero: bool) -> None:
    pictures, channels, rows, columns = y.shape
    grid = pictures, triton.cdiv(2 * (rows + columns - 2) * channels, 512)
    _edge[grid](y, rows, columns, ZERO=zero, C=channels, BLOCK=512)


def repeat_edge(y: Tensor) -> None:
    """See borders.py, as all of these."""
    _set_edge(y, zero=False)


def clear_edge(y: Tensor) -> None:
    """Make the border zero."""
    _set_edge(y, zero=True)


def bordered(y: Tensor) -> Tensor:
    """Activations (B, C, H, W) with a border that repeats the edge."""
    pictures, channels, height, width = y.shape
    size = (pictures, channels, height + 2, width + 2)
    out = torch.empty(size, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
    _bordered[_lines(out)](out, y, height + 2, width + 2, C=channels, BLOCK=_BLOCK)
    return out


def pooled(y: Tensor) -> Tensor:
    """The average of each 2x2 pixels, with a border that repeats the edge."""
    pictures, channels, rows, columns = y.shape
    size = (pictures, channels, (rows - 1) // 2 + 2, (columns - 1) // 2 + 2)
    out = torch.empty(size, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
    _pooled[_lines(out)](out, y, rows, columns, size[2], size[3], C=channels, BLOCK=_BLOCK)
    return out


def passed(y: Tensor, g: Tensor | None, extra: Tensor | None) -> Tensor:
    """What of the gradient gets through the ReLU."""
    out = torch.empty_like(y)
    absent = y  # what is never read
    _passed[_lines(y)](
        out,
        y,
        absent if g is None else g,
        absent if extra is None else extra,
        *y.shape[2:],
        HAS_G=g is not None,
        HAS_EXTRA=extra is not None,
        C=y.shape[1],
        BLOCK=_BLOCK,
    )
    return out


def unpooled(y: Tensor, g: Tensor, extra: Tensor | None) -> Tensor:
    """The same where `g` is the gradient by `pooled(y)`."""
    out = torch.empty_like(y)
    _unpooled[_lines(y)](
        out,
        y,
        g,
        y if extra is None else extra,
        *y.shape[2:],
        *g.shape[2:],
        HAS_EXTRA=extra is not None,
        C=y.shape[1],
        BLOCK=_BLOCK,
    )
    return out


def split(image: Tensor) -> Tensor:
    """A picture as a bfloat16 buffer that loses nothing."""
    pictures, _, height, width = image.shape
    size = (pictures, PARTS, height + 2, width + 2)
    out = torch.empty(size, dtype=torch.bfloat16, device=image.device, memory_format=torch.channels_last)
    _split[_lines(out)](out, image.contiguous(), height, width, C=PARTS, BLOCK=_BLOCK)
    return out


def joined(g: Tensor) -> Tensor:
    """The gradient by the picture, from that by its parts."""
    pictures, channels, rows, columns = g.shape
    out = torch.empty((pictures, 3, rows - 2, columns - 2), device=g.device)
    _joined[pictures * 3 * (rows - 2), triton.cdiv(columns - 2, 256)](out, g, rows, columns, C=channels, BLOCK=256)
    return out


@triton.jit
def _pixels(
    gradient,
    parts,
    image,
    warped,
    trust,
    tv,
    temporal,
    height,
    width,
    places,
    beyond,
    J: tl.constexpr,
    BLOCK: tl.constexpr,
):
    line = tl.program_id(0)  # of one channel of a picture
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    known = j < width
    i, c, lane = line % height, (line // height) % 3, line // height // 3
    start = line.to(tl.int64) * width
    x = tl.load(image + start + j, mask=known, other=0.0)
    right = tl.load(image + start + j + 1, mask=j < width - 1, other=0.0)
    left = tl.load(image + start + j - 1, mask=known & (j > 0), other=0.0)
    across = tl.where(j < width - 1, right - x, 0.0)
    slope = tl.where(known & (j > 0), x - left, 0.0) - across
    rough = across * across
    if i < height - 1:
        down = tl.load(image + start + width + j, mask=known, other=0.0) - x
        rough += tl.where(known, down * down, 0.0)
        slope -= down
    if i > 0:
        slope += x - tl.load(image + start - width + j, mask=known, other=0.0)
    outside = x - tl.minimum(tl.maximum(x, 0.0), 1.0)
    tv_weight, temporal_weight = tl.load(tv + lane) / places, tl.load(temporal + lane) / (3 * places)
    range_weight = beyond / (3 * places)
    total = 2 * (tv_weight * slope + range_weight * outside)
    apart = tl.zeros((BLOCK,), tl.float32)
    for r in range(J):
        reference = (lane * J + r).to(tl.int64)
        held = tl.load(trust + (reference * height + i) * width + j, mask=known, other=0.0)
        gap = x - tl.load(warped + ((reference * 3 + c) * height + i) * width + j, mask=known, other=0.0)
        apart += held * gap * gap
        total += 2 * temporal_weight * held * gap
    total += tl.load(gradient + start + j, mask=known, other=0.0)
    tl.store(gradient + start + j, total, mask=known)
    at = line * tl.num_programs(1) + tl.program_id(1)
    count = tl.num_programs(0) * tl.num_programs(1)
    tl.store(parts + at, tv_weight * tl.sum(tl.where(known, rough, 0.0)))
    tl.store(parts + count + at, range_weight * tl.sum(tl.where(known, outside * outside, 0.0)))
    tl.store(parts + 2 * count + at, temporal_weight * tl.sum(tl.where(known, apart, 0.0)))


def add_pixel_terms(
    gradient: Tensor,
    image: Tensor,
    past: tuple[Tensor, Tensor] | None,
    *,
    tv: Tensor,
    temporal: Tensor,
    range_weight: float,
) -> Tensor:
    """Weighted total variation (exponent 1), range and temporal loss of images (L, 3, H, W), together (3, L); their
    gradient is added to `gradient` (L, 3, H, W). past: warped (L, J, 3, H, W), trust (L, J, 1, H, W). tv, temporal:
    weights (L,).
    """
    lanes, _, height, width = image.shape
    block = 256
    grid = (lanes * 3 * height, triton.cdiv(width, block))
    parts = torch.empty((3, lanes, 3 * height * grid[1]), device=image.device)
    warped, trust = (part.contiguous() for part in past) if past else (image, image)
    count = 0 if past is None else warped.shape[1]
    places = float(height * width)
    weights = tv.contiguous(), temporal.contiguous()  # one weight may stand for all lanes
    _pixels[grid](
        gradient, parts, image, warped, trust, *weights, height, width, places, range_weight, J=count, BLOCK=block
    )
    return parts.sum(2)
