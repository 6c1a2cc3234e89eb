"""TCP: envelopes behind a length of 4 bytes, on a bare connection."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from raffel_core.route import Kind
from raffel_core.server import Server

from .call import PATIENCE, Carrier
from .envelopes import CAN, EnvelopeClient


class TcpWire(asyncio.Protocol):
    def __init__(self, client: EnvelopeClient) -> None:
        self._client = client
        self._buffer = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        buffer, start = self._buffer, 0
        buffer += data
        while len(buffer) >= start + 4:
            stop = start + 4 + int.from_bytes(buffer[start : start + 4], "big")
            if len(buffer) < stop:
                break
            self._client.received(bytes(buffer[start + 4 : stop]))
            start = stop
        del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.set()
        self._lost.set()
        self._client.lost()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def send(self, message: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(len(message).to_bytes(4, "big") + message)
            async with asyncio.timeout(PATIENCE):
                await self._room.wait()

    async def close(self) -> None:
        self._transport.close()
        with contextlib.suppress(TimeoutError):  # a server that reads nothing, and what was sent to it last
            async with asyncio.timeout(0.1):
                await self._lost.wait()
        self.abort()
        await self._lost.wait()

    def abort(self) -> None:
        self._transport.abort()

    def fileno(self) -> int:
        return self._transport.get_extra_info("socket").fileno()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()


async def connect(server: Server) -> EnvelopeClient:
    client = EnvelopeClient()
    loop = asyncio.get_running_loop()
    _, client.wire = await loop.create_connection(lambda: TcpWire(client), "127.0.0.1", server.port)
    return client


TCP = Carrier("tcp", "TCP", frozenset(Kind), CAN, connect)
