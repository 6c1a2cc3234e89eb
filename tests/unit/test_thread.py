"""Plain functions in threads: affinity, cancellation at the next `yield`, the limit, and nothing lost on the way."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from raffel_core import thread
from raffel_core.errors import RaffelError
from raffel_core.stream import create_stream
from raffel_core.thread import LIMIT, PlainInput, PlainItems, alone, busy, call

PATIENCE = 10


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
async def every_worker_is_given_back() -> AsyncIterator[None]:
    before = busy()
    yield
    await until(lambda: busy() == before)


class Gate:
    """Holds threads until it is opened, and counts those that came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = threading.Event()
        self.came = 0

    def pass_through(self) -> None:
        with self._lock:
            self.came += 1
        assert self._open.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


# Functions


async def test_a_function_runs_in_another_thread() -> None:
    assert await call(threading.get_ident) != threading.get_ident()


async def test_its_arguments_and_its_result_pass() -> None:
    assert await call(divmod, 7, 3) == (2, 1)


async def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise RaffelError("NOT_FOUND", "no such thing")

    with pytest.raises(RaffelError, match="no such thing"):
        await call(fail)


async def test_a_stop_iteration_becomes_an_error_that_a_coroutine_can_raise() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await call(next, iter(()))


async def test_the_loop_goes_on_meanwhile(gate: Gate) -> None:
    task = asyncio.create_task(call(gate.pass_through))
    await until(lambda: gate.came)
    assert not task.done()
    gate.open()
    await task


async def test_it_has_the_context_variables_of_its_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")

    def look() -> str:
        found = variable.get()
        variable.set("there")
        return found

    assert await call(look) == "here"
    assert variable.get() == "here"


async def test_cancelled_it_waits_for_the_thread(gate: Gate) -> None:
    task = asyncio.create_task(call(gate.pass_through))
    await until(lambda: gate.came)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_twice_it_waits_no_more(gate: Gate) -> None:
    task = asyncio.create_task(call(gate.pass_through))
    await until(lambda: gate.came)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert busy() == 1  # until its thread is done
    gate.open()


# Iterators


async def test_items_come_in_order() -> None:
    assert [item async for item in PlainItems(lambda: range(5))] == [0, 1, 2, 3, 4]


async def test_every_step_runs_in_one_and_the_same_thread() -> None:
    def idents() -> Iterator[int]:
        try:
            for _ in range(50):
                yield threading.get_ident()
        finally:
            ended.append(threading.get_ident())

    ended: list[int] = []
    one, other = PlainItems(idents), PlainItems(idents)
    first = [await anext(one) for _ in range(10)]
    second = [await anext(other) for _ in range(10)]
    first += [item async for item in one]
    await other.aclose()
    assert len({*first}) == len({*second}) == 1
    assert ended == [first[0], second[0]]
    assert threading.get_ident() not in (first[0], second[0])


async def test_two_at_a_time_have_two_threads(gate: Gate) -> None:
    def wait() -> Iterator[int]:
        gate.pass_through()
        yield threading.get_ident()

    streams = [PlainItems(wait) for _ in range(2)]
    steps = [asyncio.create_task(anext(stream)) for stream in streams]  # type: ignore[arg-type]  # it is a coroutine
    await until(lambda: gate.came == 2)
    gate.open()
    assert len({await step for step in steps}) == 2
    for stream in streams:
        await stream.aclose()


async def test_nothing_runs_before_the_first_step() -> None:
    began = []
    items = PlainItems(lambda: began.append(1) or range(1))  # type: ignore[func-returns-value]  # it is None
    await asyncio.sleep(0.01)
    await items.aclose()
    assert not began
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_what_a_generator_raises_is_raised_and_ends_it() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = PlainItems(fail)
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="broken"):
        await anext(items)
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_what_making_it_raises_is_raised() -> None:
    with pytest.raises(TypeError):
        await anext(PlainItems(lambda: 1))  # type: ignore[arg-type,return-value]  # a handler may return anything


async def test_a_generator_has_one_context_from_step_to_step() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(10)

    def count() -> Iterator[int]:
        while True:
            variable.set(variable.get() + 1)
            yield variable.get()

    items = PlainItems(count)
    assert [await anext(items) for _ in range(3)] == [11, 12, 13]
    assert variable.get() == 10
    await items.aclose()


async def test_close_runs_the_finally_in_the_thread() -> None:
    ended = []

    def count() -> Iterator[int]:
        try:
            while True:
                yield threading.get_ident()
        finally:
            ended.append(threading.get_ident())

    items = PlainItems(count)
    ident = await anext(items)
    await items.aclose()
    await items.aclose()
    assert ended == [ident]


async def test_what_a_finally_raises_is_raised_by_close() -> None:
    def fail() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise ValueError("broken")

    items = PlainItems(fail)
    await anext(items)
    with pytest.raises(ValueError, match="broken"):
        await items.aclose()


async def test_a_cancelled_step_goes_on_to_its_next_yield_and_is_closed_there(gate: Gate) -> None:
    steps = []

    def work() -> Iterator[int]:
        try:
            gate.pass_through()
            steps.append("worked")
            yield 1
            steps.append("never")
        finally:
            steps.append("finally")

    items = PlainItems(work)
    step = asyncio.create_task(anext(items))  # type: ignore[arg-type]  # it is a coroutine
    await until(lambda: gate.came)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    closing = asyncio.create_task(items.aclose())
    await asyncio.sleep(0.01)
    assert not closing.done()
    gate.open()
    await closing
    assert steps == ["worked", "finally"]


