"""The command line: finds the command, and turns errors into one line and an exit code."""

import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from nst_video.devices.process import settle
from nst_video.errors import NstVideoError, ResourceError, Stopped
from nst_video.jobs.stopping import Stopper, Terminated
from nst_video.terminal import flushed, forget_unread, log_lines, say, tell

COMMANDS = ("live", "dream", "score", "status", "info")  # modules of nst_video.commands; others are `paint`'s input
UNREAD = 141  # exit code: what shells say of a program that SIGPIPE ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` when None); returns the exit code. `--help` and `--version` raise SystemExit."""
    words = list(sys.argv[1:] if argv is None else argv)
    settle()
    stopper = Stopper(tell)
    try:
        with stopper.heeding(), log_lines(), flushed():
            name, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("paint", words)
            return int(import_module(f"nst_video.commands.{name}").run(rest, stopper))
    except Stopped as stopped:
        say(str(stopped))
        return stopped.exit_code
    except NstVideoError as error:
        return _complain(words, str(error), error.exit_code, error.detail)
    except MemoryError:  # outside the render, which says more about it
        return _complain(words, "not enough memory; choose a smaller --size", ResourceError.exit_code)
    except BrokenPipeError:  # whoever read what is printed has enough of it, as `head` has
        forget_unread()
        return UNREAD
    except OSError as error:  # of the files beside the output; the library turns all others into its own errors
        return _complain(words, f"{error.filename or 'a file'}: {error.strerror or error}", ResourceError.exit_code)
    except KeyboardInterrupt:  # where signals could not be heeded
        return _complain(words, f"interrupted; {stopper.kept}", 128 + signal.SIGINT)
    except Terminated as end:
        return _complain(words, f"{end.meaning}; {stopper.kept}", end.exit_code)


def _complain(words: Sequence[str], message: str, code: int, detail: str = "") -> int:
    if "--debug" in words:
        traceback.print_exc()
    say(f"error: {' '.join(message.split())}", *detail.splitlines())
    return code
