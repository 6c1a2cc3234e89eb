"""Adds up the ticks that the client sends."""

from collections.abc import AsyncIterator

from msgspec import Struct


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class Sum(Struct):
    count: int
    total: int


meta = {"direction": "client"}


async def handler(input: AsyncIterator[Tick]) -> Sum:
    count = total = 0
    async for item in input:
        total += item.seq
        count += 1
    return Sum(count, total)
