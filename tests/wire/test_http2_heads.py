"""Heads of HTTP/2's requests (RFC 9113, section 8) and their compression (RFC 7541)."""

from __future__ import annotations

import random

import pytest
from hpack import Encoder

from raffel_core.wire.http2 import Kind
from raffel_core.wire.http2_frames import Code
from raffel_core.wire.http2_heads import HEADER_BYTES, HeadReader
from raffel_core.wire.http2_streams import ConnectionFault, Head

from .http2_peer import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    POST,
    Fields,
    Peer,
    data,
    frame,
    headers,
    literal,
    literals,
    resize,
    summary,
)

METHOD, SCHEME, PATH, AUTHORITY = POST
MALFORMED = ("reset", Code.PROTOCOL_ERROR)
COMPRESSION = ("goaway", Code.COMPRESSION_ERROR)
CALM = ("goaway", Code.ENHANCE_YOUR_CALM)
RESIZE_0, RESIZE_4096 = b"\x20", b"\x3f\xe1\x1f"


def refusal(block: bytes) -> tuple[str, Code] | None:
    """What becomes of a request with this block: None where it is opened."""
    peer = Peer()
    events = peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    found = peer.reaction()
    assert [event.kind for event in events] == ([] if found else [Kind.OPENED])
    if peer.http2.ended is None:
        assert peer.lives(3), "the other streams are unharmed"
    return found


def reader() -> HeadReader:
    return HeadReader(lambda method, path, fields: fields)


def fields_of(head: Head | None) -> Fields:
    assert head is not None
    return head.read


# Pseudo-headers (8.3)


@pytest.mark.parametrize(
    "fields",
    [
        POST,
        [METHOD, SCHEME, PATH],
        [PATH, AUTHORITY, METHOD, SCHEME],
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"*")],
        [(b":method", b"OPTIONS"), SCHEME, (b":path", b"*")],
        [*POST, (b"host", b"here")],
    ],
)
def test_a_request_needs_a_method_a_scheme_and_a_path(fields: Fields) -> None:
    assert refusal(literals(fields)) is None


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"a", b"b")],
        [SCHEME, PATH],
        [METHOD, PATH],
        [METHOD, SCHEME],
        [METHOD, SCHEME, AUTHORITY],
        [*POST, METHOD],
        [*POST, SCHEME],
        [*POST, PATH],
        [*POST, AUTHORITY],
        [METHOD, METHOD, SCHEME, PATH],
        [METHOD, SCHEME, (b":path", b"")],
        [*POST, (b":status", b"200")],
        [*POST, (b":test", b"1")],
        [*POST, (b":", b"1")],
        [*POST, (b":protocol", b"websocket")],
        [METHOD, (b"a", b"b"), SCHEME, PATH],
        [METHOD, SCHEME, PATH, (b"a", b"b"), AUTHORITY],
        [(b"a", b"b"), *POST],
        [(b":METHOD", b"POST"), SCHEME, PATH],
    ],
)
def test_pseudo_headers_that_are_missing_twice_there_unknown_or_late_are_malformed(fields: Fields) -> None:
    assert refusal(literals(fields)) == MALFORMED


@pytest.mark.parametrize("name", [b":method", b":scheme", b":path", b":authority"])
def test_a_pseudo_header_has_the_same_values_as_any_field(name: bytes) -> None:
    """8.2.1 speaks of field values, of which a pseudo-header's is one (8.3)."""
    for value in (b"a\0b", b"a\nb", b"a\rb"):
        assert refusal(literals([(key, value if key == name else old) for key, old in POST])) == MALFORMED


def test_a_head_has_its_method_its_path_and_its_other_fields_in_order() -> None:
    peer = Peer()
    others = [(b"b", b"2"), (b"a", b"1"), (b"b", b"3"), (b"te", b"trailers")]
    stream = peer.open(1, fields=[*POST, *others])
    assert stream.head == Head(b"POST", b"/Echo/Call", None, (b"POST", b"/Echo/Call", others))


# Fields (8.2)


