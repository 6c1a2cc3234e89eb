"""Checks made to measure: for a type, the source of one function that says whether a value is wholly of it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import itertools
import math
import re
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

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
        tests = source.record(shape, "x") if isinstance(shape, _Record) else source.tests(shape, "x")
    except _Unknown:
        return never
    # A field may be unset, a TypedDict lack a key, a value hold itself: the decoder will say it better.
    source.define("fits", tests, but_for="AttributeError, KeyError, RecursionError")
    exec("\n".join(source.lines), source.names)
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


class _Loop(NamedTuple):
    head: str
    tests: list[str]


class _Source:
    """The source of one check, and of the functions that it calls.

    A test is an expression; several are a conjunction, in order. `x.n.__class__ is int` is a tenth quicker than
    `type(x.n) is int` and no less certain here: a class can lie about itself, but the encoder goes by the true type and
    refuses what only claims to be an int.
    """

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"isfinite": math.isfinite, "strings": _string_keys, "UNSET": msgspec.UNSET}
        self.lines: list[str] = []
        self._numbers = itertools.count()
        self._records: dict[object, str] = {}
        self._loops: dict[str, _Loop] = {}

    def define(self, name: str, tests: list[str], but_for: str | None = None) -> None:
        """Adds a function that is True where all tests are, and False where it meets one of these errors."""
        body = self._body(tests)
        if but_for is not None:
            body = ["try:", *_indented(body), f"except ({but_for}):", "    return False"]
        self.lines += [f"def {name}(x):", *_indented(body)]

    def _body(self, tests: list[str]) -> list[str]:
        if not any(map(_LOOP.fullmatch, tests)):
            return [f"return {_all(tests)}"]
        return [*self._statements(tests), "return True"]

    def _statements(self, tests: list[str]) -> list[str]:
        """Statements that return False where a test fails. Loops are written in place, which saves their calls."""
        lines: list[str] = []
        plain: list[str] = []
        for test in [*tests, None]:
            loop = test and _LOOP.fullmatch(test)
            if test and not loop:
                plain.append(test)
                continue
            if plain:
                lines += [f"if not ({_all(plain)}):", "    return False"]
                plain = []
            if loop:
                head, inner = self._loops[loop[1]]
                lines += [head.format(loop[2]), *_indented(self._statements(inner))]
        return lines

    def tests(self, shape: shapes.Type, value: str) -> list[str]:
        """What is true for a value of this shape, and for no other; nothing for any. `value` may be evaluated often."""
        match bare(shape):
            case shapes.AnyType():
                return []
            case shapes.NoneType():
                return [f"{value} is None"]
            case shapes.UnionType(types):
                none_first = sorted(types, key=lambda one: not isinstance(one, shapes.NoneType))
                return _either([self.tests(one, value) for one in none_first])
            case shapes.LiteralType(values):
                return self._literal(values, value)
            case known if isinstance(known, _Record):
                return self._record(known, value)
            case known:
                return [self._is_a(known, value), *self._within(known, value)]

    def _is_a(self, shape: shapes.Type, value: str) -> str:
        cls = class_of(shape)
        if cls is None:
            raise _Unknown
        return f"{value}.__class__ is {self._constant(cls)}"

    def _within(self, shape: shapes.Type, value: str) -> Iterator[str]:
        """What else must be true for a value of the right class."""
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
                yield from self._places(items, value)
            case shapes.DictType():
                yield from _lengths(shape, value)
                yield from self._each_pair(shape, value)
            case Members():
                yield from self._members(shape.properties, shape.others, value)
            case _ if not isinstance(shape, _UNSEEN):
                raise _Unknown

    def _of(self, expression: str, tests: Callable[[str], list[str]]) -> list[str]:
        """The tests of an expression that is evaluated once, by the first of them."""
        number = next(self._numbers)
        mark = f"\0{number}\0"
        found = tests(mark)
        uses = sum(test.count(mark) for test in found)
        if uses > 1:
            found[0] = found[0].replace(mark, f"(v{number} := {expression})", 1)
            expression = f"v{number}"
        return [test.replace(mark, expression) for test in found]

    def _literal(self, values: tuple[object, ...], value: str) -> list[str]:
        tests = [[f"{value} is None"]] if None in values else []
        for cls in (str, int):
            own = frozenset(one for one in values if type(one) is cls)
            if own:
                tests.append([f"{value}.__class__ is {cls.__name__}", f"{value} in {self._constant(own)}"])
        return _either(tests)

    def _record(self, shape: _Record, value: str) -> list[str]:
        """A record of scalars is tested in place, which saves a call; any other by a function: it may hold itself."""
        if not any(isinstance(part, _Record) for field in shape.fields for part in walk(field.type)):
            return self.record(shape, value)
        name = self._records.get(shape.cls)
        if name is None:
            name = self._records[shape.cls] = f"is{next(self._numbers)}"
            self.define(name, self.record(shape, "x"))
        return [f"{name}({value})"]

    def record(self, shape: _Record, value: str) -> list[str]:
        """The tests of a record, in place."""
        return [self._is_a(shape, value), *self._fields(shape, value)]

    def _fields(self, shape: _Record, value: str) -> Iterator[str]:
        match shape:
            case shapes.StructType() | shapes.DataclassType():
                if hasattr(shape.cls, "__post_init__") or not _is_plain(shape):
                    raise _Unknown
                may_be_left_out = not getattr(shape, "array_like", False)
                for field in shape.fields:
                    attribute = functools.partial(self._attribute, field, may_be_left_out)
                    yield from self._of(f"{value}.{field.name}", attribute)
            case shapes.NamedTupleType():
                if shape.cls.__bases__ != (tuple,):
                    raise _Unknown
                yield from self._places([field.type for field in shape.fields], value)
            case shapes.TypedDictType():
                properties = tuple((field.encode_name, field.type, field.required) for field in shape.fields)
                yield from self._members(properties, False, value)

    def _attribute(self, field: shapes.Field, may_be_left_out: bool, value: str) -> list[str]:
        """What is UNSET is left out of the JSON: right where that is the default, wrong where the field is required."""
        tests = self.tests(field.type, value)
        no_default = (field.default, field.default_factory) == (msgspec.NODEFAULT, msgspec.NODEFAULT)
        if may_be_left_out and no_default and not field.required:
            return _either([[f"{value} is UNSET"], tests])
        if may_be_left_out and field.required and not tests:
            return [f"{value} is not UNSET"]
        return tests

    def _places(self, items: Sequence[shapes.Type], value: str) -> Iterator[str]:
        yield f"len({value}) == {len(items)}"
        for index, item in enumerate(items):
            yield from self._of(f"{value}[{index}]", functools.partial(self.tests, item))

    def _members(
        self, properties: tuple[tuple[str, shapes.Type, bool], ...], others: bool, value: str
    ) -> Iterator[str]:
        optional = [name for name, _, required in properties if not required]
        size = " + ".join((str(len(properties) - len(optional)), *(f"({name!r} in {value})" for name in optional)))
        yield f"(len({value}) == {size} or strings({value}))" if others else f"len({value}) == {size}"
        for name, shape, required in properties:
            tests = self._of(f"{value}[{name!r}]", functools.partial(self.tests, shape))
            if required:
                yield from tests or [f"{name!r} in {value}"]
            elif tests:
                yield from _either([[f"{name!r} not in {value}"], tests])

    def _each(self, item: shapes.Type, value: str) -> Iterator[str]:
        name = f"i{next(self._numbers)}"
        tests = self.tests(item, name)
        if tests:
            yield self._loop(f"for {name} in {{}}:", tests, value)

    def _each_pair(self, shape: shapes.DictType, value: str) -> Iterator[str]:
        number = next(self._numbers)
        key, item = f"k{number}", f"i{number}"
        match bare(shape.key_type):
            case shapes.AnyType() | shapes.StrType(None, None, None):
                key_tests = [f"{key}.__class__ is str"]
            case shapes.StrType() | shapes.IntType() as known:
                key_tests = self.tests(known, key)
            case _:
                raise _Unknown
        item_tests = self.tests(shape.value_type, item)
        if item_tests:
            yield self._loop(f"for {key}, {item} in {{}}.items():", [*key_tests, *item_tests], value)
        else:
            yield self._loop(f"for {key} in {{}}:", key_tests, value)

    def _loop(self, head: str, tests: list[str], value: str) -> str:
        # Written out it beats `all`, `map` and comprehensions, for every shape of item.
        name = f"all{next(self._numbers)}"
        loop = self._loops[name] = _Loop(head, tests)
        self.lines += [f"def {name}(x):", *_indented([loop.head.format("x"), *_indented(self._statements(tests))])]
        self.lines += ["    return True"]
        return f"{name}({value})"

    def _constant(self, value: object) -> str:
        """A name for the value, among the globals of the source: found quicker than a built-in's."""
        if isinstance(value, type) and value.__module__ == "builtins":
            name = value.__name__
        else:
            name = f"c{next(self._numbers)}"
        self.names[name] = value
        return name


_LOOP = re.compile(r"(all\d+)\((\w+)\)")


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _all(tests: Iterable[str]) -> str:
    return " and ".join(tests) or "True"


def _either(alternatives: list[list[str]]) -> list[str]:
    """One test that is true where all tests of an alternative are."""
    return [f"({' or '.join(map(_all, alternatives))})"] if all(alternatives) else []


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
