"""What is special to TCP: the length before each message, the port, and an end that is a FIN."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import time

import pytest

ADD = {"type": "request", "id": "1", "procedure": "add", "payload": {"a": 1, "b": 2}}
ADDED = {"type": "response", "id": "1", "payload": 3}
LARGEST = 0xFF_FFFF
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def framed(message: dict | bytes) -> bytes:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def code(message: dict) -> tuple[str, str | None, str]:
    """The type, the id and the code of an error."""
    return message["type"], message.get("id"), message["payload"]["code"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


async def all_of(wire) -> bytes:
    """Every byte up to the end."""
    async with asyncio.timeout(10):
        try:
            return await wire.reader.read()
        except ConnectionResetError:
            return b""


@pytest.fixture
def watched():
    """Adds a server stream that tells why it ended."""

    def add(server) -> list:
        reasons = []

        @server.stream("watched")
        async def handler(input, ctx):
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                reasons.append(ctx.signal.reason)

        return reasons

    return add


# The port


async def test_the_first_byte_decides_on_the_shared_port(server, tcp, websocket):
    wire, page, other = await tcp(server), await tcp(server), await websocket(server)
    page.raw(GET)
    assert (await all_of(page)).startswith(b"HTTP/1.1 200 ")
    assert await wire.silent()
    assert await other.silent()


async def test_a_first_byte_alone_is_enough(server, tcp):
    wire = await tcp(server)
    wire.raw(b"\0")
    await asyncio.sleep(0.01)
    wire.raw(framed(ADD)[1:])
    assert await wire.receive() == ADDED


@pytest.mark.parametrize("first", [0x01, 0x0A, 0x20, 0x40, 0x5B, 0x61, 0x80, 0xFF])
async def test_any_other_first_byte_is_closed(server, tcp, first):
    wire = await tcp(server)
    wire.raw(bytes([first]) + framed(ADD))
    assert await all_of(wire) == b""


async def test_tcp_may_have_a_port_of_its_own(build, tcp):
    port = free_port()
    server = build(tcp={"port": port})
    await server.start()
    assert await (await tcp(server, port)).silent()


async def test_then_the_shared_port_has_it_no_more(build, tcp):
    server = build(tcp={"port": free_port()})
    await server.start()
    wire = await tcp(server)
    wire.raw(framed(ADD))
    assert await all_of(wire) == b""


async def test_then_its_own_port_has_nothing_else(build, tcp, websocket):
    port = free_port()
    server = build(tcp={"port": port})
    await server.start()
    wire = await tcp(server, port)
    wire.raw(GET)
    assert await all_of(wire) == b""
    assert await (await websocket(server)).silent()


async def test_then_both_are_closed_at_the_end(build, tcp):
    port = free_port()
    server = build(tcp={"port": port})
    await server.start()
    wire = await tcp(server, port)
    assert await wire.silent()
    shared = server.port
    await server.stop()
    assert await wire.rest() == []
    for closed in (port, shared):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", closed)


async def test_port_0_is_a_free_port_of_its_own(build, tcp):
    server = build(tcp={"port": 0})
    await server.start()
    ports = {sock.getsockname()[1] for listener in server._listeners for sock in listener.sockets}
    assert len(ports) == 2
    (own,) = ports - {server.port}
    assert await (await tcp(server, own)).silent()


async def test_tcp_may_be_switched_off(build, tcp, websocket):
    server = build(tcp=False)
    await server.start()
    wire = await tcp(server)
    wire.raw(framed(ADD))
    assert await all_of(wire) == b""
    assert await (await websocket(server)).silent()


@pytest.mark.parametrize("own", [False, True])
async def test_tcp_over_tls(build, tcp, identity, own):
    port = free_port() if own else None
    server = build(tls=identity.options, tcp={"port": port})
    await server.start()
    wire = await tcp(server, port, ssl=identity.client(), server_hostname="localhost")
    await wire.open("s", "count", {"to": 3, "size": 100_000})
    assert [message.get("payload", {}).get("n") for message in await wire.until("stream:end")] == [0, 1, 2, None]
    assert await wire.silent()


async def test_over_tls_a_client_that_leaves_is_seen(build, tcp, identity, watched, eventually):
    server = build(tls=identity.options)
    reasons = watched(server)
    await server.start()
    wire = await tcp(server, ssl=identity.client(), server_hostname="localhost")
    await wire.open("s", "watched")
    await wire.receive()
    wire.vanish()
    await eventually(lambda: reasons == ["client_disconnected"])


async def test_over_tls_too_a_drain_ends_with_an_error(build, tcp, identity):
    server = build(tls=identity.options)
    await server.start()
    wire = await tcp(server, ssl=identity.client(), server_hostname="localhost")
    await wire.open("s", "wait")
    await wire.receive()
    stopping = asyncio.create_task(server.stop())
    assert [code(message) for message in await wire.rest()] == [("stream:error", "s", "UNAVAILABLE")]
    await stopping


# Lengths


async def test_a_message_of_no_bytes_is_no_json(server, tcp):
    wire = await tcp(server)
    wire.raw(b"\0\0\0\0" * 3)
    assert [code(await wire.receive()) for _ in range(3)] == [("error", None, "PARSE_ERROR")] * 3
    assert await wire.silent()


async def test_a_message_may_have_16777215_bytes_where_the_limit_is_higher(build, tcp):
    server = build(limits={"message_bytes": 2**25})
    await server.start()
    wire = await tcp(server)
    message = json.dumps({**ADD, "ignored": ""})
    await wire.send(message.replace('""', '"%s"' % ("." * (LARGEST - len(message)))))
    assert await wire.receive() == ADDED


async def test_one_byte_more_is_too_large_whatever_the_limit_is(build, tcp):
    server = build(limits={"message_bytes": 2**25})
    await server.start()
    wire = await tcp(server)
    assert await wire.silent()
    wire.raw((LARGEST + 1).to_bytes(4, "big"))
    assert [code(message) for message in await wire.rest()] == [("error", None, "MESSAGE_TOO_LARGE")]


@pytest.mark.parametrize("size", [1024 * 1024 + 1, LARGEST])
async def test_a_length_beyond_the_limit_is_an_error_and_the_end(server, tcp, size):
    wire = await tcp(server)
    wire.raw(size.to_bytes(4, "big"))
    assert [code(message) for message in await wire.rest()] == [("error", None, "MESSAGE_TOO_LARGE")]


async def test_the_error_reaches_a_client_that_goes_on_sending(build, tcp):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    wire = await tcp(server)
    wire.raw(framed(b"x" * 5_000_000))
    assert code(await wire.receive()) == ("error", None, "MESSAGE_TOO_LARGE")
    wire.raw(framed(b"x" * 1000) * 100)
    assert await wire.rest() == []


async def test_messages_may_come_byte_by_byte(server, tcp):
    wire = await tcp(server)
    for byte in framed(ADD) + framed(b"") + framed({**ADD, "id": "2"}):
        wire.raw(bytes([byte]))
        await asyncio.sleep(0)
    answers = [await wire.receive() for _ in range(3)]
    assert sorted(message["type"] for message in answers) == ["error", "response", "response"]


async def test_messages_may_be_split_anywhere(server, tcp):
    wire = await tcp(server)
    messages = framed(ADD) + framed({**ADD, "id": "2"})
    for at in range(1, len(messages)):
        wire.raw(messages[:at])
        await asyncio.sleep(0)
        wire.raw(messages[at:])
        assert [await wire.receive() for _ in range(2)] == [ADDED, {**ADDED, "id": "2"}]


async def test_many_messages_may_come_in_one_packet(server, tcp):
    wire = await tcp(server)
    wire.raw(framed(b"x") * 1000 + framed(ADD))
    answers = [await wire.receive() for _ in range(1001)]
    assert sum(message["type"] == "error" for message in answers) == 1000
    assert ADDED in answers


async def test_a_message_in_many_pieces_is_put_together(server, tcp):
    wire = await tcp(server)
    text = "." * 1_000_000
    message = framed({"type": "request", "id": "1", "procedure": "same", "payload": text})
    for at in range(0, len(message), 10_000):
        wire.raw(message[at : at + 10_000])
        await asyncio.sleep(0)
    assert (await wire.receive())["payload"] == text


# FIN


async def test_a_fin_is_a_disconnect(build, tcp, watched, eventually):
    server = build()
    reasons = watched(server)
    await server.start()
    wire = await tcp(server)
    await wire.open("s", "watched")
    await wire.receive()
    wire.half_close()
    assert await wire.rest() == []
    await eventually(lambda: reasons == ["client_disconnected"])


async def test_so_is_an_rst(build, tcp, watched, eventually):
    server = build()
    reasons = watched(server)
    await server.start()
    wire = await tcp(server)
    await wire.open("s", "watched")
    await wire.receive()
    sock = wire.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.transport.abort()
    await eventually(lambda: reasons == ["client_disconnected"])


async def test_the_half_close_of_a_stream_is_its_end(server, tcp):
    wire = await tcp(server)
    await wire.open("u", "total")
    await wire.item("u", 1)
    await wire.finish("u")
    assert (await wire.receive())["payload"]["total"] == 1
    assert await wire.silent()


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0\x05", b"\0\0\0\x05{}"], ids=repr)
async def test_a_fin_in_the_middle_of_a_message_is_the_end(server, tcp, part):
    wire = await tcp(server)
    assert await wire.silent()
    wire.raw(part)
    wire.half_close()
    assert await wire.rest() == []


# Time


async def test_who_never_says_anything_is_closed(build, tcp):
    server = build(limits={"request_seconds": 0.1})
    await server.start()
    wire, began = await tcp(server), time.monotonic()
    assert await all_of(wire) == b""
    assert time.monotonic() - began > 0.05


@pytest.mark.parametrize("part", [b"\0", framed(ADD)[:-1]], ids=["one byte", "all but a byte"])
async def test_the_first_message_must_be_complete_in_time(build, tcp, part, caplog):
    server = build(limits={"request_seconds": 0.1})
    await server.start()
    wire, began = await tcp(server), time.monotonic()
    await asyncio.sleep(0.05)
    wire.raw(part)
    assert await all_of(wire) == b""
    assert time.monotonic() - began < 1
    assert "not complete in time" in caplog.text


async def test_one_that_comes_too_slowly_is_closed_too(build, tcp):
    server = build(limits={"request_seconds": 0.1})
    await server.start()
    wire, began = await tcp(server), time.monotonic()
    ending = asyncio.create_task(all_of(wire))
    for byte in framed({**ADD, "ignored": "." * 10_000}):
        wire.raw(bytes([byte]))
        await asyncio.sleep(0.005)
        if ending.done():
            break
    assert ending.result() == b""
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("part", [b"\0", b"\0\0\0", framed(ADD)[:-1]], ids=["one byte", "three", "all but a byte"])
async def test_a_later_message_must_be_complete_in_time(build, tcp, watched, part, eventually):
    server = build(limits={"request_seconds": 0.1})
    reasons = watched(server)
    await server.start()
    wire = await tcp(server)
    await wire.open("s", "watched")
    await wire.receive()
    wire.raw(part)
    assert await wire.rest() == []
    await eventually(lambda: reasons == ["client_disconnected"])


async def test_between_messages_there_is_all_the_time(build, tcp):
    server = build(limits={"request_seconds": 0.1})
    await server.start()
    wire = await tcp(server)
    assert await wire.silent()
    await asyncio.sleep(0.3)
    assert await wire.silent()


async def test_each_message_has_its_time(build, tcp):
    server = build(limits={"request_seconds": 0.2})
    await server.start()
    wire = await tcp(server)
    message = framed(ADD)
    wire.raw(message[:5])
    for _ in range(8):
        await asyncio.sleep(0.05)
        wire.raw(message[5:] + message[:5])
        assert await wire.receive() == ADDED
    wire.raw(message[5:])
    assert await wire.receive() == ADDED


# Probes


@pytest.mark.parametrize("reset", [False, True])
async def test_a_probe_is_not_logged(server, tcp, caplog, reset):
    caplog.set_level(logging.INFO, "raffel")
    caplog.set_level(logging.INFO, "asyncio")
    wire = await tcp(server)
    for _ in range(3):
        probe = socket.create_connection(("127.0.0.1", server.port))
        assert await wire.silent()  # who came later has been answered: the probe has been accepted
        if reset:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        probe.close()
    assert await wire.silent()
    assert caplog.records == []


async def test_nor_is_one_of_the_port_of_its_own(build, tcp, caplog):
    caplog.set_level(logging.INFO, "raffel")
    port = free_port()
    server = build(tcp={"port": port})
    await server.start()
    wire = await tcp(server, port)
    socket.create_connection(("127.0.0.1", port)).close()
    assert await wire.silent()
    assert caplog.records == []


async def test_tls_on_a_plain_port_is_closed_and_logged(server, tcp, caplog):
    wire = await tcp(server)
    wire.raw(b"\x16\x03\x01\x00\x05hello")
    assert await all_of(wire) == b""
    assert "TLS" in caplog.text


# Drain and reload


async def test_a_drain_ends_with_an_error_and_then_a_fin(build, tcp, watched):
    server = build()
    reasons = watched(server)
    await server.start()
    wire = await tcp(server)
    await wire.open("s", "watched")
    await wire.receive()
    stopping = asyncio.create_task(server.stop())
    (error,) = await wire.rest()
    assert code(error) == ("stream:error", "s", "UNAVAILABLE")
    assert error["payload"]["details"] == {"reason": "server_draining"}
    assert reasons == ["server_draining"]
    await stopping


@pytest.mark.parametrize("development", [False, True])
async def test_a_drain_closes_who_has_nothing_open(build, tcp, development):
    server = build(development=development, drain_seconds=5)
    await server.start()
    wire = await tcp(server)
    assert await wire.silent()
    began = time.monotonic()
    stopping = asyncio.create_task(server.stop())
    assert await wire.rest() == []
    await wire.close()
    await stopping
    assert time.monotonic() - began < 1


async def test_a_drain_waits_for_what_the_client_is_about(build, tcp):
    server = build(drain_seconds=5)
    await server.start()
    wire = await tcp(server)
    await wire.open("u", "total")
    assert await wire.silent()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.05)
    await wire.item("u", 1)
    await wire.finish("u")
    assert [message.get("payload") for message in await wire.rest()] == [{"total": 1, "input": {}}]
    await wire.close()
    await stopping


async def test_what_does_not_end_in_time_is_told_before_the_cut(build, tcp, caplog):
    server = build(drain_seconds=0.1)
    await server.start()
    wire = await tcp(server)
    await wire.open("u", "total")
    await wire.request("r", "hang")
    assert await wire.silent()
    stopping = asyncio.create_task(server.stop())
    errors = {message["id"]: code(message) for message in await wire.rest()}
    assert errors == {"u": ("stream:error", "u", "UNAVAILABLE"), "r": ("error", "r", "UNAVAILABLE")}
    await stopping
    assert "total" in caplog.text and "hang" in caplog.text


RELOADED = """
    import asyncio

    async def handler(input, ctx):
        yield ["old", input, ctx.last_event_id]
        await asyncio.Event().wait()
