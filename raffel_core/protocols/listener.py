"""One port for every protocol: the first byte of a connection decides who serves it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from raffel_core.config import Limits
from raffel_core.protocols.connection import Connection, Hub, peer_name
from raffel_core.wire.http2 import PREFACE

log = logging.getLogger("raffel")

BACKLOG = 4096
NOTSENT_LOWAT = 16 * 1024
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

_HTTP = range(ord("A"), ord("Z") + 1)
_LENGTH = 0x00
"""The first byte of a length of 4 bytes: no message is so long that it is another."""
_TLS = 0x16


Start = Callable[[float], Connection[Any]]
"""Makes a connection, given the loop's time when its first request must be complete."""


class Served(NamedTuple):
    """What a port serves; None: not this."""

    http: Start | None = None
    tcp: Start | None = None
    grpc: Start | None = None


class Listener(asyncio.Protocol):
    """Looks at what a new connection says first and hands the connection, with what was read, to its protocol."""

    __slots__ = ("_due", "_first", "_hub", "_peer", "_served", "_timer", "_transport")

    def __init__(self, hub: Hub, served: Served, peer: str | None = None) -> None:
        self._hub = hub
        self._served = served
        self._peer = peer
        """The client's address, where a proxy in between has said it."""
        self._first = b""
        self._due = hub.loop.time() + hub.config.limits.request_seconds
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        hub = self._hub
        if hub.draining:
            self._transport.abort()  # it was accepted before the listening socket was closed
            return
        if len(hub.connections) >= hub.config.limits.connections:
            log.warning("connection refused: %d are open, which is the limit", len(hub.connections))
            self._transport.abort()
            return
        hub.connections.add(self)
        self._timer = hub.loop.call_at(self._due, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def drain(self) -> None:
        self._transport.abort()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._first += data
        first, served = self._first, self._served
        if first[0] == _LENGTH and served.tcp is not None:
            self._hand_over(served.tcp(self._due))
            return
        if first[0] in _HTTP:
            if not PREFACE.startswith(first[: len(PREFACE)]):
                start = served.http
            elif len(first) < len(PREFACE):
                return
            else:
                start = served.grpc
            if start is not None:
                self._hand_over(start(self._due))
                return
        elif first[0] == _TLS:
            peer = peer_name(self._transport.get_extra_info("peername"))
            log.warning("connection closed: TLS on a port that has none", extra={"peer": peer})
        self._transport.abort()

    def _hand_over(self, protocol: Connection[Any]) -> None:
        self._leave()
        transport = self._transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._peer is not None:
            protocol.peer = self._peer
        protocol.data_received(self._first)

    def _leave(self) -> None:
        self._hub.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class CannotListen(OSError):
    """An address cannot be had."""


def listening_socket(host: str, port: int, limits: Limits) -> socket.socket:
    """A socket that listens, with the options that accepted ones inherit. Raises CannotListen."""
    try:
        return _listening_socket(host, port, limits)
    except OSError as error:
        problem = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise CannotListen(error.errno, problem) from error


def _listening_socket(host: str, port: int, limits: Limits) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = KEEPALIVE | {
            "TCP_NOTSENT_LOWAT": NOTSENT_LOWAT,
            "TCP_USER_TIMEOUT": int(limits.stall_seconds * 1000),
        }
        for name, value in options.items():
            if hasattr(socket, name):  # each platform has some of them
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
