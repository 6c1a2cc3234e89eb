"""Any Struct through its converters, with google.protobuf and its JSON mapping as the judge of what is on the wire."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, NamedTuple

import msgspec
from google.protobuf import descriptor_pb2, duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from raffel_core.errors import RaffelError
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.services import Services, services_of
from raffel_core.route import Origin, make_route

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
SECOND = datetime.timedelta(seconds=1)
LONGEST = datetime.timedelta(seconds=315_576_000_000)
MICROSECOND = datetime.timedelta(microseconds=1)


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class Rank(enum.IntEnum):
    NONE = 0
    HIGH = 900
    LOW = 3


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Kind(NamedTuple):
    """A type, its values, what their JSON is to protobuf, and what they are when they have been there and back."""

    type: Any
    values: st.SearchStrategy[Any]
    json: Callable[[Any], Any] = lambda value: value
    back: Callable[[Any], Any] = lambda value: value
    members: Callable[[Any], str] | None = None
    """Of a tagged union: the end of the name of the member that a value is."""
    empty: Any = None
    """Of a list or a map: what is shown where there is nothing in it."""


def fraction(micros: int) -> str:
    """None, three or six digits, as protobuf has them."""
    if not micros:
        return ""
    return f".{micros // 1000:03}" if micros % 1000 == 0 else f".{micros:06}"


def timestamp(value: datetime.datetime) -> str:
    at = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return (
        f"{at.year:04}-{at.month:02}-{at.day:02}T{at.hour:02}:{at.minute:02}:{at.second:02}{fraction(at.microsecond)}Z"
    )


def duration(value: datetime.timedelta) -> str:
    seconds, micros = divmod(abs(value), SECOND)
    return f"{'-' if value < datetime.timedelta() else ''}{seconds}{fraction(micros // MICROSECOND)}s"


def in_utc(value: datetime.datetime) -> datetime.datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def base64_text(value: bytes) -> str:
    return base64.b64encode(value).decode()


zones = st.sampled_from([UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30)), None])
datetimes = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=zones)
doubles = st.floats(allow_nan=False, allow_infinity=False)
exact = st.integers(-(2**53), 2**53)
json_values = st.recursive(
    st.none() | st.booleans() | exact | doubles | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)

INT = Kind(int, st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300) | st.sampled_from([16383, 16384, 2**21]), str)
FLOAT = Kind(float, doubles)
STR = Kind(str, st.text(max_size=5) | st.sampled_from(["x" * 127, "é" * 64, "y" * 200]))
BOOL = Kind(bool, st.booleans())
SCALARS = [
    INT,
    FLOAT,
    STR,
    BOOL,
    Kind(bytes, st.binary(max_size=5), base64_text),
    Kind(bytearray, st.binary(max_size=5).map(bytearray), base64_text),
    Kind(datetime.datetime, datetimes, timestamp, in_utc),
    Kind(datetime.timedelta, st.timedeltas(-LONGEST, LONGEST), duration),
    Kind(datetime.date, st.dates(), str),
    Kind(datetime.time, st.times(), str),
    Kind(decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=3), str),
    Kind(uuid.UUID, st.uuids(), str),
    Kind(Literal["a", "b"], st.sampled_from(["a", "b"])),
    Kind(Literal[1, -7], st.sampled_from([1, -7]), str),
    Kind(Colour, st.sampled_from(Colour), lambda value: f"COLOUR_{value.name}"),
    Kind(Rank, st.sampled_from(Rank), lambda value: f"RANK_{value.name}"),
    Kind(Access, st.sampled_from([*Access, Access.READ | Access.WRITE]), lambda value: str(value.value)),
]
VALUES = [
    Kind(Any, json_values),
    Kind(int | str, exact | st.text(max_size=3)),
    Kind(list[list[int]] | bool, st.lists(st.lists(exact, max_size=2), max_size=2) | st.booleans()),
    Kind(tuple[int, bytes], st.tuples(exact, st.binary(max_size=3)), lambda pair: [pair[0], base64_text(pair[1])]),
    Kind(Literal["x", 1], st.sampled_from(["x", 1])),
    Kind(
        dict[uuid.UUID, int],
        st.dictionaries(st.uuids(), exact, max_size=2),
        lambda value: {str(k): v for k, v in value.items()},
    ),
]
KEYS = [(str, st.text(max_size=3), str), (int, st.integers(-(2**63), 2**63 - 1), str)]

NAMES = [
    ("a", "a"),
    ("b_c", "bC"),
    ("_d", "D"),
    ("camelCase", "camelCase"),
    ("x1_2y", "x12y"),
    ("HasField", "HasField"),
]
numbers = itertools.count()


def listed(kind: Kind, collection: type) -> Kind:
    items = kind.values if collection in (list, tuple) else kind.values.filter(lambda value: value.__hash__ is not None)
    values = st.lists(items, max_size=3).map(collection)
    declared = tuple[kind.type, ...] if collection is tuple else collection[kind.type]
    return Kind(
        declared,
        values,
        lambda value: [*map(kind.json, value)],
        lambda value: collection(map(kind.back, value)),
        None,
        [],
    )


def mapped(kind: Kind, key: Any) -> Kind:
    key_type, keys, name = key
    return Kind(
        dict[key_type, kind.type],
        st.dictionaries(keys, kind.values, max_size=3),
        lambda value: {name(one): kind.json(item) for one, item in value.items()},
        lambda value: {one: kind.back(item) for one, item in value.items()},
        None,
        {},
    )


@st.composite
def kinds(draw: st.DrawFn, depth: int) -> Kind:
    single = st.sampled_from(SCALARS) | st.sampled_from(VALUES)
    if depth:
        single |= structs(depth - 1)
    form = draw(st.integers(0, 5 if depth else 4))
    if form == 0:
        hashable = st.sampled_from([INT, STR, BOOL, FLOAT])
        return draw(
            st.builds(listed, single, st.sampled_from([list, tuple]))
            | st.builds(listed, hashable, st.sampled_from([set, frozenset]))
        )
    if form == 1:
        return draw(st.builds(mapped, single, st.sampled_from(KEYS)))
    if form == 5:
        return draw(unions(depth - 1))
    return draw(single)


class Member(NamedTuple):
    name: str
    json_name: str
    kind: Kind
    nullable: bool
    default: Any = msgspec.NODEFAULT

    def leaves_out(self, value: Any) -> bool:
        """Whether None is not written: it always can be where it is what an absent field means."""
        if value is not None or self.default is None:
            return value is None
        return self.nullable and (self.default is msgspec.NODEFAULT or self.kind not in VALUES)

    def back(self, value: Any) -> Any:
        may_be_absent = self.nullable or self.default is not msgspec.NODEFAULT
        if self.leaves_out(value) or (may_be_absent and self.kind.empty is not None and not value):
            return None if self.default is msgspec.NODEFAULT else self.default
        return self.kind.back(value)


@st.composite
def structs(draw: st.DrawFn, depth: int, **options: Any) -> Kind:
    members: list[Member] = []
    for name, json_name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4)):
        kind = draw(kinds(depth))
        nullable = kind.type is not Any and draw(st.booleans())
        default: Any = msgspec.NODEFAULT
        if draw(st.integers(0, 2)) == 0:
            default = draw(kind.values | st.none() if nullable else kind.values)
        members.append(Member(name, json_name, kind, nullable, default))
    fields = [
        (
            one.name,
            one.kind.type | None if one.nullable else one.kind.type,
            msgspec.field(default_factory=lambda default=one.default: default)
            if isinstance(one.default, (list, dict, set, bytearray, msgspec.Struct))
            else msgspec.field(default=one.default),
        )
        for one in members
    ]
    cls = msgspec.defstruct(f"S{next(numbers)}", fields, kw_only=True, module=__name__, **options)
    values = st.fixed_dictionaries(
        {one.name: st.none() | one.kind.values if one.nullable else one.kind.values for one in members}
    )

    def json(value: Any) -> Any:
        tree = {}
        for one in members:
            item = getattr(value, one.name)
            if not one.leaves_out(item):
                name = one.json_name + ("" if one.kind.members is None else one.kind.members(item))
                tree[name] = None if item is None else one.kind.json(item)
            elif one.kind.empty is not None:
                tree[one.json_name] = one.kind.empty
        return tree

    def back(value: Any) -> Any:
        return cls(**{one.name: one.back(getattr(value, one.name)) for one in members})

    return Kind(cls, values.map(lambda given: cls(**given)), json, back)


@st.composite
def unions(draw: st.DrawFn, depth: int) -> Kind:
    tags = ["circle", "DarkSquare"]
    ends = {"circle": "Circle", "DarkSquare": "DarkSquare"}
    parts = [draw(structs(depth, tag=tag)) for tag in tags]

    def part_of(value: Any) -> Kind:
        return next(part for part in parts if type(value) is part.type)

    return Kind(
        parts[0].type | parts[1].type,
        parts[0].values | parts[1].values,
        lambda value: part_of(value).json(value),
        lambda value: part_of(value).back(value),
        lambda value: ends[tags[parts.index(part_of(value))]],
    )


async def handler(input: Any, ctx: Any) -> AsyncIterator[Any]:
    yield input


def service_of(declared: Any) -> Services:
    origin = Origin("routes/echo.stream.py")
    route, problems = make_route("echo", handler, origin=origin, input_schema=declared, output_schema=declared)
    assert route is not None, problems
    services, problems = services_of([route])
    assert problems == []
    return services


def message_class(services: Services) -> Any:
    """The class of the response, as a client makes it."""
    pool = DescriptorPool()
    for known in (duration_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    (file,) = services.files
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString()))
    return GetMessageClass(pool.FindServiceByName("Root").methods_by_name["Echo"].output_type)


@settings(deadline=None, max_examples=100, phases=(Phase.explicit, Phase.generate, Phase.shrink))
@given(st.data(), structs(2))
def test_a_struct_is_to_protobuf_what_its_json_mapping_says_and_comes_back_equal(
    data: st.DataObject, kind: Kind
) -> None:
    services = service_of(kind.type)
    method: Method = services.methods["/Root/Echo"]
    client = message_class(services)
    value = data.draw(kind.values)
    written = method.encode(value)
    seen = MessageToDict(client.FromString(written), always_print_fields_with_no_presence=True)
    assert seen == kind.json(value)
    sent = ParseDict(kind.json(value), client()).SerializeToString()
    assert method.decode(sent) == kind.back(value)
    assert method.decode(written) == kind.back(value)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=40), structs(1))
def test_any_bytes_are_a_value_or_an_error_that_a_client_may_see(data: bytes, kind: Kind) -> None:
    method = service_of(kind.type).methods["/Root/Echo"]
    try:
        value = method.decode(data)
    except RaffelError as error:
        assert error.code in ("PARSE_ERROR", "VALIDATION_ERROR")
    else:
        assert isinstance(value, kind.type)
