"""Bare aiohttp: a WebSocketResponse and a loop over its messages, on uvloop, decoded and encoded by msgspec.

The streams of a connection come one after another. What an item's envelope begins with is constant for its stream.
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import uvloop
from aiohttp import WSMsgType, web

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

encode = msgspec.json.Encoder().encode


class Tick(msgspec.Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class Input(msgspec.Struct):
    n: int = 0


class Start(msgspec.Struct, tag_field="type", tag="stream:start"):
    id: str
    procedure: str
    payload: Input


decode = msgspec.json.Decoder(Start).decode


async def hot(input: Input) -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1


async def turn(input: Input) -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
        await asyncio.sleep(0)


async def short(input: Input) -> AsyncIterator[Tick]:
    for seq in range(input.n):
        yield Tick(seq, SYMBOL, PRICE, TS)


async def idle(input: Input) -> AsyncIterator[Tick]:
    yield Tick(0, SYMBOL, PRICE, TS)
    await asyncio.Event().wait()


STREAMS = {"hot": hot, "turn": turn, "short": short, "idle": idle}


async def serve(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        start = decode(message.data)
        id = start.id.encode()
        prefix = b'{"type":"stream:data","id":"%b","payload":' % id
        async for item in STREAMS[start.procedure](start.payload):
            await socket.send_frame(b"%b%b}" % (prefix, encode(item)), WSMsgType.TEXT)
        await socket.send_frame(b'{"type":"stream:end","id":"%b"}' % id, WSMsgType.TEXT)
    return socket


async def main() -> None:
    app = web.Application()
    app.router.add_get("/ws", serve)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
