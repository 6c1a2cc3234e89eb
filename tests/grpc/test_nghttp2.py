"""nghttp2's own clients: `h2load` with thousands of calls, and `nghttp` for what is not gRPC over HTTP/2."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from raffel_core.server import Server

from . import raw
from .handlers import Count, Pair, Tick, add_routes

CALL = ("-H", "content-type: application/grpc", "-H", "te: trailers")


async def started(build) -> Server:
    server = build()
    add_routes(server)
    await server.start()
    return server


def requested(path: Path, message: bytes) -> str:
    """The file of a request's body."""
    path.write_bytes(raw.message(message))
    return str(path)


@pytest.mark.parametrize(("connections", "streams", "calls"), [(1, 100, 5000), (8, 100, 5000), (100, 1, 2000)])
async def test_thousands_of_calls_all_succeed(build, run, tls, tmp_path, connections, streams, calls):
    server, seen = build(), []

    @server.procedure("math.add").handler
    async def add(input: Pair) -> int:
        seen.append(input.a)
        return input.a + input.b

    await server.start()
    body = requested(tmp_path / "body", b"\x08\x07\x10\x03")
    load = ("-n", str(calls), "-c", str(connections), "-m", str(streams), "-d", body, *CALL)
    report = (await run("h2load", "--npn-list=h2", *load, f"{server.url}/Math/Add")).decode()
    assert f"{calls} succeeded, 0 failed, 0 errored, 0 timeout" in report
    assert f"status codes: {calls} 2xx" in report
    assert seen == [7] * calls
    (size,) = re.findall(r"\((\d+)\) data", report)
    assert int(size) == calls * len(raw.message(b"\x08\x0a"))


async def test_many_streams_of_many_items_all_succeed(build, run, tmp_path):
    server = build()

    @server.stream("math.same").handler
    async def same(input: Count) -> AsyncIterator[Tick]:
        for _ in range(input.to):
            yield Tick(7, "." * input.size)

    await server.start()
    body = requested(tmp_path / "body", b"\x08\x64\x10\x64")  # to: 100, size: 100
    load = ("-n", "400", "-c", "4", "-m", "100", "-d", body, *CALL)
    report = (await run("h2load", "--npn-list=h2", *load, f"{server.url}/Math/Same")).decode()
    assert "400 succeeded, 0 failed, 0 errored, 0 timeout" in report
    (size,) = re.findall(r"\((\d+)\) data", report)
    assert int(size) == 400 * 100 * len(raw.message(b"\x08\x07\x12\x64" + b"." * 100))


async def test_health_is_answered_as_over_http(build, run):
    server = await started(build)
    text = (await run("nghttp", f"{server.url}/health")).decode()
    assert msgspec.json.decode(text) == {"status": "ok", "streams": 0}


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_health_has_the_head_of_http(build, run, path):
    server = await started(build)
    head = await nghttp(run, f"{server.url}{path}")
    assert head[":status"] == "200"
    assert (head["content-type"], head["cache-control"]) == ("application/json", "no-store")


@pytest.mark.parametrize("path", ["/", "/streams/count", "/healthy", "/Math/Add", "/docs"])
async def test_what_is_not_grpc_is_misdirected(build, run, path):
    server = await started(build)
    assert (await nghttp(run, f"{server.url}{path}"))[":status"] == "421"


async def test_an_unknown_check_is_not_found(build, run):
    server = await started(build)
    assert (await nghttp(run, f"{server.url}/health/else"))[":status"] == "404"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_health_is_only_asked_for_by_get_and_head(build, run, method):
    server = await started(build)
    assert (await nghttp(run, "-H", f":method: {method}", f"{server.url}/health"))[":status"] == "421"


async def test_head_of_health_has_no_body(build, run):
    server = await started(build)
    head = await nghttp(run, "-H", ":method: HEAD", f"{server.url}/health")
    assert (head[":status"], head["content-length"]) == ("200", str(len('{"status":"ok","streams":0}')))


async def test_a_whole_call_on_the_wire(build, run, tmp_path):
    """The head, one message, and the trailers: what nghttp says of each frame."""
    server = await started(build)
    body = requested(tmp_path / "body", b"\x08\x01\x10\x02")
    text = (await run("nghttp", "-v", "-n", "-d", body, *CALL, f"{server.url}/Math/Add")).decode()
    received = re.findall(r"recv (?:\(stream_id=\d+\) )?(.*)", text)
    lines = [line for line in received if line.startswith((":status", "content-type", "grpc-status", "DATA"))]
    expected = [":status: 200", "content-type: application/grpc", "DATA frame", "grpc-status: 0"]
    assert [line.partition(" <")[0] for line in lines] == expected


async def nghttp(run, *arguments: str) -> dict[str, str]:
    """The head of an answer."""
    text = (await run("nghttp", "-v", "-n", *arguments)).decode()
    return dict(re.findall(r"recv \(stream_id=\d+\) (:?[a-z-]+): (.*)", text))


async def test_the_clients_are_there():
    assert shutil.which("nghttp") and shutil.which("h2load"), "run tests/grpc/nghttp2.py"
