"""Server streams over HTTP: how they are asked for, what their three forms look like, and how they end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from raffel_core.config import Config
from raffel_core.protocols import http as http_module

SSE, NDJSON, BYTES = "text/event-stream", "application/x-ndjson", "application/octet-stream"
END = b"event: end\ndata: {}\nid: raffel:end\n\n"

ECHO = """
async def handler(input, ctx):
    yield input
"""

TYPED = """
import msgspec

class Point(msgspec.Struct):
    x: int

class Query(msgspec.Struct, omit_defaults=True):
    limit: int = 0
    ratio: float = 0.0
    follow: bool = False
    name: str | None = ""
    tags: list[str] = []
    numbers: list[int] = []
    point: Point | None = None
    points: list[Point] = []
    counts: dict[str, int] = {}

async def handler(input: Query, ctx):
    yield input
"""

THREE = """
async def handler(input, ctx):
    for n in range(3):
        yield {"n": n}
"""

WAITING = """
async def handler(input, ctx):
    await ctx.app.state.gate.wait()
    yield 1
"""

OPENING = """
async def handler(input, ctx):
    await ctx.app.state.gate.wait()
    return create_stream()

from raffel_core import create_stream
"""

RESUMED = """
async def handler(input, ctx):
    yield [ctx.last_event_id, input]
"""

CHUNKS = """
output_schema = bytes

async def handler(input, ctx):
    yield b"\\x00\\xff"
    yield b""
    yield b"\\n\\n"
"""

MARKED = """
async def handler(input, ctx):
    ctx.app.state.ran = True
    yield 1
