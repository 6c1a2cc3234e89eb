"""Where gRPC is reached: on the shared port beside HTTP, on a port of its own, or nowhere; and what ALPN says."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import ssl
from typing import Any

import grpc
import pytest

from .conftest import Identity
from .handlers import add_routes


async def started(build, **options: Any):
    server = build(**options)
    add_routes(server)
    await server.start()
    return server


def asked(port: int, identity: Identity | None) -> Any:
    """The answer to `GET /health` over HTTP/1.1."""
    if identity is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    else:
        context = ssl.create_default_context(cafile=str(identity.cert))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


async def test_http_and_grpc_share_a_port(build, connect, tls):
    server = await started(build)
    client = await connect(server)
    assert server.grpc_port == server.port
    for number in range(5):
        add = client["/Math/Add"]
        assert (await add(add.request(a=number))).value == number
        assert (await asyncio.to_thread(asked, server.port, tls))["status"] == "ok"


async def test_grpc_has_a_port_of_its_own(build, connect, tls):
    server = await started(build, grpc={"port": 0})
    assert server.grpc_port not in (0, server.port)
    client = await connect(server)
    add = client["/Math/Add"]
    assert (await add(add.request(a=1, b=2))).value == 3
    assert (await asyncio.to_thread(asked, server.port, tls))["status"] == "ok"


async def test_tcp_and_grpc_each_have_a_port_of_their_own(build, connect):
    server = await started(build, grpc={"port": 0}, tcp={"port": 0})
    assert len({server.port, server.tcp_port, server.grpc_port}) == 3
    client = await connect(server)
    add = client["/Math/Add"]
    assert (await add(add.request(a=1, b=2))).value == 3


async def unserved(port: int, identity: Identity | None) -> str:
    """The status of a call to a port that serves no gRPC, or nobody more."""
    target, add = f"127.0.0.1:{port}", "/Math/Add"
    secured = None if identity is None else grpc.ssl_channel_credentials(identity.cert.read_bytes())
    channel = grpc.aio.insecure_channel(target) if secured is None else grpc.aio.secure_channel(target, secured)
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary(add, request_serializer=bytes, response_deserializer=bytes)(b"", timeout=20)
        return raised.value.code().name


async def test_grpc_over_http_1_1_is_refused_before_its_body_has_come(build, tls):
    """Go's clients offer HTTP/1.1 too, and would wait for ever for the answer to a request that they do not end."""
    server = await started(build)
    context = None if tls is None else ssl.create_default_context(cafile=str(tls.cert))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    head = "POST /Math/Add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked"
    writer.write(f"{head}\r\n\r\n".encode())
    async with asyncio.timeout(5):  # less than a request may take
        assert await reader.readline() == b"HTTP/1.1 415 Unsupported Media Type\r\n"
    writer.transport.abort()


@pytest.mark.parametrize("options", [{"grpc": False}, {"grpc": {"port": 0}}], ids=["off", "own port"])
async def test_the_shared_port_then_serves_no_grpc(build, tls, options):
    server = await started(build, **options)
    assert await unserved(server.port, tls) == "UNAVAILABLE"
    assert (await asyncio.to_thread(asked, server.port, tls))["status"] == "ok"


async def test_its_own_port_serves_nothing_else(build, tls):
    server = await started(build, grpc={"port": 0})
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        await asyncio.to_thread(asked, server.grpc_port, tls)


async def test_more_connections_than_the_server_takes_are_unavailable(build, connect, tls, eventually):
    server = await started(build, limits={"connections": 1})
    client = await connect(server)
    await eventually(lambda: not server._hub.connections)  # the one that asked for the methods has gone
    add = client["/Math/Add"]
    assert (await add(add.request(a=1))).value == 1
    assert await unserved(server.port, tls) == "UNAVAILABLE"
    assert (await add(add.request(a=2))).value == 2


async def test_a_probe_of_the_port_is_not_logged(build, connect, caplog):
    caplog.set_level(logging.INFO, "raffel")
    server = await started(build, grpc={"port": 0})
    caplog.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
    writer.close()
    await writer.wait_closed()
    client = await connect(server)  # who came later has been answered
    add = client["/Math/Add"]
    assert (await add(add.request(a=1))).value == 1
    assert not caplog.records


# ALPN


async def negotiated(port: int, identity: Identity, *offered: str) -> str | None:
    context = ssl.create_default_context(cafile=str(identity.cert))
    if offered:
        context.set_alpn_protocols([*offered])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return writer.get_extra_info("ssl_object").selected_alpn_protocol()
    finally:
        writer.close()
        await writer.wait_closed()


class TestAlpn:
    @pytest.fixture
    def tls(self, identity: Identity) -> Identity:
        return identity

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            (("h2",), "h2"),
            (("http/1.1",), "http/1.1"),
            (("h2", "http/1.1"), "http/1.1"),
            (("http/1.1", "h2"), "http/1.1"),
            (("grpc-exp", "h2"), "h2"),
            ((), None),
        ],
    )
    async def test_the_shared_port_prefers_http_1_1(self, build, identity, offered, chosen):
        server = await started(build)
        assert await negotiated(server.port, identity, *offered) == chosen

    @pytest.mark.parametrize("offered", [("h2",), ("h2", "http/1.1"), ("http/1.1", "h2")])
    async def test_the_own_port_offers_h2_alone(self, build, identity, offered):
        server = await started(build, grpc={"port": 0})
        assert await negotiated(server.grpc_port, identity, *offered) == "h2"

    async def test_the_shared_port_offers_no_h2_when_grpc_is_elsewhere(self, build, identity):
        server = await started(build, grpc={"port": 0})
        assert await negotiated(server.port, identity, "h2", "http/1.1") == "http/1.1"
        assert await negotiated(server.port, identity, "http/1.1") == "http/1.1"

    async def test_without_alpn_the_preface_decides(self, build, identity):
        server = await started(build)
        context = ssl.create_default_context(cafile=str(identity.cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        async with asyncio.timeout(20):
            head = await reader.readexactly(9)
        assert head[3] == 4  # SETTINGS
        writer.close()
        await writer.wait_closed()
