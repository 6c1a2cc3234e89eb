"""Flow control in both directions: a slow side stops the other one, memory stays flat, and nobody else is held up."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from raffel_core.config import Config
from raffel_core.server import Server

from ..flow.conftest import Peak, Process
from .raw import (
    DATA,
    DEADLINE_EXCEEDED,
    ENHANCE_YOUR_CALM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    OK,
    RESOURCE_EXHAUSTED,
    Answer,
    Raw,
    blob,
    blob_in,
    call,
    connect,
    data,
    head,
    message,
    number,
    number_in,
    ping,
    reset,
    settings,
    update,
)

log = logging.getLogger("measured")

ITEMS = int(os.environ.get("RAFFEL_FLOW_ITEMS", "5000"))
"""How many messages are sent either way; 100000 is the full size, of which twice as many go down."""

BYTES = int(os.environ.get("RAFFEL_FLOW_BYTES", str(3 * 1024 * 1024)))
"""What is read of a congested connection; 64 MiB are the full size."""

SECONDS = float(os.environ.get("RAFFEL_FLOW_SECONDS", "0.2"))
"""How long memory is watched; 30 is the full time."""

PATIENCE = 20.0
MIB = 1024 * 1024
STREAM_WINDOW = 256 * 1024
"""What a client may send on a stream before it is read."""
WINDOW = 16 * 1024
"""What the kernel of a client takes that is to be slow, before twice of it becomes the buffer."""

ROUTES = {
    "count.stream.py": """
        from collections.abc import AsyncIterator

        import tally

        async def handler(input: int) -> AsyncIterator[bytes]:
            for number in range(input):
                tally.count += 1
                yield b"%0100d" % number
        """,
    "hot.stream.py": """
        from collections.abc import AsyncIterator

        import tally

        async def handler(input: int) -> AsyncIterator[bytes]:
            item = b"x" * input
            while True:
                tally.count += 1
                yield item
        """,
    "produced.rpc.py": """
        import tally

        async def handler(input: bytes) -> int:
            return tally.count
        """,
    "slow.stream.py": """
        import asyncio
        from collections.abc import AsyncIterator

        meta = {"direction": "client"}

        async def handler(input: AsyncIterator[bytes]) -> int:
            '''How many were read, or 0 where one was not the next.'''
            count = 0
            async for item in input:
                if int(item) != count:
                    return 0
                count += 1
                if count % 100 == 0:
                    await asyncio.sleep(0.005)
            return count
        """,
    "echo.stream.py": """
        import asyncio
        from collections.abc import AsyncIterator

        meta = {"direction": "bidi"}

        async def handler(input: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            count = 0
            async for item in input:
                yield item
                count += 1
                if count % 100 == 0:
                    await asyncio.sleep(0.005)
        """,
}


@pytest.fixture
def process(project: Callable[[Mapping[str, str]], Path]) -> Iterator[Callable[[], Process]]:
    """Starts the routes above in a process of their own, whose memory is its own too."""
    processes: list[Process] = []

    def start() -> Process:
        root = project({f"routes/{file}": text for file, text in ROUTES.items()})
        project({"raffel.yaml": "host: 127.0.0.1\n", "tally.py": "count = 0\n"})
        processes.append(Process(root))
        return processes[-1]

    yield start
    for one in processes:
        one.kill()


Build = Callable[..., Server]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """A server on a free port, to be given routes and started: `build(limits={"stall_seconds": 1})`."""
    servers: list[Server] = []

    def new(**options: Any) -> Server:
        settings = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.2, **options}
        servers.append(Server(msgspec.convert(settings, Config), root=tmp_path))
        return servers[-1]

    yield new
    for server in servers:
        await server.stop()


Open = Callable[..., Awaitable[Raw]]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens a connection that has introduced itself: `client = await opened(server, {INITIAL_WINDOW_SIZE: 0})`."""
    clients: list[Raw] = []

    async def open(
        server: Server | Process,
        values: Mapping[int, int] | None = None,
        *,
        window: int | None = None,
        connection_window: int = 2**31 - 1 - 65_535,
        granting: bool = False,
    ) -> Raw:
        client = await connect(server.port, window, granting=granting)
        clients.append(client)
        await client.begin(values, window=connection_window)
        return client

    yield open
    for client in clients:
        client.sock.close()


@asynccontextmanager
async def channel(server: Server | Process, *options: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as one:
        yield one


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def standstill(count: Callable[[], int]) -> int:
    """Waits until a counter that has begun to grow stays as it is, and returns it."""
    async with asyncio.timeout(PATIENCE):
        before, now = -1, 0
        while now == 0 or now != before:
            await asyncio.sleep(0.03)
            before, now = now, count()
    return now


def unharmed(server: Process) -> bool:
    """Whether the server has found nothing to complain of."""
    return not any(word in server.said() for word in ("closed:", "cut", "reset:", "Traceback"))


# Down: a client that is slow


async def test_a_slow_reader_of_grpcio_gets_all_in_order_and_memory_stays_flat(process):
    server, count = process(), 2 * ITEMS
    async with channel(server) as one:
        call = one.unary_stream("/Root/Count")
        assert len([item async for item in call(number(500))]) == 500
        async with Peak(server) as peak:
            found = 0
            async for item in call(number(count)):
                assert int(blob_in(item)) == found
                found += 1
                if found % 500 == 0:
                    await asyncio.sleep(0.01)
    log.info(f"{count} messages to a slow grpcio: {peak.growth / 1024:.0f} KiB more")
    assert found == count
    assert peak.growth < 4 * MIB
    assert unharmed(server)


@pytest.mark.parametrize("window", [1000, 20_000, 65_535])
async def test_a_slow_reader_gets_all_in_order_and_memory_stays_flat(process, opened, window):
    """It grants as much as it has read, and reads a little at a time."""
    server, count = process(), ITEMS if window == 1000 else 2 * ITEMS
    client = await opened(server, {INITIAL_WINDOW_SIZE: window}, granting=True)
    await client.send(call(1, "/Root/Count", number(200)))
    await client.answer(1)
    async with Peak(server) as peak:
        await client.send(call(3, "/Root/Count", number(count)))
        rounds = 0
        while 3 not in client.answers or not client.answers[3].over:
            await client.receive()
            rounds += 1
            if rounds % 20 == 0:
                await asyncio.sleep(0.001)
    answer = client.answers[3]
    log.info(f"{count} messages through {window} bytes: {peak.growth / 1024:.0f} KiB more")
    assert answer.status == OK
    assert [int(blob_in(one)) for one in answer.messages] == list(range(count))
    assert peak.growth < 4 * MIB
    assert client.goaway is None
    assert unharmed(server)


@pytest.mark.parametrize("how", ["no window", "no reading"])
@pytest.mark.parametrize(("streams", "size"), [(1, 1000), (100, 16_000)])
async def test_memory_does_not_grow_while_a_client_takes_nothing(process, opened, how, streams, size):
    server = process()
    other = await opened(server, granting=True)
    stuck = await opened(server, {INITIAL_WINDOW_SIZE: 65_535} if how == "no window" else None, window=WINDOW)

    async def produced() -> int:
        id = max(other.answers, default=-1) + 2
        await other.send(call(id, "/Root/Produced"))
        return number_in((await other.answer(id)).messages[0])

    assert await produced() == 0
    async with Peak(server) as peak:
        await stuck.send(*(call(id, "/Root/Hot", number(size)) for id in range(1, 2 * streams, 2)))
        taking = asyncio.create_task(_take(stuck)) if how == "no window" else None
        before, halfway = -1, 0
        while halfway == 0 or halfway != before:
            await asyncio.sleep(SECONDS / 2)
            before, halfway = halfway, await produced()
        await asyncio.sleep(SECONDS / 2)
        assert await produced() == halfway
    if taking is not None:
        taking.cancel()
        await asyncio.wait([taking])
    log.info(f"{how}, {streams} streams: {halfway} items of {size} bytes, {peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * MIB + streams * size  # the one item that each was asked for before it saw that


async def _take(client: Raw) -> None:
    while True:
        await client.receive()


class Source:
    """Handlers that count what they were asked for and keep why they ended."""

    def __init__(self, size: int = 1000, limit: int = 2**31) -> None:
        self.size = size
        self.limit = limit
        self.count = 0
        self.reasons: list[str | None] = []

    async def hot(self, input: int, ctx: Any) -> AsyncIterator[bytes]:
        try:
            while self.count < self.limit:
                self.count += 1
                yield b"%0*d" % (self.size, self.count)
        finally:
            self.reasons.append(ctx.signal.reason)

    def plain(self, input: int, ctx: Any) -> Iterator[bytes]:
        try:
            while self.count < self.limit:
                self.count += 1
                yield b"%0*d" % (self.size, self.count)
        finally:
            self.reasons.append(ctx.signal.reason)

    async def bidi(self, input: AsyncIterator[bytes], ctx: Any) -> AsyncIterator[bytes]:
        try:
            while self.count < self.limit:
                self.count += 1
                yield b"%0*d" % (self.size, self.count)
        finally:
            self.reasons.append(ctx.signal.reason)


SHAPES = ["hot", "plain", "bidi"]


async def echo(input: bytes) -> bytes:
    return input


def serving(build: Build, source: Source, shape: str = "hot", **options: Any) -> Server:
    server = build(**options)
    direction = "bidi" if shape == "bidi" else "server"
    server.stream("hot", direction=direction).handler(getattr(source, shape))
    server.procedure("echo").handler(echo)
    return server


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [0, 10_000, 65_535])
async def test_a_handler_is_not_far_ahead_of_its_window(build, opened, shape, window):
    source = Source()
    server = serving(build, source, shape)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: window})
    await client.send(call(1, "/Root/Hot"))
    count = await standstill(lambda: source.count)
    assert count * 1000 <= window + 64 * 1024 + 16_000
    await client.synchronise()
    assert client.answers.get(1, Answer()).size == window


