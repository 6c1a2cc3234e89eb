"""WebSocket, by the `websockets` package."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed

from raffel_core.route import Kind
from raffel_core.server import Server

from .call import PATIENCE, Carrier
from .envelopes import CAN, EnvelopeClient


class WebSocketWire:
    def __init__(self, socket: ClientConnection, client: EnvelopeClient) -> None:
        self._socket = socket
        self._client = client
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                message = await self._socket.recv()
                self._client.received(message.encode() if isinstance(message, str) else message)
        except ConnectionClosed:
            self._client.lost()

    async def send(self, message: bytes) -> None:
        try:
            await self._socket.send(message, text=message[:1] != b"\x01")
        except ConnectionClosed:
            return  # the calls are told by who reads

    async def close(self) -> None:
        await self._socket.close()
        await self._reading

    def abort(self) -> None:
        self._socket.transport.abort()

    def fileno(self) -> int:
        return self._socket.transport.get_extra_info("socket").fileno()

    def pause(self) -> None:
        self._socket.transport.pause_reading()

    def resume(self) -> None:
        self._socket.transport.resume_reading()


async def connect(server: Server) -> EnvelopeClient:
    client = EnvelopeClient()
    url = f"ws://127.0.0.1:{server.port}{server.config.websocket.path}"
    options = {"subprotocols": ["raffel.v1"], "proxy": None, "max_size": None, "max_queue": None}
    client.wire = WebSocketWire(
        await open_websocket(url, **options, open_timeout=PATIENCE, close_timeout=PATIENCE), client
    )
    return client


WEBSOCKET = Carrier("websocket", "WebSocket", frozenset(Kind), CAN, connect)
