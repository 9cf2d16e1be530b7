"""How much memory can be had just now."""

import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")  # where Linux says what a container may have


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    known = [amount for amount in (_free_of_the_machine(), _free_of_the_group()) if amount is not None]
    return min(known, default=None)


def _free_of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _half_of_the_machine()
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _half_of_the_machine() -> int | None:
    """Where the system does not tell what is free (macOS): half of what there is."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _free_of_the_group() -> int | None:
    """What a container may still take, which is less than what the machine has."""
    try:
        limit, used = ((_GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        # What was read from files counts as used, and is given up when somebody needs it.
        lines = (_GROUP / "memory.stat").read_text().splitlines()
        files = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        return max(0, int(limit) - int(used) + files)
    except (OSError, ValueError):  # none, or "max"
        return None


def available_memory(device: str, limit: int | None = None) -> int | None:
    """Bytes that can be had on a device, at most `limit`; None where nobody says."""
    found = limit
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()  # what torch keeps for itself would count as taken
        found = int(torch.cuda.mem_get_info(device)[0])
    elif device == "cpu":
        found = free_memory()
    return min((amount for amount in (found, limit) if amount is not None), default=None)
