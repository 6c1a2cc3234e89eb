"""Interceptors: functions around the opening of a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from raffel_core.context import Context

if TYPE_CHECKING:
    from raffel_core.route import Route


class Call:
    """One opening: the route, the context and the checked input. An interceptor may replace `input`."""

    __slots__ = ("ctx", "input", "route")

    def __init__(self, route: Route, ctx: Context, input: Any) -> None:
        self.route = route
        self.ctx = ctx
        self.input = input


Next: TypeAlias = Callable[[Call], Awaitable[Any]]


class Interceptor(Protocol):
    """`async def interceptor(call, call_next)`: returns what `call_next(call)` returned, or another of its kind.

    That is the iterator of items (server, bidi) or the result (procedure, client). Raising refuses the call. Who
    needs no items returns the iterator as it is, and costs nothing per item.
    """

    def __call__(self, call: Call, call_next: Next, /) -> Awaitable[Any]: ...


def compose(interceptors: Sequence[Interceptor], innermost: Next) -> Next:
    """One function that runs the interceptors from the first to the last and then `innermost`."""
    chain = innermost
    for interceptor in reversed(interceptors):
        chain = _link(interceptor, chain)
    return chain


def _link(interceptor: Interceptor, call_next: Next) -> Next:
    def link(call: Call) -> Awaitable[Any]:
        return interceptor(call, call_next)

    return link
