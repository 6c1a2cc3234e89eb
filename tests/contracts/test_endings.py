"""Whatever ends a call early reaches its handler, with a reason, before the call counts as ended."""

from __future__ import annotations

import asyncio
import threading

import pytest

from raffel_core import RaffelError, create_stream
from raffel_core.route import Kind

from .clients.call import Can, Cut, End
from .clients.table import every_call, every_protocol, over
from .handlers import Watched, define

WRITES = [Kind.SERVER, Kind.BIDI]


# An end of its own


@every_call()
async def test_a_call_that_ends_by_itself_has_no_reason(build, connect, eventually, kind):
    server, watched = build(), Watched()
    watched.go_on.set()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", {})).value() == "done"
    await eventually(lambda: watched.steps == [None, ("OK", None)])


@every_call()
async def test_on_close_knows_the_code_of_the_error(build, connect, eventually, kind):
    server, closed = build(), []

    async def body(ctx):
        ctx.on_close(lambda outcome: closed.append((outcome.code, outcome.reason)))
        raise RaffelError("NOT_FOUND")

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    await (await client.open(kind, "call", {})).failure()
    await eventually(lambda: closed == [("NOT_FOUND", None)])


@every_call(kinds=WRITES)
async def test_the_handler_has_cleaned_up_when_the_end_arrives(build, connect, kind):
    server, cleaned = build(), []

    @server.stream("items", direction=str(kind))
    async def items():
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "items")).all() == ([1], End())
    assert cleaned


# Cancelled by the client


@every_call(Can.CANCEL)
async def test_a_cancelled_call_ends_so_and_its_handler_was_told(build, connect, eventually, kind):
    server, watched = build(), Watched()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await watched.began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    await eventually(lambda: watched.steps == ["client_cancelled", ("CANCELLED", "client_cancelled")])


@every_call(Can.CANCEL, kinds=WRITES)
async def test_a_stream_that_is_busy_is_cancelled_as_well(build, connect, eventually, kind):
    server, reasons = build(), []

    @server.stream("busy", direction=str(kind))
    async def busy(input, ctx):
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    client = await connect(server)
    call = await client.open(kind, "busy")
    await call.item()
    await call.cancel()
    items, outcome = await call.all()
    assert outcome.code == "CANCELLED" and items == list(range(1, 1 + len(items)))
    await eventually(lambda: reasons == ["client_cancelled"])


@every_call(Can.CANCEL)
async def test_a_cancelled_call_harms_no_other(build, connect, kind):
    server, watched = build(), {name: Watched() for name in "ab"}
    for name in "ab":
        define(server, kind, watched[name], name)
    await server.start()
    client = await connect(server)
    calls = {name: await client.open(kind, name, {}) for name in "ab"}
    for name in "ab":
        await watched[name].began.wait()
    await calls["a"].cancel()
    assert (await calls["a"].failure()).code == "CANCELLED"
    watched["b"].go_on.set()
    assert await calls["b"].value() == "done"


@every_call(Can.CANCEL)
async def test_who_waits_for_the_signal_is_told_the_reason(build, connect, eventually, kind):
    server, began, reasons = build(), asyncio.Event(), []

    async def body(ctx):
        async def wait():
            reasons.append(await ctx.signal.wait())

        task = asyncio.create_task(wait())
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await task

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    await eventually(lambda: reasons == ["client_cancelled"])


@every_protocol(Can.CANCEL)
async def test_to_cancel_a_call_that_has_ended_does_nothing(build, connect, kind):
    server, watched = build(), Watched()
    watched.go_on.set()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    assert await call.value() == "done"
    await call.cancel()
    assert await (await client.open(kind, "call", {})).value() == "done"


@over(Kind.SERVER, Can.CANCEL)
async def test_a_plain_generator_is_cancelled_at_its_next_item(build, connect, eventually):
    server, reasons, go_on = build(), [], threading.Event()

    @server.stream("plain")
    def plain(input, ctx):
        try:
            yield 1
            go_on.wait(5)
            yield 2
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "plain")
    await call.item()
    await call.cancel()
    go_on.set()
    items, outcome = await call.all()
    assert outcome.code == "CANCELLED" and items in ([], [2])
    await eventually(lambda: reasons == ["client_cancelled"])


