"""Chromium's own EventSource against a real server: what a browser tab sees."""

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

WATCH = """(path) => {
    const seen = window.seen = {items: [], ids: [], opened: 0, errors: 0, named: []};
    const source = window.source = new EventSource(path);
    source.onopen = () => seen.opened++;
    source.onmessage = (event) => { seen.items.push(JSON.parse(event.data)); seen.ids.push(event.lastEventId); };
    source.addEventListener("end", (event) => seen.named.push(["end", event.data]));
    source.addEventListener("error", (event) => event.data === undefined ? seen.errors++
                                                                       : seen.named.push(["error", event.data]));
}"""

COUNTED = """
    import asyncio
    from raffel_core import Event, RaffelError, tracked

    async def handler(input, ctx):
        calls = ctx.app.state.__dict__.setdefault("calls", [])
        calls.append(ctx.last_event_id)
"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium.find(), args=ARGUMENTS)
        yield await browser.new_page()
        await browser.close()


async def watch(page: Page, server: Server, path: str) -> None:
    """Opens an EventSource in a page of the server's own origin."""
    await page.goto(f"{server.url}/health")
    await page.evaluate(WATCH, path)


async def seen(page: Page, condition: str) -> dict[str, Any]:
    """What the page has seen, once the condition on it is true."""
    await page.wait_for_function(f"() => {{ const seen = window.seen; return {condition}; }}", timeout=15_000)
    result: dict[str, Any] = await page.evaluate("window.seen")
    return result


def calls(server: Server) -> list[str | None]:
    """The Last-Event-ID of every time that the handler was called."""
    assert server._hub is not None
    return list(server._hub.app.state.__dict__.get("calls", []))


def cut(server: Server) -> None:
    """Resets every connection, as a network that fails does."""
    assert server._hub is not None
    for connection in list(server._hub.connections):
        connection.abort()


async def test_items_arrive_as_messages(serve: Any, page: Page) -> None:
    server = await serve({"a.stream.py": COUNTED + "        yield {'n': 1}\n        yield {'n': 2}\n"})
    await watch(page, server, "/streams/a")
    result = await seen(page, "seen.named.length == 1")
    assert result["items"] == [{"n": 1}, {"n": 2}]
    assert result["named"] == [["end", "{}"]]


async def test_a_finished_stream_stays_finished(serve: Any, page: Page) -> None:
    server = await serve({"a.stream.py": COUNTED + "        yield Event(1, retry=50)\n"})
    answers = []
    page.on("response", lambda response: answers.append(response.status) if "/streams/" in response.url else None)
    await watch(page, server, "/streams/a")
    # Chromium opens it once more, with the id of the end, is answered 204 and gives up.
    await page.wait_for_function("() => window.source.readyState === EventSource.CLOSED", timeout=15_000)
    assert answers == [200, 204]
    assert calls(server) == [None]
    assert (await page.evaluate("window.seen"))["items"] == [1]


async def test_a_cut_connection_is_resumed_after_the_last_id(serve: Any, page: Page) -> None:
    source = (
        COUNTED
        + """
        start = int(ctx.last_event_id or 0)
        yield Event(start + 1, id=start + 1, retry=50)
        yield tracked(start + 2, start + 2)
        await asyncio.Event().wait()
    """
    )
    server = await serve({"a.stream.py": source})
    await watch(page, server, "/streams/a")
    await seen(page, "seen.items.length == 2")
    cut(server)
    result = await seen(page, "seen.items.length == 4")
    assert result["items"] == [1, 2, 3, 4]
    assert result["ids"] == ["1", "2", "3", "4"]
    assert calls(server) == [None, "2"]


async def test_a_drained_stream_ends_without_an_end_and_the_browser_comes_back(
    serve: Any, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raffel_core.protocols.sse.RETRY_MS", (1000, 1001))
    source = (
        COUNTED
        + """
        yield tracked(7, "first")
        await asyncio.Event().wait()
    """
    )
    server = await serve({"a.stream.py": source})
    await watch(page, server, "/streams/a")
    await seen(page, "seen.items.length == 1")
    port = server.port
    await server.stop()
    again = await serve({"a.stream.py": source}, port=port)
    result = await seen(page, "seen.items.length == 2")
    assert result["named"] == []
    assert calls(again) == ["7"]


async def test_an_error_is_final_unless_it_may_be_tried_again(serve: Any, page: Page) -> None:
    source = COUNTED + "        yield Event(1, retry=50)\n        raise RaffelError('NOT_FOUND', 'gone')\n"
    server = await serve({"a.stream.py": source})
    await watch(page, server, "/streams/a")
    await page.wait_for_function("() => window.source.readyState === EventSource.CLOSED", timeout=15_000)
    result = await page.evaluate("window.seen")
    assert result["named"] == [["error", '{"code":"NOT_FOUND","message":"gone"}']]
    assert calls(server) == [None]


async def test_after_an_error_that_may_be_tried_again_the_browser_does(serve: Any, page: Page) -> None:
    source = (
        COUNTED
        + """
        yield Event(len(calls), id=len(calls), retry=50)
        if len(calls) == 1:
            raise RaffelError('UNAVAILABLE', 'in a moment')
        await asyncio.Event().wait()
    """
    )
    server = await serve({"a.stream.py": source})
    await watch(page, server, "/streams/a")
    result = await seen(page, "seen.items.length == 2")
    assert result["named"] == [["error", '{"code":"UNAVAILABLE","message":"in a moment"}']]
    assert calls(server) == [None, "1"]


async def test_a_reload_is_seen_by_an_open_tab_as_new_items_and_nothing_else(
    serve: Any, page: Page, project: Any
) -> None:
    source = COUNTED + "        yield 'old'\n        await asyncio.Event().wait()\n"
    server = await serve({"a.stream.py": source}, development=True)
    await watch(page, server, "/streams/a")
    await seen(page, "seen.items.length == 1")
    project({"routes/a.stream.py": source.replace("old", "new")})
    await server.reload()
    result = await seen(page, "seen.items.length == 2")
    assert result["items"] == ["old", "new"]
    assert (result["opened"], result["errors"]) == (1, 0)


async def test_closing_the_tab_runs_finally(serve: Any, page: Page) -> None:
    source = (
        COUNTED
        + """
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            calls.append(ctx.signal.reason)
    """
    )
    server = await serve({"a.stream.py": source})
    await watch(page, server, "/streams/a")
    await seen(page, "seen.items.length == 1")
    await page.close()
    async with asyncio.timeout(5):
        while calls(server) != [None, "client_disconnected"]:
            await asyncio.sleep(0.01)
