"""What makes shapes and colours out of a gradient: fine and broad parts and hues are balanced before a step."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 5
_NOTHING = 1e-20

# How the colours of photographs vary together (RGB; mean of those in samples/, each with a mean variance of 1, and the
# variances made equal): mostly in lightness.
_PHOTOGRAPHS = ((1.0, 0.9, 0.7), (0.9, 1.0, 0.85), (0.7, 0.85, 1.0))
_NATURAL = 0.5  # of the step that follows them; the rest goes wherever the network wants, to colours of neon signs


def unit(gradient: Tensor) -> Tensor:
    """g / mean |g| of each lane of (L, 3, H, W): a step then means the same at every layer, size and brightness."""
    return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(_NOTHING)


def balanced(gradient: Tensor, smoothing: float) -> Tensor:
    """Laplacian pyramid normalisation of (L, 3, H, W): each octave of detail is brought to the same strength, times
    2^smoothing for each coarser one.

    The gradient of a network is mostly fine grain; what a person sees as a shape is in its broad parts.
    """
    parts: list[Tensor] = []
    rest = gradient
    while len(parts) < _LEVELS - 1 and min(rest.shape[-2:]) >= 8:
        small = F.avg_pool2d(rest, 2, ceil_mode=True, count_include_pad=False)
        parts.append(rest - _enlarged(small, rest))
        rest = small
    total = _even(rest) * 2 ** (smoothing * len(parts))
    for number in reversed(range(len(parts))):
        total = _enlarged(total, parts[number]) + _even(parts[number]) * 2 ** (smoothing * number)
    return total


def _enlarged(small: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(small, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _even(part: Tensor) -> Tensor:
    return part / part.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(_NOTHING)


def natural_colors(gradient: Tensor) -> Tensor:
    """The gradient turned half way from the network's colours towards those that photographs have."""
    photographs = gradient.new_tensor(_PHOTOGRAPHS)
    mix = _NATURAL * photographs + (1 - _NATURAL) * torch.eye(3).to(gradient)
    return torch.einsum("ij,ljhw->lihw", mix, gradient)