@over(Kind.SERVER, Can.CANCEL)
async def test_a_stream_of_its_own_is_cancelled_with_the_reason(build, connect, eventually):
    server, stream = build(), create_stream()

    @server.stream("own")
    async def own():
        stream.try_write(1)
        return stream

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "own")
    await call.item()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    await eventually(lambda: stream.errored)
    with pytest.raises(RaffelError, match="client_cancelled"):
        await stream.write(2)


@every_call(Can.CANCEL)
async def test_a_call_that_is_cancelled_at_once_ends_once(build, connect, kind):
    server, watched = build(), Watched()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await call.cancel()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    watched.go_on.set()
    assert await (await client.open(kind, "call", {})).value() == "done"


@every_call(Can.CANCEL)
async def test_a_call_that_is_still_being_opened_can_be_cancelled(build, connect, eventually, kind):
    server, began, reasons, called = build(), asyncio.Event(), [], []

    async def slow(call, call_next):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(call.ctx.signal.reason)

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body, use=[slow])
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    await eventually(lambda: reasons == ["client_cancelled"])
    assert not called


@every_call(Can.CANCEL)
async def test_a_handler_is_told_before_its_client_is_answered_but_may_clean_up_longer(build, connect, kind):
    server, began, told, clean = build(), asyncio.Event(), [], asyncio.Event()

    async def body(ctx):
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            told.append(ctx.signal.reason)
            await clean.wait()

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"
    assert told == ["client_cancelled"]
    clean.set()


@every_call(Can.CANCEL)
async def test_a_handler_that_ignores_its_cancellation_changes_nothing(build, connect, kind):
    server, began = build(), asyncio.Event()

    async def body(ctx):
        try:
            began.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "still here"

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"


@every_call(Can.CANCEL)
async def test_what_a_handler_raises_while_it_is_cancelled_changes_nothing(build, connect, kind):
    server, began = build(), asyncio.Event()

    async def body(ctx):
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            raise RaffelError("DATA_LOSS", "in the cleaning up")

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await began.wait()
    await call.cancel()
    assert (await call.failure()).code == "CANCELLED"


@every_call()
async def test_a_cancellation_of_the_handlers_own_is_an_error_nobody_foresaw(build, connect, kind):
    server = build()

    async def body(ctx):
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert (await (await client.open(kind, "call", {})).failure()).code == "INTERNAL_ERROR"


# The client has gone


@every_call()
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_a_handler_whose_client_has_gone_is_told(build, connect, eventually, kind, reset):
    server, watched = build(), Watched()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await watched.began.wait()
    await call.leave(reset=reset)
    await eventually(lambda: watched.steps == ["client_disconnected", ("CANCELLED", "client_disconnected")])


@every_call(kinds=WRITES)
async def test_one_that_is_sending_is_told(build, connect, eventually, kind):
    server, reasons = build(), []

    @server.stream("items", direction=str(kind))
    async def items(input, ctx):
        try:
            while True:
                yield "item"
                await asyncio.sleep(0)
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    client = await connect(server)
    call = await client.open(kind, "items")
    await call.item()
    await call.leave()
    await eventually(lambda: reasons == ["client_disconnected"])


@every_protocol(Can.SHARE)
async def test_all_calls_of_a_connection_end_with_it(build, connect, eventually, kind):
    server, watched = build(), [Watched() for _ in range(3)]
    for number, one in enumerate(watched):
        define(server, kind, one, f"call.n{number}")
    await server.start()
    client = await connect(server)
    calls = [await client.open(kind, f"call.n{number}", {}) for number in range(3)]
    for one in watched:
        await one.began.wait()
    await calls[1].leave()
    await eventually(lambda: [one.steps[:1] for one in watched] == [["client_disconnected"]] * 3)
    assert [await call.outcome() for call in calls] == [Cut()] * 3


@over(Kind.SERVER)
async def test_a_stream_of_its_own_whose_client_has_gone_is_cancelled(build, connect, eventually):
    server, stream = build(), create_stream()

    @server.stream("own")
    async def own():
        stream.try_write(1)
        return stream

    await server.start()
    client = await connect(server)
    call = await client.open(Kind.SERVER, "own")
    await call.item()
    await call.leave()
    await eventually(lambda: stream.errored)
    with pytest.raises(RaffelError, match="client_disconnected"):
        await stream.write(2)


