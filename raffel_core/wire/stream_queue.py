"""What one HTTP/2 stream has to write: its head, DATA as far as the windows let it (RFC 9113, 6.9), its trailers."""

from __future__ import annotations

from collections.abc import Iterator

from raffel_core.wire.http2 import Http2
from raffel_core.wire.http2_frames import DATA, MAX_FRAME, frame_head
from raffel_core.wire.http2_streams import Stream
from raffel_core.wire.lanes import Queue


class StreamQueue(Queue):
    """A queue whose bytes are framed when they are taken. `starved` has all of a connection that wait for a window."""

    __slots__ = ("_at", "_data", "_http2", "_trailers", "blocked", "head", "sent", "starved", "stream")

    def __init__(self, http2: Http2, stream: Stream, priority: int, starved: set[StreamQueue]) -> None:
        self.parts = []  # what `Queue` has, without a further call
        self.priority = priority
        self.listed = False
        self.stream = stream
        self.starved = starved
        self.head = b""
        """Frames that go before all data; no window holds them up."""
        self.sent = 0
        """Bytes of data that have been taken."""
        self.blocked = False
        self._http2 = http2
        self._data = b""
        self._at = 0
        self._trailers: bytes | None = None

    @property
    def window(self) -> int:
        """How many bytes may be sent."""
        return min(self.stream.window, self._http2.window)

    @property
    def waiting(self) -> bool:
        """Whether there is data that has not been taken."""
        return bool(self.parts) or self._at < len(self._data)

    @property
    def ready(self) -> bool:
        if self.blocked:
            return False
        return bool(self.parts) or self._at < len(self._data) or self._trailers is not None or bool(self.head)

    @property
    def size(self) -> int:
        return super().size + len(self._data) - self._at

    def finish(self, trailers: bytes) -> None:
        """Has the stream end with this header block, behind what is queued."""
        self._trailers = trailers

    def drop(self) -> None:
        """Lets go of everything that is queued."""
        self.parts.clear()
        self.head = self._data = b""
        self._at = 0
        self._trailers = None
        self.unblock()

    def unblock(self) -> None:
        """There may be a window again."""
        self.blocked = False
        self.starved.discard(self)

    def take(self, limit: int) -> bytes:
        stream, http2 = self.stream, self._http2
        if stream.id not in http2.streams:
            self.drop()  # what a handler still yields that has not been told
            return b""
        room = stream.window if stream.window < http2.window else http2.window
        if room > limit:
            room = limit
        if self.parts and self._at == len(self._data):
            self._data, self._at = b"".join(self.parts), 0
            self.parts.clear()
        size = len(self._data)
        if size <= room and size <= MAX_FRAME and not self._at and not self.parts:  # as nearly all are
            frames = self.head + frame_head(size, DATA, 0, stream.id) + self._data if size else self.head
            self._data = b""
            self._count(size)
        else:
            frames = self.head + b"".join(self._frames(room))
        self.head = b""
        if self.parts or self._at < len(self._data):
            if stream.window <= 0 or http2.window <= 0:
                self.blocked = True
                self.starved.add(self)
            return frames
        http2.earn(2)  # what the peer has taken whole
        trailers, self._trailers = self._trailers, None
        return frames if trailers is None else frames + http2.headers(stream, trailers, end=True)

    def take_all(self) -> bytes:
        return self.take(self.window)

    def _frames(self, room: int) -> Iterator[bytes]:
        """DATA of so many bytes at most."""
        while room > 0 and (self._at < len(self._data) or self.parts):
            if self._at == len(self._data):
                self._data, self._at = b"".join(self.parts), 0
                self.parts.clear()
            piece = self._data[self._at : self._at + min(room, MAX_FRAME)]
            self._at += len(piece)
            room -= len(piece)
            self._count(len(piece))
            yield frame_head(len(piece), DATA, 0, self.stream.id)
            yield piece
        if self._at == len(self._data):
            self._data, self._at = b"", 0

    def _count(self, size: int) -> None:
        self.sent += size
        self._http2.use(self.stream, size)
