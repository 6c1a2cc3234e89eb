"""A session: one opening, one end, whatever ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from raffel_core.context import App, Auth, Context, Outcome
from raffel_core.errors import RaffelError
from raffel_core.route import Origin, Route, make_route
from raffel_core.session import REASONS, Session, timeout_seconds
from raffel_core.stream import RaffelStream, create_stream


def route(handler: Callable[..., Any], **options: Any) -> Route:
    made, problems = make_route("r", handler, origin=Origin("r.stream.py"), **options)
    assert made is not None, problems
    return made


def session(a_route: Route, *, inbound: RaffelStream[Any] | None = None, app: App | None = None) -> Session:
    ctx = Context(a_route.name, protocol="test", app=app or App())
    return Session(a_route, ctx, lambda r: r.input.decode(b"{}"), inbound=inbound)


class Collected:
    """A pump that keeps what it gets, and lets a test wait for a number of items."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.some = asyncio.Event()

    async def __call__(self, opened: Any) -> None:
        async for item in opened:
            self.items.append(item)
            self.some.set()


async def running(a_session: Session, pump: Any) -> asyncio.Task[Outcome]:
    task = asyncio.create_task(a_session.run(pump))
    await asyncio.wait_for(pump.some.wait(), 5)
    return task


async def test_a_handler_that_ends_is_ok() -> None:
    async def handler(input, ctx):
        yield 1
        yield 2

    pump = Collected()
    assert await session(route(handler)).run(pump) == Outcome()
    assert pump.items == [1, 2]


@pytest.mark.parametrize("reason", REASONS)
async def test_every_reason_runs_finally_before_the_session_ends(reason: str) -> None:
    seen: list[Any] = []

    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append(ctx.signal.reason)

    a_session = session(route(handler))
    task = await running(a_session, Collected())
    a_session.cancel(reason)
    outcome = await task
    assert seen == [reason]
    assert (outcome.code, outcome.reason) == (REASONS[reason][0], reason)
    assert outcome.error is not None and outcome.error.details == {"reason": reason}


async def test_the_first_reason_stays() -> None:
    async def handler(input, ctx):
        yield 1
        await asyncio.Event().wait()

    a_session = session(route(handler))
    task = await running(a_session, Collected())
    a_session.cancel("deadline_exceeded")
    a_session.cancel("client_disconnected")
    assert (await task).reason == "deadline_exceeded"


async def test_a_cancel_before_the_first_step_opens_nothing() -> None:
    opened = False

    async def handler(input, ctx):
        nonlocal opened
        opened = True
        yield 1

    a_session = session(route(handler))
    task = asyncio.create_task(a_session.run(Collected()))
    a_session.cancel("client_cancelled")
    assert (await task).reason == "client_cancelled"
    assert not opened


async def test_a_cancel_after_the_end_changes_nothing() -> None:
    async def handler(input, ctx):
        yield 1

    a_session = session(route(handler))
    assert (await a_session.run(Collected())).code == "OK"
    a_session.cancel("client_disconnected")
    assert a_session.reason is None and not a_session.ctx.signal.aborted


async def test_a_swallowed_cancellation_still_ends_for_its_reason() -> None:
    async def handler(input, ctx):
        yield 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    a_session = session(route(handler))
    task = await running(a_session, Collected())
    a_session.cancel("client_cancelled")
    assert (await task).reason == "client_cancelled"


async def test_a_cancel_out_of_the_handler_itself_leaves_the_task_clean() -> None:
    the: list[Session] = []

    async def handler(input, ctx):
        yield 1
        the[0].cancel("client_cancelled")

    the.append(session(route(handler)))
    assert (await the[0].run(Collected())).reason == "client_cancelled"
    await asyncio.sleep(0)  # would raise what is left over
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_somebody_elses_cancellation_is_passed_on_after_the_handler_is_closed() -> None:
    closed = asyncio.Event()

    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.set()

    task = await running(session(route(handler)), Collected())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_an_error_of_the_handler_reaches_the_client_as_it_is() -> None:
    async def handler(input, ctx):
        yield 1
        raise RaffelError("NOT_FOUND", "no such log", details={"log": "x"})

    outcome = await session(route(handler)).run(Collected())
    assert outcome.code == "NOT_FOUND"
    assert outcome.error is not None and outcome.error.to_dict() == {
        "code": "NOT_FOUND",
        "message": "no such log",
        "details": {"log": "x"},
    }


async def test_one_error_in_a_group_is_that_error() -> None:
    async def handler(input, ctx):
        yield 1
        async with asyncio.TaskGroup():
            raise RaffelError("NOT_FOUND", "in a group")

    assert (await session(route(handler)).run(Collected())).code == "NOT_FOUND"


