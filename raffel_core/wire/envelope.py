"""Envelopes: the JSON messages in which many streams share a connection, read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from raffel_core.errors import RaffelError

REQUEST = "request"
START = "stream:start"
DATA = "stream:data"
END = "stream:end"
CANCEL = "cancel"
CREDIT = "stream:credit"
TYPES = (REQUEST, START, DATA, END, CANCEL, CREDIT)
"""What a client may send."""

MAX_ID = 128
MAX_PROCEDURE = 512
MAX_LAST_EVENT_ID = 256
MAX_METADATA = 64
MAX_METADATA_BYTES = 16 * 1024
MAX_CREDIT = 2**31 - 1
MAX_DEPTH = 512
"""How deep a message may nest, its own braces included."""

BINARY = 0x01
"""The first byte of a message that carries its payload as bytes, behind the envelope."""

_BINARY_HEAD = 3

encode = msgspec.json.Encoder().encode


NO_DATA = msgspec.Raw(b"")


class Envelope(msgspec.Struct, gc=False):
    """One message of a client. Every field but `type` and `id` belongs to some types only."""

    type: str
    id: str = ""
    procedure: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"")
    """JSON as it was sent; empty where there was none."""
    metadata: dict[str, Any] | None = None
    lastEventId: str | None = None
    priority: int | None = None
    credit: int | None = None
    binary: bool | None = None
    """Whether the client wants `bytes` as they are."""
    data: msgspec.Raw = NO_DATA
    """The payload of a binary message; NO_DATA in a JSON one, whatever members it has."""


class Violation(NamedTuple):
    """What a client did wrong with one message; the other streams go on."""

    error: RaffelError
    type: str | None = None
    """The message's type and id, where they could be read."""
    id: str | None = None


class _Head(msgspec.Struct):
    type: Any = None
    id: Any = None


_envelopes = msgspec.json.Decoder(Envelope)
_heads = msgspec.json.Decoder(_Head)
_syntax = msgspec.json.Decoder(msgspec.Raw)
_known = frozenset(TYPES)


def read_message(message: bytes) -> Envelope | Violation:
    """Reads a message that may be JSON or binary, as its first byte says."""
    return _read_binary(message) if message[:1] == b"\x01" else read_json(message)


def read_json(message: bytes) -> Envelope | Violation:
    """Reads a message, with everything in it but the payload's schema checked."""
    try:
        if not message.isascii():
            message.decode()  # what is skipped unread is not looked at for that
        if message.count(b"[") + message.count(b"{") > MAX_DEPTH and depth(message) > MAX_DEPTH:
            return Violation(RaffelError("PARSE_ERROR", f"JSON that nests deeper than {MAX_DEPTH}"))
        envelope = _envelopes.decode(message)
    except msgspec.ValidationError as error:
        return _no_envelope(message, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Violation(RaffelError("PARSE_ERROR", f"found no JSON: {error}"))
    envelope.data = NO_DATA
    id = envelope.id
    if not id or len(id) > MAX_ID or (not id.isascii() and len(id.encode()) > MAX_ID) or envelope.type not in _known:
        return _nobody(envelope)
    if envelope.type == START or envelope.type == REQUEST:
        return _checked_opening(envelope)
    if envelope.type == CREDIT and not (envelope.credit is not None and 0 < envelope.credit <= MAX_CREDIT):
        return _invalid(envelope, f"`credit` is {envelope.credit}, expected an integer from 1 to {MAX_CREDIT}")
    return envelope


def _read_binary(message: bytes) -> Envelope | Violation:
    size = int.from_bytes(message[1:_BINARY_HEAD], "big")
    end = _BINARY_HEAD + size
    if len(message) < _BINARY_HEAD or len(message) < end:
        expected = f"found a binary message of {len(message)} bytes, expected 0x01, a length and as long an envelope"
        return Violation(RaffelError("INVALID_ENVELOPE", expected))
    envelope = read_json(message[_BINARY_HEAD:end])
    if isinstance(envelope, Violation):
        return envelope
    if len(envelope.payload):
        return _invalid(envelope, "found a `payload` in a binary message, whose payload is behind the envelope")
    envelope.data = msgspec.Raw(message[end:])
    return envelope


def depth(message: bytes) -> int:
    """How deep a message nests, also one that is no JSON."""
    brackets = _STRINGS.sub(b"", message).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEPS)


