"""Files that appear complete or not at all, and what a disk refuses as one line."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nst_video.errors import ResourceError

# What a full, failing or closed disk is called by the system; "file too large" is a quota's way of saying so.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})


def temporary(target: Path) -> Path:
    """A hidden name of its own in the target's folder: on the same disk, so that renaming is atomic."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def sync(path: Path) -> None:
    """Waits until the file is on the disk: a rename that survives a power cut must not name an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses while `path` is written becomes a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise ResourceError(f"cannot write {path}: {error.strerror}; nothing was kept") from error
        raise
