"""HTTP/2's frames (RFC 9113, sections 3.4, 4, 5.4 and 6): their forms, their sizes, and what a broken one ends."""

from __future__ import annotations

import itertools

import pytest
from hpack import Decoder
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from raffel_core.wire.http2 import PREFACE, Kind
from raffel_core.wire.http2_frames import MAX_FRAME, Code, header_block, header_frames
from raffel_core.wire.http2_heads import HEADER_BYTES
from raffel_core.wire.http2_streams import STREAM_WINDOW

from .http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    POST,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    UNKNOWN,
    WINDOW_UPDATE,
    Peer,
    acknowledged,
    data,
    frame,
    headers,
    literal,
    literals,
    read_frames,
    reset,
    settings,
    summary,
    window,
)

PROTOCOL = ("goaway", Code.PROTOCOL_ERROR)
SIZE = ("goaway", Code.FRAME_SIZE_ERROR)


# The preface (3.4)


def test_the_server_speaks_first_and_with_its_settings() -> None:
    first, second = Peer(7, introduced=False).heard()
    assert isinstance(first, SettingsFrame) and not first.flags
    assert first.settings[MAX_CONCURRENT_STREAMS] == 7
    assert first.settings[INITIAL_WINDOW_SIZE] == STREAM_WINDOW
    assert first.settings[MAX_HEADER_LIST_SIZE] == HEADER_BYTES
    assert ENABLE_PUSH not in first.settings  # a server may only say 0 (6.5.2), which says nothing
    assert isinstance(second, WindowUpdateFrame) and second.stream_id == 0


def test_the_settings_of_a_client_are_acknowledged() -> None:
    peer = Peer(introduced=False)
    assert peer.say(PREFACE + settings()) == []
    assert acknowledged(peer.heard()) == 1


def test_a_client_sends_requests_without_waiting() -> None:
    peer = Peer(introduced=False)
    events = peer.say(PREFACE + settings() + headers(1) + data(1, b"x", end=True))
    assert [event.kind for event in events] == [Kind.OPENED, Kind.BODY]


def test_the_preface_comes_byte_by_byte() -> None:
    peer = Peer(introduced=False)
    peer.say(*(bytes((byte,)) for byte in PREFACE))
    assert peer.http2.ended is None and peer.http2.partial
    peer.say(*(bytes((byte,)) for byte in settings()))
    assert not peer.http2.partial


@pytest.mark.parametrize("at", range(len(PREFACE)))
def test_a_byte_of_the_preface_that_is_another_ends_the_connection_at_once(at: int) -> None:
    peer = Peer(introduced=False)
    peer.say(PREFACE[:at] + b"?")
    assert peer.reactions() == [PROTOCOL]


@pytest.mark.parametrize(
    "first",
    [
        frame(SETTINGS, ACK),
        frame(PING, 0, 0, bytes(8)),
        headers(1, end=True),
        data(1, b"x"),
        window(0, 1),
        reset(1),
        frame(PRIORITY, 0, 1, bytes(5)),
        frame(GOAWAY, 0, 0, bytes(8)),
        frame(UNKNOWN),
        frame(CONTINUATION, END_HEADERS, 1),
    ],
)
def test_the_first_frame_is_settings(first: bytes) -> None:
    peer = Peer(introduced=False)
    peer.say(PREFACE + first)
    assert peer.reactions() == [PROTOCOL]


def test_the_first_goaway_says_that_no_stream_was_opened() -> None:
    peer = Peer(introduced=False)
    peer.say(b"GET / HTTP/1.1\r\n\r\n")
    (goaway,) = [item for item in peer.heard() if isinstance(item, GoAwayFrame)]
    assert goaway.last_stream_id == 0 and goaway.additional_data


# Frames (4.1, 4.2)


