"""The bounds of every field, of a message and of a connection, to the byte."""

from __future__ import annotations

import asyncio
import json

import pytest

MAX_CREDIT = 2**31 - 1
LIMIT = 1024 * 1024


def code(message: dict) -> tuple[str, str | None, str]:
    """The type, the id and the code of an error."""
    return message["type"], message.get("id"), message["payload"]["code"]


# Ids


async def test_an_id_may_have_1_to_128_bytes(wire):
    for id in ("x", "x" * 128, "é" * 64, "🦜" * 32, '"' * 128, "\x01" * 128):
        await wire.open(id, "count", {"to": 1})
        assert [(await wire.receive())["id"] for _ in range(2)] == [id, id]


@pytest.mark.parametrize("kind", ["request", "stream:start", "stream:data", "stream:end", "stream:credit", "cancel"])
async def test_any_other_id_is_none(wire, kind):
    for id in ("", "x" * 129, "é" * 64 + "x", "🦜" * 33, "x" * 100_000):
        await wire.send({"type": kind, "id": id, "procedure": "same", "credit": 1})
        assert code(await wire.receive()) == ("error", None, "INVALID_ENVELOPE")
    assert await wire.silent()


async def test_an_id_is_measured_as_text_not_as_it_was_escaped(wire):
    await wire.send('{"type":"request","id":"%s","procedure":"same","payload":1}' % ("\\u0041" * 128))
    assert (await wire.receive())["id"] == "A" * 128


# Procedures


async def test_a_procedure_may_have_512_bytes(wire):
    for rest in ("x" * 504, "é" * 252, "x." * 252):
        name = f"rooms/1/{rest}"
        assert len(name.encode()) == 512
        await wire.open("s", name)
        assert (await wire.until("stream:end", "stream:error"))[0]["payload"]["params"]["rest"] == rest


@pytest.mark.parametrize(("kind", "answer"), [("request", "error"), ("stream:start", "stream:error")])
async def test_a_procedure_of_more_is_refused(wire, kind, answer):
    for rest in ("x" * 505, "é" * 252 + "x", "🦜" * 127):
        await wire.send({"type": kind, "id": "s", "procedure": f"rooms/1/{rest}"})
        assert code(await wire.receive()) == (answer, "s", "INVALID_ENVELOPE")


# Last event ids


async def test_a_last_event_id_may_have_256_bytes(wire):
    for id in ("x" * 256, "é" * 128, "🦜" * 64):
        await wire.open("s", "tell", lastEventId=id)
        assert (await wire.until("stream:end", "stream:error"))[0]["payload"]["last_event_id"] == id


async def test_a_last_event_id_of_more_is_refused(wire):
    for id in ("x" * 257, "é" * 128 + "x"):
        await wire.open("s", "tell", lastEventId=id)
        assert code(await wire.receive()) == ("stream:error", "s", "INVALID_ENVELOPE")


# Metadata


def entries(count: int) -> dict:
    return {f"k{number}": str(number) for number in range(count)}


async def test_metadata_may_have_64_entries(wire):
    await wire.request("m", "told", metadata=entries(64))
    assert entries(64).items() <= (await wire.receive())["payload"]["metadata"].items()


async def test_metadata_of_more_entries_is_refused(wire):
    await wire.request("m", "told", metadata=entries(65))
    assert code(await wire.receive()) == ("error", "m", "INVALID_ENVELOPE")


async def test_metadata_may_have_16_kib(wire):
    for key, value in (("x", "." * 16383), ("x" * 16383, "."), ("é", "é" * 8191), ("x", [1] * 8191)):
        await wire.request("m", "told", metadata={key: value})
        found = (await wire.receive())["payload"]["metadata"][key]
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        assert found == text and len((key + text).encode()) == 16 * 1024


