"""Schemas of msgspec types: what goes in, what comes out, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import sys
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, Required, TypedDict, TypeVar

import msgspec
import pytest
from msgspec import Meta, Struct

from raffel_core.errors import RaffelError
from raffel_core.schema import schema_of


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class TailQuery(Struct):
    level: str | None = None
    limit: int = 100


class Item(Struct):
    price: float
    level: Level = Level.LOW


class Order(Struct, rename="camel"):
    line_items: list[Item]
    by_name: dict[str, Item] = {}
    counts: dict[int, int] = {}
    query: TailQuery | None = None


class Strict(Struct, forbid_unknown_fields=True):
    name: str


class Even(Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError(f"`{self.n}` is odd - at `$.elsewhere`")


class User(Struct):
    name: str


class Admin(User):
    password: str = "secret"


class Team(Struct):
    lead: User
    members: list[User] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Quote(TypedDict, total=False):
    bid: Required[float]
    note: str


class Pair(NamedTuple):
    left: int
    right: str


class Cat(Struct, tag="cat"):
    lives: int


class Dog(Struct, tag="dog"):
    name: str


V = TypeVar("V")


class Box(Struct, Generic[V]):
    value: V


class Everything(Struct):
    when: datetime.datetime
    data: bytes
    span: datetime.timedelta
    cost: decimal.Decimal
    id: uuid.UUID
    day: datetime.date


def refused(call: Any, *args: Any) -> RaffelError:
    with pytest.raises(RaffelError) as raised:
        call(*args)
    return raised.value


# Reading JSON


@pytest.mark.parametrize(
    ("declared", "data", "value"),
    [
        (TailQuery, b'{"limit":5}', TailQuery(None, 5)),
        (TailQuery, b"", TailQuery()),
        (Order, b'{"lineItems":[{"price":1}]}', Order([Item(1.0)])),
        (Point, b'{"x":1}', Point(1)),
        (Quote, b'{"bid":1.5,"other":1}', {"bid": 1.5}),
        (Pair, b'[1,"a"]', Pair(1, "a")),
        (Cat | Dog, b'{"type":"dog","name":"rex"}', Dog("rex")),
        (Box[int], b'{"value":1}', Box(1)),
        (int, b"3", 3),
        (list[int], b"[1,2]", [1, 2]),
        (Literal["a", 1], b'"a"', "a"),
        (Annotated[int, Meta(ge=1)], b"1", 1),
        (bytes, b'"AAE="', b"\x00\x01"),
        (int | None, b"null", None),
        (None, b'{"a":[1,null]}', {"a": [1, None]}),
        (None, b"", {}),
    ],
)
def test_json_is_read_as_the_declared_type(declared: Any, data: bytes, value: Any) -> None:
    found = schema_of(declared).decode(data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("declared", "data", "path", "message"),
    [
        (TailQuery, b'{"limit":"5"}', "limit", "Expected int, got str"),
        (TailQuery, b"[]", "", "Expected object, got array"),
        (TailQuery, b"5", "", "Expected object, got int"),
        (int, b"", "", "Expected int, got object"),
        (Order, b'{"lineItems":[{"price":1},{"price":"x"}]}', "lineItems[1].price", "Expected float, got str"),
        (Order, b'{"lineItems":[],"query":{"limit":1.5}}', "query.limit", "Expected int, got float"),
        (Order, b'{"lineItems":[],"byName":{"a.b":{"price":null}}}', "byName[...].price", "Expected float, got null"),
        (Order, b'{"lineItems":[],"counts":{"a":1}}', "counts", "Expected int, got str as a key"),
        (Order, b"{}", "lineItems", "Object missing required field lineItems"),
        (Order, b'{"lineItems":[{}]}', "lineItems[0].price", "Object missing required field price"),
        (list[Item], b"[{}]", "[0].price", "Object missing required field price"),
        (Strict, b'{"name":"a","nme":1}', "nme", "Object contains unknown field nme"),
        (list[Item], b'[{"price":1,"level":"top"}]', "[0].level", "Invalid enum value 'top'"),
        (Cat | Dog, b'{"type":"cow"}', "type", "Invalid value 'cow'"),
        (Annotated[int, Meta(ge=1)], b"0", "", "Expected int >= 1"),
        (list[Even], b'[{"n":3}]', "[0]", "`3` is odd - at `$.elsewhere`"),
        (Even, b'{"n":3}', "", "`3` is odd - at `$.elsewhere`"),
        (float, b"1e400", "", "Number out of range"),
        (None, b"1e400", "", "Number out of range"),
    ],
)
def test_a_wrong_input_says_where_and_what(declared: Any, data: bytes, path: str, message: str) -> None:
    error = refused(schema_of(declared).decode, data)
    assert error.code == "VALIDATION_ERROR"
    assert error.details == [{"path": path, "message": message}]
    assert message in error.message


@pytest.mark.parametrize("declared", [TailQuery, list[int], int, None])
@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"nope",
        b"{} {}",
        b'{"limit":1}}',
        b'{"limit":NaN}',
        b'{"level":"\xff"}',
        b'{"limit":"x"',  # the wrong type comes before the missing brace
        b"[" * 100_000,
        b'{"limit":' * 100_000,
    ],
)
def test_what_is_not_json_is_a_parse_error(declared: Any, data: bytes) -> None:
    error = refused(schema_of(declared).decode, data)
    assert error.code == "PARSE_ERROR"
    assert error.details is None


# Path parameters


class Message(Struct):
    room: int
    body: str = ""
    day: datetime.date | None = None


def test_a_path_parameter_fills_its_field() -> None:
    assert schema_of(Message).decode(b'{"body":"hi"}', {"room": "42"}) == Message(42, "hi")


def test_a_path_parameter_beats_the_field_of_its_name() -> None:
    assert schema_of(Message).decode(b'{"room":1,"body":"hi"}', {"room": "42"}) == Message(42, "hi")
    assert schema_of(Message).decode(b'{"room":[],"body":"hi"}', {"room": "42"}) == Message(42, "hi")


def test_a_body_stays_strict_beside_a_coerced_path_parameter() -> None:
    error = refused(schema_of(Order).decode, b'{"lineItems":[],"query":{"limit":"5"}}', {"byName": "{}"})
    assert error.details == [{"path": "query.limit", "message": "Expected int, got str"}]


def test_a_path_parameter_that_cannot_be_coerced_is_refused() -> None:
    error = refused(schema_of(Message).decode, b"", {"room": "lobby"})
    assert error.code == "VALIDATION_ERROR"
    assert error.details == [{"path": "room", "message": "Expected int, got str"}]


def test_a_path_parameter_is_no_way_to_nan() -> None:
    error = refused(schema_of(Box[float | None]).decode, b"", {"value": "nan"})
    assert error.details == [{"path": "value", "message": "Expected float | null, got NaN"}]


def test_a_path_parameter_without_a_field_is_left_out() -> None:
    assert schema_of(Strict).decode(b'{"name":"a"}', {"room": "42"}) == Strict("a")
    assert schema_of(dict[str, int]).decode(b"{}", {"room": "lobby"}) == {}


@pytest.mark.parametrize(
    ("declared", "data", "value"), [(int, b"3", 3), (list[int], b"[1]", [1]), (Pair, b'[1,"a"]', (1, "a"))]
)
def test_path_parameters_are_nothing_to_what_has_no_fields(declared: Any, data: bytes, value: Any) -> None:
    assert schema_of(declared).decode(data, {"left": "7"}) == value


@pytest.mark.parametrize("declared", [None, Any, dict, dict[str, Any]])
def test_without_declared_fields_every_path_parameter_is_a_string(declared: Any) -> None:
    assert schema_of(declared).decode(b'{"a":1,"room":2}', {"room": "42"}) == {"a": 1, "room": "42"}


def test_without_a_schema_a_body_that_is_no_object_stays_as_it_is() -> None:
    assert schema_of(None).decode(b"[1]", {"room": "42"}) == [1]


def test_a_body_that_is_no_object_is_refused_beside_a_path_parameter() -> None:
    assert refused(schema_of(Message).decode, b"[1]", {"room": "42"}).code == "VALIDATION_ERROR"


@pytest.mark.parametrize("data", [b"{", b"nope", b"[" * 100_000, b'{"body":"\xff"}', b'{"a":' * 100_000])
def test_what_is_not_json_is_a_parse_error_beside_a_path_parameter(data: bytes) -> None:
    assert refused(schema_of(Message).decode, data, {"room": "42"}).code == "PARSE_ERROR"


def test_a_catch_all_is_one_string_or_a_list_of_its_segments() -> None:
    class Text(Struct):
        rest: str

    class Parts(Struct):
        rest: list[str]

    class Numbers(Struct):
        rest: list[int] | None = None

    assert schema_of(Text).decode(b"", {"rest": "a/b"}) == Text("a/b")
    assert schema_of(Parts).decode(b"", {"rest": "a/b"}) == Parts(["a", "b"])
    assert schema_of(Parts).decode(b"", {"rest": "a"}) == Parts(["a"])
    assert schema_of(Parts).decode(b"", {"rest": ""}) == Parts([])
    assert schema_of(Numbers).decode(b"", {"rest": "1/2"}) == Numbers([1, 2])


def test_other_numbers_of_a_body_are_read_from_their_text() -> None:
    class Price(Struct):
        id: int
        cost: decimal.Decimal

    text = "0.1000000000000000000000000001"
    value = schema_of(Price).decode(b'{"cost":%b}' % text.encode(), {"id": "1"})
    assert value == Price(1, decimal.Decimal(text))


def test_a_path_parameter_equal_to_an_omitted_default_beats_the_body() -> None:
    class Quiet(Struct, omit_defaults=True):
        room: int = 0
        body: str = ""

    assert schema_of(Quiet).decode(b'{"room":5,"body":"x"}', {"room": "0"}) == Quiet(0, "x")


def test_path_parameters_fill_generic_and_tagged_structs() -> None:
    assert schema_of(Box[int]).decode(b"", {"value": "7"}) == Box(7)
    assert schema_of(Cat | Dog).decode(b'{"type":"cat"}', {"lives": "9"}) == Cat(9)


def test_a_path_parameter_goes_by_the_encoded_name() -> None:
    class Renamed(Struct, rename="camel"):
        room_id: int

    assert schema_of(Renamed).decode(b"", {"roomId": "7"}) == Renamed(7)
    assert refused(schema_of(Renamed).decode, b"", {"room_id": "7"}).details[0]["path"] == "roomId"


# Python values


def test_a_value_of_the_type_is_itself() -> None:
    query = TailQuery(None, 5)
    assert schema_of(TailQuery).convert(query) is query


def test_a_value_of_the_type_is_checked_whole() -> None:
    error = refused(schema_of(TailQuery).convert, TailQuery(None, "5"))  # type: ignore[arg-type]  # that is the point
    assert error.code == "VALIDATION_ERROR"
    assert error.details == [{"path": "limit", "message": "Expected int, got str"}]


def test_other_values_are_converted_strictly() -> None:
    schema = schema_of(TailQuery)
    assert schema.convert({"limit": 5, "other": 1}) == TailQuery(None, 5)
    assert refused(schema.convert, {"limit": "5"}).details == [{"path": "limit", "message": "Expected int, got str"}]
    assert refused(schema.convert, object()).code == "VALIDATION_ERROR"
    assert refused(schema.convert, None).details == [{"path": "", "message": "Expected object, got null"}]


def test_values_inside_keep_their_types() -> None:
    value = Everything(
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        b"\x00",
        datetime.timedelta(seconds=90),
        decimal.Decimal("1.50"),
        uuid.UUID(int=1),
        datetime.date(2026, 1, 2),
    )
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    assert schema_of(Everything).convert(fields) == value


def test_path_parameters_fill_a_python_value() -> None:
    schema = schema_of(Message)
    assert schema.convert({"body": "hi", "room": 1}, {"room": "42"}) == Message(42, "hi")
    assert schema.convert(Message(1, "hi", datetime.date(2026, 1, 2)), {"room": "42"}) == Message(
        42, "hi", datetime.date(2026, 1, 2)
    )
    assert schema_of(None).convert({"a": 1}, {"room": "42"}) == {"a": 1, "room": "42"}
    assert refused(schema.convert, {"body": 1}, {"room": "42"}).details[0]["path"] == "body"


def test_without_a_schema_a_python_value_is_what_its_json_would_be() -> None:
    value = {"a": [1]}
    assert schema_of(None).convert(value) is value
    assert schema_of(None).convert(TailQuery()) == {"level": None, "limit": 100}


# Writing items


def test_a_right_item_is_its_encoding() -> None:
    item = Order([Item(1.5)], {"a": Item(2.0)})
    assert schema_of(Order).dump(item) == msgspec.json.encode(item)
    assert schema_of(Order).check(item) is item


def test_values_are_written_as_the_contract_says() -> None:
    item = Everything(
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        b"\x00\x01",
        datetime.timedelta(seconds=90),
        decimal.Decimal("1.50"),
        uuid.UUID(int=1),
        datetime.date(2026, 1, 2),
    )
    assert msgspec.json.decode(schema_of(Everything).dump(item)) == {
        "when": "2026-01-02T03:04:05Z",
        "data": "AAE=",
        "span": "PT90S",
        "cost": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "day": "2026-01-02",
    }


def test_a_dict_becomes_the_declared_type_and_loses_what_is_not_declared() -> None:
    schema = schema_of(User)
    assert schema.check({"name": "kai", "password": "x"}) == User("kai")
    assert schema.dump({"name": "kai", "password": "x"}) == b'{"name":"kai"}'


def test_a_subclass_shows_only_what_the_declared_base_has() -> None:
    assert schema_of(User).dump(Admin("kai")) == b'{"name":"kai"}'
    team = Team(Admin("kai"), [Admin("mia")])
    assert schema_of(Team).dump(team) == b'{"lead":{"name":"kai"},"members":[{"name":"mia"}]}'
    assert schema_of(Team).dump({"lead": Admin("kai")}) == b'{"lead":{"name":"kai"},"members":[]}'


@pytest.mark.parametrize(
    ("declared", "item", "path", "message"),
    [
        (TailQuery, TailQuery(None, "x"), "limit", "Expected int, got str"),  # type: ignore[arg-type]  # the point
        (Team, Team(User(5)), "lead.name", "Expected str, got int"),  # type: ignore[arg-type]  # the point
        (Team, {"lead": User(5)}, "lead.name", "Expected str, got int"),  # type: ignore[arg-type]  # the point
        (Point, Point("secret"), "x", "Expected int, got str"),  # type: ignore[arg-type]  # the point
        (User, {}, "name", "Object missing required field name"),
        (User, 5, "", "Expected object, got int"),
        (Item, {"price": 1.0, "level": "secret"}, "level", "Invalid enum value"),
        (Cat | Dog, {"type": "secret"}, "type", "Invalid value"),
        (Even, {"n": 3}, "", "Invalid value"),
        (list[Even], [{"n": 3}], "[0]", "Invalid value"),
        (float, math.nan, "", "Expected float, got NaN"),
        (dict[str, float], {"secret": math.inf}, "[...]", "Expected float, got Infinity"),
        (User, object(), "", "Encoding objects of type object is unsupported"),
        (str, "secret \ud800", "", "Expected Unicode text, got a lone surrogate"),
        (None, {"secret": {1, object()}}, "", "Encoding objects of type object is unsupported"),
    ],
)
def test_a_wrong_item_says_where_and_what_but_nothing_of_the_value(
    declared: Any, item: Any, path: str, message: str
) -> None:
    error = refused(schema_of(declared).dump, item)
    assert error.code == "OUTPUT_VALIDATION_ERROR"
    assert error.details == [{"path": path, "message": message}]
    assert "secret" not in f"{error} {error.details}"


def test_check_refuses_what_dump_refuses() -> None:
    error = refused(schema_of(TailQuery).check, TailQuery(None, "x"))  # type: ignore[arg-type]  # that is the point
    assert error.code == "OUTPUT_VALIDATION_ERROR"
    assert error.details == [{"path": "limit", "message": "Expected int, got str"}]


def test_an_item_that_holds_itself_is_refused() -> None:
    class Node(Struct):
        inner: list[Any]

    node = Node([])
    node.inner.append(node)
    for declared in (Node, None):
        error = refused(schema_of(declared).dump, node)
        assert error.details == [{"path": "", "message": "Nested too deep"}]


def test_an_int_of_any_size_is_json() -> None:
    assert schema_of(int).dump(2**70) == b"1180591620717411303424"
    assert schema_of(int).decode(b"1180591620717411303424") == 2**70


def test_an_int_beyond_what_python_writes_is_refused() -> None:
    huge = 10 ** sys.get_int_max_str_digits()
    for declared, item in ((int, huge), (TailQuery, TailQuery(None, huge)), (None, [huge])):
        assert refused(schema_of(declared).dump, item).code == "OUTPUT_VALIDATION_ERROR"


def test_raw_json_passes_untouched() -> None:
    raw = msgspec.Raw(b'{"limit" : "not an int"}')
    assert schema_of(TailQuery).dump(raw) == b'{"limit" : "not an int"}'
    assert schema_of(None).dump(raw) == b'{"limit" : "not an int"}'


def test_raw_json_is_read_where_the_declared_type_is_asked_for() -> None:
    assert schema_of(TailQuery).check(msgspec.Raw(b'{"limit":5}')) == TailQuery(None, 5)
    assert refused(schema_of(TailQuery).check, msgspec.Raw(b'{"limit":"5"}')).code == "OUTPUT_VALIDATION_ERROR"
    assert refused(schema_of(TailQuery).check, msgspec.Raw(b"{")).details == [{"path": "", "message": "Expected JSON"}]


def test_raw_json_inside_of_an_item_is_checked() -> None:
    schema = schema_of(TailQuery)
    assert schema.dump({"limit": msgspec.Raw(b"5"), "level": None}) == b'{"level":null,"limit":5}'
    assert refused(schema.dump, {"limit": msgspec.Raw(b'"5"')}).details[0]["path"] == "limit"


def test_without_a_schema_every_json_is_written_as_it_is() -> None:
    schema = schema_of(None)
    assert schema.dump(Admin("kai")) == b'{"name":"kai","password":"secret"}'
    assert schema.dump([1, None, b"\x00"]) == b'[1,null,"AA=="]'


def test_bytes_are_base64_in_json() -> None:
    assert schema_of(bytes).dump(bytearray(b"\x00\x01")) == b'"AAE="'
    assert schema_of(bytes).check(bytearray(b"\x00\x01")) == b"\x00\x01"


def test_how_a_struct_is_encoded_is_its_own_affair() -> None:
    class Row(Struct, array_like=True, tag="row"):
        n: int

    class Quiet(Struct, omit_defaults=True, rename="camel"):
        some_name: int = 0

    assert schema_of(Row).dump(Row(1)) == b'["row",1]'
    assert schema_of(Quiet).dump(Quiet()) == b"{}"
    assert schema_of(Quiet).dump({"someName": 1}) == b'{"someName":1}'
