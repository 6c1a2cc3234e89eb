"""Metadata both ways: what a handler sees of its caller's, what it sends back, and what cannot be sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from raffel_core.context import Context
from raffel_core.server import Server

from .conftest import failure, items
from .handlers import Pair

BINARY = bytes(range(256))


class Speaker:
    """Handlers of all four kinds that send metadata back; `seen` is what has come."""

    def __init__(self, initial: dict[str, Any], trailing: dict[str, Any]) -> None:
        self.initial, self.trailing = initial, trailing
        self.seen: list[dict[str, str]] = []

    def _speak(self, ctx: Context) -> int:
        self.seen.append(dict(ctx.metadata))
        ctx.initial_metadata.update(self.initial)
        ctx.trailing_metadata.update(self.trailing)
        return 1

    async def unary(self, input: Pair, ctx: Context) -> int:
        return self._speak(ctx)

    async def server(self, input: Pair, ctx: Context) -> AsyncIterator[int]:
        yield self._speak(ctx)

    async def client(self, items: AsyncIterator[Pair], ctx: Context) -> int:
        return self._speak(ctx)

    async def bidi(self, items: AsyncIterator[Pair], ctx: Context) -> AsyncIterator[int]:
        yield self._speak(ctx)

    async def empty(self, input: Pair, ctx: Context) -> AsyncIterator[int]:
        self._speak(ctx)
        return
        yield

    async def failing(self, input: Pair, ctx: Context) -> AsyncIterator[int]:
        self._speak(ctx)
        raise ValueError
        yield

    def add(self, server: Server) -> None:
        server.procedure("speak.unary").handler(self.unary)
        server.stream("speak.server").handler(self.server)
        server.stream("speak.client", direction="client").handler(self.client)
        server.stream("speak.bidi", direction="bidi").handler(self.bidi)
        server.stream("speak.empty").handler(self.empty)
        server.stream("speak.failing").handler(self.failing)


def called(client, kind: str, **options: Any):
    method = client[f"/Speak/{kind}"]
    request = () if method.kind.startswith("stream") else (method.request(),)
    return method(*request, **options)


async def finished(call) -> None:
    if hasattr(call, "read"):
        await items(call)
    else:
        await call


SENT = {"X-Word": "a b", "x-data-bin": BINARY, "x-empty": "", "x-empty-bin": b""}
HAD = {("x-word", "a b"), ("x-data-bin", BINARY), ("x-empty", ""), ("x-empty-bin", b"")}


@pytest.mark.parametrize("kind", ["Unary", "Server", "Client", "Bidi"])
async def test_what_a_handler_sends_back_arrives(serve_and_connect, kind):
    client = await serve_and_connect(Speaker(SENT, {"x-end": "z", "x-end-bin": b"\0"}).add)
    call = called(client, kind)
    initial = set(await call.initial_metadata())
    await finished(call)
    assert initial >= HAD
    assert set(await call.trailing_metadata()) >= {("x-end", "z"), ("x-end-bin", b"\0")}


async def test_what_belongs_to_the_end_arrives_with_an_error_too(serve_and_connect):
    client = await serve_and_connect(Speaker({"x-word": "a"}, {"x-end": "z"}).add)
    call = called(client, "Failing")
    assert (await failure(call.read())).code == "INTERNAL"
    assert ("x-end", "z") in set(await call.trailing_metadata())


@pytest.mark.parametrize("kind", ["Unary", "Server", "Client", "Bidi"])
async def test_what_a_caller_sends_is_seen(serve_and_connect, kind):
    speaker = Speaker({}, {})
    client = await serve_and_connect(speaker.add)
    metadata = (
        *(("x-word", "a b"), ("x-data-bin", b"\x00\x01\xff"), ("x-unpadded-bin", b"abc"), ("x-none-bin", b"")),
        *(("x-twice", "1"), ("x-twice", "2"), ("x-twice-bin", b"\0"), ("x-twice-bin", b"\1"), ("authorization", "Me")),
    )
    await finished(called(client, kind, metadata=metadata))
    (seen,) = speaker.seen
    expected = {
        "x-word": "a b",
        "x-data-bin": "AAH/",
        "x-unpadded-bin": "YWJj",
        "x-none-bin": "",
        "x-twice": "1,2",
        "x-twice-bin": "AA==,AQ==",
        "authorization": "Me",
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert all(key == key.lower() for key in seen)
    assert not any(key.startswith(":") for key in seen)


async def test_a_handler_may_send_back_what_it_has_got(serve_and_connect):
    def routes(server: Server) -> None:
        async def mirror(input: Pair, ctx: Context) -> int:
            ctx.trailing_metadata["x-data-bin"] = ctx.metadata["x-data-bin"]
            return 1

        server.procedure("mirror").handler(mirror)

    client = await serve_and_connect(routes)
    mirror = client["/Root/Mirror"]
    call = mirror(mirror.request(), metadata=(("x-data-bin", BINARY),))
    await call
    assert ("x-data-bin", BINARY) in set(await call.trailing_metadata())


BAD = {
    "a line break": {"x-word": "a\r\nb: c"},
    "text that is not ASCII": {"x-word": "é"},
    "a space at its end": {"x-word": "a "},
    "bytes under a name for text": {"x-word": b"a"},
    "a number": {"x-word": 1},
    "text that is no base64": {"x-word-bin": "é"},
    "a name with a space": {"x word": "a"},
    "a name of nothing": {"": "a"},
    "a pseudo-header": {":status": "500"},
    "the protocol's own": {"grpc-status": "0"},
    "a header of the connection": {"connection": "close"},
    "too much": {"x-word": "a" * 10_000},
    "too many": {f"x-{number}": "a" for number in range(100)},
}


class TestMetadataThatCannotBeSent:
    @pytest.fixture
    def tls(self):
        """They are the same behind TLS."""

    @pytest.mark.parametrize("place", ["initial", "trailing"])
    @pytest.mark.parametrize("metadata", BAD.values(), ids=BAD)
    async def test_are_an_error(self, serve_and_connect, place, metadata):
        speaker = Speaker(*((metadata, {}) if place == "initial" else ({}, metadata)))
        client = await serve_and_connect(speaker.add)
        for kind in ("Unary", "Server", "Client", "Bidi", "Empty"):
            found = await failure(finished(called(client, kind)))
            assert (found.code, found.error["code"]) == ("INTERNAL", "OUTPUT_VALIDATION_ERROR")


async def test_too_much_metadata_of_a_caller_is_refused(serve_and_connect):
    client = await serve_and_connect(Speaker({}, {}).add)
    call = called(client, "Unary", metadata=tuple((f"x-{number}", "a") for number in range(100)))
    assert (await failure(call)).code == "INVALID_ARGUMENT"
    await finished(called(client, "Unary"))  # the connection is unharmed
