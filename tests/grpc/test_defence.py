"""Hostile peers: ten thousand frames of any kind cost little, leave nothing behind, and nobody else notices."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from ..flow.conftest import Peak, Process
from .raw import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INVALID_ARGUMENT,
    MAX_WINDOW,
    OK,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RESOURCE_EXHAUSTED,
    SETTINGS,
    Closed,
    Raw,
    blob,
    block,
    call,
    connect,
    data,
    fields,
    frame,
    head,
    literal,
    message,
    number,
    number_in,
    ping,
    reset,
    settings,
    update,
)

log = logging.getLogger("measured")

N = 10_000
SECONDS = 0.5
"""Of a processor, that as many frames may cost."""
MEMORY = 4 * 1024 * 1024
NOTICED = 0.25
"""Seconds that a neighbour may be kept waiting: it is a few milliseconds, but for a machine that has more to do."""
ATTEMPTS = 4
MIB = 1024 * 1024
STREAM_BYTES = 200_000
"""Less than a stream's window."""

ROUTES = {
    "echo.rpc.py": """
        async def handler(input: bytes) -> bytes:
            return input
        """,
    "tasks.rpc.py": """
        import asyncio

        async def handler(input: bytes) -> int:
            return len(asyncio.all_tasks())
        """,
    "most.rpc.py": """
        import tally

        async def handler(input: bytes) -> int:
            return tally.most
        """,
    "ticks.stream.py": """
        import asyncio
        from collections.abc import AsyncIterator

        async def handler(input: bytes) -> AsyncIterator[int]:
            number = 0
            while True:
                number += 1
                yield number
                await asyncio.sleep(0.005)
        """,
    "hot.stream.py": """
        from collections.abc import AsyncIterator

        async def handler(input: int) -> AsyncIterator[bytes]:
            item = b"x" * 1000
            while True:
                yield item
        """,
    "count.stream.py": """
        from collections.abc import AsyncIterator

        async def handler(input: int) -> AsyncIterator[int]:
            for number in range(input):
                yield number
        """,
    "waits.stream.py": """
        import asyncio
        from collections.abc import AsyncIterator

        import tally

        async def handler(input: int) -> AsyncIterator[bytes]:
            '''Needs so many milliseconds to end.'''
            tally.running += 1
            tally.most = max(tally.most, tally.running)
            try:
                yield b"1"
                await asyncio.Event().wait()
            finally:
                try:
                    await asyncio.sleep(input / 1000)
                finally:
                    tally.running -= 1
        """,
    "reads.stream.py": """
        from collections.abc import AsyncIterator

        meta = {"direction": "client"}

        async def handler(input: AsyncIterator[bytes]) -> int:
            count = 0
            async for _ in input:
                count += 1
            return count
        """,
    "ignores.stream.py": """
        import asyncio
        from collections.abc import AsyncIterator

        meta = {"direction": "client"}

        async def handler(input: AsyncIterator[bytes]) -> int:
            await asyncio.Event().wait()
            return 0
        """,
}
ECHO, HOT, COUNT, WAITS = "/Root/Echo", "/Root/Hot", "/Root/Count", "/Root/Waits"
READS, IGNORES, NOTHING = "/Root/Reads", "/Root/Ignores", "/Root/Nothing"
GZIP = (b"grpc-encoding", b"gzip")


# Floods


class Flood(NamedTuple):
    """Frames, and the errors for one of which their connection ends; None: it goes on."""

    frames: Callable[[], bytes]
    ends: tuple[int | None, ...] = (ENHANCE_YOUR_CALM,)


def ids(count: int = N, first: int = 1) -> range:
    return range(first, first + 2 * count, 2)


def calls(path: str, then: Callable[[int], bytes], *more: tuple[bytes, bytes], count: int = N, flags: int = 0) -> bytes:
    """So many calls, each with what follows its head."""
    found = block(fields(path, *more))
    return b"".join(frame(HEADERS, END_HEADERS | flags, id, found) + then(id) for id in ids(count))


def asked(then: Callable[[int], bytes] = lambda id: b"") -> Callable[[int], bytes]:
    """A request of one empty message, and what follows it."""
    return lambda id: data(id, message(b""), end=True) + then(id)


def distinct_heads(make: Callable[[int], bytes], count: int = N) -> bytes:
    """Calls without a body whose heads all differ. Index 62 (0xbe) of the decoder's table is a field of 33 bytes."""
    common = block(fields(ECHO))
    found = [frame(HEADERS, END_HEADERS | END_STREAM, 1, common + literal(b"a", b"", indexed=True))]
    found += (frame(HEADERS, END_HEADERS | END_STREAM, id, common + make(id)) for id in ids(count, 3))
    return b"".join(found)


def late_heads(make: Callable[[int], bytes]) -> bytes:
    """Header blocks for a stream that the server has ended: nobody wants them, and the decoder must see them."""
    first = head(1, NOTHING)[9:] + literal(b"a", b"", indexed=True)
    blocks = (frame(HEADERS, END_HEADERS | END_STREAM, 1, make(n)) for n in range(N))
    return frame(HEADERS, END_HEADERS, 1, first) + b"".join(blocks)


