"""Length-prefixed framing: 4 bytes, big-endian, then the message."""

from __future__ import annotations

from struct import Struct

from raffel_core.errors import RaffelError

HEADER = 4
_LENGTH = Struct(">I")
_TAKEN = 64 * 1024

MAX_MESSAGE = 0xFF_FFFF
"""What the first byte of a connection, which is 0 for this framing, leaves to a message."""


class LengthPrefixReader:
    """Splits a byte stream into messages, one at a time. Too large a length fails before its message is awaited."""

    __slots__ = ("_buffer", "_data", "_limit", "_need", "_start")

    def __init__(self, limit: int) -> None:
        self._limit = min(limit, MAX_MESSAGE)
        self._data = b""
        self._start = 0
        self._buffer: bytearray | None = None
        """Where a message is put together that came in pieces."""
        self._need = 0

    @property
    def partial(self) -> bool:
        """Whether a message has begun that is not complete; to be asked when `take` has returned None."""
        return self._buffer is not None or self._start < len(self._data)

    @property
    def buffered(self) -> int:
        """Bytes that have not been taken."""
        return len(self._data) - self._start + (0 if self._buffer is None else len(self._buffer))

    def feed(self, data: bytes) -> None:
        if self._buffer is not None:
            self._buffer += data
        elif self._start < len(self._data):
            self._data = self._data[self._start :] + data
            self._start = 0
        else:
            self._data = data
            self._start = 0

    def take_all(self) -> list[bytes]:
        """The next complete messages, some 64 KiB of them; raises like `take` where there is none."""
        messages: list[bytes] = []
        message = self.take()
        if message is None:
            return messages
        messages.append(message)
        data, start, limit, unpack = self._data, self._start, self._limit, _LENGTH.unpack_from
        last, enough = len(data) - HEADER, start + _TAKEN
        while start <= last and start < enough:
            (size,) = unpack(data, start)
            stop = start + HEADER + size
            if size > limit or stop > last + HEADER:
                break
            messages.append(data[start + HEADER : stop])
            start = stop
        self._advance(start)
        return messages

    def take(self) -> bytes | None:
        """The next message, or None until more bytes have come. MESSAGE_TOO_LARGE: the connection cannot go on."""
        if self._buffer is not None:
            if len(self._buffer) < self._need:
                return None
            self._data, self._start, self._buffer = bytes(self._buffer), 0, None
        data, start = self._data, self._start
        left = len(data) - start
        if left < HEADER:
            self._data, self._start = data[start:], 0  # nothing is kept of what has been taken
            return None
        size = int.from_bytes(data[start : start + HEADER], "big")
        if size > self._limit:
            raise RaffelError("MESSAGE_TOO_LARGE", f"found a message of {size} bytes, expected at most {self._limit}")
        stop = start + HEADER + size
        if left < HEADER + size:
            self._buffer, self._need = bytearray(memoryview(data)[start:]), HEADER + size
            self._data, self._start = b"", 0
            return None
        self._advance(stop)
        return data[start + HEADER : stop]

    def _advance(self, start: int) -> None:
        """Notes what has been taken, and keeps nothing of a buffer that has been taken whole."""
        if start == len(self._data):
            self._data, start = b"", 0
        self._start = start


def head(size: int) -> bytes:
    """What comes before a message of this size. MESSAGE_TOO_LARGE: no length of it begins with 0."""
    if size > MAX_MESSAGE:
        raise RaffelError(
            "MESSAGE_TOO_LARGE", f"a message of {size} bytes, and none over TCP has more than {MAX_MESSAGE}"
        )
    return size.to_bytes(HEADER, "big")
