"""One function as the handler of any kind of call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from raffel_core.context import Context, Outcome
from raffel_core.interceptor import Interceptor
from raffel_core.route import Kind
from raffel_core.server import Server

Body = Callable[[Context], Awaitable[Any]]
"""What gives the one thing that the call gives."""


def define(
    server: Server,
    kind: Kind,
    body: Body,
    name: str = "call",
    *,
    input: Any = None,
    output: Any = None,
    use: Sequence[Interceptor] = (),
    **meta: Any,
) -> None:
    """Adds a route of this kind; what its handler returns, or yields as its only item, is what `body` returns."""

    async def result(input: Any, ctx: Context) -> Any:
        return await body(ctx)

    async def items(input: Any, ctx: Context) -> Any:
        yield await body(ctx)

    unary = kind is Kind.UNARY
    builder = server.procedure(name, **meta) if unary else server.stream(name, direction=str(kind), **meta)
    builder.input(input).output(output).use(*use).handler(items if kind.writes else result)


def route_file(kind: Kind, name: str = "call", **meta: Any) -> dict[str, str]:
    """The file of such a route, whose body is `probe.body`."""
    last = "yield" if kind.writes else "return"
    if kind is not Kind.UNARY:
        meta["direction"] = str(kind)
    source = f"import probe\nmeta = {meta}\nasync def handler(input, ctx):\n    {last} await probe.body(ctx)\n"
    return {f"{name}.{'rpc' if kind is Kind.UNARY else 'stream'}.py": source}


class Watched:
    """A body that waits until it is told to go on, and what became of its call."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.steps: list[Any] = []
        """Reason of the signal in `finally`, then how the call ended as `on_close` has it: code and reason."""

    async def __call__(self, ctx: Context) -> str:
        ctx.on_close(self._closed)
        try:
            self.began.set()
            await self.go_on.wait()
            return "done"
        finally:
            await asyncio.sleep(0)  # cleaning up may take its time
            self.steps.append(ctx.signal.reason)

    def _closed(self, outcome: Outcome) -> None:
        self.steps.append((outcome.code, outcome.reason))
