"""What clients send: the items of client and bidi streams, in order, checked, and until their end."""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta, Struct

from raffel_core import RaffelError
from raffel_core.route import Kind

from .clients.call import Can, End, Failed
from .clients.table import every_call, over

READS = [Kind.CLIENT, Kind.BIDI]

VALUES = [None, True, 0, -1, 2**53, 0.5, "", "日本 \u2028 \0 👩‍👩‍👧‍👦", [], {}, {"a": [1, {"b": None}]}, [[[]]]]

WRONG = [
    ({"n": "1"}, "n", "Expected int, got str"),
    ({"n": 1, "word": None}, "word", "Expected str, got null"),
    ({}, "n", "Object missing required field n"),
    ("text", "", "Expected object, got str"),
]
"""Items that are no Part, where that is seen and what is said of it."""


class Part(Struct):
    n: Annotated[int, Meta(ge=0)]
    word: str = ""


def stream(server, kind, handler, name="parts", *, input=None, output=None, **meta):
    server.stream(name, direction=str(kind), **meta).input(input).output(output).handler(handler)


def giving(kind, function):
    """A handler of this kind that gives what `function(items, ctx)` returns, once."""

    async def result(items, ctx):
        return await function(items, ctx)

    async def one_item(items, ctx):
        yield await function(items, ctx)

    return one_item if kind.writes else result


async def collect(items, ctx):
    return [item async for item in items]


# Items


@every_call(kinds=READS)
async def test_items_arrive_in_order_until_the_end(build, connect, kind):
    server = build()
    stream(server, kind, giving(kind, collect))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for value in VALUES:
        await call.send(value)
    await call.end()
    assert await call.value() == VALUES


@every_call(kinds=READS)
async def test_no_items_at_all_is_just_the_end(build, connect, kind):
    server = build()
    stream(server, kind, giving(kind, collect))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    await call.end()
    assert await call.value() == []


@every_call(kinds=READS)
async def test_ten_thousand_items_arrive_in_order_at_a_handler(build, connect, kind):
    server = build()

    async def in_order(items, ctx):
        number = 0
        async for item in items:
            assert item == number
            number += 1
        return number

    stream(server, kind, giving(kind, in_order))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for number in range(10_000):
        await call.send(number)
    await call.end()
    assert await call.value() == 10_000


@every_call(kinds=READS)
async def test_a_handler_that_does_not_read_yet_loses_nothing(build, connect, stands_still, kind):
    server, go_on, sent = build(), asyncio.Event(), []

    async def late(items, ctx):
        await go_on.wait()
        return [number async for number, _ in items]

    stream(server, kind, giving(kind, late))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")

    async def send():
        for number in range(1_000):
            await call.send([number, "x" * 10_000])
            sent.append(number)
        await call.end()

    sending = asyncio.create_task(send())
    await stands_still(lambda: len(sent))
    go_on.set()
    assert await call.value() == list(range(1_000))
    await sending


@over(Kind.CLIENT)
async def test_items_of_several_streams_are_not_mixed_up(build, connect):
    server = build()
    stream(server, Kind.CLIENT, collect)
    await server.start()
    client = await connect(server)
    calls = {name: await client.open(Kind.CLIENT, "parts") for name in "abc"}
    for number in range(10):
        for name, call in calls.items():
            await call.send([name, number])
    for call in calls.values():
        await call.end()
    for name, call in calls.items():
        assert await call.outcome() == End([[name, number] for number in range(10)])


@every_call(kinds=READS)
async def test_items_are_of_the_declared_type(build, connect, kind):
    server, seen = build(), []

    async def look(items, ctx):
        seen.extend([item async for item in items])

    stream(server, kind, giving(kind, look), input=Part)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    await call.send({"n": 1})
    await call.send({"n": 2, "word": "two"})
    await call.end()
    await call.value()
    assert seen == [Part(1), Part(2, "two")]


