"""Drives h2load, the load client of gRPC: calls of one method on one connection, and whether all were answered."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from math import ceil
from typing import NamedTuple

from benchmarks import cores
from benchmarks.client import Load
from benchmarks.servers import CannotRun, Server

PATIENCE = 60  # seconds for a run
FEWEST = 1000  # items of the first one
GROWTH = 4  # at most, from run to run while the server becomes warm
MARGIN = 1.3  # a server is faster in the next run than in the one from which that is reckoned
WINDOWS = ("-w", "30", "-W", "30")  # bits: never the reason for a wait
HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s),")
SUCCEEDED = re.compile(r"(\d+) succeeded")
STATUS_2XX = re.compile(r"(\d+) 2xx")
DATA = re.compile(r"\((\d+)\) data")


class Call(NamedTuple):
    """h2load reads no message of the answer, but counts its bytes."""

    path: str
    body: bytes  # messages behind their prefixes
    answer: int  # bytes of the messages that answer it, behind their prefixes
    items: int  # that it counts for


class Calls(NamedTuple):
    """One after another, or so many at once, of any length up to the longest."""

    call: Callable[[int], Call]  # with that many items
    longest: int  # items of one call: few calls of many items cost little beside these
    at_once: int = 1


def items_of(server: Server, calls: Calls, warm: float, measured: float) -> Load:
    """Calls with as many items as the server has in that time, reckoned from what it had while it became warm.

    Each run has a connection of its own.
    """
    items = FEWEST
    while (load := _run(server, calls, items)).seconds < warm:
        items = ceil(load.items * min(GROWTH, MARGIN * warm / load.seconds))
    return _run(server, calls, ceil(MARGIN * measured * load.items / load.seconds))


def _run(server: Server, calls: Calls, items: int) -> Load:
    """At least that many items."""
    call = calls.call(min(items, calls.longest))
    count = max(ceil(items / call.items), calls.at_once)
    with tempfile.NamedTemporaryFile() as body:
        body.write(call.body)
        body.flush()
        options = ("-c", "1", "-m", str(calls.at_once), "-n", str(count), "-d", body.name, *WINDOWS, *HEADERS)
        before, own = server.times(), _own_cpu()
        output = _h2load(*options, f"http://{server.host}:{server.port}{call.path}")
        after = server.times()
    _check(output, call, count)
    found = FINISHED.search(output)
    assert found  # it succeeded
    done = count * call.items
    seconds = float(found[1]) * UNITS[found[2]]
    return Load(done, done, done, seconds, after.cpu - before.cpu, after.wait - before.wait, _own_cpu() - own)


def _h2load(*arguments: str) -> str:
    program = shutil.which("h2load")
    if not program:
        raise CannotRun("no h2load found; Debian has it in the package nghttp2-client")
    pin = cores.pin(cores.CLIENT)
    try:
        done = subprocess.run((program, *arguments), capture_output=True, text=True, timeout=PATIENCE, preexec_fn=pin)
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"h2load was not answered within {PATIENCE} s") from error
    if done.returncode:
        raise CannotRun(done.stderr.strip() or f"h2load ended with status {done.returncode}")
    return done.stdout


def _check(output: str, call: Call, count: int) -> None:
    found = tuple(_number(pattern, output) for pattern in (SUCCEEDED, STATUS_2XX, DATA))
    wanted = (count, count, count * call.answer)
    if found != wanted:
        what = "{} succeeded, {} with a status 2xx, {} bytes of messages".format
        raise CannotRun(f"{call.path}: found {what(*found)}; expected {what(*wanted)}")


def _number(pattern: re.Pattern[str], output: str) -> int:
    found = pattern.search(output)
    return int(found[1]) if found else 0


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
