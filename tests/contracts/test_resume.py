"""Ids of items, and going on after the last one that was seen."""

from __future__ import annotations

from raffel_core import Event, tracked
from raffel_core.route import Kind

from .clients.call import Can, Item
from .clients.table import every_call, over

STREAMS = [Kind.SERVER, Kind.CLIENT, Kind.BIDI]


@every_call(Can.IDS, kinds=[Kind.SERVER, Kind.BIDI])
async def test_ids_arrive_with_their_items(build, connect, kind):
    server = build()

    @server.stream("items", direction=str(kind), resumable=True)
    async def items():
        yield tracked("a-1", {"n": 1})
        yield tracked(2, None)
        yield Event("three", id="3", event="tick", retry=500)
        yield tracked("日本 é", 4)
        yield tracked("x" * 256, 5)

    await server.start()
    client = await connect(server)
    call = await client.open(kind, "items")
    assert [await call.item() for _ in range(5)] == [
        Item({"n": 1}, "a-1"),
        Item(None, "2"),
        Item("three", "3"),
        Item(4, "日本 é"),
        Item(5, "x" * 256),
    ]


@over(Kind.SERVER)
async def test_items_without_an_id_have_none(build, connect):
    server = build()

    @server.stream("items", resumable=True)
    async def items():
        yield 1
        yield Event(2, event="tick")

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "items")
    assert [await call.item() for _ in range(2)] == [Item(1), Item(2)]


@over(Kind.SERVER)
async def test_items_with_an_id_are_their_data(build, connect):
    server = build()

    @server.stream("items", resumable=True)
    async def items():
        for number in range(3):
            yield tracked(number, [number])

    await server.start()
    client = await connect(server)
    assert (await (await client.open(Kind.SERVER, "items")).all())[0] == [[0], [1], [2]]


@over(Kind.SERVER, Can.IDS)
async def test_items_with_an_id_are_checked_like_others(build, connect):
    server = build()

    @server.stream("items", resumable=True).output(int)
    async def items():
        yield tracked("1", 1)
        yield tracked("2", "two")

    await server.start()
    client = await connect(server)
    found, outcome = await (await client.open(Kind.SERVER, "items")).all()
    assert (found, outcome.code) == ([1], "OUTPUT_VALIDATION_ERROR")


@every_call(Can.RESUME, kinds=STREAMS)
async def test_the_last_id_that_a_client_saw_reaches_the_handler(build, connect, kind):
    server, seen = build(), []

    async def result(input, ctx):
        seen.append(ctx.last_event_id)

    async def items(input, ctx):
        yield seen.append(ctx.last_event_id)

    server.stream("items", direction=str(kind), resumable=True).handler(items if kind.writes else result)
    await server.start()
    client = await connect(server)
    for id in (None, "41", "a b;c", "x" * 256):
        await (await client.open(kind, "items", last_event_id=id)).value()
    assert seen == [None, "41", "a b;c", "x" * 256]


@over(Kind.SERVER, Can.IDS, Can.RESUME)
async def test_a_client_that_comes_back_misses_nothing(build, connect):
    server, seen, last = build(), [], None

    @server.stream("numbers", resumable=True)
    async def numbers(input, ctx):
        for number in range(int(ctx.last_event_id or -1) + 1, 10):
            yield tracked(number, number)

    await server.start()
    for _ in range(3):
        call = await (await connect(server)).open(Kind.SERVER, "numbers", last_event_id=last)
        for _ in range(3):
            item = await call.item()
            seen.append(item.data)
            last = item.id
        await call.leave()
    call = await (await connect(server)).open(Kind.SERVER, "numbers", last_event_id=last)
    assert [*seen, *(await call.all())[0]] == list(range(10))
