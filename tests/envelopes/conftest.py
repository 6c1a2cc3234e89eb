"""One client for both protocols: the same messages as WebSocket messages and as messages with a length before them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import UNSET
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from raffel_core.config import Config
from raffel_core.context import Context
from raffel_core.server import Server

PATIENCE = 5.0
"""Seconds after which a client gives up. No test waits for it unless something is wrong."""

Message = dict[str, Any] | str | bytes
"""A dict is sent as its JSON, a str as it is; bytes are sent as they are, on WebSocket in a binary message."""


class Wire(ABC):
    """A connection, message by message."""

    async def send(self, *messages: Message) -> None:
        """Sends messages. Raises ConnectionError once the server has closed."""
        for message in messages:
            await self._send(_plain(message))

    def burst(self, *messages: Message) -> None:
        """Sends messages as one write, so that the server has them at once."""
        self.raw(b"".join(self.framed(_plain(message)) for message in messages))

    async def receive(self) -> dict[str, Any]:
        """The next message; of a binary one the envelope, with its bytes as `payload`. EOFError at the end."""
        async with asyncio.timeout(PATIENCE):
            message = await self._receive()
        if message[:1] != b"\x01":
            received = json.loads(message)
            assert "binary" not in received
            return received
        end = 3 + int.from_bytes(message[1:3], "big")
        return {**json.loads(message[3:end]), "payload": message[end:]}

    async def rest(self) -> list[dict[str, Any]]:
        """All that comes until the server closes."""
        messages = []
        with contextlib.suppress(EOFError):
            while True:
                messages.append(await self.receive())
        return messages

    async def until(self, *types: str, id: str | None = None) -> list[dict[str, Any]]:
        """All that comes up to the first message of one of these types (and of this id), with it."""
        messages = [await self.receive()]
        while messages[-1]["type"] not in types or (id is not None and messages[-1].get("id") != id):
            messages.append(await self.receive())
        return messages

    # What is sent often

    async def request(self, id: str, procedure: str, payload: Any = UNSET, **fields: Any) -> None:
        await self.send(_opening("request", id, procedure, payload, fields))

    async def open(self, id: str, procedure: str, payload: Any = UNSET, **fields: Any) -> None:
        await self.send(_opening("stream:start", id, procedure, payload, fields))

    async def item(self, id: str, payload: Any) -> None:
        await self.send({"type": "stream:data", "id": id, "payload": payload})

    async def finish(self, id: str) -> None:
        await self.send({"type": "stream:end", "id": id})

    async def cancel(self, id: str) -> None:
        await self.send({"type": "cancel", "id": id})

    async def credit(self, id: str, credit: Any) -> None:
        await self.send({"type": "stream:credit", "id": id, "credit": credit})

    async def silent(self) -> bool:
        """Whether nothing but the answer to this question comes."""
        await self.request("silent?", "add", {"a": 1, "b": 2})
        return await self.receive() == {"type": "response", "id": "silent?", "payload": 3}

    # The connection below

    @abstractmethod
    def framed(self, message: str | bytes) -> bytes:
        """A message as it is on the wire."""

    @abstractmethod
    async def _send(self, message: str | bytes) -> None: ...

    @abstractmethod
    async def _receive(self) -> bytes: ...

    @abstractmethod
    def raw(self, data: bytes) -> None:
        """Sends bytes below the framing."""

    @property
    @abstractmethod
    def transport(self) -> asyncio.Transport: ...

    @abstractmethod
    async def close(self) -> None:
        """Says the end, as the protocol has it, and waits for the server's."""

    def vanish(self) -> None:
        """Closes without a word: the server gets a FIN, or an RST if something is unread."""
        self.transport.close()

    def half_close(self) -> None:
        """Sends a FIN, and still reads."""
        self.transport.write_eof()


def _plain(message: Message) -> str | bytes:
    return json.dumps(message) if isinstance(message, dict) else message


def _opening(type: str, id: str, procedure: str, payload: Any, fields: dict[str, Any]) -> dict[str, Any]:
    given = {} if payload is UNSET else {"payload": payload}
    return {"type": type, "id": id, "procedure": procedure, **given, **fields}


class Prompt(ClientConnection):
    """A client that leaves as soon as it has been told the end, so that no server has to wait for that."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.close_rcvd is not None and self.transport.can_write_eof():
            self.transport.write_eof()


class WebSocketWire(Wire):
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def framed(self, message: str | bytes) -> bytes:
        opcode, data = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
        return Frame(opcode, data).serialize(mask=True)

    async def _send(self, message: str | bytes) -> None:
        try:
            await self.connection.send(message)
        except ConnectionClosed as closed:
            raise ConnectionResetError("the server has closed") from closed

    async def _receive(self) -> bytes:
        try:
            message = await self.connection.recv()
        except ConnectionClosed as closed:
            raise EOFError from closed
        if isinstance(message, str):
            return message.encode()
        assert message[:1] == b"\x01", "a binary message is for bytes"
        return message

    def raw(self, data: bytes) -> None:
        self.connection.transport.write(data)

    @property
    def transport(self) -> asyncio.Transport:
        return self.connection.transport

    @property
    def code(self) -> int | None:
        """What the server's close frame said; None where there was none, or none yet."""
        received = self.connection.protocol.close_rcvd
        return None if received is None else received.code

    async def close(self) -> None:
        await self.connection.close()


