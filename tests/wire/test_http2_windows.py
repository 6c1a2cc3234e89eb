"""HTTP/2's windows, both ways (RFC 9113, sections 5.2 and 6.9)."""

from __future__ import annotations

import pytest
from hyperframe.frame import Frame, WindowUpdateFrame

from raffel_core.wire.http2 import CONNECTION_WINDOW, MAX_WINDOW, Kind
from raffel_core.wire.http2_frames import MAX_FRAME, Code, header_block
from raffel_core.wire.http2_streams import STREAM_WINDOW

from .http2_peer import DATA, END_STREAM, PADDED, Peer, data, frame, reset, settings, summary, window

FLOW = ("goaway", Code.FLOW_CONTROL_ERROR)
PROTOCOL = ("goaway", Code.PROTOCOL_ERROR)


def given(heard: list[Frame], stream: int) -> int:
    """How many bytes of a window the server has given back."""
    updates = [item for item in heard if isinstance(item, WindowUpdateFrame)]
    return sum(item.window_increment for item in updates if item.stream_id == stream)


# What we may send


def test_windows_begin_with_65_535_bytes() -> None:
    peer = Peer()
    assert peer.http2.window == 65_535 and peer.open(1).window == 65_535


@pytest.mark.parametrize("more", [1, 255, 256, 1023, 1024, MAX_WINDOW - 65_535])
def test_a_window_update_lets_more_be_sent(more: int) -> None:
    peer = Peer()
    stream = peer.open(1)
    assert summary(peer.say(window(1, more))) == [(Kind.WINDOW, 1, b"", False)]
    assert (stream.window, peer.http2.window) == (65_535 + more, 65_535)
    assert summary(peer.say(window(0, more))) == [(Kind.WINDOW, None, b"", False)]
    assert (stream.window, peer.http2.window) == (65_535 + more, 65_535 + more)


def test_a_zero_increment_ends_the_stream_or_the_connection() -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.heard()
    assert summary(peer.say(window(1, 0))) == [(Kind.RESET, 1, b"", False)]
    assert peer.reaction() == ("reset", Code.PROTOCOL_ERROR) and not peer.http2.is_open(stream)
    peer.say(window(0, 0))
    assert peer.reaction() == PROTOCOL


def test_a_window_beyond_its_maximum_ends_the_stream_or_the_connection() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(window(1, MAX_WINDOW - 65_535), window(0, MAX_WINDOW - 65_535))
    assert peer.reaction() is None
    assert summary(peer.say(window(1, 1))) == [(Kind.RESET, 1, b"", False)]
    assert peer.reaction() == ("reset", Code.FLOW_CONTROL_ERROR)
    peer.say(window(0, 1))
    assert peer.reaction() == FLOW


@pytest.mark.parametrize("stream", [0, 1])
def test_two_window_updates_overflow_a_window_together(stream: int) -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(window(stream, MAX_WINDOW), window(stream, MAX_WINDOW))
    found = peer.reactions()
    assert found[0] == (FLOW if not stream else ("reset", Code.FLOW_CONTROL_ERROR)) and len(found) == 1


@pytest.mark.parametrize(("before", "after"), [(65_535, 0), (100, 7), (0, 65_535), (5, 5), (0, MAX_WINDOW)])
def test_an_initial_window_changes_those_of_streams_that_are_open(before: int, after: int) -> None:
    peer = Peer()
    peer.say(settings((4, before)))
    stream = peer.open(1)
    assert stream.window == before
    connection = peer.http2.window
    events = peer.say(settings((4, after)))
    assert stream.window == after and peer.open(3).window == after
    assert peer.http2.window == connection, "only streams have an initial window"
    assert summary(events) == ([(Kind.WINDOW, None, b"", False)] if after > before else [])


def test_a_window_becomes_negative_and_positive_again() -> None:
    peer = Peer()
    stream = peer.open(1, end=True)
    peer.http2.respond(peer.open(3, end=True), header_block([(b":status", b"200")]), bytes(1000))
    stream.window -= 60_000  # sent
    peer.say(settings((4, 16_384)))
    assert stream.window == 5535 - 65_535 + 16_384 < 0
    peer.say(window(1, 43_616))
    assert stream.window == 0
    peer.say(window(1, 1))
    assert stream.window == 1


def test_an_initial_window_that_takes_one_beyond_its_maximum_ends_the_connection() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(window(1, MAX_WINDOW - 65_535))
    assert peer.reaction() is None
    peer.say(settings((4, 65_536)))
    assert peer.reaction() == FLOW


def test_an_initial_window_that_keeps_one_at_its_maximum_is_legal() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(window(1, MAX_WINDOW - 65_535 - 10), settings((4, 65_545)))
    assert peer.reaction() is None and peer.http2.streams[1].window == MAX_WINDOW


# What we take


