"""Which device, number format and threads a render uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from nst_video.errors import UsageError
from nst_video.options import MachineOptions

# Without one of these bfloat16 is computed by way of float32, and slower than that.
_BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})


def devices() -> list[str]:
    """The devices there are, best first; the CPU is always the last."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def device_name(device: str) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else {"mps": "Apple GPU"}.get(device, "CPU")


def resolve_machine(options: MachineOptions) -> MachineOptions:
    """The options with nothing left to decide; UsageError where the device asked for is not there."""
    present = devices()
    asked = {"auto": present[0], "cuda": "cuda:0"}.get(options.device, options.device)
    if asked not in present:
        raise UsageError(f"--device {options.device} is not there; this machine has {', '.join(present)}")
    precision = _natural_precision(asked) if options.precision == "auto" else options.precision
    return replace(options, device=asked, precision=precision, threads=options.threads or torch.get_num_threads())


@contextmanager
def computing(options: MachineOptions) -> Iterator[None]:
    """torch computes as the resolved options say, and the same way each time; afterwards it is as it was."""
    threads, picks = torch.get_num_threads(), torch.backends.cudnn.deterministic
    rounded = [products.fp32_precision for products in _products()]
    # Kernels of our own start on the device that is current.
    current = torch.cuda.device(options.device) if options.device.startswith("cuda") else nullcontext()
    torch.set_num_threads(options.threads or threads)
    torch.backends.cudnn.deterministic = True  # the same seed gives the same frames; the default may pick by timing
    forbid_tf32()
    try:
        with current:
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = picks
        for products, before in zip(_products(), rounded, strict=True):
            products.fp32_precision = before


def forbid_tf32() -> None:
    """float32 means float32 on a GPU too, where torch rounds what convolutions multiply to 10 bits, and where it is
    told to, what matrices do. Beside bfloat16 it is there for what has to be exact.
    """
    for products in _products():
        products.fp32_precision = "ieee"


def _products() -> tuple[Any, Any]:
    return torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]


def _natural_precision(device: str) -> str:
    """ "bf16" where the device has instructions for products of bfloat16 numbers, which are then several times as fast
    as those of float32; by what it has and not by trying it out, so that a plan is the same each time it is made.
    """
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and _BF16_INSTRUCTIONS & cpu_instructions() else "fp32"


def cpu_instructions() -> frozenset[str]:
    """The instruction sets of this CPU by torch's names, such as "avx2"; none where torch, before 2.11, cannot tell."""
    return frozenset(name for name, there in _capabilities().items() if there is True)


def cpu_name() -> str:
    """What this CPU calls itself, such as "AMD EPYC"; "" where torch, before 2.11, cannot tell."""
    return str(_capabilities().get("cpu_name", ""))


def has_avx512() -> bool:
    """Whether this CPU computes with registers of 512 bits."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def _capabilities() -> dict[str, Any]:
    tell: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return tell()
