"""Zoom, turn and shift of a dream by rates per second: the same path at every frame rate.

A point p of the picture, as a complex number from its centre in pixels, moves by dp/dt = a p + v, where
a = ln(zoom) + i rotate and v is the shift. The map of a time dt is exact, so that steps of any length join to the same.
"""

import cmath
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.flow.motion import sampling_grid, warp


@dataclass(frozen=True)
class Map:
    """p -> turn p + shift, both complex, in pixels from the centre, y downwards."""

    turn: complex = 1 + 0j
    shift: complex = 0j

    def after(self, first: "Map") -> "Map":
        """This map of what `first` gives."""
        return Map(self.turn * first.turn, self.turn * first.shift + self.shift)

    @property
    def inverse(self) -> "Map":
        """The way back."""
        return Map(1 / self.turn, -self.shift / self.turn)

    @property
    def still(self) -> bool:
        """Whether nothing moves."""
        return self == Map()


@dataclass(frozen=True)
class Rates:
    """zoom: factor a second. rotate: degrees a second, clockwise. shift_x, shift_y: widths and heights a second."""

    zoom: float = 1.0
    rotate: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def over(self, seconds: float, size: tuple[int, int]) -> Map:
        """Where points of a picture (H, W) are after this time."""
        rate = complex(math.log(self.zoom), math.radians(self.rotate))
        velocity = complex(self.shift_x * size[1], self.shift_y * size[0])
        turn = cmath.exp(rate * seconds)
        # (e^z - 1) / z -> 1 + z / 2, where the difference would have no digits left.
        z = rate * seconds
        path = seconds * ((turn - 1) / z if abs(z) > 1e-6 else 1 + z / 2)
        return Map(turn, velocity * path)


def lookup(source: Map, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Backward flow (1, 2, H, W) of a picture that shows at p what was at source(p), in pixels."""
    height, width = size
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2)[:, None]
    turn, shift = source.turn - 1, source.shift
    flow = torch.stack([turn.real * x - turn.imag * y + shift.real, turn.imag * x + turn.real * y + shift.imag])
    return flow[None].float().to(device)


def look_up(image: Tensor, flow: Tensor) -> Tensor:
    """`image` (L, C, H, W) at x + flow(x), sharp and in place: Catmull-Rom (Keys 1981, a = -1/2), to second order.

    The bicubic look-up of torch has a = -3/4, with which a quarter of a pixel becomes more: a dream that is moved in
    every frame would run ahead. Kernels of this family are linear in a, and the one with a = 0 is a bilinear look-up
    at smoothly stepped fractions; the two are mixed so that straight lines stay where they are.
    """
    whole = flow.floor()
    part = flow - whole
    stepped = whole + part * part * (3 - 2 * part)
    return (2 * warp(image, flow, "bicubic") + warp(image, stepped)) / 3


def look_through(image: Tensor, source: Map) -> Tensor:
    """(L, C, H, W) -> what is seen of it when p shows source(p); beyond the border the picture is mirrored."""
    if source.still:
        return image
    flow = lookup(source, (image.shape[2], image.shape[3]), image.device).expand(len(image), -1, -1, -1)
    grid = sampling_grid(flow)
    if image.device.type == "mps":  # torch has no bicubic look-up for Apple's GPUs
        return look_through(image.cpu(), source).to(image.device)
    seen = F.grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=True)
    return seen.clamp(0, 1)
