"""The rows of the report, each a function in a module of its own; their order is that of the run."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.comparison import Effort, Result
from benchmarks.rows.fairness import fairness
from benchmarks.rows.hot import hot, nested, unchecked
from benchmarks.rows.idle import idle
from benchmarks.rows.latency import latency
from benchmarks.rows.reload import reload
from benchmarks.rows.short import short
from benchmarks.rows.turn import turn

ROWS: dict[str, Callable[[Effort], Result]] = {
    "hot": hot,
    "hot-nested": nested,
    "hot-unchecked": unchecked,
    "turn": turn,
    "short": short,
    "idle": idle,
    "latency": latency,
    "fairness": fairness,
    "reload": reload,
}
