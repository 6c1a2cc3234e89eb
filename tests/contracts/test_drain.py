"""A shutdown: server streams are sent elsewhere, all other calls have their time, and then comes the cut."""

from __future__ import annotations

import asyncio

from raffel_core.route import Kind

from .clients.call import End, Retry
from .clients.table import every_call, every_protocol, over
from .handlers import Watched, define

OTHERS = [Kind.UNARY, Kind.CLIENT, Kind.BIDI]


@over(Kind.SERVER)
async def test_a_server_stream_is_told_to_come_back(build, connect, stopping):
    server, reasons = build(), []

    @server.stream("ticks")
    async def ticks(input, ctx):
        try:
            yield 1
            yield 2
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "ticks")
    assert [await call.data(), await call.data()] == [1, 2]
    stopping(server)
    items, outcome = await call.all()
    assert (items, outcome.code) == ([], "UNAVAILABLE")
    if isinstance(outcome, Retry):
        assert 1000 <= outcome.milliseconds <= 5000
    else:
        assert outcome.details == {"reason": "server_draining"}
    assert reasons == ["server_draining"]


@over(Kind.SERVER)
async def test_one_that_has_sent_nothing_yet_is_told_so_too(build, connect, stopping):
    server, watched = build(), Watched()
    define(server, Kind.SERVER, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "call")
    await watched.began.wait()
    stopping(server)
    assert (await call.outcome()).code == "UNAVAILABLE"
    assert watched.steps == ["server_draining", ("UNAVAILABLE", "server_draining")]


@over(Kind.SERVER)
async def test_all_streams_of_a_client_are_told(build, connect, stopping):
    server = build()

    @server.stream("ticks")
    async def ticks():
        yield 1
        await asyncio.Event().wait()

    await server.start()
    client = await connect(server)
    calls = [await client.open(Kind.SERVER, "ticks") for _ in range(5)]
    for call in calls:
        assert await call.data() == 1
    stopping(server)
    assert [(await call.outcome()).code for call in calls] == ["UNAVAILABLE"] * 5


@every_call(kinds=OTHERS)
async def test_other_calls_have_their_time(build, connect, stopping, eventually, kind):
    server, watched = build(drain_seconds=5), Watched()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await watched.began.wait()
    end = stopping(server)
    await eventually(lambda: server._hub.draining)
    assert not end.done()
    watched.go_on.set()
    assert await call.value() == "done"
    assert watched.steps == [None, ("OK", None)]


@over(Kind.CLIENT)
async def test_a_client_may_send_to_the_end(build, connect, stopping):
    server, began = build(drain_seconds=5), asyncio.Event()

    @server.stream("parts", direction="client")
    async def parts(items):
        found = []
        async for item in items:
            found.append(item)
            began.set()
        return found

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.CLIENT, "parts")
    await call.send(0)
    await began.wait()
    end = stopping(server)
    for number in range(1, 50):
        await call.send(number)
        await asyncio.sleep(0)
    assert not end.done()
    await call.end()
    assert await call.outcome() == End(list(range(50)))


@over(Kind.BIDI)
async def test_a_conversation_goes_on_to_its_end(build, connect, stopping):
    server = build(drain_seconds=5)

    @server.stream("echo", direction="bidi")
    async def echo(items):
        async for item in items:
            yield item

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "echo")
    await call.send("before")
    assert await call.data() == "before"
    stopping(server)
    for number in range(50):
        await call.send(number)
        assert await call.data() == number
    await call.end()
    assert await call.all() == ([], End())


@every_call(kinds=OTHERS)
async def test_what_does_not_end_in_time_is_cut_and_knows_why(build, connect, stopping, eventually, kind):
    server, watched = build(drain_seconds=0.05), Watched()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await watched.began.wait()
    stopping(server)
    failure = await call.failure()
    assert (failure.code, failure.details) == ("UNAVAILABLE", {"reason": "server_draining"})
    await eventually(lambda: watched.steps == ["server_draining", ("UNAVAILABLE", "server_draining")])


@every_protocol()
async def test_a_server_that_nobody_calls_does_not_wait_for_its_clients(build, connect, stopping, kind):
    server, watched = build(drain_seconds=30), Watched()
    watched.go_on.set()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", {})).value() == "done"
    async with asyncio.timeout(5):
        await stopping(server)
