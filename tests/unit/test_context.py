"""The context: the signal, the deadline, what runs at the close, and the fields of an event."""

from __future__ import annotations

import asyncio
import time

import pytest

from raffel_core.context import MAX_ID, App, Auth, CancelSignal, Context, Event, Outcome, tracked
from raffel_core.errors import RaffelError


def a_context(**options) -> Context:
    return Context("r", **{"protocol": "test", "app": App(), **options})


# The signal


def test_a_signal_is_set_once_and_the_first_reason_stays() -> None:
    signal = CancelSignal()
    assert (signal.aborted, signal.reason) == (False, None)
    signal.abort("client_disconnected")
    signal.abort("deadline_exceeded")
    assert (signal.aborted, signal.reason) == (True, "client_disconnected")


async def test_any_number_of_tasks_may_wait_for_it() -> None:
    signal = CancelSignal()
    tasks = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    signal.abort("reloaded")
    assert await asyncio.gather(*tasks) == ["reloaded"] * 3


async def test_waiting_for_one_that_is_set_does_not_wait() -> None:
    signal = CancelSignal()
    signal.abort("reloaded")
    assert await signal.wait() == "reloaded"


async def test_a_wait_that_is_cancelled_disturbs_nobody_and_leaves_nothing() -> None:
    signal = CancelSignal()
    other = asyncio.create_task(signal.wait())
    for _ in range(100):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(signal.wait(), 0.0001)
    assert len(signal._waiters) == 1
    signal.abort("reloaded")
    assert await other == "reloaded"


async def test_a_wait_that_is_cancelled_as_the_signal_is_set_is_cancelled() -> None:
    signal = CancelSignal()
    task = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    signal.abort("reloaded")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# The context


def test_its_defaults() -> None:
    ctx = a_context()
    assert (ctx.route, ctx.protocol, ctx.peer) == ("r", "test", "")
    assert (dict(ctx.params), dict(ctx.metadata), ctx.input, ctx.auth) == ({}, {}, None, None)
    assert (ctx.last_event_id, ctx.restarted, ctx.deadline, ctx.remaining()) == (None, False, None, None)


def test_the_request_id_stays_and_is_its_own() -> None:
    one, other = a_context(), a_context()
    assert one.request_id == one.request_id != other.request_id


def test_the_state_is_the_calls_own() -> None:
    one, other = a_context(), a_context()
    one.state.user = "kai"
    assert one.state.user == "kai"
    assert not hasattr(other.state, "user")


def test_what_remains_until_the_deadline_is_never_below_zero() -> None:
    assert 50 < a_context(deadline=time.monotonic() + 60).remaining() <= 60
    assert a_context(deadline=time.monotonic() - 60).remaining() == 0


def test_auth_has_a_principal_roles_and_claims() -> None:
    assert (Auth().principal, list(Auth().roles), dict(Auth().claims)) == ("", [], {})
    auth = Auth("kai", ["admin"], {"org": 1})
    assert (auth.principal, auth.roles, auth.claims) == ("kai", ["admin"], {"org": 1})
    with pytest.raises(AttributeError):
        auth.principal = "eve"


# The close


async def test_what_was_added_last_runs_first_and_once() -> None:
    ctx, order = a_context(), []
    ctx.on_close(lambda outcome: order.append(("a", outcome.code)))
    ctx.on_close(lambda outcome: order.append(("b", outcome.code)))
    await ctx.close(Outcome("NOT_FOUND"))
    await ctx.close(Outcome())
    assert order == [("b", "NOT_FOUND"), ("a", "NOT_FOUND")]


async def test_a_callback_may_be_a_coroutine() -> None:
    ctx, order = a_context(), []

    async def later(outcome):
        await asyncio.sleep(0)
        order.append(outcome.reason)

    ctx.on_close(later)
    await ctx.close(Outcome("CANCELLED", "client_cancelled"))
    assert order == ["client_cancelled"]


