"""The losses of a picture that need no network, with their gradient, in plain torch: those of losses.py, written out.
borders_triton.py has the same as a single kernel.
"""

import torch
from torch import Tensor


def add_pixel_terms(
    gradient: Tensor,
    image: Tensor,
    past: tuple[Tensor, Tensor] | None,
    *,
    tv: Tensor,
    temporal: Tensor,
    range_weight: float,
) -> Tensor:
    """Weighted total variation (exponent 1), range and temporal loss of images (L, 3, H, W), together (3, L); their
    gradient is added to `gradient` (L, 3, H, W). past: warped (L, J, 3, H, W), trust (L, J, 1, H, W). tv, temporal:
    weights (L,).
    """
    places, values = image.shape[2] * image.shape[3], image[0].numel()
    return torch.stack(
        [
            _add_total_variation(gradient, image, tv / places),
            _add_out_of_range(gradient, image, range_weight / values),
            torch.zeros_like(tv) if past is None else _add_temporal(gradient, image, *past, temporal / values),
        ]
    )


def _add_total_variation(gradient: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    across, down = torch.diff(image, dim=3), torch.diff(image, dim=2)
    found = weight * (_energy(across) + _energy(down))
    across *= _twice(weight)
    down *= _twice(weight)
    # By methods: `gradient[..., 1:] += across` copies the part onto itself once more.
    gradient[..., 1:].add_(across)
    gradient[..., :-1].sub_(across)
    gradient[..., 1:, :].add_(down)
    gradient[..., :-1, :].sub_(down)
    return found


def _add_out_of_range(gradient: Tensor, image: Tensor, weight: float) -> Tensor:
    beyond = image - image.clamp(0, 1)
    gradient.add_(beyond, alpha=2 * weight)
    return weight * _energy(beyond)


def _add_temporal(gradient: Tensor, image: Tensor, warped: Tensor, trust: Tensor, weight: Tensor) -> Tensor:
    found = torch.zeros_like(weight)
    for before, held in zip(warped.unbind(1), trust.unbind(1), strict=True):
        gap = image - before
        weighted = gap * held
        gradient.addcmul_(weighted, _twice(weight))
        found += weight * (gap * weighted).sum((1, 2, 3))
    return found


def _energy(values: Tensor) -> Tensor:
    """The sum of the squares of each picture, (L,)."""
    return torch.linalg.vector_norm(values, dim=(1, 2, 3)).square()


def _twice(weight: Tensor) -> Tensor:
    return (2 * weight)[:, None, None, None]
