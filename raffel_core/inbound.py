"""What a client sends to the handler of a client or bidi stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from raffel_core.stream import OPEN, RaffelStream


class Unread:
    """An item that is decoded and checked when the handler takes it."""

    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        self.message = message


class Inbound(RaffelStream[Any]):
    """Items in the order in which they came, however many the handler has left unread.

    Whoever pushes decides when that is too much: `parked` is the bytes of what came beyond the mark, and `on_room` is
    called with the bytes that reading has made of it. An `Unread` item that is not what the schema wants raises its
    VALIDATION_ERROR from the read that met it; the next read goes on with the next item.
    """

    __slots__ = ("_decode", "_freed", "_sizes", "on_room", "parked", "reads")

    def __init__(self, decode: Callable[[Any], Any], high_water_mark: int) -> None:
        super().__init__(high_water_mark=high_water_mark)
        self._decode = decode
        self._sizes: deque[int] = deque()  # of what lies beyond the mark
        self._freed = 0
        self.parked = 0
        self.reads = 0
        """How many items were read while there were some beyond the mark."""
        self.on_room: Callable[[int], None] | None = None

    def push(self, items: Sequence[Any], sizes: Sequence[int]) -> int:
        """Takes items in, and returns how many of their bytes are beyond the mark."""
        waiting = self._items
        called = bool(self._readers) and not waiting
        over = len(waiting) + len(items) - self._mark
        waiting.extend(items)
        parked = 0
        if over > 0:
            beyond = sizes[-over:] if over < len(sizes) else sizes
            self._sizes.extend(beyond)
            parked = sum(beyond)
            self.parked += parked
        if called:
            self._advance()
        return parked

    def _take(self) -> Any:
        item = self._items.popleft()
        if self._sizes:
            self.reads += 1
            self._freed += self._sizes.popleft()
            if self._freed >= _REPORTED or not self._sizes:
                self._report()
        if self._readers or self._state is not OPEN:
            self._advance()
        if self.on_space is not None:
            self.on_space()
        return self._decode(item.message) if type(item) is Unread else item

    def _report(self) -> None:
        freed, self._freed = self._freed, 0
        self.parked -= freed
        if self.on_room is not None:
            self.on_room(freed)

    def cancel(self, reason: str | None = None) -> None:
        super().cancel(reason)
        if self.parked:
            self._sizes.clear()
            self._freed = self.parked
            self._report()


_REPORTED = 1024
"""After how many bytes made free those who wait for room are told."""