class TcpWire(Wire):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def framed(self, message: str | bytes) -> bytes:
        data = message.encode() if isinstance(message, str) else message
        return len(data).to_bytes(4, "big") + data

    async def _send(self, message: str | bytes) -> None:
        if self.writer.transport.is_closing():
            raise ConnectionResetError("the server has closed")
        self.writer.write(self.framed(message))
        await self.writer.drain()

    async def _receive(self) -> bytes:
        try:
            head = await self.reader.readexactly(4)
            return await self.reader.readexactly(int.from_bytes(head, "big"))
        except asyncio.IncompleteReadError as error:
            assert error.partial == b"", f"the end in the middle of a message: {error.partial!r}"
            raise EOFError from error

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    @property
    def transport(self) -> asyncio.Transport:
        return self.writer.transport

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # the server was first
            await self.writer.wait_closed()


# Servers


class Count(msgspec.Struct):
    to: int = 3
    size: int = 0
    """The least length of each item."""


class Pair(msgspec.Struct):
    a: int
    b: int


async def count(input: Count):
    for number in range(input.to):
        yield {"n": number, "_": "." * input.size} if input.size else {"n": number}


async def wait():
    """One item, and then nothing."""
    yield "waiting"
    await asyncio.Event().wait()


async def echo(items):
    async for item in items:
        yield item


async def total(items: AsyncIterator[int], ctx: Context):
    return {"total": sum([item async for item in items]), "input": ctx.input}


async def add(input: Pair) -> int:
    return input.a + input.b


async def same(input):
    return input


async def hang(input):
    await asyncio.Event().wait()


async def told(input, ctx: Context):
    return {
        "metadata": dict(ctx.metadata),
        "last_event_id": ctx.last_event_id,
        "params": dict(ctx.params),
        "protocol": ctx.protocol,
    }


async def tell(input, ctx: Context):
    yield await told(input, ctx)


async def blobs(input: Count) -> AsyncIterator[bytes]:
    for number in range(input.to):
        yield bytes([number]) * max(1, input.size)


async def mirror(items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for item in items:
        yield item


async def reverse(input: bytes) -> bytes:
    return input[::-1]


async def join(items: AsyncIterator[bytes]) -> bytes:
    return b"".join([item async for item in items])


def add_routes(server: Server) -> None:
    """A route of each kind, for JSON and for bytes."""
    for name, procedure in {"add": add, "same": same, "hang": hang, "told": told, "reverse": reverse}.items():
        server.procedure(name).handler(procedure)
    for name, stream in {"count": count, "wait": wait, "tell": tell, "blobs": blobs}.items():
        server.stream(name).handler(stream)
    for name, stream in {"echo": echo, "mirror": mirror}.items():
        server.stream(name, direction="bidi").handler(stream)
    for name, stream in {"total": total, "join": join}.items():
        server.stream(name, direction="client").handler(stream)
    server.stream("rooms.[room].[...rest]").handler(tell)


Build = Callable[..., Server]
Connect = Callable[..., Awaitable[Any]]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """A server that has the routes above, to be given others and started: `build(limits={"stall_seconds": 1})`."""
    servers: list[Server] = []

    def new(*, development: bool = False, **options: Any) -> Server:
        settings = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.2, **options}
        server = Server(msgspec.convert(settings, Config), root=tmp_path, development=development)
        add_routes(server)
        servers.append(server)
        return server

    yield new
    for server in servers:
        await server.stop()


@pytest.fixture
async def server(build: Build) -> Server:
    """One that runs, with the defaults."""
    server = build()
    await server.start()
    return server


# Connections


@pytest.fixture
async def websocket(build: Build) -> AsyncIterator[Connect]:
    """Opens a WebSocket: `await websocket(server)`."""
    opened: list[WebSocketWire] = []

    async def open(server: Server, path: str = "/ws", **options: Any) -> WebSocketWire:
        # A pong that is not sent is a test's own: none of the library's clocks may run beside it.
        quiet = {"compression": None, "proxy": None, "ping_interval": None, "max_size": None}
        quiet |= {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "create_connection": Prompt}
        wire = WebSocketWire(await open_websocket(server.url.replace("http", "ws", 1) + path, **{**quiet, **options}))
        opened.append(wire)
        return wire

    yield open
    for wire in opened:
        wire.transport.abort()
        await wire.connection.wait_closed()
    await _noticed()


@pytest.fixture
async def tcp(build: Build) -> AsyncIterator[Connect]:
    """Opens a TCP connection: `await tcp(server)`."""
    opened: list[TcpWire] = []

    async def open(server: Server, port: int | None = None, **options: Any) -> TcpWire:
        wire = TcpWire(*await asyncio.open_connection("127.0.0.1", port or server.port, **options))
        opened.append(wire)
        return wire

    yield open
    for wire in opened:
        wire.transport.abort()
        with contextlib.suppress(OSError):
            await wire.writer.wait_closed()
    await _noticed()


async def _noticed() -> None:
    """Lets a server see that its clients have left: one that is stopped then has nobody to wait for."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(params=["websocket", "tcp"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(protocol: str, websocket: Connect, tcp: Connect) -> Connect:
    """Opens a connection of the protocol that the test runs with."""
    return {"websocket": websocket, "tcp": tcp}[protocol]


@pytest.fixture
async def wire(server: Server, connect: Connect) -> Wire:
    """A connection to a server with the defaults."""
    return await connect(server)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until something is true."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


class Identity(NamedTuple):
    """A certificate for this machine, as files."""

    cert: Path
    key: Path

    @property
    def options(self) -> dict[str, str]:
        """What a server is configured with."""
        return {"cert": str(self.cert), "key": str(self.key)}

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts it."""
        return ssl.create_default_context(cafile=str(self.cert))


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - hour, now + hour)
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    files = Identity(*(tmp_path_factory.mktemp("tls") / file for file in ("cert.pem", "key.pem")))
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.write_bytes(key.private_bytes(*private))
    return files