async def test_one_that_fails_is_logged_and_keeps_no_other_from_running(caplog) -> None:
    ctx, order = a_context(), []

    def fail(outcome):
        raise ValueError("broken")

    ctx.on_close(lambda outcome: order.append(1))
    ctx.on_close(fail)
    await ctx.close(Outcome())
    assert order == [1]
    assert "broken" in caplog.text


# Other contexts


async def test_a_context_of_no_server_reaches_no_other_route() -> None:
    with pytest.raises(RaffelError) as caught:
        await a_context().call("other")
    assert caught.value.code == "FAILED_PRECONDITION"
    with pytest.raises(RaffelError):
        a_context().stream("other")


def test_a_child_shares_the_signal_the_deadline_the_app_and_the_client() -> None:
    parent = a_context(peer="127.0.0.1:1", metadata={"x": "y"}, deadline=5.0, last_event_id="7")
    parent.on_close(lambda outcome: None)
    child = parent.child("rooms.[room].chat", {"room": "42"})
    assert (child.route, dict(child.params)) == ("rooms.[room].chat", {"room": "42"})
    assert child.signal is parent.signal and child.app is parent.app
    assert (child.deadline, child.peer, child.metadata, child.protocol) == (5.0, "127.0.0.1:1", {"x": "y"}, "test")
    assert child.request_id == parent.request_id
    assert (child.last_event_id, child.auth, child.input) == (None, None, None)


def test_a_successor_is_the_same_call_on_new_code() -> None:
    old = a_context(params={"room": "42"}, metadata={"x": "y"}, deadline=5.0)
    old.auth, old.state.word = Auth("kai"), "old"
    old.signal.abort("reloaded")
    app = App()
    new = old.successor(app, "17")
    assert (new.app, new.last_event_id, new.restarted) == (app, "17", True)
    assert (new.params, new.metadata, new.deadline) == ({"room": "42"}, {"x": "y"}, 5.0)
    assert new.request_id == old.request_id
    assert not new.signal.aborted and new.auth is None and not hasattr(new.state, "word")


# Events


def test_an_event_carries_its_fields() -> None:
    event = Event({"x": 1}, id="a", event="tick", retry=100)
    assert (event.data, event.id, event.event, event.retry) == ({"x": 1}, "a", "tick", 100)
    assert repr(event) == "Event({'x': 1}, id='a', event='tick', retry=100)"
    assert (Event(1).id, Event(1).event, Event(1).retry) == (None, None, None)


def test_tracked_gives_an_item_an_id() -> None:
    event = tracked(7, "item")
    assert (event.data, event.id) == ("item", "7")


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "a\nb"},
        {"id": "a\rb"},
        {"id": "a\0b"},
        {"id": ""},
        {"id": "raffel:end"},
        {"id": "raffel:x"},
        {"id": "x" * (MAX_ID + 1)},
        {"id": "\u00e9" * (MAX_ID // 2 + 1)},
        {"id": 1.5},
        {"id": True},
        {"id": b"a"},
        {"event": "a\nb"},
        {"event": "a\rb"},
        {"event": "a\0b"},
        {"event": ""},
        {"event": "end"},
        {"event": "error"},
        {"event": 1},
        {"retry": -1},
        {"retry": 1.5},
        {"retry": True},
        {"retry": "1"},
    ],
)
def test_a_field_that_cannot_be_sent_is_refused(fields) -> None:
    with pytest.raises(RaffelError) as caught:
        Event(1, **fields)
    (name,) = fields
    assert caught.value.code == "OUTPUT_VALIDATION_ERROR"
    assert caught.value.details[0]["path"] == name


@pytest.mark.parametrize("id", ["0", 0, -1, "x" * MAX_ID, "\u00e9" * (MAX_ID // 2), "a b", "\u2028", "Raffel:end"])
def test_any_other_id_is_taken(id) -> None:
    assert Event(1, id=id).id == str(id)


def test_a_retry_of_zero_is_one() -> None:
    assert Event(1, retry=0).retry == 0