def _no_envelope(message: bytes, found: str) -> Violation:
    try:
        _syntax.decode(message)  # the typed decoder stops at the first wrong type, before it has seen the end
        head = _heads.decode(message)
    except msgspec.ValidationError:
        return Violation(RaffelError("INVALID_ENVELOPE", "found JSON that is no object, expected an envelope"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Violation(RaffelError("PARSE_ERROR", f"found no JSON: {error}"))
    id = head.id if isinstance(head.id, str) and 0 < len(head.id.encode()) <= MAX_ID else None
    if isinstance(head.type, str) and head.type not in _known:
        return Violation(_unknown_type(head.type), head.type, id)
    type = head.type if isinstance(head.type, str) else None
    return Violation(RaffelError("INVALID_ENVELOPE", f"found no envelope: {found}"), type, id)


def _nobody(envelope: Envelope) -> Violation:
    """An envelope of an unknown type, or whose id is none."""
    usable = 0 < len(envelope.id.encode()) <= MAX_ID
    id = envelope.id if usable else None
    if envelope.type not in _known:
        return Violation(_unknown_type(envelope.type), envelope.type, id)
    found = f"an id of {len(envelope.id.encode())} bytes" if envelope.id else "no `id`"
    return Violation(
        RaffelError("INVALID_ENVELOPE", f"found {found}, expected one of 1 to {MAX_ID} bytes"), envelope.type
    )


def _unknown_type(type: str) -> RaffelError:
    return RaffelError("INVALID_TYPE", f"found the type {type[:40]!r}, expected one of {', '.join(TYPES)}")


def _invalid(envelope: Envelope, message: str) -> Violation:
    return Violation(RaffelError("INVALID_ENVELOPE", message), envelope.type, envelope.id)


def _checked_opening(envelope: Envelope) -> Envelope | Violation:
    procedure = envelope.procedure
    if not procedure:
        return _invalid(envelope, f"`procedure` is missing, expected the name of a route in a {envelope.type!r}")
    if _size(procedure) > MAX_PROCEDURE:
        return _invalid(envelope, f"`procedure` has more than {MAX_PROCEDURE} bytes")
    if envelope.priority is not None and not -128 <= envelope.priority <= 127:
        return _invalid(envelope, f"`priority` is {envelope.priority}, expected an integer from -128 to 127")
    if envelope.credit is not None and not 0 < envelope.credit <= MAX_CREDIT:
        return _invalid(envelope, f"`credit` is {envelope.credit}, expected an integer from 1 to {MAX_CREDIT}")
    if envelope.lastEventId is not None and _size(envelope.lastEventId) > MAX_LAST_EVENT_ID:
        return _invalid(envelope, f"`lastEventId` has more than {MAX_LAST_EVENT_ID} bytes")
    if envelope.metadata:
        return _checked_metadata(envelope, envelope.metadata)
    return envelope


def _checked_metadata(envelope: Envelope, given: Mapping[str, Any]) -> Envelope | Violation:
    if len(given) > MAX_METADATA:
        return _invalid(envelope, f"`metadata` has {len(given)} entries, expected at most {MAX_METADATA}")
    texts = {key.lower(): value if isinstance(value, str) else encode(value).decode() for key, value in given.items()}
    if sum(_size(key) + _size(value) for key, value in texts.items()) > MAX_METADATA_BYTES:
        return _invalid(envelope, f"`metadata` has more than {MAX_METADATA_BYTES} bytes")
    envelope.metadata = texts
    return envelope


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def response(id: bytes, payload: bytes) -> bytes:
    """The one answer of a request or a client stream; ids are given in JSON here and below."""
    return b'{"type":"response","id":%b,"payload":%b}' % (id, payload)


def error(id: bytes | None, problem: RaffelError) -> bytes:
    """An error that ends a request, or one that ends nothing."""
    named = b"" if id is None else b'"id":%b,' % id
    return b'{"type":"error",%b"payload":%b}' % (named, problem.to_json())


def stream_error(id: bytes, problem: RaffelError) -> bytes:
    return b'{"type":"stream:error","id":%b,"payload":%b}' % (id, problem.to_json())


def stream_end(id: bytes) -> bytes:
    return b'{"type":"stream:end","id":%b}' % id


def stream_credit(id: bytes, credit: int) -> bytes:
    return b'{"type":"stream:credit","id":%b,"credit":%d}' % (id, credit)


def data_prefix(id: bytes) -> bytes:
    """What comes before an item's JSON; `data_suffix` comes after it."""
    return b'{"type":"stream:data","id":%b,"payload":' % id


def data_suffix(event_id: str | None = None) -> bytes:
    return b"}" if event_id is None else b',"eventId":%b}' % encode(event_id)


def binary_prefix(id: bytes, type: bytes = b"stream:data", event_id: str | None = None) -> bytes:
    """What comes before a payload that is bytes."""
    named = b"" if event_id is None else b',"eventId":%b' % encode(event_id)
    envelope = b'{"type":"%b","id":%b%b}' % (type, id, named)
    return b"\x01" + len(envelope).to_bytes(2, "big") + envelope
