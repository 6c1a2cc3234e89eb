"""Drives load.c: the load, and what it saw."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import cores
from benchmarks.servers import CannotRun, Server
from benchmarks.sides import Opening

SOURCE = Path(__file__).with_name("load.c")
PROGRAM = Path(__file__).parent / ".build" / "load"


class Load(msgspec.Struct):
    """What one measurement saw. `items` are whole streams where whole streams were counted."""

    items: int
    slowest: int  # items of the connection that got fewest
    fastest: int
    seconds: float
    cpu: float  # seconds that the server computed
    wait: float  # seconds that it was ready to and another process had its core
    client: float  # seconds that the client computed

    @property
    def per_cpu_second(self) -> float:
        return self.items / self.cpu


class FirstItem(msgspec.Struct):
    """Seconds from connecting to the first item."""

    p50: float
    p95: float


def compile_load() -> None:
    """Makes the program where it is missing or older than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise CannotRun("no C compiler found; the load client needs gcc or cc")
    PROGRAM.parent.mkdir(exist_ok=True)
    command = [compiler, "-O3", "-march=native", "-std=gnu11", "-Wall", "-Wextra", "-o", str(PROGRAM), str(SOURCE)]
    if subprocess.run(command).returncode:
        raise CannotRun(f"{SOURCE.name} does not compile")


def items_of(server: Server, opening: Opening, connections: int, warm: float, measured: float, braces: int = 1) -> Load:
    """Reads streams that never end. An item is a message, over HTTP that many closing braces."""
    load = _load("stream", server, opening, connections, _ms(warm), _ms(measured), braces, server.session)
    return _answered(msgspec.json.decode(load, type=Load))


def streams_of(
    server: Server, opening: Opening, connections: int, warm: float, measured: float, items: int, at_once: int = 1
) -> Load:
    """Opens stream after stream on connections that stay, so many at once on each, and insists on that many items.

    Over HTTP there is one at a time.
    """
    load = _load("short", server, opening, connections, at_once, _ms(warm), _ms(measured), items, server.session)
    return _answered(msgspec.json.decode(load, type=Load))


def upload_to(server: Server, opening: Opening, item: str, end: str, items: int, warm: int) -> Load:
    """Sends an item that many times up a client stream as fast as it is read, and insists that all were counted.

    What is measured is from the start of the stream to its result; a shorter one comes before it.
    """
    return msgspec.json.decode(_load("up", server, opening, warm, items, item, end, server.session), type=Load)


def first_item_of(server: Server, opening: Opening, samples: int, gap: float) -> FirstItem:
    """Opens one connection after another, each as far as its first item."""
    return msgspec.json.decode(_load("first", server, opening, samples, _ms(gap)), type=FirstItem)


@contextmanager
def holding(server: Server, opening: Opening, streams: int, spread: float = 0.0) -> Iterator[None]:
    """That many open streams that have sent an item, a connection each. `spread` is the seconds of their opening."""
    process = subprocess.Popen(
        _command("hold", server, opening, streams, _ms(spread)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=cores.pin(cores.CLIENT),
    )
    with process:
        try:
            assert process.stdout and process.stderr
            if process.stdout.readline() != b"ready\n":  # its own alarm bounds the wait
                raise CannotRun(process.stderr.read().decode().strip() or "the load client ended early")
            yield
            if process.poll() is not None:
                raise CannotRun(process.stderr.read().decode().strip() or "the load client ended early")
        finally:
            process.kill()


def _load(mode: str, server: Server, opening: Opening, *arguments: object) -> bytes:
    # Its own alarm bounds the run.
    command = _command(mode, server, opening, *arguments)
    done = subprocess.run(command, capture_output=True, preexec_fn=cores.pin(cores.CLIENT))
    if done.returncode:
        raise CannotRun(done.stderr.decode().strip() or f"the load client ended with status {done.returncode}")
    return done.stdout


def _command(mode: str, server: Server, opening: Opening, *arguments: object) -> list[str]:
    asked = (opening.transport, server.host, str(server.port), opening.path, opening.message)
    return [str(PROGRAM), mode, *asked, *map(str, arguments)]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _answered(load: Load) -> Load:
    if not load.items:
        raise CannotRun("no item came within the measured time")
    return load
