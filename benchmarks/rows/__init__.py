"""The rows of the report, each a function in a module of its own; their order is that of the run."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.comparison import Effort, Result
from benchmarks.rows.fairness import fairness
from benchmarks.rows.grpc import grpc_bidi, grpc_client, grpc_grpcio, grpc_server, grpc_short, grpc_unary
from benchmarks.rows.hot import hot, nested, tcp_hot, tcp_nested, unchecked, ws_hot, ws_nested
from benchmarks.rows.idle import idle, ws_idle
from benchmarks.rows.latency import latency
from benchmarks.rows.reload import reload
from benchmarks.rows.short import short, tcp_short, ws_short
from benchmarks.rows.turn import tcp_turn, turn, ws_turn
from benchmarks.rows.up import tcp_up, ws_up

ROWS: dict[str, Callable[[Effort], Result]] = {
    "hot": hot,
    "hot-nested": nested,
    "hot-unchecked": unchecked,
    "turn": turn,
    "short": short,
    "idle": idle,
    "latency": latency,
    "fairness": fairness,
    "reload": reload,
    "ws-hot": ws_hot,
    "ws-nested": ws_nested,
    "ws-turn": ws_turn,
    "ws-short": ws_short,
    "ws-idle": ws_idle,
    "ws-up": ws_up,
    "tcp-hot": tcp_hot,
    "tcp-nested": tcp_nested,
    "tcp-turn": tcp_turn,
    "tcp-short": tcp_short,
    "tcp-up": tcp_up,
    "grpc-server": grpc_server,
    "grpc-client": grpc_client,
    "grpc-bidi": grpc_bidi,
    "grpc-unary": grpc_unary,
    "grpc-short": grpc_short,
    "grpc-grpcio": grpc_grpcio,
}
