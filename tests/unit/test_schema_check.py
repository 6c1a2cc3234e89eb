"""What a compiled check promises: True only where the encoding alone is right."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import math
import operator
import typing
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType

from raffel_core.errors import RaffelError
from raffel_core.schema import Schema, schema_of

NAN, INF = float("nan"), float("inf")
UTC = datetime.UTC


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Rank(enum.IntEnum):
    FIRST = 1
    LAST = 9


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float | None = None


class Wide(Tick):
    secret: str = "s"


class Renamed(Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    some_name: int
    other_name: float = 0.0


class Row(Struct, array_like=True):
    n: int
    price: float = 0.0


class Partial(Struct):
    n: int | UnsetType = UNSET
    price: float | None | UnsetType = UNSET


class Demanding(Struct):
    n: int | UnsetType
    free: Any


class Cat(Struct, tag="cat"):
    lives: int


class Dog(Struct, tag="dog", tag_field="kind"):
    name: str


class Fish(Struct, tag="fish"):
    depth: float


class Tree(Struct):
    n: float
    children: list[Tree] = []
    left: Tree | None = None


class Checked(Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("negative")


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Derived:
    x: int
    twice: int = dataclasses.field(init=False, default=0)


class Quote(TypedDict):
    bid: float
    note: NotRequired[str]


class Pair(NamedTuple):
    left: int
    right: float = 0.0


V = TypeVar("V")


class Box(Struct, Generic[V]):
    value: V


Positive = Annotated[int, Meta(ge=1, lt=100)]
Word = Annotated[str, Meta(min_length=1, max_length=5, pattern="^[a-z]")]

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(codec="utf-8"), max_size=6)
whole = st.integers(-(2**70), 2**70)
aware = st.datetimes(timezones=st.just(UTC))
tick = st.builds(Tick, whole, text, finite, st.none() | finite)


def tree_of(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.builds(Tree, finite, st.lists(children, max_size=3), st.none() | children)


TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, whole),
    "float": (float, finite),
    "str": (str, text),
    "bool": (bool, st.booleans()),
    "None": (type(None), st.none()),
    "bytes": (bytes, st.binary(max_size=5)),
    "datetime": (datetime.datetime, st.datetimes() | aware),
    "aware": (Annotated[datetime.datetime, Meta(tz=True)], aware),
    "naive": (Annotated[datetime.datetime, Meta(tz=False)], st.datetimes()),
    "date": (datetime.date, st.dates()),
    "time": (datetime.time, st.times()),
    "timedelta": (datetime.timedelta, st.timedeltas()),
    "uuid": (uuid.UUID, st.uuids()),
    "decimal": (decimal.Decimal, st.decimals()),
    "optional": (Optional[float], st.none() | finite),  # noqa: UP045  # the old spelling is a type of its own
    "union": (int | float | str | None, whole | finite | text | st.none()),
    "literal": (Literal["a", "b", 3, None], st.sampled_from(["a", "b", 3, None])),
    "enum": (Level, st.sampled_from(Level)),
    "int enum": (Rank, st.sampled_from(Rank)),
    "positive": (Positive, st.integers(1, 99)),
    "step": (Annotated[int, Meta(multiple_of=5)], st.integers(-9, 9).map(lambda n: n * 5)),
    "share": (Annotated[float, Meta(gt=0, le=1)], st.floats(0, 1, exclude_min=True)),
    "word": (Word, st.from_regex(r"[a-z]{1,5}", fullmatch=True)),
    "chunk": (Annotated[bytes, Meta(max_length=3)], st.binary(max_size=3)),
    "list": (list[float], st.lists(finite, max_size=3)),
    "short list": (Annotated[list[int], Meta(max_length=2)], st.lists(whole, max_size=2)),
    "lists": (list[list[Level]], st.lists(st.lists(st.sampled_from(Level), max_size=2), max_size=2)),
    "dict": (dict[str, float], st.dictionaries(text, finite, max_size=3)),
    "any dict": (dict[str, Any], st.dictionaries(text, whole | text, max_size=3)),
    "words": (dict[Word, int], st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), whole, max_size=2)),
    "int keys": (dict[int, str], st.dictionaries(whole, text, max_size=3)),
    "tuple": (tuple[int, float], st.tuples(whole, finite)),
    "var tuple": (tuple[float, ...], st.lists(finite, max_size=3).map(tuple)),
    "set": (set[int], st.sets(whole, max_size=3)),
    "frozenset": (frozenset[str], st.frozensets(text, max_size=3)),
    "struct": (Tick, tick),
    "structs": (list[Tick], st.lists(tick, max_size=3)),
    "renamed": (Renamed, st.builds(Renamed, whole, finite)),
    "row": (Row, st.builds(Row, whole, finite)),
    "unset": (Partial, st.builds(Partial, whole | st.just(UNSET), finite | st.none() | st.just(UNSET))),
    "tagged": (Cat | Fish | None, st.builds(Cat, whole) | st.builds(Fish, finite) | st.none()),
    "tag field": (Dog, st.builds(Dog, text)),
    "tree": (Tree, st.recursive(st.builds(Tree, finite), tree_of, max_leaves=5)),
    "dataclass": (Point, st.builds(Point, finite, finite)),
    "typed dict": (
        Quote,
        st.fixed_dictionaries({"bid": finite}, optional={"note": text}),
    ),
    "named tuple": (Pair, st.builds(Pair, whole, finite)),
    "generic": (Box[float], st.builds(Box, finite)),
    "boxes": (Box[list[Tick]], st.builds(Box, st.lists(tick, max_size=2))),
}

scalars = (
    whole
    | st.floats()
    | st.text(max_size=4)
    | st.booleans()
    | st.none()
    | st.binary(max_size=3)
    | st.sampled_from([NAN, INF, UNSET, Level.LOW, Rank.LAST, Access.READ, Access.READ | Access.WRITE, 10**5000, "a"])
    | st.datetimes()
    | aware
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.dates()
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = st.text(max_size=3) | st.integers(-3, 3) | st.none() | st.sampled_from(["bid", "note", "n", "value"])
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.builds(Tick, inner, inner, inner, inner)
        | st.builds(Wide, inner, inner, inner, inner)
        | st.builds(Renamed, inner, inner)
        | st.builds(Row, inner, inner)
        | st.builds(Partial, inner, inner)
        | st.builds(Cat, inner)
        | st.builds(Dog, inner)
        | st.builds(Fish, inner)
        | st.builds(Tree, inner, inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(Box, inner)
        | st.fixed_dictionaries({"bid": inner}, optional={"note": inner, "more": inner})
    )


anything = st.recursive(scalars, containers, max_leaves=6)


def mutated(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Right values of which one part, at most, has been replaced by anything."""

    @st.composite
    def strategy(draw: st.DrawFn) -> Any:
        value = draw(valid)
        fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
        wrong = draw(anything)
        if fields:
            setattr(value, draw(st.sampled_from(sorted(fields))), wrong)
        elif isinstance(value, list):
            value.insert(draw(st.integers(0, len(value))), wrong)
        elif isinstance(value, dict):
            value[draw(st.sampled_from(["bid", "note", "zz", *value]))] = wrong
        elif isinstance(value, tuple) and value:
            index = draw(st.integers(0, len(value) - 1))
            value = type(value)._make([*value[:index], wrong, *value[index + 1 :]]) if hasattr(value, "_make") else (
                *value[:index],
                wrong,
                *value[index + 1 :],
            )
        else:
            value = wrong
        return value

    return strategy()


