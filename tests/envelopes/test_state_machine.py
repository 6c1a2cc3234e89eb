"""Any program of messages over a live server: one end for each call, in order, nothing after it, and nothing left.

A program is data: steps of what two clients send, one over WebSocket and one over TCP, with as many turns of the loop
between them as it says. What came back is then explained id by id by a model of PROTOCOL.md, section 4.
`RAFFEL_SOAK=1000` runs as many programs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raffel_core.config import Config
from raffel_core.context import Context
from raffel_core.errors import RaffelError
from raffel_core.protocols import envelopes
from raffel_core.server import Server
from raffel_core.stream import RaffelStream

PROGRAMS = int(os.environ.get("RAFFEL_SOAK", "150"))
PATIENCE = 3.0
"""Seconds after which a program counts as stuck."""

MARK = 4
"""The `high_water_mark`: what a client that asked for credit is granted at first. More comes two by two."""
BATCH = 2
LIMIT = 16 * 1024
MAX_CREDIT = 2**31 - 1
CANCEL_SECONDS = 0.002
"""How long the answer to a `cancel` waits in these tests; a long cleaning up takes three times as long."""

pytestmark = pytest.mark.timeout(120 + PROGRAMS)


# The handlers: each does what its script says


class Script(msgspec.Struct, frozen=True):
    """What a handler is to do. A reading one takes `take` items, or all of them."""

    of: int = 0
    """The number of the call: what it sends can be told apart from what others do under its id."""
    items: int = 0
    take: int | None = None
    lenient: bool = False
    """Whether it goes on after an item that is not what the schema wants."""
    then: Literal["end", "raise", "crash", "wait"] = "end"
    cleanup: Literal["none", "turns", "long", "late"] = "none"
    """What it does in its `finally`; `late` yields once more after its cancellation."""
    pace: int = 0
    pad: int = 0


class Item(msgspec.Struct):
    n: int


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def finish(script: Script) -> None:
    if script.then == "wait":
        await asyncio.Event().wait()
    if script.then == "raise":
        raise RaffelError("OWN", "as the script says")
    if script.then == "crash":
        raise ZeroDivisionError("as the script says")


async def clean_up(script: Script) -> None:
    if script.cleanup == "turns":
        await turns(3)
    elif script.cleanup != "none":
        await asyncio.sleep(3 * CANCEL_SECONDS)


async def taken(script: Script, input: RaffelStream[Any]) -> AsyncIterator[int | None]:
    """The items that a script wants; None for one that is not what the schema wants."""
    count = 0
    while script.take is None or count < script.take:
        try:
            chunk = await input.read()
        except RaffelError as error:
            if error.code != "VALIDATION_ERROR" or not script.lenient:
                raise
            yield None
        else:
            if chunk.done:
                return
            yield chunk.value.n
        count += 1
        await turns(script.pace)


async def down(input: Script, ctx: Context) -> AsyncIterator[dict[str, Any]]:
    try:
        for n in range(input.items):
            yield {"of": input.of, "n": n, "pad": "x" * input.pad}
            await turns(input.pace)
        await finish(input)
    except asyncio.CancelledError:
        if input.cleanup != "late":
            raise
        await clean_up(input)
        yield {"of": input.of, "late": True}
    finally:
        await clean_up(input)


async def up(input: RaffelStream[Any], ctx: Context) -> dict[str, Any]:
    script = msgspec.convert(ctx.input, Script)
    try:
        got = [n async for n in taken(script, input)]
        await finish(script)
        return {"of": script.of, "got": got}
    finally:
        await clean_up(script)


async def both(input: RaffelStream[Any], ctx: Context) -> AsyncIterator[dict[str, Any]]:
    script = msgspec.convert(ctx.input, Script)
    try:
        for n in range(script.items):
            yield {"of": script.of, "n": n, "pad": "x" * script.pad}
        async for n in taken(script, input):
            yield {"of": script.of, "echo": n}
        await finish(script)
    except asyncio.CancelledError:
        if script.cleanup != "late":
            raise
        await clean_up(script)
        yield {"of": script.of, "late": True}
    finally:
        await clean_up(script)


async def one(input: Script, ctx: Context) -> dict[str, Any]:
    try:
        await turns(input.pace)
        await finish(input)
        return {"of": input.of}
    finally:
        await clean_up(input)


def built() -> Server:
    limits = {"message_bytes": LIMIT, "high_water_mark": MARK}
    options = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.2, "limits": limits}
    server = Server(msgspec.convert(options, Config))
    server.stream("down").input(Script).handler(down)
    server.stream("up").direction("client").input(Item).handler(up)
    server.stream("both").direction("bidi").input(Item).handler(both)
    server.procedure("one").input(Script).handler(one)
    return server


# Programs


class Open(NamedTuple):
    """A `request` or a `stream:start`, also one that cannot be opened."""

    id: int
    type: Literal["request", "stream:start"]
    procedure: Literal["down", "up", "both", "one", "nowhere"]
    script: Script
    credit: int | None
    priority: int | None
    timeout: str | None
    bad: Literal["", "envelope", "input"]


class Data(NamedTuple):
    """An item. Its id, like those of all that follow: 0 is that of the last opening, 1 that of the one before."""

    id: int
    good: bool
    count: int = 1
    """How many, one behind the other."""
    greedy: bool = True
    """Whether it is sent also where it has not been granted."""


class End(NamedTuple):
    id: int


class Cancel(NamedTuple):
    id: int


class Credit(NamedTuple):
    id: int
    credit: int | None


class Junk(NamedTuple):
    """A message that is none; with an id where it has one."""

    id: int | None
    number: int


class Hear(NamedTuple):
    """Whether the client reads from now on."""

    reads: bool


class Leave(NamedTuple):
    """The end of a connection; what is sent after it goes to a new one."""

    how: Literal["fin", "reset", "goodbye", "too large"]


Op = Open | Data | End | Cancel | Credit | Junk | Hear | Leave


class Step(NamedTuple):
    """What a client sends as one write, and the turns of the loop after it; -1 is the time of a late answer."""

    client: int
    ops: list[Op]
    turns: int


IDS = ("a", 'ü"\\', "wide", "wider")
WIDE = (2, 3)
"""The ids of calls that may say much and have a priority; they are used again only once the end was seen.

