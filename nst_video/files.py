"""Files that appear complete or not at all, and what a disk refuses as one line."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nst_video.errors import ResourceError

JOB_SUFFIX = ".nst"  # of the folder that holds an unfinished render
NOTHING_KEPT = "; nothing was kept"  # ends the message of a failure after which nothing of the output is left

# What a full, failing or closed disk is called by the system; "file too large" is a quota's way of saying so.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})

_FAILING = DISK_ERRORS - {errno.EACCES, errno.EPERM}  # whatever is tried; those two may only mean links


def temporary(target: Path) -> Path:
    """A hidden name of its own in the target's folder: on the same disk, so that renaming is atomic."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until the file is on the disk: a rename that survives a power cut must not name an empty file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk; systems without such a call (Windows) need none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle(part: Path, target: Path) -> None:
    """Gives a finished file its name so that a power cut leaves either nothing or the whole file under it."""
    sync(part)
    os.replace(part, target)
    sync_folder(target.parent)


def settle_new(part: Path, names: Iterable[Path]) -> Path:
    """Gives a finished file the first of `names` that nothing has yet, also where another program takes one at the same
    moment; returns it.
    """
    sync(part)
    for name in names:
        try:
            os.link(part, name)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in _FAILING:
                raise
            # A disk without links: the name is taken by an empty file first.
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                continue
            os.replace(part, name)
        discard(part)
        sync_folder(name.parent)
        return name
    raise FileExistsError(errno.EEXIST, "every name is taken", str(part))


def discard(part: Path) -> None:
    """Removes a temporary file, if it is there and the disk lets go of it."""
    with suppress(OSError):
        part.unlink(missing_ok=True)


def write_whole(target: Path, content: bytes) -> None:
    """Writes a file that is there with this content, or as it was before, at any moment."""
    part = temporary(target)
    try:
        part.write_bytes(content)
        settle(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses while `path` is written becomes a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise ResourceError(f"cannot write {path}: {error.strerror}{NOTHING_KEPT}") from error
        raise
