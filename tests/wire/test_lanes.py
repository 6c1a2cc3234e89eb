"""The outbox that many streams share: whose turn it is, what a write takes, and that nothing is lost or overtaken."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raffel_core.wire.lanes import LOW_SHARE, QUANTUM, LaneOutbox, Queue
from raffel_core.wire.outbox import FLUSH_BYTES

HEAD = 8


def made(queue: int, number: int, size: int = HEAD) -> bytes:
    """A message that can be told apart in a write."""
    return queue.to_bytes(2) + number.to_bytes(3) + size.to_bytes(3) + b"x" * (size - HEAD)


def written(data: bytes) -> list[tuple[int, int, int]]:
    """The messages of a write as (queue, number, size); fails where one is not whole."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at + 5 : at + HEAD])
        assert HEAD <= size <= len(data) - at, "a message was cut"
        assert data[at + HEAD : at + size].count(b"x") == size - HEAD
        found.append((int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 5]), size))
        at += size
    return found


def push(outbox: LaneOutbox, queue: Queue, *messages: bytes) -> int | None:
    """Pushes messages, each in three parts."""
    for message in messages:
        queue.parts += (message[:2], message[2:-1], message[-1:])
    return outbox.announce(queue)


def queue_of(outbox: LaneOutbox, name: int, size: int, count: int, priority: int = 0) -> Queue:
    """A queue that has this many messages of this size to write."""
    queue = Queue(priority)
    push(outbox, queue, *(made(name, number, size) for number in range(count)))
    return queue


def names(data: bytes) -> list[int]:
    """Whose messages a write has, each run of one queue once."""
    return [name for name, _ in groupby(name for name, _, _ in written(data))]


def bytes_of(data: bytes, name: int) -> int:
    return sum(size for queue, _, size in written(data) if queue == name)


def writes(outbox: LaneOutbox) -> Iterable[bytes]:
    while data := outbox.take():
        yield data


# One write


def test_an_outbox_without_messages_has_nothing_to_write() -> None:
    assert LaneOutbox().take() == b""


def test_the_parts_of_a_message_are_joined() -> None:
    outbox, queue = LaneOutbox(), Queue()
    queue.parts += (b"a", b"b", b"c", b"d", b"", b"e")
    outbox.announce(queue)
    assert outbox.take() == b"abcde"
    assert outbox.take() == b""


def test_the_messages_of_a_queue_keep_their_order() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 100, 3000)
    taken = [number for data in writes(outbox) for _, number, _ in written(data)]
    assert taken == list(range(3000))


def test_replies_come_before_all_queues_in_their_order() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 8, 1, priority=127)
    outbox.replies += [made(8, 0), made(8, 1)]
    assert written(outbox.take()) == [(8, 0, 8), (8, 1, 8), (1, 0, 8)]
    assert outbox.take() == b""


def test_replies_alone_are_a_write() -> None:
    outbox = LaneOutbox()
    outbox.replies.append(b"pong")
    assert outbox.take() == b"pong"


def test_queues_of_a_lane_are_written_in_the_order_in_which_they_were_announced() -> None:
    outbox = LaneOutbox()
    for name in (3, 1, 2):
        queue_of(outbox, name, 8, 1)
    assert names(outbox.take()) == [3, 1, 2]


def test_a_higher_lane_is_written_before_a_lower_one() -> None:
    outbox = LaneOutbox()
    for priority in (0, -128, 127, 5):
        queue_of(outbox, priority + 128, 8, 2, priority)
    assert names(outbox.take()) == [255, 133, 128, 0]


def test_what_can_be_written_at_once_is_one_write() -> None:
    outbox = LaneOutbox()
    for name in range(10):
        queue_of(outbox, name, 1000, 5, priority=name % 3)
    assert len(written(outbox.take())) == 50
    assert outbox.take() == b""


def test_a_queue_that_was_dropped_writes_nothing() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 100, 3).parts.clear()
    queue_of(outbox, 2, 100, 1)
    assert names(outbox.take()) == [2]


