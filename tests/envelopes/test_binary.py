"""Bytes as they are: messages whose payload lies behind their envelope, both ways, over WebSocket and TCP."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator

import pytest

from raffel_core import Context, Event, RaffelError

EVERY = bytes(range(256))


def code(message: dict) -> tuple[str, str | None, str]:
    """The type, the id and the code of an error."""
    return message["type"], message.get("id"), message["payload"]["code"]


def binary(envelope: dict | bytes, payload: bytes = b"", *, size: int | None = None) -> bytes:
    """A binary message; `size` is what it says of the envelope's length, where that is not the truth."""
    head = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    return b"\x01" + (len(head) if size is None else size).to_bytes(2, "big") + head + payload


def item(id: str, payload: bytes) -> bytes:
    return binary({"type": "stream:data", "id": id}, payload)


def text(payload: bytes) -> str:
    return b64encode(payload).decode()


# From the client


@pytest.mark.parametrize("payload", [b"", b"\0", b"\x01", EVERY, b"{}", b"\xff" * 100_000], ids=len)
async def test_a_binary_item_reaches_the_handler_as_it_is(wire, payload):
    await wire.open("u", "join")
    await wire.send(item("u", payload))
    await wire.finish("u")
    assert await wire.receive() == {"type": "response", "id": "u", "payload": text(payload)}


async def test_items_may_be_binary_and_base64_by_turns(wire):
    await wire.open("u", "join")
    await wire.send(item("u", b"a"))
    await wire.item("u", text(b"b"))
    await wire.send(item("u", b"c"))
    await wire.finish("u")
    assert (await wire.receive())["payload"] == text(b"abc")


async def test_a_request_may_be_binary(wire):
    await wire.send(binary({"type": "request", "id": "r", "procedure": "reverse"}, EVERY))
    assert await wire.receive() == {"type": "response", "id": "r", "payload": text(EVERY[::-1])}


async def test_the_opening_of_a_client_stream_may_be_binary(build, connect):
    server = build()

    @server.stream("opened", direction="client")
    async def opened(items: AsyncIterator[bytes], ctx: Context):
        return [type(ctx.input).__name__, ctx.input.hex()]

    await server.start()
    wire = await connect(server)
    await wire.send(binary({"type": "stream:start", "id": "u", "procedure": "opened"}, b"\0\xff"))
    assert (await wire.receive())["payload"] == ["bytes", "00ff"]


async def test_the_input_of_a_server_stream_may_be_binary(build, connect):
    server = build()

    @server.stream("split")
    async def split(input: bytes) -> AsyncIterator[bytes]:
        for byte in input:
            yield bytes([byte])

    await server.start()
    wire = await connect(server)
    start = {"type": "stream:start", "id": "s", "procedure": "split", "binary": True}
    await wire.send(binary(start, b"\0\xff"))
    assert [message.get("payload") for message in await wire.until("stream:end")] == [b"\0", b"\xff", None]


async def test_a_message_that_needs_no_payload_may_be_binary(wire):
    await wire.open("u", "join")
    await wire.send(binary({"type": "stream:end", "id": "u"}))
    assert (await wire.receive())["payload"] == ""
    await wire.open("b", "mirror")
    await wire.send(binary({"type": "cancel", "id": "b"}))
    assert code(await wire.receive()) == ("stream:error", "b", "CANCELLED")


async def test_an_envelope_may_have_65535_bytes(wire):
    envelope = {"type": "request", "id": "r", "procedure": "reverse", "ignored": ""}
    envelope["ignored"] = "." * (65535 - len(json.dumps(envelope)))
    await wire.send(binary(envelope, b"ab"))
    assert (await wire.receive())["payload"] == text(b"ba")


# To the client


async def test_a_stream_opened_as_binary_has_its_items_so(wire):
    await wire.open("s", "blobs", {"to": 3}, binary=True)
    assert await wire.until("stream:end") == [
        {"type": "stream:data", "id": "s", "payload": b"\0"},
        {"type": "stream:data", "id": "s", "payload": b"\1"},
        {"type": "stream:data", "id": "s", "payload": b"\2"},
        {"type": "stream:end", "id": "s"},
    ]


@pytest.mark.parametrize("fields", [{}, {"binary": False}, {"binary": None}], ids=repr)
async def test_any_other_stream_has_them_in_base64(wire, fields):
    await wire.open("s", "blobs", {"to": 2, "size": 2}, **fields)
    payloads = [message.get("payload") for message in await wire.until("stream:end")]
    assert payloads == [text(b"\0\0"), text(b"\1\1"), None]


