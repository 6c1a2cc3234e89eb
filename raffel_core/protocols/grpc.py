"""gRPC: every route as a method, over HTTP/2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from raffel_core.context import MAX_ID, Context
from raffel_core.errors import NoSuchRoute, RaffelError
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.services import Services
from raffel_core.protocols.connection import LINGER_SECONDS, NEVER, Hub
from raffel_core.protocols.grpc_call import HEAD, GrpcCall, end_block
from raffel_core.protocols.grpc_standard import standard_methods
from raffel_core.protocols.health import health
from raffel_core.protocols.multiplexed import MultiplexedConnection
from raffel_core.route import Kind
from raffel_core.session import ended_early
from raffel_core.wire.grpc import ENCODINGS, read_metadata, timeout_seconds
from raffel_core.wire.http2 import Event, Http2
from raffel_core.wire.http2 import Kind as Report
from raffel_core.wire.http2_frames import Code, header_block
from raffel_core.wire.http2_streams import HeaderList, Stream
from raffel_core.wire.lanes import Queue
from raffel_core.wire.outbox import FLUSH_BYTES, SLICE_SECONDS
from raffel_core.wire.stream_queue import StreamQueue

log = logging.getLogger("raffel")

_CONTENT_TYPES = (b"application/grpc", b"application/grpc+proto")
_PING = b"draining"
_STEP = 16 * 1024
"""Bytes that are taken in before it is looked at the time."""
_PAUSE_SECONDS = 0.001
"""After how long without bytes the others have had their turn."""
_LEAST_SHARE = 4096
"""Bytes that a handler may be ahead of a window that is smaller."""


class Request(NamedTuple):
    """What the head of a gRPC request says."""

    path: str
    metadata: Mapping[str, str]
    timeout: float | None
    encoding: str | None
    last_event_id: str | None
    problem: RaffelError | None
    """Why it cannot be followed."""


class Grpc:
    """What all gRPC connections of a server share: its methods."""

    __slots__ = ("hub", "services", "standard")

    def __init__(self, hub: Hub, services: Services, *, reflection: bool) -> None:
        self.hub = hub
        self.services = services
        """Those of the routes; a reload replaces them."""
        self.standard = standard_methods(hub, lambda: self.services, reflection=reflection)

    def connection(self, due: float) -> GrpcConnection:
        """A new connection; `due` is the loop's time when its peer must have introduced itself."""
        return GrpcConnection(self, due)

    def find(self, path: str) -> Method:
        """The method of a path; NoSuchRoute where there is none."""
        method: Method | None = self.services.methods.get(path) or self.standard.get(path)
        if method is None:
            raise NoSuchRoute(f"no such method: {path[:200]!r}")
        return method


