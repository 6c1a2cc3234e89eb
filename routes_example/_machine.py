"""What this machine says of itself: from /proc where there is one, and from the standard library everywhere."""

import itertools
import os
import resource
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from raffel_core import RaffelError

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Every(Struct):
    """The input of a stream of samples. The query `?interval=0.5&limit=3` is checked against it and becomes one."""

    interval: Annotated[float, Meta(ge=0.1, le=60, description="seconds between two items")] = 1.0
    limit: Annotated[int, Meta(ge=1, description="how many items; without it the stream has no end")] | None = None

    def rounds(self) -> Iterable[int]:
        return itertools.count() if self.limit is None else range(self.limit)


class CoreTimes(NamedTuple):
    """What one core has done since the machine was started, in ticks."""

    busy: int
    total: int


def core_times() -> list[CoreTimes] | None:
    """Each core's times; None where there is no /proc."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    return [_core_times(line) for line in lines if line.startswith("cpu") and not line.startswith("cpu ")]


def _core_times(line: str) -> CoreTimes:
    # user nice system idle iowait irq softirq steal; what follows is part of the first two (proc_stat(5)).
    ticks = [int(field) for field in line.split()[1:9]]
    return CoreTimes(sum(ticks) - ticks[3] - ticks[4], sum(ticks))


def busy_percent(before: Sequence[CoreTimes], now: Sequence[CoreTimes]) -> list[float]:
    """How busy each core was between two readings."""
    pairs = zip(before, now, strict=False)  # a core may have been switched off
    return [round(100 * (b.busy - a.busy) / max(1, b.total - a.total), 1) for a, b in pairs]


def memory_bytes() -> tuple[int, int | None]:
    """The machine's memory and how much of it programs may still have; None where there is no /proc."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return PAGE_BYTES * os.sysconf("SC_PHYS_PAGES"), None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024


def server_peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Process(NamedTuple):
    """A process as /proc/PID/stat has it (proc_pid_stat(5))."""

    name: str
    state: str
    cpu_seconds: float
    threads: int
    started: int
    """In ticks since the machine was started: with the number it tells a process from a later one of its number."""
    memory_bytes: int


def process(pid: int) -> Process | None:
    """The process of this number; None if there is none or it has ended. UNAVAILABLE where there is no /proc."""
    if not PROC.is_dir():
        raise RaffelError("UNAVAILABLE", f"found no {PROC} on {sys.platform}, from which processes are read")
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")  # a name may hold anything, parentheses too
    state, *fields = rest.split()
    if state in "ZX":
        return None  # it has ended, and its parent has not asked yet
    cpu = (int(fields[10]) + int(fields[11])) / TICKS_PER_SECOND
    return Process(name, state, cpu, int(fields[16]), int(fields[18]), int(fields[20]) * PAGE_BYTES)
