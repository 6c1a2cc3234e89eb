"""Routes defined in code: the chain and the decorator behind `server.stream` and `server.procedure`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from raffel_core.discovery.scan import shown
from raffel_core.errors import Problem
from raffel_core.interceptor import Interceptor
from raffel_core.pattern import IllegalName, parse_name
from raffel_core.route import Origin, Route, make_route

F = TypeVar("F", bound=Callable[..., Any])


class RouteBuilder:
    """One route in the making. It is complete with its handler: `.handler(fn)`, or as a decorator.

    Problems are not raised here: the server reports them all together when it loads.
    """

    __slots__ = ("_handler", "_input", "_interceptors", "_meta", "_name", "_origin", "_output", "_procedure")

    def __init__(self, name: str, meta: dict[str, Any], *, procedure: bool, depth: int = 2) -> None:
        frame = sys._getframe(depth)
        self._name = name
        self._meta = meta
        self._procedure = procedure
        self._origin = Origin(shown(Path(frame.f_code.co_filename)), {"": frame.f_lineno, "handler": frame.f_lineno})
        self._input: Any = None
        self._output: Any = None
        self._interceptors: list[Interceptor] = []
        self._handler: Any = None

    def input(self, schema: Any) -> Self:
        """What the input must look like; for a client or bidi stream, each item that comes in."""
        self._input = schema
        return self

    def output(self, schema: Any) -> Self:
        """What each item, or the result, must look like."""
        self._output = schema
        return self

    def description(self, text: str) -> Self:
        self._meta["description"] = text
        return self

    def direction(self, kind: str) -> Self:
        """`server`, `client` or `bidi`."""
        self._meta["direction"] = kind
        return self

    def priority(self, priority: int) -> Self:
        self._meta["priority"] = priority
        return self

    def use(self, *interceptors: Interceptor) -> Self:
        """Adds interceptors, inside of the server's own."""
        self._interceptors.extend(interceptors)
        return self

    def handler(self, function: F) -> F:
        """Completes the route and returns the function as it was."""
        self._handler = function
        return function

    __call__ = handler

    def build(self, outer: list[Interceptor]) -> tuple[Route | None, list[Problem]]:
        """The route with the server's interceptors around its own, or all that is wrong with it."""
        try:
            parse_name(self._name)
        except IllegalName as error:
            return None, [self._origin.problem("", f"{self._name!r}: {error.found}", error.expected)]
        return make_route(
            self._name,
            self._handler,
            origin=self._origin,
            procedure=self._procedure,
            meta=self._meta,
            input_schema=self._input,
            output_schema=self._output,
            interceptors=self._interceptors,
            outer=outer,
            description=(getattr(self._handler, "__doc__", None) or "").strip(),
        )