def test_a_client_may_fill_the_window_of_a_stream_and_not_a_byte_more() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    events = peer.say(*[data(1, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME))
    assert sum(len(event.data) for event in events) == STREAM_WINDOW
    assert peer.reaction() is None
    assert summary(peer.say(data(1, b"x"))) == [(Kind.RESET, 1, b"", False)]
    assert peer.reaction() == ("reset", Code.FLOW_CONTROL_ERROR)
    assert peer.lives(3)


def test_an_empty_frame_needs_no_window() -> None:
    peer = Peer()
    peer.open(1)
    peer.say(*[data(1, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME))
    assert summary(peer.say(data(1, end=True))) == [(Kind.BODY, 1, b"", True)]


def test_what_has_been_read_is_given_back() -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.heard()
    sent = back = 0
    for _ in range(200):
        (event,) = peer.say(data(1, bytes(MAX_FRAME)))
        sent += MAX_FRAME
        peer.http2.consumed(stream, len(event.data))
        back += given(peer.heard(), 1)
        assert back <= sent
    assert back > sent - STREAM_WINDOW


def test_nothing_is_given_back_of_what_has_not_been_read() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(*[data(1, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME))
    assert given(peer.heard(), 1) == 0


def test_nothing_is_given_back_on_a_stream_that_its_client_has_ended() -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.say(*[data(1, bytes(MAX_FRAME))] * 15, data(1, end=True))
    peer.heard()
    peer.http2.consumed(stream, 15 * MAX_FRAME)
    assert given(peer.heard(), 1) == 0


def test_nothing_is_given_back_on_a_stream_that_has_been_reset() -> None:
    peer = Peer()
    stream, other = peer.open(1), peer.open(3)
    peer.say(*[data(1, bytes(MAX_FRAME)), data(3, bytes(MAX_FRAME))] * 10, reset(1))
    peer.http2.reset(other, Code.CANCEL)
    peer.heard()
    peer.http2.consumed(stream, 10 * MAX_FRAME)
    peer.http2.consumed(other, 10 * MAX_FRAME)
    heard = peer.heard()
    assert given(heard, 1) == given(heard, 3) == 0


def test_the_window_of_the_connection_is_given_back_when_bytes_have_been_read() -> None:
    peer = Peer()
    sent = back = 0
    for id in range(1, 101, 2):
        stream = peer.open(id)
        for event in peer.say(*[data(id, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME)):
            peer.http2.consumed(stream, len(event.data))
        sent += STREAM_WINDOW
        back += given(peer.heard(), 0)
        assert sent - CONNECTION_WINDOW < back <= sent
    assert peer.http2.ended is None


def test_streams_that_are_not_read_exhaust_the_connection_and_not_a_byte_more() -> None:
    peer = Peer()
    ids = range(1, 2 * (CONNECTION_WINDOW // STREAM_WINDOW), 2)
    for id in ids:
        assert not peer.http2.exhausted
        peer.open(id)
        peer.say(*[data(id, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME))
    assert peer.http2.exhausted and given(peer.heard(), 0) == 0
    for id in ids:
        peer.http2.consumed(peer.http2.streams[id], STREAM_WINDOW)
    assert not peer.http2.exhausted and given(peer.heard(), 0) == CONNECTION_WINDOW


def test_a_byte_beyond_the_window_of_the_connection_ends_it() -> None:
    peer = Peer()
    for id in range(1, 2 * (CONNECTION_WINDOW // STREAM_WINDOW), 2):
        peer.open(id)
        peer.say(*[data(id, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME))
    peer.open(99)
    peer.heard()
    peer.say(data(99, end=True))
    assert peer.reaction() is None, "an empty frame needs no window"
    peer.open(101)
    peer.say(data(101, b"x"))
    assert peer.reaction() == FLOW


def test_what_is_let_go_of_a_stream_that_has_been_reset_is_given_back_to_the_connection_alone() -> None:
    peer = Peer()
    streams = [peer.open(id) for id in range(1, 2 * (CONNECTION_WINDOW // STREAM_WINDOW), 2)]
    for number, stream in enumerate(streams):
        peer.say(*[data(stream.id, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME))
        if number % 3 == 0:
            peer.say(reset(stream.id))
        elif number % 3 == 1:
            peer.http2.reset(stream, Code.CANCEL)
        else:
            peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True)
    peer.heard()
    for stream in streams:
        peer.http2.consumed(stream, STREAM_WINDOW)
    heard = peer.heard()
    assert given(heard, 0) == CONNECTION_WINDOW and all(item.stream_id == 0 for item in heard)


@pytest.mark.parametrize("state", ["reset", "ended", "half closed", "answered"])
def test_the_window_of_the_connection_counts_frames_that_no_stream_takes(state: str) -> None:
    """5.4.2, 6.9: a frame that is ignored has taken its part of the connection's window."""
    peer = Peer()
    sent = back = 0
    for id in range(1, 4 * CONNECTION_WINDOW // MAX_FRAME, 2):
        stream = peer.open(id, end=state in ("ended", "half closed"))
        if state == "reset":
            peer.http2.reset(stream, Code.CANCEL)
        elif state != "half closed":
            peer.http2.headers(stream, header_block([(b":status", b"200")]), end=True)
        peer.http2.earn(10)
        for _ in range(2):
            peer.say(data(id, bytes(MAX_FRAME)))
            sent += MAX_FRAME
        peer.say(reset(id))
        peer.http2.earn(10)
        back += given(peer.heard(), 0)
        assert peer.http2.ended is None
    assert sent - CONNECTION_WINDOW < back <= sent


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_counts_and_is_given_back_by_itself(padding: int) -> None:
    peer = Peer()
    stream = peer.open(1)
    peer.heard()
    said = frame(DATA, PADDED, 1, bytes((padding,)) + b"x" * 500 + bytes(padding))
    size, frames, back = 501 + padding, 1200, 0
    for _ in range(frames):
        (event,) = peer.say(said)
        peer.http2.consumed(stream, len(event.data))
        back += given(peer.heard(), 1)
    assert peer.http2.ended is None and peer.http2.is_open(stream)
    assert frames * size - STREAM_WINDOW < back <= frames * size


def test_padding_needs_a_window_too() -> None:
    peer = Peer()
    peer.open(1)
    peer.heard()
    peer.say(*[data(1, bytes(MAX_FRAME))] * (STREAM_WINDOW // MAX_FRAME - 1), data(1, bytes(MAX_FRAME - 5)))
    assert peer.reaction() is None
    peer.say(frame(DATA, PADDED | END_STREAM, 1, b"\x05" + bytes(5)))
    assert peer.reaction() == ("reset", Code.FLOW_CONTROL_ERROR)
