"""What may be declared as a schema, what is refused, and what every schema says of itself."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar

import jsonschema
import msgspec
import pydantic
import pytest
from msgspec import Meta, Struct

from raffel_core.schema import Schema, SchemaError, schema_of


class LogLine(Struct):
    message: str


@dataclasses.dataclass
class Point:
    x: int


class Quote(TypedDict):
    bid: float


class Pair(NamedTuple):
    left: int


class Model(pydantic.BaseModel):
    x: int


class Plain:
    x: int


class Order(Struct):
    owner: Plain


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class One(Struct):
    x: int


V = TypeVar("V")


class Box(Struct, Generic[V]):
    value: V


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        (None, "any"),
        (Any, "any"),
        (object, "any"),
        (int, "int"),
        (bytes, "bytes"),
        (type(None), "None"),
        (LogLine, "LogLine"),
        (list[LogLine], "list[LogLine]"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (dict[str, Any], "dict[str, any]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (int | None, "int | None"),
        (Optional[str], "str | None"),  # noqa: UP045  # the old spelling is a type of its own
        (Literal["a", 1], "Literal['a', 1]"),
        (Annotated[int, Meta(ge=1)], "int"),
        (Box[int], "Box[int]"),
        (UserId, "UserId"),
        (Point, "Point"),
        (Quote, "Quote"),
        (Pair, "Pair"),
        (Model, "Model"),
        ({"type": "object"}, "object"),
        ({"title": "Tail", "type": "object"}, "Tail"),
    ],
)
def test_every_schema_has_a_name_for_people(declared: Any, name: str) -> None:
    schema = schema_of(declared)
    assert isinstance(schema, Schema)
    assert schema.name == name
    assert repr(schema) == f"<Schema {name}>"
    assert schema.declared is declared


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (Plain, "Plain is no type that JSON can be read as; use a msgspec Struct, a dataclass or a TypedDict"),
        (Order, "Order holds Plain, which is no type that JSON can be read as"),
        (list[Plain], "list[Plain] holds Plain, which"),
        (complex, "complex is no type that JSON can be read as"),
        (AsyncIterator[int], "AsyncIterator[int] holds AsyncIterator, which"),
        (list[Model], "list[Model] holds Model, which"),
        (msgspec.msgpack.Ext, "Ext is no type that JSON can be read as"),
        (Callable[[], int], "is no"),
        (5, "5 is no schema"),
        (True, "True is no schema"),
        ([int], "is no schema"),
        ("LogLine", "LogLine is no schema"),
        (LogLine("x"), "is no schema"),
        (Model(x=1), "is no schema"),
        (len, "len is no schema"),
        (Mixed, "Mixed is no schema: Enums must contain either all str or all int values"),
        (LogLine | One, "LogLine | One is no schema: If a type union contains multiple Struct types"),
        ({"type": "strin"}, "object is no JSON Schema: type: 'strin' is not valid"),
        ({"title": "Tail", "properties": {"a": {"minimum": "x"}}}, "Tail is no JSON Schema: properties.a.minimum"),
        ({"pattern": "("}, "object is no JSON Schema"),
        ({"name": str}, "object is no JSON Schema"),
        ({1: 2, "type": {1}}, "object is no JSON Schema"),
        ({"$ref": "#/$defs/none"}, "object refers to '#/$defs/none', which is not in it; nothing is fetched"),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}}, "refers to 'http://127.0.0.1:9/a.json'"),
        ({"items": {"$ref": "file:///etc/hostname"}}, "refers to 'file:///etc/hostname'"),
    ],
)
def test_what_is_no_schema_is_refused_with_a_reason(declared: Any, text: str) -> None:
    with pytest.raises(SchemaError) as raised:
        schema_of(declared)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("declared", [None, Any, object])
def test_nothing_declared_is_any_json(declared: Any) -> None:
    schema = schema_of(declared)
    assert schema.any
    assert schema.json_schema() == {}


@pytest.mark.parametrize("declared", [int, LogLine, dict, Model, {}, bytes])
def test_what_is_declared_is_not_any_json(declared: Any) -> None:
    assert not schema_of(declared).any


def test_bytes_are_marked() -> None:
    assert schema_of(bytes).bytes
    assert schema_of(Annotated[bytes, Meta(max_length=9)]).bytes
    assert not schema_of(bytes | None).bytes
    assert not schema_of(str).bytes


@pytest.mark.parametrize(
    "declared",
    [LogLine, list[LogLine], Point, Quote, Pair, Box[int], Model, int, bytes, Literal["a"], {"type": "object"}, None],
)
def test_every_schema_has_a_sound_json_schema_of_its_own(declared: Any) -> None:
    schema = schema_of(declared)
    document = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    document["changed"] = True
    assert "changed" not in schema.json_schema()


def test_a_json_schema_is_what_was_declared_and_stays_so() -> None:
    declared = {"type": "object", "properties": {"n": {"type": "integer"}}}
    schema = schema_of(declared)
    assert schema.json_schema() == declared
    declared["properties"] = {}
    with pytest.raises(Exception, match="VALIDATION_ERROR"):
        schema.decode(b'{"n":"x"}')


def test_pydantic_and_jsonschema_are_loaded_only_where_they_are_declared() -> None:
    program = (
        "import sys, msgspec\n"
        "from raffel_core.schema import schema_of\n"
        "class A(msgspec.Struct):\n    n: int\n"
        "schema_of(A).decode(b'{\"n\":1}')\n"
        "print(sorted({'pydantic', 'jsonschema'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