@every_protocol()
async def test_other_clients_stay(build, connect, eventually, kind):
    server, watched = build(), {name: Watched() for name in "ab"}
    for name in "ab":
        define(server, kind, watched[name], name)
    await server.start()
    calls = {name: await (await connect(server)).open(kind, name, {}) for name in "ab"}
    for name in "ab":
        await watched[name].began.wait()
    await calls["a"].leave()
    await eventually(lambda: watched["a"].steps)
    watched["b"].go_on.set()
    assert await calls["b"].value() == "done"


@every_call()
async def test_a_call_that_is_still_being_opened_ends_with_its_client(build, connect, eventually, kind):
    server, began, reasons, called = build(), asyncio.Event(), [], []

    async def slow(call, call_next):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(call.ctx.signal.reason)

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body, use=[slow])
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", {})
    await began.wait()
    await call.leave()
    await eventually(lambda: reasons == ["client_disconnected"])
    assert not called


# The client has stopped reading


class Flood:
    """A stream of numbers with some weight that ends when it is told to."""

    def __init__(self):
        self.sent = 0
        self.over = False
        self.reasons = []

    async def handler(self, input, ctx):
        try:
            while not self.over:
                yield [self.sent, "x" * 1_000]
                self.sent += 1
        finally:
            self.reasons.append(ctx.signal.reason)


@every_call(kinds=WRITES)
async def test_a_client_that_stops_reading_stops_the_handler_and_loses_nothing(build, connect, stands_still, kind):
    server, flood = build(), Flood()
    server.stream("flood", direction=str(kind)).handler(flood.handler)
    await server.start()
    client = await connect(server)
    client.pause()
    call = await client.open(kind, "flood")
    await stands_still(lambda: flood.sent)
    flood.over = True
    client.resume()
    items, end = await call.all()
    assert [number for number, _ in items] == list(range(flood.sent))
    assert end == End()


@every_call(Can.CANCEL, kinds=WRITES)
async def test_a_client_that_stops_reading_may_still_cancel(build, connect, stands_still, eventually, kind):
    server, flood = build(), Flood()
    server.stream("flood", direction=str(kind)).handler(flood.handler)
    await server.start()
    client = await connect(server)
    client.pause()
    call = await client.open(kind, "flood")
    await stands_still(lambda: flood.sent)
    await call.cancel()
    await eventually(lambda: flood.reasons == ["client_cancelled"])
    client.resume()
    items, outcome = await call.all()
    assert outcome.code == "CANCELLED"
    assert [number for number, _ in items] == list(range(len(items)))


@every_call(kinds=WRITES)
async def test_a_client_that_stops_reading_and_leaves_is_noticed(build, connect, stands_still, eventually, kind):
    server, flood = build(), Flood()
    server.stream("flood", direction=str(kind)).handler(flood.handler)
    await server.start()
    client = await connect(server)
    client.pause()
    call = await client.open(kind, "flood")
    await stands_still(lambda: flood.sent)
    await call.leave()
    await eventually(lambda: flood.reasons == ["client_disconnected"])


# The deadline


@every_call()
async def test_a_call_ends_when_the_time_that_its_client_gave_is_over(build, connect, kind):
    server, watched = build(), Watched()
    define(server, kind, watched)
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "call", {}, timeout_ms=30)).failure()
    assert (failure.code, failure.details) == ("DEADLINE_EXCEEDED", {"reason": "deadline_exceeded"})
    assert watched.steps == ["deadline_exceeded", ("DEADLINE_EXCEEDED", "deadline_exceeded")]


@every_call()
async def test_a_call_ends_when_the_time_of_its_route_is_over(build, connect, kind):
    server, watched = build(), Watched()
    define(server, kind, watched, deadline=0.03)
    await server.start()
    client = await connect(server)
    assert (await (await client.open(kind, "call", {})).failure()).code == "DEADLINE_EXCEEDED"
    assert watched.steps[0] == "deadline_exceeded"


