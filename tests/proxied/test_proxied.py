"""Connections that start with a PROXY header: whom they are from, what is refused, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from raffel_core.config import Config
from raffel_core.context import App
from raffel_core.protocols import proxied
from raffel_core.protocols.connection import Hub, peer_name
from raffel_core.protocols.http import Http
from raffel_core.protocols.listener import Listener, Served, listening_socket
from raffel_core.protocols.proxied import ProxiedListener
from raffel_core.registry import Registry

PATIENCE = 5.0
"""Seconds after which a client gives up. No test waits for it unless something is wrong."""

V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"
V2 = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 0013 c0000207 0a000001 1267 01bb 04 0004 6e6f6f70")
LOCAL = bytes.fromhex("0d0a0d0a000d0a515549540a 20 00 0000")
NAME = "192.0.2.7:4711"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Echo(asyncio.Protocol):
    """Sends back what comes, and is one of the hub's connections meanwhile."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._hub.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hub.connections.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    drain = abort


class Behind:
    """A listener behind a proxy: what a test knows of it."""

    def __init__(self, hub: Hub, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.hub = hub
        self.clients: list[str | None] = []
        self.port = sock.getsockname()[1]
        seconds = hub.config.limits.request_seconds
        options = {} if tls is None else {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": 0.5}
        self.listener = ProxiedListener(sock, hub, self.protocol, tls, options)

    def protocol(self, client: str | None) -> asyncio.Protocol:
        self.clients.append(client)
        return Echo(self.hub)


class Web(Behind):
    """One that speaks HTTP."""

    def protocol(self, client: str | None) -> asyncio.Protocol:
        self.clients.append(client)
        return Listener(self.hub, Served(Http(self.hub).connection), client)


class Closing(Behind):
    """One that is closed a few turns of the loop after the first header."""

    turns = 0

    def protocol(self, client: str | None) -> asyncio.Protocol:
        self._close(self.turns)
        return super().protocol(client)

    def _close(self, turns: int) -> None:
        if turns:
            self.hub.loop.call_soon(self._close, turns - 1)
        else:
            self.listener.close()


class Identity(NamedTuple):
    """Both sides of a TLS connection with this machine."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class Peer:
    """A proxy's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.name = peer_name(writer.get_extra_info("sockname"))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(size)

    async def some(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read(65536)

    async def echo(self, data: bytes) -> bytes:
        await self.send(data)
        return await self.exactly(len(data))

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read()
        return b""

    async def reset(self) -> None:
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):  # the server was first
            async with asyncio.timeout(PATIENCE):
                await self._writer.wait_closed()


Listen = Callable[..., Behind]
Connect = Callable[..., Awaitable[Peer]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    file: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return Identity(server, ssl.create_default_context(cafile=str(file)))


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Listens on a free port: `listen(tls, request_seconds=0.1)`."""
    behind: list[Behind] = []

    def start(tls: ssl.SSLContext | None = None, kind: type[Behind] = Behind, **limits: Any) -> Behind:
        config = msgspec.convert({"host": "127.0.0.1", "port": 0, "limits": limits}, Config)
        sock = listening_socket(config.host, config.port, config.limits)
        one = kind(Hub(config, Registry(()).router(), App()), sock, tls)
        behind.append(one)
        return one

    yield start
    for one in behind:
        one.listener.close()
        for connection in list(one.hub.connections):
            connection.abort()
    async with asyncio.timeout(PATIENCE):
        while any(one.hub.connections for one in behind):
            await asyncio.sleep(0.001)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens a connection, says the header and begins TLS: `await connect(behind, V1, identity.client)`."""
    opened: list[Peer] = []

    async def open(behind: Behind, header: bytes = b"", tls: ssl.SSLContext | None = None) -> Peer:
        sock = socket.create_connection(("127.0.0.1", behind.port))
        sock.sendall(header)
        options = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
        peer = Peer(*await asyncio.open_connection(sock=sock, **options))
        opened.append(peer)
        return peer

    yield open
    for peer in opened:
        await peer.close()


@pytest.fixture
def eventually() -> Eventually:
    """Waits until something is true."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """What has been logged at warning and above: message and peer."""
    caplog.set_level(logging.INFO)
    yield lambda: [
        (record.getMessage(), getattr(record, "peer", ""))
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """No file can be opened meanwhile; those that are open stay so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def a_while() -> None:
    """Some turns of the loop, which something that spins would use."""
    for _ in range(30):
        await asyncio.sleep(0.001)


# The header


@pytest.mark.parametrize(
    ("header", "name"), [(V1, NAME), (V2, NAME), (LOCAL, None), (b"PROXY UNKNOWN\r\n", None)], ids=str
)
async def test_the_header_says_whom_the_connection_is_from(listen, connect, header: bytes, name: str | None) -> None:
    behind = listen()
    peer = await connect(behind)
    await peer.send(header)
    await peer.echo(b"hello")
    assert behind.clients == [name]


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_what_comes_in_one_segment_with_the_header_is_the_protocols(listen, connect, header: bytes) -> None:
    peer = await connect(listen())
    await peer.send(header + V1 + b"hello")
    assert await peer.exactly(len(V1) + 5) == V1 + b"hello"


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_a_header_may_come_byte_by_byte(listen, connect, header: bytes) -> None:
    behind = listen()
    peer = await connect(behind)
    for byte in header:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.001)
    assert (await peer.echo(b"hello"), behind.clients) == (b"hello", [NAME])


@pytest.mark.parametrize("split", [1, 5, 12, 13, 16, len(V2) - 1])
async def test_the_end_of_a_header_may_come_with_a_request(listen, connect, split: int) -> None:
    behind = listen()
    peer = await connect(behind)
    await peer.send(V2[:split])
    await a_while()
    await peer.send(V2[split:] + b"hello")
    assert (await peer.exactly(5), behind.clients) == (b"hello", [NAME])


async def test_a_request_larger_than_any_header_is_left_whole(listen, connect) -> None:
    peer = await connect(listen())
    request = os.urandom(100_000)
    await peer.send(V2 + request)
    assert await peer.exactly(len(request)) == request


async def test_many_connections_are_told_apart(listen, connect) -> None:
    behind = listen()
    peers = [await connect(behind) for _ in range(100)]
    for number, peer in enumerate(peers):
        await peer.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 %d 443\r\n" % number)
        await peer.echo(b"%d" % number)
    assert behind.clients == [f"192.0.2.7:{number}" for number in range(100)]


async def test_http_behind_a_proxy(listen, connect) -> None:
    peer = await connect(listen(kind=Web))
    await peer.send(V1 + GET)
    assert (await peer.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


# TLS


async def test_tls_comes_after_the_header(listen, connect, identity) -> None:
    behind = listen(identity.server)
    peer = await connect(behind, V1, identity.client)
    assert (await peer.echo(b"hello"), behind.clients) == (b"hello", [NAME])


async def test_http_over_tls_behind_a_proxy(listen, connect, identity) -> None:
    peer = await connect(listen(identity.server, Web), V2, identity.client)
    await peer.send(GET)
    assert (await peer.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_tls_may_begin_in_one_segment_with_the_header(listen, connect, identity) -> None:
    peer = await connect(listen(identity.server))
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = identity.client.wrap_bio(came, goes, server_hostname="localhost")
    header = V2
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await peer.send(header + goes.read())
            header = b""
            came.write(await peer.some())
    tls.write(b"hello")
    await peer.send(goes.read())
    echo = b""
    while len(echo) < 5:
        came.write(await peer.some())
        with contextlib.suppress(ssl.SSLWantReadError):
            echo += tls.read()
    assert echo == b"hello"


async def test_tls_without_a_header_is_refused(listen, connect, identity, warnings) -> None:
    behind = listen(identity.server)
    with pytest.raises(OSError):
        await connect(behind, tls=identity.client)
    [(message, _)] = warnings()
    assert "expected a PROXY protocol header" in message


async def test_who_does_not_complete_the_handshake_is_closed_in_time(listen, connect, identity, eventually) -> None:
    behind = listen(identity.server, request_seconds=0.05)
    peer = await connect(behind)
    await peer.send(V1)
    assert await peer.rest() == b""
    await eventually(lambda: not behind.hub.connections)


async def test_a_handshake_that_fails_harms_no_other(listen, connect, identity, warnings) -> None:
    behind = listen(identity.server)
    broken = await connect(behind, V1 + b"\x16\x03\x01\xff\xffnonsense" * 100)
    await broken.rest()
    peer = await connect(behind, V1, identity.client)
    assert (await peer.echo(b"hello"), warnings()) == (b"hello", [])


# What is no header


@pytest.mark.parametrize("said", [GET, b"G", b"PROXY TCP9", b"\r\n\r\n\0\r\nQUIT\nX", V1[:-2] + b"\n", b"PROXY" * 99])
async def test_who_sends_no_header_is_closed_with_a_line_in_the_log(listen, connect, warnings, said: bytes) -> None:
    behind = listen()
    peer = await connect(behind)
    await peer.send(said)
    assert await peer.rest() == b""
    [(message, name)] = warnings()
    assert message.startswith("connection closed: found") and name == peer.name
    assert (behind.clients, behind.hub.connections) == ([], set())


@pytest.mark.parametrize("said", [b"", b"PRO", V2[:14]])
async def test_who_does_not_complete_a_header_is_closed_in_time(listen, connect, warnings, said: bytes) -> None:
    behind = listen(request_seconds=0.05)
    peer = await connect(behind)
    await peer.send(said)
    assert await peer.rest() == b""
    assert warnings() == [
        (f"connection closed: found {said!r}, expected a whole PROXY header within 0.05 s", peer.name)
    ]
    assert (behind.clients, behind.hub.connections) == ([], set())


@pytest.mark.parametrize("reset", [False, True])
async def test_who_leaves_in_the_middle_of_a_header_is_in_the_log(
    listen, connect, warnings, eventually, reset: bool
) -> None:
    behind = listen()
    peer = await connect(behind)
    await peer.send(V1[:20])
    await eventually(lambda: behind.hub.connections)
    await a_while()
    await (peer.reset() if reset else peer.close())
    await eventually(lambda: not behind.hub.connections)
    said = "found b'PROXY TCP4 192.0' and the end, expected a whole PROXY header"
    assert warnings() == [(f"connection closed: {said}", peer.name)]


@pytest.mark.parametrize("reset", [False, True])
async def test_who_leaves_before_the_first_byte_is_not_in_the_log(
    listen, connect, caplog, eventually, reset: bool
) -> None:
    behind = listen()
    peer = await connect(behind)
    await eventually(lambda: behind.hub.connections)
    caplog.set_level(logging.INFO)
    await (peer.reset() if reset else peer.close())
    await eventually(lambda: not behind.hub.connections)
    assert not [record for record in caplog.records if record.name in ("raffel", "asyncio")]


@pytest.mark.parametrize("said", [b"P", V1[:-1], V2[:-1]])
async def test_a_header_that_waits_for_its_rest_is_not_looked_at_again(
    listen, connect, monkeypatch, eventually, said: bytes
) -> None:
    looks = []
    monkeypatch.setattr(proxied, "parse", lambda data, parse=proxied.parse: (looks.append(data), parse(data))[1])
    peer = await connect(listen())
    await peer.send(said)
    await eventually(lambda: looks)
    await a_while()
    assert looks == [said]


# The limits


async def test_a_flood_above_the_limit_is_refused_at_once(listen, connect, warnings) -> None:
    behind = listen(connections=3)
    peers = [await connect(behind) for _ in range(10)]
    for peer in peers[3:]:
        assert await peer.rest() == b""
    assert warnings() == [("connection refused: 3 are open, which is the limit", "")] * 7
    for peer in peers[:3]:
        await peer.send(V1)
        assert await peer.echo(b"hello") == b"hello"


async def test_the_last_connection_of_the_limit_is_served_by_a_protocol_that_counts_too(listen, connect) -> None:
    peer = await connect(listen(kind=Web, connections=1))
    await peer.send(V1 + GET)
    assert (await peer.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_who_leaves_makes_room_for_another(listen, connect, eventually) -> None:
    behind = listen(connections=1)
    for header in (b"", V1[:9], V1):
        peer = await connect(behind)
        await peer.send(header)
        await eventually(lambda: behind.hub.connections)
        await peer.close()
        await eventually(lambda: not behind.hub.connections)
    peer = await connect(behind)
    await peer.send(V1)
    assert await peer.echo(b"hello") == b"hello"


async def test_a_handshake_counts_as_a_connection(listen, connect, identity, eventually) -> None:
    behind = listen(identity.server, connections=1)
    first, second = await connect(behind), await connect(behind)
    await first.send(V1)
    await eventually(lambda: behind.clients)
    assert await second.rest() == b""
    assert len(behind.hub.connections) == 1


async def test_without_open_files_accepting_pauses_and_goes_on(listen, monkeypatch, warnings) -> None:
    monkeypatch.setattr(proxied, "RETRY_SECONDS", 0.3)
    behind = listen()
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setblocking(False)
        with no_more_files():
            await loop.sock_connect(peer, ("127.0.0.1", behind.port))
            await a_while()
            assert warnings() == [("no connection can be accepted: Too many open files", "")]
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(peer, V1 + b"hello")
            assert await loop.sock_recv(peer, 5) == b"hello"


async def test_a_listener_that_pauses_may_be_closed(listen, monkeypatch, warnings, eventually) -> None:
    monkeypatch.setattr(proxied, "RETRY_SECONDS", 0.01)
    behind = listen()
    with socket.socket() as peer, no_more_files():
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", behind.port))
        await eventually(warnings)
        behind.listener.close()
    told = warnings()
    await a_while()
    assert warnings() == told


# The end


async def test_a_closed_listener_has_no_socket_and_accepts_nobody(listen, connect) -> None:
    behind = listen()
    assert [sock.getsockname()[1] for sock in behind.listener.sockets] == [behind.port]
    behind.listener.close()
    assert behind.listener.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await connect(behind)


async def test_a_listener_may_be_closed_twice(listen) -> None:
    behind = listen()
    behind.listener.close()
    behind.listener.close()


@pytest.mark.parametrize("said", [b"", V1[:9]])
async def test_closing_gives_up_who_has_not_completed_a_header(
    listen, connect, eventually, warnings, said: bytes
) -> None:
    behind = listen()
    peer = await connect(behind)
    await peer.send(said)
    await eventually(lambda: behind.hub.connections)
    behind.listener.close()
    assert behind.hub.connections == set()
    assert (await peer.rest(), behind.clients, warnings()) == (b"", [], [])


async def test_closing_gives_up_a_handshake_and_leaves_no_task(listen, connect, identity, eventually) -> None:
    before = asyncio.all_tasks()
    behind = listen(identity.server)
    peer = await connect(behind)
    await peer.send(V1)
    await eventually(lambda: behind.clients)
    assert asyncio.all_tasks() > before
    behind.listener.close()
    assert behind.hub.connections == set()
    await eventually(lambda: asyncio.all_tasks() <= before)
    assert await peer.rest() == b""


@pytest.mark.parametrize(("secured", "turns"), [(False, 0), (True, 0), (True, 1), (True, 2), (True, 3)])
async def test_closing_right_behind_a_header_serves_nobody(
    listen, connect, identity, eventually, secured: bool, turns: int
) -> None:
    behind = listen(identity.server if secured else None, Closing)
    behind.turns = turns
    before = asyncio.all_tasks()
    peer = await connect(behind, V1)
    assert await peer.rest() == b""
    assert behind.hub.connections == set()
    await eventually(lambda: asyncio.all_tasks() <= before)


async def test_closing_leaves_alone_who_has_a_protocol(listen, connect) -> None:
    behind = listen()
    peer = await connect(behind)
    await peer.send(V1)
    await peer.echo(b"hello")
    behind.listener.close()
    assert await peer.echo(b"still") == b"still"


async def test_a_drain_gives_up_who_has_not_completed_a_header(listen, connect, eventually) -> None:
    behind = listen()
    peer = await connect(behind)
    await eventually(lambda: behind.hub.connections)
    for connection in list(behind.hub.connections):
        connection.drain()
    assert await peer.rest() == b""
    assert behind.hub.connections == set()