The other ids may be used again before: whatever they say fits into one turn of one lane, so that it keeps its order.
"""
BAD_GRANTS = (None, 0, -1, MAX_CREDIT + 1)
JUNK: tuple[tuple[bytes, str], ...] = (
    (b"{", "PARSE_ERROR"),
    (b"\xff\xfe", "PARSE_ERROR"),
    (b"[" * 600 + b"]" * 600, "PARSE_ERROR"),
    (b"[]", "INVALID_ENVELOPE"),
    (b'{"type":"stream:start","id":7}', "INVALID_ENVELOPE"),
    (b'{"type":"nope"}', "INVALID_TYPE"),
)
JUNK_WITH_ID: tuple[tuple[bytes, str], ...] = (
    (b'{"type":"nope","id":%b}', "INVALID_TYPE"),
    (b'{"id":%b}', "INVALID_ENVELOPE"),
    (b'{"type":"stream:data","id":%b,"binary":7}', "INVALID_ENVELOPE"),
    (b'{"type":"cancel","id":%b,"metadata":[]}', "INVALID_ENVELOPE"),
)

ids = st.sampled_from((0, 0, 0, 0, 1, 2, 3))
scripts = st.builds(
    Script,
    items=st.integers(0, 6),
    take=st.sampled_from((None, None, None, 0, 1, 3)),
    lenient=st.booleans(),
    then=st.sampled_from(("end", "end", "end", "raise", "crash", "wait", "wait")),
    cleanup=st.sampled_from(("none", "none", "turns", "long", "late")),
    pace=st.sampled_from((0, 0, 1, 3)),
    pad=st.sampled_from((0, 0, 30_000)),
)
opens = st.builds(
    lambda procedure, stray, **fields: Open(
        type="request" if (procedure == "one") is not stray else "stream:start", procedure=procedure, **fields
    ),
    id=st.sampled_from((0, 0, 1, 2, 3)),
    procedure=st.sampled_from(("down", "down", "up", "up", "both", "both", "both", "one", "one", "nowhere")),
    stray=st.sampled_from((False,) * 11 + (True,)),
    script=scripts,
    credit=st.sampled_from((None, None, 1, 2, 5, MAX_CREDIT)),
    priority=st.sampled_from((None, None, -128, 127)),
    timeout=st.sampled_from((None,) * 8 + ("1", "3", "x")),
    bad=st.sampled_from(("",) * 14 + ("envelope", "input")),
)
kinds_of_ops: dict[str, st.SearchStrategy[Op]] = {
    "open": opens,
    "data": st.builds(
        Data,
        ids,
        st.sampled_from((True,) * 7 + (False,)),
        st.sampled_from((1, 1, 2, 3, 6, 12)),
        st.sampled_from((False, False, True)),
    ),
    "end": st.builds(End, ids),
    "cancel": st.builds(Cancel, ids),
    "credit": st.builds(Credit, ids, st.sampled_from((1, 2, 3, 5) * 3 + (MAX_CREDIT, *BAD_GRANTS))),
    "junk": st.builds(Junk, st.none(), st.integers(0, len(JUNK) - 1)) | st.builds(Junk, ids, st.integers(0, 3)),
    "hear": st.builds(Hear, st.booleans()),
    "leave": st.builds(Leave, st.sampled_from(("fin", "reset", "goodbye", "too large"))),
}
often = ("open",) * 8 + ("data",) * 8 + ("credit",) * 5 + ("end", "cancel") * 3 + ("junk",) * 2 + ("hear", "leave")
ops = st.sampled_from(often).flatmap(kinds_of_ops.__getitem__)
bursts = st.lists(ops, min_size=1, max_size=6)
steps = st.builds(
    Step,
    client=st.integers(0, 1),
    ops=bursts | st.builds(lambda first, rest: [first, *rest], opens, bursts),
    turns=st.sampled_from((0, 1, 1, 2, 3, 5, 10, -1)),
)
programs = st.lists(steps, min_size=1, max_size=12)


# The clients


class Sent(NamedTuple):
    """A message as it was sent, and what its client knew then."""

    op: Open | Data | End | Cancel | Credit | Junk
    number: int
    """Of the call for an opening, of the item for an item."""
    ends: int
    """How many ends the client had surely seen under this id."""
    granted: bool
    """Whether the client knew that the server would take this item."""


Message = dict[str, Any]

SURE_ENDS = {"stream:end", "stream:error", "response"}
CALL_CODES = {"CANCELLED", "OWN", "INTERNAL_ERROR", "DEADLINE_EXCEEDED", "VALIDATION_ERROR", "RESOURCE_EXHAUSTED"}
"""What calls end with here. Every other code is that of an opening that was refused, or of a complaint."""


class Client(asyncio.Protocol):
    """One connection: sends what a program says and keeps all that comes, as it comes."""

    transport: asyncio.Transport

    def __init__(self, websocket: bool) -> None:
        self.websocket = websocket
        self.received: list[Message] = []
        self.sent: list[Sent] = []
        self.over = False
        """Whether the program ended this connection."""
        self.expected: list[str] = []
        """The codes of the errors without an id that must come."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.upgraded = asyncio.get_running_loop().create_future()
        self._raw = bytearray()
        self._out = bytearray()
        self.closed = False
        """Whether the server has said goodbye."""
        self._last = [0, 1, 2, 3]
        self._room: dict[int, int] = {}
        """Items that each call may still send us, where that is bounded."""

    # What comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is one in all but its class
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.websocket:
            key = base64.b64encode(bytes(16)).decode()
            lines = ["GET /ws HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"]
            lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "", ""]
            self.transport.write("\r\n".join(lines).encode())
        else:
            self.upgraded.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.upgraded.done():
            self.upgraded.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self.upgraded.done():
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._raw = rest
            self.upgraded.set_result(None)
        while (message := self._next()) is not None:
            if message:
                self._take(json.loads(message))

    def _next(self) -> bytes | None:
        """The next message; b"" for a control frame."""
        raw = self._raw
        if not self.websocket:
            size, start = int.from_bytes(raw[:4]), 4
        elif len(raw) < 2:
            return None
        else:
            size, start = raw[1], 2
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(raw[2:start])
        if len(raw) < start or len(raw) < start + size:
            return None
        message, opcode = bytes(raw[start : start + size]), raw[0] & 0x0F if self.websocket else 1
        del raw[: start + size]
        assert not self.closed, f"behind the close frame: {bytes(raw[:200])!r}"
        if opcode == 8:
            self.closed = True
            self.transport.close()
        return b"" if opcode >= 8 else message

    def _take(self, message: Message) -> None:
        self.received.append(message)
        if message["type"] == "stream:data":
            of = message["payload"]["of"]
            if of in self._room:
                self._room[of] -= 1
                assert self._room[of] >= 0, f"more items than there was credit for: {message}"

    # What is sent

    def send(self, op: Op, number: int) -> None:
        if isinstance(op, Leave):
            self.leave(op.how)
        elif isinstance(op, Hear):
            self.flush()
            (self.transport.resume_reading if op.reads else self.transport.pause_reading)()
        elif isinstance(op, Junk) and op.id is None:
            data, code = JUNK[op.number]
            self.expected.append(code)
            self._write(data)
        else:
            assert op.id is not None
            if not isinstance(op, Open):
                op = op._replace(id=self._last[op.id])
            elif self._last[0] != op.id:
                self._last = [op.id, *(id for id in self._last if id != op.id)]
            id = IDS[op.id]
            mine = [message for message in self.received if message.get("id") == id]
            ends = sum(_surely_an_end(message) for message in mine)
            if isinstance(op, Open):
                if op.id not in WIDE:
                    op = op._replace(priority=None, script=msgspec.structs.replace(op.script, pad=0))
                elif ends < sum(isinstance(sent.op, Open) and sent.op.id == op.id for sent in self.sent):
                    op = Cancel(op.id)
            granted = self._is_granted(op, mine)
            if isinstance(op, Data) and not (op.greedy or granted is not False):
                return
            self.sent.append(Sent(op, number, ends, bool(granted)))
            self._write(self._written(op, number, id))

    def _is_granted(self, op: Op, mine: list[Message]) -> bool | None:
        """Whether what we know was granted to the last call of this id covers one more item; None: it needs none."""
        opened = [n for n, sent in enumerate(self.sent) if isinstance(sent.op, Open) and sent.op.id == op.id]
        readers = [n for n in opened if is_granted_items(self.sent[n].op)]
        if not isinstance(op, Data) or not readers or readers[-1] != opened[-1]:
            return None
        marks = [
            n for n, message in enumerate(mine) if message["type"] == "stream:credit" and message["credit"] == MARK
        ]
        if len(marks) != len(readers):
            return False
        granted = sum(message["credit"] for message in mine[marks[-1] :] if message["type"] == "stream:credit")
        return sum(isinstance(sent.op, Data) and sent.op.id == op.id for sent in self.sent[opened[-1] :]) < granted

    def _written(self, op: Op, number: int, id: str) -> bytes:
        match op:
            case Open():
                payload: Any = msgspec.to_builtins(msgspec.structs.replace(op.script, of=number))
                message: Message = {"type": op.type, "id": id, "procedure": op.procedure, "payload": payload}
                if op.credit is not None:
                    self._room[number] = op.credit
                    message["credit"] = op.credit
                if op.priority is not None:
                    message["priority"] = op.priority
                if op.timeout is not None:
                    message["metadata"] = {"timeout-ms": op.timeout}
                if op.bad == "envelope":
                    message["priority"] = "high"
                if is_bad_input(op):
                    payload["items"] = "many"
            case Data():
                message = {"type": "stream:data", "id": id, "payload": {"n": number if op.good else "x"}}
            case End():
                message = {"type": "stream:end", "id": id}
            case Cancel():
                message = {"type": "cancel", "id": id}
            case Credit():
                for of in self._room:
                    self._room[of] += op.credit or 0 if op.credit not in BAD_GRANTS else 0
                message = {"type": "stream:credit", "id": id}
                if op.credit is not None:
                    message["credit"] = op.credit
            case _:
                assert isinstance(op, Junk)
                return JUNK_WITH_ID[op.number][0] % json.dumps(id).encode()
        return json.dumps(message).encode()

    def _write(self, data: bytes) -> None:
        size = len(data)
        if not self.websocket:
            self._out += size.to_bytes(4) + data
            return
        try:
            data.decode()
        except UnicodeDecodeError:
            self._out.append(0x82)
        else:
            self._out.append(0x81)
        self._out += bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
        self._out += bytes(4) + data

    def flush(self) -> None:
        data = bytes(self._out)
        self._out.clear()
        if data:
            self.transport.write(data)

    def leave(self, how: str) -> None:
        self.over = True
        if how == "too large":
            self.expected.append("MESSAGE_TOO_LARGE")
            self._out += b"\x81\xfe" + (LIMIT + 1).to_bytes(2) + bytes(4) if self.websocket else (LIMIT + 1).to_bytes(4)
        elif how == "goodbye" and self.websocket:
            self._out += b"\x88\x82" + bytes(4) + (1000).to_bytes(2)
        self.flush()
        self.transport.resume_reading()
        if how == "reset":
            self.transport.abort()
        elif how == "fin" or (how == "goodbye" and not self.websocket):
            self.transport.write_eof()


