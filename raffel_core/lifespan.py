"""What all routes share from a server's start to its end: the generator of `_app.py`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import cast

from raffel_core.context import App

log = logging.getLogger("raffel")

Lifespan = Callable[[App], AsyncIterator[None]]

_CANCEL_SECONDS = 0.1
"""How long a cleaning up that was cancelled is waited for."""


class RunningLifespan:
    """One lifespan between its setting up and its cleaning up.

    Both run in one task of its own, so that a task group or a context variable can be held across the `yield`.
    """

    __slots__ = ("_leave", "_task", "lifespan")

    def __init__(self, lifespan: Lifespan) -> None:
        self.lifespan = lifespan
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, app: App) -> None:
        """Returns once the lifespan has yielded; raises what it raised instead."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        task = self._task = loop.create_task(self._run(app, ready))
        try:
            await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if not ready.done():
            await task
        task.add_done_callback(self._log_failure)

    async def stop(self, seconds: float) -> None:
        """Lets it clean up; raises what it raised. After so many seconds it is cancelled, which is a TimeoutError.

        One that failed before has been logged and has nothing to clean up.
        """
        task = self._task
        if task is None or task.done():
            return
        self._leave.set()
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_SECONDS)
            raise TimeoutError
        task.result()

    async def _run(self, app: App, ready: asyncio.Future[None]) -> None:
        # Discovery lets nothing but an async generator pass.
        generator = cast("AsyncGenerator[None, None]", self.lifespan(app))
        try:
            await anext(generator)
        except StopAsyncIteration:
            raise RuntimeError("`lifespan` ended without a `yield`") from None
        ready.set_result(None)
        try:
            await self._leave.wait()
        except asyncio.CancelledError as cancelled:
            rest = generator.athrow(cancelled)  # so that a task group which it holds can say what failed
        else:
            rest = anext(generator)
        try:
            await rest
        except StopAsyncIteration:
            return
        await generator.aclose()
        raise RuntimeError("`lifespan` yielded a second time")

    def _log_failure(self, task: asyncio.Task[None]) -> None:
        if not self._leave.is_set() and not task.cancelled():
            log.error("`lifespan` failed while the server was running", exc_info=task.exception())
