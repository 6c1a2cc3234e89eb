"""The schema of whatever was declared: each kind of declaration has its own module, loaded when it is met."""

from __future__ import annotations

import sys
from typing import Any

from raffel_core.schema.contract import Schema
from raffel_core.schema.typed import TypedSchema


def schema_of(declared: Any) -> Schema[Any]:
    """The schema of a msgspec type, a pydantic model or a JSON Schema; of None: any JSON. Else raises SchemaError."""
    if isinstance(declared, dict):
        from raffel_core.schema.document import DocumentSchema

        return DocumentSchema(declared)
    if _is_model(declared):
        from raffel_core.schema.model import ModelSchema

        return ModelSchema(declared)
    return TypedSchema(declared)


def _is_model(declared: Any) -> bool:
    # pydantic is optional and slow to import: a model exists only where it has been imported already.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(declared, type) and issubclass(declared, pydantic.BaseModel)
