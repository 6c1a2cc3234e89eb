"""Routes that every client is tried with: one of each kind, one that fails, one that speaks in metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct

from raffel_core.context import Context
from raffel_core.errors import RaffelError
from raffel_core.server import Server


class Pair(Struct):
    a: int
    b: int


class Count(Struct):
    to: int = 3
    size: int = 0
    """The length of each item's text."""


class Tick(Struct):
    number: int
    text: str = ""


class Note(Struct):
    text: str


class Sum(Struct):
    total: int
    items: int


class Failure(Struct):
    code: str
    message: str
    after: int = 0
    """How many items come before it."""


async def add(input: Pair) -> int:
    return input.a + input.b


async def count(input: Count) -> AsyncIterator[Tick]:
    for number in range(input.to):
        yield Tick(number, "." * input.size)


async def total(items: AsyncIterator[Pair]) -> Sum:
    found = [pair.a + pair.b async for pair in items]
    return Sum(sum(found), len(found))


async def echo(items: AsyncIterator[Note]) -> AsyncIterator[Note]:
    async for note in items:
        yield Note(note.text.upper())


async def fail(input: Failure) -> AsyncIterator[int]:
    for number in range(input.after):
        yield number
    raise RaffelError(input.code, input.message, details={"fields": ["a", 1, None]})


async def refuse(input: Failure) -> int:
    raise RaffelError(input.code, input.message, details={"fields": ["a", 1, None]})


class Waiting:
    """A stream that gives one item and then waits; what became of it."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []

    async def __call__(self, input, ctx: Context):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.reasons.append(ctx.signal.reason)


async def told(input, ctx: Context):
    """What the call's metadata were, and some back."""
    ctx.initial_metadata["x-initial"] = "first"
    ctx.initial_metadata["x-initial-bin"] = b"\x00\xff"
    ctx.trailing_metadata["x-trailing"] = "last"
    ctx.trailing_metadata["x-trailing-bin"] = b"\xfe\x01"
    return dict(ctx.metadata)


def add_routes(server: Server) -> Waiting:
    waiting = Waiting()
    for name, procedure in {"math.add": add, "trouble.refuse": refuse, "talk.told": told}.items():
        server.procedure(name).handler(procedure)
    server.stream("math.count").handler(count)
    server.stream("math.total", direction="client").handler(total)
    server.stream("talk.echo", direction="bidi").handler(echo)
    server.stream("trouble.fail").handler(fail)
    server.stream("talk.wait").output(int).handler(waiting.__call__)
    return waiting
