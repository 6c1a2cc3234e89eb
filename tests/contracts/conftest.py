"""What all scenarios share: a server, clients of the protocol that the scenario runs over, and a way to wait."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from raffel_core.config import Config
from raffel_core.server import Server

from .clients.call import PATIENCE, Carrier, Client

Build = Callable[..., Server]
Connect = Callable[[Server], Awaitable[Client]]
Stop = Callable[[Server], "asyncio.Task[None]"]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """A server on a free port, to be given routes and started: `build(limits={"message_bytes": 1000})`."""
    servers: list[Server] = []

    def new(*, development: bool = False, **options: Any) -> Server:
        settings = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.2, **options}
        server = Server(msgspec.convert(settings, Config), root=tmp_path, development=development)
        servers.append(server)
        return server

    yield new
    for server in servers:
        await server.stop()


@pytest.fixture
async def connect(carrier: Carrier, build: Build, serve: Callable[..., Awaitable[Server]]) -> AsyncIterator[Connect]:
    """A new client of a server, by the protocol that the scenario runs over. It leaves before any server stops."""
    clients: list[Client] = []

    async def open(server: Server) -> Client:
        client = await carrier.connect(server)
        clients.append(client)
        return client

    yield open
    for client in clients:
        await client.close()
    for _ in range(5):  # a server that has seen them leave has nobody to wait for
        await asyncio.sleep(0)


@pytest.fixture
async def stopping() -> AsyncIterator[Stop]:
    """Stops a server beside the scenario."""
    tasks: list[asyncio.Task[None]] = []

    def stop(server: Server) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(server.stop()))
        return tasks[-1]

    yield stop
    await asyncio.gather(*tasks)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that route files may import, where they and a scenario meet."""
    module = ModuleType("probe")
    monkeypatch.setitem(sys.modules, "probe", module)
    return module


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Coroutine[Any, Any, None]]:
    """Waits until something is true."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def stands_still() -> Callable[[Callable[[], int]], Coroutine[Any, Any, None]]:
    """Waits until a number that grows does so no more."""

    async def wait(number: Callable[[], int]) -> None:
        async with asyncio.timeout(PATIENCE):
            before = 0
            while before != (now := number()) or not now:
                before = now
                await asyncio.sleep(0.01)

    return wait