def test_a_queue_that_was_dropped_writes_what_is_pushed_after_that() -> None:
    outbox = LaneOutbox()
    queue = queue_of(outbox, 1, 100, 3)
    queue.parts.clear()
    push(outbox, queue, made(1, 9))
    assert written(outbox.take()) == [(1, 9, 8)]
    push(outbox, queue, made(1, 10))
    assert written(outbox.take()) == [(1, 10, 8)]


# Bounds of a write


def test_a_queue_alone_is_written_whole() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 50_000, 5)
    assert len(outbox.take()) == 250_000


@pytest.mark.parametrize("size", [8, 1000, 4096, 5000, FLUSH_BYTES - 1, FLUSH_BYTES, 1 << 20])
def test_a_write_of_many_queues_ends_with_the_message_that_reaches_the_bound(size: int) -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 9, 5000, 1)  # the others' turns do not end where the write does
    for name in range(3):
        queue_of(outbox, name, size, 3 * FLUSH_BYTES // size + 2)
    data = outbox.take()
    assert FLUSH_BYTES <= len(data) < FLUSH_BYTES + size


@pytest.mark.parametrize("size", [8, 1000, 4096, 5000, FLUSH_BYTES, 1 << 20])
def test_a_write_of_two_lanes_is_beyond_the_bound_by_less_than_a_message_of_each(size: int) -> None:
    outbox = LaneOutbox()
    for name in range(4):
        queue_of(outbox, name, size, 3 * FLUSH_BYTES // size + 2, priority=name % 2)
    data = outbox.take()
    assert FLUSH_BYTES <= len(data) < FLUSH_BYTES + 2 * size


# Turns within a lane


def test_the_queues_of_a_lane_have_turns_of_4_kib() -> None:
    outbox = LaneOutbox()
    for name in (1, 2, 3):
        queue_of(outbox, name, 512, 100)
    runs = [
        (name, sum(size for _, _, size in run)) for name, run in groupby(written(outbox.take()), lambda one: one[0])
    ]
    assert runs == [(n % 3 + 1, QUANTUM) for n in range(FLUSH_BYTES // QUANTUM)]


def test_a_turn_goes_on_in_the_next_write() -> None:
    outbox = LaneOutbox()
    for name in (1, 2, 3):
        queue_of(outbox, name, 4096, 100)
    assert names(outbox.take())[-1] == 1
    assert names(outbox.take())[0] == 2


def test_a_message_of_more_than_a_turn_is_a_turn() -> None:
    outbox = LaneOutbox()
    for name in (1, 2):
        queue_of(outbox, name, 20_000, 3)
    assert [name for name, _, _ in written(outbox.take())] == [1, 2, 1, 2]


def test_a_short_queue_need_not_wait_for_a_long_one() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 1000, 1000)
    queue_of(outbox, 2, 1000, 1)
    assert names(outbox.take())[:2] == [1, 2]


# Shares of lanes


def test_a_lower_lane_has_an_eighth_of_each_write() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 64, 10_000, priority=1)
    queue_of(outbox, 2, 64, 10_000)
    for _ in range(5):
        data = outbox.take()
        assert bytes_of(data, 2) == FLUSH_BYTES // LOW_SHARE
        assert bytes_of(data, 1) == FLUSH_BYTES - FLUSH_BYTES // LOW_SHARE


def test_the_lower_lane_that_has_waited_longest_has_the_share() -> None:
    outbox = LaneOutbox()
    for name, priority in ((9, 9), (3, 3), (2, 2), (1, 1)):
        queue_of(outbox, name, 64, 10_000, priority)
    assert [names(outbox.take()) for _ in range(6)] == [[9, 3], [9, 2], [9, 1], [9, 3], [9, 2], [9, 1]]


def test_a_lane_that_comes_late_has_waited_longest() -> None:
    outbox = LaneOutbox()
    for name, priority in ((9, 9), (3, 3)):
        queue_of(outbox, name, 64, 10_000, priority)
    outbox.take()
    queue_of(outbox, 1, 64, 10_000, priority=1)
    assert [names(outbox.take()) for _ in range(3)] == [[9, 1], [9, 3], [9, 1]]


def test_what_the_highest_lane_leaves_is_for_the_next_one() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 3, 1000, 2, priority=3)
    queue_of(outbox, 2, 64, 10_000, priority=2)
    queue_of(outbox, 1, 64, 10_000, priority=1)
    data = outbox.take()
    assert names(data) == [3, 2, 1]
    assert FLUSH_BYTES // LOW_SHARE <= bytes_of(data, 1) < FLUSH_BYTES // LOW_SHARE + 64


def test_a_lower_lane_has_its_share_also_right_after_it_was_the_only_one() -> None:
    outbox = LaneOutbox()
    for name in (1, 2):
        queue_of(outbox, name, 4096, 100, priority=1)
    outbox.take()
    outbox.pause()
    queue_of(outbox, 9, 4096, 100, priority=9)
    outbox.resume()
    assert names(outbox.take()) == [9, 1, 2]


def test_no_lane_starves() -> None:
    outbox = LaneOutbox()
    for priority in range(-10, 11):
        queue_of(outbox, priority + 10, 2000, 500, priority)
    seen = {name for _ in range(25) for name in names(outbox.take())}
    assert seen == set(range(21))


# Announcing


def test_the_turn_is_the_same_until_the_flush() -> None:
    outbox, first, second = LaneOutbox(), Queue(), Queue(1)
    assert outbox.turn is None
    turn = outbox.announce(first)
    assert turn is not None
    assert outbox.announce(second) is turn and outbox.announce(first) is turn and outbox.turn is turn


def test_each_flush_ends_the_turn() -> None:
    outbox, queue = LaneOutbox(), Queue()
    turns = set()
    for _ in range(100):
        turns.add(push(outbox, queue, made(1, 1)))
        assert outbox.take()
        assert outbox.turn is None
    assert len(turns) == 100 and None not in turns


def test_a_flush_ends_the_turn_also_where_there_was_nothing_to_write() -> None:
    outbox = LaneOutbox()
    outbox.announce(Queue())
    outbox.take()
    assert outbox.turn is None


def test_a_queue_that_is_announced_twice_is_written_once() -> None:
    outbox, queue = LaneOutbox(), Queue()
    push(outbox, queue, made(1, 1))
    outbox.announce(queue)
    assert not outbox.empty
    assert len(written(outbox.take())) == 1
    assert outbox.empty and not queue.listed


def test_a_queue_stays_listed_while_it_has_something_to_write() -> None:
    outbox = LaneOutbox()
    queue, other = queue_of(outbox, 1, 40_000, 3), queue_of(outbox, 2, 40_000, 1)
    outbox.take()
    assert queue.listed and not other.listed and not outbox.empty
    outbox.take()
    assert not queue.listed and outbox.empty


def test_a_queue_of_another_priority_is_in_another_lane() -> None:
    outbox = LaneOutbox()
    queue = queue_of(outbox, 1, 8, 1)
    outbox.take()
    queue.priority = 5
    queue_of(outbox, 2, 8, 1, priority=1)
    push(outbox, queue, made(1, 1))
    assert names(outbox.take()) == [1, 2]


def test_a_flush_has_to_be_asked_for_anew() -> None:
    outbox = LaneOutbox()
    outbox.dirty = True
    outbox.take()
    assert not outbox.dirty


# A connection that cannot be written


def test_nothing_is_taken_while_the_connection_cannot_be_written() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 8, 2)
    outbox.replies.append(made(8, 0))
    outbox.pause()
    assert outbox.take() == b"" and outbox.take() == b""
    outbox.resume()
    assert len(written(outbox.take())) == 3


