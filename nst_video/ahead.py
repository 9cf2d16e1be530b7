"""Work done in a thread ahead of whoever needs it: items of a generator, a bounded number of them; an import."""

import threading
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from importlib import import_module
from types import TracebackType
from typing import Generic, TypeVar

from nst_video.channel import Channel, ChannelClosed

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Runs the generator `source` in a thread, at most `depth` items ahead; what it raises is raised to the consumer.

    A context manager: leaving it, for whatever reason, closes the generator (in its own thread) and ends the thread.

    >>> with Ahead((n * n for n in range(4)), depth=1) as squares:
    ...     list(squares)
    [0, 1, 4, 9]
    """

    def __init__(self, source: Generator[Item, None, None], *, depth: int):
        self._source = source
        self._channel: Channel[Item] = Channel(depth)
        self._thread = threading.Thread(target=self._produce, name="nst-video-ahead", daemon=True)

    def _produce(self) -> None:
        try:
            with closing(self._source):
                for item in self._source:
                    self._channel.put(item)
        except ChannelClosed:
            return
        except BaseException as error:  # whatever it is, the consumer must hear of it
            self._channel.finish(error)
        else:
            self._channel.finish()

    def __enter__(self) -> Iterator[Item]:
        self._thread.start()
        return iter(self._channel)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._thread.join()


def begin_import(module: str) -> None:
    """Import a module in a thread. Whoever imports it meanwhile waits for that; what it raises, they hear of then."""

    def work() -> None:
        with suppress(Exception):
            import_module(module)

    threading.Thread(target=work, name=f"nst-video import {module}").start()
