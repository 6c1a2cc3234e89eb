"""The Autobahn TestSuite against our framing, as an echo: the real connection in all but what a message does."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest
from kosoku import FailureError, run_fuzzingclient

from raffel_core.config import Config, Limits
from raffel_core.context import App
from raffel_core.protocols.connection import Hub
from raffel_core.protocols.http import Http
from raffel_core.protocols.listener import BACKLOG, Listener, Served, listening_socket
from raffel_core.protocols.websocket import WebSocketConnection
from raffel_core.router import Router

LARGEST = 16 * 1024 * 1024
"""Bytes of the suite's largest message."""

AT_ONCE = 16
"""Cases side by side: most of them wait for a second, to see that nothing comes."""

COMPRESSION = ["12.*", "13.*"]


class Echo(WebSocketConnection):
    """Says what it hears."""

    __slots__ = ()

    def message(self, data: bytes, *, text: bool) -> None:
        self.send_frame(self.frame(not text)(len(data)) + data)

    def messages(self, texts: list[bytes]) -> int:
        for text in texts:
            self.message(text, text=True)
        return len(texts)


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """The URL of an echo on a port of its own."""
    config = Config(limits=Limits(message_bytes=LARGEST))
    hub = Hub(config, Router([]), App())
    http = Http(hub, {"/echo": Echo})
    sock = listening_socket("127.0.0.1", 0, config.limits)
    listener = await hub.loop.create_server(
        functools.partial(Listener, hub, Served(http.connection)), sock=sock, backlog=BACKLOG
    )
    yield f"ws://127.0.0.1:{sock.getsockname()[1]}/echo"
    listener.close()
    for connection in list(hub.connections):
        connection.abort()
    while hub.connections:
        await asyncio.sleep(0.001)


async def test_every_case_without_compression_passes(echo: str) -> None:
    results = await run_fuzzingclient(echo, exclude_cases=COMPRESSION, concurrency=AT_ONCE)
    assert len(results) > 300


@pytest.mark.filterwarnings("ignore:unclosed file .*kosoku:ResourceWarning")  # its own test data
async def test_compression_is_not_negotiated(echo: str) -> None:
    with pytest.raises(FailureError) as raised:
        await run_fuzzingclient(echo, COMPRESSION, concurrency=AT_ONCE)
    assert {result.behavior.value for result in raised.value.results} == {"UNIMPLEMENTED"}
