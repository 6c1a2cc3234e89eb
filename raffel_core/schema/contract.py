"""What every schema can do, whatever it was declared with."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from raffel_core.schema.invalid import INPUT, OUTPUT, UNREADABLE, UNWRITABLE, not_json, unwritable
from raffel_core.schema.query import Query

T = TypeVar("T")

ENCODER = msgspec.json.Encoder()
"""Writes all JSON here: datetime as RFC 3339, bytes as base64, timedelta as ISO 8601, Decimal and UUID as strings."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SchemaError(ValueError):
    """What was declared is no schema; the text says why."""


class Schema(ABC, Generic[T]):
    """What the values of one side of a route must be. `schema_of` makes one.

    Whatever `decode`, `from_query`, `convert` and `check` return is wholly of the declared type.
    """

    def __init__(
        self,
        declared: object,
        name: str,
        document: dict[str, Any],
        *,
        fits: Callable[[object], bool],
        encode: Callable[[object], bytes] = ENCODER.encode,
        parse: Callable[[bytes], T] | None = None,
        exact: type | None = None,
        trusted: type | None = None,
        any: bool = False,
        bytes: bool = False,
    ) -> None:
        self.declared = declared
        """What the user gave: a msgspec type, a pydantic model, a JSON Schema, or None."""
        self.name = name
        """For people: `TailQuery`, `list[LogLine]`, `any`."""
        self.any = any
        """No schema: any JSON."""
        self.bytes = bytes
        """The values are bytes."""
        self.exact = exact
        """Where `type(item) is exact`, `encode(item)` alone is right: nothing inside can be wrong."""
        self.trusted = trusted
        """The declared type itself: what may go to `encode` unseen where the route trusts its handler."""
        self.fits = fits
        """Quick. True: the item is wholly of the declared type, and `encode(item)` is right. False: ask `dump`."""
        self.parse = self._read if parse is None else parse
        """Quick. Reads JSON strictly, or raises anything at all: ask `decode` then."""
        self.encode = encode
        """JSON, unchecked. Raises where JSON cannot hold the item (a lone surrogate, a cycle): ask `dump` then."""
        self._document = document
        self._query = Query({} if any else document)

    def decode(self, data: bytes, params: Mapping[str, str] | None = None) -> T:
        """Reads a body or a payload, strictly. `params` beat its fields and are coerced, as in a query. b"" is {}."""
        data = data or b"{}"
        filled = self._query.filled(params) if params else None
        try:
            return self._read(self._with_params(data, filled) if filled else data)
        except RecursionError as error:
            raise not_json(error) from None
        except UnicodeEncodeError as error:
            raise unwritable(INPUT, error) from error

    def from_query(self, pairs: Sequence[tuple[str, str]], params: Mapping[str, str] | None = None) -> T:
        """Reads the fields of a query, which are all strings: coerced as the schema wants it. `params` beat them."""
        try:
            return self._read_query(self._query.tree(pairs, params or {}))
        except RecursionError as error:
            raise not_json(error) from None
        except UnicodeEncodeError as error:
            raise unwritable(INPUT, error) from error

    def convert(self, value: object, params: Mapping[str, str] | None = None) -> T:
        """Reads a Python value, strictly: itself if it is of the type, else what `decode` makes of its JSON."""
        filled = self._query.filled(params) if params else None
        if filled:
            try:
                tree = self._plain(value)
            except UNWRITABLE as error:
                raise unwritable(INPUT, error) from error
            if isinstance(tree, dict):
                rest = {name: member for name, member in tree.items() if name not in filled}
                value = {**rest, **self._coerced(rest, filled)}
        return value if self.fits(value) else self._whole(value, INPUT)  # type: ignore[return-value]  # `fits` says it is a T

    def check(self, item: object) -> object:
        """The item as the declared type, checked whole; else OUTPUT_VALIDATION_ERROR."""
        return item if self.fits(item) else self._whole(item, OUTPUT)

    def dump(self, item: object) -> bytes:
        """The item's JSON, checked whole; else OUTPUT_VALIDATION_ERROR. A `msgspec.Raw` passes as it is."""
        if type(item) is msgspec.Raw:
            return bytes(item)
        try:
            return self.encode(item if self.any else self.check(item))
        except UNWRITABLE as error:
            raise unwritable(OUTPUT, error) from error

    def json_schema(self) -> dict[str, Any]:
        """The schema as JSON Schema 2020-12; a JSON Schema as it was declared. The caller's own copy."""
        return copy.deepcopy(self._document)

    def _with_params(self, data: bytes, filled: Mapping[str, object]) -> bytes:
        """The JSON object with the path parameters in place of its fields of their names."""
        try:
            members = _members.decode(data)
            tree = msgspec.json.decode(data)
        except msgspec.ValidationError:
            return data  # no object: reading it says what is wrong, unless it may be any JSON
        except UNREADABLE as error:
            raise not_json(error) from None
        rest = {name: member for name, member in tree.items() if name not in filled}
        kept = {name: raw for name, raw in members.items() if name not in filled}
        # The other fields keep their own text: numbers are read once, by the declared type.
        return ENCODER.encode({**kept, **self._coerced(rest, filled)})

    def __repr__(self) -> str:
        return f"<Schema {self.name}>"

    @abstractmethod
    def _read(self, data: bytes) -> T:
        """A value from JSON, strictly."""

    @abstractmethod
    def _read_query(self, tree: dict[str, object]) -> T:
        """A value from the strings of a query, arranged as the schema wants them."""

    @abstractmethod
    def _coerced(self, rest: Mapping[str, object], filled: Mapping[str, object]) -> Mapping[str, object]:
        """The path parameters as JSON values of their fields; `rest` are the other fields."""

    @abstractmethod
    def _plain(self, value: object) -> object:
        """The value with its first level, at least, as dicts, lists and the like."""

    @abstractmethod
    def _whole(self, item: object, code: str) -> T:
        """The item as a T, looked at in every part; else an error of this code."""
