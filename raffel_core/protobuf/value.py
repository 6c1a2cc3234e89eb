"""google.protobuf.Value: any JSON, and what it cannot hold of Python's values."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
from google.protobuf import struct_pb2

from raffel_core.protobuf.wire import delimited
from raffel_core.schema.plain import plain

_EXACT = 1 << 53
"""All ints up to it are doubles too."""

_double = struct.Struct("<1sd").pack

_NULL = b"\x08\x00"
_TRUE, _FALSE = b"\x20\x01", b"\x20\x00"
_NUMBER, _STRING, _STRUCT, _LIST = b"\x11", b"\x1a", b"\x2a", b"\x32"
_FIRST, _SECOND = b"\x0a", b"\x12"


MAX_LEVELS = 96
"""Of the 100 levels of messages that protobuf reads; an object in a Value takes three of them, a list two."""


def encode_value(value: object, level: int = 0) -> bytes:
    """A Value of a Python value, as JSON would have it: bytes in base64, datetime in RFC 3339.

    OverflowError: a float that is not finite, or an int that no double is equal to. RecursionError: nested deeper than
    clients read. Raises what the JSON encoder raises on what is not for JSON.
    """
    if level > MAX_LEVELS:
        raise RecursionError
    cls = value.__class__
    if cls is str:
        return delimited(_STRING, value.encode())  # type: ignore[attr-defined]  # its class has been looked at
    if cls is float or cls is int:
        return _double(_NUMBER, _number(value))
    if value is None:
        return _NULL
    if cls is bool:
        return _TRUE if value else _FALSE
    if cls is dict:
        return delimited(_STRUCT, _fields(value, level + 3))
    if cls is list or cls is tuple:
        items = [delimited(_FIRST, encode_value(item, level + 2)) for item in value]  # type: ignore[attr-defined]  # the same
        return delimited(_LIST, b"".join(items))
    return encode_value(msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else plain(value), level)


def _fields(value: Any, level: int) -> bytes:
    if not {*map(type, value)} <= {str}:
        value = plain(value)
    entries = [
        delimited(_FIRST, name.encode()) + delimited(_SECOND, encode_value(member, level))
        for name, member in value.items()
    ]
    return b"".join([delimited(_FIRST, entry) for entry in entries])


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or (not -_EXACT <= value <= _EXACT and number != value):
        raise OverflowError("no double, or none that is finite")
    return number


def value_tree(message: Any) -> Any:
    """The JSON of a Value message; without a kind it is null. A number without a fraction is an int."""
    kind = message.WhichOneof("kind")
    match kind:
        case "string_value" | "bool_value":
            return getattr(message, kind)
        case "number_value":
            number = message.number_value
            return int(number) if number.is_integer() else number
        case "struct_value":
            return {name: value_tree(member) for name, member in message.struct_value.fields.items()}
        case "list_value":
            return [value_tree(item) for item in message.list_value.values]
        case _:
            return None


def read_value(data: bytes) -> Any:
    """The JSON of the bytes of a Value."""
    return value_tree(struct_pb2.Value.FromString(data))