@pytest.mark.parametrize("shape", SHAPES)
async def test_it_goes_on_where_it_was_when_it_gets_window_again(build, opened, shape):
    source = Source()
    server = serving(build, source, shape)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 50_000})
    await client.send(call(1, "/Root/Hot"))
    stopped = await standstill(lambda: source.count)
    client.granting = True
    await client.send(update(1, 50_000))
    found = await client.messages(1, stopped + 100)
    assert [int(blob_in(one)) for one in found] == list(range(1, stopped + 101))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("piece", [10, 1000, 5000])
async def test_a_handler_is_never_far_ahead_of_a_window_that_comes_in_pieces(build, opened, shape, piece):
    source = Source(size=100)
    server = serving(build, source, shape)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: piece})
    await client.send(call(1, "/Root/Hot"))
    granted = piece
    for _ in range(200):
        while client.answers.get(1, Answer()).size < granted:
            await client.receive()
        await client.send(update(1, piece))
        granted += piece
    while client.answers[1].size < granted:
        await client.receive()
    count = await standstill(lambda: source.count)
    assert count * 107 <= granted + 16_000


async def test_window_that_comes_in_small_pieces_is_used_to_the_last_byte(build, opened):
    source = Source(size=300, limit=20)
    server = serving(build, source)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 0})
    await client.send(call(1, "/Root/Hot"))
    granted = 0
    while granted < 20 * 308:
        await client.send(update(1, 11))
        granted += 11
        wanted = min(granted, 20 * 308)
        while client.answers.get(1, Answer()).size != wanted:
            await client.receive()
    answer = await client.answer(1)
    assert [int(blob_in(one)) for one in answer.messages] == list(range(1, 21))
    assert answer.status == OK


