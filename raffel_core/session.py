"""A session: one call from its opening to its end, with whatever may end it early."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from raffel_core.context import App, Context, Outcome
from raffel_core.errors import RaffelError
from raffel_core.route import Route
from raffel_core.stream import RaffelStream

log = logging.getLogger("raffel")

Decode = Callable[[Route], Any]
"""Reads the call's input as a route's schema wants it; raises RaffelError. A reload asks again, with the new route."""

Pump = Callable[[Any], Awaitable[None]]
"""Takes what the handler gave (an iterator of items, or a result) to the client."""

REASONS = {
    "client_cancelled": ("CANCELLED", "cancelled by the client"),
    "client_disconnected": ("CANCELLED", "the client is gone"),
    "deadline_exceeded": ("DEADLINE_EXCEEDED", "the deadline has passed"),
    "slow_consumer": ("RESOURCE_EXHAUSTED", "the client has stopped reading"),
    "handler_stalled": ("RESOURCE_EXHAUSTED", "the handler has stopped reading"),
    "credit_exceeded": ("RESOURCE_EXHAUSTED", "the client has sent more items than it was granted"),
    "server_draining": ("UNAVAILABLE", "the server is shutting down"),
    "reloaded": ("UNAVAILABLE", "the route was replaced by a reload"),
}
"""Why a call ended early: the code and the text that its client gets."""

OK = Outcome()


class _Phase(Enum):
    NEW = 1
    RUNNING = 2
    CLOSING = 3
    OVER = 4


class Session:
    """One call. Its protocol awaits `run` in a task of its own; everybody else only calls `cancel` and `restart`.

    The order of the opening is authentication, input, interceptors, handler. The handler's `finally` blocks and then
    the `on_close` callbacks have run when `run` returns.
    """

    __slots__ = (
        "_decode",
        "_phase",
        "_reason",
        "_successor",
        "_task",
        "_timer",
        "ctx",
        "inbound",
        "interrupted",
        "last_event_id",
        "route",
    )

    def __init__(self, route: Route, ctx: Context, decode: Decode, *, inbound: RaffelStream[Any] | None = None) -> None:
        self.route = route
        self.ctx = ctx
        self.inbound = inbound
        """What a client or bidi handler reads; None for the other kinds."""
        self.last_event_id = ctx.last_event_id
        """The id of the last item sent: the pump keeps it, a restart resumes after it."""
        self._decode = decode
        self._phase = _Phase.NEW
        self._task: asyncio.Task[Any] | None = None
        self._reason: str | None = None
        self.interrupted = False
        """Whether the handler has been cancelled: a pump takes nothing more of one that goes on nevertheless."""
        self._successor: tuple[Route, App] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def reason(self) -> str | None:
        """What ends this session early; None while nothing does."""
        return self._reason

    @property
    def over(self) -> bool:
        return self._phase is _Phase.OVER

    def cancel(self, reason: str) -> None:
        """Ends the call for one of REASONS. The first reason stays; without effect once the call has ended."""
        if self._reason is not None or self._phase is _Phase.OVER:
            return
        if self._phase is _Phase.CLOSING and self._successor is None:
            return  # it has ended by itself and is only cleaning up
        self._reason = reason
        self._successor = None
        self.ctx.signal.abort(reason)
        if self.inbound is not None:
            self.inbound.cancel(reason)
        self._interrupt()

    def restart(self, route: Route, app: App) -> None:
        """Ends the handler and opens the call again on another route, in place: the client sees only items."""
        if self._reason is not None or self._phase is _Phase.OVER:
            return
        if self._phase is _Phase.CLOSING and self._successor is None:
            return
        self._successor = (route, app)
        self.ctx.signal.abort("reloaded")
        self._interrupt()

    def _interrupt(self) -> None:
        # A task that has not started would lose the cancellation, and its end with it: `run` looks before it opens.
        # One that cleans up must not be disturbed: what happened meanwhile is looked at when it is done.
        if self._phase is _Phase.RUNNING and not self.interrupted and self._task is not None:
            self.interrupted = True
            self._task.cancel()

    def set_deadline(self, seconds: float | None) -> None:
        """Lets the call end after this time, or after the route's own deadline where that is sooner."""
        own = self.route.meta.deadline
        if seconds is None or (own is not None and own < seconds):
            seconds = own
        if seconds is not None:
            self.ctx.deadline = time.monotonic() + seconds
            self._timer = asyncio.get_running_loop().call_later(seconds, self.cancel, "deadline_exceeded")

    async def run(self, pump: Pump) -> Outcome:
        """Opens the call, gives what the handler returned to `pump`, closes it and says how it ended.

        Raises CancelledError only where somebody else cancelled the task; the handler has been closed then too.
        """
        self._task = asyncio.current_task()
        try:
            while True:
                outcome = await self._attempt(pump)
                await self.ctx.close(outcome)
                if self._successor is None:
                    # Something else may have ended it while the handler made room for its successor.
                    return outcome if self._reason is None else self._outcome(None)
                self._succeed(*self._successor)
        finally:
            self._phase = _Phase.OVER
            self._task = None
            if self._timer is not None:
                self._timer.cancel()
            if self.inbound is not None:
                self.inbound.cancel(self._reason)

    def _succeed(self, route: Route, app: App) -> None:
        self._successor = None
        self.route = route
        self.ctx = self.ctx.successor(app, self.last_event_id)

    async def _attempt(self, pump: Pump) -> Outcome:
        """One opening, its items, its closing."""
        opened: Any = None
        caught: BaseException | None = None
        self._phase = _Phase.RUNNING
        try:
            if self._reason is None and self._successor is None:
                opened = await self._open()
                await pump(opened)
        except asyncio.CancelledError as error:
            if self.interrupted:
                caught = error
            elif self._task is not None and self._task.cancelling():
                self.cancel("client_disconnected")
                raise
            else:
                caught = _unasked(error)
        except (Exception, GeneratorExit, SystemExit) as error:
            caught = error
        finally:
            self._phase = _Phase.CLOSING
            if self.interrupted:
                await self._absorb(caught)
            await close_items(opened, self.ctx, self._reason)
        return self._outcome(caught)

    async def _open(self) -> Any:
        route, ctx = self.route, self.ctx
        if route.authenticate is not None:
            await route.admit(ctx)
        try:
            ctx.input = self._decode(route)
        except RaffelError:
            if ctx.restarted:
                self.cancel("reloaded")
            raise
        opened = route.start(ctx.input if self.inbound is None else self.inbound, ctx)
        return await opened if route.awaits else opened

    async def _absorb(self, caught: BaseException | None) -> None:
        """Takes back the cancellation that this session asked for, delivered or not."""
        if not isinstance(caught, asyncio.CancelledError):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # it may still be on its way
        self.interrupted = False
        if self._task is not None:
            self._task.uncancel()

    def _outcome(self, caught: BaseException | None) -> Outcome:
        reason = self._reason or (None if self._successor is None else "reloaded")
        error = None if caught is None or isinstance(caught, asyncio.CancelledError) else failure(caught, self.ctx)
        if reason is not None:
            return ended_early(reason)
        if error is not None:
            return Outcome(error.code, None, error)
        return OK