async def test_an_unforeseen_exception_goes_to_the_log_and_not_to_the_client(caplog) -> None:
    async def handler(input, ctx):
        yield 1
        raise ValueError("the password is 1234")

    a_session = session(route(handler))
    with caplog.at_level(logging.ERROR):
        outcome = await a_session.run(Collected())
    assert outcome.error is not None
    assert outcome.code == "INTERNAL_ERROR"
    assert b"1234" not in outcome.error.to_json()
    assert outcome.error.details == {"request_id": a_session.ctx.request_id}
    record = caplog.records[0]
    assert record.exc_info is not None and "1234" in str(record.exc_info[1])
    assert record.request == a_session.ctx.request_id


async def test_in_development_the_client_sees_the_cause() -> None:
    async def handler(input, ctx):
        yield 1
        raise ValueError("what went wrong")

    outcome = await session(route(handler), app=App(debug=True)).run(Collected())
    assert outcome.error is not None
    assert outcome.error.details["error"] == "ValueError: what went wrong"
    assert any("handler" in line for line in outcome.error.details["traceback"])


async def test_the_deadline_ends_the_call() -> None:
    async def handler(input, ctx):
        assert 0 < ctx.remaining() <= 0.01
        yield 1
        await asyncio.Event().wait()

    a_session = session(route(handler))
    a_session.set_deadline(0.01)
    outcome = await a_session.run(Collected())
    assert (outcome.code, outcome.reason) == ("DEADLINE_EXCEEDED", "deadline_exceeded")


@pytest.mark.parametrize(("asked", "own", "counts"), [(5, 1, 1), (1, 5, 1), (None, 3, 3), (3, None, 3)])
async def test_the_smaller_deadline_counts(asked: float | None, own: float | None, counts: float) -> None:
    async def handler(input, ctx):
        assert counts - 1 < ctx.remaining() <= counts
        yield 1

    a_session = session(route(handler, meta={} if own is None else {"deadline": own}))
    a_session.set_deadline(asked)
    assert (await a_session.run(Collected())).code == "OK"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "+5", "٣", "9" * 16])
def test_a_timeout_that_is_no_positive_integer_is_refused(text: str) -> None:
    with pytest.raises(RaffelError) as raised:
        timeout_seconds(text)
    assert raised.value.code == "INVALID_ARGUMENT"


def test_a_timeout_is_milliseconds() -> None:
    assert timeout_seconds("1500") == 1.5
    assert timeout_seconds(None) is None


async def test_the_opening_is_authentication_then_input_then_interceptors_then_handler() -> None:
    order: list[str] = []

    async def authenticate(ctx):
        order.append("authentication")
        return Auth("kai")

    async def interceptor(call, call_next):
        assert call.ctx.auth.principal == "kai"
        order.append("interceptor")
        return await call_next(call)

    async def handler(input, ctx):
        order.append("handler")
        yield 1

    def decode(a_route):
        order.append("input")

    a_route = route(handler, interceptors=[interceptor], authenticate=authenticate)
    await Session(a_route, Context("r", protocol="test", app=App()), decode).run(Collected())
    assert order == ["authentication", "input", "interceptor", "handler"]


async def test_on_close_runs_last_added_first_after_finally_whatever_one_raises(caplog) -> None:
    order: list[Any] = []

    async def handler(input, ctx):
        async def last(outcome):
            order.append(("async", outcome.code))

        ctx.on_close(last)
        ctx.on_close(lambda outcome: 1 / 0)
        ctx.on_close(lambda outcome: order.append(("first", outcome.code)))
        try:
            yield 1
        finally:
            order.append("finally")

    await session(route(handler)).run(Collected())
    assert order == ["finally", ("first", "OK"), ("async", "OK")]
    assert "on_close" in caplog.text


async def test_a_wrapped_iterator_does_not_keep_the_handler_from_its_finally() -> None:
    closed: list[str] = []

    async def wrap(call, call_next):
        inner = await call_next(call)

        async def outer() -> AsyncIterator[Any]:
            async for item in inner:
                yield item

        return outer()

    async def handler(input, ctx):
        try:
            yield 1
            yield 2
        finally:
            closed.append(ctx.signal.reason)

    a_session = session(route(handler, interceptors=[wrap]))

    async def stop_at_the_first(opened: Any) -> None:
        async for _ in opened:
            a_session.cancel("client_disconnected")
            await asyncio.sleep(0)

    await a_session.run(stop_at_the_first)
    assert closed == ["client_disconnected"]


