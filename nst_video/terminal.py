"""What a person in front of a terminal sees: lines, progress, results. Only the command line uses it."""

import json
import logging
import os
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

_LINE_EVERY = 10.0  # seconds between lines of progress where there is no terminal for a bar


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """The text with nothing in it that a terminal would obey: names of files, and what a job says of itself, may have
    been made by somebody else.

    >>> printable("out" + chr(27) + "[2J.mp4")
    'out?[2J.mp4'
    """
    return "".join(char if char.isprintable() or unicodedata.category(char) == "Zs" else "?" for char in text)


def say(*lines: str) -> None:
    """A line on stderr, where everything goes that is not a result, and more that belong to it."""
    text = "\n".join(map(printable, lines))
    print(f"nst-video: {text}", file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """As `say`, from a signal handler: the program may be printing just now."""
    os.write(sys.stderr.fileno(), f"nst-video: {line}\n".encode())


def print_json(facts: Mapping[str, object]) -> None:
    """A result for programs, on stdout."""
    print(json.dumps(facts, allow_nan=False))


def print_lines(lines: Iterable[str]) -> None:
    """A result for people, on stdout."""
    print("\n".join(map(printable, lines)))


@contextmanager
def flushed() -> Iterator[None]:
    """What is printed inside is written at the end of it, not when the interpreter ends, who would only complain."""
    try:
        yield
    finally:
        print(end="", flush=True)


def forget_unread() -> None:
    """After a BrokenPipeError: what still waits to be printed where nobody reads any more goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@contextmanager
def counting(frames: int | None = None, resumed: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A function to be told (done, all) frames: draws a bar on a terminal, says a line now and then elsewhere. Frames
    that were `resumed` count as done, but not for the pace.
    """
    if not sys.stderr.isatty():
        yield _lines_of_progress(resumed)
        return
    from tqdm import tqdm

    with tqdm(total=frames, initial=resumed, unit="frame", file=sys.stderr, dynamic_ncols=True) as bar:

        def draw(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield draw


def _lines_of_progress(resumed: int) -> Callable[[int, int], None]:
    begun = told = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if done in (resumed + 1, total) or now - told >= _LINE_EVERY:
            told = now
            rate = (done - resumed) / max(now - begun, 1e-9)
            say(f"frame {done} of {total}, {rate:.2f} frames/s, {clock((total - done) / rate)} left")

    return show


class _Lines(logging.Handler):
    """Log records as plain lines on stderr, above the bar; the input is read twice, so each line shows once."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record."""
        from tqdm import tqdm

        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        line = level + printable(record.getMessage())
        if line not in self.shown:
            self.shown.add(line)
            tqdm.write(f"nst-video: {line}", file=sys.stderr)


@contextmanager
def log_lines() -> Iterator[None]:
    """What the library logs is shown while this lasts."""
    logger, handler = logging.getLogger("nst_video"), _Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # about notes in pictures that it cannot read
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
