"""A mosaic: square tesserae relaxed along a flow (Hausner 2001), each its own tint, tilt and bevel, set in grout."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import ByteArray, FloatArray, Size, finish, grid, noise, ramp, relief, shrink, smoothstep

SUPERSAMPLE = 2
TILE = 1 / 62  # mean side of a tessera in long sides
ROUNDS = 14
SUN = (0.5, 0.5)


def paint(size: Size, seed: int = 0) -> ByteArray:
    """uint8 (H, W, 3) painting."""
    rng = np.random.default_rng(seed)
    color, angle, fineness = design(rng, size)
    points = scatter(rng, size, fineness)
    sides = TILE * size.long * fineness[index(points, fineness)]
    owner = assign(points, sides, angle, size)
    for _ in range(ROUNDS):
        points = centroids(owner, points)
        sides = TILE * size.long * fineness[index(points, fineness)]
        owner = assign(points, sides, angle, size)
    return lay(rng, size, owner, points, color)


def index(points: FloatArray, field: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each point (N, 2), inside the field."""
    rows, columns = field.shape[:2]
    return np.clip(points[:, 1], 0, rows - 1).astype(int), np.clip(points[:, 0], 0, columns - 1).astype(int)


def design(rng: np.random.Generator, size: Size) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Colour (H, W, 3), direction of the rows in radians (H, W) and relative tile side (H, W) of the cartoon."""
    x, y = grid(size)
    cx, cy = SUN[0], SUN[1] * size.height / size.long
    warp = 0.012 * noise(rng, size, 4, 2)
    px, py = x - cx, y - cy
    radius = np.hypot(px, py) + warp
    turn = np.arctan2(py, px)
    color, phase = waves(x, y, warp, size)
    gy, gx = np.gradient(phase)
    angle = np.arctan2(gy, gx)
    rays = 0.245 + 0.055 * np.abs(np.sin(6 * turn + 9 * radius)) ** 0.7
    spiral = 0.5 + 0.5 * np.sin(12 * turn + 18 * radius)
    petals = ramp(spiral, ["#7a1f1a", "#b8332a", "#e0702c", "#f2b134", "#f7e3a1"])
    face = ramp(0.5 + 0.5 * np.cos(radius * 105), ["#c98a12", "#f5d061", "#fff0b8"])
    core = np.where((radius < 0.115)[..., None], face, petals)
    for inner, outer, tone in ((0.115, 0.128, "#182038"), (0.128, 0.141, "#efe6cf")):
        ring = ((radius >= inner) & (radius < outer))[..., None]
        core = np.where(ring, ramp(np.zeros_like(radius), [tone, tone]), core)
    inside = radius < rays
    border = (radius >= rays) & (radius < rays + 0.018)
    color = np.where(inside[..., None], core, color)
    color = np.where(border[..., None], ramp(np.zeros_like(radius), ["#141b33", "#141b33"]), color)
    angle = np.where(radius < rays + 0.04, turn, angle)
    fineness = np.where(radius < 0.145, 0.72, np.where(radius < rays + 0.03, 0.88, 1.1))
    return color.astype(np.float32), angle.astype(np.float32), fineness.astype(np.float32)


def waves(x: FloatArray, y: FloatArray, warp: FloatArray, size: Size) -> tuple[FloatArray, FloatArray]:
    """Fans of lapis, turquoise, cream, terracotta and emerald from the corners and sides, and their phase."""
    bottom = size.height / size.long
    phase = np.full_like(x, np.inf)
    which = np.zeros(x.shape, int)
    for k, (cx, cy) in enumerate(
        (
            (0.0, 0.0),
            (1.0, 0.0),
            (0.0, bottom),
            (1.0, bottom),
            (0.5, -0.12),
            (0.5, bottom + 0.12),
            (-0.1, bottom / 2),
            (1.1, bottom / 2),
        )
    ):
        away = np.hypot(x - cx, y - cy) * (1.0 if k < 4 else 1.08) + warp
        which = np.where(away < phase, k, which)
        phase = np.minimum(phase, away)
    bands = [
        "#0e1e4d",
        "#1f4aa8",
        "#2f7fd1",
        "#7cc4d8",
        "#f0e7cf",
        "#c8503a",
        "#7d1f2f",
        "#0f6a5b",
        "#2fa37c",
        "#b9d67a",
    ]
    step = np.floor(phase / 0.028).astype(int) + 3 * (which % 3)
    table = ramp(np.linspace(0, 1, len(bands), dtype=np.float32), bands)
    return table[step % len(bands)], phase


def scatter(rng: np.random.Generator, size: Size, fineness: FloatArray) -> FloatArray:
    """Starting points (N, 2) in pixels with the density the tile sides ask for."""
    weight = (1 / fineness**2).ravel()
    count = int(weight.sum() / (TILE * size.long) ** 2)
    chosen = rng.choice(weight.size, count, replace=False, p=weight / weight.sum())
    rows, columns = np.divmod(chosen, size.width)
    return (np.stack([columns, rows], 1) + rng.random((count, 2))).astype(np.float32)


def assign(points: FloatArray, sides: FloatArray, angle: FloatArray, size: Size) -> NDArray[np.int32]:
    """The tile of each pixel, int32 (H, W): the nearest in the maximum norm turned along the flow at the tile."""
    depth = np.full((size.height, size.width), np.inf, np.float32)
    owner = np.zeros((size.height, size.width), np.int32)
    turns = angle[index(points, angle)]
    for k, (x, y) in enumerate(points):
        reach = int(sides[k] * 2.2) + 2
        top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
        bottom, right = min(int(y) + reach, size.height), min(int(x) + reach, size.width)
        dx = np.arange(left, right, dtype=np.float32)[None] + 0.5 - x
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - y
        c, s = np.cos(turns[k]), np.sin(turns[k])
        distance = np.maximum(np.abs(dx * c + dy * s), np.abs(dy * c - dx * s)) / sides[k]
        closer = distance < depth[top:bottom, left:right]
        depth[top:bottom, left:right][closer] = distance[closer]
        owner[top:bottom, left:right][closer] = k
    return owner


def centroids(owner: NDArray[np.int32], points: FloatArray) -> FloatArray:
    """Mean pixel position of every tile (N, 2); a tile that owns nothing stays."""
    rows, columns = np.indices(owner.shape)
    flat = owner.ravel()
    mass = np.bincount(flat, minlength=len(points))
    mean_x = np.bincount(flat, columns.ravel() + 0.5, len(points)) / np.maximum(mass, 1)
    mean_y = np.bincount(flat, rows.ravel() + 0.5, len(points)) / np.maximum(mass, 1)
    moved = np.stack([mean_x, mean_y], 1).astype(np.float32)
    return np.where(mass[:, None] > 0, moved, points)


def lay(
    rng: np.random.Generator,
    size: Size,
    owner: NDArray[np.int32],
    points: FloatArray,
    color: FloatArray,
) -> ByteArray:
    """Cut each tile a little smaller than its cell, tint, tilt and bevel it, and light it all from the upper left."""
    big = size.times(SUPERSAMPLE)
    cells = cv2.resize(owner.astype(np.float32), tuple(big), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    edge = np.zeros(cells.shape, np.uint8)
    edge[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    edge[1:] |= cells[1:] != cells[:-1]
    inset = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 5) / (TILE * big.long)
    base = color[index(points, color)]
    value = rng.normal(1.0, 0.13, (len(points), 1)) * np.where(rng.random((len(points), 1)) < 0.06, 1.35, 1.0)
    tint = base * value + rng.normal(0, 9, (len(points), 3))
    tiles = tint.astype(np.float32)[cells]
    tilt = rng.normal(0, 0.16, (len(points), 2)).astype(np.float32)
    y, x = np.indices(cells.shape, dtype=np.float32)
    local_x, local_y = x / SUPERSAMPLE - points[cells, 0], y / SUPERSAMPLE - points[cells, 1]
    wobble = 0.02 * noise(rng, big, 130, 2)
    body = smoothstep(0.055, 0.085, inset + wobble)
    bevel = np.minimum(inset, 0.24) / 0.24
    slope = (local_x * tilt[cells, 0] + local_y * tilt[cells, 1]) / (TILE * size.long)
    height = body * (0.6 + 0.5 * np.sqrt(bevel) + slope + 0.02 * noise(rng, big, 170, 3))
    diffuse, specular = relief(cv2.GaussianBlur(height, (0, 0), 1.0), depth=0.20 * TILE * big.long)
    veins = 1 + 0.07 * noise(rng, big, 90, 3)
    glass = tiles * (0.30 + 0.70 * diffuse * veins)[..., None] + 85 * specular[..., None]
    shadow = cv2.GaussianBlur(body, (0, 0), TILE * big.long * 0.10)
    grout = np.array([104, 92, 80], np.float32) * (1.05 - 0.55 * shadow + 0.10 * noise(rng, big, 300, 2))[..., None]
    return finish(shrink(grout * (1 - body[..., None]) + glass * body[..., None], size))
