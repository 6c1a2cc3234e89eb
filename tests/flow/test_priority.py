"""Who is written first while a connection takes less than there is, and how equals share it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter

import pytest

from raffel_core.stream import create_stream

log = logging.getLogger("measured")

BYTES = int(os.environ.get("RAFFEL_FLOW_BYTES", str(3 * 1024 * 1024)))
"""What is read of a congested connection; 64 MiB are the full size."""

WINDOW = 4 * 1024


class Gate:
    """A few items, as soon as a test says so."""

    def __init__(self, count=10, size=100):
        self.go_on = asyncio.Event()
        self.items = [f"{number:0{size}}" for number in range(count)]

    async def plain(self, input, ctx):
        await self.go_on.wait()
        for item in self.items:
            yield item
        await asyncio.Event().wait()

    async def returned(self, input, ctx):
        stream = create_stream(high_water_mark=16, priority=10)

        async def fill():
            await self.go_on.wait()
            for item in self.items:
                await stream.write(item)

        ctx.state.filling = asyncio.create_task(fill())

        def over(outcome):
            ctx.state.filling.cancel()

        ctx.on_close(over)
        return stream


async def hot(input, ctx):
    item = "x" * (input or {"size": 1000})["size"]
    while True:
        yield item


async def wait_for(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def congested(build, connect, gate, low=0, **meta):
    """A client of a connection that is full: five hot streams wait for room. `gated` is open and has sent nothing."""
    server = build()
    server.stream("hot").handler(hot)
    server.stream("gated", **meta).handler(gate.plain)
    server.stream("returned", **meta).handler(gate.returned)
    await server.start()
    client = await connect(server, WINDOW)

    async def fill():
        for number in range(5):
            await client.start(f"low{number}", "hot", priority=low)
        await wait_for(lambda: server._hub.sessions)
        (connection,) = server._hub.connections
        await wait_for(lambda: connection.outbox.paused and len(connection._waiters) == 5)
        return connection

    return client, fill


def handed_over(client, connection):
    """Bytes that nothing can overtake any more."""
    return client.unread() + connection._unsent()


async def read_until(client, id, count):
    """Reads so many items of a stream; returns what was read before the first of them, in bytes, and all ids."""
    ids, before = [], None
    while ids.count(id) < count:
        envelope = await client.receive()
        ids.append(envelope["id"])
        if envelope["id"] == id and before is None:
            before = client.received - len(client._raw) + client._at
    return before, ids


async def overtakes(client, connection, id):
    """Whether the first item of a stream comes before what was queued when it was yielded."""
    already = handed_over(client, connection)
    before, _ = await read_until(client, id, 1)
    # An eighth of the first write may belong to the lower lanes.
    return before <= already + 8 * 1024


async def test_an_item_of_a_higher_priority_overtakes_what_is_queued(build, connect):
    gate = Gate()
    client, fill = await congested(build, connect, gate)
    await client.start("high", "gated", priority=10)
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert await overtakes(client, connection, "high")


async def test_all_its_items_up_to_the_mark_do(build, connect):
    gate = Gate(count=10)
    client, fill = await congested(build, connect, gate)
    await client.start("high", "gated", priority=10)
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    already = handed_over(client, connection)
    _, ids = await read_until(client, "high", 10)
    assert client.received - len(client._raw) + client._at <= already + 16 * 1024
    assert len(ids) - 10 <= already // 1000 + 16


async def test_that_of_an_equal_one_does_not(build, connect):
    gate = Gate()
    client, fill = await congested(build, connect, gate)
    await client.start("equal", "gated", priority=0)
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert not await overtakes(client, connection, "equal")


async def test_that_of_a_lower_one_does_not(build, connect):
    gate = Gate()
    client, fill = await congested(build, connect, gate)
    await client.start("lower", "gated", priority=-1)
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert not await overtakes(client, connection, "lower")


async def test_the_priority_of_a_route_counts_where_the_client_says_none(build, connect):
    gate = Gate()
    client, fill = await congested(build, connect, gate, priority=10)
    await client.start("high", "gated")
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert await overtakes(client, connection, "high")


@pytest.mark.parametrize("said", [0, -128])
async def test_that_of_the_client_beats_that_of_the_route(build, connect, said):
    gate = Gate()
    client, fill = await congested(build, connect, gate, priority=10)
    await client.start("s", "gated", priority=said)
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert not await overtakes(client, connection, "s")


async def test_the_priority_of_a_returned_stream_counts_where_the_client_says_none(build, connect):
    gate = Gate()
    client, fill = await congested(build, connect, gate)
    await client.start("high", "returned")
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert await overtakes(client, connection, "high")


async def test_that_of_the_client_beats_that_of_a_returned_stream(build, connect):
    gate = Gate()
    client, fill = await congested(build, connect, gate)
    await client.start("s", "returned", priority=0)
    connection = await fill()
    gate.go_on.set()
    await asyncio.sleep(0.01)
    assert not await overtakes(client, connection, "s")


async def test_replies_overtake_all_items(build, connect):
    client, fill = await congested(build, connect, Gate(), low=127)
    connection = await fill()
    already = handed_over(client, connection)
    await client.say("nonsense", "n")
    await asyncio.sleep(0.02)
    await client.until("error", "n")
    assert client.received - len(client._raw) + client._at <= already + 1024


async def test_order_within_a_stream_is_kept_whatever_its_priority(build, connect):
    server = build()

    @server.stream("count")
    async def count(input):
        number = 0
        while True:
            yield f"{number:0500}"
            number += 1

    await server.start()
    client = await connect(server, WINDOW)
    for number in range(10):
        await client.start(str(number), "count", priority=number % 3)
    seen = dict.fromkeys(map(str, range(10)), 0)
    while client.received < 1024 * 1024:
        envelope = await client.receive()
        assert int(envelope["payload"]) == seen[envelope["id"]]
        seen[envelope["id"]] += 1


async def shares(client, streams, size):
    """The bytes that each stream has of so many, once the connection is full."""
    for id, priority in streams.items():
        await client.start(id, "hot", {"size": size}, priority=priority)
    await asyncio.sleep(0.05)
    while client.received < 256 * 1024:
        await client.receive()
    taken, end = Counter(dict.fromkeys(streams, 0)), client.received + BYTES
    while client.received < end:
        taken[(await client.receive())["id"]] += size
    return taken


@pytest.mark.parametrize("size", [20, 200, 1000, 4000, 16_000])
async def test_equals_share_fairly(build, connect, size):
    server = build()
    server.stream("hot").handler(hot)
    await server.start()
    client = await connect(server, WINDOW)
    taken = await shares(client, {str(number): 0 for number in range(20)}, size)
    log.info(f"{size} bytes: {min(taken.values()) / max(taken.values()):.2f}")
    assert min(taken.values()) >= max(taken.values()) / 2


@pytest.mark.parametrize("sizes", [(100, 10_000), (20, 1000)])
async def test_equals_share_fairly_by_bytes_and_not_by_items(build, connect, sizes):
    server = build()
    for name, size in zip(("small", "large"), sizes, strict=True):
        server.stream(name).handler(_of_size(size))
    await server.start()
    client = await connect(server, WINDOW)
    for name in ("small", "large"):
        await client.start(name, name)
    while client.received < 256 * 1024:
        await client.receive()
    taken, end = Counter(), client.received + BYTES
    while client.received < end:
        envelope = await client.receive()
        taken[envelope["id"]] += len(envelope["payload"]) + 60
    log.info(f"{sizes}: {taken['small'] / taken['large']:.2f}")
    assert min(taken.values()) >= max(taken.values()) / 3


def _of_size(size):
    async def handler():
        item = "x" * size
        while True:
            yield item

    return handler


@pytest.mark.parametrize("size", [20, 200, 1000, 4000, 16_000])
async def test_a_higher_priority_has_more_and_a_lower_one_its_share(build, connect, size):
    server = build()
    server.stream("hot").handler(hot)
    await server.start()
    client = await connect(server, WINDOW)
    taken = await shares(client, {"high": 10, "low": 0}, size)
    part = taken["low"] / taken.total()
    log.info(f"{size} bytes: low has {part:.3f}")
    assert part > 1 / 20
    assert part < 1 / 4


@pytest.mark.parametrize("size", [200, 4000])
async def test_no_lane_starves_below_two_others(build, connect, size):
    server = build()
    server.stream("hot").handler(hot)
    await server.start()
    client = await connect(server, WINDOW)
    taken = await shares(client, {"high": 10, "middle": 5, "low": 0}, size)
    log.info(f"{size} bytes: { {id: round(found / taken.total(), 3) for id, found in taken.items()} }")
    assert taken["high"] > max(taken["middle"], taken["low"])
    assert min(taken.values()) > taken.total() / 50