@pytest.mark.parametrize("size", [1, 60, 125, 126, 65_500, 65_536, 300_000])
async def test_a_binary_item_may_have_any_size(wire, size):
    await wire.open("s", "blobs", {"to": 2, "size": size}, binary=True)
    payloads = [message["payload"] for message in (await wire.until("stream:end"))[:-1]]
    assert payloads == [b"\0" * size, b"\1" * size]


async def test_bytes_go_both_ways(wire):
    await wire.open("b", "mirror", binary=True)
    for payload in (b"", EVERY, b"\x01\0\0"):
        await wire.send(item("b", payload))
        assert await wire.receive() == {"type": "stream:data", "id": "b", "payload": payload}
    await wire.item("b", text(b"base64"))
    assert (await wire.receive())["payload"] == b"base64"
    await wire.finish("b")
    assert await wire.receive() == {"type": "stream:end", "id": "b"}


async def test_the_response_of_a_client_stream_opened_as_binary_is_so(wire):
    await wire.open("u", "join", binary=True)
    await wire.send(item("u", EVERY))
    await wire.finish("u")
    assert await wire.receive() == {"type": "response", "id": "u", "payload": EVERY}


async def test_the_response_of_any_other_client_stream_is_in_base64(wire):
    await wire.open("u", "join")
    await wire.send(item("u", EVERY))
    await wire.finish("u")
    assert await wire.receive() == {"type": "response", "id": "u", "payload": text(EVERY)}


async def test_the_response_of_a_request_is_in_base64_for_it_is_no_stream(wire):
    await wire.request("r", "reverse", text(b"ab"), binary=True)
    assert await wire.receive() == {"type": "response", "id": "r", "payload": text(b"ba")}


async def test_an_items_id_is_in_its_binary_envelope(build, connect):
    server = build()

    @server.stream("ids")
    async def ids() -> AsyncIterator[bytes]:
        yield Event(b"a", id="é")
        yield b"b"
        yield Event(b"c", id=3)

    await server.start()
    wire = await connect(server)
    await wire.open("s", "ids", binary=True)
    assert (await wire.until("stream:end"))[:-1] == [
        {"type": "stream:data", "id": "s", "payload": b"a", "eventId": "é"},
        {"type": "stream:data", "id": "s", "payload": b"b"},
        {"type": "stream:data", "id": "s", "payload": b"c", "eventId": "3"},
    ]


@pytest.mark.parametrize("item", [bytearray(b"ab"), memoryview(b"ab")], ids=lambda item: type(item).__name__)
async def test_whatever_holds_bytes_is_sent_as_bytes(build, connect, item):
    server = build()

    @server.stream("kin")
    async def kin() -> AsyncIterator[bytes]:
        yield item

    await server.start()
    wire = await connect(server)
    await wire.open("s", "kin", binary=True)
    assert (await wire.receive())["payload"] == b"ab"


async def test_an_item_that_is_not_bytes_ends_a_binary_stream(build, connect):
    server = build()

    @server.stream("wrong")
    async def wrong() -> AsyncIterator[bytes]:
        yield b"right"
        yield "wrong"

    await server.start()
    wire = await connect(server)
    await wire.open("s", "wrong", binary=True)
    assert (await wire.receive())["payload"] == b"right"
    assert code(await wire.receive()) == ("stream:error", "s", "OUTPUT_VALIDATION_ERROR")


async def test_the_errors_of_a_binary_stream_are_json(build, connect):
    server = build()

    @server.stream("fail")
    async def fail() -> AsyncIterator[bytes]:
        yield b"a"
        raise RaffelError("DATA_LOSS", "gone")

    await server.start()
    wire = await connect(server)
    await wire.open("s", "fail", binary=True)
    await wire.receive()
    assert code(await wire.receive()) == ("stream:error", "s", "DATA_LOSS")


@pytest.mark.parametrize("procedure", ["count", "wait"])
async def test_a_stream_without_bytes_stays_json_where_binary_is_asked_for(wire, procedure):
    await wire.open("s", procedure, {"to": 1}, binary=True)
    assert (await wire.receive())["payload"] in ({"n": 0}, "waiting")


async def test_every_end_follows_all_binary_items_of_its_stream(wire):
    await wire.open("s", "blobs", {"to": 200, "size": 10_000}, binary=True)
    messages = await wire.until("stream:end")
    assert [message["payload"][0] for message in messages[:-1]] == list(range(200))


