"""What these tests share: a server built in code, and a peer that stops reading, vanishes, or says half of it."""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest

from raffel_core.config import Config
from raffel_core.server import Server

PATIENCE = 10.0
"""Seconds after which a test gives up. None waits for it unless something is wrong."""


class Cut(Exception):
    """The connection ended in the middle of a body."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    """Keys in lower case."""
    body: bytes

    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


class Peer:
    """One connection over a bare socket, read only when a test says so."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._raw = bytearray()
        self._body = bytearray()
        self._complete = False
        self._chunked = False

    async def ask(self, path: str, *headers: str, method: str = "GET", body: bytes | None = None) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        await self.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    async def stream(self, path: str, *headers: str, **options: Any) -> None:
        """Asks for a stream and reads the head of its answer."""
        await self.ask(f"/streams/{path}", *headers, **options)
        status, found = await self.head()
        assert status == 200, (status, found)

    async def call(self, path: str, *headers: str, body: bytes = b"{}") -> Answer:
        await self.ask(path, *headers, method="POST", body=body)
        return await self.answer()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def _more(self) -> None:
        async with asyncio.timeout(PATIENCE):
            try:
                data = await self._loop.sock_recv(self.sock, 65536)
            except ConnectionResetError:
                data = b""
        if not data:
            raise Cut(bytes(self._raw + self._body))
        self._raw += data

    async def head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self._raw:
            await self._more()
        text, _, rest = bytes(self._raw).partition(b"\r\n\r\n")
        self._raw[:] = rest
        self._body.clear()
        self._complete = False
        status, *lines = text.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self._chunked = headers.get("transfer-encoding") == "chunked"
        return int(status.split()[1]), headers

    async def answer(self) -> Answer:
        """A whole answer, whether or not its length is told before."""
        status, headers = await self.head()
        if self._chunked:
            return Answer(status, headers, await self.rest())
        size = int(headers.get("content-length", "0"))
        while len(self._raw) < size:
            await self._more()
        body = bytes(self._raw[:size])
        del self._raw[:size]
        return Answer(status, headers, body)

    async def _chunk(self) -> None:
        """Reads one chunk of the body."""
        assert not self._complete, "the body has ended"
        while b"\r\n" not in self._raw:
            await self._more()
        line = bytes(self._raw[: self._raw.index(b"\r\n")])
        start, size = len(line) + 2, int(line, 16)
        while len(self._raw) < start + size + 2:
            await self._more()
        self._body += self._raw[start : start + size]
        del self._raw[: start + size + 2]
        self._complete = size == 0

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._body and not self._complete:
            await self._chunk()
        found, _, rest = bytes(self._body).partition(mark)
        self._body[:] = rest
        return found

    async def block(self) -> bytes:
        """The next event, as it is written; b"" at a clean end of the body."""
        return await self._until(b"\n\n")

    async def line(self) -> bytes:
        """The next line of NDJSON; b"" at a clean end of the body."""
        return await self._until(b"\n")

    async def item(self) -> Any:
        """The data of the next event."""
        block = await self.block()
        assert block.startswith(b"data: "), block
        return json.loads(block.partition(b"\n")[0][6:])

    async def rest(self) -> bytes:
        """The rest of the body up to its clean end; Cut where there is none."""
        while not self._complete:
            await self._chunk()
        rest = bytes(self._body)
        self._body.clear()
        return rest

    async def end(self) -> bytes:
        """Waits until the server has closed; returns what came before."""
        while True:
            try:
                await self._more()
            except Cut:
                return bytes(self._raw)

    def unread(self) -> int:
        """Bytes that this machine has received and nobody has read."""
        size = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, size)
        return size[0]

    def vanish(self) -> None:
        """Closes: the server gets a FIN."""
        self.sock.close()

    def reset(self) -> None:
        """Breaks off: the server gets an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self) -> None:
        """Will send no more, and still reads."""
        self.sock.shutdown(socket.SHUT_WR)


Build = Callable[..., Server]
Connect = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """A server on a free port, to be given routes and started: `build(limits={"stall_seconds": 1})`."""
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
async def connect() -> AsyncIterator[Connect]:
    """Opens a connection: `peer = await connect(server)`. `window` bounds what the peer's kernel takes unread."""
    peers: list[Peer] = []

    async def open(server: Server, window: int | None = None) -> Peer:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        peer = Peer(sock)
        peers.append(peer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        return peer

    yield open
    for peer in peers:
        peer.sock.close()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until something is true."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that route files may import, where they and a test meet."""
    module = ModuleType("probe")
    module.seen = []  # type: ignore[attr-defined]  # the module is made of what tests put there
    monkeypatch.setitem(sys.modules, "probe", module)
    return module


@pytest.fixture
def quickest() -> Callable[[Callable[[], Awaitable[float]]], Awaitable[float]]:
    """The smallest of what some attempts return: what the code needs, whatever else the machine does."""

    async def measure(attempt: Callable[[], Awaitable[float]]) -> float:
        return min([await attempt() for _ in range(5)])

    return measure
