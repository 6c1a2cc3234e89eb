"""A lifespan: set up, held, cleaned up, all in one task; and what becomes of one that fails or does not end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import Any

import pytest

from raffel_core.context import App
from raffel_core.lifespan import Lifespan, RunningLifespan


async def started(lifespan: Lifespan, app: App | None = None) -> RunningLifespan:
    running = RunningLifespan(lifespan)
    await running.start(app or App())
    return running


async def test_it_runs_up_to_its_yield_and_then_on() -> None:
    steps = []

    async def lifespan(app):
        app.state.x = 1
        steps.append("up")
        yield
        steps.append("down")

    app = App()
    running = await started(lifespan, app)
    assert steps == ["up"]
    assert app.state.x == 1
    await running.stop(1)
    assert steps == ["up", "down"]


async def test_it_is_set_up_whole_before_start_returns() -> None:
    steps = []

    async def lifespan(app):
        await asyncio.sleep(0.01)
        steps.append("up")
        yield

    running = await started(lifespan)
    assert steps == ["up"]
    await running.stop(1)


async def test_a_context_variable_and_the_task_are_the_same_after_the_yield() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    async def lifespan(app):
        token = variable.set("mine")
        seen.append(asyncio.current_task())
        yield
        variable.reset(token)
        seen.append(asyncio.current_task())

    running = await started(lifespan)
    await running.stop(1)
    assert seen[0] is seen[1]


async def test_a_task_group_can_be_held_across_the_yield() -> None:
    ended = []

    async def lifespan(app):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(60))
            yield
            task.cancel()
        ended.append(task.cancelled())

    running = await started(lifespan)
    await running.stop(1)
    assert ended == [True]


async def test_what_the_setting_up_raises_is_raised() -> None:
    async def lifespan(app):
        raise ConnectionError("no database")
        yield

    with pytest.raises(ConnectionError, match="no database"):
        await started(lifespan)


async def test_one_without_a_yield_is_told() -> None:
    async def lifespan(app):
        if app is None:
            yield

    with pytest.raises(RuntimeError, match="ended without a `yield`"):
        await started(lifespan)


async def test_what_the_cleaning_up_raises_is_raised() -> None:
    async def lifespan(app):
        yield
        raise ValueError("broken")

    running = await started(lifespan)
    with pytest.raises(ValueError, match="broken"):
        await running.stop(1)


async def test_a_second_yield_is_told_and_the_rest_is_closed() -> None:
    closed = []

    async def lifespan(app):
        try:
            yield
            yield
        finally:
            closed.append(True)

    running = await started(lifespan)
    with pytest.raises(RuntimeError, match="yielded a second time"):
        await running.stop(1)
    assert closed == [True]


async def test_a_start_that_is_cancelled_cancels_the_setting_up() -> None:
    ended = []

    async def lifespan(app):
        try:
            await asyncio.Event().wait()
            yield
        finally:
            ended.append(True)

    task = asyncio.create_task(RunningLifespan(lifespan).start(App()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_a_cleaning_up_that_takes_too_long_is_cancelled() -> None:
    ended = []

    async def lifespan(app):
        yield
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    running = await started(lifespan)
    with pytest.raises(TimeoutError):
        await running.stop(0.01)
    assert ended == [True]


async def test_one_that_refuses_to_be_cancelled_is_left() -> None:
    release = asyncio.Event()

    async def lifespan(app):
        yield
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    running = await started(lifespan)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.stop(0.01), 5)
    release.set()


async def test_without_any_time_what_needs_none_is_cleaned_up() -> None:
    ended = []

    async def lifespan(app):
        try:
            yield
        finally:
            ended.append(True)

    running = await started(lifespan)
    await running.stop(0)
    assert ended == [True]


async def test_a_task_of_its_own_that_fails_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    fail, ended = asyncio.Event(), []

    async def work():
        await fail.wait()
        raise ValueError("broken")

    async def lifespan(app):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
                yield
        finally:
            ended.append(True)

    running = await started(lifespan)
    fail.set()
    async with asyncio.timeout(5):
        while not ended:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    assert caplog.messages == ["`lifespan` failed while the server was running"]
    assert "broken" in caplog.text
    await running.stop(1)  # it has nothing to clean up any more


async def test_stopping_twice_is_stopping_once() -> None:
    steps = []

    async def lifespan(app):
        yield
        steps.append("down")

    running = await started(lifespan)
    await running.stop(1)
    await running.stop(1)
    await RunningLifespan(lifespan).stop(1)
    assert steps == ["down"]
