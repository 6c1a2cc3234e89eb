"""The four kinds and what runs through them, by grpcio's aio client: order, half-close, many calls, the first head."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from raffel_core.context import Context
from raffel_core.server import Server

from .conftest import items
from .handlers import Pair, add_routes


@pytest.fixture
async def client(serve_and_connect):
    return await serve_and_connect(add_routes)


# The four kinds


async def test_a_unary_call(client):
    add = client["/Math/Add"]
    assert (await add(add.request(a=40, b=2))).value == 42


async def test_a_server_stream_in_order(client):
    count = client["/Math/Count"]
    assert [tick.number async for tick in count(count.request(to=1000))] == list(range(1000))


async def test_a_server_stream_of_nothing(client):
    count = client["/Math/Count"]
    assert await items(count(count.request(to=0))) == []


async def test_a_client_stream(client):
    total = client["/Math/Total"]
    answer = await total(total.request(a=number, b=1) for number in range(1000))
    assert (answer.total, answer.items) == (sum(range(1000)) + 1000, 1000)


async def test_a_client_stream_of_nothing(client):
    total = client["/Math/Total"]
    answer = await total(iter(()))
    assert (answer.total, answer.items) == (0, 0)


async def test_a_bidi_stream(client):
    echo = client["/Talk/Echo"]
    answers = await items(echo(echo.request(text=f"n{number}") for number in range(500)))
    assert [note.text for note in answers] == [f"N{number}" for number in range(500)]


async def test_a_bidi_stream_in_lockstep(client):
    echo = client["/Talk/Echo"]
    call = echo()
    for number in range(200):
        await call.write(echo.request(text=f"n{number}"))
        assert (await call.read()).text == f"N{number}"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


# Half-close, both orders


async def test_the_client_ends_first_and_the_handler_goes_on(serve_and_connect):
    def routes(server: Server) -> None:
        async def late(items: AsyncIterator[Pair]) -> AsyncIterator[int]:
            found = [pair.a async for pair in items]
            for number in found:
                yield number

        server.stream("late", direction="bidi").handler(late)

    client = await serve_and_connect(routes)
    late = client["/Root/Late"]
    call = late()
    for number in (1, 2, 3):
        await call.write(late.request(a=number))
    await call.done_writing()
    assert [item.value for item in await items(call)] == [1, 2, 3]


async def test_the_handler_ends_first_and_the_client_is_told_at_once(serve_and_connect):
    def routes(server: Server) -> None:
        async def early(items: AsyncIterator[Pair]) -> AsyncIterator[int]:
            yield (await anext(items)).a

        server.stream("early", direction="bidi").handler(early)

    client = await serve_and_connect(routes)
    early = client["/Root/Early"]
    call = early()
    await call.write(early.request(a=7))
    assert (await call.read()).value == 7
    assert await call.read() is grpc.aio.EOF  # the client has not ended
    assert await call.code() is grpc.StatusCode.OK


async def test_a_client_stream_may_be_answered_before_its_end(serve_and_connect):
    def routes(server: Server) -> None:
        async def first(items: AsyncIterator[Pair]) -> int:
            return (await anext(items)).a

        server.stream("first", direction="client").handler(first)

    client = await serve_and_connect(routes)
    first = client["/Root/First"]
    call = first()
    await call.write(first.request(a=7))
    assert (await call).value == 7


# Many at once


class Meeting:
    """A procedure whose calls all wait until so many are there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.here = 0
        self.all = asyncio.Event()

    async def __call__(self, input: int) -> int:
        self.here += 1
        if self.here == self.size:
            self.all.set()
        await self.all.wait()
        return input


async def test_a_hundred_calls_at_once_on_one_connection(build, connect):
    server, meeting = build(), Meeting(100)
    server.procedure("meet").handler(meeting.__call__)
    await server.start()
    client = await connect(server)
    meet = client["/Root/Meet"]
    answers = await asyncio.gather(*(_value(meet(meet.request(value=number))) for number in range(100)))
    assert answers == list(range(100))
    assert len(server._hub.connections) == 1


async def test_more_calls_than_a_connection_takes_wait_in_the_client(build, connect):
    server = build(limits={"streams_per_connection": 10})
    add_routes(server)
    await server.start()
    client = await connect(server)
    add = client["/Math/Add"]
    answers = await asyncio.gather(*(_value(add(add.request(a=number))) for number in range(200)))
    assert answers == list(range(200))
    assert len(server._hub.connections) == 1


async def test_all_kinds_at_once_on_one_connection(client):
    add, count, total, echo = map(client.__getitem__, ("/Math/Add", "/Math/Count", "/Math/Total", "/Talk/Echo"))

    async def one(number: int) -> tuple[object, ...]:
        return (
            (await add(add.request(a=number, b=1))).value,
            [tick.number for tick in await items(count(count.request(to=number)))],
            (await total(total.request(a=1) for _ in range(number))).total,
            [note.text for note in await items(echo(echo.request(text=str(n)) for n in range(number)))],
        )

    for number, found in enumerate(await asyncio.gather(*map(one, range(25)))):
        assert found == (number + 1, list(range(number)), number, [str(n) for n in range(number)])


async def _value(call):
    return (await call).value


# The first head


@pytest.mark.parametrize("kind", ["server", "client", "bidi"])
async def test_a_silent_handler_has_its_head_after_a_tenth_of_a_second(serve_and_connect, kind):
    async def result(input: Pair, ctx: Context) -> int:
        ctx.initial_metadata["x-early"] = "yes"
        return await asyncio.Event().wait()

    async def stream(input: Pair, ctx: Context) -> AsyncIterator[int]:
        yield await result(input, ctx)

    def routes(server: Server) -> None:
        server.stream("silent", direction=kind).handler(result if kind == "client" else stream)

    client = await serve_and_connect(routes)
    silent = client["/Root/Silent"]
    request = () if silent.kind.startswith("stream") else (silent.request(),)

    async def attempt() -> float:
        since = time.monotonic()
        call = silent(*request)
        assert ("x-early", "yes") in set(await call.initial_metadata())
        took = time.monotonic() - since
        call.cancel()
        return took

    await attempt()  # which connects first
    assert 0.08 < min([await attempt() for _ in range(3)]) < 0.3


async def test_the_head_comes_with_the_first_item_when_that_is_sooner(client):
    wait = client["/Talk/Wait"]

    async def attempt() -> float:
        since = time.monotonic()
        call = wait(wait.request())
        await call.initial_metadata()
        took = time.monotonic() - since
        call.cancel()
        return took

    await attempt()
    assert min([await attempt() for _ in range(5)]) < 0.08


# Keeping alive


async def test_a_client_that_pings_keeps_its_silent_stream(build, connect, eventually):
    server = build()
    waiting = add_routes(server)
    await server.start()
    quick = {"grpc.keepalive_time_ms": 50, "grpc.keepalive_timeout_ms": 5000, "grpc.http2.max_pings_without_data": 0}
    client = await connect(server, **quick)
    wait = client["/Talk/Wait"]
    call = wait(wait.request())
    assert (await call.read()).value == 1
    await asyncio.sleep(0.5)
    assert not call.done()
    call.cancel()
    await eventually(lambda: waiting.reasons == ["client_cancelled"])
