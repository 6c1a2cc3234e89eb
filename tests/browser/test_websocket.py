"""Chromium's own WebSocket against a real server: what a page can do with envelopes."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from raffel_core.server import Server

_spec = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
assert _spec is not None and _spec.loader is not None
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DIAL = (Path(__file__).parents[1] / "envelopes" / "dial.js").read_text()

ROUTES = {
    "add.rpc.py": "async def handler(input):\n    return input['a'] + input['b']\n",
    "headers.rpc.py": "async def handler(input, ctx):\n    return dict(ctx.metadata)\n",
    "count.stream.py": "async def handler(input):\n    for n in range(input['to']):\n        yield n\n",
    "total.stream.py": """
        meta = {"direction": "client"}

        async def handler(items):
            return sum([item async for item in items])
        """,
    "echo.stream.py": """
        meta = {"direction": "bidi"}

        async def handler(items):
            async for item in items:
                yield item
        """,
    "mirror.stream.py": """
        from collections.abc import AsyncIterator

        meta = {"direction": "bidi"}

        async def handler(items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for item in items:
                yield item
        """,
    "wait.stream.py": """
        import asyncio

        async def handler(input, ctx):
            reasons = ctx.app.state.__dict__.setdefault("reasons", [])
            try:
                yield "waiting"
                await asyncio.Event().wait()
            finally:
                reasons.append(ctx.signal.reason)
        """,
}


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium.find(), args=ARGUMENTS)
        yield await browser.new_page()
        await browser.close()


async def run(page: Page, server: Server, body: str, *, of: Server | None = None) -> Any:
    """Runs the body of an async function that knows `url` and `dial`, in a page of the server or of another one."""
    if not page.url.startswith((of or server).url):
        await page.goto(f"{(of or server).url}/health")
    url = server.url.replace("http", "ws", 1) + "/ws"
    async with asyncio.timeout(15):
        return await page.evaluate(f"async (url) => {{ {DIAL}\n {body} }}", url)


def reasons(server: Server) -> list[str]:
    assert server._hub is not None
    return list(server._hub.app.state.__dict__.get("reasons", []))


async def ended(server: Server, reason: str) -> None:
    async with asyncio.timeout(10):
        while reasons(server) != [reason]:
            await asyncio.sleep(0.01)


async def test_all_four_kinds(serve: Any, page: Page) -> None:
    result = await run(
        page,
        await serve(ROUTES),
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
    )
    assert result == {
        "unary": {"type": "response", "id": "r", "payload": 3},
        "stream": [
            {"type": "stream:data", "id": "s", "payload": 0},
            {"type": "stream:data", "id": "s", "payload": 1},
            {"type": "stream:end", "id": "s"},
        ],
        "upload": {"type": "response", "id": "u", "payload": 3},
        "echo": {"type": "stream:data", "id": "b", "payload": "é🦜"},
        "end": {"type": "stream:end", "id": "b"},
    }


async def test_binary_both_ways(serve: Any, page: Page) -> None:
    result = await run(
        page,
        await serve(ROUTES),
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
    )
    assert result == [[True, 0, True], [True, 3, True], [True, 70000, True]]


async def test_a_cancel_ends_the_call_and_not_the_connection(serve: Any, page: Page) -> None:
    server = await serve(ROUTES)
    result = await run(
        page,
        server,
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "wait" });
        await wire.receive();
        wire.send({ type: "cancel", id: "s" });
        const cancelled = await wire.receive();
        wire.send({ type: "request", id: "s", procedure: "add", payload: { a: 1, b: 2 } });
        return [cancelled.type, cancelled.payload.code, (await wire.receive()).payload];
        """,
    )
    assert result == ["stream:error", "CANCELLED", 3]
    assert reasons(server) == ["client_cancelled"]


async def test_what_is_negotiated(serve: Any, page: Page) -> None:
    result = await run(
        page,
        await serve(ROUTES),
        """
        const agreed = async (...protocols) => {
            const wire = dial(WebSocket, url, ...protocols);
            return [await wire.opened, wire.socket.protocol, wire.socket.extensions];
        };
        return [await agreed("raffel.v1"), await agreed(["other", "raffel.v1"]), await agreed()];
        """,
    )
    assert result == [[True, "raffel.v1", ""], [True, "raffel.v1", ""], [True, "", ""]]


