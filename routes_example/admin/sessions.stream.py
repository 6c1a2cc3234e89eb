"""The calls that are open on this server, this one among them. Only an admin sees them."""

import asyncio
import time
from collections.abc import AsyncIterator

from msgspec import Struct

from raffel_core import Context
from routes_example._machine import Every


class OpenCall(Struct):
    route: str
    protocol: str
    peer: str
    open_seconds: float


class Sessions(Struct):
    open: list[OpenCall]


meta = {"description": "Who is connected, and to what", "tags": ["admin"], "auth": ["admin"]}


async def handler(input: Every, ctx: Context) -> AsyncIterator[Sessions]:
    for count in input.rounds():
        if count:
            await asyncio.sleep(input.interval)
        now = time.monotonic()
        calls = ctx.app.state.open_calls.items()
        yield Sessions([OpenCall(c.route, c.protocol, c.peer, now - since) for c, since in calls])
