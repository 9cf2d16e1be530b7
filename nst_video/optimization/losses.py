"""Content, Gram style, total variation and temporal losses: pure functions, one value per lane.

A loss that compares with a target is two functions: statistics of the features, which can be summed over tiles, masks
or regions, and a comparison of statistics with the target's. x is the image being optimised, p the content frame, a
the style; F^l are the activations of layer l, with N_l channels and M_l = H_l W_l positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices.products import batched_product


@dataclass(frozen=True)
class Gram:
    """Sums that make a Gram matrix: total (B, N, N) = sum over positions of w F F', count (B,) = sum of w. Adding two
    joins their regions.
    """

    total: Tensor
    count: Tensor

    def __add__(self, other: "Gram") -> "Gram":
        return Gram(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """G = F F' / M, (B, N, N): independent of how large the picture is."""
        return self.total / self.count.clamp_min(1e-6)[:, None, None]


class _Outer(torch.autograd.Function):
    """F F' of (B, N, M): autograd would take it for a product of two matrices and multiply twice on the way back."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        if flat.dtype == torch.float32:
            return batched_product(flat, flat.mT)
        return torch.bmm(flat, flat.mT, out_dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        both = (gradient + gradient.mT).to(flat.dtype)
        # It lies in memory like the features do: adding what comes from the layers above to a gradient that lies
        # otherwise took as long as a convolution.
        return both @ flat if flat.is_contiguous() else (flat.mT @ both).mT


def gram(features: Tensor, weight: Tensor | None = None) -> Gram:
    """Gram sums of features (B, N, H, W), each position counted with weight (B, 1, H, W) >= 0 (all ones when None).

    Always float32. On CUDA bfloat16 features are multiplied as they are and summed up in float32: products of bfloat16
    numbers are exact in it. Only the gradient by the Gram matrix is rounded on the way back.
    """
    flat = features.flatten(2)
    if not (flat.is_cuda and flat.dtype == torch.bfloat16 and weight is None):
        flat = flat.float()
    if weight is None:
        outer: Tensor = _Outer.apply(flat)
        return Gram(outer, outer.new_full((flat.shape[0],), flat.shape[2]))
    w = weight.flatten(2)
    return Gram((flat * w) @ flat.mT, w.sum((1, 2)))


def relative_style(style: Tensor, target: Tensor) -> Tensor:
    """||G - G_a||^2 / ||G_a||^2 of one layer: (B, N, N), (1 or B, N, N) -> (B,). 0 = the same, 1 = as far as black."""
    return (style - target).square().sum((1, 2)) / relative_style_energy(target)


def relative_style_energy(target: Tensor) -> Tensor:
    """||G_a||^2, (B,): what ||G - G_a||^2 is divided by in `relative_style`."""
    return target.square().sum((1, 2)).clamp_min(1e-12)


def paper_style(style: Tensor, target: Tensor) -> Tensor:
    """Gatys et al. 2016, eq. 4, with each picture's own M: 1 / (4 N^2) sum (G - G_a)^2 where G = F F' / M.

    The paper's 1 / (4 N^2 M^2) sum (F F' - F_a F_a')^2 is the same when both pictures have M positions, which it
    takes for granted.
    """
    return (style - target).square().sum((1, 2)) / (4 * style.shape[1] ** 2)


def paper_style_energy(target: Tensor) -> Tensor:
    """4 N^2, (B,): what ||G - G_a||^2 is divided by in `paper_style`."""
    return target.new_full((len(target),), 4.0 * target.shape[1] ** 2)


def relative_content(features: Tensor, target: Tensor) -> Tensor:
    """mean (F - F_p)^2 / mean F_p^2 of one layer, (B, N, H, W) twice -> (B,)."""
    return (features - target).square().mean((1, 2, 3)) / relative_energy(target)


def relative_energy(target: Tensor) -> Tensor:
    """mean F_p^2, (B,): what the mean square of F - F_p is divided by in `relative_content`."""
    return target.square().mean((1, 2, 3)).clamp_min(1e-12)


def paper_content(features: Tensor, target: Tensor) -> Tensor:
    """1 / (4 H W C) sum (F - F_p)^2 of one layer (Gatys et al. 2016, eq. 1, with the mean in place of the half sum)."""
    return (features - target).square().mean((1, 2, 3)) / paper_energy(target)


def paper_energy(target: Tensor) -> Tensor:
    """4 for each lane: what the mean square of F - F_p is divided by in `paper_content`."""
    return target.new_full((len(target),), 4.0)


class _Roughness(torch.autograd.Function):
    """Sum of the squared differences of neighbours, (B, 3, H, W) -> (B,); written out, a third of autograd's time."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        across, down = torch.diff(image, dim=3), torch.diff(image, dim=2)
        ctx.save_for_backward(across, down)
        total: Tensor = across.square().sum((1, 2, 3)) + down.square().sum((1, 2, 3))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        across, down = ctx.saved_tensors
        found = across.new_zeros((*across.shape[:3], down.shape[3]))
        found[..., 1:] += across
        found[..., :-1] -= across
        found[..., 1:, :] += down
        found[..., :-1, :] -= down
        return found.mul_(2 * gradient[:, None, None, None])


