"""Decoders made to measure: google.protobuf parses, and a compiled constructor takes what it needs from the message."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import inspect as shapes

from raffel_core.protobuf import wire
from raffel_core.protobuf.descriptor import field_name, oneof_name
from raffel_core.protobuf.messages import Enum, Field, Member, Message, Part
from raffel_core.protobuf.tree import ABSENT, Parse, finite_tree, judge_of, members_of, timestamp_reader
from raffel_core.schema import Schema
from raffel_core.schema.check import bare, class_of, walk

Decoder = Callable[[bytes], Any]


def compile_decoder(root: Part, schema: Schema[Any], parse: Parse, params: Sequence[str] = ()) -> Decoder:
    """A function that reads a message as a value of the schema, checked whole.

    `parse` is of the class that `message_class` makes. PARSE_ERROR: the bytes are no such message. VALIDATION_ERROR: it
    does not fit, in the words of the schema.
    """
    judge = judge_of(root, schema, parse, params)
    message = root.proto
    if not isinstance(message, Message) or (message.shape is None and message.others):
        return judge  # where a value is of any fields, parameters may be some of them
    source = _Source()
    try:
        lines, value = source.body(message)
    except _Unknown:
        return judge
    if any(map(_is_limited, walk(root.shape))):
        lines += [f"value = {value}", f"if {source.constant(schema.fits)}(value):", "    return value"]
    else:
        lines.append(f"return {value}")
    lines = ["try:", f"    m = {source.constant(parse)}(data)", *_indented(lines)]
    # Whatever it was, the judge can say it: a __post_init__ may raise anything.
    lines += ["except Exception:", "    pass", f"return {source.constant(judge)}(data)"]
    source.lines += ["def decode(data):", *_indented(lines)]
    exec("\n".join(source.lines), source.names)
    return typing.cast("Decoder", source.names["decode"])


# Constructors


class _Unknown(Exception):
    """A type whose values only the schema can make."""


class _Source:
    """The source of a constructor, and of those that it calls: `m` is the message."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._numbers = itertools.count()
        self._messages: dict[Message, str] = {}

    def constant(self, value: object) -> str:
        """A name for the value among the globals of the source."""
        name = f"c{next(self._numbers)}"
        self.names[name] = value
        return name

    def _variable(self) -> str:
        return f"v{next(self._numbers)}"

    def _function(self, message: Message) -> str:
        name = self._messages.get(message)
        if name is None:
            name = self._messages[message] = f"d{next(self._numbers)}"
            lines, value = self.body(message)
            self.lines += [f"def {name}(m):", *_indented([*lines, f"return {value}"])]
        return name

    def body(self, message: Message) -> tuple[list[str], str]:
        """Statements, and the expression of the value after them."""
        lines: list[str] = []
        values: list[str] = []
        doubts: list[str] = []
        for member in message.members:
            before, value, doubtful = self._member(member)
            lines += before
            values.append(value)
            doubts += [f"{name} - {name}" for name in doubtful]  # 0.0 for every float but those that JSON has not
        if doubts:
            lines += [f"if {' or '.join(doubts)}:", f"    raise {self.constant(ValueError)}"]
        if message.shape is None:
            return lines, values[0]
        return self._constructed(message, lines, values)

    def _constructed(self, message: Message, lines: list[str], values: list[str]) -> tuple[list[str], str]:
        shape = message.shape
        pairs = [*zip(message.members, values, strict=True)]
        if isinstance(shape, shapes.TypedDictType):
            items = ", ".join(f"{one.given.name!r}: {value}" for one, value in pairs if one.given.required)
            made = self._variable()
            unset = self.constant(ABSENT)
            lines = [*lines, f"{made} = {{{items}}}"]
            for one, value in pairs:
                if not one.given.required:
                    lines += [f"if {value} is not {unset}:", f"    {made}[{one.given.name!r}] = {value}"]
            return lines, made
        cls: Any = class_of(shape) if shape is not None else None
        by_name = {one.given.name: value for one, value in pairs}
        places, names = _arguments(cls, {*by_name})
        arguments = [by_name[name] for name in places]
        arguments += [f"**{{{', '.join(f'{name!r}: {by_name[name]}' for name in names)}}}"] if names else []
        return lines, f"{self.constant(cls)}({', '.join(arguments)})"

    # Members

    def _member(self, member: Member) -> tuple[list[str], str, list[str]]:
        """Statements, the expression of the value, and the variables in which there may be NaN or infinity."""
        field = member.fields[0]
        place = f"m.{field_name(field)}"
        match field.label:
            case "oneof":
                return self._oneof(member)
            case "repeated":
                return self._many(member, place, *self._list(member, field, place))
            case "map":
                return self._many(member, place, *self._map(field, place))
        if member.required and not field.part.is_message:
            return self._required(field, place)
        return self._optional(member, field, place)

    def _required(self, field: Field, place: str) -> tuple[list[str], str, list[str]]:
        if field.part.proto == "double":
            name = self._variable()
            return [f"{name} = {place}"], name, [name]
        return [], self._value(field.part, place), []

    def _optional(self, member: Member, field: Field, place: str) -> tuple[list[str], str, list[str]]:
        """A field that may be absent, and a message that must not be."""
        name, part = self._variable(), field.part
        present = f"m.HasField({field_name(field)!r})"
        if member.required:
            lines = [f"if not {present}:", f"    raise {self.constant(ValueError)}"]
            return lines, self._value(part, place), []
        value = self._value(part, name)
        absent = self._absent(member)
        if part.is_message:
            return [f"{name} = {self._value(part, place)} if {present} else {absent}"], name, []
        if isinstance(part.proto, Enum) and 0 not in members_of(part.proto):
            present = name
        elif not isinstance(part.proto, Enum):
            present = f"{name} or {present}"
        lines = [f"{name} = {place}"]
        if part.proto == "double":
            lines += [f"if {name} - {name}:", f"    raise {self.constant(ValueError)}"]
        return [*lines, f"{name} = {value} if {present} else {absent}"], name, []

    def _absent(self, member: Member) -> str:
        given = member.given
        if given.default is not msgspec.NODEFAULT:
            return self.constant(given.default)
        if given.default_factory is not msgspec.NODEFAULT:
            return f"{self.constant(given.default_factory)}()"
        return "None" if given.required else self.constant(ABSENT)

    def _many(
        self, member: Member, place: str, lines: list[str], value: str, doubtful: str
    ) -> tuple[list[str], str, list[str]]:
        if doubtful:
            number = self._variable()
            lines = [*lines, f"{number} = sum({doubtful})"]
            doubts = [number]
        else:
            doubts = []
        if member.required:
            return lines, value, doubts
        name = self._variable()
        return [*lines, f"{name} = {value} if {place} else {self._absent(member)}"], name, doubts

    def _list(self, member: Member, field: Field, place: str) -> tuple[list[str], str, str]:
        item = self._value(field.part, "x")
        value = f"[*{place}]" if item == "x" else f"[{item} for x in {place}]"
        if not isinstance(member.shape, shapes.ListType):
            value = f"{self.constant(class_of(member.shape))}({value})"
        return [], value, place if field.part.proto == "double" else ""

    def _map(self, field: Field, place: str) -> tuple[list[str], str, str]:
        value = f"{{k: {self._value(field.part, 'x')} for k, x in {place}.items()}}"
        return [], value, f"{place}.values()" if field.part.proto == "double" else ""

    def _oneof(self, member: Member) -> tuple[list[str], str, list[str]]:
        name, chosen = self._variable(), self._variable()
        lines = [f"{chosen} = m.WhichOneof({oneof_name(member)!r})"]
        word = "if"
        for field in member.fields:
            place = field_name(field)
            lines += [f"{word} {chosen} == {place!r}:", f"    {name} = {self._value(field.part, f'm.{place}')}"]
            word = "elif"
        otherwise = f"raise {self.constant(ValueError)}" if member.required else f"{name} = {self._absent(member)}"
        return [*lines, "else:", f"    {otherwise}"], name, []

    # Values

    def _value(self, part: Part, value: str) -> str:
        """The expression of a Python value, from that of google.protobuf's."""
        shape = part.shape
        match part.proto:
            case Message():
                return f"{self._function(part.proto)}({value})"
            case Enum():
                return f"{self.constant(members_of(part.proto))}[{value}]"
            case "int64" if isinstance(shape, shapes.EnumType):
                return f"{self.constant(class_of(shape))}({value})"
            case "bytes" if not isinstance(shape, shapes.BytesType):
                return f"{self.constant(type_of(shape))}({value})"
            case "string" if not isinstance(shape, (shapes.StrType, shapes.LiteralType)):
                return f"{self.constant(msgspec.convert)}({value}, {self.constant(type_of(shape))})"
            case "google.protobuf.Timestamp":
                return f"{self.constant(timestamp_reader(shape))}({value})"
            case "google.protobuf.Duration":
                return f"{self.constant(wire.read_duration)}({value})"
            case "google.protobuf.Value":
                return f"{self.constant(_value_reader(shape))}({value})"
            case _:
                return value


