"""Seeded noise, colour ramps and raking light: what every generated painting is built from.

Everything is laid out in units of the picture, not of pixels: a small render shows the same composition as a large one.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


class Size(NamedTuple):
    """Width and height of a picture in pixels."""

    width: int
    height: int

    @property
    def long(self) -> int:
        """The longer side in pixels."""
        return max(self)

    def times(self, factor: int) -> Size:
        """The size of a supersampled canvas."""
        return Size(self.width * factor, self.height * factor)


def grid(size: Size) -> tuple[FloatArray, FloatArray]:
    """Coordinates (x, y) of every pixel centre, float32 (H, W), in long sides from the top left corner."""
    x = (np.arange(size.width, dtype=np.float32) + 0.5) / np.float32(size.long)
    y = (np.arange(size.height, dtype=np.float32) + 0.5) / np.float32(size.long)
    columns, rows = np.meshgrid(x, y)
    return columns.astype(np.float32), rows.astype(np.float32)


def grain(rng: np.random.Generator, size: Size) -> FloatArray:
    """White noise, float32 (H, W), unit deviation: the tooth of paper or canvas."""
    return rng.standard_normal((size.height, size.width), np.float32)


def noise(
    rng: np.random.Generator, size: Size, cells: float, octaves: int = 4, stretch: tuple[float, float] = (1.0, 1.0)
) -> FloatArray:
    """Fractal value noise, float32 (H, W), zero mean and unit deviation.

    `cells` counts the cells of the coarsest octave along the long side; `stretch` multiplies them along (x, y).
    """
    total = np.zeros((size.height, size.width), np.float32)
    for octave in range(octaves):
        scale = cells * 2.0**octave / size.long
        columns, rows = (max(2, round(side * scale * s) + 1) for side, s in zip(size, stretch, strict=True))
        lattice = rng.standard_normal((rows, columns)).astype(np.float32)
        if columns <= 2 * size.width and rows <= 2 * size.height:
            total += cv2.resize(lattice, (size.width, size.height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def ramp(value: FloatArray, colors: list[str]) -> FloatArray:
    """Colours (H, W, 3) in [0, 255] read from a ramp of evenly spaced hexadecimal colours; value in [0, 1]."""
    stops = np.linspace(0.0, 1.0, len(colors))
    table = np.array([rgb(c) for c in colors], np.float32)
    return np.stack([np.interp(value, stops, table[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def rgb(color: str) -> tuple[int, int, int]:
    """'#c8102e' -> (200, 16, 46)."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def smoothstep(low: float, high: float, value: FloatArray) -> FloatArray:
    """0 below low, 1 above high, a cubic in between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def relief(
    height: FloatArray, depth: float, light: tuple[float, float, float] = (-0.55, -0.65, 0.52)
) -> tuple[FloatArray, FloatArray]:
    """Diffuse and specular light (H, W) on a surface: diffuse is 1 where the surface is flat, specular in [0, 1].

    `height` in any unit, `depth` in pixels per that unit; the light comes from the upper left, the eye from above.
    """
    dy, dx = np.gradient(height.astype(np.float32) * depth)
    length = np.sqrt(dx * dx + dy * dy + 1.0)
    lx, ly, lz = np.array(light) / np.linalg.norm(light)
    diffuse = np.maximum((-dx * lx - dy * ly + lz) / length, 0.0) / lz
    hx, hy, hz = np.array([lx, ly, lz + 1.0]) / np.linalg.norm([lx, ly, lz + 1.0])
    specular = np.maximum((-dx * hx - dy * hy + hz) / length, 0.0) ** 40
    flat = hz**40
    return diffuse.astype(np.float32), np.maximum(specular - flat, 0.0).astype(np.float32)


def shrink(image: NDArray[np.generic], size: Size) -> FloatArray:
    """Area-averaged float32 copy of a supersampled canvas."""
    return np.asarray(cv2.resize(np.asarray(image, np.float32), tuple(size), interpolation=cv2.INTER_AREA), np.float32)


def finish(image: FloatArray) -> ByteArray:
    """Float picture in [0, 255] -> uint8, rounded and clipped."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
