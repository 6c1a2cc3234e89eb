"""The bounds of a connection: sizes, times, numbers, and what its first byte may be."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import socket

import httpx
import psutil
import pytest

from raffel_core.protocols import connection as connection_module
from raffel_core.protocols import http as http_module
from raffel_core.protocols.http import PIPELINE_BYTES, HttpConnection
from raffel_core.wire.http1 import MAX_HEAD

ECHO = """
async def handler(input, ctx):
    return input
"""

STUCK = """
async def handler(input, ctx):
    ctx.app.state.seen = "open"
    try:
        yield 1
        await ctx.signal.wait()
    finally:
        ctx.app.state.seen = ctx.signal.reason
"""

ROUTES = {"echo.rpc.py": ECHO, "stuck.stream.py": STUCK}
GET = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
OPEN = b"GET /streams/stuck HTTP/1.1\r\nHost: h\r\n\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in (b"Content-Type: application/json", *headers))
    return b"POST /echo HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body)


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def json_of(size: int) -> bytes:
    return b'"%b"' % (b"a" * (size - 2))


# Sizes


@pytest.mark.parametrize("limit", [1000, None])
async def test_a_body_of_exactly_the_limit_is_taken(serve, client, limit: int | None) -> None:
    limits = {"message_bytes": limit} if limit else {}
    body = json_of(limit or 1024 * 1024)
    http = client(await serve(ROUTES, limits=limits))
    answer = await http.post("/echo", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.content) == (200, body)


@pytest.mark.parametrize("limit", [1000, None])
async def test_a_body_of_one_byte_more_is_too_large(serve, client, limit: int | None) -> None:
    limits = {"message_bytes": limit} if limit else {}
    http = client(await serve(ROUTES, limits=limits))
    body = json_of((limit or 1024 * 1024) + 1)
    answer = await http.post("/echo", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_the_limit_of_a_chunked_body(serve, connect, size: int, status: int) -> None:
    wire = await connect(await serve(ROUTES, limits={"message_bytes": 1000}))
    await wire.send(chunks(json_of(size), 100))
    assert (await wire.answer()).status == status


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_the_limit_of_a_streams_input(serve, client, size: int, status: int) -> None:
    source = "async def handler(input, ctx):\n    yield input\n"
    http = client(await serve({"echo.stream.py": source}, limits={"message_bytes": 1000}))
    headers = {"Content-Type": "application/json"}
    assert (await http.post("/streams/echo", content=json_of(size), headers=headers)).status_code == status


async def test_too_large_a_body_is_refused_before_it_comes(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"message_bytes": 1000}))
    await wire.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
    assert (await wire.answer()).status == 413


async def test_who_still_sends_too_large_a_body_gets_the_answer(serve, client) -> None:
    http = client(await serve(ROUTES, limits={"message_bytes": 1000}))
    answer = await http.post("/echo", content=json_of(20_000_000), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


async def test_after_too_large_a_body_the_connection_ends(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"message_bytes": 1000}))
    await wire.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
    assert (await wire.answer()).headers["connection"] == "close"
    assert await wire.rest() == b""


async def test_who_never_stops_sending_is_cut_after_the_time_of_a_request(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"message_bytes": 1000, "request_seconds": 0.05}))
    await wire.send(CHUNKED + b"fffffff\r\n")
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(5):
            while True:
                await wire.send(b"a" * 10_000)
                await asyncio.sleep(0.001)


async def test_a_body_that_is_compressed_is_not_unpacked(serve, client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await client(await serve(ROUTES)).post("/echo", content=gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "PARSE_ERROR")


def head_of(size: int) -> bytes:
    start, end = b"GET /health HTTP/1.1\r\nHost: h\r\nX: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD, 200), (MAX_HEAD + 1, 400)])
async def test_the_limit_of_a_head(serve, connect, size: int, status: int) -> None:
    wire = await connect(await serve())
    await wire.send(head_of(size))
    assert (await wire.answer()).status == status


async def test_a_head_that_does_not_end_is_refused_at_the_limit(serve, connect) -> None:
    wire = await connect(await serve())
    await wire.send(b"GET /" + b"a" * MAX_HEAD)
    assert (await wire.answer()).status == 400


@pytest.mark.parametrize("tail", [b"0\r\nX: " + b"a" * 50_000, b"1;" + b"a" * 50_000, b"0\r\n" + b"X: a\r\n" * 10_000])
async def test_what_is_around_a_body_is_bounded_too(serve, connect, tail: bytes) -> None:
    wire = await connect(await serve(ROUTES, limits={"message_bytes": 1000}))
    await wire.send(CHUNKED + tail)
    assert (await wire.answer()).status == 413


async def test_a_body_in_many_tiny_chunks_is_taken(serve, connect) -> None:
    body = json_of(100_000)
    wire = await connect(await serve(ROUTES, limits={"message_bytes": len(body)}))
    await wire.send(chunks(body, 1))
    assert (await wire.answer()).body == body


async def test_trailers_are_no_headers(serve, connect) -> None:
    source = "async def handler(input, ctx):\n    return ctx.metadata.get('x-role')\n"
    wire = await connect(await serve({"echo.rpc.py": source}))
    await wire.send(CHUNKED + b"2\r\n{}\r\n0\r\nX-Role: admin\r\n\r\n")
    assert (await wire.answer()).body == b"null"


async def test_a_request_may_come_byte_by_byte(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    for byte in post(b'{"a":1}'):
        await wire.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await wire.answer()).json() == {"a": 1}


# Times


@pytest.mark.parametrize(
    "part", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: h\r\n", post(b"{}")[:-1], CHUNKED + b"2\r\n{}\r\n"]
)
async def test_a_first_request_that_takes_too_long_is_closed_unanswered(serve, connect, part: bytes) -> None:
    wire = await connect(await serve(ROUTES, limits={"request_seconds": 0.05}))
    await wire.send(part)
    assert await wire.rest() == b""


@pytest.mark.parametrize(
    "part", [b"G", b"GET /health HTTP/1.1\r\nHost: h\r\n", post(b"{}")[:-1], CHUNKED + b"2\r\n{}\r\n"]
)
async def test_a_later_request_that_takes_too_long_is_closed_unanswered(serve, connect, part: bytes) -> None:
    wire = await connect(await serve(ROUTES, limits={"request_seconds": 0.25}))
    await wire.send(GET)
    await wire.answer()
    await wire.send(part)
    assert await wire.rest() == b""


async def test_a_byte_now_and_then_does_not_extend_the_time(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"request_seconds": 0.1}))
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(5):
            while True:
                await wire.send(b"G")
                await asyncio.sleep(0.005)


async def test_the_time_of_the_first_request_starts_with_the_connection(
    serve, connect, eventually, monkeypatch
) -> None:
    dues: list[float] = []
    started = HttpConnection.connection_made
    monkeypatch.setattr(HttpConnection, "connection_made", lambda self, t: (dues.append(self._due), started(self, t)))
    server = await serve(ROUTES)
    wire = await connect(server)
    await eventually(lambda: server._hub.connections)
    accepted = asyncio.get_running_loop().time()
    await asyncio.sleep(0.02)
    await wire.send(GET)
    await wire.answer()
    assert dues[0] <= accepted + 10


async def test_an_idle_connection_is_kept_for_the_time_of_a_request(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"request_seconds": 0.25}))
    await wire.send(GET)
    await wire.answer()
    answered = asyncio.get_running_loop().time()
    assert await wire.rest() == b""
    assert asyncio.get_running_loop().time() - answered >= 0.2


async def test_each_answer_gives_the_next_request_its_time(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"request_seconds": 0.5}))
    for _ in range(4):
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        await asyncio.sleep(0.2)


async def test_a_handler_may_take_longer_than_a_request_may(serve, client) -> None:
    source = "import asyncio\nasync def handler():\n    await asyncio.sleep(0.1)\n    return 1\n"
    http = client(await serve({"slow.rpc.py": source}, limits={"request_seconds": 0.03}))
    assert (await http.post("/slow")).json() == 1


async def test_a_stream_may_take_longer_than_a_request_may(serve, client) -> None:
    source = "import asyncio\nasync def handler():\n    yield 1\n    await asyncio.sleep(0.1)\n    yield 2\n"
    http = client(await serve({"slow.stream.py": source}, limits={"request_seconds": 0.03}))
    assert (await http.get("/streams/slow")).text.startswith("data: 1\n\ndata: 2\n\n")


BIG = "async def handler():\n    return 'a' * 8_000_000\n"


async def narrow(port: int) -> socket.socket:
    """A connection that takes little at once."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def test_who_reads_its_answer_slowly_is_not_taken_for_idle(serve) -> None:
    server = await serve({"big.rpc.py": BIG}, limits={"request_seconds": 0.05})
    loop, size = asyncio.get_running_loop(), 0
    with await narrow(server.port) as sock:
        await loop.sock_sendall(sock, b"POST /big HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.sleep(0.15)
        async with asyncio.timeout(5):
            while piece := await loop.sock_recv(sock, 1_000_000):
                size += len(piece)
    assert size > 8_000_000


async def test_a_connection_that_waits_for_its_reader_does_nothing(serve, monkeypatch) -> None:
    rings: list[float] = []
    ring = HttpConnection.on_alarm
    monkeypatch.setattr(HttpConnection, "on_alarm", lambda self, now: (rings.append(now), ring(self, now))[1])
    server = await serve({"big.rpc.py": BIG}, limits={"request_seconds": 0.02})
    with await narrow(server.port) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, b"POST /big HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.sleep(0.2)
    assert len(rings) < 10


# Numbers


async def test_a_connection_over_the_limit_is_closed_unanswered(serve, connect) -> None:
    server = await serve(ROUTES, limits={"connections": 2})
    for _ in range(2):
        wire = await connect(server)
        await wire.send(GET)
        await wire.answer()
    third = await connect(server)
    assert await third.rest() == b""


async def test_a_connection_that_ends_makes_room_for_another(serve, connect, eventually) -> None:
    server = await serve(ROUTES, limits={"connections": 1})
    first = await connect(server)
    await first.send(GET)
    await first.answer()
    await first.close()
    await eventually(lambda: not server._hub.connections)
    second = await connect(server)
    await second.send(GET)
    assert (await second.answer()).status == 200


async def test_connections_that_have_said_nothing_count(serve, connect, eventually) -> None:
    server = await serve(ROUTES, limits={"connections": 1})
    await connect(server)
    await eventually(lambda: server._hub.connections)
    assert await (await connect(server)).rest() == b""


async def test_a_refused_connection_takes_no_place(serve, connect, eventually) -> None:
    server = await serve(ROUTES, limits={"connections": 1})
    first = await connect(server)
    await eventually(lambda: server._hub.connections)
    for _ in range(3):
        await (await connect(server)).rest()
    await first.send(GET)
    assert (await first.answer()).status == 200


# Pipelines


async def test_pipelined_requests_are_answered_in_order(serve, connect) -> None:
    source = """
        import asyncio

        async def handler(input, ctx):
            await asyncio.sleep(0.02 / (1 + input["n"]))
            return input["n"]
        """
    wire = await connect(await serve({"echo.rpc.py": source}))
    await wire.send(b"".join(post(b'{"n":%d}' % n) for n in range(10)))
    assert [(await wire.answer()).json() for _ in range(10)] == list(range(10))


async def test_a_pipeline_mixes_streams_procedures_and_errors(serve, connect) -> None:
    routes = {"echo.rpc.py": ECHO, "one.stream.py": "async def handler():\n    yield 1\n"}
    wire = await connect(await serve(routes))
    stream, lost = (b"GET /streams/%b HTTP/1.1\r\nHost: h\r\n\r\n" % name for name in (b"one", b"lost"))
    await wire.send(post(b"1") + stream + lost + GET + stream + post(b"2"))
    assert [(await wire.answer()).status for _ in range(6)] == [200, 200, 404, 200, 200, 200]


async def test_a_long_pipeline_is_answered_whole(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(post(b"{}") * 2000)
    assert [(await wire.answer()).status for _ in range(2000)] == [200] * 2000


async def test_what_is_pipelined_at_a_stuck_handler_is_bounded(serve, connect, state, eventually) -> None:
    server = await serve(ROUTES)
    wire = await connect(server)
    await wire.send(OPEN)
    await wire.head()
    (connection,) = server._hub.connections
    before = psutil.Process(os.getpid()).memory_info().rss
    sending = asyncio.ensure_future(wire.send(OPEN * 200_000))  # 8 MB: more than the kernel's buffers hold
    await eventually(lambda: connection._parser.buffered > PIPELINE_BYTES)
    await asyncio.sleep(0.05)
    assert connection._parser.buffered < PIPELINE_BYTES + 256 * 1024  # what one read may bring
    sending.cancel()
    assert psutil.Process(os.getpid()).memory_info().rss - before < 64 * 1024 * 1024
    assert len(server._hub.sessions) == 1


async def test_a_disconnect_behind_10000_pipelined_requests_is_seen(
    serve, connect, state, eventually, monkeypatch
) -> None:
    for module in (connection_module, http_module):
        monkeypatch.setattr(module, "LOST_PEER_SECONDS", 0.05)
    server = await serve(ROUTES)
    wire = await connect(server)
    await wire.send(OPEN)
    await wire.head()
    await wire.send(OPEN * 10_000)
    await wire.close()
    await eventually(lambda: state(server).seen == "client_disconnected")


def test_a_lost_peer_is_looked_for_once_a_second() -> None:
    assert connection_module.LOST_PEER_SECONDS == 1.0


async def test_a_pipeline_that_has_waited_goes_on(serve, connect, state) -> None:
    source = "async def handler(input, ctx):\n    await ctx.app.state.gate.wait()\n    yield 1\n"
    server = await serve({"stuck.stream.py": source})
    state(server).gate = asyncio.Event()
    wire = await connect(server)
    sending = asyncio.ensure_future(wire.send(OPEN * 5_000))
    await wire.head()
    state(server).gate.set()
    while await wire.chunk():
        pass
    assert [(await wire.answer()).status for _ in range(4_999)] == [200] * 4_999
    await sending


# Versions and expectations


async def test_http_1_0_gets_an_answer_and_the_end_of_the_connection(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n")
    await wire.send(b"Content-Length: 2\r\n\r\n[]")
    head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head and body == b"[]"


async def test_http_1_0_gets_a_stream_without_chunks(serve, connect) -> None:
    wire = await connect(await serve({"one.stream.py": "async def handler():\n    yield 1\n    yield 2\n"}))
    await wire.send(b"GET /streams/one HTTP/1.0\r\n\r\n")
    head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert body == b"data: 1\n\ndata: 2\n\nevent: end\ndata: {}\nid: raffel:end\n\n"


async def test_curl_speaks_http_1_0(serve, curl) -> None:
    server = await serve({"one.stream.py": "async def handler():\n    yield 1\n"})
    headers = ("-H", "Accept: application/x-ndjson")
    assert await curl("--http1.0", *headers, f"{server.url}/streams/one") == b"1\n"


async def test_who_asks_for_the_end_of_the_connection_gets_it(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in await wire.rest()


async def test_100_continue_is_sent_before_the_body(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    head, body = post(b"[1]", b"Expect: 100-continue").split(b"\r\n\r\n")
    await wire.send(head + b"\r\n\r\n")
    assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(body)
    assert (await wire.answer()).json() == [1]


async def test_who_does_not_wait_for_100_continue_is_not_told(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(post(b"[1]", b"Expect: 100-continue"))
    assert (await wire.answer()).status == 200


async def test_too_large_a_body_is_refused_instead_of_100_continue(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"message_bytes": 10}))
    await wire.send(post(b"a" * 11, b"Expect: 100-continue").partition(b"a" * 11)[0])
    assert (await wire.answer()).status == 413


async def test_curl_sends_a_large_body_after_100_continue(serve, curl) -> None:
    server = await serve(ROUTES)
    body = json_of(1024 * 1024)
    arguments = ("-H", "Expect: 100-continue", "-H", "Content-Type: application/json", "--data-binary", "@-")
    assert await curl(*arguments, f"{server.url}/echo", input=body) == body


async def test_an_upgrade_that_is_not_offered_is_not_taken(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET)
    assert [(await wire.answer()).status for _ in range(2)] == [200, 200]


# Sockets


@pytest.mark.parametrize(
    ("level", "option", "value"),
    [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", 16 * 1024),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 20),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 7_500),
    ],
)
async def test_accepted_sockets_have_the_option(serve, connect, level: int, option: str, value: int) -> None:
    server = await serve(ROUTES, limits={"stall_seconds": 7.5})
    wire = await connect(server)
    await wire.send(GET)
    await wire.answer()
    (connection,) = server._hub.connections
    sock = connection.transport.get_extra_info("socket")
    assert sock.getsockopt(level, getattr(socket, option)) == value


# The first byte


async def test_tls_on_a_plain_port_is_closed(serve, connect) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(b"\x16\x03\x01\x00\x05hello")
    assert await wire.rest() == b""


async def test_tls_on_a_plain_port_is_logged(serve, connect, caplog) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(b"\x16")
    await wire.rest()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "TLS" in caplog.text


@pytest.mark.parametrize(
    "byte", [b"\x01", b"\x15", b"\x17", b"\n", b"\r", b" ", b"0", b"@", b"[", b"a", b"{", b"\x80", b"\xff"]
)
async def test_any_other_first_byte_is_closed(serve, connect, byte: bytes) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(byte + GET)
    assert await wire.rest() == b""


@pytest.mark.parametrize("letter", [b"A", b"P", b"Z"])
async def test_every_capital_letter_is_http(serve, connect, letter: bytes) -> None:
    wire = await connect(await serve(ROUTES))
    await wire.send(letter + b"NONSENSE / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await wire.answer()).status == 400


@pytest.mark.parametrize("size", [1, 3, 23])
async def test_what_begins_like_the_preface_of_http_2_may_be_http_1(serve, connect, size: int) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    wire = await connect(await serve(ROUTES))
    await wire.send(preface[:size])
    await asyncio.sleep(0.01)
    await wire.send(b"#\r\n\r\n")
    assert (await wire.answer()).status == 400


async def test_the_preface_of_http_2_is_not_answered_by_http_1_even_byte_by_byte(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, limits={"request_seconds": 0.2}))
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.001)
    assert not (await wire.rest()).startswith(b"HTTP/1")


@pytest.mark.parametrize("reset", [False, True])
async def test_a_probe_is_not_logged(serve, caplog, eventually, reset: bool) -> None:
    server = await serve(ROUTES)
    caplog.set_level(logging.DEBUG, "raffel")
    probe = socket.create_connection(("127.0.0.1", server.port))
    await eventually(lambda: server._hub.connections)
    if reset:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    probe.close()
    await eventually(lambda: not server._hub.connections)
    assert not caplog.records


async def test_a_client_that_leaves_in_the_middle_of_a_request_is_not_logged(
    serve, connect, caplog, eventually
) -> None:
    server = await serve(ROUTES)
    wire = await connect(server)
    await wire.send(b"GET /health HT")
    await eventually(lambda: server._hub.connections)
    await wire.close()
    await eventually(lambda: not server._hub.connections)
    assert not caplog.records


async def test_one_client_that_sends_nonsense_harms_no_other(serve, connect, client) -> None:
    server = await serve(ROUTES)
    http: httpx.AsyncClient = client(server)
    assert (await http.get("/health")).status_code == 200
    for nonsense in (b"\xff", b"GET \0", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz"):
        wire = await connect(server)
        await wire.send(nonsense)
    answer = await http.get("/health")
    assert json.loads(answer.content)["status"] == "ok"
