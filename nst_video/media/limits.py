"""What a process may use while it reads files that nobody has checked."""

import os
import sys
import threading
import time
from typing import Any

# Beside the pixels: the interpreter, the libraries, threads' stacks, indices of long files.
BASE_MEMORY = 1 << 30  # bytes
# A decoder holds up to 16 reference frames and one for each thread, of up to 3 bytes a pixel (10 bits); a picture is
# copied a few times at 4 bytes a pixel while it is turned, converted and laid on white.
MEMORY_OF_A_PIXEL = 64  # bytes
MEMORY_EXIT = 86  # exit status of a process that ended itself because it used too much
WATCH_EVERY = 0.02  # seconds
OPEN_FILES = 64


def memory_limit(pixels: int) -> int:
    """Bytes that reading frames of `pixels` may take: never more than half of what the machine has, where that is
    known, so that a hostile file cannot push everything else out.
    """
    wanted = BASE_MEMORY + MEMORY_OF_A_PIXEL * pixels
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return wanted
    return min(wanted, max(installed // 2, BASE_MEMORY))


def limit_this_process(memory: int) -> None:
    """From now on this process gets at most `memory` bytes, writes no files and leaves no core dump.

    Linux counts the memory itself and refuses more, which Python and FFmpeg report as an error. Elsewhere such limits
    are not kept (macOS) or not there (Windows): a thread looks at the memory in use and ends the process.
    """
    if sys.platform != "win32":
        import resource

        for what, most in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
        ):
            _lower(what, most)
        if sys.platform.startswith("linux"):
            # Not the address space: threads and libraries reserve much of it that they never use.
            _lower(resource.RLIMIT_DATA, memory)
            return
    watch_memory(memory)


def watch_memory(memory: int) -> None:
    """Starts a thread that ends this process with MEMORY_EXIT when it has used `memory` bytes more than before.

    Not in all: what the system calls the peak of a process may be that of the large one that started it.
    """
    before = peak_memory()

    def watch() -> None:
        while peak_memory() - before <= memory:
            time.sleep(WATCH_EVERY)
        os._exit(MEMORY_EXIT)

    threading.Thread(target=watch, name="nst-video memory", daemon=True).start()


def _lower(what: int, most: int) -> None:
    """The limit where it is above `most`; one that is already lower stays."""
    import resource

    soft, hard = resource.getrlimit(what)
    if soft == resource.RLIM_INFINITY or soft > most:
        resource.setrlimit(what, (most, hard))


def peak_memory() -> int:
    """The most bytes this process has had in memory so far."""
    if sys.platform == "win32":
        return _peak_on_windows()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, the others in KiB


def _peak_on_windows() -> int:
    import ctypes
    from ctypes import wintypes

    sizes = ("PeakWorkingSet", "WorkingSet", "PeakPaged", "Paged", "PeakNonPaged", "NonPaged", "Pagefile", "PeakFile")

    class Counters(ctypes.Structure):
        _fields_ = [
            ("size", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            *((name, ctypes.c_size_t) for name in sizes),
        ]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009 - not there for the type checker on other systems
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD)
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return int(counters.PeakFile)
