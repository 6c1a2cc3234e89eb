"""Credit: never more items than were granted, in either direction, and waiting for it is nobody's fault."""

from __future__ import annotations

import asyncio

import pytest

from raffel_core.stream import create_stream

MAXIMUM = 2**31 - 1


class Source:
    """Handlers that count what they were asked for."""

    def __init__(self, limit=None):
        self.limit = limit
        self.count = 0
        self.reasons = []

    async def naturals(self, input, ctx):
        try:
            while self.count != self.limit:
                self.count += 1
                yield self.count
        finally:
            self.reasons.append(ctx.signal.reason)

    def plain(self, input, ctx):
        try:
            while self.count != self.limit:
                self.count += 1
                yield self.count
        finally:
            self.reasons.append(ctx.signal.reason)

    async def returned(self, input, ctx):
        stream = create_stream(high_water_mark=2)

        async def fill():
            while self.count != self.limit:
                self.count += 1
                await stream.write(self.count)
            stream.end()

        ctx.state.filling = asyncio.create_task(fill())
        ctx.on_close(lambda outcome: ctx.state.filling.cancel())
        return stream

    async def bidi(self, input, ctx):
        async for item in self.naturals(input, ctx):
            yield item


SHAPES = ["naturals", "plain", "returned", "bidi"]


async def serving(build, source, shape="naturals", **options):
    server = build(**options)
    direction = "bidi" if shape == "bidi" else "server"
    server.stream("n", direction=direction).handler(getattr(source, shape))

    @server.stream("echo", direction="bidi")
    async def echo(input):
        async for item in input:
            yield item

    await server.start()
    return server


async def past_grant(client, id):
    """Skips the grant that a bidi stream begins with."""
    answer = await client.receive()
    assert (answer["type"], answer["id"]) == ("stream:credit", id)


# Down


@pytest.mark.parametrize("shape", SHAPES)
async def test_never_more_items_than_granted(build, connect, shape):
    server = await serving(build, Source(), shape)
    client = await connect(server)
    await client.start("s", "n", credit=3)
    if shape == "bidi":
        await past_grant(client, "s")
    assert await client.items("s", 3) == [1, 2, 3]
    await client.nothing()
    await client.say("stream:credit", "s", credit=2)
    assert await client.items("s", 2) == [4, 5]
    await client.nothing()


async def test_the_handler_is_not_asked_for_more_than_one_item_ahead(build, connect):
    source = Source()
    server = await serving(build, source)
    client = await connect(server)
    await client.start("s", "n", credit=3)
    await client.items("s", 3)
    await client.nothing()
    assert source.count <= 4


async def test_grants_add_up(build, connect):
    server = await serving(build, Source())
    client = await connect(server)
    grants = [{"type": "stream:credit", "id": "s", "credit": n} for n in (1, 2, 3, 10)]
    await client.send({"type": "stream:start", "id": "s", "procedure": "n", "credit": 4}, *grants)
    assert await client.items("s", 20) == list(range(1, 21))
    await client.nothing()


async def test_grants_for_one_stream_are_nothing_to_another(build, connect):
    source = Source()
    server = await serving(build, source)
    client = await connect(server)
    await client.start("a", "n", credit=1)
    assert len(await client.items("a", 1)) == 1
    await client.start("b", "n", credit=1)
    assert len(await client.items("b", 1)) == 1
    await client.say("stream:credit", "b", credit=5)
    assert len(await client.items("b", 5)) == 5
    await client.nothing()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 5, 17])
async def test_as_many_items_as_credit_and_then_the_end(build, connect, shape, count):
    server = await serving(build, Source(count), shape)
    client = await connect(server)
    await client.start("s", "n", credit=count)
    if shape == "bidi":
        await past_grant(client, "s")
    assert await client.items("s", count) == list(range(1, count + 1))
    assert await client.receive() == {"type": "stream:end", "id": "s"}


async def test_an_error_needs_no_credit(build, connect):
    server = build()

    @server.stream("fails")
    async def fails():
        yield 1
        raise KeyError

    await server.start()
    client = await connect(server)
    await client.start("s", "fails", credit=1)
    assert await client.items("s", 1) == [1]
    assert (await client.receive())["payload"]["code"] == "INTERNAL_ERROR"


async def test_the_response_of_a_client_stream_needs_no_credit(build, connect):
    server = build()

    @server.stream("sum", direction="client")
    async def total(input):
        return sum([item async for item in input])

    await server.start()
    client = await connect(server)
    await client.start("s", "sum", credit=1)
    assert await client.receive() == {"type": "stream:credit", "id": "s", "credit": 16}
    await client.data("s", *range(5))
    await client.say("stream:end", "s")
    assert await client.receive() == {"type": "response", "id": "s", "payload": 10}


