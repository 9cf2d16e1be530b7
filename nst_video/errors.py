"""Everything this package refuses to do, as exceptions.

Each message is one line that says what was got, what is allowed and what to do.
"""


class NstVideoError(Exception):
    """Base of all errors meant for the user; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(NstVideoError):
    """The request itself is wrong: an option out of range, an unknown layer or codec, an output that exists."""

    exit_code = 2


class InputError(NstVideoError):
    """A file given as input cannot be used: missing, not a video, truncated, too small, too large."""

    exit_code = 3


class ResourceError(NstVideoError):
    """The machine cannot do it as it is: disk full, folder not writable, no memory, no network."""

    exit_code = 4


class Stopped(NstVideoError):
    """The render was asked to stop and did so after a frame; the message says how to go on."""

    exit_code = 5
