"""Which protocols carry a route: what a listing, a message or a document may promise."""

from __future__ import annotations

from collections.abc import Mapping

from raffel_core.config import Config
from raffel_core.route import Kind, Route

_CARRIERS: Mapping[Kind, tuple[str, ...]] = {
    Kind.UNARY: ("http", "websocket", "tcp"),
    Kind.SERVER: ("sse", "ndjson", "websocket", "tcp"),
    Kind.CLIENT: ("websocket", "tcp"),
    Kind.BIDI: ("websocket", "tcp"),
}


_TITLES = {"websocket": "WebSocket", "tcp": "TCP"}


def named(route: Route, config: Config) -> str:
    """The protocols that carry a client or bidi stream, for people."""
    return " and ".join(_TITLES[name] for name in carried_by(route, config)) or "no protocol that is switched on"


def carried_by(route: Route, config: Config) -> tuple[str, ...]:
    """The protocols on which clients reach this route, by the names that handlers see as `ctx.protocol`."""
    carriers = _CARRIERS[route.kind]
    if not config.tcp:
        carriers = tuple(name for name in carriers if name != "tcp")
    return (*carriers, "bytes") if route.kind is Kind.SERVER and route.output.bytes else carriers
