"""One call of an envelope connection: what it has to write, and what has come for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from raffel_core.context import Event
from raffel_core.inbound import Inbound, Unread
from raffel_core.protocols.items import as_bytes, dump, unseen
from raffel_core.protocols.pump import Form, prioritise, pump
from raffel_core.route import Kind, Route
from raffel_core.session import Session
from raffel_core.wire import envelope as wire
from raffel_core.wire.envelope import Envelope
from raffel_core.wire.lanes import Queue
from raffel_core.wire.protocol import READING, SERVER, UNARY, State, Stream

if TYPE_CHECKING:
    from raffel_core.protocols.envelopes import EnvelopeConnection


class Payload(NamedTuple):
    data: bytes
    binary: bool
    """Whether the data is what was meant, and not its JSON."""


Frame = Callable[[int], bytes]
"""What comes before a message of this size."""

_ENVELOPE = 128
"""What an item that waits costs beside its payload, in bytes."""
_BRACE = ord("}")
_RUN = 64
"""Items that are taken in before it is asked again whether there is room."""
_SHORT = 512
"""Bytes of a message whose items are taken in runs: it cannot nest deeper than it may, and its item stays small."""
_STATES: Mapping[Kind, State] = {Kind.UNARY: UNARY, Kind.SERVER: SERVER, Kind.CLIENT: READING, Kind.BIDI: READING}


class Channel(Stream):
    """One call of an envelope connection: its session, what it has to write, and what has come for it."""

    __slots__ = (
        "_parse",
        "_progress",
        "_read_at",
        "_unread",
        "_waiter",
        "answered",
        "binary",
        "connection",
        "inbound",
        "json_id",
        "late",
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
        self.binary = bool(envelope.binary) and route.kind is not Kind.UNARY
        self.ranked = envelope.priority is not None
        """Whether the client has said the priority itself."""
        self.queue = Queue(envelope.priority if envelope.priority is not None else route.meta.priority)
        self.result: bytes | None = None
        self.answered = False
        """Whether the client has been told the end."""
        self.late: asyncio.TimerHandle | None = None
        self.inbound: Inbound | None = None
        self._progress = (0, 0)
        self._read_at = 0.0
        """When the handler was last seen to have read while items were parked."""
        self._parse: Callable[[bytes], Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._unread = 0

    # Items down

    async def pump(self, items: AsyncIterator[Any]) -> None:
        """Takes the items of one opening to the outbox."""
        route = self.session.route
        if not self.ranked:
            prioritise(self, items, route)
        raw = self.binary and route.output.bytes
        exact, fits, encode = (bytes, _never, bytes) if raw else (unseen(route), route.output.fits, route.output.encode)
        prefix, tail = _around(self.json_id, raw)
        frame, extra = self.connection.frame(raw), len(prefix) + len(tail)
        form = Form(
            exact,
            fits,
            encode,
            lambda size: frame(size + extra) + prefix,
            tail,
            extra,
            lambda queue, item: self._push_other(queue, route, item, raw),
        )
        await pump(self, items, form)

    def _push_other(self, queue: Queue, route: Route, item: Any, raw: bool) -> int:
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
        queue.parts += (self.connection.frame(raw)(size) + prefix, data, tail)
        return size

    def drop(self) -> None:
        """Lets go of what is queued, and of what a handler that has not stopped yet still yields."""
        self.queue.parts.clear()
        self.queue = Queue(self.queue.priority)
        self.connection.outbox.turn = None

    async def more(self) -> None:
        """Waits for credit. The handler is an item ahead of it: only so is its end seen, which needs none."""
        while self.credit == 0:
            if self.session.interrupted:
                raise asyncio.CancelledError
            self._waiter = self.connection.hub.loop.create_future()
            await self._waiter

    def granted(self) -> None:
        """Credit has come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def reply(self, result: Any) -> None:
        """Makes the one answer of a request or a client stream, once the connection has room for it."""
        connection, route = self.connection, self.session.route
        while connection.outbox.paused:  # also for those that wait with it: each result is written before the next
            await connection.room_for(self.queue)
        raw = self.binary and route.output.bytes
        if raw:
            answer = wire.binary_prefix(self.json_id, b"response") + as_bytes(result)
        else:
            answer = wire.response(self.json_id, dump(route, result))
        connection.frame(raw)(len(answer))  # one that cannot be framed is an error of this call
        self.result = answer

    # Items up

    def take_run(self, messages: Sequence[bytes], start: int) -> int:
        """Takes in a run of messages that begin as this stream's items do; returns where it ends.

        Items that come one after the other mostly differ in nothing but their payload. What lies between the lead and
        the last brace is then the payload if it is one JSON value, which the schema's own parser says on the way: the
        envelope around it needs no parsing. Whatever it refuses is for the rules to judge.
        """
        inbound, lead, parse = self.inbound, self.connection.lead, self._parse
        if inbound is None or parse is None or not inbound.writable:
            return start
        stop = start + _RUN if self.allowance is None else start + min(_RUN, self.allowance)
        begin = len(lead)
        items: list[Any] = []
        total = 0
        for message in messages[start:stop]:
            size = len(message)
            if size > _SHORT or not message.startswith(lead) or message[-1] != _BRACE or not message.isascii():
                break
            try:
                items.append(parse(message[begin:-1]))
            except Exception:
                break  # it is read again, by the rules
            total += size
        if items:
            self._push(inbound, items, total)
        return start + len(items)

    def take_in(self, envelope: Envelope) -> None:
        """One item of the client: checked when the handler reads it."""
        assert self.inbound is not None
        if self.allowance == 0:
            self.session.cancel("credit_exceeded")
        elif self.inbound.writable:  # else the call is over, and the client does not know it yet
            payload = payload_of(envelope)  # the message itself, which may hold anything beside it, is not kept
            self._push(self.inbound, [Unread(payload)], _ENVELOPE + len(payload.data))

    def _push(self, inbound: Inbound, items: list[Any], size: int) -> None:
        if self.allowance is not None:
            self.allowance -= len(items)
        parked = inbound.push(items, size)
        if parked:
            if inbound.parked == parked:
                self._read_at = self.connection.hub.loop.time()
            self.connection.park(parked)

    def stalled(self, now: float, limit: float, *, alone: bool) -> bool:
        """Whether the handler has read nothing for so long, with items parked for it. To be asked again and again.

        One that waits for its client, for room or for credit, is not the one that is slow, and one that is alone on its
        connection is in nobody's way.
        """
        inbound = self.inbound
        if inbound is None or not inbound.parked:
            return False
        waits = self.connection.outbox.paused or (self._waiter is not None and not self._waiter.done())
        if alone or inbound.progress != self._progress or (waits and self.session.route.kind.writes):
            self._progress = inbound.progress
            self._read_at = now
        return now - self._read_at >= limit

    def read_into(self, inbound: Inbound) -> None:
        """Has what comes for this call pushed there."""
        self.inbound = inbound
        inbound.on_room = self.connection.unpark
        output = self.session.route.input
        self._parse = None if output.any else output.parse

    def grant_as_read(self, mark: int) -> None:
        """Lets the client send as many items as the handler has room for, and more as it reads."""
        assert self.inbound is not None
        batch = max(1, mark // 2)
        self.allowance = mark

        def read() -> None:
            self._unread += 1
            if self._unread >= batch and self.state is READING and not self.answered:
                assert self.allowance is not None
                self.allowance += self._unread
                self.connection.say(wire.stream_credit(self.json_id, self._unread))
                self._unread = 0

        self.inbound.on_space = read
        self.connection.say(wire.stream_credit(self.json_id, mark))


def _around(json_id: bytes, raw: bool) -> tuple[bytes, bytes]:
    """What comes before and behind the payload of an item."""
    return (wire.binary_prefix(json_id), b"") if raw else (wire.data_prefix(json_id), wire.data_suffix())


def _never(item: object) -> bool:
    return False


def payload_of(envelope: Envelope) -> Payload:
    if envelope.data is wire.NO_DATA:
        return Payload(bytes(envelope.payload), False)
    return Payload(bytes(envelope.data), True)
