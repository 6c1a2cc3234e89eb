"""What all tests share: a real server on a real port, and nothing left running after a test."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from raffel_core.config import Config
from raffel_core.server import Server

Serve = Callable[..., Awaitable[Server]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that servers run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def no_task_is_left(request: pytest.FixtureRequest) -> None:
    """A test that leaves a task running fails."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("watched_tasks")


@pytest.fixture
async def watched_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(100):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"tasks are left: {left}")


@pytest.fixture
def project(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Writes files below a new project's root, dedented; a file whose text is None is removed."""

    def write(files: Mapping[str, str | None]) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                file.unlink()
            else:
                file.write_text(textwrap.dedent(text))
        return tmp_path

    return write


@pytest.fixture
async def serve(project: Callable[[Mapping[str, str]], Path]) -> AsyncIterator[Serve]:
    """Starts a server on a free port: `await serve({"ticks.stream.py": source}, limits={...})`."""
    servers: list[Server] = []

    async def start(files: Mapping[str, str] | None = None, *, development: bool = False, **options: Any) -> Server:
        root = project({f"routes/{name}": text for name, text in (files or {}).items()})
        (root / "routes").mkdir(exist_ok=True)
        settings = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.2, **options}
        server = Server(msgspec.convert(settings, Config), root=root, development=development)
        server.routes("routes")
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()
