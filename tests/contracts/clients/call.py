"""A call as every scenario sees it, and what a protocol's client must offer to be held to the list."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

from raffel_core.route import Kind
from raffel_core.server import Server

PATIENCE = 5.0
"""Seconds after which a client gives up. No scenario waits for it unless something is wrong."""


class Can(StrEnum):
    """What not every protocol carries."""

    CANCEL = "end a call without leaving"
    IDS = "show the id of an item"
    RESUME = "say the id of the last item that was seen"
    SHARE = "open many calls on one connection"
    BINARY = "carry bytes as bytes, for calls that ask for it"
    TEXT = "give values that JSON has no type for as text"
    WRONG = "send what is of another type than was declared"
    UNTYPED = "carry an item that is not of the type that was declared"
    SCALARS = "bring an input of any type that is neither an object nor an array"
    OPENING = "bring an input for a stream that reads items"
    KINDS = "ask for a stream and for a procedure in different ways"


class Nothing(msgspec.Struct, frozen=True):
    """No input at all, which is something else than null."""


NOTHING = Nothing()


class Item(msgspec.Struct, frozen=True):
    data: Any
    id: str | None = None


class End(msgspec.Struct, frozen=True):
    """The call ended as its handler did; `result` is that of a procedure or of a client stream."""

    result: Any = NOTHING


class Failed(msgspec.Struct, frozen=True):
    """The call ended with an error object."""

    code: str
    message: str
    details: Any = None


class Retry(msgspec.Struct, frozen=True):
    """The stream is to be asked for again after this time, as browsers do by themselves."""

    milliseconds: int
    code: str = "UNAVAILABLE"
    """What protocols say that have no such word."""


class Cut(msgspec.Struct, frozen=True):
    """The connection ended in the middle of the call."""


Outcome = End | Failed | Retry | Cut


def failed(error: Mapping[str, Any]) -> Failed:
    """An error object of the wire, which has no other members."""
    assert {"code", "message"} <= set(error) <= {"code", "message", "details"}, error
    assert "details" not in error or error["details"] is not None, error
    return Failed(**error)


def reset_on_close(fileno: int) -> None:
    """Has a connection end with an RST and no FIN when it is closed."""
    with socket.socket(fileno=os.dup(fileno)) as sock:  # loops keep their own from us
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Call:
    """One call. Its protocol's client tells what comes in by `arrive` and `finish`; the rest is for scenarios."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[Item | Outcome] = asyncio.Queue()
        self.over = False

    def arrive(self, item: Item) -> None:
        assert not self.over, f"{item} after the end"
        self._came.put_nowait(item)

    def finish(self, outcome: Outcome) -> None:
        assert not self.over, f"{outcome} after the end"
        self.over = True
        self._came.put_nowait(outcome)

    async def _next(self) -> Item | Outcome:
        async with asyncio.timeout(PATIENCE):
            came = await self._came.get()
        if not isinstance(came, Item):
            self._came.put_nowait(came)
        return came

    async def item(self) -> Item:
        """The next item; fails where the call has ended instead."""
        item = await self._next()
        assert isinstance(item, Item), f"found {item}, expected an item"
        return item

    async def data(self) -> Any:
        return (await self.item()).data

    async def all(self) -> tuple[list[Any], Outcome]:
        """The data of all further items, and the end."""
        items = []
        while isinstance(came := await self._next(), Item):
            items.append(came.data)
        return items, came

    async def outcome(self) -> Outcome:
        """How the call ends, after whatever items still come."""
        return (await self.all())[1]

    async def value(self) -> Any:
        """The one thing that a call of any kind gives: its result or its only item."""
        items, outcome = await self.all()
        assert isinstance(outcome, End), outcome
        values = items if outcome.result is NOTHING else [*items, outcome.result]
        assert len(values) == 1, values
        return values[0]

    async def failure(self) -> Failed:
        """The error of a call that has nothing to give."""
        items, outcome = await self.all()
        assert isinstance(outcome, Failed) and not items, (items, outcome)
        return outcome

    async def leave(self, *, reset: bool = False) -> None:
        """Vanishes, without a word; with `reset`, as a machine that knows nothing of the connection any more."""
        raise NotImplementedError  # each client has its own way

    async def cancel(self) -> None:
        """Ends the call and keeps the connection."""
        raise NotImplementedError  # no scenario asks it of a protocol without Can.CANCEL

    async def send(self, data: Any) -> None:
        """Sends an item."""
        raise NotImplementedError  # no scenario asks it of a protocol that carries no items up: `Carrier.kinds`

    async def end(self) -> None:
        """Says that there are no more items."""
        raise NotImplementedError  # as `send`


class Client(Protocol):
    """One client of a server: over one connection, where its protocol lets calls share one."""

    async def open(
        self,
        kind: Kind,
        name: str,
        input: Any = NOTHING,
        *,
        metadata: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        timeout_ms: object = None,
        binary: bool = False,
    ) -> Call:
        """Asks for a call of this kind; whatever comes of it is told by the call."""

    def weigh(self, kind: Kind, name: str, input: Any) -> int:
        """The bytes of the message that brings this input: what the limit counts."""

    def weigh_item(self, data: Any) -> int:
        """The bytes of the message that brings this item."""

    def pause(self) -> None:
        """Takes nothing more from the network."""

    def resume(self) -> None:
        """Takes from the network again."""

    async def close(self) -> None:
        """Leaves politely. Fails where the server said anything that its protocol does not have."""


class Carrier(NamedTuple):
    """One protocol: the kinds of calls that it carries, what it can beside, and its client."""

    name: str
    """What handlers see as `ctx.protocol`."""
    title: str
    """What messages for people call it."""
    kinds: frozenset[Kind]
    can: frozenset[Can]
    connect: Callable[[Server], Awaitable[Client]]

    def __str__(self) -> str:
        return self.name