TOO_MUCH = [
    {"x": "." * 16384},
    {"x" * 16384: "."},
    {"é": "é" * 8191 + "x"},
    {"xx": [1] * 8191},
    {"a": "." * 8192, "b": "." * 8192},
]


@pytest.mark.parametrize(("kind", "answer"), [("request", "error"), ("stream:start", "stream:error")])
async def test_metadata_of_more_is_refused(wire, kind, answer):
    for metadata in TOO_MUCH:
        await wire.send({"type": kind, "id": "m", "procedure": "told", "metadata": metadata})
        assert code(await wire.receive()) == (answer, "m", "INVALID_ENVELOPE")


# Priority


async def test_a_priority_is_from_minus_128_to_127(wire):
    for priority in (-128, -1, 0, 127):
        await wire.open("s", "count", {"to": 0}, priority=priority)
        assert (await wire.receive())["type"] == "stream:end"


async def test_any_other_priority_is_refused(wire):
    for priority in (-129, 128, 2**63, 1.5, "1", True, [], {}):
        await wire.open("s", "count", {"to": 0}, priority=priority)
        assert (priority, *code(await wire.receive())) == (priority, "stream:error", "s", "INVALID_ENVELOPE")


# Credit

NO_CREDIT = [0, -1, MAX_CREDIT + 1, 2**64, 1.5, "1", True, []]


@pytest.mark.parametrize("credit", [1, MAX_CREDIT])
async def test_a_credit_is_from_1_to_the_maximum(wire, credit):
    await wire.open("s", "count", {"to": 1}, credit=credit)
    assert [(await wire.receive())["type"] for _ in range(2)] == ["stream:data", "stream:end"]


async def test_any_other_credit_at_the_opening_is_refused(wire):
    for credit in NO_CREDIT:
        await wire.open("s", "count", {"to": 1}, credit=credit)
        assert (credit, *code(await wire.receive())) == (credit, "stream:error", "s", "INVALID_ENVELOPE")


async def test_any_other_grant_is_refused_and_the_stream_goes_on(wire):
    await wire.open("s", "count", {"to": 2}, credit=1)
    await wire.receive()
    for credit in NO_CREDIT:
        await wire.credit("s", credit)
        assert (credit, *code(await wire.receive())) == (credit, "error", "s", "INVALID_ENVELOPE")
    await wire.credit("s", 1)
    assert [(await wire.receive())["type"] for _ in range(2)] == ["stream:data", "stream:end"]


async def test_a_sum_of_the_maximum_is_granted(build, connect):
    server, go_on = build(), asyncio.Event()

    @server.stream("later")
    async def later():
        await go_on.wait()
        yield 1

    await server.start()
    wire = await connect(server)
    await wire.open("s", "later", credit=1)
    await wire.credit("s", MAX_CREDIT - 1)
    assert await wire.silent()
    await wire.credit("s", 1)
    assert code(await wire.receive()) == ("error", "s", "INVALID_ENVELOPE")
    go_on.set()
    assert [(await wire.receive())["type"] for _ in range(2)] == ["stream:data", "stream:end"]


# Messages


def request_of(size: int) -> str:
    """A request of so many bytes."""
    text = json.dumps({"type": "request", "id": "big", "procedure": "same", "payload": ""})
    return text.replace('""', '"%s"' % ("." * (size - len(text))))


@pytest.mark.parametrize("limit", [100, 125, 126, 65535, 65536, LIMIT])
async def test_a_message_of_exactly_the_limit_is_accepted(build, connect, limit):
    server = build(limits={"message_bytes": limit})
    await server.start()
    wire = await connect(server)
    message = request_of(limit)
    assert len(message) == limit
    await wire.send(message)
    assert (await wire.receive())["payload"] == json.loads(message)["payload"]


async def test_the_limit_is_1_mib_unless_configured(wire):
    await wire.send(request_of(LIMIT))
    assert (await wire.receive())["type"] == "response"
    await wire.send(request_of(LIMIT + 1))
    assert code(await wire.receive()) == ("error", None, "MESSAGE_TOO_LARGE")


