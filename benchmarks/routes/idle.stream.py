"""One item, then silence for ever."""

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


async def handler() -> AsyncIterator[Tick]:
    yield Tick(0, SYMBOL, PRICE, TS)
    await asyncio.Event().wait()
