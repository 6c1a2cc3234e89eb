"""JSON-RPC 2.0 over HTTP: the calls of one body, run side by side and answered in their order."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from raffel_core.context import Context
from raffel_core.errors import RaffelError
from raffel_core.protocols.carried import carried_by
from raffel_core.protocols.connection import Hub
from raffel_core.protocols.items import dump
from raffel_core.route import Kind, Route
from raffel_core.schema import Schema
from raffel_core.schema.invalid import INPUT, Fault, invalid, not_json
from raffel_core.schema.query import TYPE_NAMES, target_of
from raffel_core.session import Decode, Session, timeout_seconds
from raffel_core.wire.http1 import Request
from raffel_core.wire.jsonrpc import METHOD_NOT_FOUND, Call, Violation, error, joined, members_of, read, result

ANSWER_MESSAGES = 16
"""How many times `limits.message_bytes` the answers of a batch may have. The one that goes beyond is still sent."""

TOLD_BYTES = 1024
"""What an answer that says an error may have where there is no room: a larger one is told without its details."""

TOLD_CHARACTERS = 200
"""What is left of its message then."""

_RESERVED = "rpc."
"""How names begin that the specification keeps for itself (4.1)."""

_STREAMS = ("sse", "websocket", "tcp", "grpc")
"""The protocols that a client may be sent to."""


class JsonRpcCalls:
    """The calls of one request, from their opening to the body of its answer.

    Every call has a session of its own, so that whatever ends one of them harms no other. `run` starts them in their
    order, `limits.streams_per_connection` at once. A call whose session is cancelled before its turn never starts.
    """

    __slots__ = ("_answers", "_body", "_held", "_hub", "_opened", "_peer", "_request", "_room", "sessions")

    def __init__(self, hub: Hub, request: Request, peer: str) -> None:
        self._hub = hub
        self._request = request
        self._peer = peer
        self._room = ANSWER_MESSAGES * hub.config.limits.message_bytes
        self._held = 0
        """Bytes of the answers so far."""
        self._body = read(request.body)
        self._answers: list[bytes] = [b""] * len(self._body.calls)
        self._opened: list[tuple[int, Call, Session]] = []
        for place, call in enumerate(self._body.calls):
            if isinstance(call, Violation):
                self._answers[place] = error(call.id, call.error)
                continue
            opened = self._open(call)
            if isinstance(opened, Session):
                self._opened.append((place, call, opened))
            elif call.id is not None:
                self._answers[place] = opened
        self.sessions: Collection[Session] = [session for _, _, session in self._opened]

    async def run(self) -> bytes:
        """Runs all calls to their ends. The body of the answer, b"" where only notifications were sent."""
        if len(self._opened) == 1:
            await self._call(*self._opened[0])
        else:
            turns = asyncio.Semaphore(self._hub.config.limits.streams_per_connection)
            async with asyncio.TaskGroup() as group:
                for one in self._opened:
                    await turns.acquire()
                    group.create_task(self._call(*one)).add_done_callback(lambda _: turns.release())
        return joined(self._body, [answer for answer in self._answers if answer])

    def _open(self, call: Call) -> Session | bytes:
        """The session of a call, or the answer to one that cannot be opened."""
        id, name = call.id or b"", call.method
        try:
            if name.startswith(_RESERVED):
                raise RaffelError("NOT_FOUND", f"no such method: {name[:200]!r} is reserved")
            route, params = self._hub.router.find(name)
        except RaffelError as problem:
            return error(id, problem, number=METHOD_NOT_FOUND)
        if route.kind is not Kind.UNARY:
            return self._refused(id, route)
        try:
            timeout = timeout_seconds(self._request.headers.get("timeout-ms"))
        except RaffelError as problem:
            return error(id, problem)
        ctx = Context(
            route.name,
            protocol="jsonrpc",
            app=self._hub.app,
            peer=self._peer,
            params=params,
            metadata=self._request.headers,
        )
        session = Session(route, ctx, self._decoder(call, params))
        session.set_deadline(timeout)
        return session

    def _refused(self, id: bytes, route: Route) -> bytes:
        carriers = carried_by(route, self._hub.config)
        data = {"code": "UNIMPLEMENTED", "streams": [name for name in _STREAMS if name in carriers]}
        problem = RaffelError("UNIMPLEMENTED", f"{route.name} is a {route.kind} stream, expected a procedure")
        return error(id, problem, data=msgspec.json.encode(data))

    def _decoder(self, call: Call, params: Mapping[str, str]) -> Decode:
        def decode(route: Route) -> Any:
            if call.id is not None:
                self._require_room()  # before the handler does what nobody would hear of
            data = call.params
            if data[:1] == b"[":
                try:
                    data = _placed(data, route.input, params)
                except RecursionError as problem:
                    raise not_json(problem) from None
            return route.input.decode(data, params)

        return decode

    async def _call(self, place: int, call: Call, session: Session) -> None:
        body = b""

        async def encode(value: Any) -> None:
            nonlocal body
            if call.id is None:
                return  # nobody hears of it
            self._require_room()
            body = dump(session.route, value)
            self._held += len(body)

        try:
            outcome = await session.run(encode)
        finally:
            self._hub.sessions.discard(session)
        if call.id is not None:
            problem = outcome.error
            self._answers[place] = result(call.id, body) if problem is None else self._failed(call.id, problem)

    def _failed(self, id: bytes, problem: RaffelError) -> bytes:
        answer = error(id, problem)
        if self._held >= self._room and len(answer) > TOLD_BYTES:
            answer = error(id, RaffelError(problem.code, str(problem.message)[:TOLD_CHARACTERS]))
        self._held += len(answer)
        return answer

    def _require_room(self) -> None:
        if self._held >= self._room:
            message = f"the answers of this batch have {self._room} bytes and more: ask for less, or in smaller batches"
            raise RaffelError("RESOURCE_EXHAUSTED", message, details={"reason": "batch_answer_too_large"})


# Parameters by their positions (4.2)


class Wanted(NamedTuple):
    """What a schema makes of an array of parameters: by default, the array is the input."""

    fields: tuple[str, ...] = ()
    """Those of the object that it wants, in the order of definition."""
    scalar: bool = False
    """Whether it wants neither an array nor an object: the input is the only parameter."""


def _placed(params: bytes, schema: Schema[Any], given: Mapping[str, str]) -> bytes:
    """An array of parameters as the input that a schema wants. What the method's name gives takes no position."""
    wanted = _wanted(schema)
    if wanted.scalar:
        only = members_of(params, 1)
        return only[0] if only else params
    if not wanted.fields:
        return params
    fields = [name for name in wanted.fields if name not in given]
    values = members_of(params, len(fields))
    if values is None:
        raise invalid(INPUT, [Fault("", f"Expected array of length <= {len(fields)}")])
    pairs = (msgspec.json.encode(name) + b":" + value for name, value in zip(fields, values, strict=False))
    return b"{%b}" % b",".join(pairs)


