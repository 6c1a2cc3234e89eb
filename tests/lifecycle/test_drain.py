"""A shutdown: not ready, listeners closed, streams ended one after the other, calls finished, and then the cut."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time

import msgspec
import pytest

NDJSON = "Accept: application/x-ndjson"


async def ticks():
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0.001)


class Call:
    """A procedure that ends when it is told to."""

    def __init__(self):
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.reasons = []

    async def handler(self, input, ctx):
        try:
            self.began.set()
            await self.go_on.wait()
            return "done"
        finally:
            self.reasons.append(ctx.signal.reason)


@pytest.fixture
def stopping():
    """Stops a server beside the test, which then waits for the end."""
    tasks = []

    def stop(server):
        tasks.append(asyncio.create_task(server.stop()))
        return tasks[-1]

    return stop


async def refused(server, port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


# Streams


async def test_an_sse_stream_ends_with_a_retry_and_without_an_end(build, connect, stopping):
    server = build()
    server.stream("ticks").handler(ticks)
    await server.start()
    peer = await connect(server)
    await peer.stream("ticks")
    await peer.item()
    end = stopping(server)
    rest = await peer.rest()
    assert 1000 <= int(re.search(rb"(?:^|\n\n)retry: (\d+)\n\n$", rest)[1]) <= 5000
    assert b"event:" not in rest and b"raffel:end" not in rest
    assert await peer.end() == b""
    await end


async def test_one_that_has_sent_nothing_yet_ends_so_too(build, connect, stopping):
    server, began = build(), asyncio.Event()

    @server.stream("silent")
    async def silent():
        began.set()
        await asyncio.Event().wait()
        yield 1

    await server.start()
    peer = await connect(server)
    await peer.ask("/streams/silent")
    await began.wait()
    end = stopping(server)
    answer = await peer.answer()
    assert answer.status == 200  # an EventSource would stay away after any other
    assert re.fullmatch(rb"retry: \d+\n\n", answer.body)
    await end


async def test_the_retries_differ_so_that_clients_do_not_come_back_in_a_herd(build, connect, stopping):
    server = build()
    server.stream("ticks").handler(ticks)
    await server.start()
    peers = [await connect(server) for _ in range(20)]
    for peer in peers:
        await peer.stream("ticks")
    end = stopping(server)
    rests = await asyncio.gather(*(peer.rest() for peer in peers))
    assert len({rest.rpartition(b"retry: ")[2] for rest in rests}) > 1
    await end


async def test_an_ndjson_stream_ends_with_an_error_line(build, connect, stopping):
    server = build()
    server.stream("ticks").handler(ticks)
    await server.start()
    peer = await connect(server)
    await peer.stream("ticks", NDJSON)
    end = stopping(server)
    last = (await peer.rest()).splitlines()[-1]
    assert msgspec.json.decode(last)["error"]["code"] == "UNAVAILABLE"
    await end


async def test_streams_end_one_after_the_other_over_the_first_half(build, connect, stopping):
    server, ended = build(drain_seconds=1), []

    @server.stream("s")
    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append((ctx.signal.reason, time.monotonic()))

    await server.start()
    peers = [await connect(server) for _ in range(10)]
    for peer in peers:
        await peer.stream("s")
    began = time.monotonic()
    await stopping(server)
    times = [when - began for _, when in ended]
    assert {reason for reason, _ in ended} == {"server_draining"}
    assert len(times) == 10 and times == sorted(times)
    # A herd would have come at once: each tenth of the half second ends one, give or take what a busy machine adds.
    assert times[-1] > 0.4 and all(when > 0.04 * number for number, when in enumerate(times))


async def test_the_finally_has_run_before_the_lifespan_cleans_up(serve, connect, probe):
    server = await serve(
        {
            "_app.py": """
                import probe

                async def lifespan(app):
                    yield
                    probe.seen.append("lifespan")
                """,
            "s.stream.py": """
                import asyncio
                import probe

                async def handler(input):
                    try:
                        yield 1
                        await asyncio.Event().wait()
                    finally:
                        await asyncio.sleep(0.01)
                        probe.seen.append("handler")
                """,
        }
    )
    peer = await connect(server)
    await peer.stream("s")
    await server.stop()
    assert probe.seen == ["handler", "lifespan"]


# Calls


async def test_a_call_has_the_whole_time(build, connect, stopping):
    server, call = build(drain_seconds=5), Call()
    server.procedure("call").handler(call.handler)
    await server.start()
    peer = await connect(server)
    await peer.ask("/call", method="POST", body=b"{}")
    await call.began.wait()
    end = stopping(server)
    await asyncio.sleep(0.05)
    assert not end.done()
    call.go_on.set()
    answer = await peer.answer()
    assert (answer.status, answer.body) == (200, b'"done"')
    assert await peer.end() == b""
    assert call.reasons == [None]
    await end


async def test_the_end_does_not_wait_once_nothing_is_open(build, connect, stopping):
    server = build(drain_seconds=60)
    server.stream("ticks").handler(ticks)
    await server.start()
    idle, busy = await connect(server), await connect(server)
    assert (await idle.call("/nothing")).status == 404  # kept alive
    await busy.stream("ticks")
    end = stopping(server)
    await busy.rest()
    assert await idle.end() == b""
    await asyncio.wait_for(end, 5)


async def test_what_does_not_end_is_cut_and_named(build, connect, caplog):
    server, call = build(drain_seconds=0.1), Call()
    server.procedure("stubborn").handler(call.handler)
    await server.start()
    peer = await connect(server)
    await peer.ask("/stubborn", method="POST", body=b"{}")
    await call.began.wait()
    with caplog.at_level(logging.WARNING, "raffel"):
        await server.stop()
    assert "cut: stubborn of {}:{} did not end in time".format(*peer.sock.getsockname()) in caplog.messages
    assert call.reasons == ["server_draining"]
    answer = await peer.answer()
    assert (answer.status, answer.error()["code"]) == (503, "UNAVAILABLE")


async def test_a_finally_that_never_ends_is_abandoned_and_named(build, connect, caplog):
    server, release = build(drain_seconds=0.1), asyncio.Event()

    @server.stream("stubborn")
    async def handler():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await release.wait()

    await server.start()
    peer = await connect(server)
    await peer.stream("stubborn")
    await peer.item()
    with caplog.at_level(logging.ERROR, "raffel"):
        await asyncio.wait_for(server.stop(), 5)
    assert "abandoned: stubborn of {}:{} does not end".format(*peer.sock.getsockname()) in caplog.messages
    assert b"event: end" not in await peer.end()
    release.set()


async def test_a_peer_that_does_not_read_its_end_is_cut_and_named(build, connect, caplog):
    server = build(drain_seconds=0.1)

    @server.procedure("large")
    async def large():
        return "x" * 8 * 1024 * 1024

    await server.start()
    peer = await connect(server, 16 * 1024)
    await peer.ask("/large", method="POST", body=b"{}")
    await peer.head()
    with caplog.at_level(logging.WARNING, "raffel"):
        await asyncio.wait_for(server.stop(), 5)
    cut = [record.peer for record in caplog.records if "has not taken its last bytes" in record.message]
    assert cut == ["{}:{}".format(*peer.sock.getsockname())]


async def test_a_lifespan_that_never_ends_does_not_hold_it_up(serve, caplog):
    server = await serve(
        {"_app.py": "import asyncio\n\nasync def lifespan(app):\n    yield\n    await asyncio.sleep(60)\n"}
    )
    await asyncio.wait_for(server.stop(), 5)
    assert "the cleaning up of `lifespan` took too long and was cancelled" in caplog.messages


# Who comes meanwhile


async def test_until_the_delay_is_over_it_still_accepts_and_says_not_ready(build, connect, stopping):
    server = build(drain_delay_seconds=0.3)
    server.stream("ticks").handler(ticks)
    await server.start()
    health = await connect(server)
    await health.ask("/health/ready")
    assert (await health.answer()).status == 200
    end = stopping(server)
    await asyncio.sleep(0)
    statuses = {}
    for path in ("/health", "/health/ready", "/health/live"):
        await health.ask(path)
        statuses[path] = (await health.answer()).status
    assert statuses == {"/health": 503, "/health/ready": 503, "/health/live": 200}
    peer = await connect(server)
    await peer.stream("ticks")
    assert await peer.item() == 0
    assert not end.done()
    await end
    assert b"retry: " in await peer.rest()


async def test_then_the_port_is_closed(build, connect, stopping):
    server, call = build(drain_seconds=5), Call()
    server.procedure("call").handler(call.handler)
    await server.start()
    peer, port = await connect(server), server.port
    await peer.ask("/call", method="POST", body=b"{}")
    await call.began.wait()
    end = stopping(server)
    async with asyncio.timeout(5):
        while not await refused(server, port):
            await asyncio.sleep(0.001)
    assert not end.done()
    call.go_on.set()
    await end


async def test_a_stream_that_is_asked_for_on_an_open_connection_is_closed_unanswered(build, connect, stopping):
    server, call = build(drain_seconds=5), Call()
    server.procedure("call").handler(call.handler)
    server.stream("ticks").handler(ticks)
    await server.start()
    peer = await connect(server)
    await peer.ask("/call", method="POST", body=b"{}")
    await call.began.wait()
    await peer.ask("/streams/ticks")  # behind the call, on the same connection
    end = stopping(server)
    await asyncio.sleep(0.02)
    call.go_on.set()
    assert (await peer.answer()).status == 200
    assert await peer.end() == b""
    await end


async def test_a_connection_that_has_said_nothing_is_closed(build, connect, stopping, eventually):
    server = build(drain_seconds=60)
    await server.start()
    peer = await connect(server)
    await eventually(lambda: server._hub.connections)
    end = stopping(server)
    assert await peer.end() == b""
    await asyncio.wait_for(end, 5)


@pytest.mark.parametrize("turns", range(5))
async def test_connections_of_the_last_moment_do_not_hold_it_up(build, turns):
    server = build(drain_seconds=60)
    await server.start()
    peers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.wait_for(server.stop(), 5)
    for peer in peers:
        peer.close()


# Again


async def test_a_second_stop_does_nothing(build):
    server = build()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_stopped_server_can_be_started_again(build, connect):
    server = build()
    server.stream("ticks").handler(ticks)
    for _ in range(2):
        await server.start()
        peer = await connect(server)
        await peer.stream("ticks")
        assert await peer.item() == 0
        assert not any(await server.reload())
        await server.stop()


async def test_a_stopped_server_is_not_reloaded(build):
    server = build()
    await server.start()
    await server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        await server.reload()
