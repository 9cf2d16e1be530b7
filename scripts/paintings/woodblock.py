"""Breaking waves as a colour woodcut: Prussian blue on cream, ink outlines, foam claws, wood grain."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from .fields import ByteArray, FloatArray, Size, finish, grain, grid, noise, ramp, rgb, shrink, smoothstep

SUPERSAMPLE = 2
PAPER, FOAM, INK = "#efe3c4", "#f7f1dd", "#16202e"
BLUES = ("#132a52", "#1d4478", "#2f6a9e", "#6f9fbd", "#b9cfd0")
STRIPES = ("#132a52", "#e9e2c8", "#1d4478", "#2f6a9e", "#132a52", "#b9cfd0", "#1d4478", "#6f9fbd")
SUN = "#d2452f"


@dataclass(frozen=True)
class Breaker:
    """A curling wave: foot and height in long sides, facing right (1) or left (-1)."""

    x: float
    y: float
    height: float
    facing: int
    stripes: int


# From the back to the front.
BREAKERS = (
    Breaker(0.86, 0.440, 0.13, -1, 9),
    Breaker(0.52, 0.455, 0.10, 1, 8),
    Breaker(0.33, 0.520, 0.40, 1, 17),
    Breaker(0.93, 0.585, 0.26, -1, 13),
    Breaker(0.66, 0.630, 0.15, 1, 10),
    Breaker(0.16, 0.655, 0.17, 1, 11),
)


class Print:
    """The colour blocks and the key block, printed separately as a woodcut is."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.color = np.empty((size.height, size.width, 3), np.uint8)
        self.color[:] = rgb(PAPER)
        self.ink = np.zeros((size.height, size.width), np.uint8)

    def fill(self, points: FloatArray, color: str) -> None:
        """Fill a polygon (N, 2) given in long sides; it hides the ink behind it."""
        corners = [np.rint(points * self.size.long * 16).astype(np.int32)]
        cv2.fillPoly(self.color, corners, rgb(color), cv2.LINE_AA, 4)
        cv2.fillPoly(self.ink, corners, 0.0, cv2.LINE_AA, 4)

    def line(self, points: FloatArray, width: float, taper: bool = True) -> None:
        """An ink line along points (N, 2) that swells as a carved line does; width in long sides."""
        tangent = np.gradient(points, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
        along = np.linspace(0, 1, len(points))
        swell = 1.0 + 0.35 * np.sin(along * self.rng.uniform(6, 14) + self.rng.uniform(0, 6.3))
        if taper:
            swell *= np.sqrt(np.minimum(1.0, np.minimum(along, 1 - along) * 8 + 0.06))
        half = normal * (swell * width / 2)[:, None]
        corners = [
            np.rint(np.concatenate([points + half, (points - half)[::-1]]) * self.size.long * 16).astype(np.int32)
        ]
        cv2.fillPoly(self.ink, corners, 255.0, cv2.LINE_AA, 4)


def paint(size: Size, seed: int = 0) -> ByteArray:
    """uint8 (H, W, 3) painting."""
    rng = np.random.default_rng(seed)
    sheet = Print(size.times(SUPERSAMPLE), rng)
    sky(sheet)
    for k, breaker in enumerate(BREAKERS):
        swell(sheet, breaker)
        wave(sheet, breaker)
        if k == 1:
            scales(sheet, top=0.47, rows=3, radius=0.022)
    scales(sheet, top=size.height / size.long - 0.105, rows=5, radius=0.046)
    return pull(sheet, size)


def sky(sheet: Print) -> None:
    """Bokashi: the top and the horizon are wiped darker; a sun, and bands of mist with carved lines."""
    size, rng = sheet.size, sheet.rng
    _, y = grid(size)
    shade = np.clip(1 - y / 0.24 + 0.03 * noise(rng, size, 6, 3), 0, 1) + 0.45 * smoothstep(0.28, 0.5, y)
    sheet.color[:] = finish(ramp(np.clip(shade, 0, 1), [PAPER, "#dfd8bd", "#a9bcb8", "#5f8ba6", "#2f6a9e"]))
    turn = np.linspace(0, 2 * np.pi, 200)
    disc = np.stack([0.70 + 0.075 * np.cos(turn), 0.17 + 0.075 * np.sin(turn)], 1).astype(np.float32)
    sheet.fill(disc, SUN)
    for level in np.arange(0.012, 0.46, 0.0085):
        for left in np.arange(-0.1, 1.0, 0.16) + rng.uniform(-0.06, 0.06, 7):
            reach = np.linspace(left, left + rng.uniform(0.03, 0.15), 40, dtype=np.float32)
            drift = level + 0.006 * np.sin(reach * 11 + 2.0) + rng.normal(0, 0.001)
            sheet.line(np.stack([reach, drift], 1).astype(np.float32), 0.0010 + 0.0006 * rng.random())
    for level in np.linspace(0.04, 0.43, 13):
        left, width = rng.uniform(-0.15, 0.85), rng.uniform(0.2, 0.5)
        mist(sheet, left, left + width, level, 0.014 + 0.012 * rng.random())


def mist(sheet: Print, left: float, right: float, level: float, thick: float) -> None:
    """A band of mist with rounded ends, outlined, with two lines inside."""
    t = np.linspace(0, 1, 80, dtype=np.float32)
    x = left + (right - left) * t
    wobble = 0.004 * np.sin(t * 9 + level * 40)
    profile = thick / 2 * np.sqrt(np.clip(1 - (2 * t - 1) ** 8, 0, 1))
    upper, lower = np.stack([x, level + wobble - profile], 1), np.stack([x, level + wobble + profile], 1)
    sheet.fill(np.concatenate([upper, lower[::-1]]), FOAM)
    for edge in (upper, lower):
        sheet.line(edge, 0.0022)
    sheet.line(np.stack([x, level + wobble + thick * 0.12], 1)[8:-20], 0.0015)


def bezier(*corners: tuple[float, float], count: int = 60) -> FloatArray:
    """Points (count, 2) of a cubic Bezier curve through four control points."""
    t = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    a, b, c, d = (np.array(p, np.float32) for p in corners)
    return np.asarray(a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t * t * (1 - t) + d * t**3, np.float32)


def profiles(breaker: Breaker) -> tuple[FloatArray, FloatArray]:
    """Back and hollow of a breaker (N, 2) in long sides, both from the foot to the tip of the lip."""
    back = np.concatenate(
        [
            bezier((-1.75, 0.0), (-0.85, 0.04), (-0.55, 1.0), (0.06, 1.0)),
            bezier((0.06, 1.0), (0.42, 1.0), (0.74, 0.86), (0.74, 0.50))[1:],
        ]
    )
    hollow = np.concatenate(
        [
            bezier((1.15, 0.0), (0.30, 0.02), (-0.10, 0.30), (0.10, 0.60)),
            bezier((0.10, 0.60), (0.24, 0.80), (0.56, 0.82), (0.74, 0.50))[1:],
        ]
    )
    flip = np.array([breaker.facing * breaker.height, -breaker.height], np.float32)
    foot = np.array([breaker.x, breaker.y], np.float32)
    return back * flip + foot, hollow * flip + foot


def swell(sheet: Print, breaker: Breaker) -> None:
    """The sea from which a breaker rises: bands that undulate across the whole sheet, down to the next one."""
    bottom = sheet.size.height / sheet.size.long
    x = np.linspace(-0.02, 1.02, 300, dtype=np.float32)
    phase = sheet.rng.uniform(0, 6.3)
    level = breaker.y - 0.012
    for k in range(9):
        wave_line = (
            level + k * 0.016 * (1 + 0.12 * k) + (0.007 + 0.002 * k) * np.sin(x * (14 - k * 0.6) + phase + 0.55 * k)
        )
        edge = np.stack([x, wave_line], 1)
        sheet.fill(
            np.concatenate([edge, [[1.02, bottom + 0.05], [-0.02, bottom + 0.05]]]).astype(np.float32),
            STRIPES[(k * 3 + 1) % len(STRIPES)],
        )
        sheet.line(edge, 0.0024, taper=False)


def wave(sheet: Print, breaker: Breaker) -> None:
    """Stripes sweep from the foot up the face and meet in the lip; foam claws hang on the crest."""
    back, hollow = profiles(breaker)
    rng = sheet.rng
    shares = np.cumsum(np.concatenate([[0.0], rng.uniform(0.5, 1.5, breaker.stripes)]))
    shares = (shares / shares[-1]) ** 0.9
    curves = [back * (1 - s) + hollow * s for s in shares]
    for k, (near, far) in enumerate(pairwise(curves)):
        sheet.fill(np.concatenate([near, far[::-1]]), STRIPES[k % len(STRIPES)])
        for share in (0.3, 0.65):
            first, last = int(rng.integers(5, 45)), int(rng.integers(75, len(near) - 2))
            sheet.line((near * (1 - share) + far * share)[first:last], breaker.height * 0.004 + 0.0004)
    for k, curve in enumerate(curves):
        sheet.line(curve, breaker.height * (0.016 if k in (0, breaker.stripes) else 0.009) + 0.0008)
    foam(sheet, breaker, back, hollow)
    spray(sheet, breaker, back)


def foam(sheet: Print, breaker: Breaker, back: FloatArray, hollow: FloatArray) -> None:
    """A white edge along the crest, with hooked fingers outwards and down from the lip."""
    rng, size = sheet.rng, breaker.height
    first = int(len(back) * 0.42)
    crest = back[first:]
    share = np.linspace(0.10, 0.42, len(crest), dtype=np.float32)[:, None]
    inner = crest * (1 - share) + hollow[first:] * share
    scallop = (
        0.02
        * size
        * np.sin(np.linspace(0, 46, len(crest), dtype=np.float32))[:, None]
        * np.array([0.4, 1.0], np.float32)
    )
    for offset, color in ((0.09, BLUES[3]), (0.0, FOAM)):
        edge = inner + offset * (hollow[first:] - inner) + scallop
        sheet.fill(np.concatenate([crest, edge[::-1]]).astype(np.float32), color)
        sheet.line(edge, 0.0016 + 0.004 * size)
    for k in np.linspace(0, len(crest) - 2, int(15 + 26 * size / 0.4)).astype(int):
        outward = normal_at(crest, k) * breaker.facing
        reach = size * rng.uniform(0.08, 0.17) * (0.6 + 0.6 * k / len(crest))
        claw(sheet, crest[k], outward, reach, breaker.facing, depth=2)
    for k in np.linspace(len(hollow) * 0.66, len(hollow) - 2, int(8 + 14 * size / 0.4)).astype(int):
        down = np.array([0.55 * breaker.facing, 1.0], np.float32) + rng.normal(0, 0.25, 2).astype(np.float32)
        claw(sheet, hollow[k], down / np.linalg.norm(down), size * rng.uniform(0.07, 0.15), breaker.facing, depth=2)


def normal_at(curve: FloatArray, k: int) -> FloatArray:
    """Unit normal of a curve at point k, to the left of the direction of travel on the sheet."""
    tangent = curve[min(k + 1, len(curve) - 1)] - curve[max(k - 1, 0)]
    tangent = tangent / max(float(np.linalg.norm(tangent)), 1e-9)
    return np.array([tangent[1], -tangent[0]], np.float32)


def claw(sheet: Print, root: FloatArray, direction: FloatArray, reach: float, facing: int, depth: int) -> None:
    """A finger of foam that bends forward into a hook, with smaller fingers on its back."""
    forward = np.array([facing * 1.0, 0.55], np.float32)
    t = np.linspace(0, 1, 24, dtype=np.float32)[:, None]
    bend = t**2 * 0.75
    spine = root + reach * (direction * t * (1 - 0.45 * t) + forward * bend)
    tangent = np.gradient(spine, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    side = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    half = reach * 0.20 * (1 - t) ** 0.7 * (1 + 0.25 * np.sin(t * 9))
    outline = np.concatenate([spine + side * half, (spine - side * half)[::-1]]).astype(np.float32)
    if depth > 1:
        for k in (9, 15):
            twig = (side[k] * -facing + tangent[k] * 0.4).astype(np.float32)
            claw(sheet, spine[k], twig / np.linalg.norm(twig), reach * 0.5, facing, depth - 1)
    sheet.fill(outline, FOAM)
    sheet.line(outline, 0.0011 + 0.006 * reach)


def spray(sheet: Print, breaker: Breaker, back: FloatArray) -> None:
    """Drops thrown ahead of the lip."""
    rng, turn = sheet.rng, np.linspace(0, 2 * np.pi, 20)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    for _ in range(int(30 + 300 * breaker.height)):
        k = int(rng.integers(len(back) // 2, len(back)))
        away = (
            np.abs(rng.normal(0, 0.22, 2))
            * breaker.height
            * np.array([breaker.facing, 1.0])
            * (1.0, rng.choice([-1.0, 0.7]))
        )
        drop = (back[k] + away + circle * breaker.height * rng.uniform(0.004, 0.013)).astype(np.float32)
        sheet.fill(drop, FOAM)
        sheet.line(drop, 0.0011, taper=False)


def scales(sheet: Print, top: float, rows: int, radius: float) -> None:
    """Rows of overlapping concentric arcs, the front rows over the back ones."""
    turn = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    for row in range(rows):
        spacing = radius * 1.86
        for column in range(int(1 / spacing) + 3):
            x = (column - 1 + 0.5 * (row % 2)) * spacing
            y = top + row * radius * 0.52 + 0.012 * np.sin(x * 7 + 1.3) + radius
            for ring, share in enumerate((1.0, 0.80, 0.62, 0.44, 0.27)):
                arc = (np.array([x, y]) + circle * radius * share).astype(np.float32)
                sheet.fill(arc, (BLUES[0], FOAM, BLUES[2], PAPER, BLUES[1])[ring])
                sheet.line(arc, radius * 0.05, taper=False)


def pull(sheet: Print, size: Size) -> ByteArray:
    """Print the sheet: carved wobble, blocks out of register, wood grain in the colour, fibres in the paper."""
    rng = sheet.rng
    big = sheet.size
    color, ink = sheet.color.astype(np.float32), sheet.ink.astype(np.float32) / np.float32(255)
    x, y = np.meshgrid(np.arange(big.width, dtype=np.float32), np.arange(big.height, dtype=np.float32))
    dx, dy = (0.0011 * big.long * noise(rng, big, 22, 3) for _ in range(2))
    ink = cv2.remap(ink, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shift = big.long * 0.0009
    color = cv2.remap(color, x + dx + shift, y + dy - shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    color, ink = shrink(color, size), shrink(ink, size)
    wood = noise(rng, size, 60, 3, stretch=(0.05, 2.0)) + 0.5 * noise(rng, size, 14, 3, stretch=(0.12, 1.0))
    speckle = noise(rng, size, size.long / 2.5, 1)
    paper = np.array(rgb(PAPER), np.float32)
    density = np.clip(0.93 + 0.055 * wood + 0.035 * speckle, 0.5, 1.06)[..., None]
    printed = paper + (color - paper) * density
    key = ink * np.clip(0.93 + 0.05 * speckle, 0, 1)
    printed = printed * (1 - key[..., None]) + np.array(rgb(INK), np.float32) * key[..., None]
    fibre = 2.2 * noise(rng, size, 120, 2, stretch=(0.5, 1.5)) + 3.0 * grain(rng, size)
    return finish(printed + fibre[..., None])
