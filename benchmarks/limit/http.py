"""Streams as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from benchmarks.limit.items import encode, hot, idle, nested, short, slow, turn
from benchmarks.limit.transport import JOINED, Connection

HEADERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


class HttpConnection(Connection):
    """One stream at a time; a request is taken to arrive in one piece."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        url = urlsplit(data.split(b" ", 2)[1].decode())
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.run(STREAMS[url.path](self, query))

    async def joined(self, items: AsyncIterator[msgspec.Struct]) -> None:
        write, writable = self.transport.write, self.writable
        write(HEADERS)
        parts: list[bytes] = []
        size = 0
        async for item in items:
            data = encode(item)
            parts.append(b"data: ")
            parts.append(data)
            parts.append(b"\n\n")
            size += len(data) + 8
            if size > JOINED:
                write(b"%x\r\n%b\r\n" % (size, b"".join(parts)))
                parts.clear()
                size = 0
                await (asyncio.sleep(0) if writable.is_set() else writable.wait())
        write(b"%x\r\n%b\r\n" % (size, b"".join(parts)) + LAST_CHUNK)

    async def each(self, items: AsyncIterator[msgspec.Struct]) -> None:
        write, writable = self.transport.write, self.writable
        write(HEADERS)
        async for item in items:
            data = encode(item)
            write(b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data))
            if not writable.is_set():
                await writable.wait()
        write(LAST_CHUNK)


STREAMS: dict[str, Callable[[HttpConnection, dict[str, str]], Coroutine[Any, Any, None]]] = {
    "/hot": lambda connection, query: connection.joined(hot()),
    "/nested": lambda connection, query: connection.joined(nested()),
    "/short": lambda connection, query: connection.joined(short(int(query["n"]))),
    "/turn": lambda connection, query: connection.each(turn()),
    "/slow": lambda connection, query: connection.each(slow(float(query["pause"]))),
    "/idle": lambda connection, query: connection.each(idle()),
}