@pytest.mark.parametrize("credit", [1, MAXIMUM - 1])
async def test_a_sum_beyond_the_maximum_is_refused_and_the_stream_goes_on(build, connect, credit):
    server = await serving(build, Source(1))
    client = await connect(server)
    await client.send(
        {"type": "stream:start", "id": "s", "procedure": "n", "credit": credit},
        {"type": "stream:credit", "id": "s", "credit": MAXIMUM},
    )
    answer = await client.receive()
    assert (answer["type"], answer["id"], answer["payload"]["code"]) == ("error", "s", "INVALID_ENVELOPE")
    assert await client.items("s", 1) == [1]
    assert await client.receive() == {"type": "stream:end", "id": "s"}


async def test_a_sum_of_the_maximum_is_none(build, connect):
    server = await serving(build, Source(1))
    client = await connect(server)
    await client.send(
        {"type": "stream:start", "id": "s", "procedure": "n", "credit": 1},
        {"type": "stream:credit", "id": "s", "credit": MAXIMUM - 1},
    )
    assert await client.items("s", 1) == [1]
    assert await client.receive() == {"type": "stream:end", "id": "s"}


async def test_grants_that_have_crossed_the_end_are_dropped(build, connect):
    server = await serving(build, Source(1))
    client = await connect(server)
    await client.start("s", "n", credit=1)
    await client.items("s", 1)
    await client.until("stream:end", "s")
    await client.say("stream:credit", "s", credit=1)
    await client.nothing()


async def test_waiting_for_credit_is_no_stall_and_does_not_hold_the_connection(build, connect):
    source = Source()
    server = await serving(build, source, limits={"stall_seconds": 0.1})
    client = await connect(server)
    await client.start("s", "n", credit=2)
    assert await client.items("s", 2) == [1, 2]
    await client.start("e", "echo")
    for number in range(10):
        await asyncio.sleep(0.04)
        await client.data("e", number)
        assert await client.items("e", 1) == [number]
    assert not source.reasons
    await client.say("stream:credit", "s", credit=1)
    assert await client.items("s", 1) == [3]


@pytest.mark.parametrize("shape", SHAPES)
async def test_one_that_waits_for_credit_can_be_cancelled(build, connect, eventually, shape):
    source = Source()
    server = await serving(build, source, shape)
    client = await connect(server)
    await client.start("s", "n", credit=1)
    await client.until("stream:data", "s")
    await client.say("cancel", "s")
    assert (await client.receive())["payload"]["code"] == "CANCELLED"
    if shape != "returned":
        await eventually(lambda: source.reasons == ["client_cancelled"])


async def test_one_that_waits_for_credit_keeps_its_deadline(build, connect):
    server = await serving(build, Source())
    client = await connect(server)
    await client.start("s", "n", credit=1, metadata={"timeout-ms": 100})
    await client.items("s", 1)
    assert (await client.receive())["payload"]["code"] == "DEADLINE_EXCEEDED"


async def test_many_single_grants_are_as_many_items(build, connect):
    server = await serving(build, Source())
    client = await connect(server)
    count = 2000
    await client.start("s", "n", credit=1)
    await client.send(*({"type": "stream:credit", "id": "s", "credit": 1} for _ in range(count - 1)))
    assert await client.items("s", count) == list(range(1, count + 1))
    await client.nothing()


# Up


class Sink:
    """A handler that reads as many items as a test allows."""

    def __init__(self):
        self.allowed = asyncio.Semaphore(0)
        self.seen = []
        self.reason = None

    async def client(self, input, ctx):
        try:
            while True:
                await self.allowed.acquire()
                chunk = await input.read()
                if chunk.done:
                    return len(self.seen)
                self.seen.append(chunk.value)
        finally:
            self.reason = ctx.signal.reason

    async def bidi(self, input, ctx):
        await self.client(input, ctx)
        yield len(self.seen)


async def sinking(build, sink, direction, **meta):
    server = build()
    server.stream("sink", direction=direction, **meta).handler(getattr(sink, direction))

    @server.stream("echo", direction="bidi")
    async def echo(input):
        async for item in input:
            yield item

    await server.start()
    return server


@pytest.mark.parametrize("direction", ["client", "bidi"])
@pytest.mark.parametrize("mark", [1, 5, 16])
async def test_the_client_is_granted_the_mark_at_once(build, connect, direction, mark):
    server = await sinking(build, Sink(), direction, high_water_mark=mark)
    client = await connect(server)
    await client.start("s", "sink", credit=1)
    assert await client.receive() == {"type": "stream:credit", "id": "s", "credit": mark}
    await client.nothing()


