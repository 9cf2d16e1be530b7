"""What is drawn over the painted picture: the camera's own picture, information, help, marks and messages."""

from functools import lru_cache
from itertools import zip_longest
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nst_video.live.desk import key_lines
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts

INK, DANGER = (255, 255, 255), (255, 64, 64)
SHADE = 0.35  # how much of the picture is seen through the ground of a text
MARGIN = 8  # pixels


def composed(shown: Shown, facts: Facts) -> np.ndarray:
    """uint8 (h, w, 3) RGB: what a person should see. Twice as wide while the original is shown beside; never drawn into
    the arrays of `shown`, which it may be itself.
    """
    view = facts.setting.view
    picture = with_original(shown, view.original)
    panels = [
        ("top", information(shown, facts) if view.information and not view.help else (), INK),
        ("middle", _help() if view.help else (), INK),
        ("bottom", (facts.message,) if facts.message else (), INK),
        ("corner", ("REC",) if facts.recording else (), DANGER),
    ]
    panels = [panel for panel in panels if panel[1]]
    if panels and picture is shown.rgb:
        picture = picture.copy()
    for place, lines, colour in panels:
        _draw(picture, place, tuple(lines), colour)
    return picture


def with_original(shown: Shown, original: str) -> np.ndarray:
    """uint8 (h, w, 3) RGB: the painted picture with the camera's own beside or over it; may be `shown.rgb` itself."""
    return _ORIGINALS[original](shown)


def information(shown: Shown, facts: Facts) -> tuple[str, ...]:
    """What is known about the session, in a few lines."""
    look = facts.setting.look
    width, height = shown.size
    number = f"{look.style + 1}/{len(facts.styles)} " if facts.styles else ""
    lines = [
        f"{facts.rate:.1f} frames/s, latency {facts.latency * 1000:.0f} ms",
        f"painted at {width} x {height}, {shown.evaluations} evaluations, {shown.device}",
        f"camera {facts.camera_rate:.1f} frames/s, {facts.dropped} dropped",
        f"style {number}{shown.style}, strength {look.strength:.2f}, brush {look.brush:.2f}",
    ]
    if facts.recording:
        lines.append(f"recording {Path(facts.recording).name}" + (f", {facts.lost} frames lost" if facts.lost else ""))
    return tuple(lines)


def _half_transparent(shown: Shown) -> np.ndarray:
    # Without a wider type: the bit that both halves may lose together is put back, as rounding would.
    both_odd = shown.rgb & shown.before & 1
    return shown.rgb // 2 + shown.before // 2 + both_odd


_ORIGINALS = {
    "off": lambda shown: shown.rgb,
    "beside": lambda shown: np.hstack((shown.before, shown.rgb)),
    "over": _half_transparent,
}


def _draw(picture: np.ndarray, place: str, lines: tuple[str, ...], colour: tuple[int, int, int]) -> None:
    height, width = picture.shape[:2]
    ink = _text(lines, _fitting(lines, width - 2 * MARGIN, height - 2 * MARGIN))[:height, :width]
    tall, wide = ink.shape
    y, x = {
        "top": (MARGIN, MARGIN),
        "middle": ((height - tall) // 2, (width - wide) // 2),
        "bottom": (height - tall - MARGIN, MARGIN),
        "corner": (MARGIN, width - wide - MARGIN),
    }[place]
    y, x = max(min(y, height - tall), 0), max(min(x, width - wide), 0)
    ground = picture[y : y + tall, x : x + wide]
    covered = ink[..., None]
    ground[:] = (ground * SHADE * (1 - covered) + np.array(colour, np.float32) * covered).astype(np.uint8)


def _fitting(lines: tuple[str, ...], width: int, height: int) -> int:
    """The size in pixels of letters with which the lines fit, at most the usual for such a picture."""
    usual = max(height // 18, 13)
    for size in range(usual, 7, -1):
        tall, wide = _text(lines, size).shape
        if tall <= height and wide <= width:
            return size
    return 8


@lru_cache(maxsize=128)
def _text(lines: tuple[str, ...], size: int) -> np.ndarray:
    """float32 (h, w) in [0, 1]: how much ink there is, with a margin round it. Tabs divide lines into columns."""
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    margin, step = size // 2, round(size * 1.3)
    cells = [line.split("\t") for line in lines]
    widths = [max(ceil(pen.textlength(text, font)) for text in column) for column in zip_longest(*cells, fillvalue="")]
    lefts = [margin + sum(widths[:column]) + column * size for column in range(len(widths))]
    image = Image.new("L", (lefts[-1] + widths[-1] + margin, step * len(lines) + margin))
    pen = ImageDraw.Draw(image)
    for row, texts in enumerate(cells):
        for left, text in zip(lefts, texts, strict=False):
            pen.text((left, margin // 2 + row * step), text, 255, font)
    return np.asarray(image, np.float32) / 255


@lru_cache(maxsize=1)
def _help() -> tuple[str, ...]:
    """The keys in two columns."""
    lines = key_lines()
    half = (len(lines) + 1) // 2
    return tuple("\t".join(pair) for pair in zip_longest(lines[:half], lines[half:], fillvalue=""))
