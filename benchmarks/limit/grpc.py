"""gRPC over HTTP/2 (RFC 9113), with the messages of google.protobuf: no more of it than the load clients notice.

Windows are never counted: what is sent never fills those of the clients, and theirs are opened as wide as they go.
Headers are literals. All calls of a connection are taken to be of the method that the first one names.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from hpack import Decoder
from ticks_pb2 import Query, Sum, Tick

from benchmarks.limit.items import PRICE, SYMBOL, TS
from benchmarks.limit.transport import JOINED, Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, ACK, END_HEADERS, PRIORITY = 0x1, 0x1, 0x4, 0x20
FULL = 16_384 - 64  # a frame is sent before the next message could be too long for it


def frame(kind: int, flags: int, id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + id.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table (RFC 7541, 6.2.2)."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


WIDE = 2**31 - 1
REFILLED = 2**28  # bytes received before the window of the connection is opened again
GREETING = frame(SETTINGS, 0, 0, b"\0\x03" + (1000).to_bytes(4, "big") + b"\0\x04" + WIDE.to_bytes(4, "big")) + frame(
    WINDOW_UPDATE, 0, 0, (WIDE - 65_535).to_bytes(4, "big")
)  # MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE
STATUS_200 = b"\x88"
OPENING = STATUS_200 + literal(b"content-type", b"application/grpc")
TRAILERS = literal(b"grpc-status", b"0")


class GrpcConnection(Connection):
    """Frames in, each for the call that it belongs to."""

    __slots__ = ("_calls", "_kind", "_received", "_rest")

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, Call] = {}
        self._kind: type[Call] | None = None
        self._rest = b""
        self._received = -len(PREFACE)

    def data_received(self, data: bytes) -> None:
        if self._received < 0:
            self.transport.write(GREETING)
            data = data[len(PREFACE) :]  # taken to arrive in one piece
            self._received = 0
        self._received += len(data)
        data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 9:
            stop = start + 9 + int.from_bytes(data[start : start + 3], "big")
            if stop > end:
                break
            id = int.from_bytes(data[start + 5 : start + 9], "big")
            self._take(data[start + 3], data[start + 4], id, data[start + 9 : stop])
            start = stop
        self._rest = data[start:]
        if self._received > REFILLED:
            self.transport.write(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0

    def _take(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if kind == DATA:
            call = self._calls[id]
            call.take(payload)
            if flags & END_STREAM:
                call.end()
                del self._calls[id]
        elif kind == HEADERS:
            if self._kind is None:
                headers = dict(Decoder().decode(payload[5:] if flags & PRIORITY else payload))
                self._kind = METHODS[headers[":path"]]
            self._calls[id] = self._kind(self, id)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.transport.write(frame(kind, ACK, 0, b"" if kind == SETTINGS else payload))


class Call(ABC):
    """A call of one method: what it makes of the messages that it is sent."""

    __slots__ = ("_connection", "_opening", "_rest", "_trailers", "id")

    def __init__(self, connection: GrpcConnection, id: int) -> None:
        self._connection = connection
        self.id = id
        self._rest = b""
        self._opening = frame(HEADERS, END_HEADERS, id, OPENING)
        self._trailers = frame(HEADERS, END_HEADERS | END_STREAM, id, TRAILERS)

    @abstractmethod
    def take(self, data: bytes) -> None: ...

    @abstractmethod
    def end(self) -> None: ...

    def messages(self, data: bytes) -> list[bytes]:
        """Those that are complete with this data."""
        data = self._rest + data
        start, size = 0, len(data)
        found = []
        while size - start >= 5:
            stop = start + 5 + int.from_bytes(data[start + 1 : start + 5], "big")
            if stop > size:
                break
            found.append(data[start + 5 : stop])
            start = stop
        self._rest = data[start:]
        return found

    def data(self, parts: list[bytes]) -> bytes:
        """A frame of messages, each behind the five bytes of its prefix."""
        return frame(DATA, 0, self.id, b"".join(parts))

    def answer(self, message: bytes) -> None:
        whole = self._opening + self.data([len(message).to_bytes(5, "big"), message]) + self._trailers
        self._connection.transport.write(whole)


class Unary(Call):
    __slots__ = ()

    def take(self, data: bytes) -> None:
        for message in self.messages(data):
            tick = Tick.FromString(message)
            self.answer(Tick(seq=tick.seq, symbol=SYMBOL, price=PRICE, ts=TS).SerializeToString())

    def end(self) -> None: ...


class Server(Call):
    __slots__ = ()

    def take(self, data: bytes) -> None:
        for message in self.messages(data):
            self._connection.run(self._joined(server(Query.FromString(message).n)))

    def end(self) -> None: ...

    async def _joined(self, items: AsyncIterator[Tick]) -> None:
        write, writable = self._connection.transport.write, self._connection.writable
        write(self._opening)
        parts: list[bytes] = []
        size = written = 0
        async for item in items:
            message = item.SerializeToString()
            length = len(message)
            parts.append(length.to_bytes(5, "big"))
            parts.append(message)
            size += length + 5
            if size > FULL:
                write(self.data(parts))
                parts.clear()
                written += size
                size = 0
                if written > JOINED:
                    written = 0
                    await (asyncio.sleep(0) if writable.is_set() else writable.wait())
        write(self.data(parts) + self._trailers)


class Client(Call):
    __slots__ = ("_count", "_total")

    def __init__(self, connection: GrpcConnection, id: int) -> None:
        super().__init__(connection, id)
        self._count = self._total = 0

    def take(self, data: bytes) -> None:
        for message in self.messages(data):
            self._total += Tick.FromString(message).seq
            self._count += 1

    def end(self) -> None:
        self.answer(Sum(count=self._count, total=self._total).SerializeToString())


class Bidi(Call):
    __slots__ = ()

    def __init__(self, connection: GrpcConnection, id: int) -> None:
        super().__init__(connection, id)
        connection.transport.write(self._opening)

    def take(self, data: bytes) -> None:
        parts: list[bytes] = []
        size = 0
        for message in self.messages(data):
            answer = Tick(seq=Tick.FromString(message).seq, symbol=SYMBOL, price=PRICE, ts=TS).SerializeToString()
            length = len(answer)
            parts.append(length.to_bytes(5, "big"))
            parts.append(answer)
            size += length + 5
            if size > FULL:
                self._connection.transport.write(self.data(parts))
                parts.clear()
                size = 0
        if parts:
            self._connection.transport.write(self.data(parts))

    def end(self) -> None:
        self._connection.transport.write(self._trailers)


async def server(n: int) -> AsyncIterator[Tick]:
    for seq in range(1, n + 1):
        yield Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS)


METHODS: dict[str, type[Call]] = {
    "/Ticks/Unary": Unary,
    "/Ticks/Server": Server,
    "/Ticks/Client": Client,
    "/Ticks/Bidi": Bidi,
}