def _surely_an_end(message: Message) -> bool:
    return message["type"] in SURE_ENDS or (message["type"] == "error" and message["payload"]["code"] in CALL_CODES)


def is_granted_items(op: Any) -> bool:
    """Whether this is the opening of a call whose client sends as many items as it is granted."""
    return isinstance(op, Open) and op.procedure in READS and op.credit is not None and refused(op) is None


def is_bad_input(op: Open) -> bool:
    return op.bad == "input" and op.procedure in ("down", "one")


# The model: what may come back under one id

READS = {"up", "both"}
WRITES = {"down", "both"}


class Call(NamedTuple):
    """An open call, as the server sees it."""

    number: int
    op: Open
    fed: tuple[int | None, ...] = ()
    """What the handler has been given; None for an item that is not what the schema wants."""
    finished: bool = False
    cancelled: bool = False
    exceeded: bool = False
    credit: int | None = None

    @property
    def reads(self) -> bool:
        return self.op.procedure in READS

    def taken(self) -> tuple[list[int | None], bool]:
        """What the handler takes of that, and whether it fails with the item that comes then."""
        consumed: list[int | None] = []
        for n in self.fed:
            if len(consumed) == self.op.script.take:
                break
            if n is None and not self.op.script.lenient:
                return consumed, True
            consumed.append(n)
        return consumed, False

    def outputs(self) -> tuple[list[Any], str | None]:
        """All that the handler yields with what it has been given, and how it ends then; None where it does not."""
        script, of = self.op.script, self.number
        if is_bad_input(self.op):
            return [], "VALIDATION_ERROR"
        consumed, failed = self.taken()
        outputs = [{"of": of, "n": n, "pad": "x" * script.pad} for n in range(script.items)]
        outputs += [{"of": of, "echo": n} for n in consumed]
        if self.reads and not (failed or self.finished or len(consumed) == script.take):
            return outputs, None
        if failed:
            return outputs, "VALIDATION_ERROR"
        then = {"end": "", "raise": "OWN", "crash": "INTERNAL_ERROR", "wait": None}[script.then]
        if then == "" and self.op.procedure == "up":
            return outputs, json.dumps(consumed)
        return outputs, then

    def explains(self, messages: list[Message]) -> bool:
        """Whether these can be all the messages of this call, its end the last one, or where it was cut off."""
        outputs, end = self.outputs()
        ended = bool(messages) and messages[-1]["type"] != "stream:data"
        items = [message["payload"] for message in (messages[:-1] if ended else messages)]
        # A handler that yields in spite of its cancellation may still be heard, as long as the end was not.
        if items and self.op.script.cleanup == "late" and items[-1] == {"of": self.number, "late": True}:
            items.pop()
        if self.op.procedure not in WRITES:
            outputs = []
        if items != outputs[: len(items)]:
            return False
        if not ended:
            return True
        if self._early(messages[-1]):
            return True
        if self.credit is not None and self.op.procedure in WRITES and len(outputs) > self.credit:
            return False
        return end is not None and items == outputs and self._natural(messages[-1], end)

    def rests(self, messages: list[Message], grants: list[int]) -> bool:
        """Whether everything has been said that must be said until the client says more."""
        if self.cancelled or self.exceeded or self.op.timeout is not None:
            return False
        outputs, end = self.outputs()
        if self.op.procedure == "up":
            outputs = []
            if grants and not self.finished and sum(grants) != len(self.taken()[0]) // BATCH * BATCH:
                return False
        if self.credit is not None and self.op.procedure in WRITES and len(outputs) > self.credit:
            return len(messages) == self.credit
        return end is None and len(messages) == (len(outputs) if self.op.procedure in WRITES else 0)

    def _early(self, last: Message) -> bool:
        """Whether something ended the call early that may have."""
        if last["type"] != ("error" if self.op.procedure == "one" else "stream:error"):
            return False
        code = last["payload"]["code"]
        return (
            (code == "CANCELLED" and self.cancelled)
            or (code == "RESOURCE_EXHAUSTED" and self.exceeded)
            or (code == "DEADLINE_EXCEEDED" and self.op.timeout is not None)
        )

    def _natural(self, last: Message, end: str) -> bool:
        if end.isupper():
            expected: Message = {"type": "error" if self.op.procedure == "one" else "stream:error", "code": end}
            return {"type": last["type"], "code": last.get("payload", {}).get("code")} == expected
        if self.op.procedure in WRITES:
            return last["type"] == "stream:end"
        result = {"of": self.number} if self.op.procedure == "one" else {"of": self.number, "got": json.loads(end)}
        return last["type"] == "response" and last["payload"] == result


