"""Mountains over a lake in cross-hatched ink: evenly spaced tapered lines, in more directions where it is darker."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .fields import ByteArray, FloatArray, Size, finish, grain, grid, noise, ramp, rgb, shrink, smoothstep

SUPERSAMPLE = 2
PAPER, INK = "#f3ead6", "#1b1714"
SUN = (0.31, 0.155)


@dataclass(frozen=True)
class Hatch:
    """One direction of lines, turned from the form by `turn` radians; drawn where the tone is below `limit`."""

    turn: float
    limit: float
    spacing: float  # in long sides
    length: float
    width: float  # of the darkest line, in spacings


HATCHES = (
    Hatch(turn=0.0, limit=0.985, spacing=1 / 185, length=0.16, width=0.50),
    Hatch(turn=0.95, limit=0.58, spacing=1 / 200, length=0.06, width=0.34),
    Hatch(turn=-0.75, limit=0.37, spacing=1 / 200, length=0.05, width=0.36),
    Hatch(turn=1.75, limit=0.18, spacing=1 / 200, length=0.04, width=0.40),
)


def paint(size: Size, seed: int = 0) -> ByteArray:
    """uint8 (H, W, 3) painting."""
    rng = np.random.default_rng(seed)
    big = size.times(SUPERSAMPLE)
    tone, angle, outlines = scene(rng, size)
    ink = np.zeros((big.height, big.width), np.uint8)
    for hatch in HATCHES:
        rule(rng, hatch, tone, angle, ink)
    for outline in outlines:
        carve(rng, ink, outline * SUPERSAMPLE, 2.6 * size.long / 1024)
    wash = np.clip(tone + 0.05 * noise(rng, size, 8, 4), 0, 1)
    paper = ramp(cv2.GaussianBlur(wash, (0, 0), size.long / 170), ["#6b5237", "#a98a5c", "#d9c39a", "#efe2c6", PAPER])
    paper = paper + (2.5 * noise(rng, size, 150, 2) + 2.0 * grain(rng, size))[..., None]
    cover = shrink(ink, size) / 255 * np.clip(0.93 + 0.05 * noise(rng, size, 200, 2), 0, 1)
    return finish(paper * (1 - cover[..., None]) + np.array(rgb(INK), np.float32) * cover[..., None])


def scene(rng: np.random.Generator, size: Size) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
    """Tone (H, W), direction of the lines in radians (H, W) and ridge lines (N, 2) in pixels."""
    _, y = grid(size)
    tone, angle = clouds(rng, size)
    shore = 0.77 * size.height / size.long
    outlines: list[FloatArray] = []
    for k, (level, rise, cells) in enumerate(((0.36, 0.105, 3.0), (0.44, 0.13, 3.6), (0.52, 0.085, 5.0))):
        ridge = level * size.height / size.long * 1.25 - rise * peaks(rng, size, cells)
        inside = y > ridge
        light, lean = slopes(rng, size, ridge, y, 8 + 3 * k)
        mist = smoothstep(0.02, 0.16 + 0.03 * k, y - ridge) * (0.34 - 0.10 * k)
        tone = np.where(inside, np.clip(light * (1 - 0.10 * k) + mist, 0.1, 0.95), tone)
        angle = np.where(inside, lean, angle)
        outlines.append(np.stack([np.arange(size.width), ridge * size.long], 1).astype(np.float32))
    tone, angle = lake(rng, size, tone, angle, shore)
    outlines = [line[line[:, 1] < shore * size.long] for line in outlines]
    tone, angle = pines(rng, size, tone, angle)
    return tone.astype(np.float32), angle.astype(np.float32), outlines


def clouds(rng: np.random.Generator, size: Size) -> tuple[FloatArray, FloatArray]:
    """Rolling clouds shaded below, lines round them, and rays from the sun."""
    x, y = grid(size)
    billow = noise(rng, size, 4.5, 3, stretch=(0.8, 1.5))
    roll = cv2.GaussianBlur(billow, (0, 0), size.long / 90)
    gy, gx = np.gradient(roll * size.long / 30)
    lit = 0.60 - 0.42 * gy - 0.22 * gx + 0.10 * billow
    away = np.hypot(x - SUN[0], y - SUN[1])
    glow = np.exp(-((away / 0.09) ** 2))
    rays = np.arctan2(y - SUN[1], x - SUN[0])
    mass = smoothstep(-0.1, 0.5, billow)
    tone = mass * lit + (1 - mass) * (0.60 + 0.18 * np.sin(22 * rays))
    tone = np.where(away < 0.052, 1.0, np.clip(tone + 0.4 * glow, 0.15, 0.97))
    along = np.arctan2(gx, -gy)
    angle = np.where(mass > 0.5, along, rays)
    return tone.astype(np.float32), angle.astype(np.float32)


def peaks(rng: np.random.Generator, size: Size, cells: float) -> FloatArray:
    """A jagged skyline (W,), about zero mean, sharp at the tops."""
    row = noise(rng, Size(size.width, 2), cells, 6)[0]
    return np.asarray(1.1 - np.abs(row) * 1.3 + 0.12 * noise(rng, Size(size.width, 2), cells * 9, 3)[0], np.float32)


def slopes(
    rng: np.random.Generator, size: Size, ridge: FloatArray, y: FloatArray, cells: float
) -> tuple[FloatArray, FloatArray]:
    """Light from the left on gullied rock below a ridge, and lines that fall with the slope."""
    x, _ = grid(size)
    depth = np.maximum(y - ridge, 0)
    fan = x + 0.35 * depth * np.sin(x * 17 + 2)
    columns = np.clip(fan * size.long, 0, size.width - 1).astype(np.float32)
    gully = noise(rng, size, cells, 4, stretch=(1.5, 0.35))
    rock = cv2.remap(
        gully, columns, (depth * size.long).astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    smooth = cv2.GaussianBlur(rock, (0, 0), size.long / 250)
    gx = np.gradient(smooth, axis=1) * size.long / 14
    light = 0.52 + 0.40 * np.tanh(1.1 * gx) + 0.09 * rock
    lean = np.pi / 2 - 0.75 * np.tanh(gx * 1.2) + 0.15 * smooth
    return light.astype(np.float32), lean.astype(np.float32)


def lake(
    rng: np.random.Generator, size: Size, tone: FloatArray, angle: FloatArray, shore: float
) -> tuple[FloatArray, FloatArray]:
    """Still water: the picture above the shore upside down, darker, broken by level ripples."""
    x, y = grid(size)
    ripple = noise(rng, size, 9, 4, stretch=(0.6, 5.0))
    mirrored = np.clip((2 * shore - y) * size.long + 7 * ripple * size.long / 1024, 0, size.height - 1).astype(
        np.float32
    )
    reflected = cv2.remap(
        tone,
        (x * size.long + 5 * ripple).astype(np.float32),
        mirrored,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    water = np.clip(0.20 + 0.62 * reflected + 0.16 * ripple, 0.15, 0.97)
    wet = y > shore
    level = 0.04 * ripple
    return np.where(wet, water, tone).astype(np.float32), np.where(wet, level, angle).astype(np.float32)


def pines(rng: np.random.Generator, size: Size, tone: FloatArray, angle: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Dark pines at both sides of the foreground, boughs hanging from the stem."""
    x, y = grid(size)
    bottom = size.height / size.long
    tone, angle = tone.copy(), angle.copy()
    bank = bottom - 0.05 - 0.10 * np.abs(2 * x - 1) ** 1.5 + 0.008 * noise(rng, size, 14, 3)
    ground = y > bank
    tone = np.where(ground, np.clip(0.42 + 0.20 * noise(rng, size, 25, 3), 0.1, 0.95), tone)
    angle = np.where(ground, 1.2 + 0.5 * noise(rng, size, 12, 2), angle)
    places = np.concatenate([rng.uniform(0.0, 0.24, 9), rng.uniform(0.74, 1.0, 10)])
    for place in places:
        tall = rng.uniform(0.14, 0.40) * (0.55 + abs(2 * place - 1) * 0.6)
        foot = bottom - 0.03 - 0.10 * abs(2 * place - 1) ** 1.5
        fall = (y - (foot - tall)) / tall
        jag = 0.55 + 0.45 * np.mod(fall * (11 + 14 * tall) + 0.35 * np.sign(x - place), 1.0)
        side = (x - place) / (0.15 * tall + 0.012)
        tree = (fall > 0) & (fall < 1) & (np.abs(side) < fall * jag + 0.02)
        tone = np.where(tree, np.clip(0.16 - 0.22 * side + 0.55 * (1 - jag), 0.05, 0.75), tone)
        angle = np.where(tree, np.pi / 2 - np.sign(side) * (0.95 - 0.25 * fall), angle)
    return tone.astype(np.float32), angle.astype(np.float32)