@pytest.mark.parametrize(
    "field",
    [
        (b"Upper", b"x"),
        (b"x-Y", b"x"),
        (b"", b"x"),
        (b"connection", b"close"),
        (b"connection", b""),
        (b"keep-alive", b"5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"te", b"trailers, deflate"),
        (b"te", b""),
        (b"a", b"x\0"),
        (b"a", b"x\r\nb: y"),
        (b"a", b"\n"),
    ],
)
def test_a_field_that_http_2_does_not_carry_is_malformed(field: tuple[bytes, bytes]) -> None:
    assert refusal(literals([*POST, field])) == MALFORMED


def test_a_field_name_has_only_bytes_that_names_have() -> None:
    """8.2.1: none of 0x00-0x20, 0x41-0x5a and 0x7f-0xff."""
    illegal = {*range(0x21), *range(0x41, 0x5B), *range(0x7F, 0x100), ord(":")}
    taken = {byte for byte in range(256) if refusal(literals([*POST, (b"x" + bytes((byte,)) + b"y", b"v")])) is None}
    assert taken == {*range(256)} - illegal


@pytest.mark.parametrize("value", [b" x", b"x ", b"\tx", b"x\t", b" "])
def test_a_field_value_has_no_space_around_it(value: bytes) -> None:
    assert refusal(literals([*POST, (b"a", value)])) == MALFORMED


@pytest.mark.parametrize(
    "field",
    [
        (b"te", b"trailers"),
        (b"a", b""),
        (b"a", b"in ner\tspace"),
        (b"a", bytes(range(0x80, 0x100))[:126]),
        (b"!#$%&'*+-.^_`|~09az", b"v"),
        (b"cookie", b"a=b"),
        (b"x-connection", b"close"),
    ],
)
def test_a_field_that_is_legal(field: tuple[bytes, bytes]) -> None:
    assert refusal(literals([*POST, field, field])) is None


# Trailers (8.1)


def trailing(block: bytes, *, end: bool = True) -> tuple[list[tuple[object, ...]], tuple[str, Code] | None]:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(data(1, b"x"))
    return summary(peer.say(frame(HEADERS, END_HEADERS | end, 1, block))), peer.reaction()


@pytest.mark.parametrize("fields", [[], [(b"a", b"b")], [(b"a", b"b"), (b"a", b"c")]])
def test_trailers_end_the_request(fields: Fields) -> None:
    assert trailing(literals(fields)) == ([(Kind.BODY, 1, b"", True)], None)


@pytest.mark.parametrize(
    "fields",
    [
        [METHOD],
        POST,
        [(b":status", b"200")],
        [(b"a", b"b"), (b":x", b"y")],
        [(b"A", b"b")],
        [(b"connection", b"x")],
        [(b"te", b"x")],
        [(b"a", b"\0")],
        [(b"", b"")],
    ],
)
def test_trailers_that_are_malformed_reset_the_stream(fields: Fields) -> None:
    assert trailing(literals(fields)) == ([(Kind.RESET, 1, b"", False)], MALFORMED)


def test_a_second_header_block_that_does_not_end_the_request_is_malformed() -> None:
    assert trailing(literals([(b"a", b"b")]), end=False) == ([(Kind.RESET, 1, b"", False)], MALFORMED)


def test_trailers_in_several_frames_end_the_request_with_the_flag_of_the_first() -> None:
    peer = Peer()
    peer.open(1)
    assert peer.say(frame(HEADERS, END_STREAM, 1)) == []
    events = peer.say(frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b")))
    assert summary(events) == [(Kind.BODY, 1, b"", True)]


# content-length (8.1.1)


def sized(length: bytes, *bodies: bytes, trailers: bool = False) -> tuple[str, Code] | None:
    """What becomes of a request that promises this length and has these bodies."""
    peer = Peer()
    end = not bodies and not trailers
    peer.say(headers(1, [*POST, (b"content-length", length)], end=end))
    for number, body in enumerate(bodies, 1):
        peer.say(data(1, body, end=number == len(bodies) and not trailers))
    if trailers:
        peer.say(headers(1, [(b"a", b"b")], end=True))
    return peer.reaction()


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize(
    ("length", "bodies"), [(b"0", []), (b"3", [b"abc"]), (b"3", [b"a", b"", b"bc"]), (b"00", [b""])]
)
def test_a_body_of_the_length_that_was_promised(length: bytes, bodies: list[bytes], trailers: bool) -> None:
    assert sized(length, *bodies, trailers=trailers) is None


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize(
    ("length", "bodies"),
    [(b"1", []), (b"3", [b"ab"]), (b"3", [b"abcd"]), (b"3", [b"a", b"b"]), (b"3", [b"ab", b"cd", b""]), (b"0", [b"a"])],
)
def test_a_body_of_another_length_is_malformed(length: bytes, bodies: list[bytes], trailers: bool) -> None:
    assert sized(length, *bodies, trailers=trailers) == MALFORMED


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"x", b"1 ", b"0x10", b"1_0", b"1.0", b"\xb2", b"9" * 100])
def test_a_length_that_is_none_is_malformed(length: bytes) -> None:
    assert refusal(literals([*POST, (b"content-length", length)])) == MALFORMED


