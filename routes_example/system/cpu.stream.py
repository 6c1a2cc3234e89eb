"""How busy the processor is, core by core."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from msgspec import Struct

from routes_example._machine import Every, busy_percent, core_times


class Cpu(Struct):
    at: datetime
    load: float
    """The load average of the last minute."""
    cores: list[float] | None
    """Percent of the time since the item before; null where the system has no /proc."""


meta = {"description": "The load and, on Linux, how busy each core is", "tags": ["system"]}


async def handler(input: Every) -> AsyncIterator[Cpu]:
    before = core_times()
    for _ in input.rounds():
        await asyncio.sleep(input.interval)
        now = core_times()
        cores = busy_percent(before, now) if before and now else None
        yield Cpu(datetime.now(UTC), round(os.getloadavg()[0], 2), cores)
        before = now
