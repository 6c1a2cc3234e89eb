"""What the connections of every framing need of their transport."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

JOINED = 65536


class Connection(asyncio.Protocol):
    """A transport, whether it can be written, and the streams that write to it."""

    __slots__ = ("streams", "transport", "writable")

    def __init__(self) -> None:
        self.streams: set[asyncio.Task[None]] = set()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without being a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self.streams:
            stream.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def run(self, stream: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(stream)
        self.streams.add(task)
        task.add_done_callback(self.streams.discard)
