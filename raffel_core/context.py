"""What a handler knows of its call: the context, the cancel signal, and the values it gives back."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from raffel_core.errors import RaffelError

log = logging.getLogger("raffel")

T = TypeVar("T")

MAX_ID = 256
"""Bytes of an item's id: what a client may send back to resume after it."""

RESERVED_ID = "raffel:"
"""Ids that start so are the server's own."""

_RESERVED_EVENTS = ("end", "error")
_BREAKS = ("\r", "\n", "\0")
_request_numbers = itertools.count(1)
_process = os.urandom(4).hex()


class Outcome(NamedTuple):
    """How a call ended."""

    code: str = "OK"
    """`OK`, or the code of the error that the client got."""
    reason: str | None = None
    """What ended it early (`client_disconnected`, `deadline_exceeded`, ...), None where nothing did."""
    error: RaffelError | None = None


class CancelSignal:
    """Says whether and why a call is being cancelled. Set once; the first reason stays."""

    __slots__ = ("_reason", "_waiters")

    def __init__(self) -> None:
        self._reason: str | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def aborted(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        return self._reason

    async def wait(self) -> str:
        """Waits until the call is cancelled and returns the reason. Any number of tasks may wait."""
        while self._reason is None:
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if self._waiters is not None:
                    self._waiters.remove(waiter)
        return self._reason

    def abort(self, reason: str) -> None:
        """Sets the signal and wakes who waits for it; without effect when it is set."""
        if self._reason is not None:
            return
        self._reason = reason
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class Auth(msgspec.Struct, frozen=True):
    """Who is calling, as `authenticate` found out."""

    principal: str = ""
    roles: Sequence[str] = ()
    claims: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Event(Generic[T]):
    """An item with the fields of a Server-Sent Event (WHATWG HTML, 9.2.6). Other protocols carry the data and the id.

    CR, LF and NUL in an id or a name, an empty id, one of more than 256 bytes or one that starts with `raffel:`, the
    names `end` and `error` (the server's own) and a negative `retry` (milliseconds) are OUTPUT_VALIDATION_ERROR.
    """

    __slots__ = ("data", "event", "id", "retry")

    def __init__(
        self, data: T, id: str | int | None = None, event: str | None = None, retry: int | None = None
    ) -> None:
        self.data = data
        self.id = None if id is None else _checked_id(id)
        self.event = None if event is None else _checked_name(event)
        if retry is not None and (type(retry) is not int or retry < 0):
            raise _refused("retry", f"found {retry!r}, expected milliseconds, 0 or more")
        self.retry = retry

    def __repr__(self) -> str:
        return f"Event({self.data!r}, id={self.id!r}, event={self.event!r}, retry={self.retry!r})"


def tracked(id: str | int, item: T) -> Event[T]:
    """Gives an item an id: a client that comes back says the last one it saw, which is `ctx.last_event_id`."""
    return Event(item, id=id)


def _checked_id(id: str | int) -> str:
    text = str(id) if type(id) is int else id
    if not isinstance(text, str) or not text:
        raise _refused("id", f"found {id!r}, expected text that is not empty")
    if any(mark in text for mark in _BREAKS):
        raise _refused("id", "found CR, LF or NUL, expected one line")
    if text.startswith(RESERVED_ID):
        raise _refused("id", f"starts with {RESERVED_ID!r}, which is the server's own")
    if len(text) > MAX_ID or len(text.encode("utf-8", "replace")) > MAX_ID:
        raise _refused("id", f"has more than {MAX_ID} bytes")
    return text


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise _refused("event", f"found {name!r}, expected text that is not empty")
    if any(mark in name for mark in _BREAKS):
        raise _refused("event", "found CR, LF or NUL, expected one line")
    if name in _RESERVED_EVENTS:
        raise _refused("event", f"found {name!r}, which is the server's own")
    return name


def _refused(field: str, message: str) -> RaffelError:
    return RaffelError(
        "OUTPUT_VALIDATION_ERROR", f"the event's {field} {message}", details=[{"path": field, "message": message}]
    )


class Calls(Protocol):
    """What `ctx.call` and `ctx.stream` reach other routes by."""

    async def call(self, name: str, input: Any, parent: Context) -> Any: ...

    def stream(self, name: str, input: Any, parent: Context) -> AsyncIterator[Any]: ...


class App:
    """What all calls of a server share. `state` is the project's own: `_app.py` fills it."""

    __slots__ = ("calls", "debug", "state")

    def __init__(self, *, debug: bool = False) -> None:
        self.state = SimpleNamespace()
        self.debug = debug
        self.calls: Calls | None = None


class Context:
    """One call, as its handler sees it."""

    __slots__ = (
        "_initial_metadata",
        "_on_close",
        "_request_id",
        "_state",
        "_trailing_metadata",
        "app",
        "auth",
        "deadline",
        "input",
        "last_event_id",
        "metadata",
        "opened",
        "params",
        "peer",
        "protocol",
        "restarted",
        "route",
        "signal",
    )

    def __init__(
        self,
        route: str,
        *,
        protocol: str,
        app: App,
        peer: str = "",
        params: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self.route = route
        """The route's name, `rooms.[room].chat`."""
        self.protocol = protocol
        """`sse`, `ndjson`, `http`, ...: what carries this call."""
        self.app = app
        self.peer = peer
        """The client's address, `host:port`."""
        self.params: Mapping[str, str] = {} if params is None else params
        self.metadata: Mapping[str, str] = {} if metadata is None else metadata
        """Headers or metadata, the keys in lower case."""
        self.input: Any = None
        self.auth: Auth | None = None
        self.signal = CancelSignal()
        self.deadline = deadline
        """When the call's time is over, in seconds of `time.monotonic()`; None: never."""
        self.last_event_id = last_event_id
        """The id of the last item that the client saw; None on a first visit."""
        self.restarted = False
        """Whether a reload put this call on new code."""
        self.opened: Any = None
        """The handler's own iterator where interceptors may have wrapped it; the session closes it."""
        self._request_id: str | None = None
        self._state: SimpleNamespace | None = None
        self._on_close: list[Callable[[Outcome], Any]] | None = None
        self._initial_metadata: dict[str, str | bytes] | None = None
        self._trailing_metadata: dict[str, str | bytes] | None = None

    @property
    def initial_metadata(self) -> dict[str, str | bytes]:
        """What gRPC sends before the first item; other protocols have no place for it.

        Names that end in `-bin` have bytes or base64 text, all others printable ASCII.
        """
        if self._initial_metadata is None:
            self._initial_metadata = {}
        return self._initial_metadata

    @property
    def trailing_metadata(self) -> dict[str, str | bytes]:
        """What gRPC sends with the end; like `initial_metadata`."""
        if self._trailing_metadata is None:
            self._trailing_metadata = {}
        return self._trailing_metadata

    @property
    def sent_metadata(self) -> tuple[Mapping[str, str | bytes] | None, Mapping[str, str | bytes] | None]:
        """The two of them, None where nobody has asked for them."""
        return self._initial_metadata, self._trailing_metadata

    @property
    def request_id(self) -> str:
        """Names this call in the log and in INTERNAL_ERROR; unique among all processes."""
        if self._request_id is None:
            self._request_id = f"{_process}-{next(_request_numbers):x}"
        return self._request_id

    @property
    def state(self) -> SimpleNamespace:
        """This call's own: what interceptors leave for the handler."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    def remaining(self) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def on_close(self, callback: Callable[[Outcome], Awaitable[None] | None]) -> None:
        """Calls `callback(outcome)` once, after the handler's `finally` blocks; the last one added runs first."""
        if self._on_close is None:
            self._on_close = []
        self._on_close.append(callback)

    async def call(self, name: str, input: Any = None) -> Any:
        """Calls a procedure of this server in process and returns its result; its errors are raised."""
        return await self._calls().call(name, input, self)

    def stream(self, name: str, input: Any = None) -> AsyncIterator[Any]:
        """Opens a server stream of this server in process. Close it (`aclose`) when you leave it early."""
        return self._calls().stream(name, input, self)

    def _calls(self) -> Calls:
        if self.app.calls is None:
            raise RaffelError("FAILED_PRECONDITION", "this context belongs to no server")
        return self.app.calls

    def child(self, route: str, params: Mapping[str, str]) -> Context:
        """The context of a call made by this one: same client, same signal, same deadline."""
        child = Context(
            route,
            protocol=self.protocol,
            app=self.app,
            peer=self.peer,
            params=params,
            metadata=self.metadata,
            deadline=self.deadline,
        )
        child.signal = self.signal
        child._request_id = self.request_id
        return child

    def successor(self, app: App, last_event_id: str | None) -> Context:
        """The context of the same call on new code, after a reload."""
        next = Context(
            self.route,
            protocol=self.protocol,
            app=app,
            peer=self.peer,
            params=self.params,
            metadata=self.metadata,
            last_event_id=last_event_id,
            deadline=self.deadline,
        )
        next._request_id = self.request_id
        next.restarted = True
        return next

    async def close(self, outcome: Outcome) -> None:
        """Runs what `on_close` was given, whatever one of them raises."""
        callbacks, self._on_close = self._on_close, None
        for callback in reversed(callbacks or ()):
            try:
                result = callback(outcome)
                if result is not None:
                    await result
            except Exception:
                log.exception("an on_close callback failed", extra={"route": self.route, "request": self.request_id})
