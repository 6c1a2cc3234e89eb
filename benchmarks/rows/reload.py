"""Hot reload among 500 routes: from a save to the first item of the new code on a stream that stays open."""

from __future__ import annotations

import http.client
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from benchmarks.comparison import Effort, Figures, Result, Target
from benchmarks.servers import CannotRun, Server, serve
from benchmarks.sides import RAFFEL

ROUTES = 500
EDITS = 20
PATIENCE = 10.0  # seconds for an edit to arrive

SOURCE = '''"""A stream that says which edit it is."""

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct


class Query(Struct):
    every: float = 0.001


class Item(Struct):
    edit: int
    seq: int


meta = {{"description": "edit {edit}"}}


async def handler(input: Query) -> AsyncIterator[Item]:
    seq = 0
    while True:
        yield Item({edit}, seq)
        seq += 1
        await asyncio.sleep(input.every)
'''


def reload(effort: Effort) -> Result:
    title = f"from save to the first item of new code, {ROUTES} routes, {EDITS} edits a round"
    figures: list[Figures] = []
    missing = {}
    for _ in range(effort.slow_rounds):
        try:
            figures.append(_round())
        except CannotRun as error:
            missing[RAFFEL.name] = str(error)
            break
    return Result(title, {} if missing else {RAFFEL.name: figures}, missing, (Target(None, "<=", 100),))


def _round() -> Figures:
    with tempfile.TemporaryDirectory() as root:
        routes = Path(root, "routes")
        for number in range(ROUTES):
            folder = routes / f"group{number % 25}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"route{number}.stream.py").write_text(SOURCE.format(edit=0))
        options = ("--host", "127.0.0.1", "--port", "0")
        with serve((sys.executable, "-m", "raffel_cli", "dev", str(routes), *options)) as server:
            return _edited(server, routes)


def _edited(server: Server, routes: Path) -> Figures:
    """Saves the routes of open streams, one after the other; each stream goes on with the new code."""
    taken = []
    time.sleep(1)  # the watch of the folders begins when the server is ready, and takes its time
    for edit in range(1, EDITS + 1):
        file = routes / f"group{edit % 25}" / f"route{edit}.stream.py"
        connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
        try:
            connection.request(
                "GET", f"/streams/group{edit % 25}/route{edit}", headers={"Accept": "application/x-ndjson"}
            )
            answer = connection.getresponse()
            answer.readline()
            file.write_text(SOURCE.format(edit=edit))
            saved = time.monotonic()
            wanted = b'{"edit":%d,' % edit
            while not answer.readline().startswith(wanted):
                if time.monotonic() - saved > PATIENCE:
                    raise CannotRun(f"edit {edit} did not arrive within {PATIENCE:g} s")
            taken.append(1000 * (time.monotonic() - saved))
        except OSError as error:
            raise CannotRun(f"edit {edit}: {error}") from error
        finally:
            connection.close()
    return {"p95 ms": quantiles(taken, n=20)[-1], "p50 ms": quantiles(taken, n=2)[0], "max ms": max(taken)}