_wanted_by: WeakKeyDictionary[Schema[Any], Wanted] = WeakKeyDictionary()


def _wanted(schema: Schema[Any]) -> Wanted:
    if schema not in _wanted_by:
        document = schema.json_schema()
        _wanted_by[schema] = _wanted_of(schema.declared, _alternatives(document, document))
    return _wanted_by[schema]


def _wanted_of(declared: Any, alternatives: Sequence[Mapping[str, Any]]) -> Wanted:
    if alternatives and all(map(_is_scalar, alternatives)):
        return Wanted(scalar=True)
    if len(alternatives) != 1 or alternatives[0].get("type", "object") != "object":
        return Wanted()
    fields: Iterable[str] = alternatives[0].get("properties", ())
    origin = typing.get_origin(declared) or declared
    if typing.is_typeddict(origin):
        fields = typing.get_type_hints(origin)  # its JSON Schema has them in the order of the alphabet
    # A lone Struct with a tag is known without it.
    tag = getattr(getattr(origin, "__struct_config__", None), "tag_field", None)
    return Wanted(tuple(name for name in fields if name != tag))


def _alternatives(schema: object, document: Mapping[str, Any], seen: tuple[str, ...] = ()) -> list[Mapping[str, Any]]:
    """The schemas that a value may fit, without null and with references followed; {} where anything does."""
    if not isinstance(schema, Mapping):
        return [{}]
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in seen:
            return [{}]
        return _alternatives(target_of(document, reference), document, (*seen, reference))
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return [one for part in parts for one in _alternatives(part, document, seen)]
    return [] if schema.get("type") == "null" else [schema]


def _is_scalar(schema: Mapping[str, Any]) -> bool:
    named = schema.get("type")
    if named is None:
        values = schema.get("enum", [schema["const"]] if "const" in schema else [])
        names = {TYPE_NAMES[type(value)] for value in values}
    else:
        names = {named} if isinstance(named, str) else set(named)
    return bool(names) and not names & {"array", "object"}
