"""Kernels of our own for NVIDIA's GPUs, where they can be had: what they do can be done without them, only slower."""

import logging
import shutil
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

log = logging.getLogger(__name__)


def kernels(name: str, device: torch.device) -> ModuleType | None:
    """The module `name` of this package, which is written in Triton, for tensors on the device; None where Triton
    cannot be used. It comes with torch for Linux, but needs a compiler of C to start a kernel.
    """
    if device.type != "cuda" or not _triton_works(device):
        return None
    # Triton starts kernels on the device that is current in this thread, unlike torch, which goes by the tensors.
    if device.index not in (None, torch.cuda.current_device()):
        torch.cuda.set_device(device)
    return import_module(f"nst_video.{name}")


@cache
def _triton_works(device: torch.device) -> bool:
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        return False
    try:
        # Whatever is missing shows here and not in the middle of a frame.
        trial = torch.zeros(1, 16, 3, 3, device=device).to(memory_format=torch.channels_last)
        torch.cuda.set_device(trial.device)
        import_module("nst_video.borders_triton").repeat_edge(trial)
    except Exception as error:
        log.info("Triton cannot be used (%s); painting takes a little longer", str(error).partition("\n")[0])
        return False
    return True
