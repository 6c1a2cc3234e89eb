"""Query strings and path parameters: how strings become what a schema declares, alike for every kind of schema."""

from __future__ import annotations

import datetime
from typing import Any, Literal, TypedDict

import pydantic
import pytest
from msgspec import Struct

from raffel_core.errors import RaffelError
from raffel_core.schema import schema_of


class Filter(Struct):
    field: str
    least: int = 0


class Tree(Struct):
    name: str
    children: list[Tree] = []


class Search(Struct):
    limit: int = 100
    ratio: float = 0.5
    exact: bool = False
    word: str = ""
    tags: list[str] = []
    ids: list[int] | None = None
    filter: Filter | None = None
    filters: list[Filter] = []
    rows: list[list[int]] = []
    counts: dict[str, int] = {}
    side: Literal["left", "right"] = "left"
    level: Literal[1, 2] = 1
    either: int | str = ""


class FilterModel(pydantic.BaseModel):
    field: str
    least: int = 0


class SearchModel(pydantic.BaseModel):
    limit: int = 100
    ratio: float = 0.5
    exact: bool = False
    word: str = ""
    tags: list[str] = []
    ids: list[int] | None = None
    filter: FilterModel | None = None
    filters: list[FilterModel] = []
    rows: list[list[int]] = []
    counts: dict[str, int] = {}
    side: Literal["left", "right"] = "left"
    level: Literal[1, 2] = 1
    either: int | str = ""


DOCUMENT = {
    "title": "Search",
    "type": "object",
    "properties": {
        "limit": {"type": "integer"},
        "ratio": {"allOf": [{"type": "number"}, {"minimum": 0}]},
        "exact": {"type": "boolean"},
        "word": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "ids": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/id"}}, {"type": "null"}]},
        "filter": {"oneOf": [{"$ref": "#/$defs/filter"}, {"type": "null"}]},
        "filters": {"type": "array", "items": {"$ref": "#/$defs/filter"}},
        "rows": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "side": {"enum": ["left", "right"]},
        "level": {"enum": [1, 2]},
        "either": {"type": ["integer", "string"]},
    },
    "$defs": {
        "id": {"type": "integer"},
        "filter": {
            "type": "object",
            "properties": {"field": {"type": "string"}, "least": {"type": "integer"}},
            "required": ["field"],
            "anyOf": [{"required": ["field"]}, {"required": ["least"]}],
        },
    },
}


def read(declared: Any, *pairs: tuple[str, str], **params: str) -> Any:
    """The fields that a query gives, as plain values."""
    value = schema_of(declared).from_query(pairs, params)
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Search):
        plain = {name: getattr(value, name) for name in {*dict(pairs), *params} if hasattr(value, name)}
        filters = [{"field": one.field, "least": one.least} for one in value.filters]
        one = value.filter and {"field": value.filter.field, "least": value.filter.least}
        return plain | {name: new for name, new in (("filter", one), ("filters", filters)) if name in plain}
    return value


def refused(declared: Any, *pairs: tuple[str, str], **params: str) -> list[dict[str, str]]:
    with pytest.raises(RaffelError) as raised:
        schema_of(declared).from_query(pairs, params)
    assert raised.value.code == "VALIDATION_ERROR"
    details: list[dict[str, str]] = raised.value.details
    return details


every_kind = pytest.mark.parametrize("declared", [Search, SearchModel, DOCUMENT], ids=["msgspec", "pydantic", "json"])

FILTER = '{"field":"a","least":2}'


