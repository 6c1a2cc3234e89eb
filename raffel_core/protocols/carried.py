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


def carried_by(route: Route, config: Config) -> tuple[str, ...]:
    """The protocols on which clients reach this route, by the names that handlers see as `ctx.protocol`."""
    carriers = _CARRIERS[route.kind]
    if not config.tcp:
        carriers = tuple(name for name in carriers if name != "tcp")
    return (*carriers, "bytes") if route.kind is Kind.SERVER and route.output.bytes else carriers
