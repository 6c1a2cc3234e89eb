"""What a compiled check promises: True only where the encoding alone is right."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import math
import uuid
from collections.abc import Iterator
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


class Slots(Struct, array_like=True):
    n: int | UnsetType = UNSET


class Partial(Struct):
    n: int | UnsetType = UNSET
    price: float | UnsetType | None = UNSET


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


class Ordered(Pair):
    def __new__(cls, left: int, right: float = 0.0) -> Ordered:
        if left > right:
            raise ValueError("not in order")
        return super().__new__(cls, left, right)


class Note(TypedDict):
    about: Any
    more: NotRequired[Any]


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
    "long list": (Annotated[list[int], Meta(min_length=1)], st.lists(whole, min_size=1, max_size=2)),
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
    "note": (Note, st.fixed_dictionaries({"about": whole}, optional={"more": text})),
    "slots": (Slots, st.builds(Slots, whole)),
    "named tuple": (Pair, st.builds(Pair, whole, finite)),
    "generic": (Box[float], st.builds(Box, finite)),
    "boxes": (Box[list[Tick]], st.builds(Box, st.lists(tick, max_size=2))),
}

SAMPLES: dict[str, Any] = {
    "optional": 1.5,
    "union": 1.5,
    "list": [1.5, 2.0],
    "short list": [1],
    "long list": [1],
    "lists": [[Level.LOW], []],
    "dict": {"a": 1.5},
    "any dict": {"a": 1},
    "words": {"a": 1},
    "int keys": {1: "a"},
    "tuple": (1, 1.5),
    "var tuple": (1.5, 2.5),
    "set": {1, 2},
    "frozenset": frozenset({"a"}),
    "struct": Tick(1, "a", 1.5),
    "structs": [Tick(1, "a", 1.5, 2.5)],
    "renamed": Renamed(1, 1.5),
    "row": Row(1, 1.5),
    "unset": Partial(1, 1.5),
    "tagged": Cat(1),
    "tag field": Dog("rex"),
    "tree": Tree(1.5, [Tree(2.5)], Tree(3.5)),
    "dataclass": Point(1.5),
    "typed dict": {"bid": 1.5, "note": "a"},
    "note": {"about": 1},
    "slots": Slots(1),
    "named tuple": Pair(1, 1.5),
    "generic": Box(1.5),
    "boxes": Box([Tick(1, "a", 1.5)]),
}
SAMPLES |= {name: None for name in TYPES if name not in SAMPLES}
"""Right values with parts to replace; of the others the whole is replaced."""

SCHEMAS: dict[str, Schema[Any]] = {name: schema_of(declared) for name, (declared, _) in TYPES.items()}

scalars = whole | st.floats() | st.text(max_size=4) | st.booleans() | st.none() | st.binary(max_size=3)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(max_size=3) | st.integers(-3, 3) | st.none()
    return (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(Tick, inner, inner, inner, inner)
        | st.builds(Tree, inner, inner, inner)
        | st.builds(Box, inner)
    )


anything = st.recursive(scalars, containers, max_leaves=6)

WRONG: list[Any] = [
    *(NAN, INF, -INF, True, 0, -1, 7, 100, 2**63, -(2**63) - 1, 1.5, 1.0, None, UNSET, "", "a", "low", "too long", "1"),
    *(
        b"",
        b"bytes",
        Level.HIGH,
        Rank.FIRST,
        Access.READ,
        Access.READ | Access.WRITE,
        [],
        [1],
        [NAN],
        (),
        (1, 2.0),
        (1,),
    ),
    *(
        {},
        {"a": 1},
        {"n": "x"},
        {1: 2},
        {"bid": NAN},
        {"bid": 1.0, "more": 1},
        set(),
        {1.5},
        frozenset(),
        object(),
        int,
    ),
    *(datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 2, tzinfo=UTC), datetime.date(2026, 1, 2)),
    *(datetime.time(1, 2), datetime.timedelta(1), decimal.Decimal("NaN"), uuid.UUID(int=1), "2026-01-02T00:00:00Z"),
    *(
        Tick(1, "a", 1.0),
        Tick("1", "a", 1.0),
        Wide(1, "a", 1.0),
        Wide(1, "a", NAN),
        Cat(1),
        Cat("1"),
        Dog("rex"),
        Fish(1.0),
    ),
    *(Row(1), Partial("1"), Tree(1.0, [], Tree(NAN)), Point(1.0), Point(NAN), Pair(1), Box(1.0), Box("1"), Checked(1)),
]

KEYS = (int, str, float, bytes, type(None))


def replaced(value: Any, wrong: Any) -> Iterator[Any]:
    """The value with one part of it, at any depth, replaced by the wrong one; and with what is wrong added to it."""
    yield wrong
    if isinstance(value, Struct) or dataclasses.is_dataclass(value):
        for name in getattr(value, "__struct_fields__", None) or [field.name for field in dataclasses.fields(value)]:
            for part in replaced(getattr(value, name), wrong):
                changed = copy.copy(value)
                setattr(changed, name, part)
                yield changed
    elif isinstance(value, dict):
        for key in [*value, "more"]:
            for part in replaced(value.get(key), wrong):
                yield {**value, key: part}
        if isinstance(wrong, KEYS):
            yield {**value, wrong: 1}
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate([*value, None]):
            for part in replaced(inner, wrong):
                parts = (*value[:index], part, *value[index + 1 :])
                yield type(value)(parts) if type(value) in (list, tuple) else tuple.__new__(type(value), parts)
    elif isinstance(value, (set, frozenset)) and isinstance(wrong, KEYS):
        yield type(value)({*value, wrong})


def holds_no_nan(value: Any, again: Any) -> bool:
    """Whether no float of the value has become null; `again` is what came of it."""
    if isinstance(value, float):
        return math.isfinite(value) or again is not None
    if isinstance(value, (list, tuple)) and isinstance(again, (list, tuple)):
        return all(map(holds_no_nan, value, again))
    if isinstance(value, dict) and isinstance(again, dict):
        return all(holds_no_nan(value[key], again[key]) for key in value if key in again)
    if isinstance(again, Struct) or dataclasses.is_dataclass(again):
        names = again.__struct_fields__ if isinstance(again, Struct) else vars(again)
        given = value.get if isinstance(value, dict) else functools.partial(getattr, value)
        return all(holds_no_nan(given(name, 0), getattr(again, name)) for name in names)
    return True


def keeps_the_promises(name: str, value: Any) -> bool:
    """Asserts what `fits` and `dump` promise of any value whatever; says whether it was accepted."""
    declared, schema = TYPES[name][0], SCHEMAS[name]
    fits = schema.fits(value)
    assert fits is True or fits is False
    try:
        dumped = schema.dump(value)
    except RaffelError as error:
        assert error.code == "OUTPUT_VALIDATION_ERROR"
        assert error.details
        if fits:
            with pytest.raises((TypeError, ValueError)):
                schema.encode(value)
        return False
    again = msgspec.json.decode(dumped, type=declared)
    assert not fits or schema.encode(value) == dumped
    assert name in ("any dict", "note") or holds_no_nan(value, again)
    return True


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_right_value_fits(name: str, data: st.DataObject) -> None:
    value = data.draw(TYPES[name][1])
    assert SCHEMAS[name].fits(value)
    assert keeps_the_promises(name, value)


@pytest.mark.parametrize("name", TYPES)
def test_what_fits_is_what_the_decoder_of_its_encoding_accepts(name: str) -> None:
    for wrong in WRONG:
        for value in replaced(SAMPLES[name], wrong):
            keeps_the_promises(name, value)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(TYPES)), value=anything)
def test_any_value_is_refused_or_made_to_fit(name: str, value: Any) -> None:
    keeps_the_promises(name, value)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("declared", "path", "item"),
    [
        (float, "", lambda x: x),
        (Optional[float], "", lambda x: x),  # noqa: UP045  # the old spelling is a type of its own
        (list[float], "[1]", lambda x: [1.0, x]),
        (list[float | None], "[0]", lambda x: [x]),
        (dict[str, float], "[...]", lambda x: {"a": x}),
        (tuple[int, float | None], "[1]", lambda x: (1, x)),
        (Tick, "price", lambda x: Tick(1, "a", x)),
        (Tick, "ts", lambda x: Tick(1, "a", 1.0, x)),
        (Renamed, "otherName", lambda x: Renamed(1, x)),
        (Partial, "price", lambda x: Partial(1, x)),
        (Row, "[1]", lambda x: Row(1, x)),
        (Tree, "children[0].left.n", lambda x: Tree(1.0, [Tree(1.0, [], Tree(x))])),
        (Point, "y", lambda x: Point(1.0, x)),
        (Quote, "bid", lambda x: {"bid": x}),
        (Cat | Fish, "depth", lambda x: Fish(x)),
        (Box[float | None], "value", lambda x: Box(x)),
    ],
)
def test_what_is_no_number_is_refused_wherever_a_float_is_declared(
    declared: Any, path: str, item: Any, number: float
) -> None:
    schema = schema_of(declared)
    assert schema.fits(item(1.5))
    assert not schema.fits(item(number))
    with pytest.raises(RaffelError) as raised:
        schema.dump(item(number))
    assert raised.value.code == "OUTPUT_VALIDATION_ERROR"
    assert raised.value.details[0]["path"] == path
    assert raised.value.details[0]["message"].endswith(("got NaN", "got Infinity"))


def test_what_is_no_number_is_refused_in_what_is_converted_too() -> None:
    with pytest.raises(RaffelError, match=r"ts: .* got NaN"):
        schema_of(Tick).dump({"seq": 1, "symbol": "a", "price": 1.0, "ts": NAN})


def test_what_is_no_number_is_no_null_where_no_float_is_declared() -> None:
    with pytest.raises(RaffelError, match="got NaN"):
        schema_of(Box[str | None]).dump(Box(NAN))


def test_what_is_no_number_is_null_where_anything_is_declared() -> None:
    assert schema_of(dict[str, Any]).dump({"a": NAN}) == b'{"a":null}'


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Tick, Wide(1, "a", 1.0)),  # a subclass may encode more than its base declares
        (Tick, {"seq": 1, "symbol": "a", "price": 1.0}),
        (float, 1),
        (int, True),
        (int, Rank.FIRST),
        (Demanding, Demanding(UNSET, 1)),
        (Demanding, Demanding(1, UNSET)),
        (Slots, Slots()),
        (Ordered, tuple.__new__(Ordered, (2, 1.0))),
        (Annotated[list[int], Meta(min_length=1)], []),
        (Note, {"more": 1}),
        (Access, Access.READ),
        (Checked, Checked(1)),
        (Derived, Derived(1)),
        (set[float], {NAN}),
        (Annotated[float, Meta(multiple_of=0.1)], 0.3),
        (Annotated[int, Meta(ge=0)], 2**70),
        (Quote, {"bid": 1.0, "more": 1}),
        (Quote, {"note": "a"}),
        (dict[str, int], {1: 1}),
        (tuple[int, float], (1,)),
        (Pair, tuple.__new__(Pair, (1,))),
    ],
)
def test_what_only_the_decoder_can_judge_does_not_fit(declared: Any, value: Any) -> None:
    assert not schema_of(declared).fits(value)


@pytest.mark.parametrize("value", [1, "a", None, [], object(), Point(1.0)])
def test_a_value_of_another_kind_does_not_fit_a_struct(value: Any) -> None:
    assert not schema_of(Tick).fits(value)


def test_an_unset_field_does_not_fit() -> None:
    tick = Tick(1, "a", 1.0)
    del tick.price
    assert not schema_of(Tick).fits(tick)


def test_a_value_that_holds_itself_does_not_fit() -> None:
    tree = Tree(1.0)
    tree.children = [tree]
    assert not schema_of(Tree).fits(tree)


def test_the_exact_class_alone_is_right_whatever_it_holds() -> None:
    expected = {
        int: int,
        str: str,
        bool: bool,
        bytes: bytes,
        type(None): type(None),
        dict: dict,
        dict[str, Any]: dict,
        list: list,
        list[Any]: list,
        datetime.datetime: datetime.datetime,
        uuid.UUID: uuid.UUID,
        Level: Level,
    }
    assert {declared: schema_of(declared).exact for declared in expected} == expected


@pytest.mark.parametrize(
    "declared",
    [float, Tick, Point, Positive, Word, int | str, Literal["a"], Access, list[int], dict[str, float], tuple[int, ...]],
)
def test_where_something_inside_may_be_wrong_there_is_no_exact_class(declared: Any) -> None:
    assert schema_of(declared).exact is None


@pytest.mark.parametrize(
    ("declared", "trusted"),
    [
        (Tick, Tick),
        (Box[float], Box),
        (Annotated[Tick, Meta(description="a tick")], Tick),
        (Point, Point),
        (Pair, Pair),
        (Quote, dict),
        (float, float),
        (Positive, int),
        (list[Tick], list),
        (dict[str, Tick], dict),
        (Level, Level),
        (None, dict),
        (Cat | Fish, None),
        (Literal["a"], None),
    ],
)
def test_the_trusted_class_is_the_declared_one(declared: Any, trusted: type | None) -> None:
    assert schema_of(declared).trusted is trusted


def test_without_a_schema_only_what_json_has_fits() -> None:
    schema = schema_of(None)
    assert all(map(schema.fits, ({}, [], (), "a", 1, 1.5, True, None)))
    assert not any(map(schema.fits, (Tick(1, "a", 1.0), b"", {1}, Level.LOW, msgspec.Raw(b"1"))))
