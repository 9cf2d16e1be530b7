"""A sunset over poppy fields: thousands of tapered, bristled strokes along a flow field, lit as impasto."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .fields import ByteArray, FloatArray, Size, finish, grain, grid, noise, ramp, relief, shrink, smoothstep

SUPERSAMPLE = 2
SUN = (0.66, 0.235)  # centre, in long sides
VORTICES = (
    (0.66, 0.235, 1.0, 0.17),
    (0.22, 0.16, -1.0, 0.13),
    (0.43, 0.33, 0.8, 0.07),
    (0.93, 0.36, -0.8, 0.08),
    (0.06, 0.36, 0.8, 0.07),
)


@dataclass(frozen=True)
class Layer:
    """One pass of the brush: widths and lengths in long sides, strokes per covered area."""

    width: float
    length: float
    coverage: float
    detail: float  # 0 strokes everywhere, 1 only where the scene has edges
    stray: float  # how far from the stroke its colours are picked, in long sides


LAYERS = (
    Layer(width=0.052, length=0.24, coverage=3.0, detail=0.0, stray=0.030),
    Layer(width=0.030, length=0.16, coverage=2.6, detail=0.0, stray=0.026),
    Layer(width=0.018, length=0.105, coverage=2.2, detail=0.30, stray=0.022),
    Layer(width=0.010, length=0.060, coverage=1.3, detail=0.75, stray=0.014),
)


@dataclass(frozen=True)
class Scene:
    """What the brush reads: colour (H, W, 3) in [0, 255], unit direction (H, W, 2), edge strength (H, W) in [0, 1]."""

    color: FloatArray
    direction: FloatArray
    detail: FloatArray


def paint(size: Size, seed: int = 0) -> ByteArray:
    """uint8 (H, W, 3) painting."""
    rng = np.random.default_rng(seed)
    canvas_size = size.times(SUPERSAMPLE)
    scene = make_scene(rng, canvas_size)
    canvas = finish(scene.color * 0.8)
    height = np.full(canvas.shape[:2], 118, np.uint8)
    for layer in LAYERS:
        brush(rng, layer, scene, canvas, height)
    color = shrink(canvas, size)
    weave = grain(rng, size) * 2.0
    body = cv2.GaussianBlur(shrink(height, size), (0, 0), 0.7) + weave
    diffuse, specular = relief(body, depth=0.035 * size.long / 1024)
    lit = color * (0.35 + 0.65 * np.clip(diffuse, 0.0, 1.6))[..., None] + 70.0 * specular[..., None]
    return finish(lit)


def make_scene(rng: np.random.Generator, size: Size) -> Scene:
    """Sky with a low sun, two ranges of hills, a field of poppies."""
    x, y = grid(size)
    bottom = size.height / size.long
    warp = noise(rng, size, 5, 4)
    horizon = 0.56 * bottom + 0.02 * np.sin(9 * x) + 0.012 * noise(rng, size, 5, 3)[:1]
    potential = 0.045 * noise(rng, size, 3.5, 2) + whirls(x, y)
    color = sky(x, y, warp)
    color = put_hills(rng, size, color, horizon)
    field_top = horizon + 0.05 + 0.03 * np.sin(4.0 * x + 1.0)
    color, rows = put_field(rng, size, color, field_top)
    below = smoothstep(-0.13, -0.06, y - horizon)
    dy, dx = np.gradient(potential)
    angle_sky = np.arctan2(-dx, dy)
    tx, ty = (
        np.cos(angle_sky) * (1 - below) + np.cos(rows) * below,
        np.sin(angle_sky) * (1 - below) + np.sin(rows) * below,
    )
    length = np.maximum(np.hypot(tx, ty), 1e-3)
    direction = np.stack([tx / length, ty / length], -1).astype(np.float32)
    gray = cv2.GaussianBlur(color.mean(-1), (0, 0), size.long / 300)
    gy, gx = np.gradient(gray)
    edges = np.hypot(gx, gy)
    return Scene(color, direction, np.clip(edges / np.percentile(edges, 92), 0, 1).astype(np.float32))


def whirls(x: FloatArray, y: FloatArray) -> FloatArray:
    """Potential whose level lines circle round each vortex."""
    total = np.zeros_like(x)
    for cx, cy, strength, radius in VORTICES:
        total += strength * radius * 1.3 * np.exp(-np.hypot(x - cx, y - cy) / radius)
    return total


def sky(x: FloatArray, y: FloatArray, warp: FloatArray) -> FloatArray:
    """Rings of light round the sun, swirls of teal and violet farther out."""
    away = np.hypot(x - SUN[0], (y - SUN[1]) * 1.15) + 0.012 * warp
    color = ramp(
        np.clip(away / 0.75, 0, 1),
        ["#fff3c4", "#ffd75e", "#ff9d2e", "#f2552c", "#c92a4b", "#7c2a73", "#3b2f86", "#1d4f94", "#12726f", "#123a5c"],
    )
    for cx, cy, strength, radius in VORTICES[1:]:
        ring = np.hypot(x - cx, y - cy) / radius
        turn = np.arctan2(y - cy, x - cx) * np.sign(strength)
        arms = 0.5 + 0.5 * np.sin(2 * turn + 7.0 * ring)
        mix = (np.exp(-((ring / 1.1) ** 2)) * (0.25 + 0.75 * arms))[..., None]
        glow = ramp(np.clip(ring, 0, 1), ["#ffe9a8", "#f7b267", "#57c4c0", "#2a6fb0"])
        color = color * (1 - mix) + glow * mix
    return np.asarray(color, np.float32)


def put_hills(rng: np.random.Generator, size: Size, color: FloatArray, horizon: FloatArray) -> FloatArray:
    """Two ranges of hills in front of the sky, the nearer one darker."""
    _, y = grid(size)
    for lift, tones, cells in (
        (0.055, ["#5b3a8c", "#b0487e", "#e8825a"], 4),
        (0.015, ["#12343b", "#1f5f5b", "#3d8361"], 6),
    ):
        ridge = horizon - lift - 0.035 * noise(rng, size, cells, 3)[:1]
        inside = smoothstep(-0.002, 0.002, y - ridge)[..., None]
        shade = np.clip((y - ridge) / 0.10 + 0.12 * noise(rng, size, 9, 3) + 0.25, 0, 1).astype(np.float32)
        color = np.asarray(color * (1 - inside) + ramp(shade, tones) * inside, np.float32)
    return np.asarray(color, np.float32)


def put_field(
    rng: np.random.Generator, size: Size, color: FloatArray, top: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Furrows that run to a vanishing point, with poppies in drifts; also the angle of the furrows."""
    x, y = grid(size)
    vanish_x, vanish_y = SUN[0] - 0.1, float(top.mean()) - 0.12
    across = (x - vanish_x) / np.maximum(y - vanish_y, 0.02)
    stripes = 0.5 + 0.5 * np.sin(across * 26 + 0.7 * noise(rng, size, 4, 3))
    ground = ramp(stripes, ["#16402f", "#2f7d3b", "#8fb339", "#f0c93a"])
    near = np.clip((y - top) / 0.25, 0, 1)
    drift = smoothstep(0.25, 0.6, noise(rng, size, 40, 2) * 0.5 + 0.55 * noise(rng, size, 5, 2) + 0.25 * near)[
        ..., None
    ]
    poppies = ramp(0.5 + 0.2 * noise(rng, size, 60, 2), ["#8f0f2a", "#d81e2c", "#ff5a36", "#ffb199"])
    ground = ground * (1 - drift) + poppies * drift
    inside = smoothstep(-0.003, 0.003, y - top)[..., None]
    angle = np.arctan2(y - vanish_y, x - vanish_x) + 0.35 * noise(rng, size, 6, 2)
    angle = np.where(y > top, angle, 0.35 * noise(rng, size, 5, 2))
    return np.asarray(color * (1 - inside) + ground * inside, np.float32), np.asarray(angle, np.float32)


