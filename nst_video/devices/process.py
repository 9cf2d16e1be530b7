"""What the process of the command line asks of the system, which has to be asked before torch is imported."""

import ctypes
import os
import sys
import time
from pathlib import Path

_RUNNING = Path("/proc/loadavg")  # where Linux says how many threads run or want to just now, of all programs
_LOOKS, _PAUSE = 5, 0.004  # seconds between them
_SPINS = "10000"  # of a thread that waits before it sleeps: a tenth of a millisecond or two
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
_KEPT = 1 << 30  # bytes
_ALLOWED = 1 << 25  # of the first of them, by mallopt(3); newer ones than that page take more


def settle() -> None:
    """Choose how torch's threads wait for each other, and what becomes of memory that was used.

    Whatever the user has set in the environment stays.
    """
    _choose_waiting()
    keep_memory()


def _choose_waiting() -> None:
    """torch's threads spin while they wait for each other; on cores that another program has, that is many times slower
    than sleeping, and on cores that nobody has, sleeping and waking takes as long as a small network does.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}.isdisjoint(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        if _idle():
            os.environ["GOMP_SPINCOUNT"] = _SPINS


def _idle() -> bool:
    """Whether the cores of this machine have nothing to do but this."""
    try:
        return min(_others() for _ in range(_LOOKS)) == 0
    except (OSError, ValueError, IndexError):  # not Linux
        return False


def _others() -> int:
    """How many threads run or want to, beside this one."""
    time.sleep(_PAUSE)
    return int(_RUNNING.read_text().split()[3].partition("/")[0]) - 1


def keep_memory() -> None:
    """Memory that large tensors gave back serves the next ones. By default glibc returns it to the system each time,
    which clears every page before it is used again: a tenth of the time of an evaluation, and more in bfloat16.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # which other C libraries lack
        if mallopt:
            # Where the first is refused, the second alone would have all from 128 kB on returned each time.
            if not mallopt(_M_MMAP_THRESHOLD, _KEPT):
                mallopt(_M_MMAP_THRESHOLD, _ALLOWED)
            mallopt(_M_TRIM_THRESHOLD, _KEPT)


def give_back_memory() -> None:
    """What has been kept so goes back to the system, once tensors of other sizes are next: they would lie beside it."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # which other C libraries lack
        if trim:
            trim(0)
