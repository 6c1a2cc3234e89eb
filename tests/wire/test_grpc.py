"""gRPC's own layer: messages however they are cut, compressed or not, metadata both ways, and how an end is told."""

from __future__ import annotations

import gzip
import itertools
import random
import tracemalloc
import urllib.parse
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raffel_core.errors import CODES, RaffelError
from raffel_core.wire.grpc import (
    ENCODINGS,
    MAX_SENT,
    MAX_STATUS_MESSAGE,
    MAX_TRAILERS,
    MessageReader,
    compressed_prefix,
    gzipped,
    metadata_headers,
    percent_encoded,
    prefix,
    read_metadata,
    timeout_seconds,
    trailers,
)

MIB = 1 << 20


def plain(*messages: bytes) -> bytes:
    return b"".join(prefix(len(message)) + message for message in messages)


def compressed(*messages: bytes) -> bytes:
    return b"".join(compressed_prefix(len(data)) + data for data in map(gzipped, messages))


def framed(flag: int, data: bytes) -> bytes:
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


def taken(reader: MessageReader, piece: bytes) -> list[bytes]:
    messages = reader.feed(piece)
    while reader.more:
        messages += reader.feed(b"")
    return messages


def read(pieces: Iterable[bytes], limit: int = MIB, encoding: str | None = "gzip") -> list[bytes]:
    """All messages of a request that ends well."""
    reader = MessageReader(limit, encoding)
    messages = [message for piece in pieces for message in taken(reader, piece)]
    assert reader.partial == 0
    reader.end()
    return messages


def refused(reader: MessageReader, piece: bytes = b"") -> RaffelError:
    with pytest.raises(RaffelError) as raised:
        reader.feed(piece)
    return raised.value


# Messages


def test_messages_of_one_chunk_come_in_order() -> None:
    assert read([plain(b"one", b"", b"three")]) == [b"one", b"", b"three"]


def test_no_bytes_are_no_messages() -> None:
    assert read([]) == read([b""]) == []


def test_a_compressed_message_arrives_as_it_was() -> None:
    assert read([compressed(b"x" * 5000, b"")]) == [b"x" * 5000, b""]


