"""The registry: routes by name while a server is being built, from files and from code."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from raffel_core.conflict import RESERVED, Entry, conflicts
from raffel_core.errors import Problem
from raffel_core.route import Kind, Route
from raffel_core.router import Router


class Registry:
    """Collects routes; `problems` are their conflicts, `router` is what the server answers with."""

    __slots__ = ("_routes",)

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._routes = list(routes)

    def add(self, route: Route) -> None:
        self._routes.append(route)

    def problems(self, reserved: Collection[str] = RESERVED) -> list[Problem]:
        """Every pair of routes that cannot stand side by side; each names both places."""
        return conflicts([_entry(route) for route in self._routes], reserved)

    def router(self) -> Router:
        """The routes, frozen. There must be no `problems`."""
        return Router(self._routes)


def _entry(route: Route) -> Entry:
    line = route.origin.lines.get("", 1)  # of a file the name is its path, so the line is the first
    return Entry(route.name, route.segments, f"{route.origin.file}:{line}", route.kind is Kind.UNARY)
