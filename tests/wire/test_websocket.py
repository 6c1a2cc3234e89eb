"""WebSocket frames out of bytes: what is read, what is refused and with which code, and that no split changes it."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets import frames
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from raffel_core.errors import RaffelError
from raffel_core.wire.http1 import Request, RequestParser
from raffel_core.wire.websocket import (
    SUBPROTOCOL,
    BrokenFrame,
    Frame,
    FrameReader,
    Opcode,
    accept,
    binary_head,
    close_frame,
    ping_frame,
    pong_frame,
    text_head,
)

LIMIT = 1 << 20
KEY = b"\x37\xfa\x21\x3d"
CONTINUATION = 0
FINAL = MASKED = 0x80


def sent(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as `websockets` sends it for a client."""
    return frames.Frame(frames.Opcode(opcode), data, fin).serialize(mask=True)


def raw(first: int, data: bytes = b"", *, key: bytes = KEY, length: bytes | None = None) -> bytes:
    """A frame as no client should send it: any first byte, any way to write the length."""
    if length is None:
        size = len(data)
        wide = (126, size.to_bytes(2)) if size < 1 << 16 else (127, size.to_bytes(8))
        length = bytes((MASKED | size,)) if size < 126 else bytes((MASKED | wide[0],)) + wide[1]
    return bytes((first,)) + length + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(data))


def read(*pieces: bytes, limit: int = LIMIT) -> list[Frame]:
    return drain(FrameReader(limit), pieces)


def drain(reader: FrameReader, pieces: Iterable[bytes]) -> list[Frame]:
    taken = []
    for piece in pieces:
        reader.feed(piece)
        while (frame := reader.take()) is not None:
            taken.append(frame)
    return taken


def refused(*pieces: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(BrokenFrame) as raised:
        read(*pieces, limit=limit)
    assert raised.value.message
    return raised.value.code


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(marks)]


# Messages


def test_a_text_message() -> None:
    assert read(sent(Opcode.TEXT, b"hello")) == [Frame(Opcode.TEXT, b"hello")]


def test_a_binary_message() -> None:
    assert read(sent(Opcode.BINARY, b"\xff\x00")) == [Frame(Opcode.BINARY, b"\xff\x00")]


def test_a_message_that_is_masked_with_zeros() -> None:
    assert read(raw(FINAL | Opcode.TEXT, b"hello", key=b"\0\0\0\0")) == [Frame(Opcode.TEXT, b"hello")]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 125, 126, 127, 16383, 16384, 16385, 65535, 65536, 70001])
def test_a_message_of_any_length_is_unmasked(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert read(sent(Opcode.BINARY, data)) == [Frame(Opcode.BINARY, data)]


def test_many_messages_in_one_piece() -> None:
    messages = [b"%d" % n for n in range(5000)]
    assert [frame.data for frame in read(b"".join(sent(Opcode.TEXT, data) for data in messages))] == messages


def test_a_length_written_longer_than_it_must_be_is_read() -> None:
    assert read(raw(0x81, b"hi", length=b"\xfe\x00\x02")) == [Frame(Opcode.TEXT, b"hi")]
    assert read(raw(0x81, b"hi", length=b"\xff" + bytes(7) + b"\x02")) == [Frame(Opcode.TEXT, b"hi")]


def test_text_may_be_any_utf_8() -> None:
    data = "κόσμε 😀 \0 \ufffe".encode()
    assert read(sent(Opcode.TEXT, data)) == [Frame(Opcode.TEXT, data)]


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"caf\xc3"])
def test_text_that_is_no_utf_8_is_1007(data: bytes) -> None:
    assert refused(sent(Opcode.TEXT, data)) == 1007


def test_binary_need_not_be_utf_8() -> None:
    assert read(sent(Opcode.BINARY, b"\xff", fin=False) + sent(CONTINUATION, b"\xfe"))[0].data == b"\xff\xfe"


# Fragments


def test_fragments_are_joined() -> None:
    pieces = [sent(Opcode.TEXT, b"a", fin=False), sent(CONTINUATION, b"b", fin=False), sent(CONTINUATION, b"c")]
    assert read(b"".join(pieces)) == [Frame(Opcode.TEXT, b"abc")]


