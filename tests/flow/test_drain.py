"""A shutdown over connections that carry many calls: streams end and say why, calls finish, and then the connection."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from .conftest import Closed, decode

END = {"websocket": 1012, "tcp": None}
DEVELOPMENT_END = {"websocket": 1001, "tcp": None}


async def ticks():
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0.001)


class Call:
    """Calls that end when they are told to."""

    def __init__(self):
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.reasons = []

    async def unary(self, input, ctx):
        try:
            self.began.set()
            await self.go_on.wait()
            return "done"
        finally:
            self.reasons.append(ctx.signal.reason)

    async def client(self, input, ctx):
        try:
            self.began.set()
            return [item async for item in input]
        finally:
            self.reasons.append(ctx.signal.reason)

    async def bidi(self, input, ctx):
        try:
            self.began.set()
            async for item in input:
                yield item
        finally:
            self.reasons.append(ctx.signal.reason)


def serving(build, call=None, **options):
    server = build(**options)
    call = call or Call()
    server.stream("ticks").handler(ticks)
    server.procedure("unary").handler(call.unary)
    server.stream("client", direction="client").handler(call.client)
    server.stream("bidi", direction="bidi").handler(call.bidi)
    return server


@pytest.fixture
def stopping(beside):
    """Stops a server beside the test, which then waits for the end."""
    return lambda server: beside(server.stop())


# Streams


@pytest.mark.parametrize("development", [False, True])
async def test_a_server_stream_is_told_and_then_the_connection_closes(build, connect, stopping, protocol, development):
    server = serving(build, development=development)
    await server.start()
    client = await connect(server)
    await client.start("s", "ticks")
    await client.items("s", 3)
    end = stopping(server)
    envelopes, code = await client.rest()
    assert envelopes[-1]["type"] == "stream:error"
    assert envelopes[-1]["payload"]["code"] == "UNAVAILABLE"
    assert envelopes[-1]["payload"]["details"] == {"reason": "server_draining"}
    assert [one["payload"] for one in envelopes[:-1]] == list(range(3, len(envelopes) + 2))
    assert code == (DEVELOPMENT_END if development else END)[protocol]
    await end


async def test_every_stream_of_a_connection_is_told(build, connect, stopping, protocol):
    server = serving(build)
    await server.start()
    client = await connect(server)
    for id in range(50):
        await client.start(str(id), "ticks")
    for _ in range(200):
        await client.receive()
    end = stopping(server)
    envelopes, code = await client.rest()
    ends = [one["id"] for one in envelopes if one["type"] == "stream:error"]
    assert sorted(ends, key=int) == [str(id) for id in range(50)]
    assert code == END[protocol]
    await end


async def test_one_that_waits_for_credit_is_told_too(build, connect, stopping, protocol):
    server = serving(build)
    await server.start()
    client = await connect(server)
    await client.start("s", "ticks", credit=1)
    assert await client.items("s", 1) == [0]
    end = stopping(server)
    envelopes, code = await client.rest()
    assert [one["payload"]["code"] for one in envelopes] == ["UNAVAILABLE"]
    assert code == END[protocol]
    await end


async def test_the_finally_has_run_before_it_is_told(build, connect, stopping):
    server, order = serving(build), []

    @server.stream("s")
    async def handler():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            order.append("finally")

    await server.start()
    client = await connect(server)
    await client.start("s", "s")
    await client.items("s", 1)
    end = stopping(server)
    await client.until("stream:error", "s")
    assert order == ["finally"]
    await end


async def test_an_idle_connection_is_closed(build, connect, stopping, protocol):
    server = serving(build, drain_seconds=60)
    await server.start()
    client = await connect(server)
    await client.say("request", "x", procedure="nothing")
    await client.receive()
    end = stopping(server)
    assert await client.rest() == ([], END[protocol])
    client.vanish()
    await asyncio.wait_for(end, 5)


async def test_what_was_queued_comes_before_the_end_and_a_slow_reader_has_time_for_it(
    build, connect, stopping, eventually, protocol
):
    server, counted = serving(build, drain_seconds=6), 0

    @server.stream("hot")
    async def hot():
        nonlocal counted
        while True:
            counted += 1
            yield f"{counted:04000}"

    await server.start()
    client = await connect(server, 4 * 1024)
    await client.start("s", "hot")
    await eventually(lambda: server._hub.sessions)
    (connection,) = server._hub.connections
    await eventually(lambda: connection.outbox.paused and connection._waiters)
    end = stopping(server)
    items, code = [], "none"
    while code == "none":
        try:
            while (message := client.next()) is None:
                await client.more(1024)
                await asyncio.sleep(0.025)
            items.append(decode(message))
        except Closed as closed:
            code = closed.code
    assert code == END[protocol]
    assert items[-1]["type"] == "stream:error"
    assert [int(one["payload"]) for one in items[:-1]] == list(range(1, counted + 1))
    await end


# Calls


@pytest.mark.parametrize("kind", ["unary", "client", "bidi"])
async def test_calls_have_the_whole_time(build, connect, stopping, protocol, kind):
    call = Call()
    server = serving(build, call, drain_seconds=5)
    await server.start()
    client = await connect(server)
    await client.say("request" if kind == "unary" else "stream:start", "c", procedure=kind)
    await call.began.wait()
    end = stopping(server)
    await asyncio.sleep(0.05)
    assert not end.done()
    if kind == "unary":
        call.go_on.set()
        expected = [{"type": "response", "id": "c", "payload": "done"}]
    else:
        await client.data("c", 1, 2, 3)
        await client.say("stream:end", "c")
        items = [{"type": "stream:data", "id": "c", "payload": n} for n in (1, 2, 3)]
        response = {"type": "response", "id": "c", "payload": [1, 2, 3]}
        expected = [*items, {"type": "stream:end", "id": "c"}] if kind == "bidi" else [response]
    assert await client.rest() == (expected, END[protocol])
    assert call.reasons == [None]
    client.vanish()
    await asyncio.wait_for(end, 5)


async def test_server_streams_end_while_calls_of_the_same_connection_go_on(build, connect, stopping, protocol):
    call = Call()
    server = serving(build, call, drain_seconds=5)
    await server.start()
    client = await connect(server)
    await client.start("b", "bidi")
    await client.start("s", "ticks")
    await call.began.wait()
    end = stopping(server)
    assert (await client.until("stream:error"))["id"] == "s"
    await client.data("b", "on")
    assert await client.items("b", 1) == ["on"]
    await client.say("stream:end", "b")
    assert await client.rest() == ([{"type": "stream:end", "id": "b"}], END[protocol])
    client.vanish()
    await asyncio.wait_for(end, 5)


@pytest.mark.parametrize("kind", ["unary", "ticks", "bidi"])
async def test_new_starts_are_refused(build, connect, stopping, kind):
    call = Call()
    server = serving(build, call, drain_seconds=5)
    await server.start()
    client = await connect(server)
    await client.say("request", "c", procedure="unary")
    await call.began.wait()
    end = stopping(server)
    await asyncio.sleep(0.05)
    await client.say("request" if kind == "unary" else "stream:start", "new", procedure=kind)
    answer = await client.receive()
    assert (answer["type"], answer["id"]) == ("error" if kind == "unary" else "stream:error", "new")
    assert answer["payload"]["code"] == "UNAVAILABLE"
    assert answer["payload"]["details"] == {"reason": "server_draining"}
    call.go_on.set()
    assert (await client.receive())["payload"] == "done"
    client.vanish()
    await asyncio.wait_for(end, 5)


async def test_until_the_delay_is_over_everything_goes_on(build, connect, stopping):
    server = serving(build, drain_delay_seconds=0.2)
    await server.start()
    client = await connect(server)
    await client.start("s", "ticks")
    end = stopping(server)
    await asyncio.sleep(0.05)
    late = await connect(server)
    await late.start("s", "ticks")
    assert await late.items("s", 3) == [0, 1, 2]
    assert await client.items("s", 3) == [0, 1, 2]
    assert (await late.until("stream:error"))["payload"]["code"] == "UNAVAILABLE"
    await end


async def test_what_does_not_end_is_cut_and_named(build, connect, caplog, protocol):
    call = Call()
    server = serving(build, call, drain_seconds=0.1)
    await server.start()
    client = await connect(server)
    await client.say("request", "1", procedure="unary")
    await call.began.wait()
    name = "{}:{}".format(*client.sock.getsockname())
    with caplog.at_level(logging.WARNING, "raffel"):
        await server.stop()
    assert f"cut: unary of {name} did not end in time" in caplog.messages
    assert call.reasons == ["server_draining"]
    envelopes, code = await client.rest()
    assert [(one["type"], one["payload"]["code"]) for one in envelopes] == [("error", "UNAVAILABLE")]
    assert code in (END[protocol], "reset")


@pytest.mark.parametrize("stuck", ["stops reading", "does not close"])
async def test_a_peer_does_not_hold_it_up(build, connect, eventually, stuck):
    server = serving(build, drain_seconds=0.3)

    @server.stream("hot")
    async def hot():
        while True:
            yield "x" * 1000

    await server.start()
    client = await connect(server, 4 * 1024)
    await client.start("s", "hot" if stuck == "stops reading" else "ticks")
    await eventually(lambda: server._hub.sessions)
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 0.3 + 1


async def test_it_does_not_wait_for_the_rest_of_the_time_once_all_have_closed(build, connect, stopping):
    server = serving(build, drain_seconds=20)
    await server.start()
    client = await connect(server)
    await client.start("s", "ticks")
    await client.items("s", 1)
    end = stopping(server)
    await client.rest()
    client.vanish()
    await asyncio.wait_for(end, 5)


async def test_streams_end_one_after_the_other_over_the_first_half(build, connect, stopping):
    server, ended = serving(build, drain_seconds=1), []

    @server.stream("s")
    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append(time.monotonic())

    await server.start()
    client = await connect(server)
    for id in range(10):
        await client.start(str(id), "s")
    for _ in range(10):
        await client.receive()
    began = time.monotonic()
    end = stopping(server)
    await client.rest()
    times = [when - began for when in ended]
    assert len(times) == 10
    assert times[-1] > 0.4 and all(when > 0.04 * number for number, when in enumerate(times))
    await end
