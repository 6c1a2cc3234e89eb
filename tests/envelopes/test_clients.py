"""Clients that others wrote: npm's `ws`, and the WebSocket that Node has by itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("node", Path(__file__).with_name("node.py"))
assert _spec is not None and _spec.loader is not None
node = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(node)

PATIENCE = 20.0
DIAL = Path(__file__).with_name("dial.js").read_text()
CLIENTS = {"ws": 'require("ws")', "node": "globalThis.WebSocket"}

Run = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="session")
def package() -> None:
    if not node.installed():
        node.install()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, package: None) -> str:
    """What a script calls WebSocket."""
    return CLIENTS[request.param]


@pytest.fixture
async def run(package: None) -> Any:
    """Runs a script in Node, the body of an async function that knows `url` and `dial`; returns what it returns."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(server, body: str, client: str = CLIENTS["ws"]) -> Any:
        url = server.url.replace("http", "ws", 1) + "/ws"
        script = f"""
            {DIAL}
            (async (WebSocket, url) => {{ {body} }})({client}, {json.dumps(url)}).then((result) => {{
                console.log(JSON.stringify(result ?? null));
                process.exit();
            }});
        """
        process = await asyncio.create_subprocess_exec(
            *(node.NODE, "-e", script),
            env={**os.environ, "NODE_PATH": str(node.FOLDER / "node_modules"), "NODE_NO_WARNINGS": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        async with asyncio.timeout(PATIENCE):
            output, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        return json.loads(output)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_all_four_kinds(server, run, client):
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "request", id: "r", procedure: "add", payload: { a: 1, b: 2 } });
        const unary = await wire.receive();
        wire.send({ type: "stream:start", id: "s", procedure: "count", payload: { to: 2 } });
        const stream = await wire.until("stream:end");
        const item = (id, payload) => ({ type: "stream:data", id, payload });
        wire.send({ type: "stream:start", id: "u", procedure: "total" });
        wire.send(item("u", 1), item("u", 2), { type: "stream:end", id: "u" });
        const upload = await wire.receive();
        wire.send({ type: "stream:start", id: "b", procedure: "echo" }, item("b", "é🦜"));
        const echo = await wire.receive();
        wire.send({ type: "stream:end", id: "b" });
        return { unary, stream, upload, echo, end: await wire.receive() };
        """,
        client,
    )
    assert result == {
        "unary": {"type": "response", "id": "r", "payload": 3},
        "stream": [
            {"type": "stream:data", "id": "s", "payload": {"n": 0}},
            {"type": "stream:data", "id": "s", "payload": {"n": 1}},
            {"type": "stream:end", "id": "s"},
        ],
        "upload": {"type": "response", "id": "u", "payload": {"total": 3, "input": {}}},
        "echo": {"type": "stream:data", "id": "b", "payload": "é🦜"},
        "end": {"type": "stream:end", "id": "b"},
    }


async def test_binary_both_ways(server, run, client):
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "b", procedure: "mirror", binary: true });
        const seen = [];
        for (const payload of [[], [0, 1, 255], new Array(70000).fill(7)]) {
            wire.sendBytes({ type: "stream:data", id: "b" }, payload);
            const { binary, payload: back } = await wire.receive();
            seen.push([binary, back.length, back.every((byte, at) => byte === payload[at])]);
        }
        return seen;
        """,
        client,
    )
    assert result == [[True, 0, True], [True, 3, True], [True, 70000, True]]


