"""Frames of HTTP/2 (RFC 9113, sections 4 to 7) and header blocks (RFC 7541) as bytes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct

MAX_FRAME = 16_384
"""Bytes of a frame's payload, those that we take and those that we send (section 4.2)."""


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20


_pack_head = Struct(">HBBBI").pack


def frame_head(length: int, type: int, flags: int, stream: int) -> bytes:
    """The 9 bytes before a payload (4.1)."""
    return _pack_head(length >> 8, length & 255, type, flags, stream)


def header_frames(stream: int, block: bytes, *, end: bool) -> bytes:
    """HEADERS, and CONTINUATION where one frame does not hold the block."""
    if len(block) <= MAX_FRAME:
        return frame_head(len(block), HEADERS, END_HEADERS | end * END_STREAM, stream) + block
    first, rest = block[:MAX_FRAME], block[MAX_FRAME:]
    flags = (END_STREAM if end else 0) | (0 if rest else END_HEADERS)
    pieces = [frame_head(len(first), HEADERS, flags, stream), first]
    while rest:
        piece, rest = rest[:MAX_FRAME], rest[MAX_FRAME:]
        pieces += (frame_head(len(piece), CONTINUATION, 0 if rest else END_HEADERS, stream), piece)
    return b"".join(pieces)


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as literals that no table remembers (RFC 7541, 6.2.2), so that a block means the same at any time."""
    return b"".join(b"\x00" + _integer(len(name)) + name + _integer(len(value)) + value for name, value in headers)


def _integer(value: int) -> bytes:
    """A length of 7 bits and more (RFC 7541, 5.1)."""
    if value < 127:
        return bytes((value,))
    out, value = bytearray((127,)), value - 127
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
