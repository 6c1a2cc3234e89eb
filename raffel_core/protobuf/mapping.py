"""From the types of routes to their messages (protocol buffers, "Language Guide (proto 3)" and its style guide)."""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from msgspec import inspect as shapes

from raffel_core.protobuf.messages import DURATION, TIMESTAMP, VALUE, Enum, Field, Label, Member, Message, Part, Record
from raffel_core.protobuf.names import identifier, json_name, snake, tagged, upper_snake
from raffel_core.schema.check import bare
from raffel_core.schema.typed import name_of

Numbering: TypeAlias = Callable[[str, Sequence[tuple[str, str]]], Sequence[int]]
"""The numbers of a message's fields or an enum's values, of its full name and (name, signature) in order of definition.

A signature is what clients must agree on: `int64`, `optional int64`, `repeated string`, `map<string, double>`,
`market.Tick`; of an enum's value it is empty. The full names are without a dot in front.
"""

ROUTE_FILES = "raffel_routes."
"""What the names of modules begin with that are files of routes folders."""

_PROTO: Mapping[type[shapes.Type], str] = {
    shapes.IntType: "int64",
    shapes.FloatType: "double",
    shapes.StrType: "string",
    shapes.BoolType: "bool",
    shapes.BytesType: "bytes",
    shapes.ByteArrayType: "bytes",
    shapes.MemoryViewType: "bytes",
    shapes.DateTimeType: TIMESTAMP,
    shapes.TimeDeltaType: DURATION,
    shapes.DateType: "string",
    shapes.TimeType: "string",
    shapes.DecimalType: "string",
    shapes.UUIDType: "string",
}
_LISTS = (shapes.ListType, shapes.VarTupleType, shapes.SetType, shapes.FrozenSetType)
_KEYS = (shapes.StrType, shapes.IntType, shapes.BoolType)
_NESTED = (*_LISTS, shapes.TupleType, shapes.DictType, shapes.UnionType)


class Fault(NamedTuple):
    """Why a type has no message; the halves of a Problem."""

    found: str
    expected: str


class Messages:
    """Makes the messages of routes; a type that several have in common is made once."""

    def __init__(self, numbering: Numbering | None) -> None:
        self.faults: list[Fault] = []
        self.numbering = numbering
        self.made: dict[tuple[object, ...], Any] = {}

    def root(
        self, shape: shapes.Type, package: str, prefix: str, *, side: str, owner: str, others: Sequence[Field] = ()
    ) -> Part:
        """A request or a response of this shape; with `others`, or where it is no object, a message of its own."""
        shape = bare(shape)
        maker = _Maker(self, package, prefix)
        record = shape if isinstance(shape, Record) else None
        if not others and (record is not None or isinstance(shape, (shapes.AnyType, shapes.RawType))):
            return maker.part(shape)
        message = Message(prefix + side, package, record, (owner, side))
        maker.fill(message, [shapes.Field("value", "value", shape)] if record is None else record.fields, others)
        return Part(message, shape)


