"""Encoders made to measure: for a message, the source of one function that writes it, straight from the attributes."""

from __future__ import annotations

import itertools
import struct
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as shapes

from raffel_core.protobuf import wire
from raffel_core.protobuf.fault import unholdable
from raffel_core.protobuf.messages import (
    DURATION,
    EVENT_ID_NUMBER,
    TIMESTAMP,
    VALUE,
    Enum,
    Field,
    Member,
    Message,
    Part,
)
from raffel_core.protobuf.value import encode_value
from raffel_core.schema.check import class_of

Encoder = Callable[[Any], bytes]

BEYOND = (OverflowError, LookupError, struct.error)
"""What an encoder raises on a value that a message cannot hold, besides what a JSON encoder may raise."""


def compile_encoder(root: Part, as_json: Encoder | None = None) -> Encoder:
    """A function that writes a value as this message; `as_json` is how its schema writes it, where no other can.

    The value is not looked at: what is not of the type may be written wrongly, or raise what a JSON encoder may raise.
    OUTPUT_VALIDATION_ERROR: an int beyond 64 bits, and what else the message cannot hold.
    """
    source = _Source()
    if as_json is not None:
        source.encode_value = lambda value: encode_value(msgspec.json.decode(as_json(value)))
    if isinstance(root.proto, Message):
        body = source.body(root.proto)
    else:
        body = [f"return {source.constant(source.encode_value)}(o)"]
    beyond, fault = source.constant(BEYOND), source.constant(lambda value: unholdable(root, value))
    guarded = ["try:", *_indented(body), f"except {beyond} as error:", f"    raise {fault}(o) from error"]
    source.define("encode", guarded)
    exec("\n".join(source.lines), source.names)
    return typing.cast("Encoder", source.names["encode"])


class _Piece(NamedTuple):
    """Bytes of a message, in order: some that are known, an expression, or a double after its key."""

    constant: bytes = b""
    expression: str = ""
    double: str = ""


