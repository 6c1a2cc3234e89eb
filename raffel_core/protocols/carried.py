"""Which protocols carry a route: what a listing, a message or a document may promise."""

from __future__ import annotations

from collections.abc import Mapping

from raffel_core.config import Config
from raffel_core.route import Kind, Route

_CARRIERS: Mapping[Kind, tuple[str, ...]] = {
    Kind.UNARY: ("http", "websocket", "tcp", "grpc", "jsonrpc"),
    Kind.SERVER: ("sse", "ndjson", "websocket", "tcp", "grpc"),
    Kind.CLIENT: ("websocket", "tcp", "grpc"),
    Kind.BIDI: ("websocket", "tcp", "grpc"),
}


_TITLES = {"websocket": "WebSocket", "tcp": "TCP", "grpc": "gRPC"}


def named(route: Route, config: Config) -> str:
    """The protocols that carry a client or bidi stream, for people."""
    *most, last = [_TITLES[name] for name in carried_by(route, config)]
    return f"{', '.join(most)} and {last}" if most else last


def carried_by(route: Route, config: Config) -> tuple[str, ...]:
    """The protocols on which clients reach this route, by the names that handlers see as `ctx.protocol`."""
    carriers = _CARRIERS[route.kind]
    if not config.tcp:
        carriers = tuple(name for name in carriers if name != "tcp")
    if not config.grpc or route.meta.grpc is False:
        carriers = tuple(name for name in carriers if name != "grpc")
    return (*carriers, "bytes") if route.kind is Kind.SERVER and route.output.bytes else carriers
