"""Before anything is timed: every side answers every stream with the same items, and counts the same ones."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from contextlib import closing
from functools import cache
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from websockets.exceptions import WebSocketException

from benchmarks import grpcio, slowly
from benchmarks.servers import CannotRun, Server, serve
from benchmarks.sides import Side
from benchmarks.ticks import query, sum_, tick


def _tick(seq: int) -> dict[str, Any]:
    return {"seq": seq, "symbol": "ACME", "price": 101.25, "ts": 1712345678.123}


def _book(seq: int) -> dict[str, Any]:
    levels = [{"price": 101.0, "size": 10}, {"price": 100.75, "size": 20}]
    return {"seq": seq, "symbol": "ACME", "last": {"price": 101.25, "size": 5}, "levels": levels}


class Expected(NamedTuple):
    stream: str
    input: dict[str, float]
    item: Callable[[int], dict[str, Any]]
    items: int
    ends: bool = False


# The streams that never wait are last: some peers never notice that their reader has gone, and answer nothing else.
EXPECTED = (
    Expected("short", {"n": 3}, _tick, 3, ends=True),
    Expected("slow", {"pause": 0.01}, _tick, 3),
    Expected("idle", {}, _tick, 1),
    Expected("turn", {}, _tick, 3),
    Expected("nested", {}, _book, 3),
    Expected("unchecked", {}, _tick, 3),
    Expected("hot", {}, _tick, 3),
)
UPLOADED = [_tick(seq) for seq in (1, 2, 4)]
SUM = {"count": 3, "total": 7}


class Answered(NamedTuple):
    stream: str
    path: str
    messages: list[bytes]
    answers: list[bytes]


SENT = [tick(seq) for seq in (1, 2, 4)]
ANSWERED = (
    Answered("unary", "/Ticks/Unary", [tick(300)], [tick(300)]),
    Answered("server", "/Ticks/Server", [query(200)], [tick(seq) for seq in range(1, 201)]),
    Answered("client", "/Ticks/Client", SENT, [sum_(3, 7)]),
    Answered("bidi", "/Ticks/Bidi", SENT, SENT),
)


@cache
def trouble(side: Side) -> str | None:
    """Why the side cannot be compared: it does not start, or sends other items than it should. None: it can."""
    try:
        with serve(side.command) as server:
            if "up" in side.streams:
                _verify(side, "up", lambda: slowly.upload_to(server, side, UPLOADED), SUM)
            for call in ANSWERED:
                if call.stream in side.streams:
                    _verify_call(server, call)
            for expected in EXPECTED:
                if expected.stream in side.streams:
                    _verify_stream(server, side, expected)
    except CannotRun as error:
        return str(error)
    return None


def _verify_stream(server: Server, side: Side, expected: Expected) -> None:
    def read() -> list[Any]:
        with closing(slowly.items_of(server, side, side.opening(expected.stream, **expected.input))) as items:
            return list(items if expected.ends else islice(items, expected.items))

    _verify(side, expected.stream, read, [expected.item(seq) for seq in range(expected.items)])


def _verify_call(server: Server, call: Answered) -> None:
    """The first message that is another is enough to be told of."""
    try:
        answers = grpcio.answers_of(server, call.path, *call.messages)
    except CannotRun as error:
        raise CannotRun(f"{call.path}: {error}") from error
    for number, (found, wanted) in enumerate(zip_longest(answers, call.answers), start=1):
        if found != wanted:
            shown = [message.hex() if message else "none" for message in (found, wanted)]
            raise CannotRun(f"{call.path}, message {number}: found {shown[0]}, expected {shown[1]}")


def _verify(side: Side, stream: str, ask: Callable[[], Any], wanted: Any) -> None:
    asked = f"{stream} over {side.transport}"
    try:
        found = ask()
    except CannotRun as error:
        raise CannotRun(f"{asked}: {error}") from error
    except (OSError, http.client.HTTPException, WebSocketException, ValueError) as error:
        raise CannotRun(f"{asked}: {error!r}") from error
    if found != wanted:
        raise CannotRun(f"{asked}: found {found}, expected {wanted}")
