"""A client that vanishes: whatever its call was doing, the handler's `finally` runs at once and knows why."""

from __future__ import annotations

import asyncio
import time

import pytest

from raffel_core.context import Auth
from raffel_core.errors import RaffelError
from raffel_core.server import Server
from raffel_core.stream import create_stream

WAYS = ["vanish", "reset", "half_close"]


class Seen:
    """What a handler went through."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.reason = None

    def end(self, ctx):
        self.reason = ctx.signal.reason
        self.ended.set()


async def idle(input, ctx):
    """Has sent an item and waits for ever."""
    seen = ctx.app.state.seen
    try:
        yield 1
        seen.began.set()
        await asyncio.Event().wait()
    finally:
        seen.end(ctx)


async def silent(input, ctx):
    """Has not sent anything yet."""
    seen = ctx.app.state.seen
    try:
        seen.began.set()
        await asyncio.Event().wait()
        yield 1
    finally:
        seen.end(ctx)


async def restless(input, ctx):
    """Never waits for anything."""
    seen = ctx.app.state.seen
    try:
        while True:
            yield "x" * 100
            seen.began.set()
    finally:
        seen.end(ctx)


def plain(input, ctx):
    """Never waits for anything, in a thread."""
    seen, loop = ctx.app.state.seen, ctx.app.state.loop
    try:
        while True:
            yield "x" * 100
            loop.call_soon_threadsafe(seen.began.set)
    finally:
        loop.call_soon_threadsafe(seen.end, ctx)


async def patient(input, ctx):
    """Cleans up in its own time."""
    seen = ctx.app.state.seen
    try:
        yield 1
        seen.began.set()
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        seen.end(ctx)


async def procedure(input, ctx):
    """Works on a call."""
    seen = ctx.app.state.seen
    try:
        seen.began.set()
        await asyncio.Event().wait()
    finally:
        seen.end(ctx)


STREAMS = {handler.__name__: handler for handler in (idle, silent, restless, plain, patient)}


def prepared(server: Server) -> Server:
    for name, handler in STREAMS.items():
        server.stream(name).handler(handler)
    server.procedure("procedure").handler(procedure)
    return server


def awaited(server: Server) -> Seen:
    """What the next call will go through."""
    state = server._hub.app.state
    state.loop = asyncio.get_running_loop()
    state.seen = Seen()
    return state.seen


async def ask(peer, name):
    if name == "procedure":
        await peer.ask("/procedure", method="POST", body=b"{}")
    else:
        await peer.ask(f"/streams/{name}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*STREAMS, "procedure"])
async def test_the_finally_of_the_handler_runs_within_100_ms(build, connect, quickest, name, way):
    server = prepared(build())
    await server.start()

    async def attempt():
        seen = awaited(server)
        peer = await connect(server)
        await ask(peer, name)
        await asyncio.wait_for(seen.began.wait(), 10)
        gone = time.perf_counter()
        getattr(peer, way)()
        await asyncio.wait_for(seen.ended.wait(), 10)
        assert seen.reason == "client_disconnected"
        return time.perf_counter() - gone

    assert await quickest(attempt) < 0.1


@pytest.mark.parametrize("way", ["vanish", "reset"])
@pytest.mark.parametrize("name", ["restless", "plain"])
async def test_a_handler_that_waits_for_room_ends_too(build, connect, eventually, name, way):
    server = prepared(build())
    await server.start()
    seen = awaited(server)
    peer = await connect(server, 16 * 1024)
    await peer.stream(name)
    (connection,) = server._hub.connections
    await eventually(lambda: connection.outbox.paused)
    getattr(peer, way)()
    await asyncio.wait_for(seen.ended.wait(), 10)
    assert seen.reason == "client_disconnected"


async def test_one_that_is_gone_before_its_request_was_read_is_not_served(build, connect, eventually):
    server = prepared(build())
    await server.start()
    seen = awaited(server)
    peer = await connect(server)
    await ask(peer, "idle")
    peer.vanish()
    await eventually(lambda: not server._hub.connections and not server._hub.sessions)
    assert seen.ended.is_set() == seen.began.is_set()


async def test_authentication_ends_too(serve, connect, probe, eventually):
    probe.began, probe.ended, probe.Auth = asyncio.Event(), asyncio.Event(), Auth
    server = await serve(
        {
            "_auth.py": """
                import asyncio
                import probe

                async def authenticate(ctx):
                    try:
                        probe.began.set()
                        await asyncio.Event().wait()
                    finally:
                        probe.seen.append(ctx.signal.reason)
                        probe.ended.set()
                """,
            "secret.stream.py": "async def handler(input):\n    yield 1\n",
        }
    )
    peer = await connect(server)
    await peer.ask("/streams/secret")
    await asyncio.wait_for(probe.began.wait(), 10)
    peer.vanish()
    await asyncio.wait_for(probe.ended.wait(), 10)
    assert probe.seen == ["client_disconnected"]
    await eventually(lambda: not server._hub.sessions)


async def test_an_interceptor_that_opens_slowly_ends_too(build, connect, eventually):
    server, ended, began = build(), [], asyncio.Event()

    async def slow(call, call_next):
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.append(call.ctx.signal.reason)

    server.use(slow)
    server.stream("idle").handler(idle)
    await server.start()
    peer = await connect(server)
    await peer.ask("/streams/idle")
    await asyncio.wait_for(began.wait(), 10)
    peer.vanish()
    await eventually(lambda: ended)
    assert ended == ["client_disconnected"]


async def test_the_signal_is_set_before_the_handler_is_cancelled(build, connect, eventually):
    server, told = build(), []

    @server.stream("watched")
    async def watched(input, ctx):
        async def watch():
            told.append(await ctx.signal.wait())

        watching = asyncio.create_task(watch())
        try:
            yield 1
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append(ctx.signal.aborted)
            raise
        finally:
            await watching

    await server.start()
    peer = await connect(server)
    await peer.stream("watched")
    assert await peer.item() == 1
    peer.vanish()
    await eventually(lambda: len(told) == 2)
    assert told == ["client_disconnected", True]


async def test_the_on_close_callbacks_run_after_the_finally(build, connect, eventually):
    server, order = build(), []

    @server.stream("closing")
    async def closing(input, ctx):
        ctx.on_close(lambda outcome: order.append((outcome.code, outcome.reason)))
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("finally")

    await server.start()
    peer = await connect(server)
    await peer.stream("closing")
    assert await peer.item() == 1
    peer.vanish()
    await eventually(lambda: len(order) == 2)
    assert order == ["finally", ("CANCELLED", "client_disconnected")]


async def test_the_stream_that_a_handler_returned_is_cancelled(build, connect, eventually):
    server, raised, tasks = build(), [], []

    @server.stream("returned")
    async def returned():
        stream = create_stream(high_water_mark=1)

        async def fill():
            try:
                while True:
                    await stream.write("x" * 100)
            except RaffelError as error:
                raised.append((error.code, error.message))

        tasks.append(asyncio.create_task(fill()))
        return stream

    await server.start()
    peer = await connect(server)
    await peer.stream("returned")
    await peer.item()
    peer.vanish()
    await eventually(lambda: raised)
    assert raised == [("CANCELLED", "client_disconnected")]


async def test_a_hundred_that_vanish_at_once_leave_nothing(build, connect, eventually):
    server = prepared(build())
    await server.start()
    awaited(server)
    peers = [await connect(server) for _ in range(100)]
    for peer in peers:
        await peer.ask("/streams/idle")
    await eventually(lambda: len(server._hub.sessions) == 100)
    for number, peer in enumerate(peers):
        getattr(peer, WAYS[number % 3])()
    await eventually(lambda: not server._hub.sessions and not server._hub.connections)
