"""Procedures over HTTP: `POST /name`."""

from __future__ import annotations

import json

import httpx

from raffel_core.route import Kind
from raffel_core.server import Server

from .call import Call, Can, Carrier, End, Outcome
from .http import HttpClient


async def read(response: httpx.Response, call: Call) -> Outcome:
    return End(json.loads(await response.aread()))


async def connect(server: Server) -> HttpClient:
    return HttpClient(server, "/", read, get=False)


PROCEDURES = Carrier(
    "http",
    "HTTP",
    frozenset({Kind.UNARY}),
    frozenset({Can.TEXT, Can.UNTYPED, Can.WRONG, Can.SCALARS, Can.KINDS}),
    connect,
)
