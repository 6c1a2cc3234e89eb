"""Raffel: a file-system routed application server for streams."""

from __future__ import annotations

from pathlib import Path

from raffel_core.config import Config
from raffel_core.context import Auth, Context, Event, tracked
from raffel_core.errors import RaffelError
from raffel_core.interceptor import Call, Interceptor
from raffel_core.server import Server
from raffel_core.stream import RaffelStream, StreamChunk, create_stream

__all__ = [
    "Auth",
    "Call",
    "Config",
    "Context",
    "Event",
    "Interceptor",
    "RaffelError",
    "RaffelStream",
    "Server",
    "StreamChunk",
    "create_server",
    "create_stream",
    "tracked",
]


def create_server(config: Config | None = None, *, root: Path | None = None, development: bool = False) -> Server:
    """A server to be built in code: `stream`, `procedure`, `use` and `routes` fill it, `run` or `start` serves it."""
    return Server(config, root=root, development=development)
