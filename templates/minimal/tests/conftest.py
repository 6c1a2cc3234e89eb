"""A real server with this project's routes, for all tests."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raffel_core import Config, create_server

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where the server is. It listens on a free port and runs in a thread of its own."""
    server = create_server(Config(host="127.0.0.1", port=0), root=PROJECT).routes("routes")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.url
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