async def test_cancel_and_errors(server, run, client):
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "wait" });
        await wire.receive();
        wire.send({ type: "cancel", id: "s" });
        const cancelled = await wire.receive();
        wire.send({ type: "stream:start", id: "s", procedure: "nowhere" });
        const unknown = await wire.receive();
        wire.socket.send("{");
        const broken = await wire.receive();
        return [cancelled, unknown, broken].map(({ type, id, payload }) => [type, id ?? null, payload.code]);
        """,
        client,
    )
    assert result == [
        ["stream:error", "s", "CANCELLED"],
        ["stream:error", "s", "NOT_FOUND"],
        ["error", None, "PARSE_ERROR"],
    ]


async def test_what_is_negotiated(server, run, client):
    result = await run(
        server,
        """
        const agreed = async (...protocols) => {
            const wire = dial(WebSocket, url, ...protocols);
            await wire.opened;
            return [wire.socket.protocol, wire.socket.extensions];
        };
        return [await agreed("raffel.v1"), await agreed(["other", "raffel.v1"]), await agreed()];
        """,
        client,
    )
    assert result == [["raffel.v1", ""], ["raffel.v1", ""], ["", ""]]


async def test_a_close_of_the_clients(server, run, client):
    result = await run(
        server,
        """
        const ends = [];
        for (const code of [1000, 3000, 4999]) {
            const wire = dial(WebSocket, url);
            await wire.opened;
            wire.socket.close(code, "goodbye");
            ends.push(await wire.closed);
        }
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.socket.close();
        await wire.closed;
        return ends;
        """,
        client,
    )
    assert result == [{"code": code, "wasClean": True} for code in (1000, 3000, 4999)]


async def test_too_large_a_message(build, run, client):
    server = build(limits={"message_bytes": 1000})
    await server.start()
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.socket.send("x".repeat(100000));
        return { messages: (await wire.until()).map((message) => message?.payload.code ?? null),
                 code: (await wire.closed).code };
        """,
        client,
    )
    assert result == {"messages": ["MESSAGE_TOO_LARGE", None], "code": 1009}


@pytest.mark.parametrize(("development", "code"), [(False, 1012), (True, 1001)])
async def test_a_server_that_ends(build, run, client, eventually, development, code):
    server = build(development=development)
    await server.start()
    running = asyncio.create_task(
        run(
            server,
            """
            const wire = dial(WebSocket, url);
            await wire.opened;
            wire.send({ type: "stream:start", id: "s", procedure: "wait" });
            const messages = await wire.until();
            return { messages: messages.map((message) => message?.type ?? null), ...(await wire.closed) };
            """,
            client,
        )
    )
    await eventually(lambda: server._hub.sessions)
    await asyncio.sleep(0.05)
    await server.stop()
    result = await running
    assert result == {"messages": ["stream:data", "stream:error", None], "code": code, "wasClean": True}


async def test_a_client_that_answers_pings_stays(build, run, client):
    server = build(heartbeat_seconds={"websocket": 0.1})
    await server.start()
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        await new Promise((resolve) => setTimeout(resolve, 500));
        wire.send({ type: "request", id: "r", procedure: "same", payload: "still here" });
        return wire.receive();
        """,
        client,
    )
    assert result == {"type": "response", "id": "r", "payload": "still here"}


async def test_a_client_that_is_killed_ends_its_calls(build, run, client, eventually):
    server, reasons = build(), []

    @server.stream("watched")
    async def watched(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            reasons.append(ctx.signal.reason)

    await server.start()
    await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "watched" });
        return wire.receive();
        """,
        client,
    )
    await eventually(lambda: reasons == ["client_disconnected"])


async def test_a_client_that_has_fallen_behind_gets_every_item(server, run, client):
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "count", payload: { to: 3000, size: 2000 } });
        await wire.receive();
        const until = Date.now() + 100;
        while (Date.now() < until);
        const items = (await wire.until("stream:end")).slice(0, -1);
        return items.every(({ payload }, at) => payload.n === at + 1) && items.length;
        """,
        client,
    )
    assert result == 2999


async def test_ws_in_fragments_with_a_ping_between_them(server, run):
    result = await run(
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        const text = JSON.stringify({ type: "request", id: "r", procedure: "same", payload: "é🦜" });
        const ponged = new Promise((resolve) => wire.socket.on("pong", (data) => resolve(String(data))));
        wire.socket.send(text.slice(0, 20), { fin: false });
        wire.socket.ping("hello");
        wire.socket.send(text.slice(20, 30), { fin: false });
        wire.socket.send(text.slice(30), { fin: true });
        return [await ponged, (await wire.receive()).payload];
        """,
    )
    assert result == ["hello", "é🦜"]


async def test_ws_is_told_why_it_is_refused(server, run):
    result = await run(
        server,
        """
        const refused = (address, options) => new Promise((resolve) => {
            const socket = new WebSocket(address, options);
            socket.on("unexpected-response", (request, response) => resolve(response.statusCode));
            socket.on("open", () => resolve(101));
        });
        return [
            await refused(url, { origin: "https://evil.com" }),
            await refused(url + "x"),
            await refused(url, { protocolVersion: 8 }),
            await refused(url, { headers: { "timeout-ms": "1" } }),
        ];
        """,
    )
    assert result == [403, 404, 426, 101]