def test_compressed_and_plain_messages_may_take_turns() -> None:
    data = plain(b"one") + compressed(b"two") + plain(b"three") + compressed(b"four")
    assert read([data]) == [b"one", b"two", b"three", b"four"]


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=8),
    st.lists(st.integers(0, 600), max_size=8),
)
def test_any_cut_gives_the_same_messages(messages: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    data = b"".join(compressed(message) if packed else plain(message) for message, packed in messages)
    assert read(split(data, [min(cut, len(data)) for cut in cuts])) == [message for message, _ in messages]


def test_messages_come_byte_by_byte() -> None:
    messages = [b"one", b"", b"x" * 300]
    assert read(bytes([byte]) for byte in plain(*messages)) == messages
    assert read(bytes([byte]) for byte in compressed(*messages)) == messages


def test_a_long_message_comes_in_tiny_pieces() -> None:
    data = random.Random(5).randbytes(MIB)  # copied once a piece, it would take minutes
    assert read(bytes([byte]) for byte in plain(data)) == [data]


def test_without_a_compressed_flag_an_encoding_changes_nothing() -> None:
    assert read([plain(gzipped(b"one"))], encoding="gzip") == [gzipped(b"one")]


@pytest.mark.parametrize("encoding", [None, *ENCODINGS])
def test_plain_messages_are_read_under_every_encoding(encoding: str | None) -> None:
    assert read([plain(b"one")], encoding=encoding) == [b"one"]


def test_an_unknown_encoding_is_unimplemented() -> None:
    with pytest.raises(RaffelError) as raised:
        MessageReader(MIB, "snappy")
    assert raised.value.code == "UNIMPLEMENTED" and "'snappy'" in raised.value.message


# Lengths


@pytest.mark.parametrize("size", [0, 10])
def test_a_message_of_exactly_the_limit_is_accepted(size: int) -> None:
    assert read([plain(b"x" * size)], limit=size) == [b"x" * size]


def test_a_compressed_message_of_exactly_the_limit_is_accepted() -> None:
    assert read([compressed(b"x" * 1000)], limit=1000) == [b"x" * 1000]


def test_too_long_a_message_is_refused_before_it_comes() -> None:
    reader = MessageReader(10, None)
    error = refused(reader, prefix(11))
    assert error.code == "MESSAGE_TOO_LARGE" and "11 bytes" in error.message and "10" in error.message
    assert reader.partial == 0


def test_too_long_a_compressed_message_is_refused_before_it_comes() -> None:
    assert refused(MessageReader(10, "gzip"), compressed_prefix(11)).code == "MESSAGE_TOO_LARGE"


def test_a_message_that_inflates_beyond_the_limit_is_refused() -> None:
    error = refused(MessageReader(1000, "gzip"), compressed(b"x" * 1001))
    assert error.code == "MESSAGE_TOO_LARGE" and "1000" in error.message


def test_a_length_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        readers = [MessageReader(1 << 31, None) for _ in range(100)]
        assert all(reader.feed(prefix(1 << 31) + b"x") == [] for reader in readers)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_message_inflates_no_further_than_the_limit() -> None:
    bomb = compressed(bytes(100 * MIB))
    tracemalloc.start()
    try:
        assert refused(MessageReader(MIB, "gzip"), bomb).code == "MESSAGE_TOO_LARGE"
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_many_bombs_in_one_chunk_inflate_one_at_a_time() -> None:
    reader = MessageReader(MIB, "gzip")
    chunk = compressed(*[bytes(MIB)] * 16)
    tracemalloc.start()
    try:
        assert len(reader.feed(chunk)) == 1
        count = 1
        while reader.more:
            count += len(reader.feed(b""))
        assert count == 16
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_small_compressed_messages_come_in_bulk() -> None:
    reader = MessageReader(MIB, "gzip")
    assert len(reader.feed(compressed(*[b"x" * 100] * 400))) == 400 and not reader.more


def test_bytes_may_come_while_there_is_more_to_take() -> None:
    reader = MessageReader(MIB, "gzip")
    first, second = compressed(bytes(MIB), b"two", b"three"), plain(b"four")
    assert reader.feed(first[:-4]) == [bytes(MIB)] and reader.more
    assert taken(reader, first[-4:] + second) == [b"two", b"three", b"four"]


# What is held


def test_a_message_that_has_begun_is_partial() -> None:
    data = plain(b"abc", b"x" * 5000)
    for size in range(len(data) + 1):
        reader = MessageReader(MIB, None)
        reader.feed(data[:size])
        whole = 8 if size >= 8 else 0
        assert reader.partial == (0 if size == len(data) else size - whole), size


def test_a_request_may_not_end_within_a_message() -> None:
    data = plain(b"one", b"two")
    for size in set(range(len(data))) - {0, 8}:
        reader = MessageReader(MIB, None)
        reader.feed(data[:size])
        with pytest.raises(RaffelError) as raised:
            reader.end()
        assert raised.value.code == "INVALID_ARGUMENT" and f"{size % 8} bytes" in raised.value.message


def test_nothing_is_kept_of_messages_that_were_taken() -> None:
    tracemalloc.start()
    try:
        readers = [MessageReader(MIB, None) for _ in range(10)]
        for reader in readers:
            for piece in split(plain(b"x" * MIB), [10, 1000]):
                reader.feed(piece)
        del piece  # the last one is as long as a message
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()


# Broken messages


@pytest.mark.parametrize("encoding", [None, "identity"])
def test_a_compressed_message_without_an_encoding_is_an_error(encoding: str | None) -> None:
    error = refused(MessageReader(MIB, encoding), compressed(b"one"))
    assert error.code == "INTERNAL_ERROR" and "compressed flag" in error.message


@pytest.mark.parametrize("flag", [2, 0x80, 255])
def test_another_compressed_flag_is_an_error(flag: int) -> None:
    error = refused(MessageReader(MIB, "gzip"), framed(flag, b"one"))
    assert error.code == "INTERNAL_ERROR" and f"flag {flag}" in error.message


GZIP = gzipped(b"a message")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends before"),
        (b"not gzip", "is not gzip"),
        (GZIP[:-1], "ends before"),
        (GZIP[:-5] + b"x" + GZIP[-4:], "is not gzip"),
        (GZIP + b"x", "1 bytes after"),
        (GZIP + GZIP, "bytes after"),
    ],
)
def test_broken_gzip_is_an_error(data: bytes, words: str) -> None:
    error = refused(MessageReader(MIB, "gzip"), framed(1, data))
    assert error.code == "INTERNAL_ERROR" and words in error.message


BROKEN = {
    "INTERNAL_ERROR": framed(2, b""),
    "MESSAGE_TOO_LARGE": prefix(MIB + 1),
}


@pytest.mark.parametrize("code", BROKEN)
def test_an_error_comes_after_the_messages_before_it(code: str) -> None:
    reader = MessageReader(MIB, "gzip")
    assert reader.feed(plain(b"one") + compressed(b"two") + BROKEN[code] + plain(b"lost")) == [b"one", b"two"]
    assert reader.more
    assert refused(reader).code == code


