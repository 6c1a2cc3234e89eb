"""Deadlines: of the client, of the route, the smaller of both; in every form of an answer."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

FORMS = {"sse": "text/event-stream", "ndjson": "application/x-ndjson", "bytes": "application/octet-stream"}
SOON = "timeout-ms: 150"
LATE = "timeout-ms: 60000"


class Endless:
    """A stream that sends one item and then waits for ever."""

    def __init__(self):
        self.reasons = []
        self.remaining = []

    async def handler(self, input, ctx):
        self.remaining.append(ctx.remaining())
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            self.reasons.append(ctx.signal.reason)

    async def raw(self, input, ctx):
        async for item in self.handler(input, ctx):
            yield item.encode()

    async def silent(self, input, ctx):
        try:
            await asyncio.Event().wait()
            yield "never"
        finally:
            self.reasons.append(ctx.signal.reason)

    async def procedure(self, input, ctx):
        try:
            await asyncio.Event().wait()
        finally:
            self.reasons.append(ctx.signal.reason)


async def test_an_sse_stream_ends_with_an_error_event(build, connect):
    endless, server = Endless(), build()
    server.stream("s").handler(endless.handler)
    await server.start()
    peer = await connect(server)
    await peer.stream("s", SOON)
    assert await peer.item() == "first"
    name, data, *rest = (await peer.block()).split(b"\n")
    assert name == b"event: error"
    assert msgspec.json.decode(data.removeprefix(b"data: "))["code"] == "DEADLINE_EXCEEDED"
    assert not rest  # no final id: it may be tried again
    assert await peer.rest() == b""
    assert endless.reasons == ["deadline_exceeded"]


async def test_an_ndjson_stream_ends_with_an_error_line(build, connect):
    endless, server = Endless(), build()
    server.stream("s").handler(endless.handler)
    await server.start()
    peer = await connect(server)
    await peer.stream("s", SOON, f"Accept: {FORMS['ndjson']}")
    assert await peer.line() == b'"first"'
    assert msgspec.json.decode(await peer.line())["error"]["code"] == "DEADLINE_EXCEEDED"
    assert await peer.rest() == b""
    assert endless.reasons == ["deadline_exceeded"]


async def test_a_stream_of_bytes_is_cut_short(build, connect):
    endless, server = Endless(), build()
    server.stream("s").output(bytes).handler(endless.raw)
    await server.start()
    peer = await connect(server)
    await peer.stream("s", SOON, f"Accept: {FORMS['bytes']}")
    assert await peer.end() == b"5\r\nfirst\r\n"  # without the last chunk: whoever reads it knows


@pytest.mark.parametrize("form", ["sse", "ndjson"])
async def test_before_the_first_item_it_is_a_plain_answer_or_part_of_the_body(build, connect, form):
    endless, server = Endless(), build()
    server.stream("s").handler(endless.silent)
    await server.start()
    peer = await connect(server)
    await peer.ask("/streams/s", "timeout-ms: 50", f"Accept: {FORMS[form]}")
    answer = await peer.answer()
    assert (answer.status, answer.error()["code"]) == (504, "DEADLINE_EXCEEDED")
    await peer.ask("/streams/s", "timeout-ms: 250", f"Accept: {FORMS[form]}")  # the head is out by then
    answer = await peer.answer()
    assert answer.status == 200 and b"DEADLINE_EXCEEDED" in answer.body
    assert set(endless.reasons) == {"deadline_exceeded"}


async def test_a_procedure_is_answered_with_504(build, connect):
    endless, server = Endless(), build()
    server.procedure("p").handler(endless.procedure)
    await server.start()
    peer = await connect(server)
    answer = await peer.call("/p", SOON)
    assert (answer.status, answer.error()["code"]) == (504, "DEADLINE_EXCEEDED")
    assert answer.error()["details"] == {"reason": "deadline_exceeded"}
    assert endless.reasons == ["deadline_exceeded"]
    assert (await peer.call("/p", SOON)).status == 504  # on the same connection


async def test_a_deadline_of_the_route_counts_without_one_of_the_client(build, connect):
    endless, server = Endless(), build()
    server.stream("s", deadline=0.15).handler(endless.handler)
    await server.start()
    peer = await connect(server)
    await peer.stream("s")
    assert b"DEADLINE_EXCEEDED" in await peer.rest()


@pytest.mark.parametrize(("header", "own"), [(SOON, 60), (LATE, 0.15)])
async def test_the_smaller_of_both_counts(build, connect, header, own):
    endless, server = Endless(), build()
    server.stream("s", deadline=own).handler(endless.handler)
    await server.start()
    peer = await connect(server)
    await peer.stream("s", header)
    assert b"DEADLINE_EXCEEDED" in await peer.rest()
    assert 0 < endless.remaining[0] <= 0.15


async def test_a_handler_that_never_waits_ends_too(build, connect):
    server = build()

    @server.stream("restless")
    async def restless():
        while True:
            yield "x" * 1000

    await server.start()
    peer = await connect(server)
    await peer.stream("restless", SOON)
    assert b"DEADLINE_EXCEEDED" in await peer.rest()


async def test_a_deadline_counts_while_the_client_reads_nothing(build, connect, eventually):
    endless, server = Endless(), build()

    @server.stream("restless")
    async def restless(input, ctx):
        try:
            while True:
                yield "x" * 1000
        finally:
            endless.reasons.append(ctx.signal.reason)

    await server.start()
    peer = await connect(server, 16 * 1024)
    await peer.stream("restless", SOON)
    await eventually(lambda: endless.reasons)
    assert endless.reasons == ["deadline_exceeded"]
    assert b"DEADLINE_EXCEEDED" in await peer.rest()  # after all items that were yielded before it


async def test_the_finally_has_run_before_the_end_is_sent(build, connect):
    server, order = build(), []

    @server.stream("slow")
    async def slow():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            order.append("finally")

    await server.start()
    peer = await connect(server)
    await peer.stream("slow", SOON)
    assert await peer.item() == 1
    await peer.block()
    order.append("end")
    assert order == ["finally", "end"]


async def test_a_stream_that_ends_in_time_is_none_the_wiser(build, connect):
    server = build()

    @server.stream("short", deadline=60)
    async def short(input, ctx):
        yield ctx.deadline - time.monotonic() > 50

    await server.start()
    peer = await connect(server)
    await peer.stream("short")
    assert await peer.item() is True
    assert b"event: end" in await peer.rest()


@pytest.mark.parametrize(
    "text", ["0", "-1", "1.5", "soon", "1e3", "+1", "0x10", "\u0663".encode().decode("latin-1"), ""]
)
async def test_anything_but_a_positive_integer_is_invalid(build, connect, text):
    endless, server = Endless(), build()
    server.stream("s").handler(endless.handler)
    server.procedure("p").handler(endless.procedure)
    await server.start()
    peer = await connect(server)
    await peer.ask("/streams/s", f"timeout-ms: {text}")
    answer = await peer.answer()
    assert (answer.status, answer.error()["code"]) == (400, "INVALID_ARGUMENT")
    answer = await peer.call("/p", f"timeout-ms: {text}")
    assert (answer.status, answer.error()["code"]) == (400, "INVALID_ARGUMENT")
    assert not endless.reasons


async def test_the_longest_that_can_be_said_is_no_trouble(build, connect):
    server = build()

    @server.procedure("p")
    async def procedure(input, ctx):
        return ctx.remaining() > 60

    await server.start()
    peer = await connect(server)
    assert (await peer.call("/p", "timeout-ms: 999999999999999")).body == b"true"
