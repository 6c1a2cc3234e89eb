"""Checks made to measure: for a type, the source of one function that says whether a value is wholly of it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import itertools
import math
import re
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect as shapes

Check = Callable[[object], bool]


class Members(shapes.Type):
    """A JSON object as JSON Schema has it: these properties, and whether there may be others."""

    properties: tuple[tuple[str, shapes.Type, bool], ...]
    """Name, shape, and whether it is required."""
    others: bool


def compile_check(shape: shapes.Type) -> Check:
    """A function that is True only for a value whose JSON, read back as this type, is the same value.

    It says False where it cannot tell: for what is wrong, for what only the decoder can judge (a subclass, an int for a
    float), and for every value of a type with rules of its own (a `__post_init__`).
    """
    shape = bare(shape)
    if isinstance(shape, (shapes.AnyType, shapes.RawType)):
        return _is_json
    source = _Source()
    try:
        test = source.record(shape, "x") if isinstance(shape, _Record) else source.test(shape, "x")
    except _Unknown:
        return never
    # A field may be unset, a TypedDict lack a key, a value hold itself: the decoder will say it better.
    source.define(
        "fits", "try:", f"    return {test}", "except (AttributeError, KeyError, RecursionError):", "    return False"
    )
    exec("\n".join(source.functions), source.names)
    return typing.cast("Check", source.names["fits"])


def bare(shape: shapes.Type) -> shapes.Type:
    """The shape without the annotations that only describe it."""
    while isinstance(shape, shapes.Metadata):
        shape = shape.type
    return shape


_CLASSES: dict[type[shapes.Type], type] = {
    shapes.BoolType: bool,
    shapes.IntType: int,
    shapes.FloatType: float,
    shapes.StrType: str,
    shapes.BytesType: bytes,
    shapes.ByteArrayType: bytearray,
    shapes.NoneType: type(None),
    shapes.DateTimeType: datetime.datetime,
    shapes.DateType: datetime.date,
    shapes.TimeType: datetime.time,
    shapes.TimeDeltaType: datetime.timedelta,
    shapes.UUIDType: uuid.UUID,
    shapes.DecimalType: decimal.Decimal,
    shapes.ListType: list,
    shapes.VarTupleType: tuple,
    shapes.TupleType: tuple,
    shapes.SetType: set,
    shapes.FrozenSetType: frozenset,
    shapes.DictType: dict,
    shapes.TypedDictType: dict,
    Members: dict,
}


def class_of(shape: shapes.Type) -> type | None:
    """The class whose instances the values of this shape are; None where there is not one."""
    shape = bare(shape)
    match shape:
        case shapes.StructType() | shapes.DataclassType() | shapes.NamedTupleType() | shapes.EnumType():
            return typing.get_origin(shape.cls) or shape.cls
        case _:
            return _CLASSES.get(type(shape))


_UNSEEN = (shapes.BoolType, shapes.NoneType, shapes.DateType, shapes.TimeDeltaType, shapes.UUIDType, shapes.DecimalType)
_UNSEEN_BARE = (shapes.IntType, shapes.StrType, shapes.BytesType, shapes.DateTimeType, shapes.TimeType)
_ANY = shapes.AnyType()


def exact_class(shape: shapes.Type) -> type | None:
    """The class whose own instances (no subclass's) are of this shape whatever they hold; None where there is none."""
    shape = bare(shape)
    match shape:
        case shapes.AnyType() | shapes.DictType(
            shapes.AnyType() | shapes.StrType(None, None, None), shapes.AnyType(), None, None
        ):
            return dict
        case shapes.ListType(shapes.AnyType(), None, None) | shapes.VarTupleType(shapes.AnyType(), None, None):
            return class_of(shape)
        case shapes.EnumType() if not issubclass(shape.cls, enum.Flag):
            return shape.cls
        case _ if isinstance(shape, _UNSEEN) or (isinstance(shape, _UNSEEN_BARE) and shape == type(shape)()):
            return class_of(shape)
        case _:
            return None


_JSON_CLASSES = frozenset({dict, list, tuple, str, int, float, bool, type(None)})


def _is_json(value: object) -> bool:
    # What is inside decides itself: JSON has no more types, and the encoder raises on everything else.
    return value.__class__ in _JSON_CLASSES


def never(value: object) -> bool:
    """The check of a type that only its own decoder knows."""
    return False


def walk(shape: shapes.Type) -> Iterator[shapes.Type]:
    """The shape and all that it is made of, each once; types may hold themselves."""
    seen: set[int] = set()
    waiting = [shape]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting.extend(_parts(one))


def _parts(shape: shapes.Type) -> Iterator[shapes.Type]:
    for name in shape.__struct_fields__:
        value = getattr(shape, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, shapes.Type):
                yield part
            elif isinstance(part, shapes.Field):
                yield part.type


_Record = shapes.StructType | shapes.DataclassType | shapes.NamedTupleType | shapes.TypedDictType
_Sized = shapes.CollectionType | shapes.DictType | shapes.StrType | shapes.BytesType | shapes.ByteArrayType


class _Unknown(Exception):
    """A shape of which only the decoder can tell."""


_TRUE = "True"


class _Source:
    """The source of one check, and of the functions that it calls.

    `x.n.__class__ is int` is a tenth quicker than `type(x.n) is int` and no less certain here: a class can lie about
    itself, but the encoder goes by the true type and refuses what only claims to be an int.
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"isfinite": math.isfinite, "strings": _string_keys, "UNSET": msgspec.UNSET}
        self.functions: list[str] = []
        self._numbers = itertools.count()
        self._records: dict[object, str] = {}

    def define(self, name: str, *lines: str) -> None:
        self.functions.append("\n    ".join((f"def {name}(x):", *lines)))

    def test(self, shape: shapes.Type, value: str) -> str:
        """An expression that is true for a value of this shape. `value` is evaluated at each of its uses."""
        match bare(shape):
            case shapes.AnyType():
                return _TRUE
            case shapes.NoneType():
                return f"{value} is None"
            case shapes.UnionType(types):
                none_first = sorted(types, key=lambda one: not isinstance(one, shapes.NoneType))
                return _either(self.test(one, value) for one in none_first)
            case shapes.LiteralType(values):
                return self._literal(values, value)
            case (
                shapes.StructType()
                | shapes.DataclassType()
                | shapes.NamedTupleType()
                | shapes.TypedDictType() as record
            ):
                return self._record(record, value)
            case known:
                return " and ".join((self._is_a(known, value), *self._within(known, value)))

    def _is_a(self, shape: shapes.Type, value: str) -> str:
        cls = class_of(shape)
        if cls is None:
            raise _Unknown
        return f"{value}.__class__ is {self._constant(cls)}"

    def _within(self, shape: shapes.Type, value: str) -> Iterator[str]:
        """What else must hold for a value of the right class."""
        match shape:
            case shapes.IntType():
                limits = list(_limits(shape, value))
                if limits:
                    yield f"{-(2**63)} <= {value} < {2**63}"  # beyond, the decoder compares otherwise
                yield from limits
            case shapes.FloatType(multiple_of=None):
                yield f"isfinite({value})"
                yield from _limits(shape, value)
            case shapes.StrType():
                yield from _lengths(shape, value)
                if shape.pattern is not None:
                    yield f"{self._constant(re.compile(shape.pattern).search)}({value}) is not None"
            case shapes.BytesType() | shapes.ByteArrayType():
                yield from _lengths(shape, value)
            case shapes.DateTimeType() | shapes.TimeType():
                if shape.tz is not None:
                    yield f"{value}.utcoffset() is not None" if shape.tz else f"{value}.tzinfo is None"
            case shapes.EnumType() if not issubclass(shape.cls, enum.Flag):
                pass
            case shapes.ListType() | shapes.VarTupleType():
                yield from _lengths(shape, value)
                yield from self._each(shape.item_type, value)
            case shapes.SetType(item, None, None) | shapes.FrozenSetType(item, None, None):
                yield from self._each(item, value)
            case shapes.TupleType(items):
                yield f"len({value}) == {len(items)}"
                yield from (self._of(item, f"{value}[{index}]") for index, item in enumerate(items))
            case shapes.DictType():
                yield from _lengths(shape, value)
                yield from self._each_pair(shape, value)
            case Members():
                yield from self._members(shape.properties, shape.others, value)
            case _ if not isinstance(shape, _UNSEEN):
                raise _Unknown

    def _of(self, shape: shapes.Type, expression: str) -> str:
        """The test of an expression that is evaluated once, where the test looks at its value first."""
        number = next(self._numbers)
        mark = f"\0{number}\0"
        return _evaluated_once(self.test(shape, mark), mark, f"v{number}", expression)

    def _literal(self, values: tuple[object, ...], value: str) -> str:
        tests = [f"{value} is None"] if None in values else []
        for cls in (str, int):
            own = frozenset(one for one in values if type(one) is cls)
            if own:
                tests.append(f"{value}.__class__ is {cls.__name__} and {value} in {self._constant(own)}")
        return _either(tests)

    def _record(self, shape: _Record, value: str) -> str:
        """A record of scalars is tested in place, which saves a call; any other by a function: it may hold itself."""
        if not any(isinstance(part, _Record) for field in shape.fields for part in walk(field.type)):
            return self.record(shape, value)
        name = self._records.get(shape.cls)
        if name is None:
            name = self._records[shape.cls] = f"is{next(self._numbers)}"
            self.define(name, "return " + self.record(shape, "x"))
        return f"{name}({value})"

    def record(self, shape: _Record, value: str) -> str:
        """The test of a record, in place."""
        return " and ".join(self._fields(shape, value))

    def _fields(self, shape: _Record, value: str) -> Iterator[str]:
        yield self._is_a(shape, value)
        match shape:
            case shapes.StructType() | shapes.DataclassType():
                if hasattr(shape.cls, "__post_init__") or not _is_plain(shape):
                    raise _Unknown
                for field in shape.fields:
                    yield self._attribute(field, f"{value}.{field.name}", getattr(shape, "array_like", False))
            case shapes.NamedTupleType():
                if shape.cls.__bases__ != (tuple,):
                    raise _Unknown
                yield f"len({value}) == {len(shape.fields)}"
                yield from (self._of(field.type, f"{value}[{index}]") for index, field in enumerate(shape.fields))
            case shapes.TypedDictType():
                properties = tuple((field.encode_name, field.type, field.required) for field in shape.fields)
                yield from self._members(properties, False, value)

    def _attribute(self, field: shapes.Field, expression: str, array_like: bool) -> str:
        number = next(self._numbers)
        mark = f"\0{number}\0"
        test = self.test(field.type, mark)
        defaults = field.default, field.default_factory
        if array_like or (not field.required and defaults != (msgspec.NODEFAULT, msgspec.NODEFAULT)):
            pass
        elif field.required:
            test = f"{mark} is not UNSET" if test == _TRUE else test
        else:
            test = _either((f"{mark} is UNSET", test))
        return _evaluated_once(test, mark, f"v{number}", expression)

    def _members(
        self, properties: tuple[tuple[str, shapes.Type, bool], ...], others: bool, value: str
    ) -> Iterator[str]:
        optional = [name for name, _, required in properties if not required]
        size = " + ".join((str(len(properties) - len(optional)), *(f"({name!r} in {value})" for name in optional)))
        yield f"(len({value}) == {size} or strings({value}))" if others else f"len({value}) == {size}"
        for name, shape, required in properties:
            test = self._of(shape, f"{value}[{name!r}]")
            if required:
                yield f"{name!r} in {value}" if test == _TRUE else test
            elif test != _TRUE:
                yield f"({name!r} not in {value} or {test})"

    def _each(self, item: shapes.Type, value: str) -> Iterator[str]:
        test = self.test(item, "i")
        if test != _TRUE:
            yield self._loop("for i in x:", test, value)

    def _each_pair(self, shape: shapes.DictType, value: str) -> Iterator[str]:
        match bare(shape.key_type):
            case shapes.AnyType() | shapes.StrType(None, None, None):
                key = "k.__class__ is str"
            case shapes.StrType() | shapes.IntType() as known:
                key = self.test(known, "k")
            case _:
                raise _Unknown
        test = self.test(shape.value_type, "i")
        if test == _TRUE:
            yield self._loop("for k in x:", key, value)
        else:
            yield self._loop("for k, i in x.items():", f"{key} and {test}", value)

    def _loop(self, head: str, test: str, value: str) -> str:
        # A loop written out beats `all`, `map` and comprehensions for every shape of item.
        name = f"all{next(self._numbers)}"
        self.define(name, head, f"    if not ({test}):", "        return False", "return True")
        return f"{name}({value})"

    def _constant(self, value: object) -> str:
        """A name for the value, among the globals of the source: found quicker than a built-in's."""
        name = (
            value.__name__ if isinstance(value, type) and value.__module__ == "builtins" else f"c{next(self._numbers)}"
        )
        self.names[name] = value
        return name


def _evaluated_once(test: str, mark: str, name: str, expression: str) -> str:
    if test.count(mark) == 1:
        return test.replace(mark, expression)
    return test.replace(mark, f"({name} := {expression})", 1).replace(mark, name)


def _either(tests: Iterable[str]) -> str:
    return f"({' or '.join(tests)})"


def _limits(shape: shapes.IntType | shapes.FloatType, value: str) -> Iterator[str]:
    for sign, limit in ((">", shape.gt), (">=", shape.ge), ("<", shape.lt), ("<=", shape.le)):
        if limit is not None:
            yield f"{value} {sign} {limit!r}"
    if shape.multiple_of is not None:
        yield f"{value} % {shape.multiple_of!r} == 0"


def _lengths(shape: _Sized, value: str) -> Iterator[str]:
    if shape.min_length is not None:
        yield f"len({value}) >= {shape.min_length}"
    if shape.max_length is not None:
        yield f"len({value}) <= {shape.max_length}"


def _is_plain(shape: shapes.StructType | shapes.DataclassType) -> bool:
    """Whether these fields are all that is encoded: a dataclass may have others, and attrs has rules of its own."""
    if isinstance(shape, shapes.StructType):
        return True
    if not dataclasses.is_dataclass(shape.cls):
        return False
    return [field.name for field in shape.fields] == [
        field.name for field in dataclasses.fields(shape.cls) if field.init
    ]


def _string_keys(members: dict[object, object]) -> bool:
    return {*map(type, members)} <= {str}