@pytest.mark.parametrize("code", BROKEN)
def test_nothing_comes_after_an_error(code: str) -> None:
    reader = MessageReader(MIB, "gzip")
    error = refused(reader, BROKEN[code])
    assert refused(reader, plain(b"one")) is error
    with pytest.raises(RaffelError) as raised:
        reader.end()
    assert raised.value is error


def test_any_bytes_are_messages_or_an_error() -> None:
    chance = random.Random(4)
    for _ in range(20_000):
        data = junk(chance)
        cuts = [chance.randrange(len(data) + 1) for _ in range(chance.randrange(4))]
        assert outcome(split(data, cuts)) == expected(data)


LIMIT = 20


def junk(chance: random.Random) -> bytes:
    pieces = [
        chance.choice([plain, compressed])(chance.randbytes(chance.choice([0, 1, 5, 20, 21])))
        for _ in range(chance.randrange(4))
    ]
    data = b"".join(pieces)
    if chance.random() < 0.5:
        at = chance.randrange(len(data) + 1)
        data = data[:at] + chance.choice([b"\0", b"\1", b"\0\0\0", b"\xff", chance.randbytes(3)]) + data[at:]
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data


def outcome(pieces: Iterable[bytes]) -> tuple[list[bytes], str]:
    """The messages, and the code of what was wrong."""
    reader = MessageReader(LIMIT, "gzip")
    messages: list[bytes] = []
    try:
        for piece in pieces:
            messages += reader.feed(piece)
            while reader.more:
                messages += reader.feed(b"")
        reader.end()
    except RaffelError as error:
        return messages, error.code
    return messages, ""


def expected(data: bytes) -> tuple[list[bytes], str]:
    """The same by Python's own gzip, one message after the other."""
    messages, at = [], 0
    while at < len(data):
        if at + 5 > len(data):
            return messages, "INVALID_ARGUMENT"
        flag, size = data[at], int.from_bytes(data[at + 1 : at + 5])
        if flag > 1:
            return messages, "INTERNAL_ERROR"
        if size > LIMIT:
            return messages, "MESSAGE_TOO_LARGE"
        body = data[at + 5 : at + 5 + size]
        if len(body) < size:
            return messages, "INVALID_ARGUMENT"
        if flag:
            try:
                body = gzip.decompress(body or b"not gzip")
            except (OSError, EOFError, zlib.error):
                return messages, "INTERNAL_ERROR"
        messages.append(body)
        at += 5 + size
    return messages, ""


# What comes before a message


@pytest.mark.parametrize("size", [0, 1, 255, 256, 2047, 2048, 65536, (1 << 32) - 1])
def test_a_prefix_is_a_flag_and_a_length(size: int) -> None:
    assert prefix(size) == b"\0" + size.to_bytes(4, "big")
    assert compressed_prefix(size) == b"\1" + size.to_bytes(4, "big")


def test_four_bytes_say_no_longer_length() -> None:
    for make in (prefix, compressed_prefix):
        with pytest.raises(RaffelError) as raised:
            make(1 << 32)
        assert raised.value.code == "MESSAGE_TOO_LARGE"


def test_gzip_is_smaller_and_always_the_same() -> None:
    data = gzipped(b"x" * 10_000)
    assert gzip.decompress(data) == b"x" * 10_000
    assert len(data) < 200
    assert data[4:8] == bytes(4)  # no time in it (RFC 1952, section 2.3)


# grpc-timeout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("99999999S", 99_999_999),
        ("1500m", 1.5),
        ("1u", 1e-6),
        ("00000001n", 1e-9),
    ],
)
def test_a_timeout_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert timeout_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S",
        "1",
        "0S",
        "00m",
        "-1S",
        "+1S",
        "1.5S",
        " 1S",
        "1 S",
        "1s",
        "1h",
        "100000000n",
        "1SS",
        "\u0661S",
        "\xb2S",
    ],
)
def test_another_timeout_is_refused(text: str) -> None:
    with pytest.raises(RaffelError) as raised:
        timeout_seconds(text)
    assert raised.value.code == "INVALID_ARGUMENT" and repr(text) in raised.value.message


