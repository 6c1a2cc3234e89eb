"""Procedures over HTTP: a JSON body in, a JSON result out, and the order in which a call is opened."""

from __future__ import annotations

import json
from typing import Any

import pytest

ADD = """
import msgspec

class Pair(msgspec.Struct):
    a: int
    b: int = 0

async def handler(input: Pair, ctx) -> int:
    return input.a + input.b
"""

ECHO = """
async def handler(input, ctx):
    return input
"""

MARKED = """
async def handler(input, ctx):
    ctx.app.state.ran = True
"""

STREAM = """
async def handler(input, ctx):
    yield 1
"""


def returning(expression: str, before: str = "") -> str:
    """A route file that returns this expression."""
    return f"import datetime, decimal, math, uuid\n{before}\nasync def handler():\n    return {expression}\n"


async def test_a_json_body_is_answered_with_the_json_of_the_result(serve, client) -> None:
    answer = await client(await serve({"add.rpc.py": ADD})).post("/add", json={"a": 1, "b": 2})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "application/json", b"3")


async def test_curl_calls_a_procedure(serve, curl) -> None:
    server = await serve({"add.rpc.py": ADD})
    assert await curl("--json", '{"a": 1}', f"{server.url}/add") == b"1"


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "é\u2028", [], {}, [1, [2, {"a": None}]], {"a": {"b": "c"}}])
async def test_any_json_goes_in_and_comes_out(serve, client, value: Any) -> None:
    http = client(await serve({"echo.rpc.py": ECHO}))
    answer = await http.post("/echo", content=json.dumps(value), headers={"Content-Type": "application/json"})
    assert answer.json() == value


async def test_no_body_is_an_empty_object(serve, client) -> None:
    assert (await client(await serve({"echo.rpc.py": ECHO})).post("/echo")).json() == {}


async def test_the_query_is_no_input_of_a_procedure(serve, client) -> None:
    assert (await client(await serve({"echo.rpc.py": ECHO})).post("/echo?a=1", json={"b": 2})).json() == {"b": 2}


async def test_a_result_that_fills_many_segments_is_whole(serve, client) -> None:
    answer = await client(await serve({"big.rpc.py": returning("'a' * 3_000_000")})).post("/big")
    assert len(answer.json()) == 3_000_000


async def test_the_handler_knows_what_carries_it(serve, client) -> None:
    source = "async def handler(input, ctx):\n    return [ctx.protocol, ctx.route, ctx.metadata['x-who']]\n"
    answer = await client(await serve({"who/am/i.rpc.py": source})).post("/who.am.i", headers={"X-Who": "me"})
    assert answer.json() == ["http", "who.am.i", "me"]


# Input and output are checked


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"a": "1"}, {"path": "a", "message": "Expected int, got str"}),
        ({"a": 1.5}, {"path": "a", "message": "Expected int, got float"}),
        ([], {"path": "", "message": "Expected object, got array"}),
    ],
)
async def test_an_input_of_other_types_is_refused(serve, client, body: object, fault: object) -> None:
    answer = await client(await serve({"add.rpc.py": ADD})).post("/add", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]) == (400, "VALIDATION_ERROR", [fault])


@pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"a":1}x', b"\xff", b"[" * 2000])
async def test_a_body_that_is_no_json_is_a_parse_error(serve, client, body: bytes) -> None:
    http = client(await serve({"add.rpc.py": ADD}))
    answer = await http.post("/add", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "PARSE_ERROR")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)", "2026-01-02T03:04:05Z"),
        ("b'\\x00\\xff'", "AP8="),
        ("datetime.timedelta(days=1, seconds=1.5)", "P1DT1.5S"),
        ("decimal.Decimal('1.10')", "1.10"),
        ("uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001"),
    ],
)
async def test_values_that_json_has_not_are_strings(serve, client, expression: str, value: str) -> None:
    assert (await client(await serve({"value.rpc.py": returning(expression)})).post("/value")).json() == value


@pytest.mark.parametrize("number", ["math.nan", "math.inf", "-math.inf"])
@pytest.mark.parametrize(("declared", "value"), [("float", "{}"), ("list[float]", "[1.0, {}]")])
async def test_a_float_that_is_no_number_is_an_invalid_output(
    serve, client, declared: str, value: str, number: str
) -> None:
    source = returning(value.format(number), before=f"output_schema = {declared}")
    answer = await client(await serve({"value.rpc.py": source})).post("/value")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "OUTPUT_VALIDATION_ERROR")


@pytest.mark.parametrize("expression", ["'1'", "None", "[1]", "object()"])
async def test_a_result_of_another_type_is_an_invalid_output(serve, client, expression: str) -> None:
    http = client(await serve({"bad.rpc.py": returning(expression, before="output_schema = int")}))
    answer = await http.post("/bad")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "OUTPUT_VALIDATION_ERROR")


