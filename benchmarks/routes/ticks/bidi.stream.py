"""A tick for every tick that the client sends."""

from collections.abc import AsyncIterator

from msgspec import Struct

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


meta = {"direction": "bidi"}


async def handler(input: AsyncIterator[Tick]) -> AsyncIterator[Tick]:
    async for item in input:
        yield Tick(item.seq, SYMBOL, PRICE, TS)
