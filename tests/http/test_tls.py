"""HTTP over TLS: the same answers, what is negotiated, and a disconnect that is seen."""

from __future__ import annotations

import asyncio
import datetime
import logging
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from httpx_sse import aconnect_sse

from raffel_core.server import Server

ROUTES = {
    "add.rpc.py": "async def handler(input, ctx):\n    return input['a'] + 1\n",
    "big.rpc.py": "async def handler():\n    return 'a' * 3_000_000\n",
    "ticks.stream.py": "async def handler():\n    for n in range(3):\n        yield n\n",
    "open.stream.py": """
        async def handler(input, ctx):
            try:
                yield 1
                await ctx.signal.wait()
            finally:
                ctx.app.state.reason = ctx.signal.reason
        """,
}
GET = b"GET /streams/ticks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Identity(NamedTuple):
    """A certificate for this machine, as files."""

    cert: Path
    key: Path

    def client(self, *protocols: str) -> ssl.SSLContext:
        """A client's context that trusts it and offers these protocols."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


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
    folder = tmp_path_factory.mktemp("tls")
    files = Identity(folder / "cert.pem", folder / "key.pem")
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.fixture
async def secure(serve, identity: Identity) -> Server:
    return await serve(ROUTES, tls={"cert": str(identity.cert), "key": str(identity.key)})


@pytest.fixture
def http(secure: Server, identity: Identity, client) -> httpx.AsyncClient:
    return client(secure, verify=identity.client())


async def test_a_server_with_a_certificate_is_reached_by_https(secure) -> None:
    assert secure.url.startswith("https://")


async def test_a_procedure_over_tls(http) -> None:
    assert (await http.post("/add", json={"a": 1})).json() == 2


async def test_an_answer_of_many_records_over_tls(http) -> None:
    assert len((await http.post("/big")).json()) == 3_000_000


async def test_a_stream_over_tls(http) -> None:
    async with aconnect_sse(http, "GET", "/streams/ticks") as source:
        assert [event.json() async for event in source.aiter_sse()] == [0, 1, 2, {}]


async def test_curl_reads_a_stream_over_tls(secure, identity, curl) -> None:
    trust = ("--cacert", str(identity.cert), "-H", "Accept: application/x-ndjson")
    assert await curl(*trust, f"{secure.url}/streams/ticks") == b"0\n1\n2\n"


@pytest.mark.parametrize("offered", [("http/1.1",), ("h2", "http/1.1"), ("http/1.1", "h2")])
async def test_who_offers_http_1_1_gets_it(secure, identity, offered: tuple[str, ...]) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=identity.client(*offered))
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.close()
    await writer.wait_closed()


async def test_curl_which_offers_both_is_given_http_1_1(secure, identity, curl) -> None:
    arguments = ("--cacert", str(identity.cert), "-o", "/dev/null", "-w", "%{http_version}")
    assert await curl(*arguments, f"{secure.url}/streams/ticks") == b"1.1"


async def test_without_alpn_the_first_byte_decides(secure, identity, connect) -> None:
    wire = await connect(secure, identity.client())
    await wire.send(GET)
    assert (await wire.answer()).status == 200


async def test_a_request_may_come_byte_by_byte_over_tls(secure, identity, connect) -> None:
    wire = await connect(secure, identity.client())
    for byte in GET:
        await wire.send(bytes([byte]))
    assert (await wire.answer()).status == 200


async def test_an_older_tls_is_refused(secure, identity) -> None:
    context = identity.client()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", secure.port, ssl=context)


async def test_a_plain_request_to_a_tls_port_is_not_answered(secure, connect) -> None:
    wire = await connect(secure)
    await wire.send(GET)
    assert b"HTTP/1" not in await wire.rest()


async def test_a_client_that_leaves_over_tls_cancels_its_stream(secure, http, state, eventually) -> None:
    async with http.stream("GET", "/streams/open") as answer:
        assert await anext(answer.aiter_raw()) == b"data: 1\n\n"
    await eventually(lambda: getattr(state(secure), "reason", None) == "client_disconnected")


async def test_a_client_that_vanishes_over_tls_cancels_its_stream(secure, identity, connect, state, eventually) -> None:
    wire = await connect(secure, identity.client())
    await wire.send(b"GET /streams/open HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await wire.head()
    await wire.abort()
    await eventually(lambda: getattr(state(secure), "reason", None) == "client_disconnected")


async def test_too_large_a_body_over_tls_is_answered(serve, identity, client) -> None:
    tls = {"cert": str(identity.cert), "key": str(identity.key)}
    http = client(await serve(ROUTES, tls=tls, limits={"message_bytes": 1000}), verify=identity.client())
    answer = await http.post("/add", content=b" " * 5_000_000, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


async def test_who_does_not_complete_the_handshake_is_closed_in_time(serve, identity, connect) -> None:
    tls = {"cert": str(identity.cert), "key": str(identity.key)}
    wire = await connect(await serve(ROUTES, tls=tls, limits={"request_seconds": 0.05}))
    assert await wire.rest() == b""


async def test_who_says_nothing_after_the_handshake_is_closed_in_time(serve, identity, connect) -> None:
    tls = {"cert": str(identity.cert), "key": str(identity.key)}
    wire = await connect(await serve(ROUTES, tls=tls, limits={"request_seconds": 0.3}), identity.client())
    assert await wire.rest() == b""


@pytest.mark.parametrize(("origin", "status"), [("https://localhost", 200), ("http://localhost", 403)])
async def test_the_hosts_own_origin_over_tls_is_https(http, origin: str, status: int) -> None:
    answer = await http.get("/streams/ticks", headers={"Host": "localhost", "Origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize("reset", [False, True])
async def test_a_probe_of_a_tls_port_is_not_logged(secure, http, caplog, reset: bool) -> None:
    caplog.set_level(logging.INFO, "raffel")
    caplog.set_level(logging.INFO, "asyncio")
    probe = socket.create_connection(("127.0.0.1", secure.port))
    await http.get("/health")  # who came later has been answered: the probe has been accepted
    if reset:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    probe.close()
    await http.get("/health")
    assert not [record for record in caplog.records if record.name in ("raffel", "asyncio")]


async def test_a_handshake_that_fails_harms_no_other(secure, http, connect) -> None:
    wire = await connect(secure)
    await wire.send(b"\x16\x03\x01\xff\xffnonsense" * 100)
    await wire.rest()
    assert (await http.get("/health")).status_code == 200
