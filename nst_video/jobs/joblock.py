"""One process at a time works on a job: a lock that the system takes back when its holder dies, with the holder's name
in it.
"""

import contextlib
import errno
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nst_video.errors import ResourceError

NAME = "lock"
_BUSY = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})


@dataclass(frozen=True)
class Holder:
    """A process: a number that is used again after it ends, so what tells it from others is when it began."""

    pid: int
    started: str
    host: str
    since: float  # seconds since 1970, when the lock was taken

    @staticmethod
    def own() -> "Holder":
        """This process."""
        return Holder(os.getpid(), _started(os.getpid()) or "", socket.gethostname(), time.time())

    def lives(self) -> bool:
        """Whether it still runs, as far as can be told: one of another machine is taken to be alive."""
        if self.host != socket.gethostname():
            return True
        started = _started(self.pid)
        return started is not None and started == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class JobLock:
    """Held from `take` to `release`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def take(self) -> Holder | None:
        """Take the lock; returns the holder before, where that one ended without giving it back.

        ResourceError, with the holder's name, while another process has it.
        """
        while self._file is None:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError as error:
                raise ResourceError(
                    f"{self.path.parent} has just been removed by another process; try again"
                ) from error
            try:
                self._claim(file)
                if _same(file, self.path):  # else its holder removed the job between the two calls
                    self._file = file
            finally:
                if self._file is None:
                    os.close(file)
        before = read_holder(self.path)
        content = json.dumps(asdict(Holder.own())).encode()
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same; only its holder has no name
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, content)
        return before

    def release(self) -> None:
        """Give it back; the file stays where the job stays."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk does not mind being told of nobody
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def _claim(self, file: int) -> None:
        try:
            _lock(file)
        except OSError as error:
            holder = read_holder(self.path)
            # Where the file system has no locks, what the holder wrote has to do.
            if error.errno in _BUSY or (holder is not None and holder.lives()):
                raise ResourceError(
                    f"{self.path.parent} is being rendered by {holder or 'another process'}; "
                    "wait for it, stop it, or write to another output"
                ) from error


def holder_of(folder: Path) -> Holder | None:
    """Who works on the job now, by what the lock's file says and whether that process lives; takes no lock itself."""
    holder = read_holder(folder / NAME)
    return holder if holder is not None and holder.lives() else None


def read_holder(path: Path) -> Holder | None:
    """What the lock's file says of its holder; None where it says nothing, as after a release."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _lock(file: int) -> None:
    """Lock the open file for this process, or raise OSError at once."""
    if os.name == "nt":
        import msvcrt

        os.lseek(file, 1 << 20, os.SEEK_SET)  # beyond the text, which others may read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _started(pid: int) -> str | None:
    """When the process began, as the system counts; "" where that cannot be asked, None where there is none."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return stat.read_text().rpartition(")")[2].split()[19]
        except OSError:
            return None
    if os.name == "nt":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
