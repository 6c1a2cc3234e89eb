"""JSON Schema in the terms of msgspec, as far as it goes: what can be said in them can have a compiled check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import inspect as shapes

from raffel_core.schema.check import Members
from raffel_core.schema.query import TYPE_NAMES, target_of

_SILENT = frozenset(
    {"$schema", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated"}
    | {"readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType"}
)
"""Keywords that refuse no value. (`format` is an annotation in 2020-12, and jsonschema takes it as one.)"""

_KEYWORDS: Mapping[str, frozenset[str]] = {
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "boolean": frozenset(),
    "null": frozenset(),
}


class _Foreign(Exception):
    """A schema that says what a shape cannot."""


def shape_of(document: Mapping[str, Any]) -> shapes.Type | None:
    """The shape of a 2020-12 document: a value of it is one that the document allows. None where there is none."""
    try:
        return _shape(document, document, ())
    except _Foreign:
        return None


def _shape(schema: object, document: Mapping[str, Any], seen: tuple[str, ...]) -> shapes.Type:
    if schema is True:
        return shapes.AnyType()
    if not isinstance(schema, Mapping):
        raise _Foreign
    keywords = schema.keys() - _SILENT
    if not keywords:
        return shapes.AnyType()
    if keywords == {"$ref"} and schema["$ref"] not in seen:
        return _shape(target_of(document, schema["$ref"]), document, (*seen, schema["$ref"]))
    if keywords == {"anyOf"}:
        return shapes.UnionType(tuple(_shape(part, document, seen) for part in schema["anyOf"]))
    if keywords in ({"enum"}, {"const"}, {"enum", "type"}, {"const", "type"}):
        return _literal(schema)
    types = _types(schema)
    if not types or not keywords <= {"type"}.union(*(_KEYWORDS[name] for name in types)):
        raise _Foreign
    found = tuple(shape for name in types for shape in _of_type(name, schema, document, seen))
    return found[0] if len(found) == 1 else shapes.UnionType(found)


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    named = schema.get("type", ())
    return (named,) if isinstance(named, str) else tuple(named)


def _literal(schema: Mapping[str, Any]) -> shapes.Type:
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    types = _types(schema)
    for value in values:
        # To JSON Schema 1 and 1.0 are the same; `_literal` of a check knows only the int, and leaves the other to ask.
        name = TYPE_NAMES.get(type(value))
        if name not in ("string", "integer", "null") or (types and name not in types and "number" not in types):
            raise _Foreign
    return shapes.LiteralType(tuple(values))


def _of_type(
    name: str, schema: Mapping[str, Any], document: Mapping[str, Any], seen: tuple[str, ...]
) -> Iterator[shapes.Type]:
    match name:
        case "integer":
            yield shapes.IntType(**_limits(schema), multiple_of=_whole_number(schema.get("multipleOf")))
        case "number":
            yield shapes.IntType(**_limits(schema))
            yield shapes.FloatType(**_limits(schema))
        case "string":
            yield shapes.StrType(schema.get("minLength"), schema.get("maxLength"), schema.get("pattern"))
        case "array":
            item = _shape(schema.get("items", True), document, seen)
            yield shapes.ListType(item, schema.get("minItems"), schema.get("maxItems"))
        case "object":
            yield _object(schema, document, seen)
        case "boolean":
            yield shapes.BoolType()
        case "null":
            yield shapes.NoneType()


def _limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gt": schema.get("exclusiveMinimum"),
        "ge": schema.get("minimum"),
        "lt": schema.get("exclusiveMaximum"),
        "le": schema.get("maximum"),
    }


def _whole_number(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise _Foreign
    return value


def _object(schema: Mapping[str, Any], document: Mapping[str, Any], seen: tuple[str, ...]) -> shapes.Type:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    others = schema.get("additionalProperties", True)
    if not properties and not required and isinstance(others, Mapping):
        return shapes.DictType(shapes.StrType(), _shape(others, document, seen))
    absent = [name for name in required if name not in properties]
    if others not in (True, False) or (absent and not others):
        raise _Foreign
    members = [(name, _shape(part, document, seen), name in required) for name, part in properties.items()]
    return Members((*members, *((name, shapes.AnyType(), True) for name in absent)), others)
