"""Kernels of our own for NVIDIA's GPUs, where they can be had: what they do can be done without them, only slower."""

import logging
import os
import shutil
import sys
from functools import cache
from importlib import import_module
from types import ModuleType

import torch

from nst_video.errors import is_out_of_memory

log = logging.getLogger(__name__)

# Triton 3.10 stops making one operation of a product and a sum unless it is told to; before that it warns of it.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


def kernels(name: str, device: torch.device) -> ModuleType | None:
    """The module `name`, such as "flow.flow_triton", which is written in Triton, for tensors on the device; None where
    Triton cannot be used. It comes with torch for Linux, but needs a compiler of C to start a kernel.
    """
    if device.type != "cuda" or not _triton_works(device):
        return None
    # Triton starts kernels on the device that is current in this thread, unlike torch, which goes by the tensors.
    if device.index not in (None, torch.cuda.current_device()):
        torch.cuda.set_device(device)
    return import_module(f"nst_video.{name}")


@cache
def _triton_works(device: torch.device) -> bool:
    """Whether it does, which is said once where it could and does not: it comes with torch for Linux only."""
    level = logging.WARNING if sys.platform == "linux" else logging.INFO
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        log.log(level, "painting takes longer than it need: there is no compiler of C (cc, gcc, clang) for Triton")
        return False
    try:
        # Whatever is missing shows here and not in the middle of a frame.
        trial = torch.zeros(1, 16, 3, 3, device=device).to(memory_format=torch.channels_last)
        torch.cuda.set_device(trial.device)
        import_module("nst_video.networks.borders_triton").repeat_edge(trial)
    except Exception as error:
        if is_out_of_memory(error):
            raise  # that passes, and says nothing of Triton
        log.log(level, "painting takes longer than it need: Triton cannot be used (%s)", str(error).partition("\n")[0])
        return False
    return True
