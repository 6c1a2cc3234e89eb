"""Who cancels a call ends its handler, and nobody else's: over one connection of grpcio's aio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from raffel_core.context import Context
from raffel_core.server import Server

from .handlers import Pair, add_routes


class Watched:
    """Handlers of all four kinds that wait, and what became of them."""

    def __init__(self) -> None:
        self.began = 0
        self.steps: list[object] = []
        """The reason in `finally`, then code and reason as `on_close` has them."""

    async def unary(self, input: Pair, ctx: Context) -> int:
        await self._wait(ctx)
        return 1

    async def server(self, input: Pair, ctx: Context) -> AsyncIterator[int]:
        yield 1
        await self._wait(ctx)

    async def client(self, items: AsyncIterator[Pair], ctx: Context) -> int:
        await anext(items)
        await self._wait(ctx)
        return 1

    async def bidi(self, items: AsyncIterator[Pair], ctx: Context) -> AsyncIterator[int]:
        async for pair in items:
            yield pair.a
            await self._wait(ctx)

    async def reading(self, items: AsyncIterator[Pair], ctx: Context) -> AsyncIterator[int]:
        yield 1
        try:
            async for pair in items:
                yield pair.a
        finally:
            self.steps.append(ctx.signal.reason)

    async def _wait(self, ctx: Context) -> None:
        ctx.on_close(lambda outcome: self.steps.append((outcome.code, outcome.reason)))
        self.began += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up may take its time
            self.steps.append(ctx.signal.reason)

    def add(self, server: Server) -> None:
        server.procedure("wait.unary").handler(self.unary)
        server.stream("wait.server").handler(self.server)
        server.stream("wait.client", direction="client").handler(self.client)
        server.stream("wait.bidi", direction="bidi").handler(self.bidi)
        server.stream("wait.reading", direction="bidi").handler(self.reading)
        add_routes(server)


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
async def client(serve_and_connect, watched):
    return await serve_and_connect(watched.add)


async def begun(client, kind: str):
    """A call whose handler waits."""
    method = client[f"/Wait/{kind}"]
    if method.kind.startswith("stream"):
        call = method()
        await call.write(method.request(a=1))
    else:
        call = method(method.request(a=1))
    if method.kind.endswith("stream"):
        assert (await call.read()).value == 1
    return call


@pytest.mark.parametrize("kind", ["Unary", "Server", "Client", "Bidi"])
async def test_a_cancelled_call_ends_its_handler(client, watched, eventually, kind):
    call = await begun(client, kind)
    await eventually(lambda: watched.began == 1)
    call.cancel()
    await eventually(lambda: len(watched.steps) == 2)
    assert watched.steps == ["client_cancelled", ("CANCELLED", "client_cancelled")]


async def test_a_handler_that_reads_is_ended_too(client, watched, eventually):
    call = await begun(client, "Reading")
    call.cancel()
    await eventually(lambda: watched.steps == ["client_cancelled"])


async def test_the_other_streams_of_the_connection_go_on(client, watched, eventually):
    echo = client["/Talk/Echo"]
    other = echo()
    await other.write(echo.request(text="a"))
    assert (await other.read()).text == "A"
    cancelled = [await begun(client, "Server") for _ in range(20)]
    for call in cancelled:
        call.cancel()
    await eventually(lambda: len(watched.steps) == 40)
    await other.write(echo.request(text="b"))
    assert (await other.read()).text == "B"
    await other.done_writing()
    assert await other.read() is grpc.aio.EOF
    add = client["/Math/Add"]
    assert (await add(add.request(a=1))).value == 1


async def test_a_stream_that_is_cancelled_while_it_floods(client, eventually, build):
    count = client["/Math/Count"]
    calls = [count(count.request(to=10**9, size=1000)) for _ in range(5)]
    for call in calls:
        assert [(await call.read()).number for _ in range(100)] == list(range(100))
        call.cancel()
    add = client["/Math/Add"]
    assert (await add(add.request(a=1))).value == 1


async def test_a_client_that_closes_its_channel_ends_all_its_calls(client, watched, eventually):
    calls = [await begun(client, kind) for kind in ("Unary", "Server", "Client", "Bidi")]
    await eventually(lambda: watched.began == 4)
    await client.channel.close()
    await eventually(lambda: len(watched.steps) == 8)
    reasons = {step for step in watched.steps if isinstance(step, str)}
    assert reasons <= {"client_cancelled", "client_disconnected"}
    del calls  # only now: grpcio cancels a call that nobody holds


async def test_thousands_of_cancelled_calls_leave_nothing(build, connect, watched, eventually):
    server = build()
    watched.add(server)
    await server.start()
    client = await connect(server)
    for _ in range(20):
        calls = [await begun(client, "Server") for _ in range(20)]
        for call in calls:
            call.cancel()
    await eventually(lambda: not server._hub.sessions)
    assert [step for step in watched.steps if isinstance(step, str)] == ["client_cancelled"] * 400


async def test_a_handler_that_cancels_itself_is_an_error(serve_and_connect):
    def routes(server: Server) -> None:
        async def odd() -> int:
            raise asyncio.CancelledError

        server.procedure("odd").handler(odd)

    client = await serve_and_connect(routes)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client["/Root/Odd"](client["/Root/Odd"].request())
    assert raised.value.code() is grpc.StatusCode.INTERNAL
