"""A leaded window: sun, hills, river and a tree cut into pieces of streaky glass, rounded lead cames between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import ByteArray, FloatArray, Size, finish, grid, noise, ramp, relief, shrink, smoothstep

SUPERSAMPLE = 2
SUN = (0.60, 0.30)
CAME = 0.0062  # width of the lead in long sides


@dataclass(frozen=True)
class Part:
    """A part of the cartoon: its place, coordinates (u, v) it is cut along in pieces of one unit, colours, tone."""

    inside: NDArray[np.bool_]
    u: FloatArray
    v: FloatArray
    colors: list[str]
    tone: FloatArray


def paint(size: Size, seed: int = 0) -> ByteArray:
    """uint8 (H, W, 3) painting."""
    rng = np.random.default_rng(seed)
    big = size.times(SUPERSAMPLE)
    pieces, color = cut(rng, big, cartoon(rng, big))
    inset, lead = leading(pieces, big)
    glass = light(rng, big, color, inset)
    round_came = np.sqrt(np.clip(1 - (inset / lead) ** 2, 0, 1)).astype(np.float32)
    hammered = round_came + 0.06 * noise(rng, big, 90, 3)
    diffuse, specular = relief(cv2.GaussianBlur(hammered, (0, 0), 1.2), depth=0.55 * CAME * big.long)
    came = np.array([38, 37, 40], np.float32) * (0.45 + 0.75 * diffuse)[..., None] + 95 * specular[..., None]
    solid = smoothstep(-0.8, 0.8, lead - inset)[..., None]
    return finish(shrink(glass * (1 - solid) + came * solid, size))


def cartoon(rng: np.random.Generator, size: Size) -> list[Part]:
    """The parts from the back to the front; a later part covers the earlier ones."""
    x, y = grid(size)
    bottom = size.height / size.long
    wobble = 0.010 * noise(rng, size, 5, 2)
    away, turn = np.hypot(x - SUN[0], y - SUN[1]) + wobble, np.arctan2(y - SUN[1], x - SUN[0]) / (2 * np.pi)
    everywhere = np.ones(x.shape, bool)
    ring = (np.sqrt(np.maximum(away, 0.10)) - np.sqrt(0.10)) * 15
    parts = [
        Part(
            everywhere,
            ring,
            turn * 26 + 0.3 * np.floor(ring),
            ["#ffe680", "#ffb02e", "#f2701d", "#d9344a", "#8e2a80", "#3b3fae", "#2176c7", "#2fb3c9"],
            away / 0.72,
        ),
        Part(away < 0.10, away * 0, turn * 9, ["#fff6c8", "#ffd23f", "#ff9f1c"], away / 0.10),
        Part(away < 0.052, away * 0, away * 0, ["#fffbe0", "#fff0a8"], away / 0.06),
    ]
    for k, (level, rise, colors) in enumerate(
        (
            (0.55, 0.060, ["#b7a3e0", "#6a4fb0", "#3d2f86"]),
            (0.63, 0.050, ["#5fd0b0", "#1f9e8a", "#0e5f78"]),
            (0.72, 0.060, ["#d8e04a", "#5fb83a", "#157a45", "#0b4d3c"]),
        )
    ):
        ridge = bottom * level + rise * np.sin(x * (7 + 2 * k) + 2.1 * k) + wobble
        parts.append(
            Part(y > ridge, (y - ridge) / 0.042, x * 13 + 1.8 * (y - ridge) / 0.12, colors, (y - ridge) / 0.20)
        )
    parts += [river(x, y, bottom, wobble), *tree(rng, size, x, y, bottom), *flowers(rng, x, y, bottom)]
    return parts


def river(x: FloatArray, y: FloatArray, bottom: float, wobble: FloatArray) -> Part:
    """Water that winds from the hills to the lower edge, cut into long slips."""
    near = np.clip((y - 0.66 * bottom) / (0.34 * bottom), 0, 1)
    middle = 0.60 + 0.16 * np.sin(near * 4.6 + 0.4) * (0.35 + near) + wobble
    half = 0.022 + 0.17 * near**1.4
    across = (x - middle) / half
    slip = across * (1.2 + 2.4 * near) + 0.5 * np.sin(near * 14)
    return Part(
        (y > 0.66 * bottom) & (np.abs(across) < 1),
        slip,
        near * 7,
        ["#e8f7ff", "#8fd8f0", "#2f9fe0", "#1a5fc0", "#152f86"],
        np.abs(across) * 0.7 + 0.3 * near,
    )


def tree(rng: np.random.Generator, size: Size, x: FloatArray, y: FloatArray, bottom: float) -> list[Part]:
    """A leaning trunk with branches on the left, under a crown of leaf-shaped pieces."""
    height = np.clip((bottom - y) / bottom, 0, 1)
    middle = 0.17 + 0.05 * np.sin(height * 5) + 0.02 * np.sin(height * 13)
    half = 0.026 + 0.06 * np.exp(-height * 9) + 0.01 * (1 - height)
    trunk = Part(
        np.abs(x - middle) < half,
        (x - middle) / half * 1.3 + 0.5,
        height * 8,
        ["#7a4a2a", "#a8652f", "#5a2d22", "#c98a4a"],
        np.abs(x - middle) / half,
    )
    crown = np.hypot((x - 0.17) / 1.35, y - 0.13) + 0.035 * noise(rng, size, 5, 3)
    leaf_u = np.asarray(x * 15 + y * 9 + 0.35 * np.sin(y * 40), np.float32)
    leaf_v = np.asarray(y * 19 - x * 8 + 0.35 * np.sin(x * 40), np.float32)
    leaves = Part(
        crown < 0.235,
        leaf_u,
        leaf_v,
        ["#f7d038", "#a8cf3a", "#3aa845", "#0f7a4a", "#0a5a52", "#d8602a"],
        crown / 0.24 + 0.16 * noise(rng, size, 12, 2),
    )
    return [trunk, leaves]


def flowers(rng: np.random.Generator, x: FloatArray, y: FloatArray, bottom: float) -> list[Part]:
    """Round blossoms of five petals about an eye, along the lower edge."""
    parts = []
    for cx in (0.06, 0.30, 0.40, 0.83, 0.95):
        cy, radius = bottom - rng.uniform(0.05, 0.14), rng.uniform(0.042, 0.062)
        away, turn = np.hypot(x - cx, y - cy) / radius, np.arctan2(y - cy, x - cx) / (2 * np.pi)
        petal = 0.82 + 0.18 * np.abs(np.cos(turn * 5 * np.pi))
        colors = [["#ffd0dc", "#f0447a", "#a81050"], ["#fff0e0", "#ff7a3a", "#d02a20"]][int(rng.integers(0, 2))]
        parts.append(Part(away < petal, away * 0, turn * 5, colors, away))
        parts.append(Part(away < 0.30, away * 0, away * 0, ["#fff2a0", "#ffc21f"], away / 0.3))
    return parts


def cut(rng: np.random.Generator, size: Size, parts: list[Part]) -> tuple[NDArray[np.int32], FloatArray]:
    """Number (H, W) and colour (H, W, 3) of the piece of glass at every pixel."""
    pieces = np.zeros((size.height, size.width), np.int32)
    color = np.zeros((size.height, size.width, 3), np.float32)
    for k, part in enumerate(parts):
        row = np.floor(part.u).astype(np.int32)
        shift = rng.random(64).astype(np.float32)[row % 64]
        column = np.floor(part.v + shift).astype(np.int32)
        number = (k + 1) * 1_000_000 + (row % 500) * 1000 + column % 1000
        table = rng.normal(0, 1, (4, 4096)).astype(np.float32)
        key = (row * 61 + column * 17) % 4096
        tone = np.clip(part.tone + 0.13 * table[0][key], 0, 1)
        tint = (
            ramp(tone, part.colors) * (1.06 + 0.10 * np.clip(table[1][key], -1, 2))[..., None] + 7 * table[1:4].T[key]
        )
        pieces[part.inside] = number[part.inside]
        color[part.inside] = tint[part.inside]
    return pieces, color


def leading(pieces: NDArray[np.int32], size: Size) -> tuple[FloatArray, FloatArray]:
    """Distance (H, W) of every pixel to the nearest cut and half the width of the lead there, in pixels."""
    edge = np.zeros(pieces.shape, np.uint8)
    edge[:, 1:] |= pieces[:, 1:] != pieces[:, :-1]
    edge[1:] |= pieces[1:] != pieces[:-1]
    outline = np.zeros(pieces.shape, np.uint8)
    part = pieces // 1_000_000
    outline[:, 1:] |= part[:, 1:] != part[:, :-1]
    outline[1:] |= part[1:] != part[:-1]
    inset = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 5)
    # The lead between two parts is heavier than that between two pieces of one part.
    strong = cv2.distanceTransform(1 - outline, cv2.DIST_L2, 5) < CAME * size.long
    half = np.where(strong, 0.62, 0.42).astype(np.float32) * CAME * size.long
    return inset.astype(np.float32), cv2.GaussianBlur(half, (0, 0), 2.0)


def light(rng: np.random.Generator, size: Size, color: FloatArray, inset: FloatArray) -> FloatArray:
    """Streaks, seeds (bubbles) and ripples in the glass; paler in the middle of a piece, darker along the lead."""
    x, y = np.meshgrid(np.arange(size.width, dtype=np.float32), np.arange(size.height, dtype=np.float32))
    bend_x, bend_y = (size.long * 0.03 * noise(rng, size, 5, 3) for _ in range(2))
    streaks = noise(rng, size, 26, 4, stretch=(0.35, 1.8))
    streaks = cv2.remap(streaks, x + bend_x, y + bend_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    ripple, glint = relief(noise(rng, size, 55, 3), depth=0.0016 * size.long)
    seeds = np.zeros(inset.shape, np.uint8)
    for px, py in rng.random((2600, 2)) * (size.width, size.height):
        cv2.circle(seeds, (int(px), int(py)), int(rng.integers(1, max(2, size.long // 600))), 255.0, -1, cv2.LINE_AA)
    middle = smoothstep(0.0, 0.02 * size.long, inset)
    glow = 0.74 + 0.40 * middle + 0.11 * streaks
    pale = color + (255 - color) * (0.12 * smoothstep(0.6, 2.2, streaks) + 0.10 * middle * glint)[..., None]
    shine = cv2.GaussianBlur(seeds, (0, 0), 0.8).astype(np.float32)[..., None] / 255
    return np.asarray(pale * (glow * (0.6 + 0.4 * ripple))[..., None] + 45 * shine, np.float32)
