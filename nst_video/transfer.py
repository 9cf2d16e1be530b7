"""Tensors to a device and back, by way of pinned memory where that is an NVIDIA GPU: faster, and meanwhile the host
does something else.
"""

import torch
from torch import Tensor


def uploaded(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the CPU on a device; on a GPU the current stream has it, and the host waits for nothing."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def downloaded(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the CPU; from a GPU once the current stream has come so far, without waiting for other
    streams, and only once.
    """
    if not tensors[0].is_cuda:
        return [tensor.cpu() for tensor in tensors]
    found = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for copy, tensor in zip(found, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return found