@every_call(kinds=READS)
async def test_a_bad_item_is_raised_where_the_handler_reads_and_uncaught_ends_the_call(build, connect, kind):
    server, seen, raised = build(), [], []

    async def look(items, ctx):
        try:
            async for item in items:
                seen.append(item.n)  # noqa: PERF401 - what came before the error counts
        except RaffelError as error:
            raised.append((error.code, error.details))
            raise

    stream(server, kind, giving(kind, look), input=Part)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for n in (1, 2, -3, 4):
        await call.send({"n": n})
    failure = await call.failure()
    assert (failure.code, failure.details) == ("VALIDATION_ERROR", [{"path": "n", "message": "Expected int >= 0"}])
    assert seen == [1, 2] and raised == [(failure.code, failure.details)]


@every_call(Can.WRONG, kinds=READS)
async def test_items_of_the_wrong_type_are_refused_with_the_same_details(build, connect, kind):
    server, raised = build(), []

    async def look(items, ctx):
        while True:
            try:
                await anext(aiter(items))
            except RaffelError as error:
                raised.append((error.code, error.details))
            except StopAsyncIteration:
                return

    stream(server, kind, giving(kind, look), input=Part)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for item, *_ in WRONG:
        await call.send(item)
    await call.end()
    await call.value()
    assert raised == [("VALIDATION_ERROR", [{"path": path, "message": text}]) for _, path, text in WRONG]


@every_call(kinds=READS)
async def test_a_handler_that_catches_it_may_read_on(build, connect, kind):
    server = build()

    async def lenient(items, ctx):
        good, bad = [], 0
        while True:
            try:
                async for item in items:
                    good.append(item.n)  # noqa: PERF401 - what came before the error counts
            except RaffelError:
                bad += 1
            else:
                return [good, bad]

    stream(server, kind, giving(kind, lenient), input=Part)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for n in (-1, 1, -2, -3, 3, 4, -5):
        await call.send({"n": n})
    await call.end()
    assert await call.value() == [[1, 3, 4], 4]


@every_call(Can.TEXT, kinds=READS)
async def test_bytes_of_items_are_base64(build, connect, kind):
    server, seen = build(), []

    async def look(items, ctx):
        seen.extend([item async for item in items])

    stream(server, kind, giving(kind, look), input=bytes)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for text in ("", "AAH/"):
        await call.send(text)
    await call.end()
    await call.value()
    assert seen == [b"", b"\x00\x01\xff"]


@every_call(Can.BINARY, kinds=READS)
async def test_bytes_of_items_are_bytes_where_that_was_asked_for(build, connect, kind):
    server, seen = build(), []

    async def look(items, ctx):
        seen.extend([item async for item in items])
        return b"".join(seen)

    stream(server, kind, giving(kind, look), input=bytes, output=bytes)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts", binary=True)
    for data in (b"", bytes(range(256)), b"\x01\x00\x02{}", b"x" * 100_000):
        await call.send(data)
    await call.end()
    assert await call.value() == b"".join(seen)
    assert [len(data) for data in seen] == [0, 256, 5, 100_000]


@over(Kind.CLIENT)
async def test_an_item_of_exactly_the_limit_is_accepted(build, connect):
    server = build(limits={"message_bytes": 100_000})

    async def sizes(items):
        return [len(item) async for item in items]

    stream(server, Kind.CLIENT, sizes)
    await server.start()
    client = await connect(server)
    size = 100_000 - client.weigh_item("")
    call = await client.open(Kind.CLIENT, "parts")
    for _ in range(3):
        await call.send("x" * size)
    await call.end()
    assert await call.outcome() == End([size] * 3)


@over(Kind.CLIENT)
async def test_an_item_of_one_byte_more_is_too_large(build, connect, eventually):
    server, seen, reasons = build(limits={"message_bytes": 100_000}), [], []

    async def look(items, ctx):
        try:
            async for item in items:
                seen.append(item)  # noqa: PERF401 - what came before the end counts
        finally:
            reasons.append(ctx.signal.reason)

    stream(server, Kind.CLIENT, look)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.CLIENT, "parts")
    await call.send("good")
    await eventually(lambda: seen)
    await call.send("x" * (100_001 - client.weigh_item("")))
    assert (await call.failure()).code == "MESSAGE_TOO_LARGE"
    await eventually(lambda: reasons)
    assert seen == ["good"]


# The opening


