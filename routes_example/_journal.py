"""A journal in memory: the newest entries, each with an id that a client can come back with."""

import asyncio
import os
import time
from collections import deque
from datetime import UTC, datetime

from msgspec import Struct


class Sample(Struct, tag="sample"):
    """One entry: how busy the machine and this server were."""

    at: datetime
    load: float
    server_cpu_seconds: float


def sample() -> Sample:
    return Sample(datetime.now(UTC), round(os.getloadavg()[0], 2), time.process_time())


class Journal:
    """Keeps the newest `limit` entries, numbered from 1. An id is the journal's name and a number: `1f2e3d4c-17`."""

    def __init__(self, limit: int) -> None:
        self.newest = 0
        self._name = os.urandom(4).hex()
        self._entries: deque[Sample] = deque(maxlen=limit)
        self._grown = asyncio.Event()

    def append(self, entry: Sample) -> None:
        self._entries.append(entry)
        self.newest += 1
        self._grown.set()  # wakes everybody who waits
        self._grown.clear()

    def id(self, number: int) -> str:
        return f"{self._name}-{number}"

    def number(self, id: str) -> int:
        """The number of an id; -1 for one of another journal, that of the server before its restart."""
        name, _, digits = id.partition("-")
        try:
            number = int(digits)
        except ValueError:
            return -1
        return number if name == self._name and 0 <= number <= self.newest else -1

    async def after(self, number: int) -> tuple[int, Sample]:
        """The first entry after this one that is still kept, and its number; waits for it to be written."""
        while number >= self.newest:
            await self._grown.wait()
        oldest = self.newest - len(self._entries) + 1
        found = max(number + 1, oldest)
        return found, self._entries[found - oldest]