class _Source:
    """The source of one encoder, and of the functions that it calls.

    A message is one sum of bytes. What is written under a condition is put into a variable before it. Small sizes come
    with their key from one table: a lookup in place of a lookup and a sum.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"V": wire.VARINTS, "varint": wire.varint, "UNSET": msgspec.UNSET}
        self.encode_value: Encoder = encode_value
        self._numbers = itertools.count()
        self._messages: dict[Message, str] = {}

    def define(self, name: str, body: Iterable[str]) -> None:
        self.lines += [f"def {name}(o):", *_indented(body)]

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
            name = self._messages[message] = f"e{next(self._numbers)}"
            self.define(name, self.body(message))
        return name

    # Messages

    def body(self, message: Message) -> list[str]:
        """The statements that return the bytes of `o`."""
        before: list[str] = []
        pieces: list[_Piece] = []
        for member in message.members:
            value, may_be_unset = _access(message, member)
            lines, more = self._member(member, value, may_be_unset)
            before += lines
            pieces += more
        return [*before, f"return {self._sum(pieces)}"]

    def _sum(self, pieces: list[_Piece]) -> str:
        terms = []
        for is_double, group in itertools.groupby(pieces, key=lambda piece: bool(piece.double)):
            if is_double:
                terms.append(self._doubles([*group]))
                continue
            for is_known, run in itertools.groupby(group, key=lambda piece: bool(piece.constant)):
                if is_known:
                    terms.append(repr(b"".join(piece.constant for piece in run)))
                else:
                    terms += [piece.expression for piece in run]
        return " + ".join(terms) or "b''"

    def _doubles(self, pieces: list[_Piece]) -> str:
        """Neighbours that are packed with one call, their keys among them."""
        pack = struct.Struct("<" + "".join(f"{len(piece.constant)}sd" for piece in pieces)).pack
        arguments = ", ".join(f"{piece.constant!r}, {piece.double}" for piece in pieces)
        return f"{self.constant(pack)}({arguments})"

    def _member(self, member: Member, value: str, may_be_unset: bool) -> tuple[list[str], list[_Piece]]:
        """The statements before the sum, and the terms in it."""
        field = member.fields[0]
        # Where its absence would mean something else, null is said, if it can be.
        left_out = member.absent_is_none if field.part.proto == VALUE else member.nullable
        absent = [f"{{0}} is {name}" for name, may in (("None", left_out), ("UNSET", may_be_unset)) if may]
        match field.label:
            case "oneof":
                return self._oneof(member, value, absent)
            case "repeated":
                return self._whole(value, lambda v: self._list(field, v))
            case "map":
                return self._whole(value, lambda v: self._map(field, v))
        if not absent:
            return self._field(field, value)
        name = self._variable()
        lines, pieces = self._field(field, name)
        condition = " or ".join(absent).format(name)
        written = [*lines, f"{name} = {self._sum(pieces)}"]
        return [
            f"{name} = {value}",
            f"if {condition}:",
            f"    {name} = b''",
            "else:",
            *_indented(written),
        ], [_Piece(expression=name)]

    def _whole(self, value: str, lines: Callable[[str], list[str]]) -> tuple[list[str], list[_Piece]]:
        """A list or a map, of which nothing is written where there is nothing in it."""
        name = self._variable()
        return [
            f"{name} = {value}",
            f"if {name}:",
            *_indented(lines(name)),
            "else:",
            f"    {name} = b''",
        ], [_Piece(expression=name)]

    def _oneof(self, member: Member, value: str, absent: list[str]) -> tuple[list[str], list[_Piece]]:
        name, cls = self._variable(), self._variable()
        lines = [f"{name} = {value}", f"{cls} = {name}.__class__"]
        word = "if"
        for field in member.fields:
            assert isinstance(field.part.proto, Message)
            before, pieces = self._field(field, name)
            lines += [f"{word} {cls} is {self.constant(class_of(field.part.shape))}:"]
            lines += _indented([*before, f"{name} = {self._sum(pieces)}"])
            word = "elif"
        if absent:
            lines += [f"elif {' or '.join(absent).format(name)}:", f"    {name} = b''"]
        expected = f"Expected an object of {member.name}, got "
        lines += ["else:", f"    raise TypeError({expected!r} + {cls}.__name__)"]
        return lines, [_Piece(expression=name)]

    # Fields

    def _field(self, field: Field, value: str) -> tuple[list[str], list[_Piece]]:
        """One value of a field, with its key."""
        part, number = field.part, field.number
        match part.proto:
            case "double":
                return [], [_Piece(wire.key(number, wire.FIXED64), double=value)]
            case "bool":
                key = wire.key(number, wire.VARINT)
                return [], [_Piece(expression=f"({key + wire.VARINTS[1]!r} if {value} else {key + wire.VARINTS[0]!r})")]
            case "int64":
                name = self._variable()
                return [f"{name} = {self._int(part, value)}"], [
                    _Piece(wire.key(number, wire.VARINT)),
                    _Piece(expression=f"(V[{name}] if 0 <= {name} < {wire.SMALL} else varint({name}))"),
                ]
            case Enum():
                key = wire.key(number, wire.VARINT)
                return [], [_Piece(expression=f"{self._numbers_of(part.proto, key)}[{value}]")]
            case _:
                name, size = self._variable(), self._variable()
                return [f"{name} = {self._bytes(part, value)}", f"{size} = len({name})"], [
                    _Piece(expression=self._size(wire.key(number, wire.LEN), size)),
                    _Piece(expression=name),
                ]

    def _size(self, key: bytes, size: str) -> str:
        table = f"s{key.hex()}"
        self.names[table] = wire.sized(key)
        return f"({table}[{size}] if {size} < 128 else {key!r} + varint({size}))"

    def _int(self, part: Part, value: str) -> str:
        return f"{value}.value" if isinstance(part.shape, shapes.EnumType) else value

    def _numbers_of(self, enum: Enum, key: bytes = b"") -> str:
        return self.constant(
            {member: key + wire.varint(number) for _, number, member in enum.values if member is not None}
        )

    def _bytes(self, part: Part, value: str) -> str:
        """The bytes of a value of type LEN."""
        match part.proto, part.shape:
            case Message(), _:
                assert isinstance(part.proto, Message)
                return f"{self._function(part.proto)}({value})"
            case "string", shapes.StrType() | shapes.LiteralType():
                return f"{value}.encode()"
            case "string", _:
                return f"{self.constant(msgspec.to_builtins)}({value}).encode()"
            case "bytes", shapes.BytesType():
                return value
            case "bytes", _:
                return f"bytes({value})"
            case _:
                function = {TIMESTAMP: wire.timestamp, DURATION: wire.duration}.get(str(part.proto), self.encode_value)
                return f"{self.constant(function)}({value})"

    def _alone(self, part: Part, value: str) -> str:
        """A value of type VARINT or FIXED64 without its key."""
        match part.proto:
            case "int64":
                number = self._int(part, value)
                return f"(V[{number}] if 0 <= {number} < {wire.SMALL} else varint({number}))"
            case "bool":
                return f"(b'\\1' if {value} else b'\\0')"
            case "double":
                return f"{self.constant(struct.Struct('<d').pack)}({value})"
            case _:
                assert isinstance(part.proto, Enum)
                return f"{self._numbers_of(part.proto)}[{value}]"

    def _list(self, field: Field, name: str) -> list[str]:
        """Statements that replace a list by its bytes; numbers are packed."""
        part, key = field.part, wire.key(field.number, wire.LEN)
        match part.proto:
            case "double":
                pack = self.constant(struct.pack)
                packed = f"{pack}(f'<{{len({name})}}d', *{name})"
            case "bool":
                packed = f"bytes({name})"
            case "int64" | Enum():
                packed = f"b''.join([{self._alone(part, 'x')} for x in {name}])"
            case _:
                pairs = f"[{self._bytes(part, 'x')} for x in {name}]"
                return [f"{name} = b''.join([{self._size(key, 'len(x)')} + x for x in {pairs}])"]
        return [f"{name} = {packed}", f"{name} = {self._size(key, f'len({name})')} + {name}"]

    def _map(self, field: Field, name: str) -> list[str]:
        """Statements that replace a dict by its bytes: a message of a key and a value for each of its items."""
        assert field.key is not None
        entries, entry = self._variable(), self._variable()
        key, item = self._variable(), self._variable()
        key_lines, key_pieces = self._field(Field("key", field.key, number=1), key)
        lines, pieces = self._field(Field("value", field.part, number=2), item)
        size = self._size(wire.key(field.number, wire.LEN), f"len({entry})")
        return [
            f"{entries} = []",
            f"for {key}, {item} in {name}.items():",
            *_indented([*key_lines, *lines, f"{entry} = {self._sum([*key_pieces, *pieces])}"]),
            f"    {entries}.append({size} + {entry})",
            f"{name} = b''.join({entries})",
        ]


def _access(message: Message, member: Member) -> tuple[str, bool]:
    """The expression of a member of `o`, and whether it may be UNSET."""
    name, has_default = member.given.name, not member.given.required
    match message.shape:
        case None:
            return "o", False
        case shapes.TypedDictType():
            return (f"o.get({name!r}, UNSET)", True) if has_default else (f"o[{name!r}]", False)
        case shape:
            return f"o.{name}", has_default and not isinstance(shape, shapes.NamedTupleType)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def tag_event_id(event_id: str) -> bytes:
    """What is appended to a message to give it this id."""
    return wire.delimited(_EVENT_ID_KEY, event_id.encode())


_EVENT_ID_KEY = wire.key(EVENT_ID_NUMBER, wire.LEN)
