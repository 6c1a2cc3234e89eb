"""What grpcio does not show: the frames and fields of calls, by a client that writes them by hand."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value

from raffel_core.context import Context
from raffel_core.server import Server

from . import raw
from .conftest import status_in
from .handlers import Pair, add_routes

GZIP = (b"grpc-encoding", b"gzip")


@pytest.fixture
def tls():
    """The frames are the same behind TLS."""


class Waiting:
    """Handlers that wait, and what became of them."""

    def __init__(self) -> None:
        self.began = 0
        self.remaining: list[float | None] = []
        self.reasons: list[str | None] = []
        self.go_on = asyncio.Event()

    async def __call__(self, input: Pair, ctx: Context) -> int:
        self.began += 1
        self.remaining.append(ctx.remaining())
        try:
            await self.go_on.wait()
        finally:
            await asyncio.sleep(0)
            self.reasons.append(ctx.signal.reason)
        return input.a

    async def early(self, input: Pair, ctx: Context) -> int:
        ctx.initial_metadata["x-early"] = "yes"
        return await self(input, ctx)

    def add(self, server: Server) -> None:
        server.procedure("wait").handler(self.__call__)
        server.procedure("early").handler(self.early)


@pytest.fixture
def waiting():
    return Waiting()


@pytest.fixture
async def server(build, waiting):
    server = build()
    add_routes(server)
    waiting.add(server)
    await server.start()
    return server


@pytest.fixture
async def peer(server, wire):
    return await wire(server)


# Errors


def failing(code: str, message: str, after: int) -> bytes:
    text = message.encode()
    fields = (b"\x0a", bytes([len(code)]), code.encode(), b"\x12", bytes([len(text)]), text, b"\x18", bytes([after]))
    return b"".join(fields)


async def test_an_error_before_the_first_item_is_trailers_only(peer):
    await peer.send(raw.call(1, "/Trouble/Fail", failing("NOT_FOUND", "é%\n", 0)))
    frames = []
    while 1 not in peer.answers or not peer.answers[1].over:
        frames += [one for one in await peer.receive() if one.stream == 1]
    assert [one.type for one in frames] == [raw.HEADERS]
    answer = peer.answers[1]
    assert (answer.headers[":status"], answer.headers["content-type"]) == ("200", "application/grpc")
    assert (answer.trailers["grpc-status"], answer.trailers["grpc-message"]) == ("5", "%C3%A9%25%0A")


async def test_an_error_behind_items_is_in_trailers(peer):
    await peer.send(raw.call(1, "/Trouble/Fail", failing("NOT_FOUND", "é%\n", 1)))
    answer = await peer.answer(1)
    assert len(answer.messages) == 1
    assert "grpc-status" not in answer.headers
    assert ":status" not in answer.trailers
    assert (answer.trailers["grpc-status"], answer.trailers["grpc-message"]) == ("5", "%C3%A9%25%0A")


async def test_the_details_are_a_status_with_the_error_in_a_value(peer):
    await peer.send(raw.call(1, "/Trouble/Fail", failing("NOT_FOUND", "é", 0)))
    status = status_in((await peer.answer(1)).trailers)
    assert (status.code, status.message) == (5, "é")
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/google.protobuf.Value"
    error = {"code": "NOT_FOUND", "message": "é", "details": {"fields": ["a", 1, None]}}
    assert MessageToDict(Value.FromString(detail.value)) == error


# Deadlines


@pytest.mark.parametrize(
    "timeout", ["", "1", "S", "0S", "-1S", "+1S", "1 S", "1s", "1h", "1.5S", "123456789S", "1SS", "S1", "1_0S"]
)
async def test_a_timeout_that_is_none_is_an_invalid_argument(peer, waiting, timeout):
    await peer.send(raw.call(1, "/Root/Wait", b"", (b"grpc-timeout", timeout.encode())))
    assert (await peer.answer(1)).status == raw.INVALID_ARGUMENT
    assert waiting.began == 0
    await peer.send(raw.call(3, "/Math/Add"))
    assert (await peer.answer(3)).status == raw.OK  # the connection is unharmed


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("2H", 7200), ("3M", 180), ("99999999S", 99_999_999), ("5000m", 5), ("7000000u", 7), ("99999999m", 99_999.999)],
)
async def test_each_unit_of_a_timeout_is_known(peer, waiting, eventually, timeout, seconds):
    await peer.send(raw.call(1, "/Root/Wait", b"", (b"grpc-timeout", timeout.encode())))
    await eventually(lambda: waiting.began == 1)
    assert seconds - 5 < waiting.remaining[0] <= seconds
    waiting.go_on.set()
    assert (await peer.answer(1)).status == raw.OK


@pytest.mark.parametrize("timeout", ["50m", "50000u", "1n"])
async def test_the_server_keeps_the_time_by_itself(peer, waiting, timeout):
    await peer.send(raw.call(1, "/Root/Wait", b"", (b"grpc-timeout", timeout.encode())))
    answer = await peer.answer(1)
    assert answer.status == raw.DEADLINE_EXCEEDED
    assert waiting.reasons in (["deadline_exceeded"], [])  # time may be over before the handler begins
    assert MessageToDict(status_in(answer.trailers))["details"][0]["value"]["details"] == {
        "reason": "deadline_exceeded"
    }


async def test_the_time_of_a_request_that_is_not_complete_is_over_too(peer, waiting):
    await peer.send(raw.head(1, "/Root/Wait", (b"grpc-timeout", b"50m")), raw.data(1, raw.message(b"\x08\x01")[:3]))
    assert (await peer.answer(1)).status == raw.DEADLINE_EXCEEDED
    assert waiting.began == 0


async def test_a_request_must_be_complete_in_time(build, wire, waiting):
    server = build(limits={"request_seconds": 0.1})
    waiting.add(server)
    await server.start()
    peer = await wire(server)
    await peer.send(raw.head(1, "/Root/Wait"))
    answer = await peer.answer(1)
    assert answer.status == raw.DEADLINE_EXCEEDED
    assert waiting.began == 0


async def test_a_request_that_is_reset_before_its_end_leaves_nothing(peer, server, waiting, eventually):
    for id in range(1, 101, 2):
        await peer.send(raw.head(id, "/Root/Wait"), raw.data(id, b"\0"), raw.reset(id))
    await peer.send(raw.call(101, "/Math/Add"))
    assert (await peer.answer(101)).status == raw.OK
    await eventually(lambda: not server._hub.sessions)
    assert waiting.began == 0
    (connection,) = server._hub.connections
    assert not connection.calls


# How a request may come


async def test_a_request_may_come_byte_by_byte(peer):
    for byte in raw.call(1, "/Math/Add", b"\x08\x01\x10\x02"):
        await peer.send(bytes([byte]))
    assert (await peer.answer(1)).messages == [b"\x08\x03"]


async def test_a_message_may_come_in_frames_of_a_byte_and_end_with_an_empty_one(peer):
    frames = [raw.data(1, bytes([byte])) for byte in raw.message(b"\x08\x01\x10\x02")]
    await peer.send(raw.head(1, "/Math/Add"), *frames, raw.data(1, end=True))
    assert (await peer.answer(1)).messages == [b"\x08\x03"]


async def test_a_frame_may_hold_many_items(peer):
    items = b"".join(raw.message(b"\x08\x01") for _ in range(100))
    await peer.send(raw.head(1, "/Math/Total"), raw.data(1, items, end=True))
    assert (await peer.answer(1)).messages == [b"\x08\x64\x10\x64"]


@pytest.mark.parametrize("sent", [b"", raw.message(b"") * 2, raw.message(b"") * 10_000])
async def test_a_unary_request_is_one_message(peer, sent):
    await peer.send(raw.head(1, "/Math/Add"), raw.data(1, sent, end=True))
    assert (await peer.answer(1)).status == raw.INVALID_ARGUMENT


@pytest.mark.parametrize("sent", [b"\0", raw.message(b"\x08\x01")[:-1], raw.message(b"\x08\x01") + b"\0\0"])
@pytest.mark.parametrize("path", ["/Math/Add", "/Math/Total"])
async def test_a_request_that_ends_within_a_message_is_an_invalid_argument(peer, path, sent):
    await peer.send(raw.head(1, path), raw.data(1, sent, end=True))
    assert (await peer.answer(1)).status == raw.INVALID_ARGUMENT


# How many calls


async def test_one_call_too_many_is_refused_and_the_others_are_unharmed(peer, waiting, eventually):
    await peer.send(*(raw.call(id, "/Root/Wait", b"\x08\x01") for id in range(1, 203, 2)))
    answer = await peer.answer(201)
    assert answer.reset == raw.REFUSED_STREAM
    await eventually(lambda: waiting.began == 100)
    waiting.go_on.set()
    for id in range(1, 201, 2):
        assert (await peer.answer(id)).status == raw.OK
    await peer.send(raw.call(203, "/Math/Add"))
    assert (await peer.answer(203)).status == raw.OK


async def test_how_many_is_said_beforehand(peer):
    await peer.synchronise()
    assert peer.settings[raw.MAX_CONCURRENT_STREAMS] == 100


# The head


async def test_a_unary_call_has_its_head_after_a_tenth_of_a_second(peer, waiting):
    async def head_of(stream: int) -> float:
        """In how many seconds the head of a silent call has come."""
        since = time.monotonic()
        await peer.send(raw.call(stream, "/Root/Early"))
        await peer.until(lambda: stream in peer.answers)
        assert peer.answers[stream].headers["x-early"] == "yes"
        assert not peer.answers[stream].messages
        return time.monotonic() - since

    assert 0.08 < min([await head_of(stream) for stream in (1, 3, 5)]) < 0.3
    waiting.go_on.set()
    assert [(await peer.answer(stream)).status for stream in (1, 3, 5)] == [raw.OK] * 3


@pytest.mark.parametrize(("fails", "status"), [(False, raw.OK), (True, raw.INTERNAL)])
async def test_initial_metadata_have_a_head_of_their_own_when_no_item_comes(build, wire, fails, status):
    """Grpcio does not show it: it forgets a head when the end comes with it."""

    async def nothing(input: Pair, ctx: Context) -> AsyncIterator[int]:
        ctx.initial_metadata["x-early"] = "yes"
        ctx.trailing_metadata["x-late"] = "yes"
        if fails:
            raise ValueError
        return
        yield

    server = build()
    server.stream("nothing").handler(nothing)
    await server.start()
    peer = await wire(server)
    await peer.send(raw.call(1, "/Root/Nothing"))
    answer = await peer.answer(1)
    assert answer.headers == {**answer.headers, ":status": "200", "x-early": "yes"}
    assert "x-late" not in answer.headers
    assert answer.trailers == {**answer.trailers, "grpc-status": str(status), "x-late": "yes"}
    assert "x-early" not in answer.trailers


# Compression


async def body(peer: raw.Raw, stream: int) -> bytes:
    """All DATA of an answer."""
    found = b""
    while stream not in peer.answers or not peer.answers[stream].over:
        found += b"".join(one.payload for one in await peer.receive() if (one.type, one.stream) == (raw.DATA, stream))
    return found


async def test_a_client_that_compresses_is_answered_alike(peer):
    await peer.send(raw.head(1, "/Math/Count", GZIP))
    await peer.send(raw.data(1, raw.message(gzip.compress(b"\x08\x01\x10\x80\x08"), 1), end=True))
    found = await body(peer, 1)
    assert peer.answers[1].headers["grpc-encoding"] == "gzip"
    assert found[:5] == b"\x01" + (len(found) - 5).to_bytes(4, "big")
    assert b"." * 1024 in gzip.decompress(found[5:])
    assert len(found) < 100


async def test_a_client_that_says_gzip_may_send_plain_messages(peer):
    await peer.send(raw.call(1, "/Math/Add", b"\x08\x01\x10\x02", GZIP))
    found = await body(peer, 1)
    assert (found[0], gzip.decompress(found[5:])) == (1, b"\x08\x03")


async def test_a_client_that_does_not_is_answered_plainly(peer):
    await peer.send(raw.call(1, "/Math/Add", b"\x08\x01\x10\x02", (b"grpc-accept-encoding", b"gzip")))
    assert await body(peer, 1) == raw.message(b"\x08\x03")
    assert peer.answers[1].headers.get("grpc-encoding", "identity") == "identity"
    assert peer.answers[1].headers["grpc-accept-encoding"] == "identity,gzip"


async def test_an_unknown_encoding_is_unimplemented_and_says_what_is_known(peer):
    await peer.send(raw.call(1, "/Math/Add", b"", (b"grpc-encoding", b"snappy")))
    answer = await peer.answer(1)
    assert answer.status == raw.UNIMPLEMENTED
    assert answer.headers["grpc-accept-encoding"] == "identity,gzip"


async def test_a_compressed_message_without_an_encoding_is_an_internal_error(peer):
    await peer.send(raw.head(1, "/Math/Add"), raw.data(1, raw.message(gzip.compress(b""), 1), end=True))
    assert (await peer.answer(1)).status == raw.INTERNAL


# What is gRPC


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/grpc", 0),
        ("application/grpc+proto", 0),
        ("application/grpc+json", 12),
        ("application/grpc-web", 12),
    ],
)
async def test_each_content_type_of_grpc(peer, content_type, status):
    fields = [(key, value) for key, value in raw.fields("/Math/Add") if key != b"content-type"]
    block = raw.block([*fields, (b"content-type", content_type.encode())])
    await peer.send(raw.frame(raw.HEADERS, raw.END_HEADERS, 1, block), raw.data(1, raw.message(b""), end=True))
    assert (await peer.answer(1)).status == status


@pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain", "application/proto"])
async def test_anything_else_is_misdirected(peer, content_type):
    fields = [(key, value) for key, value in raw.fields("/Math/Add") if key != b"content-type"]
    if content_type is not None:
        fields.append((b"content-type", content_type.encode()))
    block = raw.block(fields)
    await peer.send(raw.frame(raw.HEADERS, raw.END_HEADERS, 1, block), raw.data(1, raw.message(b""), end=True))
    answer = await peer.answer(1)
    assert answer.headers[":status"] == "421"
    await peer.send(raw.call(3, "/Math/Add"))
    assert (await peer.answer(3)).status == raw.OK
