"""A shutdown as gRPC's clients see it: two GOAWAYs, calls that finish, streams that are ended with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.struct_pb2 import Value

from raffel_core.context import Context
from raffel_core.server import Server

from . import raw
from .conftest import failure, status_in
from .handlers import Note, Pair, add_routes


class Waiting:
    """A procedure and streams that wait until they are told to go on, and why they ended."""

    def __init__(self) -> None:
        self.began = 0
        self.go_on = asyncio.Event()
        self.reasons: list[str | None] = []

    async def unary(self, input: Pair, ctx: Context) -> int:
        self.began += 1
        await self.go_on.wait()
        return input.a

    async def server(self, input: Pair, ctx: Context) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.reasons.append(ctx.signal.reason)

    async def bidi(self, items: AsyncIterator[Note], ctx: Context) -> AsyncIterator[Note]:
        async for note in items:
            yield note

    def add(self, server: Server) -> None:
        server.procedure("wait.unary").handler(self.unary)
        server.stream("wait.server").handler(self.server)
        server.stream("wait.bidi", direction="bidi").handler(self.bidi)
        add_routes(server)


@pytest.fixture
def waiting():
    return Waiting()


@pytest.fixture
async def draining(build, waiting) -> AsyncIterator[Server]:
    """A server that has time to stop."""
    server = build(drain_seconds=15)
    waiting.add(server)
    await server.start()
    yield server
    waiting.go_on.set()


@pytest.fixture
async def stop():
    """Stops a server beside the test."""
    tasks: list[asyncio.Task[None]] = []

    def begin(server: Server) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(server.stop()))
        return tasks[-1]

    yield begin
    await asyncio.gather(*tasks)


# By grpcio


async def test_calls_in_flight_finish(draining, connect, stop, waiting, eventually):
    client = await connect(draining)
    unary, bidi = client["/Wait/Unary"], client["/Wait/Bidi"]
    calls = [unary(unary.request(a=number)) for number in range(10)]
    both = bidi()
    await both.write(bidi.request(text="a"))
    assert (await both.read()).text == "a"
    await eventually(lambda: waiting.began == 10)
    stopping = stop(draining)
    await eventually(lambda: draining._hub.draining)
    await both.write(bidi.request(text="b"))
    assert (await both.read()).text == "b"
    await both.done_writing()
    assert await both.read() is grpc.aio.EOF
    waiting.go_on.set()
    assert [(await call).value for call in calls] == list(range(10))
    await stopping


async def test_server_streams_end_with_a_reason(draining, connect, stop, waiting):
    client = await connect(draining)
    wait = client["/Wait/Server"]
    call = wait(wait.request())
    assert (await call.read()).value == 1
    stopping = stop(draining)
    found = await failure(call.read())
    assert (found.code, found.error["code"]) == ("UNAVAILABLE", "UNAVAILABLE")
    assert found.error["details"] == {"reason": "server_draining"}
    assert waiting.reasons == ["server_draining"]
    await stopping


async def test_what_does_not_finish_in_time_is_cut(build, connect, waiting, eventually):
    server = build(drain_seconds=0.1)
    waiting.add(server)
    await server.start()
    client = await connect(server)
    unary = client["/Wait/Unary"]
    call = unary(unary.request())
    await eventually(lambda: waiting.began == 1)
    async with asyncio.timeout(5):
        await server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_idle_client_does_not_hold_up_a_shutdown(draining, connect):
    client = await connect(draining)
    add = client["/Math/Add"]
    assert (await add(add.request(a=1))).value == 1
    async with asyncio.timeout(5):
        await draining.stop()


async def test_a_client_goes_to_the_next_server(build, connect, waiting):
    """Whose port is the same: a client of grpcio opens a connection anew."""
    first = build()
    add_routes(first)
    await first.start()
    client = await connect(first)
    add = client["/Math/Add"]
    assert (await add(add.request(a=1))).value == 1
    port = first.port
    await first.stop()
    second = build(port=port)
    add_routes(second)
    await second.start()
    assert (await add(add.request(a=2), wait_for_ready=True)).value == 2


# On the wire


class TestGoaway:
    @pytest.fixture
    def tls(self):
        """The frames are the same behind TLS."""

    async def test_it_is_said_twice_and_calls_in_between_are_served(self, draining, wire, stop, waiting, eventually):
        peer = await wire(draining)
        await peer.send(raw.call(1, "/Wait/Unary", b"\x08\x07"), raw.call(3, "/Wait/Server"))
        await peer.messages(3, 1)
        await eventually(lambda: waiting.began == 1)
        stopping = stop(draining)
        frames = await until(peer, lambda frames: raw.PING in types(frames))
        (first,) = (one for one in frames if one.type == raw.GOAWAY)
        assert last_stream(first) == 2**31 - 1
        assert error_code(first) == raw.NO_ERROR

        await peer.send(raw.call(5, "/Math/Add", b"\x08\x01\x10\x02"), raw.call(7, "/Wait/Server"))
        assert (await peer.answer(5)).messages == [b"\x08\x03"]
        assert reason(await peer.answer(7)) == "server_draining"  # a stream that would have to be ended at once
        assert reason(await peer.answer(3)) == "server_draining"

        (ping,) = (one for one in frames if one.type == raw.PING)
        await peer.send(raw.frame(raw.PING, raw.ACK, 0, ping.payload))
        frames = await until(peer, lambda frames: raw.GOAWAY in types(frames))
        (second,) = (one for one in frames if one.type == raw.GOAWAY)
        assert last_stream(second) == 7
        assert error_code(second) == raw.NO_ERROR

        await peer.send(raw.call(9, "/Math/Add"))
        assert (await peer.answer(9)).reset == raw.REFUSED_STREAM
        waiting.go_on.set()
        assert (await peer.answer(1)).messages == [b"\x08\x07"]
        assert await peer.rest() == "end"
        await stopping

    async def test_the_second_comes_also_to_a_peer_that_answers_no_ping(
        self, draining, wire, stop, waiting, eventually
    ):
        peer = await wire(draining)
        await peer.send(raw.call(1, "/Wait/Unary"))
        await eventually(lambda: waiting.began == 1)
        stopping = stop(draining)
        frames = await until(peer, lambda frames: types(frames).count(raw.GOAWAY) == 2)
        assert [last_stream(one) for one in frames if one.type == raw.GOAWAY] == [2**31 - 1, 1]
        waiting.go_on.set()
        assert (await peer.answer(1)).status == raw.OK
        assert await peer.rest() == "end"
        await stopping

    async def test_a_connection_without_calls_is_closed_once_both_are_said(self, draining, wire, stop):
        peer = await wire(draining)
        await peer.synchronise()
        stopping = stop(draining)
        frames = await until(peer, lambda frames: raw.PING in types(frames))
        (ping,) = (one for one in frames if one.type == raw.PING)
        await peer.send(raw.frame(raw.PING, raw.ACK, 0, ping.payload))
        assert await peer.rest() == "end"
        assert peer.goaway == (raw.NO_ERROR, "")
        await stopping


async def until(peer: raw.Raw, condition) -> list[raw.Frame]:
    """The frames that come up to when this is true of them."""
    frames: list[raw.Frame] = []
    while not condition(frames):
        frames += await peer.receive()
    return frames


def types(frames: list[raw.Frame]) -> list[int]:
    return [one.type for one in frames]


def last_stream(frame: raw.Frame) -> int:
    return int.from_bytes(frame.payload[:4], "big")


def error_code(frame: raw.Frame) -> int:
    return int.from_bytes(frame.payload[4:8], "big")


def reason(answer: raw.Answer) -> str:
    """Why a call ended, which must be UNAVAILABLE."""
    assert answer.status == raw.UNAVAILABLE
    (detail,) = status_in(answer.trailers).details
    return Value.FromString(detail.value).struct_value["details"]["reason"]
