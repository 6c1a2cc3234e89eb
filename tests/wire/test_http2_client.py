"""HTTP/2 between `h2` as the client and the server's side in memory: both say the same of what has been sent."""

from __future__ import annotations

import random
from collections.abc import Iterator

import h2.events
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raffel_core.wire.http2 import Event, Http2, Kind
from raffel_core.wire.http2_frames import Code, header_block, header_frames
from raffel_core.wire.http2_streams import Stream
from raffel_core.wire.lanes import LaneOutbox
from raffel_core.wire.stream_queue import StreamQueue

from .http2_peer import POST, Fields, resize

HEAD = header_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
END = header_block([(b"grpc-status", b"0")])


class Call:
    """One stream, as the client and as the server see it."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.stream: Stream | None = None
        self.queue: StreamQueue | None = None
        self.sent, self.received = bytearray(), bytearray()
        self.ended = self.end_seen = False
        self.pushed, self.came = bytearray(), bytearray()
        self.finished = self.head_came = self.trailers_came = self.end_came = False
        self.reset_by_client = self.reset_by_server = self.reset_seen = self.reset_came = False
        self.unread = self.unacknowledged = 0

    @property
    def writing(self) -> bool:
        """Whether the client may still send."""
        return not (self.ended or self.reset_by_client or self.reset_came)

    @property
    def answering(self) -> bool:
        """Whether the server may still push."""
        return self.queue is not None and not (self.finished or self.reset_by_server or self.reset_seen)


class Pair:
    """A client and a server, and what is on the wire between them."""

    def __init__(self, max_streams: int = 100) -> None:
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.client.initiate_connection()
        self.outbox = LaneOutbox()
        self.http2 = Http2(max_streams, lambda method, path, fields: (method, path, fields), self.outbox.replies)
        self.starved: set[StreamQueue] = set()
        self.calls: dict[int, Call] = {}
        self.up, self.down = bytearray(), bytearray()
        self.now = 0.0
        self.pongs: list[bytes] = []

    # On the client's side

    def open(self, fields: Fields, *, end: bool = False) -> int:
        id = self.client.get_next_available_stream_id()
        self.client.send_headers(id, [*POST, *fields], end_stream=end)
        self.calls[id] = call = Call(fields)
        call.ended = end
        return id

    def send(self, id: int, data: bytes, *, end: bool = False, padding: int | None = None) -> None:
        """As much of the data as the windows let the client send."""
        call = self.calls[id]
        pad = 0 if padding is None else padding + 1
        room = min(self.client.local_flow_control_window(id), self.client.max_outbound_frame_size) - pad
        if room < 0:
            return
        data = data[:room]
        self.client.send_data(id, data, end_stream=end, pad_length=padding)
        call.sent += data
        call.ended = end

    def cancel(self, id: int) -> None:
        self.client.reset_stream(id, h2.errors.ErrorCodes.CANCEL)
        self.calls[id].reset_by_client = True

    # On the server's side

    def on_event(self, event: Event) -> None:
        kind, stream, data, end = event.kind, event.stream, event.data, event.end
        if kind is Kind.WINDOW:
            for queue in [*self.starved]:
                if queue.window > 0 and (stream is None or queue.stream is stream):
                    queue.unblock()
                    self.outbox.announce(queue)
            return
        if kind is Kind.PONG:
            self.pongs.append(data)
            return
        assert stream is not None
        call = self.calls[stream.id]
        if kind is Kind.OPENED:
            assert call.stream is None
            call.stream, call.end_seen = stream, end
            call.queue = StreamQueue(self.http2, stream, stream.id % 3, self.starved)
            assert stream.head.read == (b"POST", b"/Echo/Call", call.fields)
            return
        assert stream is call.stream
        if kind is Kind.RESET:
            assert call.reset_by_client and call.queue is not None
            call.reset_seen = True
            call.queue.drop()
        else:
            assert not call.end_seen and not call.reset_seen
            call.received += data
            call.unread += len(data)
            call.end_seen = end

    def push(self, call: Call, data: bytes) -> None:
        assert call.queue is not None and call.stream is not None
        if not call.pushed and not call.queue.head:
            call.queue.head = header_frames(call.stream.id, HEAD, end=False)
        call.queue.parts += (data[:1], data[1:], b"")
        call.pushed += data
        self.outbox.announce(call.queue)

    def finish(self, call: Call) -> None:
        assert call.queue is not None
        call.queue.finish(END if call.pushed else HEAD + END)
        call.finished = True
        self.outbox.announce(call.queue)

    def refuse(self, call: Call) -> None:
        assert call.queue is not None and call.stream is not None
        call.queue.drop()
        self.http2.reset(call.stream, Code.INTERNAL_ERROR)
        call.reset_by_server = True

    def flush(self) -> None:
        while data := self.outbox.take():
            self.down += data

    # The wire

    def carry_up(self, size: int) -> None:
        self.up += self.client.data_to_send()
        data = bytes(self.up[:size])
        del self.up[:size]
        self.now += 1
        for event in self.http2.receive(data, self.now):
            self.on_event(event)
        assert self.http2.ended is None

    def carry_down(self, size: int) -> None:
        data = bytes(self.down[:size])
        del self.down[:size]
        for event in self.client.receive_data(data):
            self.on_client_event(event)

    def on_client_event(self, event: h2.events.Event) -> None:
        assert not isinstance(event, h2.events.ConnectionTerminated)
        call = self.calls.get(getattr(event, "stream_id", None) or 0)
        match event:
            case h2.events.ResponseReceived():
                assert not call.head_came and dict(event.headers)[b":status"] == b"200"
                call.head_came = True
                call.trailers_came = b"grpc-status" in dict(event.headers)
            case h2.events.DataReceived():
                assert call.head_came and not call.trailers_came and len(event.data) > 0
                call.came += event.data
                call.unacknowledged += event.flow_controlled_length
            case h2.events.TrailersReceived():
                assert event.headers == [(b"grpc-status", b"0")]
                call.trailers_came = True
            case h2.events.StreamEnded():
                assert not call.end_came
                call.end_came = True
            case h2.events.StreamReset():
                assert call.reset_by_server or (call.end_came and event.error_code == Code.NO_ERROR)
                call.reset_came = True

    def settle(self, pieces: Iterator[int]) -> None:
        """Carries everything to and fro until nothing is left to say."""
        quiet = 0
        while quiet < 2:
            self.flush()
            self.up += self.client.data_to_send()
            quiet = 0 if self.up or self.down else quiet + 1
            while self.up:
                self.carry_up(next(pieces))
            self.flush()
            while self.down:
                self.carry_down(next(pieces))


def endless(size: int) -> Iterator[int]:
    while True:
        yield size


def random_sizes(chance: random.Random) -> Iterator[int]:
    while True:
        yield chance.choice([1, 2, 5, 9, 10, 17, 100, 5000, 100_000])


def settled(pair: Pair, size: int = 1 << 30) -> Pair:
    pair.settle(endless(size))
    return pair


# One thing at a time


@pytest.mark.parametrize("piece", [1, 7, 9, 10, 1 << 20])
def test_a_call_with_a_body_and_trailers_both_ways(piece: int) -> None:
    pair = settled(Pair(), piece)
    id = pair.open([(b"te", b"trailers"), (b"x-bin", bytes(range(33, 127)))])
    pair.send(id, b"request")
    pair.client.send_headers(id, [(b"checksum", b"1")], end_stream=True)
    settled(pair, piece)
    call = pair.calls[id]
    assert call.received == b"request" and call.end_seen
    pair.push(call, b"answer")
    pair.finish(call)
    settled(pair, piece)
    assert call.came == b"answer" and call.trailers_came and call.end_came and not call.reset_came


def test_an_answer_of_trailers_only() -> None:
    pair = settled(Pair())
    id = pair.open([], end=True)
    settled(pair)
    pair.finish(pair.calls[id])
    settled(pair)
    assert pair.calls[id].end_came and pair.calls[id].trailers_came


def test_an_answer_before_the_request_has_ended_stops_it() -> None:
    pair = settled(Pair())
    id = pair.open([])
    settled(pair)
    pair.finish(pair.calls[id])
    settled(pair)
    assert pair.calls[id].end_came and pair.calls[id].reset_came


@pytest.mark.parametrize("size", [65_535, 65_536, 300_000])
def test_an_answer_waits_for_the_windows(size: int) -> None:
    pair = settled(Pair())
    id = pair.open([], end=True)
    settled(pair)
    call = pair.calls[id]
    pair.push(call, bytes(size))
    pair.finish(call)
    settled(pair)
    assert len(call.came) == min(size, 65_535) and call.end_came == (size <= 65_535)
    while not call.end_came:
        pair.client.acknowledge_received_data(call.unacknowledged, id)
        call.unacknowledged = 0
        settled(pair)
    assert call.came == bytes(size)


def test_an_upload_goes_on_as_it_is_read() -> None:
    pair = settled(Pair())
    id = pair.open([])
    settled(pair)
    call = pair.calls[id]
    for _ in range(500):
        before = len(call.received)
        pair.send(id, bytes(10_000))
        settled(pair)
        assert len(call.received) == before + 10_000
        pair.http2.consumed(call.stream, call.unread)
        call.unread = 0


def test_both_sides_ping() -> None:
    pair = settled(Pair())
    pair.client.ping(b"up there")
    pair.carry_up(1 << 20)
    pair.flush()
    (answer,) = pair.client.receive_data(bytes(pair.down))
    assert isinstance(answer, h2.events.PingAckReceived) and answer.ping_data == b"up there"
    pair.down.clear()
    pair.http2.ping(b"downward")
    settled(pair)
    assert pair.pongs == [b"downward"]


def test_a_client_is_told_to_go() -> None:
    pair = settled(Pair())
    id = pair.open([], end=True)
    settled(pair)
    pair.http2.goaway()
    pair.flush()
    (event,) = pair.client.receive_data(bytes(pair.down))
    assert isinstance(event, h2.events.ConnectionTerminated)
    assert (event.last_stream_id, event.error_code) == (id, 0)


def test_a_client_that_goes_away_gets_its_answers() -> None:
    pair = settled(Pair())
    id = pair.open([], end=True)
    settled(pair)
    pair.client.close_connection()
    pair.carry_up(1 << 20)
    assert pair.http2.is_open(pair.calls[id].stream)


@pytest.mark.parametrize("seed", range(10))
def test_headers_that_change_and_repeat_themselves(seed: int) -> None:
    """The client's table fills, and pushes entries out; what the server says of each head is what was sent."""
    chance = random.Random(seed)
    pair = settled(Pair())
    values = [b"v" * chance.randrange(200) + b"%d" % number for number in range(40)]
    common: list[Fields] = [
        [(b"te", b"trailers")],
        [(b"te", b"trailers"), (b"user-agent", b"h2")],
        [(b"authorization", b"secret")],
    ]
    for _ in range(600):
        fields = chance.choice(common)
        if chance.random() < 0.3:
            fields = [*fields, (b"x-%d" % chance.randrange(6), chance.choice(values))]
        if chance.random() < 0.01:
            resize(pair.client.encoder, chance.choice([0, 100, 1000, 4096]))
        call = pair.calls[pair.open(fields, end=True)]
        pair.settle(random_sizes(chance) if chance.random() < 0.1 else endless(1 << 20))
        assert call.stream is not None  # its fields were compared when it was opened
        pair.finish(call)
        settled(pair)
        assert call.end_came