def total_variation(image: Tensor, exponent: float = 1.0) -> Tensor:
    """R / (H W), R = sum over i, j, k of ((x_{i,j+1,k} - x_{i,j,k})^2 + (x_{i+1,j,k} - x_{i,j,k})^2) ** exponent; (B,
    3, H, W) -> (B,).

    Mahendran & Vedaldi 2015, eq. 5, who write the exponent beta / 2. Differences across the border count as 0: the
    last row and column are smoothed along themselves, or they would fill with specks.
    """
    places = image.shape[2] * image.shape[3]
    if exponent == 1.0:
        total: Tensor = _Roughness.apply(image)
        return total / places
    across = F.pad((image[..., 1:] - image[..., :-1]).square(), (0, 1, 0, 0))
    down = F.pad((image[..., 1:, :] - image[..., :-1, :]).square(), (0, 0, 0, 1))
    # Below exponent 1 the gradient at 0 would be infinite.
    return ((across + down + 1e-8) ** exponent).sum((1, 2, 3)) / places


class _Outside(torch.autograd.Function):
    """Sum of the squared distances from [0, 1], (B, 3, H, W) -> (B,)."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        beyond = image - image.clamp(0, 1)
        ctx.save_for_backward(beyond)
        return beyond.square().sum((1, 2, 3))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (beyond,) = ctx.saved_tensors
        return beyond * (2 * gradient[:, None, None, None])


def out_of_range(image: Tensor) -> Tensor:
    """mean of max(-x, 0)^2 + max(x - 1, 0)^2: (B, 3, H, W) -> (B,). What lies outside [0, 1] is lost when the picture
    is written.
    """
    total: Tensor = _Outside.apply(image)
    return total / image[0].numel()


def temporal(image: Tensor, warped: Tensor, trust: Tensor) -> Tensor:
    """Ruder et al. 2016, eq. 7: 1 / (3 H W) sum c (x - w)^2, summed over the references.

    image (B, 3, H, W), warped (B, J, 3, H, W): earlier outputs moved onto this frame, trust (B, J, 1, H, W) in [0, 1]
    -> (B,).
    """
    return (trust * (image[:, None] - warped).square()).mean((2, 3, 4)).sum(1)


def long_term(trust: Tensor) -> Tensor:
    """Ruder et al. 2016, eq. 9: a far reference counts only where no nearer one is trusted: (B, J, 1, H, W), nearest
    first -> the same.

    c_long(j) = max(c(j) - sum over nearer k of c(k), 0).
    """
    nearer = torch.cumsum(trust, dim=1) - trust
    return (trust - nearer).clamp_min(0)


LayerLoss = Callable[[Tensor, Tensor], Tensor]  # (statistics, target) -> (B,)


@dataclass(frozen=True)
class Normaliser:
    """A way to scale the losses of a layer, with the weights that suit it: alpha, beta_s, lambda_tv, gamma, and that
    of `out_of_range`. content_energy: what the content loss divides the mean square of F - F_p by, (B,) of F_p;
    style_energy: what the style loss divides ||G - G_a||^2 by, (B,) of G_a.
    """

    content: LayerLoss
    content_energy: Callable[[Tensor], Tensor]
    style: LayerLoss
    style_energy: Callable[[Tensor], Tensor]
    content_weight: float
    style_weight: float
    tv_weight: float
    temporal_weight: float
    range_weight: float


# "relative": every term is a share of the target's own energy, so one set of weights serves every style, size and
# encoder.
# "paper": the published normalisers, on activations of a network fed with values up to 255: there a content loss of
# 2e4 and a style loss of 1e7 are usual, and the weights bring the terms to the same proportions as the relative ones.
NORMALISERS = {
    "relative": Normaliser(
        relative_content,
        relative_energy,
        relative_style,
        relative_style_energy,
        content_weight=0.05,
        style_weight=1.0,
        tv_weight=0.5,
        temporal_weight=20.0,
        range_weight=20.0,
    ),
    "paper": Normaliser(
        paper_content,
        paper_energy,
        paper_style,
        paper_style_energy,
        content_weight=1.0,
        style_weight=3e-3,
        tv_weight=3e5,
        temporal_weight=1e7,
        range_weight=1e7,
    ),
}
