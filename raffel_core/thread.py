"""Plain functions in threads: a handler that is a `def` never blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from raffel_core.errors import RaffelError

T = TypeVar("T")

LIMIT = 64
"""Plain handlers that run at once, in one process."""

PATIENCE = 10.0
"""Seconds that a call waits for one of them to end before it is refused."""

_END: Any = object()


class _Worker:
    """One thread that does what it is handed, one job at a time. A daemon: it never holds up the end of the process."""

    __slots__ = ("_jobs", "_thread")

    def __init__(self, number: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any], bool]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"raffel-plain-{number}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any], *, last: bool = False) -> asyncio.Future[Any]:
        """Has this done after what was submitted before. After the `last` job of a call the worker is free again."""
        future = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future, last))
        return future

    def _work(self) -> None:
        while True:
            self._next(*self._jobs.get())

    def _next(self, job: Callable[[], Any], future: asyncio.Future[Any], last: bool) -> None:
        _do(job, future, lambda: _pool.release(self) if last else None)


def _do(job: Callable[[], Any], future: asyncio.Future[Any], then: Callable[[], None]) -> None:
    result, error = None, None
    try:
        result = job()
    except BaseException as raised:  # whatever it is, it belongs to the call and not to this thread
        error = raised
    then()
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
        future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(error)


class _Pool:
    """At most LIMIT workers. A call keeps its worker until it ends, as what it opened may belong to that thread."""

    __slots__ = ("_idle", "_lock", "_started", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._started = 0
        self._waiting: deque[asyncio.Future[_Worker]] = deque()

    async def acquire(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._started < LIMIT:
                self._started += 1
                return _Worker(self._started)
            waiter: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
        try:
            async with asyncio.timeout(PATIENCE):
                return await waiter
        except BaseException as error:
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())  # it came in the same turn as the cancellation
            if isinstance(error, TimeoutError):
                message = f"{LIMIT} plain functions are running; an `async def` handler has no such limit"
                raise RaffelError("RESOURCE_EXHAUSTED", message) from None
            raise

    def release(self, worker: _Worker) -> None:
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                with contextlib.suppress(RuntimeError):  # its loop has closed
                    waiter.get_loop().call_soon_threadsafe(self._hand_over, waiter, worker)
                    return
            self._idle.append(worker)

    def _hand_over(self, waiter: asyncio.Future[_Worker], worker: _Worker) -> None:
        if waiter.done():
            self.release(worker)
        else:
            waiter.set_result(worker)

    def busy(self) -> int:
        """How many workers have a call."""
        return self._started - len(self._idle)


_pool = _Pool()
busy = _pool.busy


async def call(function: Callable[..., T], *args: Any) -> T:
    """Runs a plain function in a thread. A thread cannot be stopped: cancelled, this still waits for its return."""
    worker = await _pool.acquire()
    job: asyncio.Future[T] = worker.submit(_in_context(function, *args), last=True)
    return await _outcome(job)


async def alone(function: Callable[..., T], *args: Any) -> T:
    """Like `call`, in a thread made for this: what takes long and is no handler takes no handler's place."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    job = partial(_do, _in_context(function, *args), future, lambda: None)
    threading.Thread(target=job, name="raffel-alone", daemon=True).start()
    return await _outcome(future)


class PlainItems:
    """The items of a plain iterator, each step of which runs in one and the same thread.

    A cancelled step goes on in its thread; `aclose` waits for its `yield` and then closes the iterator there.
    """

    __slots__ = ("_iterator", "_make", "_run", "_worker")

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._run = contextvars.copy_context().run
        self._make: Callable[[], Iterable[Any]] | None = make
        self._iterator: Iterator[Any] | None = None
        self._worker: _Worker | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._make is None:
            raise StopAsyncIteration
        if self._worker is None:
            self._worker = await _pool.acquire()
        step = self._worker.submit(lambda: self._run(self._next))
        try:
            item = await asyncio.shield(step)
        except asyncio.CancelledError:
            step.add_done_callback(_seen)
            raise
        except BaseException:
            self._leave()
            raise
        if item is _END:
            self._leave()
            raise StopAsyncIteration
        return item

    def _next(self) -> Any:
        if self._iterator is None:
            if self._make is None:
                return _END  # closed before its first step began
            self._iterator = iter(self._make())
        return next(self._iterator, _END)

    def _leave(self) -> None:
        self._make = self._iterator = None
        if self._worker is not None:
            _pool.release(self._worker)
            self._worker = None

    async def aclose(self) -> None:
        worker, self._worker, self._make = self._worker, None, None
        if worker is not None:
            await _outcome(worker.submit(lambda: self._run(self._close), last=True))

    def _close(self) -> None:
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if close is not None:
            close()


class PlainInput:
    """The items that a client sends, for a plain handler: iterating waits in the handler's thread."""

    __slots__ = ("_items", "_loop")

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items
        self._loop = asyncio.get_running_loop()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = asyncio.run_coroutine_threadsafe(self._pull(), self._loop).result()
        if item is _END:
            raise StopIteration
        return item

    async def _pull(self) -> Any:
        return await anext(self._items, _END)


def _in_context(function: Callable[..., T], *args: Any) -> Callable[[], T]:
    context = contextvars.copy_context()
    return lambda: context.run(function, *args)


async def _outcome(job: asyncio.Future[T]) -> T:
    """What came of a job. Cancelled, this waits until the thread is done with it; cancelled again, it waits no more."""
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        job.add_done_callback(_seen)
        await asyncio.wait([job])
        raise


def _seen(job: asyncio.Future[Any]) -> None:
    """Looks at what was raised, so that it is not logged as never retrieved."""
    if not job.cancelled():
        job.exception()
