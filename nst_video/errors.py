"""Everything this package refuses to do, as exceptions, and how those of others are known.

Each message is one line that says what was got, what is allowed and what to do. Where a place in a longer text is
meant, `detail` shows it on further lines, which the command line prints as they are.
"""

from unicodedata import east_asian_width

_SHOWN = 72  # characters of a longer text


class NstVideoError(Exception):
    """Base of all errors meant for the user; `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str = "", *, detail: str = ""):
        super().__init__(message)
        self.detail = detail


def pointed(text: str, column: int) -> str:
    """Two lines for a `detail`: the part of `text` about `column` (from 0), and a caret below that character.

    >>> print(pointed("0:1, 2x:3", 6))
        0:1, 2x:3
              ^
    """
    first = max(0, column - _SHOWN // 2)
    part = text[first : first + _SHOWN]
    before = "..." if first else ""
    after = "..." if first + _SHOWN < len(text) else ""
    shown = "".join(char if char.isprintable() else " " for char in part)  # a line break would move the caret
    # East Asian characters take two places.
    places = sum(2 if east_asian_width(char) in "WF" else 1 for char in before + shown[: column - first])
    return f"    {before}{shown}{after}\n    {' ' * places}^"


class UsageError(NstVideoError):
    """The request itself is wrong: an option out of range, an unknown layer or codec, an output that exists."""

    exit_code = 2


class InputError(NstVideoError):
    """A file given as input cannot be used: missing, not a video, truncated, too small, too large."""

    exit_code = 3


class ResourceError(NstVideoError):
    """The machine cannot do it as it is: disk full, folder not writable, no memory, no network, a package missing."""

    exit_code = 4


def missing_package(what: str, package: str, extra: str) -> ResourceError:
    """The error for something asked for that needs a package of an extra, which is not installed."""
    return ResourceError(f"{what} needs {package}, which is not installed: {install(extra)}")


def install(extra: str) -> str:
    """How to install the packages of an extra, as the README says it."""
    return f'pip install ".[{extra}]" in the folder of nst-video'


class Stopped(NstVideoError):
    """The render was asked to stop and did so after a frame; the message says how to go on."""

    exit_code = 5


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is what torch and Python raise when memory runs out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The allocators of the CPU and of MPS have no exception class of their own, only words.
    return isinstance(error, RuntimeError) and all(word in str(error) for word in ("memory", "alloc"))