class GrpcConnection(MultiplexedConnection):
    """One HTTP/2 connection: opens its calls, and writes what they produce."""

    __slots__ = (
        "_awaited",
        "_calls",
        "_due",
        "_final_at",
        "_fresh",
        "_going_on",
        "_grpc",
        "_unseen",
        "_until",
        "http2",
        "now",
        "starved",
    )

    def __init__(self, grpc: Grpc, due: float) -> None:
        super().__init__(grpc.hub)
        self.http2 = Http2(grpc.hub.config.limits.streams_per_connection, _read_request, self.outbox.replies)
        self.starved: set[StreamQueue] = set()
        """The queues that wait for a window."""
        self.now = 0.0
        """The loop's time when something was received last."""
        self._grpc = grpc
        self._unseen = b""
        """What has been read and not been looked at."""
        self._until = 0.0
        """When the others have their turn."""
        self._fresh = 0
        """How many handlers are about to begin."""
        self._going_on = False
        self._awaited: dict[StreamQueue, asyncio.Future[None]] = {}
        """Queues whose handlers wait until they have been taken whole."""
        self._calls: set[GrpcCall] = set()
        self._due = due
        """When the frame that has begun must be complete."""
        self._final_at = NEVER
        """When the last GOAWAY is sent to a peer that does not answer the first."""

    @property
    def calls(self) -> Collection[GrpcCall]:
        return self._calls

    @property
    def services(self) -> Services:
        """The methods of the routes as they are now."""
        return self._grpc.services

    # What the transport reports

    def data_received(self, data: bytes) -> None:
        if self.held:
            self._unseen += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Takes in bytes for some time; then the loop, which would read on and on, is told to stop for a turn."""
        loop = self.hub.loop
        if loop.time() > self.now + _PAUSE_SECONDS:
            self._until = loop.time() + SLICE_SECONDS
        at = 0
        while not self.closing:
            self._receive(data[at : at + _STEP] if len(data) > _STEP else data)
            at += _STEP
            if not self.held and loop.time() > self._until:
                self.held = True
                self.pause_reading()
                self.go_on()
            if self.held or at >= len(data):
                break
        self._unseen = data[at:]

    def go_on(self) -> None:
        """Looks at what was read, in a turn of its own, and reads on."""
        if not self._going_on:
            self._going_on = True
            self.hub.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = False
        if self._full or self.closing or self.outbox.closed:
            return
        self.held = False
        self._until = self.hub.loop.time() + SLICE_SECONDS
        if self._due < NEVER:
            self._due = self.hub.loop.time() + self.hub.config.limits.request_seconds
            self.wake_at(self._due)
        data, self._unseen = self._unseen, b""
        if data:
            self._take(data)
        if not self.held:
            self.resume_reading()

    def _receive(self, data: bytes) -> None:
        http2, replies = self.http2, self.outbox.replies
        before = len(replies)
        self.now = self.hub.loop.time()
        for event in http2.receive(data, self.now):
            self._on_event(event)
        self._expect()
        if http2.exhausted:
            self.wake_at(self.now + self._stall_step())
        if http2.ended is not None:
            log.warning("connection closed: %s", http2.ended, extra={"peer": self.peer})
            self.leave(half_closed=True)
        elif len(replies) > before:
            self.written(sum(map(len, replies[before:])))

    def _expect(self) -> None:
        """Notes whether a frame has begun that is not complete."""
        if not self.http2.partial:
            self._due = NEVER
            return
        if self._due == NEVER or self.http2.advanced:
            self._due = self.now + self.hub.config.limits.request_seconds
        self.wake_at(self._due)

    def _on_event(self, event: Event) -> None:
        kind, stream, data, end = event.kind, event.stream, event.data, event.end
        if kind is Report.WINDOW:
            self._on_window(stream)
        elif stream is None:
            if data == _PING:
                self._go_away()
        elif kind is Report.OPENED:
            if self.http2.is_open(stream):  # else what followed in the same bytes has reset it already
                self._open(stream, end=end)
        elif kind is Report.BODY:
            if stream.call is not None:
                stream.call.receive(data, end=end)
            else:
                self.http2.consumed(stream, len(data))
        elif stream.call is not None:
            stream.call.reset()

    def end_sessions(self, reason: str) -> None:
        super().end_sessions(reason)
        for call in [*self._calls]:
            call.start()  # one whose request is not complete has a deadline, too, that is to be forgotten

    # Writing

    def flush(self) -> None:
        super().flush()
        if self.starved:
            self.wake_at(self.hub.loop.time() + self._stall_step())
        for queue, waiter in self._awaited.items():
            if not queue.waiting and not waiter.done():
                waiter.set_result(None)
        if self.http2.leaving:
            self._leave_if_done()

    def share(self, queue: Queue) -> int:
        share = super().share(queue)
        # All may push in the same turn, before anything of it has been taken from the connection's window.
        window = queue.window // max(1, len(self._calls)) if isinstance(queue, StreamQueue) else share
        return share if share <= window else max(window, _LEAST_SHARE)

    async def give_turn(self, queue: Queue, share: int) -> None:
        if share == FLUSH_BYTES or (isinstance(queue, StreamQueue) and queue.size > queue.window):
            self.flush()
        if not self.outbox.paused and not queue.blocked:
            await asyncio.sleep(0)
        if self.outbox.paused or queue.blocked:
            await self.room_for(queue)

    async def room_for(self, queue: Queue) -> None:
        await super().room_for(queue)
        if isinstance(queue, StreamQueue) and queue.blocked and not self.outbox.closed:
            # Until all of it has been taken: a window that comes in small pieces lets less out than comes in.
            waiter = self._awaited[queue] = self.hub.loop.create_future()
            try:
                await waiter
            finally:
                self._awaited.pop(queue, None)

    def announce(self, queue: StreamQueue) -> None:
        """Has what a queue holds written with the next flush."""
        self.outbox.announce(queue)
        self.written(0)

    def conclude(self, queue: StreamQueue) -> None:
        """Writes the end of a call, at once where no other call is about to have one."""
        self.outbox.announce(queue)
        if self._fresh or self.outbox.paused:
            self.written(0)
        else:
            self.flush()

    def _on_window(self, stream: Stream | None) -> None:
        for queue in [*self.starved]:
            if queue.window > 0 and (stream is None or queue.stream is stream):
                queue.unblock()
                self.announce(queue)

    # Time

    def on_alarm(self, now: float) -> float:
        if now >= self._final_at:
            self._go_away()
        due = NEVER if self.held else self._due  # what is not read cannot be complete
        if now >= due:
            log.warning("connection closed: a frame was not complete in time", extra={"peer": self.peer})
            self.http2.goaway(Code.SETTINGS_TIMEOUT, "a frame was not complete in time")
            self.leave(half_closed=True)
            return NEVER
        due = min(due, self._final_at)
        for stream in [*self.http2.streams.values()]:
            if stream.call is not None:
                due = min(due, stream.call.on_alarm(now))
        return due

    def tell_stalled(self, call: GrpcCall) -> None:
        """Notes in the log that a client has let nothing be sent on a stream for too long."""
        extra = {"peer": self.peer, "route": call.session.route.name, "reason": "slow_consumer"}
        log.warning("stream reset: slow_consumer", extra=extra)

    # The end

    def drain(self) -> None:
        """Says GOAWAY twice (RFC 9113, 6.8): what the peer sends before it has seen the first is still taken."""
        if not self.closing and self._final_at == NEVER and not self.http2.leaving:
            self.http2.goaway(warning=True)
            self.http2.ping(_PING)
            self.written(0)
            self._final_at = self.hub.loop.time() + LINGER_SECONDS
            self.wake_at(self._final_at)

    def _go_away(self) -> None:
        if self._final_at < NEVER and not self.closing:
            self._final_at = NEVER
            self.http2.goaway()
            self.written(0)

    def _leave_if_done(self) -> None:
        if not self._calls and not self.http2.streams and not self.closing:
            self.leave(half_closed=True)

    # Calls

    def _open(self, stream: Stream, *, end: bool) -> None:
        request: Request | None = stream.head.read
        if request is None:
            self._answer_http(stream)
            return
        try:
            if request.problem is not None:
                raise request.problem
            method = self._grpc.find(request.path)
            self._admit(method)
            call = self._call(stream, method, request)
        except RaffelError as problem:
            self.http2.earn(0.5)
            self.outbox.replies.append(self.http2.headers(stream, HEAD + end_block(problem), end=True))
            return
        stream.call = call
        self._calls.add(call)
        call.begin(request.timeout, end=end)

    def _admit(self, method: Method) -> None:
        if self.hub.draining and method.route.kind is Kind.SERVER:
            problem = ended_early("server_draining").error
            assert problem is not None
            raise problem
        most = 2 * self.hub.config.limits.streams_per_connection
        if len(self._calls) >= most:  # cancelled ones run on for a while: a client could have any number of them
            raise RaffelError("RESOURCE_EXHAUSTED", f"{most} handlers run for this connection, cancelled ones included")

    def _call(self, stream: Stream, method: Method, request: Request) -> GrpcCall:
        ctx = Context(
            method.route.name,
            protocol="grpc",
            app=self.hub.app,
            peer=self.peer,
            metadata=request.metadata,
            last_event_id=request.last_event_id,
        )
        queue = StreamQueue(self.http2, stream, method.route.meta.priority, self.starved)
        call = GrpcCall(self, stream, method, queue, compressed=request.encoding == "gzip")
        call.open(ctx)
        return call

    def run(self, call: GrpcCall) -> None:
        """Has a call's handler run in a task of its own."""
        self._fresh += 1
        self.hub.sessions.add(call.session)
        self.hub.loop.create_task(self._run(call))

    async def _run(self, call: GrpcCall) -> None:
        session = call.session
        self._fresh -= 1
        try:
            outcome = await session.run(call.pump if session.route.kind.writes else call.reply)
            call.answer(outcome)
        except Exception:
            log.exception("a call failed: a fault of the server", extra={"route": session.route.name})
            self.http2.reset(call.stream, Code.INTERNAL_ERROR)
            self.written(0)
        finally:
            self.hub.sessions.discard(session)
            self._calls.discard(call)
        if self.http2.leaving:
            self._leave_if_done()

    def _answer_http(self, stream: Stream) -> None:
        """Answers what is not gRPC: health as over HTTP/1.1; everything else is misdirected (RFC 9110, 15.5.20)."""
        method, path = stream.head.method.decode("latin-1"), stream.head.path.decode("latin-1").partition("?")[0]
        try:
            if method not in ("GET", "HEAD") or not (path + "/").startswith("/health/"):
                found = f"found {method[:20]} {path[:100]!r}"
                raise RaffelError("MISDIRECTED_REQUEST", f"{found}, expected gRPC, or /health", status=421)
            status, body = health(self.hub, path)
        except RaffelError as problem:
            status, body = problem.status, b'{"error":%b}' % problem.to_json()
        headers = (
            (b":status", b"%d" % status),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        )
        self.http2.respond(stream, header_block(headers), b"" if method == "HEAD" else body)


