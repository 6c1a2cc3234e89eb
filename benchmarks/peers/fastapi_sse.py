"""FastAPI's own Server-Sent Events: path operations that yield pydantic models, as its tutorial writes them."""

import asyncio
from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

app = FastAPI()


class Tick(BaseModel):
    seq: int
    symbol: str
    price: float
    ts: float


@app.get("/hot", response_class=EventSourceResponse)
async def hot() -> AsyncIterable[Tick]:
    seq = 0
    while True:
        yield Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS)
        seq += 1


@app.get("/turn", response_class=EventSourceResponse)
async def turn() -> AsyncIterable[Tick]:
    seq = 0
    while True:
        yield Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS)
        seq += 1
        await asyncio.sleep(0)


@app.get("/short", response_class=EventSourceResponse)
async def short(n: int) -> AsyncIterable[Tick]:
    for seq in range(n):
        yield Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS)


@app.get("/slow", response_class=EventSourceResponse)
async def slow(pause: float) -> AsyncIterable[Tick]:
    seq = 0
    while True:
        yield Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS)
        seq += 1
        await asyncio.sleep(pause)


@app.get("/idle", response_class=EventSourceResponse)
async def idle() -> AsyncIterable[Tick]:
    yield Tick(seq=0, symbol=SYMBOL, price=PRICE, ts=TS)
    await asyncio.Event().wait()