@every_kind
@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        ([("limit", "10")], 10),
        ([("ratio", "1.5")], 1.5),
        ([("ratio", "2")], 2.0),
        ([("exact", "true")], True),
        ([("exact", "0")], False),
        ([("word", "10")], "10"),
        ([("word", "null")], "null"),
        ([("word", "")], ""),
        ([("tags", "a")], ["a"]),
        ([("tags", "a"), ("tags", "b")], ["a", "b"]),
        ([("tags", "a,b")], ["a,b"]),
        ([("ids", "1")], [1]),
        ([("ids", "1"), ("ids", "2")], [1, 2]),
        ([("filter", FILTER)], {"field": "a", "least": 2}),
        ([("filter", "null")], None),
        ([("filters", f"[{FILTER}]")], [{"field": "a", "least": 2}]),
        ([("filters", FILTER)], [{"field": "a", "least": 2}]),
        ([("filters", FILTER), ("filters", FILTER)], [{"field": "a", "least": 2}] * 2),
        ([("filters", "[]")], []),
        ([("rows", "[1,2]")], [[1, 2]]),
        ([("rows", "[1,2]"), ("rows", "[3]")], [[1, 2], [3]]),
        ([("counts", '{"a":1}')], {"a": 1}),
        ([("side", "right")], "right"),
        ([("level", "2")], 2),
        ([("either", "a")], "a"),
        ([("either", "10")], "10"),
    ],
)
def test_strings_become_what_the_schema_declares(declared: Any, pairs: list[tuple[str, str]], value: Any) -> None:
    found = read(declared, *pairs)[pairs[0][0]]
    assert found == value
    assert type(found) is type(value)


@every_kind
@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        ([("limit", "ten")], "limit"),
        ([("limit", "1.5")], "limit"),
        ([("ratio", "nan")], "ratio"),
        ([("ratio", "inf")], "ratio"),
        ([("ids", "1"), ("ids", "x")], "ids[1]"),
        ([("ids", "[1,2]")], "ids[0]"),
        ([("filters", '{"field":1}')], "filters[0].field"),
        ([("side", "up")], "side"),
        ([("level", "3")], "level"),
    ],
)
def test_a_string_that_is_not_what_is_declared_is_refused(
    declared: Any, pairs: list[tuple[str, str]], path: str
) -> None:
    assert [fault["path"] for fault in refused(declared, *pairs)] == [path]


@every_kind
@pytest.mark.parametrize("name", ["filter", "filters", "counts"])
@pytest.mark.parametrize("text", ["{", "a=1", "", "[" * 100_000])
def test_bad_json_is_refused_with_its_field(declared: Any, name: str, text: str) -> None:
    (fault,) = refused(declared, (name, text))
    assert fault["path"] == name
    assert fault["message"].startswith("Expected JSON: ")


@every_kind
def test_a_field_that_is_no_list_is_given_once(declared: Any) -> None:
    pairs = [("limit", "1"), ("limit", "1"), ("word", "a"), ("word", "b"), ("word", "c"), ("tags", "a"), ("tags", "b")]
    assert refused(declared, *pairs) == [
        {"path": "limit", "message": "Expected one value, got 2"},
        {"path": "word", "message": "Expected one value, got 3"},
    ]


@every_kind
def test_an_object_is_given_once(declared: Any) -> None:
    assert refused(declared, ("filter", FILTER), ("filter", FILTER))[0]["message"] == "Expected one value, got 2"


@every_kind
def test_an_unknown_field_is_ignored_however_often_it_comes(declared: Any) -> None:
    assert read(declared, ("limit", "1"), ("_", "a"), ("_", "b"))["limit"] == 1


@every_kind
def test_a_path_parameter_beats_the_query_and_is_coerced_alike(declared: Any) -> None:
    assert read(declared, ("limit", "1"), ("limit", "2"), limit="42") == {"limit": 42}
    assert read(declared, ids="1/2") == {"ids": [1, 2]}
    assert read(declared, word="a/b") == {"word": "a/b"}
    assert refused(declared, ("limit", "1"), limit="x")[0]["path"] == "limit"


@every_kind
def test_a_path_parameter_of_a_body_is_coerced_as_in_a_query(declared: Any) -> None:
    value = schema_of(declared).decode(b'{"limit":1,"word":"a"}', {"limit": "42", "ids": "1/2", "other": "x"})
    get = value.get if isinstance(value, dict) else lambda name: getattr(value, name)
    assert (get("limit"), get("ids"), get("word")) == (42, [1, 2], "a")


@every_kind
def test_a_body_is_not_coerced(declared: Any) -> None:
    with pytest.raises(RaffelError) as raised:
        schema_of(declared).decode(b'{"limit":"1"}', {"word": "a"})
    assert raised.value.details[0]["path"] == "limit"


