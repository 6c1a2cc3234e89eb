"""The pump of connections that many streams share: from a handler's `yield` to the queue of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from raffel_core.protocols.items import mark_of
from raffel_core.route import Route
from raffel_core.schema.invalid import OUTPUT, UNWRITABLE, unwritable
from raffel_core.session import Session
from raffel_core.stream import RaffelStream
from raffel_core.wire.lanes import Queue
from raffel_core.wire.outbox import CHECK_BYTES, SLICE_SECONDS

if TYPE_CHECKING:
    from raffel_core.protocols.multiplexed import MultiplexedConnection

_NO_TURN = 0
_HEADS = 512


class Form(NamedTuple):
    """How the items of one opening become messages."""

    exact: type | None
    """The type whose items are encoded unseen."""
    fits: Callable[[object], bool]
    """Whether another item may be encoded as it is."""
    encode: Callable[[Any], bytes]
    head: Callable[[int], bytes]
    """What comes before a payload of this size."""
    tail: bytes
    extra: int
    """Bytes of head and tail."""
    push_other: Callable[[Queue, Any], int]
    """Pushes any other item, and returns the size of its message."""


class Call(Protocol):
    """A call as its pump sees it."""

    credit: int | None
    """How many items may be sent; None: any number."""

    @property
    def queue(self) -> Queue:
        """Replaced by an empty one where what is queued must not be sent."""

    @property
    def connection(self) -> MultiplexedConnection: ...

    @property
    def session(self) -> Session: ...

    async def more(self) -> None:
        """Waits for credit."""


def prioritise(call: Call, items: object, route: Route) -> None:
    """Puts a call into the lane that its items or its route ask for."""
    if not call.queue.listed:
        call.queue.priority = items.priority if isinstance(items, RaffelStream) else route.meta.priority


async def pump(call: Call, items: AsyncIterator[Any], form: Form) -> None:
    """Takes the items of one opening to the outbox."""
    connection, session, queue = call.connection, call.session, call.queue
    hub, outbox = connection.hub, connection.outbox
    exact, fits, encode, make_head, tail, extra, push_other = form
    heads = dict[int, bytes]()
    append, credited = queue.parts.append, call.credit is not None
    mark = mark_of(items, session.route, hub.config)
    now = hub.loop.time
    turn, since, written, queued = _NO_TURN, now(), 0, 0
    share = connection.share(queue)
    checkpoint = min(CHECK_BYTES, share)
    async for item in items:
        if credited:
            if call.credit == 0:
                await call.more()
            call.credit -= 1  # type: ignore[operator]  # `credited` says that there is one
        if type(item) is exact or fits(item):
            try:
                data = encode(item)
            except UNWRITABLE as error:
                raise unwritable(OUTPUT, error) from error
            size = len(data)
            try:
                head = heads[size]
            except KeyError:
                head = make_head(size)
                if len(heads) < _HEADS:
                    heads[size] = head
            append(head)
            append(data)
            append(tail)
            size += extra
        else:
            size = push_other(queue, item)
        written += size
        if outbox.turn is not turn:
            if session.interrupted or outbox.closed:
                if queue is not call.queue:
                    queue.parts.clear()
                raise asyncio.CancelledError
            turn = outbox.announce(queue) or _NO_TURN
            if turn == _NO_TURN:
                queued += 1
                if outbox.full(queue, size) or queued >= mark or written >= share:
                    await connection.room_for(queue)
                    written, queued, since, share = 0, 0, now(), connection.share(queue)
                    checkpoint = min(CHECK_BYTES, share)
                    if session.interrupted or outbox.closed:
                        raise asyncio.CancelledError
            elif not outbox.dirty:
                outbox.dirty = True
                hub.flush_soon(connection)
        if written > checkpoint:
            if written < share and now() - since < SLICE_SECONDS:
                checkpoint = written + CHECK_BYTES
                continue
            await connection.give_turn(queue, share)
            if session.interrupted:
                raise asyncio.CancelledError
            written, queued, since, share = 0, 0, now(), connection.share(queue)
            checkpoint = min(CHECK_BYTES, share)
