"""Streams as envelopes, many on a connection: what WebSocket and TCP have in common.

The beginning of an item's envelope is constant for its stream and written once. What the client sends is taken to be
right, and decoded in one go.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec

from benchmarks.limit.items import Sum, Tick, encode, hot, idle, nested, short, turn
from benchmarks.limit.transport import Connection


class Input(msgspec.Struct):
    n: int = 0


class Start(msgspec.Struct, tag_field="type", tag="stream:start"):
    id: str
    procedure: str
    payload: Input


class Data(msgspec.Struct, tag_field="type", tag="stream:data"):
    id: str
    payload: Tick


class End(msgspec.Struct, tag_field="type", tag="stream:end"):
    id: str


decode = msgspec.json.Decoder(Start | Data | End).decode


def prefix_of(id: str) -> bytes:
    """What an item's envelope begins with; it ends with a brace."""
    return b'{"type":"stream:data","id":"%b","payload":' % id.encode()


class EnvelopeConnection(Connection):
    """Messages of either framing, in any number of streams."""

    __slots__ = ("sums",)

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Sum] = {}

    def take(self, message: bytes) -> None:
        envelope = decode(message)
        if type(envelope) is Data:
            sum_ = self.sums[envelope.id]
            sum_.count += 1
            sum_.total += envelope.payload.seq
        elif type(envelope) is Start:
            if envelope.procedure == "up":
                self.sums[envelope.id] = Sum(0, 0)
            else:
                self.run(STREAMS[envelope.procedure](self, envelope))
        else:
            result = b'{"type":"response","id":"%b","payload":%b}'
            self.transport.write(self.framed(result % (envelope.id.encode(), encode(self.sums.pop(envelope.id)))))

    @abstractmethod
    def framed(self, message: bytes) -> bytes:
        """A message in its frame."""

    def end(self, id: str) -> bytes:
        return self.framed(b'{"type":"stream:end","id":"%b"}' % id.encode())

    @abstractmethod
    async def joined(self, id: str, items: AsyncIterator[msgspec.Struct]) -> None:
        """Written out for each framing: a call an item would be a good part of its cost."""

    async def each(self, id: str, items: AsyncIterator[msgspec.Struct]) -> None:
        prefix, framed = prefix_of(id), self.framed
        write, writable = self.transport.write, self.writable
        async for item in items:
            write(framed(b"%b%b}" % (prefix, encode(item))))
            if not writable.is_set():
                await writable.wait()
        write(self.end(id))


STREAMS: dict[str, Callable[[EnvelopeConnection, Start], Coroutine[Any, Any, None]]] = {
    "hot": lambda connection, start: connection.joined(start.id, hot()),
    "nested": lambda connection, start: connection.joined(start.id, nested()),
    "short": lambda connection, start: connection.joined(start.id, short(start.payload.n)),
    "turn": lambda connection, start: connection.each(start.id, turn()),
    "idle": lambda connection, start: connection.each(start.id, idle()),
}
