"""A file from the client, part by part. One answer at the end says what was stored."""

from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta, Struct

from raffel_core import Context
from routes_example._opening import opening


class Opening(Struct):
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")]
    """A plain name: no folder, nothing hidden."""


class Stored(Struct):
    name: str
    bytes: int
    sha256: str


meta = {
    "description": "Stores a file, which `files.download` then has as `uploads/NAME`",
    "direction": "client",
    "deadline": 600,
    "tags": ["files"],
}


async def handler(parts: AsyncIterator[bytes], ctx: Context) -> Stored:
    name = opening(ctx, Opening).name
    with ctx.app.state.uploads.receive(name) as file:  # a client that goes or cancels raises in here
        async for part in parts:
            await file.write(part)
    return Stored(name, file.size, file.sha256)
