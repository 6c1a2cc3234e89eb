"""Messages with a length before each: any split gives the same messages, and too long a one is refused in time."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raffel_core.errors import RaffelError
from raffel_core.wire.length_prefix import HEADER, MAX_MESSAGE, LengthPrefixReader, head

LIMIT = 1 << 20
MIB = 1 << 20

Take = Callable[[LengthPrefixReader], list[bytes]]


def one_by_one(reader: LengthPrefixReader) -> list[bytes]:
    taken = []
    while (message := reader.take()) is not None:
        taken.append(message)
    return taken


def all_at_once(reader: LengthPrefixReader) -> list[bytes]:
    taken: list[bytes] = []
    while messages := reader.take_all():
        taken += messages
    return taken


both_ways = pytest.mark.parametrize("take", [one_by_one, all_at_once])


def sent(*messages: bytes) -> bytes:
    return b"".join(head(len(message)) + message for message in messages)


def read(pieces: Iterable[bytes], take: Take = one_by_one, limit: int = LIMIT) -> list[bytes]:
    reader = LengthPrefixReader(limit)
    taken = []
    for piece in pieces:
        reader.feed(piece)
        taken += take(reader)
    return taken


def refused(reader: LengthPrefixReader) -> str:
    with pytest.raises(RaffelError) as raised:
        reader.take()
    assert raised.value.code == "MESSAGE_TOO_LARGE"
    return raised.value.message


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(marks)]


# Messages


def test_a_head_is_four_bytes_big_endian() -> None:
    assert head(0) == b"\0\0\0\0"
    assert head(258) == b"\0\0\1\2"
    assert head(MAX_MESSAGE) == b"\0\xff\xff\xff"
    with pytest.raises(RaffelError) as refused:
        head(MAX_MESSAGE + 1)
    assert refused.value.code == "MESSAGE_TOO_LARGE"


@both_ways
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 255, 256, 65535, 65536, LIMIT - 1, LIMIT])
def test_a_message_of_any_length(take: Take, size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert read([sent(data)], take) == [data]


@both_ways
def test_many_messages_in_one_piece(take: Take) -> None:
    messages = [b"x" * (number % 50) for number in range(5000)]
    assert read([sent(*messages)], take) == messages


@both_ways
def test_a_message_with_the_next_one_begun(take: Take) -> None:
    assert read([sent(b"one", b"two")[:-1], b"o"], take) == [b"one", b"two"]


def test_what_comes_after_a_message_waits_until_it_is_asked_for() -> None:
    reader = LengthPrefixReader(LIMIT)
    reader.feed(sent(b"one", b"two"))
    assert reader.take() == b"one"
    reader.feed(sent(b"three"))
    assert one_by_one(reader) == [b"two", b"three"]


@both_ways
@pytest.mark.parametrize("sizes", [(5, 0, 300), (70_000, 2, 70_000), (0, 0, 0)])
def test_bytes_one_by_one(take: Take, sizes: tuple[int, ...]) -> None:
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert read((bytes([byte]) for byte in sent(*messages)), take) == messages


@both_ways
def test_every_cut_in_two(take: Take) -> None:
    messages = [b"", b"ab", b"{}" * 10, b"", b"x"]
    data = sent(*messages)
    for at in range(len(data) + 1):
        assert read(split(data, [at]), take) == messages


@given(st.data(), st.lists(st.binary(max_size=40) | st.integers(0, 9000).map(bytes), max_size=12))
def test_any_split_gives_the_same_messages(draw: st.DataObject, messages: list[bytes]) -> None:
    data = sent(*messages)
    pieces = split(data, draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    assert read(pieces) == read(pieces, all_at_once) == messages


def test_messages_that_are_taken_all_at_once_are_those_that_are_complete() -> None:
    reader = LengthPrefixReader(LIMIT)
    reader.feed(sent(b"one", b"", b"two", b"three")[:-1])
    assert reader.take_all() == [b"one", b"", b"two"]
    assert reader.take_all() == []
    reader.feed(b"e" + sent(b"four"))
    assert reader.take_all() == [b"three", b"four"]


# Too long


@pytest.mark.parametrize("limit", [1, 100, LIMIT])
def test_a_message_of_exactly_the_limit_is_read(limit: int) -> None:
    assert read([sent(b"x" * limit)], limit=limit) == [b"x" * limit]


@both_ways
@pytest.mark.parametrize("size", [101, 1000, MAX_MESSAGE, 2**32 - 1])
def test_a_longer_one_is_refused_by_its_length_alone(take: Take, size: int) -> None:
    with pytest.raises(RaffelError) as raised:
        read([size.to_bytes(HEADER, "big")], take, limit=100)
    assert raised.value.code == "MESSAGE_TOO_LARGE"
    assert str(size) in raised.value.message and "100" in raised.value.message


@pytest.mark.parametrize("limit", [MAX_MESSAGE, 1 << 30, 1 << 40])
def test_no_message_is_longer_than_a_first_byte_of_zero_allows(limit: int) -> None:
    reader = LengthPrefixReader(limit)
    reader.feed(head(MAX_MESSAGE))
    assert reader.take() is None
    reader = LengthPrefixReader(limit)
    reader.feed((MAX_MESSAGE + 1).to_bytes(HEADER, "big"))
    assert str(MAX_MESSAGE) in refused(reader)


@both_ways
def test_messages_before_one_that_is_too_long_are_read(take: Take) -> None:
    reader = LengthPrefixReader(10)
    reader.feed(sent(b"one", b"two") + head(11) + b"x" * 11)
    taken = []
    with pytest.raises(RaffelError):
        while messages := ([m] if take is one_by_one and (m := reader.take()) is not None else reader.take_all()):
            taken += messages
    assert taken == [b"one", b"two"]


def test_a_long_message_may_hide_behind_a_short_one() -> None:
    reader = LengthPrefixReader(10)
    reader.feed(sent(b"one") + head(11)[:3])
    assert one_by_one(reader) == [b"one"]
    reader.feed(head(11)[3:])
    refused(reader)


def test_a_length_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        readers = [LengthPrefixReader(MAX_MESSAGE) for _ in range(100)]
        for reader in readers:
            reader.feed(head(MAX_MESSAGE) + b"x")
            assert reader.take() is None
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


# What is buffered


def test_what_has_not_been_taken_is_buffered() -> None:
    reader = LengthPrefixReader(LIMIT)
    data = sent(b"one", b"two", b"x" * 5000)
    assert reader.buffered == 0
    reader.feed(data[:-1])
    assert reader.buffered == len(data) - 1
    reader.take()
    assert reader.buffered == len(data) - 1 - len(sent(b"one"))
    reader.take()
    assert reader.take() is None and reader.buffered == HEADER + 4999
    reader.feed(b"x")
    assert reader.buffered == HEADER + 5000
    assert reader.take() == b"x" * 5000 and reader.buffered == 0


@both_ways
def test_a_message_that_has_begun_is_partial(take: Take) -> None:
    data = sent(b"abc", b"x" * 5000)
    for size in range(len(data) + 1):
        reader = LengthPrefixReader(LIMIT)
        reader.feed(data[:size])
        take(reader)
        assert reader.partial == (size not in (0, HEADER + 3, len(data))), size


def test_a_message_in_pieces_stays_partial_until_its_last_byte() -> None:
    reader = LengthPrefixReader(LIMIT)
    for byte in sent(b"x" * 300)[:-1]:
        reader.feed(bytes([byte]))
        assert reader.take() is None and reader.partial
    reader.feed(b"x")
    assert reader.take() == b"x" * 300 and reader.take() is None and not reader.partial


def test_nothing_is_kept_of_messages_that_were_taken() -> None:
    tracemalloc.start()
    try:
        readers = [LengthPrefixReader(MIB) for _ in range(10)]
        for reader in readers:
            for piece in split(sent(b"x" * MIB), [10, 1000]):
                reader.feed(piece)
                one_by_one(reader)
        del piece  # the last one is as long as a message
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()


def test_a_long_message_comes_in_tiny_pieces() -> None:
    data = random.Random(5).randbytes(LIMIT)  # copied once a piece, it would take minutes
    assert read(bytes([byte]) for byte in sent(data)) == [data]


# Any bytes


def test_any_bytes_are_messages_or_too_long() -> None:
    chance = random.Random(4)
    for _ in range(100_000):
        data = junk(chance)
        cuts = [chance.randrange(len(data) + 1) for _ in range(chance.randrange(4))]
        limit = chance.choice([5, 20, 200])
        assert outcome(split(data, cuts), one_by_one, limit) == expected(data, limit)
        assert outcome(split(data, cuts), all_at_once, limit) == expected(data, limit)


def junk(chance: random.Random) -> bytes:
    messages = [chance.randbytes(chance.choice([0, 1, 5, 6, 20, 40])) for _ in range(chance.randrange(5))]
    data = sent(*messages)
    if chance.random() < 0.5:
        at = chance.randrange(len(data) + 1)
        data = data[:at] + chance.choice([b"", b"\0", b"\0\0\0", b"\xff", chance.randbytes(3)]) + data[at:]
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data


def outcome(pieces: Iterable[bytes], take: Take, limit: int) -> tuple[list[bytes], bool]:
    """The messages, and whether a message was too long."""
    reader = LengthPrefixReader(limit)
    taken: list[bytes] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                messages = reader.take_all() if take is all_at_once else [m for m in [reader.take()] if m is not None]
                if not messages:
                    break
                taken += messages
    except RaffelError as error:
        assert error.code == "MESSAGE_TOO_LARGE"
        return taken, True
    return taken, False


def expected(data: bytes, limit: int) -> tuple[list[bytes], bool]:
    taken, at = [], 0
    while at + HEADER <= len(data):
        size = int.from_bytes(data[at : at + HEADER])
        if size > limit:
            return taken, True
        if at + HEADER + size > len(data):
            break
        taken.append(data[at + HEADER : at + HEADER + size])
        at += HEADER + size
    return taken, False
