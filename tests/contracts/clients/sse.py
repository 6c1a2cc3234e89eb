"""Server-Sent Events, read by httpx-sse."""

from __future__ import annotations

import json

import httpx
from httpx_sse import EventSource

from raffel_core.route import Kind
from raffel_core.server import Server

from .call import Call, Can, Carrier, Cut, End, Item, Outcome, Retry, failed
from .http import HttpClient

END_ID = "raffel:end"


async def read(response: httpx.Response, call: Call) -> Outcome:
    retry = None
    async for event in EventSource(response).aiter_sse():
        retry = event.retry
        if event.event == "end":
            assert (event.data, event.id) == ("{}", END_ID), event
            return End()
        if event.event == "error":
            return failed(json.loads(event.data))
        if event.data:  # what has none, a ping for one, is no event at all to a browser
            call.arrive(Item(json.loads(event.data), event.id or None))
    return Cut() if retry is None else Retry(retry)


async def connect(server: Server) -> HttpClient:
    return HttpClient(server, "/streams/", read, get=True, accept="text/event-stream")


SSE = Carrier(
    "sse",
    "Server-Sent Events",
    frozenset({Kind.SERVER}),
    frozenset({Can.IDS, Can.RESUME, Can.TEXT, Can.UNTYPED, Can.WRONG, Can.SCALARS, Can.KINDS}),
    connect,
)
