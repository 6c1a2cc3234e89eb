"""Bare aiohttp: a StreamResponse, one write an item, on uvloop, encoded by msgspec."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import uvloop
from aiohttp import web

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


async def answer(request: web.Request, events: AsyncIterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    async for data in events:
        await response.write(data)
    await response.write_eof()
    return response


async def get_hot(request: web.Request) -> web.StreamResponse:
    return await answer(request, hot())


async def get_turn(request: web.Request) -> web.StreamResponse:
    return await answer(request, turn())


async def get_short(request: web.Request) -> web.StreamResponse:
    return await answer(request, short(int(request.query["n"])))


async def get_slow(request: web.Request) -> web.StreamResponse:
    return await answer(request, slow(float(request.query["pause"])))


async def get_idle(request: web.Request) -> web.StreamResponse:
    return await answer(request, idle())


async def main() -> None:
    app = web.Application()
    for path, handler in ROUTES.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


ROUTES = {"/hot": get_hot, "/turn": get_turn, "/short": get_short, "/slow": get_slow, "/idle": get_idle}

if __name__ == "__main__":
    uvloop.run(main())
