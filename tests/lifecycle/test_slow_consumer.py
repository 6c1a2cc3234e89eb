"""A client that stops reading: production stops, memory is bounded, everyone else goes on, and in the end it is cut."""

from __future__ import annotations

import asyncio
import logging
import time

import psutil
import pytest

from raffel_core.errors import RaffelError
from raffel_core.stream import create_stream

ITEM = 1024
WINDOW = 64 * 1024
KERNEL = 256 * 1024
"""What both kernels may hold beside the peer's unread bytes: 16 KiB unsent, and what is on its way."""

FORMS = {"sse": "text/event-stream", "ndjson": "application/x-ndjson", "bytes": "application/octet-stream"}


async def standstill(count):
    """Waits until a counter that has begun to grow stays as it is, and returns it."""
    async with asyncio.timeout(10):
        before, now = -1, 0
        while now == 0 or now != before:
            await asyncio.sleep(0.1)
            before, now = now, count()
    return now


class Firehose:
    """Handlers that never wait; they count what they were asked for and keep why they ended."""

    def __init__(self):
        self.count = 0
        self.reasons = []

    async def asynchronous(self, input, ctx):
        try:
            while True:
                self.count += 1
                yield "x" * ITEM
        finally:
            self.reasons.append(ctx.signal.reason)

    async def raw(self, input, ctx):
        try:
            while True:
                self.count += 1
                yield b"x" * ITEM
        finally:
            self.reasons.append(ctx.signal.reason)

    def plain(self, input, ctx):
        try:
            while True:
                self.count += 1
                yield "x" * ITEM
        finally:
            self.reasons.append(ctx.signal.reason)

    async def returned(self, input, ctx):
        stream = create_stream(high_water_mark=4)

        async def fill():
            try:
                while True:
                    await stream.write("x" * ITEM)
                    self.count += 1
            except RaffelError as error:  # how a stream tells its writers that it was cancelled
                assert error.code == "CANCELLED"
            finally:
                self.reasons.append(ctx.signal.reason)

        self.filling = asyncio.create_task(fill())  # kept: the loop holds tasks weakly
        return stream


@pytest.mark.parametrize("form", FORMS)
async def test_the_handler_stops_when_its_client_stops_reading(build, connect, form):
    firehose, server = Firehose(), build()
    if form == "bytes":
        server.stream("firehose").output(bytes).handler(firehose.raw)
    else:
        server.stream("firehose").handler(firehose.asynchronous)
    await server.start()
    peer = await connect(server, WINDOW)
    await peer.stream("firehose", f"Accept: {FORMS[form]}")
    count = await standstill(lambda: firehose.count)
    assert count * ITEM - peer.unread() <= 64 * 1024 + 16 * ITEM + KERNEL


@pytest.mark.parametrize("shape", ["plain", "returned"])
async def test_a_handler_of_another_shape_stops_too(build, connect, shape):
    firehose, server = Firehose(), build()
    server.stream("firehose").handler(getattr(firehose, shape))
    await server.start()
    peer = await connect(server, WINDOW)
    await peer.stream("firehose")
    count = await standstill(lambda: firehose.count)
    assert count * ITEM - peer.unread() <= 64 * 1024 + 16 * ITEM + KERNEL


@pytest.mark.parametrize("shape", ["asynchronous", "plain", "returned"])
async def test_a_handler_that_waits_for_room_goes_on_when_its_client_reads_again(build, connect, eventually, shape):
    firehose, server = Firehose(), build()
    server.stream("firehose").handler(getattr(firehose, shape))
    await server.start()
    peer = await connect(server, WINDOW)
    await peer.stream("firehose")
    stopped_at = await standstill(lambda: firehose.count)
    for _ in range(stopped_at + 200):
        assert await peer.item() == "x" * ITEM
    assert firehose.count > stopped_at
    peer.vanish()
    await eventually(lambda: firehose.reasons == ["client_disconnected"])


