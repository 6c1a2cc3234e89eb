"""Which message means what for which stream: the rules of the envelope protocol as one table.

All state of a stream that decides whether a message is legal is here: a state is its row, and no other module asks.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from raffel_core.errors import RaffelError
from raffel_core.wire.envelope import (
    CANCEL,
    CREDIT,
    DATA,
    END,
    MAX_CREDIT,
    NO_DATA,
    REQUEST,
    START,
    Envelope,
    Violation,
    encode,
    error,
    read_json,
    read_message,
    stream_error,
)

REMEMBERED = 1024
"""How many ids are known to have ended: messages to them have crossed the end on the wire."""


class Act(Enum):
    """What a message asks for."""

    OPEN = "open the call"
    ITEM = "give the item to the handler"
    FINISH = "end what the handler reads"
    CANCEL = "cancel the call"
    GRANT = "let the handler send more"
    DROP = "nothing"
    UNKNOWN = "answer NOT_FOUND"
    IN_USE = "answer ALREADY_EXISTS"
    OUT_OF_TURN = "answer FAILED_PRECONDITION"


State = Mapping[str, Act]
"""A row of the table: what each type of message asks for."""

# A repeated `stream:end` says nothing new; a cancel, a grant and an item may have crossed the end of their stream.
NEW: State = {
    REQUEST: Act.OPEN,
    START: Act.OPEN,
    DATA: Act.UNKNOWN,
    END: Act.UNKNOWN,
    CANCEL: Act.DROP,
    CREDIT: Act.DROP,
}
UNARY: State = {
    REQUEST: Act.IN_USE,
    START: Act.IN_USE,
    DATA: Act.OUT_OF_TURN,
    END: Act.DROP,
    CANCEL: Act.CANCEL,
    CREDIT: Act.DROP,
}
SERVER: State = {**UNARY, CREDIT: Act.GRANT}
READING: State = {**SERVER, DATA: Act.ITEM, END: Act.FINISH}
"""A client or bidi stream whose client may send."""
READ: State = SERVER
"""A client or bidi stream whose client has sent its `stream:end`: nothing sets it apart from a server stream."""
ENDED: State = dict.fromkeys((REQUEST, START), Act.OPEN) | dict.fromkeys((DATA, END, CANCEL, CREDIT), Act.DROP)


# Nothing but a member's name can come before a colon that a value follows, and no name ends so without a backslash.
_BEFORE_PAYLOAD = re.compile(rb'[,{\s]"payload"\s*:\s*\Z')


class Stream:
    """One id of a connection, as the rules see it."""

    __slots__ = ("allowance", "credit", "id", "state")

    def __init__(self, id: str, state: State, credit: int | None = None, allowance: int | None = None) -> None:
        self.id = id
        self.state = state
        self.credit = credit
        """How many items the server may send; None: any number."""
        self.allowance = allowance
        """How many items the client may send; None: any number."""

    def grant(self, credit: int) -> bool:
        """Adds to the credit; False, and nothing is added, where the sum is beyond the maximum."""
        if self.credit is None:
            return True
        if self.credit + credit > MAX_CREDIT:
            return False
        self.credit += credit
        return True


S = TypeVar("S", bound=Stream)


class EnvelopeProtocol(Generic[S]):
    """The streams of one connection by their ids."""

    __slots__ = ("_ended", "lead", "leader", "open")

    def __init__(self) -> None:
        self.open: dict[str, S] = {}
        self._ended: OrderedDict[str, None] | None = None  # an idle connection needs none
        self.leader: S | None = None
        """The stream that sent the last item, while it may send more."""
        self.lead = b""
        """How its items begin: this, any JSON value and a brace are one more."""

    def receive(self, message: bytes, *, text: bool = False) -> tuple[Act, Envelope, S | None] | Violation:
        """What a message asks for, and of which open stream. `text`: the message can only be JSON."""
        envelope = read_json(message) if text else read_message(message)
        if isinstance(envelope, Violation):
            return envelope
        stream = self.open.get(envelope.id)
        if stream is not None:
            act = stream.state[envelope.type]
            if act is Act.ITEM and stream is not self.leader:
                self._follow(message, envelope, stream)
            return act, envelope, stream
        known = self._ended is not None and envelope.id in self._ended
        return (ENDED if known else NEW)[envelope.type], envelope, None

    def _follow(self, message: bytes, envelope: Envelope, stream: S) -> None:
        """Learns how the items of a stream begin, where the payload is the last member of the message."""
        payload = bytes(envelope.payload)
        end = len(message) - len(payload) - 1
        if envelope.data is NO_DATA and message.endswith(payload + b"}") and _BEFORE_PAYLOAD.search(message, 0, end):
            self.leader, self.lead = stream, message[:end]

    def _forget(self, stream: S | None) -> None:
        if stream is self.leader:
            self.leader, self.lead = None, b""

    def add(self, stream: S) -> None:
        """Takes a stream's id into use."""
        self.open[stream.id] = stream
        if self._ended is not None:
            self._ended.pop(stream.id, None)

    def finish(self, stream: S) -> None:
        """The client has ended what it sends."""
        stream.state = READ
        self._forget(stream)

    def end(self, id: str) -> None:
        """The server has ended this id, or refused to open it; it may be used again."""
        self._forget(self.open.pop(id, None))
        if self._ended is None:
            self._ended = OrderedDict()
        self._ended[id] = None
        self._ended.move_to_end(id)
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def refuse(self, type: str | None, id: str | None, problem: RaffelError) -> bytes:
        """The answer to a message that cannot be followed.

        One that would have opened a stream ends it; every other answer is an `error`, which ends no stream.
        """
        if id is None:
            return error(None, problem)
        if type in (START, REQUEST):
            if id in self.open:
                return error(encode(id), in_use(id))
            self.end(id)
        return stream_error(encode(id), problem) if type == START else error(encode(id), problem)


def in_use(id: str) -> RaffelError:
    return RaffelError("ALREADY_EXISTS", f"the id {id!r} is in use", details={"reason": "id_in_use"})


def unknown(id: str) -> RaffelError:
    return RaffelError("NOT_FOUND", f"no stream has the id {id!r}")


def out_of_turn(stream: Stream, type: str) -> RaffelError:
    return RaffelError(
        "FAILED_PRECONDITION", f"{stream.id!r} takes no {type!r}: its client sends nothing, or has ended"
    )
