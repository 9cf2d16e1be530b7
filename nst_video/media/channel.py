"""A bounded hand-over between two threads, closable from both ends: memory stays bounded and an error at one end is
raised at the other.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ChannelClosed(Exception):
    """The receiving end gave up; the sender has nothing more to do."""


class Channel(Generic[Item]):
    """At most `size` items wait between one sender and one receiver; both ends block instead of growing."""

    def __init__(self, size: int) -> None:
        self._items: deque[Item] = deque()
        self._size = size
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False
        self._sender_error: BaseException | None = None
        self._receiver_error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Waits for room. Raises the receiver's error, or ChannelClosed when the receiver has left."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._size)
            if self._receiver_error is not None:
                raise self._receiver_error
            if self._closed:
                raise ChannelClosed
            self._items.append(item)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """The sender's last word: what was put is still delivered, then `error` (if any) is raised at the receiver."""
        with self._changed:
            self._finished = True
            self._sender_error = error
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """The receiver leaves: waiting items are thrown away and the sender is woken with `error` or ChannelClosed."""
        with self._changed:
            self._closed = True
            self._receiver_error = self._receiver_error or error
            self._items.clear()
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the receiver has left, so that what comes out is not all that was meant to."""
        return self._closed

    def check(self) -> None:
        """Raises the receiver's error, if it left with one."""
        if self._receiver_error is not None:
            raise self._receiver_error

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._finished or self._closed)
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._sender_error is not None:
                    raise self._sender_error
                else:
                    return
            yield item
