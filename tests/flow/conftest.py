"""What these tests share: servers, and a client of either protocol that reads and writes when a test says so."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from raffel_core.config import Config
from raffel_core.server import Server

PATIENCE = 20.0
"""Seconds after which a test gives up. None waits for it unless something is wrong."""

WINDOW = 16 * 1024
"""What the kernel of a client takes that is to be slow, before twice of it becomes the buffer."""

encode, decode = msgspec.json.encode, msgspec.json.decode


class Closed(Exception):
    """The server has closed. `code` is that of a WebSocket's close frame, None for a FIN, "reset" for an RST."""

    def __init__(self, code: int | str | None) -> None:
        super().__init__(code)
        self.code = code


class Client:
    """One connection over a bare socket."""

    def __init__(self, sock: socket.socket, protocol: str) -> None:
        self.sock = sock
        self.protocol = protocol
        self.pings = 0
        """How many pings have come."""
        self.received = 0
        """Bytes that have been taken from the kernel."""
        self._loop = asyncio.get_running_loop()
        self._raw = bytearray()
        self._at = 0

    # Up

    def frame(self, message: bytes) -> bytes:
        """A whole message as it is sent. The key of the mask is 0: what is sent can be read."""
        size = len(message)
        if self.protocol == "tcp":
            return size.to_bytes(4, "big") + message
        if size < 126:
            return struct.pack("!BB4x", 0x81, 0x80 | size) + message
        if size < 1 << 16:
            return struct.pack("!BBH4x", 0x81, 0xFE, size) + message
        return struct.pack("!BBQ4x", 0x81, 0xFF, size) + message

    def framed(self, *envelopes: Mapping[str, Any]) -> bytes:
        return b"".join(self.frame(encode(envelope)) for envelope in envelopes)

    async def send_raw(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def send(self, *envelopes: Mapping[str, Any]) -> None:
        await self.send_raw(self.framed(*envelopes))

    async def start(self, id: str, procedure: str, payload: Any = None, **fields: Any) -> None:
        envelope = {"type": "stream:start", "id": id, "procedure": procedure, "payload": payload, **fields}
        await self.send(envelope)

    async def data(self, id: str, *payloads: Any) -> None:
        await self.send(*({"type": "stream:data", "id": id, "payload": payload} for payload in payloads))

    async def say(self, type: str, id: str, **fields: Any) -> None:
        await self.send({"type": type, "id": id, **fields})

    # Down

    async def more(self, size: int = 256 * 1024, patience: float = PATIENCE) -> int:
        """Takes what the kernel has, at most so much of it."""
        async with asyncio.timeout(patience):
            try:
                data = await self._loop.sock_recv(self.sock, size)
            except ConnectionResetError:
                raise Closed("reset") from None
        if not data:
            raise Closed(None)
        self._raw += data
        self.received += len(data)
        return len(data)

    def next(self) -> bytes | None:
        """The next message, where all of it has been taken from the kernel."""
        while True:
            found = self._frame()
            if found is None:
                return None
            opcode, data = found
            if opcode == 1:
                return data
            if opcode == 8:
                raise Closed(int.from_bytes(data[:2], "big"))
            self.pings += opcode == 9

    def _frame(self) -> tuple[int, bytes] | None:
        raw, at = self._raw, self._at
        have, width = len(raw) - at, 4
        if have < 2:
            return None
        if self.protocol == "tcp":
            opcode, head = 1, 4
        else:
            opcode, width = raw[at] & 0x0F, {126: 2, 127: 8}.get(raw[at + 1], 0)
            head = 2 + width
        if have < head:
            return None
        size = int.from_bytes(raw[at + head - width : at + head], "big") if width else raw[at + 1]
        if have < head + size:
            return None
        data = bytes(raw[at + head : at + head + size])
        self._at += head + size
        if self._at > 1 << 20:
            del raw[: self._at]
            self._at = 0
        return opcode, data

    async def receive(self, patience: float = PATIENCE) -> Any:
        """The next envelope. Raises Closed."""
        while (message := self.next()) is None:
            await self.more(patience=patience)
        return decode(message)

    async def until(self, type: str, id: str | None = None) -> Any:
        """The next envelope of this type and id; what comes before it is dropped."""
        while True:
            envelope = await self.receive()
            if envelope["type"] == type and (id is None or envelope["id"] == id):
                return envelope

    async def items(self, id: str, count: int) -> list[Any]:
        """The payloads of the next so many messages, which are items of this stream."""
        found = []
        for _ in range(count):
            envelope = await self.receive()
            assert (envelope["type"], envelope["id"]) == ("stream:data", id), envelope
            found.append(envelope["payload"])
        return found

    async def rest(self) -> tuple[list[Any], int | str | None]:
        """Every envelope up to the end of the connection, which it answers by closing, and how it was closed."""
        envelopes = []
        while True:
            try:
                envelopes.append(await self.receive())
            except Closed as closed:
                self.sock.close()
                return envelopes, closed.code

    async def nothing(self, seconds: float = 0.05) -> None:
        """Sees that nothing comes for a while."""
        assert self.next() is None
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_recv(self.sock, 1)
        except TimeoutError:
            return
        raise AssertionError("something has come")

    def unread(self) -> int:
        """Bytes that this machine has received and nobody has read."""
        size = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, size)
        return size[0]

    def unsent(self) -> int:
        """Bytes that the server has not acknowledged."""
        size = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.TIOCOUTQ, size)
        return size[0]

    # The end

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


