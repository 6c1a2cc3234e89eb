"""RaffelStream: what each sentence of its contract promises."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from raffel_core.errors import RaffelError
from raffel_core.stream import RaffelStream, StreamChunk, StreamState, create_stream


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not suspend; without an event loop, so that it makes no future either."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("it suspended")


async def turn() -> None:
    await asyncio.sleep(0)


async def started(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that has run up to where it waits."""
    task = asyncio.create_task(coroutine)
    await turn()
    return task


async def abandon(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def code_of(awaitable: Any) -> str:
    with pytest.raises(RaffelError) as caught:
        await awaitable
    return caught.value.code


def filled(*items: Any, mark: int = 16) -> RaffelStream[Any]:
    stream: RaffelStream[Any] = create_stream(high_water_mark=mark)
    for item in items:
        assert stream.try_write(item)
    return stream


async def rest_of(stream: RaffelStream[Any]) -> list[Any]:
    stream.end()
    return [item async for item in stream]


# create_stream


def test_new_stream_is_open_and_empty() -> None:
    stream: RaffelStream[int] = create_stream()
    assert (stream.state, stream.readable, stream.writable, stream.closed, stream.errored, stream.buffered_amount) == (
        "open",
        True,
        True,
        False,
        False,
        0,
    )


def test_defaults_are_a_mark_of_16_and_priority_0() -> None:
    stream: RaffelStream[int] = create_stream()
    assert (stream.high_water_mark, stream.priority) == (16, 0)


def test_id_mark_and_priority_are_as_given() -> None:
    stream: RaffelStream[int] = create_stream("logs", 3, -7)
    assert (stream.id, stream.high_water_mark, stream.priority) == ("logs", 3, -7)


def test_streams_without_an_id_get_different_ones() -> None:
    first: RaffelStream[int] = create_stream()
    second: RaffelStream[int] = create_stream()
    assert first.id != second.id


@pytest.mark.parametrize("name", ["id", "priority", "high_water_mark", "buffered_amount", "state", "closed"])
def test_properties_are_read_only(name: str) -> None:
    stream: RaffelStream[int] = create_stream()
    with pytest.raises(AttributeError):
        setattr(stream, name, 1)


def test_negative_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="high_water_mark is -1, expected 0 or more"):
        create_stream(high_water_mark=-1)


@pytest.mark.parametrize("mark", [None, "16", 1.0, True])
def test_mark_that_is_no_integer_is_refused(mark: Any) -> None:
    with pytest.raises(TypeError, match=f"high_water_mark is {mark!r}, expected an integer"):
        create_stream(high_water_mark=mark)


@pytest.mark.parametrize("priority", [None, "1", 0.5, False])
def test_priority_that_is_no_integer_is_refused(priority: Any) -> None:
    with pytest.raises(TypeError, match=f"priority is {priority!r}, expected an integer"):
        create_stream(priority=priority)


def test_id_that_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match="id is 7, expected a string or None"):
        create_stream(id=7)  # type: ignore[arg-type]  # the refusal is what is tested


def test_stream_can_be_referenced_weakly() -> None:
    stream: RaffelStream[int] = create_stream()
    assert weakref.ref(stream)() is stream


def test_stream_has_no_dict() -> None:
    stream: RaffelStream[int] = create_stream()
    assert not hasattr(stream, "__dict__")


def test_stream_can_be_made_of_a_parametrised_class() -> None:
    assert RaffelStream[int]("numbers").id == "numbers"


def test_repr_names_the_stream_its_state_and_its_buffer() -> None:
    assert repr(RaffelStream[int]("logs", 4)) == "<RaffelStream 'logs' open, 0 of 4 buffered>"


@pytest.mark.parametrize("state", ["open", "closing", "closed", "errored"])
def test_state_compares_equal_to_its_string(state: str) -> None:
    assert StreamState(state) == state


# Order, nothing lost, many writers and readers


async def test_items_are_read_in_the_order_of_their_writes() -> None:
    assert await rest_of(filled(1, 2, 3)) == [1, 2, 3]


async def test_read_gives_a_chunk_with_the_item() -> None:
    assert await filled("a").read() == StreamChunk(done=False, value="a")


