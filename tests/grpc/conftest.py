"""What these tests share: a server in clear and behind TLS, and clients that know it by reflection alone."""

from __future__ import annotations

import asyncio
import base64
import datetime
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import grpc
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from raffel_core.config import Config
from raffel_core.server import Server

from . import raw
from .raw import Raw

PATIENCE = 20.0
"""Seconds after which a test gives up. None waits for it unless something is wrong."""


# Servers


class Identity(NamedTuple):
    """A certificate for this machine, as files."""

    cert: Path
    key: Path

    @property
    def options(self) -> dict[str, str]:
        """What a server is configured with."""
        return {"cert": str(self.cert), "key": str(self.key)}


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - hour, now + hour)
    # What signs itself is its own authority: Go's clients want it to say so.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    files = Identity(*(tmp_path_factory.mktemp("tls") / file for file in ("cert.pem", "key.pem")))
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.write_bytes(key.private_bytes(*private))
    return files


@pytest.fixture(params=["clear", "tls"])
def tls(request: pytest.FixtureRequest, identity: Identity) -> Identity | None:
    """What the servers of the test have; None: they are reached in clear."""
    return identity if request.param == "tls" else None


Build = Callable[..., Server]


@pytest.fixture
async def build(tmp_path: Path, tls: Identity | None) -> AsyncIterator[Build]:
    """A server on a free port, to be given routes and started: `build(limits={"message_bytes": 1000})`."""
    servers: list[Server] = []

    def new(*, development: bool = False, **options: Any) -> Server:
        settings = {"host": "127.0.0.1", "port": 0, "drain_seconds": 0.2, **options}
        if tls is not None:
            settings["tls"] = tls.options
        server = Server(msgspec.convert(settings, Config), root=tmp_path, development=development)
        servers.append(server)
        return server

    yield new
    for server in servers:
        await server.stop()


# Clients


class Method:
    """A method as reflection has described it, to be called over a channel of grpcio, of either kind."""

    def __init__(self, channel: Any, path: str, descriptor: Any) -> None:
        self.request = GetMessageClass(descriptor.input_type)
        self.response = GetMessageClass(descriptor.output_type)
        sides = (
            "stream" if streaming else "unary"
            for streaming in (descriptor.client_streaming, descriptor.server_streaming)
        )
        self.kind = "_".join(sides)
        self._call = getattr(channel, self.kind)(
            path, request_serializer=self.request.SerializeToString, response_deserializer=self.response.FromString
        )

    def __call__(self, *request: Any, timeout: float | None = PATIENCE, **options: Any) -> Any:
        return self._call(*request, timeout=timeout, **options)

    def with_call(self, *request: Any, timeout: float | None = PATIENCE, **options: Any) -> Any:
        """The answer of a blocking call, and the call with its metadata."""
        return self._call.with_call(*request, timeout=timeout, **options)


class Client:
    """A channel of grpcio and the methods of its server: `client["/Math/Add"]`."""

    def __init__(self, channel: Any, described: Mapping[str, Any]) -> None:
        self.channel = channel
        self._methods = {path: Method(channel, path, one) for path, one in described.items()}

    def __getitem__(self, path: str) -> Method:
        return self._methods[path]


def target(server: Server) -> str:
    return f"127.0.0.1:{server.grpc_port}"


def options(more: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Options of a channel. Each has connections of its own: by default channels of one process share them."""
    return [*{"grpc.use_local_subchannel_pool": 1, "grpc.enable_http_proxy": 0, **more}.items()]


def credentials(identity: Identity) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(identity.cert.read_bytes())


def channel(server: Server, identity: Identity | None, module: Any = grpc, **more: Any) -> Any:
    """A channel of grpcio, sync by default; `module` is `grpc.aio` for the other."""
    if identity is None:
        return module.insecure_channel(target(server), options(more))
    return module.secure_channel(target(server), credentials(identity), options(more))


def describe(channel: Any) -> dict[str, Any]:
    """What reflection says of all methods, by their paths; to be called in a thread."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [pool.FindServiceByName(name) for name in database.get_services()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def described(server: Server, identity: Identity | None) -> dict[str, Any]:
    with channel(server, identity) as asking:
        return describe(asking)


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
async def connect(build: Build, tls: Identity | None) -> AsyncIterator[Connect]:
    """A channel of grpc.aio to a server: `client = await connect(server)`."""
    channels: list[Any] = []

    async def open(server: Server, **more: Any) -> Client:
        methods = await asyncio.to_thread(described, server, tls)
        channels.append(channel(server, tls, grpc.aio, **more))
        return Client(channels[-1], methods)

    yield open
    for one in channels:
        await one.close()
    await noticed()


@pytest.fixture
async def serve_and_connect(build: Build, connect: Connect) -> Callable[..., Awaitable[Client]]:
    """Starts a server with these routes and returns a client of it: `await serve_and_connect(add_routes)`."""

    async def start(*routes: Callable[[Server], None], **options: Any) -> Client:
        server = build(**options)
        for add in routes:
            add(server)
        await server.start()
        return await connect(server)

    return start


@pytest.fixture
async def wire() -> AsyncIterator[Callable[..., Awaitable[Raw]]]:
    """A connection by hand that has introduced itself: `peer = await wire(server)`."""
    peers: list[Raw] = []

    async def open(server: Server, settings: Mapping[int, int] | None = None) -> Raw:
        peers.append(await raw.connect(server.grpc_port))
        await peers[-1].begin(settings)
        return peers[-1]

    yield open
    for peer in peers:
        peer.sock.close()
    await noticed()


async def noticed() -> None:
    """Lets a server see that its clients have left: one that is stopped then has nobody to wait for."""
    for _ in range(5):
        await asyncio.sleep(0)


# What comes back


class Told(NamedTuple):
    """An error as a client has it."""

    code: str
    """The name of the status of gRPC."""
    message: str
    error: Any
    """The error object out of `grpc-status-details-bin`."""


def told(error: Any) -> Told:
    """What a call of grpcio has failed with; of an aio call after it has ended, give the exception."""
    found = [value for name, value in error.trailing_metadata() if name == "grpc-status-details-bin"]
    status = Status.FromString(found[0])
    (detail,) = status.details
    value = Value()
    assert detail.Unpack(value)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return Told(error.code().name, error.details(), MessageToDict(value))


async def failure(call: Awaitable[Any]) -> Told:
    """How a call fails, which it must."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return told(raised.value)


async def items(call: Any) -> list[Any]:
    """All messages of a stream, which must end well."""
    return [message async for message in call]


def status_in(trailers: Mapping[str, str]) -> Status:
    """The `google.rpc.Status` of trailers as they are on the wire."""
    text = trailers["grpc-status-details-bin"]
    return Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))


# Waiting


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


# Processes

Run = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Runs a program to its end, which must be a good one, and returns what it wrote: `await run("nghttp", url)`."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str | Path, input: bytes | None = None, code: int = 0, **options: Any) -> bytes:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, stderr=pipe, **options)
        processes.append(process)
        async with asyncio.timeout(2 * PATIENCE):
            output, complaint = await process.communicate(input)
        assert process.returncode == code, (output + complaint).decode()
        return output if code == 0 else complaint

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()
