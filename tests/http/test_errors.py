"""Errors over HTTP: the whole code table, and what a client may learn of an exception that nobody foresaw."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from raffel_core.errors import CODES

STATUS = {
    "INVALID_ARGUMENT": 400,
    "VALIDATION_ERROR": 400,
    "INVALID_TYPE": 400,
    "INVALID_ENVELOPE": 400,
    "PARSE_ERROR": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "NOT_ACCEPTABLE": 406,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 412,
    "PAYLOAD_TOO_LARGE": 413,
    "MESSAGE_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "UNPROCESSABLE_ENTITY": 422,
    "RATE_LIMITED": 429,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL_ERROR": 500,
    "STREAM_ERROR": 500,
    "OUTPUT_VALIDATION_ERROR": 500,
    "DATA_LOSS": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
    "BAD_GATEWAY": 502,
    "UNAVAILABLE": 503,
    "GATEWAY_TIMEOUT": 504,
    "DEADLINE_EXCEEDED": 504,
}
"""The table of the contract, in its own words."""

RAISING = """
from raffel_core import RaffelError

async def handler(input, ctx):
    raise RaffelError(**input)
"""

SECRET = "hunter2"
BROKEN = f"""
async def handler(input, ctx):
    try:
        raise KeyError("{SECRET}")
    except KeyError as error:
        raise ValueError("the password is {SECRET}") from error
