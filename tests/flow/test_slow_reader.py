"""A client that stops reading: production stops, memory is bounded, others go on, and in the end it is cut."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

from raffel_core.stream import create_stream

from .conftest import WINDOW, Peak, decode

log = logging.getLogger("measured")

SECONDS = float(os.environ.get("RAFFEL_FLOW_SECONDS", "0.2"))
"""How long memory is watched; 30 is the full time."""

KERNEL = 256 * 1024
"""What both kernels may hold beside the unread bytes: 16 KiB unsent, and what is on its way."""

HOT = """
    import tally

    async def handler(input: dict, ctx):
        item = "x" * input["size"]
        while True:
            tally.count += 1
            yield item
    """
COUNT = "import tally\n\nasync def handler(input):\n    return tally.count\n"


class Firehose:
    """Handlers that never wait; they count what they were asked for and keep why they ended."""

    def __init__(self, size=1024):
        self.item = "x" * size
        self.count = 0
        self.reasons = []

    async def hot(self, input, ctx):
        try:
            while True:
                self.count += 1
                yield self.item
        finally:
            self.reasons.append(ctx.signal.reason)

    def plain(self, input, ctx):
        try:
            while True:
                self.count += 1
                yield self.item
        finally:
            self.reasons.append(ctx.signal.reason)

    async def returned(self, input, ctx):
        stream = create_stream(high_water_mark=4)

        async def fill():
            while True:
                await stream.write(self.item)
                self.count += 1

        ctx.state.filling = asyncio.create_task(fill())

        def over(outcome):
            ctx.state.filling.cancel()
            self.reasons.append(outcome.reason)

        ctx.on_close(over)
        return stream

    async def bidi(self, input, ctx):
        async for item in self.hot(input, ctx):
            yield item


SHAPES = ["hot", "plain", "returned", "bidi"]


def serving(build, firehose, shape="hot", **options):
    server = build(**options)
    direction = "bidi" if shape == "bidi" else "server"
    server.stream("hot", direction=direction).handler(getattr(firehose, shape))

    @server.procedure("quick")
    async def quick():
        return 1

    return server


# Memory


@pytest.mark.parametrize(("streams", "size"), [(1, 1024), (100, 16 * 1024)])
async def test_memory_does_not_grow_while_a_client_reads_nothing(process, project, connect, streams, size):
    project({"tally.py": "count = 0\n"})
    server = process({"hot.stream.py": HOT, "count.rpc.py": COUNT})
    other, client = await connect(server), await connect(server, WINDOW)

    async def produced():
        await other.say("request", "1", procedure="count")
        return (await other.receive())["payload"]

    assert await produced() == 0
    async with Peak(server) as peak:
        for id in range(streams):
            await client.start(str(id), "hot", {"size": size})
        await asyncio.sleep(SECONDS / 2)
        halfway = await produced()
        await asyncio.sleep(SECONDS / 2)
        assert await produced() == halfway > 0
    log.info(f"{streams} streams: {halfway} items of {size} bytes asked for, {peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * 1024 * 1024
    assert halfway * size <= client.unread() + KERNEL + 64 * 1024 + 16 * size * streams


# The mark


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_handler_stops_when_its_client_stops_reading(build, connect, standstill, shape):
    firehose = Firehose()
    server = serving(build, firehose, shape)
    await server.start()
    client = await connect(server, WINDOW)
    await client.start("s", "hot")
    count = await standstill(lambda: firehose.count)
    assert count * 1024 - client.unread() <= 64 * 1024 + 16 * 1024 + KERNEL


@pytest.mark.parametrize("shape", SHAPES)
async def test_it_goes_on_where_it_was_when_its_client_reads_again(build, connect, standstill, shape):
    server = build()
    direction = "bidi" if shape == "bidi" else "server"
    counted = 0

    async def naturals():
        nonlocal counted
        while True:
            counted += 1
            yield f"{counted:01000}"

    def plain():
        nonlocal counted
        while True:
            counted += 1
            yield f"{counted:01000}"

    async def returned(input, ctx):
        stream = create_stream(high_water_mark=4)

        async def fill():
            async for item in naturals():
                await stream.write(item)

        ctx.state.filling = asyncio.create_task(fill())
        ctx.on_close(lambda outcome: ctx.state.filling.cancel())
        return stream

    handlers = {"hot": naturals, "bidi": naturals, "plain": plain, "returned": returned}
    server.stream("hot", direction=direction).handler(handlers[shape])
    await server.start()
    client = await connect(server, WINDOW)
    await client.start("s", "hot")
    stopped = await standstill(lambda: counted)
    items = await client.items("s", stopped + 100)
    assert items == [f"{number:01000}" for number in range(1, stopped + 101)]


@pytest.mark.parametrize("where", ["meta", "config", "stream"])
async def test_no_more_items_are_queued_than_the_mark_says(build, connect, standstill, where):
    server = build(limits={"high_water_mark": 3 if where == "config" else 16})
    count = 0

    async def generator():
        nonlocal count
        while True:
            count += 1
            yield "x" * 1024
            await asyncio.sleep(0)

    async def returned(input, ctx):
        stream = create_stream(high_water_mark=3)

        async def fill():
            async for item in generator():
                await stream.write(item)

        ctx.state.filling = asyncio.create_task(fill())
        ctx.on_close(lambda outcome: ctx.state.filling.cancel())
        return stream

    meta = {"high_water_mark": 3} if where == "meta" else {}
    server.stream("s", **meta).handler(returned if where == "stream" else generator)
    await server.start()
    client = await connect(server, WINDOW)
    await client.start("s", "s")
    await standstill(lambda: count)
    (connection,) = server._hub.connections
    (channel,) = connection._channels
    assert 1 <= len(channel.queue.parts) / 3 <= 3


@pytest.mark.parametrize("streams", [1, 10, 100])
async def test_what_waits_is_bounded_by_bytes_too(build, connect, standstill, streams):
    """64 KiB a connection, and of each stream at most the one item that it was asked for before it saw that."""
    size = 16 * 1024
    firehose = Firehose(size)
    server = serving(build, firehose)
    await server.start()
    client = await connect(server, WINDOW)
    for id in range(streams):
        await client.start(str(id), "hot")
    await standstill(lambda: firehose.count)
    (connection,) = server._hub.connections
    queued = sum(len(part) for channel in connection._channels for part in channel.queue.parts)
    assert queued <= 64 * 1024 + streams * (size + 100)


# Others


async def test_other_connections_go_on(build, connect, standstill):
    firehose = Firehose()
    server = serving(build, firehose)
    await server.start()
    stuck, well = await connect(server, WINDOW), await connect(server)
    await stuck.start("s", "hot")
    await standstill(lambda: firehose.count)
    for id in range(200):
        await well.say("request", str(id), procedure="quick")
        assert (await well.receive())["payload"] == 1


# The cut


@pytest.mark.parametrize(("shape", "streams"), [*((shape, 1) for shape in SHAPES), ("hot", 100), ("returned", 100)])
async def test_after_the_stall_limit_it_is_cut(build, connect, eventually, caplog, shape, streams):
    firehose = Firehose(16 * 1024)
    server = serving(build, firehose, shape, limits={"stall_seconds": 0.2})
    await server.start()
    client = await connect(server, WINDOW)
    name = "{}:{}".format(*client.sock.getsockname())
    with caplog.at_level(logging.WARNING, "raffel"):
        for id in range(streams):
            await client.start(str(id), "hot")
        began = time.perf_counter()
        await eventually(lambda: len(firehose.reasons) == streams)
        took = time.perf_counter() - began
    assert set(firehose.reasons) == {"slow_consumer"}
    assert took < 0.8
    cuts = [record.peer for record in caplog.records if getattr(record, "reason", "") == "slow_consumer"]
    assert cuts == [name]
    await eventually(lambda: not server._hub.connections and not server._hub.sessions)
    envelopes, _ = await client.rest()
    assert all(envelope["type"] in ("stream:data", "stream:credit") for envelope in envelopes)


async def test_a_client_that_reads_slowly_is_not_cut(build, connect):
    firehose = Firehose()
    server = serving(build, firehose, limits={"stall_seconds": 0.2})
    await server.start()
    client = await connect(server, 8 * 1024)
    await client.start("s", "hot")
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        await client.more(4 * 1024)
        await asyncio.sleep(0.02)
    assert not firehose.reasons


async def test_one_that_sends_and_does_not_read_is_cut_too(build, connect, eventually):
    firehose = Firehose()
    server = serving(build, firehose, limits={"stall_seconds": 0.2})
    await server.start()
    client = await connect(server, WINDOW)
    await client.start("s", "hot")
    sending = asyncio.create_task(_keep_sending(client))
    await eventually(lambda: firehose.reasons)
    assert firehose.reasons == ["slow_consumer"]
    await asyncio.wait([sending])


async def _keep_sending(client):
    try:
        while True:
            await client.say("stream:credit", "s", credit=1)
            await asyncio.sleep(0.01)
    except OSError:
        return


async def test_a_stream_without_items_is_no_stall(build, connect):
    server, go_on = build(limits={"stall_seconds": 0.2}), asyncio.Event()

    @server.stream("quiet")
    async def quiet():
        yield 1
        await go_on.wait()
        yield 2

    await server.start()
    client = await connect(server, WINDOW)
    await client.start("s", "quiet")
    assert await client.items("s", 1) == [1]
    await asyncio.sleep(0.4)
    go_on.set()
    assert await client.items("s", 1) == [2]


async def test_a_slow_client_gets_every_item_and_then_the_end(build, connect):
    server = build()

    @server.stream("finite")
    async def finite():
        for number in range(3000):
            yield f"{number:0500}"

    await server.start()
    client = await connect(server, 8 * 1024)
    await client.start("s", "finite")
    found = []
    while not found or found[-1]["type"] == "stream:data":
        while (message := client.next()) is None:
            await client.more(16 * 1024)
            await asyncio.sleep(0)
        found.append(decode(message))
    assert [envelope["payload"] for envelope in found[:-1]] == [f"{number:0500}" for number in range(3000)]
    assert found[-1] == {"type": "stream:end", "id": "s"}
