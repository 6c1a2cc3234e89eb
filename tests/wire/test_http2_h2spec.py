"""The list of h2spec, the public conformance suite of HTTP/2 servers, in its order: what each case sends and demands.

h2spec tests RFC 7540. Where RFC 9113 has changed a demand, what is here is RFC 9113's, and says so.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hpack import Encoder

from raffel_core.wire.http2 import PREFACE, Kind
from raffel_core.wire.http2_frames import MAX_FRAME, Code, header_block

from .http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
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
    Fields,
    Peer,
    acknowledged,
    data,
    frame,
    headers,
    literal,
    literals,
    reset,
    settings,
    window,
)

METHOD, SCHEME, PATH, AUTHORITY = POST
GET: Fields = [(b":method", b"GET"), SCHEME, PATH, AUTHORITY]
END = END_HEADERS | END_STREAM


class Demand(NamedTuple):
    """The codes that will do, in a GOAWAY or, where it may be one stream's end, in a RST_STREAM."""

    codes: tuple[Code, ...]
    stream: bool


def connection(*codes: Code) -> Demand:
    return Demand(codes, stream=False)


def stream(*codes: Code) -> Demand:
    return Demand(codes, stream=True)


P, C, S = Code.PROTOCOL_ERROR, Code.STREAM_CLOSED, Code.FRAME_SIZE_ERROR
F, H = Code.FLOW_CONTROL_ERROR, Code.COMPRESSION_ERROR


def request(id: int, fields: Fields = POST) -> bytes:
    return headers(id, fields, end=True)


def prioritised(id: int, priority: bytes) -> bytes:
    return frame(HEADERS, END | PRIORITISED, id, priority + literals(POST))


def coded(*fields: tuple[bytes, bytes], first: int = 0x00, huffman: bool = False) -> bytes:
    """A request whose further fields have this form."""
    if not huffman:
        return frame(HEADERS, END, 1, literals(POST) + b"".join(literal(*field, first=first) for field in fields))
    return frame(HEADERS, END, 1, literals(POST) + Encoder().encode(fields, huffman=True))


def indexed(first: int, bits: int, value: bytes, *, huffman: bool = False) -> bytes:
    """A request with a user-agent, whose name is the static table's 58th."""
    most = (1 << bits) - 1
    index = bytes((first | 58,)) if most > 58 else bytes((first | most, 58 - most))
    coded = b"\x86" + bytes.fromhex("a0e41d139d09") if huffman else bytes((len(value),)) + value
    return frame(HEADERS, END, 1, literals(POST) + index + coded)