@every_call(Can.OPENING, kinds=READS)
async def test_the_input_of_the_opening_is_checked_against_nothing(build, connect, kind):
    server = build()

    async def opening(items, ctx):
        return [ctx.input, ctx.params, [item.n async for item in items]]

    stream(server, kind, giving(kind, opening), "parts.[room]", input=Part)
    await server.start()
    client = await connect(server)
    for input in ({"n": "none", "more": [1]}, None, 0, "text", [{}]):
        call = await client.open(kind, "parts.42", input)
        await call.send({"n": 1})
        await call.end()
        assert await call.value() == [input, {"room": "42"}, [1]]


@every_call(kinds=READS)
async def test_items_that_follow_the_opening_at_once_wait_for_the_handler(build, connect, kind):
    server = build()

    async def slow(call, call_next):
        await asyncio.sleep(0.01)
        return await call_next(call)

    server.use(slow)
    stream(server, kind, giving(kind, collect))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for number in range(50):
        await call.send(number)
    await call.end()
    assert await call.value() == list(range(50))


@every_call(kinds=READS)
async def test_items_for_a_call_that_was_refused_harm_no_other(build, connect, kind):
    server = build()

    async def refuse(call, call_next):
        raise RaffelError("PERMISSION_DENIED", "no")

    server.stream("refused", direction=str(kind)).use(refuse).handler(giving(kind, collect))
    stream(server, kind, giving(kind, collect))
    await server.start()
    client = await connect(server)
    for name, code in (("refused", "PERMISSION_DENIED"), ("unknown", "NOT_FOUND")):
        call = await client.open(kind, name)
        await call.send(1)
        await call.send(2)
        await call.end()
        assert (await call.failure()).code == code
    call = await client.open(kind, "parts")
    await call.send(3)
    await call.end()
    assert await call.value() == [3]


# Ends


@every_call(kinds=READS)
async def test_a_handler_may_end_before_its_client(build, connect, kind):
    server = build()

    async def first(items, ctx):
        async for item in items:
            return item

    stream(server, kind, giving(kind, first))
    await server.start()
    client = await connect(server)
    for _ in range(2):  # the first one's late items harm nobody
        call = await client.open(kind, "parts")
        await call.send("first")
        assert await call.value() == "first"
        for _ in range(20):
            await call.send("late")
        await call.end()


@every_call(kinds=READS)
async def test_a_handler_that_reads_nothing_just_ends(build, connect, kind):
    server = build()

    async def nothing(items, ctx):
        return "done"

    stream(server, kind, giving(kind, nothing))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    assert await call.value() == "done"


@every_call(kinds=READS)
async def test_an_error_ends_a_call_whose_client_still_sends(build, connect, kind):
    server = build()

    async def fail(items, ctx):
        async for item in items:
            if item == 3:
                raise RaffelError("DATA_LOSS", "three", details=[3])

    stream(server, kind, giving(kind, fail))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    for number in range(10):
        await call.send(number)
    assert await call.failure() == Failed("DATA_LOSS", "three", [3])


@every_call(Can.CANCEL, kinds=READS)
async def test_a_handler_that_waits_for_items_is_cancelled(build, connect, eventually, kind):
    server, began, reasons = build(), asyncio.Event(), []

    async def wait(items, ctx):
        try:
            async for _ in items:
                began.set()
        finally:
            reasons.append(ctx.signal.reason)

    stream(server, kind, giving(kind, wait))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    await call.send(1)
    await began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    await eventually(lambda: reasons == ["client_cancelled"])


@every_call(kinds=READS)
async def test_a_handler_that_waits_for_items_is_told_when_its_client_has_gone(build, connect, eventually, kind):
    server, began, reasons = build(), asyncio.Event(), []

    async def wait(items, ctx):
        try:
            async for _ in items:
                began.set()
            reasons.append("the end")  # which its client has not said
        finally:
            reasons.append(ctx.signal.reason)

    stream(server, kind, giving(kind, wait))
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "parts")
    await call.send(1)
    await began.wait()
    await call.leave()
    await eventually(lambda: reasons == ["client_disconnected"])


@over(Kind.CLIENT)
async def test_a_response_is_checked(build, connect):
    server = build()

    async def total(items):
        return sum([item async for item in items]) or "nothing"

    stream(server, Kind.CLIENT, total, output=int)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.CLIENT, "parts")
    await call.send(2)
    await call.send(3)
    await call.end()
    assert await call.outcome() == End(5)
    call = await client.open(Kind.CLIENT, "parts")
    await call.end()
    assert (await call.failure()).code == "OUTPUT_VALIDATION_ERROR"


