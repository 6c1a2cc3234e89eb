"""Messages that come in a row, as one write: each is looked at as if it came alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from raffel_core import RaffelError


class Named(msgspec.Struct):
    n: int
    name: str = ""


def code(message: dict) -> tuple[str, str | None, str]:
    """The type, the id and the code of an error."""
    return message["type"], message.get("id"), message["payload"]["code"]


def start(id: str, procedure: str) -> dict:
    return {"type": "stream:start", "id": id, "procedure": procedure}


def item(id: str, payload: object) -> dict:
    return {"type": "stream:data", "id": id, "payload": payload}


def end(id: str) -> dict:
    return {"type": "stream:end", "id": id}


@pytest.fixture
async def wire(build, connect):
    """A connection to a server that tells what its handlers read: of items with a type, and bad ones by their codes."""
    server = build()

    async def read(items, what):
        while True:
            try:
                async for item in items:
                    what.append(item)
                return what
            except RaffelError as error:
                what.append(error.code)

    @server.stream("ints", direction="client")
    async def ints(items: AsyncIterator[int]):
        return await read(items, [])

    @server.stream("named", direction="client")
    async def named(items: AsyncIterator[Named]):
        return await read(items, [])

    @server.stream("texts", direction="client")
    async def texts(items: AsyncIterator[str]):
        return await read(items, [])

    @server.stream("lists", direction="client")
    async def lists(items: AsyncIterator[list]):
        return await read(items, [])

    @server.stream("first", direction="client")
    async def first(items: AsyncIterator[int]):
        return await anext(items)

    await server.start()
    return await connect(server)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 5000])
async def test_items_in_a_row_are_read_in_order(wire, count):
    wire.burst(start("u", "ints"), *(item("u", number) for number in range(count)), end("u"))
    assert (await wire.receive())["payload"] == list(range(count))


SIZES = range(1, 600, 7)
ITEMS = {
    "ints": [10**digits for digits in range(18)],
    "named": [{"n": size, "name": "." * size} for size in SIZES],
    "texts": [("é" if size % 3 else ".") * size for size in SIZES],
    "lists": [list(range(size)) for size in SIZES],
}


@pytest.mark.parametrize("procedure", ITEMS)
async def test_items_of_any_size_are_read_in_a_row(wire, procedure):
    wire.burst(start("u", procedure), *(item("u", payload) for payload in ITEMS[procedure]), end("u"))
    assert (await wire.receive())["payload"] == ITEMS[procedure]


async def test_items_of_streams_by_turns_are_told_apart(wire):
    ids = ["u", "v", "uu"]
    rows = [item(id, number) for number in range(200) for id in ids[: 1 + number % 3]]
    wire.burst(*(start(id, "ints") for id in ids), *rows, *map(end, ids))
    answers = {message["id"]: message["payload"] for message in [await wire.receive() for _ in ids]}
    assert answers == {id: [row["payload"] for row in rows if row["id"] == id] for id in ids}


async def test_a_bad_item_in_a_row_raises_in_its_place(wire):
    wire.burst(start("u", "ints"), *(item("u", payload) for payload in (1, 2, "three", 4, None, 6)), end("u"))
    assert (await wire.receive())["payload"] == [1, 2, "VALIDATION_ERROR", 4, "VALIDATION_ERROR", 6]


async def test_items_in_a_row_may_be_written_in_any_way(wire):
    wire.burst(
        start("u", "ints"),
        '{"type":"stream:data","id":"u","payload":1}',
        '{"type":"stream:data","id":"u","payload":2}',
        '{"type":"stream:data","id":"u","payload": 3 }',
        '{"type":"stream:data","id":"u","payload":4,"x":5}',
        '{"type":"stream:data","id":"u","payload":5,"payload":6}',
        '{"type":"stream:data","id":"u","payload":7}\n',
        ' {"type":"stream:data","id":"u","payload":8}',
        '{"id":"u","payload":9,"type":"stream:data"}',
        '{"payload":10,"type":"stream:data","id":"u"}',
        '{"type":"stream:data","id":"\\u0075","payload":11}',
        '{"type":"stream:data","id":"u","é":1,"payload":12}',
        '{"type":"stream:data","id":"u","x":{"payload":1},"payload":13}',
        '{"type":"stream:data","id":"u","x":{"payload":1},"payload":14}',
        b'{"type":"stream:data","id":"u","payload":15}',
        '{"type":"stream:data","id":"u","payload":16}',
        end("u"),
    )
    assert (await wire.receive())["payload"] == [1, 2, 3, 4, *range(6, 17)]


NO_ITEMS = {
    '{"type":"stream:data","id":"u","payload":}': "PARSE_ERROR",
    '{"type":"stream:data","id":"u","payload":2': "PARSE_ERROR",
    '{"type":"stream:data","id":"u","payload":2}}': "PARSE_ERROR",
    '{"type":"stream:data","id":"u","payload":2 2}': "PARSE_ERROR",
    '{"type":"stream:data","id":"u","payload":2,}': "PARSE_ERROR",
    '{"type":"stream:data","id":"u","payload":02}': "PARSE_ERROR",
    '{"type":"stream:data","id":"u","payload":2,"type":"subscribe"}': "INVALID_TYPE",
    '{"type":"stream:data","id":"u","payload":2,"id":5}': "INVALID_ENVELOPE",
    '{"type":"stream:data","id":"u","payload":2,"id":"nobody"}': "NOT_FOUND",
}


@pytest.mark.parametrize("text", NO_ITEMS)
async def test_a_message_in_a_row_that_is_no_item_is_an_error_and_the_items_go_on(wire, text):
    right = '{"type":"stream:data","id":"u","payload":1}'
    wire.burst(start("u", "ints"), right, right, text, right, end("u"))
    answers = [await wire.receive(), await wire.receive()]
    assert sorted(message["type"] for message in answers) == ["error", "response"]
    found = {message["type"]: message["payload"] for message in answers}
    assert (found["error"]["code"], found["response"]) == (NO_ITEMS[text], [1, 1, 1])


async def test_a_message_that_only_begins_like_the_last_item_is_no_item(wire):
    wire.burst(
        start("u", "ints"),
        '{"type":"stream:data","id":"u","payload":10,"x":{"payload":1}}',
        '{"type":"stream:data","id":"u","payload":10,"x":{"payload":2}',
        end("u"),
    )
    messages = await wire.until("response")
    assert messages[-1]["payload"] == [10]
    assert code(messages[0]) == ("error", None, "PARSE_ERROR")


async def test_an_item_behind_the_clients_end_is_an_error_in_a_row_too(wire):
    wire.burst(start("u", "ints"), item("u", 1), item("u", 2), end("u"), item("u", 3), item("u", 4))
    answers = [await wire.receive() for _ in range(3)]
    assert [code(m) for m in answers if m["type"] == "error"] == [("error", "u", "FAILED_PRECONDITION")] * 2
    assert [m["payload"] for m in answers if m["type"] == "response"] == [[1, 2]]


async def test_items_behind_a_cancel_are_dropped(wire):
    cancel = {"type": "cancel", "id": "u"}
    wire.burst(start("u", "ints"), item("u", 1), item("u", 2), cancel, item("u", 3), item("u", 4), end("u"))
    assert code(await wire.receive()) == ("stream:error", "u", "CANCELLED")
    assert await wire.silent()


async def test_a_new_stream_of_the_same_id_has_its_own_items(wire):
    for procedure, sent in (("ints", [1, 2]), ("texts", ["a", "b"]), ("ints", [3, 4])):
        wire.burst(start("u", procedure), *(item("u", payload) for payload in sent), end("u"))
        assert (await wire.receive())["payload"] == sent


async def test_items_that_a_handler_has_no_use_for_are_dropped(wire):
    wire.burst(start("u", "first"), *(item("u", number) for number in range(200)))
    assert (await wire.receive())["payload"] == 0
    wire.burst(*(item("u", number) for number in range(200)), end("u"))
    assert await wire.silent()


async def test_an_id_in_use_in_a_row_of_items_disturbs_none(wire):
    wire.burst(start("u", "ints"), item("u", 1), start("u", "texts"), item("u", 2), end("u"))
    answers = {message["type"]: message for message in [await wire.receive(), await wire.receive()]}
    assert code(answers["error"]) == ("error", "u", "ALREADY_EXISTS")
    assert answers["response"]["payload"] == [1, 2]


async def test_requests_in_a_row_are_all_answered(wire):
    wire.burst(*({"type": "request", "id": str(n), "procedure": "same", "payload": n} for n in range(100)))
    answers = {message["id"]: message["payload"] for message in [await wire.receive() for _ in range(100)]}
    assert answers == {str(number): number for number in range(100)}


async def test_items_may_come_in_any_pieces(wire):
    messages = [start("u", "ints"), *(item("u", number) for number in range(50)), end("u")]
    stream = b"".join(wire.framed(m) for m in map(msgspec.json.encode, messages))
    for at in range(0, len(stream), 37):
        wire.raw(stream[at : at + 37])
        await asyncio.sleep(0)
    assert (await wire.receive())["payload"] == list(range(50))