@pytest.mark.parametrize("where", ["meta", "config", "stream"])
async def test_no_more_items_are_queued_than_the_mark_says(build, connect, where):
    server = build(limits={"high_water_mark": 3 if where == "config" else 16})
    count, stream = 0, create_stream(high_water_mark=3)

    async def generator():
        nonlocal count
        while True:
            count += 1
            yield "x" * ITEM
            await asyncio.sleep(0)

    async def returned(input, ctx):
        async def fill():
            async for item in generator():
                await stream.write(item)

        ctx.state.filling = asyncio.create_task(fill())
        return stream

    meta = {"high_water_mark": 3} if where == "meta" else {}
    server.stream("r", **meta).handler(returned if where == "stream" else generator)
    await server.start()
    peer = await connect(server, WINDOW)
    await peer.stream("r")
    await standstill(lambda: count)
    (connection,) = server._hub.connections
    assert 1 <= len(connection.outbox.parts) <= 3
    assert stream.buffered_amount == (3 if where == "stream" else 0)


async def test_memory_does_not_grow_while_a_client_reads_nothing(build, connect):
    firehose, server = Firehose(), build()
    server.stream("firehose").handler(firehose.asynchronous)
    await server.start()
    peers = [await connect(server, WINDOW) for _ in range(10)]
    for peer in peers:
        await peer.stream("firehose")
    await standstill(lambda: firehose.count)
    process = psutil.Process()
    before = process.memory_info().rss
    until = time.monotonic() + 1
    while time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert process.memory_info().rss - before < 4 * 1024 * 1024


async def test_everyone_else_goes_on(build, connect):
    firehose, server = Firehose(), build()
    server.stream("firehose").handler(firehose.asynchronous)

    @server.stream("ticks")
    async def ticks():
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0)

    await server.start()
    stuck, well = await connect(server, WINDOW), await connect(server)
    await stuck.stream("firehose")
    await standstill(lambda: firehose.count)
    await well.stream("ticks")
    assert [await well.item() for _ in range(500)] == list(range(500))


@pytest.mark.parametrize("shape", ["asynchronous", "plain", "returned"])
async def test_after_the_stall_limit_it_is_cut(build, connect, eventually, caplog, shape):
    firehose, server = Firehose(), build(limits={"stall_seconds": 0.4})
    server.stream("firehose").handler(getattr(firehose, shape))
    await server.start()
    peer = await connect(server, WINDOW)
    with caplog.at_level(logging.WARNING, "raffel"):
        await peer.stream("firehose")
        await eventually(lambda: firehose.reasons)
    assert firehose.reasons == ["slow_consumer"]
    assert b"event: error" not in await peer.end()
    await eventually(lambda: not server._hub.connections)


async def test_the_cut_is_in_the_log_with_the_peer(build, connect, eventually, caplog):
    firehose, server = Firehose(), build(limits={"stall_seconds": 0.4})
    server.stream("firehose").handler(firehose.asynchronous)
    await server.start()
    peer = await connect(server, WINDOW)
    name = "{}:{}".format(*peer.sock.getsockname())
    with caplog.at_level(logging.WARNING, "raffel"):
        await peer.stream("firehose")
        await eventually(lambda: firehose.reasons)
    cuts = [record for record in caplog.records if getattr(record, "reason", "") == "slow_consumer"]
    assert [record.peer for record in cuts] == [name]


async def test_a_client_that_reads_slowly_is_not_cut(build, connect):
    firehose, server = Firehose(), build(limits={"stall_seconds": 0.3})
    server.stream("firehose").handler(firehose.asynchronous)
    await server.start()
    peer = await connect(server, 8 * 1024)
    await peer.stream("firehose")
    loop, until = asyncio.get_running_loop(), time.monotonic() + 1.2
    while time.monotonic() < until:
        assert await loop.sock_recv(peer.sock, 4 * 1024)
        await asyncio.sleep(0.02)
    assert not firehose.reasons


async def test_a_stream_without_items_is_no_stall(build, connect, eventually):
    server = build(limits={"stall_seconds": 0.2})
    go_on = asyncio.Event()

    @server.stream("quiet")
    async def quiet():
        yield 1
        await go_on.wait()
        yield 2

    await server.start()
    peer = await connect(server)
    await peer.stream("quiet")
    assert await peer.item() == 1
    await asyncio.sleep(0.5)
    go_on.set()
    assert await peer.item() == 2


async def test_an_answer_that_nobody_reads_is_cut_too(build, connect, eventually):
    server = build(limits={"stall_seconds": 0.4})

    @server.procedure("large")
    async def large():
        return "x" * 8 * 1024 * 1024

    await server.start()
    peer = await connect(server, WINDOW)
    await peer.ask("/large", method="POST", body=b"{}")
    await eventually(lambda: server._hub.connections)
    await eventually(lambda: not server._hub.connections)
