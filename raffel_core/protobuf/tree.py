"""Messages as JSON: what a route's schema is asked about where the quick way says no."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from msgspec import inspect as shapes

from raffel_core.errors import RaffelError
from raffel_core.protobuf import wire
from raffel_core.protobuf.descriptor import field_name, oneof_name
from raffel_core.protobuf.fault import value_faults
from raffel_core.protobuf.messages import Enum, Field, Member, Message, Part
from raffel_core.protobuf.names import identifier
from raffel_core.protobuf.value import value_tree
from raffel_core.schema import Schema
from raffel_core.schema.invalid import INPUT, Fault, invalid

Parse = Callable[[bytes], Any]
Params = Callable[[bytes], Mapping[str, str]]

ABSENT: Any = msgspec.UNSET
"""Stands for what is not in a message."""


def message_tree(message: Message, parsed: Any, path: str = "") -> Any:
    """The JSON that a parsed message stands for, as its schema would have it; ABSENT where the one value is.

    VALIDATION_ERROR: the number of no member of an enum, a float that is not finite.
    """
    shape = message.shape
    if shape is None:
        return member_tree(message.members[0], parsed, path)
    values = [(one, member_tree(one, parsed, _below(path, one.given.encode_name))) for one in message.members]
    if isinstance(shape, shapes.NamedTupleType) or getattr(shape, "array_like", False):
        return [*_tag(shape).values(), *_places(values, path)]
    return {**_tag(shape), **{one.given.encode_name: value for one, value in values if value is not ABSENT}}


def _tag(shape: object) -> dict[str, str | int]:
    if isinstance(shape, shapes.StructType) and shape.tag is not None and shape.tag_field is not None:
        return {shape.tag_field: shape.tag}
    return {}


def _places(values: list[tuple[Member, Any]], path: str) -> Iterator[Any]:
    """The items of an array, in which nothing can be left out."""
    for member, value in values:
        given = member.given
        if value is not ABSENT:
            yield value
        elif given.required:
            where = _below(path, given.encode_name)
            raise invalid(INPUT, [Fault(where, f"Object missing required field {given.encode_name}")])
        elif given.default_factory is not msgspec.NODEFAULT:
            yield given.default_factory()
        elif given.default is not msgspec.NODEFAULT:
            yield given.default
        else:
            return  # unset, which an array can say of its last items alone


def member_tree(member: Member, parsed: Any, path: str) -> Any:
    """The JSON of one member; ABSENT where there is none and there may be a default."""
    field = member.fields[0]
    match field.label:
        case "oneof":
            chosen = parsed.WhichOneof(oneof_name(member))
            for one in member.fields:
                if field_name(one) == chosen:
                    return _part(one.part, getattr(parsed, chosen), path)
            return _absent(member)
        case "repeated":
            items = getattr(parsed, field_name(field))
            found: Any = [_part(field.part, item, f"{path}[{index}]") for index, item in enumerate(items)]
        case "map":
            pairs = getattr(parsed, field_name(field)).items()
            found = {key: _part(field.part, item, f"{path}[...]") for key, item in pairs}
        case _:
            return _single(member, field, parsed, path)
    return found if found or member.required else _absent(member)


def _single(member: Member, field: Field, parsed: Any, path: str) -> Any:
    has_presence = field.label == "optional" or field.part.is_message
    if has_presence and not parsed.HasField(field_name(field)):
        return _absent(member)
    value = getattr(parsed, field_name(field))
    if value == 0 and isinstance(field.part.proto, Enum) and members_of(field.part.proto).get(0) is None:
        return _absent(member)  # UNSPECIFIED
    return _part(field.part, value, path)


def _absent(member: Member) -> Any:
    return None if member.nullable and member.given.required else ABSENT


def _part(part: Part, value: Any, path: str) -> Any:
    match part.proto:
        case Message():
            return message_tree(part.proto, value, path)
        case Enum():
            member = members_of(part.proto).get(value)
            if member is None:
                raise invalid(INPUT, [Fault(path, f"Invalid enum value {value}")])
            return member.value
        case "double":
            if not math.isfinite(value):
                raise invalid(INPUT, [Fault(path, f"Expected float, got {'NaN' if value != value else 'Infinity'}")])
            return value
        case "google.protobuf.Timestamp":
            return _or_text(timestamp_reader(part.shape), value)
        case "google.protobuf.Duration":
            return _or_text(wire.read_duration, value)
        case "google.protobuf.Value":
            return finite_tree(value, path)
        case _:
            return value


def timestamp_reader(shape: shapes.Type) -> Callable[[Any], datetime]:
    """How a Timestamp is read: in UTC, unless its type wants no time zone."""
    is_naive = isinstance(shape, shapes.DateTimeType) and shape.tz is False
    return wire.read_naive_timestamp if is_naive else wire.read_timestamp


def _or_text(read: Any, value: Any) -> datetime | timedelta | str:
    try:
        found: datetime | timedelta = read(value)
    except (ValueError, OverflowError):
        return f"{value.seconds} s {value.nanos} ns"  # which is neither to the schema, and it says so
    return found


def finite_tree(message: Any, path: str) -> Any:
    """The JSON of a Value; VALIDATION_ERROR where a number in it is not finite."""
    tree = value_tree(message)
    faults = [*value_faults(tree, path)]
    if faults:
        raise invalid(INPUT, faults)
    return tree


def members_of(enum: Enum) -> dict[int, Any]:
    """The members of an enum by their numbers."""
    return {number: member for _, number, member in enum.values if member is not None}


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# What a schema says of it


def judge_of(root: Part, schema: Schema[Any], parse: Parse, params: Sequence[str]) -> Callable[[bytes], Any]:
    """The slow way to read a message, which knows all types: its JSON, and the schema's word about it."""
    message = root.proto
    named = root.signature
    # Elsewhere parameters are fields of the message already, or none of the value's.
    fills = bool(params) and isinstance(message, Message) and message.shape is None
    read = _params(root, params)

    def judge(data: bytes) -> Any:
        try:
            parsed = parse(data)
        except DecodeError:
            raise RaffelError("PARSE_ERROR", f"not a message that can be read as {named}") from None
        if isinstance(message, Message):
            tree = message_tree(message, parsed)
        else:
            tree = finite_tree(parsed, "") if parsed.WhichOneof("kind") else ABSENT
        if tree is ABSENT:
            tree = {}  # as an empty body is on the other protocols
        if schema.any and not fills:
            return tree
        return schema.decode(msgspec.json.encode(tree), read(parsed) if fills else None)

    return judge


