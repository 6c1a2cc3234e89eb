"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification) without a socket: a body in, its calls and the answers out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from raffel_core.errors import CODES, RaffelError

MAX_CALLS = 1000
"""How many calls a batch may have."""

METHOD_NOT_FOUND = -32601
SERVER_ERROR = -32000
"""The number of codes that the table does not have (5.1: implementation-defined server errors)."""

NO_ID = b"null"
"""The id of an answer to what has none that could be read."""

_NOTHING = msgspec.Raw(b"")
_SPACE = b" \t\n\r"

_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """One request object."""

    method: str
    params: bytes
    """A JSON array or object as it was sent; b"" where there were none."""
    id: bytes | None
    """The id's JSON as it was sent, to be echoed so; None for a notification, which is not answered."""


class Violation(NamedTuple):
    """What is no request object, or a body that is none at all."""

    error: RaffelError
    id: bytes = NO_ID


class Body(NamedTuple):
    """What one body asks for, in the order in which it is to be answered."""

    calls: Sequence[Call | Violation]
    batch: bool
    """Whether the answers go into an array."""


class _Request(msgspec.Struct, gc=False):
    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = _NOTHING
    id: msgspec.Raw = _NOTHING


class _Head(msgspec.Struct, gc=False):
    id: msgspec.Raw = _NOTHING


_requests = msgspec.json.Decoder(_Request)
_heads = msgspec.json.Decoder(_Head)
_syntax = msgspec.json.Decoder(msgspec.Raw)


def read(body: bytes) -> Body:
    """Reads a body. What is wrong with a batch as a whole is the one Violation of a Body that is no batch (6)."""
    try:
        if not body.isascii():
            body.decode()  # what is skipped unread is not looked at for that
        _syntax.decode(body)  # a parse error anywhere is one of the whole body (5.1)
        return _read_whole(body)
    except RecursionError:
        return _whole("PARSE_ERROR", "not JSON that can be read: nested too deep")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _whole("PARSE_ERROR", f"not JSON: {error}")


def _read_whole(body: bytes) -> Body:
    if body.lstrip(_SPACE)[:1] != b"[":
        return Body([_read(body)], batch=False)
    members = members_of(body, MAX_CALLS)
    if members is None:
        return _whole("INVALID_ENVELOPE", f"found a batch of more than {MAX_CALLS} calls")
    if not members:
        return _whole("INVALID_ENVELOPE", "found an empty batch, expected calls")
    return Body([_read(member) for member in members], batch=True)


def members_of(array: bytes, most: int) -> list[bytes] | None:
    """The members of a JSON array as they were sent; None where there are more than `most`, found at little cost.

    Raises RecursionError where it is nested too deep.
    """
    found = msgspec.structs.astuple(_first(most + 1).decode(array))
    members = [bytes(raw) for raw in found if raw is not _NOTHING]
    return None if len(members) > most else members


@functools.lru_cache(maxsize=64)
def _first(count: int) -> msgspec.json.Decoder[msgspec.Struct]:
    # A struct that is written as an array takes its fields from it and skips the rest, of which nothing is made: a list
    # would be of half a million objects for a body of 1 MiB.
    fields = [(f"member{number}", msgspec.Raw, _NOTHING) for number in range(count)]
    return msgspec.json.Decoder(msgspec.defstruct("_First", fields, array_like=True, gc=False))


def _read(data: bytes) -> Call | Violation:
    try:
        request = _requests.decode(data)
    except msgspec.ValidationError as error:
        return _invalid(f"found no request object of JSON-RPC 2.0: {error}", _id_of(data))
    id = bytes(request.id)
    if id and not _may_be_id(id):
        return _invalid(f"`id` is {_kind(id)}, expected a string, a number or null", NO_ID)
    params = bytes(request.params)
    if params[:1] not in (b"", b"[", b"{"):
        return _invalid(f"`params` is {_kind(params)}, expected an array or an object", id or NO_ID)
    return Call(request.method, params, id or None)


def _id_of(data: bytes) -> bytes:
    """The id of something that is no request object."""
    try:
        id = bytes(_heads.decode(data).id)
    except msgspec.ValidationError:
        return NO_ID
    return id if id and _may_be_id(id) else NO_ID


def _may_be_id(id: bytes) -> bool:
    return id[0] in b'"-0123456789' or id == NO_ID


def _kind(data: bytes) -> str:
    """What a JSON value is, for people."""
    kinds = {"{": "an object", "[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}
    return kinds.get(chr(data[0]), "a number")


def _invalid(message: str, id: bytes) -> Violation:
    return Violation(RaffelError("INVALID_ENVELOPE", message), id)


def _whole(code: str, message: str) -> Body:
    return Body([Violation(RaffelError(code, message))], batch=False)


def result(id: bytes, value: bytes) -> bytes:
    """The answer of a call that ended well; both are JSON."""
    return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (value, id)


def error(id: bytes, problem: RaffelError, *, number: int | None = None, data: bytes | None = None) -> bytes:
    """The answer of a call that failed. Its number is the table's and its data the error object, unless given."""
    if number is None:
        number = CODES[problem.code].jsonrpc if problem.code in CODES else SERVER_ERROR
    # An encoder meets whatever a handler put there, a file name that is no UTF-8 for one.
    message = str(problem.message or problem.code).encode("utf-8", "backslashreplace").decode()
    parts = (number, _encode(message), problem.to_json() if data is None else data, id)
    return b'{"jsonrpc":"2.0","error":{"code":%d,"message":%b,"data":%b},"id":%b}' % parts


def joined(body: Body, answers: Sequence[bytes]) -> bytes:
    """The answers as one body; b"" where there are none: to notifications alone there is nothing to say (6)."""
    if not answers:
        return b""
    return b"[%b]" % b",".join(answers) if body.batch else answers[0]
