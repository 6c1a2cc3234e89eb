"""Each kind of call, each message, and each mistake in one: the same over WebSocket and TCP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from raffel_core import Context, Event, RaffelError

REMEMBERED = 1024
DEPTH = 512

TERMINAL = ("response", "error", "stream:end", "stream:error")


def code(message: dict) -> tuple[str, str | None, str]:
    """The type, the id and the code of an error."""
    return message["type"], message.get("id"), message["payload"]["code"]


def response(id: str, payload: object) -> dict:
    return {"type": "response", "id": id, "payload": payload}


def data(id: str, payload: object) -> dict:
    return {"type": "stream:data", "id": id, "payload": payload}


def end(id: str) -> dict:
    return {"type": "stream:end", "id": id}


async def released(wire, id: str, procedure: str = "wait") -> None:
    """Opens a stream and waits for its first item."""
    await wire.open(id, procedure)
    assert (await wire.receive())["type"] == "stream:data"


# Procedures


async def test_a_request_is_answered_by_one_response(wire):
    await wire.request("1", "add", {"a": 1, "b": 2})
    assert await wire.receive() == response("1", 3)
    assert await wire.silent()


async def test_a_request_without_a_payload_has_none(wire):
    await wire.request("1", "same")
    assert await wire.receive() == response("1", {})


async def test_an_error_of_a_handler_answers_its_request(build, connect):
    server = build()

    @server.procedure("fail")
    async def fail():
        raise RaffelError("NOT_FOUND", "no such thing", details={"thing": 1})

    await server.start()
    wire = await connect(server)
    await wire.request("1", "fail")
    expected = {"code": "NOT_FOUND", "message": "no such thing", "details": {"thing": 1}}
    assert await wire.receive() == {"type": "error", "id": "1", "payload": expected}


async def test_details_are_left_out_where_there_are_none(build, connect):
    server = build()

    @server.procedure("fail")
    async def fail():
        raise RaffelError("OUT_OF_TEA", "none left")

    await server.start()
    wire = await connect(server)
    await wire.request("1", "fail")
    assert (await wire.receive())["payload"] == {"code": "OUT_OF_TEA", "message": "none left"}


async def test_requests_are_answered_as_they_are_done_not_as_they_came(build, connect):
    server, go_on = build(), asyncio.Event()

    @server.procedure("slow")
    async def slow():
        await go_on.wait()
        return "slow"

    await server.start()
    wire = await connect(server)
    await wire.request("1", "slow")
    await wire.request("2", "same", "quick")
    assert await wire.receive() == response("2", "quick")
    go_on.set()
    assert await wire.receive() == response("1", "slow")


# Server streams


async def test_a_server_stream_is_items_and_an_end(wire):
    await wire.open("s", "count", {"to": 3})
    expected = [data("s", {"n": number}) for number in range(3)]
    assert [await wire.receive() for _ in range(4)] == [*expected, end("s")]


async def test_a_server_stream_may_end_without_an_item(wire):
    await wire.open("s", "count", {"to": 0})
    assert await wire.receive() == end("s")


async def test_a_server_stream_may_end_with_an_error_behind_its_items(build, connect):
    server = build()

    @server.stream("fail")
    async def fail():
        yield 1
        raise RaffelError("DATA_LOSS", "gone")

    await server.start()
    wire = await connect(server)
    await wire.open("s", "fail")
    assert await wire.receive() == data("s", 1)
    assert await wire.receive() == {
        "type": "stream:error",
        "id": "s",
        "payload": {"code": "DATA_LOSS", "message": "gone"},
    }


async def test_an_item_that_is_not_what_the_route_promises_ends_its_stream(build, connect):
    server = build()

    @server.stream("wrong")
    async def wrong() -> AsyncIterator[int]:
        yield 1
        yield "two"

    await server.start()
    wire = await connect(server)
    await wire.open("s", "wrong")
    assert await wire.receive() == data("s", 1)
    assert code(await wire.receive()) == ("stream:error", "s", "OUTPUT_VALIDATION_ERROR")


@pytest.mark.filterwarnings("ignore")  # what it raises is logged
@pytest.mark.parametrize("development", [False, True])
async def test_what_nobody_foresaw_is_told_in_development_alone(build, connect, development):
    server = build(development=development)

    @server.stream("broken")
    async def broken():
        yield 1
        raise ZeroDivisionError("the secret")

    await server.start()
    wire = await connect(server)
    await wire.open("s", "broken")
    error = (await wire.until("stream:error"))[-1]["payload"]
    assert error["code"] == "INTERNAL_ERROR" and error["details"]["request_id"]
    assert ("the secret" in json.dumps(error)) is development


# Client streams


async def test_a_client_stream_is_answered_by_one_response(wire):
    await wire.open("u", "total", {"name": "x"})
    for number in (1, 2, 3):
        await wire.item("u", number)
    await wire.finish("u")
    assert await wire.receive() == response("u", {"total": 6, "input": {"name": "x"}})
    assert await wire.silent()


async def test_a_client_stream_may_have_no_items(wire):
    await wire.open("u", "total")
    await wire.finish("u")
    assert (await wire.receive())["payload"]["total"] == 0


@pytest.mark.parametrize("payload", [None, "no int", 1.5, [1], {"a": {"b": []}}], ids=repr)
async def test_the_opening_of_a_client_stream_is_checked_against_nothing(wire, payload):
    await wire.open("u", "total", payload)
    await wire.finish("u")
    assert await wire.receive() == response("u", {"total": 0, "input": payload})


async def test_a_handler_may_answer_before_the_client_is_done(build, connect):
    server = build()

    @server.stream("first", direction="client")
    async def first(items):
        return await anext(items)

    await server.start()
    wire = await connect(server)
    await wire.open("u", "first")
    await wire.item("u", 1)
    assert await wire.receive() == response("u", 1)
    await wire.item("u", 2)
    await wire.finish("u")
    assert await wire.silent()


async def test_an_error_of_its_handler_ends_a_client_stream(build, connect):
    server = build()

    @server.stream("fail", direction="client")
    async def fail(items):
        raise RaffelError("PERMISSION_DENIED", "no")

    await server.start()
    wire = await connect(server)
    await wire.open("u", "fail")
    assert code(await wire.receive()) == ("stream:error", "u", "PERMISSION_DENIED")


async def test_a_bad_item_that_nobody_catches_ends_the_stream(wire):
    await wire.open("u", "total")
    await wire.item("u", 1)
    await wire.item("u", "two")
    error = await wire.receive()
    assert code(error) == ("stream:error", "u", "VALIDATION_ERROR")
    assert error["payload"]["details"] == [{"path": "", "message": "Expected int, got str"}]


@pytest.mark.parametrize("direction", ["client", "bidi"])
async def test_a_bad_item_raises_where_the_handler_reads(build, connect, direction):
    server, seen = build(), []

    async def read(items: AsyncIterator[int]):
        while True:
            try:
                async for item in items:
                    seen.append(item)  # noqa: PERF401 - what was read before an error counts
                return
            except RaffelError as error:
                seen.append(error.code)

    if direction == "client":

        @server.stream("read", direction="client")
        async def client(items: AsyncIterator[int]):
            await read(items)

    else:

        @server.stream("read", direction="bidi")
        async def bidi(items: AsyncIterator[int]):
            await read(items)
            yield None

    await server.start()
    wire = await connect(server)
    await wire.open("u", "read")
    for item in (1, "two", 3, None, 5):
        await wire.item("u", item)
    await wire.finish("u")
    await wire.receive()
    assert seen == [1, "VALIDATION_ERROR", 3, "VALIDATION_ERROR", 5]


# Bidi streams


async def test_a_bidi_stream_goes_both_ways_at_once(wire):
    await wire.open("b", "echo")
    for number in range(3):
        await wire.item("b", number)
        assert await wire.receive() == data("b", number)
    await wire.finish("b")
    assert await wire.receive() == end("b")


async def test_after_the_clients_end_the_handler_may_go_on_sending(build, connect):
    server = build()

    @server.stream("after", direction="bidi")
    async def after(items):
        read = [item async for item in items]
        for number in range(3):
            yield [number, read]

    await server.start()
    wire = await connect(server)
    await wire.open("b", "after")
    await wire.item("b", "x")
    await wire.finish("b")
    assert [await wire.receive() for _ in range(4)] == [*(data("b", [n, ["x"]]) for n in range(3)), end("b")]


async def test_a_bidi_handler_may_speak_first_and_knows_its_input(build, connect):
    server = build()

    @server.stream("greet", direction="bidi")
    async def greet(items, ctx: Context):
        yield f"hello {ctx.input['name']}"
        async for item in items:
            yield item

    await server.start()
    wire = await connect(server)
    await wire.open("b", "greet", {"name": "Kai"})
    assert await wire.receive() == data("b", "hello Kai")


async def test_a_bidi_handler_may_end_while_the_client_sends(build, connect):
    server = build()

    @server.stream("once", direction="bidi")
    async def once(items):
        yield await anext(items)

    await server.start()
    wire = await connect(server)
    await wire.open("b", "once")
    for number in range(3):
        await wire.item("b", number)
    assert await wire.receive() == data("b", 0)
    assert await wire.receive() == end("b")
    assert await wire.silent()


# Names


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rooms.42.a.b", {"room": "42", "rest": "a/b"}),
        ("rooms/42/a/b", {"room": "42", "rest": "a/b"}),
        ("rooms/4.2/a.b", {"room": "4.2", "rest": "a.b"}),
        ("rooms.ü 1.a", {"room": "ü 1", "rest": "a"}),
    ],
)
async def test_a_name_has_its_parameters_filled_in(wire, name, params):
    await wire.open("s", name)
    assert (await wire.receive())["payload"]["params"] == params


async def test_the_handler_knows_what_carries_its_call(wire, protocol):
    await wire.request("1", "told")
    assert (await wire.receive())["payload"]["protocol"] == protocol


# Side by side


async def test_streams_of_a_connection_are_told_apart_by_their_ids(wire):
    ids = [f"s{number}" for number in range(50)]
    for id in ids:
        await wire.open(id, "count", {"to": 20})
    seen = {id: [] for id in ids}
    while not all(messages and messages[-1]["type"] == "stream:end" for messages in seen.values()):
        message = await wire.receive()
        seen[message["id"]].append(message)
    for id in ids:
        assert seen[id] == [*(data(id, {"n": number}) for number in range(20)), end(id)]


async def test_calls_of_every_kind_run_side_by_side(wire):
    await wire.open("b", "echo")
    await wire.open("u", "total")
    await wire.open("s", "wait")
    await wire.request("r", "hang")
    await wire.item("u", 1)
    await wire.item("b", "x")
    await wire.item("u", 2)
    await wire.finish("u")
    await wire.request("q", "add", {"a": 1, "b": 1})
    messages = {message["id"]: message for message in [await wire.receive() for _ in range(4)]}
    assert messages == {
        "s": data("s", "waiting"),
        "b": data("b", "x"),
        "u": response("u", {"total": 3, "input": {}}),
        "q": response("q", 2),
    }


async def test_two_connections_may_use_the_same_id(server, connect):
    one, other = await connect(server), await connect(server)
    await released(one, "s")
    await released(other, "s")
    await one.cancel("s")
    assert code(await one.receive()) == ("stream:error", "s", "CANCELLED")
    assert await other.silent()


async def test_an_id_is_given_back_as_it_came(wire):
    for id in ("1", " ", "é", "日本", "🦜", '"', "\\", "\n", "\u0000", "a/b.c", "\u2028", "raffel:end"):
        await wire.open(id, "count", {"to": 1})
        assert [await wire.receive() for _ in range(2)] == [data(id, {"n": 0}), end(id)]
        await wire.request(id, "same", "x")
        assert await wire.receive() == response(id, "x")
        await wire.open(id, "nowhere")
        assert code(await wire.receive()) == ("stream:error", id, "NOT_FOUND")


async def test_a_payload_may_be_any_json(wire):
    await wire.open("b", "echo")
    for payload in (None, True, 0, -1.5, "", "é🦜\u2028\x00", [], {}, [1, [2, [3]]], {"type": "cancel", "id": "b"}):
        await wire.request("1", "same", payload)
        assert await wire.receive() == response("1", payload)
        await wire.item("b", payload)
        assert await wire.receive() == data("b", payload)


async def test_json_may_be_written_with_spaces_and_its_members_in_any_order(wire):
    await wire.send('\n{ "payload" : {"a":1,"b":2} ,\t"procedure":"add", "id":"1" , "type":"request" }\r\n')
    assert await wire.receive() == response("1", 3)


# Unknown fields


async def test_unknown_fields_are_ignored(wire):
    extra = {"x": [1, {"y": None}], "data": "z", "eventId": 5, "Payload": {}}
    await wire.request("1", "add", {"a": 1, "b": 2}, **extra)
    assert await wire.receive() == response("1", 3)
    await wire.open("b", "echo", **extra)
    await wire.send({"type": "stream:data", "id": "b", "payload": 1, **extra})
    assert await wire.receive() == data("b", 1)
    await wire.send({"type": "stream:credit", "id": "b", "credit": 1, **extra})
    await wire.send({"type": "stream:end", "id": "b", **extra})
    assert await wire.receive() == end("b")
    await released(wire, "s")
    await wire.send({"type": "cancel", "id": "s", **extra})
    assert code(await wire.receive()) == ("stream:error", "s", "CANCELLED")


async def test_fields_of_other_types_are_ignored(wire):
    await released(wire, "s")
    await wire.send({"type": "cancel", "id": "s", "procedure": "", "priority": 1000, "credit": 0})
    assert code(await wire.receive()) == ("stream:error", "s", "CANCELLED")


# Calls that cannot be opened

UNOPENED = {
    "NOT_FOUND": {"procedure": "nowhere"},
    "VALIDATION_ERROR": {"payload": {"to": "many", "a": "one", "b": 2}},
    "INVALID_ARGUMENT": {"metadata": {"timeout-ms": "soon"}},
    "INVALID_ENVELOPE": {"priority": 128},
}


@pytest.mark.parametrize("expected", UNOPENED)
async def test_a_stream_that_cannot_be_opened_is_answered_by_stream_error(wire, expected):
    await wire.open("s", **{"procedure": "count", **UNOPENED[expected]})
    assert code(await wire.receive()) == ("stream:error", "s", expected)
    assert await wire.silent()


@pytest.mark.parametrize("expected", UNOPENED)
async def test_a_request_that_cannot_be_opened_is_answered_by_error(wire, expected):
    await wire.request("r", **{"procedure": "add", **UNOPENED[expected]})
    assert code(await wire.receive()) == ("error", "r", expected)
    assert await wire.silent()


AUTH = {
    "_auth.py": """
        from raffel_core import Auth

        async def authenticate(ctx):
            token = ctx.metadata.get("authorization")
            return Auth(principal=token, roles=[token]) if token else None
        """,
    "who.rpc.py": "async def handler(input, ctx):\n    return ctx.auth.principal\n",
    "ticks.stream.py": "meta = {'auth': ['admin']}\nasync def handler():\n    yield 1\n",
    "up.stream.py": "meta = {'direction': 'client'}\nasync def handler(items):\n    return 1\n",
}


@pytest.mark.parametrize(("procedure", "kind"), [("ticks", "stream:start"), ("up", "stream:start"), ("who", "request")])
async def test_who_is_unknown_is_told_so_under_the_calls_id(serve, connect, procedure, kind):
    wire = await connect(await serve(AUTH))
    await wire.send({"type": kind, "id": "1", "procedure": procedure})
    expected = "error" if kind == "request" else "stream:error"
    assert code(await wire.receive()) == (expected, "1", "UNAUTHENTICATED")


async def test_who_may_not_is_told_so_under_the_calls_id(serve, connect):
    wire = await connect(await serve(AUTH))
    await wire.open("s", "ticks", metadata={"authorization": "guest"})
    assert code(await wire.receive()) == ("stream:error", "s", "PERMISSION_DENIED")


async def test_who_is_calling_is_asked_for_each_call(serve, connect):
    wire = await connect(await serve(AUTH))
    for name in ("kai", "ada"):
        await wire.request(name, "who", metadata={"Authorization": name})
        assert await wire.receive() == response(name, name)


async def test_a_caller_is_authenticated_before_the_input_is_looked_at(serve, connect):
    wire = await connect(await serve(AUTH))
    await wire.send({"type": "stream:start", "id": "s", "procedure": "ticks", "payload": 5})
    assert code(await wire.receive()) == ("stream:error", "s", "UNAUTHENTICATED")


async def test_a_request_for_a_stream_is_unimplemented(wire):
    for procedure in ("count", "total", "echo"):
        await wire.request("r", procedure)
        assert code(await wire.receive()) == ("error", "r", "UNIMPLEMENTED")


async def test_a_stream_start_for_a_procedure_is_unimplemented(wire):
    await wire.open("s", "add", {"a": 1, "b": 2})
    assert code(await wire.receive()) == ("stream:error", "s", "UNIMPLEMENTED")


async def test_what_was_sent_behind_a_start_that_failed_is_dropped(wire):
    await wire.open("u", "nowhere")
    await wire.item("u", 1)
    await wire.finish("u")
    await wire.cancel("u")
    assert code(await wire.receive()) == ("stream:error", "u", "NOT_FOUND")
    assert await wire.silent()


async def test_the_id_of_a_call_that_could_not_be_opened_may_be_used_again(wire):
    await wire.open("s", "nowhere")
    await wire.open("s", "count", {"to": 1})
    assert code(await wire.receive()) == ("stream:error", "s", "NOT_FOUND")
    assert [await wire.receive() for _ in range(2)] == [data("s", {"n": 0}), end("s")]


# An id in use


@pytest.mark.parametrize("kind", ["request", "stream:start"])
@pytest.mark.parametrize("holder", ["wait", "echo", "total", "hang"])
async def test_an_id_in_use_is_an_error_that_ends_nothing(wire, kind, holder):
    await wire.send({"type": "request" if holder == "hang" else "stream:start", "id": "x", "procedure": holder})
    if holder == "wait":
        await wire.receive()
    await wire.send({"type": kind, "id": "x", "procedure": "same" if kind == "request" else "count"})
    assert code(await wire.receive()) == ("error", "x", "ALREADY_EXISTS")
    await wire.cancel("x")
    assert code(await wire.receive()) == ("error" if holder == "hang" else "stream:error", "x", "CANCELLED")


async def test_a_request_under_an_id_in_use_says_so_in_its_details(wire):
    await released(wire, "x")
    await wire.request("x", "same")
    assert (await wire.receive())["payload"]["details"] == {"reason": "id_in_use"}


async def test_a_stream_whose_id_was_asked_for_again_goes_on(wire):
    await wire.open("b", "echo")
    await wire.open("b", "echo")
    assert code(await wire.receive()) == ("error", "b", "ALREADY_EXISTS")
    await wire.item("b", 1)
    assert await wire.receive() == data("b", 1)
    await wire.finish("b")
    assert await wire.receive() == end("b")


MALFORMED = [
    {"procedure": 5},
    {"procedure": ""},
    {"procedure": None},
    {"procedure": "x" * 513},
    {"procedure": "count", "priority": 1000},
    {"procedure": "count", "priority": "high"},
    {"procedure": "count", "credit": 0},
    {"procedure": "count", "lastEventId": "x" * 257},
    {"procedure": "count", "lastEventId": 7},
    {"procedure": "count", "metadata": []},
    {"procedure": "count", "binary": "yes"},
]


@pytest.mark.parametrize("kind", ["request", "stream:start"])
async def test_a_malformed_start_under_an_id_in_use_ends_nothing(wire, kind):
    await wire.open("b", "echo")
    for fields in MALFORMED:
        await wire.send({"type": kind, "id": "b", **fields})
        assert code(await wire.receive()) == ("error", "b", "ALREADY_EXISTS")
    await wire.item("b", 1)
    assert await wire.receive() == data("b", 1)


@pytest.mark.parametrize(("kind", "answer"), [("request", "error"), ("stream:start", "stream:error")])
async def test_a_malformed_start_is_answered_under_its_id(wire, kind, answer):
    for fields in MALFORMED:
        await wire.send({"type": kind, "id": "x", **fields})
        assert (fields, *code(await wire.receive())) == (fields, answer, "x", "INVALID_ENVELOPE")
    assert await wire.silent()


@pytest.mark.parametrize(("kind", "answer"), [("request", "error"), ("stream:start", "stream:error")])
async def test_an_already_exists_of_a_handler_ends_its_call_like_any_other_error(build, connect, kind, answer):
    server = build()

    async def exists():
        raise RaffelError("ALREADY_EXISTS", "such a user")

    (server.procedure if kind == "request" else server.stream)("exists").handler(exists)
    await server.start()
    wire = await connect(server)
    await wire.send({"type": kind, "id": "x", "procedure": "exists"})
    error = await wire.receive()
    assert code(error) == (answer, "x", "ALREADY_EXISTS")
    assert "details" not in error["payload"]


# Items at the wrong time


async def test_data_for_a_server_stream_is_an_error_and_the_stream_goes_on(build, connect):
    server, go_on = build(), asyncio.Event()

    @server.stream("two")
    async def two():
        yield 1
        await go_on.wait()
        yield 2

    await server.start()
    wire = await connect(server)
    await released(wire, "s", "two")
    await wire.item("s", "x")
    assert code(await wire.receive()) == ("error", "s", "FAILED_PRECONDITION")
    go_on.set()
    assert [await wire.receive() for _ in range(2)] == [data("s", 2), end("s")]


async def test_data_after_ones_own_end_is_an_error_and_the_stream_goes_on(build, connect):
    server, go_on = build(), asyncio.Event()

    @server.stream("late", direction="client")
    async def late(items):
        read = [item async for item in items]
        await go_on.wait()
        return read

    await server.start()
    wire = await connect(server)
    await wire.open("u", "late")
    await wire.item("u", 1)
    await wire.finish("u")
    await wire.item("u", 2)
    assert code(await wire.receive()) == ("error", "u", "FAILED_PRECONDITION")
    go_on.set()
    assert await wire.receive() == response("u", [1])


async def test_data_after_ones_own_end_harms_a_bidi_stream_as_little(build, connect):
    server, go_on = build(), asyncio.Event()

    @server.stream("late", direction="bidi")
    async def late(items):
        read = [item async for item in items]
        await go_on.wait()
        yield read

    await server.start()
    wire = await connect(server)
    await wire.open("b", "late")
    await wire.finish("b")
    await wire.item("b", 2)
    assert code(await wire.receive()) == ("error", "b", "FAILED_PRECONDITION")
    go_on.set()
    assert [await wire.receive() for _ in range(2)] == [data("b", []), end("b")]


# Cancel


@pytest.mark.parametrize("procedure", ["wait", "total", "echo"])
async def test_the_cancel_of_a_stream_is_answered_with_stream_error(wire, procedure):
    await wire.open("s", procedure)
    if procedure == "wait":
        await wire.receive()
    await wire.cancel("s")
    error = await wire.receive()
    assert code(error) == ("stream:error", "s", "CANCELLED")
    assert error["payload"]["details"] == {"reason": "client_cancelled"}
    assert await wire.silent()


async def test_the_cancel_of_a_request_is_answered_with_error(wire):
    await wire.request("r", "hang")
    await wire.cancel("r")
    assert code(await wire.receive()) == ("error", "r", "CANCELLED")
    assert await wire.silent()


async def test_the_handler_has_been_told_when_a_cancel_is_answered(build, connect):
    server, told = build(), []

    @server.stream("s")
    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            told.append(ctx.signal.reason)

    await server.start()
    wire = await connect(server)
    await released(wire, "s", "s")
    await wire.cancel("s")
    await wire.receive()
    assert told == ["client_cancelled"]


async def test_a_cancel_is_answered_though_the_handler_takes_its_time(build, connect):
    server, go_on, told = build(), asyncio.Event(), []

    @server.stream("s")
    async def handler(input, ctx):
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            told.append(ctx.signal.reason)
            await go_on.wait()

    await server.start()
    wire = await connect(server)
    await released(wire, "s", "s")
    await wire.cancel("s")
    assert code(await wire.receive()) == ("stream:error", "s", "CANCELLED")
    assert told == ["client_cancelled"]
    go_on.set()
    assert await wire.silent()


async def test_a_cancel_right_behind_its_start_is_answered_once(wire):
    await wire.open("s", "wait")
    await wire.cancel("s")
    await wire.cancel("s")
    messages = [message for message in await wire.until("stream:error") if message["type"] != "stream:data"]
    assert [code(message) for message in messages] == [("stream:error", "s", "CANCELLED")]
    assert await wire.silent()


async def test_after_the_answer_to_a_cancel_no_item_comes(build, connect):
    server = build()

    @server.stream("endless")
    async def endless():
        while True:
            yield "." * 1000

    await server.start()
    wire = await connect(server)
    await released(wire, "s", "endless")
    await wire.cancel("s")
    assert code((await wire.until("stream:error"))[-1]) == ("stream:error", "s", "CANCELLED")
    assert await wire.silent()


async def test_a_cancel_harms_no_other_stream(wire):
    await released(wire, "s")
    await wire.open("b", "echo")
    await wire.cancel("s")
    await wire.item("b", 1)
    messages = [await wire.receive(), await wire.receive()]
    assert {message["id"]: message["type"] for message in messages} == {"s": "stream:error", "b": "stream:data"}


@pytest.mark.parametrize("id", ["never", "ended"])
async def test_the_cancel_of_an_unknown_or_ended_id_is_answered_with_nothing(wire, id):
    await wire.request("ended", "same")
    await wire.receive()
    await wire.cancel(id)
    assert await wire.silent()


async def test_the_cancelled_id_may_be_used_again_at_once(wire):
    await released(wire, "s")
    await wire.cancel("s")
    assert code(await wire.receive()) == ("stream:error", "s", "CANCELLED")
    await wire.open("s", "count", {"to": 1})
    assert [await wire.receive() for _ in range(2)] == [data("s", {"n": 0}), end("s")]


async def test_what_a_handler_says_to_its_cancellation_is_not_sent(build, connect):
    server = build()

    @server.stream("stubborn")
    async def stubborn():
        yield 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 2
            raise RaffelError("NOT_FOUND", "something else") from None

    await server.start()
    wire = await connect(server)
    await released(wire, "s", "stubborn")
    await wire.cancel("s")
    assert code(await wire.receive()) == ("stream:error", "s", "CANCELLED")
    assert await wire.silent()


# Ids that are over


@pytest.mark.parametrize("kind", ["stream:data", "stream:end"])
async def test_a_message_for_an_id_that_never_was_is_not_found(wire, kind):
    await wire.send({"type": kind, "id": "nobody", "payload": 1})
    assert code(await wire.receive()) == ("error", "nobody", "NOT_FOUND")


@pytest.mark.parametrize("kind", ["stream:data", "stream:end", "stream:credit"])
@pytest.mark.parametrize("procedure", ["count", "same", "nowhere"])
async def test_a_message_that_crossed_an_end_is_dropped_in_silence(wire, kind, procedure):
    await wire.send({"type": "request" if procedure == "same" else "stream:start", "id": "x", "procedure": procedure})
    await wire.until(*TERMINAL)
    await wire.send({"type": kind, "id": "x", "payload": 1, "credit": 1})
    assert await wire.silent()


async def test_a_grant_for_an_id_that_never_was_is_answered_with_nothing(wire):
    await wire.credit("nobody", 1)
    assert await wire.silent()


async def requested(wire, ids, procedure="same") -> None:
    """Has requests answered, some at a time: no more may be open at once."""
    ids = list(map(str, ids))
    for start in range(0, len(ids), 50):
        for id in ids[start : start + 50]:
            await wire.request(id, procedure)
        for _ in ids[start : start + 50]:
            await wire.receive()


async def test_the_last_1024_ids_that_ended_are_remembered(wire):
    await requested(wire, range(REMEMBERED + 1))
    await wire.item("1", "late")
    assert await wire.silent()
    # "silent?" has ended since: it is 2 that is the oldest now.
    await wire.item("0", "late")
    assert code(await wire.receive()) == ("error", "0", "NOT_FOUND")


async def test_an_id_that_is_used_again_is_remembered_from_its_last_end(wire):
    await requested(wire, ["x", *range(REMEMBERED - 24), "x", *range(REMEMBERED, REMEMBERED + 100)])
    await wire.item("x", "late")
    assert await wire.silent()


async def test_an_id_that_is_refused_again_is_remembered_from_its_last_end(wire):
    await requested(wire, ["x"], "nowhere")
    await requested(wire, range(REMEMBERED - 24))
    await requested(wire, ["x"], "nowhere")
    await requested(wire, range(REMEMBERED, REMEMBERED + 100))
    await wire.item("x", "late")
    assert await wire.silent()


async def test_an_id_may_be_used_again_after_its_end(wire):
    for number in range(3):
        await wire.open("x", "count", {"to": number})
        assert len(await wire.until("stream:end")) == number + 1
        await wire.request("x", "same", number)
        assert await wire.receive() == response("x", number)
        await wire.open("x", "echo")
        await wire.item("x", number)
        assert await wire.receive() == data("x", number)
        await wire.finish("x")
        assert await wire.receive() == end("x")


# Messages that are none


NO_JSON = [
    "",
    " ",
    "x",
    "{",
    "}",
    '{"type": "cancel", "id": "1"',
    '{"type": "cancel", "id": "1"}}',
    '{"type": "cancel", "id": "1"} {}',
    '{"type": "cancel", "id": "1",}',
    "{'type': 'cancel', 'id': '1'}",
    '{"type": "request", "id": "1", "procedure": "same", "payload": NaN}',
    '{"type": "request", "id": "1", "procedure": "same", "payload": 01}',
    '{"type": "request", "id": "1", "procedure": "same", "payload": "\\x"}',
    '{"type": "request", "id": "1", "procedure": "same", "payload": "\n"}',
    '{"type": "request", "id": "1", "procedure": "same", "payload": [1,]}',
    '{"type": "request", "id": "1", "procedure": "same", "payload": "\\ud800"}',
    '{"type": "request", "id": "1", "procedure": "same", "ignored": tru}',
    '{"type": "request", "id": "\\ud800", "procedure": "same"}',
    '{"type": 5, "id": "1", "payload": [}',
    "\ufeff{}",
]


async def test_no_json_is_a_parse_error(wire):
    found = {}
    for text in NO_JSON:
        await wire.send(text)
        found[text] = code(await wire.receive())
    assert found == dict.fromkeys(NO_JSON, ("error", None, "PARSE_ERROR"))
    assert await wire.silent()


def nested(levels: int, form: str) -> str:
    """A request whose JSON nests so deep, its own braces included."""
    inner = levels - 1
    payload = {
        "arrays": "[" * inner + "]" * inner,
        "objects": '{"a":' * (inner - 1) + "{}" + "}" * (inner - 1),
        "mixed": '[{"a":' * (inner // 2) + "[" * (inner % 2) + "]" * (inner % 2) + "}]" * (inner // 2),
    }
    text = payload[form].replace('"a":}', '"a":1}')
    return f'{{"type":"request","id":"1","procedure":"same","payload":{text}}}'


@pytest.mark.parametrize("form", ["arrays", "objects", "mixed"])
async def test_json_may_nest_512_deep(wire, form):
    text = nested(DEPTH, form)
    await wire.send(text)
    assert await wire.receive() == response("1", json.loads(text)["payload"])


@pytest.mark.parametrize("form", ["arrays", "objects", "mixed"])
@pytest.mark.parametrize("levels", [DEPTH + 1, 100_000])
async def test_json_that_nests_deeper_is_a_parse_error(wire, form, levels):
    await wire.send(nested(levels, form))
    error = await wire.receive()
    assert (error["type"], error["payload"]["code"]) == ("error", "PARSE_ERROR")
    assert await wire.silent()


async def test_what_is_ignored_may_not_nest_deeper_either(wire):
    await wire.send('{"type":"request","id":"1","procedure":"same","x":%s}' % ("[" * DEPTH + "]" * DEPTH))
    assert (await wire.receive())["payload"]["code"] == "PARSE_ERROR"


async def test_brackets_that_do_not_nest_are_not_counted(wire):
    payload = [[], {}, "[{" * 100, '\\"[' * 100] * 300
    await wire.request("1", "same", payload)
    assert await wire.receive() == response("1", payload)


NO_ENVELOPE = {
    "[]": None,
    "null": None,
    "5": None,
    '"request"': None,
    "true": None,
    "{}": None,
    '{"id": "x"}': "x",
    '{"type": null, "id": "x"}': "x",
    '{"type": 5, "id": "x"}': "x",
    '{"type": ["request"], "id": "x"}': "x",
    '{"type": "cancel"}': None,
    '{"type": "cancel", "id": null}': None,
    '{"type": "cancel", "id": 5}': None,
    '{"type": "cancel", "id": ["x"]}': None,
    '{"type": "cancel", "id": ""}': None,
    '{"type": "request", "id": 1, "procedure": "same"}': None,
    '{"type": "stream:start", "procedure": "count"}': None,
    '{"type": "request", "id": "x"}': "x",
    '{"type": "request", "id": "x", "procedure": null}': "x",
    '{"type": "request", "id": "x", "procedure": "same", "metadata": "none"}': "x",
    '{"type": "stream:credit", "id": "x"}': "x",
    '{"type": "stream:credit", "id": "x", "credit": "1"}': "x",
}
"""Messages, and the id that can be read in them."""


async def test_json_that_is_no_envelope_is_an_error_with_the_id_where_there_is_one(wire):
    found = {}
    for text in NO_ENVELOPE:
        await wire.send(text)
        found[text] = code(await wire.receive())
    assert found == {text: ("error", id, "INVALID_ENVELOPE") for text, id in NO_ENVELOPE.items()}
    assert await wire.silent()


async def test_the_id_of_what_is_no_envelope_is_read_whatever_number_is_in_its_payload(wire):
    await wire.send('{"type": 5, "id": "x", "payload": 1e999}')
    assert code(await wire.receive()) == ("error", "x", "INVALID_ENVELOPE")


async def test_a_malformed_start_is_answered_whatever_number_is_in_its_payload(wire):
    await wire.send('{"type": "stream:start", "id": "x", "procedure": 5, "payload": 1e999}')
    assert code(await wire.receive()) == ("stream:error", "x", "INVALID_ENVELOPE")


async def test_an_unknown_type_is_an_error_with_the_id_where_there_is_one(wire):
    for type in ("", "subscribe", "Request", "response", "error", "stream:error", "stream:", "ping", "x" * 1000, "é\n"):
        await wire.send({"type": type, "id": "x"}, {"type": type}, {"type": type, "id": "x" * 129})
        answers = [code(await wire.receive()) for _ in range(3)]
        assert answers == [("error", id, "INVALID_TYPE") for id in ("x", None, None)]
    assert await wire.silent()


async def test_an_unknown_type_with_fields_of_a_wrong_type_is_still_an_unknown_type(wire):
    await wire.send({"type": "subscribe", "id": "x", "procedure": 5})
    assert code(await wire.receive()) == ("error", "x", "INVALID_TYPE")


async def test_an_error_without_an_id_has_no_member_of_that_name(wire):
    await wire.send("x")
    assert "id" not in await wire.receive()


async def test_one_bad_message_harms_no_stream(wire):
    await wire.open("b", "echo")
    for text in ("x", "[]", '{"type":"subscribe","id":"b"}', '{"id":"b"}', '{"type":"stream:credit","id":"b"}'):
        await wire.send(text)
        assert (await wire.receive())["type"] == "error"
        await wire.item("b", 1)
        assert await wire.receive() == data("b", 1)
    await wire.finish("b")
    assert await wire.receive() == end("b")


async def test_many_bad_messages_close_nothing(wire):
    for _ in range(500):
        await wire.send("x", "[]", {"type": "cancel", "id": ""})
    answers = [await wire.receive() for _ in range(1500)]
    assert {message["type"] for message in answers} == {"error"}
    assert await wire.silent()


# Extensions


async def test_an_items_id_is_its_event_id(build, connect):
    server = build()

    @server.stream("ids")
    async def ids():
        yield Event(1, id=7)
        yield Event(2, id='é\\"')
        yield Event(3, event="named", retry=5)
        yield 4

    await server.start()
    wire = await connect(server)
    await wire.open("s", "ids")
    assert [await wire.receive() for _ in range(5)] == [
        {**data("s", 1), "eventId": "7"},
        {**data("s", 2), "eventId": 'é\\"'},
        data("s", 3),
        data("s", 4),
        end("s"),
    ]


async def test_a_stream_is_resumed_after_the_last_event_id(wire):
    await wire.open("s", "tell", lastEventId="41")
    assert (await wire.receive())["payload"]["last_event_id"] == "41"


async def test_a_first_visit_has_no_last_event_id(wire):
    for fields in ({}, {"lastEventId": ""}, {"lastEventId": None}):
        await wire.open("s", "tell", **fields)
        assert (await wire.until("stream:end"))[0]["payload"]["last_event_id"] is None


# Metadata


async def told(wire, metadata) -> dict:
    await wire.request("m", "told", metadata=metadata)
    return (await wire.receive())["payload"]["metadata"]


async def test_metadata_reaches_the_handler(wire):
    found = await told(wire, {"trace": "é🦜", "": "empty"})
    assert (found["trace"], found[""]) == ("é🦜", "empty")


async def test_metadata_reaches_the_handler_of_a_stream(wire):
    await wire.open("s", "tell", metadata={"trace": "1"})
    assert (await wire.receive())["payload"]["metadata"]["trace"] == "1"


async def test_the_keys_of_metadata_are_told_in_lower_case(wire):
    assert (await told(wire, {"X-Trace": "1"}))["x-trace"] == "1"


async def test_other_values_become_strings(wire):
    given = {"a": 5, "b": 1.5, "c": True, "d": False, "e": None, "f": [1, "a"], "g": {"a": 1}}
    texts = {"a": "5", "b": "1.5", "c": "true", "d": "false", "e": "null", "f": '[1,"a"]', "g": '{"a":1}'}
    assert texts.items() <= (await told(wire, given)).items()


async def test_metadata_is_of_its_call_alone(wire):
    await told(wire, {"trace": "1"})
    assert "trace" not in await told(wire, {})
    assert "trace" not in await told(wire, None)


async def test_the_headers_of_the_upgrade_are_the_defaults_of_metadata(server, websocket):
    wire = await websocket(server, additional_headers={"Authorization": "Bearer x", "X-Trace": "0"})
    found = await told(wire, {"X-TRACE": "1"})
    assert (found["authorization"], found["x-trace"]) == ("Bearer x", "1")
    assert (await told(wire, {}))["x-trace"] == "0"


async def test_a_header_of_the_upgrade_says_who_is_calling(serve, websocket):
    wire = await websocket(await serve(AUTH), additional_headers={"Authorization": "admin"})
    await wire.request("1", "who")
    assert await wire.receive() == response("1", "admin")
    await wire.open("s", "ticks")
    assert await wire.receive() == data("s", 1)


async def test_a_deadline_in_the_upgrades_headers_is_none_of_the_calls(server, websocket):
    wire = await websocket(server, additional_headers={"timeout-ms": "1"})
    assert "timeout-ms" not in await told(wire, {})
    wire = await websocket(server, additional_headers={"timeout-ms": "soon"})
    assert await wire.silent()


async def test_tcp_has_no_metadata_of_its_own(server, tcp):
    assert await told(await tcp(server), None) == {}


# Deadlines


@pytest.mark.parametrize("value", ["50", 50])
async def test_the_deadline_of_a_call_is_in_its_metadata(wire, value):
    await wire.request("r", "hang", metadata={"timeout-ms": value})
    assert code(await wire.receive()) == ("error", "r", "DEADLINE_EXCEEDED")
    await wire.open("s", "wait", metadata={"Timeout-Ms": value})
    error = (await wire.until("stream:error"))[-1]
    assert code(error) == ("stream:error", "s", "DEADLINE_EXCEEDED")
    assert error["payload"]["details"] == {"reason": "deadline_exceeded"}


async def test_the_smaller_of_the_two_deadlines_counts(build, connect):
    server, left = build(), []

    @server.procedure("remaining", deadline=10)
    async def remaining(input, ctx):
        left.append(round(ctx.remaining()))

    await server.start()
    wire = await connect(server)
    for metadata in ({"timeout-ms": "5000"}, {"timeout-ms": "20000"}, {}):
        await wire.request("r", "remaining", metadata=metadata)
        await wire.receive()
    assert left == [5, 10, 10]


async def test_any_other_deadline_is_refused(wire):
    for value in ("", "0", "-1", "1.5", "1e3", " 5", "soon", "\u0665", None, True, 0, 1.5):
        await wire.request("r", "same", metadata={"timeout-ms": value})
        assert (value, *code(await wire.receive())) == (value, "error", "r", "INVALID_ARGUMENT")
    await wire.open("u", "total", metadata={"timeout-ms": "0"})
    assert code(await wire.receive()) == ("stream:error", "u", "INVALID_ARGUMENT")


# The order of the end


@pytest.mark.parametrize("size", [1, 1000, 100_000])
async def test_an_end_follows_all_items_of_its_stream(wire, size):
    count = min(5000, 3_000_000 // size)
    await wire.open("s", "count", {"to": count, "size": size})
    messages = await wire.until("stream:end")
    assert [message["payload"]["n"] for message in messages[:-1]] == list(range(count))


async def test_the_end_of_one_stream_among_many_follows_all_its_items(wire):
    ids = [f"s{number}" for number in range(20)]
    for id in ids:
        await wire.open(id, "count", {"to": 300, "size": 500}, priority=int(id[1:]) - 10)
    counts = dict.fromkeys(ids, 0)
    left = set(ids)
    while left:
        message = await wire.receive()
        if message["type"] == "stream:end":
            left.remove(message["id"])
            assert counts[message["id"]] == 300
        else:
            assert message["payload"]["n"] == counts[message["id"]]
            counts[message["id"]] += 1


async def test_an_error_follows_all_items_of_a_client_that_reads_late(build, connect):
    server = build()

    @server.stream("fail")
    async def fail():
        for number in range(2000):
            yield [number, "." * 1000]
        raise RaffelError("DATA_LOSS", "gone")

    await server.start()
    wire = await connect(server)
    wire.transport.pause_reading()
    await wire.open("s", "fail")
    await asyncio.sleep(0.05)
    wire.transport.resume_reading()
    messages = await wire.until("stream:error")
    assert [message["payload"][0] for message in messages[:-1]] == list(range(2000))


async def test_the_items_of_a_deadline_come_before_it(build, connect):
    server = build()

    @server.stream("slow", deadline=0.05)
    async def slow():
        yield 1
        yield 2
        await asyncio.Event().wait()

    await server.start()
    wire = await connect(server)
    await wire.open("s", "slow")
    assert [await wire.receive() for _ in range(2)] == [data("s", 1), data("s", 2)]
    assert code(await wire.receive()) == ("stream:error", "s", "DEADLINE_EXCEEDED")
