"""Streams of HTTP/2: which frame means what in which state (RFC 9113, section 5.1), as one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from msgspec import Struct

from raffel_core.wire.http2_frames import DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, Code

STREAM_WINDOW = 256 * 1024
"""Bytes that a peer may send on a stream before they have been read."""


class Act(Enum):
    """What a frame asks for."""

    OPEN = "open a stream"
    TRAILERS = "end the request with trailers"
    BODY = "give the bytes to the stream"
    RESET = "end the stream"
    WINDOW = "let more be sent on the stream"
    DROP = "nothing"
    STALE = "nothing, of a stream that has ended"
    CLOSED = "reset the stream: STREAM_CLOSED"
    REUSED = "end the connection: STREAM_CLOSED"
    UNOPENED = "end the connection: PROTOCOL_ERROR"


State = Mapping[int, Act]
"""A row of the table: what each type of frame asks for that has a stream (section 5.1)."""

IDLE: State = {
    HEADERS: Act.OPEN,
    DATA: Act.UNOPENED,
    RST_STREAM: Act.UNOPENED,
    WINDOW_UPDATE: Act.UNOPENED,
}
OPEN: State = {
    HEADERS: Act.TRAILERS,
    DATA: Act.BODY,
    RST_STREAM: Act.RESET,
    WINDOW_UPDATE: Act.WINDOW,
}
HALF_CLOSED_REMOTE: State = {**OPEN, HEADERS: Act.CLOSED, DATA: Act.CLOSED}
RESET: State = dict.fromkeys(OPEN, Act.DROP)
"""We have reset it, and the peer may not know yet. (What ends before its peer does is reset too: NO_ERROR, 8.1.)"""
CLOSED: State = {
    HEADERS: Act.REUSED,
    DATA: Act.CLOSED,
    RST_STREAM: Act.STALE,
    WINDOW_UPDATE: Act.STALE,
}

HeaderList = list[tuple[bytes, bytes]]


class Head(NamedTuple):
    """The head of a request."""

    method: bytes
    path: bytes
    length: int | None
    """How long the body is, where content-length says that."""
    read: Any
    """What `read_head` made of it. Heads that repeat themselves are read once."""


class Stream(Struct, eq=False):
    """A stream that is open: from its peer's HEADERS until both sides have ended, or one has reset it."""

    id: int
    head: Head
    state: State
    window: int
    """How many bytes may be sent on it."""
    expected: int | None
    """How many bytes of its body are to come, where content-length says that."""
    outstanding: int = 0
    """How many bytes have been sent that its peer has not given back."""
    receivable: int = STREAM_WINDOW
    """How many bytes its peer may still send."""
    unread: int = 0
    """How many bytes have been read and not been given back."""
    call: Any = None
    """What its owner keeps of it."""


class ConnectionFault(Exception):
    """A mistake of the peer after which nothing that it sends can be followed (5.4.1)."""

    def __init__(self, code: Code, message: str) -> None:
        self.code = code
        self.message = message
