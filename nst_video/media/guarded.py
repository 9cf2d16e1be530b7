"""Files that nobody has checked are looked at in a process of their own, with limits on memory and time.

Decoders are large programs in C; a file made for it can make one crash, eat all memory or never come back. Here that
costs a child process and gives one line. Of a video the child decodes every frame that the render will decode, from the
same bytes with the same libraries and options, and every style picture; and it carries the sound and subtitles that the
render will carry. Only the size that the scaler makes differs. So when the render does it again in the main process,
nothing runs there that did not end well before. Of music the same holds for its way into the output; what is heard in
it, which drives a render, is worked out in a child and nowhere else, and so are the style pictures of a live session,
whose folders others may write to.
What it cannot help against is a file that takes over the child: it is the same user's process, not a jail.
(guarded_child.py is what goes on there.)

Both sides speak JSON lines, never pickle: what comes back was made by a process that has parsed hostile data.
"""

import base64
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from nst_video.errors import InputError, NstVideoError, ResourceError, UsageError
from nst_video.media.limits import MEMORY_EXIT
from nst_video.media.survey import Request, Survey
from nst_video.media.videoinfo import VideoInfo

if TYPE_CHECKING:
    from nst_video.music.sound import SoundRequest
    from nst_video.music.track import Track

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

START_LIMIT = 120.0  # seconds for the child to start: Python and its libraries from a cold or slow disk
STALL_LIMIT = 15.0  # seconds without a packet, a frame or a picture; not in all, which would refuse long videos
STALL_PIXELS = 1 << 23  # larger pictures and frames may take longer, in proportion: a PNG of 67 Mpx took 13 s
TICK = 0.5  # seconds
# The child finds what this process finds, and nothing in the current folder.
CHILD = "import sys; sys.path[:] = sys.argv[1:]; from nst_video.media.guarded_child import child; child()"
# How a child ends that is stopped for its memory: by itself, or by a system that has none left.
TOO_MUCH_MEMORY = frozenset({MEMORY_EXIT, -9})
ERRORS: dict[str, type[NstVideoError]] = {kind.__name__: kind for kind in (InputError, ResourceError, UsageError)}


class Process(Protocol):
    """What is asked of the child: the part of subprocess.Popen that is used here."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


def start_python() -> Any:
    """A fresh Python that waits for a request; ResourceError when it cannot be started."""
    if not sys.executable:
        raise ResourceError("this Python does not know its own program; files are looked at in a second one")
    # One thread for the linear algebra that is not needed: its buffers would count as memory in use.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", CHILD, *map(str, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise ResourceError(f"cannot start {sys.executable} to look at the files: {error.strerror}") from error


class Talk:
    """What is said to a child and what it answers; `wait_for` an answer."""

    def __init__(self, process: Process, answers: "_Answers"):
        self.process, self.answers = process, answers
        # The file that is being read ("": none yet, the child is starting), and its size in pixels once that is known.
        self.path, self.pixels = "", 0
        self._messages = self._receive()

    def wait_for(self, kind: str, read: Callable[[Any], Answer]) -> Answer:
        """The answer of this kind. Raises what stood against it."""
        try:
            for message in self._messages:
                if kind in message:
                    return read(message[kind])
                self._take(message)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            raise self._failure("crashes the decoder{}", " (its answer makes no sense)") from error
        raise self._ended()

    def _take(self, message: dict[str, Any]) -> None:
        """A message that came before the one waited for."""
        if "error" in message:
            name, text = message["error"]
            raise ERRORS[name](text)
        if "memory" in message:
            raise self._refusal("needs too much memory to be decoded")
        if "fault" in message:
            what = message["fault"].strip().splitlines()[-1]
            raise self._refusal(f"could not be looked at ({what})") from RuntimeError(message["fault"])
        if "log" in message:
            name, level, text = message["log"]
            logging.getLogger(name).log(level, "%s", text)
        if "now" in message:
            self.path, self.pixels = message["now"]

    @property
    def stall(self) -> float:
        """Seconds that may pass without a sign of life."""
        return STALL_LIMIT * max(1.0, self.pixels / STALL_PIXELS)

    def _receive(self) -> Iterator[dict[str, Any]]:
        """The child's messages until it ends; an InputError when it gives no sign of life for too long."""
        # Ticks are counted, not the clock: a stopped or suspended program has not waited.
        waited, limit = 0.0, START_LIMIT
        while True:
            try:
                line = self.answers.lines.get(timeout=TICK)
            except queue.Empty:
                waited += TICK
                if waited > limit:
                    raise self._failure("keeps the decoder busy{} without a frame", f" for {limit:.0f} s") from None
                continue
            if not line:
                return
            yield dict(json.loads(line))
            waited, limit = 0.0, self.stall

    def _ended(self) -> NstVideoError:
        """What the end of a child that has not answered means."""
        try:
            status = self.process.wait(timeout=self.stall)
        except subprocess.TimeoutExpired:
            return self._failure("makes the decoder fall silent{}", "")
        if status in TOO_MUCH_MEMORY:
            return self._failure("needs too much memory to be decoded{}", "")
        return self._failure("crashes the decoder{}", f" ({_cause(status)})")

    def _failure(self, what: str, detail: str) -> NstVideoError:
        """The refusal of the file being read; while there is none yet, it is this machine that does not let us look."""
        if self.path:
            return self._refusal(what.format(detail))
        return ResourceError(f"the second Python that looks at the files ({sys.executable}) does not start{detail}")

    def _refusal(self, what: str) -> InputError:
        return InputError(f"{self.path} {what}; it is damaged or made to do that: convert it with another program")