Replies = list[tuple[str, str]]
"""Types and codes of what is said at once."""

Next = tuple[Call | None, bool, Replies]
"""The call that is open, whether the id has ever ended, and what is said."""


def followed(call: Call | None, known: bool, sent: Sent) -> Iterator[Next]:
    """What a message does, in each way that is allowed.

    There is more than one way where it depends on how far the handler has come: an item that the client had not seen
    the grant of, and a grant that would be too much unless enough items were sent already.
    """
    match sent.op:
        case Open() as op:
            answer = "stream:error" if op.type == "stream:start" else "error"
            refusal = refused(op)
            if call is not None:
                yield call, known, [("error", "ALREADY_EXISTS")]
            elif refusal is not None:
                yield None, True, [(answer, refusal)]
            else:
                yield Call(sent.number, op, credit=op.credit), known, []
        case Data() as op:
            if call is None:
                yield None, known, [] if known else [("error", "NOT_FOUND")]
            elif not call.reads or call.finished:
                yield call, known, [("error", "FAILED_PRECONDITION")]
            elif call.op.credit is None or sent.granted:
                yield call._replace(fed=(*call.fed, sent.number if op.good else None)), known, []
            else:
                if not call.exceeded and len(call.fed) < MARK + len(call.taken()[0]) // BATCH * BATCH:
                    yield call._replace(fed=(*call.fed, sent.number if op.good else None)), known, []
                if len(call.fed) >= MARK:
                    yield call._replace(exceeded=True), known, []
        case End():
            if call is None:
                yield None, known, [] if known else [("error", "NOT_FOUND")]
            else:
                yield call._replace(finished=call.reads), known, []
        case Cancel():
            yield call and call._replace(cancelled=True), known, []
        case Credit() as op:
            if op.credit in BAD_GRANTS:
                yield call, known, [("error", "INVALID_ENVELOPE")]
            elif call is None or call.credit is None or call.op.procedure == "one":
                yield call, known, []
            else:
                assert op.credit is not None
                yield call._replace(credit=call.credit + op.credit), known, []
                if call.credit + op.credit > MAX_CREDIT:
                    yield call, known, [("error", "INVALID_ENVELOPE")]
        case Junk() as op:
            yield call, known, [("error", JUNK_WITH_ID[op.number][1])]