"""


def yielding(*items: str, before: str = "") -> str:
    """A route file that yields these expressions."""
    lines = "".join(f"    yield {item}\n" for item in items)
    imports = "import msgspec\nfrom raffel_core import Event, RaffelError, tracked\n"
    return f"{imports}{before}\nasync def handler(input, ctx):\n{lines}"


def failing(code: str, *items: str) -> str:
    """A route file that yields these expressions and then raises this code."""
    return yielding(*items or ("1",)) + f"    raise RaffelError({code!r}, 'why')\n"


async def items_of(http: httpx.AsyncClient, path: str, **options: Any) -> list[Any]:
    """What a stream yields, as NDJSON."""
    answer = await http.get(path, headers={"Accept": NDJSON}, **options)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def events_of(http: httpx.AsyncClient, path: str) -> list[ServerSentEvent]:
    async with aconnect_sse(http, "GET", path) as source:
        return [event async for event in source.aiter_sse()]


# The query is the input


async def test_get_opens_a_server_stream(serve, client) -> None:
    http = client(await serve({"ticks.stream.py": THREE}))
    events = await events_of(http, "/streams/ticks")
    assert [event.json() for event in events] == [{"n": 0}, {"n": 1}, {"n": 2}, {}]


async def test_curl_reads_a_stream(serve, curl) -> None:
    server = await serve({"ticks.stream.py": THREE})
    assert await curl(f"{server.url}/streams/ticks") == b'data: {"n":0}\n\ndata: {"n":1}\n\ndata: {"n":2}\n\n' + END


async def test_without_a_schema_every_value_stays_a_string(serve, client) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    query = "limit=10&on=true&none=null&object={}&empty="
    values = {"limit": "10", "on": "true", "none": "null", "object": "{}", "empty": ""}
    assert await items_of(http, f"/streams/echo?{query}") == [values]


async def test_no_query_is_an_empty_object(serve, client) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    assert await items_of(http, "/streams/echo") == [{}]


async def test_a_repeated_field_is_a_list(serve, client) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    assert await items_of(http, "/streams/echo?a=1&b=2&a=3") == [{"a": ["1", "3"], "b": "2"}]


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("limit=10", {"limit": 10}),
        ("limit=-1", {"limit": -1}),
        ("ratio=0.5", {"ratio": 0.5}),
        ("ratio=2", {"ratio": 2.0}),
        ("follow=true", {"follow": True}),
        ("follow=1", {"follow": True}),
        ("name=10", {"name": "10"}),
        ("tags=a", {"tags": ["a"]}),
        ("tags=1&tags=2", {"tags": ["1", "2"]}),
        ("numbers=1&numbers=2", {"numbers": [1, 2]}),
    ],
)
async def test_values_are_coerced_to_the_types_of_the_schema(serve, client, query: str, value: object) -> None:
    http = client(await serve({"echo.stream.py": TYPED}))
    assert await items_of(http, f"/streams/echo?{query}") == [value]


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([("point", '{"x":1}')], {"point": {"x": 1}}),
        ([("points", '[{"x":1},{"x":2}]')], {"points": [{"x": 1}, {"x": 2}]}),
        ([("points", '{"x":1}'), ("points", '{"x":2}')], {"points": [{"x": 1}, {"x": 2}]}),
        ([("counts", '{"a":1}')], {"counts": {"a": 1}}),
    ],
)
async def test_a_field_of_objects_takes_json(serve, client, fields: list[tuple[str, str]], value: object) -> None:
    http = client(await serve({"echo.stream.py": TYPED}))
    assert await items_of(http, "/streams/echo", params=fields) == [value]


@pytest.mark.parametrize(
    ("query", "path"),
    [("limit=ten", "limit"), ("limit=1&limit=2", "limit"), ("ratio=nan", "ratio"), ("point=x", "point")],
)
async def test_a_value_that_cannot_be_coerced_is_named(serve, client, query: str, path: str) -> None:
    http = client(await serve({"echo.stream.py": TYPED}))
    answer = await http.get(f"/streams/echo?{query}")
    assert answer.status_code == 400
    assert [fault["path"] for fault in answer.json()["error"]["details"]] == [path]


async def test_the_query_is_decoded(serve, client) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    assert await items_of(http, "/streams/echo?a+b=%C3%A9%26%3D&c=1+2") == [{"a b": "é&=", "c": "1 2"}]


@pytest.mark.parametrize("query", ["a=%ff", "&".join(["a=1"] * 1001)])
async def test_a_query_that_cannot_be_read_is_refused(serve, client, query: str) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    answer = await http.get(f"/streams/echo?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")


async def test_post_takes_the_input_as_json(serve, client) -> None:
    http = client(await serve({"echo.stream.py": TYPED}))
    answer = await http.post("/streams/echo", json={"limit": 3, "points": [{"x": 1}]}, headers={"Accept": NDJSON})
    assert answer.json() == {"limit": 3, "points": [{"x": 1}]}


async def test_post_takes_nothing_from_the_query(serve, client) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    answer = await http.post("/streams/echo?a=1", json={"b": 2}, headers={"Accept": NDJSON})
    assert answer.json() == {"b": 2}


async def test_post_without_a_body_is_an_empty_object(serve, client) -> None:
    http = client(await serve({"echo.stream.py": ECHO}))
    assert (await http.post("/streams/echo", headers={"Accept": NDJSON})).json() == {}


async def test_a_body_is_not_coerced(serve, client) -> None:
    http = client(await serve({"echo.stream.py": TYPED}))
    answer = await http.post("/streams/echo", json={"limit": "3"})
    assert answer.json()["error"]["details"] == [{"path": "limit", "message": "Expected int, got str"}]


PARAMETER = """
import msgspec

class Query(msgspec.Struct):
    room: int
    limit: int = 0

async def handler(input: Query, ctx):
    yield [input.room, input.limit, ctx.params]