def test_fragments_may_be_empty() -> None:
    pieces = [sent(Opcode.BINARY, fin=False), sent(CONTINUATION, fin=False), sent(CONTINUATION)]
    assert read(b"".join(pieces)) == [Frame(Opcode.BINARY, b"")]


def test_a_character_may_be_cut_by_fragments() -> None:
    assert read(sent(Opcode.TEXT, b"\xe2\x82", fin=False) + sent(CONTINUATION, b"\xac")) == [Frame(1, "€".encode())]


def test_fragments_that_join_to_no_utf_8_are_1007() -> None:
    assert refused(sent(Opcode.TEXT, b"\xe2\x82", fin=False), sent(CONTINUATION, b"x")) == 1007


def test_a_message_after_a_fragmented_one_is_its_own() -> None:
    fragmented = sent(Opcode.TEXT, b"a", fin=False) + sent(CONTINUATION, b"b")
    assert read(fragmented + sent(Opcode.BINARY, b"c") + fragmented) == [(1, b"ab"), (2, b"c"), (1, b"ab")]


def test_a_control_frame_inside_a_fragmented_message_is_taken_at_once() -> None:
    reader = FrameReader(LIMIT)
    assert drain(reader, [sent(Opcode.TEXT, b"a", fin=False) + sent(Opcode.PING, b"?")]) == [(Opcode.PING, b"?")]
    assert drain(reader, [sent(CONTINUATION, b"b")]) == [(Opcode.TEXT, b"ab")]


def test_a_close_frame_inside_a_fragmented_message_ends_it() -> None:
    reader = FrameReader(LIMIT)
    assert drain(reader, [sent(Opcode.TEXT, b"a", fin=False) + sent(Opcode.CLOSE)]) == [(Opcode.CLOSE, b"")]
    assert not reader.partial and reader.buffered == 0


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_without_a_beginning_is_1002(fin: bool) -> None:
    assert refused(sent(CONTINUATION, b"a", fin=fin)) == 1002


def test_a_continuation_after_the_last_fragment_is_1002() -> None:
    assert refused(sent(Opcode.TEXT, b"a", fin=False) + sent(CONTINUATION) + sent(CONTINUATION)) == 1002


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_new_message_inside_a_fragmented_one_is_1002(opcode: Opcode, fin: bool) -> None:
    assert refused(sent(Opcode.TEXT, b"a", fin=False), sent(opcode, b"b", fin=fin)) == 1002


# Control frames


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_control_frame_has_up_to_125_bytes(opcode: Opcode, size: int) -> None:
    assert read(sent(opcode, b"\xfe" * size)) == [Frame(opcode, b"\xfe" * size)]


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
@pytest.mark.parametrize("size", [126, 65536])
def test_a_longer_control_frame_is_1002(opcode: Opcode, size: int) -> None:
    assert refused(raw(FINAL | opcode, bytes(size))[:2]) == 1002


def test_the_limit_of_a_message_does_not_count_for_control_frames() -> None:
    assert read(sent(Opcode.PING, bytes(125)), limit=10) == [Frame(Opcode.PING, bytes(125))]


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_a_fragment_of_a_control_frame_is_1002(opcode: Opcode) -> None:
    assert refused(raw(opcode)) == 1002


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_frame_may_say_a_registered_or_a_private_code(code: int) -> None:
    payload = code.to_bytes(2) + "tschüß".encode()
    assert read(sent(Opcode.CLOSE, payload)) == [Frame(Opcode.CLOSE, payload)]


