"""One connection and a generator that never waits: what an item costs when nothing else does."""

from __future__ import annotations

from benchmarks.client import items_of
from benchmarks.comparison import Effort, Figures, Measure, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import FASTAPI, LIMIT, RAFFEL, SIDES, Side

BRACES_OF_BOOK = 4  # the item, its quote and two levels


def hot(effort: Effort) -> Result:
    targets = (Target(LIMIT, ">=", 0.8), Target(FASTAPI, ">=", 60))
    title = "one connection, the generator never waits, flat items"
    return compare(title, SIDES, _reading("hot", effort), targets, effort, effort.rounds)


def nested(effort: Effort) -> Result:
    title = "the same with items that hold a Struct and a list of Structs"
    targets = (Target(LIMIT, ">=", 0.6),)
    measure = _reading("nested", effort, BRACES_OF_BOOK)
    return compare(title, (LIMIT, RAFFEL), measure, targets, effort, effort.rounds)


def unchecked(effort: Effort) -> Result:
    trusting, checking = _reading("unchecked", effort), _reading("hot", effort)

    def measure(server: Server, side: Side) -> Figures:
        return (trusting if side is RAFFEL else checking)(server, side)

    title = 'the items of hot where the route says meta["check_output"] = False'
    return compare(title, (LIMIT, RAFFEL), measure, (Target(LIMIT, ">=", 1.0),), effort, effort.rounds)


def _reading(stream: str, effort: Effort, braces: int = 1) -> Measure:
    def measure(server: Server, side: Side) -> Figures:
        return throughput(items_of(server, side.path(stream), 1, effort.warm, effort.measured, braces), "items")

    return measure