class Process:
    """`raffel serve` in a process of its own, whose memory is its own too."""

    def __init__(self, root: Path) -> None:
        self._said = root / "said"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAFFEL_")}
        command = [sys.executable, "-m", "raffel_cli", "serve", "--port", "0"]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(command, cwd=root, stdout=said, stderr=said, env=environ)
        self._view = psutil.Process(self._process.pid)
        self.port = self._find_port()

    def _find_port(self) -> int:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := re.search(r"http://[^\s/]+:(\d+)", self.said()):
                return int(found[1])
            time.sleep(0.005)
        raise AssertionError(f"it does not listen: {self.said()}")

    def said(self) -> str:
        return self._said.read_text()

    def memory(self) -> int:
        """Bytes that are resident now."""
        return self._view.memory_info().rss

    def seconds(self) -> float:
        """Seconds of a processor that it has used."""
        times = self._view.cpu_times()
        return times.user + times.system

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Peak:
    """How far a process has grown since, looked at every few milliseconds."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._before = self._most = process.memory()

    async def __aenter__(self) -> Peak:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])
        self._most = max(self._most, self._process.memory())

    async def _watch(self) -> None:
        while True:
            self._most = max(self._most, self._process.memory())
            await asyncio.sleep(0.005)

    @property
    def growth(self) -> int:
        return self._most - self._before


Build = Callable[..., Server]
Connect = Callable[..., Awaitable[Client]]


@pytest.fixture(params=["websocket", "tcp"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


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
def process(project: Callable[[Mapping[str, str]], Path]) -> Iterator[Callable[..., Process]]:
    """Starts a server of route files in a process of its own: `process({"a.stream.py": source}, "limits: {...}")`."""
    processes: list[Process] = []

    def start(routes: Mapping[str, str], config: str = "") -> Process:
        root = project({f"routes/{file}": text for file, text in routes.items()})
        project({"raffel.yaml": f"host: 127.0.0.1\n{config}\n"})
        processes.append(Process(root))
        return processes[-1]

    yield start
    for one in processes:
        one.kill()


@pytest.fixture
async def connect(protocol: str) -> AsyncIterator[Connect]:
    """Opens a connection: `client = await connect(server)`. `window` bounds what the client's kernel takes unread."""
    clients: list[Client] = []

    async def open(server: Server | Process, window: int | None = None) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client = Client(sock, protocol)
        clients.append(client)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        if protocol == "websocket":
            await _upgrade(client)
        return client

    yield open
    for client in clients:
        client.sock.close()


async def _upgrade(client: Client) -> None:
    lines = ["GET /ws HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    await client.send_raw("\r\n".join([*lines, "", ""]).encode())
    while b"\r\n\r\n" not in client._raw:
        await client.more()
    head, _, rest = bytes(client._raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    client._raw[:] = rest


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until something is true."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def standstill() -> Callable[[Callable[[], int]], Awaitable[int]]:
    """Waits until a counter that has begun to grow stays as it is, and returns it."""

    async def wait(count: Callable[[], int]) -> int:
        async with asyncio.timeout(PATIENCE):
            before, now = -1, 0
            while now == 0 or now != before:
                await asyncio.sleep(0.03)
                before, now = now, count()
        return now

    return wait


@pytest.fixture
def quickest() -> Callable[[Callable[[], Awaitable[float]]], Awaitable[float]]:
    """The smallest of what some attempts return: what the code needs, whatever else the machine does."""

    async def measure(attempt: Callable[[], Awaitable[float]], attempts: int = 2) -> float:
        return min([await attempt() for _ in range(attempts)])

    return measure


@pytest.fixture
def beside() -> Iterator[Callable[[Any], asyncio.Task[Any]]]:
    """Runs something beside the test, which must be over when the test is, or is cancelled then."""
    tasks: list[asyncio.Task[Any]] = []

    def run(coroutine: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    yield run
    for task in tasks:
        task.cancel()
