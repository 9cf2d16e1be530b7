"""Which device, number format and threads a render uses."""

from dataclasses import replace

import torch

from nst_video.errors import UsageError
from nst_video.options import MachineOptions


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
    natural = "bf16" if asked.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    precision = natural if options.precision == "auto" else options.precision
    return replace(options, device=asked, precision=precision, threads=options.threads or torch.get_num_threads())
