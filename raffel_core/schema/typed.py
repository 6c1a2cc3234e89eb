"""Schemas from the types that msgspec knows: Structs, dataclasses, TypedDicts, annotated builtins, unions."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as shapes

from raffel_core.errors import RaffelError
from raffel_core.schema.check import bare, class_of, compile_check, exact_class, walk
from raffel_core.schema.contract import ENCODER, Schema, SchemaError
from raffel_core.schema.invalid import (
    INPUT,
    UNREADABLE,
    UNWRITABLE,
    Fault,
    invalid,
    msgspec_fault,
    not_json,
    unwritable,
)
from raffel_core.schema.plain import marked, plain

T = TypeVar("T")


class TypedSchema(Schema[T]):
    """The schema of one msgspec type; of none, which is any JSON."""

    def __init__(self, declared: Any) -> None:
        given: Any = Any if declared is None or declared is object else declared
        self._type: type[T] = given
        name = name_of(self._type)
        shape = _shape(self._type, name)
        self.shape = shape
        """What the type is to msgspec."""
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(self._type)
        super().__init__(
            declared,
            name,
            msgspec.json.schema(self._type),
            fits=compile_check(shape),
            parse=self._decoder.decode,
            exact=exact_class(shape),
            trusted=exact_class(shape) or class_of(shape),
            any=self._type is Any,
            bytes=isinstance(bare(shape), shapes.BytesType),
        )

    def _read(self, data: bytes) -> T:
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise _syntax_error(data) or invalid(INPUT, [msgspec_fault(INPUT, error)]) from error
        except UNREADABLE as error:
            raise not_json(error) from None

    def _read_query(self, tree: Mapping[str, object]) -> T:
        try:
            value = msgspec.convert(tree, self._type, strict=False, str_keys=True)
        except msgspec.ValidationError as error:
            raise invalid(INPUT, [msgspec_fault(INPUT, error)]) from error
        # `nan` is a float to the lax mode.
        return value if self.fits(value) else self._whole(value, INPUT)

    def _coerced(self, rest: Mapping[str, object], filled: Mapping[str, object]) -> Mapping[str, object]:
        if self.any:
            return filled
        # Lax mode knows only whole values, so the rest is read with it; what it forgives there is found afterwards.
        tree = plain(self._read_query({**rest, **filled}))
        return {name: tree[name] for name in filled if name in tree} if isinstance(tree, dict) else {}

    def _plain(self, value: object) -> object:
        return plain(value)

    def _whole(self, item: object, code: str) -> T:
        if item.__class__ is dict:
            try:
                value = msgspec.convert(item, self._type)
            except msgspec.ValidationError:
                pass  # its encoding may be right nevertheless, and says better what is not
            else:
                if self.fits(value):
                    return value
        try:
            data = bytes(item) if isinstance(item, msgspec.Raw) else ENCODER.encode(item)
            # The encoder writes null for what is no number, and null may be allowed.
            if b"null" in data:
                msgspec.convert(marked(plain(item)), self._type, str_keys=True)
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise invalid(code, [msgspec_fault(code, error)]) from error
        except msgspec.DecodeError as error:
            raise invalid(code, [Fault("", "Expected JSON")]) from error
        except UNWRITABLE as error:
            raise unwritable(code, error) from error


def _syntax_error(data: bytes) -> RaffelError | None:
    """What makes this no JSON at all; the typed decoder stops at the first wrong type, before it has seen the end."""
    try:
        msgspec.json.decode(data)
    except msgspec.ValidationError:
        return None
    except UNREADABLE as error:
        return not_json(error)
    return None


def _shape(declared: Any, name: str) -> shapes.Type:
    try:
        shape = shapes.type_info(declared)
        msgspec.json.Decoder(declared)
    except (TypeError, ValueError, NameError, RecursionError) as error:
        raise SchemaError(f"{name} is no schema: {error}".replace("\n", " ")) from error
    for part in walk(shape):
        if isinstance(part, (shapes.CustomType, shapes.ExtType)):
            culprit = name_of(part.cls) if isinstance(part, shapes.CustomType) else "Ext"
            where = f"{name} is" if culprit == name else f"{name} holds {culprit}, which is"
            raise SchemaError(
                f"{where} no type that JSON can be read as; use a msgspec Struct, a dataclass or a TypedDict"
            )
    try:
        msgspec.json.schema(declared)
    except TypeError as error:
        raise SchemaError(f"{name} has no JSON Schema: {error}".replace("\n", " ")) from error
    return shape


def name_of(declared: Any) -> str:
    """A type as one would write it."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if declared is Any:
        return "any"
    if declared in (None, type(None)):
        return "None"
    if origin is typing.Annotated:
        return name_of(arguments[0])
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(name_of, arguments))
    if origin is not None:
        inner = ", ".join("..." if one is ... else name_of(one) for one in arguments)
        return f"{name_of(origin)}[{inner}]" if inner else name_of(origin)
    return getattr(declared, "__name__", None) or str(declared)
