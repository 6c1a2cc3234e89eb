"""One process, until it ends. `[pid]` in the file's name is a part of the path: /streams/processes/4711."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta, Struct

from raffel_core import RaffelError
from routes_example._machine import Every, process


class Query(Every, kw_only=True):
    pid: Annotated[int, Meta(ge=1)]
    """Filled from the path and checked like any other field."""


class State(Struct):
    pid: int
    name: str
    state: str
    cpu_seconds: float
    threads: int
    memory_bytes: int


meta = {"description": "What a process uses; the stream ends with the process", "tags": ["system"]}


async def handler(input: Query) -> AsyncIterator[State]:
    first = now = process(input.pid)
    if first is None:
        raise RaffelError("NOT_FOUND", f"found no process {input.pid}")
    for count in input.rounds():
        if count:
            await asyncio.sleep(input.interval)
            now = process(input.pid)
        if now is None or now.started != first.started:
            return
        yield State(input.pid, now.name, now.state, now.cpu_seconds, now.threads, now.memory_bytes)
