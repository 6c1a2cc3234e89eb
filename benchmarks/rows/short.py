"""Streams opened, read to their end and opened again: what the opening and the ending cost."""

from __future__ import annotations

from benchmarks.client import streams_of
from benchmarks.comparison import Effort, Figures, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import AIOHTTP_WS, ASYNCIO, FASTAPI, SIDES, TCP_SIDES, WS_SIDES, Side

CONNECTIONS = 8
AT_ONCE = 32  # streams on the one connection that carries many; Raffel's limit is 100
ITEMS = 3


def short(effort: Effort) -> Result:
    title = f"streams of {ITEMS} items, one after another on {CONNECTIONS} kept-alive connections"
    return _short(title, SIDES, (Target(FASTAPI, ">=", 8),), effort, CONNECTIONS, at_once=1)


def ws_short(effort: Effort) -> Result:
    return _on_one_connection("WebSocket", WS_SIDES, AIOHTTP_WS, effort)


def tcp_short(effort: Effort) -> Result:
    return _on_one_connection("TCP", TCP_SIDES, ASYNCIO, effort)


def _on_one_connection(over: str, sides: tuple[Side, ...], loop: Side, effort: Effort) -> Result:
    """The targets are alternatives: a figure of its own, or a part of what a bare loop does."""
    title = f"{over}, streams of {ITEMS} items on one connection, {AT_ONCE} at once"
    targets = (Target(None, ">=", 25_000), Target(loop, ">=", 0.3))
    able = tuple(side for side in sides if "short" in side.streams)
    return _short(title, able, targets, effort, connections=1, at_once=AT_ONCE)


def _short(
    title: str, sides: tuple[Side, ...], targets: tuple[Target, ...], effort: Effort, connections: int, at_once: int
) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        opening = side.opening("short", n=ITEMS)
        load = streams_of(server, opening, connections, effort.warm, effort.measured, ITEMS, at_once)
        return throughput(load, "streams")

    return compare(title, sides, measure, targets, effort, effort.rounds)