"""


def streaming(source: str) -> str:
    """The same handler as a stream that fails before its first item."""
    return source + "    yield\n"


def failing_later(source: str) -> str:
    """The same handler as a stream that fails after its first item."""
    return source.replace("(input, ctx):\n", "(input, ctx):\n    yield 1\n")


@pytest.fixture
def raising(serve, client):
    """A client of a server whose routes raise the RaffelError that they are asked for."""

    async def start() -> httpx.AsyncClient:
        return client(await serve({"fail.rpc.py": RAISING, "fails.stream.py": streaming(RAISING)}))

    return start


PATHS = ["/fail", "/streams/fails"]


# The table


def test_the_table_is_whole() -> None:
    assert set(CODES) == set(STATUS)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", STATUS)
async def test_every_code_has_its_status(raising, path: str, code: str) -> None:
    answer = await (await raising()).post(path, json={"code": code, "message": "why"})
    assert (answer.status_code, answer.json()) == (STATUS[code], {"error": {"code": code, "message": "why"}})


@pytest.mark.parametrize("path", PATHS)
async def test_details_are_left_out_where_there_are_none(raising, path: str) -> None:
    answer = await (await raising()).post(path, json={"code": "NOT_FOUND", "message": "", "details": None})
    assert answer.json() == {"error": {"code": "NOT_FOUND", "message": ""}}


@pytest.mark.parametrize("details", [{"a": [1]}, [], {}, 0, "", False])
async def test_details_are_any_json(raising, details: Any) -> None:
    answer = await (await raising()).post("/fail", json={"code": "NOT_FOUND", "details": details})
    assert answer.json()["error"]["details"] == details


@pytest.mark.parametrize("path", PATHS)
async def test_a_code_of_ones_own_has_a_status_of_its_own(raising, path: str) -> None:
    answer = await (await raising()).post(path, json={"code": "TEAPOT", "message": "short and stout", "status": 418})
    assert (answer.status_code, answer.json()["error"]["code"]) == (418, "TEAPOT")


async def test_a_code_of_ones_own_is_a_fault_of_the_server_where_nothing_else_is_said(raising) -> None:
    assert (await (await raising()).post("/fail", json={"code": "TEAPOT"})).status_code == 500


@pytest.mark.parametrize("status", [0, 100, 101, 200, 204, 304, 399, 600, 1000])
async def test_a_status_that_is_no_error_is_a_fault_of_the_server(raising, status: int) -> None:
    answer = await (await raising()).post("/fail", json={"code": "TEAPOT", "status": status})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "TEAPOT")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", [code for code, status in STATUS.items() if status in (429, 503)])
async def test_who_is_to_come_back_is_told_when(raising, path: str, code: str) -> None:
    answer = await (await raising()).post(path, json={"code": code})
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("status", [429, 503])
async def test_an_error_of_ones_own_says_when_to_come_back(raising, status: int) -> None:
    answer = await (await raising()).post("/fail", json={"code": "BUSY", "status": status})
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", STATUS)
async def test_no_error_is_stored(raising, path: str, code: str) -> None:
    answer = await (await raising()).post(path, json={"code": code})
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        (b"GET /fail HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"GET /streams/fails HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n", 406),
        (b"GET /streams/fails HTTP/1.1\r\nHost: h\r\nOrigin: null\r\n\r\n", 403),
        (b"POST /fail HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /fail HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
async def test_no_refusal_of_the_server_is_stored(serve, connect, request_bytes: bytes, status: int) -> None:
    wire = await connect(await serve({"fail.rpc.py": RAISING, "fails.stream.py": streaming(RAISING)}))
    await wire.send(request_bytes)
    answer = await wire.head()
    assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")


@pytest.mark.parametrize("path", ["/", "/nowhere", "/streams/nowhere", "/streams", "/streams/", "/fail/", "//fail"])
async def test_an_unknown_route_is_not_found(raising, path: str) -> None:
    answer = await (await raising()).post(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_what_is_no_http_is_told_so_in_json(serve, connect) -> None:
    wire = await connect(await serve())
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")


async def test_a_validation_error_lists_what_is_wrong_where(serve, client) -> None:
    source = "async def handler(input: dict[str, list[int]], ctx):\n    return 1\n"
    answer = await client(await serve({"numbers.rpc.py": source})).post("/numbers", json={"limit": [1, "2"]})
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert [set(fault) for fault in error["details"]] == [{"path", "message"}]


async def test_after_an_error_the_connection_goes_on(serve, connect) -> None:
    wire = await connect(await serve({"fail.rpc.py": RAISING}))
    for _ in range(3):
        await wire.send(b"POST /fail HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await wire.answer()).status == 500


# What nobody foresaw


@pytest.mark.parametrize("path", ["/broken", "/streams/breaks"])
async def test_an_unexpected_exception_is_an_internal_error_with_a_request_id(serve, client, path: str) -> None:
    http = client(await serve({"broken.rpc.py": BROKEN, "breaks.stream.py": streaming(BROKEN)}))
    answer = await http.post(path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], list(error["details"])) == (500, "INTERNAL_ERROR", ["request_id"])


async def test_its_message_is_fixed(serve, client) -> None:
    other = BROKEN.replace("ValueError", "RuntimeError").replace("the password", "the key")
    http = client(await serve({"broken.rpc.py": BROKEN, "other.rpc.py": other}))
    messages = {(await http.post(path)).json()["error"]["message"] for path in ("/broken", "/other")}
    assert len(messages) == 1


async def test_every_request_has_an_id_of_its_own(serve, client) -> None:
    http = client(await serve({"broken.rpc.py": BROKEN}))
    ids = {(await http.post("/broken")).json()["error"]["details"]["request_id"] for _ in range(3)}
    assert len(ids) == 3


SECRETIVE = {
    "broken.rpc.py": BROKEN,
    "breaks.stream.py": streaming(BROKEN),
    "later.stream.py": failing_later(BROKEN),
    "callback.rpc.py": f"""
        async def handler(input, ctx):
            ctx.on_close(lambda outcome: 1 / 0 or "{SECRET}")
        """,
    "output.rpc.py": f"""
        async def handler(input, ctx) -> int:
            return "{SECRET}"
        """,
    "caused.rpc.py": f"""
        from raffel_core import RaffelError

        async def handler(input, ctx):
            try:
                raise KeyError("{SECRET}")
            except KeyError as error:
                raise RaffelError("NOT_FOUND", "no such key") from error
        """,
    "unwritable.rpc.py": f"""
        from raffel_core import RaffelError

        async def handler(input, ctx):
            class Odd:
                def __repr__(self):
                    return "{SECRET}"

            raise RaffelError("NOT_FOUND", "no such key", details=Odd())
        """,
    "guarded/_auth.py": f"""
        async def authenticate(ctx):
            raise RuntimeError("{SECRET}")
        """,
    "guarded/ask.rpc.py": "async def handler():\n    return 1\n",
    "wrapped/_middleware.py": f"""
        async def middleware(call, call_next):
            raise RuntimeError("{SECRET}")
        """,
    "wrapped/ask.rpc.py": "async def handler():\n    return 1\n",
}


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
@pytest.mark.parametrize(
    "path",
    [
        "/broken",
        "/streams/breaks",
        "/streams/later",
        "/callback",
        "/output",
        "/caused",
        "/unwritable",
        "/guarded/ask",
        "/wrapped/ask",
    ],
)
async def test_a_secret_never_leaves(serve, client, path: str, accept: str) -> None:
    answer = await client(await serve(SECRETIVE)).post(path, headers={"Accept": accept})
    assert SECRET not in answer.text


async def test_details_that_json_cannot_hold_are_left_out(serve, client) -> None:
    answer = await client(await serve(SECRETIVE)).post("/unwritable")
    assert answer.json() == {"error": {"code": "NOT_FOUND", "message": "no such key"}}


async def test_text_and_traceback_go_to_the_log_under_the_request_id(serve, client, caplog) -> None:
    answer = await client(await serve({"broken.rpc.py": BROKEN})).post("/broken")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.request == answer.json()["error"]["details"]["request_id"]
    assert SECRET in logging.Formatter().format(record) and "Traceback" in logging.Formatter().format(record)


async def test_an_expected_error_is_not_logged(raising, caplog) -> None:
    await (await raising()).post("/fail", json={"code": "NOT_FOUND"})
    assert not caplog.records


@pytest.mark.parametrize("path", ["/broken", "/streams/breaks", "/streams/later"])
async def test_development_adds_text_and_traceback_under_details(serve, client, path: str) -> None:
    http = client(await serve(SECRETIVE, development=True))
    answer = await http.post(path, headers={"Accept": "application/x-ndjson"})
    details = json.loads(answer.text.splitlines()[-1])["error"]["details"]
    assert "request_id" in details
    assert SECRET in details["error"] and "Traceback" in "".join(details["traceback"])


@pytest.mark.parametrize("form", ["text/event-stream", "application/x-ndjson"])
async def test_an_unexpected_exception_after_an_item_is_in_the_stream(serve, client, form: str) -> None:
    http = client(await serve({"later.stream.py": failing_later(BROKEN)}))
    answer = await http.get("/streams/later", headers={"Accept": form})
    assert answer.status_code == 200 and '"code":"INTERNAL_ERROR"' in answer.text


async def test_after_a_broken_handler_the_connection_goes_on(serve, connect) -> None:
    wire = await connect(await serve({"broken.rpc.py": BROKEN}))
    for _ in range(3):
        await wire.send(b"POST /broken HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await wire.answer()).status == 500
