"""Tensors to a device and back: on an NVIDIA GPU by way of pinned memory and on streams beside the one that paints, so
that neither the host nor the painting waits for more than it needs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """What goes on beside painting on a GPU, each on a stream of its own: graphs are recorded, frames are fetched and
    made ready, results are taken to the host.
    """

    recording: torch.cuda.Stream
    feeding: torch.cuda.Stream
    reading: torch.cuda.Stream


@cache
def streams_of(device: torch.device) -> Streams:
    """Those of a device "cuda:N", for the life of the process.

    torch has 32 streams a device and hands them out in turn, so one asked for later may be one of these again; three
    that are asked for at once are not. A copy on a stream that is being recorded would go into the graph.
    """
    return Streams(*(torch.cuda.Stream(device) for _ in range(3)))


def uploaded(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the CPU on a device; on a GPU the current stream has it, and the host waits for nothing."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Download:
    """Tensors of one device on their way to the CPU. From a GPU they are copied once the current stream has come to
    where the download was begun, beside what is launched there afterwards; until `wait` they must not be written to.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors  # they have to stay until they are copied
        self._copied: torch.cuda.Event | None = None
        if not tensors[0].is_cuda:
            self._found = [tensor.cpu() for tensor in tensors]
            return
        device = tensors[0].device
        reading = streams_of(device).reading
        self._found = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        reading.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(reading):
            for copy, tensor in zip(self._found, tensors, strict=True):
                copy.copy_(tensor, non_blocking=True)
            self._copied = reading.record_event()

    def wait(self) -> list[Tensor]:
        """The tensors on the CPU; the host waits for them, and for nothing that was launched later."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._found


def downloaded(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the CPU; the host waits once, for what the current stream does until here."""
    return Download(*tensors).wait()


def overwrite(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> None:
    """Copy each of `others` into its counterpart, of the same shape and type. All of one type whose counterparts lie in
    memory as they do take a single launch on a GPU.
    """
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for tensor, other in zip(tensors, others, strict=True):
        alike = tensor.stride() == other.stride()
        if not alike and not (tensor.is_contiguous() and other.is_contiguous()):
            tensor.copy_(other)
            continue
        mine, theirs = by_type.setdefault(tensor.dtype, ([], []))
        mine.append(tensor)
        # Where a side is one long, the same order may be told by other strides.
        theirs.append(other if alike else other.as_strided(tensor.shape, tensor.stride()))
    for mine, theirs in by_type.values():
        torch._foreach_copy_(mine, theirs)