def numbered(n: int) -> bytes:
    return literal(b"b", b"%d" % n)


def compressed(size: int) -> bytes:
    """A message that is a thousandth of this."""
    return message(gzip.compress(blob(bytes(size)), 9), 1)


def bombs(path: str) -> bytes:
    bomb = compressed(20 * MIB)
    return calls(path, lambda id: data(id, bomb, end=True), GZIP, count=1000)


def short_of_its_length(id: int) -> bytes:
    return data(id, message(b""), end=True)


def with_window(window: int, path: str, count: int, frames: bytes) -> bytes:
    """Streams with so small a window, which have more to say than that, and then these frames."""
    return settings({INITIAL_WINDOW_SIZE: window}) + calls(path, asked(), count=count) + frames


RESETS = {
    "that are reset at once": Flood(lambda: calls(ECHO, reset)),
    "that are reset with their request": Flood(lambda: calls(ECHO, asked(reset))),
    "that are reset while they stream": Flood(lambda: calls(HOT, asked(reset))),
    "that are reset while they read": Flood(lambda: calls(READS, reset)),
    "that are reset, of no method": Flood(lambda: calls(NOTHING, reset)),
    "that are made reset by a window of 0": Flood(lambda: calls(WAITS, asked(lambda id: update(id, 0)))),
    "that are made reset by too large a window": Flood(lambda: calls(WAITS, asked(lambda id: update(id, MAX_WINDOW)))),
    "that are made reset by DATA after their end": Flood(lambda: calls(WAITS, asked(lambda id: data(id, b"x")))),
    "that are made reset by HEADERS after their end": Flood(lambda: calls(WAITS, asked(lambda id: head(id, WAITS)))),
    "that are made reset by PRIORITY without priority": Flood(
        lambda: calls(WAITS, asked(lambda id: frame(PRIORITY, 0, id)))
    ),
    "that are made reset by a wrong length": Flood(lambda: calls(ECHO, short_of_its_length, (b"content-length", b"6"))),
    "that are made reset by more than their length": Flood(lambda: calls(READS, asked(), (b"content-length", b"3"))),
    "that are made reset by trailers without an end": Flood(
        lambda: calls(READS, lambda id: frame(HEADERS, END_HEADERS, id, literal(b"a", b"b")))
    ),
    "that depend on themselves": Flood(
        lambda: calls(WAITS, asked(lambda id: frame(PRIORITY, 0, id, struct.pack("!IB", id, 1))))
    ),
    "that are malformed": Flood(
        lambda: b"".join(frame(HEADERS, END_HEADERS | END_STREAM, id, literal(b":path", b"/")) for id in ids())
    ),
    "that are too many": Flood(lambda: calls(WAITS, asked())),
    "that never get a message": Flood(lambda: calls(ECHO, lambda id: b"")),
    "that announce 4 GiB": Flood(lambda: calls(ECHO, lambda id: data(id, b"\0\xff\xff\xff\xff"))),
    "that announce 4 GiB to a handler": Flood(lambda: calls(READS, lambda id: data(id, b"\0\xff\xff\xff\xff"))),
    "that have a flag which is none": Flood(lambda: calls(READS, lambda id: data(id, b"\x07\0\0\0\0"))),
    "that inflate to 20 MiB": Flood(lambda: bombs(ECHO)),
    "that inflate to 20 MiB for a handler": Flood(lambda: bombs(READS)),
}
"""Streams."""

HEADS = {
    "CONTINUATION without bytes": Flood(
        lambda: head(1, ECHO)[:4] + b"\0" + head(1, ECHO)[5:] + frame(CONTINUATION, 0, 1) * N
    ),
    "CONTINUATION of a byte": Flood(lambda: frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, b"\x20") * N),
    "CONTINUATION of 1,000 bytes": Flood(lambda: frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, b"\x20" * 1000) * N),
    "CONTINUATION that ends each block": Flood(
        lambda: b"".join(
            frame(HEADERS, END_STREAM, id) + frame(CONTINUATION, END_HEADERS, id, block(fields(WAITS))) for id in ids()
        )
    ),
    "headers of 15 KB that all differ": Flood(
        lambda: distinct_heads(lambda id: literal(b"b", b"%015000d" % id), count=1000), (None, ENHANCE_YOUR_CALM)
    ),
    "headers of 470 fields that all differ": Flood(lambda: distinct_heads(lambda id: b"\xbe" * 470 + numbered(id))),
    "headers of more than 16 KiB in 800 bytes": Flood(lambda: distinct_heads(lambda id: b"\xbe" * 800)),
    "headers that only change the size of the table": Flood(
        lambda: b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, id, b"\x20" * 1000 + block(fields(ECHO))) for id in ids()
        ),
        (9,),
    ),
    "headers that always enter the table": Flood(
        lambda: distinct_heads(lambda id: b"".join(literal(b"%d" % n, b"%d" % id, indexed=True) for n in range(100)))
    ),
    "headers with a number of 1,000 bytes": Flood(lambda: distinct_heads(lambda id: b"\xff" + b"\xff" * 1000), (9,)),
    "late headers of 450 fields": Flood(lambda: late_heads(lambda n: b"\xbe" * 450 + numbered(n))),
    "late headers of no field": Flood(lambda: late_heads(lambda n: b"")),
}

