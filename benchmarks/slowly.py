"""Streams read by the book and not fast: what the load client counts, as Python values."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from websockets.sync.client import connect

from benchmarks.servers import CannotRun, Server
from benchmarks.sides import ID, Opening, Side

PATIENCE = 5  # seconds for whatever is awaited


class Messages(Protocol):
    """A connection that carries text messages."""

    def send(self, message: str) -> None: ...
    def recv(self, timeout: float) -> Any: ...


def items_of(server: Server, side: Side, opening: Opening) -> Generator[Any, None, None]:
    """The items of a stream, to its end."""
    if opening.transport == "http":
        yield from _events(server, opening.path)
        return
    with _messages(server, opening) as messages:
        if opening.message:
            messages.send(opening.message)
        while (item := _payload(side, messages, "stream:data")) is not None:
            yield item


def upload_to(server: Server, side: Side, items: list[dict[str, Any]]) -> Any:
    """The result of a client stream."""
    opening = side.opening("up")
    with _messages(server, opening) as messages:
        if opening.message:
            messages.send(opening.message)
        for item in items:
            messages.send(side.item(item))
        messages.send(side.end)
        return _payload(side, messages, "response")


def _payload(side: Side, messages: Messages, wanted: str) -> Any:
    """What the next message carries; None for the end of a stream. A bare message is its own payload."""
    message = json.loads(messages.recv(PATIENCE))
    if not side.envelopes:
        return message
    if message == {"type": "stream:end", "id": ID}:
        return None
    if set(message) != {"type", "id", "payload"} or (message["type"], message["id"]) != (wanted, ID):
        raise CannotRun(f"found {message}, expected a {wanted} of the stream {ID}")
    return message["payload"]


@contextmanager
def _messages(server: Server, opening: Opening) -> Iterator[Messages]:
    if opening.transport == "tcp":
        with socket.create_connection((server.host, server.port), PATIENCE) as connected:
            yield _Framed(connected)
    else:
        url = f"ws://{server.host}:{server.port}{opening.path}"
        # No compression: the load client asks for none.
        with connect(url, compression=None, open_timeout=PATIENCE, close_timeout=0.1) as connected:
            yield connected


class _Framed:
    """Messages behind their length."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._file = connected.makefile("rb")

    def send(self, message: str) -> None:
        data = message.encode()
        self._socket.sendall(len(data).to_bytes(4, "big") + data)

    def recv(self, timeout: float) -> bytes:
        self._socket.settimeout(timeout)
        size = int.from_bytes(self._file.read(4), "big")
        return self._file.read(size)


def _events(server: Server, path: str) -> Iterator[Any]:
    """The data of the default events; a named one (Raffel's `end`) is no item."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise CannotRun(f"found status {answer.status}, expected 200: {answer.read(200)!r}")
        named = False
        while line := answer.readline():
            field, _, value = line.strip().partition(b": ")
            if field == b"event":
                named = True
            elif field == b"data" and not named:
                yield json.loads(value)
            elif not field:
                named = False
    finally:
        connection.close()
