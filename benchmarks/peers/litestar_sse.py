"""Litestar: its ServerSentEvent over a generator of JSON, encoded by the msgspec that Litestar itself is built on."""

import asyncio
from collections.abc import AsyncGenerator

from litestar import Litestar, get
from litestar.response import ServerSentEvent
from litestar.serialization import encode_json
from msgspec import Struct

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


def data(seq: int) -> bytes:
    return encode_json(Tick(seq, SYMBOL, PRICE, TS))


async def hot_items() -> AsyncGenerator[bytes, None]:
    seq = 0
    while True:
        yield data(seq)
        seq += 1


async def turn_items() -> AsyncGenerator[bytes, None]:
    seq = 0
    while True:
        yield data(seq)
        seq += 1
        await asyncio.sleep(0)


async def short_items(n: int) -> AsyncGenerator[bytes, None]:
    for seq in range(n):
        yield data(seq)


async def slow_items(pause: float) -> AsyncGenerator[bytes, None]:
    seq = 0
    while True:
        yield data(seq)
        seq += 1
        await asyncio.sleep(pause)


async def idle_items() -> AsyncGenerator[bytes, None]:
    yield data(0)
    await asyncio.Event().wait()


@get("/hot")
async def hot() -> ServerSentEvent:
    return ServerSentEvent(hot_items())


@get("/turn")
async def turn() -> ServerSentEvent:
    return ServerSentEvent(turn_items())


@get("/short")
async def short(n: int) -> ServerSentEvent:
    return ServerSentEvent(short_items(n))


@get("/slow")
async def slow(pause: float) -> ServerSentEvent:
    return ServerSentEvent(slow_items(pause))


@get("/idle")
async def idle() -> ServerSentEvent:
    return ServerSentEvent(idle_items())


app = Litestar(route_handlers=[hot, turn, short, slow, idle])