def test_a_pause_ends_the_turn() -> None:
    outbox, queue = LaneOutbox(), Queue()
    assert outbox.announce(queue) is not None
    outbox.pause()
    assert outbox.turn is None and outbox.announce(queue) is None


def test_what_is_announced_during_a_pause_is_written_after_it() -> None:
    outbox = LaneOutbox()
    outbox.pause()
    queue_of(outbox, 1, 8, 1)
    outbox.resume()
    assert names(outbox.take()) == [1]


def test_a_pause_counts_what_waits() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 100, 3)
    queue_of(outbox, 2, 1000, 2, priority=5)
    outbox.replies += [b"x" * 10, b"y"]
    outbox.pause()
    assert outbox.waiting == 300 + 2000 + 11


def test_a_pause_counts_what_a_write_has_left() -> None:
    outbox = LaneOutbox()
    for name in (1, 2):
        queue_of(outbox, name, 1024, 100)
    outbox.take()
    outbox.pause()
    assert outbox.waiting == 200 * 1024 - FLUSH_BYTES


def test_nothing_waits_after_a_pause() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 100, 3)
    outbox.pause()
    outbox.resume()
    assert outbox.waiting == 0 and not outbox.paused


# What comes last


def test_what_comes_last_is_everything_at_once() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 1000, 200)
    queue_of(outbox, 2, 1000, 200, priority=3)
    outbox.replies.append(made(8, 0))
    data = outbox.take_all()
    assert names(data) == [8, 2, 1] and len(written(data)) == 401
    assert outbox.take() == outbox.take_all() == b"" and outbox.empty


