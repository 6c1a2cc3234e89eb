"""Before anything is timed: every side answers every stream with the same items."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from benchmarks.servers import CannotRun, Server, serve
from benchmarks.sides import LIMIT, RAFFEL, Side

PATIENCE = 5


def _tick(seq: int) -> dict[str, Any]:
    return {"seq": seq, "symbol": "ACME", "price": 101.25, "ts": 1712345678.123}


def _book(seq: int) -> dict[str, Any]:
    levels = [{"price": 101.0, "size": 10}, {"price": 100.75, "size": 20}]
    return {"seq": seq, "symbol": "ACME", "last": {"price": 101.25, "size": 5}, "levels": levels}


class Expected(NamedTuple):
    stream: str
    query: dict[str, float]
    item: Callable[[int], dict[str, Any]]
    count: int
    ends: bool = False
    only: frozenset[Side] | None = None


# The streams that never wait are last: some peers never notice that their reader has gone, and answer nothing else.
EXPECTED = (
    Expected("short", {"n": 3}, _tick, 3, ends=True),
    Expected("slow", {"pause": 0.01}, _tick, 3),
    Expected("idle", {}, _tick, 1),
    Expected("turn", {}, _tick, 3),
    Expected("nested", {}, _book, 3, only=frozenset({LIMIT, RAFFEL})),
    Expected("unchecked", {}, _tick, 3, only=frozenset({RAFFEL})),
    Expected("hot", {}, _tick, 3),
)


@cache
def trouble(side: Side) -> str | None:
    """Why the side cannot be compared: it does not start, or sends other items than it should. None: it can."""
    try:
        with serve(side.command) as server:
            for expected in EXPECTED:
                if expected.only is None or side in expected.only:
                    _verify_stream(server, side, expected)
    except CannotRun as error:
        return str(error)
    return None


def _verify_stream(server: Server, side: Side, expected: Expected) -> None:
    path = side.path(expected.stream, **expected.query)
    wanted = [expected.item(seq) for seq in range(expected.count)]
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise CannotRun(f"GET {path}: found status {answer.status}, expected 200: {answer.read(200)!r}")
        items = _items(answer)
        found = list(items) if expected.ends else [next(items, None) for _ in wanted]
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CannotRun(f"GET {path}: {error!r}") from error
    finally:
        connection.close()
    if found != wanted:
        raise CannotRun(f"GET {path}: found the items {found}, expected {wanted}")


def _items(answer: http.client.HTTPResponse) -> Iterator[Any]:
    """The data of the default events; a named one (Raffel's `end`) is no item."""
    named = False
    while line := answer.readline():
        field, _, value = line.strip().partition(b": ")
        if field == b"event":
            named = True
        elif field == b"data" and not named:
            yield json.loads(value)
        elif not field:
            named = False
