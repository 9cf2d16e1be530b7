"""3x3 convolutions with a fourth of the multiplications, for CPUs in float32.

Winograd's minimal filtering (S. Winograd 1980, "Arithmetic complexity of computations"; for networks A. Lavin and
S. Gray 2016, "Fast algorithms for convolutional neural networks"): 4 neighbouring outputs of a kernel of 3 are
coefficients of a product of polynomials, so 6 values of each factor are enough instead of 12 products; across and down
that makes 36 instead of 144 for 4x4 outputs. All of them are products of matrices, which libraries compute well.

Which 6 points the polynomials are evaluated at decides how much rounding is magnified. 0, infinity, ±sqrt(1/2) and
±sqrt(2) magnify it 5 to 7 times, the usual 0, infinity, ±1 and ±2 twice as much. They also contain 1/p with each p:
a kernel turned round, which takes gradients back, has the same values there, only at other points.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices import products
from nst_video.devices.machine import has_avx512
from nst_video.networks.layers import WIDE

_TAPS, _OUT, _IN = 3, 4, 6  # of the kernel, of a patch of outputs, of the inputs it depends on; along one side
_ROOT = math.sqrt(0.5)
_POINTS = (0.0, _ROOT, -_ROOT, 1 / _ROOT, -1 / _ROOT)  # and infinity
_RECIPROCAL = (5, 3, 4, 1, 2, 0)  # the place of 1/p in (*_POINTS, infinity)


@dataclass(frozen=True)
class _Pieces:
    """How large pieces have to be to pay for their transforms (scripts/bench_convolution.py).

    channels: at least, a and b on the two sides counted as a b / (a + b). fewest: patches times those. at_a_time: bytes
    that are transformed at a time, to stay in a cache.
    """

    channels: int
    fewest: int
    at_a_time: int


# oneDNN multiplies more quickly, but one matrix at a time, whose numbers it brings into another order first.
_BY_MKL = _Pieces(channels=64, fewest=2_000, at_a_time=8 << 20)
_BY_ONEDNN = _Pieces(channels=64, fewest=10_000, at_a_time=16 << 20)
# AVX-512 makes torch's own convolutions twice as quick, and the transforms, which wait for memory, hardly.
_WITH_AVX512 = replace(_BY_ONEDNN, channels=80)


def suits(weight: Tensor) -> bool:
    """Whether a convolution (C', C, 3, 3) is quicker this way for pictures that are large enough."""
    wide = weight.device.type == "cpu" and weight.dtype == torch.float32 and min(weight.shape[:2]) >= WIDE
    return wide and products.are_quick()


def pays(outputs: int, channels: int, x: Tensor, margin: int) -> bool:
    """Whether it is with so many channels out of and into it, for an input (B, C, H, W): the 36 kernels have to be read
    from memory for however few patches, and patches transformed for however few channels. Other pictures beside one do
    not change how it is computed.
    """
    rows, columns = (-(-(side + 2 * margin - 2) // _OUT) for side in x.shape[2:])
    pieces, counted = _pieces(), outputs * channels / (outputs + channels)
    return counted >= pieces.channels and rows * columns * counted >= pieces.fewest


def _pieces() -> _Pieces:
    if products.onednn() is None:
        return _BY_MKL
    return _WITH_AVX512 if has_avx512() else _BY_ONEDNN


@dataclass(frozen=True)
class WinogradKernel:
    """A convolution whose weights have been transformed, which makes them four times as large.

    values (36, C, C'): the kernels as polynomials, at pairs of points. of_inputs (36, 36) takes patches of inputs to
    such values, of_outputs (16, 36) the products to outputs; both in double precision.
    """

    values: Tensor
    of_inputs: Tensor
    of_outputs: Tensor

    @staticmethod
    def of(weight: Tensor) -> "WinogradKernel":
        """weight: (C', C, 3, 3) float32."""
        inputs, kernels, outputs = torch.linalg.inv(_at_points(_IN)).T, _at_points(_TAPS), _at_points(_OUT).T
        rows = weight.permute(2, 3, 1, 0).reshape(_TAPS**2, -1)
        values = (torch.kron(kernels, kernels).float() @ rows).unflatten(1, (weight.shape[1], weight.shape[0]))
        return WinogradKernel(values, torch.kron(inputs, inputs), torch.kron(outputs, outputs))

    def turned(self, share: float = 1.0) -> "WinogradKernel":
        """The kernel that takes gradients back, times `share`; it has its memory in common with this one."""
        squares = torch.tensor([1.0, *(p * p for p in _POINTS[1:]), 1.0], dtype=torch.float64)
        order = torch.tensor(_RECIPROCAL)
        pairs = (_IN * order[:, None] + order).flatten()
        # The turned kernel's value at p is p^2 times this one's at 1/p: inputs are taken to where that is.
        of_inputs = (torch.kron(squares, squares)[:, None] * self.of_inputs)[pairs]
        return WinogradKernel(self.values.mT, of_inputs, share * self.of_outputs[:, pairs])

    def __call__(self, x: Tensor, bias: Tensor | None = None, *, margin: int, replicated: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, C', H + 2·margin - 2, W + 2·margin - 2), with a border so wide laid on: the edge
        repeated, or zeros. It lies in memory channels last, as a part of something larger where a side is no multiple
        of 4.
        """
        height, width = (side + 2 * margin - 2 for side in x.shape[2:])
        rows, columns = -(-height // _OUT), -(-width // _OUT)
        border = (margin, margin + _OUT * columns - width, margin, margin + _OUT * rows - height)
        x = F.pad(x, border, mode="replicate" if replicated else "constant")
        y = x.new_empty((len(x), _OUT * rows, _OUT * columns, self.values.shape[2]))
        self._fill(y.unflatten(2, (columns, _OUT)).unflatten(1, (rows, _OUT)), _patches(x, rows, columns), bias)
        return y.permute(0, 3, 1, 2)[:, :, :height, :width]

    def _fill(self, outputs: Tensor, patches: Tensor, bias: Tensor | None) -> None:
        """outputs: (B, rows, 4, columns, 4, C'), written to. patches: (6, 6, B, rows, columns, C)."""
        of_inputs, of_outputs = self.of_inputs.float(), self.of_outputs.float()
        outputs = outputs.permute(2, 4, 0, 1, 3, 5)
        row = patches[:, :, :, :1].numel() * max(1, outputs.shape[-1] / patches.shape[-1]) * patches.element_size()
        step = max(1, int(_pieces().at_a_time / row))
        for some, into in zip(patches.split(step, 3), outputs.split(step, 3), strict=True):
            values = products.product(of_inputs, some.reshape(_IN**2, -1)).unflatten(1, (-1, some.shape[-1]))
            found = products.batched_product(values, self.values).flatten(1)
            found = products.product(of_outputs, found).view(into.shape)
            into.copy_(found) if bias is None else torch.add(found, bias, out=into)


def _patches(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, 4·rows + 2, 4·columns + 2) -> a view (6, 6, B, rows, columns, C): patches overlap by 2."""
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, down, across = x.stride()
    strides = (down, across, images, _OUT * down, _OUT * across, channels)
    return x.as_strided((_IN, _IN, len(x), rows, columns, x.shape[1]), strides)


def _at_points(count: int) -> Tensor:
    """(6, count): takes the coefficients of a polynomial, lowest first, to its values; at infinity, its highest."""
    matrix = torch.tensor([[p**power for power in range(count)] for p in (*_POINTS, 0.0)], dtype=torch.float64)
    matrix[-1] = torch.eye(count, dtype=torch.float64)[-1]
    return matrix
