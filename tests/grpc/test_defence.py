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
NOTICED = 0.1
"""Seconds that a neighbour may be kept waiting."""
ATTEMPTS = 3
MIB = 1024 * 1024

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
    """Frames, and the error for which their connection ends; None: it goes on."""

    frames: Callable[[], bytes]
    ends: int | None = ENHANCE_YOUR_CALM


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
    for id in ids(count, 3):
        found.append(frame(HEADERS, END_HEADERS | END_STREAM, id, common + make(id)))
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
    "that are made reset by a wrong length": Flood(
        lambda: calls(ECHO, short_of_its_length, (b"content-length", b"6"))
    ),
    "that are made reset by more than their length": Flood(
        lambda: calls(READS, asked(), (b"content-length", b"3"))
    ),
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
    "that inflate to 20 MiB": Flood(
        lambda: calls(ECHO, lambda id, bomb=compressed(20 * MIB): data(id, bomb, end=True), GZIP, count=1000)  # type: ignore[misc]  # made once
    ),
    "that inflate to 20 MiB for a handler": Flood(
        lambda: calls(READS, lambda id, bomb=compressed(20 * MIB): data(id, bomb, end=True), GZIP, count=1000)  # type: ignore[misc]  # made once
    ),
}
"""Streams."""

HEADS = {
    "CONTINUATION without bytes": Flood(lambda: head(1, ECHO)[:4] + b"\0" + head(1, ECHO)[5:] + frame(CONTINUATION, 0, 1) * N),
    "CONTINUATION of a byte": Flood(lambda: frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, b"\x20") * N),
    "CONTINUATION of 1,000 bytes": Flood(lambda: frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, b"\x20" * 1000) * N),
    "CONTINUATION that ends each block": Flood(
        lambda: b"".join(
            frame(HEADERS, END_STREAM, id) + frame(CONTINUATION, END_HEADERS, id, block(fields(WAITS))) for id in ids()
        )
    ),
    "headers of 15 KB that all differ": Flood(
        lambda: distinct_heads(lambda id: literal(b"b", b"%015000d" % id), count=1000)
    ),
    "headers of 470 fields that all differ": Flood(lambda: distinct_heads(lambda id: b"\xbe" * 470 + numbered(id))),
    "headers of more than 16 KiB in 800 bytes": Flood(lambda: distinct_heads(lambda id: b"\xbe" * 800)),
    "headers that only change the size of the table": Flood(
        lambda: b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, id, b"\x20" * 1000 + block(fields(ECHO))) for id in ids()
        )
    ),
    "headers that always enter the table": Flood(
        lambda: distinct_heads(lambda id: b"".join(literal(b"%d" % n, b"%d" % id, indexed=True) for n in range(100)))
    ),
    "headers with a number of 1,000 bytes": Flood(
        lambda: distinct_heads(lambda id: b"\xff" + b"\xff" * 1000), 9
    ),
    "late headers of 450 fields": Flood(lambda: late_heads(lambda n: b"\xbe" * 450 + numbered(n))),
    "late headers of no field": Flood(lambda: late_heads(lambda n: b"")),
}

FRAMES = {
    "SETTINGS": Flood(lambda: settings({}) * N),
    "SETTINGS of 2,730 values": Flood(lambda: frame(SETTINGS, 0, 0, struct.pack("!HI", INITIAL_WINDOW_SIZE, 5) * 2730) * 1000),
    "SETTINGS that nobody knows": Flood(lambda: settings({99: 1}) * N),
    "SETTINGS that change 100 windows": Flood(
        lambda: calls(HOT, asked(), count=100) + settings({INITIAL_WINDOW_SIZE: 0}) + settings({INITIAL_WINDOW_SIZE: 1}) * N
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
    "DATA of a byte": Flood(lambda: head(1, IGNORES) + data(1, b"\0\0\1\0\0") + data(1, b"x") * N, None),
    "DATA of a byte for a message": Flood(lambda: head(1, ECHO) + data(1, b"\0\0\1\0\0") + data(1, b"x") * N, None),
    "RST_STREAM of a stream that is over": Flood(lambda: head(1, ECHO) + reset(1) * N),
    "WINDOW_UPDATE of 1": Flood(lambda: head(1, WAITS) + update(1, 1) * N),
    "WINDOW_UPDATE of 256": Flood(lambda: with_window(0, HOT, 1, update(1, 256) * N), None),
    "WINDOW_UPDATE of 1 for the connection": Flood(lambda: update(0, 1) * N),
    "WINDOW_UPDATE of 1,024 while 100 streams wait": Flood(lambda: with_window(0, HOT, 100, update(0, 1024) * N), None),
    "WINDOW_UPDATE of a stream that is over": Flood(lambda: head(1, NOTHING) + update(1, 1) * N),
    "WINDOW_UPDATE beyond the maximum": Flood(lambda: update(0, MAX_WINDOW) * N, FLOW_CONTROL_ERROR),
    "PUSH_PROMISE": Flood(lambda: frame(PUSH_PROMISE, END_HEADERS, 1, bytes(8)) * N, PROTOCOL_ERROR),
    "that are none": Flood(lambda: b"\xff" * 9 * N, FRAME_SIZE_ERROR),
    "DATA with a tiny message each": Flood(lambda: head(1, READS) + data(1, message(b"")) * N, None),
    "DATA with a tiny message each that nobody reads": Flood(lambda: head(1, IGNORES) + data(1, message(b"")) * N, None),
    "DATA with all messages in one": Flood(lambda: head(1, READS) + data(1, message(b"") * N), None),
    "DATA with 10,000 messages where one is wanted": Flood(lambda: head(1, ECHO) + data(1, message(b"") * N), None),
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


async def bears(server: Process, neighbour: Neighbour, attack: Attack, ends: int | None) -> Cost:
    """Sees that an attack costs little: the least of some attempts, for the machine is not ours alone."""
    await warmed(server)
    tasks = await asks(server, "/Root/Tasks")
    costs = []
    for _ in range(ATTEMPTS):
        async with connected(server) as client:
            async with measured(server, neighbour) as cost:
                await client.begin(window=0)
                await attack(client)
            assert (client.goaway and client.goaway[0]) == ends, client.goaway
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