# Anything at any time


class Sessions(RuleBasedStateMachine):
    """Any order of what both sides may do, with the wire as slow as it likes."""

    @initialize(window=st.sampled_from([0, 1, 100, 65_535, 200_000]))
    def begin(self, window: int) -> None:
        self.pair = Pair(max_streams=6)
        if window != 65_535:
            self.pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.pair.settle(endless(1 << 20))

    def some(self, which: str, choice: int) -> tuple[int, Call] | None:
        found = [(id, call) for id, call in self.pair.calls.items() if getattr(call, which)]
        return found[choice % len(found)] if found else None

    @rule(
        fields=st.lists(
            st.tuples(st.sampled_from([b"a", b"b", b"te2", b"x-long"]), st.sampled_from([b"", b"1", b"2", b"v" * 500])),
            max_size=4,
        ),
        end=st.booleans(),
    )
    def request(self, fields: Fields, end: bool) -> None:
        if self.pair.client.open_outbound_streams < 6:
            self.pair.open(fields, end=end)

    @rule(
        choice=st.integers(0, 9),
        size=st.sampled_from([0, 1, 100, 5000, 16_384]),
        end=st.booleans(),
        padding=st.none() | st.integers(0, 255),
    )
    def send(self, choice: int, size: int, end: bool, padding: int | None) -> None:
        if found := self.some("writing", choice):
            self.pair.send(found[0], random.Random(size + choice).randbytes(size), end=end, padding=padding)

    @rule(choice=st.integers(0, 9))
    def trail(self, choice: int) -> None:
        if found := self.some("writing", choice):
            self.pair.client.send_headers(found[0], [(b"checksum", b"%d" % choice)], end_stream=True)
            found[1].ended = True

    @rule(choice=st.integers(0, 9))
    def cancel(self, choice: int) -> None:
        found = self.some("writing", choice)
        if found and not found[1].end_came:
            self.pair.cancel(found[0])

    @rule(window=st.sampled_from([0, 10, 1000, 65_535, 100_000]))
    def change_windows(self, window: int) -> None:
        self.pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})

    @rule(size=st.sampled_from([0, 100, 4096]))
    def change_table(self, size: int) -> None:
        resize(self.pair.client.encoder, size)

    @rule()
    def ping(self) -> None:
        self.pair.client.ping(b"01234567")

    @rule(more=st.sampled_from([1, 1000, 70_000]), choice=st.integers(0, 9))
    def open_window(self, more: int, choice: int) -> None:
        self.pair.client.increment_flow_control_window(more)
        found = self.some("head_came", choice)
        if found and not (found[1].end_came or found[1].reset_by_client or found[1].reset_came):
            self.pair.client.increment_flow_control_window(more, found[0])

    @rule(choice=st.integers(0, 9), sizes=st.lists(st.sampled_from([1, 5, 300, 4096, 20_000, 80_000]), max_size=4))
    def answer(self, choice: int, sizes: list[int]) -> None:
        if found := self.some("answering", choice):
            for size in sizes:
                self.pair.push(found[1], random.Random(size + choice).randbytes(size))

    @rule(choice=st.integers(0, 9))
    def finish(self, choice: int) -> None:
        if found := self.some("answering", choice):
            self.pair.finish(found[1])

    @rule(choice=st.integers(0, 9))
    def refuse(self, choice: int) -> None:
        if found := self.some("answering", choice):
            self.pair.refuse(found[1])

    @rule(choice=st.integers(0, 9))
    def read(self, choice: int) -> None:
        if (found := self.some("unread", choice)) and found[1].stream is not None:
            self.pair.http2.consumed(found[1].stream, found[1].unread)
            found[1].unread = 0

    @rule()
    def flush(self) -> None:
        self.pair.down += self.pair.outbox.take()

    @rule(size=st.sampled_from([1, 5, 9, 14, 100, 20_000, 1 << 20]))
    def carry_up(self, size: int) -> None:
        self.pair.carry_up(size)

    @precondition(lambda self: self.pair.down)
    @rule(size=st.sampled_from([1, 5, 9, 14, 100, 20_000, 1 << 20]))
    def carry_down(self, size: int) -> None:
        self.pair.carry_down(size)

    @invariant()
    def nothing_is_invented(self) -> None:
        for call in self.pair.calls.values():
            assert call.sent.startswith(call.received)
            assert call.pushed.startswith(call.came)
            assert not call.trailers_came or call.finished
            assert not call.end_seen or (call.ended and call.received == call.sent)

    def teardown(self) -> None:
        """With all windows open, everything arrives that neither side has reset."""
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        pair.settle(endless(1 << 20))
        pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        pair.client.increment_flow_control_window(1 << 24)
        pair.settle(endless(1 << 20))
        for call in pair.calls.values():
            if call.reset_by_client:
                assert call.reset_seen or call.finished or call.reset_by_server
                continue
            assert call.stream is not None
            if call.reset_by_server:
                assert call.reset_came
                continue
            assert call.came == call.pushed
            assert call.finished == call.trailers_came == call.end_came
            if not call.finished:
                assert call.received == call.sent and call.end_seen == call.ended
        assert not pair.starved and pair.outbox.empty


# A failure is shown as it was found: to make it smaller takes longer than a test may.
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, phases=QUICK)
