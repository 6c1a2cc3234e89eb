"""Items up a client stream as fast as they are read: what decoding and checking one costs, and handing it over."""

from __future__ import annotations

from benchmarks.client import upload_to
from benchmarks.comparison import Effort, Figures, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import ASYNCIO, FASTAPI_WS, LIMIT_TCP, LIMIT_WS, RAFFEL_TCP, RAFFEL_WS, Side

ITEM = {"seq": 7, "symbol": "ACME", "price": 101.25, "ts": 1712345678.123}
WARM = 1000  # items of an upload that is not measured


def ws_up(effort: Effort) -> Result:
    return _up("WebSocket", (LIMIT_WS, RAFFEL_WS, FASTAPI_WS), effort)


def tcp_up(effort: Effort) -> Result:
    """FastAPI has no TCP: it is asked over its WebSocket."""
    return _up("TCP", (LIMIT_TCP, RAFFEL_TCP, ASYNCIO, FASTAPI_WS), effort)


def _up(over: str, sides: tuple[Side, ...], effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        load = upload_to(server, side.opening("up"), side.item(ITEM), side.end, effort.up, WARM)
        return throughput(load, "items")

    title = f"{over}, {effort.up:,} items up a client stream on one connection"
    return compare(title, sides, measure, (Target(FASTAPI_WS, ">=", 5),), effort, effort.rounds)
