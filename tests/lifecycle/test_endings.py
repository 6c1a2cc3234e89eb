"""How a stream that is ended early looks to its client: the table of reasons, row by row, for SSE and NDJSON."""

from __future__ import annotations

import asyncio
import logging
import re

import msgspec
import pytest

from raffel_core.session import REASONS

NDJSON = "Accept: application/x-ndjson"
CODES = {"deadline_exceeded": "DEADLINE_EXCEEDED", "reloaded": "UNAVAILABLE", "server_draining": "UNAVAILABLE"}


class One:
    """A server with one stream that has sent one item, whose handler takes a moment to clean up."""

    def __init__(self, server):
        self.server = server
        self.closed_for = []
        server.stream("s").handler(self.handler)

    async def handler(self, input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.closed_for.append(ctx.signal.reason)

    @property
    def session(self):
        (session,) = self.server._hub.sessions
        return session


@pytest.fixture
async def one(build):
    one = One(build())
    await one.server.start()
    return one


@pytest.mark.parametrize("reason", ["deadline_exceeded", "reloaded"])
async def test_sse_says_it_with_an_error_event_that_lets_a_browser_come_back(one, connect, reason):
    peer = await connect(one.server)
    await peer.stream("s")
    assert await peer.item() == 1
    one.session.cancel(reason)
    block = await peer.block()
    assert one.closed_for == [reason]
    event, data = block.split(b"\n")
    error = msgspec.json.decode(data.removeprefix(b"data: "))
    assert event == b"event: error"
    assert (error["code"], error["details"]) == (CODES[reason], {"reason": reason})
    assert await peer.rest() == b""


@pytest.mark.parametrize("reason", ["deadline_exceeded", "reloaded", "server_draining"])
async def test_ndjson_says_it_with_an_error_line(one, connect, reason):
    peer = await connect(one.server)
    await peer.stream("s", NDJSON)
    assert await peer.line() == b"1"
    one.session.cancel(reason)
    line = await peer.line()
    assert one.closed_for == [reason]
    error = msgspec.json.decode(line)["error"]
    assert (error["code"], error["details"]) == (CODES[reason], {"reason": reason})
    assert await peer.rest() == b""


async def test_sse_says_a_drain_with_a_retry_and_a_clean_end_of_the_body(one, connect):
    peer = await connect(one.server)
    await peer.stream("s")
    assert await peer.item() == 1
    one.session.cancel("server_draining")
    rest = await peer.rest()
    assert one.closed_for == ["server_draining"]
    assert 1000 <= int(re.fullmatch(rb"retry: (\d+)\n\n", rest)[1]) <= 5000


@pytest.mark.parametrize("accept", ["Accept: text/event-stream", NDJSON])
async def test_a_slow_consumer_is_cut(one, connect, caplog, accept):
    peer = await connect(one.server)
    await peer.stream("s", accept)
    (connection,) = one.server._hub.connections
    with caplog.at_level(logging.WARNING, "raffel"):
        connection.cut("slow_consumer")
        rest = await peer.end()
    assert b"error" not in rest and not rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("reason", REASONS)
async def test_all_items_that_were_yielded_before_come_first(build, connect, reason):
    server, reached = build(), asyncio.Event()

    @server.stream("s")
    async def handler():
        for number in range(100):
            yield number
        reached.set()
        await asyncio.Event().wait()

    await server.start()
    peer = await connect(server)
    await peer.ask("/streams/s", NDJSON)
    await reached.wait()
    (session,) = server._hub.sessions
    session.cancel(reason)
    await peer.head()
    assert [int(await peer.line()) for _ in range(100)] == list(range(100))


@pytest.mark.parametrize("accept", ["Accept: text/event-stream", NDJSON])
async def test_the_connection_carries_another_answer_afterwards(one, connect, accept):
    peer = await connect(one.server)
    for _ in range(3):
        await peer.stream("s", accept)
        await (peer.line() if accept is NDJSON else peer.block())
        one.session.cancel("deadline_exceeded")
        assert b"DEADLINE_EXCEEDED" in await peer.rest()


async def test_a_stream_that_ends_by_itself_has_its_own_end(build, connect):
    server = build()

    @server.stream("s")
    async def handler():
        yield 1

    await server.start()
    peer = await connect(server)
    await peer.stream("s")
    assert await peer.rest() == b"data: 1\n\nevent: end\ndata: {}\nid: raffel:end\n\n"
    await peer.stream("s", NDJSON)
    assert await peer.rest() == b"1\n"


async def test_what_a_finally_raises_goes_to_the_log_and_not_into_the_stream(build, connect, caplog):
    server = build()

    @server.stream("s")
    async def handler():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            raise ValueError("secret")

    await server.start()
    peer = await connect(server)
    await peer.stream("s")
    assert await peer.item() == 1
    (session,) = server._hub.sessions
    session.cancel("deadline_exceeded")
    rest = await peer.rest()
    assert b"DEADLINE_EXCEEDED" in rest and b"secret" not in rest
    assert "secret" in caplog.text