def test_what_comes_last_is_taken_also_during_a_pause() -> None:
    outbox = LaneOutbox()
    queue = queue_of(outbox, 1, 8, 3)
    outbox.pause()
    assert len(written(outbox.take_all())) == 3
    assert outbox.paused and outbox.waiting == 0 and not queue.listed


def test_what_comes_last_ends_the_turn() -> None:
    outbox = LaneOutbox()
    queue_of(outbox, 1, 8, 1)
    outbox.take_all()
    assert outbox.turn is None


def test_a_queue_may_be_announced_after_what_came_last() -> None:
    outbox = LaneOutbox()
    queue = queue_of(outbox, 1, 8, 1)
    outbox.take_all()
    push(outbox, queue, made(1, 1))
    assert written(outbox.take()) == [(1, 1, 8)]


# A connection that is lost


@pytest.mark.parametrize("paused", [False, True])
def test_a_lost_connection_drops_what_waits(paused: bool) -> None:
    outbox = LaneOutbox()
    queue = queue_of(outbox, 1, 100, 3)
    outbox.replies.append(b"x")
    if paused:
        outbox.pause()
    outbox.close()
    assert outbox.closed and not outbox.paused and outbox.waiting == 0 and outbox.turn is None
    assert queue.parts == [] and outbox.replies == [] and outbox.take() == outbox.take_all() == b""


def test_a_lost_connection_lists_no_queue() -> None:
    outbox, queue = LaneOutbox(), Queue()
    outbox.close()
    assert push(outbox, queue, made(1, 1)) is None
    assert not queue.listed and outbox.empty and outbox.take() == b""


def test_a_lost_connection_writes_no_replies() -> None:
    outbox = LaneOutbox()
    outbox.close()
    outbox.replies.append(b"x")
    assert outbox.take() == outbox.take_all() == b""


# Against a list for each queue

REPLY = 999
sizes = st.lists(st.sampled_from([HEAD, 50, 500, QUANTUM, 5000, 20_000, FLUSH_BYTES + 1]), min_size=1, max_size=8)
indexes = st.integers(0, 1_000)
priorities = st.sampled_from([-128, -1, 0, 0, 0, 1, 127])