"""


async def test_in_development_a_reload_puts_a_stream_on_new_code(serve, project, tcp):
    server = await serve({"a.stream.py": RELOADED}, development=True)
    wire = await tcp(server)
    await wire.open("s", "a", {"x": 1}, lastEventId="7")
    assert (await wire.receive())["payload"] == ["old", {"x": 1}, "7"]
    project({"routes/a.stream.py": RELOADED.replace("old", "new")})
    await server.reload()
    assert await wire.receive() == {"type": "stream:data", "id": "s", "payload": ["new", {"x": 1}, "7"]}


# What is longer than a length can say


@pytest.mark.parametrize("kind", ["request", "stream"])
async def test_an_answer_that_no_length_can_name_is_an_error_of_its_call_alone(build, tcp, kind):
    server = build()

    @server.procedure("vast")
    async def vast():
        return "x" * LARGEST

    @server.stream("vaster")
    async def vaster():
        yield "x"
        yield "x" * LARGEST

    await server.start()
    wire = await tcp(server)
    if kind == "request":
        await wire.request("v", "vast")
    else:
        await wire.open("v", "vaster")
        assert (await wire.receive())["payload"] == "x"
    ended = "error" if kind == "request" else "stream:error"
    assert code(await wire.receive()) == (ended, "v", "MESSAGE_TOO_LARGE")
    await wire.send(ADD)
    assert await wire.receive() == ADDED