SERVED: dict[str, list[bytes]] = {
    "generic/2/1 PRIORITY on an idle stream": [frame(PRIORITY, 0, 1, bytes(4) + b"\xff"), request(1)],
    "generic/2/2 WINDOW_UPDATE on half closed": [request(1), window(1, 100)],
    "generic/2/3 PRIORITY on half closed": [request(1), frame(PRIORITY, 0, 1, bytes(4) + b"\xff")],
    "generic/2/5 PRIORITY on closed": [request(1), reset(1), frame(PRIORITY, 0, 1, bytes(4) + b"\xff"), request(3)],
    "generic/3.1/1 DATA": [headers(1), data(1, b"test", end=True)],
    "generic/3.1/2 multiple DATA": [headers(1), data(1, b"test"), data(1, b"test", end=True)],
    "generic/3.1/3 DATA with padding": [headers(1), frame(DATA, PADDED | END_STREAM, 1, b"\x06test" + bytes(6))],
    "generic/3.2/1 HEADERS": [request(1)],
    "generic/3.2/2 HEADERS with padding": [frame(HEADERS, END | PADDED, 1, b"\x06" + literals(POST) + bytes(6))],
    "generic/3.2/3 HEADERS with priority": [prioritised(1, bytes(4) + b"\xff")],
    "generic/3.3/1 PRIORITY with priority 1": [frame(PRIORITY, 0, 1, bytes(5)), request(1)],
    "generic/3.3/2 PRIORITY with priority 256": [frame(PRIORITY, 0, 1, bytes(4) + b"\xff"), request(1)],
    "generic/3.3/3 PRIORITY with a dependency": [frame(PRIORITY, 0, 3, b"\0\0\0\1\xff"), request(1)],
    "generic/3.3/4 PRIORITY that is exclusive": [frame(PRIORITY, 0, 3, b"\x80\0\0\1\xff"), request(1)],
    "generic/3.3/5 PRIORITY on idle, then lower": [frame(PRIORITY, 0, 5, bytes(5)), request(3)],
    "generic/3.4/1 RST_STREAM": [headers(1), reset(1), request(3)],
    "generic/3.5/1 SETTINGS": [settings((3, 100)), request(1)],
    "generic/3.7/1 PING": [frame(PING, 0, 0, b"h2spec\0\0"), request(1)],
    "generic/3.9/1 WINDOW_UPDATE on 0": [window(0, 1), request(1)],
    "generic/3.9/2 WINDOW_UPDATE on 1": [request(1), window(1, 1)],
    "generic/3.10/1 CONTINUATION": [
        frame(HEADERS, END_STREAM, 1, literals(POST)),
        frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b")),
    ],
    "generic/3.10/2 multiple CONTINUATION": [
        frame(HEADERS, END_STREAM, 1, literals(POST)),
        frame(CONTINUATION, 0, 1, literal(b"a", b"b")),
        frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b")),
    ],
    "generic/4/1 GET": [request(1, GET)],
    "generic/4/2 HEAD": [request(1, [(b":method", b"HEAD"), SCHEME, PATH, AUTHORITY])],
    "generic/4/3 POST": [headers(1), data(1, b"test", end=True)],
    "generic/4/4 POST with trailers": [
        headers(1, [*POST, (b"trailer", b"x-test")]),
        data(1, b"test"),
        request(1, [(b"x-test", b"ok")]),
    ],
    "generic/5/1 indexed field": [frame(HEADERS, END, 1, literals([METHOD, PATH, AUTHORITY]) + b"\x86")],
    "generic/5/2 literal with indexing, indexed name": [indexed(0x40, 6, b"h2spec")],
    "generic/5/3 literal with indexing, huffman": [indexed(0x40, 6, b"", huffman=True)],
    "generic/5/4 literal with indexing, new name": [coded((b"x-test", b"h2spec"), first=0x40)],
    "generic/5/5 literal with indexing, new name, huffman": [coded((b"x-test", b"h2spec"), huffman=True)],
    "generic/5/6 literal without indexing, indexed name": [indexed(0x00, 4, b"h2spec")],
    "generic/5/7 literal without indexing, huffman": [indexed(0x00, 4, b"", huffman=True)],
    "generic/5/8 literal without indexing, new name": [coded((b"x-test", b"h2spec"))],
    "generic/5/10 literal never indexed, indexed name": [indexed(0x10, 4, b"h2spec")],
    "generic/5/11 literal never indexed, huffman": [indexed(0x10, 4, b"", huffman=True)],
    "generic/5/12 literal never indexed, new name": [coded((b"x-test", b"h2spec"), first=0x10)],
    "generic/5/14 a change of the table's size": [frame(HEADERS, END, 1, b"\x3e" + literals(POST))],
    "generic/5/15 two changes of the table's size": [frame(HEADERS, END, 1, b"\x20\x3e" + literals(POST))],
    "http2/4.1/1 a type that is unknown": [frame(22, 0, 0, bytes(8)), request(1)],
    "http2/4.1/3 the reserved bit": [frame(PING, 0, 1 << 31, bytes(8)), request(1)],
    "http2/4.2/1 DATA of 2^14 bytes": [headers(1), data(1, bytes(MAX_FRAME), end=True)],
    "http2/5.3.1/1 HEADERS that depend on themselves (RFC 9113: without effect)": [prioritised(1, b"\0\0\0\1\xff")],
    "http2/5.3.1/2 PRIORITY that depends on itself (RFC 9113: without effect)": [
        frame(PRIORITY, 0, 1, b"\0\0\0\1\xff"),
        request(1),
    ],
    "http2/5.5/1 an extension frame": [frame(UNKNOWN, 0, 0, bytes(8)), request(1)],
    "http2/6.5.2/5 a setting that is unknown": [settings((0xFF, 1)), request(1)],
    "http2/6.9.1/1 a window of 1": [settings((4, 1)), request(1)],
    "http2/6.9.2/1 a window that changes after HEADERS": [settings((4, 0)), request(1), settings((4, 1))],
    "http2/6.9.2/2 a window that becomes negative": [settings((4, 3)), request(1), settings((4, 2)), window(1, 2)],
    "http2/6.10/1 multiple CONTINUATION after HEADERS": [
        frame(HEADERS, END_STREAM, 1, literals(POST)),
        frame(CONTINUATION, 0, 1, literal(b"a", b"b")),
        frame(CONTINUATION, END_HEADERS, 1, literal(b"c", b"d")),
    ],
    "http2/7/2 RST_STREAM with an unknown code": [request(1), reset(1, 0xFF), request(3)],
}