# Methods


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_a_procedure_is_posted_to(serve, client, state, method: str) -> None:
    server = await serve({"marked.rpc.py": MARKED})
    answer = await client(server).request(method, "/marked")
    assert (answer.status_code, "POST" in answer.headers["allow"]) == (405, True)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_no_other_method_runs_the_handler(serve, client, state, method: str) -> None:
    server = await serve({"marked.rpc.py": MARKED})
    await client(server).request(method, "/marked")
    assert not hasattr(state(server), "ran")


async def test_the_answer_to_head_has_no_body(serve, connect) -> None:
    wire = await connect(await serve({"marked.rpc.py": MARKED}))
    await wire.send(b"HEAD /marked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert (await wire.rest()).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_stream_is_opened_by_get_or_post(serve, client, method: str) -> None:
    answer = await client(await serve({"ticks.stream.py": STREAM})).request(method, "/streams/ticks")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")


async def test_a_stream_is_no_procedure(serve, client) -> None:
    answer = await client(await serve({"ticks.stream.py": STREAM})).post("/ticks")
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "UNIMPLEMENTED")


async def test_a_procedure_is_no_stream(serve, client) -> None:
    answer = await client(await serve({"echo.rpc.py": ECHO})).get("/streams/echo")
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "UNIMPLEMENTED")


# The order of an opening: route, authentication, input, interceptors, handler

STAGES = {
    "_auth.py": """
        from raffel_core import Auth

        async def authenticate(ctx):
            return Auth("me") if "authorization" in ctx.metadata else None
        """,
    "_middleware.py": """
        from raffel_core import RaffelError

        async def middleware(call, call_next):
            if "x-refused" in call.ctx.metadata:
                raise RaffelError("RATE_LIMITED")
            return await call_next(call)
        """,
    "add.rpc.py": ADD.replace("    return", "    ctx.app.state.ran = True\n    return"),
    "adds.stream.py": ADD.replace("-> int", "").replace("    return", "    ctx.app.state.ran = True\n    yield"),
}
ALLOWED = {"Authorization": "Bearer x"}
REFUSED = {"X-Refused": "yes"}


@pytest.mark.parametrize("base", ["/add", "/streams/adds"])
@pytest.mark.parametrize(
    ("suffix", "body", "headers", "code"),
    [
        ("/none", {"a": "x"}, REFUSED, "NOT_FOUND"),
        ("", {"a": "x"}, REFUSED, "UNAUTHENTICATED"),
        ("", {"a": "x"}, ALLOWED | REFUSED, "VALIDATION_ERROR"),
        ("", {"a": 1}, ALLOWED | REFUSED, "RATE_LIMITED"),
    ],
)
async def test_the_first_stage_that_fails_answers(
    serve, client, base: str, suffix: str, body: Any, headers: dict[str, str], code: str
) -> None:
    answer = await client(await serve(STAGES)).post(base + suffix, json=body, headers=headers)
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize("path", ["/add", "/streams/adds"])
@pytest.mark.parametrize("headers", [{}, ALLOWED | REFUSED])
async def test_what_is_refused_before_runs_no_handler(serve, client, state, path: str, headers: dict[str, str]) -> None:
    server = await serve(STAGES)
    await client(server).post(path, json={"a": 1}, headers=headers)
    assert not hasattr(state(server), "ran")


@pytest.mark.parametrize("path", ["/add", "/streams/adds"])
async def test_what_passes_every_stage_runs_the_handler(serve, client, state, path: str) -> None:
    server = await serve(STAGES)
    await client(server).post(path, json={"a": 1}, headers=ALLOWED)
    assert state(server).ran


async def test_a_malformed_body_is_no_concern_of_who_may_not_call(serve, client) -> None:
    answer = await client(await serve(STAGES)).post("/add", content=b"{", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 401


# Deadlines


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "soon", "", "\uff11"])
@pytest.mark.parametrize("path", ["/echo", "/streams/ticks"])
async def test_a_timeout_that_is_no_positive_integer_is_refused(serve, client, path: str, text: str) -> None:
    http = client(await serve({"echo.rpc.py": ECHO, "ticks.stream.py": STREAM}))
    answer = await http.post(path, headers={"Timeout-Ms": text.encode()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")


FOREVER = """
async def handler(input, ctx):
    await ctx.signal.wait()
"""


@pytest.mark.parametrize(("own", "asked"), [(None, "20"), (60, "20"), (0.02, "60000"), (0.02, None)])
async def test_the_smaller_of_the_clients_and_the_routes_time_counts(
    serve, client, own: float | None, asked: str | None
) -> None:
    meta = f"meta = {{'deadline': {own}}}\n" if own else ""
    headers = {"Timeout-Ms": asked} if asked else {}
    answer = await client(await serve({"forever.rpc.py": meta + FOREVER})).post("/forever", headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (504, "DEADLINE_EXCEEDED")


async def test_a_deadline_is_an_error_event_once_items_have_come(serve, client) -> None:
    source = "async def handler(input, ctx):\n    yield 1\n    await ctx.signal.wait()\n"
    http = client(await serve({"slow.stream.py": source}))
    answer = await http.get("/streams/slow", headers={"Timeout-Ms": "20"})
    *_, event, data = answer.text.strip().splitlines()
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["code"] == "DEADLINE_EXCEEDED"
