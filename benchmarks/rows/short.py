"""Streams opened, read to their end and opened again: what the opening and the ending cost."""

from __future__ import annotations

from benchmarks.client import streams_of
from benchmarks.comparison import Effort, Figures, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import FASTAPI, SIDES, Side

CONNECTIONS = 8
ITEMS = 3


def short(effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        path = side.path("short", n=ITEMS)
        return throughput(streams_of(server, path, CONNECTIONS, effort.warm, effort.measured, ITEMS), "streams")

    title = f"streams of {ITEMS} items, one after another on {CONNECTIONS} kept-alive connections"
    return compare(title, SIDES, measure, (Target(FASTAPI, ">=", 8),), effort, effort.rounds)
