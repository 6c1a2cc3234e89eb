"""Starlette: a StreamingResponse over a generator of ready-made events, encoded by msgspec."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

encode = msgspec.json.Encoder().encode


class Tick(msgspec.Struct):
    seq: int
    symbol: str
    price: float
    ts: float


def event(seq: int) -> bytes:
    return b"data: %b\n\n" % encode(Tick(seq, SYMBOL, PRICE, TS))


async def hot() -> AsyncIterator[bytes]:
    seq = 0
    while True:
        yield event(seq)
        seq += 1


async def turn() -> AsyncIterator[bytes]:
    seq = 0
    while True:
        yield event(seq)
        seq += 1
        await asyncio.sleep(0)


async def short(n: int) -> AsyncIterator[bytes]:
    for seq in range(n):
        yield event(seq)


async def slow(pause: float) -> AsyncIterator[bytes]:
    seq = 0
    while True:
        yield event(seq)
        seq += 1
        await asyncio.sleep(pause)


async def idle() -> AsyncIterator[bytes]:
    yield event(0)
    await asyncio.Event().wait()


def answer(events: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def get_hot(request: Request) -> StreamingResponse:
    return answer(hot())


async def get_turn(request: Request) -> StreamingResponse:
    return answer(turn())


async def get_short(request: Request) -> StreamingResponse:
    return answer(short(int(request.query_params["n"])))


async def get_slow(request: Request) -> StreamingResponse:
    return answer(slow(float(request.query_params["pause"])))


async def get_idle(request: Request) -> StreamingResponse:
    return answer(idle())


app = Starlette(
    routes=[
        Route("/hot", get_hot),
        Route("/turn", get_turn),
        Route("/short", get_short),
        Route("/slow", get_slow),
        Route("/idle", get_idle),
    ]
)
