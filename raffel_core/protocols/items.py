"""Items as bytes: what a pump of any protocol asks of a route."""

from __future__ import annotations

from typing import Any

from raffel_core.config import Config
from raffel_core.errors import RaffelError
from raffel_core.route import Route
from raffel_core.stream import RaffelStream


def unseen(route: Route) -> type | None:
    """The type whose items go to `route.output.encode` as they are; others are asked of `fits`, and then `dump`ed."""
    return route.output.exact if route.meta.check_output else route.output.trusted


def dump(route: Route, item: Any) -> bytes:
    """The JSON of any item; OUTPUT_VALIDATION_ERROR where it is not what the route promises."""
    output = route.output
    if not route.meta.check_output and output.trusted is not None and type(item) is output.trusted:
        return output.encode(item)
    return output.dump(item)


def as_bytes(item: Any) -> bytes:
    """An item of a route whose items are bytes; OUTPUT_VALIDATION_ERROR where it is none."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    message = f"Expected bytes, got {type(item).__name__}"
    raise RaffelError("OUTPUT_VALIDATION_ERROR", "an item is not bytes", details=[{"path": "", "message": message}])


def mark_of(items: object, route: Route, config: Config) -> int:
    """How many items may be queued while the connection cannot be written."""
    if isinstance(items, RaffelStream):
        return max(1, items.high_water_mark)
    return route.meta.high_water_mark or config.limits.high_water_mark
