"""Steps of a network whose activations lie in buffers with a border of one pixel, in plain torch.

A buffer is (B, C, H + 2, W + 2), channels last. A convolution with zeros round it turns a buffer whose border repeats
the edge into one that is right inside, so no layer is copied to get a border. borders_triton.py has the same steps as
single kernels. y: activations after a ReLU; g: the gradient by a buffer, border included.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PARTS = 16  # channels of a picture in parts: see `split`


def inside(buffer: Tensor) -> Tensor:
    """What the border is round, as a view (B, C, H, W)."""
    return buffer[..., 1:-1, 1:-1]


def repeat_edge(y: Tensor) -> None:
    """Make the border repeat the edge."""
    last = (y.shape[2] - 1, y.shape[3] - 1)
    y[..., :: last[1]] = y[..., 1 : last[1] : max(last[1] - 2, 1)]
    y[..., :: last[0], :] = y[..., 1 : last[0] : max(last[0] - 2, 1), :]


def clear_edge(y: Tensor) -> None:
    """Make the border zero."""
    y[..., :: y.shape[3] - 1] = 0
    y[..., :: y.shape[2] - 1, :] = 0


def bordered(y: Tensor) -> Tensor:
    """Activations (B, C, H, W) with a border that repeats the edge."""
    return F.pad(y, (1, 1, 1, 1), mode="replicate").contiguous(memory_format=torch.channels_last)


def pooled(y: Tensor) -> Tensor:
    """The average of each 2x2 pixels, (B, C, ceil(H / 2) + 2, ceil(W / 2) + 2) with a border that repeats the edge."""
    return bordered(F.avg_pool2d(inside(y), 2, ceil_mode=True))


def folded(g: Tensor) -> Tensor:
    """float32 (B, C, H, W): what fell on the border belongs to the edge, which it repeats."""
    g = g.float()
    across = g[..., 1:-1].clone()
    across[..., 0] += g[..., 0]
    across[..., -1] += g[..., -1]
    down = across[..., 1:-1, :].clone()
    down[..., 0, :] += across[..., 0, :]
    down[..., -1, :] += across[..., -1, :]
    return down


def passed(y: Tensor, g: Tensor | None, extra: Tensor | None) -> Tensor:
    """What of the gradient gets through the ReLU, with a border of zeros. extra: a further gradient, like y, whose
    border means nothing.
    """
    parts = ([] if g is None else [folded(g)]) + ([] if extra is None else [inside(extra).float()])
    return _let_through(y, sum(parts[1:], start=parts[0]))


def unpooled(y: Tensor, g: Tensor, extra: Tensor | None) -> Tensor:
    """The same where `g` is the gradient by `pooled(y)`."""
    height, width = inside(y).shape[2:]
    spread = folded(g).repeat_interleave(2, dim=2)[:, :, :height].repeat_interleave(2, dim=3)[..., :width]
    spread = spread * (_shares(height, y)[:, None] * _shares(width, y))
    return _let_through(y, spread if extra is None else spread + inside(extra).float())


def _shares(length: int, like: Tensor) -> Tensor:
    """Of each pixel along a side, in the average that it is in."""
    found = torch.full((length,), 0.5, device=like.device)
    return found if length % 2 == 0 else torch.cat([found[:-1], torch.ones_like(found[:1])])


def _let_through(y: Tensor, gradient: Tensor) -> Tensor:
    result = torch.zeros_like(y)
    inside(result).copy_(torch.where(inside(y) > 0, gradient, 0.0))
    return result


def split(image: Tensor) -> Tensor:
    """A picture (B, 3, H, W) float32 as a bfloat16 buffer (B, 16, H + 2, W + 2) that loses nothing: three parts whose
    sum it is, the first part again, three of ones, and a zero.
    """
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    first = x.bfloat16()
    second = (x - first.float()).bfloat16()
    third = (x - first.float() - second.float()).bfloat16()
    ones = torch.ones_like(first)
    parts = torch.cat([first, second, third, first, ones, torch.zeros_like(ones[:, :1])], dim=1)
    return parts.contiguous(memory_format=torch.channels_last)


def joined(g: Tensor) -> Tensor:
    """The gradient by the picture, float32 (B, 3, H, W), from that by a buffer (B, 8, H + 2, W + 2) of which the
    channels 0 to 2 and 3 to 5 are two parts of it.
    """
    both = folded(g)
    return (both[:, :3] + both[:, 3:6]).contiguous()