def test_a_type_that_is_unknown_is_ignored() -> None:
    peer = Peer()
    peer.open(1)
    for type in range(10, 256):
        peer.now += 1
        assert peer.say(frame(type, 0xFF, 1, b"whatever"), frame(type, 0, 0), frame(type, 0, 2**31 - 1)) == []
    assert peer.lives(3)


@pytest.mark.parametrize("type", [DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE])
def test_flags_without_a_meaning_are_ignored(type: int) -> None:
    """Also END_STREAM, PADDED and the like, on types that do not define them."""
    meaning = {DATA: 0x9, HEADERS: 0x2D, SETTINGS: ACK, PING: ACK}.get(type, 0)
    said = {
        DATA: data(1, b"body"),
        HEADERS: headers(3),
        PRIORITY: frame(PRIORITY, 0, 1, bytes(5)),
        RST_STREAM: reset(1),
        SETTINGS: settings(),
        PING: frame(PING, 0, 0, bytes(8)),
        GOAWAY: frame(GOAWAY, 0, 0, bytes(8)),
        WINDOW_UPDATE: window(1, 1000),
    }[type]
    plain, flagged = Peer(), Peer()
    for peer in (plain, flagged):
        peer.open(1)
        peer.heard()
    noisy = bytearray(said)
    noisy[4] |= 0xFF & ~meaning
    assert summary(flagged.say(bytes(noisy))) == summary(plain.say(said))
    assert b"".join(flagged.out) == b"".join(plain.out)


@pytest.mark.parametrize("said", [headers(1, end=True), frame(PING, 0, 0, bytes(8)), settings(), window(0, 5)])
def test_the_reserved_bit_of_an_identifier_is_ignored(said: bytes) -> None:
    plain, noisy = Peer(), Peer()
    marked = said[:5] + bytes((said[5] | 0x80,)) + said[6:]
    assert summary(noisy.say(marked)) == summary(plain.say(said))
    assert b"".join(noisy.out) == b"".join(plain.out)


def test_the_reserved_bit_of_an_increment_is_ignored() -> None:
    peer = Peer()
    before = peer.http2.window
    peer.say(frame(WINDOW_UPDATE, 0, 0, (0x8000_0005).to_bytes(4)))
    assert peer.http2.window == before + 5


def test_data_of_2_14_bytes_is_taken() -> None:
    peer = Peer()
    peer.open(1)
    (event,) = peer.say(data(1, bytes(MAX_FRAME)))
    assert event.data == bytes(MAX_FRAME)


@pytest.mark.parametrize("type", [DATA, HEADERS, SETTINGS, UNKNOWN])
@pytest.mark.parametrize("length", [MAX_FRAME + 1, 2**24 - 1])
@pytest.mark.parametrize("cut", [0, 5, 9])
def test_a_frame_that_is_too_long_ends_the_connection_before_it_has_come(type: int, length: int, cut: int) -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    head = length.to_bytes(3) + bytes((type, 0)) + (1).to_bytes(4)
    assert peer.say(head[:cut], head[cut:]) == []
    assert peer.reaction() == SIZE


