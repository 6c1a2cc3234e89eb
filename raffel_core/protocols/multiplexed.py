"""A connection that many calls share: one outbox with lanes, and who goes on first when there is room again."""

from __future__ import annotations

import asyncio
import itertools
from abc import abstractmethod
from collections.abc import Collection
from typing import NamedTuple, Protocol

from raffel_core.protocols.connection import Connection, Hub
from raffel_core.session import Session
from raffel_core.wire.lanes import LOW_SHARE, LaneOutbox, Queue
from raffel_core.wire.outbox import FLUSH_BYTES

REPLY_BYTES = 256 * 1024
"""What may wait to be written on a connection; then it is not read."""


class Shared(Protocol):
    """A call, as the connection that it shares sees it."""

    @property
    def session(self) -> Session: ...


class _Crowd(NamedTuple):
    """Who waited for room last: the highest priority, how many have it, and how many have a lower one."""

    priority: int
    highest: int
    lower: int


_NOBODY = _Crowd(0, 1, 0)
_places = itertools.count()


class MultiplexedConnection(Connection[LaneOutbox]):
    """Writes what its calls have queued, by priority, and stops reading while too much waits to be written."""

    __slots__ = ("_crowd", "_full", "_waiters", "closing", "held")

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, LaneOutbox())
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._crowd = _NOBODY
        self._full = False
        """Whether as much waits as may: for handlers, or to be written."""
        self.held = False
        """Whether nothing is read, and nothing that was read is looked at: until there is room, or the next turn."""
        self.closing = False
        """Whether the peer has been told the end: what it still sends is not looked at."""

    @property
    @abstractmethod
    def calls(self) -> Collection[Shared]:
        """Those whose handlers run, also when their clients have been told the end."""

    # The end

    def connection_lost(self, exc: Exception | None) -> None:
        self.end_sessions(self.lost_reason(exc))
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self.end_sessions("client_disconnected")

    def end_sessions(self, reason: str) -> None:
        for call in list(self.calls):
            call.session.cancel(reason)

    def leave(self, last: bytes = b"", *, half_closed: bool) -> None:
        """Writes everything that is queued and then these bytes, ends all calls, and waits for the peer to close."""
        self.closing = True
        self.held = self._full = False
        if self.transport.is_closing():
            self.end_sessions("client_disconnected")
            return  # the peer was first, and is not told anything
        data = self.outbox.take_all() + last
        if data:
            self.transport.write(data)
        self.end_sessions("client_disconnected")
        self.linger(half_closed=half_closed)

    # Writing

    def flush(self) -> None:
        if self.closing:
            return  # the last word has been said
        outbox = self.outbox
        data = outbox.take()
        while data:
            self.transport.write(data)
            if outbox.empty:
                break
            data = outbox.take()
        if not outbox.paused:
            self._crowd = _NOBODY  # what the network takes at once, nobody competes for

    def written(self, size: int) -> None:
        """Notes that something other than items waits to be written."""
        outbox = self.outbox
        outbox.waiting += size
        if outbox.paused:
            if outbox.waiting >= REPLY_BYTES:
                self.hold()
        elif outbox.waiting >= FLUSH_BYTES:
            self.flush()
        elif not outbox.dirty:
            outbox.dirty = True
            self.hub.flush_soon(self)

    async def room_for(self, queue: Queue) -> None:
        """Waits until the connection can be written, or is lost; the highest priority goes on first."""
        if self.outbox.paused and not self.outbox.closed:
            waiter = self.hub.loop.create_future()
            self._waiters.append((-queue.priority, next(_places), waiter))
            await waiter

    async def give_turn(self, queue: Queue, share: int) -> None:
        """Lets the others have their turn after one has pushed its share."""
        if share == FLUSH_BYTES:
            self.flush()
        if self.outbox.paused:
            await self.room_for(queue)
        else:
            await asyncio.sleep(0)

    def share(self, queue: Queue) -> int:
        """How much a stream may push in a turn, of what it and those that compete with it may push together."""
        priority, highest, lower = self._crowd
        if not lower:
            return FLUSH_BYTES // highest
        low = FLUSH_BYTES // LOW_SHARE
        return (FLUSH_BYTES - low) // highest if queue.priority >= priority else low // lower

    def _give_room(self) -> None:
        waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
        self._waiters = []
        if waiters:
            waiters.sort()
            first = waiters[0][0]
            highest = sum(rank == first for rank, _, _ in waiters)
            self._crowd = _Crowd(-first, highest, len(waiters) - highest)
        for _, _, waiter in waiters:
            waiter.set_result(None)
        self.release()

    # Reading

    def hold(self) -> None:
        """Reads no more until `release` finds room."""
        if not self._full and not self.closing and not self.outbox.closed:
            self._full = self.held = True
            self.pause_reading()

    def release(self) -> None:
        """Goes on reading once there is room again."""
        if self._full and not (self.outbox.paused and self.outbox.waiting >= REPLY_BYTES // 2):
            self._full = False
            self.go_on()

    def go_on(self) -> None:
        """Reads again."""
        self.held = False
        self.resume_reading()