FRAMES = {
    "SETTINGS": Flood(lambda: settings({}) * N),
    "SETTINGS of 2,730 values": Flood(
        lambda: frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, 5) * 2730) * 1000
    ),
    "SETTINGS that nobody knows": Flood(lambda: settings({99: 1}) * N),
    "SETTINGS that change 100 windows": Flood(
        lambda: (
            calls(HOT, asked(), count=100) + settings({INITIAL_WINDOW_SIZE: 0}) + settings({INITIAL_WINDOW_SIZE: 1}) * N
        )
    ),
    "acknowledged SETTINGS": Flood(lambda: frame(SETTINGS, ACK) * N),
    "PING": Flood(lambda: ping() * N),
    "answered PING": Flood(lambda: frame(PING, ACK, 0, bytes(8)) * N),
    "GOAWAY": Flood(lambda: frame(GOAWAY, 0, 0, bytes(8)) * N),
    "PRIORITY": Flood(lambda: frame(PRIORITY, 0, 1, bytes(5)) * N),
    "PRIORITY of streams to come": Flood(lambda: b"".join(frame(PRIORITY, 0, id, bytes(5)) for id in ids())),
    "of an unknown type": Flood(lambda: frame(0x42, 0, 1, b"x") * N),
    "of an unknown type and 1,000 bytes": Flood(lambda: frame(0x42, 0, 1, bytes(1000)) * N),
    "DATA without bytes": Flood(lambda: head(1, IGNORES) + data(1) * N),
    "DATA of padding": Flood(lambda: head(1, IGNORES) + frame(DATA, PADDED, 1, b"\xff" + bytes(255)) * N),
    "late DATA": Flood(lambda: head(1, NOTHING) + data(1) * N),
    "DATA of a byte": Flood(lambda: head(1, IGNORES) + data(1, b"\0\0\1\0\0") + data(1, b"x") * N, (None,)),
    "DATA of a byte for a message": Flood(lambda: head(1, ECHO) + data(1, b"\0\0\1\0\0") + data(1, b"x") * N, (None,)),
    "RST_STREAM of a stream that is over": Flood(lambda: head(1, ECHO) + reset(1) * N),
    "WINDOW_UPDATE of 1": Flood(lambda: head(1, WAITS) + update(1, 1) * N),
    "WINDOW_UPDATE of 256": Flood(lambda: with_window(0, HOT, 1, update(1, 256) * N), (None,)),
    "WINDOW_UPDATE of 1 for the connection": Flood(lambda: update(0, 1) * N),
    "WINDOW_UPDATE of 1,024 while 100 streams wait": Flood(
        lambda: with_window(0, HOT, 100, update(0, 1024) * N), (None,)
    ),
    "WINDOW_UPDATE of a stream that is over": Flood(lambda: head(1, NOTHING) + update(1, 1) * N),
    "WINDOW_UPDATE beyond the maximum": Flood(lambda: update(0, MAX_WINDOW) * N, (FLOW_CONTROL_ERROR,)),
    "PUSH_PROMISE": Flood(lambda: frame(PUSH_PROMISE, END_HEADERS, 1, bytes(8)) * N, (PROTOCOL_ERROR,)),
    "that are none": Flood(lambda: b"\xff" * 9 * N, (FRAME_SIZE_ERROR,)),
    "DATA with a tiny message each": Flood(lambda: head(1, READS) + data(1, message(b"")) * N, (None,)),
    "DATA with a tiny message each that nobody reads": Flood(
        lambda: head(1, IGNORES) + data(1, message(b"")) * N, (None,)
    ),
    "DATA with all messages in one": Flood(lambda: head(1, READS) + data(1, message(b"") * N), (None,)),
    "DATA with 10,000 messages where one is wanted": Flood(lambda: head(1, ECHO) + data(1, message(b"") * N), (None,)),
}

FLOODS = {
    **{f"streams {name}": flood for name, flood in RESETS.items()},
    **HEADS,
    **{f"frames {name}": flood for name, flood in FRAMES.items()},
}


# What they cost


