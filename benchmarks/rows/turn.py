"""Fifty connections, and a turn of the loop after each item: nothing to join, the turn itself is the cost."""

from __future__ import annotations

from benchmarks.client import items_of
from benchmarks.comparison import Effort, Figures, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import FASTAPI, LIMIT, SIDES, Side

CONNECTIONS = 50


def turn(effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        return throughput(items_of(server, side.path("turn"), CONNECTIONS, effort.warm, effort.measured), "items")

    targets = (Target(LIMIT, ">=", 0.85), Target(FASTAPI, ">=", 5))
    title = f"{CONNECTIONS} connections, one item a turn of the loop"
    return compare(title, SIDES, measure, targets, effort, effort.rounds)
