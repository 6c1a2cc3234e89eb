"""WebSocket (RFC 6455) without a socket: the server's handshake, and frames in and out."""

from __future__ import annotations

from base64 import b64decode, b64encode
from enum import IntEnum
from hashlib import sha1
from struct import Struct
from typing import NamedTuple

from raffel_core.errors import RaffelError
from raffel_core.wire.http1 import Request, head

SUBPROTOCOL = "raffel.v1"


class Opcode(IntEnum):
    """What a frame is (RFC 6455, 5.2). A continuation never leaves the reader."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Frame(NamedTuple):
    """A message, its fragments joined, or a control frame. Text is UTF-8, and what a close frame says is legal."""

    opcode: int
    data: bytes


class BrokenFrame(Exception):
    """The peer has broken the protocol: nothing it sends can be read any more. `code` is for the close frame."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_PROTOCOL_ERROR, _NO_TEXT, _TOO_LARGE = 1002, 1007, 1009  # RFC 6455, 7.4.1

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10  # a member of an enum costs a look-up in 3.11
_FINAL = _MASKED = 0x80
_WHOLE_TEXT = _FINAL | _TEXT
_MAX_CONTROL = 125

# No reserved bits, no reserved opcodes, no fragments of control frames.
_FIRST_BYTES = frozenset((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A))

# What a close frame may say: RFC 6455, 7.4, and the codes registered since.
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)))

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_UNMASK_BLOCK = 16 * 1024  # a multiple of the key's 4 bytes
_JOINED = 4 * 1024  # of a frame's beginning that is joined with what comes next, whatever is missing of it
_UNMASKED = 64 * 1024  # what is unmasked at once, of a read that may be four times as much

_pack_short, _pack_medium, _pack_long = Struct("!BB").pack, Struct("!BBH").pack, Struct("!BBQ").pack
_unpack_short = Struct("!H").unpack_from
_from_bytes = int.from_bytes
_new = tuple.__new__  # a NamedTuple's own constructor costs a tenth of a small frame


