"""`buf curl`, which speaks gRPC by connect-go: it knows a server by reflection alone, and writes JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import target
from .handlers import add_routes

BUF = Path(sys.executable).with_name("buf")

Buf = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
def buf(build, tls, run) -> Buf:
    """Calls a method with these messages and returns those of the answer: `await buf("Math/Add", {"a": 1})`."""

    async def call(method: str, *messages: Any, flags: tuple[str, ...] = (), **ending: Any) -> Any:
        # Like all of Go it offers HTTP/1.1 beside h2, and would get that on the shared port of TLS.
        server = build(**({} if tls is None else {"grpc": {"port": 0}}))
        add_routes(server)
        await server.start()
        if tls is None:
            flags, url = ("--http2-prior-knowledge", *flags), f"http://{target(server)}/{method}"
        else:
            flags, url = ("--cacert", str(tls.cert), *flags), f"https://{target(server)}/{method}"
        input = "\n".join(map(json.dumps, messages)).encode()
        text = await run(BUF, "curl", "--protocol", "grpc", *flags, "--data", "@-", url, input=input, **ending)
        return _documents(text.decode())

    return call


def _documents(text: str) -> list[Any]:
    """JSON documents one behind the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        one, at = decoder.raw_decode(text, at)
        found.append(one)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


async def test_a_unary_call(buf):
    assert await buf("Math/Add", {"a": 1, "b": 2}) == [{"value": "3"}]


async def test_a_server_stream(buf):
    assert await buf("Math/Count", {"to": 3, "size": 1}) == [
        {"text": "."},
        {"number": "1", "text": "."},
        {"number": "2", "text": "."},
    ]


async def test_a_client_stream(buf):
    messages = [{"a": number, "b": 1} for number in range(50)]
    assert await buf("Math/Total", *messages) == [{"total": "1275", "items": "50"}]


async def test_a_bidi_stream(buf):
    assert await buf("Talk/Echo", *({"text": word} for word in ("a", "é", "🦜"))) == [
        {"text": "A"},
        {"text": "É"},
        {"text": "🦜"},
    ]


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
async def test_either_version_of_reflection(buf, version):
    assert await buf("Math/Add", {"a": 1, "b": 2}, flags=("--reflect-protocol", version)) == [{"value": "3"}]


async def test_an_error_has_its_details(buf):
    """connect-go writes an error as JSON; its exit code is 8 times gRPC's."""
    (error,) = await buf("Trouble/Refuse", {"code": "NOT_FOUND", "message": "nicht da: é%"}, code=5 * 8)
    assert (error["code"], error["message"]) == ("not_found", "nicht da: é%")
    (detail,) = error["details"]
    assert detail["type"] == "google.protobuf.Value"