async def test_binary_and_other_streams_share_a_connection(wire):
    await wire.open("raw", "blobs", {"to": 100}, binary=True)
    await wire.open("json", "count", {"to": 100})
    await wire.open("base64", "blobs", {"to": 100})
    seen = {"raw": [], "json": [], "base64": []}
    for _ in range(303):
        message = await wire.receive()
        seen[message["id"]].append(message.get("payload"))
    assert seen["raw"] == [*(bytes([number]) for number in range(100)), None]
    assert seen["json"] == [*({"n": number} for number in range(100)), None]
    assert seen["base64"] == [*(text(bytes([number])) for number in range(100)), None]


# Where bytes are not wanted


async def test_a_binary_item_for_a_schema_of_another_type_is_a_bad_item(wire):
    await wire.open("u", "total")
    await wire.send(item("u", b"1"))
    error = await wire.receive()
    assert code(error) == ("stream:error", "u", "VALIDATION_ERROR")
    assert error["payload"]["details"] == [{"path": "", "message": "Expected int, got bytes"}]


async def test_a_binary_request_for_a_schema_of_another_type_is_refused(wire):
    await wire.send(binary({"type": "request", "id": "r", "procedure": "add"}, b'{"a":1,"b":2}'))
    assert code(await wire.receive()) == ("error", "r", "VALIDATION_ERROR")


async def test_a_binary_start_for_a_schema_of_another_type_is_refused(wire):
    await wire.send(binary({"type": "stream:start", "id": "s", "procedure": "count"}, b"{}"))
    assert code(await wire.receive()) == ("stream:error", "s", "VALIDATION_ERROR")


async def test_base64_that_is_none_is_a_bad_item(wire):
    await wire.open("u", "join")
    await wire.item("u", "no base64!")
    assert code(await wire.receive()) == ("stream:error", "u", "VALIDATION_ERROR")


# The rules are the same


@pytest.mark.parametrize(
    ("message", "id", "expected"),
    [
        (b"\x01", None, "INVALID_ENVELOPE"),
        (b"\x01\0", None, "INVALID_ENVELOPE"),
        (binary(b'{"type":"cancel","id":"x"}', size=27), None, "INVALID_ENVELOPE"),
        (binary(b'{"type":"cancel","id":"x"}', size=65535), None, "INVALID_ENVELOPE"),
        (
            binary({"type": "request", "id": "x", "procedure": "reverse", "payload": "YQ=="}, b"a"),
            "x",
            "INVALID_ENVELOPE",
        ),
        (binary(b"[]"), None, "INVALID_ENVELOPE"),
        (binary({"type": "cancel"}), None, "INVALID_ENVELOPE"),
        (binary({"type": "cancel", "id": "x" * 129}), None, "INVALID_ENVELOPE"),
        (binary({"type": "subscribe", "id": "x"}, b"a"), "x", "INVALID_TYPE"),
        (binary({"type": "stream:data", "id": "x"}, b"a"), "x", "NOT_FOUND"),
        (binary({"type": "request", "id": "x", "procedure": "nowhere"}, b"a"), "x", "NOT_FOUND"),
        (binary({"type": "request", "id": "x", "procedure": "blobs"}, b"a"), "x", "UNIMPLEMENTED"),
    ],
)
async def test_a_binary_message_that_cannot_be_followed_is_an_error(wire, message, id, expected):
    await wire.send(message)
    assert code(await wire.receive()) == ("error", id, expected)
    assert await wire.silent()


@pytest.mark.parametrize(
    "envelope",
    [b"", b"x", b'{"type":"cancel","id":"x"', b'{"type":"cancel","id":"\xff"}', b"[" * 513 + b"]" * 513],
    ids=["empty", "no json", "cut", "no utf-8", "deep"],
)
async def test_an_envelope_that_is_no_json_is_a_parse_error(wire, envelope):
    await wire.send(binary(envelope, b"payload"))
    assert code(await wire.receive()) == ("error", None, "PARSE_ERROR")
    assert await wire.silent()


async def test_a_payload_beside_the_bytes_of_a_start_is_answered_by_stream_error(wire):
    await wire.send(binary({"type": "stream:start", "id": "s", "procedure": "blobs", "payload": {}}, b"a"))
    assert code(await wire.receive()) == ("stream:error", "s", "INVALID_ENVELOPE")


