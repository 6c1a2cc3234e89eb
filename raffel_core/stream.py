"""The stream: a bounded line of items between tasks, in which neither an item nor a place is lost to a cancellation."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from itertools import count
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from raffel_core.errors import RaffelError

T = TypeVar("T")


class StreamState(StrEnum):
    """Where a stream is in its life; compares equal to the string."""

    OPEN = "open"
    CLOSING = "closing"
    """Ended, and items are left to read."""
    CLOSED = "closed"
    """Ended, and all was read."""
    ERRORED = "errored"
    """Failed or cancelled. What was buffered before an error can still be read."""


OPEN, CLOSING, CLOSED, ERRORED = StreamState


class StreamChunk(NamedTuple, Generic[T]):
    """What one read gives: an item, or `done` and no value."""

    done: bool
    value: T | None = None


class RaffelStream(Generic[T]):
    """Items in order, from any number of writers to any number of readers of one event loop.

    Writers and readers are served first come, first served. At most `high_water_mark` items wait in the buffer. An item
    that a waiting reader is about to take does not count; it is back in its old place, even above the mark, if that
    reader is cancelled or held by `pause()` before it runs. A mark of 0 hands over: a write ends when its item is read.
    """

    __slots__ = (
        "__weakref__",
        "_error",
        "_id",
        "_items",
        "_mark",
        "_paused",
        "_priority",
        "_readers",
        "_state",
        "_traceback",
        "_writers",
        "on_space",
    )

    on_space: Callable[[], None] | None
    """Called once for every item that a reader has taken, with the stream ready for the next: grant credit from here.

    It may write to the stream or end it. It must not raise: the item is already out of the stream.
    """

    def __init__(self, id: str | None = None, high_water_mark: int = 16, priority: int = 0) -> None:
        self._id = _stream_id(id)
        self._mark = _integer("high_water_mark", high_water_mark)
        if high_water_mark < 0:
            raise ValueError(f"high_water_mark is {high_water_mark}, expected 0 or more")
        self._priority = _integer("priority", priority)
        self._items: deque[T] = deque()
        # Only the first reader is ever called, and it keeps its place until it runs: what it was called for stays in
        # the stream till then, so that a cancellation in between has nothing to put back.
        self._readers: deque[asyncio.Future[None]] = deque()
        # True: the item went through; False: the stream failed. An exception set on a future whose task is cancelled
        # in the same turn would be reported as never retrieved. Writers wait only behind a buffer at its mark.
        self._writers: deque[tuple[asyncio.Future[bool], T]] = deque()
        self._paused = False
        self._state = OPEN
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self.on_space = None

    def __repr__(self) -> str:
        return f"<RaffelStream {self._id!r} {self._state}, {self.buffered_amount} of {self._mark} buffered>"

    @property
    def id(self) -> str:
        return self._id

    @property
    def priority(self) -> int:
        return self._priority

    @property
    def high_water_mark(self) -> int:
        return self._mark

    @property
    def state(self) -> StreamState:
        return self._state

    @property
    def buffered_amount(self) -> int:
        """How many items wait for a reader to come."""
        return max(0, len(self._items) - self._waiting_readers())

    @property
    def readable(self) -> bool:
        """Whether reads may still give items, now or later."""
        return self._state is OPEN or self._state is CLOSING or bool(self._items)

    @property
    def writable(self) -> bool:
        """Whether writes are accepted, at once or after waiting for room."""
        return self._state is OPEN

    @property
    def closed(self) -> bool:
        """Whether the stream has ended and all was read."""
        return self._state is CLOSED

    @property
    def errored(self) -> bool:
        """Whether the stream failed or was cancelled."""
        return self._state is ERRORED

    def try_write(self, item: T) -> bool:
        """Writes without waiting, or returns False and writes nothing: no room, or other writers wait for it.

        Raises like `write` once the stream has ended or failed.
        """
        if self._state is not OPEN:
            raise self._refusal()
        if (self._writers or len(self._items) >= self._mark) and not self._room():
            return False
        self._items.append(item)
        if self._readers and len(self._items) == 1:  # further items find the first reader called already
            self._advance()
        return True

    async def write(self, item: T) -> None:
        """Returns once the item is in the buffer; with a mark of 0, once it has been read.

        Cancelled, it has happened whole or not at all. Raises FAILED_PRECONDITION after `end()`, and what the stream
        failed with after `error()` or `cancel()`, also if that comes while it waits.
        """
        if self._mark and self.try_write(item):
            return
        if self._state is not OPEN:
            raise self._refusal()
        place = asyncio.get_running_loop().create_future(), item
        self._writers.append(place)
        self._advance()
        try:
            went_through = await place[0]
        except BaseException:
            with suppress(ValueError):  # it has gone through, or its place was cleared away
                self._writers.remove(place)
            self._advance()
            raise
        if not went_through:
            raise self._refusal()

    async def read(self) -> StreamChunk[T]:
        """The next item, or done for ever after the last one of a stream that has ended.

        Cancelled, it leaves the stream as if it had not been called. Raises what the stream failed with, after an
        `error()` once the buffer is empty.
        """
        if (self._readers or self._paused or not self._items) and not await self._turn():
            return StreamChunk(True)
        return StreamChunk(False, self._take())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Like `read`. Leaving an `async for` leaves the rest to the next reader."""
        if (self._readers or self._paused or not self._items) and not await self._turn():
            raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """Cancels the stream."""
        self.cancel()

    def end(self) -> None:
        """No more writes: writers that wait still go through, readers get what is left and then done."""
        if self._state is OPEN:
            self._state = CLOSING
            self._advance()

    def error(self, exc: Exception) -> None:
        """Fails the stream: readers get what is buffered and then `exc`, for ever.

        Writers raise it at once, also those that wait: their items are not in the buffer and go with them.
        """
        if not isinstance(exc, Exception):
            raise TypeError(f"error() got {exc!r}, expected an instance of Exception")
        if self._state is OPEN or self._state is CLOSING:
            self._fail(exc)

    def cancel(self, reason: str | None = None) -> None:
        """Drops the buffer; every waiting and later read and write raises CANCELLED with the reason as its message."""
        if self._state is CLOSED or (self._state is ERRORED and not self._items):
            return
        self._items.clear()
        self._fail(RaffelError("CANCELLED", "the stream was cancelled" if reason is None else reason))

    def pause(self) -> None:
        """Holds reads until `resume()`. Writes go on up to the mark; what ends an empty stream reaches its readers."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._advance()

    def _left(self) -> bool:
        """Whether there is anything to read, were it not for `pause()`."""
        return bool(self._items) or (bool(self._writers) and self._writer_waits())

    def _ready(self) -> bool:
        """Whether the first reader in line can go on."""
        return not self._paused if self._left() else self._state is not OPEN

    def _room(self) -> bool:
        """Whether an item may go in now; never past a writer that waits."""
        return not self._writer_waits() and len(self._items) - self._waiting_readers() < self._mark

    def _writer_waits(self) -> bool:
        # A cancelled task leaves the line only when it runs; until then its place must not count.
        writers = self._writers
        while writers and writers[0][0].done():
            writers.popleft()
        return bool(writers)

    def _waiting_readers(self) -> int:
        return 0 if self._paused else sum(not reader.cancelled() for reader in self._readers)

    def _take(self) -> T:
        items = self._items
        if not items:
            self._admit(1)
        item = items.popleft()
        if self._writers:
            self._admit(self._mark)
        if self._readers or self._state is not OPEN:
            self._advance()
        if self.on_space is not None:
            self.on_space()
        return item

    def _admit(self, mark: int) -> None:
        """Lets writers through, as long as fewer than `mark` items are buffered."""
        while len(self._items) < mark and self._writer_waits():
            writer, item = self._writers.popleft()
            self._items.append(item)
            writer.set_result(True)

    async def _turn(self) -> bool:
        """Returns True once an item is there for this reader, False at the end; raises what the stream failed with."""
        if not self._ready() or (self._readers and self._left()):  # at the end there is no order to keep
            await self._stand_in_line()
        if self._left():
            return True
        if self._error is not None:
            raise self._refusal()
        if self._state is CLOSING:  # the last writer was cancelled, and has not run yet
            self._advance()
        return False

    async def _stand_in_line(self) -> None:
        """Waits until this reader is the first and ready. Cancelled, it passes the call on."""
        loop, readers = asyncio.get_running_loop(), self._readers
        reader = loop.create_future()
        readers.append(reader)
        try:
            await reader
            while not self._ready():  # paused, or the writer was cancelled, after this reader was called
                readers[0] = reader = loop.create_future()
                await reader
        except BaseException:
            readers.remove(reader)
            self._advance()
            raise
        readers.remove(reader)

    def _advance(self) -> None:
        """After a change: closes an ended stream that has run dry, and calls the readers that can go on."""
        if self._left():
            if self._readers and not self._paused:
                _call(self._readers[0])
        elif self._state is not OPEN:
            if self._state is CLOSING:
                self._state = CLOSED
            for reader in self._readers:
                _call(reader)

    def _fail(self, exc: Exception) -> None:
        self._state, self._error, self._traceback = ERRORED, exc, exc.__traceback__
        for writer, _ in self._writers:
            if not writer.done():
                writer.set_result(False)
        self._writers.clear()
        self._advance()

    def _refusal(self) -> Exception:
        if self._error is None:
            return RaffelError("FAILED_PRECONDITION", f"write to the stream {self._id!r} after its end")
        # Raised again and again: its traceback starts anew each time instead of growing.
        return self._error.with_traceback(self._traceback)


def create_stream(id: str | None = None, high_water_mark: int = 16, priority: int = 0) -> RaffelStream[T]:
    """A stream that holds up to `high_water_mark` items; without an `id` it gets one of its own."""
    return RaffelStream(id, high_water_mark, priority)


_numbers = count(1)


def _stream_id(id: str | None) -> str:
    if id is None:
        return f"stream-{next(_numbers)}"
    if not isinstance(id, str):
        raise TypeError(f"id is {id!r}, expected a string or None")
    return id


def _integer(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected an integer")
    return value


def _call(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)
