"""Schemas from pydantic models. Only this module imports pydantic, which is optional."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Mapping

import msgspec
from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, core_schema, to_json

from raffel_core.errors import RaffelError
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


class ModelSchema(Schema[BaseModel]):
    """The schema of one pydantic model. Its JSON is pydantic's own, by alias."""

    def __init__(self, declared: type[BaseModel]) -> None:
        adapter = TypeAdapter(declared)
        try:
            document = adapter.json_schema()
        except (PydanticUserError, NameError) as error:
            reason = str(error).splitlines()[0]
            raise SchemaError(f"{declared.__name__} has no JSON Schema: {reason}") from error
        super().__init__(
            declared,
            declared.__name__,
            document,
            fits=_ask,
            encode=functools.partial(adapter.dump_json, by_alias=True, warnings=False),
            trusted=declared,
        )
        self._model = declared
        self._adapter = adapter
        # Its own bytes are read back as they are written here, whatever the model makes of them in JSON.
        self._write = functools.partial(
            to_json, inf_nan_mode="strings", bytes_mode=declared.model_config.get("val_json_bytes", "utf8")
        )

    def _read(self, data: bytes) -> BaseModel:
        try:
            msgspec.json.decode(data)  # pydantic would take NaN for JSON
        except msgspec.ValidationError as error:
            raise invalid(INPUT, [msgspec_fault(INPUT, error)]) from error
        except UNREADABLE as error:
            raise not_json(error) from None
        try:
            return self._adapter.validate_json(data, strict=True)
        except ValidationError as error:
            raise _refusal(INPUT, error) from error

    def _read_query(self, tree: Mapping[str, object]) -> BaseModel:
        try:
            return self._adapter.validate_json(ENCODER.encode(self._query.coerced(tree)), strict=True)
        except ValidationError as error:
            raise _refusal(INPUT, error) from error

    def _coerced(self, rest: Mapping[str, object], filled: Mapping[str, object]) -> Mapping[str, object]:
        return self._query.coerced(filled)

    def _plain(self, value: object) -> object:
        return _fields(value)

    def _whole(self, item: object, code: str) -> BaseModel:
        try:
            data = bytes(item) if isinstance(item, msgspec.Raw) else self._write(_fields(item))
            value = self._adapter.validate_json(data, strict=True, by_alias=True, by_name=True)
            if not isinstance(item, self._model):
                return value
            # What reads back well may still be of another type: the text of a date for a date.
            self._adapter.dump_json(item, warnings="error")
            return item
        except ValidationError as error:
            raise _refusal(code, error) from error
        except PydanticSerializationError as error:
            raise invalid(code, [_mismatch(error)]) from error
        except UNWRITABLE as error:
            raise unwritable(code, error) from error


def _ask(item: object) -> bool:
    # What a model's validators think of an item only they know.
    return False


def _fields(value: object) -> object:
    """The value with models and dataclasses as the dicts of their fields, past the serialisers that models may have."""
    match value:
        case RootModel():
            return _fields(value.root)
        case BaseModel():
            return {name: _fields(member) for name, member in (vars(value) | (value.model_extra or {})).items()}
        case dict():
            return {key: _fields(member) for key, member in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_fields(member) for member in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: _fields(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


_KNOWN = frozenset(typing.get_args(core_schema.ErrorType))
_QUOTING = frozenset({"value_error", "assertion_error", "union_tag_invalid", "get_attribute_error", "iteration_error"})
"""Errors whose text holds words of the value or of its validator."""


def _refusal(code: str, error: ValidationError) -> RaffelError:
    faults = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        kind, message = one["type"], one["msg"]
        if kind == "json_invalid":
            return RaffelError("PARSE_ERROR", f"not JSON that can be read: {message}")
        if code != INPUT and (kind not in _KNOWN or kind in _QUOTING or kind.endswith("_parsing")):
            message = "Invalid value"
        faults.append(Fault(path_of(one["loc"]), message))
    return invalid(code, faults)


def _mismatch(error: PydanticSerializationError) -> Fault:
    text = str(error)
    expected, found = re.search(r"Expected `([^`]*)`", text), re.search(r"input_type=(\w+)\]", text)
    field = re.search(r"\[field_name='([^']*)'", text)
    if expected is None or found is None:
        return Fault("", "Expected what JSON can hold")
    return Fault(field[1] if field is not None else "", f"Expected {expected[1]}, got {found[1]}")
