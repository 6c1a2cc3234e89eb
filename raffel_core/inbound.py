"""What a client sends to the handler of a client or bidi stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raffel_core.errors import RaffelError
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

    __slots__ = ("_beyond", "_bytes", "_decode", "_runs", "_runs_read", "on_room", "parked")

    def __init__(self, decode: Callable[[Any], Any], high_water_mark: int) -> None:
        super().__init__(high_water_mark=high_water_mark)
        self._decode = decode
        # What lies beyond the mark is counted in runs, as it came: the first one's items and bytes, and all others.
        self._beyond = 0
        self._bytes = 0
        self._runs: deque[tuple[int, int]] = deque()
        self._runs_read = 0
        self.parked = 0
        self.on_room: Callable[[int], None] | None = None

    @property
    def progress(self) -> tuple[int, int]:
        """Another one after each read of a stream that is beyond its mark."""
        return self._runs_read, self._beyond

    def push(self, items: Sequence[Any], size: int) -> int:
        """Takes items of so many bytes in, and returns how many of those are beyond the mark."""
        waiting, count = self._items, len(items)
        called = bool(self._readers) and not waiting
        beyond = min(len(waiting) + count - self._mark, count)
        waiting.extend(items)
        parked = 0
        if beyond > 0:
            parked = size * beyond // count
            self.parked += parked
            if self._beyond:
                self._runs.append((beyond, parked))
            else:
                self._beyond, self._bytes = beyond, parked
        if called:
            self._advance()
        return parked

    def _take(self) -> Any:
        item = self._items.popleft()
        if self._beyond:
            self._beyond -= 1
            if not self._beyond:
                self._end_run()
        if self._readers or self._state is not OPEN:
            self._advance()
        if self.on_space is not None:
            self.on_space()
        return self._decode(item.message) if type(item) is Unread else item

    def _end_run(self) -> None:
        freed = self._bytes
        self._runs_read += 1
        self._beyond, self._bytes = self._runs.popleft() if self._runs else (0, 0)
        self._free(freed)

    def _free(self, size: int) -> None:
        self.parked -= size
        if self.on_room is not None:
            self.on_room(size)

    def cancel(self, reason: str | None = None) -> None:
        super().cancel(reason)
        if self.parked:
            self._beyond = self._bytes = 0
            self._runs.clear()
            self._free(self.parked)


_CHUNK = 4096


class Splitter(Protocol):
    """Makes messages of bytes. Both raise RaffelError for bytes that are none."""

    more: bool
    """Whether there are further messages without further bytes."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def end(self) -> None:
        """There are no further bytes."""


class Chunks(RaffelStream[Any]):
    """Items out of a client's bytes: split when all before them have been read, decoded when they are read.

    Whoever pushes has a window, and `on_read` says how many bytes of it are free again. An item that is not what the
    schema wants raises from the read that met it; bytes that are no messages raise from every read after those before.
    """

    __slots__ = ("_chunks", "_decode", "_ended", "_lent", "_splits", "_splitter", "on_read")

    def __init__(self, splitter: Splitter, decode: Callable[[bytes], Any], high_water_mark: int) -> None:
        super().__init__(high_water_mark=high_water_mark)
        self._splitter = splitter
        self._decode = decode
        self._chunks: deque[bytes] = deque()
        self._lent = 0
        """Bytes of the chunk whose messages are being read."""
        self._ended = False
        self._splits = 0
        self.on_read: Callable[[int], None] | None = None

    @property
    def unread(self) -> int:
        """Bytes that have not been given back."""
        return self._lent + sum(map(len, self._chunks))

    @property
    def progress(self) -> tuple[int, int]:
        """Another one after each read."""
        return self._splits, len(self._items)

    @property
    def first(self) -> bytes | None:
        """The message that is read next; None while there is none."""
        return self._items[0] if self._items else None

    def push(self, chunk: bytes, *, end: bool) -> None:
        """Takes bytes in; with `end` the last ones."""
        if self._state is not OPEN or self._ended:
            self._free(len(chunk))
            return
        chunks = self._chunks
        if chunks and len(chunks[-1]) + len(chunk) <= _CHUNK:
            chunks[-1] += chunk  # an object for every few bytes would be many times their size
        else:
            chunks.append(chunk)
        self._ended = end
        if not self._items:
            self._split()
            if self._readers and self._items:
                self._advance()

    def _take(self) -> Any:
        message = self._items.popleft()
        if not self._items:
            self._split()
        if self._readers or self._state is not OPEN:
            self._advance()
        return self._decode(message)

    def _split(self) -> None:
        """Goes on to the next messages, or to the end."""
        splitter, chunks = self._splitter, self._chunks
        if splitter.more:
            # What is inflated comes in pieces, and a handler that never waits would have them all in one turn.
            asyncio.get_running_loop().call_soon(self._go_on)
            return
        try:
            while not self._items and not splitter.more:
                self._give_back()
                if not chunks:
                    break
                self._lent = len(chunks[0])
                self._items.extend(splitter.feed(chunks.popleft()))
            if self._ended and not self._items and not splitter.more:
                splitter.end()
                self.end()
        except RaffelError as error:
            self._drop()
            self.error(error.with_traceback(None))

    def _go_on(self) -> None:
        """Goes on with what is left of a chunk."""
        if self._state is not OPEN or self._items:
            return
        try:
            self._items.extend(self._splitter.feed(b""))
        except RaffelError as error:
            self._drop()
            self.error(error.with_traceback(None))
            return
        if not self._items:
            self._split()
        if self._readers and self._items:
            self._advance()

    def _give_back(self) -> None:
        lent, self._lent = self._lent, 0
        self._splits += 1
        self._free(lent)

    def _drop(self) -> None:
        """Lets go of all bytes."""
        self._lent += sum(map(len, self._chunks))
        self._chunks.clear()
        self._give_back()

    def _free(self, size: int) -> None:
        if size and self.on_read is not None:
            self.on_read(size)

    def cancel(self, reason: str | None = None) -> None:
        super().cancel(reason)
        self._drop()
