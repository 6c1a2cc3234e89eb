"""The last lines of a file, then every line that is added to it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta, Struct

from raffel_core import Context
from routes_example._tail import Tail

POLL_SECONDS = 0.2


class Query(Struct):
    file: str = "requests.log"
    lines: Annotated[int, Meta(ge=0, le=1000, description="how many of the lines that are already there")] = 10


class Line(Struct):
    text: str


meta = {"description": "A file as it grows: by default this server's own request log", "tags": ["files"]}


async def handler(input: Query, ctx: Context) -> AsyncIterator[Line]:
    tail = Tail(ctx.app.state.folder, input.file, input.lines)
    try:
        while True:
            lines = await asyncio.to_thread(tail.read)
            for line in lines:
                yield Line(line)
            if not lines:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        tail.close()  # runs as soon as the client has gone
