"""The strings of a query and of path parameters, arranged and coerced as a JSON Schema wants its fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from raffel_core.schema.invalid import INPUT, Fault, invalid

Types = frozenset[str]
"""JSON's names of types; none at all says that nothing is known: any."""

TYPE_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
    list: "array",
    dict: "object",
}
_SCALARS: Mapping[str, Any] = {"integer": int, "number": float, "boolean": bool, "null": None, "string": str}
_STRUCTURED = frozenset({"array", "object"})


class Field(NamedTuple):
    """What a field may be."""

    types: Types
    items: Types
    """What the items of a list may be."""
    places: tuple[Types, ...] = ()
    """What its first items may be, where each has a schema of its own."""

    @property
    def is_list(self) -> bool:
        return self.types - {"null"} == {"array"}


_ANY = Field(frozenset(), frozenset())


class Query:
    """The fields of an object, as a client can give them in strings."""

    __slots__ = ("_fields", "_open", "_others")

    def __init__(self, document: Mapping[str, Any]) -> None:
        leaves = _leaves(document, document)
        self._fields: dict[str, Field] = {}
        for leaf in leaves:
            for name, schema in leaf.get("properties", {}).items():
                self._fields[name] = _merged(self._fields.get(name), _field(schema, document))
        others = [leaf.get("additionalProperties", True) for leaf in leaves if _may_be_object(leaf)]
        self._open = not self._fields and len(others) == len(leaves) and all(other in (True, {}) for other in others)
        self._others = _field(others[0], document) if others and isinstance(others[0], dict) else _ANY

    def filled(self, params: Mapping[str, str]) -> dict[str, object]:
        """The path parameters that have a field, arranged for it: a list is the segments of a catch-all."""
        return {
            name: self._param(self._fields.get(name, _ANY), name, text)
            for name, text in params.items()
            if self._open or name in self._fields
        }

    def _param(self, field: Field, name: str, text: str) -> object:
        if not field.is_list:
            return _one(name, text, field.types)
        return [_one(name, segment, field.items) for segment in text.split("/")] if text else []

    def tree(self, pairs: Sequence[tuple[str, str]], params: Mapping[str, str]) -> dict[str, object]:
        """The query as one object: lists where the field is one, JSON where it takes JSON, all other values strings."""
        tree = self.filled(params)
        given: dict[str, list[str]] = {}
        for name, text in pairs:
            if name not in tree:
                given.setdefault(name, []).append(text)
        faults = [
            Fault(name, f"Expected one value, got {len(texts)}")
            for name, texts in given.items()
            if len(texts) > 1 and not self._may_repeat(name)
        ]
        if faults:
            raise invalid(INPUT, faults)
        for name, texts in given.items():
            tree[name] = _arranged(name, texts, self._field(name))
        return tree

    def coerced(self, tree: Mapping[str, object]) -> dict[str, object]:
        """The tree with its strings coerced to the types of their fields; what cannot be coerced stays a string."""
        return {name: _coerced(value, self._field(name)) for name, value in tree.items()}

    def _field(self, name: str) -> Field:
        return self._fields.get(name, self._others)

    def _may_repeat(self, name: str) -> bool:
        types = self._field(name).types
        return not types or "array" in types


def _arranged(name: str, texts: list[str], field: Field) -> object:
    if field.is_list or len(texts) > 1:
        values = [_one(name, text, field.items) for text in texts]
        # A list of objects may come as one JSON array. Where the items are lists themselves, it is one of them.
        whole = len(values) == 1 and isinstance(values[0], list) and "array" not in field.items
        return values[0] if whole else values
    return _one(name, texts[0], field.types)


def _one(name: str, text: str, types: Types) -> object:
    """One value: the string, or what its JSON holds where the type is an object or a list inside of a list."""
    if not types & _STRUCTURED:
        return text
    may_be_text = bool(types - _STRUCTURED - {"null"})
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        if may_be_text:
            return text
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise invalid(INPUT, [Fault(name, f"Expected JSON: {reason}")]) from None
    return text if may_be_text and not isinstance(value, (dict, list)) else value


def _coerced(value: object, field: Field) -> object:
    if isinstance(value, str):
        return _scalar(value, field.types)
    if isinstance(value, list):
        places = itertools.chain(field.places, itertools.repeat(field.items))
        return [
            _scalar(item, types) if isinstance(item, str) else item for item, types in zip(value, places, strict=False)
        ]
    return value


def _scalar(text: str, types: Types) -> object:
    wanted = tuple(_SCALARS[name] for name in types if name in _SCALARS)
    if not wanted or str in wanted:
        return text
    union: Any = wanted[0]
    for one in wanted[1:]:
        union = union | one
    try:
        value = msgspec.convert(text, union, strict=False)
    except msgspec.ValidationError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _field(schema: object, document: Mapping[str, Any]) -> Field:
    leaves = _leaves(schema, document)
    items: list[Types] = []
    places: tuple[Types, ...] = ()
    for leaf in leaves:
        if "array" in _types(leaf):
            places = tuple(_may_be(part, document) for part in leaf.get("prefixItems", ()))
            rest = leaf.get("items", not places)
            items += places if rest is False else (*places, _may_be(rest, document))
    return Field(_union(map(_types, leaves)), _union(items), places)


def _may_be(schema: object, document: Mapping[str, Any]) -> Types:
    return _union(map(_types, _leaves(schema, document)))


def _union(parts: Iterable[Types]) -> Types:
    """All types of the parts; none where one part may be anything."""
    every = list(parts)
    return frozenset().union(*every) if all(every) else frozenset()


def _merged(one: Field | None, other: Field) -> Field:
    if one is None:
        return other
    return Field(_union((one.types, other.types)), _union((one.items, other.items)), one.places or other.places)


def _may_be_object(leaf: Mapping[str, Any]) -> bool:
    types = _types(leaf)
    return not types or "object" in types


def _types(leaf: Mapping[str, Any]) -> Types:
    """The types that this schema names itself."""
    named = leaf.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list):
        return frozenset(named)
    if "const" in leaf or "enum" in leaf:
        values = leaf["enum"] if "enum" in leaf else [leaf["const"]]
        return frozenset(TYPE_NAMES[type(value)] for value in values)
    return frozenset({"object"} if "properties" in leaf else ())


def _leaves(schema: object, document: Mapping[str, Any], seen: tuple[str, ...] = ()) -> list[Mapping[str, Any]]:
    """The schemas that a value may meet here, with references and alternatives followed."""
    if not isinstance(schema, Mapping):
        return []
    groups = [[schema]] if _types(schema) else []
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        groups.append(_leaves(target_of(document, reference), document, (*seen, reference)))
    groups += (_leaves(part, document, seen) for part in schema.get("allOf", ()))
    for key in ("anyOf", "oneOf"):
        groups += [[leaf for part in schema.get(key, ()) for leaf in _leaves(part, document, seen)]]
    groups = [group for group in groups if group]
    # All groups hold at once, so one that names no types (`anyOf: [{required: ...}, ...]`) takes none away.
    typed = [group for group in groups if all(map(_types, group))]
    return [leaf for group in typed or groups for leaf in group] or [schema]


def target_of(document: Mapping[str, Any], reference: str) -> object:
    """What a reference within the document points to; None for any other."""
    if not reference.startswith("#"):
        return None
    place: Any = document
    for step in reference[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping) and step in place:
            place = place[step]
        elif isinstance(place, list) and step.isdigit() and int(step) < len(place):
            place = place[int(step)]
        else:
            return None
    return place