# grpc-message


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("", b""),
        ("plain text, ~!#$&", b"plain text, ~!#$&"),
        ("100%", b"100%25"),
        ("a\r\nb\0", b"a%0D%0Ab%00"),
        ("\x7f", b"%7F"),
        ("caf\xe9 \u2713", b"caf%C3%A9 %E2%9C%93"),
        ("\ud800", b"\\ud800"),
    ],
)
def test_a_status_message_is_percent_encoded(text: str, encoded: bytes) -> None:
    assert percent_encoded(text) == encoded


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_text_survives_percent_encoding(text: str) -> None:
    encoded = percent_encoded(text)
    assert encoded.isascii() and encoded.decode().isprintable()
    assert urllib.parse.unquote(encoded.decode()) == text


@pytest.mark.parametrize("character", ["x", "%", "\xe9", "\u2713", "\U0001f980"])
def test_a_long_status_message_is_cut_at_a_whole_character(character: str) -> None:
    for shift in range(13):
        encoded = percent_encoded("." * shift + character * MAX_STATUS_MESSAGE)
        room = len(percent_encoded(character))
        assert MAX_STATUS_MESSAGE - room < len(encoded) <= MAX_STATUS_MESSAGE
        assert set(urllib.parse.unquote(encoded.decode(), errors="strict")) <= {".", character}


def test_a_status_message_of_any_length_costs_no_more_than_its_limit() -> None:
    text = "x" * (8 * MIB)
    tracemalloc.start()
    try:
        assert len(percent_encoded(text)) == MAX_STATUS_MESSAGE
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


# A request's metadata


def test_metadata_are_the_headers_without_the_pseudo_headers() -> None:
    headers = [(b":path", b"/Logs/Tail"), (b"user-agent", b"grpc-go/1.60"), (b"empty", b"")]
    assert read_metadata(headers) == {"user-agent": "grpc-go/1.60", "empty": ""}


def test_a_repeated_name_has_its_values_joined() -> None:
    assert read_metadata([(b"x", b"1"), (b"y", b"3"), (b"x", b"2")]) == {"x": "1,2", "y": "3"}


def test_crumbs_of_a_cookie_are_one_cookie() -> None:
    assert read_metadata([(b"cookie", b"a=1"), (b"cookie", b"b=2")]) == {"cookie": "a=1; b=2"}


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abc", b"\xff\xfe\xfd\xfc", bytes(range(256))])
def test_a_binary_value_is_base64_with_padding_whatever_it_came_with(data: bytes) -> None:
    padded = b64encode(data)
    for value in (padded, padded.rstrip(b"=")):
        assert read_metadata([(b"x-bin", value)]) == {"x-bin": padded.decode()}


def test_a_list_of_binary_values_is_one_of_padded_values() -> None:
    assert read_metadata([(b"x-bin", b"YQ,YWI=, YWJj"), (b"x-bin", b"YQ")]) == {"x-bin": "YQ==,YWI=,YWJj,YQ=="}


@pytest.mark.parametrize("value", [b"A", b"a b", b"YQ==YQ==", b"=A", b"!!!!", b"_-_-", b"YW\nI", b"\xff", b"YQ==,?"])
def test_a_binary_value_that_is_not_base64_is_refused(value: bytes) -> None:
    with pytest.raises(RaffelError) as raised:
        read_metadata([(b"x-bin", value)])
    assert raised.value.code == "INVALID_ARGUMENT" and "'x-bin'" in raised.value.message


@pytest.mark.parametrize("value", [b"caf\xc3\xa9", b"\xff", b"a\tb", b"a\nb", b"a\0", b"\x7f"])
def test_a_value_that_is_not_printable_ascii_is_refused(value: bytes) -> None:
    with pytest.raises(RaffelError) as raised:
        read_metadata([(b"ok", b"ok"), (b"x-name", value)])
    assert raised.value.code == "INVALID_ARGUMENT" and "'x-name'" in raised.value.message


def test_sixty_four_headers_are_metadata_and_no_more() -> None:
    headers = [(b":path", b"/")] + [(b"x-%d" % number, b"") for number in range(64)]
    assert len(read_metadata(headers)) == 64
    with pytest.raises(RaffelError) as raised:
        read_metadata([*headers, (b"x-0", b"")])
    assert raised.value.code == "INVALID_ARGUMENT" and "64" in raised.value.message


def test_sixteen_kib_are_metadata_and_no_more() -> None:
    assert read_metadata([(b"x", b"v" * (16 * 1024 - 1))]) == {"x": "v" * (16 * 1024 - 1)}
    with pytest.raises(RaffelError) as raised:
        read_metadata([(b"x", b"v" * (16 * 1024))])
    assert raised.value.code == "INVALID_ARGUMENT" and "16384" in raised.value.message


# What a handler sends back


