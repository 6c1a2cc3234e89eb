"""Rounds of all sides in turn: what is measured together is compared within its round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from benchmarks.client import Load
from benchmarks.servers import CannotRun, Server, serve
from benchmarks.sides import LIMIT, RAFFEL, Side
from benchmarks.verify import trouble

Figures = dict[str, float]
"""What one measurement gave, by the heading of its column; ratios are made of the first."""

Measure = Callable[[Server, Side], Figures]


class Effort(NamedTuple):
    """How much is done."""

    rounds: int  # of rows that take a second a side
    slow_rounds: int  # of rows that take several
    warm: float  # seconds before the measured ones
    measured: float
    idle: int  # streams whose memory is measured
    open: int  # slow streams under which latency is measured
    probes: int  # latencies taken
    up: int  # items up a client stream
    every_side: bool  # or only the limit and those that a target names


class Target(NamedTuple):
    """What Raffel is to reach: so much of another side, or where `against` is None a figure of its own."""

    against: Side | None
    bound: Literal[">=", "<="]
    value: float

    def met(self, found: float) -> bool:
        return found >= self.value if self.bound == ">=" else found <= self.value


class Result(NamedTuple):
    """One row: for every side that could run, the figures of each round."""

    title: str
    figures: dict[str, list[Figures]]
    missing: dict[str, str]  # side: why
    targets: tuple[Target, ...]


def compare(
    title: str, sides: Iterable[Side], measure: Measure, targets: tuple[Target, ...], effort: Effort, rounds: int
) -> Result:
    """Measures every side once a round, on a fresh server each time; a side that fails once is left out, and said."""
    named = {LIMIT.name, RAFFEL.name, *(target.against.name for target in targets if target.against)}
    running = [side for side in sides if effort.every_side or side.name in named]
    missing = {side.name: why for side in running if (why := trouble(side))}
    figures: dict[str, list[Figures]] = {side.name: [] for side in running}
    for round_ in range(rounds):
        for side in _rotated(running, round_):
            if side.name not in missing:
                try:
                    figures[side.name].append(_measured(side, measure))
                except CannotRun as error:
                    missing[side.name] = str(error)
    return Result(title, {name: found for name, found in figures.items() if name not in missing}, missing, targets)


def throughput(load: Load, unit: str) -> Figures:
    return {
        f"{unit}/cpu-s": load.per_cpu_second,
        f"{unit}/s": load.items / load.seconds,
        "waited %": 100 * load.wait / (load.cpu + load.wait),
    }


def _measured(side: Side, measure: Measure) -> Figures:
    with serve(side.command) as server:
        return measure(server, side)


def _rotated(sides: list[Side], by: int) -> list[Side]:
    """No side always follows the same one, or always comes when the machine has cooled."""
    by %= len(sides)
    return sides[by:] + sides[:by]
