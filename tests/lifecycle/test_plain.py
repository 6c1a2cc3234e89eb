"""Plain `def` handlers over sockets: each has its thread, blocks nobody, and is cancelled at its next `yield`."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from raffel_core import thread


@pytest.fixture
def gate():
    """Holds plain handlers until it is set."""
    gate = threading.Event()
    yield gate
    gate.set()


async def test_a_blocking_handler_keeps_nobody_waiting(build, connect, gate):
    server = build()

    @server.stream("blocking")
    def blocking():
        yield 1
        gate.wait(10)
        yield 2

    @server.procedure("quick")
    async def quick():
        return 1

    await server.start()
    blocked, peer = await connect(server), await connect(server)
    await blocked.stream("blocking")
    assert await blocked.item() == 1
    for _ in range(20):
        assert (await peer.call("/quick")).body == b"1"
    gate.set()
    assert await blocked.item() == 2


async def test_sixty_four_run_at_once_and_one_more_is_refused(build, connect, gate, monkeypatch, eventually):
    monkeypatch.setattr(thread, "PATIENCE", 0.001)
    server = build()

    @server.stream("held")
    def held():
        yield 1
        gate.wait(10)

    await server.start()
    peers = [await connect(server) for _ in range(thread.LIMIT)]
    for peer in peers:
        await peer.ask("/streams/held")
    for peer in peers:
        await peer.head()
        assert await peer.item() == 1
    late = await connect(server)
    await late.ask("/streams/held")
    answer = await late.answer()
    assert (answer.status, answer.error()["code"]) == (429, "RESOURCE_EXHAUSTED")
    assert answer.headers["retry-after"] == "1"
    gate.set()
    for peer in peers:
        assert b"event: end" in await peer.rest()
    await late.stream("held")
    assert await late.item() == 1


async def test_one_that_waits_for_a_place_gets_it_when_another_leaves(build, connect, eventually):
    server = build()

    @server.stream("endless")
    def endless():
        while True:
            yield "x" * 1000

    await server.start()
    peers = [await connect(server, 8 * 1024) for _ in range(thread.LIMIT)]
    for peer in peers:
        await peer.stream("endless")
    late = await connect(server)
    await late.ask("/streams/endless")
    peers[0].vanish()
    await late.head()
    assert await late.item() == "x" * 1000


async def test_a_client_that_vanishes_ends_it_at_its_next_yield(build, connect, gate, eventually):
    server, seen = build(), []

    @server.stream("working")
    def working(input, ctx):
        try:
            yield 1
            gate.wait(10)
            seen.append("at the yield")
            yield 2
            seen.append("never")
        finally:
            seen.append(ctx.signal.reason)

    await server.start()
    peer = await connect(server)
    await peer.stream("working")
    assert await peer.item() == 1
    (session,) = server._hub.sessions
    peer.vanish()
    await eventually(lambda: session.reason)
    assert not seen
    gate.set()
    await eventually(lambda: len(seen) == 2)
    assert seen == ["at the yield", "client_disconnected"]


async def test_a_handler_may_look_at_the_signal_itself(build, connect, eventually):
    server, ended = build(), threading.Event()

    @server.stream("working")
    def working(input, ctx):
        yield 1
        while not ctx.signal.aborted:
            threading.Event().wait(0.001)
        ended.set()

    await server.start()
    peer = await connect(server)
    await peer.stream("working")
    assert await peer.item() == 1
    peer.vanish()
    await eventually(ended.is_set)


async def test_what_belongs_to_one_thread_can_be_held_across_yields(build, connect):
    server = build()

    @server.stream("rows")
    def rows():
        with closing(sqlite3.connect(":memory:")) as database:  # refuses every thread but its own
            database.execute("create table numbers (n)")
            for number in range(100):
                database.execute("insert into numbers values (?)", [number])
                yield database.execute("select max(n) from numbers").fetchone()[0]

    await server.start()
    peers = [await connect(server) for _ in range(3)]
    for peer in peers:
        await peer.stream("rows")
    for peer in peers:
        assert [await peer.item() for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("shape", ["stream", "procedure"])
async def test_what_it_raises_goes_to_the_log_and_not_to_the_client(build, connect, caplog, shape):
    server = build()

    @server.stream("s")
    def stream():
        raise ValueError("secret")
        yield 1

    @server.procedure("p")
    def procedure():
        raise ValueError("secret")

    await server.start()
    peer = await connect(server)
    if shape == "stream":
        await peer.ask("/streams/s")
    else:
        await peer.ask("/p", method="POST", body=b"{}")
    answer = await peer.answer()
    assert (answer.status, answer.error()["code"]) == (500, "INTERNAL_ERROR")
    assert b"secret" not in answer.body
    assert "secret" in caplog.text


async def test_its_deadline_is_answered_once_its_thread_is_done(build, connect, gate):
    server = build()

    @server.procedure("slow")
    def slow():
        gate.wait(10)
        return 1

    await server.start()
    peer = await connect(server)
    await peer.ask("/slow", "timeout-ms: 20", method="POST", body=b"{}")
    await asyncio.sleep(0.05)
    gate.set()
    assert (await peer.answer()).error()["code"] == "DEADLINE_EXCEEDED"


async def test_a_shutdown_does_not_wait_for_it(build, connect, gate, caplog):
    server = build(drain_seconds=0.1)

    @server.stream("held")
    def held():
        yield 1
        gate.wait(10)

    await server.start()
    peer = await connect(server)
    await peer.stream("held")
    assert await peer.item() == 1
    await asyncio.wait_for(server.stop(), 5)
    assert any("abandoned: held of" in message for message in caplog.messages)
    gate.set()
