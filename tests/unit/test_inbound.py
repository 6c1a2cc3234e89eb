"""What a handler reads of its client: in order, checked when it is read, and counted where it is too much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from raffel_core.errors import RaffelError
from raffel_core.inbound import Inbound, Unread


class Bad(RaffelError):
    """What the schema of these tests says of a negative number."""

    def __init__(self, item: int) -> None:
        super().__init__("VALIDATION_ERROR", str(item))


class Client:
    """Pushes numbers into an inbound, unread ones of one byte each, and notes what reading made known."""

    def __init__(self, mark: int = 4) -> None:
        self.decoded: list[int] = []
        self.freed: list[int] = []
        self.inbound = Inbound(self.decode, mark)
        self.inbound.on_room = self.freed.append

    def decode(self, item: int) -> int:
        self.decoded.append(item)
        if item < 0:
            raise Bad(item)
        return item * 10

    def push(self, *items: int, size: int = 1) -> int:
        return self.inbound.push([Unread(item) for item in items], size * len(items))


async def read(inbound: Inbound) -> Any:
    chunk = await inbound.read()
    return None if chunk.done else chunk.value


async def read_all(inbound: Inbound) -> list[Any]:
    return [item async for item in inbound]


def waiting(inbound: Inbound) -> asyncio.Task[Any]:
    """A read in a task of its own."""
    return asyncio.create_task(read(inbound))


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Items


async def test_items_are_read_in_their_order() -> None:
    client = Client()
    client.push(1, 2)
    client.push(3)
    client.inbound.end()
    assert await read_all(client.inbound) == [10, 20, 30]


async def test_an_item_is_decoded_when_it_is_read_and_once() -> None:
    client = Client()
    client.push(1, 2)
    assert client.decoded == []
    assert await read(client.inbound) == 10
    assert client.decoded == [1]


async def test_an_item_that_is_decoded_already_is_given_as_it_is() -> None:
    client = Client()
    client.inbound.push([1, None, "x"], 3)
    client.inbound.end()
    assert await read_all(client.inbound) == [1, None, "x"] and client.decoded == []


async def test_items_of_both_sorts_keep_their_order() -> None:
    client = Client()
    client.push(1)
    client.inbound.push([5], 1)
    client.push(2)
    assert [await read(client.inbound) for _ in range(3)] == [10, 5, 20]


async def test_a_reader_that_waits_gets_what_is_pushed() -> None:
    client = Client()
    task = waiting(client.inbound)
    await turns()
    client.push(1)
    assert await task == 10


async def test_readers_that_wait_are_served_in_their_order() -> None:
    client = Client()
    tasks = [waiting(client.inbound) for _ in range(3)]
    await turns()
    client.push(1, 2)
    client.push(3)
    assert await asyncio.gather(*tasks) == [10, 20, 30]


async def test_what_is_left_is_read_after_the_end() -> None:
    client = Client(mark=1)
    client.push(1, 2, 3)
    client.inbound.end()
    assert await read_all(client.inbound) == [10, 20, 30]
    assert await read(client.inbound) is None and client.inbound.closed


async def test_the_end_reaches_a_reader_that_waits() -> None:
    client = Client()
    task = waiting(client.inbound)
    await turns()
    client.inbound.end()
    assert await task is None


# Items that are not what the schema wants


async def test_a_bad_item_raises_from_the_read_that_met_it() -> None:
    client = Client()
    client.push(1, -2, 3)
    assert await read(client.inbound) == 10
    with pytest.raises(Bad):
        await read(client.inbound)
    assert await read(client.inbound) == 30


async def test_a_bad_item_raises_from_a_read_that_waits() -> None:
    client = Client()
    first, second = waiting(client.inbound), waiting(client.inbound)
    await turns()
    client.push(-1, 2)
    with pytest.raises(Bad):
        await first
    assert await second == 20


async def test_a_bad_item_ends_an_iteration_and_the_next_one_goes_on() -> None:
    client = Client()
    client.push(1, -2, 3)
    client.inbound.end()
    assert await read(client.inbound) == 10
    with pytest.raises(Bad):
        async for item in client.inbound:
            raise AssertionError(f"read {item}")
    assert await read_all(client.inbound) == [30]


async def test_a_bad_item_may_be_the_last_one() -> None:
    client = Client()
    client.push(-1)
    client.inbound.end()
    with pytest.raises(Bad):
        await read(client.inbound)
    assert await read(client.inbound) is None and client.inbound.closed


async def test_a_bad_item_makes_room_like_any_other() -> None:
    client = Client(mark=1)
    taken: list[None] = []
    client.inbound.on_space = lambda: taken.append(None)
    client.push(1, -2)
    await read(client.inbound)
    with pytest.raises(Bad):
        await read(client.inbound)
    assert len(taken) == 2 and client.inbound.parked == 0


# A cancelled read


async def test_a_cancelled_read_loses_no_item() -> None:
    client = Client()
    task = waiting(client.inbound)
    await turns()
    client.push(1, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.decoded == []
    assert [await read(client.inbound), await read(client.inbound)] == [10, 20]


async def test_a_cancelled_read_swallows_no_bad_item() -> None:
    client = Client()
    task = waiting(client.inbound)
    await turns()
    client.push(-1)
    task.cancel()
    await asyncio.wait([task])
    with pytest.raises(Bad):
        await read(client.inbound)


async def test_a_cancelled_reader_lets_the_next_one_have_its_item() -> None:
    client = Client()
    first, second = waiting(client.inbound), waiting(client.inbound)
    await turns()
    client.push(1)
    first.cancel()
    assert await second == 10


# Room


@pytest.mark.parametrize("mark", [1, 2, 16])
def test_up_to_the_mark_nothing_is_parked(mark: int) -> None:
    client = Client(mark)
    assert client.push(*range(mark), size=1000) == 0
    assert client.inbound.parked == 0


def test_what_is_beyond_the_mark_is_parked_by_its_share_of_the_bytes() -> None:
    client = Client(mark=3)
    assert client.inbound.push([1, 2], 1000) == 0
    assert client.inbound.push([3, 4, 5], 120) == 80
    assert client.inbound.push([6], 60) == 60
    assert client.inbound.parked == 140


async def test_reading_makes_room_by_the_bytes_of_what_was_beyond_the_mark_first() -> None:
    client = Client(mark=2)
    client.inbound.push([1, 2], 1_000_000)
    for size in (5000, 6000):
        client.inbound.push([3], size)
    assert client.inbound.parked == 11_000
    await read(client.inbound)
    assert client.freed == [5000] and client.inbound.parked == 6000
    await read(client.inbound)
    assert client.freed == [5000, 6000] and client.inbound.parked == 0
    await read(client.inbound)
    await read(client.inbound)
    assert client.freed == [5000, 6000]


async def test_what_came_as_one_makes_room_as_one() -> None:
    client = Client(mark=1)
    parked = client.push(*range(100), size=7)
    assert parked == client.inbound.parked == 99 * 7
    for _ in range(98):
        await read(client.inbound)
    assert client.freed == [] and client.inbound.parked == parked
    await read(client.inbound)
    assert client.freed == [parked] and client.inbound.parked == 0


async def test_each_read_beyond_the_mark_is_progress() -> None:
    client = Client(mark=1)
    client.push(1, 2, 3)
    client.push(4)
    seen = [client.inbound.progress]
    for _ in range(3):
        await read(client.inbound)
        seen.append(client.inbound.progress)
    assert len(set(seen)) == 4


async def test_each_item_that_is_read_is_told_once() -> None:
    client = Client(mark=2)
    told: list[None] = []
    client.inbound.on_space = lambda: told.append(None)
    client.push(1, 2, 3)
    assert not told
    for count in (1, 2, 3):
        await read(client.inbound)
        assert len(told) == count


# The end of the call


async def test_a_cancelled_inbound_drops_what_is_left_and_reports_its_room() -> None:
    client = Client(mark=1)
    client.push(1, 2, 3, size=100)
    client.inbound.cancel("client_cancelled")
    assert client.freed == [200] and client.inbound.parked == 0
    with pytest.raises(RaffelError, match="client_cancelled"):
        await read(client.inbound)
    assert client.decoded == []


async def test_room_is_reported_once_however_often_it_is_cancelled() -> None:
    client = Client(mark=1)
    client.push(1, 2, 3, size=100)
    await read(client.inbound)
    client.inbound.cancel()
    client.inbound.cancel()
    assert sum(client.freed) == 200


async def test_a_cancelled_inbound_wakes_its_reader() -> None:
    client = Client()
    task = waiting(client.inbound)
    await turns()
    client.inbound.cancel("over")
    with pytest.raises(RaffelError, match="over"):
        await task


async def test_an_item_pushed_for_a_reader_is_dropped_by_a_cancellation_in_the_same_turn() -> None:
    client = Client()
    task = waiting(client.inbound)
    await turns()
    client.push(1)
    client.inbound.cancel("over")
    with pytest.raises(RaffelError, match="over"):
        await task
    assert client.decoded == []


@pytest.mark.parametrize("finish", ["end", "cancel"])
def test_nothing_more_is_writable_after_the_end(finish: str) -> None:
    client = Client()
    getattr(client.inbound, finish)()
    assert not client.inbound.writable


async def test_any_program_of_pushes_and_reads_loses_nothing_and_counts_right() -> None:
    """Against a list: every split of pushes and reads, marks from 1 to 4."""
    for mark in (1, 2, 3, 4):
        for program in range(256):
            await follow(mark, [program >> bit & 1 for bit in range(8)])


async def follow(mark: int, steps: Sequence[int]) -> None:
    """The room of items that came as one, three at most, may be made with the last of them."""
    client, model, number, total = Client(mark), list[int](), 0, 0
    for push in steps:
        if push:
            items = range(number + 1, number + 1 + 1 + number % 3)
            number = items[-1]
            total += client.push(*items, size=5000)
            model += items
        elif model:
            assert await read(client.inbound) == model.pop(0) * 10
        beyond = max(0, len(model) - mark)
        assert 5000 * beyond <= client.inbound.parked <= 5000 * (beyond + 2 * (beyond > 0))
    assert sum(client.freed) == total - client.inbound.parked
    client.inbound.end()
    assert await read_all(client.inbound) == [item * 10 for item in model]
