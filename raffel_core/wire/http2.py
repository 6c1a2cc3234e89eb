"""HTTP/2 (RFC 9113): a server's side of one connection, its frames, its windows, and its streams as a table.

`receive` takes bytes and returns what they mean as events; whatever has to be written because of them is appended to
`out`. A peer's mistake that concerns one stream is answered by a reset of it, one that concerns the connection by
GOAWAY: `ended` then says why, and nothing more is read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from enum import Enum

from msgspec import Struct

from raffel_core.wire.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_FRAME,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    Setting,
    frame_head,
    header_frames,
)
from raffel_core.wire.http2_heads import HEADER_BYTES, HeadReader, ReadHead
from raffel_core.wire.http2_streams import (
    CLOSED,
    HALF_CLOSED_REMOTE,
    IDLE,
    OPEN,
    RESET,
    STREAM_WINDOW,
    Act,
    ConnectionFault,
    Head,
    Stream,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CONNECTION_WINDOW = 2 * 1024 * 1024
"""Bytes that a peer may send on a connection before they have been read."""

MAX_WINDOW = 2**31 - 1

BUDGET = 400.0
"""How many cheap frames a peer may send at once that do nothing for a call; more where it may open many streams."""

REFILL = 200.0
"""How many of them it earns in a second by waiting; calls that complete and messages that it takes earn more."""

_RESETS = 256
"""How many streams that we have reset are remembered at least: frames for them have crossed the reset on the wire."""
_PASSED = 16
"""How many gaps between the ids of a peer's streams are remembered."""
_CONTINUATIONS = 8
_SMALL = 256
_PREFIX = 5


class Kind(Enum):
    """What an event reports."""

    OPENED = "a request has its head; `end` where it has no body"
    BODY = "bytes of a request's body; `end` with the last"
    RESET = "the peer has reset the stream"
    WINDOW = "more may be sent, on a stream or (None) on the connection"
    PONG = "the peer has answered a ping"


class Event(Struct, frozen=True):
    """What has come. (Of the ways to write a record down, a Struct is made three times as fast as the next.)"""

    kind: Kind
    stream: Stream | None
    data: bytes = b""
    end: bool = False


