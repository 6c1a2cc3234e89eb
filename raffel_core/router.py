"""The router: from a requested name to its route; immutable, so that a reload swaps one reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from raffel_core.context import Context, Event, Outcome
from raffel_core.errors import NoSuchRoute, RaffelError
from raffel_core.matcher import Explanation, Match, Matcher
from raffel_core.route import Kind, Route
from raffel_core.session import OK, close_items, ended_early, failure


class Router:
    """The routes of a server at one time."""

    __slots__ = ("_matcher", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        ordered = sorted(routes, key=lambda route: route.name)
        self.routes: Mapping[str, Route] = {route.name: route for route in ordered}
        self._matcher = Matcher((route.segments, route) for route in ordered)

    def find(self, name: str) -> Match[Route]:
        """The route of a name as it stands in an envelope, `a.b` or `a/b`; NOT_FOUND where there is none."""
        match = self._matcher.find(name)
        if match is None:
            raise self._not_found(name)
        return match

    def find_path(self, path: str) -> Match[Route]:
        """The route of a name out of a URL, still percent-encoded."""
        match = self._matcher.find_path(path)
        if match is None:
            raise self._not_found(path)
        return match

    def explain(self, name: str) -> Explanation[Route]:
        return self._matcher.explain(name)

    def _not_found(self, name: str) -> NoSuchRoute:
        return NoSuchRoute(f"no such route: {name[:200]!r}")


class InProcess:
    """Calls from one handler to another route, without a protocol in between."""

    __slots__ = ("_router",)

    def __init__(self, router: Callable[[], Router]) -> None:
        self._router = router

    async def call(self, name: str, input: Any, parent: Context) -> Any:
        route, ctx = self._context(name, parent, Kind.UNARY)
        outcome = OK
        try:
            result = await self._open(route, ctx, input)
            return route.output.check(result) if route.meta.check_output else result
        except asyncio.CancelledError:
            outcome = _cancelled(parent)
            raise
        except Exception as error:
            known = failure(error, ctx)
            outcome = Outcome(known.code, None, known)
            raise known from (None if known is error else error)
        finally:
            await ctx.close(outcome)

    async def stream(self, name: str, input: Any, parent: Context) -> AsyncIterator[Any]:
        route, ctx = self._context(name, parent, Kind.SERVER)
        outcome, items = OK, None
        try:
            items = await self._open(route, ctx, input)
            async for item in items:
                yield _checked(item, route) if route.meta.check_output else item
        except (asyncio.CancelledError, GeneratorExit):
            outcome = _cancelled(parent)
            raise
        except Exception as error:
            known = failure(error, ctx)
            outcome = Outcome(known.code, None, known)
            raise known from (None if known is error else error)
        finally:
            await close_items(items, ctx, parent.signal.reason)
            await ctx.close(outcome)

    def _context(self, name: str, parent: Context, kind: Kind) -> tuple[Route, Context]:
        route, params = self._router().find(name)
        if route.kind is not kind:
            raise RaffelError("UNIMPLEMENTED", f"{route.name} is of kind {route.kind}, expected {kind}")
        return route, parent.child(route.name, params)

    async def _open(self, route: Route, ctx: Context, input: Any) -> Any:
        await route.admit(ctx)
        ctx.input = route.input.convert({} if input is None else input, ctx.params)
        opened = route.start(ctx.input, ctx)
        return await opened if route.awaits else opened


def _checked(item: Any, route: Route) -> Any:
    if isinstance(item, Event):
        return Event(route.output.check(item.data), item.id, item.event, item.retry)
    return route.output.check(item)


def _cancelled(parent: Context) -> Outcome:
    """How a call ended whose caller was cancelled or has left it."""
    reason = parent.signal.reason
    return Outcome("CANCELLED") if reason is None else ended_early(reason)
