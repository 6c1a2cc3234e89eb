"""A client that vanishes: whatever its calls were doing, their `finally` blocks run at once and know why."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from .conftest import WINDOW, encode

WAYS = ["vanish", "reset", "half_close"]


class Seen:
    """What a handler went through."""

    def __init__(self):
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


async def broke(input, ctx):
    """Waits for credit."""
    seen = ctx.app.state.seen
    try:
        yield 1
        seen.began.set()
        while True:
            yield 2
    finally:
        seen.end(ctx)


async def reads(input, ctx):
    """Waits for an item."""
    seen = ctx.app.state.seen
    try:
        seen.began.set()
        async for _ in input:
            pass
    finally:
        seen.end(ctx)


async def both(input, ctx):
    """Waits for an item, and has sent one."""
    seen = ctx.app.state.seen
    try:
        yield 1
        seen.began.set()
        async for _ in input:
            pass
    finally:
        seen.end(ctx)


async def ignores(input, ctx):
    """Does not read the items that come."""
    seen = ctx.app.state.seen
    try:
        seen.began.set()
        await asyncio.Event().wait()
    finally:
        seen.end(ctx)


STREAMS = {handler.__name__: handler for handler in (idle, silent, restless, plain, broke, reads, both, ignores)}
DIRECTIONS = {"reads": "client", "both": "bidi", "ignores": "client"}


def prepared(server):
    for name, handler in STREAMS.items():
        server.stream(name, direction=DIRECTIONS.get(name, "server")).handler(handler)
    server.procedure("procedure").handler(ignores)
    return server


def awaited(server):
    """What the next call will go through."""
    state = server._hub.app.state
    state.loop = asyncio.get_running_loop()
    state.seen = Seen()
    return state.seen


async def ask(client, name):
    if name == "procedure":
        await client.say("request", "s", procedure=name)
    else:
        await client.start("s", name, **({"credit": 1} if name == "broke" else {}))
    if name == "ignores":
        await client.data("s", *range(100))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*STREAMS, "procedure"])
async def test_the_finally_of_the_handler_runs_within_100_ms(build, connect, quickest, name, way):
    server = prepared(build())
    await server.start()

    async def attempt():
        seen = awaited(server)
        client = await connect(server)
        await ask(client, name)
        await asyncio.wait_for(seen.began.wait(), 10)
        gone = time.perf_counter()
        getattr(client, way)()
        await asyncio.wait_for(seen.ended.wait(), 10)
        assert seen.reason == "client_disconnected"
        return time.perf_counter() - gone

    assert await quickest(attempt) < 0.1


async def test_so_it_does_when_the_process_of_the_client_is_killed(build, quickest, protocol, connect):
    server = prepared(build())
    await server.start()

    async def attempt():
        seen = awaited(server)
        model = await connect(server)
        start = model.framed({"type": "stream:start", "id": "s", "procedure": "idle"})
        program = f"""
import socket, sys, time
sock = socket.create_connection(("127.0.0.1", {server.port}))
if {protocol == "websocket"}:
    sock.sendall(b"GET /ws HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
        b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n")
    sock.recv(1000)
sock.sendall({start!r})
time.sleep(60)
"""
        process = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", program])
        try:
            await asyncio.wait_for(seen.began.wait(), 10)
            gone = time.perf_counter()
            process.kill()
            await asyncio.wait_for(seen.ended.wait(), 10)
            took = time.perf_counter() - gone
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
        assert seen.reason == "client_disconnected"
        return took

    assert await quickest(attempt) < 0.1


@pytest.mark.parametrize("way", ["vanish", "reset"])
@pytest.mark.parametrize("name", ["restless", "plain"])
async def test_a_handler_that_waits_for_room_ends_too(build, connect, eventually, name, way):
    server = prepared(build())
    await server.start()
    seen = awaited(server)
    client = await connect(server, WINDOW)
    await client.start("s", name)
    await asyncio.wait_for(seen.began.wait(), 10)
    (connection,) = server._hub.connections
    await eventually(lambda: connection.outbox.paused)
    getattr(client, way)()
    await asyncio.wait_for(seen.ended.wait(), 10)
    assert seen.reason == "client_disconnected"


@pytest.mark.parametrize("way", WAYS)
async def test_all_calls_of_the_connection_end(build, connect, eventually, way):
    server, reasons = build(), []

    @server.stream("s")
    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    client = await connect(server)
    for id in range(100):
        await client.start(str(id), "s")
    await eventually(lambda: len(server._hub.sessions) == 100)
    for _ in range(100):
        await client.receive()
    getattr(client, way)()
    await eventually(lambda: not server._hub.sessions and not server._hub.connections)
    assert reasons == ["client_disconnected"] * 100


async def test_a_hundred_connections_that_vanish_at_once_leave_nothing(build, connect, eventually):
    server = prepared(build())
    await server.start()
    awaited(server)
    clients = [await connect(server) for _ in range(100)]
    for client in clients:
        await client.start("s", "idle")
    await eventually(lambda: len(server._hub.sessions) == 100)
    for number, client in enumerate(clients):
        getattr(client, WAYS[number % 3])()
    await eventually(lambda: not server._hub.sessions and not server._hub.connections)


async def test_calls_of_the_last_moment_are_not_left_behind(build, connect, eventually):
    server = prepared(build())
    await server.start()
    seen = awaited(server)
    client = await connect(server)
    await client.start("s", "idle")
    client.vanish()
    await eventually(lambda: not server._hub.sessions and not server._hub.connections)
    assert seen.began.is_set() == seen.ended.is_set()


async def test_a_half_close_with_items_behind_it_still_is_a_disconnect(build, connect, eventually):
    """The end of what is sent in a stream is `stream:end`."""
    server = prepared(build())
    await server.start()
    seen = awaited(server)
    client = await connect(server)
    await client.start("s", "reads")
    await seen.began.wait()
    await client.send_raw(client.framed(*({"type": "stream:data", "id": "s", "payload": n} for n in range(10))))
    client.half_close()
    await asyncio.wait_for(seen.ended.wait(), 10)
    assert seen.reason == "client_disconnected"
    envelopes, code = await client.rest()
    assert envelopes == [] and code in (None, "reset")


async def test_half_a_message_and_then_a_reset_harm_nobody_else(build, connect, eventually):
    server = prepared(build())
    await server.start()
    seen = awaited(server)
    other, client = await connect(server), await connect(server)
    await other.start("s", "both")
    await client.send_raw(client.frame(encode({"type": "stream:start", "id": "x", "procedure": "idle"}))[:-5])
    client.reset()
    await eventually(lambda: len(server._hub.connections) == 1)
    assert await other.items("s", 1) == [1]
    assert not seen.ended.is_set()
