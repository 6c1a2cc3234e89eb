"""`python -m benchmarks.limit`: one port; what a connection says first decides its framing."""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

from benchmarks.limit.http import HttpConnection
from benchmarks.limit.tcp import TcpConnection
from benchmarks.limit.transport import Connection
from benchmarks.limit.websocket import WebSocketConnection


class Listener(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass

    def data_received(self, data: bytes) -> None:
        connection = _framing_of(data)()
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        connection.data_received(data)


def _framing_of(first: bytes) -> type[Connection]:
    if first.startswith(b"\0"):
        return TcpConnection
    if first.startswith(b"PRI "):
        from benchmarks.limit.grpc import GrpcConnection  # the others do without its generated messages

        return GrpcConnection
    return WebSocketConnection if first.startswith(b"GET /ws ") else HttpConnection


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Listener, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
