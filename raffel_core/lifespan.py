"""What all routes share from a server's start to its end: the generator of `_app.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from raffel_core.context import App

Lifespan = Callable[[App], AsyncIterator[None]]


class RunningLifespan:
    """One lifespan between its setting up and its cleaning up.

    Both run in one task of its own, so that a task group or a context variable can be held across the `yield`.
    """

    __slots__ = ("_leave", "_task")

    def __init__(self) -> None:
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, lifespan: Lifespan, app: App) -> None:
        """Returns once `lifespan` has yielded; raises what it raised instead."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._task = asyncio.create_task(self._run(lifespan, app, ready))
        try:
            await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if not ready.done():
            await task

    async def stop(self) -> None:
        """Lets it clean up; raises what it raised. Cancelled, it cancels the cleaning up."""
        self._leave.set()
        if self._task is not None:
            await self._task

    async def _run(self, lifespan: Lifespan, app: App, ready: asyncio.Future[None]) -> None:
        generator = lifespan(app)
        try:
            await anext(generator)
        except StopAsyncIteration:
            raise RuntimeError("`lifespan` ended without a `yield`") from None
        ready.set_result(None)
        await self._leave.wait()
        try:
            await anext(generator)
        except StopAsyncIteration:
            return
        raise RuntimeError("`lifespan` yielded a second time")