# Parameters


def params_reader(root: Part, parse: Parse, params: Sequence[str]) -> Params:
    """A function that reads the parameters in a message, as strings; {} for bytes that are no message."""
    read = _params(root, params)

    def params_of(data: bytes) -> Mapping[str, str]:
        try:
            return read(parse(data))
        except DecodeError:
            return {}

    return params_of


def _params(root: Part, params: Sequence[str]) -> Callable[[Any], dict[str, str]]:
    message = root.proto
    if not isinstance(message, Message):
        return lambda parsed: {}
    members = {member.given.encode_name: member for member in message.members if message.shape is not None}
    others = {field.name: field for field in message.others}

    def read(parsed: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in params:
            text = _text_of(members.get(name) or others[identifier(name)], parsed)
            if text is not None:
                found[name] = text
        return found

    return read


def _text_of(one: Member | Field, parsed: Any) -> str | None:
    """A parameter as a path has it; None where it is left out, or no value of its type."""
    if isinstance(one, Field):
        given = one.label != "optional" or parsed.HasField(field_name(one))
        return getattr(parsed, field_name(one)) if given else None
    try:
        value = msgspec.to_builtins(member_tree(one, parsed, ""))
    except RaffelError:
        return None
    return None if value is None or value is ABSENT else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_text, value))
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
