"""A method of gRPC: a route, its path, and how its messages are read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raffel_core.route import Route

Params = Callable[[bytes], Mapping[str, str]]


class Method:
    """One route as gRPC has it. Never changes once it is made: a reload that changes its messages makes another."""

    __slots__ = ("decode", "encode", "item_type", "params", "path", "request", "response", "route", "tag_event_id")

    def __init__(
        self,
        path: str,
        route: Route,
        *,
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
        params: Params | None = None,
        request: bytes = b"",
        response: bytes = b"",
        item_type: type | None = None,
        tag_event_id: Callable[[str], bytes] | None = None,
    ) -> None:
        self.path = path
        """`/market.Prices/Watch`."""
        self.route = route
        self.decode = decode
        """A request message as the route's input schema wants it, checked whole.

        Raises PARSE_ERROR for bytes that are no such message, VALIDATION_ERROR for one that does not fit.
        """
        self.params = params
        """The parameters in a request message, as strings, {} for bytes that are none; None: the route has none."""
        self.encode = encode
        """A message of an item that is of the declared type.

        Raises OUTPUT_VALIDATION_ERROR for an int beyond 64 bits, and what the JSON encoder may raise too.
        """
        self.item_type = item_type
        """The class of items that go to `encode` unchecked, where the schema of the route does not say it."""
        self.tag_event_id = tag_event_id
        """What is appended to a message to give it this id; None: the response message has no field for one."""
        self.request = request
        """Equal for methods whose request messages are the same on the wire."""
        self.response = response
        """The same of the response messages."""

    def __repr__(self) -> str:
        return f"<Method {self.path} {self.route.kind}>"
