"""Convolutions whose weights never change, with their borders and ReLUs, as single functions of the picture.

Written out, an evaluation takes and keeps less than what autograd makes of the same steps: nothing is kept for
gradients of weights that nobody asks for, borders are folded back without a copy, and the way back is a convolution
like the way there, which libraries compute faster than the transposed one of the same layer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _ReplicateFunction(torch.autograd.Function):
    """Replication whose gradient is added in a fixed order: torch's own is not deterministic on CUDA."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, columns: int) -> Tensor:
        ctx.margins = rows, columns
        return F.pad(x, (columns, columns, rows, rows), mode="replicate")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.margins
        # A copy, because the gradient may belong to others as well.
        return fold(gradient.clone(memory_format=torch.channels_last), rows, columns), None, None


def fold(gradient: Tensor, rows: int, columns: int) -> Tensor:
    """The gradient (B, C, H + 2·rows, W + 2·columns) of a picture with replicated borders -> that of the picture, a
    view (B, C, H, W) of it: what fell on a border belongs to the place it repeats. `gradient` is written to.
    """
    height, width = gradient.shape[2] - 2 * rows, gradient.shape[3] - 2 * columns
    across = gradient[..., columns : columns + width]
    for margin in range(columns):
        across[..., 0] += gradient[..., margin]
        across[..., -1] += gradient[..., -1 - margin]
    inner = across[..., rows : rows + height, :]
    for margin in range(rows):
        inner[..., 0, :] += across[..., margin, :]
        inner[..., -1, :] += across[..., -1 - margin, :]
    return inner


def replicate(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2·rows, W + 2·columns), the border repeated outwards; differentiable once."""
    padded: Tensor = _ReplicateFunction.apply(x, rows, columns)
    return padded


class Replicate(nn.Module):
    """`replicate` as a module."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + 2·rows, W + 2·columns)."""
        return replicate(x, self.rows, self.columns)


def mirrored(weight: Tensor) -> Tensor:
    """The kernel that takes gradients back: turned by 180 degrees, with inputs and outputs exchanged."""
    return weight.flip(2, 3).transpose(0, 1)


class _ConvolutionFunction(torch.autograd.Function):
    """Border, 3x3 convolution and ReLU of a frozen layer; of all this only the result is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "FrozenConvolution", mirrored: Tensor | None) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate") if layer.replicated else x
        y = F.conv2d(padded, layer.weight, layer.bias, padding=layer.padding).relu_()
        ctx.save_for_backward(y)
        ctx.layer, ctx.mirrored = layer, mirrored
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradient, y, 0)
        before = F.conv2d(passed, ctx.mirrored, padding=[2 - margin for margin in ctx.layer.padding])
        return fold(before, 1, 1) if ctx.layer.replicated else before, None, None


class FrozenConvolution(nn.Conv2d):
    """A 3x3 convolution and the ReLU after it.

    replicated: lay a border on first that repeats the edge. padding: or zeros so wide. While its weights ask for no
    gradient it is differentiable once, and only by its input; while they do (in training), it is what autograd makes of
    the steps.
    """

    _mirrored: Tensor | None = None  # the kernel that takes gradients back, made when first needed
    padding: tuple[int, int]

    def __init__(
        self, channels: int, out_channels: int, *, replicated: bool, padding: int = 0, device: str | None = None
    ) -> None:
        super().__init__(channels, out_channels, 3, padding=padding, device=device)
        self.replicated = replicated

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), not negative; smaller by 2 for each border that is missing."""
        if self.weight.requires_grad:
            return F.relu(self.before_relu(x))
        result: Tensor = _ConvolutionFunction.apply(x, self, self._mirror(x))
        return result

    def before_relu(self, x: Tensor) -> Tensor:
        """The same without the ReLU, as autograd knows it."""
        return super().forward(F.pad(x, (1, 1, 1, 1), mode="replicate") if self.replicated else x)

    def _mirror(self, x: Tensor) -> Tensor | None:
        """The kernel of the way back, where there will be one."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return None
        made = self._mirrored
        if made is None or made.dtype != self.weight.dtype or made.device != self.weight.device:
            last = self.weight.is_contiguous(memory_format=torch.channels_last)
            turned = mirrored(self.weight.detach())
            form = torch.channels_last if last else torch.contiguous_format
            made = self._mirrored = turned.contiguous(memory_format=form)
        return made