async def test_a_step_that_fails_after_it_was_cancelled_fails_in_silence(gate: Gate) -> None:
    def fail() -> Iterator[int]:
        gate.pass_through()
        raise ValueError("broken")
        yield 1

    items = PlainItems(fail)
    step = asyncio.create_task(anext(items))  # type: ignore[arg-type]  # it is a coroutine
    await until(lambda: gate.came)
    step.cancel()
    await asyncio.wait([step])
    gate.open()
    await items.aclose()


async def test_an_iterator_without_close_is_left_alone() -> None:
    items = PlainItems(lambda: iter([1, 2]))
    assert await anext(items) == 1
    await items.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(items)


# What a client sends


async def test_a_plain_handler_reads_what_a_client_sends() -> None:
    inbound = create_stream(high_water_mark=1)

    def add(items: Iterator[int]) -> int:
        return sum(items)

    async def send() -> None:
        for number in range(20):
            await inbound.write(number)
        inbound.end()

    result, _ = await asyncio.gather(call(add, PlainInput(inbound)), send())
    assert result == sum(range(20))


async def test_its_reading_ends_with_the_reason_of_the_call() -> None:
    inbound = create_stream()
    raised = []

    def read(items: Iterator[int]) -> None:
        try:
            next(items)
        except RaffelError as error:
            raised.append((error.code, error.message))

    task = asyncio.create_task(call(read, PlainInput(inbound)))
    await asyncio.sleep(0.01)
    inbound.cancel("client_disconnected")
    await task
    assert raised == [("CANCELLED", "client_disconnected")]


# The limit


async def test_so_many_run_at_once_and_the_next_one_waits(gate: Gate) -> None:
    tasks = [asyncio.create_task(call(gate.pass_through)) for _ in range(LIMIT + 1)]
    await until(lambda: gate.came == LIMIT)
    await asyncio.sleep(0.02)
    assert gate.came == LIMIT == busy()
    gate.open()
    await asyncio.gather(*tasks)
    assert gate.came == LIMIT + 1


async def test_who_waits_too_long_is_refused(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "PATIENCE", 0.01)
    tasks = [asyncio.create_task(call(gate.pass_through)) for _ in range(LIMIT)]
    await until(lambda: gate.came == LIMIT)
    with pytest.raises(RaffelError) as caught:
        await anext(PlainItems(lambda: range(1)))
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    gate.open()
    await asyncio.gather(*tasks)


async def test_who_waited_and_was_cancelled_takes_no_place(gate: Gate) -> None:
    tasks = [asyncio.create_task(call(gate.pass_through)) for _ in range(LIMIT)]
    await until(lambda: gate.came == LIMIT)
    waiting = [asyncio.create_task(call(int)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    gate.open()
    assert await waiting[4] == 0
    await asyncio.gather(*tasks)


async def test_who_is_cancelled_as_its_turn_comes_passes_it_on(gate: Gate) -> None:
    tasks = [asyncio.create_task(call(gate.pass_through)) for _ in range(LIMIT)]
    await until(lambda: gate.came == LIMIT)
    first, second = (asyncio.create_task(call(int)) for _ in range(2))
    await asyncio.sleep(0)
    gate.open()
    while not first.cancelled():
        first.cancel()  # before, while and after it is called
        await asyncio.sleep(0)
        if first.done():
            break
    assert await second == 0
    await asyncio.gather(*tasks)


def test_a_loop_that_was_closed_while_it_waited_costs_no_worker(gate: Gate) -> None:
    """Its waiting call can no longer be told; the thread goes to whoever comes next."""

    async def wait_forever() -> None:
        tasks = [asyncio.create_task(call(gate.pass_through)) for _ in range(LIMIT)]
        await until(lambda: gate.came == LIMIT)
        waiting = asyncio.create_task(call(int))
        await asyncio.sleep(0)
        del tasks, waiting

    loop = asyncio.new_event_loop()
    loop.run_until_complete(wait_forever())
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    for task in left:
        task.cancel()  # a second time: none of them waits for its thread any more
    loop.run_until_complete(asyncio.wait(left)) if left else None
    loop.close()
    gate.open()

    async def after() -> list[int]:
        return await asyncio.gather(*(call(int) for _ in range(LIMIT)))

    with asyncio.Runner() as runner:
        assert runner.run(after()) == [0] * LIMIT


# What is no handler


async def test_what_runs_alone_takes_no_handlers_place(gate: Gate) -> None:
    before = busy()
    task = asyncio.create_task(alone(gate.pass_through))
    await until(lambda: gate.came)
    assert busy() == before
    gate.open()
    await task


async def test_what_runs_alone_gives_back_its_result_or_its_error() -> None:
    assert await alone(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        await alone(divmod, 1, 0)


async def test_cancelled_it_waits_for_the_end_of_what_runs_alone(gate: Gate) -> None:
    task = asyncio.create_task(alone(gate.pass_through))
    await until(lambda: gate.came)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_thread_is_left_of_what_ran_alone() -> None:
    await alone(int)
    await until(lambda: not any(one.name == "raffel-alone" for one in threading.enumerate()))


def test_workers_are_daemons(gate: Gate) -> None:
    async def look() -> Any:
        return await call(threading.current_thread), await alone(threading.current_thread)

    with asyncio.Runner() as runner:
        assert all(one.daemon for one in runner.run(look()))
