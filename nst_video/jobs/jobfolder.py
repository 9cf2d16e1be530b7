"""The folder of a job: where it is, which files in it are ours, and how it is made and removed."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from nst_video.errors import ResourceError
from nst_video.files import JOB_SUFFIX, sync_folder
from nst_video.jobs.joblock import NAME as LOCK
from nst_video.jobs.joblock import JobLock
from nst_video.media.destination import folder_and_pattern, output_kind

MANIFEST, LEDGER = "manifest.json", "ledger.json"
PART = "output.part"  # the output while it is put together
# How the names of all files begin that this program makes in the folder, the lock aside.
OURS = (MANIFEST, LEDGER, PART, "segment-", "state-", "pair-", ".manifest", ".ledger", ".state", ".pair")


def is_ours(folder: Path) -> bool:
    """Whether nothing is in the folder but files of a job."""
    return all(name.startswith((*OURS, LOCK)) for name in os.listdir(folder))


def remove_folder(folder: Path, lock: JobLock | None) -> None:
    """Remove the folder of a job and give back its lock."""
    clear_folder(folder)
    if lock is not None and os.name == "nt":
        lock.release()  # there no open file can be removed
    delete(folder / LOCK)
    with suppress(OSError):  # somebody else's file in it
        folder.rmdir()
    if lock is not None:
        lock.release()


def clear_folder(folder: Path) -> None:
    """Remove all files of a job but its lock. The manifest, without which it is none, goes late, and the ledger, which
    says that it was done, last.
    """
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == LEDGER, path.name == MANIFEST)):
        if path.name.startswith(OURS):
            delete(path)


def job_folder(output: str | os.PathLike[str]) -> Path:
    """Where the job of an output is, or would be.

    Of a sequence it lies inside its folder once that is there, since what lies beside may be another disk, or not
    writable; one that was begun before is found beside it.
    """
    path = os.fspath(output)
    if output_kind(path) != "sequence":
        return Path(path + JOB_SUFFIX)
    folder, pattern = folder_and_pattern(path)
    inside, outside = folder / (pattern + JOB_SUFFIX), Path(os.path.normpath(folder) + JOB_SUFFIX)
    return inside if folder.is_dir() and not outside.joinpath(MANIFEST).exists() else outside


def make_folder(folder: Path) -> None:
    """Make the folder of a new job; ResourceError where something else has its name, or nothing can be made."""
    if folder.exists() and not (folder.is_dir() and is_ours(folder)):
        raise ResourceError(f"{folder} is not the folder of an unfinished render, whose name it has; move it away")
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {folder}: {error.strerror}") from error


def delete(path: Path) -> None:
    """Remove a file or a folder with what is in it; a link, and not where it leads."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