@pytest.mark.parametrize("item", [None, False, 0, b"", StopIteration()])
async def test_any_value_is_an_item(item: Any) -> None:
    assert await filled(item).read() == (False, item)


async def test_read_waits_for_an_item() -> None:
    stream = filled()
    read = await started(stream.read())
    assert not read.done()
    await stream.write("a")
    assert await read == (False, "a")


async def test_write_waits_for_room() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    assert not write.done()
    await stream.read()
    await write
    assert await stream.read() == (False, "b")


async def test_write_ends_when_its_item_is_in_the_buffer() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    await stream.read()
    await write
    assert stream.buffered_amount == 1


async def test_readers_are_served_first_come_first_served() -> None:
    stream = filled()
    reads = [await started(stream.read()) for _ in range(3)]
    for item in "abc":
        stream.try_write(item)
    assert [(await read).value for read in reads] == ["a", "b", "c"]


async def test_read_does_not_overtake_a_reader_that_was_called() -> None:
    stream = filled()
    first = await started(stream.read())
    stream.try_write("a")
    stream.try_write("b")
    assert (await stream.read()).value == "b"
    assert first.result().value == "a"


async def test_writers_are_served_first_come_first_served() -> None:
    stream = filled(0, mark=1)
    writes = [await started(stream.write(item)) for item in (1, 2, 3)]
    assert await rest_of(stream) == [0, 1, 2, 3]
    await asyncio.gather(*writes)


async def test_write_does_not_overtake_writers_that_wait() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    await stream.read()
    later = await started(stream.write("c"))
    assert await rest_of(stream) == ["b", "c"]
    await asyncio.gather(write, later)


async def test_try_write_does_not_overtake_writers_that_wait_for_a_reader() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    assert not stream.try_write("b")
    assert await rest_of(stream) == ["a"]
    await write


async def test_many_writers_and_readers_share_a_stream() -> None:
    stream: RaffelStream[tuple[int, int]] = create_stream(high_water_mark=3)
    got: list[tuple[int, int]] = []

    async def write(writer: int) -> None:
        for n in range(50):
            await stream.write((writer, n))

    async def read() -> None:
        async for item in stream:
            got.append(item)  # noqa: PERF401  # four readers append to one list, in the order of their turns

    readers = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.gather(*map(write, range(5)))
    stream.end()
    await asyncio.gather(*readers)
    assert sorted(got) == [(writer, n) for writer in range(5) for n in range(50)]
    assert all([n for w, n in got if w == writer] == list(range(50)) for writer in range(5))


async def test_try_write_does_not_overtake_a_writer_that_a_reader_was_called_for() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    write = await started(stream.write("a"))
    assert not stream.try_write("b")
    assert await read == (False, "a")
    await write


# The bound


def test_try_write_succeeds_up_to_the_mark() -> None:
    stream: RaffelStream[int] = create_stream(high_water_mark=2)
    assert [stream.try_write(item) for item in range(4)] == [True, True, False, False]


async def test_try_write_that_is_refused_writes_nothing() -> None:
    stream = filled("a", mark=1)
    assert not stream.try_write("b")
    assert await rest_of(stream) == ["a"]


def test_buffered_amount_counts_what_waits_for_a_reader() -> None:
    stream = filled("a", "b", "c")
    at_once(stream.read())
    assert stream.buffered_amount == 2


async def test_waiting_writers_do_not_count_as_buffered() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    assert stream.buffered_amount == 1
    await abandon(write)


async def test_item_for_a_waiting_reader_does_not_count_as_buffered() -> None:
    stream = filled(mark=1)
    read = await started(stream.read())
    stream.try_write("a")
    assert stream.buffered_amount == 0
    assert stream.try_write("b")
    assert stream.buffered_amount == 1
    assert (await read).value == "a"


async def test_item_of_a_cancelled_reader_counts_as_buffered_again() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    stream.try_write("a")
    await abandon(read)
    assert stream.buffered_amount == 1


async def test_writable_says_that_the_stream_accepts_writes_also_when_they_must_wait() -> None:
    assert filled("a", mark=1).writable


