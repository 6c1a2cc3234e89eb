"""What a handler reads of bytes that its client sends: split and checked when read, its window given back then."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.errors import RaffelError
from raffel_core.inbound import Chunks
from raffel_core.wire.grpc import MessageReader, compressed_prefix, gzipped, prefix

LIMIT = 1 << 20


def plain(*messages: bytes) -> bytes:
    return b"".join(prefix(len(message)) + message for message in messages)


def compressed(message: bytes) -> bytes:
    data = gzipped(message)
    return compressed_prefix(len(data)) + data


class Client:
    """Sends bytes to chunks, and counts what reading has given back."""

    def __init__(self, encoding: str | None = None, limit: int = LIMIT) -> None:
        self.decoded: list[bytes] = []
        self.freed: list[int] = []
        self.chunks = Chunks(MessageReader(limit, encoding), self.decode, 16)
        self.chunks.on_read = self.freed.append

    def decode(self, message: bytes) -> bytes:
        self.decoded.append(message)
        if message.startswith(b"bad"):
            raise RaffelError("VALIDATION_ERROR", message.decode())
        return message.upper()

    def push(self, data: bytes, *, end: bool = False) -> None:
        self.chunks.push(data, end=end)

    def end(self) -> None:
        self.push(b"", end=True)


async def read(chunks: Chunks) -> Any:
    chunk = await chunks.read()
    return None if chunk.done else chunk.value


async def read_all(chunks: Chunks) -> list[Any]:
    return [item async for item in chunks]


async def refused(chunks: Chunks) -> str:
    with pytest.raises(RaffelError) as raised:
        await chunks.read()
    return raised.value.code


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Items


async def test_messages_are_read_in_order_and_decoded() -> None:
    client = Client()
    client.push(plain(b"a", b"b"))
    client.push(plain(b"c"), end=True)
    assert await read_all(client.chunks) == [b"A", b"B", b"C"]
    assert client.chunks.closed


async def test_a_message_is_decoded_when_it_is_read() -> None:
    client = Client()
    client.push(plain(b"a", b"b"))
    assert client.decoded == []
    assert await read(client.chunks) == b"A"
    assert client.decoded == [b"a"]


async def test_a_message_in_pieces_is_one() -> None:
    client = Client()
    for byte in plain(b"message", b"", b"another"):
        client.push(bytes((byte,)))
    client.end()
    assert await read_all(client.chunks) == [b"MESSAGE", b"", b"ANOTHER"]


async def test_a_reader_that_waits_gets_the_message_that_comes() -> None:
    client = Client()
    waiting = asyncio.create_task(read(client.chunks))
    await turns()
    client.push(plain(b"a")[:3])
    await turns()
    assert not waiting.done()
    client.push(plain(b"a")[3:])
    assert await waiting == b"A"


async def test_readers_that_wait_get_messages_in_the_order_in_which_they_came() -> None:
    client = Client()
    waiting = [asyncio.create_task(read(client.chunks)) for _ in range(3)]
    await turns()
    client.push(plain(b"a", b"b", b"c"))
    assert await asyncio.gather(*waiting) == [b"A", b"B", b"C"]


async def test_a_reader_that_is_cancelled_takes_no_message_along() -> None:
    client = Client()
    waiting = asyncio.create_task(read(client.chunks))
    await turns()
    client.push(plain(b"a", b"b"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await read(client.chunks) == b"A"


async def test_the_first_message_is_known_before_it_is_read() -> None:
    client = Client()
    assert client.chunks.first is None
    client.push(plain(b"first")[:4])
    assert client.chunks.first is None
    client.push(plain(b"first")[4:] + plain(b"second"))
    assert client.chunks.first == b"first"
    assert await read(client.chunks) == b"FIRST" and client.chunks.first == b"second"
    assert client.decoded == [b"first"]


async def test_progress_is_another_after_each_read() -> None:
    client = Client()
    for letter in b"abcdef":
        client.push(plain(bytes((letter,)) * 3, b""))
    seen = {client.chunks.progress}
    for count in range(2, 13):
        await read(client.chunks)
        seen.add(client.chunks.progress)
        assert len(seen) == count


# The end


@pytest.mark.parametrize("together", [True, False])
async def test_the_end_is_read_after_the_last_message(together: bool) -> None:
    client = Client()
    client.push(plain(b"a"), end=together)
    if not together:
        client.end()
    assert await read(client.chunks) == b"A"
    assert await read(client.chunks) is None and await read(client.chunks) is None


async def test_a_client_that_sends_nothing_has_ended() -> None:
    client = Client()
    waiting = asyncio.create_task(read(client.chunks))
    await turns()
    client.end()
    assert await waiting is None
    assert await read_all(client.chunks) == []


async def test_an_end_within_a_message_is_an_error_after_those_before() -> None:
    client = Client()
    client.push(plain(b"a") + plain(b"cut")[:6], end=True)
    assert await read(client.chunks) == b"A"
    assert await refused(client.chunks) == "INVALID_ARGUMENT" == await refused(client.chunks)


async def test_nothing_is_taken_after_the_end() -> None:
    client = Client()
    client.push(plain(b"a"), end=True)
    client.push(plain(b"b"))
    client.push(plain(b"c"), end=True)
    assert await read_all(client.chunks) == [b"A"]
    assert sum(client.freed) == 3 * 6 and client.chunks.unread == 0


# What is wrong


async def test_an_item_that_is_not_what_the_schema_wants_fails_the_read_that_met_it() -> None:
    client = Client()
    client.push(plain(b"a", b"bad", b"c"), end=True)
    assert await read(client.chunks) == b"A"
    assert await refused(client.chunks) == "VALIDATION_ERROR"
    assert await read(client.chunks) == b"C"
    assert await read(client.chunks) is None


async def test_a_last_item_that_is_wrong_still_ends_the_stream() -> None:
    client = Client()
    client.push(plain(b"bad"), end=True)
    assert await refused(client.chunks) == "VALIDATION_ERROR"
    assert await read(client.chunks) is None and sum(client.freed) == 8


@pytest.mark.parametrize("where", ["together", "in another chunk"])
async def test_bytes_that_are_no_message_fail_every_read_after_those_before(where: str) -> None:
    client = Client()
    broken = b"\x07" + bytes(10)
    if where == "together":
        client.push(plain(b"a", b"b") + broken)
    else:
        client.push(plain(b"a", b"b"))
        client.push(broken)
    client.push(plain(b"c"), end=True)
    assert [await read(client.chunks), await read(client.chunks)] == [b"A", b"B"]
    assert await refused(client.chunks) == "INTERNAL_ERROR" == await refused(client.chunks)
    assert client.chunks.errored and client.chunks.unread == 0


async def test_a_message_that_is_too_large_fails_before_it_has_come() -> None:
    client = Client(limit=10)
    waiting = asyncio.create_task(client.chunks.read())
    await turns()
    client.push(prefix(11))
    with pytest.raises(RaffelError, match="11 bytes"):
        await waiting


async def test_an_error_reaches_all_readers_that_wait() -> None:
    client = Client()
    waiting = [asyncio.create_task(refused(client.chunks)) for _ in range(3)]
    await turns()
    client.push(b"\x07" + bytes(10))
    assert await asyncio.gather(*waiting) == ["INTERNAL_ERROR"] * 3


async def test_what_comes_after_an_error_is_given_back_at_once() -> None:
    client = Client()
    client.push(b"\x07" + bytes(10))
    assert await refused(client.chunks) == "INTERNAL_ERROR"
    client.freed.clear()
    client.push(bytes(1000))
    assert client.freed == [1000] and client.chunks.unread == 0


# The window


async def test_a_chunk_is_given_back_when_its_last_message_has_been_read() -> None:
    client = Client()
    client.push(plain(b"a", b"b"))
    await read(client.chunks)
    assert client.freed == [] and client.chunks.unread == 12
    await read(client.chunks)
    assert client.freed == [12] and client.chunks.unread == 0


async def test_a_chunk_behind_others_waits_for_its_turn() -> None:
    client = Client()
    first, second = plain(b"a" * 20_000), plain(b"b" * 20_000)
    client.push(first)
    client.push(second)
    assert client.freed == [] and client.chunks.unread == len(first) + len(second)
    await read(client.chunks)
    assert client.freed == [len(first)] and client.chunks.unread == len(second)
    await read(client.chunks)
    assert client.freed == [len(first), len(second)]


async def test_pieces_of_a_message_are_given_back_so_that_the_rest_can_come() -> None:
    client = Client()
    message = plain(bytes(500_000))
    for at in range(0, len(message), 16_384):
        client.push(message[at : at + 16_384])
        assert client.chunks.unread <= 16_384
        if at + 16_384 < len(message):
            assert sum(client.freed) == at + 16_384
    assert await read(client.chunks) == bytes(500_000)
    assert sum(client.freed) == len(message)


async def test_small_chunks_that_are_not_read_take_little_more_than_their_bytes() -> None:
    client = Client()
    client.push(plain(b"first"))
    tracemalloc.start()
    try:
        for _ in range(20_000):
            client.push(plain(b"x"))
        assert tracemalloc.get_traced_memory()[0] < 3 * 20_000 * 6
    finally:
        tracemalloc.stop()
    assert client.chunks.unread == 20_000 * 6 + 10


async def test_messages_that_are_not_read_are_not_split() -> None:
    """A window of two-byte messages would else be a hundred thousand objects."""
    client = Client()
    client.push(plain(b"a"))
    for _ in range(100):
        client.push(plain(*[b"b"] * 2000))
    assert client.chunks.buffered_amount == 1


@pytest.mark.parametrize("messages", [0, 1, 3])
async def test_cancelled_all_is_given_back_once(messages: int) -> None:
    client = Client()
    client.push(plain(b"a", b"b", b"c"))
    client.push(plain(b"d" * 30_000))
    for _ in range(messages):
        await read(client.chunks)
    client.chunks.cancel("gone")
    client.chunks.cancel("gone")
    client.push(plain(b"late"))
    assert sum(client.freed) == 18 + 30_005 + 9 and client.chunks.unread == 0
    assert await refused(client.chunks) == "CANCELLED"


async def test_a_reader_that_waits_is_told_of_a_cancellation() -> None:
    client = Client()
    waiting = asyncio.create_task(refused(client.chunks))
    await turns()
    client.chunks.cancel("gone")
    assert await waiting == "CANCELLED"


async def test_cancelled_after_the_end_was_read_it_stays_ended() -> None:
    client = Client()
    client.push(plain(b"a"), end=True)
    assert await read_all(client.chunks) == [b"A"]
    client.chunks.cancel()
    assert await read(client.chunks) is None and sum(client.freed) == 6


# What inflates


async def test_a_chunk_that_inflates_is_read_in_pieces_and_given_back_with_the_last() -> None:
    client = Client("gzip")
    chunk = b"".join(compressed(bytes(40_000)) for _ in range(20))
    client.push(chunk, end=True)
    most = 0
    for _ in range(20):
        assert client.freed == []
        assert await read(client.chunks) == bytes(40_000)
        most = max(most, client.chunks.buffered_amount)
    assert await read(client.chunks) is None
    assert most <= 4 and client.freed == [len(chunk)]


async def test_others_have_their_turn_while_a_chunk_inflates() -> None:
    client = Client("gzip")
    client.push(b"".join(compressed(bytes(200_000)) for _ in range(50)), end=True)
    count = 0

    async def other() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0)
            count += 1

    task = asyncio.create_task(other())
    assert len(await read_all(client.chunks)) == 50
    task.cancel()
    assert count > 20


@pytest.mark.parametrize("then", ["cancel", "error", "push"])
async def test_what_happens_while_a_chunk_inflates(then: str) -> None:
    client = Client("gzip")
    chunk = b"".join(compressed(bytes(70_000)) for _ in range(3))
    client.push(chunk + (b"\x07" + bytes(5)) * (then == "error"))
    assert await read(client.chunks) == bytes(70_000)
    waiting = asyncio.create_task(read_all(client.chunks))
    if then == "cancel":
        client.chunks.cancel("gone")
        with pytest.raises(RaffelError, match="gone"):
            await waiting
    elif then == "error":
        with pytest.raises(RaffelError, match="compressed flag"):
            await waiting
        chunk += bytes(6)
    else:
        client.push(compressed(b"last"), end=True)
        client.push(b"nothing", end=True)
        assert await waiting == [bytes(70_000)] * 2 + [b"LAST"]
        chunk += compressed(b"last") + b"nothing"
    assert sum(client.freed) == len(chunk) and client.chunks.unread == 0


# Any split


Make = Callable[[bytes], bytes]


@given(
    messages=st.lists(st.tuples(st.sampled_from([plain, compressed]), st.binary(max_size=40)), max_size=12),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
async def test_any_split_and_any_pace_give_the_same_items_and_the_whole_window(
    messages: list[tuple[Make, bytes]], data: st.DataObject
) -> None:
    client = Client("gzip")
    sent = b"".join(make(message) for make, message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    chance = random.Random(len(sent))
    found: list[bytes] = []

    async def reader() -> None:
        while True:
            try:
                item = await read(client.chunks)
            except RaffelError as error:
                assert error.code == "VALIDATION_ERROR"
                continue
            if item is None:
                return
            found.append(item)
            await turns(chance.randrange(3))

    task = asyncio.create_task(reader())
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        client.push(sent[start:stop], end=stop == len(sent) and chance.random() < 0.5)
        assert sum(client.freed) + client.chunks.unread == stop
        await turns(chance.randrange(3))
    client.end()
    await task
    assert found == [message.upper() for _, message in messages if not message.startswith(b"bad")]
    assert sum(client.freed) == len(sent) and client.chunks.unread == 0
