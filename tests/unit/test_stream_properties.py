"""RaffelStream against a simple model: a line of items, whatever happens in one turn of the event loop."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raffel_core.errors import RaffelError
from raffel_core.stream import RaffelStream, create_stream

Task = asyncio.Task[None]

few = st.integers(1, 4)
indexes = st.integers(0, 1_000)


class Failure(Exception):
    """What the machine fails streams with."""


class Fate(Enum):
    WAITING = auto()
    WRITTEN = auto()
    CANCELLED = auto()  # happened whole or not at all: the machine accepts both


class StreamMachine(RuleBasedStateMachine):
    """Rules start, cancel and finish things between the turns of a loop; tasks check the model when they get to run."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.written = 0
        self.line: dict[int, Fate] = {}  # items in the order in which their writes began, until they are read
        self.readers: dict[Task, None] = {}  # in the order in which their reads began
        self.reads: list[Task] = []
        self.writes: dict[Task, int] = {}
        self.most_readers = 0
        self.disturbed = False  # an item may have come back from a reader
        self.paused = self.ended = self.failed = self.cancelled = False

    @initialize(mark=st.integers(0, 3), patience=st.sampled_from([1_000, 8, 2]), pauses=st.booleans())
    def create(self, mark: int, patience: int, pauses: bool) -> None:
        self.mark, self.patience, self.pauses = mark, patience, pauses
        self.stream: RaffelStream[int] = create_stream(high_water_mark=mark)

    # What the tasks do

    async def write(self, item: int) -> None:
        self.line[item] = Fate.WAITING
        try:
            await self.stream.write(item)
        except (RaffelError, Failure) as error:
            self.check_refusal(error)
            self.line.pop(item, None)
        else:
            if item in self.line:
                assert self.mark, "a hand-over ended before its item was read"
                self.line[item] = Fate.WRITTEN

    async def read(self) -> None:
        task = asyncio.current_task()
        assert task
        self.readers[task] = None
        self.most_readers = max(self.most_readers, len(self.readers))
        try:
            done, item = await self.stream.read()
        except (RaffelError, Failure) as error:
            self.check_failure(error)
        else:
            if done:
                self.check_end()
            else:
                assert item is not None
                self.check_item(task, item)
        finally:
            self.readers.pop(task, None)

    def check_item(self, task: Task, item: int) -> None:
        assert not self.cancelled, "an item came out of a cancelled stream"
        assert not self.paused, "an item came out of a paused stream"
        assert next(iter(self.readers)) is task, "a reader overtook another"
        for first in list(self.line):
            fate = self.line.pop(first)
            if first == item:
                return
            assert fate is Fate.CANCELLED, f"{item} was read before {first}"
        raise AssertionError(f"{item} was read twice, or after its write failed")

    def check_end(self) -> None:
        assert self.ended
        assert not self.failed and not self.cancelled
        assert set(self.line.values()) <= {Fate.CANCELLED}
        assert self.stream.state == "closed"

    def check_failure(self, error: Exception) -> None:
        assert isinstance(error, Failure) if not self.cancelled else getattr(error, "code", None) == "CANCELLED"
        assert self.failed or self.cancelled
        assert self.cancelled or Fate.WRITTEN not in self.line.values(), "the error came before the buffer was empty"

    def check_refusal(self, error: Exception) -> None:
        expected = "CANCELLED" if self.cancelled else None if self.failed else "FAILED_PRECONDITION"
        assert getattr(error, "code", None) == expected
        assert self.ended or self.failed or self.cancelled

    # What happens between the turns

    @rule(number=few)
    def start_writes(self, number: int) -> None:
        for _ in range(number):
            self.written += 1
            self.writes[self.loop.create_task(self.write(self.written))] = self.written

    @rule(number=few)
    def start_reads(self, number: int) -> None:
        for _ in range(number):
            self.reads.append(self.loop.create_task(self.read()))

    @rule()
    def try_write(self) -> None:
        self.written += 1
        try:
            went_in = self.stream.try_write(self.written)
        except (RaffelError, Failure) as error:
            self.check_refusal(error)
        else:
            assert not (self.ended or self.failed or self.cancelled)
            assert self.mark or (self.readers and not self.paused) or not went_in, "handed over to nobody"
            if went_in:
                self.line[self.written] = Fate.WRITTEN

    @precondition(lambda self: self.reads)
    @rule(index=indexes)
    def cancel_read(self, index: int) -> None:
        task = self.reads[index % len(self.reads)]
        task.cancel()
        self.readers.pop(task, None)
        self.disturbed = True

    @precondition(lambda self: self.writes)
    @rule(index=indexes)
    def cancel_write(self, index: int) -> None:
        task, item = list(self.writes.items())[index % len(self.writes)]
        task.cancel()
        if item in self.line:
            self.line[item] = Fate.CANCELLED

    @precondition(lambda self: self.pauses)
    @rule()
    def pause(self) -> None:
        self.stream.pause()
        self.paused = self.disturbed = True

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        self.stream.resume()
        self.paused = False

    @precondition(lambda self: self.written > self.patience)
    @rule(how=st.sampled_from(["end", "error", "cancel"]))
    def finish(self, how: str) -> None:
        getattr(self, how)()

    def end(self) -> None:
        self.ended = self.ended or not (self.failed or self.cancelled)
        self.stream.end()

    def error(self) -> None:
        self.failed = self.failed or not (self.cancelled or self.stream.closed)
        self.stream.error(Failure())

    def cancel(self) -> None:
        if not self.stream.closed and not (self.failed and not self.stream.readable):
            self.cancelled = True
            self.line.clear()
        self.stream.cancel("enough")

    # The turns

    @rule()
    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        for task in [task for task in (*self.reads, *self.writes) if task.done()]:
            if not task.cancelled():
                task.result()
        self.reads = [task for task in self.reads if not task.done()]
        self.writes = {task: item for task, item in self.writes.items() if not task.done()}
        assert not (self.cancelled and (self.reads or self.writes)), "cancel did not wake everyone"

    @rule()
    def settle(self) -> None:
        for _ in range(2 * len(self.reads) + 2 * len(self.writes) + 2):
            self.turn()
        stream = self.stream
        if self.reads and not self.paused:
            assert stream.state == "open", "a reader waits at a finished stream"
            assert not self.writes, "a reader waits for a writer that waits"
            assert Fate.WRITTEN not in self.line.values(), "a reader waits before items"
        if self.writes:
            assert stream.state in ("open", "closing"), "a writer waits at a finished stream"
            assert stream.buffered_amount >= self.mark, "a writer waits before room"
        if stream.writable:
            room = stream.buffered_amount < self.mark or bool(self.reads and not self.paused)
            before = self.written
            self.try_write()
            assert (before + 1 in self.line) == (room and not self.writes)

    @invariant()
    def bound_is_respected(self) -> None:
        held = sum(fate is Fate.WRITTEN for fate in self.line.values())
        assert held <= self.mark + self.most_readers
        if not self.disturbed:
            assert held <= self.mark + len(self.readers)
            assert self.stream.buffered_amount <= self.mark

    @invariant()
    def state_follows_the_model(self) -> None:
        stream = self.stream
        assert stream.writable == (not (self.ended or self.failed or self.cancelled))
        assert stream.errored == (self.failed or self.cancelled)
        assert stream.closed <= self.ended

    def teardown(self) -> None:
        try:
            if hasattr(self, "stream"):
                self.settle()
                self.resume()
                self.end()
                self.start_reads(self.written + 1)
                self.settle()
                assert not self.reads and not self.writes
                assert set(self.line.values()) <= {Fate.CANCELLED}, "an item was lost"
        finally:
            self.loop.run_until_complete(self.abandon([*self.reads, *self.writes]))
            self.loop.close()

    async def abandon(self, tasks: list[Task]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


TestStream = StreamMachine.TestCase
TestStream.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
