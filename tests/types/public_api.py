"""What a type checker makes of the public names: read by pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, assert_type

from raffel_core import (
    Auth,
    Call,
    Config,
    Context,
    Event,
    Interceptor,
    RaffelError,
    RaffelStream,
    Server,
    StreamChunk,
    create_server,
    create_stream,
    tracked,
)


async def handler(input: dict[str, int], ctx: Context) -> AsyncIterator[Event[int]]:
    assert_type(ctx.auth, Auth | None)
    assert_type(ctx.last_event_id, str | None)
    assert_type(ctx.remaining(), float | None)
    assert_type(ctx.params, Mapping[str, str])
    assert_type(await ctx.signal.wait(), str)
    assert_type(ctx.signal.aborted, bool)
    assert_type(await ctx.call("add", input), Any)
    yield tracked("1", 5)


async def streams() -> None:
    stream: RaffelStream[int] = create_stream("id", high_water_mark=4, priority=1)
    await stream.write(1)
    assert_type(stream.try_write(2), bool)
    assert_type(await stream.read(), StreamChunk[int])
    async for item in stream:
        assert_type(item, int)


async def audit(call: Call, call_next: Any) -> Any:
    assert_type(call.ctx, Context)
    return await call_next(call)


interceptor: Interceptor = audit
server = create_server(Config(port=0))
assert_type(server, Server)
assert_type(tracked(1, "x"), Event[str])


@server.stream("ticks", direction="server")
async def ticks(input: int) -> AsyncIterator[int]:
    yield input


assert_type(ticks(1), AsyncIterator[int])
server.stream("logs.tail").input(int).output(str).description("...").direction("server").use(audit).handler(ticks)
error = RaffelError("NOT_FOUND", "no such log", details={"log": "x"})
assert_type(error.code, str)
