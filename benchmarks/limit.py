"""The bare limit: the same items from the same generators on nothing but a uvloop transport and msgspec.

No routing, no checks, no deadlines, no lifecycle: what a server that does all of it is measured against. Streams that
never wait join what they write into chunks of 64 KiB; the others, whose items come alone, write each at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop

HEADERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
JOINED = 65536
SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

encode = msgspec.json.Encoder().encode


class Tick(msgspec.Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class Quote(msgspec.Struct):
    price: float
    size: int


class Book(msgspec.Struct):
    seq: int
    symbol: str
    last: Quote
    levels: list[Quote]


async def hot() -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1


async def nested() -> AsyncIterator[Book]:
    seq = 0
    while True:
        yield Book(seq, SYMBOL, Quote(101.25, 5), [Quote(101.0, 10), Quote(100.75, 20)])
        seq += 1


async def turn() -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
        await asyncio.sleep(0)


async def short(n: int) -> AsyncIterator[Tick]:
    for seq in range(n):
        yield Tick(seq, SYMBOL, PRICE, TS)


async def slow(pause: float) -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
        await asyncio.sleep(pause)


async def idle() -> AsyncIterator[Tick]:
    yield Tick(0, SYMBOL, PRICE, TS)
    await asyncio.Event().wait()


class Connection(asyncio.Protocol):
    """One connection, one stream at a time; a request is taken to arrive in one piece."""

    __slots__ = ("_stream", "_transport", "_writable")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass
        self._writable = asyncio.Event()
        self._writable.set()
        self._stream: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        url = urlsplit(data.split(b" ", 2)[1].decode())
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self._stream = asyncio.create_task(STREAMS[url.path](self, query))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream:
            self._stream.cancel()

    async def joined(self, items: AsyncIterator[msgspec.Struct]) -> None:
        write, writable = self._transport.write, self._writable
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
        write, writable = self._transport.write, self._writable
        write(HEADERS)
        async for item in items:
            data = encode(item)
            write(b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data))
            if not writable.is_set():
                await writable.wait()
        write(LAST_CHUNK)


STREAMS: dict[str, Callable[[Connection, dict[str, str]], Awaitable[None]]] = {
    "/hot": lambda connection, query: connection.joined(hot()),
    "/nested": lambda connection, query: connection.joined(nested()),
    "/short": lambda connection, query: connection.joined(short(int(query["n"]))),
    "/turn": lambda connection, query: connection.each(turn()),
    "/slow": lambda connection, query: connection.each(slow(float(query["pause"]))),
    "/idle": lambda connection, query: connection.each(idle()),
}


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
