"""Fifty connections, and a turn of the loop after each item: nothing to join, the turn itself is the cost."""

from __future__ import annotations

from benchmarks.client import items_of
from benchmarks.comparison import Effort, Figures, Result, Target, compare, throughput
from benchmarks.servers import Server
from benchmarks.sides import FASTAPI, LIMIT, LIMIT_TCP, LIMIT_WS, SIDES, TCP_SIDES, WS_SIDES, Side

CONNECTIONS = 50


def turn(effort: Effort) -> Result:
    return _turn("", SIDES, (Target(LIMIT, ">=", 0.85), Target(FASTAPI, ">=", 5)), effort)


def ws_turn(effort: Effort) -> Result:
    return _turn("WebSocket, ", WS_SIDES, (Target(LIMIT_WS, ">=", 0.85),), effort)


def tcp_turn(effort: Effort) -> Result:
    return _turn("TCP, ", TCP_SIDES, (Target(LIMIT_TCP, ">=", 0.85),), effort)


def _turn(over: str, sides: tuple[Side, ...], targets: tuple[Target, ...], effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        return throughput(items_of(server, side.opening("turn"), CONNECTIONS, effort.warm, effort.measured), "items")

    title = f"{over}{CONNECTIONS} connections, one item a turn of the loop"
    return compare(title, sides, measure, targets, effort, effort.rounds)