def refused(op: Open) -> str | None:
    """Why a call cannot be opened."""
    if op.bad == "envelope":
        return "INVALID_ENVELOPE"
    if op.procedure == "nowhere":
        return "NOT_FOUND"
    if (op.procedure == "one") is not (op.type == "request"):
        return "UNIMPLEMENTED"
    return "INVALID_ARGUMENT" if op.timeout == "x" else None


class History:
    """All that was sent and came under one id of one connection, and whether the rules explain it.

    The two sides cross on the wire in one way: the server ends a call while messages to it are on their way. So a call
    may have ended before or after any message whose client had not seen that end, and here alone both are tried.
    What a call says keeps its order, and so does what the connection says of the client's messages; the latter
    may overtake the former.
    """

    def __init__(self, sent: list[Sent], received: list[Message], cut: bool) -> None:
        self.sent = sent
        self.cut = cut
        """Whether the connection ended: then what came is the beginning of what would have come."""
        self.said: Replies = []
        self.calls: list[list[Message]] = [[]]
        """What calls said, one after the other; the last one may go on."""
        self.grants: list[list[int]] = []
        for message in received:
            self._sort(message)

    def _sort(self, message: Message) -> None:
        type, code = message["type"], message.get("payload", {}) and message["payload"].get("code", "")
        if type == "stream:credit":
            if message["credit"] == MARK:
                self.grants.append([])
            else:
                assert message["credit"] == BATCH and self.grants, "a grant that nobody needed"
                self.grants[-1].append(BATCH)
        elif type in ("error", "stream:error") and code not in CALL_CODES:
            self.said.append((type, code))
        else:
            self.calls[-1].append(message)
            if type != "stream:data":
                self.calls.append([])

    def is_explained(self, *, resting: bool = False) -> bool:
        """Whether the rules explain it; `resting`: and nothing more must come, though calls may be open."""
        self._seen: set[Any] = set()
        self._resting = resting
        return self._explains(0, 0, 0, 0, None, False)

    def _explains(self, done: int, said: int, ended: int, credited: int, call: Call | None, known: bool) -> bool:
        """Whether the rules explain the rest, after so many messages, replies, ends of calls, and calls with credit."""
        key = done, said, ended, credited, call, known
        if key in self._seen:
            return False
        self._seen.add(key)
        if self._complete(done, said, ended, credited, call):
            return True
        if call is not None and ended < len(self.calls) - 1 and call.explains(self.calls[ended]):
            grants = self.grants[credited - 1] if is_granted_items(call.op) and credited <= len(self.grants) else []
            if sum(grants) <= len(call.fed) and self._explains(done, said, ended + 1, credited, None, True):
                return True
        if done == len(self.sent):
            return False
        sent = self.sent[done]
        refusals = sum(reply in _REFUSALS for reply in self.said[:said])
        if sent.ends > ended + refusals:
            return False
        for after, knows, replies in followed(call, known, sent):
            if self.said[said : said + len(replies)] != replies:
                continue
            opened = after is not None and call is None and is_granted_items(after.op)
            if opened and credited == len(self.grants) and not self.cut:
                continue
            if self._explains(done + 1, said + len(replies), ended, credited + opened, after, knows):
                return True
        return False

    def _complete(self, done: int, said: int, ended: int, credited: int, call: Call | None) -> bool:
        if said != len(self.said) or ended != len(self.calls) - 1:
            return False
        rest = self.calls[ended]
        if self.cut:
            return not rest if call is None else call.explains(rest)
        if self._resting and call is not None:
            grants = self.grants[-1] if is_granted_items(call.op) and self.grants else []
            return done == len(self.sent) and call.explains(rest) and call.rests(rest, grants)
        return call is None and done == len(self.sent) and not self.calls[ended] and credited == len(self.grants)


