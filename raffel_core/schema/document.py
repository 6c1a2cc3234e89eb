"""Schemas from JSON Schema documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import msgspec
from jsonschema.validators import Draft202012Validator, validator_for
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it has no annotations
from referencing import Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from raffel_core.schema.check import class_of, compile_check, exact_class, never
from raffel_core.schema.contract import ENCODER, Schema, SchemaError
from raffel_core.schema.invalid import (
    INPUT,
    UNREADABLE,
    UNWRITABLE,
    Fault,
    invalid,
    msgspec_fault,
    not_json,
    path_of,
    unwritable,
)
from raffel_core.schema.plain import marked, plain
from raffel_core.schema.query import TYPE_NAMES
from raffel_core.schema.translate import shape_of

_CLASSES = {"object": dict, "array": list, "string": str, "integer": int, "number": float, "boolean": bool}


class DocumentSchema(Schema[Any]):
    """The schema of one JSON Schema document. Its values are JSON's own types."""

    def __init__(self, declared: dict[str, Any]) -> None:
        title = declared.get("title")
        name = title if isinstance(title, str) and title else "object"
        document = _document(declared, name)
        kind = validator_for(document, default=Draft202012Validator)
        _require_sound(document, kind, name)
        shape = shape_of(document) if kind is Draft202012Validator else None
        named = document.get("type")
        super().__init__(
            declared,
            name,
            document,
            fits=never if shape is None else compile_check(shape),
            exact=None if shape is None else exact_class(shape),
            trusted=(None if shape is None else class_of(shape))
            or (_CLASSES.get(named) if isinstance(named, str) else None),
        )
        self._validator = kind(document, registry=REGISTRY)

    def _read(self, data: bytes) -> Any:
        try:
            value = msgspec.json.decode(data)
        except msgspec.ValidationError as error:
            raise invalid(INPUT, [msgspec_fault(INPUT, error)]) from error
        except UNREADABLE as error:
            raise not_json(error) from None
        if not self.fits(value):
            self._require(value, INPUT)
        return value

    def _read_query(self, tree: Mapping[str, object]) -> Any:
        value = self._query.coerced(tree)
        self._require(value, INPUT)
        return value

    def _coerced(self, rest: Mapping[str, object], filled: Mapping[str, object]) -> Mapping[str, object]:
        return self._query.coerced(filled)

    def _plain(self, value: object) -> object:
        return plain(value)

    def _whole(self, item: object, code: str) -> Any:
        try:
            data = bytes(item) if isinstance(item, msgspec.Raw) else ENCODER.encode(item)
            value = msgspec.json.decode(data)
            # The encoder writes null for what is no number, and null may be allowed.
            self._require(marked(plain(item)) if b"null" in data else value, code)
            return value
        except msgspec.ValidationError as error:
            raise invalid(code, [msgspec_fault(code, error)]) from error
        except msgspec.DecodeError as error:
            raise invalid(code, [Fault("", "Expected JSON")]) from error
        except UNWRITABLE as error:
            raise unwritable(code, error) from error

    def _require(self, value: Any, code: str) -> None:
        errors = sorted(self._validator.iter_errors(value), key=lambda error: str(error.json_path))
        faults = dict.fromkeys(fault for error in errors for fault in _faults(error))
        if faults:
            raise invalid(code, list(faults))


