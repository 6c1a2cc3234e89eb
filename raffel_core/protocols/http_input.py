"""What a call over HTTP brings: the query of its request, or a JSON body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raffel_core.errors import RaffelError
from raffel_core.route import Route
from raffel_core.session import Decode
from raffel_core.wire.http1 import Request

JSON = "application/json"
"""The content type of JSON."""


def decoder(request: Request, fields: Sequence[tuple[str, str]], params: Mapping[str, str]) -> Decode:
    """Reads the input of a call as its route wants it: the query of a GET, the JSON body of a POST."""
    if request.method == "GET":
        pairs = [(key, value) for key, value in fields if key != "lastEventId"]
        return lambda route: route.input.from_query(pairs, params)

    def decode(route: Route) -> Any:
        require_json(request)
        return route.input.decode(request.body, params)

    return decode


def require_json(request: Request) -> None:
    """Refuses a body of another type: one that a browser sends without a preflight, for one."""
    if request.body or "content-type" in request.headers:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != JSON and not (media.startswith("application/") and media.endswith("+json")):
            expected = "application/json or application/*+json"
            raise RaffelError("UNSUPPORTED_MEDIA_TYPE", f"found the content type {media[:100]!r}, expected {expected}")