class Http2:
    """One connection. `read_head` makes of a request's headers what its owner wants to know of them, once a block."""

    __slots__ = (
        "_block",
        "_budget",
        "_buffer",
        "_head_reader",
        "_late",
        "_max_streams",
        "_most",
        "_now",
        "_outstanding",
        "_passed",
        "_receivable",
        "_reset",
        "_started",
        "_unread",
        "advanced",
        "ended",
        "highest",
        "initial_window",
        "leaving",
        "out",
        "streams",
        "window",
    )

    def __init__(self, max_streams: int, read_head: ReadHead, out: list[bytes]) -> None:
        self.out = out
        self.streams: dict[int, Stream] = {}
        """Those that are open, by their ids."""
        self.highest = 0
        """The highest id that the peer has used."""
        self.window = 65_535
        """How many bytes may be sent on the connection."""
        self.initial_window = 65_535
        self.advanced = False
        """Whether the bytes received last have completed a frame."""
        self.leaving = False
        """Whether streams that the peer opens from now on are refused."""
        self.ended: str | None = None
        """Why the connection is over; None while it is not."""
        self._max_streams = max_streams
        self._head_reader = HeadReader(read_head)
        self._late = 0
        """How many bytes streams have sent that have ended, and whose peer has not given them back."""
        self._passed: deque[range] = deque(maxlen=_PASSED)
        self._reset: OrderedDict[int, None] = OrderedDict()
        self._block: tuple[int, int, list[bytes]] | None = None
        """The stream, the flags and the pieces of a header block that has begun."""
        self._buffer = bytearray()
        self._started = 0
        """0 before the preface, 1 before the peer's settings, 2 after them."""
        self._outstanding = 0
        """How many bytes have been sent that the peer has not given back."""
        self._receivable = CONNECTION_WINDOW
        self._unread = 0
        self._budget = self._most = max(BUDGET, 2.0 * max_streams)
        self._now = 0.0
        settings = (
            (Setting.MAX_CONCURRENT_STREAMS, max_streams),
            (Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (Setting.MAX_HEADER_LIST_SIZE, HEADER_BYTES),
        )
        self._frame(SETTINGS, 0, 0, b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in settings))
        self._frame(WINDOW_UPDATE, 0, 0, (CONNECTION_WINDOW - 65_535).to_bytes(4))

    @property
    def exhausted(self) -> bool:
        """Whether the peer may send next to nothing on the connection until something has been read."""
        return self._receivable < MAX_FRAME

    @property
    def partial(self) -> bool:
        """Whether a frame or a header block has begun that is not complete, or the peer has not introduced itself."""
        return self._started < 2 or bool(self._buffer) or self._block is not None

    # What we send

    def _frame(self, type: int, flags: int, stream: int, payload: bytes) -> None:
        self.out.append(frame_head(len(payload), type, flags, stream) + payload)

    def headers(self, stream: Stream, block: bytes, *, end: bool = False) -> bytes:
        """The frames of a header block; with `end` the last of the stream, which is over then."""
        data = header_frames(stream.id, block, end=end)
        return data + self.end(stream) if end else data

    def respond(self, stream: Stream, block: bytes, body: bytes) -> None:
        """Writes a whole answer, or resets a stream that has no window for it."""
        size = len(body)
        if size > min(stream.window, self.window):
            self.reset(stream, Code.ENHANCE_YOUR_CALM)
            return
        self.use(stream, size)
        self.out.append(header_frames(stream.id, block, end=False))
        for at in range(0, size or 1, MAX_FRAME):
            self._frame(DATA, END_STREAM if at + MAX_FRAME >= size else 0, stream.id, body[at : at + MAX_FRAME])
        self.out.append(self.end(stream))

    def use(self, stream: Stream, size: int) -> None:
        """Takes so many bytes of the windows, for DATA."""
        stream.window -= size
        stream.outstanding += size
        self.window -= size
        self._outstanding += size

    def is_open(self, stream: Stream) -> bool:
        """Whether the stream is neither reset nor ended."""
        return self.streams.get(stream.id) is stream

    def end(self, stream: Stream) -> bytes:
        """Notes that the last frame of a stream has been made. A peer that has not ended is told to send no more."""
        if self.streams.pop(stream.id, None) is None:
            return b""
        self._late += stream.outstanding
        if stream.state is HALF_CLOSED_REMOTE:
            stream.state = CLOSED
            return b""
        self._remember(stream)
        return frame_head(4, RST_STREAM, 0, stream.id) + Code.NO_ERROR.to_bytes(4)

    def reset(self, stream: Stream, code: Code) -> None:
        """Ends a stream at once."""
        if self.streams.pop(stream.id, None) is not None:
            self._remember(stream)
            self._frame(RST_STREAM, 0, stream.id, code.to_bytes(4))

    def _remember(self, stream: Stream) -> None:
        stream.state = RESET
        self._note_reset(stream.id)

    def _note_reset(self, id: int) -> None:
        self._reset[id] = None
        if len(self._reset) > max(_RESETS, 2 * self._max_streams):
            self._reset.popitem(last=False)

    def consumed(self, stream: Stream, size: int) -> None:
        """Gives so many bytes of the windows back: they have been read, or will never be."""
        self._taken(size)
        stream.unread += size
        if stream.unread * 2 >= STREAM_WINDOW and stream.state is OPEN:
            self._frame(WINDOW_UPDATE, 0, stream.id, stream.unread.to_bytes(4))
            stream.receivable += stream.unread
            stream.unread = 0

    def _taken(self, size: int) -> None:
        """Gives bytes of the connection's window back."""
        self._unread += size
        if self._unread * 2 >= CONNECTION_WINDOW:
            self._frame(WINDOW_UPDATE, 0, 0, self._unread.to_bytes(4))
            self._receivable += self._unread
            self._unread = 0

    def ping(self, payload: bytes) -> None:
        """Asks the peer for a PONG."""
        self._frame(PING, 0, 0, payload)

    def goaway(self, code: Code = Code.NO_ERROR, message: str = "", *, warning: bool = False) -> None:
        """Tells the peer to open no further stream (6.8); a `warning` still takes those that are on their way."""
        last = MAX_WINDOW if warning else self.highest
        self.leaving = self.leaving or not warning
        self._frame(GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4) + message.encode())

    # What a peer may do that costs us more than it

    def earn(self, amount: float) -> None:
        """Lets the peer send as many more cheap frames, for work that it has had done."""
        if self._budget < self._most:
            self._budget += amount

    def charge(self, cost: float) -> None:
        """Counts what else a call has cost for nothing; the next frame that costs anything ends the connection."""
        self._budget -= cost

    def _spend(self, cost: float) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many frames that do nothing for a call")

    # What we receive

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What these bytes mean. `now` is a time in seconds, of any clock that only goes forward."""
        events: list[Event] = []
        self.advanced = False
        if self.ended is not None:
            return events
        if self._budget < self._most:
            self._budget = min(self._most, self._budget + (now - self._now) * REFILL)
        self._now = now
        if self._buffer:
            self._buffer += data
            if not self._complete():
                return events
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            read = self._read(data, events)
        except ConnectionFault as error:
            self.goaway(error.code, error.message)
            self.ended = f"{error.code.name}: {error.message}"
            return events
        self.advanced = read > 0
        if read < len(data):
            self._buffer += data[read:]
        return events

    def _complete(self) -> bool:
        """Whether what is kept holds a whole frame, so that one that comes byte by byte is looked at once."""
        length = int.from_bytes(self._buffer[:3]) if len(self._buffer) >= 3 else 0
        if not self._started or length > MAX_FRAME:
            return True
        return len(self._buffer) >= 9 + length

    def _read(self, data: bytes, events: list[Event]) -> int:
        """Reads all whole frames; returns where the rest begins."""
        at, size = 0, len(data)
        if not self._started:
            if not data.startswith(PREFACE):
                if not PREFACE.startswith(data):
                    raise ConnectionFault(Code.PROTOCOL_ERROR, "found no HTTP/2 preface")
                return 0
            self._started, at = 1, len(PREFACE)
        streams = self.streams
        while size - at >= 9:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if length > MAX_FRAME:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"found a frame of {length} bytes, expected {MAX_FRAME}")
            start = at + 9
            end = start + length
            if end > size:
                break
            type, flags = data[at + 3], data[at + 4]
            id = int.from_bytes(data[at + 5 : start]) & MAX_WINDOW
            at = end
            if type == DATA and self._block is None and id in streams and self._started == 2:
                self._on_data(streams[id], flags, data[start:end], events)
            else:
                self._on_frame(type, flags, id, data[start:end], events)
        return at

    def _on_frame(self, type: int, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if self._started < 2:
            if type != SETTINGS or flags & ACK:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "expected SETTINGS first")
            self._started = 2
        if self._block is not None and (type != CONTINUATION or id != self._block[0]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "expected CONTINUATION")
        on_frame = _FRAMES.get(type)
        if on_frame is None:
            self._spend(0.5)  # unknown types are ignored (4.1)
        else:
            on_frame(self, flags, id, payload, events)

    def _act(self, type: int, id: int) -> tuple[Act, Stream | None]:
        """What a frame of this type asks for on this stream."""
        if not id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "found stream 0, expected a stream")
        stream = self.streams.get(id)
        if stream is not None:
            return stream.state[type], stream
        if id > self.highest or not id & 1:
            return IDLE[type], None
        if id in self._reset:
            return RESET[type], None
        if type == HEADERS and any(id in passed for passed in self._passed):
            return Act.UNOPENED, None  # it never was open, and cannot be any more (5.1.1)
        return CLOSED[type], None

    def _refuse(self, act: Act, id: int, stream: Stream | None, events: list[Event]) -> None:
        """Does what a frame asks for that its stream has no use for."""
        match act:
            case Act.UNOPENED:
                raise ConnectionFault(Code.PROTOCOL_ERROR, f"stream {id} is not open")
            case Act.REUSED:
                raise ConnectionFault(Code.STREAM_CLOSED, f"stream {id} is closed")
            case Act.CLOSED:
                self._fault(id, stream, Code.STREAM_CLOSED, events)
            case Act.DROP | Act.STALE:
                self._spend(0.1)

    def _fault(self, id: int, stream: Stream | None, code: Code, events: list[Event]) -> None:
        """Resets a stream because of what its peer has done (5.4.2). It costs: a peer could have work done so."""
        self._spend(4)
        self._frame(RST_STREAM, 0, id, code.to_bytes(4))
        self.streams.pop(id, None)
        self._note_reset(id)
        if stream is not None:
            stream.state = RESET
            events.append(Event(Kind.RESET, stream))

    def _on_data(self, stream: Stream, flags: int, payload: bytes, events: list[Event]) -> None:
        """DATA (6.1) of a stream that is open, as nearly all is."""
        size = len(payload)
        self._receivable -= size
        if self._receivable < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "found more DATA than the connection's window")
        if stream.state is not OPEN:
            self._taken(size)
            self._refuse(stream.state[DATA], stream.id, stream, events)
            return
        stream.receivable -= size
        if stream.receivable < 0:
            self._taken(size)
            self._fault(stream.id, stream, Code.FLOW_CONTROL_ERROR, events)
            return
        if flags & PADDED:
            payload = _unpadded(payload)
            self.consumed(stream, size - len(payload))
        end = bool(flags & END_STREAM)
        if not payload and not end:
            self._spend(1)
        if stream.expected is not None:
            stream.expected -= len(payload)
            if stream.expected < 0 or (end and stream.expected):
                self._taken(len(payload))
                self._fault(stream.id, stream, Code.PROTOCOL_ERROR, events)
                return
        if end:
            stream.state = HALF_CLOSED_REMOTE
        events.append(Event(Kind.BODY, stream, payload, end))

    def _on_late_data(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        act, stream = self._act(DATA, id)
        self._receivable -= len(payload)
        if self._receivable < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "found more DATA than the connection's window")
        self._taken(len(payload))
        self._refuse(act, id, stream, events)

    def _on_headers(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if not id & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"found a request on stream {id}, expected an odd number")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITISED:
            if len(payload) < 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found HEADERS without their priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(id, flags, payload, events)
        else:
            self._block = (id, flags, [payload])

    def _on_continuation(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "found CONTINUATION without HEADERS")
        _, first, pieces = self._block
        pieces.append(payload)
        if len(pieces) > _CONTINUATIONS or sum(map(len, pieces)) > HEADER_BYTES:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"found a header block of more than {HEADER_BYTES} bytes")
        if flags & END_HEADERS:
            self._block = None
            self._on_block(id, first, b"".join(pieces), events)

    def _on_block(self, id: int, flags: int, block: bytes, events: list[Event]) -> None:
        """A whole header block: of a request, or of its trailers."""
        act, stream = self._act(HEADERS, id)
        end = bool(flags & END_STREAM)
        if act is Act.OPEN:
            if id > self.highest + 2:
                self._passed.append(range(self.highest + 2 if self.highest else 1, id, 2))
            self.highest = id
            head = self._head_reader.head(block)
            self._spend(self._head_reader.cost)
            self._open(id, head, end, events)
            return
        fields = self._head_reader.trailers(block)  # also of one that is dropped: both sides keep the same table
        self._spend(self._head_reader.cost)
        if act is not Act.TRAILERS:
            self._refuse(act, id, stream, events)
            return
        assert stream is not None
        if not end or fields is None or stream.expected:
            self._fault(id, stream, Code.PROTOCOL_ERROR, events)
            return
        stream.state = HALF_CLOSED_REMOTE
        events.append(Event(Kind.BODY, stream, b"", True))

    def _open(self, id: int, head: Head | None, end: bool, events: list[Event]) -> None:
        if head is None:
            self._fault(id, None, Code.PROTOCOL_ERROR, events)
        elif len(self.streams) >= self._max_streams:
            self._fault(id, None, Code.REFUSED_STREAM, events)
        elif self.leaving:
            self._spend(0.5)
            self._frame(RST_STREAM, 0, id, Code.REFUSED_STREAM.to_bytes(4))
            self._note_reset(id)
        else:
            if end and head.length:
                self._fault(id, None, Code.PROTOCOL_ERROR, events)
                return
            self._spend(0.5)
            state = HALF_CLOSED_REMOTE if end else OPEN
            stream = self.streams[id] = Stream(id, head, state, self.initial_window, head.length)
            events.append(Event(Kind.OPENED, stream, b"", end))

    def _on_priority(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        """PRIORITY is deprecated (5.3.2), and only its form is looked at."""
        if not id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "found PRIORITY on stream 0")
        self._spend(0.5)
        if len(payload) != 5:
            if id > self.highest or not id & 1:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found PRIORITY that has not 5 bytes")
            self._fault(id, self.streams.get(id), Code.FRAME_SIZE_ERROR, events)

    def _on_reset(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found RST_STREAM that has not 4 bytes")
        act, stream = self._act(RST_STREAM, id)
        if act is not Act.RESET or stream is None:
            self._refuse(act, id, stream, events)
            return
        self._spend(1)
        del self.streams[id]
        self._late += stream.outstanding
        stream.state = CLOSED
        events.append(Event(Kind.RESET, stream))

    def _on_settings(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"found SETTINGS on stream {id}")
        if flags & ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found an acknowledgement of SETTINGS that is not empty")
            self._spend(0.5)
            return
        if len(payload) % 6:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found SETTINGS of a broken length")
        self._spend(2 + len(payload) / 60)
        for at in range(0, len(payload), 6):
            self._set(int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6]), events)
        self._frame(SETTINGS, ACK, 0, b"")

    def _set(self, key: int, value: int, events: list[Event]) -> None:
        match key:
            case Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"found an initial window of {value}")
                change, self.initial_window = value - self.initial_window, value
                for stream in self.streams.values():
                    stream.window += change  # it may become negative (6.9.2)
                    if stream.window > MAX_WINDOW:
                        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "found a window beyond its maximum")
                if change > 0:
                    events.append(Event(Kind.WINDOW, None))
            case Setting.MAX_FRAME_SIZE:
                if not MAX_FRAME <= value < 1 << 24:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, f"found a maximum frame size of {value}")
            case Setting.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, f"found {value} for ENABLE_PUSH")

    def _on_push_promise(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "found PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"found PING on stream {id}")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found PING that has not 8 bytes")
        self._spend(1)
        if flags & ACK:
            events.append(Event(Kind.PONG, None, payload))
        else:
            self._frame(PING, ACK, 0, payload)

    def _on_goaway(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"found GOAWAY on stream {id}")
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found GOAWAY of less than 8 bytes")
        self._spend(1)

    def _on_window(self, flags: int, id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "found WINDOW_UPDATE that has not 4 bytes")
        more = int.from_bytes(payload) & MAX_WINDOW
        if not id:
            if not more:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "found WINDOW_UPDATE of 0")
            if self.window + more > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "found a window beyond its maximum")
            self._spend_on_window(more, self._outstanding)
            self._outstanding -= min(more, self._outstanding)
            self.window += more
            events.append(Event(Kind.WINDOW, None))
            return
        act, stream = self._act(WINDOW_UPDATE, id)
        if stream is None and act is not Act.UNOPENED and _PREFIX <= more <= self._late:
            self._late -= more  # of what a stream has sent that has ended since
            return
        if act is not Act.WINDOW or stream is None:
            self._refuse(act, id, stream, events)
        elif not more or stream.window + more > MAX_WINDOW:
            self._fault(id, stream, Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR, events)
        else:
            self._spend_on_window(more, stream.outstanding)
            stream.outstanding -= min(more, stream.outstanding)
            stream.window += more
            events.append(Event(Kind.WINDOW, stream))

    def _spend_on_window(self, more: int, outstanding: int) -> None:
        """A small update costs nothing where it gives back what was sent, as clients do that read one by one.

        No message has less than 5 bytes.
        """
        if more < _SMALL and not _PREFIX <= more <= outstanding:
            self._spend(0.5)


_FRAMES: Mapping[int, Callable[[Http2, int, int, bytes, list[Event]], None]] = {
    DATA: Http2._on_late_data,
    HEADERS: Http2._on_headers,
    PRIORITY: Http2._on_priority,
    RST_STREAM: Http2._on_reset,
    SETTINGS: Http2._on_settings,
    PUSH_PROMISE: Http2._on_push_promise,
    PING: Http2._on_ping,
    GOAWAY: Http2._on_goaway,
    WINDOW_UPDATE: Http2._on_window,
    CONTINUATION: Http2._on_continuation,
}


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "found padding of more than the frame")
    return payload[1 : len(payload) - payload[0]]
