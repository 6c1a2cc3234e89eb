"""HTTP/2's streams: what each type of frame does in each state, as RFC 9113 says it and not the server's table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from raffel_core.wire.http2 import Kind
from raffel_core.wire.http2_frames import Code, header_block

from .http2_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    POST,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    UNKNOWN,
    WINDOW_UPDATE,
    Peer,
    Reaction,
    data,
    frame,
    headers,
    literals,
    reset,
    window,
)

STREAM = 5


class Result(NamedTuple):
    """What a frame may cause: refusals, any of which will do, or none and these events."""

    refusals: frozenset[Reaction] = frozenset()
    events: tuple[Kind, ...] = ()


def refused(*refusals: Reaction) -> Result:
    return Result(frozenset(refusals))


def gives(kind: Kind) -> Result:
    return Result(events=(kind,))


NOTHING = Result()
NO_SUCH = refused(("goaway", Code.PROTOCOL_ERROR))
CLOSED = refused(("reset", Code.STREAM_CLOSED), ("goaway", Code.STREAM_CLOSED))
STREAM_CLOSED = refused(("reset", Code.STREAM_CLOSED))
UNEXPECTED = refused(("goaway", Code.PROTOCOL_ERROR), ("goaway", Code.STREAM_CLOSED))

FRAMES = {
    DATA: data(STREAM, b"abc"),
    HEADERS: headers(STREAM, end=True),
    PRIORITY: frame(PRIORITY, 0, STREAM, bytes(4) + b"\x0f"),
    RST_STREAM: reset(STREAM),
    SETTINGS: frame(SETTINGS, 0, STREAM),
    PUSH_PROMISE: frame(PUSH_PROMISE, END_HEADERS, STREAM, (2).to_bytes(4) + literals(POST)),
    PING: frame(PING, 0, STREAM, bytes(8)),
    GOAWAY: frame(GOAWAY, 0, STREAM, bytes(8)),
    WINDOW_UPDATE: window(STREAM, 1000),
    CONTINUATION: frame(CONTINUATION, END_HEADERS, STREAM, literals([(b"a", b"b")])),
    UNKNOWN: frame(UNKNOWN, 0xFF, STREAM, b"anything"),
}
TRAILERS = headers(STREAM, [(b"a", b"b")], end=True)

WHATEVER_THE_STATE = {
    PRIORITY: NOTHING,  # 5.1: in any state; 5.3.2: without effect
    SETTINGS: NO_SUCH,  # 6.5
    PUSH_PROMISE: NO_SUCH,  # 8.4: a client cannot push
    PING: NO_SUCH,  # 6.7
    GOAWAY: NO_SUCH,  # 6.8
    CONTINUATION: NO_SUCH,  # 6.10: nothing precedes it that it could continue
    UNKNOWN: NOTHING,  # 4.1
}


def idle(peer: Peer) -> None:
    pass


def opened(peer: Peer) -> None:
    peer.open(STREAM)


def opened_with_trailers(peer: Peer) -> None:
    peer.say(headers(STREAM), data(STREAM, b"a body"))


def half_closed(peer: Peer) -> None:
    peer.open(STREAM, end=True)


def half_closed_by_data(peer: Peer) -> None:
    peer.open(STREAM)
    peer.say(data(STREAM, b"all", end=True))


def half_closed_by_trailers(peer: Peer) -> None:
    peer.open(STREAM)
    peer.say(headers(STREAM, [(b"a", b"b")], end=True))


def ended_by_both(peer: Peer) -> None:
    stream = peer.open(STREAM, end=True)
    peer.out.append(peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True))


def reset_by_the_client(peer: Peer) -> None:
    peer.open(STREAM)
    peer.say(reset(STREAM))


def reset_by_the_client_after_its_end(peer: Peer) -> None:
    peer.open(STREAM, end=True)
    peer.say(reset(STREAM))


def reset_by_the_server(peer: Peer) -> None:
    peer.http2.reset(peer.open(STREAM), Code.INTERNAL_ERROR)


def answered_before_the_client_has_ended(peer: Peer) -> None:
    stream = peer.open(STREAM)
    peer.out.append(peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True))


def refused_by_the_server(peer: Peer) -> None:
    peer.say(headers(STREAM, [(b":method", b"POST")]))


def passed_over(peer: Peer) -> None:
    peer.open(STREAM + 2, end=True)


IDLE = {DATA: NO_SUCH, HEADERS: gives(Kind.OPENED), RST_STREAM: NO_SUCH, WINDOW_UPDATE: NO_SUCH}
OPEN = {
    DATA: gives(Kind.BODY),
    HEADERS: gives(Kind.BODY),
    RST_STREAM: gives(Kind.RESET),
    WINDOW_UPDATE: gives(Kind.WINDOW),
}
# "other than WINDOW_UPDATE, PRIORITY, or RST_STREAM ... a stream error of type STREAM_CLOSED"
HALF_CLOSED = {**OPEN, DATA: STREAM_CLOSED, HEADERS: STREAM_CLOSED}
# WINDOW_UPDATE and RST_STREAM cross our end on the wire, and a RST_STREAM is never answered by one (5.4.2).
ENDED = {DATA: CLOSED, HEADERS: CLOSED, RST_STREAM: NOTHING, WINDOW_UPDATE: NOTHING}
# Whatever comes for a stream that we have reset may have been sent before its peer knew (5.1, 5.4.2).
RESET = dict.fromkeys(OPEN, NOTHING)
# Lower identifiers than the highest that was used are closed (5.1.1).
PASSED = {DATA: CLOSED, HEADERS: UNEXPECTED, RST_STREAM: NOTHING, WINDOW_UPDATE: NOTHING}

STATES: list[tuple[Callable[[Peer], None], dict[int, Result]]] = [
    (idle, IDLE),
    (opened, OPEN),
    (opened_with_trailers, OPEN),
    (half_closed, HALF_CLOSED),
    (half_closed_by_data, HALF_CLOSED),
    (half_closed_by_trailers, HALF_CLOSED),
    (ended_by_both, ENDED),
    (reset_by_the_client, ENDED),
    (reset_by_the_client_after_its_end, ENDED),
    (reset_by_the_server, RESET),
    (answered_before_the_client_has_ended, RESET),
    (refused_by_the_server, RESET),
    (passed_over, PASSED),
]


CASES = [
    pytest.param(
        reach,
        TRAILERS if row is OPEN and type == HEADERS else FRAMES[type],
        ({**WHATEVER_THE_STATE, **row})[type],
        id=f"{reach.__name__}-{type}",
    )
    for reach, row in STATES
    for type in FRAMES
]


@pytest.mark.parametrize(("reach", "said", "result"), CASES)
def test_a_frame_in_a_state(reach: Callable[[Peer], None], said: bytes, result: Result) -> None:
    peer = Peer()
    reach(peer)
    was_open = STREAM in peer.http2.streams
    peer.heard()
    events = peer.say(said)
    reaction = peer.reaction()
    if result.refusals:
        assert reaction in result.refusals
        assert [event.kind for event in events] == [Kind.RESET] * (was_open and peer.http2.ended is None)
    else:
        assert reaction is None
        assert tuple(event.kind for event in events) == result.events
    if peer.http2.ended is None:
        assert peer.lives(STREAM + 4)


@pytest.mark.parametrize("said", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("reach", [reach for reach, _ in STATES])
def test_nothing_is_read_after_the_end_of_the_connection(reach: Callable[[Peer], None], said: bytes) -> None:
    peer = Peer()
    reach(peer)
    peer.say(frame(PING, 0, 0, b"short"))
    assert peer.http2.ended is not None
    peer.heard()
    assert peer.say(said) == [] and peer.heard() == []


@pytest.mark.parametrize("reach", [reach for reach, row in STATES if row[DATA].refusals and row is not IDLE])
def test_a_stream_that_was_reset_for_a_mistake_is_left_alone_afterwards(reach: Callable[[Peer], None]) -> None:
    peer = Peer()
    reach(peer)
    peer.say(FRAMES[DATA])
    assert peer.reactions()[-1] == ("reset", Code.STREAM_CLOSED)
    for type in (DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, DATA):
        assert peer.say(FRAMES[type]) == [] and peer.reactions() == []


# Identifiers (5.1.1)


@pytest.mark.parametrize("stream", [2, 4, 100, 2**31 - 2])
def test_a_client_opens_no_stream_of_an_even_number(stream: int) -> None:
    peer = Peer()
    assert peer.say(headers(stream, end=True)) == []
    assert peer.reaction() == ("goaway", Code.PROTOCOL_ERROR)


def test_the_highest_identifier_can_be_used() -> None:
    peer = Peer()
    assert peer.open(2**31 - 1, end=True).id == 2**31 - 1


@pytest.mark.parametrize("type", [DATA, RST_STREAM, WINDOW_UPDATE])
def test_a_stream_of_an_even_number_is_idle_for_ever(type: int) -> None:
    peer = Peer()
    peer.open(STREAM)
    peer.heard()
    raw = bytearray(FRAMES[type])
    raw[8] = STREAM - 1
    assert peer.say(bytes(raw)) == []
    assert peer.reaction() == ("goaway", Code.PROTOCOL_ERROR)


def test_an_identifier_that_was_passed_over_is_unexpected() -> None:
    peer = Peer()
    peer.open(5, end=True)
    peer.heard()
    peer.say(headers(3, end=True))
    assert peer.reaction() == ("goaway", Code.PROTOCOL_ERROR)


def test_no_frame_is_ever_sent_on_an_idle_stream() -> None:
    peer = Peer()
    peer.open(5)
    peer.heard()
    peer.say(frame(PRIORITY, 0, 4, bytes(4)))  # FRAME_SIZE_ERROR, and 6.4: no RST_STREAM in the idle state
    assert peer.reaction() == ("goaway", Code.FRAME_SIZE_ERROR)


# Concurrency (5.1.2)


def test_streams_beyond_the_maximum_are_refused_and_the_others_unharmed() -> None:
    peer = Peer(max_streams=2)
    first, _ = peer.open(1), peer.open(3)
    peer.heard()
    assert peer.say(headers(5)) == []
    assert peer.reactions() == [("reset", Code.REFUSED_STREAM)]
    (event,) = peer.say(data(1, b"x", end=True))
    assert event.stream is first and event.data == b"x"


@pytest.mark.parametrize("closed_by", ["client", "server", "answer"])
def test_a_stream_that_has_closed_makes_room_for_another(closed_by: str) -> None:
    peer = Peer(max_streams=1)
    for id in range(1, 41, 2):
        stream = peer.open(id)
        if closed_by == "client":
            peer.say(reset(id))
        elif closed_by == "server":
            peer.http2.reset(stream, Code.CANCEL)
        else:
            peer.out.append(peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True))
    assert peer.http2.streams == {}


def test_a_half_closed_stream_counts() -> None:
    peer = Peer(max_streams=1)
    peer.open(1, end=True)
    peer.heard()
    assert peer.say(headers(3, end=True)) == []
    assert peer.reaction() == ("reset", Code.REFUSED_STREAM)


# Our ends (8.1)


def test_an_answer_before_the_end_of_the_request_asks_for_no_more_of_it() -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.heard()
    peer.out.append(peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True))
    answer, end = peer.heard()
    assert "END_STREAM" in answer.flags and end.error_code == Code.NO_ERROR
    assert not peer.http2.is_open(stream)


def test_an_answer_after_the_end_of_the_request_is_only_that() -> None:
    peer = Peer()
    stream = peer.open(1, end=True)
    peer.heard()
    peer.out.append(peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True))
    (answer,) = peer.heard()
    assert "END_STREAM" in answer.flags


def test_a_stream_ends_and_is_reset_once() -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.http2.reset(stream, Code.CANCEL)
    peer.heard()
    peer.http2.reset(stream, Code.CANCEL)
    assert peer.http2.end(stream) == b"" and peer.out == []


@pytest.mark.parametrize("most", [1, 100, 1000])
def test_late_trailers_find_their_stream_reset_however_many_there_were(most: int) -> None:
    peer = Peer(most)
    streams = []
    for id in range(1, 2 * most, 2):
        peer.now += 1
        streams.append(peer.open(id))
    for stream in streams:
        peer.http2.reset(stream, Code.CANCEL)
    peer.heard()
    peer.say(*(headers(stream.id, [(b"a", b"b")], end=True) for stream in streams))
    assert peer.reactions() == []


def test_the_header_block_of_a_stream_that_was_reset_still_counts() -> None:
    peer = Peer()
    peer.http2.reset(peer.open(1), Code.CANCEL)
    late = peer.encoder.encode([(b"x-late", b"kept")], huffman=False)
    peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, late))
    block = peer.encoder.encode([*POST, (b"x-late", b"kept")], huffman=False)
    assert len(late) > 8 and b"kept" not in block
    (event,) = peer.say(frame(HEADERS, END_HEADERS | END_STREAM, 3, block))
    assert event.stream is not None and event.stream.head.read[2] == [(b"x-late", b"kept")]
