"""Items that hold a Struct and a list of Structs, never waiting."""

from collections.abc import AsyncIterator

from msgspec import Struct

SYMBOL = "ACME"


class Quote(Struct):
    price: float
    size: int


class Book(Struct):
    seq: int
    symbol: str
    last: Quote
    levels: list[Quote]


async def handler() -> AsyncIterator[Book]:
    seq = 0
    while True:
        yield Book(seq, SYMBOL, Quote(101.25, 5), [Quote(101.0, 10), Quote(100.75, 20)])
        seq += 1
