"""What one HTTP/2 stream has to write: framed as its windows let it, in order, whole, and in its turn among others."""

from __future__ import annotations

import random
from itertools import groupby
from typing import Any

import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raffel_core.wire.http2 import BUDGET, Kind
from raffel_core.wire.http2_frames import MAX_FRAME, Code, header_block, header_frames
from raffel_core.wire.lanes import LOW_SHARE, QUANTUM, LaneOutbox
from raffel_core.wire.outbox import FLUSH_BYTES
from raffel_core.wire.stream_queue import StreamQueue

from . import http2_peer as peers
from .http2_peer import Peer, read_frames

STATUS = header_block([(b":status", b"200")])
TRAILERS = header_block([(b"grpc-status", b"0")])
PLENTY = 1 << 30


class Server:
    """Streams of one connection with their queues, and the outbox that joins them."""

    def __init__(self, *, window: int = PLENTY, connection: int = PLENTY) -> None:
        self.peer = Peer()
        self.http2 = self.peer.http2
        self.peer.say(peers.settings((peers.INITIAL_WINDOW_SIZE, window)))
        self.peer.heard()
        self.http2.window = connection
        self.outbox = LaneOutbox()
        self.starved: set[StreamQueue] = set()
        self.ids = iter(range(1, 1 << 20, 2))

    def queue(self, *pieces: bytes, priority: int = 0, end: bool = True) -> StreamQueue:
        """A queue that has these pieces to write."""
        stream = self.peer.open(next(self.ids), end=end)
        self.peer.heard()
        queue = StreamQueue(self.http2, stream, priority, self.starved)
        push(queue, *pieces)
        return queue

    def announced(self, *pieces: bytes, priority: int = 0) -> StreamQueue:
        queue = self.queue(*pieces, priority=priority)
        self.outbox.announce(queue)
        return queue

    def more(self, stream: int, size: int) -> None:
        """The client lets more be sent, on a stream or on the connection."""
        for event in self.peer.say(peers.window(stream, size)):
            assert event.kind is Kind.WINDOW
            for queue in [*self.starved]:
                if queue.window > 0 and (event.stream is None or queue.stream is event.stream):
                    queue.unblock()
                    self.outbox.announce(queue)

    def written(self) -> list[Frame]:
        return read_frames(self.outbox.take())

    def all_written(self) -> list[Frame]:
        found: list[Frame] = []
        while data := self.outbox.take():
            found += read_frames(data)
        return found


def push(queue: StreamQueue, *pieces: bytes) -> None:
    for piece in pieces:
        queue.parts += (piece[:5], piece[5:], b"")


def head(queue: StreamQueue) -> None:
    queue.head = header_frames(queue.stream.id, STATUS, end=False)


def body(frames: list[Frame], queue: StreamQueue | None = None) -> bytes:
    wanted = [item for item in frames if isinstance(item, DataFrame)]
    return b"".join(item.data for item in wanted if queue is None or item.stream_id == queue.stream.id)


def kinds(frames: list[Frame]) -> list[type[Frame]]:
    return [kind for kind, _ in groupby(type(item) for item in frames)]


# What one queue writes


def test_messages_are_joined_into_one_frame() -> None:
    queue = Server().queue(b"one message", b"another")
    (frame,) = read_frames(queue.take_all())
    assert isinstance(frame, DataFrame) and frame.data == b"one messageanother" and not frame.flags
    assert queue.sent == 18 and not queue.ready and not queue.waiting and queue.size == 0