async def test_a_window_that_settings_take_away_is_waited_for(build, opened):
    """It may become negative (RFC 9113, 6.9.2)."""
    source = Source(limit=100)
    server = serving(build, source)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 20_000})
    await client.send(call(1, "/Root/Hot"))
    await client.until(lambda: 1 in client.answers and client.answers[1].size == 20_000)
    await client.send(settings({INITIAL_WINDOW_SIZE: 5_000}), update(1, 15_000))
    await client.synchronise()
    await client.synchronise()
    assert client.answers[1].size == 20_000
    await client.send(update(1, 1))
    await client.until(lambda: client.answers[1].size == 20_001)
    await client.send(settings({INITIAL_WINDOW_SIZE: 1_000_000}))
    assert len((await client.answer(1)).messages) == 100


async def test_the_window_of_the_connection_holds_all_streams_and_frees_all(build, opened):
    server = build()
    server.stream("hot").handler(Source(limit=2**31).hot)
    server.stream("fifty").handler(fifty)
    await server.start()
    client = await opened(server, connection_window=0)
    await client.send(*(call(id, "/Root/Fifty") for id in range(1, 20, 2)))
    await client.until(lambda: sum(answer.size for answer in client.answers.values()) == 65_535)
    await client.synchronise()
    assert sum(answer.size for answer in client.answers.values()) == 65_535
    await client.send(update(0, MIB))
    for id in range(1, 20, 2):
        assert len((await client.answer(id)).messages) == 50


async def fifty(input: int) -> AsyncIterator[bytes]:
    for _ in range(50):
        yield b"x" * 1000


# One of several streams


async def test_a_stream_that_is_not_read_does_not_hold_up_the_others(build, opened):
    source = Source()
    server = serving(build, source)
    server.stream("fifty").handler(fifty)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 65_535}, granting=False)
    await client.send(call(1, "/Root/Hot"))
    stopped = await standstill(lambda: source.count)
    for id in range(3, 203, 2):
        await client.send(call(id, "/Root/Fifty"), update(id, 65_535) if id > 203 else b"")
        assert len((await client.answer(id)).messages) == 50
    assert source.count == stopped
    assert client.answers[1].size == 65_535


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_stream_without_window_is_reset_after_the_stall_limit_and_the_others_live(build, opened, caplog, shape):
    source, other = Source(), Source()
    server = serving(build, source, shape, limits={"stall_seconds": 0.3})
    server.stream("other").handler(other.hot)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 65_535})
    with caplog.at_level(logging.WARNING, "raffel"):
        await client.send(call(1, "/Root/Hot"))
        await client.until(lambda: 1 in client.answers and client.answers[1].size == 65_535)
        began = time.perf_counter()
        await client.send(call(3, "/Root/Other"))
        while not client.answers[1].over:
            before = client.answers[3].size if 3 in client.answers else 0
            await client.receive()
            if 3 in client.answers and client.answers[3].size > before:
                await client.send(update(3, client.answers[3].size - before))
    assert 0.2 < time.perf_counter() - began < 2
    assert client.answers[1].reset == ENHANCE_YOUR_CALM
    await eventually(lambda: source.reasons)
    assert source.reasons == ["slow_consumer"]
    assert [record.reason for record in caplog.records if hasattr(record, "reason")] == ["slow_consumer"]
    assert other.reasons == []
    await client.send(call(5, "/Root/Echo", blob(b"x")))
    assert (await client.answer(5)).messages == [blob(b"x")]