class LaneMachine(RuleBasedStateMachine):
    """Pumps that announce as they should: their queue, and only in a turn that is not the one they know."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = LaneOutbox()
        self.queues: list[Queue] = []
        self.turns: list[int | None] = []
        self.lines: dict[int, list[tuple[int, int, int]]] = {REPLY: []}
        self.number = 0
        self.dropped = False

    def messages(self, name: int, sizes: list[int]) -> list[bytes]:
        made_of = []
        for size in sizes:
            self.number += 1
            self.lines[name].append((name, self.number, size))
            made_of.append(made(name, self.number, size))
        return made_of

    def pushed(self) -> list[tuple[int, int, int]]:
        return [message for line in self.lines.values() for message in line]

    @initialize(priorities=st.lists(priorities, min_size=1, max_size=6))
    def open(self, priorities: list[int]) -> None:
        for name, priority in enumerate(priorities):
            self.queues.append(Queue(priority))
            self.turns.append(None)
            self.lines[name] = []

    @precondition(lambda self: not self.outbox.closed)
    @rule(index=indexes, sizes=sizes)
    def push(self, index: int, sizes: list[int]) -> None:
        name = index % len(self.queues)
        queue = self.queues[name]
        for message in self.messages(name, sizes):
            queue.parts += (message[:HEAD], message[HEAD:], b"")
            if self.outbox.turn is not self.turns[name] or self.outbox.turn is None:
                self.turns[name] = self.outbox.announce(queue)

    @precondition(lambda self: not self.outbox.closed)
    @rule(sizes=sizes)
    def reply(self, sizes: list[int]) -> None:
        self.outbox.replies += self.messages(REPLY, sizes)

    @rule()
    def take(self) -> None:
        self.check_write()

    def check_write(self) -> None:
        data = self.outbox.take()
        assert self.outbox.turn is None and not self.outbox.dirty
        if self.outbox.paused or self.outbox.closed:
            assert data == b""
            return
        replies = len(self.lines[REPLY])
        left = self.pushed()
        messages = written(data)
        assert bool(messages) == bool(left), "nothing was written while something waits"
        assert [name for name, _, _ in messages[:replies]] == [REPLY] * replies
        self.check_bound(messages[replies:])
        self.check_lanes(messages[replies:])
        for message in messages:
            assert message == self.lines[message[0]].pop(0), "lost, written twice, or overtaken"

    def check_bound(self, messages: list[tuple[int, int, int]]) -> None:
        """In each lane that is written a turn and a message may be too much, unless there is one queue alone."""
        if len({name for name, _, _ in messages}) == 1:
            return
        largest: dict[int, int] = {}
        for name, _, size in messages:
            lane = self.queues[name].priority
            largest[lane] = max(largest.get(lane, 0), size)
        assert sum(size for _, _, size in messages) < FLUSH_BYTES + sum(QUANTUM + size for size in largest.values()) + 1

    def check_lanes(self, messages: list[tuple[int, int, int]]) -> None:
        lanes = [self.queues[name].priority for name, _, _ in messages]
        assert lanes == sorted(lanes, reverse=True), "a lower lane was written before a higher one"
        waiting = {self.queues[name].priority for name, line in self.lines.items() if name != REPLY and line}
        if waiting:
            assert max(waiting) in lanes
            # A queue that was dropped may still have the turn of its lane, and uses none of it.
            assert len(waiting) == 1 or len(set(lanes)) > 1 or self.dropped, "the lower lanes had no share"

    @rule()
    def flush(self) -> None:
        while not self.outbox.paused and not self.outbox.closed and any(self.lines.values()):
            self.check_write()

    @precondition(lambda self: not self.outbox.closed)
    @rule()
    def pause(self) -> None:
        self.outbox.pause()
        assert self.outbox.waiting == sum(size for _, _, size in self.pushed())

    @precondition(lambda self: self.outbox.paused)
    @rule()
    def resume(self) -> None:
        self.outbox.resume()

    @rule(index=indexes)
    def drop(self, index: int) -> None:
        name = index % len(self.queues)
        self.queues[name].parts.clear()
        self.lines[name].clear()
        self.dropped = True

    @precondition(lambda self: self.number > 20)
    @rule()
    def take_all(self) -> None:
        messages = written(self.outbox.take_all())
        assert sorted(messages) == sorted(self.pushed())
        for message in messages:
            assert message == self.lines[message[0]].pop(0)

    @precondition(lambda self: self.number > 60)
    @rule()
    def close(self) -> None:
        self.outbox.close()
        for line in self.lines.values():
            line.clear()

    @invariant()
    def what_is_left_is_in_the_queues(self) -> None:
        for name, queue in enumerate(self.queues):
            assert len(queue.parts) == 3 * len(self.lines[name])
            assert queue.listed or not queue.parts
        assert len(self.outbox.replies) == len(self.lines[REPLY])

    def teardown(self) -> None:
        if self.outbox.paused:
            self.resume()
        self.flush()
        assert not self.pushed() or self.outbox.closed


TestLanes = LaneMachine.TestCase
TestLanes.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
