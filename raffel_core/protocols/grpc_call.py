"""One call over gRPC: what has come for it, and what it has to write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from raffel_core.context import Context, Event, Outcome
from raffel_core.errors import RaffelError
from raffel_core.inbound import Chunks
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.standard import status_details
from raffel_core.protocols.connection import NEVER
from raffel_core.protocols.items import unseen
from raffel_core.protocols.pump import Form, prioritise, pump
from raffel_core.route import Route
from raffel_core.schema.invalid import OUTPUT, UNWRITABLE, unwritable
from raffel_core.schema.plain import plain
from raffel_core.session import Session
from raffel_core.wire.grpc import (
    ENCODINGS,
    MessageReader,
    compressed_prefix,
    gzipped,
    metadata_headers,
    prefix,
    trailers,
)
from raffel_core.wire.http2_frames import Code, header_block, header_frames
from raffel_core.wire.http2_streams import Stream
from raffel_core.wire.lanes import Queue
from raffel_core.wire.stream_queue import StreamQueue

if TYPE_CHECKING:
    from raffel_core.protocols.grpc import GrpcConnection

HEAD_SECONDS = 0.1
"""How long the head of an answer waits for the first item."""

PREFIX = 5
"""Bytes before each message."""

_UNREAD = msgspec.DecodeError, RecursionError


class GrpcCall(msgspec.Struct, eq=False):
    """One call: its stream, its session, its request and its queue."""

    connection: GrpcConnection
    stream: Stream
    method: Method
    queue: StreamQueue
    compressed: bool
    """Whether its client compresses; it is answered alike."""
    credit: int | None = None
    """HTTP/2 has windows instead."""
    inbound: Chunks | None = None
    """What comes for a handler that reads."""
    message: bytes = b""
    """The request, where it is one message."""
    session: Session = cast("Session", None)
    """Made by `open`, before anybody else sees the call."""
    _reader: MessageReader | None = None
    """Made when the request is not one message in one frame, as most are."""
    _messages: list[bytes] = []
    _problem: RaffelError | None = None
    """What is wrong with the request."""
    _started: bool = False
    _begun: bool = False
    """Whether the answer has its head."""
    _answered: bool = False
    _due: float = NEVER
    """When the request must be complete."""
    _head_at: float = NEVER
    """When the head goes out by itself."""
    _moved_at: float = 0.0
    _sent: int = -1
    _progress: tuple[int, int] = (-1, -1)
    _read_at: float = 0.0

    def open(self, ctx: Context) -> None:
        """Makes the session."""
        route = self.method.route
        if route.kind.reads:
            limits = self.connection.hub.config.limits
            mark = route.meta.high_water_mark or limits.high_water_mark
            self.inbound = Chunks(self._splitter(), self.method.decode, mark)
            self.inbound.on_read = self._give_back
        self.session = Session(route, ctx, self._decode, inbound=self.inbound)

    # The request

    def begin(self, timeout: float | None, *, end: bool) -> None:
        """The head of the request has come; with `end` that was all."""
        self.session.set_deadline(timeout)
        if end:
            self.receive(b"", end=True)
        elif self.inbound is not None and self.method.params is None:
            self.start()
        else:
            connection = self.connection
            now = connection.now
            self._due = now + connection.hub.config.limits.request_seconds
            connection.wake_at(self._due if timeout is None else min(self._due, now + timeout))

    def receive(self, data: bytes, *, end: bool) -> None:
        """Bytes of the request have come; with `end` the last ones."""
        if self.inbound is not None:
            self.inbound.push(data, end=end)
            if not self._started:
                self._take_parameters(self.inbound, end=end)
            return
        self._give_back(len(data))
        if not self._started:
            try:
                self._take_message(data, end=end)
            except RaffelError as problem:
                self._problem, end = problem.with_traceback(None), True
            if end:
                self.start()

    def _take_message(self, data: bytes, *, end: bool) -> None:
        """Takes in bytes of a request that is one message."""
        size = len(data) - PREFIX
        if end and self._reader is None and size >= 0 and data.startswith(prefix(size)) and size <= self._limit:
            self.message = data[PREFIX:]
        else:
            self._put_together(data, end=end)
        if end and self.method.params is not None:
            self.session.ctx.params = self.method.params(self.message)

    def _put_together(self, data: bytes, *, end: bool) -> None:
        reader = self._splitter()
        self._messages += reader.feed(data)
        if reader.more or len(self._messages) > 1:
            raise RaffelError("INVALID_ARGUMENT", "found several messages, expected one")
        if end:
            reader.end()
            if not self._messages:
                raise RaffelError("INVALID_ARGUMENT", "found no message, expected one")
            (self.message,) = self._messages

    def _splitter(self) -> MessageReader:
        if self._reader is None:
            self._reader = MessageReader(self._limit, "gzip" if self.compressed else None)
        return self._reader

    @property
    def _limit(self) -> int:
        return self.connection.hub.config.limits.message_bytes

    def _take_parameters(self, inbound: Chunks, *, end: bool) -> None:
        """Parameters come with the first message; the handler begins with them."""
        first = inbound.first
        if first is not None and self.method.params is not None:
            self.session.ctx.params = self.method.params(first)
        elif not end and not inbound.errored:
            return
        elif not inbound.errored and self.method.params is not None:
            self._problem = RaffelError("INVALID_ARGUMENT", "found no message, expected one with the parameters")
        self.start()

    def _give_back(self, size: int) -> None:
        """Lets the client send as many more bytes."""
        replies = self.connection.outbox.replies
        before = len(replies)
        self.connection.http2.consumed(self.stream, size)
        if len(replies) > before:
            self.connection.written(len(replies[-1]))

    def start(self) -> None:
        """Has the session run, if it does not yet: to open the call, or to end it."""
        if not self._started:
            self._started = True
            self._head_at = self.connection.now + HEAD_SECONDS
            self.connection.wake_at(self._head_at)
            self.connection.run(self)

    def _decode(self, route: Route) -> Any:
        if self._problem is not None:
            raise self._problem
        if self.inbound is not None:
            return {}  # no message but the items themselves
        if route is self.method.route:
            return self.method.decode(self.message)
        return self._decode_anew(route, self.message)

    def _decode_anew(self, route: Route, message: bytes) -> Any:
        """The input for the same call on new code, where its client would notice no change of the messages."""
        old, new = self.method, self.connection.services.by_route.get(route.name)
        if new is None or new.response != old.response:
            raise RaffelError("UNAVAILABLE", "the messages of the method have changed")
        self.method = new
        if new.request == old.request:
            return new.decode(message)
        return route.input.convert(plain(old.decode(message)), self.session.ctx.params)

    def reset(self) -> None:
        """The client has reset the stream, or made a mistake for which it was."""
        self.queue.drop()
        self.session.cancel("client_cancelled")
        self.start()  # a session that has not run does so to be closed

    # Items

    async def pump(self, items: AsyncIterator[Any]) -> None:
        """Takes the items of one opening to the outbox."""
        route = self.session.route
        prioritise(self, items, route)
        exact = self.method.item_type or unseen(route)
        encode, head = self._codec()
        await pump(self, items, Form(exact, route.output.fits, encode, head, b"", PREFIX, self._push_other))

    def _codec(self) -> tuple[Callable[[Any], bytes], Callable[[int], bytes]]:
        """How an item is encoded, and what comes before it."""
        encode = self.method.encode
        write = compressed_prefix if self.compressed else prefix

        def head(size: int) -> bytes:
            self._begin_answer()
            return write(size)

        return (lambda item: gzipped(encode(item))) if self.compressed else encode, head

    def _push_other(self, queue: Queue, item: Any) -> int:
        """Pushes any other item: one with an id, of another type, or one that is not what the route promises."""
        event_id = None
        if isinstance(item, Event):
            event_id, item = item.id, item.data
        data = self._encoded(item)
        if event_id is not None:
            self.session.last_event_id = event_id
            if self.method.tag_event_id is not None:
                data += self.method.tag_event_id(event_id)
        return self._push(queue, data)

    def _push(self, queue: Queue, data: bytes) -> int:
        self._begin_answer()
        if self.compressed:
            data = gzipped(data)
        queue.parts += ((compressed_prefix if self.compressed else prefix)(len(data)), data, b"")
        return PREFIX + len(data)

    def _encoded(self, item: Any) -> bytes:
        """The message of any item; OUTPUT_VALIDATION_ERROR where it is not what the route promises."""
        route, method = self.session.route, self.method
        output = route.output
        unchecked = method.item_type is not None or output.any
        try:
            if type(item) is msgspec.Raw and unchecked:
                item = msgspec.json.decode(item)
            elif not unchecked and (route.meta.check_output or type(item) is not output.trusted):
                item = output.check(item)
            return method.encode(item)
        except (*UNWRITABLE, *_UNREAD) as error:
            raise unwritable(OUTPUT, error) from error

    async def more(self) -> None:
        """There is no credit to wait for."""

    async def reply(self, result: Any) -> None:
        """Makes the one answer of a unary call or a client stream, once the connection has room for it."""
        connection = self.connection
        while connection.outbox.paused:
            await connection.room_for(self.queue)
        self._push(self.queue, self._encoded(result))

    # The answer

    def _begin_answer(self) -> None:
        """Queues the head. Metadata that cannot be sent are OUTPUT_VALIDATION_ERROR."""
        if not self._begun:
            initial = self.session.ctx.sent_metadata[0]
            self.queue.head = header_frames(self.stream.id, self._head(initial), end=False)
            self._begun = True

    def _head(self, initial: Mapping[str, str | bytes] | None) -> bytes:
        head = _GZIP_HEAD if self.compressed else HEAD
        return head if not initial else head + header_block(metadata_headers(initial))

    def answer(self, outcome: Outcome) -> None:
        """Writes the end of a call, once, behind what it has queued."""
        connection, queue = self.connection, self.queue
        if self._answered:
            return
        self._answered = True
        if connection.closing or connection.outbox.closed or not connection.http2.is_open(self.stream):
            queue.drop()
        elif outcome.reason == "slow_consumer":
            queue.drop()
            connection.http2.reset(self.stream, Code.ENHANCE_YOUR_CALM)
            connection.written(0)
        else:
            self._settle()
            queue.finish(self._end(outcome))
            connection.conclude(queue)

    def _settle(self) -> None:
        """A call that was answered earns its client more; one that could not be read has cost."""
        if self._problem is None and (self._reader is None or not self._reader.failed):
            self.connection.http2.earn(4)
        else:
            self.connection.http2.charge(8 if self.compressed else 1)

    def _end(self, outcome: Outcome) -> bytes:
        """The last header block; metadata that cannot be sent make an error of any end."""
        initial, trailing = self.session.ctx.sent_metadata
        try:
            if initial:
                self._begin_answer()  # in a head that is the trailers too, nobody could tell the one from the other
            block = OK if outcome.error is None and not trailing else end_block(outcome.error, trailing)
            return block if self._begun else self._head(None) + block
        except RaffelError as problem:
            return end_block(problem) if self._begun else HEAD + end_block(problem)

    # Time

    def on_alarm(self, now: float) -> float:
        """Does what is due and returns when to be called next."""
        if not self._started:
            return self._look_at_request(now)
        due = NEVER
        if not self._begun and not self._answered:
            due = self._head_at
            if now >= due:
                self._send_head()
                due = NEVER
        if self.queue.blocked:
            due = min(due, self._look_for_stall(now))
        if self.inbound is not None and self.connection.http2.exhausted:
            due = min(due, self._look_for_reads(self.inbound, now))
        return due

    def _look_at_request(self, now: float) -> float:
        if self.session.reason is None and now < self._due:
            return self._due if self.session.ctx.deadline is None else min(self._due, now + HEAD_SECONDS)
        seconds = self.connection.hub.config.limits.request_seconds
        self._problem = RaffelError("DEADLINE_EXCEEDED", f"the request was not complete after {seconds:g} s")
        self.start()
        return NEVER

    def _send_head(self) -> None:
        """Sends the head by itself, so that the client knows that the call is open."""
        try:
            self._begin_answer()
        except RaffelError:
            return  # the handler's first item, or its end, will say so
        self.connection.announce(self.queue)

    def _look_for_stall(self, now: float) -> float:
        """Whether the client has let nothing be sent for too long; the connection's other streams go on."""
        stall = self.connection.hub.config.limits.stall_seconds
        if self.queue.sent != self._sent:
            self._sent, self._moved_at = self.queue.sent, now
        elif now - self._moved_at >= stall:
            self.session.cancel("slow_consumer")
            self.connection.tell_stalled(self)
            if self._answered:  # only what is queued is left of it
                self.queue.drop()
                self.connection.http2.reset(self.stream, Code.ENHANCE_YOUR_CALM)
                self.connection.written(0)
            return NEVER
        return now + min(1.0, stall / 4)

    def _look_for_reads(self, inbound: Chunks, now: float) -> float:
        """Whether the handler has read nothing for too long while the connection can bring nothing to anybody.

        One that waits for its client is not the one that is slow, and one that is alone is in nobody's way.
        """
        connection = self.connection
        stall = connection.hub.config.limits.stall_seconds
        waits = self.session.route.kind.writes and (self.queue.blocked or connection.outbox.paused)
        if inbound.progress != self._progress or waits or not inbound.unread or len(connection.calls) == 1:
            self._progress, self._read_at = inbound.progress, now
        elif now - self._read_at >= stall:
            self.session.cancel("handler_stalled")
            return NEVER
        return now + min(1.0, stall / 4)


HEAD = header_block(
    (
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", ",".join(ENCODINGS).encode()),
    )
)
"""The head of every answer."""

_GZIP_HEAD = HEAD + header_block(((b"grpc-encoding", b"gzip"),))

OK = header_block(((b"grpc-status", b"0"),))


def end_block(error: RaffelError | None, metadata: Mapping[str, str | bytes] | None = None) -> bytes:
    """The header block that ends a call."""
    return header_block(trailers(error, None if error is None else status_details(error), metadata or {}))