def _value_reader(shape: shapes.Type) -> Callable[[Any], Any]:
    match shape:
        case shapes.AnyType():
            return lambda message: finite_tree(message, "")
        case shapes.RawType():
            return lambda message: msgspec.Raw(msgspec.json.encode(finite_tree(message, "")))
        case _:
            declared = type_of(shape)
            return lambda message: msgspec.convert(finite_tree(message, ""), declared, str_keys=True)


def type_of(shape: shapes.Type) -> Any:
    """The type that a shape is of, without its constraints."""
    shape = bare(shape)
    match shape:
        case shapes.AnyType():
            return Any
        case shapes.NoneType():
            return None
        case shapes.MemoryViewType():
            return memoryview
        case shapes.LiteralType(values):
            return typing.Literal[values]
        case shapes.UnionType(types):
            return typing.Union[tuple(map(type_of, types))]  # noqa: UP007 - the members are known only at run time
        case shapes.VarTupleType(item):
            return tuple[type_of(item), ...]  # type: ignore[misc]  # a type that is known only at run time
        case shapes.TupleType(items):
            return tuple[tuple(map(type_of, items))]  # type: ignore[misc]  # the same
        case shapes.ListType(item) | shapes.SetType(item) | shapes.FrozenSetType(item):
            generic: Any = class_of(shape)
            return generic[type_of(item)]
        case shapes.DictType(key, item):
            return dict[type_of(key), type_of(item)]  # type: ignore[misc]  # the same
        case (
            shapes.StructType()
            | shapes.DataclassType()
            | shapes.TypedDictType()
            | shapes.NamedTupleType()
            | shapes.EnumType()
        ):
            return shape.cls
    found = class_of(shape)
    if found is None:
        raise _Unknown
    return found


def _arguments(cls: Any, names: set[str]) -> tuple[list[str], list[str]]:
    """The arguments of a constructor: those that go by place, and those that go by name."""
    if dataclasses.is_dataclass(cls):
        if names != {one.name for one in dataclasses.fields(cls) if one.init}:
            raise _Unknown
    elif not issubclass(cls, (msgspec.Struct, tuple)):
        raise _Unknown
    given = inspect.signature(cls).parameters
    if {*given} != names:
        raise _Unknown  # a constructor of its own, which the schema does not call
    alone = [name for name, one in given.items() if one.kind is one.KEYWORD_ONLY]
    return [name for name in given if name not in alone], alone


def _is_limited(shape: shapes.Type) -> bool:
    """Whether a type is narrower than what protobuf and the constructors see to."""
    match shape:
        case shapes.LiteralType():
            return True
        case shapes.DateTimeType():
            return False
        case _:
            return any(getattr(shape, name, None) is not None for name in _LIMITS)


_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]
