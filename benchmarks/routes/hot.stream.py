"""Flat items, one after another, never waiting."""

from collections.abc import AsyncIterator

from msgspec import Struct

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


async def handler() -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