@pytest.mark.parametrize("size", [100, 300_000])
async def test_an_answer_without_window_is_reset_after_the_stall_limit_too(build, opened, size):
    server = build(limits={"stall_seconds": 0.3})
    server.procedure("echo").handler(echo)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 50})
    await client.send(call(1, "/Root/Echo", blob(b"x" * size)))
    answer = await client.answer(1)
    assert (answer.reset, answer.size) == (ENHANCE_YOUR_CALM, 50)
    await client.send(call(3, "/Root/Echo", blob(b"y")))
    assert (await client.answer(3)).messages == [blob(b"y")]
    await eventually(lambda: not server._hub.sessions)


async def test_a_stream_whose_handler_has_returned_is_reset_too(build, opened):
    source = Source(limit=10)
    server = serving(build, source, limits={"stall_seconds": 0.3})
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 5000})
    await client.send(call(1, "/Root/Hot"))
    answer = await client.answer(1)
    assert (answer.reset, answer.size) == (ENHANCE_YOUR_CALM, 5000)


async def test_a_little_window_now_and_then_is_no_stall(build, opened):
    source = Source()
    server = serving(build, source, limits={"stall_seconds": 0.3})
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 1000})
    await client.send(call(1, "/Root/Hot"))
    end = time.monotonic() + 1
    while time.monotonic() < end:
        await client.send(update(1, 500))
        await asyncio.sleep(0.05)
    await client.synchronise()
    assert not client.answers[1].over
    assert source.reasons == []


async def test_a_stream_without_items_is_no_stall(build, opened):
    server, go_on = build(limits={"stall_seconds": 0.2}), asyncio.Event()

    @server.stream("quiet")
    async def quiet(input: int) -> AsyncIterator[bytes]:
        yield b"1"
        await go_on.wait()
        yield b"2"

    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 8})  # to the last byte
    await client.send(call(1, "/Root/Quiet"))
    await client.messages(1, 1)
    await asyncio.sleep(0.5)
    assert not client.answers[1].over
    go_on.set()
    await client.send(update(1, 100))
    assert (await client.answer(1)).messages == [blob(b"1"), blob(b"2")]


@pytest.mark.parametrize("streams", [1, 20])
async def test_a_socket_that_is_not_read_is_cut_after_the_stall_limit(build, opened, caplog, streams):
    source = Source(size=16_000)
    server = serving(build, source, limits={"stall_seconds": 0.3})
    await server.start()
    client = await opened(server, window=WINDOW)
    with caplog.at_level(logging.WARNING, "raffel"):
        await client.send(*(call(id, "/Root/Hot") for id in range(1, 2 * streams, 2)))
        began = time.perf_counter()
        await eventually(lambda: len(source.reasons) == streams)
    assert 0.2 < time.perf_counter() - began < 2
    assert set(source.reasons) == {"slow_consumer"}
    cuts = [record.message for record in caplog.records if getattr(record, "reason", "") == "slow_consumer"]
    assert cuts == ["connection cut: slow_consumer"]
    await eventually(lambda: not server._hub.connections and not server._hub.sessions)


# Up: a handler that is slow


def numbered(first: int, count: int) -> list[bytes]:
    return [message(blob(b"%0100d" % n)) for n in range(first, first + count)]