# The uncontended path


def test_try_write_needs_no_event_loop() -> None:
    assert filled().try_write("a")


def test_write_with_room_does_not_suspend() -> None:
    stream: RaffelStream[str] = create_stream(high_water_mark=1)
    at_once(stream.write("a"))
    assert stream.buffered_amount == 1


def test_read_with_items_does_not_suspend() -> None:
    assert at_once(filled("a").read()) == (False, "a")


def test_next_with_items_does_not_suspend() -> None:
    assert at_once(filled("a").__anext__()) == "a"


def test_read_at_the_end_does_not_suspend() -> None:
    stream = filled()
    stream.end()
    assert at_once(stream.read()) == (True, None)


# A mark of 0


async def test_hand_over_write_ends_when_its_item_is_read() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    assert not write.done()
    assert await stream.read() == (False, "a")
    await write


async def test_hand_over_write_to_a_waiting_reader_ends_after_the_read() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    await stream.write("a")
    assert read.done()
    assert read.result() == (False, "a")


def test_hand_over_try_write_fails_without_a_reader() -> None:
    assert not RaffelStream[str](high_water_mark=0).try_write("a")


async def test_hand_over_try_write_succeeds_if_a_reader_waits() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    assert stream.try_write("a")
    assert stream.buffered_amount == 0
    assert await read == (False, "a")


async def test_hand_over_try_write_succeeds_once_for_each_waiting_reader() -> None:
    stream = filled(mark=0)
    reads = [await started(stream.read()) for _ in range(2)]
    assert [stream.try_write(item) for item in "abc"] == [True, True, False]
    assert [(await read).value for read in reads] == ["a", "b"]


async def test_hand_over_try_write_does_not_count_a_reader_whose_task_was_cancelled() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    read.cancel()
    assert not stream.try_write("a")
    await abandon(read)


async def test_hand_over_try_write_fails_while_reads_are_held() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    stream.pause()
    assert not stream.try_write("a")
    await abandon(read)


async def test_hand_over_pairs_writers_and_readers_in_order() -> None:
    stream = filled(mark=0)
    reads = [await started(stream.read()) for _ in range(3)]
    await asyncio.gather(*(stream.write(item) for item in "abc"))
    assert [(await read).value for read in reads] == ["a", "b", "c"]


# end()


async def test_end_lets_waiting_writes_go_through() -> None:
    stream = filled("a", mark=1)
    writes = [await started(stream.write(item)) for item in "bc"]
    assert await rest_of(stream) == ["a", "b", "c"]
    await asyncio.gather(*writes)


async def test_end_lets_waiting_hand_overs_go_through() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    assert await rest_of(stream) == ["a"]
    await write


async def test_readers_get_what_is_buffered_and_then_done_for_ever() -> None:
    stream = filled("a")
    stream.end()
    assert [await stream.read() for _ in range(4)] == [(False, "a")] + [(True, None)] * 3


async def test_end_tells_every_waiting_reader() -> None:
    stream = filled()
    reads = [await started(stream.read()) for _ in range(3)]
    stream.end()
    await turn()
    assert [read.result() for read in reads] == [(True, None)] * 3


async def test_read_after_the_end_does_not_queue_behind_readers_that_were_told() -> None:
    stream = filled()
    read = await started(stream.read())
    stream.end()
    assert at_once(stream.read()) == (True, None)
    assert await read == (True, None)


async def test_last_item_goes_to_the_first_reader_and_done_to_the_others() -> None:
    stream = filled()
    reads = [await started(stream.read()) for _ in range(3)]
    stream.try_write("a")
    stream.end()
    assert await asyncio.gather(*reads) == [(False, "a"), (True, None), (True, None)]


async def test_write_after_the_end_is_refused() -> None:
    stream = RaffelStream[str]("logs")
    stream.end()
    with pytest.raises(RaffelError, match="FAILED_PRECONDITION: write to the stream 'logs' after its end"):
        await stream.write("a")


async def test_hand_over_write_after_the_end_is_refused() -> None:
    stream = filled(mark=0)
    stream.end()
    assert await code_of(stream.write("a")) == "FAILED_PRECONDITION"


