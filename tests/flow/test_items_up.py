"""Items that come faster than their handler reads: parked, then not read from the network, never lost, never many."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

from .conftest import Peak, decode

log = logging.getLogger("measured")

ITEMS = int(os.environ.get("RAFFEL_FLOW_ITEMS", "5000"))
"""100000 is the full size."""

POOL = 256 * 1024
WEIGHT = 128
"""What an item that waits costs beside its payload."""

SLOW = """
    import asyncio

    meta = {"direction": "client"}

    async def handler(input):
        count, ordered = 0, True
        async for number in input:
            ordered = ordered and number == count
            count += 1
            if count % 100 == 0:
                await asyncio.sleep(0.005)
        return [count, ordered]
    """


class Reader:
    """A client stream's handler that reads when a test says so."""

    def __init__(self):
        self.go_on = asyncio.Event()
        self.reading = asyncio.Event()
        self.seen = []
        self.reason = None
        self.ended = asyncio.Event()

    async def handler(self, input, ctx):
        try:
            self.reading.set()
            await self.go_on.wait()
            async for item in input:
                self.seen.append(item)
            return len(self.seen)
        finally:
            self.reason = ctx.signal.reason
            self.ended.set()


async def echo(input):
    async for item in input:
        yield item


async def naturals():
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0)


async def large():
    return "x" * 600_000


def prepared(server):
    """A server with a stream that is not read, and others."""
    reader = Reader()
    server.stream("stuck", direction="client").handler(reader.handler)
    server.stream("echo", direction="bidi").handler(echo)
    server.stream("naturals").handler(naturals)
    return reader


async def fill(client, server, eventually):
    """Opens `stuck` and sends until the server reads no more; returns how many items that are, and the sending."""
    await client.start("stuck", "stuck")
    count = 4 * POOL // (WEIGHT + 100)
    piece = client.framed(*({"type": "stream:data", "id": "stuck", "payload": f"{n:0100}"} for n in range(count)))
    sending = asyncio.create_task(client.send_raw(piece))
    connection = await accepted(server, eventually)
    await eventually(lambda: not connection.transport.is_reading())
    return count, sending


async def accepted(server, eventually):
    """The one connection of a server, once it has a call."""
    await eventually(lambda: server._hub.sessions)
    (connection,) = server._hub.connections
    return connection


# A handler that is ten times slower than its client


