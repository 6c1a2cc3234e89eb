"""HTTP/1.1: one connection's requests, answered one after the other."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from raffel_core.context import Context
from raffel_core.errors import RaffelError
from raffel_core.protocols.carried import named
from raffel_core.protocols.connection import LOST_PEER_SECONDS, NEVER, Connection, Hub
from raffel_core.protocols.forwarded import TrustedProxies
from raffel_core.protocols.health import asks_health, health
from raffel_core.protocols.http_input import JSON, decoder, require_json
from raffel_core.protocols.items import dump
from raffel_core.protocols.origin import OriginPolicy, preflight_headers
from raffel_core.protocols.sse import HEAD_SECONDS, StreamAnswer, choose_form
from raffel_core.route import Kind, Route
from raffel_core.session import Session, timeout_seconds
from raffel_core.wire.http1 import CONTINUE, Request, RequestParser, head
from raffel_core.wire.outbox import Outbox
from raffel_core.wire.sse import LAST_ID, Form

log = logging.getLogger("raffel")

PIPELINE_BYTES = 64 * 1024
"""What a client may send ahead while an answer is under way; then its connection is not read."""

_UPGRADE_REQUIRED = 426
_STREAMS = "/streams/"

Headers = Sequence[tuple[str, str]]

Upgrade = Callable[[Hub, Request, str], Connection[Any]]
"""Makes the connection that answers an upgrade request, given the client's address; raises RaffelError."""


class Calls(Protocol):
    """The calls that one request is made of; each has a session, and all of them end with the connection."""

    sessions: Collection[Session]

    async def run(self) -> bytes:
        """Runs them to their ends. The JSON of the answer; b"" where there is nothing to say."""


Endpoint = Callable[[Hub, Request, str], Calls]
"""Makes the calls of a request whose body is JSON, given the client's address."""


class Http:
    """What all HTTP connections of a server share: its paths and who may call."""

    __slots__ = ("base", "endpoints", "hub", "policy", "proxies", "upgrades")

    def __init__(
        self,
        hub: Hub,
        upgrades: Mapping[str, Upgrade] | None = None,
        endpoints: Mapping[str, Endpoint] | None = None,
    ) -> None:
        config = hub.config
        self.hub = hub
        self.upgrades = upgrades or {}
        """The protocols that a request may ask for instead of HTTP (RFC 9110, 7.8), by their paths."""
        self.endpoints = endpoints or {}
        """The protocols that are spoken in the bodies of POST requests, by their paths."""
        self.base = config.base_path.rstrip("/")
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.policy = OriginPolicy(
            config.allowed_hosts,
            config.cors.origins,
            development=hub.development,
            host=config.host,
            tls=config.tls.cert is not None,
        )

    def connection(self, due: float) -> HttpConnection:
        """A new connection; `due` is the loop's time when its first request must be complete."""
        return HttpConnection(self, due)