@over(Kind.CLIENT)
async def test_a_response_may_be_null(build, connect):
    server = build()

    async def swallow(items):
        async for _ in items:
            pass

    stream(server, Kind.CLIENT, swallow)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.CLIENT, "parts")
    await call.send(1)
    await call.end()
    assert await call.outcome() == End(None)


# Plain handlers


@over(Kind.CLIENT)
async def test_a_plain_handler_reads_items(build, connect):
    server = build()

    def total(items):
        return sum(items)

    stream(server, Kind.CLIENT, total)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.CLIENT, "parts")
    for number in range(100):
        await call.send(number)
    await call.end()
    assert await call.outcome() == End(4950)


@over(Kind.BIDI)
async def test_a_plain_generator_reads_and_sends(build, connect):
    server = build()

    def double(items):
        for item in items:
            yield item * 2
        yield "the end"

    stream(server, Kind.BIDI, double)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts")
    for number in range(3):
        await call.send(number)
        assert await call.data() == number * 2
    await call.end()
    assert await call.all() == (["the end"], End())


@over(Kind.CLIENT)
async def test_a_plain_handler_gets_the_error_of_a_bad_item(build, connect):
    server = build()

    def total(items):
        return sum(items)

    stream(server, Kind.CLIENT, total, input=Annotated[int, Meta(ge=0)])
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.CLIENT, "parts")
    await call.send(1)
    await call.send(-2)
    assert (await call.failure()).code == "VALIDATION_ERROR"


# Both at once


async def echo(items):
    async for item in items:
        yield item


@over(Kind.BIDI)
async def test_each_item_is_answered_before_the_next(build, connect):
    server = build()
    stream(server, Kind.BIDI, echo)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts")
    for value in VALUES:
        await call.send(value)
        assert await call.data() == value
    await call.end()
    assert await call.all() == ([], End())


@over(Kind.BIDI, Can.OPENING)
async def test_a_handler_may_speak_first(build, connect):
    server = build()

    async def hello(items, ctx):
        yield f"hello {ctx.input['name']}"
        async for item in items:
            yield item

    stream(server, Kind.BIDI, hello)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts", {"name": "Kai"})
    assert await call.data() == "hello Kai"
    await call.send(1)
    assert await call.data() == 1
    await call.end()
    assert await call.all() == ([], End())


@over(Kind.BIDI)
async def test_a_handler_goes_on_sending_after_its_clients_end(build, connect):
    server, go_on = build(), asyncio.Event()

    async def after(items):
        total = sum([item async for item in items])
        yield total
        await go_on.wait()
        for number in range(100):
            yield number

    stream(server, Kind.BIDI, after)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts")
    await call.send(1)
    await call.send(2)
    await call.end()
    assert await call.data() == 3
    go_on.set()
    assert await call.all() == (list(range(100)), End())


@over(Kind.BIDI)
async def test_a_handler_may_send_while_it_reads(build, connect):
    server = build()

    async def both(items):
        read = asyncio.create_task(collect(items, None))
        for number in range(5):
            yield number
            await asyncio.sleep(0)
        yield await read

    stream(server, Kind.BIDI, both)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts")
    assert [await call.data() for _ in range(5)] == list(range(5))
    await call.send("late")
    await call.end()
    assert await call.all() == ([["late"]], End())


@over(Kind.BIDI)
async def test_thousands_of_items_go_both_ways(build, connect):
    server = build()
    stream(server, Kind.BIDI, echo)
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts")

    async def send():
        for number in range(5_000):
            await call.send(number)
        await call.end()

    sending = asyncio.create_task(send())
    assert await call.all() == (list(range(5_000)), End())
    await sending


@over(Kind.BIDI)
async def test_items_sent_before_a_bad_one_came_arrive(build, connect):
    server = build()
    stream(server, Kind.BIDI, echo, input=Annotated[int, Meta(ge=0)])
    await server.start()
    client = await connect(server)
    call = await client.open(Kind.BIDI, "parts")
    for item in (1, 2, -3, 4):
        await call.send(item)
    items, outcome = await call.all()
    assert (items, outcome.code) == ([1, 2], "VALIDATION_ERROR")