class Neighbour:
    """An honest client in a process of its own: see neighbour.py."""

    def __init__(self) -> None:
        file = Path(__file__).with_name("neighbour.py")
        environ = {**os.environ, "GRPC_VERBOSITY": "NONE"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, file], stdin=pipe, stdout=pipe, text=True, env=environ)

    def _say(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    async def begin(self, server: Process) -> None:
        assert await asyncio.to_thread(self._say, str(server.port)) == "begun\n"

    async def end(self) -> dict[str, Any]:
        """What it went through: `slowest`, `gap`, in seconds, and `errors`."""
        return json.loads(await asyncio.to_thread(self._say, ""))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def neighbour() -> Iterator[Neighbour]:
    one = Neighbour()
    yield one
    one.kill()


Start = Callable[..., Process]


@pytest.fixture
def start(project: Callable[[Mapping[str, str]], Path]) -> Iterator[Start]:
    """Starts the routes above in a process of their own: `start("limits: {stall_seconds: 1}")`."""
    processes: list[Process] = []

    def start(config: str = "") -> Process:
        root = project({f"routes/{file}": text for file, text in ROUTES.items()})
        project({"raffel.yaml": f"host: 127.0.0.1\n{config}\n", "tally.py": "running = most = 0\n"})
        processes.append(Process(root))
        return processes[-1]

    yield start
    for one in processes:
        one.kill()


@asynccontextmanager
async def connected(server: Process, **options: Any) -> AsyncIterator[Raw]:
    client = await connect(server.port, **options)
    try:
        yield client
    finally:
        client.sock.close()


async def asks(server: Process, path: str) -> int:
    """A number that the server says of itself."""
    async with connected(server) as client:
        await client.begin()
        await client.send(call(1, path))
        return number_in((await client.answer(1)).messages[0])


async def warmed(server: Process) -> None:
    """Has everything run once that a server runs, so that only what a flood needs is measured."""
    async with connected(server) as client:
        await client.begin()
        for id in ids(300):
            await client.send(call(id, (ECHO, COUNT, READS)[id % 3], number(5) if id % 3 == 1 else b""))
            await client.answer(id)


class Cost:
    """What something cost a server and its neighbour."""

    seconds = 0.0
    growth = 0
    slowest = 0.0
    errors: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"{self.seconds:.2f} s, {self.growth / MIB:.1f} MiB, a neighbour waited {self.slowest * 1000:.0f} ms"


@asynccontextmanager
async def measured(server: Process, neighbour: Neighbour) -> AsyncIterator[Cost]:
    cost = Cost()
    await neighbour.begin(server)
    try:
        async with Peak(server) as peak:
            began = server.seconds()
            yield cost
            cost.seconds = server.seconds() - began
    finally:
        noticed = await neighbour.end()
    cost.growth = peak.growth
    cost.slowest = max(noticed["slowest"], noticed["gap"])
    cost.errors = tuple(noticed["errors"])


async def until_tasks_are(server: Process, count: int) -> None:
    async with asyncio.timeout(10):
        while await asks(server, "/Root/Tasks") > count:
            await asyncio.sleep(0.02)


Attack = Callable[[Raw], Any]


async def bears(server: Process, neighbour: Neighbour, attack: Attack, ends: tuple[int | None, ...]) -> Cost:
    """Sees that an attack costs little: the least of some attempts, for the machine is not ours alone."""
    await warmed(server)
    tasks = await asks(server, "/Root/Tasks")
    costs = []
    for _ in range(ATTEMPTS):
        async with connected(server) as client:
            async with measured(server, neighbour) as cost:
                await client.begin(window=0)
                await attack(client)
            assert (client.goaway and client.goaway[0]) in ends, client.goaway
        await until_tasks_are(server, tasks)
        assert cost.errors == ()
        costs.append(cost)
        if cost.slowest < NOTICED:
            break
    least = Cost()
    least.seconds, least.slowest = min(c.seconds for c in costs), min(c.slowest for c in costs)
    least.growth = max(c.growth for c in costs)
    log.info(repr(least))
    assert least.seconds <= SECONDS
    assert least.growth <= MEMORY
    assert least.slowest <= NOTICED
    assert "Traceback" not in server.said()
    return least


@pytest.mark.parametrize("name", FLOODS)
async def test_ten_thousand_cost_little_and_nobody_else_notices(start, neighbour, name):
    flood = FLOODS[name]
    frames = flood.frames()
    await bears(start(), neighbour, lambda client: client.flood(frames), flood.ends)


async def in_rounds(
    client: Raw, path: str, body: bytes, *more: tuple[bytes, bytes], most: int, at_once: int = 50
) -> int:
    """Calls that stay below the number of streams, each awaited, until they are so many or the server has enough."""
    for first in range(0, most, at_once):
        round = ids(at_once, 2 * first + 1)
        found = block(fields(path, *more))
        try:
            await client.send(*(frame(HEADERS, END_HEADERS, id, found) + data(id, body, end=True) for id in round))
            for id in round:
                await client.answer(id)
        except (Closed, OSError):
            return


@pytest.mark.parametrize("path", [ECHO, READS])
@pytest.mark.parametrize(
    "body",
    [compressed(20 * MIB), b"\0\xff\xff\xff\xff", message(b"no gzip", 1), message(b"\x0a\x05", 0), b"\0"],
    ids=["too large", "4 GiB", "no gzip", "no message", "half a prefix"],
)
async def test_broken_requests_one_after_the_other_cost_no_more(start, neighbour, path, body):
    server = start()
    most = 2000 if len(body) > 10_000 else N // 10
    await warmed(server)
    async with connected(server) as client, measured(server, neighbour) as cost:
        await client.begin()
        await in_rounds(client, path, body, GZIP, most=most)
    log.info(f"{Counter(answer.status for answer in client.answers.values())}: {cost}")
    assert cost.seconds <= SECONDS
    assert cost.growth <= MEMORY
    assert cost.errors == ()


async def test_resets_in_rounds_are_no_cheaper_for_the_client(start, neighbour):
    """It waits for the answer to a ping before it opens more: so the streams have begun."""

    async def attack(client: Raw) -> None:
        await reset_in_rounds(client, IGNORES, b"", reset)

    await bears(start(), neighbour, attack, (ENHANCE_YOUR_CALM,))


async def reset_in_rounds(client: Raw, path: str, body: bytes, make: Callable[[int], bytes]) -> None:
    """Opens 50 streams, sees that they are open, and has them reset, until the server has enough."""
    found = block(fields(path))
    for first in range(0, N, 50):
        round = ids(50, 2 * first + 1)
        try:
            await client.send(*(frame(HEADERS, END_HEADERS, id, found) + body_of(id, body) for id in round))
            await client.synchronise()
            await client.send(*map(make, round))
            await client.synchronise()
        except (Closed, OSError):
            return


def body_of(id: int, body: bytes) -> bytes:
    return data(id, body, end=True) if body else b""


MADE = {
    "a window of 0": lambda id: update(id, 0),
    "too large a window": lambda id: update(id, MAX_WINDOW),
    "DATA after their end": lambda id: data(id, b"x"),
    "PRIORITY without priority": lambda id: frame(PRIORITY, 0, id),
}


@pytest.mark.parametrize("name", MADE)
async def test_made_resets_start_no_more_handlers_than_the_limit_says(start, name):
    """CVE-2025-8671: a reset that the server is made to send frees the place of a stream, not that of its handler."""
    server = start()
    async with connected(server) as client:
        await client.begin()
        await reset_in_rounds(client, WAITS, message(number(5000)), MADE[name])
        assert client.goaway is not None
        assert client.goaway[0] == ENHANCE_YOUR_CALM
    assert 50 <= await asks(server, "/Root/Most") <= 200


# What is sent in no time


@pytest.mark.parametrize("size", [2, 100, 16_000])
async def test_one_that_sends_without_pause_leaves_the_others_their_turn(start, neighbour, size):
    server = start()
    await warmed(server)
    slowest = []
    for _ in range(ATTEMPTS):
        async with connected(server) as client, measured(server, neighbour) as cost:
            await client.begin()
            await client.send(*(head(id, IGNORES) + data(id, b"\0\0\x0f\0\0") for id in ids(20)))
            await client.send(*(data(id, b"x" * size) * (STREAM_BYTES // max(size, 16)) for id in ids(20)))
            await client.synchronise()
        assert client.goaway is None or client.goaway[0] == ENHANCE_YOUR_CALM
        assert cost.errors == ()
        slowest.append(cost.slowest)
        if cost.slowest < NOTICED:
            break
    log.info(f"DATA of {size} bytes: {cost}")
    assert min(slowest) <= NOTICED


async def test_messages_that_inflate_leave_the_others_their_turn(start, neighbour):
    server = start()
    await warmed(server)
    slowest = []
    for _ in range(ATTEMPTS):
        async with connected(server) as client, measured(server, neighbour) as cost:
            await client.begin()
            await client.send(head(1, READS, GZIP), data(1, compressed(MIB - 16) * 200, end=True))
            assert [number_in(one) for one in (await client.answer(1)).messages] == [200]
        slowest.append(cost.slowest)
        if cost.slowest < NOTICED:
            break
    log.info(repr(cost))
    assert min(slowest) <= NOTICED
    assert cost.growth <= 2 * MEMORY  # some messages of a MiB each are under way


@pytest.mark.parametrize("path", [ECHO, READS, HOT])
async def test_a_message_of_4_GiB_is_refused_before_it_is_sent(start, path):
    server = start()
    await warmed(server)
    async with connected(server) as client, Peak(server) as peak:
        await client.begin()
        await client.send(head(1, path), data(1, b"\0\xff\xff\xff\xff"))
        answer = await client.answer(1)
        assert answer.status == RESOURCE_EXHAUSTED
        assert "4294967295 bytes" in answer.trailers["grpc-message"]
        await client.send(call(3, ECHO, blob(b"x")))
        assert (await client.answer(3)).messages == [blob(b"x")]
    assert peak.growth <= MEMORY


@pytest.mark.parametrize("path", [ECHO, READS])
async def test_a_bomb_is_inflated_to_the_limit_and_no_further(start, path):
    server = start()
    await warmed(server)
    async with connected(server) as client, Peak(server) as peak:
        await client.begin()
        await client.send(head(1, path, GZIP), data(1, compressed(100 * MIB), end=True))
        answer = await client.answer(1)
        assert answer.status == RESOURCE_EXHAUSTED
        assert "1048576 bytes" in answer.trailers["grpc-message"]
    assert peak.growth <= MEMORY


@pytest.mark.parametrize("at_once", [True, False], ids=["one frame", "a frame each"])
async def test_ten_thousand_tiny_messages_are_all_read(start, at_once):
    server = start()
    async with connected(server) as client:
        await client.begin()
        messages = data(1, message(b"") * N, end=True) if at_once else data(1, message(b"")) * N + data(1, end=True)
        await client.send(head(1, READS), messages)
        answer = await client.answer(1)
        assert answer.status == OK
        assert [number_in(one) for one in answer.messages] == [N]
        assert client.goaway is None


async def test_ten_thousand_messages_where_one_is_wanted_are_refused_at_the_second(start):
    server = start()
    async with connected(server) as client:
        await client.begin()
        await client.send(head(1, ECHO), data(1, message(b"") * N))
        assert (await client.answer(1)).status == INVALID_ARGUMENT
        await client.synchronise()
        assert client.goaway is None


# Limits


async def test_streams_above_the_limit_are_refused_and_the_others_live(start):
    server = start("limits: {streams_per_connection: 10}")
    async with connected(server) as client:
        await client.begin()
        await client.send(*(head(id, IGNORES) for id in ids(15)))
        await client.synchronise()
        assert {id: answer.reset for id, answer in client.answers.items() if answer.over} == dict.fromkeys(
            ids(5, 21), REFUSED_STREAM
        )
        await client.send(reset(1), call(31, ECHO, blob(b"x")))
        assert (await client.answer(31)).messages == [blob(b"x")]
        assert client.settings[3] == 10  # SETTINGS_MAX_CONCURRENT_STREAMS


async def test_handlers_that_take_their_time_to_end_are_no_more_than_twice_the_limit(start):
    server = start("limits: {streams_per_connection: 10}")
    async with connected(server) as client:
        await client.begin()
        slow = message(number(5000))
        for first in (0, 10):
            round = ids(10, 2 * first + 1)
            await client.send(*(head(id, WAITS) + data(id, slow, end=True) for id in round))
            for id in round:
                await client.messages(id, 1)
            await client.send(*(reset(id) for id in round))
        await client.send(head(41, WAITS) + data(41, slow, end=True))
        answer = await client.answer(41)
        assert answer.status == RESOURCE_EXHAUSTED
        assert "20 handlers" in answer.trailers["grpc-message"]
    assert await asks(server, "/Root/Most") == 20


async def test_once_they_have_ended_there_is_room_again(start):
    server = start("limits: {streams_per_connection: 10}")
    async with connected(server) as client:
        await client.begin()
        for turn in range(10):
            round = ids(10, 20 * turn + 1)
            await client.send(*(head(id, WAITS) + data(id, message(number(1)), end=True) for id in round))
            for id in round:
                await client.messages(id, 1)
            await client.send(*(reset(id) for id in round))
            await until_tasks_are(server, 2)
        assert client.goaway is None
    assert await asks(server, "/Root/Most") == 10


# Slow ones


@pytest.mark.parametrize("begun", [b"", message(b"12345678")[:7]], ids=["no message", "half a message"])
async def test_a_request_that_is_never_complete_ends_with_the_deadline_and_harms_no_other(start, begun):
    server = start("limits: {request_seconds: 0.3}")
    async with connected(server) as client:
        await client.begin()
        await client.send(call(1, "/Root/Ticks"))
        await client.messages(1, 1)
        started = asyncio.get_running_loop().time()
        await client.send(*(head(id, ECHO) + (data(id, begun) if begun else b"") for id in ids(99, 3)))
        for id in ids(99, 3):
            answer = await client.answer(id)
            assert answer.status == 4  # DEADLINE_EXCEEDED
            assert "not complete after 0.3 s" in answer.trailers["grpc-message"]
        assert 0.29 < asyncio.get_running_loop().time() - started < 3
        await client.messages(1, len(client.answers[1].messages) + 10)
        await client.send(call(999, ECHO, blob(b"x")))
        assert (await client.answer(999)).status == OK
        assert client.goaway is None


@pytest.mark.parametrize("path", [READS, IGNORES])
async def test_a_stream_of_items_may_take_its_time(start, path):
    server = start("limits: {request_seconds: 0.1}")
    async with connected(server) as client:
        await client.begin()
        await client.send(head(1, path), data(1, message(b"")))
        await asyncio.sleep(0.4)
        await client.synchronise()
        assert 1 not in client.answers or not client.answers[1].over


BEGUN = {
    "the preface": b"",
    "half a head of a frame": settings({}) + ping()[:5],
    "half a frame": settings({}) + ping()[:-1],
    "half a header block": settings({}) + frame(HEADERS, END_STREAM, 1, block(fields(ECHO))),
    "half a header block and CONTINUATION": settings({}) + frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, b"\x20"),
}


@pytest.mark.parametrize("name", BEGUN)
async def test_one_that_begins_and_falls_silent_is_cut(start, name):
    server = start("limits: {request_seconds: 0.3}")
    async with connected(server) as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BEGUN[name])
        began = asyncio.get_running_loop().time()
        assert await client.rest() == "end"
        assert 0.25 < asyncio.get_running_loop().time() - began < 3
        assert client.goaway == (4, "a frame was not complete in time")  # SETTINGS_TIMEOUT


@pytest.mark.parametrize("begun", [b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"])
async def test_half_a_preface_is_cut_too(start, begun):
    server = start("limits: {request_seconds: 0.3}")
    async with connected(server) as client:
        await client.send(begun)
        assert await client.rest() in ("end", "reset")


async def test_a_frame_that_comes_byte_by_byte_is_cut_when_it_takes_too_long(start):
    server = start("limits: {request_seconds: 0.3}")
    async with connected(server) as client:
        await client.begin()
        await client.synchronise()
        began = asyncio.get_running_loop().time()
        sending = asyncio.create_task(_trickle(client, frame(0x42, 0, 0, bytes(16_000))))
        assert await client.rest() == "end"
        assert asyncio.get_running_loop().time() - began < 3
        await sending


async def _trickle(client: Raw, frames: bytes) -> None:
    try:
        for byte in frames:
            await client.send(bytes((byte,)))
            await asyncio.sleep(0.005)
    except OSError:
        return


async def test_silence_between_frames_is_no_fault(start):
    server = start("limits: {request_seconds: 0.1}")
    async with connected(server) as client:
        await client.begin()
        await client.synchronise()
        await asyncio.sleep(0.4)
        await client.send(call(1, ECHO, blob(b"x")))
        assert (await client.answer(1)).messages == [blob(b"x")]


async def test_one_whose_every_packet_ends_within_a_frame_is_not_cut(start):
    server = start("limits: {request_seconds: 0.2}")
    async with connected(server) as client:
        await client.begin()
        one = data(1, message(blob(b"x" * 1000)))
        await client.send(head(1, READS), one[:5])
        loop = asyncio.get_running_loop()
        count, end = 1, loop.time() + 0.8
        while loop.time() < end:
            await client.send(one[5:] + one[:5])
            count += 1
            await asyncio.sleep(0.005)
        await client.send(one[5:], data(1, end=True))
        assert [number_in(found) for found in (await client.answer(1)).messages] == [count]


# Those that do not read


UNREAD = {
    "calls": b"".join(call(id, ECHO, blob(b"x" * 1000)) for id in ids(5000)),
    "calls of no method": b"".join(head(id, NOTHING, end=True) for id in ids()),
    "requests that are no calls": b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, id, literal(b":method", b"GET") + head(id, "/health")[24:])
        for id in ids()
    ),
    "PING": ping() * N,
    "SETTINGS": settings({}) * N,
    "streams": calls(HOT, asked(), count=100),
}


@pytest.mark.parametrize("name", UNREAD)
async def test_what_a_client_does_not_read_is_not_kept(start, neighbour, name):
    """Its window is endless: only the socket is full."""
    server = start("limits: {stall_seconds: 0.5}")
    await warmed(server)
    tasks = await asks(server, "/Root/Tasks")
    async with connected(server, window=4096, granting=False) as client, measured(server, neighbour) as cost:
        await client.begin()
        sending = asyncio.create_task(_send(client, UNREAD[name]))
        await until_tasks_are(server, tasks + 1)
        await asyncio.wait([sending], timeout=0.3)
        sending.cancel()
        await asyncio.wait([sending])
    log.info(repr(cost))
    assert cost.seconds <= SECONDS
    assert cost.growth <= MEMORY
    assert cost.errors == ()
    await until_tasks_are(server, tasks)


async def _send(client: Raw, frames: bytes) -> None:
    try:
        await client.send(frames)
    except OSError:
        return


@pytest.mark.parametrize("name", ["calls", "streams"])
async def test_one_that_reads_nothing_is_cut_after_the_stall_limit(start, name):
    server = start("limits: {stall_seconds: 0.3}")
    tasks = await asks(server, "/Root/Tasks")
    async with connected(server, window=4096, granting=False) as client:
        await client.begin()
        sending = asyncio.create_task(_send(client, UNREAD[name]))
        async with asyncio.timeout(10):
            while "connection cut: slow_consumer" not in server.said():
                await asyncio.sleep(0.01)
        await asyncio.wait([sending], timeout=5)
        assert sending.done()
    await until_tasks_are(server, tasks)


@pytest.mark.parametrize("path", [ECHO, HOT])
async def test_calls_of_one_that_never_grants_a_window_end_after_the_stall_limit(start, neighbour, path):
    server = start("limits: {stall_seconds: 0.3}")
    await warmed(server)
    tasks = await asks(server, "/Root/Tasks")
    async with connected(server) as client, measured(server, neighbour) as cost:
        await client.begin({INITIAL_WINDOW_SIZE: 0})
        await client.send(*(call(id, path, blob(b"x")) if path == ECHO else call(id, path) for id in ids(100)))
        for id in ids(100):
            answer = await client.answer(id)
            assert (answer.reset, answer.size) == (ENHANCE_YOUR_CALM, 0)
        await client.send(settings({INITIAL_WINDOW_SIZE: 65_535}), call(201, ECHO, blob(b"x")))
        assert (await client.answer(201)).messages == [blob(b"x")]
    assert cost.seconds <= SECONDS
    assert cost.growth <= MEMORY
    assert cost.errors == ()
    await until_tasks_are(server, tasks)


# Honest ones


def unharmed(server: Process) -> bool:
    """Whether the server has found nothing to complain of."""
    return not any(word in server.said() for word in ("closed:", "cut", "reset:", "Traceback", "ENHANCE"))


def h2load(server: Process, path: str, body: bytes, tmp_path: Path, *options: str) -> str:
    program = shutil.which("h2load")
    assert program, "these tests need h2load"
    (tmp_path / "body").write_bytes(body)
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    url = f"http://127.0.0.1:{server.port}{path}"
    command = [program, *options, "-d", str(tmp_path / "body"), *headers, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout


@pytest.mark.parametrize("at_once", [1, 100])
async def test_h2load_at_full_speed_is_never_cut(start, tmp_path, at_once):
    server = start()
    count = 2000 if at_once == 1 else N
    options = ("-c", "2", "-n", str(count), "-m", str(at_once))
    output = await asyncio.to_thread(h2load, server, ECHO, message(blob(b"x" * 100)), tmp_path, *options)
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in output
    assert f"{count} 2xx" in output
    assert unharmed(server)


async def test_long_streams_of_h2load_are_never_cut(start, tmp_path):
    server = start()
    options = ("-c", "2", "-n", "40", "-m", "10")
    output = await asyncio.to_thread(h2load, server, COUNT, message(number(N)), tmp_path, *options)
    assert "40 succeeded, 0 failed, 0 errored, 0 timeout" in output
    assert unharmed(server)


async def test_small_windows_of_h2load_are_never_cut(start, tmp_path):
    """2^14 - 1 bytes for a stream and as many for the connection."""
    server = start()
    options = ("-c", "1", "-n", "20", "-m", "10", "-w", "14", "-W", "14")
    output = await asyncio.to_thread(h2load, server, COUNT, message(number(N)), tmp_path, *options)
    assert "20 succeeded, 0 failed, 0 errored, 0 timeout" in output
    assert unharmed(server)


@asynccontextmanager
async def channel(server: Process) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as one:
        yield one


async def test_thousands_of_unary_calls_of_grpcio_are_never_cut(start):
    server = start()
    async with channel(server) as one:
        echo = one.unary_unary(ECHO)
        await echo(b"")
        for first in range(0, 5000, 1000):  # a thousand at once: ten times what the server takes
            bodies = [blob(b"%d" % n) for n in range(first, first + 1000)]
            assert await asyncio.gather(*(echo(body) for body in bodies)) == bodies
    assert unharmed(server)


async def test_grpcio_that_cancels_every_tenth_call_after_its_first_message_is_never_cut(start):
    server = start()
    async with channel(server) as one:
        hot, count = one.unary_stream(HOT), one.unary_stream(COUNT)

        async def use(n: int) -> None:
            if n % 10:
                assert len([item async for item in count(number(20))]) == 20
                return
            stream = hot(b"")
            async for _ in stream:
                break
            stream.cancel()

        for first in range(0, 3000, 50):
            await asyncio.gather(*map(use, range(first, first + 50)))
    assert unharmed(server)


async def test_one_that_cancels_every_call_after_its_first_message_is_never_cut(start):
    server = start()
    async with connected(server) as client:
        await client.begin()
        for id in ids(3000):
            await client.send(call(id, WAITS))
            await client.messages(id, 1)
            await client.send(reset(id, CANCEL))
            del client.answers[id]
        await client.synchronise()
        assert client.goaway is None
    assert unharmed(server)


async def test_both_directions_of_grpcio_at_full_speed_are_never_cut(start):
    server = start("limits: {request_seconds: 0.5}")
    async with channel(server) as one:
        item, most = blob(b"x" * 4000), 0

        async def items() -> AsyncIterator[bytes]:
            for _ in range(N):
                yield item

        async def down() -> int:
            return len([True async for _ in one.unary_stream(COUNT)(number(10 * N))])

        found = await asyncio.gather(one.stream_unary(READS)(items()), down(), one.stream_unary(READS)(items()))
        most = number_in(found[0])
    assert (most, found[1], number_in(found[2])) == (N, 10 * N, N)
    assert unharmed(server)


async def test_grpcio_that_pings_as_often_as_it_may_is_never_cut(start):
    server = start()
    options = [
        ("grpc.keepalive_time_ms", 10),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as one:
        ticks = one.unary_stream("/Root/Ticks")(b"")
        seen = 0
        async for _ in ticks:
            seen += 1
            if seen == 100:
                break
        ticks.cancel()
    assert unharmed(server)


async def test_one_that_gives_the_window_back_message_by_message_is_never_cut(start):
    """As grpcio does when its application is slower than the server."""
    server = start()
    async with connected(server, granting=False) as client:
        await client.begin({INITIAL_WINDOW_SIZE: 65_535})
        await client.send(call(1, COUNT, number(3 * N)))
        given = 0
        while 1 not in client.answers or not client.answers[1].over:
            await client.receive()
            found = client.answers[1].messages if 1 in client.answers else []
            back = [5 + len(one) for one in found[given:]]
            given = len(found)
            await client.send(*(update(1, size) for size in back), update(0, sum(back)) if back else b"")
        assert client.answers[1].status == OK
        assert given == 3 * N
        await client.synchronise()
        assert client.goaway is None