async def test_a_payload_beside_the_bytes_of_an_item_harms_no_stream(wire):
    await wire.open("b", "mirror", binary=True)
    await wire.send(binary({"type": "stream:data", "id": "b", "payload": "YQ=="}, b"a"))
    assert code(await wire.receive()) == ("error", "b", "INVALID_ENVELOPE")
    await wire.send(item("b", b"c"))
    assert (await wire.receive())["payload"] == b"c"


async def test_binary_data_for_a_server_stream_is_an_error_and_the_stream_goes_on(wire):
    await wire.open("s", "wait")
    await wire.receive()
    await wire.send(item("s", b"a"))
    assert code(await wire.receive()) == ("error", "s", "FAILED_PRECONDITION")
    await wire.cancel("s")
    assert code(await wire.receive()) == ("stream:error", "s", "CANCELLED")


async def test_late_binary_data_is_dropped_in_silence(wire):
    await wire.request("x", "same")
    await wire.receive()
    await wire.send(item("x", b"late"))
    assert await wire.silent()


async def test_a_binary_message_of_exactly_the_limit_is_accepted(build, connect):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await connect(server)
    start = {"type": "request", "id": "r", "procedure": "reverse"}
    room = 1000 - len(binary(start))
    await wire.send(binary(start, b"a" * room))
    assert (await wire.receive())["payload"] == text(b"a" * room)
    await wire.send(binary(start, b"a" * (room + 1)))
    assert code(await wire.receive()) == ("error", None, "MESSAGE_TOO_LARGE")
    assert await wire.rest() == []


async def test_binary_items_count_against_credit(wire):
    await wire.open("s", "blobs", {"to": 3}, binary=True, credit=1)
    assert (await wire.receive())["payload"] == b"\0"
    assert await wire.silent()
    await wire.credit("s", 2)
    assert [message.get("payload") for message in await wire.until("stream:end")] == [b"\1", b"\2", None]


# What is special to WebSocket


async def test_any_other_binary_websocket_message_is_read_as_json(server, websocket):
    wire = await websocket(server)
    await wire.send(
        json.dumps({"type": "request", "id": "é", "procedure": "same", "payload": "ü"}, ensure_ascii=False).encode()
    )
    assert await wire.receive() == {"type": "response", "id": "é", "payload": "ü"}


@pytest.mark.parametrize(
    "message", [b"", b"\xff", b"\0\0\0\x02{}", b"\x02{}", b'{"type":"cancel","id":"\xff"}'], ids=repr
)
async def test_one_that_is_none_is_a_parse_error(server, websocket, message):
    wire = await websocket(server)
    await wire.send(message)
    assert code(await wire.receive()) == ("error", None, "PARSE_ERROR")
    assert await wire.silent()


async def test_the_answers_to_binary_json_are_text(server, websocket):
    wire = await websocket(server)
    await wire.send(b'{"type":"request","id":"r","procedure":"same","payload":1}')
    async with asyncio.timeout(5):
        assert isinstance(await wire.connection.recv(), str)


async def test_a_text_message_is_never_binary(server, websocket):
    wire = await websocket(server)
    await wire.send(binary({"type": "request", "id": "r", "procedure": "reverse"}, b"ab").decode())
    assert code(await wire.receive()) == ("error", None, "PARSE_ERROR")


async def test_a_binary_message_may_come_in_fragments(server, websocket):
    wire = await websocket(server)
    message = binary({"type": "request", "id": "r", "procedure": "reverse"}, b"abc")
    await wire.connection.send([message[:1], message[1:2], message[2:-1], message[-1:]])
    assert (await wire.receive())["payload"] == text(b"cba")


# What is special to TCP


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"cancel","id":"\xff"}',
        b'{"type":"cancel","id":"x","ignored":"\xc3"}',
        b'{"type":"cancel","id":"x"}\xff',
    ],
    ids=repr,
)
async def test_invalid_utf_8_is_a_parse_error(server, tcp, message):
    wire = await tcp(server)
    await wire.send(message)
    assert code(await wire.receive()) == ("error", None, "PARSE_ERROR")
    assert await wire.silent()


async def test_invalid_utf_8_in_a_payload_is_a_parse_error_and_harms_no_stream(server, tcp):
    wire = await tcp(server)
    await wire.open("b", "echo")
    await wire.send(b'{"type":"stream:data","id":"b","payload":"\xff"}')
    error = await wire.receive()
    assert (error["type"], error["payload"]["code"]) == ("error", "PARSE_ERROR")
    await wire.item("b", 1)
    assert await wire.receive() == {"type": "stream:data", "id": "b", "payload": 1}