class FrameReader:
    """Splits what a client sends into frames, one at a time.

    What comes after a frame stays unparsed until `take` is called again. After a close frame or a broken one nothing is
    read any more: what the client still sends is dropped.
    """

    __slots__ = ("_at", "_buffer", "_ended", "_fragments", "_later", "_limit", "_need", "_opcode", "_room")

    def __init__(self, limit: int) -> None:
        self._buffer = b""
        self._at = 0  # what lies before has been taken: cut off once a buffer, not once a frame
        self._later = bytearray()  # what follows the buffer: joined once a frame, not once a piece
        self._need = 2  # bytes of the next frame without which nothing more can be said of it
        self._limit = limit
        self._room = limit  # what the message that has begun may still take
        self._opcode = 0  # of the fragmented message that has begun
        self._fragments = bytearray()
        self._ended = False

    @property
    def buffered(self) -> int:
        """Bytes that have not been taken, with the fragments of an unfinished message."""
        return len(self._buffer) - self._at + len(self._later) + len(self._fragments)

    @property
    def partial(self) -> bool:
        """Whether a frame or a fragmented message has begun and is not complete, once `take` has returned None."""
        return self._opcode != 0 or len(self._buffer) > self._at or len(self._later) > 0

    def feed(self, data: bytes) -> None:
        if self._ended:
            return
        left = len(self._buffer) - self._at
        if self._later or left > _JOINED:
            self._later += data
        else:
            self._buffer = self._buffer[self._at :] + data if left else data
            self._at = 0

    def take_texts(self) -> list[bytes]:
        """The texts that come next and are here whole; what is anything else is left to `take`.

        All of them are unmasked at once, which halves what a small frame costs.
        """
        buffer, at = self._buffer, self._at
        end = min(len(buffer), at + _UNMASKED)
        if self._opcode or end - at < self._need:
            return []
        spans: list[tuple[int, int]] = []
        masks: list[bytes] = []
        stop = at
        while stop + 6 <= end and buffer[stop] == _WHOLE_TEXT:
            size = buffer[stop + 1] - _MASKED
            start = stop + 6
            if size > _MAX_CONTROL:
                if size != 126 or start + 2 > end:
                    break
                (size,) = _unpack_short(buffer, stop + 2)
                start += 2
            if size < 0 or size > self._limit or start + size > end:
                break
            # The header is its own mask: it becomes NUL, which is ASCII as the rest is expected to be.
            masks.append((buffer[stop:start] + buffer[start - 4 : start] * (size + 3 >> 2))[: start - stop + size])
            stop = start + size
            spans.append((start - at, stop - at))
        if not spans:
            return []
        self._need = 2
        self._at = stop
        text = _xor(buffer[at:stop], b"".join(masks))
        texts = [text[start:end] for start, end in spans]
        if not text.isascii():
            sound = next((number for number, one in enumerate(texts) if not _is_text(one)), len(texts))
            if sound < len(texts):
                self._at = at + (spans[sound - 1][1] if sound else 0)
                del texts[sound:]
        return texts

    def take(self) -> Frame | None:
        """The next frame, or None until more bytes have come. Raises BrokenFrame, once."""
        while True:
            buffer, at = self._buffer, self._at
            have = len(buffer) - at
            if have < self._need:
                self._buffer, self._at = buffer[at:], 0
                if have + len(self._later) < self._need:
                    return None
                self._buffer += self._later
                self._later.clear()
                continue
            first, size = buffer[at], buffer[at + 1] - _MASKED
            if first not in _FIRST_BYTES:
                raise self._broken(_PROTOCOL_ERROR, f"a frame begins with 0x{first:02x}")
            if size < 0:
                raise self._broken(_PROTOCOL_ERROR, "a frame is not masked")
            opcode = first & 0x0F
            start = at + 6
            if size > _MAX_CONTROL:
                if opcode >= _CLOSE:
                    raise self._broken(_PROTOCOL_ERROR, f"a control frame of more than {_MAX_CONTROL} bytes")
                width = 2 if size == 126 else 8
                if have < 2 + width:
                    self._need = 2 + width
                    continue
                start += width
                size = _from_bytes(buffer[at + 2 : at + 2 + width])
                if size >> 63:
                    raise self._broken(_PROTOCOL_ERROR, "a length of more than 63 bits")
            if opcode < _CLOSE:
                if opcode and self._opcode:
                    raise self._broken(_PROTOCOL_ERROR, "a message begins inside another")
                if not opcode and not self._opcode:
                    raise self._broken(_PROTOCOL_ERROR, "a fragment continues no message")
                if size > self._room:
                    taken = self._limit - self._room
                    raise self._broken(_TOO_LARGE, f"a message of {taken + size} bytes or more, limit {self._limit}")
            stop = start + size
            if len(buffer) < stop:
                self._need = stop - at
                continue
            self._at = stop
            self._need = 2
            data = _unmask(buffer[start:stop], buffer[start - 4 : start])
            if opcode >= _CLOSE:
                if opcode == _CLOSE:
                    self._check_close(data)
                    self._end()
                return _new(Frame, (opcode, data))
            if opcode == _CONTINUATION or first < _FINAL:
                self._opcode = opcode or self._opcode
                self._room -= size
                self._fragments += data
                if first < _FINAL:
                    continue
                opcode, data = self._opcode, bytes(self._fragments)
                self._opcode = 0
                self._room = self._limit
                self._fragments.clear()
            if opcode == _TEXT and not data.isascii():
                self._check_text(data)
            return _new(Frame, (opcode, data))

    def _check_close(self, payload: bytes) -> None:
        if not payload:
            return
        code = _from_bytes(payload[:2])
        if len(payload) < 2 or code not in _CLOSE_CODES:
            raise self._broken(
                _PROTOCOL_ERROR, f"a close frame says 0x{payload[:2].hex()}, expected a code of RFC 6455, 7.4"
            )
        self._check_text(payload[2:])

    def _check_text(self, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise self._broken(_NO_TEXT, f"text that is no UTF-8: {error.reason} at byte {error.start}") from None

    def _broken(self, code: int, message: str) -> BrokenFrame:
        self._end()
        return BrokenFrame(code, message)

    def _end(self) -> None:
        self._ended = True
        self._buffer, self._at = b"", 0
        self._later.clear()
        self._fragments.clear()
        self._opcode = 0


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _xor(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    if size > _UNMASK_BLOCK:
        blocks = range(0, size, _UNMASK_BLOCK)
        return b"".join([_xor(data[at : at + _UNMASK_BLOCK], mask[at : at + _UNMASK_BLOCK]) for at in blocks])
    return (_from_bytes(data) ^ _from_bytes(mask)).to_bytes(size)


def _unmask(data: bytes, key: bytes) -> bytes:
    """The bytes behind a mask (RFC 6455, 5.3), by way of integers: the one quick XOR that Python has."""
    size = len(data)
    if size > _UNMASK_BLOCK:
        return _unmask_large(data, key)
    return (_from_bytes(data) ^ _from_bytes((key * (size + 3 >> 2))[:size])).to_bytes(size)


def _unmask_large(data: bytes, key: bytes) -> bytes:
    """In blocks: an integer that outgrows the processor's cache costs twice as much a byte."""
    return b"".join([_unmask(data[at : at + _UNMASK_BLOCK], key) for at in range(0, len(data), _UNMASK_BLOCK)])


def accept(request: Request) -> bytes:
    """The answer that makes a connection a WebSocket, up to its empty line.

    Raises RaffelError: with the status 426 (Upgrade Required) where the request asks for no WebSocket of version 13,
    with 400 where it asks for one in a wrong way.
    """
    headers = request.headers
    protocols = _tokens(headers.get("upgrade", "").lower())
    options = _tokens(headers.get("connection", "").lower())
    # HTTP/1.0 knows no upgrade (RFC 9110, 7.8).
    if request.method != "GET" or request.http10 or "websocket" not in protocols or "upgrade" not in options:
        raise RaffelError("INVALID_ARGUMENT", "expected a GET that asks for an upgrade to websocket", status=426)
    version = headers.get("sec-websocket-version", "")
    if version != "13":
        raise RaffelError("INVALID_ARGUMENT", f"found WebSocket version {version[:20]!r}, expected 13", status=426)
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise RaffelError("INVALID_ARGUMENT", "found a body in a WebSocket handshake")
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        raise RaffelError("INVALID_ARGUMENT", "expected a Sec-WebSocket-Key of 16 bytes in base64")
    proof = b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    lines = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", proof)]
    if SUBPROTOCOL in _tokens(headers.get("sec-websocket-protocol", "")):
        lines.append(("Sec-WebSocket-Protocol", SUBPROTOCOL))
    return head(101, lines)


def _tokens(value: str) -> list[str]:
    return [token.strip(" \t") for token in value.split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def text_head(size: int) -> bytes:
    """What comes before the `size` bytes of a text message."""
    return _head(_FINAL | _TEXT, size)


def binary_head(size: int) -> bytes:
    """What comes before the `size` bytes of a binary message."""
    return _head(_FINAL | _BINARY, size)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; of a long reason, as much as there is room for."""
    text = reason.encode("utf-8", "replace")[: _MAX_CONTROL - 2].decode("utf-8", "ignore")
    return _control(_CLOSE, code.to_bytes(2) + text.encode())


def ping_frame(data: bytes = b"") -> bytes:
    return _control(_PING, data)


def pong_frame(data: bytes) -> bytes:
    return _control(_PONG, data)


def _control(opcode: int, data: bytes) -> bytes:
    if len(data) > _MAX_CONTROL:
        raise ValueError(f"{len(data)} bytes for a control frame, which takes {_MAX_CONTROL}")
    return _head(_FINAL | opcode, len(data)) + data


def _head(first: int, size: int) -> bytes:
    if size < 126:
        return _pack_short(first, size)
    if size < 1 << 16:
        return _pack_medium(first, 126, size)
    return _pack_long(first, 127, size)