def _read_request(method: bytes, path: bytes, headers: HeaderList) -> Request | None:
    """What a head says; None where it is not gRPC's."""
    fields = dict(headers)
    content_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if not content_type.startswith(b"application/grpc"):
        return None
    try:
        if method != b"POST":
            raise RaffelError("METHOD_NOT_ALLOWED", f"found {method.decode('latin-1')[:20]}, expected POST")
        if content_type not in _CONTENT_TYPES:
            raise RaffelError(
                "UNIMPLEMENTED", f"found {content_type.decode('latin-1')[:60]!r}, expected application/grpc"
            )
        metadata = read_metadata(headers)
        timeout = metadata.get("grpc-timeout")
        last = metadata.get("last-event-id") or None
        if last is not None and len(last) > MAX_ID:
            raise RaffelError("INVALID_ARGUMENT", f"last-event-id: found {len(last)} bytes, expected {MAX_ID}")
        encoding = metadata.get("grpc-encoding")
        if encoding is not None and encoding not in ENCODINGS:
            raise RaffelError("UNIMPLEMENTED", f"grpc-encoding: found {encoding[:40]!r}, expected identity or gzip")
        seconds = None if timeout is None else timeout_seconds(timeout)
        return Request(path.decode("utf-8", "replace"), MappingProxyType(metadata), seconds, encoding, last, None)
    except RaffelError as problem:
        return Request("", {}, None, None, None, problem)