@pytest.mark.parametrize("excess", [1, 100_000])
async def test_a_larger_message_is_an_error_and_the_end(build, connect, protocol, excess):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await connect(server)
    await wire.send(request_of(1000 + excess))
    assert [code(message) for message in await wire.rest()] == [("error", None, "MESSAGE_TOO_LARGE")]
    if protocol == "websocket":
        assert wire.code == 1009


async def test_too_large_a_message_is_known_by_its_head(build, connect, protocol):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await connect(server)
    wire.raw(b"\x81\xfe\x03\xe9\0\0\0\0" if protocol == "websocket" else b"\0\0\x03\xe9")
    assert [code(message) for message in await wire.rest()] == [("error", None, "MESSAGE_TOO_LARGE")]


async def test_the_end_for_a_message_too_large_ends_all_calls(build, connect, eventually):
    server, reasons = build(limits={"message_bytes": 1000}), []

    @server.stream("open")
    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    wire = await connect(server)
    await wire.open("s", "open")
    await wire.receive()
    await wire.send(request_of(1001))
    assert [code(message) for message in await wire.rest()] == [("error", None, "MESSAGE_TOO_LARGE")]
    await eventually(lambda: reasons == ["client_disconnected"])


async def test_what_was_sent_before_it_is_answered_before_it(build, connect):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await connect(server)
    await wire.send("x", request_of(1001))
    assert [message["payload"]["code"] for message in await wire.rest()] == ["PARSE_ERROR", "MESSAGE_TOO_LARGE"]


async def test_what_comes_behind_too_large_a_message_is_not_looked_at(build, connect):
    server, ran = build(limits={"message_bytes": 1000}), []

    @server.procedure("run")
    async def run():
        ran.append(1)

    await server.start()
    wire = await connect(server)
    await wire.send(request_of(1001), {"type": "request", "id": "r", "procedure": "run"})
    await wire.rest()
    assert ran == []


async def test_an_answer_may_be_larger_than_what_is_accepted(build, connect):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await connect(server)
    await wire.open("s", "count", {"to": 2, "size": 100_000})
    assert [len(message.get("payload", {}).get("_", "")) for message in await wire.until("stream:end")] == [
        100_000,
        100_000,
        0,
    ]


# Calls of a connection


async def hundred(wire, count: int) -> None:
    for number in range(count):
        await wire.request(f"r{number}", "hang")


async def test_a_connection_may_have_100_calls_open(wire):
    await hundred(wire, 99)
    assert await wire.silent()


@pytest.mark.parametrize(("kind", "answer"), [("request", "error"), ("stream:start", "stream:error")])
async def test_one_more_is_refused_and_the_others_go_on(wire, kind, answer):
    await wire.open("b", "echo")
    await hundred(wire, 99)
    await wire.send({"type": kind, "id": "more", "procedure": "same" if kind == "request" else "count"})
    assert code(await wire.receive()) == (answer, "more", "RESOURCE_EXHAUSTED")
    await wire.item("b", 1)
    assert await wire.receive() == {"type": "stream:data", "id": "b", "payload": 1}


async def test_the_place_of_a_call_that_ended_is_free_again(build, connect):
    server = build(limits={"streams_per_connection": 2})
    await server.start()
    wire = await connect(server)
    await hundred(wire, 2)
    await wire.request("more", "same")
    assert code(await wire.receive()) == ("error", "more", "RESOURCE_EXHAUSTED")
    await wire.cancel("r0")
    assert code(await wire.receive()) == ("error", "r0", "CANCELLED")
    assert await wire.silent()


async def test_each_connection_has_its_own(build, connect):
    server = build(limits={"streams_per_connection": 1})
    await server.start()
    one, other = await connect(server), await connect(server)
    await one.request("r", "hang")
    assert await other.silent()
