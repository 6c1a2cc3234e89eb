"""Messages and enums as a route's types make them: what descriptors and converters are made from."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from msgspec import inspect as shapes

from raffel_core.protobuf.names import qualified

EVENT_ID = "raffel_event_id"
EVENT_ID_NUMBER = 18_999
"""The last number before those that protobuf keeps for itself."""

TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"
VALUE = "google.protobuf.Value"

Record: TypeAlias = shapes.StructType | shapes.DataclassType | shapes.TypedDictType | shapes.NamedTupleType
Label: TypeAlias = Literal["", "optional", "repeated", "map", "oneof"]


class Part(NamedTuple):
    """A value in a field: what it is to protobuf, and what it is in Python."""

    proto: str | Message | Enum
    """`int64`, `google.protobuf.Value`, or a type of the project's."""
    shape: shapes.Type

    @property
    def is_message(self) -> bool:
        """Whether its absence can be told without more ado."""
        return isinstance(self.proto, Message) or self.proto in (TIMESTAMP, DURATION, VALUE)

    @property
    def signature(self) -> str:
        return self.proto if isinstance(self.proto, str) else self.proto.full_name


class Field:
    """A field of a message."""

    __slots__ = ("key", "label", "name", "number", "part")

    def __init__(self, name: str, part: Part, label: Label = "", key: Part | None = None, number: int = 0) -> None:
        self.name = name
        self.part = part
        self.label = label
        """`oneof` is a member of the oneof of its `Member`; `optional` is also one, of its own."""
        self.key = key
        """That of a map."""
        self.number = number
        """0 until its message is complete."""

    @property
    def signature(self) -> str:
        match self.label:
            case "optional" | "repeated":
                return f"{self.label} {self.part.signature}"
            case "map":
                assert self.key is not None
                return f"map<{self.key.signature}, {self.part.signature}>"
            case _:
                return self.part.signature


class Member(NamedTuple):
    """An attribute or a key of a Python value, and its field; several where it is a oneof."""

    name: str
    """The name of the field, or that of the oneof."""
    given: shapes.Field
    shape: shapes.Type
    """Its type, without None."""
    nullable: bool
    fields: tuple[Field, ...]

    @property
    def required(self) -> bool:
        """Whether it must have a value: there is neither a default nor None."""
        return self.given.required and not self.nullable

    @property
    def absent_is_none(self) -> bool:
        """Whether an absent field is read as None."""
        return self.nullable if self.given.required else self.given.default is None


class Message:
    """A message. `members` are those of the value itself; `others` are fields beside them, which no value has."""

    __slots__ = ("full_name", "members", "name", "others", "owner", "shape")

    def __init__(self, name: str, package: str, shape: Record | None, owner: object) -> None:
        self.name = name
        self.full_name = qualified(package, name)
        self.shape = shape
        """The type of the values; None: the value is that of the one member, `value`."""
        self.owner = owner
        """What has the name: a class, or (the route's name, the part that it plays)."""
        self.members: tuple[Member, ...] = ()
        self.others: tuple[Field, ...] = ()

    @property
    def fields(self) -> Iterator[Field]:
        """All fields, in the order of their definition."""
        for member in self.members:
            yield from member.fields
        yield from self.others

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names that it takes in its package."""
        return (self.name,)


class Enum:
    """An enum. `values` begin with 0, as proto3 wants; the member of a value that is no member's is None."""

    __slots__ = ("full_name", "name", "owner", "values")

    def __init__(self, name: str, package: str, owner: type[enum.Enum]) -> None:
        self.name = name
        self.full_name = qualified(package, name)
        self.owner: object = owner
        self.values: tuple[tuple[str, int, enum.Enum | None], ...] = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names that it takes in its package: values lie beside their enum, not in it."""
        return (self.name, *(name for name, _, _ in self.values))


Definition: TypeAlias = Message | Enum


def reached(root: Part) -> Iterator[Definition]:
    """The messages and enums that a value is made of, each once, in the order in which they are met."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        proto = waiting.pop().proto
        if isinstance(proto, str) or id(proto) in seen:
            continue
        seen.add(id(proto))
        yield proto
        if isinstance(proto, Message):
            waiting.extend(field.part for field in reversed([*proto.fields]))
