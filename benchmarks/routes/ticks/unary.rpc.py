"""A tick for a tick."""

from msgspec import Struct

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


async def handler(input: Tick) -> Tick:
    return Tick(input.seq, SYMBOL, PRICE, TS)
