"""Products of matrices in float32 on a CPU, by that of torch's two libraries which is quick on it.

torch multiplies matrices by MKL, which is Intel's. On an AMD processor oneDNN, by which torch convolves, takes half to
two thirds of its time (`scripts/bench_convolution.py`); torch's own compiler reaches it by an operator for linear
layers.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from nst_video.devices.machine import cpu_name

_Linear = Callable[[Tensor, Tensor, Tensor | None, str, list[float], str], Tensor]

_FEW = 1 << 14  # numbers in a result, up to which MKL is the quicker one: it shares long sums between threads
_AT_A_TIME = 16 << 20  # bytes of a result that are added to something at a time, so that little more is held


def product(a: Tensor, b: Tensor) -> Tensor:
    """(M, K), (K, N) -> a b, (M, N). Without autograd, like the others here."""
    linear = _linear_for(a) if len(a) * b.shape[1] > _FEW else None
    return a @ b if linear is None else linear(a, b.mT, None, "none", [], "")


def batched_product(a: Tensor, b: Tensor) -> Tensor:
    """(B, M, K), (B, K, N) -> a b, (B, M, N)."""
    if _linear_for(a) is None:
        return torch.bmm(a, b)
    found = [product(one, by) for one, by in zip(a, b, strict=True)]
    return found[0][None] if len(found) == 1 else torch.stack(found)


def plus_product(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(B, M, N), (B, M, K), (B, K, N) -> c + a b, written over `c`."""
    if _linear_for(a) is None:
        return c.baddbmm_(a, b)
    rows = max(1, _AT_A_TIME // (c.shape[2] * c.element_size()))
    for some, by in zip(c.split(rows, 1), a.split(rows, 1), strict=True):
        some.add_(batched_product(by, b))
    return c


def are_quick() -> bool:
    """Whether this CPU multiplies matrices as quickly as torch's own convolutions multiply."""
    return not _mkl_is_slow() or onednn() is not None


def _linear_for(a: Tensor) -> _Linear | None:
    return onednn() if a.dtype == torch.float32 and a.device.type == "cpu" else None


@cache
def onednn() -> _Linear | None:
    """a (M, K), b (N, K) -> a b' where it is the quick one; None where MKL is, or torch lacks the operator."""
    there = torch.backends.mkldnn.is_available() and _mkl_is_slow()
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if there else None


def _mkl_is_slow() -> bool:
    return torch.backends.mkl.is_available() and "AMD" in cpu_name()
