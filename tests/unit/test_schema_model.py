"""Schemas of pydantic models."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field

from raffel_core.errors import RaffelError
from raffel_core.schema import SchemaError, schema_of


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Line(BaseModel):
    price: float
    count: int = Field(1, ge=1)


@dataclasses.dataclass
class Place:
    street: str


class Order(BaseModel):
    id: int
    lines: list[Line] = []
    at: datetime.datetime | None = None
    level: Level = Level.LOW
    discount: float | None = None
    place: Place | None = None
    free: Any = None


class Aliased(BaseModel):
    line_count: int = Field(alias="lineCount")
    kept: str = Field("", validation_alias="in", serialization_alias="out")


class Admin(Order):
    password: str = "secret"


class Even(BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def must_be_even(cls, n: int) -> int:
        if n % 2:
            raise ValueError(f"secret {n}")
        return n


def refused(call: Any, *args: Any) -> RaffelError:
    with pytest.raises(RaffelError) as raised:
        call(*args)
    return raised.value


def test_json_is_read_as_the_model() -> None:
    value = schema_of(Order).decode(b'{"id":1,"lines":[{"price":2}],"at":"2026-01-02T00:00:00Z","level":"high"}')
    assert value == Order(
        id=1, lines=[Line(price=2.0)], at=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), level=Level.HIGH
    )


def test_every_fault_of_an_input_is_reported() -> None:
    error = refused(schema_of(Order).decode, b'{"lines":[{"price":"1"},{"price":1,"count":0}],"level":"top"}')
    assert error.code == "VALIDATION_ERROR"
    assert {fault["path"]: fault["message"] for fault in error.details} == {
        "id": "Field required",
        "lines[0].price": "Input should be a valid number",
        "lines[1].count": "Input should be greater than or equal to 1",
        "level": "Input should be 'low' or 'high'",
    }
    assert "(and 3 more)" in error.message


def test_an_input_is_read_strictly() -> None:
    for data in (b'{"id":"1"}', b'{"id":true}', b'{"id":1.5}'):
        assert [fault["path"] for fault in refused(schema_of(Order).decode, data).details] == ["id"]


def test_an_empty_body_is_an_empty_object() -> None:
    assert refused(schema_of(Order).decode, b"").details == [{"path": "id", "message": "Field required"}]


def test_what_is_no_object_is_refused_as_a_whole() -> None:
    assert [fault["path"] for fault in refused(schema_of(Order).decode, b"[1]").details] == [""]


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"{} {}",
        b'{"id":NaN}',
        b'{"id":"\xff"}',
        b"[" * 100_000,
        b'{"id":1,"free":%b1%b}' % (b"[" * 300, b"]" * 300),
    ],
)
def test_what_is_not_json_is_a_parse_error(data: bytes) -> None:
    error = refused(schema_of(Order).decode, data)
    assert error.code == "PARSE_ERROR"
    assert error.details is None


def test_a_number_that_no_float_holds_is_refused() -> None:
    error = refused(schema_of(Order).decode, b'{"id":1,"discount":1e400}')
    assert error.code == "VALIDATION_ERROR"
    assert [fault["message"] for fault in error.details] == ["Number out of range"]


def test_input_goes_by_aliases() -> None:
    value = schema_of(Aliased).decode(b'{"lineCount":1,"in":"x"}')
    assert value == Aliased(**{"lineCount": 1, "in": "x"})


def test_a_right_item_is_written_by_pydantic() -> None:
    order = Order(id=1, lines=[Line(price=2.0)])
    schema = schema_of(Order)
    assert schema.dump(order) == order.model_dump_json().encode()
    assert schema.encode(order) == schema.dump(order)
    assert schema.check(order) is order


def test_output_goes_by_aliases() -> None:
    assert schema_of(Aliased).dump(Aliased(**{"lineCount": 1, "in": "x"})) == b'{"lineCount":1,"out":"x"}'


def changed(value: Any, **fields: Any) -> Any:
    """A model whose attributes were assigned, which pydantic does not check."""
    for name, wrong in fields.items():
        setattr(value, name, wrong)
    return value


@pytest.mark.parametrize(
    ("item", "path"),
    [
        (changed(Order(id=1), id="secret"), "id"),
        (changed(Order(id=1), id=True), "id"),
        (changed(Order(id=1), lines=[changed(Line(price=1), count="secret")]), "lines[0].count"),
        (changed(Order(id=1), lines=[changed(Line(price=1), count=0)]), "lines[0].count"),
        (changed(Order(id=1), at="2026-01-02T00:00:00Z"), "at"),  # its JSON would be right, its type is not
        (changed(Order(id=1), level="secret"), "level"),
        (changed(Order(id=1), discount=math.nan), "discount"),
        (changed(Order(id=1), discount=math.inf), "discount"),
        (changed(Order(id=1), place=Place(5)), "place.street"),  # type: ignore[arg-type]  # that is the point
        (changed(Order(id=1), lines=None), "lines"),
        (Order.model_construct(lines=[]), "id"),
        ({"id": "secret"}, "id"),
        ({"id": 1, "lines": [Line.model_construct(price="secret")]}, "lines[0].price"),
        (5, ""),
    ],
)
def test_a_wrong_item_is_found_wherever_it_is_wrong(item: Any, path: str) -> None:
    error = refused(schema_of(Order).dump, item)
    assert error.code == "OUTPUT_VALIDATION_ERROR"
    assert [fault["path"] for fault in error.details] == [path]
    assert "secret" not in f"{error} {error.details}"
    assert refused(schema_of(Order).check, item).code == "OUTPUT_VALIDATION_ERROR"


def test_what_a_validator_says_of_an_item_stays_in_the_log() -> None:
    error = refused(schema_of(Even).dump, changed(Even(n=2), n=3))
    assert error.details == [{"path": "n", "message": "Invalid value"}]
    assert refused(schema_of(Even).decode, b'{"n":3}').details == [{"path": "n", "message": "Value error, secret 3"}]


def test_a_tag_of_an_item_is_not_quoted() -> None:
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    class Pet(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    error = refused(schema_of(Pet).dump, {"pet": {"kind": "secret"}})
    assert error.details == [{"path": "pet", "message": "Invalid value"}]


def test_what_json_cannot_hold_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for wrong in (object(), "\ud800", loop):
        assert refused(schema_of(Order).dump, Order(id=1, free=wrong)).code == "OUTPUT_VALIDATION_ERROR"


def test_a_dict_becomes_the_model() -> None:
    schema = schema_of(Order)
    item = {"id": 1, "lines": [Line(price=2.0)], "at": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "more": 1}
    assert schema.check(item) == Order(**item)
    assert b"more" not in schema.dump(item)


def test_a_subclass_shows_only_what_the_declared_base_has() -> None:
    class Shop(BaseModel):
        best: Order

    assert b"password" not in schema_of(Order).dump(Admin(id=1))
    assert b"password" not in schema_of(Shop).dump(Shop(best=Admin(id=1)))


def test_raw_json_passes_untouched_and_is_read_where_the_model_is_asked_for() -> None:
    schema = schema_of(Order)
    assert schema.dump(msgspec.Raw(b"{ }")) == b"{ }"
    assert schema.check(msgspec.Raw(b'{"id":1}')) == Order(id=1)
    assert refused(schema.check, msgspec.Raw(b"{}")).code == "OUTPUT_VALIDATION_ERROR"


def test_python_values_are_converted_strictly_and_models_checked_whole() -> None:
    schema = schema_of(Order)
    order = Order(id=1)
    assert schema.convert(order) is order
    assert schema.convert({"id": 1}) == order
    for wrong in ({"id": "1"}, changed(Order(id=1), id="1")):
        error = refused(schema.convert, wrong)
        assert error.code == "VALIDATION_ERROR"
        assert [fault["path"] for fault in error.details] == ["id"]


def test_path_parameters_fill_a_model() -> None:
    schema = schema_of(Order)
    assert schema.decode(b'{"discount":1.5}', {"id": "7"}) == Order(id=7, discount=1.5)
    assert schema.convert({"discount": 1.5}, {"id": "7"}) == Order(id=7, discount=1.5)
    assert schema.convert(Order(id=1, discount=1.5), {"id": "7"}) == Order(id=7, discount=1.5)


def test_a_model_is_never_quick_and_trusted_by_its_class() -> None:
    schema = schema_of(Order)
    assert not schema.fits(Order(id=1))
    assert schema.exact is None
    assert schema.trusted is Order
    assert not schema.any
    assert not schema.bytes


def test_what_a_model_makes_of_its_fields_is_no_fault() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(use_enum_values=True, extra="allow", ser_json_bytes="base64", val_json_bytes="base64")
        level: Level = Level.LOW
        at: datetime.date = datetime.date(2026, 1, 2)
        data: bytes = b""
        hidden: int = Field(1, exclude=True)
        secret: pydantic.SecretStr = pydantic.SecretStr("")

        @pydantic.field_serializer("at")
        def in_words(self, at: datetime.date) -> str:
            return "the day"

        @pydantic.computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
        @property
        def twice(self) -> int:
            return 2

    item = Odd(level=Level.HIGH, data=b"\xff", more=[1], secret=pydantic.SecretStr("x"))  # type: ignore[call-arg]  # extra
    assert msgspec.json.decode(schema_of(Odd).dump(item)) == {
        "level": "high",
        "at": "the day",
        "data": "_w==",
        "secret": "**********",
        "more": [1],
        "twice": 2,
    }


def test_a_root_model_is_its_root() -> None:
    class Tags(pydantic.RootModel[list[str]]):
        pass

    schema = schema_of(Tags)
    assert schema.decode(b'["a"]') == Tags(["a"])
    assert schema.dump(Tags(["a"])) == b'["a"]'
    assert refused(schema.dump, changed(Tags(["a"]), root=[1])).code == "OUTPUT_VALIDATION_ERROR"


def test_a_model_without_a_json_schema_is_no_schema() -> None:
    class Foreign(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thing: threadsafe

    with pytest.raises(SchemaError, match="Foreign has no JSON Schema: "):
        schema_of(Foreign)


class threadsafe:
    """A class that pydantic knows nothing of."""


def test_a_model_that_is_not_fully_defined_is_no_schema() -> None:
    class Unfinished(BaseModel):
        other: NotYet  # type: ignore[name-defined]  # noqa: F821  # that is the point

    with pytest.raises(SchemaError, match="Unfinished has no JSON Schema: "):
        schema_of(Unfinished)
