"""Health over gRPC, asked by everyone's own client: what load balancers and sidecars see of a server's life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raffel_core.server import Server

Serve = Callable[..., Awaitable[Server]]

WATCH = """
    async def handler(input, ctx):
        yield 1
"""
PRICES = {"market/prices/watch.stream.py": WATCH}

SERVING, NOT_SERVING, SERVICE_UNKNOWN = "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    """The stub of a server's health service."""
    channels: list[grpc.aio.Channel] = []

    def stub(server: Server) -> health_pb2_grpc.HealthStub:
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
        return health_pb2_grpc.HealthStub(channels[-1])

    yield stub
    for channel in channels:
        await channel.close()


def request(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


def name_of(answer: health_pb2.HealthCheckResponse) -> str:
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@pytest.mark.parametrize("service", ["", "market.Prices", "grpc.health.v1.Health"])
async def test_a_running_server_serves(serve: Serve, connect: Any, service: str) -> None:
    stub = connect(await serve(PRICES))
    assert name_of(await stub.Check(request(service), timeout=10)) == SERVING


async def test_an_unknown_service_is_not_found(serve: Serve, connect: Any) -> None:
    stub = connect(await serve(PRICES))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Check(request("market.Missing"), timeout=10)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "market.Missing" in raised.value.details()


async def test_the_list_has_every_service(serve: Serve, connect: Any) -> None:
    stub = connect(await serve(PRICES))
    answer = await stub.List(health_pb2.HealthListRequest(), timeout=10)
    assert {"", "market.Prices", "grpc.health.v1.Health"} <= set(answer.statuses)
    assert {name_of(status) for status in answer.statuses.values()} == {SERVING}


async def test_who_watches_is_told_of_a_drain_and_then_ended(serve: Serve, connect: Any) -> None:
    server = await serve(PRICES)
    calls = [connect(server).Watch(request(service), timeout=10) for service in ("", "market.Prices")]
    for call in calls:
        assert name_of(await call.read()) == SERVING
    stopping = asyncio.ensure_future(server.stop())
    for call in calls:
        assert name_of(await call.read()) == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    await stopping


async def test_a_server_that_still_accepts_before_its_drain_is_not_serving(serve: Serve, connect: Any) -> None:
    server = await serve(PRICES, drain_delay_seconds=60)
    stub = connect(server)
    watch = stub.Watch(request(""), timeout=10)
    assert name_of(await watch.read()) == SERVING
    stopping = asyncio.ensure_future(server.stop())
    assert name_of(await watch.read()) == NOT_SERVING
    assert name_of(await stub.Check(request("market.Prices"), timeout=10)) == NOT_SERVING
    stopping.cancel()
    await asyncio.wait([stopping])
    server.config = msgspec.structs.replace(server.config, drain_delay_seconds=0)  # the test's own end comes at once


async def test_who_watches_an_unknown_service_is_told_of_the_reload_that_brings_it(
    serve: Serve, connect: Any, tmp_path: Path
) -> None:
    server = await serve({})
    call = connect(server).Watch(request("market.Prices"), timeout=10)
    assert name_of(await call.read()) == SERVICE_UNKNOWN
    file = tmp_path / "routes" / "market" / "prices" / "watch.stream.py"
    file.parent.mkdir(parents=True)
    file.write_text("async def handler(input, ctx):\n    yield 1\n")
    await server.reload()
    assert name_of(await call.read()) == SERVING
    file.unlink()
    await server.reload()
    assert name_of(await call.read()) == SERVICE_UNKNOWN
    call.cancel()


async def test_a_watch_that_is_cancelled_leaves_nothing(serve: Serve, connect: Any) -> None:
    server = await serve(PRICES)
    call = connect(server).Watch(request(""), timeout=10)
    assert name_of(await call.read()) == SERVING
    assert server._hub is not None and len(server._hub.sessions) == 1
    call.cancel()
    async with asyncio.timeout(10):
        while server._hub.sessions:
            await asyncio.sleep(0.005)
