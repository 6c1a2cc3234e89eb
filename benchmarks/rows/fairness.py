"""Fifty generators that never wait on one loop: what the slowest connection gets of what the fastest does."""

from __future__ import annotations

from benchmarks.client import items_of
from benchmarks.comparison import Effort, Figures, Result, Target, compare
from benchmarks.servers import Server
from benchmarks.sides import SIDES, Side

CONNECTIONS = 50
WARM = 0.5  # seconds: until the kernel has grown the buffers of all of them
WATCHED = 2.0


def fairness(effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        load = items_of(server, side.opening("hot"), CONNECTIONS, WARM, WATCHED)
        return {"slowest/fastest": load.slowest / load.fastest, "items/s": load.items / load.seconds}

    title = f"{CONNECTIONS} connections on generators that never wait, over {WATCHED:g} s"
    return compare(title, SIDES, measure, (Target(None, ">=", 0.5),), effort, effort.slow_rounds)
