"""From connecting to the first item, while a thousand slow streams are open."""

from __future__ import annotations

from benchmarks.client import first_item_of, holding
from benchmarks.comparison import Effort, Figures, Result, Target, compare
from benchmarks.servers import Server
from benchmarks.sides import AIOHTTP, SIDES, Side

PAUSE = 1.0  # seconds between two items of a slow stream, and over which they are opened, so that they do not agree
GAP = 0.002  # seconds between two probes


def latency(effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        opening = side.opening("slow", pause=PAUSE)
        with holding(server, opening, effort.open, spread=PAUSE):
            first = first_item_of(server, opening, effort.probes, GAP)
        return {"p50 us": first.p50 * 1e6, "p95 us": first.p95 * 1e6}

    title = f"time to the first item of a new connection, {effort.open:,} streams of an item a second beside it"
    return compare(title, SIDES, measure, (Target(AIOHTTP, "<=", 1.5),), effort, effort.slow_rounds)
