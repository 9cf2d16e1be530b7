"""Convolutions whose weights never change, with their borders and ReLUs, as single functions of the picture.

Written out, an evaluation takes and keeps less than what autograd makes of the same steps: nothing is kept for
gradients of weights that nobody asks for, borders are folded back without a copy, and the way back is a convolution
like the way there, which libraries compute faster than the transposed one of the same layer. CPUs in float32 compute
the wide layers by fewer multiplications (`winograd.py`) where pictures are large enough to pay for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_video.devices.products import product
from nst_video.networks import winograd
from nst_video.networks.winograd import WinogradKernel

_NARROW = 4  # channels of a picture at most
_TAPS = 9
_AT_A_TIME = 4 << 20  # bytes of products that are added up at a time, to stay in a cache


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
        across[..., 0].add_(gradient[..., margin])
        across[..., -1].add_(gradient[..., -1 - margin])
    inner = across[..., rows : rows + height, :]
    for margin in range(rows):
        inner[..., 0, :].add_(across[..., margin, :])
        inner[..., -1, :].add_(across[..., -1 - margin, :])
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


class PlainKernel:
    """A 3x3 convolution as torch computes it; the same in use as WinogradKernel."""

    def __init__(self, weight: Tensor) -> None:
        """weight: (C', C, 3, 3)."""
        self.weight = weight

    def turned(self, share: float = 1.0) -> "PlainKernel":
        """The kernel that takes gradients back, times `share`."""
        last = self.weight.is_contiguous(memory_format=torch.channels_last)
        form = torch.channels_last if last else torch.contiguous_format
        return PlainKernel((share * mirrored(self.weight)).contiguous(memory_format=form))

    def __call__(self, x: Tensor, bias: Tensor | None = None, *, margin: int, replicated: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, C', H + 2·margin - 2, W + 2·margin - 2), with a border so wide laid on: the edge
        repeated, or zeros.
        """
        if replicated:
            x, margin = F.pad(x, (margin,) * 4, mode="replicate"), 0
        return F.conv2d(x, self.weight, bias, padding=margin)


@dataclass(frozen=True)
class NarrowKernel:
    """A 3x3 convolution to few channels: the products of every place, added up where they belong. Libraries compute as
    many channels as a register holds, of which most would be thrown away.

    weights: (9 C', C), those of one tap after the other.
    """

    weights: Tensor

    @staticmethod
    def of(weight: Tensor) -> "NarrowKernel":
        """weight: (C', C, 3, 3)."""
        return NarrowKernel(weight.permute(2, 3, 0, 1).flatten(0, 2).contiguous())

    def __call__(self, x: Tensor, *, margin: int) -> Tensor:
        """(B, C, H, W) -> (B, C', H + 2·margin - 2, W + 2·margin - 2), channels first, with a border of so many zeros
        laid on.
        """
        count, _, height, width = x.shape
        found = x.new_zeros((count, len(self.weights) // _TAPS, height + 2, width + 2))
        rows = max(1, _AT_A_TIME // (width * len(self.weights) * x.element_size()))
        for first in range(0, height, rows):
            self._add(found[:, :, first:], x[:, :, first : first + rows])
        cut = 2 - margin
        return found[:, :, cut : height + 2 - cut, cut : width + 2 - cut]

    def _add(self, found: Tensor, x: Tensor) -> None:
        """What rows `x` (B, C, h, W) give of `found` (B, C', h + 2 or more, W + 2), which begins a row above them."""
        height, width = x.shape[2:]
        for into, one in zip(found, x, strict=True):
            taps = product(self.weights, one.flatten(1)).view(3, 3, -1, height, width)
            for down, row in enumerate(taps):
                for across, values in enumerate(row):
                    into[:, 2 - down : 2 - down + height, 2 - across : 2 - across + width].add_(values)


class PictureKernel:
    """The 3x3 convolution of a picture as torch computes it, and the way back to its few channels as a NarrowKernel."""

    def __init__(self, weight: Tensor) -> None:
        """weight: (C', C, 3, 3)."""
        self.weight, self.plain = weight, PlainKernel(weight)

    @staticmethod
    def suits(weight: Tensor) -> bool:
        """Whether the way back of a convolution (C', C, 3, 3) is quicker so."""
        return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[1] <= _NARROW

    def turned(self, share: float = 1.0) -> NarrowKernel:
        """The kernel that takes gradients back, times `share`."""
        return NarrowKernel.of(share * mirrored(self.weight))

    def __call__(self, x: Tensor, bias: Tensor | None = None, *, margin: int, replicated: bool = False) -> Tensor:
        """See PlainKernel."""
        return self.plain(x, bias, margin=margin, replicated=replicated)


class EitherKernel:
    """A 3x3 convolution by fewer multiplications where there are places enough, as torch computes it elsewhere. Each of
    the two is made when it is first needed.
    """

    def __init__(
        self, channels: tuple[int, int], plain: Callable[[], PlainKernel], fewer: Callable[[], WinogradKernel]
    ) -> None:
        """channels: out of and into it. plain, fewer: make the two."""
        self.channels, self._plain, self._fewer = channels, plain, fewer

    @staticmethod
    def of(weight: Tensor) -> "EitherKernel":
        """weight: (C', C, 3, 3)."""
        channels = weight.shape[0], weight.shape[1]
        return EitherKernel(channels, partial(PlainKernel, weight), partial(WinogradKernel.of, weight))

    @cached_property
    def plain(self) -> PlainKernel:
        """For few places."""
        return self._plain()

    @cached_property
    def fewer(self) -> WinogradKernel:
        """For many places."""
        return self._fewer()

    def turned(self, share: float = 1.0) -> "EitherKernel":
        """The kernel that takes gradients back, times `share`."""
        channels = self.channels[1], self.channels[0]
        return EitherKernel(channels, lambda: self.plain.turned(share), lambda: self.fewer.turned(share))

    def __call__(self, x: Tensor, bias: Tensor | None = None, *, margin: int, replicated: bool = False) -> Tensor:
        """See PlainKernel."""
        kernel = self.fewer if winograd.pays(*self.channels, x, margin) else self.plain
        return kernel(x, bias, margin=margin, replicated=replicated)


Kernel = PlainKernel | PictureKernel | EitherKernel
Back = PlainKernel | NarrowKernel | EitherKernel


class _ConvolutionFunction(torch.autograd.Function):
    """Border, 3x3 convolution and ReLU of a frozen layer; of all this only the result is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "FrozenConvolution") -> Tensor:
        y = _rectified(layer.kernel(x, layer.bias, margin=layer.margin, replicated=layer.replicated))
        ctx.save_for_backward(y)
        ctx.layer = layer
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,), layer = ctx.saved_tensors, ctx.layer
        passed = torch.ops.aten.threshold_backward(gradient, y, 0)
        if layer.replicated:
            return fold(layer.turned(passed, margin=2), 1, 1), None
        return layer.turned(passed, margin=2 - layer.margin), None


def _rectified(y: Tensor) -> Tensor:
    """Its ReLU, in one piece of memory; over `y` where that is one."""
    whole = y.is_contiguous() or y.is_contiguous(memory_format=torch.channels_last)
    return y.relu_() if whole else y.relu()


class FrozenConvolution(nn.Conv2d):
    """A 3x3 convolution and the ReLU after it.

    replicated: lay a border on first that repeats the edge. padding: or zeros so wide. Once it has been frozen it is
    differentiable once, only by its input, and computed in the way that is quickest; before, as long as it is trained,
    it is what autograd makes of the steps.
    """

    padding: tuple[int, int]

    def __init__(
        self, channels: int, out_channels: int, *, replicated: bool, padding: int = 0, device: str | None = None
    ) -> None:
        super().__init__(channels, out_channels, 3, padding=padding, device=device)
        self.replicated, self.margin = replicated, 1 if replicated else padding
        self.frozen = False

    def freeze(self) -> None:
        """From now on the weights keep their values; they may move to another device or number format."""
        self.frozen = True

    @cached_property
    def kernel(self) -> Kernel:
        """The way there."""
        weight = self.weight.detach()
        if winograd.suits(weight):
            return EitherKernel.of(weight)
        return PictureKernel(weight) if PictureKernel.suits(weight) else PlainKernel(weight)

    @cached_property
    def turned(self) -> Back:
        """The way back."""
        return self.kernel.turned()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), not negative; smaller by 2 for each border that is missing."""
        if not self.frozen:
            return F.relu(self.before_relu(x))
        result: Tensor = _ConvolutionFunction.apply(x, self)
        return result

    def before_relu(self, x: Tensor) -> Tensor:
        """The same without the ReLU, as autograd knows it."""
        return super().forward(F.pad(x, (1, 1, 1, 1), mode="replicate") if self.replicated else x)

    def _apply(self, *args: Any, **options: Any) -> "FrozenConvolution":
        """Moves the weights; what was made of them before is of no use then."""
        for made in ("kernel", "turned"):
            self.__dict__.pop(made, None)
        moved: FrozenConvolution = super()._apply(*args, **options)
        return moved