@functools.cache
def schema(name: str) -> Schema[Any]:
    return schema_of(TYPES[name][0])


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_right_value_fits(name: str, data: st.DataObject) -> None:
    value = data.draw(TYPES[name][1])
    assert schema(name).fits(value) is True


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_fits_is_accepted_by_the_decoder_of_its_encoding(name: str, data: st.DataObject) -> None:
    declared, valid = TYPES[name]
    value = data.draw(mutated(valid) | anything)
    if not schema(name).fits(value):
        return
    try:
        encoded = schema(name).encode(value)
    except (TypeError, ValueError):
        with pytest.raises(RaffelError, match="OUTPUT_VALIDATION_ERROR"):
            schema(name).dump(value)
        return
    assert schema(name).dump(value) == encoded
    again = msgspec.json.decode(encoded, type=declared)
    assert msgspec.json.encode(again) == encoded or isinstance(value, (set, frozenset, datetime.datetime))
    assert holds_no_nan(value, again)


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_does_not_fit_is_refused_or_made_to_fit(name: str, data: st.DataObject) -> None:
    declared, valid = TYPES[name]
    value = data.draw(mutated(valid) | anything)
    try:
        dumped = schema(name).dump(value)
    except RaffelError as error:
        assert error.code == "OUTPUT_VALIDATION_ERROR"
        assert error.details
        return
    again = msgspec.json.decode(dumped, type=declared)
    if not isinstance(again, (float, list, dict, tuple)):
        assert schema(name).fits(again)
    assert holds_no_nan(value, again)


def holds_no_nan(value: Any, again: Any) -> bool:
    """Whether no float of the value has become null; `again` is what came of it."""
    if isinstance(value, float):
        return math.isfinite(value) or again is not None
    if isinstance(value, (list, tuple)) and isinstance(again, (list, tuple)):
        return all(map(holds_no_nan, value, again))
    if isinstance(value, dict) and isinstance(again, dict):
        return all(holds_no_nan(value[key], again[key]) for key in value if key in again)
    if isinstance(value, Struct) and isinstance(again, Struct):
        return all(
            holds_no_nan(getattr(value, name), getattr(again, name, 0)) for name in value.__struct_fields__
        )
    return True