def _unasked(error: asyncio.CancelledError) -> RuntimeError:
    """A cancellation of the handler's own: of a task that it awaited, for one. It is as unforeseen as any exception."""
    unforeseen = RuntimeError("the handler raised CancelledError, and nobody had cancelled it")
    unforeseen.__cause__ = error
    return unforeseen


def ended_early(reason: str) -> Outcome:
    """How a call ended that one of REASONS ended."""
    code, message = REASONS[reason]
    return Outcome(code, reason, RaffelError(code, message, details={"reason": reason}))


async def close_items(opened: Any, ctx: Context, reason: str | None) -> None:
    """Closes what a handler returned, and the handler's own iterator below what interceptors made of it."""
    for items in (opened, ctx.opened):
        if isinstance(items, RaffelStream):
            items.cancel(reason)
        elif hasattr(items, "aclose"):
            try:
                await items.aclose()
            except Exception as error:
                failure(error, ctx)
    ctx.opened = None


def failure(error: BaseException, ctx: Context) -> RaffelError:
    """What a client may know of an exception. One that nobody foresaw goes to the log with the request's id."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, RaffelError):
        return error
    log.error(
        "unexpected %s in %s",
        type(error).__name__,
        ctx.route,
        exc_info=error,
        extra={"request": ctx.request_id, "route": ctx.route},
    )
    details: dict[str, Any] = {"request_id": ctx.request_id}
    if ctx.app.debug:
        details["error"] = f"{type(error).__name__}: {error}"
        details["traceback"] = traceback.format_exception(error)
    return RaffelError("INTERNAL_ERROR", "an unexpected error; the log of the server has it", details=details)


def timeout_seconds(text: str | None) -> float | None:
    """The `timeout-ms` of a call in seconds. Anything but a positive integer is INVALID_ARGUMENT."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) > 0):
        raise RaffelError("INVALID_ARGUMENT", f"timeout-ms: found {text[:40]!r}, expected a positive integer")
    return int(text) / 1000
