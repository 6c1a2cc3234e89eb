"""The time of day, tick by tick."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct


class ClockQuery(Struct):
    every: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    """Seconds from one tick to the next."""
    limit: Annotated[int, Meta(ge=1)] | None = None
    """How many ticks; none: until the client leaves."""


class Tick(Struct):
    number: int
    time: datetime


async def handler(query: ClockQuery) -> AsyncIterator[Tick]:
    number = 0
    while query.limit is None or number < query.limit:
        if number:
            await asyncio.sleep(query.every)
        number += 1
        yield Tick(number, datetime.now(UTC))