@pytest.mark.parametrize(
    ("said", "demanded"),
    [
        (frame(RST_STREAM, 0, 1, bytes(3)), SIZE),  # 6.4
        (frame(RST_STREAM, 0, 1, bytes(5)), SIZE),
        (frame(RST_STREAM, 0, 1), SIZE),
        (frame(PING, 0, 0, bytes(7)), SIZE),  # 6.7
        (frame(PING, 0, 0, bytes(9)), SIZE),
        (frame(PING, ACK, 0), SIZE),
        (frame(SETTINGS, 0, 0, bytes(5)), SIZE),  # 6.5
        (frame(SETTINGS, 0, 0, bytes(7)), SIZE),
        (frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
        (frame(SETTINGS, ACK, 0, b"x"), SIZE),
        (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),  # 6.9
        (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1\0"), SIZE),
        (frame(WINDOW_UPDATE, 0, 1, bytes(3)), SIZE),
        (frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1\0"), SIZE),
        (frame(GOAWAY, 0, 0, bytes(7)), SIZE),  # 4.2: too small to contain its mandatory data
        (frame(PRIORITY, 0, 1, bytes(4)), ("reset", Code.FRAME_SIZE_ERROR)),  # 6.3: a stream error
        (frame(PRIORITY, 0, 1, bytes(6)), ("reset", Code.FRAME_SIZE_ERROR)),
        (frame(PRIORITY, 0, 9, bytes(4)), SIZE),  # an idle stream cannot be reset (6.4)
        (frame(DATA, 0, 0, b"x"), PROTOCOL),  # 6.1
        (headers(0), PROTOCOL),  # 6.2
        (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),  # 6.3
        (reset(0), PROTOCOL),  # 6.4
        (frame(CONTINUATION, END_HEADERS, 0), PROTOCOL),  # 6.10
        (frame(PUSH_PROMISE, END_HEADERS, 0, bytes(4)), PROTOCOL),
        (frame(SETTINGS, 0, 1), PROTOCOL),  # 6.5
        (frame(SETTINGS, ACK, 1), PROTOCOL),
        (frame(PING, 0, 1, bytes(8)), PROTOCOL),  # 6.7
        (frame(PING, ACK, 1, bytes(8)), PROTOCOL),
        (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),  # 6.8
    ],
)
def test_a_frame_that_is_broken(said: bytes, demanded: tuple[str, Code]) -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(said)
    assert peer.reaction() == demanded


# Padding (6.1, 6.2)


@pytest.mark.parametrize("padding", [0, 1, 255])
@pytest.mark.parametrize("body", [b"", b"x", b"body" * 50])
def test_padding_is_taken_off(padding: int, body: bytes) -> None:
    peer = Peer()
    peer.open(1)
    events = peer.say(frame(DATA, PADDED | END_STREAM, 1, bytes((padding,)) + body + bytes(padding)))
    assert summary(events) == [(Kind.BODY, 1, body, True)]
    events = peer.say(
        frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 3, bytes((padding,)) + literals(POST) + bytes(padding))
    )
    assert [event.kind for event in events] == [Kind.OPENED]


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05abcd", b"\xff" * 255])
@pytest.mark.parametrize("end", [0, END_STREAM])
def test_padding_of_more_than_the_frame_ends_the_connection(payload: bytes, end: int) -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    assert peer.say(frame(DATA, PADDED | end, 1, payload)) == []
    assert peer.reaction() in ([PROTOCOL, SIZE] if not payload else [PROTOCOL])
    peer = Peer()
    assert peer.say(frame(HEADERS, PADDED | END_HEADERS | end, 1, payload)) == []
    assert peer.reaction() in ([PROTOCOL, SIZE] if not payload else [PROTOCOL])


def test_a_priority_is_skipped_with_and_without_padding() -> None:
    priority = b"\x80\x00\x00\x03\x10"
    peer = Peer()
    block = literals(POST)
    events = peer.say(
        frame(HEADERS, PRIORITISED | END_HEADERS | END_STREAM, 1, priority + block),
        frame(HEADERS, PRIORITISED | PADDED | END_HEADERS | END_STREAM, 3, b"\x02" + priority + block + bytes(2)),
    )
    assert [event.stream and event.stream.head.read for event in events] == [(b"POST", b"/Echo/Call", [])] * 2


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\3"])
@pytest.mark.parametrize("padding", [None, 0, 2])
def test_headers_that_have_no_room_for_their_priority(payload: bytes, padding: int | None) -> None:
    peer = Peer()
    flags = PRIORITISED | END_HEADERS
    if padding is not None:
        flags, payload = flags | PADDED, bytes((padding,)) + payload + bytes(padding)
    peer.say(frame(HEADERS, flags, 1, payload))
    assert peer.reaction() in (SIZE, PROTOCOL)


# Header blocks in several frames (4.3, 6.10)


@pytest.mark.parametrize("pieces", range(1, 8))
def test_a_block_is_continued(pieces: int) -> None:
    peer = Peer()
    block = literals([*POST, (b"a", b"b" * 100)])
    cuts = [len(block) * number // pieces for number in range(pieces + 1)]
    parts = [block[a:b] for a, b in itertools.pairwise(cuts)]
    said = [frame(HEADERS, END_STREAM | END_HEADERS * (pieces == 1), 1, parts[0])]
    said += [frame(CONTINUATION, END_HEADERS * (number == pieces - 1), 1, parts[number]) for number in range(1, pieces)]
    events = peer.say(*said)
    assert [(event.kind, event.end) for event in events] == [(Kind.OPENED, True)]
    assert events[0].stream is not None and events[0].stream.head.read[2] == [(b"a", b"b" * 100)]


def test_pieces_of_a_block_may_be_empty() -> None:
    peer = Peer()
    events = peer.say(
        frame(HEADERS, 0, 1),
        frame(CONTINUATION, 0, 1, literals(POST)),
        frame(CONTINUATION, END_HEADERS, 1),
    )
    assert [event.kind for event in events] == [Kind.OPENED]
    assert not peer.http2.partial


def test_a_block_that_has_begun_is_known_to_be_incomplete() -> None:
    peer = Peer()
    assert not peer.http2.partial
    peer.say(frame(HEADERS, 0, 1, literals(POST)))
    assert peer.http2.partial


@pytest.mark.parametrize(
    "between",
    [
        data(1, b"x"),
        data(5, b"x"),
        headers(1),
        headers(7),
        frame(PRIORITY, 0, 5, bytes(5)),
        reset(1),
        reset(5),
        settings(),
        frame(SETTINGS, ACK),
        frame(PING, 0, 0, bytes(8)),
        frame(GOAWAY, 0, 0, bytes(8)),
        window(0, 1),
        window(1, 1),
        frame(CONTINUATION, END_HEADERS, 1),
        frame(CONTINUATION, END_HEADERS, 7),
        frame(CONTINUATION, END_HEADERS, 0),
        frame(UNKNOWN, 0, 5),
        frame(UNKNOWN, 0, 0),
    ],
)
@pytest.mark.parametrize("continued", [False, True])
def test_nothing_comes_between_the_frames_of_a_block(between: bytes, continued: bool) -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(frame(HEADERS, 0, 5, literals(POST)))
    if continued:
        peer.say(frame(CONTINUATION, 0, 5, literal(b"a", b"b")))
    assert peer.say(between) == []
    assert peer.reaction() == PROTOCOL


@pytest.mark.parametrize(
    "before",
    [
        headers(1),
        frame(HEADERS, 0, 1, literals(POST)) + frame(CONTINUATION, END_HEADERS, 1),
        headers(1) + data(1, b"x"),
        b"",
    ],
)
def test_a_continuation_continues_something(before: bytes) -> None:
    peer = Peer()
    peer.say(before, frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b")))
    assert peer.reaction() == PROTOCOL


# SETTINGS (6.5)


@pytest.mark.parametrize(
    ("pair", "code"),
    [
        ((2, 2), Code.PROTOCOL_ERROR),
        ((2, 2**32 - 1), Code.PROTOCOL_ERROR),
        ((4, 2**31), Code.FLOW_CONTROL_ERROR),
        ((4, 2**32 - 1), Code.FLOW_CONTROL_ERROR),
        ((5, 2**14 - 1), Code.PROTOCOL_ERROR),
        ((5, 0), Code.PROTOCOL_ERROR),
        ((5, 2**24), Code.PROTOCOL_ERROR),
    ],
)
def test_a_setting_beyond_its_range(pair: tuple[int, int], code: Code) -> None:
    peer = Peer()
    peer.say(settings((3, 1), pair))
    assert peer.reaction() == ("goaway", code)


@pytest.mark.parametrize(
    "pairs",
    [
        [(1, 0)],
        [(1, 2**32 - 1)],
        [(2, 0)],
        [(2, 1)],
        [(3, 0)],
        [(4, 0)],
        [(4, 2**31 - 1)],
        [(5, 2**14)],
        [(5, 2**24 - 1)],
        [(6, 0)],
        [(6, 2**32 - 1)],
        [(0, 5), (7, 1), (8, 1), (0xFFFF, 2**32 - 1)],
        [],
    ],
)
def test_a_setting_that_is_legal_or_unknown_is_acknowledged_once(pairs: list[tuple[int, int]]) -> None:
    peer = Peer()
    peer.say(settings(*pairs))
    assert acknowledged(peer.heard()) == 1
    assert peer.lives(1)


def test_settings_take_effect_in_their_order() -> None:
    peer = Peer()
    peer.say(settings((4, 100), (4, 1), (4, 7)))
    assert peer.http2.initial_window == 7
    assert peer.open(1).window == 7


def test_settings_are_acknowledged_one_by_one() -> None:
    peer = Peer()
    peer.say(settings((4, 1)) + settings((4, 2)) + settings())
    assert acknowledged(peer.heard()) == 3


def test_an_acknowledgement_is_not_acknowledged() -> None:
    peer = Peer()
    assert peer.say(frame(SETTINGS, ACK)) == [] and peer.heard() == []


# PING (6.7)


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    peer = Peer()
    assert peer.say(frame(PING, 0, 0, b"01234567")) == []
    (answer,) = peer.heard()
    assert isinstance(answer, PingFrame) and "ACK" in answer.flags and answer.opaque_data == b"01234567"


def test_the_answer_to_a_ping_is_an_event_and_not_answered() -> None:
    peer = Peer()
    peer.http2.ping(b"76543210")
    (ping,) = peer.heard()
    assert isinstance(ping, PingFrame) and not ping.flags and ping.opaque_data == b"76543210"
    assert summary(peer.say(frame(PING, ACK, 0, b"76543210"))) == [(Kind.PONG, None, b"76543210", False)]
    assert peer.heard() == []


# GOAWAY (6.8)


@pytest.mark.parametrize("code", [0, 1, 13, 0xFF, 2**32 - 1])
@pytest.mark.parametrize("debug", [b"", b"going"])
def test_a_client_that_goes_away_still_has_its_answers(code: int, debug: bytes) -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.say(frame(GOAWAY, 0, 0, bytes(4) + code.to_bytes(4) + debug))
    assert peer.http2.is_open(stream)
    assert summary(peer.say(data(1, b"x"))) == [(Kind.BODY, 1, b"x", False)]


@pytest.mark.parametrize("code", [13, 0xFF, 2**32 - 1])
def test_a_reset_with_an_unknown_code_is_a_reset(code: int) -> None:
    peer = Peer()
    stream = peer.open(1)
    assert [(event.kind, event.stream) for event in peer.say(reset(1, code))] == [(Kind.RESET, stream)]


def test_a_warning_still_takes_streams_and_the_last_word_names_the_highest() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.http2.goaway(warning=True)
    peer.open(3)
    peer.http2.goaway()
    warning, last = peer.heard()
    assert (warning.last_stream_id, warning.error_code) == (2**31 - 1, 0)
    assert (last.last_stream_id, last.error_code) == (3, 0)


def test_streams_that_come_after_the_last_word_are_refused_and_those_before_go_on() -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.http2.goaway()
    peer.heard()
    assert peer.say(headers(3, end=True)) == []
    assert peer.reaction() in (None, ("reset", Code.REFUSED_STREAM))
    assert peer.say(data(1, b"x", end=True))[0].stream is stream


def test_the_header_block_of_a_stream_that_is_refused_still_counts() -> None:
    peer = Peer()
    peer.open(1)
    peer.http2.goaway()
    peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 3, literals(POST) + b"\x40\x01a\x01b"))
    (event,) = peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xbe"))
    assert (event.kind, event.end) == (Kind.BODY, True)
    assert peer.http2.ended is None


def test_a_goaway_for_a_fault_names_the_highest_stream_and_says_why() -> None:
    peer = Peer()
    peer.open(5)
    peer.heard()
    peer.say(frame(PING, 0, 0, b"short"))
    (goaway,) = peer.heard()
    assert goaway.last_stream_id == 5 and b"8 bytes" in goaway.additional_data
    assert peer.http2.ended is not None and "FRAME_SIZE_ERROR" in peer.http2.ended


def test_what_came_before_a_fault_is_still_reported() -> None:
    peer = Peer()
    events = peer.say(headers(1, end=True) + frame(PING, 0, 0, b"short") + headers(3, end=True))
    assert summary(events) == [(Kind.OPENED, 1, b"", True)]


# What we send


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 256, 16_383, 16_384, 20_000, 50_000])
@pytest.mark.parametrize("end", [False, True])
def test_a_header_block_of_any_size_is_read_by_another_decoder(size: int, end: bool) -> None:
    fields = [(b":status", b"200"), (b"x" * max(1, size % 300), b"v" * size)]
    first, *others = read_frames(header_frames(3, header_block(fields), end=end))
    assert isinstance(first, HeadersFrame) and ("END_STREAM" in first.flags) == end
    assert [item.type for item in others] == [CONTINUATION] * len(others)
    assert ["END_HEADERS" in item.flags for item in (first, *others)] == [False] * len(others) + [True]
    block = b"".join(item.data for item in (first, *others))
    assert list(Decoder(max_header_list_size=1 << 20).decode(block, raw=True)) == fields


