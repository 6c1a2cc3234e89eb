"""Schemas of JSON Schema documents, and the compiled checks of those that can be translated."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from raffel_core.errors import RaffelError
from raffel_core.schema import schema_of

ORDER = {
    "title": "Order",
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "discount": {"type": ["number", "null"]},
        "level": {"enum": ["low", "high"]},
        "note": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
    },
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {
        "line": {
            "type": "object",
            "properties": {"price": {"type": "number"}, "count": {"type": "integer"}},
            "required": ["price", "count"],
        }
    },
}


NOT_NULL = "Expected null, got integer"
SEVERAL = "Expected exactly one of the alternatives, got what fits several"
UNKNOWN = "Object contains unknown field y"


class Line(Struct):
    price: float
    count: int


@dataclasses.dataclass
class Note:
    at: datetime.date


def refused(call: Any, *args: Any) -> RaffelError:
    with pytest.raises(RaffelError) as raised:
        call(*args)
    return raised.value


def test_json_is_read_as_it_is() -> None:
    data = b'{"id":1,"lines":[{"price":2,"count":1,"more":null}],"level":"low"}'
    assert schema_of(ORDER).decode(data) == msgspec.json.decode(data)


def test_every_fault_of_an_input_is_reported() -> None:
    error = refused(schema_of(ORDER).decode, b'{"lines":[{"price":"1"}],"level":"top","note":"too long","more":1}')
    assert error.code == "VALIDATION_ERROR"
    assert {fault["path"]: fault["message"] for fault in error.details} == {
        "id": "Object missing required field id",
        "level": "Expected one of ['low', 'high']",
        "lines[0].count": "Object missing required field count",
        "lines[0].price": "Expected number, got string",
        "more": "Object contains unknown field more",
        "note": "Expected a string of length <= 5",
    }


@pytest.mark.parametrize(
    ("document", "value", "path", "message"),
    [
        ({"type": "integer"}, "x", "", "Expected integer, got string"),
        ({"type": ["integer", "null"]}, [], "", "Expected integer | null, got array"),
        ({"type": "string"}, True, "", "Expected string, got boolean"),
        ({"type": "object"}, None, "", "Expected object, got null"),
        ({"minimum": 3}, 1, "", "Expected a number >= 3"),
        ({"exclusiveMaximum": 3}, 3, "", "Expected a number < 3"),
        ({"multipleOf": 5}, 3, "", "Expected a multiple of 5"),
        ({"pattern": "^a"}, "b", "", "Expected a string matching regex '^a'"),
        ({"minItems": 1}, [], "", "Expected an array of length >= 1"),
        ({"const": 1}, 2, "", "Expected 1"),
        ({"items": {"required": ["a", "b"]}}, [{}], "[0].a", "Object missing required field a"),
        ({"anyOf": [{"type": "string"}, {"type": "array"}]}, 1, "", "Expected string | array, got integer"),
        ({"anyOf": [{"type": "null"}, {"properties": {"a": {"type": "null"}}}]}, {"a": 1}, "a", NOT_NULL),
        ({"anyOf": [{"minimum": 5}, {"multipleOf": 2}]}, 1, "", "Does not fit any of the alternatives"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, 7, "", SEVERAL),
        ({"not": {"type": "integer"}}, 1, "", "Does not satisfy not"),
        ({"uniqueItems": True}, [1, 1], "", "Does not satisfy uniqueItems"),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"xa": 1, "y": 1}, "y", UNKNOWN),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what(document: dict[str, Any], value: Any, path: str, message: str) -> None:
    error = refused(schema_of(document).decode, msgspec.json.encode(value))
    assert error.details[0] == {"path": path, "message": message}


@pytest.mark.parametrize("data", [b"{", b"{} {}", b'{"id":NaN}', b'{"id":"\xff"}', b"[" * 100_000])
def test_what_is_not_json_is_a_parse_error(data: bytes) -> None:
    error = refused(schema_of(ORDER).decode, data)
    assert error.code == "PARSE_ERROR"
    assert error.details is None


def test_a_number_that_no_float_holds_is_refused() -> None:
    assert refused(schema_of(ORDER).decode, b'{"discount":1e400}').code == "VALIDATION_ERROR"


def test_a_recursive_schema_meets_deep_input() -> None:
    document = {"type": "array", "items": {"$ref": "#"}}
    assert schema_of(document).decode(b"[[],[[]]]") == [[], [[]]]
    assert refused(schema_of(document).decode, b"[" * 400 + b"]" * 400).code == "PARSE_ERROR"
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    assert refused(schema_of(document).dump, deep).details == [{"path": "", "message": "Nested too deep"}]


def test_the_dialect_is_the_declared_one() -> None:
    document = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "integer",
        "minimum": 1,
        "exclusiveMinimum": True,
    }
    schema = schema_of(document)
    assert schema.decode(b"2") == 2
    assert refused(schema.decode, b"1").code == "VALIDATION_ERROR"
    assert not schema.fits(2)


def test_references_within_the_document_and_to_the_metaschema_are_followed() -> None:
    document = {
        "$id": "https://example.com/a",
        "properties": {
            "b": {"$id": "b", "$defs": {"c": {"type": "integer"}}, "items": {"$ref": "#/$defs/c"}},
            "d": {"$ref": "b#/$defs/c"},
            "schema": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        },
    }
    schema = schema_of(document)
    assert schema.decode(b'{"b":[1],"d":1,"schema":{"type":"object"}}')
    assert refused(schema.decode, b'{"b":["x"],"d":1}').details[0]["path"] == "b[0]"
    assert refused(schema.decode, b'{"schema":{"type":1}}').code == "VALIDATION_ERROR"


def test_a_right_item_is_its_encoding() -> None:
    item = {"id": 1, "lines": [{"price": 1.5, "count": 2}], "discount": None, "note": "a"}
    schema = schema_of(ORDER)
    assert schema.fits(item)
    assert schema.check(item) is item
    assert schema.dump(item) == msgspec.json.encode(item)


def test_other_items_are_taken_as_their_json() -> None:
    schema = schema_of(ORDER)
    item = {"id": 1, "lines": (Line(1.5, 2),)}
    assert schema.dump(item) == b'{"id":1,"lines":[{"price":1.5,"count":2}]}'
    assert schema.check(item) == {"id": 1, "lines": [{"price": 1.5, "count": 2}]}
    assert (
        schema_of({"properties": {"at": {"type": "string"}}}).dump(Note(datetime.date(2026, 1, 2)))
        == b'{"at":"2026-01-02"}'
    )


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({"id": "secret"}, "id"),
        ({"id": True}, "id"),
        ({"id": 0}, "id"),
        ({"id": 1, "lines": [Line("secret", 1)]}, "lines[0].price"),  # type: ignore[arg-type]  # that is the point
        ({"id": 1, "discount": math.nan}, "discount"),
        ({"id": 1, "discount": -math.inf}, "discount"),
        ({"id": 1, "note": math.nan}, "note"),
        ({"id": 1, "level": "secret"}, "level"),
        ({"id": 1, "note": "secret"}, "note"),
        ({}, "id"),
        (5, ""),
        (object(), ""),
        ({"id": 1, "note": "\ud800"}, ""),
    ],
)
def test_a_wrong_item_is_found_wherever_it_is_wrong(item: Any, path: str) -> None:
    schema = schema_of(ORDER)
    error = refused(schema.dump, item)
    assert error.code == "OUTPUT_VALIDATION_ERROR"
    assert [fault["path"] for fault in error.details] == [path]
    assert "secret" not in f"{error} {error.details}"


def test_what_is_no_number_is_null_where_the_schema_says_nothing() -> None:
    assert schema_of({}).dump([math.nan]) == b"[null]"
    assert schema_of({"type": "object"}).dump({"a": math.nan}) == b'{"a":null}'


def test_raw_json_passes_untouched_and_is_checked_where_it_is_asked_for() -> None:
    schema = schema_of(ORDER)
    assert schema.dump(msgspec.Raw(b"{ }")) == b"{ }"
    assert schema.check(msgspec.Raw(b'{"id":1}')) == {"id": 1}
    assert refused(schema.check, msgspec.Raw(b"{}")).code == "OUTPUT_VALIDATION_ERROR"
    assert refused(schema.check, msgspec.Raw(b"{")).details == [{"path": "", "message": "Expected JSON"}]


def test_python_values_are_checked_as_their_json() -> None:
    schema = schema_of(ORDER)
    value = {"id": 1}
    assert schema.convert(value) is value
    assert schema.convert({"id": 1, "lines": [Line(1.0, 2)]}) == {"id": 1, "lines": [{"price": 1.0, "count": 2}]}
    assert refused(schema.convert, {"id": "1"}).code == "VALIDATION_ERROR"
    assert schema.convert({"note": "a"}, {"id": "7"}) == {"note": "a", "id": 7}


def test_path_parameters_fill_free_objects_alone() -> None:
    assert schema_of({"type": "object"}).decode(b"{}", {"room": "1"}) == {"room": "1"}
    assert schema_of({}).decode(b"{}", {"room": "1"}) == {"room": "1"}
    assert schema_of(ORDER).decode(b'{"id":1}', {"room": "1"}) == {"id": 1}
    assert schema_of({"type": "object", "additionalProperties": False}).decode(b"{}", {"room": "1"}) == {}
    assert schema_of({"type": "integer"}).decode(b"1", {"room": "1"}) == 1


def test_each_place_of_a_tuple_is_coerced_for_itself() -> None:
    document = {"properties": {"at": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}}}
    assert schema_of(document).from_query([("at", "1"), ("at", "2"), ("at", "3")]) == {"at": [1, "2", "3"]}


def test_the_classes_of_a_document() -> None:
    assert schema_of({"type": "object"}).trusted is dict
    assert schema_of({"type": "array"}).trusted is list
    assert schema_of({"type": "object", "minProperties": 1}).trusted is dict
    assert schema_of({"anyOf": [{"type": "object"}]}).trusted is None
    assert schema_of({"type": "string"}).exact is str
    assert schema_of({"type": "number"}).exact is None
    assert schema_of(ORDER).exact is None
    assert not schema_of({"type": "string"}).bytes


DOCUMENTS: list[Any] = [
    {},
    {"title": "x", "description": "y"},
    {"type": "integer"},
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 3},
    {"type": "integer", "minimum": 0.5, "multipleOf": 2},
    {"type": "integer", "multipleOf": 0.5},
    {"type": "number", "maximum": 1},
    {"type": "number", "multipleOf": 0.5},
    {"type": "number", "exclusiveMinimum": 1, "maximum": 3},
    {"type": "string", "minLength": 1, "maxLength": 2, "pattern": "^[a-c]"},
    {"type": "string", "minimum": 5},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["integer", "null"]},
    {"type": ["string", "array"], "maxLength": 1, "maxItems": 1},
    {"enum": ["a", 1, None]},
    {"enum": ["a", 1, None], "type": "string"},
    {"enum": ["a", 1], "type": ["string", "number"]},
    {"enum": [True, 1.5, [1]]},
    {"const": "a"},
    {"const": 1, "type": "integer"},
    {"type": "array"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    {"type": "array", "items": False},
    {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    {"type": "array", "prefixItems": [{"type": "integer"}]},
    {"type": "object"},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "number"}}},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"]},
    {"type": "object", "required": ["c"]},
    {"type": "object", "required": ["c"], "additionalProperties": False},
    {"type": "object", "properties": {"1": {"type": "string"}}},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
    {"properties": {"a": {"type": "integer"}}},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"anyOf": [{"type": "integer"}], "type": "number"},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}, "minimum": 2},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False},
    {"type": "array", "items": {"$anchor": "x", "type": "integer"}},
    {"not": {"type": "integer"}},
    {"if": {"type": "integer"}, "then": {"minimum": 2}},
    ORDER,
]


class Key(enum.Enum):
    A = "a"


SCALARS: list[Any] = [
    *(-4, -1, 0, 1, 2, 3, 4, 6, 2**70, 1.5, 1.0, 0.5, -1.0, math.nan, math.inf, True, False, None),
    *("", "a", "b", "ab", "abc", "d", b"a", Key.A, datetime.date(2026, 1, 2), Line(1.0, 1), object(), [], {}, ()),
]
SHAPES: list[Any] = [
    *(lambda x: x, lambda x: [x], lambda x: (x,), lambda x: [1, x], lambda x: [[x]], lambda x: {"a": x}),
    *(lambda x: {"b": x}, lambda x: {"c": x}, lambda x: {"a": 1, "b": x}, lambda x: {"id": 1, "note": x}),
    *(lambda x: {1: x}, lambda x: {Key.A: x}, lambda x: {"a": {"a": x}}, lambda x: {None: x}),
]


def keeps_the_promises(document: Any, item: Any) -> None:
    """Asserts what `fits` and `dump` promise of any item whatever."""
    schema = SCHEMAS[DOCUMENTS.index(document)]
    fits = schema.fits(item)
    assert fits is True or fits is False
    try:
        dumped = schema.dump(item)
    except RaffelError as error:
        assert error.code == "OUTPUT_VALIDATION_ERROR"
        assert error.details
        if fits:
            with pytest.raises((TypeError, ValueError)):
                schema.encode(item)
        return
    assert not fits or schema.encode(item) == dumped
    assert jsonschema.Draft202012Validator(document).is_valid(msgspec.json.decode(dumped))


SCHEMAS = [schema_of(document) for document in DOCUMENTS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_what_fits_is_what_jsonschema_accepts_of_its_encoding(document: Any) -> None:
    for shape in SHAPES:
        for scalar in SCALARS:
            keeps_the_promises(document, shape(scalar))


items = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "id", "note", "1", 1, Key.A]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(document=st.sampled_from(DOCUMENTS), item=items)
def test_any_item_is_refused_or_made_to_fit(document: Any, item: Any) -> None:
    keeps_the_promises(document, item)


@pytest.mark.parametrize(
    ("document", "item"),
    [
        ({"type": "integer", "minimum": 1, "multipleOf": 2}, 4),
        ({"type": "number"}, 1.5),
        ({"type": "number", "maximum": 3}, 1),
        ({"type": "string", "pattern": "a$", "format": "email"}, "ba"),
        ({"type": ["array", "null"], "items": {"type": "string"}}, ["a"]),
        ({"type": ["array", "null"], "items": {"type": "string"}}, None),
        ({"enum": ["a", 1, None]}, 1),
        ({"const": "a"}, "a"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1, "b": object}),
        ({"type": "object", "properties": {"a": True}, "required": ["a", "b"]}, {"a": 1, "b": 2}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}}}, True),
        (ORDER, {"id": 1, "lines": [{"price": 1, "count": 2}], "note": None}),
        ({}, {"a": [1]}),
    ],
)
def test_what_can_be_translated_has_a_compiled_check(document: dict[str, Any], item: Any) -> None:
    assert schema_of(document).fits(item)