class _Maker(NamedTuple):
    """Makes the messages of one route's package."""

    messages: Messages
    package: str
    prefix: str

    def part(self, shape: shapes.Type) -> Part:
        """A value that is neither a list nor a map."""
        shape = bare(shape)
        proto = _PROTO.get(type(shape))
        if proto is not None:
            return Part(proto, shape)
        match shape:
            case shapes.LiteralType(values):
                classes = {type(value) for value in values}
                return Part("string" if classes == {str} else "int64" if classes == {int} else VALUE, shape)
            case shapes.EnumType(cls):
                return Part("int64" if issubclass(cls, enum.Flag) else self._enum(cls), shape)
            case shapes.StructType() | shapes.DataclassType() | shapes.TypedDictType() | shapes.NamedTupleType():
                return Part(self._record(shape), shape)
            case _:
                return Part(VALUE, shape)

    def _item(self, shape: shapes.Type) -> Part:
        """An item of a list or a map, where protobuf has neither lists nor None."""
        shape = bare(shape)
        if isinstance(shape, _NESTED) or (isinstance(shape, shapes.LiteralType) and None in shape.values):
            return Part(VALUE, shape)
        return self.part(shape)

    # Messages

    def _record(self, shape: Record) -> Message:
        name, key = self._name(shape.cls)
        message: Message | None = self.messages.made.get(key)
        if message is None:
            message = self.messages.made[key] = Message(name, self.package, shape, shape.cls)
            self.fill(message, shape.fields, ())
        return message

    def _name(self, cls: Any) -> tuple[str, tuple[object, ...]]:
        """The name of a class's message, and what is the same for another that it serves too."""
        prefix = self.prefix if any(one.__module__.startswith(ROUTE_FILES) for one in _classes(cls)) else ""
        return prefix + _name_of(cls), (self.package, prefix, cls)

    def fill(self, message: Message, given: Iterable[shapes.Field], others: Sequence[Field]) -> None:
        """Gives a message its fields and their numbers."""
        message.members = tuple([self._member(one) for one in given])
        message.others = tuple(others)
        fields = [*message.fields]
        self._look_for_doubles(message, fields)
        free = [field for field in fields if not field.number]
        numbers = self._numbers(message.full_name, free)
        for field, number in zip(free, numbers, strict=True):
            field.number = number

    def _numbers(self, name: str, fields: Sequence[Field]) -> Sequence[int]:
        numbering = self.messages.numbering
        if numbering is None:
            return range(1, len(fields) + 1)
        return numbering(name, [(field.name, field.signature) for field in fields])

    def _look_for_doubles(self, message: Message, fields: Sequence[Field]) -> None:
        seen: dict[str, Field] = {}
        for field in fields:
            other = seen.setdefault(json_name(field.name), field)
            if other is not field:
                found = f"the fields {other.name} and {field.name} of {message.full_name}"
                both = f"are both {json_name(field.name)!r} in JSON"
                self.messages.faults.append(Fault(f"{found} {both}", "names that differ in more than underscores"))

    def _member(self, given: shapes.Field) -> Member:
        renamed = given.encode_name != given.name
        name = snake(given.encode_name) if renamed else identifier(given.name)
        shape, nullable = _without_none(given.type)
        optional: Label = "optional" if nullable or not given.required else ""
        fields: tuple[Field, ...]
        match shape:
            case _ if type(shape) in _PROTO:  # as most are
                part = self.part(shape)
                fields = (Field(name, part, "" if part.is_message else optional),)
            case shapes.UnionType(types) if all(_is_tagged(one) for one in types):
                fields = tuple(
                    Field(tagged(name, one.tag), self.part(one), "oneof")
                    for one in types
                    if isinstance(one, shapes.StructType)
                )
            case shapes.ListType() | shapes.VarTupleType() | shapes.SetType() | shapes.FrozenSetType():
                fields = (Field(name, self._item(shape.item_type), "repeated"),)
            case shapes.DictType() if isinstance(bare(shape.key_type), _KEYS):
                fields = (Field(name, self._item(shape.value_type), "map", self.part(shape.key_type)),)
            case _:
                part = self.part(shape)
                fields = (Field(name, part, "" if part.is_message else optional),)
        return Member(name, given, shape, nullable, fields)

    # Enums

    def _enum(self, cls: type[enum.Enum]) -> Enum:
        name, key = self._name(cls)
        made: Enum | None = self.messages.made.get(key)
        if made is None:
            made = self.messages.made[key] = Enum(name, self.package, cls)
            made.values = tuple(self._values(made, [*cls]))
        return made

    def _values(self, made: Enum, members: list[enum.Enum]) -> Iterator[tuple[str, int, enum.Enum | None]]:
        prefix = upper_snake(made.name)
        names = {member: f"{prefix}_{upper_snake(member.name)}" for member in members}
        unspecified = f"{prefix}_UNSPECIFIED"
        if all(type(member.value) is int and 0 <= member.value < 2**31 for member in members):
            numbers = {member: int(member.value) for member in members}
        else:
            # A member of that name is what 0 means already.
            others = [member for member in members if names[member] != unspecified]
            numbering = self.messages.numbering
            given = (
                range(1, len(others) + 1)
                if numbering is None
                else numbering(made.full_name, [(names[member], "") for member in others])
            )
            numbers = dict.fromkeys(members, 0) | dict(zip(others, given, strict=True))
        if 0 not in numbers.values():
            yield unspecified, 0, None
        seen = {unspecified: ""} if 0 not in numbers.values() else {}
        for member in sorted(members, key=lambda member: numbers[member]):
            name = names[member]
            if name in seen:
                found = f"two values of {made.full_name} are {name}"
                self.messages.faults.append(Fault(found, "names that differ in more than their case"))
            seen[name] = name
            yield name, numbers[member], member


def _without_none(shape: shapes.Type) -> tuple[shapes.Type, bool]:
    """A type as it is where it is not None, and whether it may be None."""
    shape = bare(shape)
    match shape:
        case shapes.UnionType(types):
            rest = tuple(one for one in map(bare, types) if not isinstance(one, shapes.NoneType))
            nullable = len(rest) < len(types)
            if len(rest) == 1:
                inner, also = _without_none(rest[0])
                return inner, nullable or also
            return (shapes.UnionType(rest) if nullable else shape), nullable
        case shapes.LiteralType(values) if None in values and len(values) > 1:
            return shapes.LiteralType(tuple(value for value in values if value is not None)), True
        case _:
            return shape, False


def _is_tagged(shape: shapes.Type) -> bool:
    return isinstance(shape, shapes.StructType) and shape.tag is not None


def _classes(cls: Any) -> Iterator[type]:
    """A class and, of a generic one, all classes that it is made with."""
    origin = typing.get_origin(cls)
    for one in (origin or cls, *(typing.get_args(cls) if origin is not None else ())):
        if one is not cls and typing.get_origin(one) is not None:
            yield from _classes(one)
        elif isinstance(one, type):
            yield one


def _name_of(cls: Any) -> str:
    """`Tick`, `PageInt` for `Page[int]`, `PageListTick` for `Page[list[Tick]]`."""
    if isinstance(cls, type):
        return identifier(cls.__name__)
    own, *arguments = re.findall(r"\w+", name_of(cls))
    return identifier(own + "".join(word[0].upper() + word[1:] for word in arguments))
