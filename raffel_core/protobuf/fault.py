"""Where in a value the fault lies that an encoder met, in the words of the schemas."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as shapes

from raffel_core.errors import RaffelError
from raffel_core.protobuf import wire
from raffel_core.protobuf.messages import DURATION, TIMESTAMP, VALUE, Member, Message, Part
from raffel_core.schema.check import class_of
from raffel_core.schema.invalid import OUTPUT, UNWRITABLE, Fault, invalid
from raffel_core.schema.plain import plain


def unholdable(root: Part, value: object) -> RaffelError:
    """OUTPUT_VALIDATION_ERROR of a value that its message cannot hold."""
    try:
        faults = [*_faults(root, value, "")]
    except (*UNWRITABLE, LookupError):
        faults = []  # it is not of the type at all, and was not looked at before
    return invalid(OUTPUT, faults or [Fault("", "Expected what a message can hold")])


def _faults(part: Part, value: Any, path: str) -> Iterator[Fault]:
    """Of a value that is neither a list nor a map in its message."""
    if isinstance(part.proto, Message):
        for member in part.proto.members:
            yield from _of_member(part.proto, member, value, path)
    elif part.proto == "int64" and type(value) is int:
        if not -(1 << 63) <= value < 1 << 63:
            yield Fault(path, "Expected an int of 64 bits")
    elif part.proto == VALUE:
        yield from value_faults(plain(value), path)
    elif part.proto == TIMESTAMP and not _holds(wire.timestamp, value):
        yield Fault(path, "Expected a datetime within the years 1 to 9999 in UTC")
    elif part.proto == DURATION and not _holds(wire.duration, value):
        yield Fault(path, "Expected a duration of at most 10000 years")


def _of_member(message: Message, member: Member, whole: Any, path: str) -> Iterator[Fault]:
    value = _value_of(message, member, whole)
    if value is None or value is msgspec.UNSET:
        return
    if message.shape is not None:
        path = f"{path}.{member.given.encode_name}".removeprefix(".")
    field = member.fields[0]
    match field.label:
        case "oneof":
            for one in member.fields:
                if class_of(one.part.shape) is type(value):
                    yield from _faults(one.part, value, path)
        case "repeated":
            for index, item in enumerate(value):
                yield from _faults(field.part, item, f"{path}[{index}]")
        case "map":
            assert field.key is not None
            for key, item in value.items():
                yield from _faults(field.key, key, f"{path}[...]")
                yield from _faults(field.part, item, f"{path}[...]")
        case _:
            yield from _faults(field.part, value, path)


def _value_of(message: Message, member: Member, whole: Any) -> Any:
    match message.shape:
        case None:
            return whole
        case shapes.TypedDictType():
            return whole.get(member.given.name)
        case _:
            return getattr(whole, member.given.name)


def value_faults(tree: object, path: str) -> Iterator[Fault]:
    """What of a tree of JSON a google.protobuf.Value cannot hold."""
    match tree:
        case float() if not math.isfinite(tree):
            yield Fault(path, f"Expected a number, got {'NaN' if math.isnan(tree) else 'Infinity'}")
        case int() if not isinstance(tree, bool) and not _is_double(tree):
            yield Fault(path, "Expected an int that a double can hold")
        case dict():
            for name, member in tree.items():
                yield from value_faults(member, f"{path}.{name}".removeprefix("."))
        case list() | tuple():
            for index, item in enumerate(tree):
                yield from value_faults(item, f"{path}[{index}]")


def _is_double(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False


def _holds(function: Any, value: datetime.datetime | datetime.timedelta) -> bool:
    try:
        function(value)
    except OverflowError:
        return False
    return True