@dataclass(frozen=True)
class Plate:
    """What the lines obey: unit direction (H, W, 2), tone (H, W), which line passed each cell (0: none)."""

    direction: FloatArray
    tone: FloatArray
    cells: NDArray[np.int32]
    spacing: float  # side of a cell in pixels
    limit: float

    def bare(self, x: float, y: float) -> bool:
        """Whether (x, y) is on the plate and dark enough for a line."""
        rows, columns = self.tone.shape
        return 0 <= x < columns and 0 <= y < rows and bool(self.tone[int(y), int(x)] <= self.limit)

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the cell at (x, y)."""
        return int(y / self.spacing), int(x / self.spacing)


def rule(rng: np.random.Generator, hatch: Hatch, tone: FloatArray, angle: FloatArray, ink: ByteArray) -> None:
    """Draw evenly spaced lines in one direction (after Jobard & Lefer 1997): a line ends where it nears another."""
    rows, columns = tone.shape
    long = max(rows, columns)
    spacing = hatch.spacing * long
    step = max(1.0, spacing * 0.5)
    cells = np.zeros((int(rows / spacing) + 2, int(columns / spacing) + 2), np.int32)
    direction = np.stack([np.cos(angle + hatch.turn), np.sin(angle + hatch.turn)], -1)
    plate = Plate(direction, tone, cells, spacing, hatch.limit)
    jitter = rng.random((cells.size, 2))
    for number, cell in enumerate(rng.permutation(cells.size), start=1):
        row, column = divmod(int(cell), cells.shape[1])
        x, y = (column + jitter[cell, 0]) * spacing, (row + jitter[cell, 1]) * spacing
        if cells[row, column] or not plate.bare(x, y):
            continue
        steps = int(hatch.length * long * rng.uniform(0.5, 1.3) / step / 2)
        halves = [follow(plate, x, y, signed, steps, number) for signed in (step, -step)]
        points = np.array(halves[1][::-1] + halves[0][1:], np.float32)
        if len(points) > 3:
            dark = np.clip(1.25 - float(tone[int(y), int(x)]) / hatch.limit, 0.30, 1.0)
            carve(rng, ink, points * SUPERSAMPLE, spacing * hatch.width * dark)


def follow(plate: Plate, x: float, y: float, step: float, steps: int, number: int) -> list[tuple[float, float]]:
    """Points of one half of a line from its start, marking the cells it passes with its number."""
    points = [(x, y)]
    plate.cells[plate.cell(x, y)] = number
    last_x, last_y = plate.direction[int(y), int(x)]
    for _ in range(steps):
        dx, dy = plate.direction[int(y), int(x)]
        # The field has no sign: go on the way the line came.
        turn = 1.0 if dx * last_x + dy * last_y >= 0 else -1.0
        last_x, last_y = dx * turn, dy * turn
        x, y = x + step * last_x, y + step * last_y
        if not plate.bare(x, y) or plate.cells[plate.cell(x, y)] not in (0, number):
            break
        plate.cells[plate.cell(x, y)] = number
        points.append((x, y))
    return points


def carve(rng: np.random.Generator, ink: ByteArray, points: FloatArray, width: float) -> None:
    """An ink line that swells in the middle, runs out at its ends and trembles a little; pixels of the ink canvas."""
    if len(points) < 3:
        return
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    along = np.linspace(0, 1, len(points))
    swell = np.clip(np.sin(np.pi * along), 0.05, 1) ** 0.6 * (1 + 0.15 * rng.standard_normal(len(points)))
    half = normal * (swell * width * SUPERSAMPLE / 2)[:, None]
    corners = np.rint(np.concatenate([points + half, (points - half)[::-1]]) * 16).astype(np.int32)
    cv2.fillPoly(ink, [corners], 255.0, cv2.LINE_AA, 4)
