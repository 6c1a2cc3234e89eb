"""The items, and the generators that make them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

encode = msgspec.json.Encoder().encode


class Tick(msgspec.Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class Quote(msgspec.Struct):
    price: float
    size: int


class Book(msgspec.Struct):
    seq: int
    symbol: str
    last: Quote
    levels: list[Quote]


class Sum(msgspec.Struct):
    count: int
    total: int


async def hot() -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1


async def nested() -> AsyncIterator[Book]:
    seq = 0
    while True:
        yield Book(seq, SYMBOL, Quote(101.25, 5), [Quote(101.0, 10), Quote(100.75, 20)])
        seq += 1


async def turn() -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
        await asyncio.sleep(0)


async def short(n: int) -> AsyncIterator[Tick]:
    for seq in range(n):
        yield Tick(seq, SYMBOL, PRICE, TS)


async def slow(pause: float) -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
        await asyncio.sleep(pause)


async def idle() -> AsyncIterator[Tick]:
    yield Tick(0, SYMBOL, PRICE, TS)
    await asyncio.Event().wait()
