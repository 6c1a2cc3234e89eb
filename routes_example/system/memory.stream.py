"""How much memory the machine has, how much of it is left, and what this server has taken at most."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from msgspec import Struct

from routes_example._machine import Every, memory_bytes, server_peak_bytes


class Memory(Struct):
    at: datetime
    total_bytes: int
    available_bytes: int | None
    """Null where the system has no /proc."""
    server_peak_bytes: int


meta = {"description": "The machine's memory, and this server's", "tags": ["system"]}


async def handler(input: Every) -> AsyncIterator[Memory]:
    for count in input.rounds():
        if count:
            await asyncio.sleep(input.interval)
        yield Memory(datetime.now(UTC), *memory_bytes(), server_peak_bytes())