"""


async def test_a_path_parameter_beats_a_query_field_and_is_coerced_alike(serve, client) -> None:
    http = client(await serve({"rooms/[room].stream.py": PARAMETER}))
    assert await items_of(http, "/streams/rooms/42?room=7&limit=3") == [[42, 3, {"room": "42"}]]


async def test_a_path_parameter_beats_a_field_of_the_body(serve, client) -> None:
    http = client(await serve({"rooms/[room].stream.py": PARAMETER}))
    answer = await http.post("/streams/rooms/42", json={"room": 7, "limit": 3}, headers={"Accept": NDJSON})
    assert answer.json() == [42, 3, {"room": "42"}]


# Accept decides the form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", SSE),
        ("*/*", SSE),
        (SSE, SSE),
        ("Text/Event-Stream; charset=utf-8", SSE),
        ("text/*", SSE),
        ("text/html, application/xhtml+xml, */*;q=0.8", SSE),
        (NDJSON, NDJSON),
        ("APPLICATION/X-NDJSON", NDJSON),
        ("application/*", NDJSON),
        (f"{NDJSON}, {SSE}", SSE),
        (f"{SSE};q=0.4, {NDJSON};q=0.5", NDJSON),
        (f"{SSE};q=0.5, */*;q=0.9", NDJSON),
        (f"{SSE};q=0, */*", NDJSON),
        (f"{NDJSON};q=0, application/*, text/*;q=0.1", SSE),
        (f"text/html, {NDJSON};q=0.1", NDJSON),
    ],
)
async def test_accept_decides_the_form(serve, client, accept: str, form: str) -> None:
    http = client(await serve({"ticks.stream.py": THREE}))
    answer = await http.get("/streams/ticks", headers={"Accept": accept})
    assert answer.headers["content-type"] == form


async def test_no_accept_is_sse(serve, curl) -> None:
    server = await serve({"ticks.stream.py": THREE})
    assert (await curl("-H", "Accept:", f"{server.url}/streams/ticks")).endswith(END)


@pytest.mark.parametrize(
    ("accept", "form"), [("", NDJSON), ("*/*", NDJSON), ("text/html, */*;q=0.8", NDJSON), (SSE, SSE), ("text/*", SSE)]
)
async def test_a_route_may_say_which_form_is_its_default(serve, client, accept: str, form: str) -> None:
    http = client(await serve({"ticks.stream.py": f"meta = {{'content_type': '{NDJSON}'}}\n{THREE}"}))
    answer = await http.get("/streams/ticks", headers={"Accept": accept})
    assert answer.headers["content-type"] == form


@pytest.mark.parametrize(
    "accept", ["application/json", "text/html", "image/*", "*/*;q=0", f"{SSE};q=0, {NDJSON};q=0", BYTES, "nonsense"]
)
async def test_any_other_form_is_not_acceptable(serve, client, accept: str) -> None:
    http = client(await serve({"ticks.stream.py": THREE}))
    answer = await http.get("/streams/ticks", headers={"Accept": accept})
    assert (answer.status_code, answer.json()["error"]["code"]) == (406, "NOT_ACCEPTABLE")


async def test_an_unacceptable_request_runs_no_handler(serve, client, state) -> None:
    server = await serve({"marked.stream.py": MARKED})
    await client(server).get("/streams/marked", headers={"Accept": "text/html"})
    assert not hasattr(state(server), "ran")


# Heads


@pytest.mark.parametrize("form", [SSE, NDJSON, BYTES])
@pytest.mark.parametrize(
    ("header", "value"),
    [("cache-control", "no-cache, no-transform"), ("x-accel-buffering", "no"), ("content-type", None)],
)
async def test_the_head_of_a_stream(serve, client, form: str, header: str, value: str | None) -> None:
    http = client(await serve({"chunks.stream.py": CHUNKS}))
    answer = await http.get("/streams/chunks", headers={"Accept": form})
    assert answer.headers[header] == (value or form)


@pytest.mark.parametrize("form", [SSE, NDJSON])
async def test_a_stream_is_never_compressed(serve, client, form: str) -> None:
    http = client(await serve({"ticks.stream.py": THREE}))
    answer = await http.get("/streams/ticks", headers={"Accept": form, "Accept-Encoding": "gzip, br, *"})
    assert "content-encoding" not in answer.headers


async def test_the_head_goes_out_with_the_first_item(serve, connect, monkeypatch) -> None:
    monkeypatch.setattr(http_module, "HEAD_SECONDS", 60)
    wire = await connect(await serve({"one.stream.py": yielding("1") + "    await ctx.signal.wait()\n"}))
    await wire.send(b"GET /streams/one HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await wire.head()).status == 200
    assert await wire.chunk() == b"data: 1\n\n"


@pytest.mark.parametrize("source", [WAITING, OPENING])
async def test_the_head_goes_out_once_the_handler_has_waited_for_100_ms(serve, connect, state, source: str) -> None:
    server = await serve({"waiting.stream.py": source})
    state(server).gate = asyncio.Event()
    wire = await connect(server)
    asked = asyncio.get_running_loop().time()
    await wire.send(b"GET /streams/waiting HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await wire.head()).status == 200
    assert asyncio.get_running_loop().time() - asked >= 0.099


async def test_an_item_that_comes_after_the_head_is_the_first_of_the_body(serve, connect, state) -> None:
    server = await serve({"waiting.stream.py": WAITING})
    state(server).gate = asyncio.Event()
    wire = await connect(server)
    await wire.send(b"GET /streams/waiting HTTP/1.1\r\nHost: h\r\n\r\n")
    await wire.head()
    state(server).gate.set()
    assert await wire.chunk() == b"data: 1\n\n"


async def test_an_error_before_the_first_item_is_a_plain_answer(serve, client) -> None:
    http = client(await serve({"lost.stream.py": failing("NOT_FOUND").replace("yield 1", "if False: yield")}))
    answer = await http.get("/streams/lost")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json() == {"error": {"code": "NOT_FOUND", "message": "why"}}


async def test_an_error_after_the_head_is_an_event(serve, client) -> None:
    source = "import asyncio\n" + failing("NOT_FOUND").replace(
        "yield 1", "await asyncio.sleep(0.12)\n    if False: yield"
    )
    events = await events_of(client(await serve({"lost.stream.py": source})), "/streams/lost")
    assert [(event.event, event.json()) for event in events] == [("error", {"code": "NOT_FOUND", "message": "why"})]


async def test_the_time_of_authentication_is_not_the_handlers(serve, client) -> None:
    slow = "import asyncio\nasync def authenticate(ctx):\n    await asyncio.sleep(0.12)\n"
    http = client(await serve({"_auth.py": slow, "ticks.stream.py": THREE}))
    assert (await http.get("/streams/ticks")).status_code == 401


# SSE


async def test_an_item_is_its_json_and_an_empty_line(serve, client) -> None:
    http = client(await serve({"two.stream.py": yielding("{'a': [1, None]}", "'é\\u2028'")}))
    assert (await http.get("/streams/two")).content == 'data: {"a":[1,null]}\n\ndata: "é\u2028"\n\n'.encode() + END


async def test_an_item_is_the_default_event(serve, client) -> None:
    events = await events_of(client(await serve({"two.stream.py": yielding("1")})), "/streams/two")
    assert events[0].event == "message"


async def test_an_id_a_name_and_a_retry_are_fields(serve, client) -> None:
    http = client(await serve({"one.stream.py": yielding("Event({'a': 1}, id='i 1', event='tick', retry=1500)")}))
    event, _ = await events_of(http, "/streams/one")
    assert (event.data, event.id, event.event, event.retry) == ('{"a":1}', "i 1", "tick", 1500)


@pytest.mark.parametrize(
    ("item", "block"),
    [
        ("tracked('a', 1)", b"data: 1\nid: a\n\n"),
        ("tracked(7, 1)", b"data: 1\nid: 7\n\n"),
        ("Event(1, event='tick')", b"data: 1\nevent: tick\n\n"),
        ("Event(1, retry=0)", b"data: 1\nretry: 0\n\n"),
        ("Event(1)", b"data: 1\n\n"),
    ],
)
async def test_only_the_fields_that_were_given_are_written(serve, client, item: str, block: bytes) -> None:
    http = client(await serve({"one.stream.py": yielding(item)}))
    assert (await http.get("/streams/one")).content == block + END


async def test_the_end_is_an_event_with_a_last_id(serve, client) -> None:
    http = client(await serve({"none.stream.py": yielding("1").replace("yield 1", "if False: yield")}))
    assert (await http.get("/streams/none")).content == b"event: end\ndata: {}\nid: raffel:end\n\n"


async def test_a_final_error_has_the_id_that_keeps_a_browser_away(serve, client) -> None:
    http = client(await serve({"bad.stream.py": failing("DATA_LOSS")}))
    error = b'event: error\ndata: {"code":"DATA_LOSS","message":"why"}\nid: raffel:end\n\n'
    assert (await http.get("/streams/bad")).content == b"data: 1\n\n" + error


@pytest.mark.parametrize(
    "code", ["RATE_LIMITED", "RESOURCE_EXHAUSTED", "BAD_GATEWAY", "UNAVAILABLE", "GATEWAY_TIMEOUT", "DEADLINE_EXCEEDED"]
)
async def test_an_error_to_try_again_after_has_no_id(serve, client, code: str) -> None:
    http = client(await serve({"bad.stream.py": failing(code)}))
    error = b'event: error\ndata: {"code":"%b","message":"why"}\n\n' % code.encode()
    assert (await http.get("/streams/bad")).content == b"data: 1\n\n" + error


async def test_an_error_of_ones_own_is_final(serve, client) -> None:
    events = await events_of(client(await serve({"bad.stream.py": failing("OWN")})), "/streams/bad")
    assert (events[-1].event, events[-1].id) == ("error", "raffel:end")


@pytest.mark.parametrize(
    "ask", [{"headers": {"Last-Event-ID": "raffel:end"}}, {"params": {"lastEventId": "raffel:end"}}]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_who_comes_back_after_the_end_is_told_to_stay_away(serve, client, method: str, ask: Any) -> None:
    http = client(await serve({"ticks.stream.py": THREE}))
    answer = await http.request(method, "/streams/ticks", **ask)
    assert (answer.status_code, answer.content) == (204, b"")


async def test_who_comes_back_after_the_end_runs_no_handler(serve, client, state) -> None:
    server = await serve({"marked.stream.py": MARKED})
    await client(server).get("/streams/marked", headers={"Last-Event-ID": "raffel:end"})
    assert not hasattr(state(server), "ran")


@pytest.mark.parametrize("id", ["raffel:end", "raffel:", "raffel:x"])
async def test_the_servers_own_ids_are_not_a_handlers(serve, client, id: str) -> None:
    http = client(await serve({"bad.stream.py": yielding(f"tracked({id!r}, 1)")}))
    answer = await http.get("/streams/bad")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "OUTPUT_VALIDATION_ERROR")


@pytest.mark.parametrize("field", ["id", "event"])
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\r\nb", "a\0b", "\n", "a\n\ndata: injected"])
async def test_a_break_in_an_id_or_a_name_is_refused(serve, client, field: str, text: str) -> None:
    http = client(await serve({"bad.stream.py": yielding(f"Event(1, {field}={text!r})")}))
    answer = await http.get("/streams/bad")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "OUTPUT_VALIDATION_ERROR")


@pytest.mark.parametrize("breaks", ["\n", "\r", "\r\n", "\n\n", "\r\r\n"])
async def test_data_is_split_on_line_breaks(serve, client, breaks: str) -> None:
    text = f'{{"a":{breaks}1}}'
    http = client(await serve({"raw.stream.py": yielding(f"msgspec.Raw({text!r}.encode())")}))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    expected = "".join(f"data: {line}\n" for line in lines) + "\n"
    assert (await http.get("/streams/raw")).content == expected.encode() + END


@pytest.mark.parametrize(
    "text", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\ufeff", ":", " ", "\r\n", "data: x\n\n"]
)
async def test_any_text_comes_through_as_one_event(serve, client, text: str) -> None:
    events = await events_of(client(await serve({"text.stream.py": yielding(repr(text))})), "/streams/text")
    assert [event.json() for event in events] == [text, {}]


@pytest.mark.parametrize("text", ["\x0b", "\x85", "\u2028", "é", ":", " a", "a "])
async def test_any_other_text_may_be_an_id(serve, client, text: str) -> None:
    answer = await client(await serve({"one.stream.py": yielding(f"tracked({text!r}, 1)")})).get("/streams/one")
    assert answer.content == f"data: 1\nid: {text}\n\n".encode() + END


async def test_silence_is_broken_by_a_comment(serve, connect, state) -> None:
    server = await serve({"waiting.stream.py": WAITING}, heartbeat_seconds={"sse": 0.05})
    state(server).gate = asyncio.Event()
    wire = await connect(server)
    await wire.send(b"GET /streams/waiting HTTP/1.1\r\nHost: h\r\n\r\n")
    await wire.head()
    assert [await wire.chunk(), await wire.chunk()] == [b": ping\n\n", b": ping\n\n"]


async def test_a_comment_is_no_event(serve, client) -> None:
    source = "import asyncio\n" + yielding("1") + "    await asyncio.sleep(0.1)\n    yield 2\n"
    http = client(await serve({"slow.stream.py": source}, heartbeat_seconds={"sse": 0.02}))
    assert [event.json() for event in await events_of(http, "/streams/slow")] == [1, 2, {}]


def test_silence_is_broken_every_15_s_by_default() -> None:
    assert Config().heartbeat_seconds.sse == 15


# Last-Event-ID


@pytest.mark.parametrize(
    ("ask", "seen"),
    [
        ({}, None),
        ({"headers": {"Last-Event-ID": "7"}}, "7"),
        ({"params": {"lastEventId": "7"}}, "7"),
        ({"headers": {"Last-Event-ID": "7"}, "params": {"lastEventId": "8"}}, "7"),
        ({"headers": {"Last-Event-ID": "é".encode()}}, "é"),
        ({"headers": {"Last-Event-ID": ""}, "params": {"lastEventId": ""}}, None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_last_event_id_reaches_the_handler(serve, client, method: str, ask: Any, seen: str | None) -> None:
    http = client(await serve({"resumed.stream.py": RESUMED}), headers={"Accept": NDJSON})
    assert (await http.request(method, "/streams/resumed", **ask)).json()[0] == seen


async def test_the_query_field_of_the_last_event_id_is_no_input(serve, client) -> None:
    http = client(await serve({"resumed.stream.py": RESUMED}))
    assert await items_of(http, "/streams/resumed?lastEventId=7&a=1") == [["7", {"a": "1"}]]


# NDJSON


async def test_ndjson_is_one_item_a_line_and_ends_with_the_body(serve, client) -> None:
    http = client(await serve({"ticks.stream.py": THREE}))
    answer = await http.get("/streams/ticks", headers={"Accept": NDJSON})
    assert answer.content == b'{"n":0}\n{"n":1}\n{"n":2}\n'


async def test_ndjson_of_no_items_is_empty(serve, client) -> None:
    http = client(await serve({"none.stream.py": yielding("1").replace("yield 1", "if False: yield")}))
    answer = await http.get("/streams/none", headers={"Accept": NDJSON})
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("breaks", ["\n", "\r", "\r\n"])
async def test_ndjson_never_breaks_an_item(serve, client, breaks: str) -> None:
    http = client(await serve({"raw.stream.py": yielding(f"msgspec.Raw({f'[1,{breaks}2]'!r}.encode())")}))
    answer = await http.get("/streams/raw", headers={"Accept": NDJSON})
    assert answer.content.count(b"\n") == 1 and answer.json() == [1, 2]


async def test_ndjson_carries_no_ids_and_names(serve, client) -> None:
    http = client(await serve({"one.stream.py": yielding("Event(1, id='a', event='b', retry=1)")}))
    assert (await http.get("/streams/one", headers={"Accept": NDJSON})).content == b"1\n"


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNAVAILABLE"])
async def test_an_error_is_the_last_line_of_ndjson(serve, client, code: str) -> None:
    http = client(await serve({"bad.stream.py": failing(code)}))
    answer = await http.get("/streams/bad", headers={"Accept": NDJSON})
    assert answer.content == b'1\n{"error":{"code":"%b","message":"why"}}\n' % code.encode()


async def test_a_drain_is_the_last_line_of_ndjson(serve, client) -> None:
    server = await serve({"open.stream.py": yielding("1") + "    await ctx.signal.wait()\n"})
    async with client(server).stream("GET", "/streams/open", headers={"Accept": NDJSON}) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "1"
        await server.stop()
        assert [json.loads(line)["error"]["code"] async for line in lines] == ["UNAVAILABLE"]


async def test_an_error_is_one_line_whatever_its_details(serve, client) -> None:
    source = yielding("1") + "    raise RaffelError('X', 'why', details=msgspec.Raw(b'[1,\\n\\n2]'))\n"
    http = client(await serve({"bad.stream.py": source}))
    answer = await http.get("/streams/bad", headers={"Accept": NDJSON})
    assert answer.content.count(b"\n") == 2


LOOKALIKES = [
    "{'error': 1}",
    "{'error': {'code': 'X', 'message': ''}}",
    "tracked(1, {'error': 1})",
    "msgspec.Raw(b'{\"error\":1}')",
    "msgspec.Raw(b' { \"error\" : 1 } ')",
    "msgspec.Raw(b'\\n{\\n\"error\":1}')",
    "msgspec.Raw(b'{\"\\\\u0065rror\":1}')",
    'msgspec.Raw(b\'{"error":1,"error":2}\')',
    "Item()",
]
ITEM = "class Item(msgspec.Struct):\n    error: int = 1\n"


@pytest.mark.parametrize("item", LOOKALIKES)
async def test_an_item_that_looks_like_an_error_line_is_refused(serve, client, item: str) -> None:
    http = client(await serve({"bad.stream.py": yielding("1", item, before=ITEM)}))
    answer = await http.get("/streams/bad", headers={"Accept": NDJSON})
    first, last = answer.text.splitlines()
    assert first == "1" and json.loads(last)["error"]["code"] == "OUTPUT_VALIDATION_ERROR"


@pytest.mark.parametrize("item", LOOKALIKES)
async def test_on_sse_an_item_may_have_the_one_key_error(serve, client, item: str) -> None:
    events = await events_of(client(await serve({"ok.stream.py": yielding(item, before=ITEM)})), "/streams/ok")
    assert [event.event for event in events] == ["message", "end"]


@pytest.mark.parametrize(
    "item",
    [
        "{'error': 1, 'a': 2}",
        "{'errors': 1}",
        "{'a': {'error': 1}}",
        "[{'error': 1}]",
        "'error'",
        "tracked(1, 'error')",
    ],
)
async def test_an_item_that_only_mentions_errors_is_none(serve, client, item: str) -> None:
    http = client(await serve({"ok.stream.py": yielding(item, "2")}))
    assert (await items_of(http, "/streams/ok"))[1:] == [2]


async def test_silence_is_broken_by_an_empty_line_on_ndjson(serve, connect, state) -> None:
    server = await serve({"waiting.stream.py": WAITING}, heartbeat_seconds={"sse": 0.05})
    state(server).gate = asyncio.Event()
    wire = await connect(server)
    await wire.send(b"GET /streams/waiting HTTP/1.1\r\nHost: h\r\nAccept: application/x-ndjson\r\n\r\n")
    await wire.head()
    assert [await wire.chunk(), await wire.chunk()] == [b"\n", b"\n"]


# Bytes


async def test_bytes_come_as_they_are(serve, client) -> None:
    http = client(await serve({"chunks.stream.py": CHUNKS}))
    answer = await http.get("/streams/chunks", headers={"Accept": BYTES})
    assert (answer.headers["content-type"], answer.content) == (BYTES, b"\x00\xff\n\n")


@pytest.mark.parametrize("accept", ["*/*", SSE])
async def test_bytes_are_base64_where_they_are_not_asked_for(serve, client, accept: str) -> None:
    http = client(await serve({"chunks.stream.py": CHUNKS}))
    answer = await http.get("/streams/chunks", headers={"Accept": accept})
    assert answer.content == b'data: "AP8="\n\ndata: ""\n\ndata: "Cgo="\n\n' + END


async def test_an_empty_item_does_not_end_a_stream_of_bytes(serve, connect, state) -> None:
    source = CHUNKS.replace('yield b"\\x00\\xff"', 'yield b""\n    await ctx.app.state.gate.wait()')
    server = await serve({"chunks.stream.py": source})
    state(server).gate = asyncio.Event()
    wire = await connect(server)
    await wire.send(b"GET /streams/chunks HTTP/1.1\r\nHost: h\r\nAccept: application/octet-stream\r\n\r\n")
    await wire.head()
    state(server).gate.set()
    assert await wire.chunk() == b"\n\n"


async def test_a_stream_of_bytes_that_fails_is_cut_off(serve, client) -> None:
    source = CHUNKS.replace('yield b"\\n\\n"', "raise ValueError")
    http = client(await serve({"chunks.stream.py": source}))
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        await http.get("/streams/chunks", headers={"Accept": BYTES})


# What is no server stream, and what needs none


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("direction", ["client", "bidi"])
async def test_a_client_or_bidi_stream_is_unimplemented(serve, client, direction: str, method: str) -> None:
    body = "return 1" if direction == "client" else "yield 1"
    source = f"meta = {{'direction': '{direction}'}}\nasync def handler(items, ctx):\n    {body}\n"
    answer = await client(await serve({"up.stream.py": source})).request(method, "/streams/up")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (501, "UNIMPLEMENTED")
    assert all(protocol in error["message"] for protocol in ("WebSocket", "TCP"))


@pytest.mark.parametrize("form", [SSE, NDJSON])
async def test_head_is_the_head_of_the_stream(serve, client, form: str) -> None:
    answer = await client(await serve({"ticks.stream.py": THREE})).head("/streams/ticks", headers={"Accept": form})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, form, b"")


async def test_head_runs_no_handler(serve, client, state) -> None:
    server = await serve({"marked.stream.py": MARKED})
    await client(server).head("/streams/marked")
    assert not hasattr(state(server), "ran")


async def test_a_connection_carries_a_stream_after_a_stream(serve, connect) -> None:
    wire = await connect(await serve({"ticks.stream.py": THREE}))
    for _ in range(3):
        await wire.send(b"GET /streams/ticks HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await wire.answer()).body.endswith(END)


async def test_the_handler_knows_what_carries_it(serve, client) -> None:
    source = "async def handler(input, ctx):\n    yield [ctx.protocol, ctx.metadata['x-who']]\n"
    http = client(await serve({"who.stream.py": source}), headers={"X-Who": "me"})
    assert await items_of(http, "/streams/who") == [["ndjson", "me"]]