def test_try_write_after_the_end_is_refused() -> None:
    stream = filled("a", mark=1)
    stream.end()
    with pytest.raises(RaffelError, match="FAILED_PRECONDITION"):
        stream.try_write("b")


def test_empty_stream_is_closed_at_once() -> None:
    stream = filled()
    stream.end()
    assert (stream.state, stream.closed, stream.readable, stream.writable) == ("closed", True, False, False)


def test_ended_stream_with_items_is_closing() -> None:
    stream = filled("a")
    stream.end()
    assert (stream.state, stream.closed, stream.readable, stream.writable) == ("closing", False, True, False)


def test_ended_stream_is_closed_with_the_last_item_read() -> None:
    stream = filled("a")
    stream.end()
    at_once(stream.read())
    assert stream.state == "closed"


async def test_ended_stream_with_a_waiting_hand_over_is_closing() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    stream.end()
    assert stream.state == "closing"
    await stream.read()
    assert stream.state == "closed"
    await write


async def test_cancelling_the_last_waiting_write_closes_an_ended_stream() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    stream.end()
    await abandon(write)
    assert stream.state == "closed"


async def test_end_does_not_wait_for_a_write_whose_task_was_cancelled() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    write.cancel()
    stream.end()
    assert stream.state == "closed"
    await abandon(write)


async def test_read_that_finds_only_a_cancelled_write_is_done() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    stream.end()
    write.cancel()
    assert at_once(stream.read()) == (True, None)
    assert stream.state == "closed"
    await abandon(write)


async def test_cancelling_the_last_waiting_write_tells_the_waiting_readers() -> None:
    stream = filled(mark=0)
    stream.pause()
    write = await started(stream.write("a"))
    read = await started(stream.read())
    stream.end()
    await abandon(write)
    assert await read == (True, None)


def test_end_is_idempotent() -> None:
    stream = filled("a")
    stream.end()
    stream.end()
    assert at_once(stream.read()) == (False, "a")
    stream.end()
    assert stream.state == "closed"


# error()


async def test_readers_get_what_is_buffered_and_then_the_error_for_ever() -> None:
    stream, failure = filled("a", "b"), OSError("disk full")
    stream.error(failure)
    assert [(await stream.read()).value for _ in range(2)] == ["a", "b"]
    for _ in range(3):
        with pytest.raises(OSError, match="disk full") as caught:
            await stream.read()
        assert caught.value is failure


async def test_error_reaches_every_waiting_reader() -> None:
    stream, failure = filled(), OSError()
    reads = [await started(stream.read()) for _ in range(3)]
    stream.error(failure)
    assert await asyncio.gather(*reads, return_exceptions=True) == [failure] * 3


async def test_reader_that_was_called_gets_its_item_before_the_error() -> None:
    stream = filled()
    read = await started(stream.read())
    stream.try_write("a")
    stream.error(OSError())
    assert await read == (False, "a")


async def test_waiting_writers_raise_the_error_at_once() -> None:
    stream, failure = filled("a", mark=1), OSError()
    writes = [await started(stream.write(item)) for item in "bc"]
    stream.error(failure)
    await turn()
    assert [write.exception() for write in writes] == [failure] * 2


async def test_items_of_writers_that_raised_are_not_read() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    stream.error(OSError())
    await asyncio.gather(write, return_exceptions=True)
    assert await stream.read() == (False, "a")
    with pytest.raises(OSError):
        await stream.read()


@pytest.mark.parametrize("mark", [0, 1])
async def test_later_writes_raise_the_error(mark: int) -> None:
    stream = filled(mark=mark)
    stream.error(OSError())
    with pytest.raises(OSError):
        await stream.write("a")


def test_later_try_writes_raise_the_error() -> None:
    stream = filled()
    stream.error(OSError())
    with pytest.raises(OSError):
        stream.try_write("a")


async def test_async_for_raises_the_error_after_the_items() -> None:
    stream, got = filled("a", "b"), []
    stream.error(OSError())
    with pytest.raises(OSError):
        async for item in stream:
            got.append(item)  # noqa: PERF401  # a comprehension would lose what it has when the error comes
    assert got == ["a", "b"]


