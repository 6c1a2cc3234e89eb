"""A server behind a proxy: whom handlers see as their peer, and which host counts."""

from __future__ import annotations

import json
import struct

import pytest
from websockets.asyncio.client import connect as websocket

PEER = "async def handler(input, ctx):\n    return ctx.peer\n"
ROUTES = {"peer.rpc.py": PEER}
HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"
CALL = {"type": "request", "id": "1", "procedure": "peer"}


def asked(*headers: str) -> bytes:
    lines = ["POST /peer HTTP/1.1", "Host: app.com", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()


async def peer_over_http(connect, server, *headers: str, before: bytes = b"") -> object:
    wire = await connect(server)
    await wire.send(before + asked(*headers))
    return (await wire.answer()).json()


@pytest.mark.parametrize("trusted", [["127.0.0.1"], ["127.0.0.0/8", "10.0.0.0/8"]])
async def test_a_trusted_proxy_names_the_client(serve, connect, trusted: list[str]) -> None:
    server = await serve(ROUTES, trusted_proxies=trusted)
    assert await peer_over_http(connect, server, "X-Forwarded-For: 192.0.2.7") == "192.0.2.7"


async def test_nobody_else_does(serve, connect) -> None:
    server = await serve(ROUTES, trusted_proxies=["10.0.0.1"])
    found = await peer_over_http(connect, server, "X-Forwarded-For: 192.0.2.7")
    assert str(found).startswith("127.0.0.1:")


async def test_a_trusted_proxy_names_the_client_of_a_websocket(serve) -> None:
    server = await serve(ROUTES, trusted_proxies=["127.0.0.1"])
    headers = {"X-Forwarded-For": "192.0.2.7"}
    async with websocket(
        f"ws://127.0.0.1:{server.port}/ws", additional_headers=headers, compression=None, proxy=None
    ) as peer:
        await peer.send(json.dumps(CALL))
        assert json.loads(await peer.recv())["payload"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://app.com", 200), ("http://app.com", 403), ("https://inside", 403)],
)
async def test_an_origin_is_the_hosts_own_as_the_client_sees_it(serve, connect, origin: str, status: int) -> None:
    server = await serve(ROUTES, trusted_proxies=["127.0.0.1"])
    wire = await connect(server)
    forwarded = ("X-Forwarded-Host: app.com", "X-Forwarded-Proto: https")
    await wire.send(asked(*forwarded, f"Origin: {origin}").replace(b"Host: app.com", b"Host: inside", 1))
    assert (await wire.answer()).status == status


async def test_the_proxy_header_names_the_client_over_http(serve, connect) -> None:
    server = await serve(ROUTES, proxy_protocol=True)
    assert await peer_over_http(connect, server, before=HEADER) == "192.0.2.7:4711"


async def test_the_proxy_header_names_the_client_over_tcp(serve, connect) -> None:
    server = await serve(ROUTES, proxy_protocol=True)
    message = json.dumps(CALL).encode()
    wire = await connect(server)
    await wire.send(HEADER + struct.pack(">I", len(message)) + message)
    (size,) = struct.unpack(">I", await wire.exactly(4))
    assert json.loads(await wire.exactly(size))["payload"] == "192.0.2.7:4711"


async def test_without_the_header_nothing_is_answered(serve, connect) -> None:
    server = await serve(ROUTES, proxy_protocol=True)
    wire = await connect(server)
    await wire.send(asked())
    assert await wire.rest() == b""