class Look:
    """A look at the files of a request under way: `info` first, then `finish`."""

    def __init__(self, talk: Talk):
        self._talk = talk
        self.info = talk.wait_for("info", VideoInfo.from_json)

    @property
    def stall(self) -> float:
        """Seconds that may pass without a sign of life."""
        return self._talk.stall

    def pictures(self) -> None:
        """Waits until the style pictures are decoded, and whatever else there is but the part to render. Raises what
        stood against them.
        """
        self._talk.wait_for("pictures", bool)

    def finish(self) -> Survey:
        """Waits until the part to render is decoded as well. Raises what stood against them."""
        return self._talk.wait_for("survey", Survey.from_json)


@contextmanager
def look(request: Request, start: Callable[[], Process] = start_python) -> Iterator[Look]:
    """A look at the files of `request`, in a process made by `start` that ends with the `with` block.

    Raises InputError for whatever a file does to the process, and what probing, reading the style pictures and decoding
    raise.
    """
    with _talking(request.to_json(), start) as talk:
        yield Look(talk)


def read_pictures(paths: Sequence[str], side: int) -> list[np.ndarray]:
    """Pictures as uint8 (H, W, 3) sRGB, with long sides of `side` pixels at most, decoded in a process of their own and
    nowhere else: what is done with them after cannot meet other files. Raises InputError as `look` does.
    """
    with _talking({"pictures": list(paths), "side": side}, start_python) as talk:
        return [talk.wait_for("picture", _received) for _ in paths]


def listen(request: "SoundRequest") -> "Track":
    """What is heard in a file, worked out in a process of its own. Raises InputError as `look` does."""
    from nst_video.music.track import Track

    with _talking({"sound": request.to_json()}, start_python) as talk:
        return talk.wait_for("track", Track.from_json)


@contextmanager
def _talking(request: dict[str, Any], start: Callable[[], Process]) -> Iterator[Talk]:
    process = start()
    answers = _Answers(process.stdout)
    try:
        talk = Talk(process, answers)
        _send(process.stdin, request)
        yield talk
    finally:
        process.kill()
        process.wait()
        answers.close()
        with suppress(OSError):  # what it did not read of the request
            process.stdin.close()


def _received(answer: Any) -> np.ndarray:
    """What `_sent` made of a picture; ValueError where it is none."""
    (height, width, _), data = answer
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 3).copy()  # which can be written to


def _send(stream: IO[bytes], message: dict[str, Any]) -> None:
    try:
        stream.write(json.dumps(message).encode() + b"\n")
        stream.flush()
    except OSError:
        log.debug("the child has ended before it was asked; waiting for its answer says how")


class _Answers:
    """Lines of a pipe in a queue, which can be waited on for a limited time on every system; an empty one ends them."""

    def __init__(self, stream: IO[bytes]):
        self.lines: queue.Queue[bytes] = queue.Queue()
        self._stream = stream
        self._thread = threading.Thread(target=self._forward, name="nst-video look", daemon=True)
        self._thread.start()

    def _forward(self) -> None:
        for line in self._stream:
            self.lines.put(line)
        self.lines.put(b"")

    def close(self) -> None:
        """To be called when the writer has ended, which ends the pipe."""
        self._thread.join()
        self._stream.close()


def _cause(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"status {status}"