async def test_a_slow_handler_of_grpcio_gets_all_in_order_and_memory_stays_flat(process):
    server = process()
    async with channel(server) as one:
        slow = one.stream_unary("/Root/Slow")

        async def items(count: int) -> AsyncIterator[bytes]:
            for n in range(count):
                yield blob(b"%0100d" % n)

        assert number_in(await slow(items(200))) == 200
        async with Peak(server) as peak:
            assert number_in(await slow(items(ITEMS))) == ITEMS
    log.info(f"{ITEMS} messages of grpcio up: {peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * MIB
    assert unharmed(server)


async def test_a_slow_bidi_handler_of_grpcio_echoes_all_and_memory_stays_flat(process):
    server = process()
    async with channel(server) as one:

        async def items(count: int) -> AsyncIterator[bytes]:
            for n in range(count):
                yield blob(b"%0100d" % n)

        both = one.stream_stream("/Root/Echo")
        assert len([item async for item in both(items(200))]) == 200
        async with Peak(server) as peak:
            found = [int(blob_in(item)) async for item in both(items(ITEMS))]
    log.info(f"{ITEMS} messages of grpcio both ways: {peak.growth / 1024:.0f} KiB more")
    assert found == list(range(ITEMS))
    assert peak.growth < 4 * MIB
    assert unharmed(server)


class Sender:
    """Sends no more than the windows let it."""

    def __init__(self, client: Raw, stream: int) -> None:
        self.client = client
        self.stream = stream
        self.sent = 0

    def room(self) -> int:
        client = self.client
        return min(
            client.settings.get(INITIAL_WINDOW_SIZE, 65_535) + client.updates[self.stream] - self.sent,
            65_535 + client.updates[0] - self.sent,
        )

    async def send(self, payload: bytes) -> None:
        for at in range(0, len(payload), 16_384):
            piece = payload[at : at + 16_384]
            while self.room() < len(piece):
                await self.client.receive()
            self.sent += len(piece)
            await self.client.send(data(self.stream, piece))


@pytest.mark.parametrize("name", ["Slow", "Echo"])
async def test_a_slow_handler_gets_all_in_order_and_memory_stays_flat(process, opened, name):
    server = process()
    client = await opened(server, granting=True)
    await client.synchronise()
    for id, count in ((1, 300), (3, ITEMS)):
        sender = Sender(client, id)
        async with Peak(server) as peak:
            await client.send(head(id, f"/Root/{name}"))
            for first in range(0, count, 100):
                await sender.send(b"".join(numbered(first, 100)))
            await client.send(data(id, end=True))
            answer = await client.answer(id)
        assert answer.status == OK
        if name == "Slow":
            assert [number_in(one) for one in answer.messages] == [count]
        else:
            assert [int(blob_in(one)) for one in answer.messages] == list(range(count))
    log.info(f"{ITEMS} messages up to {name}: {peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * MIB
    assert unharmed(server)


class Reader:
    """A handler that reads when a test says so."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.reading = asyncio.Event()
        self.ended = asyncio.Event()
        self.seen: list[bytes] = []
        self.reason: str | None = None

    async def client(self, input: AsyncIterator[bytes], ctx: Any) -> int:
        try:
            self.reading.set()
            await self.go_on.wait()
            async for item in input:
                self.seen.append(item)
            return len(self.seen)
        finally:
            self.reason = ctx.signal.reason
            self.ended.set()

    async def bidi(self, input: AsyncIterator[bytes], ctx: Any) -> AsyncIterator[bytes]:
        yield b"%d" % await self.client(input, ctx)


def reading(build: Build, direction: str = "client", **options: Any) -> tuple[Server, Reader]:
    server, reader = build(**options), Reader()
    server.stream("reader", direction=direction).handler(getattr(reader, direction))
    server.procedure("echo").handler(echo)
    server.stream("hot").handler(Source().hot)
    return server, reader


@pytest.mark.parametrize("direction", ["client", "bidi"])
async def test_the_window_comes_back_when_the_handler_has_read_and_not_before(build, opened, direction):
    server, reader = reading(build, direction)
    await server.start()
    client = await opened(server)
    body = b"".join(message(blob(b"x" * 1000)) for _ in range(STREAM_WINDOW // 1008))
    await client.send(head(1, "/Root/Reader"), data(1, body))
    await asyncio.wait_for(reader.reading.wait(), PATIENCE)
    await client.synchronise()
    assert client.updates[1] == 0
    await client.nothing()
    reader.go_on.set()
    await client.until(lambda: client.updates[1] >= STREAM_WINDOW // 2)
    assert client.updates[1] <= len(body)
    await client.send(data(1, end=True))
    answer = await client.answer(1)
    assert answer.status == OK
    assert len(reader.seen) == STREAM_WINDOW // 1008


async def test_more_than_the_window_is_an_error_of_the_stream(build, opened):
    server, reader = reading(build)
    await server.start()
    client = await opened(server)
    await client.send(head(1, "/Root/Reader"), data(1, b"".join(message(blob(b"x" * 1000)) for _ in range(300))))
    answer = await client.answer(1)
    assert answer.reset == 3  # FLOW_CONTROL_ERROR
    await asyncio.wait_for(reader.ended.wait(), PATIENCE)
    assert reader.reason == "client_cancelled"
    await client.send(call(3, "/Root/Echo", blob(b"x")))
    assert (await client.answer(3)).messages == [blob(b"x")]


async def test_a_handler_that_does_not_read_does_not_hold_up_other_streams(build, opened):
    server, reader = reading(build)
    await server.start()
    client = await opened(server, granting=True)
    await client.send(head(1, "/Root/Reader"), data(1, b"".join(numbered(0, 2000))))
    for id in range(3, 203, 2):
        await client.send(call(id, "/Root/Echo", blob(b"x" * 1000)))
        assert (await client.answer(id)).messages == [blob(b"x" * 1000)]
    assert client.updates[1] == 0
    reader.go_on.set()
    await client.send(data(1, end=True))
    assert [number_in(one) for one in (await client.answer(1)).messages] == [2000]


async def test_many_handlers_that_do_not_read_do_not_hold_up_other_streams(build, opened):
    """Each has all that its window takes; those that follow are small, as a client would send them."""
    server, reader = reading(build)
    await server.start()
    client = await opened(server, granting=True)
    body = b"".join(message(blob(b"x" * 1000)) for _ in range(200))
    for id in range(1, 10, 2):
        await client.send(head(id, "/Root/Reader"), data(id, body))
    for id in range(11, 111, 2):
        await client.send(call(id, "/Root/Echo", blob(b"x")))
        assert (await client.answer(id)).messages == [blob(b"x")]
    reader.go_on.set()
    await client.send(*(data(id, end=True) for id in range(1, 10, 2)))
    for id in range(1, 10, 2):
        assert (await client.answer(id)).status == OK
    assert len(reader.seen) == 1000


async def test_what_a_reset_stream_has_not_read_is_given_back_to_the_connection(build, opened):
    """Else a few cancelled uploads would leave no window for the others."""
    server, _ = reading(build)
    await server.start()
    client = await opened(server)
    await client.synchronise()
    sender = Sender(client, 1)
    body = b"".join(message(blob(b"x" * 1000)) for _ in range(240))
    for id in range(1, 61, 2):
        await client.send(head(id, "/Root/Reader"))
        sender.stream = id
        for at in range(0, len(body), 16_384):
            await client.until(lambda: 65_535 + client.updates[0] - sender.sent >= 16_384)
            await client.send(data(id, body[at : at + 16_384]))
            sender.sent += len(body[at : at + 16_384])
        await client.send(reset(id))
    await client.send(call(99, "/Root/Echo", blob(b"x")))
    assert (await client.answer(99)).messages == [blob(b"x")]
    assert client.goaway is None


@pytest.mark.parametrize("window", [10, 100, 16_384])
async def test_large_messages_pass_small_windows(build, opened, window):
    """A MiB either way, less what surrounds it."""
    size = MIB - 4 if window > 1000 else 300 * window
    server = build()
    server.procedure("echo").handler(echo)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: window}, granting=True)
    await client.synchronise()
    value = blob(os.urandom(size))
    await client.send(head(1, "/Root/Echo"))
    await Sender(client, 1).send(message(value))
    await client.send(data(1, end=True))
    answer = await client.answer(1)
    assert answer.status == OK
    assert answer.messages == [value]
    assert client.goaway is None


async def test_large_messages_pass_both_ways_of_grpcio(build):
    server = build()
    server.stream("both", direction="bidi").handler(both)
    await server.start()
    async with channel(server, ("grpc.http2.lookahead_bytes", 1024), ("grpc.max_receive_message_length", -1)) as one:
        value = blob(os.urandom(MIB - 4))

        async def items() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield value

        found = [item async for item in one.stream_stream("/Root/Both")(items())]
    assert found == [value] * 20


async def both(input: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for item in input:
        yield item


# Priority


def prioritised(build: Build, **priorities: int) -> Server:
    server = build()
    for name, priority in priorities.items():
        server.stream(name, priority=priority).handler(of_size)
    return server


async def of_size(input: int) -> AsyncIterator[bytes]:
    item = b"x" * input
    while True:
        yield item


async def shares(client: Raw, streams: Mapping[str, str], size: int) -> Counter[str]:
    """The bytes that each stream has of so many, once the connection is full."""
    ids = {name: id for id, name in enumerate(streams)}
    await client.send(*(call(2 * id + 1, f"/Root/{streams[name]}", number(size)) for name, id in ids.items()))
    await asyncio.sleep(0.05)

    def taken() -> Counter[str]:
        return Counter({name: client.answers.get(2 * id + 1, Answer()).size for name, id in ids.items()})

    async def read(end: int) -> None:
        while client.received < end:
            await client.more(16 * 1024)
            client.frames()
            for answer in client.answers.values():
                answer.messages.clear()

    await read(256 * 1024)
    before = taken()
    await read(client.received + BYTES)
    return Counter({name: size - before[name] for name, size in taken().items()})


@pytest.mark.parametrize("size", [20, 200, 1000, 4000, 16_000])
async def test_a_higher_priority_has_most_and_a_lower_one_an_eighth(build, opened, size):
    server = prioritised(build, high=10, low=0)
    await server.start()
    client = await opened(server, window=4096)
    taken = await shares(client, {"high": "High", "low": "Low"}, size)
    part = taken["low"] / taken.total()
    log.info(f"{size} bytes: low has {part:.3f}")
    assert 1 / 20 < part < 1 / 4


@pytest.mark.parametrize("size", [20, 200, 1000, 4000, 16_000])
async def test_equals_share_fairly(build, opened, size):
    server = prioritised(build, equal=0)
    await server.start()
    client = await opened(server, window=4096)
    taken = await shares(client, {str(n): "Equal" for n in range(20)}, size)
    log.info(f"{size} bytes: {min(taken.values()) / max(taken.values()):.2f}")
    assert min(taken.values()) >= max(taken.values()) / 2


async def test_a_high_one_without_window_leaves_the_connection_to_the_low_ones(build, opened):
    server = prioritised(build, high=10, low=0)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 10_000})
    await client.send(call(1, "/Root/High", number(1000)))
    await client.until(lambda: 1 in client.answers and client.answers[1].size == 10_000)
    await client.send(call(3, "/Root/Low", number(1000)), update(3, 10_000_000))
    await client.messages(3, 5000)
    assert client.answers[1].size == 10_000


# Ends


@pytest.mark.parametrize("window", [0, 1, 100, 65_535])
async def test_the_end_follows_all_items(build, opened, window):
    source = Source(size=100, limit=200)
    server = serving(build, source)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: window}, granting=True)
    await client.send(call(1, "/Root/Hot"))
    await standstill(lambda: source.count)
    await client.send(update(1, 20_000))
    answer = await client.answer(1)
    assert answer.status == OK
    assert [int(blob_in(one)) for one in answer.messages] == list(range(1, 201))


async def test_an_error_follows_all_items_too(build, opened):
    server = build()

    @server.stream("fails")
    async def fails(input: int) -> AsyncIterator[bytes]:
        for n in range(5):
            yield b"%d" % n
        raise ValueError("after five")

    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 10})
    await client.send(call(1, "/Root/Fails"))
    await client.until(lambda: 1 in client.answers and client.answers[1].size == 10)
    await client.send(update(1, 1000))
    answer = await client.answer(1)
    assert answer.messages == [blob(b"%d" % n) for n in range(5)]
    assert answer.status == 13  # INTERNAL


async def test_a_deadline_is_told_behind_what_is_queued(build, opened):
    source = Source(size=100)
    server = serving(build, source)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 1000}, granting=True)
    await client.send(call(1, "/Root/Hot", b"", (b"grpc-timeout", b"200m")))
    answer = await client.answer(1)
    assert answer.status == DEADLINE_EXCEEDED
    assert [int(blob_in(one)) for one in answer.messages] == list(range(1, len(answer.messages) + 1))
    assert source.reasons == ["deadline_exceeded"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [1000, 2**31 - 1])
async def test_a_cancel_drops_what_is_queued_and_touches_nothing_else(build, opened, shape, window):
    source = Source()
    server = serving(build, source, shape)
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: window}, window=WINDOW)
    await client.send(call(1, "/Root/Hot"))
    await standstill(lambda: source.count)
    await client.send(reset(1))
    await eventually(lambda: source.reasons == ["client_cancelled"])
    count = source.count
    await client.send(call(3, "/Root/Echo", blob(b"x")))
    await client.until(lambda: 3 in client.answers and (client.answers[3].over or client.answers[3].size == window))
    assert client.answers[3].messages == [blob(b"x")]
    assert source.count == count
    assert len(client.answers[1].messages if 1 in client.answers else []) <= count
    (connection,) = server._hub.connections
    await eventually(lambda: not connection.calls)
    assert not connection.starved


async def test_nothing_of_a_stream_comes_after_its_reset_has_been_seen(build, opened):
    source = Source()
    server = serving(build, source)
    await server.start()
    client = await opened(server, granting=True)
    await client.send(call(1, "/Root/Hot"))
    await client.messages(1, 1000)
    await client.send(reset(1), ping(b"all read"))
    pongs = client.pongs
    late = []
    async with asyncio.timeout(PATIENCE):
        while client.pongs == pongs:
            await client.receive()
    await client.send(ping(b"all read"))
    while client.pongs == pongs + 1:
        late += [one for one in await client.receive() if one.stream == 1 and one.type in (DATA, HEADERS)]
    assert late == []


# Vanished


WAYS = ["vanish", "break_off"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["idle", "no window", "no reading"])
async def test_a_client_that_vanishes_is_noticed_whatever_the_handler_waits_for(build, opened, how, way):
    source = Source()
    server = serving(build, source)

    @server.stream("idle")
    async def idle(input: int, ctx: Any) -> AsyncIterator[bytes]:
        try:
            yield b"1"
            await asyncio.Event().wait()
        finally:
            source.reasons.append(ctx.signal.reason)

    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 1000} if how == "no window" else None, window=WINDOW)
    if how == "idle":
        await client.send(call(1, "/Root/Idle"))
        await client.messages(1, 1)
    else:
        await client.send(call(1, "/Root/Hot"))
        await standstill(lambda: source.count)
    getattr(client, way)()
    await eventually(lambda: source.reasons)
    assert source.reasons == ["client_disconnected"]
    await eventually(lambda: not server._hub.connections and not server._hub.sessions)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_vanishes_is_noticed_while_its_connection_is_not_read(build, opened, way):
    """256 KiB of replies wait: it is looked for once a second then."""
    server, reader = reading(build)
    await server.start()
    client = await opened(server, window=4096)
    await client.send(head(1, "/Root/Reader"))
    await asyncio.wait_for(reader.reading.wait(), PATIENCE)
    (connection,) = server._hub.connections
    ids = iter(range(3, 100_001, 2))
    async with asyncio.timeout(PATIENCE):
        while not connection.held or connection.transport.is_reading():
            await asyncio.wait_for(client.send(*(call(next(ids), "/Root/Nothing") for _ in range(20))), 5)
            await asyncio.sleep(0.001)
    getattr(client, way)()
    await asyncio.wait_for(reader.ended.wait(), 5)
    assert reader.reason == "client_disconnected"
    await eventually(lambda: not server._hub.connections and not server._hub.sessions)


@pytest.mark.parametrize("way", WAYS)
async def test_all_calls_of_the_connection_end(build, opened, way):
    source = Source(limit=2**31)
    server = serving(build, source, "bidi")
    await server.start()
    client = await opened(server, {INITIAL_WINDOW_SIZE: 100})
    await client.send(*(head(id, "/Root/Hot") for id in range(1, 200, 2)))
    await eventually(lambda: len(server._hub.sessions) == 100)
    await standstill(lambda: source.count)
    getattr(client, way)()
    await eventually(lambda: not server._hub.sessions and not server._hub.connections)
    assert source.reasons == ["client_disconnected"] * 100


async def test_a_client_that_cancels_while_its_handler_waits_for_items_is_noticed(build, opened):
    server, reader = reading(build)
    await server.start()
    reader.go_on.set()
    client = await opened(server)
    await client.send(head(1, "/Root/Reader"), data(1, b"".join(numbered(0, 10))))
    await eventually(lambda: len(reader.seen) == 10)
    await client.send(reset(1))
    await asyncio.wait_for(reader.ended.wait(), PATIENCE)
    assert reader.reason == "client_cancelled"


# Handlers that read nothing, and a connection whose window they use up


CONNECTION_WINDOW = 2 * MIB
"""What a client may send on a connection before it is read."""


async def used_up(client: Raw, server: Server) -> list[int]:
    """Streams that use up the window of the connection, and whose handlers read nothing."""
    streams = list(range(1, 2 * CONNECTION_WINDOW // STREAM_WINDOW, 2))
    await client.send(*(head(id, "/Root/Reader") + data(id, b"".join(numbered(0, 2300))) for id in streams))
    await client.synchronise()
    left = client.settings[INITIAL_WINDOW_SIZE] - 2300 * 107
    room = 65_535 + client.updates[0] - len(streams) * 2300 * 107
    for id in streams:
        piece = min(left, room)
        room -= piece
        await client.send(data(id, b"\0\0\1\0\0".ljust(piece, b"x")) if piece > 4 else b"")
    await client.synchronise()
    assert room <= 4
    assert len(server._hub.sessions) == len(streams)
    return streams


async def test_handlers_that_read_nothing_lose_their_streams_when_they_hold_up_the_others(build, opened, caplog):
    server, reader = reading(build, limits={"stall_seconds": 0.3})
    await server.start()
    client = await opened(server)
    await client.synchronise()
    streams = await used_up(client, server)
    before = client.updates[0]
    answers = [await client.answer(id) for id in streams[:1]]
    assert [answer.status for answer in answers] == [RESOURCE_EXHAUSTED]
    assert reader.reason == "handler_stalled"
    await client.until(lambda: client.updates[0] > before)
    await client.send(call(99, "/Root/Echo", blob(b"x")))
    assert (await client.answer(99)).messages == [blob(b"x")]
    assert client.goaway is None


async def test_a_handler_that_reads_nothing_and_holds_up_nobody_keeps_its_stream(build, opened):
    server, reader = reading(build, limits={"stall_seconds": 0.2})
    await server.start()
    client = await opened(server)
    await client.send(head(1, "/Root/Reader"), data(1, b"".join(numbered(0, 2300))))
    await client.send(head(3, "/Root/Reader"), data(3, b"".join(numbered(0, 2300))))
    await asyncio.sleep(0.7)
    await client.synchronise()
    assert not any(answer.over for answer in client.answers.values())
    reader.go_on.set()
    await client.send(data(1, end=True), data(3, end=True))
    assert (await client.answer(1)).status == (await client.answer(3)).status == OK


async def test_the_window_of_the_connection_comes_back_as_handlers_read(build, opened):
    server, reader = reading(build)
    await server.start()
    client = await opened(server)
    await client.synchronise()
    streams = await used_up(client, server)
    assert client.updates[0] + 65_535 == CONNECTION_WINDOW
    reader.go_on.set()
    await client.until(lambda: client.updates[0] + 65_535 >= CONNECTION_WINDOW * 3 // 2)
    await client.send(*map(reset, streams))
