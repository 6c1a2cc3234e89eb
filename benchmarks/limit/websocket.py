"""Envelopes in WebSocket frames (RFC 6455, 5.2), of less than 64 KiB each."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha1

import msgspec

from benchmarks.limit.envelopes import EnvelopeConnection, prefix_of
from benchmarks.limit.items import encode
from benchmarks.limit.transport import JOINED

UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
KEY = b"sec-websocket-key:"
CLOSE = 0x88
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketConnection(EnvelopeConnection):
    """The request is taken to arrive in one piece."""

    __slots__ = ("_rest", "_upgraded")

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""
        self._upgraded = False

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self._read_frames(data)
            return
        self._upgraded = True
        key = next(line for line in data.split(b"\r\n") if line.lower().startswith(KEY))[len(KEY) :].strip()
        self.transport.write(UPGRADED % b64encode(sha1(key + GUID).digest()))

    def _read_frames(self, data: bytes) -> None:
        data = self._rest + data
        start, size, take = 0, len(data), self.take
        while size - start >= 6:
            if data[start] == CLOSE:
                self.transport.close()
                return
            length, mask = data[start + 1] & 0x7F, start + 2
            if length == 126:
                length, mask = int.from_bytes(data[mask : mask + 2], "big"), mask + 2
            stop = mask + 4 + length
            if stop > size:
                break
            take(_unmasked(data[mask + 4 : stop], data[mask : mask + 4]))
            start = stop
        self._rest = data[start:]

    def framed(self, message: bytes) -> bytes:
        size = len(message)
        return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + message

    async def joined(self, id: str, items: AsyncIterator[msgspec.Struct]) -> None:
        write, writable = self.transport.write, self.writable
        prefix = prefix_of(id)
        around = len(prefix) + 1
        parts: list[bytes] = []
        size = 0
        async for item in items:
            data = encode(item)
            length = len(data) + around
            parts.append(bytes((0x81, length)) if length < 126 else b"\x81\x7e" + length.to_bytes(2, "big"))
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


def _unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    masks = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(masks, "little")).to_bytes(size, "little")
