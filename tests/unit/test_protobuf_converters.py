"""What a method makes of bytes and of items, and when it is made."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from raffel_core.errors import RaffelError
from raffel_core.protobuf import descriptor
from raffel_core.protobuf.decoder import compile_decoder
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.services import RouteMethod, Services, services_of
from raffel_core.protobuf.value import encode_value, read_value
from raffel_core.route import Origin, Route, make_route
from raffel_core.schema.invalid import UNWRITABLE

UTC = datetime.UTC
NAN, INF = float("nan"), float("inf")


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Port(enum.IntEnum):
    NONE = 0
    HTTPS = 443


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Circle(Struct, tag=True):
    radius: float


class Square(Struct, tag=True):
    side: float


class Tree(Struct):
    name: str
    children: list[Tree] = []


class Bounded(Struct):
    n: Annotated[int, Meta(ge=1)]


class Outer(Struct):
    items: list[Bounded]
    by_name: dict[str, Bounded] = {}


class Checked(Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is more than high")


@dataclasses.dataclass
class Point:
    x: int
    y: int = 7
    z: int = dataclasses.field(default=8, kw_only=True)


class Row(TypedDict):
    id: int
    note: NotRequired[str]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Array(Struct, array_like=True):
    a: int
    b: list[int] = []
    c: str | None = None


class Model(pydantic.BaseModel):
    n: int
    at: datetime.datetime | None = None


async def handler(input: Any, ctx: Any) -> AsyncIterator[Any]:
    yield input


def route(name: str = "echo", input: Any = None, output: Any = None, **meta: Any) -> Route:
    origin = Origin(f"routes/{name}.stream.py")
    made, problems = make_route(name, handler, origin=origin, input_schema=input, output_schema=output, meta=meta)
    assert made is not None, problems
    return made


def services(*routes: Route, **options: Any) -> Services:
    made, problems = services_of(routes, **options)
    assert problems == []
    return made


def method(declared: Any, name: str = "echo", **meta: Any) -> Method:
    return services(route(name, declared, declared, **meta)).by_route[name]


def client(declared: Any, name: str = "echo", **meta: Any) -> tuple[Any, Any]:
    """The classes of request and response as a client makes them."""
    pool = DescriptorPool()
    for known in (duration_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    (file,) = services(route(name, declared, declared, **meta)).files
    pool.Add(file)
    (found,) = pool.FindFileByName(file.name).services_by_name.values()
    return GetMessageClass(found.methods[0].input_type), GetMessageClass(found.methods[0].output_type)


def sent(declared: Any, tree: Any, name: str = "echo") -> bytes:
    """The bytes of a request, as a client makes them of its JSON."""
    return ParseDict(tree, client(declared, name)[0]()).SerializeToString()


def refusal(declared: Any, data: bytes, name: str = "echo") -> dict[str, Any]:
    with pytest.raises(RaffelError) as caught:
        method(declared, name).decode(data)
    return caught.value.to_dict()


def fault(declared: Any, item: Any) -> dict[str, Any]:
    with pytest.raises(RaffelError) as caught:
        method(declared).encode(item)
    assert caught.value.code == "OUTPUT_VALIDATION_ERROR"
    (found,) = caught.value.details
    return found


# Encoding


def test_a_struct_is_written_field_by_field() -> None:
    assert method(Tick).encode(Tick(300, "ACME", 1.5, -0.0)) == (
        b"\x08\xac\x02\x12\x04ACME\x19\0\0\0\0\0\0\xf8\x3f\x21\0\0\0\0\0\0\0\x80"
    )


@pytest.mark.parametrize(
    "value", [*(2**bits - 1 for bits in range(64)), *(2**bits for bits in range(63)), -1, -300, -(2**63)]
)
def test_an_int_is_an_int64(value: int) -> None:
    written = method(int).encode(value)
    assert client(int)[1].FromString(written).value == value
    assert method(int).decode(written) == value


@pytest.mark.parametrize("text", ["", "a" * 127, "a" * 128, "é" * 64, "a" * 16384, "a\0b", "𝄞"])
def test_a_string_is_of_any_length(text: str) -> None:
    written = method(str).encode(text)
    assert client(str)[1].FromString(written).value == text
    assert method(str).decode(written) == text


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**200])
def test_an_int_beyond_64_bits_is_an_error_with_its_place(number: int) -> None:
    message = "Expected an int of 64 bits"
    item = defstruct(
        "Item", [("a", list[dict[str, Any]] | None), ("lines", list[Tick]), ("n", int, msgspec.field(name="N"))]
    )
    assert fault(int, number) == {"path": "", "message": message}
    assert fault(item, item(None, [Tick(1, "", 0.0, 0.0), Tick(number, "", 0.0, 0.0)], 1)) == {
        "path": "lines[1].seq",
        "message": message,
    }
    assert fault(item, item(None, [], number)) == {"path": "N", "message": message}
    assert fault(list[int], [1, number]) == {"path": "[1]", "message": message}
    assert fault(dict[str, int], {"a": number}) == {"path": "[...]", "message": message}
    assert fault(dict[int, str], {number: ""})["message"] == message


def test_a_lone_surrogate_raises_what_the_connection_knows() -> None:
    for declared, item in ((str, "\ud800"), (dict[str, int], {"\ud800": 1}), (Any, {"a": ["\ud800"]})):
        with pytest.raises(UNWRITABLE):
            method(declared).encode(item)


def test_none_and_unset_are_left_out_and_a_default_is_written() -> None:
    item = defstruct(
        "Item",
        [
            ("a", int | None, 1),
            ("b", int | UnsetType, UNSET),
            ("c", str, "x"),
            ("d", Tick | None, None),
            ("e", Any, None),
        ],
    )
    encode = method(item).encode
    assert encode(item(a=None)) == b"\x1a\x01x"
    assert encode(item(a=1, b=0, c="")) == b"\x08\x01\x10\x00\x1a\x00"


def test_null_is_said_where_its_absence_means_something_else() -> None:
    item = defstruct("Item", [("a", Any), ("b", int | str | None, 1), ("c", int | str | None)], kw_only=True)
    value = item(a=None, b=None, c=None)
    written = method(item).encode(value)
    assert written == b"\x0a\x02\x08\x00\x12\x02\x08\x00"
    assert method(item).decode(written) == value


def test_items_that_are_not_of_the_type_never_leave_as_something_else() -> None:
    item = defstruct(
        "Item", [("a", Level | None), ("b", Circle | Square | None), ("c", float | None), ("d", str | None)]
    )
    encode = method(item, check_output=False).encode
    for wrong in (
        item("low", None, None, None),
        item(None, 1, None, None),
        item(None, None, "1", None),
        item(None, None, None, 1),
    ):
        with pytest.raises((RaffelError, *UNWRITABLE)):
            encode(wrong)


def test_what_no_timestamp_or_duration_holds_is_an_error() -> None:
    east = datetime.timezone(datetime.timedelta(hours=2))
    assert "1 to 9999" in fault(datetime.datetime, datetime.datetime(1, 1, 1, tzinfo=east))["message"]
    assert "10000 years" in fault(datetime.timedelta, datetime.timedelta.max)["message"]


# Values


def test_a_value_keeps_the_rules_of_json() -> None:
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    one = uuid.UUID(int=7)
    item = {
        "at": when,
        "data": b"\xff",
        "id": one,
        "n": decimal.Decimal("1.50"),
        "level": Level.LOW,
        5: (1, None, True),
    }
    seen = MessageToDict(struct_pb2.Value.FromString(method(None).encode(item)))
    assert seen == {
        "at": "2026-01-02T03:04:05.000600Z",
        "data": "/w==",
        "id": str(one),
        "n": "1.50",
        "level": "low",
        "5": [1.0, None, True],
    }


def test_a_value_takes_what_is_json_already() -> None:
    raw = msgspec.Raw(b'{"a": [1]}')
    assert method(None).decode(method(None).encode(raw)) == {"a": [1]}
    item = defstruct("Item", [("raw", msgspec.Raw)])
    assert bytes(method(item).decode(method(item).encode(item(raw))).raw) == b'{"a":[1]}'


@pytest.mark.parametrize(
    ("item", "path", "message"),
    [
        ({"a": [0, 2**53 + 1]}, "a[1]", "Expected an int that a double can hold"),
        ([{"b": 10**400}], "[0].b", "Expected an int that a double can hold"),
        ({"a": NAN}, "a", "Expected a number, got NaN"),
        ([INF], "[0]", "Expected a number, got Infinity"),
        (-INF, "", "Expected a number, got Infinity"),
    ],
)
def test_a_number_that_is_no_double_is_an_error(item: Any, path: str, message: str) -> None:
    assert fault(None, item) == {"path": path, "message": message}
    holder = defstruct("Holder", [("any", Any)])
    below = f"any{'' if path.startswith('[') or not path else '.'}{path}"
    assert fault(holder, holder(item)) == {"path": below, "message": message}


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**60, 0, 1.5, 1e300, -0.0])
def test_a_number_that_is_a_double_comes_back_equal(number: float) -> None:
    assert method(None).decode(method(None).encode(number)) == number
    declared = dict[str, int | float | str]
    assert method(declared).decode(method(declared).encode({"n": number})) == {"n": number}


def test_an_item_of_a_model_is_written_as_its_schema_writes_it() -> None:
    model = Model(n=1, at=datetime.datetime(2026, 1, 1, tzinfo=UTC))
    written = method(Model).encode(model)
    assert MessageToDict(struct_pb2.Value.FromString(written)) == {"n": 1.0, "at": "2026-01-01T00:00:00Z"}
    assert method(Model).decode(written) == model
    refused = refusal(Model, ParseDict({"n": "x"}, struct_pb2.Value()).SerializeToString())
    assert (refused["code"], refused["details"][0]["path"]) == ("VALIDATION_ERROR", "n")


def test_a_json_schema_judges_the_json() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    value = struct_pb2.Value()
    assert method(schema).decode(ParseDict({"n": 2}, value).SerializeToString()) == {"n": 2}
    assert refusal(schema, ParseDict({"n": 1.5}, value).SerializeToString())["details"][0]["path"] == "n"


def test_no_message_at_all_is_an_empty_object_where_any_json_is_taken() -> None:
    assert method(None).decode(b"") == {}
    assert method(None).decode(b"\x08\x00") is None
    assert refusal(Model, b"")["details"][0]["path"] == "n"
    assert method(None, "rooms.[room]").decode(b"\x12\x01a") == {"room": "a"}


# Decoding


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\x12\x01\xff", b"\xff" * 12, b"\x0b"])
def test_bytes_that_are_no_message_are_a_parse_error(data: bytes) -> None:
    for declared in (Tick, None, Tree):
        if declared is Tick or data[:1] in b"\x08\xff":
            assert refusal(declared, data)["code"] == "PARSE_ERROR"


def test_a_message_that_is_nested_too_deep_is_a_parse_error() -> None:
    tree = Tree("leaf")
    for _ in range(90):
        tree = Tree("n", [tree])
    assert method(Tree).decode(method(Tree).encode(tree)) == tree
    for _ in range(20):
        tree = Tree("n", [tree])
    assert refusal(Tree, method(Tree).encode(tree))["code"] == "PARSE_ERROR"


def test_a_required_scalar_that_is_absent_is_its_zero_value() -> None:
    item = defstruct(
        "Item", [("a", int), ("b", str), ("c", bytes), ("d", bool), ("e", float), ("f", list[int]), ("g", Port)]
    )
    assert method(item).decode(b"") == item(0, "", b"", False, 0.0, [], Port.NONE)


def test_what_is_absent_is_the_default() -> None:
    item = defstruct(
        "Item",
        [
            ("a", int, 3),
            ("b", str | None),
            ("c", str | UnsetType, UNSET),
            ("d", list[int], msgspec.field(default_factory=lambda: [1])),
            ("e", dict[str, int] | None),
            ("f", Tick | None, None),
            ("g", Level, Level.HIGH),
            ("h", Circle | Square | None),
            ("i", datetime.timedelta | None, datetime.timedelta(1)),
        ],
        kw_only=True,
    )
    expected = item(b=None, e=None, h=None)
    assert method(item).decode(b"") == expected
    assert method(item).decode(method(item).encode(expected)) == expected
    assert method(item).decode(sent(item, {"a": "0", "b": "", "c": ""})) == item(a=0, b="", c="", e=None, h=None)


@pytest.mark.parametrize(
    ("declared", "path"),
    [
        (Tick, "one"),
        (Level, "one"),
        (datetime.datetime, "one"),
        (Circle | Square, "one"),
        (int | str, "one"),
        (Any, "one"),
    ],
)
def test_a_required_message_or_enum_that_is_absent_is_a_validation_error(declared: Any, path: str) -> None:
    found = refusal(defstruct("Item", [("one", declared)]), b"")
    assert (found["code"], found["message"]) == (
        "VALIDATION_ERROR",
        "invalid input: one: Object missing required field one",
    )
    assert found["details"] == [{"path": path, "message": "Object missing required field one"}]


@pytest.mark.parametrize("number", [b"\x03", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_an_unknown_number_of_an_enum_is_a_validation_error(number: bytes) -> None:
    item = defstruct("Item", [("one", Level), ("many", list[Level], msgspec.field(default_factory=list))])
    assert refusal(item, b"\x08" + number)["details"][0]["path"] == "one"
    found = refusal(item, b"\x08\x01\x10\x01\x10" + number)
    assert (found["code"], found["details"][0]["path"]) == ("VALIDATION_ERROR", "many[1]")


def test_unspecified_is_as_good_as_absent() -> None:
    item = defstruct("Item", [("one", Level | None), ("other", Level, Level.HIGH)])
    assert method(item).decode(b"\x08\x00\x10\x00") == item(None, Level.HIGH)


@pytest.mark.parametrize(
    ("declared", "tree"),
    [
        (Bounded, {"n": 0}),
        (Outer, {"items": [{"n": 1}, {"n": 0}]}),
        (Outer, {"items": [], "by_name": {"a": {"n": -5}}}),
        (
            defstruct("Named", [("n", Annotated[str, Meta(max_length=2)], msgspec.field(name="fullName"))]),
            {"fullName": "abc"},
        ),
        (defstruct("Item", [("a", Literal["x", "y"])]), {"a": "z"}),
        (defstruct("Item", [("a", Annotated[list[int], Meta(min_length=1)])]), {"a": []}),
        (defstruct("Item", [("a", uuid.UUID)]), {"a": "no"}),
        (defstruct("Item", [("a", datetime.date)]), {"a": "20260101"}),
        (defstruct("Item", [("a", decimal.Decimal)]), {"a": "x"}),
        (defstruct("Item", [("a", datetime.time)]), {"a": "25:00:00"}),
        (defstruct("Item", [("a", int | str)]), {"a": [1]}),
        (defstruct("Item", [("a", list[list[int]])]), {"a": [[1], ["x"]]}),
        (Checked, {"low": 2, "high": 1}),
        (list[Checked], [{"low": 0, "high": 1}, {"low": 2, "high": 1}]),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_in_the_words_of_every_other_protocol(declared: Any, tree: Any) -> None:
    with pytest.raises(RaffelError) as caught:
        route("echo", declared).input.decode(msgspec.json.encode(tree))
    message = {"value": tree} if isinstance(tree, list) else tree
    assert refusal(declared, sent(declared, message)) == caught.value.to_dict()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    ("declared", "wrap", "path"),
    [
        (defstruct("Item", [("a", float)]), lambda n: {"a": n}, "a"),
        (defstruct("Item", [("a", float | None)]), lambda n: {"a": n}, "a"),
        (defstruct("Item", [("a", list[float])]), lambda n: {"a": [1.0, n]}, "a[1]"),
        (defstruct("Item", [("a", dict[str, float])]), lambda n: {"a": {"x": n}}, "a[...]"),
        (list[Circle], lambda n: {"value": [{"radius": n}]}, "[0].radius"),
        (Circle | Square, lambda n: {"valueSquare": {"side": n}}, "side"),
        (float, lambda n: {"value": n}, ""),
    ],
)
def test_a_float_that_json_has_not_is_a_validation_error(declared: Any, wrap: Any, path: str, number: str) -> None:
    found = refusal(declared, sent(declared, wrap(number)))
    assert (found["code"], found["details"][0]["path"]) == ("VALIDATION_ERROR", path)


def test_a_value_holds_no_float_that_json_has_not() -> None:
    data = struct_pb2.Value(list_value={"values": [{"number_value": NAN}]}).SerializeToString()
    assert refusal(None, data)["details"] == [{"path": "[0]", "message": "Expected a number, got NaN"}]
    holder = defstruct("Holder", [("any", Any)])
    assert refusal(holder, b"\x0a" + bytes([len(data)]) + data)["details"][0]["path"] == "any[0]"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (datetime.datetime, timestamp_pb2.Timestamp(seconds=253_402_300_800)),
        (datetime.datetime, timestamp_pb2.Timestamp(seconds=-62_135_596_801)),
        (datetime.datetime, timestamp_pb2.Timestamp(nanos=-1)),
        (datetime.datetime, timestamp_pb2.Timestamp(nanos=1_000_000_000)),
        (datetime.timedelta, duration_pb2.Duration(seconds=1, nanos=-1)),
        (datetime.timedelta, duration_pb2.Duration(seconds=315_576_000_001)),
        (datetime.timedelta, duration_pb2.Duration(nanos=1_000_000_000)),
    ],
)
def test_times_that_protobuf_does_not_allow_are_validation_errors(declared: Any, message: Any) -> None:
    data = message.SerializeToString()
    found = refusal(defstruct("Item", [("at", declared)]), b"\x0a" + bytes([len(data)]) + data)
    assert (found["code"], found["details"][0]["path"]) == ("VALIDATION_ERROR", "at")


def test_below_a_microsecond_time_is_lost() -> None:
    def read(declared: Any, message: Any) -> Any:
        data = message.SerializeToString()
        return method(declared).decode(b"\x0a" + bytes([len(data)]) + data)

    assert read(datetime.datetime, timestamp_pb2.Timestamp(nanos=1999)) == datetime.datetime(
        1970, 1, 1, 0, 0, 0, 1, UTC
    )
    assert read(datetime.timedelta, duration_pb2.Duration(nanos=-1999)) == datetime.timedelta(microseconds=-1)
    assert read(datetime.timedelta, duration_pb2.Duration(seconds=-1, nanos=-999_999_999)) == datetime.timedelta(
        microseconds=-1_999_999
    )


def test_a_datetime_is_as_the_schema_wants_it() -> None:
    aware = defstruct("Item", [("at", Annotated[datetime.datetime, Meta(tz=True)])])
    naive = defstruct("Item", [("at", Annotated[datetime.datetime, Meta(tz=False)])])
    moment = datetime.datetime(2026, 1, 1, 12, 30)
    assert method(naive).decode(method(naive).encode(naive(moment))) == naive(moment)
    assert method(naive).encode(naive(moment)) == method(aware).encode(aware(moment.replace(tzinfo=UTC)))
    assert method(aware).decode(method(aware).encode(aware(moment.replace(tzinfo=UTC)))).at.tzinfo is UTC
    judged = defstruct("Judged", [("low", Checked), ("n", Annotated[int, Meta(ge=0)]), ("inner", naive)])
    value = judged(Checked(1, 2), 3, naive(moment))
    assert method(judged).decode(method(judged).encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        Point(1, 2, z=3),
        Point(1),
        {"id": 1},
        {"id": 1, "note": ""},
        Pair(1),
        Array(1, [2], None),
        Circle(1.5),
        Tree("a", [Tree("b"), Tree("c", [Tree("d")])]),
    ],
    ids=str,
)
def test_objects_of_all_sorts_come_back_equal(value: Any) -> None:
    declared = Row if isinstance(value, dict) else type(value)
    one = method(declared)
    assert one.decode(one.encode(value)) == value
    several = method(list[declared])
    assert several.decode(several.encode([value, value])) == [value, value]
    item = defstruct("Item", [("one", declared), ("n", Annotated[int, Meta(ge=0)])])
    assert method(item).decode(method(item).encode(item(value, 1))) == item(value, 1)
    assert refusal(item, method(item).encode(item(value, -1)))["details"][0]["path"] == "n"


def test_a_flag_is_its_number() -> None:
    assert method(Access).decode(method(Access).encode(Access.READ)) == Access.READ
    assert method(Access).encode(Access.READ | Access.WRITE) == b"\x08\x03"


def test_a_union_is_what_was_set() -> None:
    declared = Circle | Square | None
    one = method(declared)
    for value in (Circle(1.0), Square(2.0), None):
        assert one.decode(one.encode(value)) == value
    assert refusal(Circle | Square, b"")["code"] == "VALIDATION_ERROR"


def test_unknown_fields_are_passed_over() -> None:
    strict = defstruct("Strict", [("n", int)], forbid_unknown_fields=True)
    assert method(strict).decode(b"\x08\x05\x72\x01x") == strict(5)


DECLARED: list[Any] = [
    (Tick, Tick(1, "a", 1.0, 2.0)),
    (Point, Point(1, 2, z=3)),
    (Row, {"id": 1}),
    (Pair, Pair(1, "x")),
    (list[Tick], [Tick(1, "a", 1.0, 2.0)]),
    (dict[str, Circle | Square], {"a": Circle(1.0)}),
    (Circle | Square, Square(1.0)),
    (Bounded, Bounded(3)),
    (list[Literal["a", "b"]], ["a"]),
    (dict[int, datetime.date], {1: datetime.date(2026, 1, 1)}),
    (list[list[bytes]], [[b"\xff"]]),
    (dict[str, Access], {"a": Access.READ | Access.WRITE}),
    (int | str | None, None),
    (defstruct("Kw", [("a", int), ("b", bytearray)], kw_only=True), None),
]


@pytest.mark.parametrize(("declared", "value"), DECLARED, ids=str)
def test_the_schema_is_not_asked_about_what_fits(declared: Any, value: Any) -> None:
    class Unasked:
        def __init__(self, fits: Any) -> None:
            self.fits = fits
            self.any = False

    value = declared(a=1, b=bytearray(b"x")) if value is None and isinstance(declared, type) else value
    made = services(route("echo", declared, declared)).by_route["echo"]
    assert isinstance(made, RouteMethod)
    decode = compile_decoder(made.roots[0], Unasked(made.route.input.fits), made.parse)  # type: ignore[arg-type]  # it has no `decode`
    assert decode(made.encode(value)) == value


# Parameters and ids


def test_parameters_are_read_as_strings() -> None:
    item = defstruct("Item", [("n", int), ("path", list[str]), ("at", datetime.date | None)])
    one = method(item, "a.[n].[room].[at].[...path]")
    data = sent(item, {"n": 42, "path": ["x", "y"], "at": "2026-01-01", "room": "é"}, "a.[n].[room].[at].[...path]")
    assert one.params is not None
    assert one.params(data) == {"n": "42", "room": "é", "at": "2026-01-01", "path": "x/y"}
    assert one.decode(data) == item(42, ["x", "y"], datetime.date(2026, 1, 1))
    assert one.params(b"") == {"n": "0", "room": "", "path": ""}
    assert one.params(b"\xff") == {}


def test_a_parameter_that_may_be_left_out_is_left_out() -> None:
    one = method(None, "a.[[room]]")
    assert one.params is not None
    assert one.params(b"") == {}
    assert one.params(b"\x12\x00") == {"room": ""}


def test_a_route_without_parameters_has_no_way_to_read_them() -> None:
    assert method(Tick).params is None


def test_parameters_fill_the_fields_of_any_object() -> None:
    name = "rooms.[room].[n]"
    for declared in (None, dict[str, Any], dict):
        data = sent(declared, {"value": {"a": 1}, "room": "x", "n": "7"}, name)
        assert method(declared, name).decode(data) == {"a": 1, "room": "x", "n": "7"}
    assert method(list[int], name).decode(sent(list[int], {"value": [1], "room": "x"}, name)) == [1]


def test_a_parameter_that_is_a_field_is_read_as_that_field() -> None:
    item = defstruct("Item", [("path", list[str]), ("n", Annotated[int, Meta(ge=0)]), ("low", Checked)])
    name = "files.[n].[...path]"
    data = sent(item, {"path": ["a/b", ""], "n": 3, "low": {"low": 1, "high": 2}}, name)
    assert method(item, name).decode(data) == item(["a/b", ""], 3, Checked(1, 2))


def test_what_is_unset_at_the_end_of_an_array_is_left_out() -> None:
    item = defstruct(
        "Item", [("a", Checked), ("n", Annotated[int, Meta(ge=0)], 7), ("b", str | UnsetType, UNSET)], array_like=True
    )
    one = method(item)
    assert one.decode(one.encode(item(Checked(1, 2), 3))) == item(Checked(1, 2), 3)
    assert one.decode(b"\x0a\x00") == item(Checked(0, 0))
    assert refusal(item, b"")["message"] == "invalid input: a: Object missing required field a"


def test_parameters_do_not_change_what_the_input_is() -> None:
    name = "rooms.[room]"
    tick = Tick(1, "a", 1.0, 2.0)
    assert method(Tick, name).decode(method(Tick).encode(tick) + b"\x2a\x01x") == tick


def test_an_id_is_appended_to_a_message() -> None:
    for declared, item in ((Tick, Tick(1, "a", 1.0, 2.0)), (None, {"a": 1}), (int, 5)):
        one = method(declared, resumable=True)
        assert one.tag_event_id is not None
        for event_id in ("7", "x" * 300):
            message = client(declared, resumable=True)[1].FromString(one.encode(item) + one.tag_event_id(event_id))
            assert message.raffel_event_id == event_id
            assert len(message.ListFields()) > 1
    assert method(Tick).tag_event_id is None


def test_ids_beyond_unicode_are_no_message() -> None:
    one = method(Tick, resumable=True)
    assert one.tag_event_id is not None
    with pytest.raises(UNWRITABLE):
        one.tag_event_id("\ud800")


# When they are made


def test_nothing_is_compiled_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("made too early")

    monkeypatch.setattr(descriptor, "DescriptorPool", refuse)
    made = services(route("a.[id]", Tick, Tick))
    one = made.by_route["a.[id]"]
    assert one.path == "/Root/A"
    with pytest.raises(AssertionError):
        one.decode(b"")
    monkeypatch.undo()
    assert one.decode is one.decode
    assert one.decode(b"") == Tick(0, "", 0.0, 0.0)


def test_a_route_that_is_the_same_keeps_its_method() -> None:
    same, gone, other = route("a.same", Tick), route("a.gone"), route("a.other", Tick)
    before = services(same, gone, other)
    after = services(same, route("a.other", Tick), route("a.new"), before=before)
    assert [*after.by_route] == ["a.same", "a.other", "a.new"]
    assert after.by_route["a.same"] is before.by_route["a.same"]
    assert after.by_route["a.other"] is not before.by_route["a.other"]
    assert [*before.by_route] == ["a.same", "a.gone", "a.other"]
    assert [*after.methods] == ["/A/Same", "/A/Other", "/A/New"]


def test_nothing_is_kept_under_another_numbering_or_package() -> None:
    same = route("a.same", Tick)

    def numbering(name: str, members: Any) -> range:
        return range(5, 5 + len(members))

    before = services(same)
    assert services(same, before=before, package="x").by_route["a.same"].path == "/x.A/Same"
    numbered = services(same, before=before, numbering=numbering)
    assert numbered.by_route["a.same"].request != before.by_route["a.same"].request
    assert services(same, before=numbered, numbering=numbering).by_route["a.same"] is numbered.by_route["a.same"]


def test_a_clash_with_what_was_there_before_is_a_problem_of_the_new_one() -> None:
    old = route("a.same", defstruct("Item", [("n", int)], module="one"))
    before = services(old)
    after, problems = services_of([old, route("a.new", defstruct("Item", [("n", int)], module="two"))], before=before)
    assert [problem.file for problem in problems] == ["routes/a.new.stream.py"]
    assert [*after.by_route] == ["a.same"]


def test_fingerprints_are_equal_where_the_messages_are() -> None:
    def prints(declared: Any) -> tuple[bytes, bytes]:
        one = method(declared)
        return one.request, one.response

    def made(*fields: Any) -> Any:
        return defstruct("Item", fields)

    inner, same = (defstruct("Inner", [("x", int)]) for _ in range(2))
    first = prints(made(("a", int), ("b", list[inner])))
    assert first[0] == first[1]
    assert prints(made(("a", int), ("b", list[same]))) == first
    changes = [
        made(("a", int), ("b", list[int])),
        made(("a", int), ("b", list[Tick])),
        made(("a", int | None), ("b", list[inner])),
        made(("b", list[inner]), ("a", int)),
        made(("c", int), ("b", list[inner])),
    ]
    assert all(prints(changed) != first for changed in changes)
    assert prints(None)[0] == prints(Any)[1]


def test_base64_of_a_value_is_that_of_json() -> None:
    declared = tuple[int, bytes]
    one = method(declared)
    seen = MessageToDict(client(declared)[1].FromString(one.encode((1, b"\xff\x00"))))
    assert seen == {"value": [1.0, base64.b64encode(b"\xff\x00").decode()]}
    assert one.decode(one.encode((1, b"\xff\x00"))) == (1, b"\xff\x00")


@pytest.mark.parametrize(("wrap", "most"), [(lambda value: {"a": value}, 32), (lambda value: [value], 48)])
def test_a_value_is_as_deep_as_clients_read_and_no_deeper(wrap, most):
    value: object = 1
    for _ in range(most):
        value = wrap(value)
    assert read_value(encode_value(value)) == value
    with pytest.raises(RecursionError):
        encode_value(wrap(value))