async def test_without_credit_all_items_arrive_in_order_and_memory_stays_flat(process, connect, beside):
    server = process({"slow.stream.py": SLOW})
    client = await connect(server)
    for id, count in (("warm", 500), ("s", ITEMS)):
        items = ({"type": "stream:data", "id": id, "payload": n} for n in range(count))
        data = client.framed(
            {"type": "stream:start", "id": id, "procedure": "slow"}, *items, {"type": "stream:end", "id": id}
        )
        began = time.perf_counter()
        async with Peak(server) as peak:
            sending = beside(client.send_raw(data))
            answer = await client.receive(patience=50)
            await sending
        assert (answer["type"], answer["payload"]) == ("response", [count, True])
    log.info(f"{count} items in {time.perf_counter() - began:.1f} s, {peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * 1024 * 1024


async def test_with_credit_too(process, connect):
    server = process({"slow.stream.py": SLOW})
    client = await connect(server)
    for id, count in (("warm", 500), ("s", ITEMS)):
        began = time.perf_counter()
        async with Peak(server) as peak:
            await client.start(id, "slow", credit=1)
            sent = granted = 0
            while sent < count:
                answer = await client.receive()
                assert answer["type"] == "stream:credit", answer
                granted += answer["credit"]
                upto = min(count, granted)
                await client.data(id, *range(sent, upto))
                sent = upto
            await client.say("stream:end", id)
            answer = await client.until("response", id)
        assert answer["payload"] == [count, True]
    log.info(f"{count} items in {time.perf_counter() - began:.1f} s, {peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * 1024 * 1024


# While items are parked


async def test_a_cancel_behind_parked_items_takes_effect_at_once(build, connect, quickest):
    server = build()
    reader = prepared(server)
    await server.start()
    client = await connect(server)

    async def attempt():
        reader.reading.clear()
        reader.ended.clear()
        await client.start("s", "stuck")
        await reader.reading.wait()
        data = client.framed(*({"type": "stream:data", "id": "s", "payload": n} for n in range(1500)))
        began = time.perf_counter()
        await client.send_raw(data + client.framed({"type": "cancel", "id": "s"}))
        answer = await client.receive()
        took = time.perf_counter() - began
        assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "CANCELLED")
        assert reader.ended.is_set() and reader.reason == "client_cancelled" and not reader.seen
        return took

    assert await quickest(attempt) < 0.1


async def test_items_of_other_streams_are_still_handled(build, connect):
    server = build()
    prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("stuck", "stuck")
    await client.start("e", "echo")
    await client.data("stuck", *range(1000))
    await client.data("e", *range(100))
    assert await client.items("e", 100) == list(range(100))


async def test_ends_of_other_streams_are_still_handled(build, connect):
    server = build()
    prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("stuck", "stuck")
    await client.start("e", "echo")
    await client.data("stuck", *range(1000))
    await client.say("stream:end", "e")
    assert (await client.receive()) == {"type": "stream:end", "id": "e"}


async def test_credit_of_other_streams_is_still_handled(build, connect):
    server = build()
    prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("n", "naturals", credit=1)
    assert await client.items("n", 1) == [0]
    await client.start("stuck", "stuck")
    await client.data("stuck", *range(1000))
    await client.say("stream:credit", "n", credit=2)
    assert await client.items("n", 2) == [1, 2]


async def test_cancels_of_other_streams_are_still_handled(build, connect):
    server = build()
    prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("n", "naturals", credit=1)
    assert await client.items("n", 1) == [0]
    await client.start("stuck", "stuck")
    await client.data("stuck", *range(1000))
    await client.say("cancel", "n")
    assert (await client.receive())["payload"]["code"] == "CANCELLED"


async def test_the_end_behind_parked_items_is_seen_behind_them(build, connect):
    server = build()
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("s", "stuck")
    await client.data("s", *range(1000))
    await client.say("stream:end", "s")
    await reader.reading.wait()
    await client.nothing()
    reader.go_on.set()
    assert (await client.receive())["payload"] == 1000
    assert reader.seen == list(range(1000))


# When the pool is full


async def test_reading_pauses_and_goes_on_and_nothing_is_lost(build, connect, eventually):
    server = build()
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    count, sending = await fill(client, server, eventually)
    await asyncio.sleep(0.1)
    (connection,) = server._hub.connections
    assert not connection.transport.is_reading()
    reader.go_on.set()
    await sending
    await client.say("stream:end", "stuck")
    assert (await client.receive())["payload"] == count
    assert reader.seen == [f"{n:0100}" for n in range(count)]
    assert connection.transport.is_reading()


async def test_what_came_behind_a_full_pool_is_handled_when_it_is_read(build, connect, eventually):
    server = build()
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    _, sending = await fill(client, server, eventually)
    await client.start("n", "naturals", credit=1)
    await client.nothing()
    reader.go_on.set()
    await sending
    assert await client.items("n", 1) == [0]


async def test_one_slow_read_after_the_other_brings_a_full_pool_to_its_end(build, connect, eventually):
    server, steps, seen = build(), asyncio.Semaphore(0), []

    @server.stream("stuck", direction="client")
    async def stepwise(input):
        async for item in input:
            seen.append(item)
            await steps.acquire()
        return len(seen)

    await server.start()
    client = await connect(server)
    count, sending = await fill(client, server, eventually)
    while len(seen) < count:
        steps.release()
        await asyncio.sleep(0)
    await sending
    assert seen == [f"{n:0100}" for n in range(count)]
    steps.release()
    await client.say("stream:end", "stuck")
    assert (await client.receive())["payload"] == count


@pytest.mark.parametrize("protocol", ["websocket"])  # the other has no pings
async def test_the_ping_timer_stands_still_meanwhile(build, connect, eventually):
    server = build(heartbeat_seconds={"websocket": 0.1})
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    count, sending = await fill(client, server, eventually)
    await asyncio.sleep(0.5)
    assert not reader.ended.is_set()
    reader.go_on.set()
    await sending
    await client.say("stream:end", "stuck")
    assert (await client.receive())["payload"] == count
    assert client.pings <= 1


async def test_a_connection_that_is_not_read_costs_no_time(process, connect):
    """Also when a message had begun that is not complete, and its time is over."""
    stuck = """
        import asyncio

        meta = {"direction": "client"}

        async def handler(input):
            await asyncio.Event().wait()
        """
    server = process({"stuck.stream.py": stuck}, "limits: {request_seconds: 0.2}")
    client = await connect(server)
    await client.start("s", "stuck")
    data = client.framed(*({"type": "stream:data", "id": "s", "payload": "x" * 1000} for _ in range(500)))
    await client.send_raw(data[: len(data) // 8 - 3])
    await asyncio.sleep(0.05)
    sending = asyncio.create_task(client.send_raw(data[len(data) // 8 - 3 :]))
    await asyncio.sleep(0.4)
    before = server.seconds()
    await asyncio.sleep(0.3)
    used = server.seconds() - before
    sending.cancel()
    assert used < 0.1


async def test_clients_that_vanish_meanwhile_are_seen_within_a_second(build, connect, eventually):
    server, ended = build(), {}

    @server.stream("stuck", direction="client")
    async def stuck(input, ctx):
        try:
            await asyncio.Event().wait()
        finally:
            ended[ctx.input] = ctx.signal.reason, time.perf_counter()

    await server.start()
    clients, sendings = {}, []
    for way in ("vanish", "reset", "half_close"):
        client = clients[way] = await connect(server)
        await client.start("s", "stuck", way)
        data = client.framed(*({"type": "stream:data", "id": "s", "payload": "x" * 1000} for _ in range(300)))
        sendings.append(asyncio.create_task(client.send_raw(data)))
    await eventually(lambda: len(server._hub.sessions) == 3)
    await eventually(lambda: not any(one.transport.is_reading() for one in server._hub.connections))
    await asyncio.gather(*sendings)  # a FIN behind bytes for which there is no room cannot be seen by anyone
    await eventually(lambda: not any(client.unsent() for client in clients.values()))
    began = time.perf_counter()
    for way, client in clients.items():
        getattr(client, way)()
    await eventually(lambda: len(ended) == 3)
    assert {reason for reason, _ in ended.values()} == {"client_disconnected"}
    assert all(when - began < 1.2 for _, when in ended.values())
    await eventually(lambda: not server._hub.connections and not server._hub.sessions)


# A handler that has stopped reading


async def test_it_loses_its_stream_while_others_are_open(build, connect):
    server = build(limits={"stall_seconds": 0.2})
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("e", "echo")
    await client.start("s", "stuck")
    began = time.perf_counter()
    await client.data("s", *range(20))
    answer = await client.receive()
    assert time.perf_counter() - began >= 0.2
    assert (answer["type"], answer["id"]) == ("stream:error", "s")
    assert answer["payload"]["code"] == "RESOURCE_EXHAUSTED"
    assert answer["payload"]["details"] == {"reason": "handler_stalled"}
    assert reader.reason == "handler_stalled"
    await client.data("e", 1)
    assert await client.items("e", 1) == [1]


async def test_the_others_go_on_where_it_had_filled_the_pool(build, connect, eventually):
    server = build(limits={"stall_seconds": 0.2})
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("e", "echo")
    _, sending = await fill(client, server, eventually)
    await sending
    await client.data("e", *range(100))
    assert (await client.receive())["payload"]["details"] == {"reason": "handler_stalled"}
    assert await client.items("e", 100) == list(range(100))
    assert not reader.seen


async def test_alone_on_its_connection_it_is_left_alone(build, connect, eventually):
    server = build(limits={"stall_seconds": 0.2})
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    count, sending = await fill(client, server, eventually)
    await asyncio.sleep(0.5)
    assert not reader.ended.is_set()
    reader.go_on.set()
    await sending
    await client.say("stream:end", "stuck")
    assert (await client.receive())["payload"] == count


async def test_the_time_that_it_was_alone_does_not_count(build, connect):
    server = build(limits={"stall_seconds": 0.3})
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("s", "stuck")
    await client.data("s", *range(20))
    await asyncio.sleep(0.4)
    await client.start("e", "echo")
    await asyncio.sleep(0.15)
    assert not reader.ended.is_set()
    reader.go_on.set()
    await client.say("stream:end", "s")
    assert (await client.receive())["payload"] == 20


async def test_a_slow_handler_that_goes_on_reading_is_no_stalled_one(build, connect):
    server, seen = build(limits={"stall_seconds": 0.2}), []

    @server.stream("slow", direction="client")
    async def slow(input):
        async for item in input:
            seen.append(item)
            await asyncio.sleep(0.02)
        return len(seen)

    server.stream("echo", direction="bidi").handler(echo)
    await server.start()
    client = await connect(server)
    await client.start("e", "echo")
    await client.start("s", "slow")
    await client.data("s", *range(30))
    await client.say("stream:end", "s")
    assert (await client.receive())["payload"] == 30


async def test_a_handler_with_nothing_to_read_is_no_stalled_one(build, connect):
    server = build(limits={"stall_seconds": 0.2})
    reader = prepared(server)
    await server.start()
    client = await connect(server)
    await client.start("e", "echo")
    await client.start("s", "stuck")
    await client.data("s", *range(5))
    await asyncio.sleep(0.4)
    assert not reader.ended.is_set()
    reader.go_on.set()
    await client.say("stream:end", "s")
    assert (await client.receive())["payload"] == 5


async def test_what_it_had_sent_comes_before_its_end(build, connect, eventually):
    """Only a cancel, a disconnect and a cut drop what is queued."""
    server = build(limits={"stall_seconds": 0.2})

    @server.stream("stalled", direction="bidi")
    async def stalled(input):
        for number in range(10):
            yield number
        await asyncio.Event().wait()

    server.stream("echo", direction="bidi").handler(echo)
    server.procedure("large").handler(large)
    await server.start()
    client = await connect(server, 8 * 1024)
    await client.start("e", "echo")
    await client.say("request", "1", procedure="large")
    connection = await accepted(server, eventually)
    await eventually(lambda: connection.outbox.paused)
    await client.start("s", "stalled")
    await client.data("s", *range(20))
    envelopes = []
    async with asyncio.timeout(10):
        while not envelopes or envelopes[-1]["type"] != "stream:error":
            while (message := client.next()) is None:
                await client.more(16 * 1024)
                await asyncio.sleep(0.01)
            envelopes.append(decode(message))
    assert envelopes[-1]["payload"]["details"] == {"reason": "handler_stalled"}
    assert [envelope["payload"] for envelope in envelopes if envelope["type"] == "stream:data"] == list(range(10))


async def test_a_handler_that_waits_for_a_slow_client_is_no_stalled_one(build, connect, eventually):
    server = build(limits={"stall_seconds": 0.2})
    server.stream("echo", direction="bidi").handler(echo)
    server.procedure("large").handler(large)
    await server.start()
    client = await connect(server, 8 * 1024)
    await client.start("other", "echo")
    await client.say("request", "1", procedure="large")
    connection = await accepted(server, eventually)
    await eventually(lambda: connection.outbox.paused)
    await client.start("e", "echo")
    await client.data("e", *range(60))
    await client.say("stream:end", "e")
    envelopes = []
    async with asyncio.timeout(10):
        while not envelopes or envelopes[-1]["type"] not in ("stream:error", "stream:end"):
            while (message := client.next()) is None:
                await client.more(16 * 1024)
                await asyncio.sleep(0.01)
            envelopes.append(decode(message))
    assert envelopes[-1] == {"type": "stream:end", "id": "e"}
    assert [envelope["payload"] for envelope in envelopes if envelope["type"] == "stream:data"] == list(range(60))
