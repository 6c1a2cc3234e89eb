"""Deadlines: the client's and the route's own, whichever is sooner, over all four kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from raffel_core.context import Context
from raffel_core.server import Server

from .conftest import items
from .handlers import Pair


class Patient:
    """A handler that waits, and what it has seen of its deadline."""

    def __init__(self) -> None:
        self.remaining: list[float | None] = []
        self.reasons: list[str | None] = []
        self.ended = 0

    async def unary(self, input: Pair, ctx: Context) -> int:
        await self._wait(ctx)
        return 1

    async def stream(self, input: Pair, ctx: Context) -> AsyncIterator[int]:
        yield 1
        await self._wait(ctx)

    async def upload(self, items: AsyncIterator[Pair], ctx: Context) -> int:
        await self._wait(ctx)
        return 1

    async def both(self, items: AsyncIterator[Pair], ctx: Context) -> AsyncIterator[int]:
        yield 1
        await self._wait(ctx)

    async def _wait(self, ctx: Context) -> None:
        self.remaining.append(ctx.remaining())
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleaning up may take its time
            self.reasons.append(ctx.signal.reason)

    def add(self, server: Server, **meta: object) -> None:
        server.procedure("wait.unary", **meta).handler(self.unary)
        server.stream("wait.server", **meta).handler(self.stream)
        server.stream("wait.client", direction="client", **meta).handler(self.upload)
        server.stream("wait.bidi", direction="bidi", **meta).handler(self.both)


KINDS = ["Unary", "Server", "Client", "Bidi"]


async def _end(method, timeout):
    """How a call of any kind ends that its client leaves open."""
    request = () if method.kind.startswith("stream") else (method.request(),)
    call = method(*request, timeout=timeout)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        if method.kind.endswith("stream"):
            await items(call)
        else:
            await call
    return raised.value


@pytest.mark.parametrize("kind", KINDS)
async def test_the_clients_deadline_ends_a_call(serve_and_connect, eventually, kind):
    patient = Patient()
    client = await serve_and_connect(patient.add)
    error = await _end(client[f"/Wait/{kind}"], 0.2)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: len(patient.reasons) == 1)
    assert patient.remaining[0] is not None and patient.remaining[0] <= 0.3
    # The client's own clock may be first: then it cancels.
    assert patient.reasons[0] in ("deadline_exceeded", "client_cancelled")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_routes_own_deadline_ends_a_call(serve_and_connect, kind):
    patient = Patient()
    client = await serve_and_connect(lambda server: patient.add(server, deadline=0.1))
    error = await _end(client[f"/Wait/{kind}"], 20)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert patient.reasons == ["deadline_exceeded"]  # `finally` has run by the time that the client knows
    assert patient.remaining[0] <= 0.1


async def test_the_smaller_deadline_counts(serve_and_connect, eventually):
    patient = Patient()
    client = await serve_and_connect(lambda server: patient.add(server, deadline=15))
    await _end(client["/Wait/Unary"], 0.1)
    await eventually(lambda: len(patient.reasons) == 1)
    assert patient.remaining[0] <= 0.2


async def test_without_a_deadline_there_is_none(serve_and_connect, eventually):
    patient = Patient()
    client = await serve_and_connect(patient.add)
    wait = client["/Wait/Server"]
    call = wait(wait.request(), timeout=None)
    assert (await call.read()).value == 1
    await eventually(lambda: patient.remaining)
    assert patient.remaining == [None]
    call.cancel()
