"""Errors as everyone's own client has them: the status, the text, the error object, and where they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import grpc
import pytest
from msgspec import Meta, Struct

from raffel_core.errors import CODES, RaffelError
from raffel_core.server import Server

from .conftest import Told, failure
from .handlers import Pair, add_routes

# The contract's table, written down anew.
ROWS = {
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
    "VALIDATION_ERROR": "INVALID_ARGUMENT",
    "INVALID_TYPE": "INVALID_ARGUMENT",
    "INVALID_ENVELOPE": "INVALID_ARGUMENT",
    "PARSE_ERROR": "INVALID_ARGUMENT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "METHOD_NOT_ALLOWED": "UNIMPLEMENTED",
    "NOT_ACCEPTABLE": "FAILED_PRECONDITION",
    "ALREADY_EXISTS": "ALREADY_EXISTS",
    "FAILED_PRECONDITION": "FAILED_PRECONDITION",
    "PAYLOAD_TOO_LARGE": "RESOURCE_EXHAUSTED",
    "MESSAGE_TOO_LARGE": "RESOURCE_EXHAUSTED",
    "UNSUPPORTED_MEDIA_TYPE": "INVALID_ARGUMENT",
    "UNPROCESSABLE_ENTITY": "FAILED_PRECONDITION",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "RESOURCE_EXHAUSTED": "RESOURCE_EXHAUSTED",
    "CANCELLED": "CANCELLED",
    "INTERNAL_ERROR": "INTERNAL",
    "STREAM_ERROR": "INTERNAL",
    "OUTPUT_VALIDATION_ERROR": "INTERNAL",
    "DATA_LOSS": "DATA_LOSS",
    "UNKNOWN": "UNKNOWN",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
    "BAD_GATEWAY": "UNAVAILABLE",
    "UNAVAILABLE": "UNAVAILABLE",
    "GATEWAY_TIMEOUT": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "OUT_OF_TEA": "UNKNOWN",  # a code of the project's own
}
TEXT = "größer als 100 %\n🦜"


@pytest.fixture
async def client(serve_and_connect):
    return await serve_and_connect(add_routes)


def found_of(code: str, status: str) -> Told:
    """What a client has of an error of this code."""
    return Told(status, TEXT, {"code": code, "message": TEXT, "details": {"fields": ["a", 1, None]}})


async def test_each_code_has_its_status_and_comes_whole(client):
    refuse = client["/Trouble/Refuse"]
    for code, status in ROWS.items():
        assert await failure(refuse(refuse.request(code=code, message=TEXT))) == found_of(code, status)


async def test_each_code_behind_items_does_so_too(client):
    fail = client["/Trouble/Fail"]
    for code, status in ROWS.items():
        call = fail(fail.request(code=code, message=TEXT, after=2))
        assert [(await call.read()).value for _ in range(2)] == [0, 1]
        assert await failure(call.read()) == found_of(code, status)


def test_the_table_is_whole():
    assert set(CODES) < set(ROWS)


async def test_an_error_without_details_has_none(serve_and_connect):
    def routes(server: Server) -> None:
        @server.procedure("fail").handler
        async def fail() -> int:
            raise RaffelError("NOT_FOUND")

    client = await serve_and_connect(routes)
    found = await failure(client["/Root/Fail"](client["/Root/Fail"].request()))
    assert found == ("NOT_FOUND", "", {"code": "NOT_FOUND", "message": ""})


async def test_details_too_large_for_trailers_leave_the_status_and_the_text(serve_and_connect):
    def routes(server: Server) -> None:
        @server.procedure("fail").handler
        async def fail() -> int:
            raise RaffelError("NOT_FOUND", "x" * 100_000, details="y" * 100_000)

    client = await serve_and_connect(routes)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client["/Root/Fail"](client["/Root/Fail"].request())
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details().startswith("xxx")


async def test_an_unexpected_exception_says_nothing_of_itself(serve_and_connect, caplog):
    def routes(server: Server) -> None:
        @server.procedure("fail").handler
        async def fail() -> int:
            raise ValueError("the password is 1234")

    client = await serve_and_connect(routes)
    found = await failure(client["/Root/Fail"](client["/Root/Fail"].request()))
    assert found.code == "INTERNAL"
    assert "1234" not in str(found)
    assert found.error["details"]["request_id"]
    assert "1234" in caplog.text


@pytest.mark.parametrize("path", ["/Math/Missing", "/Missing/Add", "/math.add", "/Add", "/a/b/c", "/"])
async def test_an_unknown_method_or_service_is_unimplemented(client, path):
    call = client.channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
    assert (await failure(call(b"", timeout=20))).code == "UNIMPLEMENTED"


async def test_an_unknown_method_answers_a_stream_that_says_nothing(client):
    call = client.channel.stream_stream("/Math/Missing", request_serializer=bytes, response_deserializer=bytes)
    found = await failure(call(timeout=20).read())
    assert (found.code, found.error["code"]) == ("UNIMPLEMENTED", "NOT_FOUND")


# Bad input


class Range(Struct):
    first: Annotated[int, Meta(ge=0)]
    last: Annotated[int, Meta(le=9)]
    name: Annotated[str, Meta(max_length=3)] = ""


class Part(Struct):
    number: Annotated[int, Meta(ge=0)]


@pytest.fixture
async def checked(serve_and_connect):
    def routes(server: Server) -> None:
        async def unary(input) -> int:
            return input.last - input.first

        async def stream(input) -> AsyncIterator[int]:
            for number in range(input.first, input.last):
                yield number

        server.procedure("span.size").input(Range).handler(unary)
        server.stream("span.numbers").input(Range).handler(stream)

    return await serve_and_connect(routes)


@pytest.mark.parametrize(
    ("input", "path"), [({"first": -1}, "first"), ({"last": 10}, "last"), ({"name": "long"}, "name")]
)
@pytest.mark.parametrize("method", ["/Span/Size", "/Span/Numbers"])
async def test_input_that_does_not_fit_is_a_validation_error(checked, method, input, path):
    method = checked[method]
    call = method(method.request(**input))
    found = await failure(call if method.kind == "unary_unary" else call.read())
    assert (found.code, found.error["code"]) == ("INVALID_ARGUMENT", "VALIDATION_ERROR")
    assert [detail["path"] for detail in found.error["details"]] == [path]


async def test_bytes_that_are_no_message_are_a_parse_error(client):
    call = client.channel.unary_unary("/Math/Add", request_serializer=bytes, response_deserializer=bytes)
    found = await failure(call(b"\xff\xff\xff", timeout=20))
    assert (found.code, found.error["code"]) == ("INVALID_ARGUMENT", "PARSE_ERROR")


async def test_a_bad_item_raises_in_the_handler_which_may_read_the_next(serve_and_connect):
    def routes(server: Server) -> None:
        async def sum_up(items: AsyncIterator[Part]) -> list[str]:
            seen: list[str] = []
            while True:
                try:
                    seen.append(str((await anext(items)).number))
                except StopAsyncIteration:
                    return seen
                except RaffelError as error:
                    seen.append(error.code)

        server.stream("parts.sum", direction="client").handler(sum_up)

    client = await serve_and_connect(routes)
    method = client["/Parts/Sum"]
    answer = await method(method.request(number=number) for number in (1, -1, 2, -2, -3, 3))
    assert list(answer.value) == ["1", "VALIDATION_ERROR", "2", "VALIDATION_ERROR", "VALIDATION_ERROR", "3"]


@pytest.mark.parametrize("caught", [False, True])
async def test_bytes_that_are_no_item_raise_like_a_bad_one(serve_and_connect, caught):
    def routes(server: Server) -> None:
        async def echo(items: AsyncIterator[Pair]) -> AsyncIterator[int]:
            while True:
                try:
                    yield (await anext(items)).a
                except StopAsyncIteration:
                    return
                except RaffelError:
                    if not caught:
                        raise
                    yield -1

        server.stream("echo", direction="bidi").handler(echo)

    client = await serve_and_connect(routes)
    response = client["/Root/Echo"].response
    call = client.channel.stream_stream(
        "/Root/Echo", request_serializer=bytes, response_deserializer=response.FromString
    )(timeout=20)
    # One by one: what grpcio still writes when the server has ended hides the server's status from it.
    await call.write(b"\x08\x01")
    assert (await call.read()).value == 1
    await call.write(b"\xff\xff\xff")
    if not caught:
        assert (await failure(call.read())).error["code"] == "PARSE_ERROR"
        return
    assert (await call.read()).value == -1
    await call.write(b"\x08\x02")
    assert (await call.read()).value == 2
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_hundred_errors_at_once_harm_no_other_call(client):
    fail, add = client["/Trouble/Refuse"], client["/Math/Add"]
    failing = [failure(fail(fail.request(code="NOT_FOUND", message=str(number)))) for number in range(50)]
    adding = [add(add.request(a=number)) for number in range(50)]

    async def value(call):
        return (await call).value

    found = await asyncio.gather(*failing, *map(value, adding))
    assert [one.message for one in found[:50]] == [str(number) for number in range(50)]
    assert found[50:] == list(range(50))