def test_without_a_schema_values_are_strings_and_repeated_ones_lists() -> None:
    assert read(None, ("a", "1"), ("b", "x"), ("b", "2"), ("c", "[1]"), room="42") == {
        "a": "1",
        "b": ["x", "2"],
        "c": "[1]",
        "room": "42",
    }


def test_without_a_schema_a_path_parameter_beats_the_query() -> None:
    assert read(None, ("room", "1"), ("room", "2"), room="42") == {"room": "42"}


def test_an_empty_query_is_an_empty_object() -> None:
    assert read(None) == {}
    assert schema_of(Search).from_query([]) == Search()
    assert refused(Filter) == [{"path": "field", "message": "Object missing required field field"}]


def test_a_schema_that_is_no_object_refuses_a_query() -> None:
    assert refused(int, ("a", "1")) == [{"path": "", "message": "Expected int, got object"}]


def test_fields_go_by_their_encoded_names() -> None:
    class Renamed(Struct, rename="camel"):
        line_items: list[int]

    class Aliased(pydantic.BaseModel):
        line_items: list[int] = pydantic.Field(alias="lineItems")

    assert schema_of(Renamed).from_query([("lineItems", "1")]) == Renamed([1])
    assert schema_of(Aliased).from_query([("lineItems", "1")]) == Aliased(lineItems=[1])


def test_a_struct_that_forbids_unknown_fields_does_so_in_a_query() -> None:
    class Strict(Struct, forbid_unknown_fields=True):
        name: str

    assert refused(Strict, ("name", "a"), ("nme", "b"))[0]["path"] == "nme"


def test_a_date_is_read_as_msgspec_reads_it() -> None:
    class Since(Struct):
        at: datetime.datetime

    value = schema_of(Since).from_query([("at", "2026-01-02T00:00:00Z")])
    assert value == Since(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))


def test_a_typed_dict_and_a_dict_have_fields_too() -> None:
    class Asked(TypedDict, total=False):
        ids: list[int]
        limit: int

    assert read(Asked, ("ids", "1"), ("limit", "2")) == {"ids": [1], "limit": 2}
    assert read(dict[str, int], ("a", "1")) == {"a": 1}
    assert read(dict[str, list[int]], ("a", "1"), ("b", "2"), ("b", "3")) == {"a": [1], "b": [2, 3]}
    assert read(dict[str, Any], ("a", "1"), ("b", "2"), ("b", "3")) == {"a": "1", "b": ["2", "3"]}


def test_a_field_that_may_be_text_or_an_object_takes_both() -> None:
    class Loose(Struct):
        value: str | dict[str, int] = ""
        many: str | list[str] = ""

    schema = schema_of(Loose)
    assert schema.from_query([("value", '{"a":1}')]) == Loose({"a": 1})
    assert schema.from_query([("value", "{a")]) == Loose("{a")
    assert schema.from_query([("value", "5")]) == Loose("5")
    assert schema.from_query([("many", "a")]) == Loose("", "a")
    assert schema.from_query([("many", "a"), ("many", "b")]) == Loose("", ["a", "b"])


def test_alternatives_of_objects_share_a_query() -> None:
    class Near(Struct, tag="near"):
        points: list[int]

    class Named(Struct, tag="named"):
        name: str

    assert schema_of(Near | Named).from_query([("type", "near"), ("points", "1")]) == Near([1])
    assert schema_of(Near | Named).from_query([("type", "named"), ("name", "a")]) == Named("a")


def test_a_type_that_holds_itself_has_a_query() -> None:
    assert schema_of(Tree).from_query([("name", "a"), ("children", '[{"name":"b"}]')]) == Tree("a", [Tree("b")])


def test_references_that_only_lead_to_each_other_are_followed_once() -> None:
    document = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"properties": {"n": {"$ref": "#"}}}}}
    assert schema_of(document).from_query([("n", "{}")]) == {"n": {}}


@every_kind
def test_a_path_parameter_that_is_no_unicode_text_is_refused(declared: Any) -> None:
    with pytest.raises(RaffelError, match="VALIDATION_ERROR") as raised:
        schema_of(declared).decode(b"{}", {"word": "\ud800"})
    assert raised.value.details == [{"path": "", "message": "Expected Unicode text, got a lone surrogate"}]
