"""gRPC: calls of all kinds on one connection, long and short, with messages of 26 bytes and a little more."""

from __future__ import annotations

from benchmarks import grpcio
from benchmarks.comparison import Effort, Figures, Result, Target, compare, throughput
from benchmarks.h2load import Call, Calls, items_of
from benchmarks.servers import Server
from benchmarks.sides import GRPC_AIO, GRPC_SIDES, GRPCLIB, Side
from benchmarks.ticks import query, size_of_ticks, sum_, tick

LONG = 200_000  # items of a stream, where the server has them within the time
AT_ONCE = 10
ITEMS = 3  # of a short stream
SEQ = 7  # of every tick that goes up


def _unary(items: int) -> Call:
    return Call("/Ticks/Unary", tick(SEQ), len(tick(SEQ)), 1)


def _server(items: int) -> Call:
    return Call("/Ticks/Server", query(items), size_of_ticks(items), items)


def _client(items: int) -> Call:
    return Call("/Ticks/Client", tick(SEQ) * items, len(sum_(items, SEQ * items)), items)


def _bidi(items: int) -> Call:
    return Call("/Ticks/Bidi", tick(SEQ) * items, len(tick(SEQ)) * items, items)


def grpc_server(effort: Effort) -> Result:
    title = "gRPC, server streams one after another, long ones that never wait"
    return _compare(title, "items", Calls(_server, LONG), 25, 12, effort)


def grpc_client(effort: Effort) -> Result:
    title = "gRPC, client streams one after another, long ones as fast as they are read"
    return _compare(title, "items", Calls(_client, LONG), 9, 2.3, effort)


def grpc_bidi(effort: Effort) -> Result:
    title = "gRPC, bidi streams one after another, long ones, an item for an item"
    return _compare(title, "items", Calls(_bidi, LONG), 18, 5, effort)


def grpc_unary(effort: Effort) -> Result:
    title = f"gRPC, unary calls, {AT_ONCE} at once"
    return _compare(title, "calls", Calls(_unary, 1, AT_ONCE), 8, 6, effort)


def grpc_short(effort: Effort) -> Result:
    title = f"gRPC, server streams of {ITEMS} items, {AT_ONCE} at once"
    return _compare(title, "items", Calls(_server, ITEMS, AT_ONCE), 8, 6, effort)


def grpc_grpcio(effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        return throughput(grpcio.unary_calls_of(server, effort.warm, effort.measured), "calls")

    title = f"gRPC, unary calls of a client of grpcio, {grpcio.AT_ONCE} at once"
    return compare(title, GRPC_SIDES, measure, (Target(GRPC_AIO, ">=", 2),), effort, effort.rounds)


def _compare(title: str, unit: str, calls: Calls, of_aio: float, of_grpclib: float, effort: Effort) -> Result:
    def measure(server: Server, side: Side) -> Figures:
        return throughput(items_of(server, calls, effort.warm, effort.measured), unit)

    targets = (Target(GRPC_AIO, ">=", of_aio), Target(GRPCLIB, ">=", of_grpclib))
    return compare(title, GRPC_SIDES, measure, targets, effort, effort.rounds)