async def test_a_returned_stream_is_cancelled_with_the_reason() -> None:
    items = create_stream()

    async def handler(input, ctx):
        items.try_write(1)
        return items

    a_session = session(route(handler))
    task = await running(a_session, Collected())
    a_session.cancel("client_disconnected")
    await task
    with pytest.raises(RaffelError, match="client_disconnected"):
        items.try_write(2)


async def test_a_client_stream_gives_its_handler_the_items_and_ctx_input_the_opening() -> None:
    inbound = create_stream()
    for item in (1, 2, 3):
        inbound.try_write(item)
    inbound.end()

    async def handler(items, ctx):
        assert ctx.input == {}
        return sum([item async for item in items])

    results = []

    async def keep(result: Any) -> None:
        results.append(result)

    a_session = session(route(handler, meta={"direction": "client"}), inbound=inbound)
    assert (await a_session.run(keep)).code == "OK"
    assert results == [6]


async def test_cancelling_wakes_a_handler_that_waits_for_items() -> None:
    inbound = create_stream()
    ended: list[str] = []

    async def handler(items, ctx):
        try:
            yield 0
            async for item in items:
                yield item
        finally:
            ended.append(ctx.signal.reason)

    a_session = session(route(handler, meta={"direction": "bidi"}), inbound=inbound)
    task = await running(a_session, Collected())
    a_session.cancel("client_cancelled")
    assert (await task).reason == "client_cancelled"
    assert ended == ["client_cancelled"]


# Restart in place


async def test_a_restart_goes_on_with_the_new_route_and_the_last_id() -> None:
    seen: list[Any] = []

    async def old(input, ctx):
        ctx.on_close(lambda outcome: seen.append(outcome.reason))
        try:
            yield "old"
            await asyncio.Event().wait()
        finally:
            seen.append(ctx.signal.reason)

    async def new(input, ctx):
        seen.append((ctx.restarted, ctx.last_event_id, ctx.signal.aborted))
        yield "new"

    a_session, pump = session(route(old)), Collected()
    request_id = a_session.ctx.request_id
    task = await running(a_session, pump)
    a_session.last_event_id = "7"
    a_session.restart(route(new), App())
    assert (await task).code == "OK"
    assert pump.items == ["old", "new"]
    assert seen == ["reloaded", "reloaded", (True, "7", False)]
    assert a_session.ctx.request_id == request_id


async def test_a_client_that_leaves_during_a_restart_is_not_restarted() -> None:
    closing, go_on = asyncio.Event(), asyncio.Event()

    async def old(input, ctx):
        try:
            yield "old"
            await asyncio.Event().wait()
        finally:
            closing.set()
            await go_on.wait()

    async def new(input, ctx):
        yield "new"

    a_session, pump = session(route(old)), Collected()
    task = await running(a_session, pump)
    a_session.restart(route(new), App())
    await closing.wait()
    a_session.cancel("client_disconnected")
    go_on.set()
    assert (await task).reason == "client_disconnected"
    assert pump.items == ["old"]


async def test_two_restarts_at_once_end_on_the_newest_route() -> None:
    async def old(input, ctx):
        yield "old"
        await asyncio.Event().wait()

    async def newer(input, ctx):
        yield "newer"

    async def newest(input, ctx):
        yield "newest"

    a_session, pump = session(route(old)), Collected()
    task = await running(a_session, pump)
    a_session.restart(route(newer), App())
    a_session.restart(route(newest), App())
    await task
    assert pump.items == ["old", "newest"]


async def test_a_restart_before_the_first_step_opens_only_the_new_route() -> None:
    async def old(input, ctx):
        yield "old"

    async def new(input, ctx):
        yield "new"

    a_session, pump = session(route(old)), Collected()
    task = asyncio.create_task(a_session.run(pump))
    a_session.restart(route(new), App())
    assert (await task).code == "OK"
    assert pump.items == ["new"]


async def test_an_input_that_no_longer_fits_ends_as_reloaded() -> None:
    async def old(input, ctx):
        yield "old"
        await asyncio.Event().wait()

    async def new(input: int, ctx):
        yield "new"

    a_session = session(route(old))
    task = await running(a_session, Collected())
    a_session.restart(route(new), App())
    outcome = await task
    assert (outcome.code, outcome.reason) == ("UNAVAILABLE", "reloaded")


async def test_the_deadline_of_a_restarted_call_stays() -> None:
    async def old(input, ctx):
        yield "old"
        await asyncio.Event().wait()

    async def new(input, ctx):
        yield ctx.deadline
        await asyncio.Event().wait()

    a_session, pump = session(route(old)), Collected()
    a_session.set_deadline(0.2)
    deadline = a_session.ctx.deadline
    task = await running(a_session, pump)
    a_session.restart(route(new), App())
    assert (await task).reason == "deadline_exceeded"
    assert pump.items == ["old", deadline]
