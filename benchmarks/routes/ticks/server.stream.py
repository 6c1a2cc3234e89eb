"""So many ticks, one after another, never waiting."""

from collections.abc import AsyncIterator

from msgspec import Struct

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Query(Struct):
    n: int


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


async def handler(input: Query) -> AsyncIterator[Tick]:
    for seq in range(1, input.n + 1):
        yield Tick(seq, SYMBOL, PRICE, TS)
