"""A `cancel` drops what its stream has queued, is answered soon, and touches nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

WINDOW = 4 * 1024


async def hot(input, ctx):
    number = 0
    while True:
        yield f"{number:01000}"
        number += 1


async def large():
    return "x" * 1_000_000


class Slow:
    """A handler that takes its time to clean up."""

    def __init__(self, seconds=0.1):
        self.seconds = seconds
        self.running = 0
        self.cleaned = []

    async def stream(self, input, ctx):
        try:
            self.running += 1
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.seconds)
            self.cleaned.append(ctx.signal.reason)

    async def unary(self, input, ctx):
        try:
            self.running += 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.seconds)
            self.cleaned.append(ctx.signal.reason)

    client = unary
    bidi = stream


def serving(build, slow):
    server = build()
    server.stream("hot").handler(hot)
    server.stream("stream").handler(slow.stream)
    server.stream("client", direction="client").handler(slow.client)
    server.stream("bidi", direction="bidi").handler(slow.bidi)
    server.procedure("unary").handler(slow.unary)

    @server.stream("few")
    async def few():
        for number in range(5):
            yield number

    return server


async def congest(client, server, eventually, streams=("a",)):
    for id in streams:
        await client.start(id, "hot")
    await eventually(lambda: len(server._hub.sessions) == len(streams))
    (connection,) = server._hub.connections
    await eventually(lambda: connection.outbox.paused and len(connection._waiters) == len(streams))
    return connection


def handed_over(client, connection):
    """Bytes that cannot be dropped any more."""
    return client.unread() + connection._unsent()


# What is queued


async def test_what_it_had_queued_is_not_sent(build, connect, eventually):
    server = serving(build, Slow())
    await server.start()
    client = await connect(server, WINDOW)
    connection = await congest(client, server, eventually)
    await client.say("cancel", "a")
    await eventually(lambda: not server._hub.sessions)
    already = handed_over(client, connection)
    error = await client.until("stream:error", "a")
    assert error["payload"]["code"] == "CANCELLED"
    assert error["payload"]["details"] == {"reason": "client_cancelled"}
    assert client.received <= already + 300


async def test_the_items_before_it_are_whole_and_in_order_and_none_comes_behind(build, connect, eventually):
    server = serving(build, Slow())
    await server.start()
    client = await connect(server, WINDOW)
    await congest(client, server, eventually)
    await client.say("cancel", "a")
    items = []
    while (envelope := await client.receive())["type"] == "stream:data":
        items.append(int(envelope["payload"]))
    assert items == list(range(len(items)))
    assert envelope["type"] == "stream:error"
    await client.nothing()


async def test_what_others_have_queued_is_sent(build, connect, eventually):
    server = serving(build, Slow())
    await server.start()
    client = await connect(server, WINDOW)
    await congest(client, server, eventually, ("a", "b", "c"))
    await client.say("cancel", "b")
    seen = {"a": 0, "b": 0, "c": 0}
    ended = False
    while not ended or min(seen["a"], seen["c"]) < 300:
        envelope = await client.receive()
        if envelope["type"] == "stream:error":
            assert envelope["id"] == "b"
            ended = True
            continue
        assert int(envelope["payload"]) == seen[envelope["id"]]
        assert not (ended and envelope["id"] == "b")
        seen[envelope["id"]] += 1


async def test_a_finished_stream_whose_end_is_queued_is_not_changed_by_a_cancel(build, connect, eventually):
    server = serving(build, Slow())
    server.procedure("large").handler(large)
    await server.start()
    client = await connect(server, WINDOW)
    await client.say("request", "1", procedure="large")
    await eventually(lambda: any(getattr(one, "outbox", None) and one.outbox.paused for one in server._hub.connections))
    await client.start("f", "few")
    await eventually(lambda: not server._hub.sessions)
    await asyncio.sleep(0.01)
    assert not server._hub.sessions
    await client.say("cancel", "f")
    await asyncio.sleep(0.01)
    await client.until("response", "1")
    assert await client.items("f", 5) == list(range(5))
    assert await client.receive() == {"type": "stream:end", "id": "f"}
    await client.nothing()


async def test_the_pool_is_free_again(build, connect, eventually):
    server = serving(build, Slow())

    @server.stream("sink", direction="client")
    async def sink(input):
        return len([item async for item in input])

    await server.start()
    client = await connect(server)
    for round in range(5):
        id = f"c{round}"
        await client.start(id, "client")
        await client.data(id, *("x" * 1000 for _ in range(150)))
        await client.say("cancel", id)
        assert (await client.until("stream:error", id))["payload"]["code"] == "CANCELLED"
    await client.start("s", "sink")
    await client.data("s", *("x" * 1000 for _ in range(1000)))
    await client.say("stream:end", "s")
    assert (await client.receive())["payload"] == 1000


# The answer


@pytest.mark.parametrize("kind", ["stream", "client", "bidi", "unary"])
async def test_it_comes_soon_also_where_the_cleaning_up_takes_longer(build, connect, eventually, quickest, kind):
    slow = Slow(0.1)
    server = serving(build, slow)
    await server.start()
    client = await connect(server)

    async def attempt():
        slow.running = 0
        slow.cleaned.clear()
        await client.say("request" if kind == "unary" else "stream:start", "s", procedure=kind)
        await eventually(lambda: slow.running)
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await client.say("cancel", "s")
        answer = await client.until("error" if kind == "unary" else "stream:error", "s")
        took = time.perf_counter() - began
        assert answer["payload"]["code"] == "CANCELLED"
        assert not slow.cleaned  # it is still at it
        await eventually(lambda: slow.cleaned)
        assert slow.cleaned == ["client_cancelled"]  # and runs to its end
        await client.nothing(0.02)
        return took

    assert await quickest(attempt) < 0.12


async def test_it_waits_for_a_handler_that_is_quick(build, connect, eventually):
    slow = Slow(0.0)
    server = serving(build, slow)
    await server.start()
    client = await connect(server)
    await client.start("s", "stream")
    await client.items("s", 1)
    await client.say("cancel", "s")
    await client.until("stream:error", "s")
    assert slow.cleaned == ["client_cancelled"]


@pytest.mark.parametrize("seconds", [0.0, 0.1])
async def test_there_is_one_answer_to_many_cancels(build, connect, seconds):
    server = serving(build, Slow(seconds))
    await server.start()
    client = await connect(server)
    await client.start("s", "stream")
    await client.items("s", 1)
    for _ in range(5):
        await client.say("cancel", "s")
    await client.until("stream:error", "s")
    await client.say("cancel", "s")
    await client.nothing(0.15)


@pytest.mark.parametrize("seconds", [0.0, 0.15])
async def test_the_id_may_be_used_again_at_once(build, connect, eventually, seconds):
    slow = Slow(seconds)
    server = serving(build, slow)
    await server.start()
    client = await connect(server)
    await client.start("s", "stream")
    await client.items("s", 1)
    await client.say("cancel", "s")
    await client.until("stream:error", "s")
    await client.start("s", "few")
    assert await client.items("s", 5) == list(range(5))
    assert await client.receive() == {"type": "stream:end", "id": "s"}
    await eventually(lambda: slow.cleaned)
    await client.nothing()


async def test_a_new_stream_of_the_id_is_not_ended_by_the_end_of_the_old_one(build, connect, eventually):
    slow = Slow(0.12)
    server = serving(build, slow)
    await server.start()
    client = await connect(server)
    for _ in range(3):
        await client.start("s", "bidi")
        assert await client.items("s", 1) == [1]
        await client.say("cancel", "s")
        await client.until("stream:error", "s")
    await client.start("s", "stream", credit=5)
    assert await client.items("s", 1) == [1]
    await eventually(lambda: len(slow.cleaned) == 3)
    await client.nothing()
    await client.say("cancel", "s")
    assert (await client.receive())["type"] == "stream:error"


@pytest.mark.parametrize("patience", [0.0, 0.1], ids=["at once", "after the answer"])
async def test_what_a_handler_still_yields_is_not_sent(build, connect, eventually, patience):
    """It has caught its cancellation and goes on: nothing may come behind the end, least of all under an id in use."""
    server, over = serving(build, Slow()), []

    @server.stream("deaf")
    async def deaf(input, ctx):
        try:
            yield "first"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(patience)
            yield "last"
        finally:
            over.append(ctx.signal.reason)

    await server.start()
    client = await connect(server)
    await client.start("s", "deaf")
    assert await client.items("s", 1) == ["first"]
    await client.say("cancel", "s")
    assert (await client.receive())["type"] == "stream:error"
    await eventually(lambda: over)
    await client.nothing()


async def test_a_cancel_in_the_same_packet_as_the_start_leaves_nothing(build, connect, eventually):
    slow = Slow()
    server = serving(build, slow)
    await server.start()
    client = await connect(server)
    await client.send(
        {"type": "stream:start", "id": "s", "procedure": "stream"},
        {"type": "cancel", "id": "s"},
        {"type": "stream:start", "id": "t", "procedure": "few"},
    )
    found = [await client.receive() for _ in range(7)]
    ends = {envelope["id"]: envelope["type"] for envelope in found if envelope["type"] != "stream:data"}
    assert ends == {"s": "stream:error", "t": "stream:end"}
    assert not slow.running


async def test_calls_that_still_clean_up_count_as_open(build, connect, eventually):
    """Else a client could have any number of handlers running."""
    slow = Slow(0.3)
    server = build(limits={"streams_per_connection": 3})
    server.stream("stream").handler(slow.stream)
    await server.start()
    client = await connect(server)
    for number in range(3):
        await client.start(str(number), "stream")
        await client.items(str(number), 1)
    for number in range(3):
        await client.say("cancel", str(number))
        await client.until("stream:error", str(number))
    await client.start("more", "stream")
    assert (await client.receive())["payload"]["code"] == "RESOURCE_EXHAUSTED"
    await eventually(lambda: len(slow.cleaned) == 3)
    await client.start("more", "stream")
    assert await client.items("more", 1) == [1]


async def test_one_that_waits_for_room_is_cancelled_at_once(build, connect, eventually):
    server, reasons = build(), []

    @server.stream("hot")
    async def counted(input, ctx):
        try:
            while True:
                yield "x" * 1000
        finally:
            reasons.append((ctx.signal.reason, time.perf_counter()))

    await server.start()
    client = await connect(server, WINDOW)
    await congest(client, server, eventually)
    began = time.perf_counter()
    await client.say("cancel", "a")
    await eventually(lambda: reasons)
    ((reason, when),) = reasons
    assert reason == "client_cancelled"
    assert when - began < 0.1


async def test_a_handler_that_ignores_its_end_harms_nobody(build, connect, eventually, caplog):
    """Its connection has been told the end, and takes nothing more."""
    server, over = build(), []

    @server.stream("deaf")
    async def deaf():
        yield "first"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
        over.append(True)
        yield "last"

    await server.start()
    client = await connect(server)
    await client.start("d", "deaf")
    await client.items("d", 1)
    too_large = 2 * 1024 * 1024
    if client.protocol == "tcp":
        await client.send_raw(too_large.to_bytes(4, "big"))
    else:
        await client.send_raw(b"\x81\xff" + too_large.to_bytes(8, "big") + b"\0\0\0\0")
    await eventually(lambda: over and not server._hub.sessions)
    envelopes, _ = await client.rest()
    assert [envelope["payload"]["code"] for envelope in envelopes] == ["MESSAGE_TOO_LARGE"]
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_nor_is_what_others_push_in_the_same_turn_left_behind(build, connect, eventually):
    server, waits, go_on = build(), [], asyncio.Event()

    @server.stream("deaf")
    async def deaf():
        yield "first"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            waits.append("deaf")
            await go_on.wait()
        yield "last"

    @server.stream("well")
    async def well():
        waits.append("well")
        await go_on.wait()
        yield "here"

    await server.start()
    client, other = await connect(server), await connect(server)
    await client.start("d", "deaf")
    await client.items("d", 1)
    too_large = 2 * 1024 * 1024
    if client.protocol == "tcp":
        await client.send_raw(too_large.to_bytes(4, "big"))
    else:
        await client.send_raw(b"\x81\xff" + too_large.to_bytes(8, "big") + b"\0\0\0\0")
    await eventually(lambda: waits == ["deaf"])
    await other.start("w", "well")
    await eventually(lambda: waits == ["deaf", "well"])
    go_on.set()  # wakes them in this order, in one turn of the loop
    assert await asyncio.wait_for(other.items("w", 1), 2) == ["here"]