@every_call()
async def test_the_smaller_time_counts(build, connect, kind):
    server = build()

    async def body(ctx):
        return ctx.remaining()

    define(server, kind, body, "none")
    define(server, kind, body, "hour", deadline=3600)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "none", {})).value() is None
    assert 50 < await (await client.open(kind, "none", {}, timeout_ms=60_000)).value() <= 60
    assert 50 < await (await client.open(kind, "hour", {}, timeout_ms=60_000)).value() <= 60
    assert 3500 < await (await client.open(kind, "hour", {}, timeout_ms=36_000_000)).value() <= 3600
    assert 3500 < await (await client.open(kind, "hour", {})).value() <= 3600


@every_call(kinds=WRITES)
async def test_items_before_the_deadline_arrive(build, connect, kind):
    server = build()

    @server.stream("items", direction=str(kind), deadline=0.03)
    async def items():
        yield 1
        yield 2
        await asyncio.Event().wait()

    await server.start()
    client = await connect(server)
    found, outcome = await (await client.open(kind, "items")).all()
    assert (found, outcome.code) == ([1, 2], "DEADLINE_EXCEEDED")


@every_protocol()
async def test_a_deadline_harms_no_other_call(build, connect, kind):
    server, watched = build(), {name: Watched() for name in "ab"}
    for name in "ab":
        define(server, kind, watched[name], name)
    await server.start()
    client = await connect(server)
    calls = {"a": await client.open(kind, "a", {}, timeout_ms=20), "b": await client.open(kind, "b", {})}
    assert (await calls["a"].failure()).code == "DEADLINE_EXCEEDED"
    watched["b"].go_on.set()
    assert await calls["b"].value() == "done"


@every_call()
async def test_the_time_runs_while_a_call_is_being_opened(build, connect, kind):
    server, called = build(), []

    async def slow(call, call_next):
        await asyncio.Event().wait()

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body, use=[slow], deadline=0.02)
    await server.start()
    client = await connect(server)
    assert (await (await client.open(kind, "call", {})).failure()).code == "DEADLINE_EXCEEDED"
    assert not called


# How many calls


@every_call()
async def test_fifty_calls_of_one_client_run_at_once(build, connect, kind):
    server, waiting, all_here = build(), [], asyncio.Event()

    async def body(ctx):
        waiting.append(ctx)
        if len(waiting) == 50:
            all_here.set()
        await all_here.wait()
        return ctx.params["number"]

    define(server, kind, body, "call.[number]")
    await server.start()
    client = await connect(server)
    calls = [await client.open(kind, f"call.{number}", {}) for number in range(50)]
    assert [await call.value() for call in calls] == [str(number) for number in range(50)]


@every_call(kinds=WRITES)
async def test_a_busy_stream_lets_others_have_their_turn(build, connect, kind):
    server, flood = build(), Flood()
    server.stream("flood", direction=str(kind)).handler(flood.handler)

    @server.stream("few", direction=str(kind))
    async def few():
        for number in range(3):
            yield number
            await asyncio.sleep(0)

    await server.start()
    client = await connect(server)
    busy = await client.open(kind, "flood")
    await busy.item()
    assert await (await client.open(kind, "few")).all() == ([0, 1, 2], End())
    flood.over = True
    assert await busy.outcome() == End()


@every_call(Can.SHARE)
async def test_one_call_too_many_is_refused_and_the_others_unharmed(build, connect, kind):
    server, watched = build(limits={"streams_per_connection": 2}), [Watched(), Watched()]
    for number, one in enumerate(watched):
        define(server, kind, one, f"call.n{number}")
    await server.start()
    client = await connect(server)
    calls = [await client.open(kind, f"call.n{number}", {}) for number in range(2)]
    for one in watched:
        await one.began.wait()
    assert (await (await client.open(kind, "call.n0", {})).failure()).code == "RESOURCE_EXHAUSTED"
    for one in watched:
        one.go_on.set()
    assert [await call.value() for call in calls] == ["done", "done"]
    assert await (await client.open(kind, "call.n0", {})).value() == "done"


@every_protocol(Can.SHARE)
async def test_another_connection_has_its_own_number(build, connect, kind):
    server, watched = build(limits={"streams_per_connection": 1}), Watched()
    define(server, kind, watched)
    await server.start()
    calls = [await (await connect(server)).open(kind, "call", {}) for _ in range(3)]
    watched.go_on.set()
    assert [await call.value() for call in calls] == ["done"] * 3