def test_a_whole_answer() -> None:
    peer = Peer()
    stream = peer.open(1, end=True)
    peer.heard()
    before = peer.http2.window
    peer.http2.respond(stream, header_block([(b":status", b"200")]), b"{}")
    head, body = peer.heard()
    assert "END_STREAM" not in head.flags and "END_STREAM" in body.flags and body.data == b"{}"
    assert peer.http2.window == before - 2 and not peer.http2.is_open(stream)


@pytest.mark.parametrize("size", [0, 16_384, 16_385, 40_000])
def test_a_whole_answer_of_any_size_has_frames_that_every_client_takes(size: int) -> None:
    peer = Peer()
    stream = peer.open(1, end=True)
    peer.heard()
    peer.http2.respond(stream, header_block([(b":status", b"200")]), bytes(size))
    _, *bodies = peer.heard()
    assert b"".join(item.data for item in bodies) == bytes(size)


def test_an_answer_for_which_there_is_no_window_is_a_reset() -> None:
    peer = Peer()
    peer.say(settings((4, 1)))
    stream = peer.open(1, end=True)
    peer.heard()
    peer.http2.respond(stream, header_block([(b":status", b"200")]), b"{}")
    assert peer.reactions() == [("reset", Code.ENHANCE_YOUR_CALM)]


# One piece or many


def test_a_frame_that_comes_byte_by_byte_is_the_same() -> None:
    said = headers(1) + data(1, bytes(3000)) + frame(PING, 0, 0, bytes(8)) + headers(1, [(b"a", b"b")], end=True)
    whole, bytewise = Peer(), Peer()
    assert summary(bytewise.say(*(bytes((byte,)) for byte in said))) == summary(whole.say(said))
    assert bytewise.out == whole.out
    assert not bytewise.http2.partial


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_frame_that_has_begun_is_known_to_be_incomplete(cut: int) -> None:
    peer = Peer()
    peer.say(frame(PING, 0, 0, b"01234567")[:cut])
    assert peer.http2.partial
    peer.say(frame(PING, 0, 0, b"01234567")[cut:])
    assert not peer.http2.partial
