"""One handler, the same items and the same end on every protocol."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from msgspec import Raw, Struct

from raffel_core import Event, RaffelError, create_stream
from raffel_core.route import Kind

from .clients.call import Can, End, Failed
from .clients.table import every_call, every_protocol, over
from .handlers import define

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**53,
    -(2**53),
    0.5,
    -1e-300,
    1.7976931348623157e308,
    "",
    "text",
    [],
    {},
    [None, [1, [2.5, "three"]], {}],
    {"a": {"b": [True, None]}, "": 0, "x y": "z"},
    "the end",
]
TEXTS = [
    "\0 \x07 \x1f \x7f",
    "a line\nanother\r\nand\ra last one",
    "\n\ndata: no field of an event\n\n",
    "\x0b \x0c \x1c \x85 \u2028 \u2029 end other lines",
    '"quotes" and \\backslashes\\',
    "</script>",
    "Zażółć gęślą jaźń",
    "日本語 العربية हिन्दी",
    "👩‍👩‍👧‍👦 \U0010ffff \ufeff",
]


class Colour(Enum):
    RED = "red"


class Point(Struct):
    x: int
    y: float
    label: str | None = None


class Textual(Struct):
    at: datetime
    day: date
    took: timedelta
    price: Decimal
    id: UUID
    raw: bytes
    colour: Colour


# Values


@over(Kind.SERVER)
async def test_items_of_every_type_arrive_as_they_are(build, connect):
    server = build()

    @server.stream("values")
    async def values():
        for value in VALUES:
            yield value

    await server.start()
    client = await connect(server)
    items, end = await (await client.open(Kind.SERVER, "values")).all()
    assert (items, end) == (VALUES, End())
    assert list(map(type, items)) == list(map(type, VALUES))


@every_call(kinds=[Kind.UNARY, Kind.CLIENT])
async def test_results_of_every_type_arrive_as_they_are(build, connect, kind):
    server, left = build(), iter(VALUES)

    async def body(ctx):
        return next(left)

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    results = [await (await client.open(kind, "call")).outcome() for _ in VALUES]
    assert results == list(map(End, VALUES))


@every_protocol()
async def test_text_of_every_script_arrives_as_it_is(build, connect, kind):
    server = build()

    async def body(ctx):
        return TEXTS

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == TEXTS


@every_call(kinds=[Kind.UNARY, Kind.SERVER])
async def test_an_input_arrives_as_it_is(build, connect, kind):
    server = build()

    async def body(ctx):
        return ctx.input

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    for value in (VALUES, {"values": VALUES}, TEXTS):
        assert await (await client.open(kind, "call", value)).value() == value


@every_call(Can.SCALARS, kinds=[Kind.UNARY, Kind.SERVER])
async def test_an_input_may_be_any_value(build, connect, kind):
    server = build()

    async def body(ctx):
        return ctx.input

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    for value in VALUES:
        assert await (await client.open(kind, "call", value)).value() == value


@every_call(kinds=[Kind.UNARY, Kind.SERVER])
async def test_no_input_is_an_empty_object(build, connect, kind):
    server = build()

    async def body(ctx):
        return ctx.input

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == {}


@every_call()
async def test_structs_arrive_as_objects(build, connect, kind):
    server = build()

    async def body(ctx):
        return Point(1, 2.5)

    define(server, kind, body, output=Point)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == {"x": 1, "y": 2.5, "label": None}


@every_call()
async def test_dicts_pass_for_the_struct_that_they_fit(build, connect, kind):
    server = build()

    async def body(ctx):
        return {"x": 1, "y": 2.5, "label": "here"}

    define(server, kind, body, output=Point)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == {"x": 1, "y": 2.5, "label": "here"}


@every_protocol(Can.TEXT)
async def test_what_json_has_no_type_for_is_text(build, connect, kind):
    server = build()

    async def body(ctx):
        return Textual(
            datetime(2026, 11, 22, 21, 10, 5, 250000, UTC),
            date(2026, 11, 22),
            timedelta(minutes=1, milliseconds=500),
            Decimal("12.50"),
            UUID(int=1),
            b"\x00\xff",
            Colour.RED,
        )

    define(server, kind, body, output=Textual)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == {
        "at": "2026-11-22T21:10:05.250000Z",
        "day": "2026-11-22",
        "took": "PT60.5S",
        "price": "12.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "raw": "AP8=",
        "colour": "red",
    }


@every_call(Can.TEXT)
async def test_bytes_are_base64(build, connect, kind):
    server = build()

    async def body(ctx):
        return bytes(range(256))

    define(server, kind, body, output=bytes)
    await server.start()
    client = await connect(server)
    value = await (await client.open(kind, "call")).value()
    assert value.startswith("AAECAwQF") and len(value) == 344


@every_call(Can.TEXT, kinds=[Kind.UNARY, Kind.SERVER])
async def test_bytes_of_an_input_are_base64(build, connect, kind):
    server = build()

    async def body(ctx):
        return [type(ctx.input).__name__, list(ctx.input)]

    define(server, kind, body, input=bytes)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", "AAH/")).value() == ["bytes", [0, 1, 255]]


@every_call(Can.BINARY, kinds=[Kind.SERVER, Kind.BIDI, Kind.CLIENT])
async def test_bytes_are_bytes_for_who_asks_for_them(build, connect, kind):
    server = build()

    async def body(ctx):
        return bytes(range(256))

    define(server, kind, body, output=bytes)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", binary=True)).value() == bytes(range(256))


@over(Kind.SERVER, Can.BINARY)
async def test_whoever_asks_for_bytes_gets_other_items_as_they_are(build, connect):
    server = build()

    @server.stream("items")
    async def items():
        yield {"a": 1}

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.SERVER, "items", binary=True)).value() == {"a": 1}


@over(Kind.SERVER)
async def test_json_that_is_written_already_passes_as_it_is(build, connect):
    server = build()

    @server.stream("raw")
    async def raw():
        yield Raw(b'{"a": [1, 2]}')
        yield Raw(b'{\n  "b":\r\n  2\n}')

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.SERVER, "raw")).all() == ([{"a": [1, 2]}, {"b": 2}], End())


@over(Kind.SERVER)
async def test_the_data_of_an_event_is_the_item(build, connect):
    server = build()

    @server.stream("events")
    async def events():
        yield Event({"n": 1}, event="tick", retry=1000)
        yield Event(None)

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.SERVER, "events")).all() == ([{"n": 1}, None], End())


# Streams


@every_call(kinds=[Kind.SERVER, Kind.BIDI])
async def test_a_stream_without_items_just_ends(build, connect, kind):
    server = build()

    @server.stream("empty", direction=str(kind))
    async def empty():
        return
        yield

    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "empty")).all() == ([], End())


@over(Kind.SERVER)
async def test_ten_thousand_items_arrive_in_order(build, connect):
    server = build()

    @server.stream("numbers")
    async def numbers():
        for number in range(10_000):
            yield number

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.SERVER, "numbers")).all() == (list(range(10_000)), End())


@every_call()
async def test_what_is_large_arrives_whole(build, connect, kind):
    server, sizes = build(), [125, 126, 65_535, 65_536, 300_000, 1_048_576]
    left = iter(sizes)

    async def body(ctx):
        return "x" * next(left)

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    for size in sizes:
        assert await (await client.open(kind, "call")).value() == "x" * size


@over(Kind.SERVER)
async def test_large_items_arrive_in_order(build, connect):
    server = build()

    @server.stream("large")
    async def large():
        for number in range(20):
            yield [number, "x" * 100_000]

    await server.start()
    client = await connect(server)
    items, end = await (await client.open(Kind.SERVER, "large")).all()
    assert [number for number, _ in items] == list(range(20)) and end == End()


@every_call(kinds=[Kind.SERVER, Kind.BIDI])
async def test_an_item_arrives_while_the_handler_waits_for_the_next(build, connect, kind):
    server, next = build(), asyncio.Event()

    @server.stream("slow", direction=str(kind))
    async def slow():
        for number in range(3):
            yield number
            await next.wait()
            next.clear()

    await server.start()
    client = await connect(server)
    call = await client.open(kind, "slow")
    for number in range(3):
        assert await call.data() == number
        next.set()
    assert await call.all() == ([], End())


@over(Kind.SERVER)
async def test_streams_of_one_client_go_on_beside_each_other(build, connect):
    server, gates = build(), {name: asyncio.Event() for name in "ab"}

    @server.stream("gated")
    async def gated(input):
        yield input["name"]
        await gates[input["name"]].wait()
        yield input["name"] * 2

    await server.start()
    client = await connect(server)
    calls = {name: await client.open(Kind.SERVER, "gated", {"name": name}) for name in "ab"}
    for name in "ab":
        assert await calls[name].data() == name
    for name in "ba":
        gates[name].set()
        assert await calls[name].all() == ([name * 2], End())


# Handlers of every shape


async def agen():
    for number in range(3):
        yield number


def gen():
    yield from range(3)


def plain():
    return [0, 1, 2]


async def coroutine():
    return agen()


async def stream_of_its_own():
    stream = create_stream()
    for number in range(3):
        stream.try_write(number)
    stream.end()
    return stream


@over(Kind.SERVER)
@pytest.mark.parametrize("handler", [agen, gen, plain, coroutine, stream_of_its_own], ids=lambda shape: shape.__name__)
async def test_stream_handlers_of_every_shape_give_the_same(build, connect, handler):
    server = build()
    server.stream("call").handler(handler)
    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.SERVER, "call")).all() == ([0, 1, 2], End())


@over(Kind.SERVER)
async def test_a_stream_of_its_own_may_be_written_while_it_is_read(build, connect):
    server, stream = build(), create_stream()

    @server.stream("own")
    async def own():
        return stream

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "own")
    for number in range(3):
        await stream.write(number)
        assert await call.data() == number
    stream.end()
    assert await call.all() == ([], End())


@over(Kind.SERVER)
async def test_a_stream_of_its_own_that_fails_gives_what_it_has_and_then_the_error(build, connect):
    server = build()

    @server.stream("own")
    async def own():
        stream = create_stream()
        stream.try_write(1)
        stream.error(KeyError("secret"))
        return stream

    await server.start()
    client = await connect(server)
    items, outcome = await (await client.open(Kind.SERVER, "own")).all()
    assert items == [1]
    assert isinstance(outcome, Failed) and outcome.code == "INTERNAL_ERROR"


@over(Kind.UNARY)
async def test_a_plain_procedure_gives_its_result(build, connect):
    server = build()

    @server.procedure("add")
    def add(input):
        return input["a"] + input["b"]

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.UNARY, "add", {"a": 1, "b": 2})).outcome() == End(3)


@over(Kind.UNARY)
async def test_procedures_of_one_client_need_not_wait_for_each_other(build, connect):
    server, go_on = build(), asyncio.Event()

    @server.procedure("slow")
    async def slow():
        await go_on.wait()
        return "slow"

    @server.procedure("quick")
    async def quick():
        return "quick"

    await server.start()
    client = await connect(server)
    waiting = await client.open(Kind.UNARY, "slow")
    assert await (await client.open(Kind.UNARY, "quick")).outcome() == End("quick")
    go_on.set()
    assert await waiting.outcome() == End("slow")


# Other routes


@every_call()
async def test_a_handler_reaches_other_routes_of_its_server(build, connect, kind, carrier):
    server = build()

    @server.procedure("protocol")
    async def protocol(input, ctx):
        return [ctx.protocol, input]

    @server.stream("numbers").input(dict[str, int])
    async def numbers(input):
        for number in range(input["limit"]):
            yield number

    async def body(ctx):
        return [await ctx.call("protocol", "hello"), [item async for item in ctx.stream("numbers", {"limit": 3})]]

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == [[carrier.name, "hello"], [0, 1, 2]]


@every_protocol()
async def test_an_error_of_another_route_is_the_callers_own(build, connect, kind):
    server = build()

    @server.procedure("failing")
    async def failing():
        raise RaffelError("DATA_LOSS", "why", [1])

    async def body(ctx):
        return await ctx.call("failing")

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).failure() == Failed("DATA_LOSS", "why", [1])