@pytest.mark.parametrize("size", [1, MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 2 * MAX_FRAME, 100_000])
@pytest.mark.parametrize("how", ["take", "take_all"])
def test_frames_are_as_long_as_every_client_takes(size: int, how: str) -> None:
    data = random.Random(size).randbytes(size)
    queue = Server().queue(data)
    frames = read_frames(queue.take_all() if how == "take_all" else queue.take(PLENTY))  # which looks at their lengths
    assert body(frames) == data
    assert len(frames) == -(-size // MAX_FRAME)


def test_the_head_is_first_and_the_trailers_are_last() -> None:
    queue = Server().queue(b"body")
    head(queue)
    queue.finish(TRAILERS)
    frames = read_frames(queue.take_all())
    assert kinds(frames) == [HeadersFrame, DataFrame, HeadersFrame]
    assert [sorted(item.flags) for item in frames] == [["END_HEADERS"], [], ["END_HEADERS", "END_STREAM"]]
    assert not queue.ready and queue.take_all() == b""


def test_the_head_alone() -> None:
    queue = Server().queue()
    assert not queue.ready
    head(queue)
    assert queue.ready and not queue.waiting
    assert kinds(read_frames(queue.take_all())) == [HeadersFrame]
    assert not queue.ready and queue.take_all() == b""


def test_trailers_alone_end_the_stream() -> None:
    server = Server()
    queue = server.queue()
    queue.finish(TRAILERS)
    assert queue.ready
    (frame,) = read_frames(queue.take_all())
    assert "END_STREAM" in frame.flags and not server.http2.is_open(queue.stream)


def test_trailers_before_the_request_has_ended_stop_it() -> None:
    server = Server()
    queue = server.queue(b"body", end=False)
    queue.finish(TRAILERS)
    *_, end = read_frames(queue.take_all())
    assert end.error_code == Code.NO_ERROR and not server.http2.is_open(queue.stream)


def test_trailers_wait_until_all_data_has_gone() -> None:
    server = Server(window=10)
    queue = server.queue(b"x" * 25)
    queue.finish(TRAILERS)
    assert kinds(read_frames(queue.take_all())) == [DataFrame]
    for _ in range(2):
        server.more(queue.stream.id, 10)
        frames = read_frames(queue.take_all())
    assert len(body(frames)) == 5 and kinds(frames) == [DataFrame, HeadersFrame]


def test_an_empty_message_makes_no_frame() -> None:
    server = Server()
    queue = server.queue(b"")
    assert queue.take_all() == b""
    assert not queue.ready


# Windows


@pytest.mark.parametrize(("window", "connection"), [(10, PLENTY), (PLENTY, 10), (10, 10), (10, 20), (20, 10)])
def test_data_is_within_both_windows(window: int, connection: int) -> None:
    server = Server(window=window, connection=connection)
    queue = server.queue(b"x" * 100)
    assert len(body(read_frames(queue.take_all()))) == 10
    assert queue.blocked and queue in server.starved and not queue.ready
    assert min(queue.stream.window, server.http2.window) == 0 == queue.window
    assert (queue.stream.window, server.http2.window) == (window - 10, connection - 10)
    assert queue.size == 90 and queue.sent == 10


def test_a_window_that_is_exactly_used_up_blocks_nothing() -> None:
    server = Server(window=10)
    queue = server.queue(b"x" * 10)
    queue.finish(TRAILERS)
    assert kinds(read_frames(queue.take_all())) == [DataFrame, HeadersFrame]
    assert not queue.blocked and not server.starved


def test_a_head_and_trailers_need_no_window() -> None:
    server = Server(window=0, connection=0)
    queue = server.queue()
    head(queue)
    queue.finish(TRAILERS)
    assert kinds(read_frames(queue.take_all())) == [HeadersFrame]
    assert not server.starved


def test_a_head_goes_before_data_that_has_no_window() -> None:
    server = Server(window=0)
    queue = server.queue(b"data")
    head(queue)
    assert kinds(read_frames(queue.take_all())) == [HeadersFrame]
    assert queue.blocked and queue.waiting


def test_a_negative_window_lets_nothing_be_sent() -> None:
    server = Server(window=100)
    queue = server.queue(b"x" * 200)
    queue.take_all()
    server.peer.say(peers.settings((peers.INITIAL_WINDOW_SIZE, 0)))
    assert queue.window == -100
    queue.unblock()
    assert queue.take_all() == b"" == queue.take(50) and queue.blocked
    server.more(queue.stream.id, 100)
    assert queue.blocked and queue.window == 0
    server.more(queue.stream.id, 1)
    assert not queue.blocked and len(body(read_frames(queue.take_all()))) == 1


def test_a_negative_window_does_not_hold_up_trailers() -> None:
    server = Server(window=10)
    queue = server.queue(b"x" * 10)
    queue.take_all()
    server.peer.say(peers.settings((peers.INITIAL_WINDOW_SIZE, 0)))
    queue.finish(TRAILERS)
    assert kinds(read_frames(queue.take_all())) == [HeadersFrame]


def test_unblock_is_for_one_queue_and_may_be_said_twice() -> None:
    server = Server(window=1)
    first, second = server.queue(b"ab"), server.queue(b"cd")
    first.take_all(), second.take_all()
    assert server.starved == {first, second}
    first.unblock()
    first.unblock()
    assert server.starved == {second} and not first.blocked and second.blocked


@pytest.mark.parametrize("sizes", [(5, 5), (MAX_FRAME, 1), (1, MAX_FRAME), (40_000, 40_000)])
def test_what_is_pushed_while_the_window_is_closed_goes_out_with_the_rest(sizes: tuple[int, int]) -> None:
    """The client opens the window once: no further push or window may be needed for all to be written."""
    server = Server(window=0)
    first, second = (random.Random(size).randbytes(size) for size in sizes)
    queue = server.announced(first)
    assert server.outbox.take() == b"" and queue.blocked
    push(queue, second)
    server.outbox.announce(queue)
    queue.finish(TRAILERS)
    server.outbox.announce(queue)
    server.more(queue.stream.id, 1 << 20)
    frames = server.all_written()
    assert body(frames) == first + second
    assert kinds(frames) == [DataFrame, HeadersFrame]


def test_take_all_takes_all_that_the_windows_let_it() -> None:
    server = Server(window=0)
    queue = server.queue(b"first")
    queue.take_all()
    push(queue, b"second")
    queue.stream.window = 100
    queue.unblock()
    assert body(read_frames(queue.take_all())) == b"firstsecond"


# Limits


@pytest.mark.parametrize("limit", [1, 100, MAX_FRAME, MAX_FRAME + 1, 50_000])
def test_a_limit_is_for_bytes_of_data(limit: int) -> None:
    data = random.Random(limit).randbytes(60_000)
    queue = Server().queue(*(data[at : at + 1000] for at in range(0, 60_000, 1000)))
    taken = b""
    while queue.ready and len(taken) < 5000 + limit:
        piece = body(read_frames(queue.take(limit)))
        assert 0 < len(piece) <= limit
        taken += piece
    assert data.startswith(taken) and queue.sent == len(taken) and queue.size == 60_000 - len(taken)


def test_a_limit_does_not_block() -> None:
    server = Server()
    queue = server.queue(b"x" * 100)
    queue.take(10)
    assert queue.ready and not queue.blocked and not server.starved


def test_a_queue_that_is_taken_piece_by_piece_is_not_copied_each_time() -> None:
    data = random.Random(1).randbytes(8 << 20)  # copied a piece, it would take minutes
    queue = Server().queue(data)
    taken = bytearray()
    while queue.ready:
        taken += body(read_frames(queue.take(1000)))
    assert taken == data


def test_what_a_client_has_taken_whole_earns_it_cheap_frames() -> None:
    server = Server()
    queue = server.queue(b"x")
    for _ in range(10):
        server.peer.say(peers.frame(peers.PING, 0, 0, bytes(8)))
    spent = server.http2._budget
    assert spent < BUDGET
    queue.take_all()
    assert server.http2._budget > spent


# Dropping


@pytest.mark.parametrize("taken", [0, 1, 20])
def test_dropped_data_is_not_sent(taken: int) -> None:
    server = Server(window=taken)
    queue = server.queue(b"x" * 50, b"y" * 50)
    read_frames(queue.take_all())
    queue.drop()
    assert not queue.blocked and not server.starved and not queue.ready and queue.size == 0
    server.more(queue.stream.id, 1000)
    assert queue.take_all() == b""


def test_trailers_may_follow_what_was_dropped() -> None:
    server = Server(window=5)
    queue = server.queue(b"x" * 50)
    queue.take_all()
    queue.drop()
    queue.finish(TRAILERS)
    assert kinds(read_frames(queue.take_all())) == [HeadersFrame]


@pytest.mark.parametrize("by", ["client", "server"])
@pytest.mark.parametrize("what", ["head", "data", "trailers", "all"])
def test_nothing_is_sent_on_a_stream_that_has_been_reset(by: str, what: str) -> None:
    """6.4: after RST_STREAM, no frame but PRIORITY; its queue has been dropped as soon as that was known."""
    server = Server()
    queue = server.queue()
    if what in ("head", "all"):
        head(queue)
    if what in ("data", "all"):
        push(queue, b"data")
    if what in ("trailers", "all"):
        queue.finish(TRAILERS)
    server.outbox.announce(queue)
    if by == "client":
        server.peer.say(peers.reset(queue.stream.id))
    else:
        server.http2.reset(queue.stream, Code.CANCEL)
    queue.drop()
    assert server.all_written() == []


# Several streams in the outbox


def test_a_stream_that_is_blocked_does_not_hold_up_the_others() -> None:
    server = Server(window=50)
    blocked = server.announced(b"x" * 100)
    others = [server.announced(b"y" * 40) for _ in range(5)]
    frames = server.all_written()
    assert len(body(frames, blocked)) == 50
    assert [len(body(frames, queue)) for queue in others] == [40] * 5
    assert server.outbox.empty and server.starved == {blocked}


@pytest.mark.parametrize("priorities", [(0, 0, 0), (0, 1, 2), (2, 1, 0)])
def test_the_window_of_the_connection_opens_for_all(priorities: tuple[int, ...]) -> None:
    server = Server(connection=0)
    queues = [server.announced(b"x" * 1000, priority=priority) for priority in priorities]
    for queue in queues:
        queue.finish(TRAILERS)
    assert server.all_written() == [] and server.starved == {*queues}
    server.more(0, 3000)
    frames = server.all_written()
    assert [len(body(frames, queue)) for queue in queues] == [1000] * 3
    assert server.http2.streams == {} and not server.starved


def test_streams_of_a_lane_take_turns() -> None:
    server = Server()
    queues = [server.announced(b"x" * 100_000) for _ in range(4)]
    frames = server.written()
    shares = [len(body(frames, queue)) for queue in queues]
    assert max(shares) - min(shares) <= QUANTUM and sum(shares) > FLUSH_BYTES * 0.9


def test_a_stream_that_has_little_to_say_is_not_kept_waiting() -> None:
    server = Server()
    for _ in range(10):
        server.announced(b"x" * 1_000_000)
    little = server.announced(b"little")
    little.finish(TRAILERS)
    frames = server.written()
    assert body(frames, little) == b"little" and not server.http2.is_open(little.stream)


def test_a_lower_lane_has_its_share_of_a_congested_connection() -> None:
    server = Server()
    high, low = server.announced(b"x" * 1_000_000, priority=5), server.announced(b"y" * 1_000_000)
    for _ in range(5):
        frames = server.written()
        share = len(body(frames, low)) / len(body(frames))
        assert 0.8 / LOW_SHARE < share < 1.2 / LOW_SHARE and body(frames, high)


def test_a_higher_lane_that_is_blocked_leaves_all_to_the_lower_one() -> None:
    server = Server(window=1000)
    server.announced(b"x" * 10_000, priority=5)
    low = server.queue(b"y" * 10_000)
    low.stream.window = PLENTY
    server.outbox.announce(low)
    assert len(body(server.all_written(), low)) == 10_000


def test_what_is_taken_for_the_last_write_is_within_the_windows() -> None:
    server = Server(window=100, connection=150)
    for _ in range(3):
        server.announced(b"x" * 1000)
    assert len(body(read_frames(server.outbox.take_all()))) == 150


def test_while_the_connection_cannot_be_written_everything_stays() -> None:
    server = Server()
    queue = server.announced(b"x" * 1000)
    server.outbox.pause()
    assert server.outbox.take() == b"" and server.outbox.waiting == 1000
    server.outbox.resume()
    server.outbox.announce(queue)
    assert len(body(server.all_written())) == 1000


class Streams(RuleBasedStateMachine):
    """Any order of pushes, windows, flushes, drops and ends: each stream's bytes come once, in order, and all."""

    @initialize(
        window=st.sampled_from([0, 100, 65_535]),
        connection=st.sampled_from([0, 100, 65_535, PLENTY]),
        priorities=st.lists(st.integers(-1, 1), min_size=1, max_size=3),
    )
    def begin(self, window: int, connection: int, priorities: list[int]) -> None:
        self.server = Server(window=window, connection=connection)
        self.queues: list[StreamQueue] = []
        self.pushed: dict[StreamQueue, bytearray] = {}
        self.came: dict[StreamQueue, bytearray] = {}
        self.dropped: set[StreamQueue] = set()
        self.finished: set[StreamQueue] = set()
        self.ended: set[StreamQueue] = set()
        self.allowed: dict[int, int] = {0: connection}
        self.initial = window
        for priority in priorities:
            queue = self.server.queue(priority=priority)
            head(queue)
            self.queues.append(queue)
            self.pushed[queue], self.came[queue] = bytearray(), bytearray()
            self.allowed[queue.stream.id] = window

    def one(self, choice: int, *without: set[StreamQueue]) -> StreamQueue | None:
        found = [queue for queue in self.queues if not any(queue in some for some in without)]
        return found[choice % len(found)] if found else None

    @rule(
        choice=st.integers(0, 2),
        sizes=st.lists(st.sampled_from([1, 50, 4000, 16_384, 40_000]), max_size=3),
        flush=st.booleans(),
    )
    def push(self, choice: int, sizes: list[int], flush: bool) -> None:
        if queue := self.one(choice, self.finished, self.dropped):
            for size in sizes:
                data = random.Random(size * 8 + choice).randbytes(size)
                push(queue, data)
                self.pushed[queue] += data
            self.server.outbox.announce(queue)
            if flush:
                self.flush()

    @rule(choice=st.integers(0, 2))
    def finish(self, choice: int) -> None:
        if queue := self.one(choice, self.finished, self.dropped):
            queue.finish(TRAILERS)
            self.finished.add(queue)
            self.server.outbox.announce(queue)

    @rule(choice=st.integers(0, 2))
    def drop(self, choice: int) -> None:
        if queue := self.one(choice, self.finished, self.dropped):
            queue.drop()
            self.dropped.add(queue)
            self.pushed[queue] = self.came[queue][:]
            queue.finish(TRAILERS)
            self.finished.add(queue)
            self.server.outbox.announce(queue)

    @rule(choice=st.integers(0, 2), size=st.sampled_from([1, 100, 5000]))
    def more(self, choice: int, size: int) -> None:
        queue = self.one(choice, self.ended)
        for id in {0, queue.stream.id if queue else 0}:
            self.allowed[id] += size
            self.server.more(id, size)

    @rule(window=st.sampled_from([0, 1, 3000]))
    def change(self, window: int) -> None:
        for queue in self.queues:
            if queue not in self.ended:
                self.allowed[queue.stream.id] += window - self.initial
        self.initial = window
        if self.server.peer.say(peers.settings((peers.INITIAL_WINDOW_SIZE, window))):
            for queue in [*self.server.starved]:
                if queue.window > 0:
                    queue.unblock()
                    self.server.outbox.announce(queue)
        self.server.peer.heard()
        self.server.http2.earn(10)

    @rule(pause=st.sampled_from([False, False, True]))
    def congest(self, pause: bool) -> None:
        self.server.outbox.pause() if pause else self.server.outbox.resume()

    @rule()
    def flush(self) -> None:
        self.read(self.server.outbox.take())

    def read(self, data: bytes) -> None:
        by_id: dict[int, Any] = {queue.stream.id: queue for queue in self.queues}
        for item in read_frames(data):
            queue = by_id[item.stream_id]
            assert queue not in self.ended
            if isinstance(item, DataFrame):
                assert item.data
                self.came[queue] += item.data
                for id in (0, item.stream_id):
                    self.allowed[id] -= len(item.data)
                    assert self.allowed[id] >= 0, "more than the window"
            elif "END_STREAM" in item.flags:
                assert queue in self.finished and self.came[queue] == self.pushed[queue]
                self.ended.add(queue)

    @invariant()
    def nothing_is_lost_or_sent_twice(self) -> None:
        for queue in getattr(self, "queues", ()):
            assert self.pushed[queue].startswith(self.came[queue])
            assert queue.sent == len(self.came[queue])
            if queue not in self.dropped:
                assert queue.size == len(self.pushed[queue]) - len(self.came[queue])
            assert queue.blocked == (queue in self.server.starved)
            assert queue.listed or queue.blocked or not queue.ready or queue.head

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        self.server.outbox.resume()
        for queue in self.queues:
            if queue not in self.finished:
                queue.finish(TRAILERS)
                self.finished.add(queue)
                self.server.outbox.announce(queue)
        for id in (0, *(queue.stream.id for queue in self.queues if queue not in self.ended)):
            self.allowed[id] += 1 << 22
            self.server.more(id, 1 << 22)
            while data := self.server.outbox.take():
                self.read(data)
        assert self.ended == {*self.queues}
        assert not self.server.starved and self.server.http2.streams == {}


# A failure is shown as it was found: to make it smaller takes longer than a test may.
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=300, stateful_step_count=25, deadline=None, phases=QUICK)