def brush(rng: np.random.Generator, layer: Layer, scene: Scene, canvas: ByteArray, height: ByteArray) -> None:
    """Lay one layer of strokes over the canvas and its height map, both changed in place."""
    rows, columns = height.shape
    long = max(rows, columns)
    area = layer.width * layer.length * long * long / layer.coverage
    starts = scatter(rng, columns, rows, float(np.sqrt(area)))
    for px, py in starts:
        ix, iy = int(np.clip(px, 0, columns - 1)), int(np.clip(py, 0, rows - 1))
        if rng.random() < layer.detail * (1.0 - scene.detail[iy, ix]):
            continue
        length = layer.length * long * rng.uniform(0.5, 1.15)
        path = trace(scene.direction, px, py, length, steps=14)
        colors = pick(rng, scene.color, px, py, layer.stray * long)
        stroke(rng, path, layer.width * long * rng.uniform(0.65, 1.2), colors, canvas, height)


def scatter(rng: np.random.Generator, columns: int, rows: int, spacing: float) -> FloatArray:
    """Points (N, 2) in random order, one in each cell of a grid that reaches over the edge: nothing stays bare."""
    cells_x, cells_y = int(columns / spacing) + 3, int(rows / spacing) + 3
    points = np.stack(np.meshgrid(np.arange(cells_x), np.arange(cells_y)), -1).reshape(-1, 2) - 1.0
    return np.asarray(rng.permutation(points + rng.random(points.shape)) * spacing, np.float32)