def test_failed_stream_is_readable_while_items_are_left() -> None:
    stream = filled("a")
    stream.error(OSError())
    assert (stream.state, stream.errored, stream.readable, stream.writable) == ("errored", True, True, False)
    at_once(stream.read())
    assert not stream.readable


async def test_error_after_the_end_fails_what_is_left() -> None:
    stream = filled("a")
    stream.end()
    stream.error(OSError())
    assert await stream.read() == (False, "a")
    with pytest.raises(OSError):
        await stream.read()


async def test_first_error_holds() -> None:
    stream, failure = filled(), OSError("first")
    stream.error(failure)
    stream.error(OSError("second"))
    with pytest.raises(OSError, match="first"):
        await stream.read()


def test_end_of_a_failed_stream_does_nothing() -> None:
    stream = filled()
    stream.error(OSError())
    stream.end()
    assert stream.state == "errored"


def test_error_of_a_closed_stream_does_nothing() -> None:
    stream = filled()
    stream.end()
    stream.error(OSError())
    assert (stream.state, at_once(stream.read())) == ("closed", (True, None))


def test_raising_the_error_again_does_not_grow_its_traceback() -> None:
    stream, lengths = filled(), set()
    stream.error(OSError())
    for _ in range(3):
        with pytest.raises(OSError) as caught:
            at_once(stream.read())
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(lengths) == 1


def test_error_keeps_the_traceback_it_came_with() -> None:
    stream = filled()
    try:
        raise OSError
    except OSError as exc:
        origin = traceback.extract_tb(exc.__traceback__)[-1]
        stream.error(exc)
    with pytest.raises(OSError) as caught:
        at_once(stream.read())
    assert traceback.extract_tb(caught.value.__traceback__)[-1] == origin


@pytest.mark.parametrize("exc", [None, "broken", OSError, asyncio.CancelledError()])
def test_error_that_is_no_exception_is_refused(exc: Any) -> None:
    with pytest.raises(TypeError, match=r"error\(\) got .*, expected an instance of Exception"):
        filled().error(exc)


# cancel() and aclose()


def test_cancel_drops_the_buffer() -> None:
    stream = filled("a", "b")
    stream.cancel()
    assert (stream.buffered_amount, stream.readable, stream.writable) == (0, False, False)


async def test_cancel_reaches_every_waiting_read() -> None:
    stream = filled()
    reads = [await started(stream.read()) for _ in range(3)]
    stream.cancel("gone")
    await turn()
    assert [str(read.exception()) for read in reads] == ["CANCELLED: gone"] * 3


async def test_cancel_reaches_every_waiting_write() -> None:
    stream = filled("a", mark=1)
    writes = [await started(stream.write(item)) for item in "bcd"]
    stream.cancel("gone")
    await turn()
    assert [str(write.exception()) for write in writes] == ["CANCELLED: gone"] * 3


async def test_cancel_reaches_a_reader_that_was_called() -> None:
    stream = filled()
    read = await started(stream.read())
    stream.try_write("a")
    stream.cancel()
    assert await code_of(read) == "CANCELLED"


@pytest.mark.parametrize("mark", [0, 1])
async def test_reads_and_writes_after_cancel_raise(mark: int) -> None:
    stream = filled(mark=mark)
    stream.cancel("gone")
    for later in (stream.read, stream.__anext__, lambda: stream.write("a")) * 2:
        assert await code_of(later()) == "CANCELLED"
    with pytest.raises(RaffelError, match="CANCELLED: gone"):
        stream.try_write("a")


async def test_the_reason_is_the_message() -> None:
    stream = filled()
    stream.cancel("client_disconnected")
    with pytest.raises(RaffelError) as caught:
        await stream.read()
    assert (caught.value.code, caught.value.message) == ("CANCELLED", "client_disconnected")


async def test_cancel_without_a_reason_still_says_what_happened() -> None:
    stream = filled()
    stream.cancel()
    with pytest.raises(RaffelError, match="CANCELLED: the stream was cancelled"):
        await stream.read()


