"""Thousands of streams that have sent one item and are silent: the memory that each one keeps."""

from __future__ import annotations

import time

from benchmarks.client import holding
from benchmarks.comparison import Effort, Figures, Result, Target, compare
from benchmarks.servers import Server
from benchmarks.sides import SIDES, WS_SIDES, Side

FIRST = 8  # streams before the count starts: what is imported and cached on first use is no stream's own
SETTLED = 0.3  # seconds


def idle(effort: Effort) -> Result:
    title = f"memory of an open stream that is silent, {effort.idle:,} of them"
    return _idle(title, SIDES, 16, effort)


def ws_idle(effort: Effort) -> Result:
    title = f"memory of a WebSocket with an open stream that is silent, {effort.idle:,} of them"
    return _idle(title, WS_SIDES, 22, effort)


def _idle(title: str, sides: tuple[Side, ...], kib: float, effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        opening = side.opening("idle")
        with holding(server, opening, FIRST):
            pass
        time.sleep(SETTLED)
        before = server.resident_bytes()
        with holding(server, opening, effort.idle):
            time.sleep(SETTLED)
            grown = server.resident_bytes() - before
        return {"KiB a stream": grown / effort.idle / 1024, "MiB at rest": before / 2**20}

    return compare(title, sides, measure, (Target(None, "<=", kib),), effort, rounds=1)