Case = tuple[list[bytes], Demand]

REFUSED: dict[str, Case] = {
    "hpack/2.3.3/1 an index beyond the tables": ([frame(HEADERS, END, 1, literals(POST) + b"\xc6")], connection(H)),
    "hpack/2.3.3/2 a literal's index beyond the tables": (
        [frame(HEADERS, END, 1, literals(POST) + b"\x0f\x37\x05empty")],
        connection(H),
    ),
    "hpack/4.2/1 the table's size at the end": ([frame(HEADERS, END, 1, literals(POST) + b"\x21")], connection(H)),
    "hpack/5.2/1 padding of more than 7 bits": (
        [frame(HEADERS, END, 1, literals(POST) + b"\x00\x01a\x82\x1f\xff")],
        connection(H),
    ),
    "hpack/5.2/2 padding of zeros": ([frame(HEADERS, END, 1, literals(POST) + b"\x00\x01a\x81\x18")], connection(H)),
    "hpack/5.2/3 EOS": ([frame(HEADERS, END, 1, literals(POST) + b"\x00\x01a\x84\xff\xff\xff\xff")], connection(H)),
    "hpack/6.1/1 the index 0": ([frame(HEADERS, END, 1, literals(POST) + b"\x80")], connection(H)),
    "hpack/6.3/1 a table that is too large": (
        [frame(HEADERS, END, 1, b"\x3f\xe2\x1f" + literals(POST))],
        connection(H),
    ),
    "http2/4.2/2 DATA that is too long": ([headers(1), data(1, bytes(MAX_FRAME + 1))], stream(S)),
    "http2/4.2/3 HEADERS that are too long": ([frame(HEADERS, END, 1, bytes(MAX_FRAME + 1))], connection(S)),
    "http2/4.3/1 a broken block": ([frame(HEADERS, END, 1, b"\x00\x01")], connection(H)),
    "http2/4.3/2 PRIORITY within a block": (
        [frame(HEADERS, END_STREAM, 1, literals(POST)), frame(PRIORITY, 0, 1, bytes(5))],
        connection(P),
    ),
    "http2/4.3/3 HEADERS within a block": (
        [frame(HEADERS, END_STREAM, 1, literals(POST)), request(3)],
        connection(P),
    ),
    "http2/5.1/1 idle: DATA": ([data(1, b"test", end=True)], connection(P, C)),
    "http2/5.1/2 idle: RST_STREAM": ([reset(1)], connection(P)),
    "http2/5.1/3 idle: WINDOW_UPDATE": ([window(1, 100)], connection(P)),
    "http2/5.1/4 idle: CONTINUATION": ([frame(CONTINUATION, END, 1, literals(POST))], connection(P)),
    "http2/5.1/5 half closed: DATA": ([request(1), data(1, b"test", end=True)], stream(C)),
    "http2/5.1/6 half closed: HEADERS": ([request(1), request(1)], stream(C)),
    "http2/5.1/7 half closed: CONTINUATION": (
        [request(1), frame(CONTINUATION, END, 1, literals(POST))],
        connection(C, P),
    ),
    "http2/5.1/8 closed: DATA after RST_STREAM": ([headers(1), reset(1), data(1, b"test", end=True)], stream(C)),
    "http2/5.1/9 closed: HEADERS after RST_STREAM": ([headers(1), reset(1), request(1)], stream(C)),
    "http2/5.1/10 closed: CONTINUATION after RST_STREAM": (
        [headers(1), reset(1), frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b"))],
        connection(C, P),
    ),
    "http2/5.1.1/1 an even number": ([request(2)], connection(P)),
    "http2/5.1.1/2 a smaller number": ([request(5), request(3)], connection(P)),
    "http2/5.1.2/1 more streams than allowed": (
        [headers(id) for id in range(1, 203, 2)],
        stream(P, Code.REFUSED_STREAM),
    ),
    "http2/5.4.1/1 a broken PING": ([frame(PING, 0, 0, bytes(6))], connection(S)),
    "http2/5.5/2 an extension frame within a block": (
        [frame(HEADERS, END_STREAM, 1, literals(POST)), frame(UNKNOWN, 0, 0, bytes(8))],
        connection(P),
    ),
    "http2/6.1/1 DATA on 0": ([data(0, b"test", end=True)], connection(P)),
    "http2/6.1/2 DATA on a stream that is not open": ([request(1), data(1, b"test")], stream(C)),
    "http2/6.1/3 DATA with a wrong padding": (
        [headers(1), frame(DATA, PADDED | END_STREAM, 1, b"\x08test\0")],
        connection(P),
    ),
    "http2/6.2/3 HEADERS on 0": ([request(0)], connection(P)),
    "http2/6.2/4 HEADERS with a wrong padding": (
        [frame(HEADERS, END | PADDED, 1, b"\xff" + literals(POST))],
        connection(P),
    ),
    "http2/6.3/1 PRIORITY on 0": ([frame(PRIORITY, 0, 0, bytes(5))], connection(P)),
    "http2/6.3/2 PRIORITY of a wrong length": ([headers(1), frame(PRIORITY, 0, 1, bytes(4))], stream(S)),
    "http2/6.4/1 RST_STREAM on 0": ([reset(0)], connection(P)),
    "http2/6.4/2 RST_STREAM on idle": ([reset(1)], connection(P)),
    "http2/6.4/3 RST_STREAM of a wrong length": ([headers(1), frame(RST_STREAM, 0, 1, bytes(3))], connection(S)),
    "http2/6.5/1 SETTINGS with ACK and a payload": ([frame(SETTINGS, ACK, 0, b"\0")], connection(S)),
    "http2/6.5/2 SETTINGS on 1": ([frame(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64")], connection(P)),
    "http2/6.5/3 SETTINGS of a wrong length": ([frame(SETTINGS, 0, 0, b"\0\x03\0")], connection(S)),
    "http2/6.5.2/1 ENABLE_PUSH of 2": ([settings((2, 2))], connection(P)),
    "http2/6.5.2/2 INITIAL_WINDOW_SIZE of 2^31": ([settings((4, 1 << 31))], connection(F)),
    "http2/6.5.2/3 MAX_FRAME_SIZE below 2^14": ([settings((5, MAX_FRAME - 1))], connection(P)),
    "http2/6.5.2/4 MAX_FRAME_SIZE beyond 2^24 - 1": ([settings((5, 1 << 24))], connection(P)),
    "http2/6.7/3 PING on 1": ([frame(PING, 0, 1, bytes(8))], connection(P)),
    "http2/6.7/4 PING of a wrong length": ([frame(PING, 0, 0, bytes(6))], connection(S)),
    "http2/6.8/1 GOAWAY on 1": ([frame(GOAWAY, 0, 1, bytes(8) + b"h2spec")], connection(P)),
    "http2/6.9/1 WINDOW_UPDATE of 0 on 0": ([window(0, 0)], connection(P)),
    "http2/6.9/2 WINDOW_UPDATE of 0 on 1": ([headers(1), window(1, 0)], stream(P)),
    "http2/6.9/3 WINDOW_UPDATE of a wrong length": ([frame(WINDOW_UPDATE, 0, 0, bytes(3))], connection(S)),
    "http2/6.9.1/2 a window of the connection beyond 2^31 - 1": (
        [window(0, 2**31 - 1), window(0, 2**31 - 1)],
        connection(F),
    ),
    "http2/6.9.1/3 a window of a stream beyond 2^31 - 1": (
        [headers(1), window(1, 2**31 - 1), window(1, 2**31 - 1)],
        stream(F),
    ),
    "http2/6.10/2 CONTINUATION and then another frame": (
        [
            frame(HEADERS, END_STREAM, 1, literals(POST)),
            frame(CONTINUATION, 0, 1, literal(b"a", b"b")),
            data(1, b"test", end=True),
        ],
        connection(P),
    ),
    "http2/6.10/3 CONTINUATION on 0": (
        [frame(HEADERS, END_STREAM, 1, literals(POST)), frame(CONTINUATION, END_HEADERS, 0, literal(b"a", b"b"))],
        connection(P),
    ),
    "http2/6.10/4 CONTINUATION after END_HEADERS": (
        [headers(1), frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b"))],
        connection(P),
    ),
    "http2/6.10/5 CONTINUATION after a CONTINUATION with END_HEADERS": (
        [
            frame(HEADERS, 0, 1, literals(POST)),
            frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b")),
            frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b")),
        ],
        connection(P),
    ),
    "http2/6.10/6 CONTINUATION after DATA": (
        [headers(1), data(1, b"test"), frame(CONTINUATION, END_HEADERS, 1, literal(b"a", b"b"))],
        connection(P),
    ),
    "http2/8.1/1 a second HEADERS without END_STREAM": ([headers(1), headers(1, [(b"a", b"b")])], stream(P)),
    "http2/8.1.2/1 upper case": ([request(1, [*POST, (b"X-TEST", b"ok")])], stream(P)),
    "http2/8.1.2.1/1 an unknown pseudo-header": ([request(1, [*POST, (b":test", b"ok")])], stream(P)),
    "http2/8.1.2.1/2 a pseudo-header of responses": ([request(1, [*POST, (b":status", b"200")])], stream(P)),
    "http2/8.1.2.1/3 a pseudo-header as a trailer": ([headers(1), request(1, [(b":method", b"GET")])], stream(P)),
    "http2/8.1.2.1/4 a pseudo-header behind a field": (
        [request(1, [METHOD, SCHEME, AUTHORITY, (b"x-test", b"ok"), PATH])],
        stream(P),
    ),
    "http2/8.1.2.2/1 a header of the connection": ([request(1, [*POST, (b"connection", b"keep-alive")])], stream(P)),
    "http2/8.1.2.2/2 te": ([request(1, [*POST, (b"trailers", b"test"), (b"te", b"trailers, deflate")])], stream(P)),
    "http2/8.1.2.3/1 an empty :path": ([request(1, [METHOD, SCHEME, (b":path", b""), AUTHORITY])], stream(P)),
    "http2/8.1.2.3/2 no :method": ([request(1, [SCHEME, PATH, AUTHORITY])], stream(P)),
    "http2/8.1.2.3/3 no :scheme": ([request(1, [METHOD, PATH, AUTHORITY])], stream(P)),
    "http2/8.1.2.3/4 no :path": ([request(1, [METHOD, SCHEME, AUTHORITY])], stream(P)),
    "http2/8.1.2.3/5 two :method": ([request(1, [METHOD, *POST])], stream(P)),
    "http2/8.1.2.3/6 two :scheme": ([request(1, [SCHEME, *POST])], stream(P)),
    "http2/8.1.2.3/7 two :path": ([request(1, [PATH, *POST])], stream(P)),
    "http2/8.1.2.6/1 content-length and one DATA": (
        [headers(1, [*POST, (b"content-length", b"1")]), data(1, b"test", end=True)],
        stream(P),
    ),
    "http2/8.1.2.6/2 content-length and several DATA": (
        [headers(1, [*POST, (b"content-length", b"1")]), data(1, b"test"), data(1, b"test", end=True)],
        stream(P),
    ),
    "http2/8.2/1 PUSH_PROMISE": (
        [headers(1), frame(PUSH_PROMISE, END_HEADERS, 1, (3).to_bytes(4) + literals(POST))],
        connection(P),
    ),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_is_legal_is_served(name: str) -> None:
    peer = Peer()
    opened = [event.stream for event in peer.say(*SERVED[name]) if event.kind is Kind.OPENED]
    assert peer.reaction() is None
    assert opened and opened[-1] is not None and peer.http2.is_open(opened[-1])
    peer.out.append(peer.http2.headers(opened[-1], header_block([(b":status", b"200")]), end=True))
    (answer,) = peer.heard()
    assert answer.stream_id == opened[-1].id and "END_STREAM" in answer.flags


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_is_refused(name: str) -> None:
    said, demand = REFUSED[name]
    peer = Peer()
    peer.say(*said)
    reaction = peer.reaction()
    assert reaction is not None, "nothing was refused"
    kind, code = reaction
    assert code in demand.codes and (kind == "goaway" or demand.stream)


@pytest.mark.parametrize(
    ("type", "demand"), [(DATA, stream(C)), (HEADERS, connection(C)), (CONTINUATION, connection(C, P))]
)
def test_http2_5_1_11_to_13_closed(type: int, demand: Demand) -> None:
    peer = Peer()
    opened = peer.open(1, end=True)
    peer.http2.headers(opened, header_block([(b":status", b"200")]), end=True)
    peer.heard()
    peer.say({DATA: data(1, b"test", end=True), HEADERS: request(1), CONTINUATION: frame(CONTINUATION, END, 1)}[type])
    reaction = peer.reaction()
    assert reaction is not None and reaction[1] in demand.codes and (reaction[0] == "goaway" or demand.stream)


def test_http2_3_5_the_preface() -> None:
    peer = Peer(introduced=False)
    peer.say(PREFACE + settings())
    assert acknowledged(peer.heard()) == 1
    peer = Peer(introduced=False)
    peer.say(b"INVALID CONNECTION PREFACE\r\n\r\n")
    assert peer.reaction() == ("goaway", P)


def test_http2_4_1_2_flags_that_are_undefined() -> None:
    peer = Peer()
    peer.say(frame(PING, 0x16, 0, b"h2spec\0\0"))
    (answer,) = peer.heard()
    assert "ACK" in answer.flags


def test_http2_6_5_3_settings_are_acknowledged_and_the_last_value_counts() -> None:
    peer = Peer()
    peer.say(settings((4, 100), (4, 1)))
    assert acknowledged(peer.heard()) == 1
    assert peer.open(1, end=True).window == 1


def test_http2_6_7_pings() -> None:
    peer = Peer()
    peer.say(frame(PING, ACK, 0, b"invalid\0"), frame(PING, 0, 0, b"h2spec\0\0"))
    (answer,) = peer.heard()
    assert "ACK" in answer.flags and answer.opaque_data == b"h2spec\0\0"


def test_http2_7_1_goaway_with_an_unknown_code() -> None:
    peer = Peer()
    peer.say(frame(GOAWAY, 0, 0, bytes(4) + (0xFF).to_bytes(4)), frame(PING, 0, 0, bytes(8)))
    assert peer.http2.ended is None and len(peer.heard()) == 1