def test_two_lengths_are_malformed_where_they_differ() -> None:
    assert sized(b"3") == MALFORMED
    twice = [*POST, (b"content-length", b"0"), (b"content-length", b"0")]
    assert refusal(literals(twice)) is None
    assert refusal(literals([*twice, (b"content-length", b"1")])) == MALFORMED


# What cannot be decoded (RFC 7541)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x80",  # 6.1: the index 0
        b"\xbe",  # 2.3.3: beyond both tables
        b"\xff\x80\x80\x80\x01",
        b"\x7f\x80\x80\x80\x01\x01x",
        b"\x40",  # cut short
        b"\x40\x05abc",
        b"\x40\x01a",
        b"\x40\x01a\x05b",
        b"\x00\x01a\x7f",
        b"\xff",
        b"\xff" + b"\x80" * 50 + b"\x01",  # 5.1: integers without an end
        b"\xff" + b"\xff" * 10_000,
        b"\x40\x7f" + b"\xff" * 9 + b"\x7f",
        b"\x40\x01a\x7f" + b"\xff" * 9 + b"\x7f",
        b"\x3f" + b"\xff" * 20,
        b"\x3f\xe2\x1f",  # 4.2, 6.3: a table of 4097 bytes
        b"\x3f\xff\xff\xff\x07",
        b"\x82" + RESIZE_0,  # 4.2: a change of the table's size that is not at the beginning
        b"\x40\x01a\x01b" + RESIZE_0,
        b"\x00\x01a\x82\xf8\xff",  # 5.2: padding of more than 7 bits
        b"\x00\x01a\x81\x18",  # padding that is not of ones
        b"\x00\x01a\x84\xff\xff\xff\xff",  # EOS
        b"\x00\x01a\x81\xff",
        b"\x00\x81\xff\x01a",
    ],
)
@pytest.mark.parametrize("where", ["before", "behind", "trailers", "dropped"])
def test_a_block_that_cannot_be_decoded_ends_the_connection(broken: bytes, where: str) -> None:
    peer = Peer()
    block = broken if where != "behind" else literals(POST) + broken
    stream = 3
    if where in ("trailers", "dropped"):
        opened = peer.open(stream)
        if where == "dropped":
            peer.http2.reset(opened, Code.CANCEL)
        peer.heard()
    assert peer.say(frame(HEADERS, END_HEADERS | END_STREAM, stream, block)) == []
    assert peer.reaction() == COMPRESSION


@pytest.mark.parametrize("first", [0x00, 0x10, 0x40])
def test_every_form_of_a_field_is_read(first: int) -> None:
    block = literals(POST[1:]) + b"\x83" + literal(b"new", b"value", first=first)
    block += bytes((first | 0x0F, 0x2B)) if first != 0x40 else bytes((0x40 | 58,))  # user-agent of the static table
    block += b"\x05agent"
    assert fields_of(reader().head(block)) == [(b"new", b"value"), (b"user-agent", b"agent")]


