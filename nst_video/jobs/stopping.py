"""What Ctrl-C, a closing terminal and a machine that shuts down do to a render: stop after the frame, then at once."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from nst_video.words import counted

if TYPE_CHECKING:
    from nst_video.jobs.job import Job

# Name -> what it means; those that a system lacks (Windows has no SIGHUP) are left out.
MEANINGS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}

# Seconds in which signals are one: `timeout` sends its own twice, and a closing terminal more than one kind.
TOGETHER = 0.3
_PATIENCE = "finishing this frame and saving; a second signal stops at once"


class Terminated(BaseException):
    """A signal arrived. Like KeyboardInterrupt no Exception, so that only clean-up stands between it and the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def meaning(self) -> str:
        """What happened, in words."""
        return MEANINGS[signal.Signals(self.number).name]

    @property
    def exit_code(self) -> int:
        """What shells expect of a process that a signal ended."""
        return 128 + self.number


class Stopper:
    """Heeds the signals while `heeding`: they raise Terminated, but the first of them inside `patience` only sets
    `asked`. Signals that come within `TOGETHER` seconds of one that was heeded are the same.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        """tell: called from a signal handler, with a line for people."""
        self._tell = tell
        self._patient = False
        self._patience = _PATIENCE
        self.asked = False
        self._heeded = -math.inf  # when one was
        self.signal: int | None = None  # the one by which it was asked
        self.kept = "no output was written"  # what is left where everything was stopped at once

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Heed the signals that nobody chose to ignore (as nohup does); outside the main thread, none can be."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in MEANINGS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        heeded = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
        for number in heeded:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number in heeded:
                signal.signal(number, before[number])

    @contextmanager
    def patience(self, saying: str = _PATIENCE) -> Iterator[Callable[[], bool]]:
        """Inside, the first signal waits for whoever asks the function given, and `saying` is told at once."""
        self._patient, self._patience = True, saying
        try:
            yield lambda: self.asked
        finally:
            self._patient = False

    @contextmanager
    def keeping(self, job: "Job", again: str) -> Iterator[None]:
        """Inside, what is finished is kept in the job; `again` is the command to go on."""
        try:
            yield
        except BaseException:
            if job.done:
                self.kept = f"what is saved, {counted(job.done, 'frame')}, is kept in {job.folder}; to go on: {again}"
            raise

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._heeded < TOGETHER:
            return
        self._heeded = now
        if not self._patient or self.asked:
            raise Terminated(number)
        self.asked, self.signal = True, number
        self._tell(self._patience)
