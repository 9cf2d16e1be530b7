"""Work done in threads ahead of whoever needs it: items of a generator, a bounded number of them; calls in a pool, in
order; an import.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, suppress
from importlib import import_module
from types import TracebackType
from typing import Generic, TypeVar

from nst_video.media.channel import Channel, ChannelClosed

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


def in_order(
    calls: Generator[Callable[[], Item], None, None], pool: Executor, *, waiting: int
) -> Generator[Item, None, None]:
    """What the calls return, in their order, while up to `waiting` of them are done at once or wait in the pool.

    What a call raises is raised in its place; what `calls` raises, after the results of those before it. Left early, it
    closes `calls`, drops what nobody has begun, and waits for the rest.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(in_order(((lambda n=n: n * n) for n in range(4)), pool, waiting=3))
    [0, 1, 4, 9]
    """
    begun: deque[Future[Item]] = deque()
    failure: Exception | None = None
    with closing(calls):
        try:
            while failure is None or begun:
                while failure is None and len(begun) < waiting:
                    try:
                        begun.append(pool.submit(next(calls)))
                    except Exception as error:  # the end of the calls as well
                        failure = error
                if begun:
                    yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
            for future in begun:
                if not future.cancelled():
                    future.exception()
    if not isinstance(failure, StopIteration):
        assert failure is not None
        raise failure


def begin_import(module: str) -> None:
    """Import a module in a thread. Whoever imports it meanwhile waits for that; what it raises, they hear of then."""

    def work() -> None:
        with suppress(Exception):
            import_module(module)

    threading.Thread(target=work, name=f"nst-video import {module}").start()
