"""Every type of a schema, there and back: what protobuf's own runtime makes of the messages that reflection shows."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from typing import Any, Literal

import msgspec
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict

from .conftest import failure


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 5


class Point(msgspec.Struct):
    x: float = 0.0
    y: float = 0.0


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class Everything(msgspec.Struct):
    whole: int
    real: float
    text: str
    choice: Literal["a", "b"]
    flag: bool
    data: bytes
    moment: datetime.datetime
    day: datetime.date
    time: datetime.time
    span: datetime.timedelta
    wholes: list[int]
    texts: list[str]
    points: list[Point]
    counts: dict[str, int]
    places: dict[str, Point]
    colour: Colour
    level: Level
    point: Point
    shape: Circle | Square
    amount: decimal.Decimal
    name: uuid.UUID
    anything: Any
    grid: list[list[int]]
    tree: Tree
    maybe: int | None = None


FULL = Everything(
    whole=-(2**63),
    real=0.1,
    text="é🦜\0\n",
    choice="b",
    flag=True,
    data=bytes(range(256)),
    moment=datetime.datetime(2026, 11, 23, 1, 2, 3, 456789, datetime.UTC),
    day=datetime.date(2026, 11, 23),
    time=datetime.time(1, 2, 3, 456789),
    span=datetime.timedelta(days=-1, microseconds=7),
    wholes=[0, 1, -1, 2**63 - 1],
    texts=["", "a"],
    points=[Point(), Point(1.5, -2.5)],
    counts={"": 0, "a": -1},
    places={"here": Point(1, 2)},
    colour=Colour.BLUE,
    level=Level.HIGH,
    point=Point(),
    shape=Square(2.0),
    amount=decimal.Decimal("0.10"),
    name=uuid.UUID(int=7),
    anything={"a": [1, 2.5, None, "x", True, {}]},
    grid=[[1], [], [2, 3]],
    tree=Tree("a", [Tree("b", [Tree("c")]), Tree("d")]),
    maybe=0,
)
EMPTY = msgspec.structs.replace(
    FULL, whole=0, real=0.0, text="", flag=False, data=b"", span=datetime.timedelta(), maybe=None,
    wholes=[], texts=[], points=[], counts={}, places={}, anything=None, grid=[], tree=Tree(""),
)  # fmt: skip


@pytest.fixture
def tls():
    """A message is the same behind TLS."""


@pytest.fixture
async def client(serve_and_connect):
    """Of a server that gives what it is given, and keeps it in `seen`."""

    def routes(server):
        async def same(input: Everything) -> Everything:
            client.seen.append(input)
            return input

        server.procedure("same").handler(same)

    client = await serve_and_connect(routes)
    client.seen = []
    return client


def filled(same, value: Everything):
    """The request that says this, by protobuf's JSON mapping: field by field, as a client would fill it in."""
    tree = msgspec.to_builtins(value)
    tree["colour"], tree["level"] = f"COLOUR_{value.colour.name}", f"LEVEL_{value.level.name}"
    del tree["shape"]
    tree["shape_square"] = {"side": value.shape.side}
    seconds = value.span.total_seconds()
    tree["span"] = f"{seconds:.6f}s"
    if value.maybe is None:
        del tree["maybe"]
    return ParseDict(tree, same.request())


@pytest.mark.parametrize("value", [FULL, EMPTY], ids=["full", "empty"])
async def test_what_a_client_says_is_what_the_handler_gets(client, value):
    same = client["/Root/Same"]
    await same(filled(same, value))
    assert client.seen == [value]


@pytest.mark.parametrize("value", [FULL, EMPTY], ids=["full", "empty"])
async def test_what_the_handler_gives_is_what_a_client_gets(client, value):
    same = client["/Root/Same"]
    request = filled(same, value)
    assert MessageToDict(await same(request)) == MessageToDict(request)


@pytest.mark.parametrize("real", [math.inf, -math.inf, math.nan, 5e-324, -0.0])
async def test_a_float_is_any_double_or_an_error_that_says_so(client, real):
    same = client["/Root/Same"]
    request = filled(same, FULL)
    request.real = real
    if math.isfinite(real):
        assert (await same(request)).real == real
    else:
        found = await failure(same(request))
        assert found.error["code"] in ("VALIDATION_ERROR", "OUTPUT_VALIDATION_ERROR")


async def test_each_type_has_the_field_that_the_contract_names(client):
    fields = client["/Root/Same"].request.DESCRIPTOR.fields_by_name
    kinds = {
        **dict.fromkeys(("whole", "wholes", "maybe"), FieldDescriptor.TYPE_INT64),
        "real": FieldDescriptor.TYPE_DOUBLE,
        **dict.fromkeys(("text", "choice", "day", "time", "texts", "amount", "name"), FieldDescriptor.TYPE_STRING),
        "flag": FieldDescriptor.TYPE_BOOL,
        "data": FieldDescriptor.TYPE_BYTES,
        **dict.fromkeys(("colour", "level"), FieldDescriptor.TYPE_ENUM),
    }
    assert {name: fields[name].type for name in kinds} == kinds
    messages = {
        "moment": "google.protobuf.Timestamp",
        "span": "google.protobuf.Duration",
        "anything": "google.protobuf.Value",
        "grid": "google.protobuf.Value",
    }
    assert {name: fields[name].message_type.full_name for name in messages} == messages
    repeated = {name for name, field in fields.items() if field.is_repeated}
    assert repeated == {"wholes", "texts", "points", "counts", "places", "grid"}
    assert fields["counts"].message_type.GetOptions().map_entry
    shape = fields["shape_circle"].containing_oneof
    assert [field.name for field in shape.fields] == ["shape_circle", "shape_square"]
    level = fields["level"].enum_type
    assert {value.name: value.number for value in level.values} == {
        "LEVEL_UNSPECIFIED": 0,
        "LEVEL_LOW": 1,
        "LEVEL_HIGH": 5,
    }
    assert fields["colour"].enum_type.values_by_number[0].name == "COLOUR_UNSPECIFIED"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
async def test_an_int_that_64_bits_do_not_hold_cannot_be_sent(serve_and_connect, number):
    def routes(server):
        async def big(input) -> int:
            return number

        server.procedure("big").handler(big)

    client = await serve_and_connect(routes)
    big = client["/Root/Big"]
    found = await failure(big(big.request()))
    assert (found.code, found.error["code"]) == ("INTERNAL", "OUTPUT_VALIDATION_ERROR")


async def test_a_value_that_no_member_of_an_enum_has_is_a_validation_error(client):
    same = client["/Root/Same"]
    request = filled(same, FULL)
    request.level = 3
    assert (await failure(same(request))).error["code"] == "VALIDATION_ERROR"
