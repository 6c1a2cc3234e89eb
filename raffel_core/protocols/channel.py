"""One call of an envelope connection: what it has to write, and what has come for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from raffel_core.context import Event
from raffel_core.protocols.items import as_bytes, dump, mark_of, unseen
from raffel_core.route import Kind, Route
from raffel_core.schema.invalid import OUTPUT, UNWRITABLE, unwritable
from raffel_core.session import Session
from raffel_core.stream import RaffelStream
from raffel_core.wire import envelope as wire
from raffel_core.wire.envelope import Envelope
from raffel_core.wire.lanes import Queue
from raffel_core.wire.outbox import CHECK_BYTES, FLUSH_BYTES, SLICE_SECONDS
from raffel_core.wire.protocol import READING, SERVER, UNARY, State, Stream

if TYPE_CHECKING:
    from raffel_core.protocols.envelopes import EnvelopeConnection

Frame = Callable[[int], bytes]
"""What comes before a message of this size."""

_NO_TURN = 0
_HEADS = 512
_STATES: Mapping[Kind, State] = {Kind.UNARY: UNARY, Kind.SERVER: SERVER, Kind.CLIENT: READING, Kind.BIDI: READING}


class Channel(Stream):
    """One call of an envelope connection: its session, what it has to write, and what has come for it."""

    __slots__ = (
        "_unread",
        "_waiter",
        "answered",
        "binary",
        "connection",
        "ending",
        "json_id",
        "late",
        "moved_at",
        "parked",
        "queue",
        "ranked",
        "result",
        "session",
    )

    session: Session

    def __init__(self, connection: EnvelopeConnection, envelope: Envelope, route: Route) -> None:
        super().__init__(envelope.id, _STATES[route.kind], envelope.credit)
        self.connection = connection
        self.json_id = wire.encode(envelope.id)
        self.binary = bool(envelope.binary)
        self.ranked = envelope.priority is not None
        """Whether the client has said the priority itself."""
        self.queue = Queue(envelope.priority if envelope.priority is not None else route.meta.priority)
        self.result: bytes | None = None
        self.answered = False
        """Whether the client has been told the end."""
        self.late: asyncio.TimerHandle | None = None
        self.parked: deque[Envelope] | None = None
        self.ending = False
        """Whether the client has ended what it sends, behind what is parked."""
        self.moved_at = 0.0
        """When the handler last took an item while some were parked."""
        self._waiter: asyncio.Future[None] | None = None
        self._unread = 0

    # Items down

    async def pump(self, items: AsyncIterator[Any]) -> None:
        """Takes the items of one opening to the outbox."""
        connection, session, queue = self.connection, self.session, self.queue
        hub, outbox, route = connection.hub, connection.outbox, session.route
        if isinstance(items, RaffelStream) and not self.ranked and not queue.listed:
            queue.priority = items.priority
        raw = self.binary and route.output.bytes
        exact, fits, encode = (bytes, _never, bytes) if raw else (unseen(route), route.output.fits, route.output.encode)
        prefix, tail = _around(self.json_id, raw)
        frame, around, heads = connection.frame(raw), len(prefix) + len(tail), dict[int, bytes]()
        append, credited = queue.parts.append, self.credit is not None
        mark = mark_of(items, route, hub.config)
        now = hub.loop.time
        turn, since, written, queued, share, checkpoint = _NO_TURN, now(), 0, 0, FLUSH_BYTES, CHECK_BYTES
        async for item in items:
            if credited:
                if self.credit == 0:
                    await self._more()
                self.credit -= 1  # type: ignore[operator]  # `credited` says that there is one
            if type(item) is exact or fits(item):
                try:
                    data = encode(item)
                except UNWRITABLE as error:
                    raise unwritable(OUTPUT, error) from error
                size = len(data)
                try:
                    head = heads[size]
                except KeyError:
                    head = frame(size + around) + prefix
                    if len(heads) < _HEADS:
                        heads[size] = head
                append(head)
                append(data)
                append(tail)
                size += around
            else:
                size = self._push_other(route, item, raw)
            written += size
            if outbox.turn is not turn:
                turn = outbox.announce(queue) or _NO_TURN
                if turn == _NO_TURN:
                    queued += 1
                    outbox.waiting += size
                    if queued >= mark or outbox.waiting >= FLUSH_BYTES:
                        await connection.room_for(queue)
                        written, queued, since, share = 0, 0, now(), connection.share()
                        checkpoint = min(CHECK_BYTES, share)
                elif not outbox.dirty:
                    outbox.dirty = True
                    hub.flush_soon(connection)
                if session.reason is not None or outbox.closed:
                    raise asyncio.CancelledError
            if written > checkpoint:
                if written < share and now() - since < SLICE_SECONDS:
                    checkpoint = written + CHECK_BYTES
                    continue
                if share == FLUSH_BYTES:
                    connection.flush()
                if outbox.paused:
                    await connection.room_for(queue)
                else:
                    await asyncio.sleep(0)  # the others have their turn
                if session.reason is not None:
                    raise asyncio.CancelledError
                written, queued, since, share = 0, 0, now(), connection.share()
                checkpoint = min(CHECK_BYTES, share)

    def _push_other(self, route: Route, item: Any, raw: bool) -> int:
        """Pushes any other item: one with an id, of another type, or one that is not what the route promises."""
        event_id = None
        if isinstance(item, Event):
            event_id, item = item.id, item.data
        if raw:
            data = as_bytes(item)
            prefix, tail = wire.binary_prefix(self.json_id, event_id=event_id), b""
        else:
            data = dump(route, item)
            prefix, tail = wire.data_prefix(self.json_id), wire.data_suffix(event_id)
        if event_id is not None:
            self.session.last_event_id = event_id
        size = len(prefix) + len(data) + len(tail)
        self.queue.parts += (self.connection.frame(raw)(size) + prefix, data, tail)
        return size

    async def _more(self) -> None:
        """Waits for credit. The handler is an item ahead of it: only so is its end seen, which needs none."""
        while self.credit == 0:
            self._waiter = self.connection.hub.loop.create_future()
            await self._waiter

    def granted(self) -> None:
        """Credit has come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def reply(self, result: Any) -> None:
        """Makes the one answer of a request or a client stream, once the connection has room for it."""
        connection, route = self.connection, self.session.route
        if connection.outbox.paused:
            await connection.room_for(self.queue)
        if self.binary and route.output.bytes:
            self.result = wire.binary_prefix(self.json_id, b"response") + as_bytes(result)
        else:
            self.result = wire.response(self.json_id, dump(route, result))

    # Items up

    def take_in(self, envelope: Envelope) -> None:
        """One item of the client: to the handler, or to the pool while the handler has not read the last ones."""
        inbound = self.session.inbound
        assert inbound is not None
        if self.allowance is not None:
            if self.allowance == 0:
                self.session.cancel("credit_exceeded")
                return
            self.allowance -= 1
        if not inbound.writable:
            return  # the call is over, and the client does not know it yet
        if self.parked or not inbound.try_write(envelope):
            self._park(inbound, envelope)

    def _park(self, inbound: RaffelStream[Any], envelope: Envelope) -> None:
        if self.parked is None:
            self.parked = deque()
        if not self.parked:
            self.moved_at = self.connection.hub.loop.time()
            inbound.on_space = self._unpark
        self.parked.append(envelope)
        self.connection.park(_weight(envelope))

    def _unpark(self) -> None:
        inbound, parked = self.session.inbound, self.parked
        assert inbound is not None and parked is not None
        freed = 0
        while parked and inbound.try_write(parked[0]):
            freed += _weight(parked.popleft())
        self.moved_at = self.connection.hub.loop.time()
        if not parked:
            inbound.on_space = None
            if self.ending:
                inbound.end()
        self.connection.unpark(freed)

    def end_in(self) -> None:
        """The client sends no more."""
        if self.parked:
            self.ending = True
        elif self.session.inbound is not None:
            self.session.inbound.end()

    def grant_as_read(self, mark: int) -> None:
        """Lets the client send as many items as the handler has room for, and more as it reads."""
        assert self.session.inbound is not None
        batch = max(1, mark // 2)
        self.allowance = mark

        def read() -> None:
            self._unread += 1
            if self._unread >= batch and self.state is READING and not self.answered:
                assert self.allowance is not None
                self.allowance += self._unread
                self.connection.say(wire.stream_credit(self.json_id, self._unread))
                self._unread = 0

        self.session.inbound.on_space = read
        self.connection.say(wire.stream_credit(self.json_id, mark))

    def drop(self) -> None:
        """Lets go of what is queued and parked."""
        self.queue.parts.clear()
        if self.parked:
            freed = sum(map(_weight, self.parked))
            self.parked.clear()
            self.connection.unpark(freed)


def _around(json_id: bytes, raw: bool) -> tuple[bytes, bytes]:
    """What comes before and behind the payload of an item."""
    return (wire.binary_prefix(json_id), b"") if raw else (wire.data_prefix(json_id), wire.data_suffix())


def _never(item: object) -> bool:
    return False


def _weight(envelope: Envelope) -> int:
    """What an envelope that waits costs, in bytes."""
    return 128 + len(envelope.payload if envelope.data is None else envelope.data)