_REFUSALS = [("stream:error", code) for code in ("INVALID_ENVELOPE", "NOT_FOUND", "UNIMPLEMENTED", "INVALID_ARGUMENT")]
_REFUSALS += [("error", code) for code in ("INVALID_ENVELOPE", "NOT_FOUND", "UNIMPLEMENTED", "INVALID_ARGUMENT")]


def histories(client: Client) -> Iterator[tuple[str, History]]:
    for number, id in enumerate(IDS):
        sent = [message for message in client.sent if message.op.id == number]
        yield id, History(sent, [message for message in client.received if message.get("id") == id], client.over)


def rests(client: Client) -> bool:
    return all(history.is_explained(resting=True) for _, history in histories(client))


def check(client: Client) -> None:
    codes = [message["payload"]["code"] for message in client.received if "id" not in message]
    if client.over and client.expected[-1:] != ["MESSAGE_TOO_LARGE"]:
        assert codes == client.expected[: len(codes)]
    else:
        assert codes == client.expected
    assert {message["id"] for message in client.received if "id" in message} <= {*IDS, "done"}
    for id, history in histories(client):
        assert history.is_explained(), story(client, id)


def story(client: Client, id: str) -> str:
    """What happened under an id, for a person."""
    lines = [f"no rule explains what came for {id!r} over {'WebSocket' if client.websocket else 'TCP'}; sent:"]
    lines += [f"  #{one.number} {one.op} (ends seen: {one.ends})" for one in client.sent if one.op.id == IDS.index(id)]
    lines += ["received:", *(f"  {str(message)[:160]}" for message in client.received if message.get("id") == id)]
    return "\n".join(lines)


