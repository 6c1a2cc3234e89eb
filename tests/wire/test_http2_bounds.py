"""What an HTTP/2 client may have a server do for nothing: a budget that floods run out of, and honest clients never."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from raffel_core.wire.http2 import BUDGET, REFILL, Http2, Kind
from raffel_core.wire.http2_frames import MAX_FRAME, Code, header_block
from raffel_core.wire.http2_heads import HEADER_BYTES
from raffel_core.wire.stream_queue import StreamQueue

from .http2_peer import (
    ACK,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PRIORITY,
    SETTINGS,
    UNKNOWN,
    Peer,
    data,
    frame,
    headers,
    literal,
    literals,
    read_frames,
    reset,
    settings,
    window,
)

MANY = 10_000
CALM = ("goaway", Code.ENHANCE_YOUR_CALM)
STATUS = header_block([(b":status", b"200")])
END = header_block([(b"grpc-status", b"0")])

Flood = Callable[[], Iterator[bytes]]


def each(*pieces: bytes) -> Flood:
    """The same again and again, on a stream 1 that is open."""

    def flood() -> Iterator[bytes]:
        for _ in range(MANY):
            yield b"".join(pieces)

    return flood


def on_new_streams(*make: Callable[[int], bytes]) -> Flood:
    """The same on one new stream after the other."""

    def flood() -> Iterator[bytes]:
        for id in range(3, 2 * MANY, 2):
            yield b"".join(piece(id) for piece in make)

    return flood


def request(id: int) -> bytes:
    return headers(id, end=True)


FLOODS: dict[str, Flood] = {
    "rapid reset": on_new_streams(headers, reset),
    "rapid reset of whole requests": on_new_streams(request, reset),
    "empty DATA": each(data(1)),
    "empty DATA of padding": each(frame(DATA, PADDED, 1, b"\x00")),
    "PING": each(frame(PING, 0, 0, bytes(8))),
    "answers to no PING": each(frame(PING, ACK, 0, bytes(8))),
    "SETTINGS": each(settings()),
    "SETTINGS of one window": each(settings((4, 0)), settings((4, 65_535))),
    "long SETTINGS": each(settings(*[(4, 0), (4, 65_535)] * 1000)),
    "acknowledgements": each(frame(SETTINGS, ACK)),
    "PRIORITY": each(frame(PRIORITY, 0, 1, bytes(5))),
    "PRIORITY of idle streams": each(frame(PRIORITY, 0, 99, bytes(5))),
    "unknown": each(frame(UNKNOWN, 0, 1, b"x")),
    "unknown on the connection": each(frame(UNKNOWN)),
    "GOAWAY": each(frame(GOAWAY, 0, 0, bytes(8))),
    "WINDOW_UPDATE of 1": each(window(1, 1)),
    "WINDOW_UPDATE of 1 on the connection": each(window(0, 1)),
    "WINDOW_UPDATE of 0": on_new_streams(request, lambda id: window(id, 0)),
    "WINDOW_UPDATE of too much": on_new_streams(request, lambda id: window(id, 2**31 - 1)),
    "DATA after the end": on_new_streams(request, lambda id: data(id, b"x")),
    "HEADERS after the end": on_new_streams(request, lambda id: headers(id, [(b"a", b"b")], end=True)),
    "trailers that do not end": on_new_streams(headers, lambda id: headers(id, [(b"a", b"b")])),
    "PRIORITY of a wrong length": on_new_streams(request, lambda id: frame(PRIORITY, 0, id, bytes(4))),
    "a body of another length": on_new_streams(
        lambda id: headers(id, [*POST, (b"content-length", b"1")]), lambda id: data(id, b"xx")
    ),
    "malformed requests": on_new_streams(lambda id: headers(id, [*POST, (b"te", b"gzip")], end=True)),
    "refused streams": on_new_streams(request),
    "DATA of a stream that was reset": each(data(1), reset(1), data(1, b"x")),
    "RST_STREAM of a stream that was reset": each(reset(1)),
    "WINDOW_UPDATE of a stream that was reset": each(reset(1), window(1, 70_000)),
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("piecewise", [True, False])
def test_a_flood_ends_the_connection_long_before_it_is_through(name: str, piecewise: bool) -> None:
    peer = Peer(max_streams=100)
    peer.open(1)
    peer.heard()
    said = 0
    if piecewise:
        for piece in FLOODS[name]():
            peer.say(piece)
            said += 1
            if peer.http2.ended is not None:
                break
    else:
        peer.say(b"".join(FLOODS[name]()))
    assert peer.http2.ended is not None and said < MANY * 0.5
    assert sum(map(len, peer.out)) < 20_000
    assert peer.reactions()[-1] == CALM


def test_streams_that_come_after_the_last_goaway_are_not_refused_for_ever() -> None:
    """Some have crossed the GOAWAY on the wire; ten thousand have not."""
    peer = Peer()
    peer.http2.goaway()
    peer.heard()
    for piece in on_new_streams(request)():
        peer.say(piece)
    assert sum(map(len, peer.out)) < 20_000


@pytest.mark.parametrize("count", [100, 200])
def test_streams_that_cross_a_goaway_on_the_wire_are_no_flood(count: int) -> None:
    peer = Peer()
    peer.open(1)
    peer.http2.goaway()
    peer.heard()
    peer.say(*(request(id) for id in range(3, 3 + 2 * count, 2)))
    assert peer.http2.ended is None


@pytest.mark.parametrize("cheap", [frame(PING, 0, 0, bytes(8)), frame(PRIORITY, 0, 9, bytes(5)), settings()])
def test_a_client_that_waits_may_send_more(cheap: bytes) -> None:
    peer = Peer()
    for second in range(100):
        peer.now = float(second)
        peer.say(*[cheap] * 90)
        peer.out.clear()
        assert peer.http2.ended is None
    peer.say(*[cheap] * MANY)
    assert peer.reactions()[-1] == CALM


def test_waiting_earns_no_more_than_the_whole_budget() -> None:
    peer = Peer()
    peer.say(frame(PING, 0, 0, bytes(8)))
    peer.now = 1e9
    peer.say(*[frame(PING, 0, 0, bytes(8))] * int(BUDGET + 2))
    assert peer.reactions()[-1] == CALM


def test_a_clock_that_stands_still_earns_nothing() -> None:
    peer = Peer()
    peer.now = 1e6
    peer.say(settings())
    peer.out.clear()
    peer.say(*[frame(PING, 0, 0, bytes(8))] * int(BUDGET + 2))
    assert peer.reactions()[-1] == CALM


def test_a_time_far_from_zero_earns_nothing_at_the_beginning() -> None:
    peer = Peer()
    peer.now = 1e9
    count = 0
    while peer.http2.ended is None and count < MANY:
        peer.say(frame(PING, 0, 0, bytes(8)))
        peer.now += 0.5 / REFILL
        count += 1
    assert BUDGET < count < 3 * BUDGET


# Honest clients


def test_an_honest_client_at_full_speed_is_never_told_to_calm_down() -> None:
    """A hundred thousand calls in no time: each HEADERS, DATA, our answer, a WINDOW_UPDATE and a PING."""
    peer = Peer()
    starved: set[StreamQueue] = set()
    peer.http2.window = 2**30
    body, ping = bytes(5) + b"x" * 20, frame(PING, 0, 0, bytes(8))
    block = literals(POST)
    for id in range(1, 200_001, 2):
        events = peer.say(frame(HEADERS, END_HEADERS, id, block) + data(id, body, end=True))
        stream = events[0].stream
        assert stream is not None and len(events) == 2
        peer.http2.consumed(stream, len(events[1].data))
        queue = StreamQueue(peer.http2, stream, 0, starved)
        queue.parts += (b"xxxxx", b"answer", b"")
        queue.finish(END)
        queue.take_all()
        peer.say(window(0, 11) + ping)
        peer.out.clear()
    assert peer.http2.ended is None and peer.http2.streams == {}


def test_an_honest_client_that_cancels_every_tenth_call_is_never_told_to_calm_down() -> None:
    peer = Peer()
    starved: set[StreamQueue] = set()
    peer.http2.window = 2**30
    for number in range(100_000):
        id = 2 * number + 1
        (event,) = peer.say(headers(id, end=True))
        assert event.stream is not None
        queue = StreamQueue(peer.http2, event.stream, 0, starved)
        queue.parts += (b"xxxxx", b"first", b"")
        queue.take_all()
        if number % 10:
            queue.finish(END)
            queue.take_all()
        else:
            peer.say(reset(id))
        peer.out.clear()
    assert peer.http2.ended is None and peer.http2.streams == {}


@pytest.mark.parametrize("most", [100, 1000])
def test_a_client_that_opens_at_once_all_streams_that_it_may_is_never_told_to_calm_down(most: int) -> None:
    peer = Peer(most)
    peer.say(b"".join(headers(id) for id in range(1, 2 * most, 2)))
    assert peer.http2.ended is None and len(peer.http2.streams) == most


def test_a_client_whose_uploads_are_cut_short_is_never_told_to_calm_down() -> None:
    """What it had on the way when its stream was reset is a race, of a whole window in small frames."""
    peer = Peer()
    for number in range(20):
        stream = peer.open(2 * number + 1)
        peer.http2.headers(stream, STATUS, end=True)
        peer.now += 1
        for _ in range(1000):
            peer.say(data(stream.id, bytes(250)))
        assert peer.http2.ended is None
        peer.now += 1


def test_a_client_that_fills_its_streams_with_small_messages_is_never_told_to_calm_down() -> None:
    peer = Peer()
    stream = peer.open(1)
    for _ in range(MANY):
        peer.say(data(1, bytes(5)))
        peer.http2.consumed(stream, 5)
    assert peer.http2.ended is None


# What is kept


def kept_by(say: Callable[[Peer], None]) -> int:
    """Bytes of memory that a connection holds after something has been said to it."""
    peer = Peer()
    tracemalloc.start()
    try:
        say(peer)
        peer.out.clear()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_frame_that_never_ends_is_kept_as_far_as_a_frame_may_be() -> None:
    def say(peer: Peer) -> None:
        head = frame(DATA, 0, 1, bytes(MAX_FRAME))[:9]
        peer.say(headers(1), head[:4], head[4:], bytes(MAX_FRAME - 1))

    assert kept_by(say) < 3 * MAX_FRAME


@pytest.mark.parametrize("cut", [0, 1, 4, 8, 9])
def test_a_frame_that_is_too_long_is_not_kept(cut: int) -> None:
    def say(peer: Peer) -> None:
        head = (2**24 - 1).to_bytes(3) + bytes(6)
        peer.say(head[:cut], head[cut:], *[bytes(1 << 16)] * 100)

    assert kept_by(say) < 100_000


def test_a_header_block_that_never_ends_is_kept_as_far_as_a_block_may_be() -> None:
    def say(peer: Peer) -> None:
        peer.say(frame(HEADERS, 0, 1, literals(POST)), *[frame(9, 0, 1, bytes(2300)) for _ in range(7)])
        assert peer.http2.ended is None

    assert kept_by(say) < 3 * HEADER_BYTES


def test_nothing_is_kept_of_streams_that_have_ended() -> None:
    def say(peer: Peer) -> None:
        for id in range(1, 20_000, 2):
            (event,) = peer.say(headers(id, end=True))
            assert event.stream is not None
            peer.http2.headers(event.stream, STATUS, end=True)
            peer.http2.earn(4)

    assert kept_by(say) < 100_000


def test_little_is_kept_of_streams_that_have_been_reset() -> None:
    def say(peer: Peer) -> None:
        for id in range(1, 20_000, 2):
            (event,) = peer.say(headers(id))
            assert event.stream is not None
            peer.http2.reset(event.stream, Code.CANCEL)
            peer.http2.earn(4)
            peer.out.clear()

    assert kept_by(say) < 200_000


def test_heads_that_are_remembered_take_no_more_than_a_few_blocks() -> None:
    """A block of a few bytes can mean 16 KiB: what is kept for the next time counts what it means."""

    def say(peer: Peer) -> None:
        entry = b"\x40\x01x\x7f" + bytes((((4000 - 127) & 127) | 128, (4000 - 127) >> 7)) + b"v" * 4000
        peer.say(frame(HEADERS, END_HEADERS, 1, literals(POST) + entry))
        for number in range(300):
            id = 2 * number + 3
            block = literals(POST) + b"\xbe" * 3 + literal(b"y", b"%d" % number)
            (event,) = peer.say(frame(HEADERS, END_HEADERS | 1, id, block))
            assert event.kind is Kind.OPENED and event.stream is not None
            peer.http2.headers(event.stream, STATUS, end=True)

    assert kept_by(say) < 16 * HEADER_BYTES


def test_events_are_as_many_as_frames() -> None:
    peer = Peer()
    peer.open(1)
    events = peer.say(*[data(1, b"x")] * 1000)
    assert len(events) == 1000 and all(event.kind is Kind.BODY for event in events)


# Time


@pytest.mark.parametrize("piece", [1, 3])
def test_a_frame_that_comes_byte_by_byte_is_looked_at_once(piece: int) -> None:
    """A MiB in pieces of a byte: were each of them to copy what has come, it would take minutes."""
    peer = Peer()
    stream = peer.open(1)
    peer.http2.out = []
    said = data(1, bytes(MAX_FRAME))
    taken = 0
    for _ in range(64):
        for at in range(0, len(said), piece):
            for event in peer.http2.receive(said[at : at + piece], 0.0):
                taken += len(event.data)
                peer.http2.consumed(stream, len(event.data))
    assert taken == 64 * MAX_FRAME and not peer.http2.partial


def test_a_thousand_frames_in_one_piece_are_read_as_quickly_as_one_by_one() -> None:
    peer = Peer()
    stream = peer.open(1)
    said = data(1, b"x" * 10) * 20_000
    events = peer.http2.receive(said, 0.0)
    assert len(events) == 20_000 and peer.http2.is_open(stream)


def test_what_the_server_writes_is_whole_frames_at_any_time() -> None:
    out: list[bytes] = []
    http2 = Http2(1, lambda *_: None, out)
    http2.goaway(Code.INTERNAL_ERROR, "why")
    assert [item.type for item in read_frames(b"".join(out))] == [4, 8, 7]
