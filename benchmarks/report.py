"""Prints a row: medians of the rounds, ratios side by side, and each target beside what was found."""

from __future__ import annotations

import os
import platform
import sys
from math import inf
from statistics import median, quantiles

from benchmarks import cores
from benchmarks.comparison import Figures, Result, Target
from benchmarks.sides import LIMIT, NAMED, RAFFEL, versions

CROWDED = 5  # per cent of its time that a server waited for its core
NAME, COLUMN = 11, 16


def show_head() -> None:
    known = versions()
    print(f"Python {platform.python_version()}, {_processor()}, load {os.getloadavg()[0]:.2f}")
    if cores.SHARED:
        print("one core only: server and client share it, so a server's figures include the client's cache misses")
    for side in NAMED.values():
        print(f"  {side.name:<{NAME}}{side.what}" + (f" ({known[side.name]})" if known.get(side.name) else ""))


def show(name: str, result: Result) -> None:
    print(f"\n{name}: {result.title}")
    _show_table(result)
    for side, why in result.missing.items():
        print(f"  {side:<{NAME}}not measured: {why}")
    if RAFFEL.name in result.figures:
        for target in result.targets:
            _show_target(target, result)
    sys.stdout.flush()


def _show_table(result: Result) -> None:
    rounds = next(iter(result.figures.values()), [])
    if not rounds:
        return
    compared = [side.name for side in (LIMIT, RAFFEL) if side.name in result.figures and len(result.figures) > 1]
    ratios = ["of the limit"] * (LIMIT.name in compared) + ["raffel / it"] * (RAFFEL.name in compared)
    titles = [*rounds[0], *ratios]
    print(" " * (NAME + 2) + "".join(f"{title:>{COLUMN}}" for title in titles))
    for side, figures in result.figures.items():
        cells = [_median(figures, title) for title in rounds[0]]
        if LIMIT.name in compared:
            cells.append(median(_ratios(figures, result.figures[LIMIT.name])))
        if RAFFEL.name in compared:
            cells.append(median(_ratios(result.figures[RAFFEL.name], figures)))
        print(f"  {side:<{NAME}}" + "".join(f"{_number(cell):>{COLUMN}}" for cell in cells))
    crowded = [side for side, figures in result.figures.items() if _median(figures, "waited %") > CROWDED]
    if crowded:
        print(
            f"  {', '.join(crowded)} waited for the core, for other processes or threads of their own: see the README"
        )


def _show_target(target: Target, result: Result) -> None:
    ours = result.figures[RAFFEL.name]
    if target.against is None:
        label, found = RAFFEL.name, [_headline(figures) for figures in ours]
    elif target.against.name in result.figures:
        label, found = f"{RAFFEL.name} / {target.against.name}", _ratios(ours, result.figures[target.against.name])
    else:
        return
    middle = median(found)
    verdict = "met" if target.met(middle) else "NOT met"
    print(f"  target {label:<20}{_number(middle):>8}  {target.bound} {target.value:g}  {verdict}  {_spread(found)}")


def _ratios(ours: list[Figures], theirs: list[Figures]) -> list[float]:
    return [_headline(a) / _headline(b) if _headline(b) else inf for a, b in zip(ours, theirs, strict=True)]


def _headline(figures: Figures) -> float:
    return next(iter(figures.values()))


def _median(rounds: list[Figures], title: str) -> float:
    return median(figures.get(title, 0.0) for figures in rounds)


def _spread(found: list[float]) -> str:
    if len(found) < 2:
        return "(1 round)"
    low, _, high = quantiles(found, method="inclusive")
    return f"({len(found)} rounds, quartiles {_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores"
