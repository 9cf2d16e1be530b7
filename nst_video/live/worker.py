"""A thread that does slow things for the session's main thread, which never waits for it while the session runs."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Calls `work` with each item, in order, in a thread of its own; at most `depth` items wait. At the end, `finish`.

    The first error of either is kept in `error`; after one of `work`, items are refused and only `finish` is called.
    """

    def __init__(
        self, name: str, work: Callable[[Item], object], *, depth: int, finish: Callable[[], object] = lambda: None
    ) -> None:
        self._work, self._finish, self._depth = work, finish, depth
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"nst-video {name}", daemon=True)
        self.error: BaseException | None = None
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread has come to its end."""
        return not self._thread.is_alive()

    def offer(self, item: Item) -> bool:
        """Hand over an item; False where there is no room, or where the work has failed."""
        if self.error is not None or self._items.qsize() >= self._depth:
            return False
        self._items.put(item)
        return True

    def end(self) -> None:
        """Say that nothing more comes; does not wait."""
        self._items.put(None)

    def close(self) -> None:
        """Wait until all that was handed over is done."""
        self.end()
        self._thread.join()

    def _run(self) -> None:
        self._try(self._work_off)
        self._try(self._finish)

    def _work_off(self) -> None:
        while (item := self._items.get()) is not None:
            self._work(item)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except BaseException as error:
            self.error = self.error or error