@pytest.mark.parametrize("change", [RESIZE_0, RESIZE_4096, RESIZE_0 + RESIZE_4096, b"\x3f\x45", b"\x20" * 2])
def test_the_size_of_the_table_may_change_at_the_beginning_of_a_block(change: bytes) -> None:
    assert refusal(change + literals(POST)) is None


# How much (6.5.2, 10.5.1)


def of_size(size: int) -> Fields:
    """A header list of so many bytes, counted with 32 for each field."""
    left = size - sum(len(name) + len(value) + 32 for name, value in POST)
    filled = []
    while left:
        take = left if left <= 150 else min(150, left - 33)
        filled.append((b"x", b"v" * (take - 33)))
        left -= take
    return [*POST, *filled]


def blocks_of(size: int) -> list[bytes]:
    """The same list written out, and as references to one entry of the table."""
    fields = of_size(size)
    assert sum(len(name) + len(value) + 32 for name, value in fields) == size
    encoder = Encoder()
    return [literals(fields), encoder.encode(fields), encoder.encode(fields, huffman=False)]


def test_a_header_list_of_the_most_that_is_taken() -> None:
    for block in blocks_of(HEADER_BYTES)[:2]:
        assert refusal(block) is None


def test_a_header_list_of_one_byte_more() -> None:
    for block in blocks_of(HEADER_BYTES + 1)[:2]:
        assert refusal(block) == CALM


@pytest.mark.parametrize("size", [HEADER_BYTES + 1, HEADER_BYTES * 2])
def test_a_block_that_is_longer_than_any_list_may_be(size: int) -> None:
    peer = Peer()
    block = literals(POST) + RESIZE_0
    peer.say(frame(HEADERS, 0, 1, block + bytes(HEADER_BYTES - len(block))))
    assert peer.reaction() is None
    peer.say(frame(CONTINUATION, END_HEADERS, 1, bytes(size - HEADER_BYTES)))
    assert peer.reaction() == CALM


def test_references_to_a_large_entry_do_not_add_up_to_more() -> None:
    """A block of 16 KiB could else mean 60 MB."""
    peer = Peer()
    entry = b"\x40\x01x\x7f" + bytes((((4000 - 127) & 127) | 128, (4000 - 127) >> 7))
    peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, literals(POST) + entry + b"v" * 4000))
    assert peer.reaction() is None
    (event,) = peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 3, literals(POST) + b"\xbe" * 3))
    assert event.stream is not None and [len(value) for _, value in event.stream.head.read[2]] == [4000] * 3
    peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 5, literals(POST) + b"\xbe" * 16_000))
    assert peer.reaction() == CALM


@pytest.mark.parametrize("piece", [b"", b"\x00\x01a\x01b"])
@pytest.mark.parametrize("begun", [b"", literals(POST)])
def test_a_flood_of_continuations_ends_the_connection(piece: bytes, begun: bytes) -> None:
    peer = Peer()
    peer.say(frame(HEADERS, END_STREAM, 1, begun))
    said = 0
    while peer.http2.ended is None and said < 10_000:
        peer.say(frame(CONTINUATION, 0, 1, piece))
        said += 1
    assert said < 100 and peer.reaction() == CALM


# The heads that are remembered


def test_a_head_that_repeats_itself_is_read_once() -> None:
    read = []
    heads = HeadReader(lambda method, path, fields: read.append(path))
    encoder = Encoder()
    for _ in range(50):
        heads.head(encoder.encode([*POST, (b"te", b"trailers")]))
    assert 1 <= len(read) <= 3


def test_a_block_means_something_else_when_the_table_has_changed() -> None:
    heads = reader()
    block = literals(POST) + b"\xbe"
    for name in (b"first", b"second", b"third"):
        heads.trailers(literal(name, b"v", first=0x40))
        assert [fields_of(heads.head(block)) for _ in range(3)] == [[(name, b"v")]] * 3


