"""HTTP/2 of any bytes: events and GOAWAY come out, never an exception, and no more is kept than a block and a frame."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.wire.http2 import PREFACE, Event, Http2, Kind
from raffel_core.wire.http2_frames import MAX_FRAME, header_block
from raffel_core.wire.http2_heads import HEADER_BYTES

from .http2_peer import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PRIORITISED,
    PRIORITY,
    SETTINGS,
    Peer,
    data,
    frame,
    headers,
    literals,
    read_frames,
    reset,
    summary,
    window,
)
from .http2_peer import settings as settings_frame

STATUS = header_block([(b":status", b"200")])


def session(chance: random.Random) -> list[bytes]:
    """The frames of a client that does everything there is, and nothing wrong."""
    encoder = Encoder()
    said = [settings_frame((4, chance.choice([0, 100, 65_535])), (1, 4096))]
    for id in range(1, 1 + 2 * chance.randrange(1, 3), 2):
        fields = [*POST, (b"te", b"trailers"), (b"x-%d" % chance.randrange(3), b"v" * chance.randrange(40))]
        block = encoder.encode(fields, huffman=chance.random() < 0.5)
        match chance.randrange(4):
            case 0:
                said.append(frame(HEADERS, END_HEADERS, id, block))
            case 1:
                said += (frame(HEADERS, 0, id, block[:7]), frame(CONTINUATION, END_HEADERS, id, block[7:]))
            case 2:
                said.append(frame(HEADERS, END_HEADERS | PADDED, id, b"\x03" + block + bytes(3)))
            case 3:
                said.append(frame(HEADERS, END_HEADERS | PRIORITISED, id, bytes(4) + b"\x10" + block))
        body = chance.randbytes(chance.randrange(60))
        said.append(frame(0, PADDED, id, b"\x02" + body + bytes(2)))
        match chance.randrange(4):
            case 0:
                said.append(data(id, body, end=True))
            case 1:
                said.append(frame(HEADERS, END_HEADERS | END_STREAM, id, encoder.encode([(b"a", b"b")])))
            case 2:
                said.append(reset(id))
            case 3:
                said.append(window(id, 1000))
        said.append(
            chance.choice(
                (
                    window(0, chance.randrange(1, 1 << 20)),
                    frame(PING, chance.randrange(2), 0, chance.randbytes(8)),
                    frame(SETTINGS, ACK),
                    frame(PRIORITY, 0, id, bytes(5)),
                    frame(0xBE, 0, id, b"unknown"),
                    frame(GOAWAY, 0, 0, bytes(8)),
                )
            )
        )
    return said


SESSIONS = [session(random.Random(seed)) for seed in range(500)]


def mutated(chance: random.Random) -> bytes:
    said = [*chance.choice(SESSIONS)]
    for _ in range(chance.randrange(3)):
        at = chance.randrange(len(said))
        match chance.randrange(6):
            case 0:
                del said[at]
            case 1:
                said.insert(at, chance.choice(said))
            case 2:
                said[at] = said[at][: chance.randrange(len(said[at]))]
            case 3:
                first, said[at] = said[at], chance.choice(said)
                said.append(first)
            case 4:
                raw = bytearray(said[at])
                raw[chance.randrange(min(9, len(raw)))] = chance.randrange(256)
                said[at] = bytes(raw)
            case 5:
                raw = bytearray(said[at])
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
                said[at] = bytes(raw)
        if not said or not all(said):
            break
    stream = bytearray(b"".join(said))
    if chance.random() < 0.1 and stream:
        stream[chance.randrange(len(stream))] = chance.randrange(256)
    return bytes(stream)


def pieces(stream: bytes, chance: random.Random) -> Iterator[bytes]:
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(4)))
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        yield stream[start:stop]


def check(http2: Http2, events: list[Event], open_streams: dict[int, bool]) -> None:
    """What holds of events whatever was said. `open_streams` has the ids, and whether their requests have ended."""
    for event in events:
        kind, stream, end = event.kind, event.stream, event.end
        if kind is Kind.OPENED:
            assert stream is not None and stream.id % 2 == 1 and stream.id > max(open_streams, default=0)
            open_streams[stream.id] = end
        elif kind is Kind.BODY:
            assert stream is not None and open_streams[stream.id] is False
            open_streams[stream.id] = end
        elif kind is Kind.RESET:
            assert stream is not None and stream.id in open_streams
            open_streams[stream.id] = True
    for stream in http2.streams.values():
        assert stream.window < 2**31 and stream.id in open_streams
    assert http2.window < 2**31
    assert len(http2._buffer) <= 9 + MAX_FRAME
    assert http2._block is None or sum(map(len, http2._block[2])) <= HEADER_BYTES


def types(written: bytes) -> list[int]:
    """The types of the frames that were written; fails where one is not whole."""
    found, at = [], 0
    while at < len(written):
        found.append(written[at + 3])
        at += 9 + int.from_bytes(written[at : at + 3])
    assert at == len(written)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_give_events_or_goaway(seed: int) -> None:
    chance = random.Random(seed)
    kinds: Counter[str] = Counter()
    for _ in range(20_000):
        out: list[bytes] = []
        http2 = Http2(2, lambda method, path, fields: fields, out)
        if chance.random() < 0.98:
            http2.receive(PREFACE + settings_frame(), 0.0)
        answered, open_streams = chance.random() < 0.3, {}
        for piece in pieces(mutated(chance), chance):
            events = http2.receive(piece, 0.0)
            check(http2, events, open_streams)
            kinds.update(event.kind.name for event in events)
            if answered and http2.streams:
                stream = chance.choice([*http2.streams.values()])
                out.append(http2.headers(stream, STATUS, end=True))
        written = b"".join(out)
        assert types(written).count(GOAWAY) == (http2.ended is not None)
        if chance.random() < 0.05:
            read_frames(written)
        if http2.ended is not None:
            kinds[http2.ended.partition(":")[0]] += 1
            assert http2.receive(PREFACE, 0.0) == []
    assert {*Kind.__members__} <= {*kinds}
    codes = {"PROTOCOL_ERROR", "FLOW_CONTROL_ERROR", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "COMPRESSION_ERROR"}
    assert codes <= {*kinds}


def test_bytes_without_any_form_give_goaway_or_nothing() -> None:
    chance = random.Random(7541)
    for _ in range(5_000):
        peer = Peer()
        for _ in range(4):
            check(peer.http2, peer.say(chance.randbytes(chance.randrange(40))), {})
        block = chance.randbytes(chance.randrange(60))
        peer = Peer()
        check(peer.http2, peer.say(frame(HEADERS, END_HEADERS, 1, literals(POST) + block)), {})


@given(data=st.data(), seed=st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_any_split_gives_the_same_events_and_the_same_answers(data: st.DataObject, seed: int) -> None:
    said = mutated(random.Random(seed))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=12)))
    whole, split = Peer(), Peer()
    meant = summary(whole.say(said))
    found = summary(split.say(*(said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True))))
    assert (found, b"".join(split.out)) == (meant, b"".join(whole.out))
    assert split.http2.ended == whole.http2.ended


def test_a_session_without_mistakes_is_never_ended() -> None:
    chance = random.Random(1)
    for _ in range(2_000):
        peer = Peer()
        events = peer.say(*session(chance))
        assert peer.http2.ended is None and not peer.http2.partial
        assert sum(event.kind is Kind.OPENED for event in events) >= 1


def test_a_request_follows_any_mistake_that_concerns_one_stream() -> None:
    chance = random.Random(2)
    alive = 0
    for _ in range(5_000):
        peer = Peer()
        peer.say(mutated(chance))
        if peer.http2.ended is None and not peer.http2.partial and peer.http2.highest < 2**31 - 1:
            (event,) = peer.say(headers(2**31 - 1, end=True))
            assert event.kind is Kind.OPENED
            alive += 1
    assert alive > 1_000
