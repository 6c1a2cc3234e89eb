"""What the connections of every protocol share: their server's hub, one outbox, pausing, one alarm."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import select
import socket
import struct
import termios
import time
from email.utils import formatdate
from typing import Any, Generic, Protocol, TypeVar, cast

from raffel_core.config import Config
from raffel_core.context import App
from raffel_core.router import Router
from raffel_core.session import Session

log = logging.getLogger("raffel")

NEVER = float("inf")

LOST_PEER_SECONDS = 1.0
"""How often a peer is looked for while its connection is not being read."""

LINGER_SECONDS = 1.0
"""How long a peer that has been told the end has to close its side."""


class Accepted(Protocol):
    """A connection as its server sees it."""

    def drain(self) -> None:
        """Takes no further request and closes when nothing is under way."""

    def abort(self) -> None:
        """Closes at once, whatever waits to be written."""


class Writable(Protocol):
    """An outbox, as its connection sees it."""

    paused: bool
    closed: bool

    def take(self) -> bytes:
        """The bytes of one write, b"" where there is nothing to write or it may not be written now."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


W = TypeVar("W", bound=Writable)


class Hub:
    """What all connections of one server share."""

    __slots__ = (
        "_dirty",
        "_second",
        "_watchers",
        "app",
        "config",
        "connections",
        "date",
        "development",
        "draining",
        "loop",
        "now",
        "ready",
        "router",
        "sessions",
    )

    def __init__(self, config: Config, router: Router, app: App, *, development: bool = False) -> None:
        self.config = config
        self.router = router
        self.app = app
        self.development = development
        self.loop = asyncio.get_running_loop()
        self.sessions: set[Session] = set()
        self.connections: set[Accepted] = set()
        self.ready = True
        """Whether load balancers may send more."""
        self.draining = False
        """Whether streams are turned away, because the server is about to end."""
        self.now = self.loop.time()
        """The loop's time at the last flush."""
        self.date = ""
        self._second = 0
        self._dirty: list[Connection[Any]] = []
        self._watchers: set[asyncio.Future[None]] = set()

    async def change(self) -> None:
        """Waits until `ready` or the routes have changed; any number of tasks may wait."""
        watcher = self.loop.create_future()
        self._watchers.add(watcher)
        try:
            await watcher
        finally:
            self._watchers.discard(watcher)

    def announce(self) -> None:
        """Tells those who wait for a change: to be called after each one. They run in the next turn of the loop."""
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    def flush_soon(self, connection: Connection[Any]) -> None:
        """Has the connection written once, in this turn of the loop, with all that is pushed until then."""
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        self.now = self.loop.time()
        for connection in dirty:
            try:
                connection.flush()
            except Exception:  # the others have what they wrote written nevertheless
                log.exception("a write failed: a fault of the server", extra={"peer": connection.peer})
                connection.transport.abort()

    def http_date(self) -> str:
        """The time as HTTP writes it (RFC 9110, 5.6.7), made once a second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date = formatdate(second, usegmt=True)
        return self.date


class Connection(asyncio.Protocol, Generic[W]):
    """One connection: writes what its outbox has, stops when the network takes nothing, and cuts a peer that stays so.

    There is one timer for everything that is due on a connection: `wake_at` only ever brings it forward, and `on_alarm`
    says when it is needed next.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_leaving",
        "_moved_at",
        "_pending",
        "_reading_paused",
        "_room",
        "hub",
        "outbox",
        "peer",
        "quiet_since",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, hub: Hub, outbox: W) -> None:
        self.hub = hub
        self.outbox = outbox
        self.peer = ""
        self.quiet_since = 0.0
        """The loop's time when something was written last."""
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = NEVER
        self._moved_at = 0.0
        self._pending = 0
        self._reading_paused = False
        self._room: asyncio.Future[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self.peer = peer_name(transport.get_extra_info("peername"))
        # Whatever the kernel does not take at once pauses us: what is queued here is all that is queued. A transport
        # with TLS pauses at its mark and not above it: at 0 it would be paused with nothing to write.
        tls = transport.get_extra_info("ssl_object") is not None
        self.transport.set_write_buffer_limits(high=1 if tls else 0)
        self.hub.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.outbox.close()
        self._give_room()
        self._leave()
        if self._leaving is not None:
            self._leaving.cancel()

    def _leave(self) -> None:
        self.hub.connections.discard(self)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def hand_over(self, protocol: Connection[Any], data: bytes) -> None:
        """Gives the transport, and what has been read of it, to another protocol."""
        self._leave()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.data_received(data)

    # Writing

    def flush(self) -> None:
        """Writes what the outbox has."""
        data = self.outbox.take()
        if data:
            self.quiet_since = self.hub.now
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.outbox.pause()
        self._moved_at = self.hub.loop.time()
        self._pending = self._unsent()
        self.wake_at(self._moved_at + self._stall_step())

    def resume_writing(self) -> None:
        self.outbox.resume()
        self.flush()
        if not self.outbox.paused:
            self._give_room()

    async def room(self) -> None:
        """Waits until the connection can be written, or is lost."""
        if self.outbox.paused and not self.outbox.closed:
            if self._room is None:
                self._room = self.hub.loop.create_future()
            await asyncio.shield(self._room)

    def _give_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # Reading

    def pause_reading(self) -> None:
        """Reads no more. A transport that does not read reports no end: the peer is looked for meanwhile."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
            self.wake_at(self.hub.loop.time() + LOST_PEER_SECONDS)

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    # Time

    def wake_at(self, when: float) -> None:
        """Has `on_alarm` called at this time of the loop or before."""
        if when < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = when
            self._alarm = self.hub.loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._alarm_at = NEVER
        now = self.hub.loop.time()
        due = min(self._look_for_stall(now), self._look_for_peer(now), self.on_alarm(now))
        if due < NEVER and not self.outbox.closed:
            self.wake_at(due)

    def on_alarm(self, now: float) -> float:
        """Does what is due and returns when to be called next."""
        return NEVER

    def _stall_step(self) -> float:
        return min(1.0, self.hub.config.limits.stall_seconds / 4)

    def _look_for_stall(self, now: float) -> float:
        if not self.outbox.paused or self.outbox.closed:
            return NEVER
        pending = self._unsent()
        if pending != self._pending:
            self._pending = pending
            self._moved_at = now
        elif now - self._moved_at >= self.hub.config.limits.stall_seconds:
            self.cut("slow_consumer")
            return NEVER
        return now + self._stall_step()

    def _unsent(self) -> int:
        """Bytes that the peer has not acknowledged: what does not change for long is stuck."""
        unsent = self.transport.get_write_buffer_size()
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            try:
                unsent += struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
            except OSError:
                return unsent
        return unsent

    def _look_for_peer(self, now: float) -> float:
        if not self._reading_paused:
            return NEVER
        if peer_has_gone(self.transport.get_extra_info("socket")):
            self.transport.abort()
            return NEVER
        return now + LOST_PEER_SECONDS

    # The end

    def cut(self, reason: str) -> None:
        """Ends the connection at once, whatever waits to be written."""
        self._tell_cut(reason)
        self.end_sessions(reason)
        self.transport.abort()

    def _tell_cut(self, reason: str) -> None:
        log.warning("connection cut: %s", reason, extra={"peer": self.peer, "reason": reason})

    def abort(self) -> None:
        if self.transport.get_write_buffer_size():
            log.warning("connection cut: the peer has not taken its last bytes", extra={"peer": self.peer})
        self.transport.abort()

    def linger(self, *, half_closed: bool) -> None:
        """Lets the peer close, and reads until it does: one that still sends would be reset, and lose what it was told.

        `half_closed` tells it that nothing more will come.
        """
        if half_closed and not self.transport.can_write_eof():
            self.transport.close()
            return
        if half_closed:
            with contextlib.suppress(OSError):  # the peer has gone
                self.transport.write_eof()
        self.resume_reading()
        self._moved_at = self.hub.loop.time()
        self._leaving = self.hub.loop.call_later(LINGER_SECONDS, self._part)

    def _part(self) -> None:
        """Ends the connection once the peer has all that it was told, or takes nothing more of it."""
        now, pending = self.hub.loop.time(), self._unsent()
        if pending != self._pending:
            self._pending, self._moved_at = pending, now
        if pending and now - self._moved_at < self.hub.config.limits.stall_seconds:
            self._leaving = self.hub.loop.call_later(LINGER_SECONDS, self._part)
        else:
            self.transport.abort()

    def drain(self) -> None:
        """Takes no further request and closes when nothing is under way."""

    def end_sessions(self, reason: str) -> None:
        """Cancels all that runs on this connection."""

    def lost_reason(self, exc: Exception | None) -> str:
        """Why a connection was lost: the kernel's limit for a peer that takes nothing (TCP_USER_TIMEOUT) is ours."""
        if isinstance(exc, OSError) and exc.errno == errno.ETIMEDOUT and self.outbox.paused:
            self._tell_cut("slow_consumer")
            return "slow_consumer"
        return "client_disconnected"


def peer_name(address: Any) -> str:
    """`host:port` of a socket's address."""
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address or "")


def peer_has_gone(sock: socket.socket | None) -> bool:
    """Whether the peer has closed its side, asked of the kernel without reading."""
    if sock is None or sock.fileno() < 0 or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
    return any(event & ~select.POLLNVAL for _, event in poll.poll(0))
