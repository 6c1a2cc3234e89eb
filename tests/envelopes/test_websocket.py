"""What is special to WebSocket: the handshake, frames, pings, and what the close codes say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Close, Frame, Opcode

from raffel_core.server import Server
from raffel_core.session import Session

PATIENCE = 10.0
KEY, PROOF = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
UPGRADE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
ADD = {"type": "request", "id": "1", "procedure": "add", "payload": {"a": 1, "b": 2}}
ADDED = {"type": "response", "id": "1", "payload": 3}


def frame(opcode: int, data: bytes = b"", *, final: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, final).serialize(mask=True)


def text(message: dict | str) -> bytes:
    return frame(1, (message if isinstance(message, str) else json.dumps(message)).encode())


def fragments(message: dict, size: int) -> list[bytes]:
    """A message in frames of so many bytes."""
    data = json.dumps(message).encode()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    last = len(parts) - 1
    return [frame(1 if n == 0 else 0, part, final=n == last) for n, part in enumerate(parts)]


class Bare:
    """A client that says what a test says, and hears what there is to hear."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    def ask(self, path: str = "/ws", *, start: str = "GET {} HTTP/1.1", **changed: str | None) -> None:
        """Sends the head of an upgrade request; a header that is changed to None is left out."""
        headers = {**UPGRADE, **{name.replace("_", "-"): value for name, value in changed.items()}}
        lines = [start.format(path), *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
        self.send("\r\n".join([*lines, "", ""]).encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status of an answer, and its headers with their names in lower case."""
        async with asyncio.timeout(PATIENCE):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """The whole of an answer that is none to an upgrade."""
        status, headers = await self.head()
        async with asyncio.timeout(PATIENCE):
            return status, headers, json.loads(await self.reader.readexactly(int(headers["content-length"])))

    async def frame(self) -> tuple[int, bytes]:
        """The opcode and the data of the next frame."""
        async with asyncio.timeout(PATIENCE):
            first, size = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "a frame of the server is whole, and no bit is reserved"
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def message(self) -> dict:
        opcode, data = await self.frame()
        assert opcode == Opcode.TEXT, (opcode, data)
        return json.loads(data)

    async def close_code(self) -> int:
        """What the server's close frame says, which is the next one."""
        opcode, data = await self.frame()
        assert opcode == Opcode.CLOSE, (opcode, data)
        return int.from_bytes(data[:2])

    async def ended(self) -> bool:
        """Waits until the server has closed; whether nothing more came."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read() == b""
            return True


@pytest.fixture
async def dial(build) -> AsyncIterator[Any]:
    """Opens a bare connection: `await dial(server)`."""
    opened: list[Bare] = []

    async def open(server: Server, **options: Any) -> Bare:
        bare = Bare(*await asyncio.open_connection("127.0.0.1", server.port, **options))
        opened.append(bare)
        return bare

    yield open
    for bare in opened:
        bare.writer.transport.abort()
        with contextlib.suppress(OSError):
            await bare.writer.wait_closed()


@pytest.fixture
def upgraded(dial) -> Any:
    """Opens a bare connection that is a WebSocket."""

    async def open(server: Server, **options: Any) -> Bare:
        bare = await dial(server, **options)
        bare.ask()
        assert (await bare.head())[0] == 101
        return bare

    return open


@pytest.fixture
async def bare(server, upgraded) -> Bare:
    """A WebSocket to a server with the defaults."""
    return await upgraded(server)


class Watched:
    """A server stream that tells why it ended."""

    def __init__(self, server: Server) -> None:
        self.reasons: list[str | None] = []
        server.stream("watched").handler(self.handler)

    async def handler(self, input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.reasons.append(ctx.signal.reason)


# The handshake


async def test_the_answer_proves_that_the_key_was_read(server, dial):
    bare = await dial(server)
    bare.ask()
    status, headers = await bare.head()
    assert status == 101
    assert (headers["upgrade"], headers["connection"], headers["sec-websocket-accept"]) == (
        "websocket",
        "Upgrade",
        PROOF,
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
        {"Connection": "upgrade"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "Upgrade,close"},
        {"Content_Length": "0"},
        {"User_Agent": "é"},
    ],
    ids=str,
)
async def test_a_handshake_may_be_written_in_any_way(server, dial, changed):
    bare = await dial(server)
    bare.ask(**changed)
    assert (await bare.head())[0] == 101
    bare.send(text(ADD))
    assert await bare.message() == ADDED


async def test_a_query_of_the_upgrade_is_ignored(server, dial):
    bare = await dial(server)
    bare.ask("/ws?token=x&y")
    assert (await bare.head())[0] == 101


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        (None, None),
        ("raffel.v1", "raffel.v1"),
        ("graphql-ws, raffel.v1", "raffel.v1"),
        ("raffel.v1,raffel.v2", "raffel.v1"),
        ("raffel.v2", None),
        ("RAFFEL.V1", None),
        ("raffel.v10", None),
    ],
)
async def test_the_subprotocol_is_accepted_when_it_is_offered_and_no_other_is(server, dial, offered, accepted):
    bare = await dial(server)
    bare.ask(Sec_WebSocket_Protocol=offered)
    status, headers = await bare.head()
    assert (status, headers.get("sec-websocket-protocol")) == (101, accepted)


async def test_the_subprotocol_may_be_offered_in_a_header_of_its_own(server, dial):
    bare = await dial(server)
    bare.ask(Sec_WebSocket_Protocol="chat\r\nSec-WebSocket-Protocol: raffel.v1")
    assert (await bare.head())[1]["sec-websocket-protocol"] == "raffel.v1"


@pytest.mark.parametrize("subprotocols", [None, ["raffel.v1"], ["other", "raffel.v1"]], ids=repr)
async def test_a_client_agrees_on_the_subprotocol(server, websocket, subprotocols):
    wire = await websocket(server, subprotocols=subprotocols)
    assert wire.connection.subprotocol == ("raffel.v1" if subprotocols else None)
    assert await wire.silent()


async def test_no_extension_is_negotiated(server, websocket, dial):
    bare = await dial(server)
    bare.ask(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    assert "sec-websocket-extensions" not in (await bare.head())[1]
    wire = await websocket(server, compression="deflate")
    assert wire.connection.protocol.extensions == []
    assert await wire.silent()


@pytest.mark.parametrize(
    ("start", "changed"),
    [
        ("GET {} HTTP/1.1", {"Upgrade": None, "Connection": None}),
        ("GET {} HTTP/1.1", {"Upgrade": None}),
        ("GET {} HTTP/1.1", {"Connection": None}),
        ("GET {} HTTP/1.1", {"Connection": "keep-alive"}),
        ("GET {} HTTP/1.1", {"Upgrade": "h2c"}),
        ("GET {} HTTP/1.1", {"Upgrade": "websockets"}),
        ("POST {} HTTP/1.1", {"Content_Length": "0"}),
        ("DELETE {} HTTP/1.1", {}),
        ("GET {} HTTP/1.1", {"Sec_WebSocket_Version": None}),
        ("GET {} HTTP/1.1", {"Sec_WebSocket_Version": "8"}),
        ("GET {} HTTP/1.1", {"Sec_WebSocket_Version": "13, 8"}),
        ("GET {} HTTP/1.0", {}),
    ],
    ids=str,
)
async def test_what_asks_for_no_websocket_of_version_13_is_told_what_to_ask_for(server, dial, start, changed):
    bare = await dial(server)
    bare.ask(start=start, **changed)
    status, headers, body = await bare.answer()
    assert (status, headers["upgrade"], headers["sec-websocket-version"]) == (426, "websocket", "13")
    assert body["error"]["code"] == "INVALID_ARGUMENT"


async def test_an_upgrade_header_is_for_the_next_hop_alone(server, dial):
    bare = await dial(server)
    bare.ask(Upgrade=None)
    assert "upgrade" in (await bare.answer())[1].get("connection", "").lower()  # RFC 9110, 7.8


@pytest.mark.parametrize(
    "key",
    [None, "", "x", "dGhlIHNhbXBsZSBub25jZQ", "AAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAA=", "?" * 22 + "==", "é"],
)
async def test_a_key_that_is_none_is_refused(server, dial, key):
    bare = await dial(server)
    bare.ask(Sec_WebSocket_Key=key)
    status, _, body = await bare.answer()
    assert (status, body["error"]["code"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("framing", "body"),
    [({"Content_Length": "2"}, b"{}"), ({"Transfer_Encoding": "chunked"}, b"2\r\n{}\r\n0\r\n\r\n")],
    ids=["length", "chunked"],
)
async def test_a_handshake_has_no_body(server, dial, framing, body):
    bare = await dial(server)
    bare.ask(**framing)
    bare.send(body)
    assert (await bare.head())[0] == 400


async def test_who_was_refused_may_ask_again_on_the_same_connection(server, dial):
    bare = await dial(server)
    for changed, status in (({"Upgrade": None}, 426), ({"Sec_WebSocket_Key": "x"}, 400)):
        bare.ask(**changed)
        assert (await bare.answer())[0] == status
    bare.ask()
    assert (await bare.head())[0] == 101
    bare.send(text(ADD))
    assert await bare.message() == ADDED


@pytest.mark.parametrize("path", ["/", "/ws/", "/wsx", "/WS", "/ws/ws"])
async def test_there_is_no_websocket_elsewhere(server, websocket, path):
    with pytest.raises(InvalidStatus) as refused:
        await websocket(server, path)
    assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"base_path": "/api/v1"}, "/api/v1/ws"),
        ({"websocket": {"path": "/socket"}}, "/socket"),
        ({"base_path": "/api", "websocket": {"path": "/socket"}}, "/api/socket"),
    ],
    ids=str,
)
async def test_the_path_is_as_configured_and_no_other(build, websocket, options, path):
    server = build(**options)
    await server.start()
    assert await (await websocket(server, path)).silent()
    with pytest.raises(InvalidStatus) as refused:
        await websocket(server, "/ws")
    assert refused.value.response.status_code == 404


# Who may come


@pytest.mark.parametrize(
    ("host", "development", "status"),
    [
        ("localhost:3000", True, 101),
        ("app.localhost", True, 101),
        ("127.0.0.1", True, 101),
        ("evil.com", True, 421),
        ("localhost.evil.com", True, 421),
        ("", True, 421),
        ("evil.com", False, 101),
    ],
)
async def test_the_host_must_be_allowed(build, dial, host, development, status):
    server = build(development=development)
    await server.start()
    bare = await dial(server)
    bare.ask(Host=host)
    assert (await bare.head())[0] == status


async def test_in_production_allowed_hosts_are_served_where_there_are_any(build, dial):
    server = build(allowed_hosts=["app.com"])
    await server.start()
    for host, status in (("app.com", 101), ("evil.com", 421)):
        bare = await dial(server)
        bare.ask(Host=host)
        assert (await bare.head())[0] == status


@pytest.mark.parametrize(
    ("origin", "options", "status"),
    [
        (None, {}, 101),
        ("https://app.com", {}, 101),
        ("http://app.com", {}, 101),
        ("https://app.com:443", {}, 101),
        ("https://evil.com", {}, 403),
        ("https://app.com.evil", {}, 403),
        ("https://app.com:444", {}, 403),
        ("null", {}, 403),
        ("", {}, 403),
        ("http://localhost", {}, 403),
        ("https://friend.com", {"cors": {"origins": ["https://friend.com"]}}, 101),
        ("https://friend.com:1", {"cors": {"origins": ["https://friend.com"]}}, 403),
        ("https://any.com", {"cors": {"origins": ["*"]}}, 101),
        ("null", {"cors": {"origins": ["*"]}}, 403),
        ("http://localhost:5173", {"development": True, "allowed_hosts": ["app.com"]}, 101),
        ("http://127.0.0.1", {"development": True, "allowed_hosts": ["app.com"]}, 101),
        ("https://evil.com", {"development": True, "allowed_hosts": ["app.com"]}, 403),
    ],
)
async def test_a_page_must_be_of_the_host_itself_or_of_an_allowed_origin(build, dial, origin, options, status):
    server = build(**options)
    await server.start()
    bare = await dial(server)
    bare.ask(Host="app.com", Origin=origin)
    assert (await bare.head())[0] == status


async def test_a_stranger_is_told_so_before_the_upgrade(server, websocket):
    with pytest.raises(InvalidStatus) as refused:
        await websocket(server, origin="https://evil.com")
    assert json.loads(refused.value.response.body)["error"]["code"] == "PERMISSION_DENIED"


# The connection that is upgraded


async def test_what_comes_right_behind_the_upgrade_is_the_first_message(server, dial):
    bare = await dial(server)
    bare.writer.transport.pause_reading()
    bare.ask()
    bare.send(text(ADD), *fragments({**ADD, "id": "2"}, 9))
    bare.writer.transport.resume_reading()
    assert (await bare.head())[0] == 101
    assert [await bare.message() for _ in range(2)] == [ADDED, {**ADDED, "id": "2"}]


async def test_an_upgrade_and_a_message_in_one_packet(server, dial):
    bare = await dial(server)
    lines = ["GET /ws HTTP/1.1", *(f"{name}: {value}" for name, value in UPGRADE.items()), "", ""]
    bare.send("\r\n".join(lines).encode() + text(ADD))
    assert (await bare.head())[0] == 101
    assert await bare.message() == ADDED


async def test_the_whole_may_come_byte_by_byte(server, dial):
    bare = await dial(server)
    lines = ["GET /ws HTTP/1.1", *(f"{name}: {value}" for name, value in UPGRADE.items()), "", ""]
    for byte in "\r\n".join(lines).encode() + text(ADD) + frame(2, b"\x01") + text(ADD):
        bare.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await bare.head())[0] == 101
    messages = [await bare.message() for _ in range(3)]
    assert [message["type"] for message in messages] in (
        ["response", "error", "response"],
        ["error", "response", "response"],
    )


async def test_a_connection_that_was_kept_alive_may_be_upgraded(server, dial):
    bare = await dial(server)
    for _ in range(2):
        bare.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await bare.answer())[0] == 200
    bare.ask()
    assert (await bare.head())[0] == 101
    bare.send(text(ADD))
    assert await bare.message() == ADDED


async def test_an_upgrade_behind_other_requests_waits_for_their_answers(server, dial):
    bare = await dial(server)
    body = b'{"a": 1, "b": 2}'
    bare.send(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    bare.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    bare.ask()
    bare.send(text(ADD))
    assert (await bare.answer())[::2] == (200, 3)
    assert (await bare.head())[0] == 101
    assert await bare.message() == ADDED


async def test_websocket_over_tls(build, websocket, identity):
    server = build(tls=identity.options)
    await server.start()
    wire = await websocket(server, ssl=identity.client(), server_hostname="localhost")
    await wire.open("s", "count", {"to": 3, "size": 100_000})
    assert [message.get("payload", {}).get("n") for message in await wire.until("stream:end")] == [0, 1, 2, None]
    await wire.open("u", "join", binary=True)
    await wire.item("u", "YQ==")
    await wire.finish("u")
    assert (await wire.receive())["payload"] == b"a"
    await wire.close()
    assert wire.code == 1000


async def test_a_page_over_tls_is_of_the_host_itself_by_https_alone(build, dial, identity):
    server = build(tls=identity.options)
    await server.start()
    for origin, status in (("https://localhost", 101), ("http://localhost", 403)):
        bare = await dial(server, ssl=identity.client(), server_hostname="localhost")
        bare.ask(Origin=origin)
        assert (await bare.head())[0] == status


async def test_a_client_that_offers_http_2_first_is_upgraded_all_the_same(build, upgraded, identity):
    server = build(tls=identity.options)
    await server.start()
    context = identity.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    bare = await upgraded(server, ssl=context, server_hostname="localhost")
    bare.send(text(ADD))
    assert await bare.message() == ADDED


async def test_while_draining_nobody_is_upgraded(build, dial, websocket):
    server = build(drain_seconds=5)
    await server.start()
    bare = await dial(server)
    bare.send(b"POST /hang HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    other = await websocket(server)
    await other.request("r", "hang")
    bare.ask()  # it is behind a request, and so is looked at only when the server drains
    async with asyncio.timeout(PATIENCE):
        while len(server._hub.sessions) != 2:
            await asyncio.sleep(0.001)
    stopping = asyncio.create_task(server.stop())
    while not server._hub.draining:
        await asyncio.sleep(0.001)
    for session in list(server._hub.sessions):
        session.cancel("client_cancelled")
    assert (await bare.answer())[0] == 499
    assert await bare.ended()
    await stopping


# Frames


@pytest.mark.parametrize("size", [1, 2, 7, 50])
async def test_a_message_may_come_in_fragments(bare, size):
    bare.send(*fragments(ADD, size))
    assert await bare.message() == ADDED


async def test_control_frames_may_come_between_fragments(bare):
    first, *others = fragments(ADD, 10)
    bare.send(first)
    for number, fragment in enumerate(others):
        bare.send(frame(9, b"%d" % number), frame(10, b"unasked"), fragment)
        assert await bare.frame() == (Opcode.PONG, b"%d" % number)
    assert await bare.message() == ADDED


async def test_fragments_may_be_empty(bare):
    data = json.dumps(ADD).encode()
    bare.send(frame(1, b"", final=False), frame(0, b"", final=False), frame(0, data, final=False), frame(0, b""))
    assert await bare.message() == ADDED


async def test_fragments_may_split_a_character(bare):
    message = {"type": "request", "id": "é", "procedure": "same", "payload": "🦜"}
    data = json.dumps(message, ensure_ascii=False).encode()
    for at in range(len(data)):
        bare.send(frame(1, data[:at], final=False), frame(0, data[at:]))
        assert (await bare.message())["payload"] == "🦜"


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125))], ids=len)
async def test_a_ping_is_answered_with_what_it_said(bare, payload):
    bare.send(frame(9, payload))
    assert await bare.frame() == (Opcode.PONG, payload)


async def test_a_pong_that_nobody_asked_for_is_nothing(bare):
    bare.send(frame(10), frame(10, b"x" * 125), text(ADD))
    assert await bare.message() == ADDED


async def test_the_frames_of_a_message_are_counted_together_against_the_limit(build, upgraded):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    bare = await upgraded(server)
    message = {"type": "request", "id": "1", "procedure": "same", "payload": ""}
    message["payload"] = "." * (1000 - len(json.dumps(message)))
    bare.send(*fragments(message, 7))
    assert (await bare.message())["payload"] == message["payload"]
    message["payload"] += "."
    bare.send(*fragments(message, 7))
    assert (await bare.message())["payload"]["code"] == "MESSAGE_TOO_LARGE"
    assert await bare.close_code() == 1009


# Pings


async def test_the_server_pings_and_who_answers_stays(build, websocket):
    server = build(heartbeat_seconds={"websocket": 0.05})
    await server.start()
    wire = await websocket(server)
    await wire.open("s", "wait")
    await wire.receive()
    await asyncio.sleep(0.3)
    assert await wire.silent()


async def test_a_peer_that_stays_silent_is_cut(build, upgraded, eventually):
    server = build(heartbeat_seconds={"websocket": 0.2})
    watched = Watched(server)
    await server.start()
    bare = await upgraded(server)
    began = time.monotonic()
    bare.send(text({"type": "stream:start", "id": "s", "procedure": "watched"}))
    assert (await bare.message())["payload"] == 1
    assert await bare.frame() == (Opcode.PING, b"")
    assert time.monotonic() - began > 0.1
    assert await bare.ended()
    assert time.monotonic() - began > 0.3
    await eventually(lambda: watched.reasons == ["client_disconnected"])


@pytest.mark.parametrize("sign", [frame(10), frame(9), text("x"), b"\x81"], ids=["pong", "ping", "text", "a byte"])
async def test_any_sign_of_life_keeps_a_peer(build, upgraded, sign):
    server = build(heartbeat_seconds={"websocket": 0.1})
    await server.start()
    bare = await upgraded(server)
    for said in (frame(10), frame(10), sign):
        while (await bare.frame())[0] != Opcode.PING:
            pass  # what a sign was answered with
        bare.send(said)
    while (await bare.frame())[0] != Opcode.PING:
        pass


async def test_a_peer_is_pinged_though_it_is_written_to_all_the_time(build, upgraded):
    server = build(heartbeat_seconds={"websocket": 0.05})

    @server.stream("ticks")
    async def ticks():
        while True:
            yield 1
            await asyncio.sleep(0.001)

    await server.start()
    bare = await upgraded(server)
    bare.send(text({"type": "stream:start", "id": "s", "procedure": "ticks"}))
    opcodes = {(await bare.frame())[0]}
    while Opcode.PING not in opcodes:
        opcodes.add((await bare.frame())[0])


async def test_a_peer_is_not_cut_for_a_pong_that_the_server_does_not_read(build, websocket, eventually):
    server, go_on = build(heartbeat_seconds={"websocket": 0.05}), asyncio.Event()

    @server.stream("later", direction="client")
    async def later(items):
        await go_on.wait()
        return sum([len(item) async for item in items])

    await server.start()
    wire = await websocket(server)
    await wire.open("u", "later")
    for _ in range(30):
        await wire.item("u", "." * 20_000)
    await eventually(lambda: any(getattr(one, "held", False) for one in server._hub.connections))
    await asyncio.sleep(0.3)
    go_on.set()
    await wire.finish("u")
    assert (await wire.receive())["payload"] == 600_000


# The end


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_close_is_answered_with_its_code(bare, code):
    bare.send(frame(8, Close(code, "goodbye").serialize()))
    assert await bare.close_code() == code
    assert await bare.ended()


async def test_a_close_without_a_code_is_answered(bare):
    bare.send(frame(8))
    opcode, data = await bare.frame()
    assert (opcode, data) in [(Opcode.CLOSE, b""), (Opcode.CLOSE, b"\x03\xe8")]
    assert await bare.ended()


async def test_a_close_ends_all_calls(build, websocket, eventually):
    server = build()
    watched = Watched(server)
    await server.start()
    wire = await websocket(server)
    await wire.open("s", "watched")
    await wire.receive()
    await wire.close()
    assert wire.code == 1000
    await eventually(lambda: watched.reasons == ["client_disconnected"])


async def test_what_comes_behind_a_close_is_not_looked_at(build, upgraded):
    server, ran = build(), []

    @server.procedure("run")
    async def run():
        ran.append(1)

    await server.start()
    bare = await upgraded(server)
    bare.send(frame(8, b"\x03\xe8"), text({"type": "request", "id": "1", "procedure": "run"}), b"\xff" * 1000)
    assert await bare.close_code() == 1000
    assert await bare.ended()
    assert ran == []


@pytest.mark.parametrize("way", ["half_close", "vanish"])
async def test_an_end_without_a_close_is_a_disconnect(build, websocket, eventually, way):
    server = build()
    watched = Watched(server)
    await server.start()
    wire = await websocket(server)
    await wire.open("s", "watched")
    await wire.receive()
    getattr(wire, way)()
    await eventually(lambda: watched.reasons == ["client_disconnected"])


BROKEN = {
    "not masked": b"\x81\x02{}",
    "a reserved bit": b"\xc1\x80\0\0\0\0",
    "a reserved opcode": b"\x83\x80\0\0\0\0",
    "a reserved control opcode": b"\x8b\x80\0\0\0\0",
    "a control frame in fragments": b"\x09\x80\0\0\0\0",
    "a long control frame": b"\x89\xfe\0\x7e\0\0\0\0",
    "a fragment of nothing": frame(0, b"x"),
    "a message inside another": frame(1, b"x", final=False) + frame(1, b"x"),
    "a close of one byte": frame(8, b"\x03"),
    "a close code that nobody may send": frame(8, b"\x03\xed"),
    "a length of 64 bits": b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_frame_is_closed_with_1002(bare, name):
    bare.send(BROKEN[name])
    assert await bare.close_code() == 1002


@pytest.mark.parametrize(
    "data",
    [
        frame(1, b"\xff"),
        frame(1, b'{"type":"cancel","id":"\xc3"}'),
        frame(1, b"\xed\xa0\x80"),
        frame(1, b"\xc3", final=False) + frame(0, b"x"),
        frame(8, b"\x03\xe8\xff"),
    ],
    ids=["one byte", "in an envelope", "a surrogate", "in fragments", "in a close"],
)
async def test_text_that_is_no_utf_8_is_closed_with_1007(bare, data):
    bare.send(data)
    assert await bare.close_code() == 1007


async def test_what_came_before_a_broken_frame_is_answered(bare):
    bare.send(text("x"), text("[]"), b"\x81\x02{}")
    assert [(await bare.message())["payload"]["code"] for _ in range(2)] == ["PARSE_ERROR", "INVALID_ENVELOPE"]
    assert await bare.close_code() == 1002


async def test_a_broken_frame_ends_all_calls(build, upgraded, eventually):
    server = build()
    watched = Watched(server)
    await server.start()
    bare = await upgraded(server)
    bare.send(text({"type": "stream:start", "id": "s", "procedure": "watched"}))
    await bare.message()
    bare.send(b"\x81\x02{}")
    assert await bare.close_code() == 1002
    await eventually(lambda: watched.reasons == ["client_disconnected"])


async def test_too_large_a_message_is_closed_with_1009_behind_its_error(build, upgraded):
    server = build(limits={"message_bytes": 100})
    await server.start()
    bare = await upgraded(server)
    bare.send(frame(1, b"x" * 101))
    assert (await bare.message())["payload"]["code"] == "MESSAGE_TOO_LARGE"
    assert await bare.close_code() == 1009


async def test_a_frame_that_says_that_it_is_endless_is_too_large_at_once(bare):
    bare.send(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")
    assert (await bare.message())["payload"]["code"] == "MESSAGE_TOO_LARGE"
    assert await bare.close_code() == 1009


async def test_a_close_code_1009_reaches_a_client_that_goes_on_sending(build, websocket):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await websocket(server)
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            await wire.send("x" * 100_000)
    await wire.rest()
    assert wire.code == 1009


async def test_a_server_that_ends_closes_with_1012(build, websocket):
    server = build()
    await server.start()
    wire = await websocket(server)
    await server.stop()
    assert await wire.rest() == []
    assert wire.code == 1012


async def test_one_in_development_closes_with_1001(build, websocket):
    server = build(development=True)
    await server.start()
    wire = await websocket(server)
    await server.stop()
    assert await wire.rest() == []
    assert wire.code == 1001


async def test_a_fault_of_the_server_closes_with_1011(server, websocket, monkeypatch, caplog):
    wire = await websocket(server)

    async def run(self, pump):
        raise AssertionError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "run", run)
        await wire.request("1", "same")
        assert await wire.rest() == []
    assert wire.code == 1011
    assert "a fault" in caplog.text


# A message that is never complete


@pytest.mark.parametrize(
    "part",
    [b"\x81", b"\x81\xfe\x01", text(ADD)[:-1], frame(1, b"{", final=False), frame(1, b"{", final=False) + frame(9)],
    ids=["one byte", "half a head", "all but a byte", "a fragment", "a fragment and a ping"],
)
async def test_a_message_that_never_completes_is_closed_with_1008(build, upgraded, part):
    server = build(limits={"request_seconds": 0.1})
    await server.start()
    bare = await upgraded(server)
    bare.send(part)
    opcode, data = await bare.frame()
    while opcode == Opcode.PONG:
        opcode, data = await bare.frame()
    assert (opcode, int.from_bytes(data[:2])) == (Opcode.CLOSE, 1008)


async def test_one_that_comes_too_slowly_is_closed_too(build, upgraded):
    server = build(limits={"request_seconds": 0.2})
    await server.start()
    bare = await upgraded(server)
    message, began = text({**ADD, "ignored": "." * 10_000}), time.monotonic()
    closing = asyncio.create_task(bare.close_code())
    for byte in message:
        bare.send(bytes([byte]))
        await asyncio.sleep(0.005)
        if closing.done():
            break
    assert closing.result() == 1008
    assert 0.15 < time.monotonic() - began < 2


async def test_who_says_nothing_has_all_the_time(build, websocket):
    server = build(limits={"request_seconds": 0.05})
    await server.start()
    wire = await websocket(server)
    await asyncio.sleep(0.2)
    assert await wire.silent()


async def test_whole_messages_have_their_time_each(build, upgraded):
    server = build(limits={"request_seconds": 0.2})
    await server.start()
    bare = await upgraded(server)
    message = text(ADD)
    bare.send(message[:5])
    for _ in range(8):
        await asyncio.sleep(0.05)
        bare.send(message[5:], message[:5])
        assert await bare.message() == ADDED
    bare.send(message[5:])
    assert await bare.message() == ADDED


# Drain and reload


async def test_a_drain_ends_the_streams_and_then_the_connection(build, websocket):
    server = build()
    watched = Watched(server)
    await server.start()
    wire = await websocket(server)
    await wire.open("s", "watched")
    await wire.receive()
    stopping = asyncio.create_task(server.stop())
    (error,) = await wire.rest()
    assert (error["type"], error["id"], error["payload"]["code"]) == ("stream:error", "s", "UNAVAILABLE")
    assert error["payload"]["details"] == {"reason": "server_draining"}
    assert (wire.code, watched.reasons) == (1012, ["server_draining"])
    await stopping


async def test_a_drain_waits_for_what_the_client_is_about(build, websocket):
    server = build(drain_seconds=5)
    await server.start()
    wire = await websocket(server)
    await wire.open("u", "total")
    await wire.item("u", 1)
    assert await wire.silent()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.05)
    await wire.item("u", 2)
    await wire.finish("u")
    assert [message.get("payload") for message in await wire.rest()] == [{"total": 3, "input": {}}]
    assert wire.code == 1012
    await stopping


async def test_while_draining_no_call_is_opened(build, websocket):
    server = build(drain_seconds=5)
    await server.start()
    wire = await websocket(server)
    await wire.open("u", "total")
    assert await wire.silent()
    stopping = asyncio.create_task(server.stop())
    while not server._hub.draining:
        await asyncio.sleep(0.001)
    await wire.request("r", "same")
    await wire.open("s", "count")
    errors = [await wire.receive(), await wire.receive()]
    assert [(error["type"], error["payload"]["code"]) for error in errors] == [
        ("error", "UNAVAILABLE"),
        ("stream:error", "UNAVAILABLE"),
    ]
    await wire.finish("u")
    await wire.rest()
    await stopping


RELOADED = """
    import asyncio

    async def handler(input, ctx):
        yield ["old", input, ctx.last_event_id]
        await asyncio.Event().wait()
"""


async def test_in_development_a_reload_puts_a_stream_on_new_code(serve, project, websocket):
    server = await serve({"a.stream.py": RELOADED}, development=True)
    wire = await websocket(server)
    await wire.open("s", "a", {"x": 1})
    assert (await wire.receive())["payload"] == ["old", {"x": 1}, None]
    project({"routes/a.stream.py": RELOADED.replace("old", "new")})
    await server.reload()
    assert await wire.receive() == {"type": "stream:data", "id": "s", "payload": ["new", {"x": 1}, None]}


async def test_a_route_that_is_gone_ends_its_streams(serve, project, websocket):
    server = await serve({"a.stream.py": RELOADED, "b.stream.py": RELOADED}, development=True)
    wire = await websocket(server)
    await wire.open("s", "a")
    await wire.receive()
    project({"routes/a.stream.py": None})
    await server.reload()
    error = await wire.receive()
    assert (error["type"], error["payload"]["code"]) == ("stream:error", "UNAVAILABLE")
    assert error["payload"]["details"] == {"reason": "reloaded"}
    await wire.open("s", "a")
    assert (await wire.receive())["payload"]["code"] == "NOT_FOUND"
    await wire.open("s", "b")
    assert (await wire.receive())["type"] == "stream:data"


async def test_in_production_a_stream_finishes_on_its_old_code(serve, project, websocket):
    source = "async def handler(items):\n    return ['old', [item async for item in items]]\n"
    source = "meta = {'direction': 'client'}\n" + source
    server = await serve({"a.stream.py": source})
    wire = await websocket(server)
    await wire.open("u", "a")
    await wire.item("u", 1)
    project({"routes/a.stream.py": source.replace("old", "new")})
    await server.reload()
    await wire.open("v", "a")
    await wire.finish("v")
    assert (await wire.receive())["payload"] == ["new", []]
    await wire.finish("u")
    assert (await wire.receive())["payload"] == ["old", [1]]