def _document(declared: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy that nobody else can change, of JSON's own types."""
    try:
        document: dict[str, Any] = msgspec.json.decode(ENCODER.encode(declared), type=dict[str, Any])
    except (*UNWRITABLE, msgspec.DecodeError) as error:
        raise SchemaError(f"{name} is no JSON Schema: {error}") from error
    return document


def _require_sound(document: dict[str, Any], kind: Any, name: str) -> None:
    """Raises SchemaError for what is no JSON Schema or refers to what is not in it: nothing is ever fetched."""
    try:
        kind.check_schema(document)
    except jsonschema.SchemaError as error:
        place = path_of(error.absolute_path)
        raise SchemaError(f"{name} is no JSON Schema: {f'{place}: ' if place else ''}{error.message}") from error
    resource = specification_with(kind.META_SCHEMA["$schema"]).create_resource(document)
    _require_references(resource, REGISTRY.resolver_with_root(resource), name)


def _require_references(resource: Resource[Any], resolver: Any, name: str) -> None:
    contents = resource.contents
    for key in ("$ref", "$dynamicRef"):
        reference = contents.get(key) if isinstance(contents, dict) else None
        if isinstance(reference, str):
            try:
                resolver.lookup(reference)
            except Unresolvable as error:
                raise SchemaError(f"{name} refers to {reference!r}, which is not in it; nothing is fetched") from error
    for part in resource.subresources():
        _require_references(part, resolver.in_subresource(part), name)


_BOUNDS = {
    "minimum": "a number >= {}",
    "maximum": "a number <= {}",
    "exclusiveMinimum": "a number > {}",
    "exclusiveMaximum": "a number < {}",
    "multipleOf": "a multiple of {}",
    "minLength": "a string of length >= {}",
    "maxLength": "a string of length <= {}",
    "pattern": "a string matching regex {!r}",
    "minItems": "an array of length >= {}",
    "maxItems": "an array of length <= {}",
    "minProperties": "an object of size >= {}",
    "maxProperties": "an object of size <= {}",
    "const": "{!r}",
    "enum": "one of {!r}",
}


def _faults(error: jsonschema.ValidationError) -> Iterator[Fault]:
    """What jsonschema found, in words that hold nothing of the value, which its own do."""
    path = path_of(error.absolute_path)
    wanted: Any = error.validator_value
    instance: Any = error.instance
    match error.validator:
        case "required":
            yield from (
                Fault(path_of((*error.absolute_path, name)), f"Object missing required field {name}")
                for name in wanted
                if name not in instance
            )
        case "additionalProperties" if wanted is False:
            yield from (
                Fault(path_of((*error.absolute_path, name)), f"Object contains unknown field {name}")
                for name in _unknown(error)
            )
        case "type":
            types = wanted if isinstance(wanted, list) else [wanted]
            yield Fault(path, f"Expected {' | '.join(types)}, got {_type_name(error.instance)}")
        case "anyOf" | "oneOf" if not error.context:
            yield Fault(path, "Expected exactly one of the alternatives, got what fits several")
        case "anyOf" | "oneOf":
            yield from _no_alternative(error, path)
        case keyword if keyword in _BOUNDS:
            yield Fault(path, f"Expected {_BOUNDS[str(keyword)].format(wanted)}")
        case keyword:
            yield Fault(path, f"Does not satisfy {keyword}")


def _unknown(error: jsonschema.ValidationError) -> Iterator[str]:
    schema: Any = error.schema
    members: Any = error.instance
    known = schema.get("properties", {})
    patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", ())]
    for name in members:
        if name not in known and not any(pattern.search(name) for pattern in patterns):
            yield name


def _no_alternative(error: jsonschema.ValidationError, path: str) -> Iterator[Fault]:
    """What is wrong with the one alternative of the right type; where there is none, the types that would have done."""
    alternatives: dict[object, list[jsonschema.ValidationError]] = {}
    for one in error.context or ():
        alternatives.setdefault(one.relative_schema_path[0], []).append(one)
    types: list[str] = []
    meant = []
    for errors in alternatives.values():
        wrong: list[Any] = [one.validator_value for one in errors if one.validator == "type" and not one.relative_path]
        if wrong:
            types += wrong[0] if isinstance(wrong[0], list) else wrong
        else:
            meant.append(errors)
    if len(meant) == 1:
        for one in meant[0]:
            yield from _faults(one)
    elif meant:
        yield Fault(path, "Does not fit any of the alternatives")
    else:
        yield Fault(path, f"Expected {' | '.join(dict.fromkeys(types))}, got {_type_name(error.instance)}")


def _type_name(value: object) -> str:
    return TYPE_NAMES.get(type(value), type(value).__name__)
