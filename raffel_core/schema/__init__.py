"""Schemas: what a route's input and items must be, declared as a msgspec type, a pydantic model or a JSON Schema."""

from raffel_core.schema.contract import Schema, SchemaError
from raffel_core.schema.declared import schema_of

__all__ = ["Schema", "SchemaError", "schema_of"]
