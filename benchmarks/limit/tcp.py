"""Envelopes behind their length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from benchmarks.limit.envelopes import EnvelopeConnection, prefix_of
from benchmarks.limit.items import encode
from benchmarks.limit.transport import JOINED


class TcpConnection(EnvelopeConnection):
    __slots__ = ("_rest",)

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        start, size, take = 0, len(data), self.take
        while size - start >= 4:
            stop = start + 4 + int.from_bytes(data[start : start + 4], "big")
            if stop > size:
                break
            take(data[start + 4 : stop])
            start = stop
        self._rest = data[start:]

    def framed(self, message: bytes) -> bytes:
        return len(message).to_bytes(4, "big") + message

    async def joined(self, id: str, items: AsyncIterator[msgspec.Struct]) -> None:
        write, writable = self.transport.write, self.writable
        prefix = prefix_of(id)
        around = len(prefix) + 1
        parts: list[bytes] = []
        size = 0
        async for item in items:
            data = encode(item)
            length = len(data) + around
            parts.append(length.to_bytes(4, "big"))
            parts.append(prefix)
            parts.append(data)
            parts.append(b"}")
            size += length + 4
            if size > JOINED:
                write(b"".join(parts))
                parts.clear()
                size = 0
                await (asyncio.sleep(0) if writable.is_set() else writable.wait())
        parts.append(self.end(id))
        write(b"".join(parts))