def pick(rng: np.random.Generator, color: FloatArray, x: float, y: float, stray: float) -> FloatArray:
    """Two colours (2, 3) for one loaded brush, read near the stroke: every tint stays in the palette of its place."""
    rows, columns = color.shape[:2]
    spread = rng.normal(0, 1, (2, 2)) * stray * np.array([[0.6], [1.6]])
    near = [color[int(np.clip(y + dy, 0, rows - 1)), int(np.clip(x + dx, 0, columns - 1))] for dx, dy in spread]
    value = rng.normal(1.0, [[0.09], [0.16]], (2, 1))
    return np.asarray(np.stack(near) * value + rng.normal(0, 7, (2, 3)), np.float32)


def trace(direction: FloatArray, x: float, y: float, length: float, steps: int) -> FloatArray:
    """Points (steps, 2) along the field, centred on (x, y)."""
    rows, columns = direction.shape[:2]
    step = length / (steps - 1)
    x0, y0 = x, y
    points = np.empty((steps, 2), np.float32)
    middle = steps // 2
    for sign, indices in ((1.0, range(middle, steps)), (-1.0, range(middle - 1, -1, -1))):
        x, y = (x0, y0) if sign > 0 else points[middle]
        for k in indices:
            if k != middle:
                dx, dy = direction[min(max(int(y), 0), rows - 1), min(max(int(x), 0), columns - 1)]
                x, y = x + sign * step * dx, y + sign * step * dy
            points[k] = x, y
    return points


def stroke(
    rng: np.random.Generator, path: FloatArray, width: float, colors: FloatArray, canvas: ByteArray, height: ByteArray
) -> None:
    """One loaded brush: parallel bristles, each with its own tint, height, start and end."""
    bristles = max(3, int(width / 2.6))
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    along = np.linspace(0.0, 1.0, len(path), dtype=np.float32)
    taper = np.minimum(1.0, np.minimum(along * 5 + 0.35, (1 - along) * 2.2 + 0.12))[:, None]
    mix = np.clip(np.cumsum(rng.normal(0, 0.3, bristles)) + rng.uniform(0, 0.7), 0, 1)
    thickness = max(1, int(np.ceil(width / bristles * 1.25)))
    lift = rng.uniform(110, 140)
    for k in rng.permutation(bristles):
        v = (k + 0.5) / bristles * 2 - 1
        first, last = int(rng.integers(0, 3)), len(path) - int(rng.integers(0, 4))
        points = np.rint((path + normal * (v * width / 2 * taper))[first:last] * 16).astype(np.int32).reshape(-1, 1, 2)
        tint = np.clip(colors[0] * (1 - mix[k]) + colors[1] * mix[k] + rng.normal(0, 5), 0, 255)
        ridge = np.clip(lift + 22 * abs(v) ** 3 + rng.normal(0, 15), 0, 255)
        cv2.polylines(canvas, [points], False, tuple(map(float, tint)), thickness, cv2.LINE_AA, 4)
        cv2.polylines(height, [points], False, float(ridge), thickness, cv2.LINE_AA, 4)
