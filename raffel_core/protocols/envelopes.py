"""Envelopes on a connection: many calls side by side, with flow control in both directions.

WebSocket and TCP bring the frames (`frame`, `advance`) and their way of saying goodbye; everything else is here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from raffel_core.context import Context, Event, Outcome
from raffel_core.errors import RaffelError
from raffel_core.inbound import Inbound
from raffel_core.protocols.connection import NEVER, Connection, Hub
from raffel_core.protocols.items import as_bytes, dump, mark_of, unseen
from raffel_core.route import Kind, Route
from raffel_core.schema import schema_of
from raffel_core.schema.contract import Schema
from raffel_core.schema.invalid import INPUT, OUTPUT, UNWRITABLE, Fault, invalid, unwritable
from raffel_core.session import Session, ended_early, timeout_seconds
from raffel_core.stream import RaffelStream
from raffel_core.wire import envelope as wire
from raffel_core.wire.envelope import Envelope, Violation
from raffel_core.wire.lanes import LaneOutbox, Queue
from raffel_core.wire.outbox import CHECK_BYTES, FLUSH_BYTES, SLICE_SECONDS
from raffel_core.wire.protocol import (
    READING,
    SERVER,
    UNARY,
    Act,
    EnvelopeProtocol,
    State,
    Stream,
    in_use,
    out_of_turn,
    unknown,
)

log = logging.getLogger("raffel")

POOL_BYTES = 256 * 1024
"""What a connection keeps of items that came before their handlers wanted them; then it is not read."""

REPLY_BYTES = 256 * 1024
"""What may wait to be written on a connection; then it is not read."""

CANCEL_SECONDS = 0.05
"""How long the answer to a `cancel` waits for the handler to have cleaned up."""

_NO_TURN = 0
_HEADS = 512
_ANY: Schema[Any] = schema_of(None)
_STATES: Mapping[Kind, State] = {Kind.UNARY: UNARY, Kind.SERVER: SERVER, Kind.CLIENT: READING, Kind.BIDI: READING}

Frame = Callable[[int], bytes]
"""What comes before a message of this size."""


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


class EnvelopeConnection(Connection[LaneOutbox]):
    """Reads envelopes, opens their calls, and writes what the calls produce."""

    __slots__ = (
        "_channels",
        "_crowd",
        "_due",
        "_going_on",
        "_metadata",
        "_parked",
        "_protocol",
        "_waiters",
        "closing",
        "held",
    )

    name: ClassVar[str]
    """What handlers see as `ctx.protocol`."""

    def __init__(self, hub: Hub, metadata: Mapping[str, str], due: float = NEVER) -> None:
        super().__init__(hub, LaneOutbox())
        self._metadata: Mapping[str, str] = MappingProxyType(
            {key: value for key, value in metadata.items() if key != "timeout-ms"}
        )
        self._protocol: EnvelopeProtocol[Channel] = EnvelopeProtocol()
        self._channels: set[Channel] = set()
        """The calls whose handlers run, also those that the client has been told the end of."""
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._crowd = 1
        self._parked = 0
        self._going_on = False
        self._due = due
        """When the message that has begun must be complete."""
        self.held = False
        """Whether nothing is read, and nothing that was read is looked at."""
        self.closing = False
        """Whether the peer has been told the end: what it still sends is not looked at."""

    @abstractmethod
    def frame(self, binary: bool) -> Frame:
        """How messages are framed, those of text or those of bytes."""

    @abstractmethod
    def advance(self) -> None:
        """Takes in the messages that are here, until `held`."""

    @abstractmethod
    def goodbye(self, reason: str) -> None:
        """Says the end of the connection after everything that is queued, and closes."""

    # What the transport reports

    def connection_lost(self, exc: Exception | None) -> None:
        self.end_sessions(self.lost_reason(exc))
        super().connection_lost(exc)

    def eof_received(self) -> None:
        self.end_sessions("client_disconnected")

    def end_sessions(self, reason: str) -> None:
        for channel in list(self._channels):
            channel.session.cancel(reason)

    def drain(self) -> None:
        if not self._channels:
            self.goodbye("server_draining")

    # Writing

    def flush(self) -> None:
        data = self.outbox.take()
        while data:
            self.quiet_since = self.hub.now
            self.transport.write(data)
            data = self.outbox.take()

    def say(self, message: bytes) -> None:
        """Sends a message of the connection itself, before all items."""
        outbox = self.outbox
        if outbox.closed:
            return
        outbox.replies.append(self.frame(False)(len(message)) + message)
        self._written(len(message))

    def _push(self, queue: Queue, message: bytes, *, binary: bool = False) -> None:
        """Sends a message behind what its stream has queued."""
        queue.parts += (self.frame(binary)(len(message)), message, b"")
        self.outbox.announce(queue)
        self._written(len(message))

    def _written(self, size: int) -> None:
        outbox = self.outbox
        if outbox.paused:
            outbox.waiting += size
            if outbox.waiting >= REPLY_BYTES:
                self._hold()
        elif not outbox.dirty:
            outbox.dirty = True
            self.hub.flush_soon(self)

    async def room_for(self, queue: Queue) -> None:
        """Waits until the connection can be written, or is lost; the highest priority goes on first."""
        if self.outbox.paused and not self.outbox.closed:
            waiter = self.hub.loop.create_future()
            self._waiters.append((-queue.priority, next(_places), waiter))
            await waiter

    def share(self) -> int:
        """How much one of the streams that compete for the connection may push in a turn."""
        return FLUSH_BYTES // self._crowd

    def _give_room(self) -> None:
        waiters, self._waiters = self._waiters, []
        self._crowd = max(1, len(waiters))
        for _, _, waiter in sorted(waiters) if len(waiters) > 1 else waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._release()

    # Reading

    def park(self, size: int) -> None:
        """Counts an item that no handler has room for."""
        self._parked += size
        if self._parked >= POOL_BYTES:
            self._hold()
        stall = self.hub.config.limits.stall_seconds
        self.wake_at(self.hub.loop.time() + min(1.0, stall / 4))

    def unpark(self, size: int) -> None:
        self._parked -= size
        self._release()

    def _hold(self) -> None:
        if not self.held and not self.outbox.closed:
            self.held = True
            self.pause_reading()

    def _release(self) -> None:
        """Goes on reading, in a turn of its own, once there is room again."""
        if not self.held or self._going_on or self._parked > POOL_BYTES // 2:
            return
        if self.outbox.paused and self.outbox.waiting >= REPLY_BYTES // 2:
            return
        self._going_on = True
        self.hub.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = self.held = False
        if self.outbox.closed:
            return
        if self._due < NEVER:
            self._due = self.hub.loop.time() + self.hub.config.limits.request_seconds
        self.advance()
        if not self.held:
            self.resume_reading()

    def expect(self, *, partial: bool, taken: bool) -> None:
        """Notes after reading whether a message has begun that is not complete, and whether others were."""
        if not partial:
            self._due = NEVER
        elif taken or self._due == NEVER:
            self._due = self.hub.loop.time() + self.hub.config.limits.request_seconds
            self.wake_at(self._due)

    # Time

    def on_alarm(self, now: float) -> float:
        if now >= self._due and not self.held:
            log.warning("connection closed: a message was not complete in time", extra={"peer": self.peer})
            self.goodbye("incomplete")
            return NEVER
        return min(self._due, self._look_for_stalled_handlers(now))

    def _look_for_stalled_handlers(self, now: float) -> float:
        if not self._parked:
            return NEVER
        stall = self.hub.config.limits.stall_seconds
        if len(self._channels) > 1:
            for channel in list(self._channels):
                if channel.parked and now - channel.moved_at >= stall:
                    channel.session.cancel("handler_stalled")
                    channel.drop()
        return now + min(1.0, stall / 4)

    # Messages

    def receive(self, message: bytes, *, text: bool = False) -> None:
        """Does what one message asks for. `text`: the framing says that it is JSON."""
        event = self._protocol.receive(message, text=text)
        if isinstance(event, Violation):
            self.say(self._protocol.refuse(event.type, event.id, event.error))
            return
        act, envelope, channel = event
        if channel is None:
            if act is Act.OPEN:
                self._open(envelope)
            elif act is Act.UNKNOWN:
                self._complain(envelope, unknown(envelope.id))
        elif act is Act.ITEM:
            channel.take_in(envelope)
        elif act is Act.FINISH:
            self._protocol.finish(channel)
            channel.end_in()
        elif act is Act.CANCEL:
            self._cancel(channel)
        elif act is Act.GRANT:
            self._grant(channel, envelope)
        elif act is Act.IN_USE:
            self._complain(envelope, in_use(envelope.id))
        elif act is Act.OUT_OF_TURN:
            self._complain(envelope, out_of_turn(channel, envelope.type))

    def _complain(self, envelope: Envelope, problem: RaffelError) -> None:
        """An error that ends nothing."""
        self.say(wire.error(wire.encode(envelope.id), problem))

    def _grant(self, channel: Channel, envelope: Envelope) -> None:
        assert envelope.credit is not None
        if channel.grant(envelope.credit):
            channel.granted()
        else:
            message = f"`credit` makes the sum larger than {wire.MAX_CREDIT}"
            self._complain(envelope, RaffelError("INVALID_ENVELOPE", message))

    def _cancel(self, channel: Channel) -> None:
        channel.session.cancel("client_cancelled")
        channel.drop()
        if channel.late is None:
            channel.late = self.hub.loop.call_later(CANCEL_SECONDS, self._answer_late, channel)

    def _answer_late(self, channel: Channel) -> None:
        """The handler has been told and takes its time: its client need not wait for that."""
        if channel.session.reason == "client_cancelled":
            self._answer(channel, ended_early("client_cancelled"))

    # Calls

    def _open(self, envelope: Envelope) -> None:
        try:
            route, params = self._admit(envelope)
            timeout = timeout_seconds(envelope.metadata.get("timeout-ms")) if envelope.metadata else None
        except RaffelError as problem:
            self.say(self._protocol.refuse(envelope.type, envelope.id, problem))
            return
        channel = Channel(self, envelope, route)
        metadata = self._metadata
        if envelope.metadata:
            metadata = {**metadata, **envelope.metadata}
        ctx = Context(
            route.name,
            protocol=self.name,
            app=self.hub.app,
            peer=self.peer,
            params=params,
            metadata=metadata,
            last_event_id=envelope.lastEventId or None,
        )
        payload, binary = _payload(envelope)
        if route.kind.reads:
            mark = route.meta.high_water_mark or self.hub.config.limits.high_water_mark
            inbound = Inbound(_item_reader(route.input), mark)
            session = Session(route, ctx, lambda _: _read(_ANY, payload, binary, None), inbound=inbound)
        else:
            session = Session(route, ctx, lambda route: _read(route.input, payload, binary, params))
        channel.session = session
        session.set_deadline(timeout)
        self._protocol.add(channel)
        self._channels.add(channel)
        self.hub.sessions.add(session)
        if session.inbound is not None and envelope.credit is not None:
            channel.grant_as_read(session.inbound.high_water_mark)
        self.hub.loop.create_task(self._run(channel))

    def _admit(self, envelope: Envelope) -> tuple[Route, Mapping[str, str]]:
        """The route that an envelope asks for, and its parameters."""
        if self.hub.draining:
            problem = ended_early("server_draining").error
            assert problem is not None
            raise problem
        limit = self.hub.config.limits.streams_per_connection
        if len(self._channels) >= limit:
            raise RaffelError("RESOURCE_EXHAUSTED", f"{limit} streams and requests are open, the limit of a connection")
        assert envelope.procedure is not None
        route, params = self.hub.router.find(envelope.procedure)
        if (route.kind is Kind.UNARY) is not (envelope.type == wire.REQUEST):
            found = "a procedure" if route.kind is Kind.UNARY else f"a {route.kind} stream"
            expected = wire.REQUEST if route.kind is Kind.UNARY else wire.START
            raise RaffelError("UNIMPLEMENTED", f"{route.name} is {found}: it is asked for by {expected!r}")
        return route, params

    async def _run(self, channel: Channel) -> None:
        session = channel.session
        try:
            outcome = await session.run(channel.pump if session.route.kind.writes else channel.reply)
            self._answer(channel, outcome)
        except Exception:
            log.exception("a call failed: a fault of the server", extra={"route": session.route.name})
            self.goodbye("fault")
        finally:
            if channel.late is not None:
                channel.late.cancel()
            self.hub.sessions.discard(session)
            self._channels.discard(channel)
            if channel.parked:
                channel.drop()
        if self.hub.draining and not self._channels:
            self.goodbye("server_draining")

    def _answer(self, channel: Channel, outcome: Outcome) -> None:
        """Writes the end of a call, once, behind what it has queued."""
        if channel.answered:
            return
        channel.answered = True
        self._protocol.end(channel.id)
        if self.outbox.closed or self.closing or outcome.reason == "client_disconnected":
            return
        if outcome.reason == "client_cancelled":
            channel.queue.parts.clear()
        unary = channel.session.route.kind is Kind.UNARY
        if outcome.error is not None:
            write = wire.error if unary else wire.stream_error
            self._push(channel.queue, write(channel.json_id, outcome.error))
        elif channel.result is not None:
            self._push(channel.queue, channel.result, binary=channel.result[0] == wire.BINARY)
        else:
            self._push(channel.queue, wire.stream_end(channel.json_id))


_places = itertools.count()


def _around(json_id: bytes, raw: bool) -> tuple[bytes, bytes]:
    """What comes before and behind the payload of an item."""
    return (wire.binary_prefix(json_id), b"") if raw else (wire.data_prefix(json_id), wire.data_suffix())


def _never(item: object) -> bool:
    return False


def _payload(envelope: Envelope) -> tuple[bytes, bool]:
    """The payload, and whether it is bytes and no JSON."""
    return (bytes(envelope.payload), False) if envelope.data is None else (bytes(envelope.data), True)


def _weight(envelope: Envelope) -> int:
    """What an envelope that waits costs, in bytes."""
    return 128 + len(envelope.payload if envelope.data is None else envelope.data)


def _read(schema: Schema[Any], payload: bytes, binary: bool, params: Mapping[str, str] | None) -> Any:
    """A payload as the schema wants it."""
    if not binary:
        return schema.decode(payload, params)
    if schema.bytes or schema is _ANY:
        return payload
    raise invalid(INPUT, [Fault("", f"Expected {schema.name}, got bytes")])


def _item_reader(schema: Schema[Any]) -> Callable[[Envelope], Any]:
    decode = schema.decode

    def read(envelope: Envelope) -> Any:
        if envelope.data is None:
            return decode(envelope.payload)
        return _read(schema, bytes(envelope.data), True, None)

    return read
