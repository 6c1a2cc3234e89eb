"""The outbox: everything waiting to be written on one connection."""

from __future__ import annotations

from collections.abc import Callable

Frame = Callable[[list[bytes]], bytes]
"""Joins what was pushed since the last flush into the bytes of one write."""

FLUSH_BYTES = 64 * 1024
"""What a stream may push before it is flushed at once, and lets the others have their turn."""

CHECK_BYTES = 4 * 1024
"""After how much a stream that never waits is asked whether it has had its turn."""

SLICE_SECONDS = 0.005
"""How long a handler that never waits may run before the others have their turn."""


class Outbox:
    """Parts that are joined into one write a flush.

    Pushing is `parts.append(data)`. A pump then looks at `attention`, one test an item: it is true for the first part
    since a flush (which has to be asked for), while the connection cannot be written, and once it is lost.
    """

    __slots__ = ("attention", "closed", "dirty", "frame", "parts", "paused")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.parts: list[bytes] = []
        self.dirty = False
        """Whether a flush has been asked for."""
        self.paused = False
        """Whether the connection cannot be written: parts stay here."""
        self.closed = False
        """Whether the connection is lost: parts are dropped."""
        self.attention = True

    def mark(self) -> None:
        """Notes that a flush has been asked for: `attention` rests until then."""
        self.dirty = True
        self.attention = self.paused or self.closed

    def take(self) -> bytes:
        """The bytes of one write, b"" where there is nothing to write or it may not be written now."""
        self.dirty = False
        self.attention = True
        parts = self.parts
        if not parts or self.paused:
            return b""
        data = b"" if self.closed else self.frame(parts)
        parts.clear()
        return data

    def take_all(self) -> bytes:
        """Like `take`, also while the connection cannot be written: for what comes last."""
        paused, self.paused = self.paused, False
        data = self.take()
        self.paused = paused
        return data

    def pause(self) -> None:
        self.paused = self.attention = True

    def resume(self) -> None:
        self.paused = False
        self.attention = True

    def close(self) -> None:
        self.closed = self.attention = True
        self.paused = False
        self.parts.clear()