def test_an_entry_that_is_as_the_newest_one_is_another() -> None:
    heads = reader()
    block = literals(POST) + b"\xbe\xbf"
    heads.trailers(literal(b"a", b"1", first=0x40) + literal(b"b", b"2", first=0x40))
    assert fields_of(heads.head(block)) == fields_of(heads.head(block)) == [(b"b", b"2"), (b"a", b"1")]
    heads.trailers(literal(b"b", b"2", first=0x40))
    assert fields_of(heads.head(block)) == [(b"b", b"2"), (b"b", b"2")]


def test_an_entry_that_pushes_out_another_is_noticed() -> None:
    """As many entries, and the same newest one by its value."""
    heads = reader()
    entry = literal(b"n", b"v" * 95, first=0x40)  # 128 bytes of the table's 4096
    heads.trailers(literal(b"old", b"o" * 93, first=0x40) + entry * 31)
    block = literals(POST) + b"\xdd"  # the oldest of 32
    assert fields_of(heads.head(block)) == [(b"old", b"o" * 93)]
    heads.head(block)
    heads.trailers(entry)
    assert fields_of(heads.head(block)) == [(b"n", b"v" * 95)]


def test_a_block_that_adds_to_the_table_adds_each_time() -> None:
    heads = reader()
    adding = literals(POST) + literal(b"x", b"1", first=0x40)
    for count in range(1, 6):
        heads.head(adding)
        assert fields_of(heads.head(literals(POST) + bytes(range(0xBE, 0xBE + count)))) == [(b"x", b"1")] * count
    with pytest.raises(ConnectionFault):
        heads.head(literals(POST) + bytes((0xBE + 5,)))


def test_a_block_that_empties_the_table_empties_it_each_time() -> None:
    heads = reader()
    emptying = RESIZE_0 + RESIZE_4096 + literals(POST)
    for _ in range(3):
        heads.head(emptying)
        heads.trailers(literal(b"x", b"1", first=0x40))
        assert fields_of(heads.head(literals(POST) + b"\xbe")) == [(b"x", b"1")]
        heads.head(emptying)
        with pytest.raises(ConnectionFault):
            heads.head(literals(POST) + b"\xbe")


def test_a_block_that_changes_the_size_of_the_table_does_so_each_time() -> None:
    """RFC 7541, 4.2: also where the table is empty, and so the same before and behind it."""
    heads = reader()
    for change in (RESIZE_4096, RESIZE_0, RESIZE_4096):
        assert fields_of(heads.head(change + literals(POST))) == []
    heads.trailers(literal(b"x", b"1", first=0x40))
    assert fields_of(heads.head(literals(POST) + b"\xbe")) == [(b"x", b"1")]


def test_a_malformed_head_is_malformed_each_time() -> None:
    heads = reader()
    block = literals([*POST, (b"te", b"gzip")])
    assert [heads.head(block) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("seed", range(20))
def test_heads_are_what_an_encoder_meant_whatever_it_has_in_its_table(seed: int) -> None:
    """Sizes of the table that change, fields that repeat themselves, and blocks that are dropped."""
    chance = random.Random(seed)
    heads, encoder = reader(), Encoder()
    fields = [(b"x-%d" % (n % 5), b"v%d" % n * chance.randrange(1, 30)) for n in range(12)]
    for _ in range(400):
        if chance.random() < 0.05:
            resize(encoder, chance.choice([0, 50, 200, 1000, 4096]))
        meant = chance.choices(fields, k=chance.randrange(4))
        if chance.random() < 0.2:
            assert heads.trailers(encoder.encode(meant, huffman=chance.random() < 0.5)) == meant
        else:
            sent = encoder.encode([*POST, *meant], huffman=chance.random() < 0.5)
            assert fields_of(heads.head(sent)) == meant


def test_what_is_remembered_of_heads_is_bounded() -> None:
    heads = reader()
    for number in range(1000):
        heads.head(literals([*POST, (b"x", b"%d" % number)]))
    assert len(heads._heads) <= 64