def test_cancelled_stream_is_errored() -> None:
    stream = filled()
    stream.cancel()
    assert (stream.state, stream.errored, stream.closed) == ("errored", True, False)


async def test_cancel_after_the_end_drops_what_is_left() -> None:
    stream = filled("a")
    stream.end()
    stream.cancel()
    assert await code_of(stream.read()) == "CANCELLED"


async def test_cancel_after_an_error_drops_what_is_left() -> None:
    stream = filled("a")
    stream.error(OSError())
    stream.cancel()
    assert await code_of(stream.read()) == "CANCELLED"


async def test_cancel_of_a_failed_and_empty_stream_does_nothing() -> None:
    stream = filled()
    stream.error(OSError())
    stream.cancel()
    with pytest.raises(OSError):
        await stream.read()


def test_cancel_of_a_closed_stream_does_nothing() -> None:
    stream = filled()
    stream.end()
    stream.cancel()
    assert (stream.state, at_once(stream.read())) == ("closed", (True, None))


async def test_first_reason_holds() -> None:
    stream = filled()
    stream.cancel("first")
    stream.cancel("second")
    with pytest.raises(RaffelError, match="first"):
        await stream.read()


def test_cancelled_stream_lets_go_of_its_items() -> None:
    class Item:
        pass

    item = Item()
    reference = weakref.ref(item)
    stream = filled(item)
    stream.cancel()
    del item
    gc.collect()
    assert reference() is None


async def test_aclose_cancels_the_stream() -> None:
    stream = filled("a")
    async with aclosing(stream):
        pass
    assert await code_of(stream.read()) == "CANCELLED"


async def test_aclose_of_a_finished_stream_does_nothing() -> None:
    stream = filled()
    stream.end()
    await stream.aclose()
    assert stream.state == "closed"


# pause() and resume()


async def test_pause_holds_reads() -> None:
    stream = filled("a")
    stream.pause()
    read = await started(stream.read())
    assert not read.done()
    stream.resume()
    assert await read == (False, "a")


async def test_pause_holds_a_reader_that_waited_before() -> None:
    stream = filled()
    read = await started(stream.read())
    stream.pause()
    stream.try_write("a")
    await turn()
    assert not read.done()
    stream.resume()
    assert await read == (False, "a")


async def test_pause_holds_a_reader_that_was_called_in_its_place() -> None:
    stream = filled()
    first, second = await started(stream.read()), await started(stream.read())
    stream.try_write("a")
    stream.pause()
    await turn()
    assert not first.done()
    stream.try_write("b")
    stream.resume()
    assert [(await read).value for read in (first, second)] == ["a", "b"]


async def test_held_reader_can_be_cancelled() -> None:
    stream = filled()
    read = await started(stream.read())
    stream.try_write("a")
    stream.pause()
    await turn()
    await abandon(read)
    stream.resume()
    assert await stream.read() == (False, "a")


def test_writes_go_on_up_to_the_mark_while_paused() -> None:
    stream = filled(mark=2)
    stream.pause()
    at_once(stream.write("a"))
    assert [stream.try_write(item) for item in "bc"] == [True, False]


async def test_waiting_reader_makes_no_room_while_paused() -> None:
    stream = filled(mark=1)
    read = await started(stream.read())
    stream.pause()
    assert [stream.try_write(item) for item in "ab"] == [True, False]
    assert stream.buffered_amount == 1
    await abandon(read)


async def test_end_passes_a_pause() -> None:
    stream = filled()
    stream.pause()
    read = await started(stream.read())
    stream.end()
    assert await read == (True, None)


async def test_items_are_held_before_the_end_passes() -> None:
    stream = filled("a")
    stream.pause()
    read = await started(stream.read())
    stream.end()
    await turn()
    assert not read.done()
    stream.resume()
    assert [await read, await stream.read()] == [(False, "a"), (True, None)]


async def test_error_passes_a_pause() -> None:
    stream = filled()
    stream.pause()
    read = await started(stream.read())
    stream.error(OSError())
    with pytest.raises(OSError):
        await read