# Running a program


class Play:
    """One program on a server."""

    def __init__(self, server: Server) -> None:
        assert server._hub is not None
        self.server = server
        self.hub = server._hub
        self.clients: list[Client | None] = [None, None]
        self.all: list[Client] = []
        self.number = 0

    async def run(self, program: list[Step]) -> None:
        before = asyncio.all_tasks()
        for step in program:
            await self.step(step)
        for client in self.clients:
            if client is not None:
                await self.settle(client)
                client.transport.close()
        await self.until(lambda: all(client.lost.done() for client in self.all), lambda: "a connection was not closed")
        await self.until(
            lambda: not self.hub.connections and not self.hub.sessions,
            lambda: f"left: {len(self.hub.connections)} connections, the calls {self.left()}",
        )
        await self.until(lambda: asyncio.all_tasks() == before, lambda: f"tasks are left: {asyncio.all_tasks()}")
        for client in self.all:
            check(client)

    async def step(self, step: Step) -> None:
        for op in step.ops:
            client = self.clients[step.client] or await self.connect(step.client)
            for _ in range(op.count if isinstance(op, Data) else 1):
                self.number += 1
                client.send(op, self.number)
            if client.over:
                self.clients[step.client] = None
        if (last := self.clients[step.client]) is not None:
            last.flush()
        if step.turns < 0:
            await asyncio.sleep(2 * CANCEL_SECONDS)
        await turns(step.turns)

    async def connect(self, place: int) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self.server.port))
        _, client = await loop.create_connection(lambda: Client(place == 0), sock=sock)
        await client.upgraded
        self.clients[place] = client
        self.all.append(client)
        return client

    async def settle(self, client: Client) -> None:
        """Waits until all has come that must come, cancels what is open then, and waits for the ends of that."""
        client.transport.resume_reading()
        await self.until(
            lambda: rests(client),
            lambda: "what must come has not come\n" + "\n".join(story(client, id) for id in IDS),
        )
        for id in range(len(IDS)):
            client.send(Cancel(id), 0)
        await self.sentinel(client)
        mine = f":{client.transport.get_extra_info('sockname')[1]}"
        await self.until(
            lambda: not any(session.ctx.peer.endswith(mine) for session in self.hub.sessions),
            lambda: f"a call did not end after its cancel: {self.left()}",
        )
        await self.sentinel(client)
        # What a call says in spite of its end would come now.
        await turns(3)

    async def sentinel(self, client: Client) -> None:
        answers = sum(message.get("id") == "done" for message in client.received)
        client._write(json.dumps({"type": "request", "id": "done", "procedure": "one", "payload": {}}).encode())
        client.flush()
        await self.until(
            lambda: sum(message.get("id") == "done" for message in client.received) > answers,
            lambda: "a request was not answered",
        )

    def left(self) -> list[Any]:
        return [session.ctx.input for session in self.hub.sessions]

    async def until(self, condition: Callable[[], object], complaint: Callable[[], str]) -> None:
        end = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            assert asyncio.get_running_loop().time() < end, complaint()
            await asyncio.sleep(0.0002)


