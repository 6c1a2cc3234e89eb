"""FastAPI's WebSocket: pydantic models sent and received as JSON, as its tutorial writes it, a path for each stream."""

import asyncio

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

app = FastAPI()


class Tick(BaseModel):
    seq: int
    symbol: str
    price: float
    ts: float


@app.websocket("/hot")
async def hot(websocket: WebSocket) -> None:
    await websocket.accept()
    seq = 0
    while True:
        await websocket.send_json(Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS).model_dump())
        seq += 1


@app.websocket("/turn")
async def turn(websocket: WebSocket) -> None:
    await websocket.accept()
    seq = 0
    while True:
        await websocket.send_json(Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS).model_dump())
        seq += 1
        await asyncio.sleep(0)


@app.websocket("/idle")
async def idle(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(Tick(seq=0, symbol=SYMBOL, price=PRICE, ts=TS).model_dump())
    await websocket.receive()


@app.websocket("/up")
async def up(websocket: WebSocket) -> None:
    """A connection carries one stream after another; null ends one."""
    await websocket.accept()
    while True:
        count = total = 0
        while (data := await websocket.receive_json()) is not None:
            total += Tick.model_validate(data).seq
            count += 1
        await websocket.send_json({"count": count, "total": total})