async def test_error_reaches_waiting_writers_of_a_paused_stream() -> None:
    stream = filled("a", mark=1)
    stream.pause()
    write = await started(stream.write("b"))
    stream.error(OSError())
    with pytest.raises(OSError):
        await write


async def test_cancel_passes_a_pause_with_items() -> None:
    stream = filled("a", mark=1)
    stream.pause()
    read, write = await started(stream.read()), await started(stream.write("b"))
    stream.cancel()
    assert [await code_of(task) for task in (read, write)] == ["CANCELLED", "CANCELLED"]


async def test_resume_serves_everyone_who_was_held() -> None:
    stream = filled("a", "b", mark=2)
    stream.pause()
    write = await started(stream.write("c"))
    reads = [await started(stream.read()) for _ in range(3)]
    stream.resume()
    assert [(await read).value for read in reads] == ["a", "b", "c"]
    await write


async def test_pause_and_resume_are_idempotent() -> None:
    stream = filled("a")
    stream.pause()
    stream.pause()
    stream.resume()
    stream.resume()
    assert at_once(stream.read()) == (False, "a")


# Cancelled reads and writes


async def test_cancelled_read_loses_no_item() -> None:
    stream = filled()
    read = await started(stream.read())
    await abandon(read)
    stream.try_write("a")
    assert await rest_of(stream) == ["a"]


async def test_read_cancelled_in_the_turn_of_its_wake_up_loses_no_item() -> None:
    stream = filled()
    read = await started(stream.read())
    stream.try_write("a")
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert await rest_of(stream) == ["a"]


async def test_reads_cancelled_in_the_turn_of_their_wake_up_keep_the_order() -> None:
    stream = filled()
    reads = [await started(stream.read()) for _ in range(3)]
    for item in "abc":
        stream.try_write(item)
    await abandon(*reads)
    assert await rest_of(stream) == ["a", "b", "c"]


async def test_read_cancelled_in_the_turn_of_its_wake_up_passes_the_item_to_the_next() -> None:
    stream = filled()
    first, second = await started(stream.read()), await started(stream.read())
    stream.try_write("a")
    await abandon(first)
    assert await second == (False, "a")


async def test_item_written_in_the_turn_of_a_cancellation_goes_to_the_next_reader() -> None:
    stream = filled()
    first, second = await started(stream.read()), await started(stream.read())
    first.cancel()
    stream.try_write("a")
    assert await second == (False, "a")
    await abandon(first)


async def test_read_cancelled_in_the_turn_of_a_hand_over_leaves_the_write_waiting() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    write = await started(stream.write("a"))
    read.cancel()
    await turn()
    assert not write.done()
    assert await stream.read() == (False, "a")
    await write
    await abandon(read)


async def test_read_with_a_timeout_loses_no_item() -> None:
    stream = filled()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.read(), 0.001)
    stream.try_write("a")
    assert await rest_of(stream) == ["a"]


async def test_closed_coroutine_of_a_read_leaves_its_place() -> None:
    stream = filled()
    read = stream.read()
    read.send(None)
    read.close()
    stream.try_write("a")
    assert await stream.read() == (False, "a")


async def test_cancelled_write_that_waited_has_not_happened() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    await abandon(write)
    assert await rest_of(stream) == ["a"]


async def test_cancelled_write_keeps_the_places_of_the_others() -> None:
    stream = filled("a", mark=1)
    writes = [await started(stream.write(item)) for item in "bcd"]
    await abandon(writes[1])
    assert await rest_of(stream) == ["a", "b", "d"]
    await asyncio.gather(writes[0], writes[2])


async def test_write_cancelled_in_the_turn_in_which_it_went_through_has_happened() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    at_once(stream.read())
    await abandon(write)
    assert await rest_of(stream) == ["b"]


async def test_write_cancelled_in_the_turn_before_room_came_has_not_happened() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    write.cancel()
    at_once(stream.read())
    await abandon(write)
    assert await rest_of(stream) == []


async def test_cancelled_hand_over_is_withdrawn() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    await abandon(write)
    assert await rest_of(stream) == []