async def test_a_cookie_of_the_page_is_metadata(serve: Any, page: Page) -> None:
    result = await run(
        page,
        await serve(ROUTES),
        """
        document.cookie = "session=42";
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "request", id: "r", procedure: "headers", metadata: { "X-Trace": 7 } });
        const { cookie, origin, "x-trace": trace } = (await wire.receive()).payload;
        return [cookie, origin === location.origin, trace];
        """,
    )
    assert result == ["session=42", True, "7"]


async def test_a_page_of_somebody_elses_is_refused(serve: Any, page: Page) -> None:
    server, other = await serve(ROUTES), await serve({})
    script = "const wire = dial(WebSocket, url); return [await wire.opened, (await wire.closed).code];"
    assert await run(page, server, script, of=other) == [False, 1006]


async def test_one_of_an_allowed_origin_is_not(serve: Any, page: Page) -> None:
    other = await serve({})
    server = await serve(ROUTES, cors={"origins": [other.url]})
    assert await run(page, server, "return dial(WebSocket, url).opened;", of=other) is True


async def test_a_close_of_the_page_is_answered(serve: Any, page: Page) -> None:
    server = await serve(ROUTES)
    result = await run(
        page,
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
        wire.send({ type: "stream:start", id: "s", procedure: "wait" });
        await wire.receive();
        wire.socket.close();
        ends.push((await wire.closed).wasClean);
        return ends;
        """,
    )
    assert result == [*({"code": code, "wasClean": True} for code in (1000, 3000, 4999)), True]
    await ended(server, "client_disconnected")


@pytest.mark.parametrize(("development", "code"), [(False, 1012), (True, 1001)])
async def test_a_server_that_ends_says_so(serve: Any, page: Page, development: bool, code: int) -> None:
    server = await serve(ROUTES, development=development)
    await run(
        page,
        server,
        """
        const wire = window.wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "wait" });
        await wire.receive();
        """,
    )
    await server.stop()
    result = await page.evaluate(
        "async () => [(await wire.until()).map((message) => message?.payload.code ?? null), await wire.closed]"
    )
    assert result == [["UNAVAILABLE", None], {"code": code, "wasClean": True}]


async def test_too_large_a_message_says_so(serve: Any, page: Page) -> None:
    result = await run(
        page,
        await serve(ROUTES, limits={"message_bytes": 1000}),
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        wire.socket.send("x".repeat(100000));
        return [(await wire.receive()).payload.code, (await wire.closed).code];
        """,
    )
    assert result == ["MESSAGE_TOO_LARGE", 1009]


async def test_a_page_that_answers_pings_stays(serve: Any, page: Page) -> None:
    result = await run(
        page,
        await serve(ROUTES, heartbeat_seconds={"websocket": 0.1}),
        """
        const wire = dial(WebSocket, url);
        await wire.opened;
        await new Promise((resolve) => setTimeout(resolve, 500));
        wire.send({ type: "request", id: "r", procedure: "add", payload: { a: 1, b: 2 } });
        return (await wire.receive())?.payload;
        """,
    )
    assert result == 3


async def test_closing_the_tab_runs_finally(serve: Any, page: Page) -> None:
    server = await serve(ROUTES)
    await run(
        page,
        server,
        """
        const wire = window.wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "wait" });
        await wire.receive();
        """,
    )
    await page.close()
    await ended(server, "client_disconnected")


async def test_a_reload_is_seen_by_an_open_tab_as_new_items_and_nothing_else(
    serve: Any, page: Page, project: Any
) -> None:
    server = await serve(ROUTES, development=True)
    await run(
        page,
        server,
        """
        const wire = window.wire = dial(WebSocket, url);
        await wire.opened;
        wire.send({ type: "stream:start", id: "s", procedure: "wait" });
        await wire.receive();
        """,
    )
    project({"routes/wait.stream.py": ROUTES["wait.stream.py"].replace('"waiting"', '"anew"')})
    await server.reload()
    assert await page.evaluate("wire.receive()") == {"type": "stream:data", "id": "s", "payload": "anew"}
