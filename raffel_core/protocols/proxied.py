"""Connections that come through a proxy: its PROXY header is read before TLS or any protocol sees a byte."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from raffel_core.errors import RaffelError
from raffel_core.protocols.connection import Hub, peer_name
from raffel_core.wire.proxy import MAX_V2, parse

log = logging.getLogger("raffel")

ACCEPTS = 64
"""How many connections are accepted before others have their turn of the loop."""

RETRY_SECONDS = 1.0
"""After how many seconds accepting is tried again where it failed."""


class ProxiedListener:
    """Accepts from a listening socket, every connection of which starts with a PROXY header.

    `factory` makes the protocol of a connection out of the client's address; None: the one that the connection has. It
    is called when the header is complete, before TLS. A connection counts as one of the hub's from the first moment.
    """

    __slots__ = ("_retry", "_sock", "arrivals", "factory", "hub", "tls", "tls_options")

    def __init__(
        self,
        sock: socket.socket,
        hub: Hub,
        factory: Callable[[str | None], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        tls_options: dict[str, Any],
    ) -> None:
        self.hub = hub
        self.factory = factory
        self.tls = tls
        self.tls_options = tls_options
        self.arrivals: set[_Arrival] = set()
        """The connections that no protocol has yet."""
        self._sock = sock
        self._retry: asyncio.TimerHandle | None = None
        self._start()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket; none after `close`."""
        return () if self._sock.fileno() < 0 else (self._sock,)

    def close(self) -> None:
        """Accepts no more, and gives up the connections that no protocol has yet."""
        if self.sockets:
            self._pause()
            self._sock.close()
        for arrival in list(self.arrivals):
            arrival.abort()

    def _start(self) -> None:
        self.hub.loop.add_reader(self._sock.fileno(), self._accept)

    def _pause(self) -> None:
        self.hub.loop.remove_reader(self._sock.fileno())
        if self._retry is not None:
            self._retry.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # it has left the queue
            except OSError as error:
                # What is missing, files or memory, is missing at the next look too, and the socket stays readable.
                log.error("no connection can be accepted: %s", error.strerror)
                self._pause()
                self._retry = self.hub.loop.call_later(RETRY_SECONDS, self._start)
                return
            self._welcome(sock, peer_name(address))

    def _welcome(self, sock: socket.socket, peer: str) -> None:
        hub = self.hub
        if len(hub.connections) >= hub.config.limits.connections:
            log.warning("connection refused: %d are open, which is the limit", len(hub.connections))
            sock.close()
            return
        sock.setblocking(False)
        _Arrival(self, sock, peer).wait()


class _Arrival(asyncio.Protocol):
    """A connection until its protocol has it: its header is read, then TLS shakes hands where there is TLS."""

    __slots__ = ("_connecting", "_header", "_listener", "_made", "_peer", "_protocol", "_sock", "_timer")

    _protocol: asyncio.Protocol

    def __init__(self, listener: ProxiedListener, sock: socket.socket, peer: str) -> None:
        hub = listener.hub
        self._listener = listener
        self._sock = sock
        self._peer = peer
        self._header = b""
        self._connecting: asyncio.Task[None] | None = None
        self._made = False
        self._timer = hub.loop.call_later(hub.config.limits.request_seconds, self._be_late)

    # The header

    def wait(self) -> None:
        """Counts as a connection and looks for the header from now on."""
        self._listener.arrivals.add(self)
        self._listener.hub.connections.add(self)
        self._listener.hub.loop.add_reader(self._sock.fileno(), self._look)

    def _look(self) -> None:
        """Takes what has come of the header, and no byte behind it."""
        found = None
        try:
            peeked = self._sock.recv(MAX_V2, socket.MSG_PEEK)
            found = parse(self._header + peeked)
            # Of an incomplete header all that came is taken: what stayed would make the socket readable at once again.
            taken = self._sock.recv(len(peeked) if found is None else found[0] - len(self._header))
        except BlockingIOError:
            return
        except RaffelError as error:
            self._refuse(error.message)
            return
        except OSError:
            taken = b""
        self._header += taken
        if not taken:
            self._end()
        elif found is not None and found[0] == len(self._header):
            self._connect(found[1])

    def _end(self) -> None:
        if self._header:
            self._refuse(f"found {self._header[:16]!r} and the end, expected a whole PROXY header")
        else:
            self.abort()  # who looks whether somebody listens says nothing

    def _be_late(self) -> None:
        seconds = self._listener.hub.config.limits.request_seconds
        self._refuse(f"found {self._header[:16]!r}, expected a whole PROXY header within {seconds:g} s")

    def _refuse(self, reason: str) -> None:
        log.warning("connection closed: %s", reason, extra={"peer": self._peer})
        self.abort()

    # The protocol

    def _connect(self, client: str | None) -> None:
        self._read_no_more()
        self._connecting = self._listener.hub.loop.create_task(self._hand_over(client))
        self._connecting.add_done_callback(self._connected)

    async def _hand_over(self, client: str | None) -> None:
        listener = self._listener
        self._protocol = listener.factory(client)
        with contextlib.suppress(OSError):  # a handshake that fails or takes too long: no server of asyncio's tells
            await listener.hub.loop.connect_accepted_socket(
                lambda: self, self._sock, ssl=listener.tls, **listener.tls_options
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = True
        if self not in self._listener.arrivals:
            cast("asyncio.Transport", transport).abort()  # uvloop's is one in all but its class
            return
        self._leave()  # the protocol counts itself
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)

    def _connected(self, connecting: asyncio.Task[None]) -> None:
        self._leave()
        if not self._made:
            self._sock.close()

    # The end

    def drain(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._leave()
        if self._connecting is None:
            self._read_no_more()
            self._sock.close()
        else:
            # The socket is the transport's, which finds its end there, whatever it is about.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def _read_no_more(self) -> None:
        self._timer.cancel()
        self._listener.hub.loop.remove_reader(self._sock.fileno())

    def _leave(self) -> None:
        self._listener.arrivals.discard(self)
        self._listener.hub.connections.discard(self)