class HttpConnection(Connection[Outbox]):
    """Reads requests and answers them in order. A request is answered at once, or by a task that owns its session."""

    __slots__ = ("_answer", "_closing", "_due", "_head_due", "_http", "_parser", "_sessions", "_task")

    def __init__(self, http: Http, due: float) -> None:
        super().__init__(http.hub, Outbox(b"".join))
        self._http = http
        self._parser = RequestParser(http.hub.config.limits.message_bytes)
        self._task: asyncio.Task[None] | None = None
        self._sessions: Collection[Session] = ()
        self._answer: StreamAnswer | None = None
        self._closing = False
        """Whether this connection takes no further request."""
        self._due = due
        """When the next request must be complete."""
        self._head_due = NEVER

    # What the transport reports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.wake_at(self._due)

    def data_received(self, data: bytes) -> None:
        if self._closing and self._task is None:
            return  # it is only read so that the client can read its answer
        self._parser.feed(data)
        if self._task is None and not self.outbox.paused:
            self._advance()
        elif self._parser.buffered > PIPELINE_BYTES:
            self.pause_reading()

    def eof_received(self) -> None:
        self.end_sessions("client_disconnected")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end_sessions(self.lost_reason(exc))
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._task is None and not self.outbox.paused and not self.outbox.closed:
            self._expect_request()
            self._advance()

    def end_sessions(self, reason: str) -> None:
        for session in self._sessions:
            session.cancel(reason)

    def drain(self) -> None:
        """Takes no further request: closes now, or after the answer that is under way."""
        self._closing = True
        if self._task is None:
            self.transport.close()

    # Time

    def _expect_request(self) -> None:
        self._due = self.hub.loop.time() + self.hub.config.limits.request_seconds
        self.wake_at(self._due)

    def on_alarm(self, now: float) -> float:
        if self._task is None:
            if self.outbox.paused:
                return NEVER  # the client has its answer to read first
            if now >= self._due:
                self.transport.close()
                return NEVER
            return self._due
        answer = self._answer
        if answer is None:
            return NEVER
        if not answer.begun:
            if now < self._head_due:
                return self._head_due
            answer.send_head()
        interval = self.hub.config.heartbeat_seconds.sse
        if self._reading_paused:  # the client's end may lie behind what is not read: writing finds it
            interval = min(interval, LOST_PEER_SECONDS)
        if now - self.quiet_since >= interval:
            answer.ping()
            return now + interval
        return self.quiet_since + interval

    # Requests

    def _advance(self) -> None:
        """Answers the requests that are here, until one takes time or the network takes no more."""
        while self._task is None and not self._closing and not self.outbox.paused:
            try:
                request = self._parser.take()
            except RaffelError as error:
                self._closing = True
                self._write_error(self._parser.unfinished, error)
                self._linger()
                return
            if request is None:
                if self._parser.expects_continue():
                    self.transport.write(CONTINUE)
                self.resume_reading()
                return
            self._closing = request.close or self.hub.draining
            try:
                self._dispatch(request)
            except RaffelError as error:
                self._answer_error(request, error)

    def _dispatch(self, request: Request) -> None:
        base, path = self._http.base, request.path
        if base:
            if not path.startswith(base + "/"):
                raise RaffelError("NOT_FOUND", f"found the path {path[:200]!r}, expected one below {base!r}")
            path = path[len(base) :]
        if asks_health(path):
            self._health(request, path)
            return
        proxies, policy = self._http.proxies, self._http.policy
        host, origin = proxies.host(self.peer, request.headers), request.headers.get("origin")
        policy.check_host(host)
        if origin is not None:
            policy.check_origin(origin, host, proxies.secure(self.peer, request.headers))
        if request.method == "OPTIONS":
            self._answer_plain(request, 204, b"", preflight_headers())
        elif path in self._http.upgrades:
            self._upgrade(request, self._http.upgrades[path])
        elif path in self._http.endpoints:
            self._open_calls(request, self._http.endpoints[path])
        elif path.startswith(_STREAMS):
            self._open_stream(request, path[len(_STREAMS) :])
        else:
            self._open_procedure(request, path[1:])

    def _upgrade(self, request: Request, upgrade: Upgrade) -> None:
        if self.hub.draining:
            self._closing = True
            self.transport.close()
            return
        connection = upgrade(self.hub, request, self._client(request))
        self._closing = True
        self.hand_over(connection, self._parser.rest())

    def _open_stream(self, request: Request, name: str) -> None:
        route, params = self.hub.router.find_path(name)
        if route.kind is Kind.UNARY:
            raise RaffelError(
                "UNIMPLEMENTED", f"{route.name} is a procedure: POST /{'/'.join(map(str, route.segments))}"
            )
        if route.kind is not Kind.SERVER:
            raise RaffelError(
                "UNIMPLEMENTED", f"{route.name} is a {route.kind} stream, carried by {named(route, self.hub.config)}"
            )
        if request.method not in ("GET", "POST", "HEAD"):
            raise _method_not_allowed(request, "GET, HEAD, POST, OPTIONS")
        fields = request.fields() if request.query else []
        last_event_id = request.headers.get("last-event-id") or next((v for k, v in fields if k == "lastEventId"), "")
        if last_event_id == LAST_ID:
            self._answer_plain(request, 204, b"", _NO_STORE)
            return
        form = choose_form(request.headers.get("accept"), route)
        chunked = not request.http10
        if request.method == "HEAD":
            self._answer_raw(request, self._stream_head(request, form, chunked))
            return
        if self.hub.draining:
            self.transport.close()  # an answer other than 200 would keep an EventSource away for good
            return
        timeout = timeout_seconds(request.headers.get("timeout-ms"))
        ctx = Context(
            route.name,
            protocol=form.name,
            app=self.hub.app,
            peer=self._client(request),
            params=params,
            metadata=request.headers,
            last_event_id=last_event_id or None,
        )
        read = decoder(request, fields, params)

        def decode(route: Route) -> Any:
            self._head_due = self.hub.loop.time() + HEAD_SECONDS  # who may not call is told so, however long that takes
            self.wake_at(self._head_due)
            return read(route)

        session = Session(route, ctx, decode)
        session.set_deadline(timeout)
        answer = StreamAnswer(self, session, form, self._stream_head(request, form, chunked), chunked=chunked)
        self._answer = answer
        self._run(request, [session], self._stream(request, answer))

    def _open_procedure(self, request: Request, name: str) -> None:
        route, params = self.hub.router.find_path(name)
        if route.kind is not Kind.UNARY:
            raise RaffelError("UNIMPLEMENTED", f"{route.name} is a {route.kind} stream, expected a procedure")
        if request.method != "POST":
            raise _method_not_allowed(request, "POST, OPTIONS")
        timeout = timeout_seconds(request.headers.get("timeout-ms"))
        ctx = Context(
            route.name,
            protocol="http",
            app=self.hub.app,
            peer=self._client(request),
            params=params,
            metadata=request.headers,
        )
        session = Session(route, ctx, decoder(request, [], params))
        session.set_deadline(timeout)
        self._run(request, [session], self._procedure(request, session))

    def _open_calls(self, request: Request, endpoint: Endpoint) -> None:
        if request.method != "POST":
            raise _method_not_allowed(request, "POST, OPTIONS")
        require_json(request)
        calls = endpoint(self.hub, request, self._client(request))
        self._run(request, calls.sessions, self._calls(request, calls))

    def _run(self, request: Request, sessions: Collection[Session], work: Coroutine[Any, Any, None]) -> None:
        self._sessions = sessions
        self.hub.sessions.update(sessions)
        self._task = self.hub.loop.create_task(self._watched(request, work))

    async def _watched(self, request: Request, work: Coroutine[Any, Any, None]) -> None:
        """Runs one answer and goes on to the next request, whatever came of it."""
        try:
            await work
        except Exception:
            log.exception("an answer failed: a fault of the server", extra={"route": request.path})
            self.transport.abort()
        finally:
            self.hub.sessions.difference_update(self._sessions)
            self._sessions = ()
            self._task = self._answer = None
            self._head_due = NEVER
        if not self.outbox.closed:
            self._done()

    async def _stream(self, request: Request, answer: StreamAnswer) -> None:
        session = answer.session
        outcome = await session.run(answer.pump)
        if self.outbox.closed or outcome.reason == "client_disconnected":
            return
        refused = outcome.error is not None and not answer.begun
        if refused and not (outcome.reason in ("server_draining", "reloaded") and answer.sse):
            assert outcome.error is not None
            self._write_error(request, outcome.error)
            return
        if not answer.finish(outcome) or outcome.reason == "server_draining":
            self._closing = True

    async def _procedure(self, request: Request, session: Session) -> None:
        body = b""

        async def encode(result: Any) -> None:
            nonlocal body
            body = dump(session.route, result)

        outcome = await session.run(encode)
        if self.outbox.closed or outcome.reason == "client_disconnected":
            return
        if outcome.error is not None:
            self._write_error(request, outcome.error)
        else:
            self._write_answer(request, 200, body, [("Content-Type", JSON)])

    async def _calls(self, request: Request, calls: Calls) -> None:
        body = await calls.run()
        if self.outbox.closed or any(session.reason == "client_disconnected" for session in calls.sessions):
            return
        self._write_answer(request, 200 if body else 204, body, [("Content-Type", JSON)] if body else ())

    def _done(self) -> None:
        """One answer is complete: the connection ends, or the next request is due."""
        self.outbox.frame = b"".join
        if self._closing:
            self.transport.close()
            return
        self._expect_request()
        self._advance()

    # Answers

    def _health(self, request: Request, path: str) -> None:
        if request.method not in ("GET", "HEAD"):
            raise _method_not_allowed(request, "GET, HEAD")
        status, body = health(self.hub, path)
        self._answer_plain(request, status, body, [("Content-Type", JSON), *_NO_STORE])

    def _answer_error(self, request: Request, error: RaffelError) -> None:
        self._write_error(request, error)
        self._answered()

    def _answer_plain(self, request: Request, status: int, body: bytes, headers: Headers) -> None:
        self._write_answer(request, status, body, headers)
        self._answered()

    def _answer_raw(self, request: Request, data: bytes) -> None:
        self.transport.write(data)
        self._answered()

    def _linger(self) -> None:
        """Closes, but for reading: who still sends would be reset, and lose the answer (RFC 9112, 9.6)."""
        self._expect_request()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _answered(self) -> None:
        if self._closing:
            self.transport.close()
        else:
            self._expect_request()

    def _write_error(self, request: Request | None, error: RaffelError) -> None:
        headers = [("Content-Type", JSON), *_NO_STORE]
        status = error.status if 400 <= error.status <= 599 else 500
        if status in (429, 503):
            headers.append(("Retry-After", "1"))
        elif status == 401:
            headers.append(("WWW-Authenticate", "Bearer"))
        elif status == _UPGRADE_REQUIRED:
            headers += [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        elif isinstance(error, _MethodNotAllowed):
            headers.append(("Allow", error.allow))
        self._write_answer(request, status, b'{"error":%b}' % error.to_json(), headers)

    def _write_answer(self, request: Request | None, status: int, body: bytes, headers: Headers) -> None:
        lines = [*headers, ("Date", self.hub.http_date())]
        if status != 204:
            lines.append(("Content-Length", str(len(body))))
            lines.append(("X-Content-Type-Options", "nosniff"))
        if self._closing:
            lines.append(("Connection", "close"))
        lines += self._cors(request)
        data = head(status, lines)
        if request is None or request.method != "HEAD":
            data += body
        self.transport.write(data)

    def _cors(self, request: Request | None) -> Headers:
        origin = None if request is None else request.headers.get("origin")
        if request is None or origin is None:
            return ()
        proxies, policy = self._http.proxies, self._http.policy
        host, secure = proxies.host(self.peer, request.headers), proxies.secure(self.peer, request.headers)
        return policy.cors_headers(origin) if policy.allows(origin.lower(), host.lower(), secure) else ()

    def _client(self, request: Request) -> str:
        return self._http.proxies.client(self.peer, request.headers)

    def _stream_head(self, request: Request, form: Form, chunked: bool) -> bytes:
        extra = "".join(f"{name}: {value}\r\n" for name, value in self._cors(request))
        closing = "Connection: close\r\n" if self._closing else ""
        return _form_head(form, chunked) + f"Date: {self.hub.http_date()}\r\n{closing}{extra}\r\n".encode("latin-1")


@functools.cache
def _form_head(form: Form, chunked: bool) -> bytes:
    """The constant part of a stream's head."""
    headers = [
        ("Content-Type", form.content_type),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
    ]
    if chunked:
        headers.append(("Transfer-Encoding", "chunked"))
    return head(200, headers)[:-2]


_NO_STORE = (("Cache-Control", "no-store"),)


class _MethodNotAllowed(RaffelError):
    """METHOD_NOT_ALLOWED with the methods that are (RFC 9110, 15.5.6)."""

    allow = ""


def _method_not_allowed(request: Request, allow: str) -> RaffelError:
    error = _MethodNotAllowed("METHOD_NOT_ALLOWED", f"found {request.method}, expected one of {allow}")
    error.allow = allow
    return error
