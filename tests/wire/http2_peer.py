"""A client of HTTP/2 that says whatever a test wants, and reads what the server says as `hyperframe` reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack import Encoder
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame, SettingsFrame

from raffel_core.wire.http2 import PREFACE, Event, Http2, Kind
from raffel_core.wire.http2_frames import Code
from raffel_core.wire.http2_streams import Stream

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
UNKNOWN = 0xF0
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

Fields = list[tuple[bytes, bytes]]
Reaction = tuple[str, Code]

POST: Fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/Echo/Call"), (b":authority", b"here")]


def frame(type: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Any frame; the highest bit of `stream` is the reserved one."""
    return len(payload).to_bytes(3) + bytes((type, flags)) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes, *, first: int = 0x00) -> bytes:
    """A field of a header block that is written out, 126 bytes of each at most."""
    assert len(name) < 127 and len(value) < 127
    return bytes((first, len(name))) + name + bytes((len(value),)) + value


def literals(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def headers(stream: int, fields: Fields = POST, *, end: bool = False, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags | end, stream, literals(fields))


def data(stream: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    return frame(DATA, int(end), stream, payload)


def reset(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4))


def window(stream: int, more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs))


def read_frames(written: bytes) -> list[Frame]:
    """What a server has written; fails where it is not whole frames that a client must take."""
    found, view = [], memoryview(written)
    while view:
        head, length = Frame.parse_frame_header(view[:9], strict=True)
        assert length <= 16_384 and len(view) >= 9 + length
        head.parse_body(view[9 : 9 + length])
        found.append(head)
        view = view[9 + length :]
    return found


class Peer:
    """A connection in memory: `say` sends bytes to the server, `heard` is what it has written since."""

    def __init__(self, max_streams: int = 100, *, introduced: bool = True) -> None:
        self.out: list[bytes] = []
        self.http2 = Http2(max_streams, lambda method, path, fields: (method, path, fields), self.out)
        self.encoder = Encoder()
        self.now = 0.0
        if introduced:
            assert self.say(PREFACE + settings()) == []
            self.heard()

    def say(self, *pieces: bytes) -> list[Event]:
        return [event for piece in pieces for event in self.http2.receive(piece, self.now)]

    def heard(self) -> list[Frame]:
        written = b"".join(self.out)
        self.out.clear()
        return read_frames(written)

    def reactions(self) -> list[Reaction]:
        """How the server has refused what it was told: ("goaway", code) or ("reset", code), in order."""
        found: list[Reaction] = []
        for item in self.heard():
            if isinstance(item, GoAwayFrame):
                found.append(("goaway", Code(item.error_code)))
            elif isinstance(item, RstStreamFrame):
                found.append(("reset", Code(item.error_code)))
        assert (self.http2.ended is not None) == any(kind == "goaway" for kind, _ in found)
        return found

    def reaction(self) -> Reaction | None:
        """The one refusal there is, None where there is none."""
        found = self.reactions()
        assert len(found) <= 1
        return found[0] if found else None

    def open(self, stream: int, *, end: bool = False, fields: Fields = POST) -> Stream:
        """Opens a stream and returns what the server knows of it."""
        (event,) = self.say(headers(stream, fields, end=end))
        assert event.kind is Kind.OPENED and event.stream is not None and event.end is end
        return event.stream

    def lives(self, stream: int) -> bool:
        """Whether the server still takes requests and answers pings."""
        self.heard()
        opened = self.say(headers(stream, end=True))
        self.say(frame(PING, 0, 0, b"still on"))
        return [event.kind for event in opened] == [Kind.OPENED] and any(
            item.type == PING and item.opaque_data == b"still on" for item in self.heard()
        )


def acknowledged(heard: Iterable[Frame]) -> int:
    """How many of our settings the server has acknowledged."""
    return sum(isinstance(item, SettingsFrame) and "ACK" in item.flags for item in heard)


def summary(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """Events as what can be compared: (kind, stream's id, bytes, end)."""
    return [(event.kind, event.stream and event.stream.id, event.data, event.end) for event in events]


def resize(encoder: Encoder, size: int) -> None:
    """Changes the size of a client's table. Told the same one twice, the encoder would say nothing of it."""
    if encoder.header_table_size != size:
        encoder.header_table_size = size
