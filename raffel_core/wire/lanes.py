"""The outbox of a connection that many streams share: lanes by priority, and a queue for each stream."""

from __future__ import annotations

from collections import deque

from raffel_core.wire.outbox import FLUSH_BYTES

QUANTUM = 4 * 1024
"""Bytes that a queue may have written before the next one of its lane has its turn."""

LOW_SHARE = 8
"""Of a write that cannot take everything, one part in so many belongs to the lanes below the highest."""

ALL_LANES = 4
"""How many times what a lane may hold all lanes together may."""

PARTS = 3
"""A message is three parts in a queue: what comes before its payload, the payload, and what comes behind it."""


class Queue:
    """What one stream has to write. Pushing is three appends to `parts`, and then `announce` once a turn."""

    __slots__ = ("listed", "parts", "priority")

    blocked = False
    """Whether the stream's own flow control lets nothing be written, whatever the connection could take."""

    def __init__(self, priority: int = 0) -> None:
        self.parts: list[bytes] = []
        self.priority = priority
        """May be set while the queue is not listed."""
        self.listed = False
        """Whether the outbox knows that there is something to write."""

    @property
    def ready(self) -> bool:
        """Whether there is something to write that may be written."""
        return bool(self.parts)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(map(len, self.parts))

    def take(self, limit: int) -> bytes:
        """The first messages, whole ones, until their bytes reach the limit."""
        parts, size, end = self.parts, 0, 0
        if sum(map(len, parts)) <= limit:
            return self.take_all()
        while end < len(parts) and size < limit:
            size += len(parts[end]) + len(parts[end + 1]) + len(parts[end + 2])
            end += PARTS
        data = b"".join(parts[:end])
        del parts[:end]
        return data

    def take_all(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


class LaneOutbox:
    """Queues that are joined into one write a flush, the replies of the connection itself first.

    While everything can be written, the lanes only decide the order within a write. When the connection is congested,
    writes are bounded, and of each the lanes below the highest have an eighth: the one that has waited longest.

    A pump keeps the `turn` that `announce` gave it and looks, an item, whether the outbox still has the same one: it
    changes with each flush (which has to be asked for anew), and is no one's while the connection cannot be written.
    """

    __slots__ = (
        "_lanes",
        "_only",
        "_served",
        "_turns",
        "_weights",
        "closed",
        "dirty",
        "paused",
        "replies",
        "turn",
        "waiting",
    )

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        """Whole messages that belong to no queue."""
        self.closed = False
        self.paused = False
        self.dirty = False
        """Whether a flush has been asked for."""
        self.waiting = 0
        """Bytes that wait: while the connection cannot be written all of them, else what has been counted."""
        self.turn: int | None = None
        self._turns = 1
        self._only: Queue | None = (
            None  # the one queue that is listed: most connections have no more, and need no lanes
        )
        self._lanes: dict[int, deque[Queue]] = {}
        self._served: dict[int, int] = {}
        self._weights: dict[int, int] = {}  # bytes that wait in the lanes while nothing can be written

    def announce(self, queue: Queue) -> int | None:
        """Lists a queue for the next flush. Returns the turn, or None while nothing can be written."""
        if queue.blocked:
            return None
        if not queue.listed and not self.closed:
            queue.listed = True
            if self._only is None and not self._lanes:
                self._only = queue
            else:
                self._spread()
                self._list(queue)
        if self.paused or self.closed:
            return None
        if self.turn is None:
            self._turns += 1
            self.turn = self._turns
        return self.turn

    def _spread(self) -> None:
        """Puts the one queue that was listed into its lane."""
        only, self._only = self._only, None
        if only is not None:
            self._list(only)

    def _list(self, queue: Queue) -> None:
        lane = self._lanes.get(queue.priority)
        if lane is None:
            lane = self._lanes[queue.priority] = deque()
        lane.append(queue)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return self._only is None and not self._lanes and not self.replies

    def full(self, queue: Queue, size: int) -> bool:
        """Counts what a queue has pushed while nothing can be written, and says whether that is enough for it.

        What lies in lower lanes does not keep a higher one out: they are written later. All together they may be four
        times as much.
        """
        self.waiting += size
        self._weights[queue.priority] = self._weights.get(queue.priority, 0) + size
        if self.waiting < FLUSH_BYTES:
            return False
        before = sum(weight for priority, weight in self._weights.items() if priority >= queue.priority)
        return before >= FLUSH_BYTES or self.waiting >= ALL_LANES * FLUSH_BYTES

    def take(self) -> bytes:
        """The bytes of one write, b"" where there is nothing to write or it may not be written now."""
        self.dirty = False
        self.turn = None
        if self.paused or self.closed:
            return b""
        self.waiting = 0
        replies = b""
        if self.replies:
            replies = b"".join(self.replies)
            self.replies.clear()
        only = self._only
        if only is not None:  # a queue alone is as long as its pump lets it be
            self._only = None
            only.listed = False
            return replies + only.take_all()
        if not self._lanes:
            return replies
        self._turns += 1
        if len(self._lanes) == 1:
            (priority,) = self._lanes
            return replies + self._serve(priority, FLUSH_BYTES)
        return replies + self._share()

    def take_all(self) -> bytes:
        """Everything, also while the connection cannot be written: for what comes last."""
        self._spread()
        parts = [*self.replies]
        self.replies.clear()
        for priority in sorted(self._lanes, reverse=True):
            for queue in self._lanes[priority]:
                parts.append(queue.take_all())
                queue.listed = False
        self._lanes.clear()
        self.waiting = 0
        self.turn = None
        return b"" if self.closed else b"".join(parts)

    def _share(self) -> bytes:
        left = FLUSH_BYTES - FLUSH_BYTES // LOW_SHARE
        pieces: list[bytes] = []
        for priority in sorted(self._lanes, reverse=True):
            if left <= 0:
                break
            piece = self._serve(priority, left)
            pieces.append(piece)
            left -= len(piece)
        waiting = [priority for priority in self._lanes if self._served.get(priority, 0) < self._turns]
        if waiting:
            longest = min(waiting, key=lambda priority: (self._served.get(priority, 0), -priority))
            pieces.append(self._serve(longest, FLUSH_BYTES // LOW_SHARE))
        return b"".join(pieces)

    def _serve(self, priority: int, limit: int) -> bytes:
        """Bytes of one lane, its queues one after the other."""
        lane = self._lanes[priority]
        self._served[priority] = self._turns
        size = 0
        pieces: list[bytes] = []
        while lane and size < limit:
            queue = lane[0]
            piece = queue.take(limit - size if len(lane) == 1 else min(QUANTUM, limit - size))
            size += len(piece)
            pieces.append(piece)
            if queue.ready:
                lane.rotate(-1)
            else:
                queue.listed = False
                lane.popleft()
        if not lane:
            del self._lanes[priority]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pause(self) -> None:
        self.paused = True
        self.turn = None
        self._spread()
        self._weights = {priority: sum(queue.size for queue in lane) for priority, lane in self._lanes.items()}
        self.waiting = sum(map(len, self.replies)) + sum(self._weights.values())

    def resume(self) -> None:
        self.paused = False
        self.waiting = 0

    def close(self) -> None:
        self.closed = True
        self.paused = False
        self.turn = None
        self.take_all()
