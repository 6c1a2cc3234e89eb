"""A file's bytes, as they are."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from raffel_core import Context
from routes_example._files import inside


class Query(Struct):
    file: str
    chunk_bytes: Annotated[int, Meta(ge=1024, le=65536)] = 16384


meta = {
    "description": "A file in the example's folder",
    "content_type": "application/octet-stream",
    "tags": ["files"],
}


def handler(input: Query, ctx: Context) -> Iterator[bytes]:
    """A plain generator runs in a thread, so it may block; it is closed there too, with the file."""
    with inside(ctx.app.state.folder, input.file).open("rb") as file:
        while chunk := file.read(input.chunk_bytes):
            yield chunk