class Stage:
    """A server on a loop of its own, and a new one after a program that failed on it."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.faults: list[dict[str, Any]] = []
        """What the loop was told of exceptions that nobody caught."""
        self.start()

    def start(self) -> None:
        self.runner.get_loop().set_exception_handler(lambda loop, context: self.faults.append(context))
        self.server = built()
        self.runner.run(self.server.start())

    def play(self, program: list[Step]) -> None:
        self.faults.clear()
        try:
            self.runner.run(Play(self.server).run(program))
            assert not self.faults, self.faults
        except BaseException:
            self.runner.run(self.clear())
            self.start()
            raise

    async def clear(self) -> None:
        """Ends everything, also what the server has lost."""
        assert self.server._hub is not None
        for listener in self.server._listeners:
            listener.close()
        for connection in list(self.server._hub.connections):
            connection.abort()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1) if left else None
        await turns(3)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(envelopes, "CANCEL_SECONDS", CANCEL_SECONDS)
    logging.disable(logging.CRITICAL)  # handlers crash here as they should
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stage = Stage(runner)
            yield stage
            runner.run(stage.server.stop())
    finally:
        logging.disable(logging.NOTSET)


def test_any_program_has_one_end_for_each_call(stage: Stage) -> None:
    @settings(max_examples=PROGRAMS, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(programs)
    def play(program: list[Step]) -> None:
        stage.play(program)

    play()


def start(procedure: str, *, id: int = 0, credit: int | None = None, **script: Any) -> Open:
    return Open(id, "stream:start", procedure, Script(**script), credit, None, None, "")  # type: ignore[arg-type]


PROGRAMS_WITH_A_NAME = {
    "an id is used again while its last handler still cleans up": [
        [start("down", items=2, then="wait", cleanup="late")],
        [Cancel(0)],
        [start("both", items=3, then="wait", cleanup="long"), Data(0, True)],
        [Cancel(0), start("down", items=3)],
    ],
    "a handler that yields in spite of its cancellation needs no credit for that": [
        [start("down", items=2, then="wait", cleanup="late", credit=2)],
        [Cancel(0)],
        [start("down", items=1, then="wait", cleanup="late", credit=1)],
        [Leave("reset")],
    ],
    "what is said before a goodbye is said once": [
        [start("down", id=2, items=3, pad=30_000), Junk(None, 0)],
        [Junk(None, 0), Data(1, True), Leave("goodbye")],
    ],
    "what the end of a stream crosses on the wire is dropped": [
        [start("both", take=1), Data(0, True), Data(0, True), End(0)],
        [Data(0, True), End(0), Credit(0, 1), Cancel(0)],
    ],
    "an end needs no credit": [
        [start("down", items=2, credit=2)],
        [start("down", items=3, credit=2, then="raise")],
        [Credit(0, 1)],
    ],
    "a client sends more than it was granted": [
        [start("up", credit=1, then="wait", take=0), *[Data(0, True)] * (MARK + 1)],
        [start("up", credit=1), *[Data(0, True)] * (MARK + 1), End(0)],
    ],
}


@pytest.mark.parametrize("client", [0, 1], ids=["websocket", "tcp"])
@pytest.mark.parametrize("name", PROGRAMS_WITH_A_NAME)
def test_a_program(stage: Stage, name: str, client: int) -> None:
    program = [Step(client, list(ops), -1) for ops in PROGRAMS_WITH_A_NAME[name]]
    stage.play(program)
    stage.play([step._replace(turns=1) for step in program])
