"""NDJSON: one item a line."""

from __future__ import annotations

import json

import httpx

from raffel_core.route import Kind
from raffel_core.server import Server

from .call import Call, Can, Carrier, End, Item, Outcome, failed
from .http import HttpClient


async def read(response: httpx.Response, call: Call) -> Outcome:
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in filter(None, lines):
            data = json.loads(line)
            if isinstance(data, dict) and list(data) == ["error"]:
                return failed(data["error"])
            call.arrive(Item(data))
    assert not rest, f"found {rest!r} without a line feed"
    return End()


async def connect(server: Server) -> HttpClient:
    return HttpClient(server, "/streams/", read, get=True, accept="application/x-ndjson")


NDJSON = Carrier(
    "ndjson",
    "NDJSON",
    frozenset({Kind.SERVER}),
    frozenset({Can.RESUME, Can.TEXT, Can.UNTYPED, Can.WRONG, Can.SCALARS, Can.KINDS}),
    connect,
)
