"""Envelopes on a connection: many calls side by side, with flow control in both directions.

WebSocket and TCP bring the frames (`frame`, `advance`) and their way of saying goodbye; everything else is here.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from raffel_core.context import Context, Outcome
from raffel_core.errors import RaffelError
from raffel_core.inbound import Inbound
from raffel_core.protocols.channel import Channel, Frame, Payload, payload_of
from raffel_core.protocols.connection import NEVER, Hub
from raffel_core.protocols.multiplexed import MultiplexedConnection
from raffel_core.route import Kind, Route
from raffel_core.schema import schema_of
from raffel_core.schema.contract import Schema
from raffel_core.schema.invalid import INPUT, Fault, invalid
from raffel_core.session import Session, ended_early, timeout_seconds
from raffel_core.wire import envelope as wire
from raffel_core.wire.envelope import Envelope, Violation
from raffel_core.wire.lanes import Queue
from raffel_core.wire.outbox import SLICE_SECONDS
from raffel_core.wire.protocol import (
    Act,
    EnvelopeProtocol,
    in_use,
    out_of_turn,
    unknown,
)

log = logging.getLogger("raffel")

POOL_BYTES = 256 * 1024
"""What a connection keeps of items that came before their handlers wanted them; then it is not read."""

CANCEL_SECONDS = 0.05
"""How long the answer to a `cancel` waits for the handler to have cleaned up."""

_LOOKS = 64
"""After how many messages it is looked at the time."""

_ANY: Schema[Any] = schema_of(None)


class EnvelopeConnection(MultiplexedConnection):
    """Reads envelopes, opens their calls, and writes what the calls produce."""

    __slots__ = (
        "_channels",
        "_due",
        "_going_on",
        "_looks",
        "_metadata",
        "_parked",
        "_protocol",
        "_until",
    )

    name: ClassVar[str]
    """What handlers see as `ctx.protocol`."""

    def __init__(self, hub: Hub, metadata: Mapping[str, str], due: float = NEVER) -> None:
        super().__init__(hub)
        self._metadata: Mapping[str, str] = MappingProxyType(
            {key: value for key, value in metadata.items() if key != "timeout-ms"}
        )
        self._protocol: EnvelopeProtocol[Channel] = EnvelopeProtocol()
        self._channels: set[Channel] = set()
        """The calls whose handlers run, also those that the client has been told the end of."""
        self._parked = 0
        self._until = 0.0
        """When the others have their turn."""
        self._looks = 0
        self._going_on = False
        self._due = due
        """When the message that has begun must be complete."""

    @property
    def calls(self) -> Collection[Channel]:
        return self._channels

    @abstractmethod
    def frame(self, binary: bool) -> Frame:
        """How messages are framed, those of text or those of bytes."""

    def proceed(self) -> None:
        """Takes in the messages that are here, for one turn."""
        self._until = self.hub.loop.time() + SLICE_SECONDS
        self.advance()

    @abstractmethod
    def advance(self) -> None:
        """Takes in the messages that are here, until `held`."""

    @abstractmethod
    def goodbye(self, reason: str) -> None:
        """Says the end of the connection after everything that is queued, and closes."""

    # What the transport reports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._due < NEVER:
            self.wake_at(self._due)

    def drain(self) -> None:
        if not self._channels:
            self.goodbye("server_draining")

    # Writing

    def say(self, message: bytes) -> None:
        """Sends a message of the connection itself, before all items."""
        outbox = self.outbox
        if outbox.closed:
            return
        outbox.replies.append(self.frame(False)(len(message)) + message)
        self.written(len(message))

    def _push(self, queue: Queue, message: bytes, *, binary: bool = False) -> None:
        """Sends a message behind what its stream has queued."""
        queue.parts += (self.frame(binary)(len(message)), message, b"")
        self.outbox.announce(queue)
        self.written(len(message))

    # Reading

    def park(self, size: int) -> None:
        """Counts an item that no handler has room for."""
        self._parked += size
        if self._parked >= POOL_BYTES:
            self.hold()
        stall = self.hub.config.limits.stall_seconds
        self.wake_at(self.hub.loop.time() + min(1.0, stall / 4))

    def unpark(self, size: int) -> None:
        self._parked -= size
        self.release()

    def release(self) -> None:
        if self._parked <= POOL_BYTES // 2:
            super().release()

    def go_on(self) -> None:
        """Looks at what was read, in a turn of its own, and reads on."""
        self._go_on_soon()

    def _rest(self) -> None:
        """Lets the others have their turn. The loop would read on and on meanwhile if it were not told to stop."""
        self.held = True
        self.pause_reading()
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._going_on:
            self._going_on = True
            self.hub.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = False
        if self._full or self.outbox.closed:
            return
        self.held = False
        if self._due < NEVER:
            self._due = self.hub.loop.time() + self.hub.config.limits.request_seconds
        self.proceed()
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
        due = NEVER if self.held else self._due
        if now >= due:
            log.warning("connection closed: a message was not complete in time", extra={"peer": self.peer})
            self.goodbye("incomplete")
            return NEVER
        return min(due, self._look_for_stalled_handlers(now))

    def _look_for_stalled_handlers(self, now: float) -> float:
        if not self._parked:
            return NEVER
        stall = self.hub.config.limits.stall_seconds
        alone = len(self._channels) == 1
        for channel in list(self._channels):
            if channel.stalled(now, stall, alone=alone):
                channel.session.cancel("handler_stalled")
        return now + min(1.0, stall / 4)

    # Messages

    @property
    def lead(self) -> bytes:
        """How the items of the stream that sent the last one begin."""
        return self._protocol.lead

    def receive_all(self, messages: Sequence[bytes], *, text: bool = False) -> int:
        """Does what messages ask for, in order, until `held` or the end; returns how many that were."""
        protocol, done, count = self._protocol, 0, len(messages)
        while done < count and not self.held and not self.closing:
            if protocol.leader is not None:
                taken = protocol.leader.take_run(messages, done)
                if taken > done:
                    done = taken
                    continue
            self.receive(messages[done], text=text)
            done += 1
            self.look()
        return done

    def look(self) -> None:
        """Rests after a message where the others are due to have their turn."""
        self._looks += 1
        if self._looks % _LOOKS == 0 and self.hub.loop.time() > self._until:
            self._rest()

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
            if channel.inbound is not None:
                channel.inbound.end()
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
        if channel.session.reason != "client_cancelled":
            return  # it ends by itself, or for another reason
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
        payload, binary = payload_of(envelope)
        if route.kind.reads:
            mark = route.meta.high_water_mark or self.hub.config.limits.high_water_mark
            inbound = Inbound(_item_reader(route.input), mark)
            session = Session(route, ctx, lambda _: _read(_ANY, payload, binary, None), inbound=inbound)
        else:
            session = Session(route, ctx, lambda route: _read(route.input, payload, binary, params))
        channel.session = session
        if isinstance(session.inbound, Inbound):
            channel.read_into(session.inbound)
        session.set_deadline(timeout)
        self._protocol.add(channel)
        self._channels.add(channel)
        self.hub.sessions.add(session)
        if channel.inbound is not None and envelope.credit is not None:
            channel.grant_as_read(channel.inbound.high_water_mark)
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
        unary = channel.session.route.kind is Kind.UNARY
        if outcome.error is not None:
            write = wire.error if unary else wire.stream_error
            self._push(channel.queue, write(channel.json_id, outcome.error))
        elif channel.result is not None:
            self._push(channel.queue, channel.result, binary=channel.result[0] == wire.BINARY)
        else:
            self._push(channel.queue, wire.stream_end(channel.json_id))


def _read(schema: Schema[Any], payload: bytes, binary: bool, params: Mapping[str, str] | None) -> Any:
    """A payload as the schema wants it."""
    if not binary:
        return schema.decode(payload, params)
    if schema.bytes or schema is _ANY:
        return payload
    raise invalid(INPUT, [Fault("", f"Expected {schema.name}, got bytes")])


def _item_reader(schema: Schema[Any]) -> Callable[[Payload], Any]:
    return lambda payload: _read(schema, *payload, None)