async def test_hand_over_withdrawn_before_the_reader_ran_leaves_it_waiting() -> None:
    stream = filled(mark=0)
    read = await started(stream.read())
    write = asyncio.create_task(stream.write("a"))
    asyncio.get_running_loop().call_soon(write.cancel)
    await asyncio.gather(write, return_exceptions=True)
    await turn()
    assert not read.done()
    await stream.write("b")
    assert await read == (False, "b")


async def test_hand_over_cancelled_in_the_turn_of_its_read_has_happened() -> None:
    stream = filled(mark=0)
    write = await started(stream.write("a"))
    assert at_once(stream.read()) == (False, "a")
    await abandon(write)
    assert await rest_of(stream) == []


async def test_write_cancelled_in_the_turn_of_an_error_has_not_happened() -> None:
    stream = filled("a", mark=1)
    write = await started(stream.write("b"))
    stream.error(OSError())
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert stream.buffered_amount == 1


async def test_error_in_the_turn_in_which_a_write_was_cancelled_reaches_the_other_writers() -> None:
    stream = filled("a", mark=1)
    first, second = await started(stream.write("b")), await started(stream.write("c"))
    first.cancel()
    stream.error(OSError())
    with pytest.raises(OSError):
        await second
    await abandon(first)


async def test_closed_coroutine_of_a_write_that_waited_has_not_happened() -> None:
    stream = filled("a", mark=1)
    write = stream.write("b")
    write.send(None)
    write.close()
    assert await rest_of(stream) == ["a"]


async def test_items_are_never_compared() -> None:
    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __hash__ = object.__hash__

    stream = filled(Incomparable(), mark=1)
    writes = [await started(stream.write(Incomparable())) for _ in range(3)]
    await abandon(*reversed(writes))
    assert stream.buffered_amount == 1


# async for


async def test_async_for_ends_with_the_stream() -> None:
    assert await rest_of(filled()) == []


async def test_leaving_an_async_for_leaves_the_rest_to_the_next_reader() -> None:
    stream = filled("a", "b", "c")
    async for item in stream:
        assert item == "a"
        break
    assert stream.state == "open"
    assert await rest_of(stream) == ["b", "c"]


async def test_cancelled_async_for_leaves_the_rest_to_the_next_reader() -> None:
    stream = filled("a")

    async def consume() -> None:
        async for _ in stream:
            pass

    task = await started(consume())
    stream.try_write("b")
    await abandon(task)
    assert await rest_of(stream) == ["b"]


# on_space


async def test_on_space_is_called_once_for_every_item_taken() -> None:
    stream, taken = filled("a", "b", mark=2), []
    stream.on_space = lambda: taken.append(1)
    await stream.read()
    await stream.__anext__()
    assert len(taken) == 2


async def test_on_space_is_called_for_a_hand_over() -> None:
    stream, taken = filled(mark=0), []
    stream.on_space = lambda: taken.append(1)
    write = await started(stream.write("a"))
    await stream.read()
    assert len(taken) == 1
    await write


@pytest.mark.parametrize("finish", [RaffelStream.end, RaffelStream.cancel, lambda s: s.error(OSError())])
async def test_on_space_is_not_called_without_an_item(finish: Callable[[RaffelStream[Any]], None]) -> None:
    stream, taken = filled(), []
    stream.on_space = lambda: taken.append(1)
    read = await started(stream.read())
    finish(stream)
    await asyncio.gather(read, return_exceptions=True)
    assert taken == []


async def test_on_space_is_not_called_for_dropped_items() -> None:
    stream, taken = filled("a"), []
    stream.on_space = lambda: taken.append(1)
    stream.cancel()
    assert taken == []


async def test_on_space_finds_room() -> None:
    stream = filled("a", mark=1)
    wrote: list[bool] = []
    stream.on_space = lambda: wrote.append(stream.try_write("b"))
    await stream.read()
    assert wrote == [True]


async def test_on_space_may_cancel_the_stream_and_the_item_is_still_read() -> None:
    stream = filled("a", "b")
    stream.on_space = stream.cancel
    assert await stream.read() == (False, "a")
    assert await code_of(stream.read()) == "CANCELLED"