def test_a_close_frame_may_say_nothing() -> None:
    assert read(sent(Opcode.CLOSE)) == [Frame(Opcode.CLOSE, b"")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_frame_with_another_code_is_1002(code: int) -> None:
    assert refused(sent(Opcode.CLOSE, code.to_bytes(2))) == 1002


@pytest.mark.parametrize("payload", [b"\x03", b"\xe8"])
def test_a_close_frame_of_one_byte_is_1002(payload: bytes) -> None:
    assert refused(sent(Opcode.CLOSE, payload)) == 1002


def test_a_close_reason_that_is_no_utf_8_is_1007() -> None:
    assert refused(sent(Opcode.CLOSE, b"\x03\xe8\xff")) == 1007


def test_what_comes_after_a_close_frame_is_dropped() -> None:
    reader = FrameReader(LIMIT)
    assert len(drain(reader, [sent(Opcode.CLOSE) + sent(Opcode.TEXT, b"late"), sent(Opcode.TEXT, b"later")])) == 1
    assert reader.buffered == 0 and not reader.partial


# What no client may send


@pytest.mark.parametrize("bit", [0x10, 0x20, 0x40])
@pytest.mark.parametrize("first", [0x00, 0x81, 0x82, 0x88, 0x89, 0x8A])
def test_a_reserved_bit_is_1002(first: int, bit: int) -> None:
    assert refused(raw(first | bit)) == 1002


@pytest.mark.parametrize("fin", [0, FINAL])
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_a_reserved_opcode_is_1002(opcode: int, fin: int) -> None:
    assert refused(raw(fin | opcode)) == 1002


@pytest.mark.parametrize("opcode", list(Opcode))
@pytest.mark.parametrize("size", [0, 5, 125])
def test_a_frame_without_a_mask_is_1002(opcode: Opcode, size: int) -> None:
    assert refused(bytes((FINAL | opcode, size))) == 1002


def test_a_length_of_more_than_63_bits_is_1002() -> None:
    assert refused(bytes((0x82, 0xFF)) + (1 << 63).to_bytes(8)) == 1002


def test_a_broken_frame_ends_the_reading() -> None:
    reader = FrameReader(LIMIT)
    with pytest.raises(BrokenFrame):
        drain(reader, [sent(Opcode.TEXT, b"a", fin=False) + raw(0xFF) + sent(Opcode.TEXT, b"b")])
    assert drain(reader, [sent(Opcode.TEXT, b"c")]) == []
    assert reader.buffered == 0 and not reader.partial


def test_frames_before_a_broken_one_are_taken() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(sent(Opcode.TEXT, b"a") + raw(0xFF))
    assert reader.take() == (Opcode.TEXT, b"a")
    with pytest.raises(BrokenFrame):
        reader.take()


# The limit


def test_a_message_of_exactly_the_limit_is_accepted() -> None:
    assert len(read(sent(Opcode.BINARY, bytes(1000)), limit=1000)[0].data) == 1000


def test_fragments_of_exactly_the_limit_are_accepted_again_and_again() -> None:
    message = sent(Opcode.BINARY, bytes(600), fin=False) + sent(CONTINUATION, bytes(400))
    assert [len(frame.data) for frame in read(message * 3, limit=1000)] == [1000] * 3


def test_a_longer_message_is_1009_from_its_header_alone() -> None:
    assert refused(sent(Opcode.BINARY, bytes(1001))[:4], limit=1000) == 1009
    assert refused(sent(Opcode.BINARY, bytes(70000))[:10], limit=1000) == 1009
    assert refused(sent(Opcode.TEXT, bytes(11))[:2], limit=10) == 1009


def test_a_fragment_that_is_one_byte_too_many_is_1009_from_its_header_alone() -> None:
    last = sent(CONTINUATION, bytes(401))
    assert refused(sent(Opcode.BINARY, bytes(600), fin=False), last[:4], limit=1000) == 1009


def test_the_longest_length_there_is_is_1009() -> None:
    assert refused(bytes((0x82, 0xFF)) + ((1 << 63) - 1).to_bytes(8)) == 1009


def test_tiny_fragments_take_no_more_memory_than_their_bytes() -> None:
    fragments = [sent(CONTINUATION, b"x", fin=False) * 1000] * 50
    reader = FrameReader(LIMIT)
    drain(reader, [sent(Opcode.TEXT, b"x", fin=False), fragments[0]])
    tracemalloc.start()
    try:
        drain(reader, fragments)
        assert tracemalloc.get_traced_memory()[0] < 2 * 50_000
    finally:
        tracemalloc.stop()
    assert reader.buffered == 1 + 51_000


def test_tiny_pieces_take_no_more_memory_than_their_bytes() -> None:
    frame = raw(0x82, bytes(100_000))
    reader = FrameReader(LIMIT)
    drain(reader, [frame[:1000]])
    tracemalloc.start()
    try:
        drain(reader, (frame[at : at + 2] for at in range(1000, 100_000, 2)))
        assert tracemalloc.get_traced_memory()[0] < 2 * 100_000
    finally:
        tracemalloc.stop()


def test_bytes_that_have_been_taken_are_not_kept() -> None:
    reader = FrameReader(LIMIT)
    piece = raw(0x82, bytes(500_000))
    tracemalloc.start()
    try:
        assert len(drain(reader, [piece + piece[:10]])) == 1
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


# Pieces


def test_nothing_is_taken_before_a_frame_is_whole() -> None:
    frame = sent(Opcode.TEXT, b"x" * 300)
    reader = FrameReader(LIMIT)
    assert drain(reader, split(frame[:-1], range(1, len(frame) - 1))) == []
    assert drain(reader, [frame[-1:]]) == [(Opcode.TEXT, b"x" * 300)]


def test_a_large_frame_byte_by_byte() -> None:
    frame = sent(Opcode.BINARY, bytes(LIMIT))
    assert len(read(*split(frame, range(1, len(frame))))[0].data) == LIMIT


def test_an_empty_piece_is_nothing() -> None:
    assert read(b"", sent(Opcode.PING), b"", b"") == [(Opcode.PING, b"")]


def test_pieces_may_be_fed_before_the_first_is_taken() -> None:
    reader = FrameReader(LIMIT)
    for piece in split(sent(Opcode.TEXT, b"ab") * 3, range(1, 24)):
        reader.feed(piece)
    assert [reader.take() for _ in range(4)] == [(Opcode.TEXT, b"ab")] * 3 + [None]


def test_a_piece_fed_while_frames_wait_comes_after_them() -> None:
    reader = FrameReader(LIMIT)
    reader.feed(sent(Opcode.TEXT, b"a") + sent(Opcode.TEXT, b"b"))
    assert reader.take() == (Opcode.TEXT, b"a")
    last = sent(Opcode.TEXT, b"c")
    reader.feed(last[:1])
    assert reader.take() == (Opcode.TEXT, b"b")
    reader.feed(last[1:3])
    assert reader.take() is None
    reader.feed(last[3:])
    assert reader.take() == (Opcode.TEXT, b"c")


def test_what_has_not_been_taken_is_counted() -> None:
    reader = FrameReader(LIMIT)
    frame = sent(Opcode.TEXT, b"abc")
    reader.feed(frame + frame)
    reader.feed(frame[:5])
    assert reader.buffered == 2 * len(frame) + 5
    reader.take()
    assert reader.buffered == len(frame) + 5
    reader.take()
    assert reader.take() is None and reader.buffered == 5
    reader.feed(frame[5:])
    reader.take()
    assert reader.buffered == 0


def test_a_frame_is_partial_from_its_first_byte_to_its_last() -> None:
    reader = FrameReader(LIMIT)
    assert not reader.partial
    frame = sent(Opcode.TEXT, b"abc")
    for at in range(len(frame) - 1):
        drain(reader, [frame[at : at + 1]])
        assert reader.partial
    drain(reader, [frame[-1:]])
    assert not reader.partial


def test_a_fragmented_message_is_partial_up_to_its_last_fragment() -> None:
    reader = FrameReader(LIMIT)
    drain(reader, [sent(Opcode.TEXT, fin=False)])
    assert reader.partial and reader.buffered == 0
    drain(reader, [sent(Opcode.PING)])
    assert reader.partial
    drain(reader, [sent(CONTINUATION)])
    assert not reader.partial


DATA = st.one_of(st.binary(max_size=20), st.integers(120, 300).map(bytes), st.integers(65530, 65540).map(bytes))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Frame]]:
    """What a well-behaved client sends, and what it means."""
    pings = st.lists(st.binary(max_size=125), max_size=2)
    stream, meant = b"", []
    for _ in range(draw(st.integers(0, 4))):
        fragments = draw(st.lists(DATA, min_size=1, max_size=3))
        for at, data in enumerate(fragments):
            for ping in draw(pings):
                stream += sent(Opcode.PING, ping)
                meant.append(Frame(Opcode.PING, ping))
            stream += sent(CONTINUATION if at else Opcode.BINARY, data, fin=at == len(fragments) - 1)
        meant.append(Frame(Opcode.BINARY, b"".join(fragments)))
    return stream, meant