@pytest.mark.parametrize("direction", ["client", "bidi"])
async def test_and_more_as_the_handler_reads(build, connect, direction):
    sink = Sink()
    server = await sinking(build, sink, direction, high_water_mark=4)
    client = await connect(server)
    await client.start("s", "sink", credit=1)
    granted, sent = (await client.receive())["credit"], 0
    while sent < 40:
        await client.data("s", *range(sent, granted))
        await client.nothing(0.005)
        sent = granted
        for _ in range(4):
            sink.allowed.release()
        granted += (await client.until("stream:credit", "s"))["credit"]
        while granted < sent + 4:
            granted += (await client.until("stream:credit", "s"))["credit"]
        assert granted == sent + 4
    assert sink.seen == list(range(40))


@pytest.mark.parametrize("mark", [1, 2, 3, 7])
async def test_a_client_that_uses_all_its_credit_gets_everything_through(build, connect, mark):
    server, seen = build(), []

    @server.stream("sink", direction="client", high_water_mark=mark)
    async def sink(input):
        seen.extend([item async for item in input])
        return len(seen)

    await server.start()
    client = await connect(server)
    await client.start("s", "sink", credit=1)
    sent = granted = 0
    while sent < 300:
        granted += (await client.until("stream:credit", "s"))["credit"]
        await client.data("s", *range(sent, granted))
        sent = granted
    await client.say("stream:end", "s")
    assert (await client.until("response", "s"))["payload"] == sent
    assert seen == list(range(sent))


@pytest.mark.parametrize("direction", ["client", "bidi"])
async def test_one_item_too_many_ends_the_stream(build, connect, eventually, direction):
    sink = Sink()
    server = await sinking(build, sink, direction, high_water_mark=3)
    client = await connect(server)
    await client.start("e", "echo")
    await client.start("s", "sink", credit=1)
    await past_grant(client, "s")
    await client.data("s", 1, 2, 3, 4)
    answer = await client.receive()
    assert (answer["type"], answer["id"]) == ("stream:error", "s")
    assert answer["payload"]["code"] == "RESOURCE_EXHAUSTED"
    await eventually(lambda: sink.reason is not None)
    await client.data("s", 5)
    await client.data("e", "on")
    assert await client.items("e", 1) == ["on"]


async def test_as_many_items_as_granted_are_none_too_many(build, connect):
    sink = Sink()
    server = await sinking(build, sink, "client", high_water_mark=3)
    client = await connect(server)
    await client.start("s", "sink", credit=1)
    await past_grant(client, "s")
    await client.data("s", 1, 2, 3)
    await client.say("stream:end", "s")
    await client.nothing()
    for _ in range(4):
        sink.allowed.release()
    assert (await client.until("response", "s"))["payload"] == 3
    assert sink.seen == [1, 2, 3]


async def test_items_before_the_grant_came_are_not_forgiven_beyond_it(build, connect):
    server = await sinking(build, Sink(), "client", high_water_mark=2)
    client = await connect(server)
    start = {"type": "stream:start", "id": "s", "procedure": "sink", "credit": 1}
    await client.send(start, *({"type": "stream:data", "id": "s", "payload": n} for n in range(3)))
    assert (await client.until("stream:error", "s"))["payload"]["code"] == "RESOURCE_EXHAUSTED"


async def test_nothing_is_granted_without_credit(build, connect):
    sink = Sink()
    server = await sinking(build, sink, "bidi")
    client = await connect(server)
    await client.start("s", "sink")
    await client.data("s", *range(10))
    for _ in range(10):
        sink.allowed.release()
    await client.nothing()
    assert sink.seen == list(range(10))


async def test_no_grant_comes_behind_the_clients_end(build, connect):
    sink = Sink()
    server = await sinking(build, sink, "client", high_water_mark=4)
    client = await connect(server)
    await client.start("s", "sink", credit=1)
    await past_grant(client, "s")
    await client.data("s", 1, 2, 3, 4)
    await client.say("stream:end", "s")
    await client.nothing()
    for _ in range(5):
        sink.allowed.release()
    assert await client.receive() == {"type": "response", "id": "s", "payload": 4}


async def test_a_credit_stream_is_never_called_stalled(build, connect):
    sink = Sink()
    server = build(limits={"stall_seconds": 0.1})
    server.stream("sink", direction="client").handler(sink.client)
    await server.start()
    client = await connect(server)
    for id in ("a", "b"):
        await client.start(id, "sink", credit=1)
        await past_grant(client, id)
        await client.data(id, *range(16))
    await client.nothing(0.4)
    assert sink.reason is None