def test_names_go_out_in_lower_case() -> None:
    assert metadata_headers({"X-Request_Id.1": "42"}) == [(b"x-request_id.1", b"42")]


def test_a_binary_value_goes_out_as_base64_without_padding() -> None:
    assert metadata_headers({"a-bin": b"a", "B-BIN": b"\xff\xff", "c-bin": b""}) == [
        (b"a-bin", b"YQ"),
        (b"b-bin", b"//8"),
        (b"c-bin", b""),
    ]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3))
def test_what_came_as_binary_metadata_can_go_back_as_it_is(values: list[bytes]) -> None:
    came = read_metadata([(b"x-bin", b64encode(value)) for value in values])
    ((_, went),) = metadata_headers(came)
    assert [b64decode(part + b"=" * (-len(part) % 4)) for part in went.split(b",")] == values


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", ":path", "caf\xe9", "x\n", "grpc-status", "Grpc-Foo", "content-type", "TE", "connection", 1],
)
def test_a_name_that_cannot_be_sent_is_refused(name: str) -> None:
    with pytest.raises(RaffelError) as raised:
        metadata_headers({name: "x"})
    assert raised.value.code == "OUTPUT_VALIDATION_ERROR" and repr(name) in raised.value.message


@pytest.mark.parametrize("value", ["caf\xe9", "a\nb", "a\tb", "a\0", " a", "a ", " ", b"bytes", 1, None])
def test_a_value_that_cannot_be_sent_is_refused(value: str) -> None:
    with pytest.raises(RaffelError) as raised:
        metadata_headers({"x-name": value})
    assert raised.value.code == "OUTPUT_VALIDATION_ERROR" and "'x-name'" in raised.value.message


@pytest.mark.parametrize("value", ["not base64", "caf\xe9", "A", 1, None])
def test_a_binary_value_that_is_neither_bytes_nor_base64_is_refused(value: str) -> None:
    with pytest.raises(RaffelError) as raised:
        metadata_headers({"x-bin": value})
    assert raised.value.code == "OUTPUT_VALIDATION_ERROR" and "'x-bin'" in raised.value.message


@pytest.mark.parametrize("value", ["", "a", "a b", "~!", "1,2"])
def test_printable_ascii_goes_out_as_it_is(value: str) -> None:
    assert metadata_headers({"x": value}) == [(b"x", value.encode())]


def test_what_is_sent_back_is_bounded() -> None:
    largest = {"x": "v" * (MAX_SENT - 33)}
    assert metadata_headers(largest)
    for metadata in ({"x": "v" * (MAX_SENT - 32)}, {f"x{number}": "" for number in range(65)}):
        with pytest.raises(RaffelError) as raised:
            metadata_headers(metadata)
        assert raised.value.code == "OUTPUT_VALIDATION_ERROR" and str(MAX_SENT) in raised.value.message


# Trailers


def test_a_call_that_went_well_says_so() -> None:
    assert trailers(None, None, {}) == [(b"grpc-status", b"0")]


@pytest.mark.parametrize("code", CODES)
def test_the_table_of_codes_decides_the_status(code: str) -> None:
    assert trailers(RaffelError(code), None, {}) == [(b"grpc-status", str(CODES[code].grpc).encode())]


def test_a_code_of_ones_own_is_unknown() -> None:
    assert trailers(RaffelError("TEAPOT", status=418), None, {}) == [(b"grpc-status", b"2")]


def test_trailers_are_a_status_a_message_metadata_and_details() -> None:
    assert trailers(RaffelError("NOT_FOUND", "no 'caf\xe9'"), b"\x08\x05", {"X": "1"}) == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no 'caf%C3%A9'"),
        (b"x", b"1"),
        (b"grpc-status-details-bin", b"CAU"),
    ]


def test_metadata_follow_a_call_that_went_well() -> None:
    assert trailers(None, None, {"x-bin": b"a"}) == [(b"grpc-status", b"0"), (b"x-bin", b"YQ")]


def test_details_that_a_client_might_not_take_are_left_out() -> None:
    error = RaffelError("NOT_FOUND", "\xe9" * MAX_STATUS_MESSAGE)
    metadata = {"x": "v" * (MAX_SENT - 33)}
    for size in range(0, 5000, 50):
        headers = trailers(error, bytes(size), metadata)
        total = sum(len(name) + len(value) + 32 for name, value in headers)
        with_details = total if len(headers) == 4 else total + len(b"grpc-status-details-bin") + 32 + -(-size * 4 // 3)
        assert total <= MAX_TRAILERS
        assert (len(headers) == 4) == (with_details <= MAX_TRAILERS), size