@given(streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_any_split_gives_the_same_frames(case: tuple[bytes, list[Frame]], data: st.DataObject) -> None:
    stream, meant = case
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert read(*split(stream, cuts)) == meant


def test_any_bytes_give_frames_or_a_documented_end() -> None:
    chance = random.Random(6455)
    texts = [b"", b"hello", "κόσμε".encode(), b"\xff", b"x" * 124, b"\xc3\xa9" * 70, bytes(300)]
    closes = [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03", b"\x03\xed", b"\x0b\xb8\xff"]
    legal = [raw(fin | op, text, key=chance.randbytes(4)) for fin in (0, FINAL) for op in range(3) for text in texts]
    legal += [raw(FINAL | op, text[:125], key=chance.randbytes(4)) for op in (9, 10) for text in texts]
    legal += [raw(FINAL | Opcode.CLOSE, payload) for payload in closes]
    ends = {1002: 0, 1007: 0, 1009: 0}
    taken = 0
    for _ in range(100_000):
        if chance.random() < 0.2:
            stream = bytearray(chance.randbytes(chance.randrange(1, 40)))
        else:
            stream = bytearray().join(chance.choices(legal, k=chance.randrange(1, 4)))
        if chance.random() < 0.7:
            stream[chance.randrange(min(len(stream), 20))] = chance.randrange(256)
        cuts = [chance.randrange(len(stream) + 1) for _ in range(chance.randrange(4))]
        reader = FrameReader(256)
        try:
            for frame in drain(reader, split(bytes(stream), cuts)):
                assert len(frame.data) <= (256 if frame.opcode in (Opcode.TEXT, Opcode.BINARY) else 125)
                assert frame.opcode == Opcode(frame.opcode)
                if frame.opcode == Opcode.TEXT:
                    frame.data.decode()
                taken += 1
        except BrokenFrame as broken:
            ends[broken.code] += 1
            assert reader.buffered == 0
    assert all(ends.values()) and taken


# What the server sends, read by an independent client


def client(**options: object) -> ClientProtocol:
    return ClientProtocol(parse_uri("ws://here/ws"), max_size=None, **options)  # type: ignore[arg-type]  # all keywords


def opened(**options: object) -> ClientProtocol:
    """A client that has sent its request and read our answer."""
    peer = client(**options)
    peer.send_request(peer.connect())
    peer.receive_data(accept(parsed(b"".join(peer.data_to_send()))))
    assert peer.state is State.OPEN and peer.handshake_exc is None
    peer.events_received()
    return peer


def parsed(data: bytes) -> Request:
    parser = RequestParser(1000)
    parser.feed(data)
    request = parser.take()
    assert request is not None
    return request


def received(data: bytes) -> Frame:
    """The one frame that these bytes are to a client."""
    peer = opened()
    peer.receive_data(data)
    (event,) = peer.events_received()
    assert isinstance(event, frames.Frame) and event.fin
    return Frame(int(event.opcode), bytes(event.data))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_a_message_of_any_length_is_sent(size: int) -> None:
    data = b"x" * size
    assert received(text_head(size) + data) == (Opcode.TEXT, data)
    assert received(binary_head(size) + data) == (Opcode.BINARY, data)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_length_takes_no_more_bytes_than_it_must(size: int) -> None:
    assert text_head(size) + bytes(size) == frames.Frame(frames.Opcode.TEXT, bytes(size)).serialize(mask=False)


def test_pings_and_pongs_are_sent() -> None:
    assert received(ping_frame()) == (Opcode.PING, b"")
    assert received(ping_frame(b"?")) == (Opcode.PING, b"?")
    assert received(pong_frame(b"?")) == (Opcode.PONG, b"?")


def test_no_control_frame_is_too_long() -> None:
    assert received(pong_frame(bytes(125))) == (Opcode.PONG, bytes(125))
    with pytest.raises(ValueError, match="126 bytes"):
        ping_frame(bytes(126))


def test_a_close_frame_has_a_code_and_a_reason() -> None:
    frame = received(close_frame(1012, "bis später"))
    assert frame.opcode == Opcode.CLOSE
    assert frames.Close.parse(frame.data) == frames.Close(1012, "bis später")


def test_a_close_reason_is_cut_between_characters() -> None:
    frame = close_frame(1008, "x" + "é" * 100)
    assert len(frame) == 2 + 2 + 123
    assert frame[4:].decode() == "x" + "é" * 61
    assert len(close_frame(1008, "é" * 100)) == 2 + 2 + 122


def test_a_close_reason_that_has_no_utf_8_is_sent_without() -> None:
    assert close_frame(1011, "a\udc80b")[4:] == b"a?b"


# The handshake

SAMPLE = {  # RFC 6455, 1.3
    "host": "server.example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


def asked(method: str = "GET", **changes: str | None) -> Request:
    """The sample request, with these headers changed or left out."""
    request = Request()
    request.method = method
    headers = {**SAMPLE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    request.headers = {name: value for name, value in headers.items() if value is not None}
    return request


def refusal(request: Request) -> int:
    with pytest.raises(RaffelError) as raised:
        accept(request)
    assert raised.value.code == "INVALID_ARGUMENT"
    return raised.value.status


def test_the_sample_of_the_rfc_is_accepted() -> None:
    assert accept(asked()).split(b"\r\n") == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        b"",
        b"",
    ]


def test_the_subprotocol_is_accepted_when_offered() -> None:
    assert opened(subprotocols=["other", SUBPROTOCOL]).subprotocol == SUBPROTOCOL


@pytest.mark.parametrize("offer", ["other", "raffel.v2", "RAFFEL.V1", "raffel.v1x", "", ",,", "räffel.v1", "x;y \x7f"])
def test_other_subprotocols_are_passed_over(offer: str) -> None:
    assert b"Protocol:" not in accept(asked(sec_websocket_protocol=offer))


@pytest.mark.parametrize("offer", ["raffel.v1", "ü, raffel.v1", " a ,raffel.v1,", ",\traffel.v1"])
def test_the_subprotocol_is_found_in_any_list(offer: str) -> None:
    assert accept(asked(sec_websocket_protocol=offer)).endswith(b"\r\nSec-WebSocket-Protocol: raffel.v1\r\n\r\n")


def test_no_extension_is_accepted() -> None:
    assert b"Extensions" not in accept(asked(sec_websocket_extensions="permessage-deflate; client_max_window_bits"))


@pytest.mark.parametrize(
    ("upgrade", "connection"), [("WebSocket", "upgrade"), ("h2c, websocket", "keep-alive, Upgrade")]
)
def test_an_upgrade_is_found_in_any_case_and_any_list(upgrade: str, connection: str) -> None:
    assert accept(asked(upgrade=upgrade, connection=connection)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("value", [None, "", "h2c", "websockets", "websocket/13"])
def test_no_upgrade_to_websocket_is_426(value: str | None) -> None:
    assert refusal(asked(upgrade=value)) == 426


@pytest.mark.parametrize("value", [None, "", "keep-alive", "upgraded"])
def test_no_upgrade_of_the_connection_is_426(value: str | None) -> None:
    assert refusal(asked(connection=value)) == 426


@pytest.mark.parametrize("method", ["POST", "HEAD", "CONNECT"])
def test_another_method_is_426(method: str) -> None:
    assert refusal(asked(method)) == 426


def test_an_upgrade_over_http_1_0_is_426() -> None:
    request = asked()
    request.http10 = True
    assert refusal(request) == 426


@pytest.mark.parametrize("version", [None, "", "8", "12", "14", "13, 8", "013", "١٣"])
def test_another_version_is_426(version: str | None) -> None:
    assert refusal(asked(sec_websocket_version=version)) == 426


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZXh4",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZQ==x",
        "ühlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_a_key_that_is_not_16_bytes_of_base64_is_400(key: str | None) -> None:
    assert refusal(asked(sec_websocket_key=key)) == 400


def test_an_empty_body_is_none() -> None:
    assert accept(asked(content_length="0")).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"],
)
def test_a_body_is_400(body: bytes) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in SAMPLE.items())
    assert refusal(parsed(f"GET /ws HTTP/1.1\r\n{head}".encode() + body)) == 400
