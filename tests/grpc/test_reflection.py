"""Reflection over gRPC, both versions, asked by the tools that people explore a server with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from raffel_core.protobuf.standard import REFLECTIONS
from raffel_core.server import Server

Serve = Callable[..., Awaitable[Server]]

BUF = Path(sys.executable).with_name("buf")

STREAM = """
    async def handler(input, ctx):
        yield 1
"""
ROUTES = {
    "market/prices/watch.stream.py": STREAM,
    "market/prices/ticks.stream.py": STREAM,
    "logs/tail.stream.py": STREAM,
}

SERVICES = [
    "Logs",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "market.Prices",
]


def discovered(port: int) -> tuple[list[str], DescriptorPool]:
    """What grpcio's own client of reflection finds: the services, and all that it could load of them."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = sorted(database.get_services())
        pool = DescriptorPool(database)
        for name in names:
            pool.FindServiceByName(name)
        return names, pool


async def test_grpcio_loads_every_service(serve: Serve) -> None:
    server = await serve(ROUTES)
    names, pool = await asyncio.to_thread(discovered, server.grpc_port)
    assert names == SERVICES
    methods = pool.FindServiceByName("market.Prices").methods
    assert sorted(method.name for method in methods) == ["Ticks", "Watch"]
    assert [method.name for method in pool.FindServiceByName("grpc.health.v1.Health").methods] == [
        "Check",
        "List",
        "Watch",
    ]


async def test_requests_of_one_stream_are_answered_as_they_come(serve: Serve) -> None:
    server = await serve(ROUTES)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=10)
        for symbol, kind in [
            ("market.Prices", "file_descriptor_response"),
            ("missing", "error_response"),
            ("market.Prices.Watch", "file_descriptor_response"),
        ]:
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            answer = await call.read()
            assert answer.WhichOneof("message_response") == kind
            assert answer.original_request.file_containing_symbol == symbol
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("version", REFLECTIONS, ids=lambda version: version.file.package)
async def test_both_versions_list_the_services(serve: Serve, version: Any) -> None:
    server = await serve(ROUTES)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        info = channel.stream_stream(
            f"/{version.service}/ServerReflectionInfo",
            request_serializer=version.request.SerializeToString,
            response_deserializer=version.response.FromString,
        )
        answers = [answer async for answer in info([version.request(list_services="")], timeout=10)]
    assert [service.name for service in answers[0].list_services_response.service] == SERVICES


async def test_without_reflection_there_is_no_such_method(serve: Serve) -> None:
    server = await serve(ROUTES, grpc={"reflection": False})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(()), timeout=10)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


# buf


async def buf(server: Server, *arguments: str) -> list[str]:
    """The lines of `buf curl`, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        str(BUF),
        "curl",
        "--http2-prior-knowledge",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode().split()


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
async def test_buf_lists_services_and_methods(serve: Serve, version: str) -> None:
    server = await serve(ROUTES)
    url = f"http://127.0.0.1:{server.grpc_port}"
    choice = ("--protocol", "grpc", "--reflect-protocol", version)
    assert await buf(server, *choice, "--list-services", url) == SERVICES
    methods = await buf(server, *choice, "--list-methods", url)
    assert sorted(methods)[:2] == ["Logs/Tail", "grpc.health.v1.Health/Check"]
    assert {"market.Prices/Ticks", "market.Prices/Watch"} <= {*methods}


async def test_buf_calls_a_method_that_it_knows_from_reflection_alone(serve: Serve) -> None:
    server = await serve(ROUTES)
    url = f"http://127.0.0.1:{server.grpc_port}/grpc.health.v1.Health/Check"
    answer = await buf(server, "--protocol", "grpc", "--data", '{"service": "market.Prices"}', url)
    assert "".join(answer) == '{"status":"SERVING"}'
