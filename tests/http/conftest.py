"""The clients of these tests: httpx, curl, and a bare socket where the wire itself is the question."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest

from raffel_core.server import Server

PATIENCE = 5.0
"""Seconds after which a client gives up. No test waits for it unless something is wrong."""


class Answer(NamedTuple):
    """One answer as it came over a bare socket."""

    status: int
    headers: dict[str, str]
    """Keys in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A bare connection: what is sent is sent so, what is read is what came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError once the server has closed."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the server has closed")
        self._writer.write(data)
        await self._writer.drain()

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(size)

    async def until(self, mark: bytes) -> bytes:
        """What comes up to this mark, and the mark."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readuntil(mark)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        data = bytearray()
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                while piece := await self._reader.read(65536):
                    data += piece
        return bytes(data)

    async def head(self) -> Answer:
        """A status line and headers."""
        status, *lines = (await self.until(b"\r\n\r\n")).decode("latin-1").splitlines()[:-1]
        pairs = (line.partition(": ") for line in lines)
        return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, b"")

    async def chunk(self) -> bytes:
        """One chunk of a chunked body; b"" is its end."""
        size = int(await self.until(b"\r\n"), 16)
        return (await self.exactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        """A whole answer."""
        answer = await self.head()
        if answer.headers.get("transfer-encoding") == "chunked":
            body = b""
            while piece := await self.chunk():
                body += piece
        else:
            body = await self.exactly(int(answer.headers.get("content-length", "0")))
        return answer._replace(body=body)

    async def close(self) -> None:
        """Says that nothing more will be sent or read, once what was sent is on its way."""
        self._writer.close()
        await self._closed()

    async def abort(self) -> None:
        """Closes, whatever waits to be sent."""
        self._writer.transport.abort()
        await self._closed()

    async def _closed(self) -> None:
        with contextlib.suppress(OSError):  # the server was first
            async with asyncio.timeout(PATIENCE):
                await self._writer.wait_closed()


async def noticed() -> None:
    """Lets a server see that its clients have left: one that is stopped then has nobody to wait for."""
    for _ in range(5):
        await asyncio.sleep(0)


Connect = Callable[..., Awaitable[Wire]]
Client = Callable[..., httpx.AsyncClient]
Curl = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens a bare connection: `await connect(server)`."""
    opened: list[Wire] = []

    async def open(server: Server, tls: ssl.SSLContext | None = None) -> Wire:
        options: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": "localhost"}
        wire = Wire(*await asyncio.open_connection("127.0.0.1", server.port, **options))
        opened.append(wire)
        return wire

    yield open
    for wire in opened:
        await wire.abort()
    await noticed()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """An httpx client of a server, whatever the environment says of proxies."""
    opened: list[httpx.AsyncClient] = []

    def open(server: Server, **options: Any) -> httpx.AsyncClient:
        # Without TLS there is nothing to verify, and the certificates of the world take long to load.
        options = {"verify": False, "trust_env": False, "timeout": PATIENCE, **options}
        http = httpx.AsyncClient(base_url=server.url, **options)
        opened.append(http)
        return http

    yield open
    for http in opened:
        await http.aclose()
    await noticed()


@pytest.fixture
def curl() -> Curl:
    """Runs curl and returns what it wrote: `await curl("-i", url)`."""

    async def run(*arguments: str, input: bytes = b"") -> bytes:
        process = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(PATIENCE), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await process.communicate(input)
        assert process.returncode == 0, complaint
        return output

    return run


@pytest.fixture
def state() -> Iterator[Callable[[Server], SimpleNamespace]]:
    """What a server's handlers see as `ctx.app.state`: where they and a test meet."""
    yield lambda server: server._hub.app.state


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until something is true."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    return wait
