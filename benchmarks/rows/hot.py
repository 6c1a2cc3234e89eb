"""One connection and a generator that never waits: what an item costs when nothing else does."""

from __future__ import annotations

from benchmarks.client import items_of
from benchmarks.comparison import Effort, Figures, Measure, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import (
    FASTAPI,
    FASTAPI_WS,
    LIMIT,
    LIMIT_TCP,
    LIMIT_WS,
    RAFFEL,
    RAFFEL_TCP,
    RAFFEL_WS,
    SIDES,
    TCP_SIDES,
    WS_SIDES,
    Side,
)

FLAT = "the generator never waits, flat items"
BRACES_OF_BOOK = 4  # the item, its quote and two levels


def hot(effort: Effort) -> Result:
    targets = (Target(LIMIT, ">=", 0.8), Target(FASTAPI, ">=", 60))
    return compare(f"one connection, {FLAT}", SIDES, _reading("hot", effort), targets, effort, effort.rounds)


def nested(effort: Effort) -> Result:
    return _nested("", (LIMIT, RAFFEL), effort)


def unchecked(effort: Effort) -> Result:
    trusting, checking = _reading("unchecked", effort), _reading("hot", effort)

    def measure(server: Server, side: Side) -> Figures:
        return (trusting if side is RAFFEL else checking)(server, side)

    title = 'the items of hot where the route says meta["check_output"] = False'
    return compare(title, (LIMIT, RAFFEL), measure, (Target(LIMIT, ">=", 1.0),), effort, effort.rounds)


def ws_hot(effort: Effort) -> Result:
    targets = (Target(LIMIT_WS, ">=", 0.8), Target(FASTAPI_WS, ">=", 5))
    title = f"WebSocket, one connection with one stream, {FLAT}"
    return compare(title, WS_SIDES, _reading("hot", effort), targets, effort, effort.rounds)


def ws_nested(effort: Effort) -> Result:
    return _nested("WebSocket, ", (LIMIT_WS, RAFFEL_WS), effort)


def tcp_hot(effort: Effort) -> Result:
    title = f"TCP, one connection with one stream, {FLAT}"
    targets = (Target(LIMIT_TCP, ">=", 0.8),)
    return compare(title, TCP_SIDES, _reading("hot", effort), targets, effort, effort.rounds)


def tcp_nested(effort: Effort) -> Result:
    return _nested("TCP, ", (LIMIT_TCP, RAFFEL_TCP), effort)


def _nested(over: str, sides: tuple[Side, Side], effort: Effort) -> Result:
    title = f"{over}the same with items that hold a Struct and a list of Structs"
    targets = (Target(sides[0], ">=", 0.6),)
    return compare(title, sides, _reading("nested", effort, BRACES_OF_BOOK), targets, effort, effort.rounds)


def _reading(stream: str, effort: Effort, braces: int = 1) -> Measure:
    def measure(server: Server, side: Side) -> Figures:
        return throughput(items_of(server, side.opening(stream), 1, effort.warm, effort.measured, braces), "items")

    return measure
