"""What messages the types of routes make, as the files say that describe them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from raffel_core.discovery.modules import ROUTES
from raffel_core.errors import Problem
from raffel_core.protobuf.mapping import ROUTE_FILES
from raffel_core.protobuf.services import Services, services_of
from raffel_core.route import Origin, Route, make_route

T = TypeVar("T")


class Tick(Struct):
    seq: int
    symbol: str


class Page(Struct, Generic[T]):
    items: list[T]


class Circle(Struct, tag=True):
    radius: float


class DarkSquare(Struct, tag=True):
    side: float


class Tree(Struct):
    name: str
    children: list[Tree]
    parent: Tree | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Row(TypedDict):
    id: int
    note: NotRequired[str]


class Pair(NamedTuple):
    left: int
    right: str = ""


class Level(enum.Enum):
    LOW = "low"
    veryHigh = "high"


class Port(enum.IntEnum):
    HTTPS = 443
    NONE = 0


class Rank(enum.Enum):
    FIRST = 5
    BELOW = -1


class State(enum.StrEnum):
    UNSPECIFIED = "unspecified"
    OPEN = "open"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Model(pydantic.BaseModel):
    n: int


async def handler(input: Any, ctx: Any) -> AsyncIterator[Any]:
    yield input


def route(name: str = "echo", input: Any = None, output: Any = None, **meta: Any) -> Route:
    origin = Origin(f"routes/{name}.stream.py", {"input_schema": 4, "output_schema": 7})
    made, problems = make_route(name, handler, origin=origin, input_schema=input, output_schema=output, meta=meta)
    assert made is not None, problems
    return made


def services(*routes: Route, **options: Any) -> Services:
    made, problems = services_of(routes, **options)
    assert problems == []
    pool = DescriptorPool()
    for known in (duration_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for file in made.files:
        pool.Add(file)  # which refuses what is no legal file
        assert file.syntax == "proto3"
    return made


def problems_of(*routes: Route, **options: Any) -> list[Problem]:
    return services_of(routes, **options)[1]


def messages(declared: Any, **meta: Any) -> dict[str, list[str]]:
    """The fields of all messages as a .proto has them, of a route whose items are of this type."""
    (file,) = services(route("a.b", None, declared, **meta)).files
    return {message.name: [shown(message, field) for field in message.field] for message in file.message_type}


def shown(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    text = field.type_name[1:] or FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    entry = next((one for one in message.nested_type if field.type_name.endswith(f".{message.name}.{one.name}")), None)
    if entry is not None:
        assert entry.options.map_entry
        key, value = (shown(entry, one).split()[0] for one in entry.field)
        text = f"map<{key}, {value}>"
    elif field.label == FieldDescriptorProto.LABEL_REPEATED:
        text = f"repeated {text}"
    elif field.proto3_optional:
        alike = [one for one in message.field if one.HasField("oneof_index") and one.oneof_index == field.oneof_index]
        assert alike == [field]
        text = f"optional {text}"
    elif field.HasField("oneof_index"):
        text = f"{message.oneof_decl[field.oneof_index].name}: {text}"
    return f"{text} {field.name} = {field.number}"


VALUE = "google.protobuf.Value"

FIELDS: list[tuple[Any, str]] = [
    (int, "int64"),
    (Annotated[int, Meta(ge=1)], "int64"),
    (float, "double"),
    (str, "string"),
    (bool, "bool"),
    (bytes, "bytes"),
    (bytearray, "bytes"),
    (memoryview, "bytes"),
    (Literal["a", "b"], "string"),
    (Literal[1, 2], "int64"),
    (Literal["a", 1], VALUE),
    (Literal["a", None], "optional string"),
    (datetime.datetime, "google.protobuf.Timestamp"),
    (datetime.timedelta, "google.protobuf.Duration"),
    (datetime.date, "string"),
    (datetime.time, "string"),
    (decimal.Decimal, "string"),
    (uuid.UUID, "string"),
    (Access, "int64"),
    (Level, "Level"),
    (Tick, "Tick"),
    (Point, "Point"),
    (Row, "Row"),
    (Pair, "Pair"),
    (Page[int], "PageInt"),
    (Page[Page[str]], "PagePageStr"),
    (int | None, "optional int64"),
    (Level | None, "optional Level"),
    (Tick | None, "Tick"),
    (datetime.datetime | None, "google.protobuf.Timestamp"),
    (list[int], "repeated int64"),
    (list[int] | None, "repeated int64"),
    (list[Tick], "repeated Tick"),
    (list[Level], "repeated Level"),
    (list[Any], f"repeated {VALUE}"),
    (list, f"repeated {VALUE}"),
    (list[int | None], f"repeated {VALUE}"),
    (list[list[int]], f"repeated {VALUE}"),
    (list[dict[str, int]], f"repeated {VALUE}"),
    (list[Circle | DarkSquare], f"repeated {VALUE}"),
    (list[Literal["a", None]], f"repeated {VALUE}"),
    (set[str], "repeated string"),
    (frozenset[str], "repeated string"),
    (tuple[int, ...], "repeated int64"),
    (tuple[int, str], VALUE),
    (dict[str, float], "map<string, double>"),
    (dict[int, Tick], "map<int64, Tick>"),
    (dict[str, Any], f"map<string, {VALUE}>"),
    (dict[str, list[int]], f"map<string, {VALUE}>"),
    (dict[str, int | None], f"map<string, {VALUE}>"),
    (dict[uuid.UUID, int], VALUE),
    (dict, VALUE),
    (Any, VALUE),
    (msgspec.Raw, VALUE),
    (int | float, VALUE),
    (int | str | None, VALUE),
    (None, VALUE),
]


@pytest.mark.parametrize(("declared", "expected"), FIELDS, ids=str)
def test_a_field_is_of_the_type_of_protobuf_that_is_its_own(declared: Any, expected: str) -> None:
    fields = messages(defstruct("Item", [("before", int), ("one", declared)]))["Item"]
    assert fields == ["int64 before = 1", f"{expected} one = 2"]


@pytest.mark.parametrize(("declared", "expected"), FIELDS, ids=str)
def test_what_is_no_object_is_a_message_with_a_value(declared: Any, expected: str) -> None:
    found = messages(declared)
    if declared in (Tick, Point, Row, Pair, Page[int], Page[Page[str]], None, Any, msgspec.Raw):
        assert "ABResponse" not in found
    else:
        assert found["ABResponse"] == [f"{expected} value = 1"]


def test_objects_of_all_sorts_are_messages_of_their_fields() -> None:
    assert messages(Tick) == {"Tick": ["int64 seq = 1", "string symbol = 2"]}
    assert messages(Point) == {"Point": ["int64 x = 1", "optional int64 y = 2"]}
    assert messages(Row) == {"Row": ["int64 id = 1", "optional string note = 2"]}
    assert messages(Pair) == {"Pair": ["int64 left = 1", "optional string right = 2"]}
    assert messages(defstruct("Array", [("a", int)], array_like=True)) == {"Array": ["int64 a = 1"]}
    assert messages(Tree) == {"Tree": ["string name = 1", "repeated Tree children = 2", "Tree parent = 3"]}


@pytest.mark.parametrize("declared", [None, Any, object, msgspec.Raw, {"type": "object"}, Model], ids=str)
def test_any_json_is_a_value_itself(declared: Any) -> None:
    (file,) = services(route("a.b", declared, declared)).files
    assert [*file.message_type] == []
    (method,) = file.service[0].method
    assert (method.input_type, method.output_type) == (f".{VALUE}", f".{VALUE}")
    assert [*file.dependency] == ["google/protobuf/struct.proto"]


def test_a_tagged_union_is_a_oneof() -> None:
    item = defstruct("Item", [("a", int), ("shape", Circle | DarkSquare), ("b", int | None)])
    assert messages(item)["Item"] == [
        "int64 a = 1",
        "shape: Circle shape_circle = 2",
        "shape: DarkSquare shape_dark_square = 3",
        "optional int64 b = 4",
    ]
    assert messages(Circle | DarkSquare | None)["ABResponse"] == [
        "value: Circle value_circle = 1",
        "value: DarkSquare value_dark_square = 2",
    ]


def test_a_field_with_a_default_is_optional_unless_it_is_a_message_or_many() -> None:
    item = defstruct(
        "Item",
        [
            ("a", int, 0),
            ("b", str | UnsetType, UNSET),
            ("c", Tick, None),
            ("d", list[int], msgspec.field(default_factory=list)),
            ("e", dict[str, int], msgspec.field(default_factory=dict)),
            ("f", Any, None),
        ],
    )
    assert messages(item)["Item"] == [
        "optional int64 a = 1",
        "optional string b = 2",
        "Tick c = 3",
        "repeated int64 d = 4",
        "map<string, int64> e = 5",
        f"{VALUE} f = 6",
    ]


def test_a_field_has_its_attributes_name_unless_the_struct_renames_it() -> None:
    item = defstruct(
        "Item",
        [
            ("camelCase", int),
            ("größe", int),
            ("a", int, msgspec.field(name="aB-c")),
            ("_x", int | None),
            ("x", int | None),
        ],
    )
    assert [one.split()[-3] for one in messages(item)["Item"]] == ["camelCase", "gru00f6u00dfe", "a_b_c", "_x", "x"]
    renamed = defstruct("Item", [("first_name", int), ("ID", int)], rename="camel")
    assert [one.split()[-3] for one in messages(renamed)["Item"]] == ["first_name", "ID"]


# Enums


def values_of(declared: Any) -> dict[str, int]:
    (file,) = services(route("a.b", None, defstruct("Item", [("one", declared)]))).files
    return {value.name: value.number for value in file.enum_type[0].value}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (Level, {"LEVEL_UNSPECIFIED": 0, "LEVEL_LOW": 1, "LEVEL_VERY_HIGH": 2}),
        (Port, {"PORT_NONE": 0, "PORT_HTTPS": 443}),
        (Rank, {"RANK_UNSPECIFIED": 0, "RANK_FIRST": 1, "RANK_BELOW": 2}),
        (State, {"STATE_UNSPECIFIED": 0, "STATE_OPEN": 1}),
        (enum.Enum("DarkBlue", {"A": 2**31}), {"DARK_BLUE_UNSPECIFIED": 0, "DARK_BLUE_A": 1}),
        (enum.IntEnum("Kept", {"A": 2**31 - 1}), {"KEPT_UNSPECIFIED": 0, "KEPT_A": 2**31 - 1}),
    ],
)
def test_values_have_the_enums_name_and_their_own_numbers_where_they_may(declared: Any, expected: Any) -> None:
    assert [*values_of(declared).items()] == [*expected.items()]


# Names and packages


def local(name: str, fields: Sequence[Any] = (("n", int),), module: str = f"{ROUTES}.logs.tail.stream.g1") -> Any:
    return defstruct(name, fields, module=module)


def test_route_files_are_known_by_their_modules() -> None:
    assert f"{ROUTES}." == ROUTE_FILES


def test_a_struct_of_a_route_file_has_the_methods_name_before_its_own() -> None:
    made = services(route("ticks.burst", None, local("Tick")), route("ticks.slow", Tick, Page[local("Tick")]))
    assert [message.name for message in made.files[0].message_type] == [
        "Tick",
        "TicksBurstTick",
        "TicksSlowPageTick",
        "TicksSlowTick",
    ]


def test_each_package_has_a_file_with_all_that_it_needs() -> None:
    routes = [
        route("market.prices.watch", Tick, Tick),
        route("market.prices.all", None, Tick),
        route("logs.tail", Tick),
    ]
    files = {file.name: file for file in services(*routes, package="").files}
    assert [*files] == ["routes.proto", "market/routes.proto"]
    market = files["market/routes.proto"]
    assert market.package == "market"
    assert [message.name for message in market.message_type] == ["Tick"]
    assert [(one.name, one.input_type, one.output_type) for one in market.service[0].method] == [
        ("All", f".{VALUE}", ".market.Tick"),
        ("Watch", ".market.Tick", ".market.Tick"),
    ]
    assert [*files["routes.proto"].dependency] == ["google/protobuf/struct.proto"]


def test_the_files_do_not_depend_on_the_order_of_the_routes() -> None:
    routes = [route("a.b.c", Tick, Tree), route("a.b.d", Page[int], Level), route("a.e.f", int, Tick)]
    assert [*services(*routes).files] == [*services(*reversed(routes)).files]


def test_methods_stream_as_their_routes_do() -> None:
    async def unary(input: Any) -> Any: ...
    async def bidi(input: Any) -> AsyncIterator[Any]:
        yield input

    made = []
    for name, function, meta, procedure in (
        ("s.unary", unary, {}, True),
        ("s.server", handler, {}, False),
        ("s.client", unary, {"direction": "client"}, False),
        ("s.bidi", bidi, {"direction": "bidi"}, False),
    ):
        one, problems = make_route(name, function, origin=Origin(name), meta=meta, procedure=procedure)
        assert one is not None, problems
        made.append(one)
    methods = services(*made).files[0].service[0].method
    assert [(one.name, one.client_streaming, one.server_streaming) for one in methods] == [
        ("Bidi", True, True),
        ("Client", True, False),
        ("Server", False, True),
        ("Unary", False, False),
    ]


# Parameters and ids


def requests(name: str, declared: Any) -> dict[str, list[str]]:
    (file,) = services(route(name, declared)).files
    return {message.name: [shown(message, field) for field in message.field] for message in file.message_type}


def test_parameters_come_after_the_fields_as_strings() -> None:
    assert requests("rooms.[room].[user-id].join", Tick)["RoomsJoinRequest"] == [
        "int64 seq = 1",
        "string symbol = 2",
        "string room = 3",
        "string user_id = 4",
    ]
    assert requests("rooms.[room]", list[int])["RootRoomsRequest"] == ["repeated int64 value = 1", "string room = 2"]
    assert requests("rooms.[[room]]", None)["RootRoomsRequest"] == [f"{VALUE} value = 1", "optional string room = 2"]


def test_a_parameter_that_the_input_has_a_field_for_is_that_field() -> None:
    assert requests("ticks.[seq]", Tick) == {"Tick": ["int64 seq = 1", "string symbol = 2"]}
    assert requests("ticks.[seq].[room]", Tick) == {
        "RootTicksRequest": ["int64 seq = 1", "string symbol = 2", "string room = 3"]
    }


def test_a_resumable_streams_message_has_a_field_for_the_id() -> None:
    assert messages(Tick, resumable=True) == {
        "ABResponse": ["int64 seq = 1", "string symbol = 2", "optional string raffel_event_id = 18999"]
    }
    assert messages(None, resumable=True) == {
        "ABResponse": [f"{VALUE} value = 1", "optional string raffel_event_id = 18999"]
    }


# Numbers


def test_numbers_are_asked_for_by_full_names_and_signatures() -> None:
    asked: dict[str, list[tuple[str, str]]] = {}

    def numbering(name: str, members: Sequence[tuple[str, str]]) -> Sequence[int]:
        asked[name] = [*members]
        return range(11, 11 + len(members))

    item = defstruct(
        "Item",
        [
            ("a", int | None),
            ("b", list[str]),
            ("c", dict[str, float]),
            ("d", Tick),
            ("e", Level),
            ("f", Circle | DarkSquare),
            ("g", datetime.datetime),
            ("h", Port),
        ],
    )
    made = services(route("m.s.[id].watch", item, item, resumable=True), numbering=numbering)
    members = [
        ("a", "optional int64"),
        ("b", "repeated string"),
        ("c", "map<string, double>"),
        ("d", "m.Tick"),
        ("e", "m.Level"),
        ("f_circle", "m.Circle"),
        ("f_dark_square", "m.DarkSquare"),
        ("g", "google.protobuf.Timestamp"),
        ("h", "m.Port"),
    ]
    assert asked["m.SWatchRequest"] == [*members, ("id", "string")]
    assert asked["m.SWatchResponse"] == members
    assert asked["m.Tick"] == [("seq", "int64"), ("symbol", "string")]
    assert asked["m.Level"] == [("LEVEL_LOW", ""), ("LEVEL_VERY_HIGH", "")]
    assert "m.Port" not in asked  # its numbers are given
    (file,) = made.files
    tick = next(message for message in file.message_type if message.name == "Tick")
    assert [field.number for field in tick.field] == [11, 12]
    assert [value.number for value in next(one for one in file.enum_type if one.name == "Level").value] == [0, 11, 12]


# Clashes


def test_two_routes_on_one_path_are_told_with_both_files() -> None:
    (problem,) = problems_of(route("logs.tail"), route("logs.Tail"))
    assert str(problem) == (
        "routes/logs.Tail.stream.py:1: the method /Logs/Tail is that of 'logs.tail' at "
        "routes/logs.tail.stream.py:1 too; "
        "expected a name for each, in code or in meta['grpc']"
    )


def test_two_types_of_one_name_in_a_package_are_told_with_both() -> None:
    one, other = local("Tick", module="a"), local("Tick", module="b")
    (problem,) = problems_of(route("x.one", None, one), route("x.two", other))
    assert (problem.file, problem.line) == ("routes/x.two.stream.py", 4)
    assert problem.found == (
        "two things have one name: the message Tick (b.Tick) and the message Tick (a.Tick) of 'x.one' at "
        "routes/x.one.stream.py:1"
    )
    assert problems_of(route("x.y.one", None, one), route("z.y.two", other)) == []


@pytest.mark.parametrize(
    ("routes", "found"),
    [
        ([route("x.tick", Tick), route("tick.x")], "the service Tick and the message Tick"),
        (
            [route("x.one", None, defstruct("XTwoResponse", ())), route("x.two", None, int)],
            "the message XTwoResponse and the message XTwoResponse",
        ),
        (
            [
                route("x.one", None, enum.Enum("Level", {"HIGH_LOW": "a"})),
                route("x.two", None, enum.Enum("LevelHigh", {"LOW": "a"})),
            ],
            "the enum LevelHigh with its LEVEL_HIGH_LOW",
        ),
        ([route("x.one", defstruct("deep", ())), route("deep.x.two")], "the message deep (tests"),
        ([route("x.one", defstruct("Both", [("a", local("Tick", module="a")), ("b", Tick)]))], "the message Tick ("),
    ],
)
def test_all_names_of_a_package_are_one_space(routes: list[Route], found: str) -> None:
    (problem,) = problems_of(*routes)
    assert found in problem.found


def test_fields_that_are_one_in_json_are_told() -> None:
    item = defstruct("Item", [("a_b", int), ("aB", int)])
    (problem,) = problems_of(route("x.y", item))
    assert (problem.line, problem.found) == (4, "the fields a_b and aB of Item are both 'aB' in JSON")
    (problem,) = problems_of(route("x.[a_b]", defstruct("Item", [("aB", int)])))
    assert problem.found == "the fields aB and a_b of RootXRequest are both 'aB' in JSON"
    union = defstruct("Item", [("shape", Circle | DarkSquare), ("shape_circle", int)])
    (problem,) = problems_of(route("x.y", None, union))
    assert (problem.line, "shapeCircle" in problem.found) == (7, True)


def test_values_of_one_name_are_told() -> None:
    (problem,) = problems_of(route("x.y", enum.Enum("Level", {"low": "a", "LOW": "b"})))
    assert problem.found == "two values of Level are LEVEL_LOW"


def test_a_class_that_was_loaded_anew_is_no_other() -> None:
    old, new = route("x.one", None, local("Tick", module="m")), route("x.two", None, local("Tick", module="m"))
    assert problems_of(old, new) == []
    changed = route("x.two", None, local("Tick", [("n", str)], module="m"))
    assert len(problems_of(old, changed)) == 1
    generations = [local("Tick", module=f"{ROUTES}.x.one.g{number}") for number in (1, 2)]
    assert problems_of(route("x.one", *generations)) == []


def test_all_problems_are_told_at_once() -> None:
    bad = route("x.one", grpc={"service": "-"})
    assert (
        len(problems_of(bad, route("a.b"), route("A.b"), route("c.d", defstruct("I", [("a_b", int), ("aB", int)]))))
        == 3
    )
