"""How a call is opened, on every protocol alike: its route, who calls, its input, interceptors, handler."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from raffel_core import RaffelError
from raffel_core.route import Kind

from .clients.call import Can, Failed
from .clients.table import CARRIERS, every_call, every_protocol, over
from .handlers import define, route_file

READ = [Kind.UNARY, Kind.SERVER]
"""Kinds whose input is checked when they are opened."""

AUTH = """
from raffel_core import Auth

async def authenticate(ctx):
    name = ctx.metadata.get("x-name")
    return None if name is None else Auth(name, roles=ctx.metadata.get("x-roles", "").split(","))
"""


ROOMS = {
    "rooms.42.chat": "42",
    "rooms/42/chat": "42",
    "rooms/1.5/chat": "1.5",
    "rooms/café 日本/chat": "café 日本",
    "rooms/100%/chat": "100%",
    "rooms/%41/chat": "%41",
    "rooms/a+b?c=d#e/chat": "a+b?c=d#e",
}

OUT_OF_BOUNDS = [
    ({"limit": -1}, "limit", "Expected int >= 0"),
    ({"limit": 1001, "level": "error"}, "limit", "Expected int <= 1000"),
]
WRONG = [
    ({"limit": "10"}, "limit", "Expected int, got str"),
    ({"limit": None}, "limit", "Expected int, got null"),
    ({"limit": 1, "level": 2}, "level", "Expected str, got int"),
    ({}, "limit", "Object missing required field limit"),
    ({"limit": 1, "more": 2}, "more", "Object contains unknown field more"),
    ([1], "", "Expected object, got array"),
    (None, "", "Expected object, got null"),
]
"""Inputs that are no Query, where that is seen and what is said of it."""

BAD_TIMEOUTS = ["soon", "0", "-1", "+1", "1.5", "1e3", "", "1_000", "0x10"]


async def nothing(ctx):
    return None


class Query(Struct, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=0, le=1000)]
    level: str = "info"


# What a handler knows


@every_call()
async def test_a_call_knows_what_carries_it_and_where_it_comes_from(build, connect, kind, carrier):
    server, seen = build(), []

    async def body(ctx):
        seen.append((ctx.protocol, ctx.route, ctx.params, ctx.restarted, ctx.last_event_id, ctx.auth))
        return ctx.peer

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", await (await client.open(kind, "call")).value())
    assert seen == [(carrier.name, "call", {}, False, None, None)]


@every_call()
async def test_metadata_arrive_with_their_keys_in_lower_case(build, connect, kind):
    server = build()

    async def body(ctx):
        return [ctx.metadata.get("x-team"), ctx.metadata.get("x-empty"), ctx.metadata.get("X-Team")]

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "call", metadata={"X-Team": "the blue one", "x-empty": ""})
    assert await call.value() == ["the blue one", "", None]


@every_protocol()
async def test_metadata_of_one_call_are_not_those_of_the_next(build, connect, kind):
    server = build()

    async def body(ctx):
        return ctx.metadata.get("x-team")

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", metadata={"X-Team": "blue"})).value() == "blue"
    assert await (await client.open(kind, "call")).value() is None


# Names


@every_protocol()
async def test_a_name_that_nothing_answers_is_not_found(build, connect, kind):
    server = build()
    define(server, kind, nothing, "rooms.chat")
    await server.start()
    client = await connect(server)
    for name in ("nothing", "rooms", "rooms.chat.more", "Rooms.chat"):
        assert (await (await client.open(kind, name, {})).failure()).code == "NOT_FOUND"


@every_protocol()
async def test_a_parameter_arrives_in_either_spelling(build, connect, kind):
    server, found = build(), {}

    async def body(ctx):
        return [ctx.route, ctx.params]

    define(server, kind, body, "rooms.[room].chat")
    await server.start()
    client = await connect(server)
    for name in ROOMS:
        found[name] = await (await client.open(kind, name, {})).value()
    assert found == {name: ["rooms.[room].chat", {"room": room}] for name, room in ROOMS.items()}


@every_protocol()
async def test_a_catch_all_and_an_optional_segment_arrive(build, connect, kind):
    server = build()

    async def body(ctx):
        return ctx.params

    define(server, kind, body, "files.[...path]")
    define(server, kind, body, "logs.[[level]]")
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "files/a/b.txt", {})).value() == {"path": "a/b.txt"}
    assert await (await client.open(kind, "logs.error", {})).value() == {"level": "error"}
    assert await (await client.open(kind, "logs", {})).value() == {}


@every_call(kinds=READ)
async def test_a_parameter_fills_the_field_of_its_name(build, connect, kind):
    server = build()

    async def body(ctx):
        return [ctx.input.limit, ctx.input.level]

    define(server, kind, body, "top.[limit]", input=Query)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "top.7", {"level": "error", "limit": 1})).value() == [7, "error"]
    assert await (await client.open(kind, "top.8")).value() == [8, "info"]


@over(Kind.UNARY, Can.KINDS)
@pytest.mark.parametrize("asked", [Kind.SERVER, Kind.CLIENT, Kind.BIDI])
async def test_a_stream_that_is_called_as_a_procedure_is_unimplemented(build, connect, asked):
    server = build()
    define(server, asked, nothing)
    await server.start()
    client = await connect(server)
    assert (await (await client.open(Kind.UNARY, "call", {})).failure()).code == "UNIMPLEMENTED"


@every_call(Can.KINDS, kinds=[Kind.SERVER, Kind.CLIENT, Kind.BIDI])
async def test_a_procedure_that_is_opened_as_a_stream_is_unimplemented(build, connect, kind):
    server = build()
    define(server, Kind.UNARY, nothing)
    await server.start()
    client = await connect(server)
    assert (await (await client.open(kind, "call", {})).failure()).code == "UNIMPLEMENTED"


@pytest.mark.parametrize("carrier", [one for one in CARRIERS if one.kinds == {Kind.SERVER}], ids=str)
@pytest.mark.parametrize("asked", [Kind.CLIENT, Kind.BIDI])
async def test_a_protocol_that_carries_no_such_stream_names_those_that_do(build, connect, asked):
    server = build()
    define(server, asked, nothing)
    await server.start()
    client = await connect(server)
    failure = await (await client.open(asked, "call", {})).failure()
    assert failure.code == "UNIMPLEMENTED"
    assert all(one.title in failure.message for one in CARRIERS if asked in one.kinds)


# Input


async def refusals(server, connect, kind, bad):
    """The errors that these inputs get; no handler is called."""
    called = []

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body, input=Query)
    await server.start()
    client = await connect(server)
    failures = [await (await client.open(kind, "call", input)).failure() for input, *_ in bad]
    assert not called
    return [(failure.code, failure.details) for failure in failures]


@every_call(kinds=READ)
async def test_an_input_out_of_bounds_is_refused_with_the_same_details(build, connect, kind):
    found = await refusals(build(), connect, kind, OUT_OF_BOUNDS)
    assert found == [("VALIDATION_ERROR", [{"path": path, "message": text}]) for _, path, text in OUT_OF_BOUNDS]


@every_call(Can.WRONG, kinds=READ)
async def test_an_input_of_the_wrong_type_is_refused_with_the_same_details(build, connect, kind):
    found = await refusals(build(), connect, kind, WRONG)
    assert found == [("VALIDATION_ERROR", [{"path": path, "message": text}]) for _, path, text in WRONG]


@every_call(Can.WRONG, kinds=READ)
async def test_a_parameter_that_does_not_fit_is_refused(build, connect, kind):
    server = build()
    define(server, kind, nothing, "top.[limit]", input=Query)
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "top.many", {})).failure()
    assert failure.code == "VALIDATION_ERROR" and [fault["path"] for fault in failure.details] == ["limit"]


@every_call(kinds=READ)
async def test_the_handler_gets_its_input_as_the_declared_type(build, connect, kind):
    server, seen = build(), []

    async def body(ctx):
        seen.append(ctx.input)

    define(server, kind, body, input=Query)
    await server.start()
    client = await connect(server)
    await (await client.open(kind, "call", {"limit": 3})).value()
    assert seen == [Query(3)]


@every_protocol()
async def test_a_message_of_exactly_the_limit_is_accepted(build, connect, kind):
    server = build(limits={"message_bytes": 100_000})

    async def body(ctx):
        return len(ctx.input["text"])

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    size = 100_000 - client.weigh(kind, "call", {"text": ""})
    assert await (await client.open(kind, "call", {"text": "x" * size})).value() == size


@every_protocol()
async def test_one_byte_more_is_too_large(build, connect, kind):
    server, called = build(limits={"message_bytes": 100_000}), []

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    size = 100_001 - client.weigh(kind, "call", {"text": ""})
    failure = await (await client.open(kind, "call", {"text": "x" * size})).failure()
    assert failure.code in ("PAYLOAD_TOO_LARGE", "MESSAGE_TOO_LARGE")
    assert not called


@every_protocol()
async def test_a_message_far_beyond_the_limit_is_too_large(build, connect, kind):
    server = build()
    define(server, kind, nothing)
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "call", "x" * 3_000_000)).failure()
    assert failure.code in ("PAYLOAD_TOO_LARGE", "MESSAGE_TOO_LARGE")


@every_call()
async def test_a_timeout_that_is_no_positive_integer_is_refused(build, connect, kind):
    server, called, found = build(), [], {}

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    for timeout in BAD_TIMEOUTS:
        found[timeout] = (await (await client.open(kind, "call", {}, timeout_ms=timeout)).failure()).code
    assert found == dict.fromkeys(BAD_TIMEOUTS, "INVALID_ARGUMENT") and not called


# Who calls


@pytest.fixture
def guarded(serve, probe):
    """A server with one route below an `_auth.py`."""

    async def start(kind, body=nothing, **meta):
        probe.body = body
        return await serve({"_auth.py": AUTH, **route_file(kind, **meta)})

    return start


@every_call()
async def test_whoever_shows_nothing_is_unauthenticated(guarded, connect, kind):
    client = await connect(await guarded(kind))
    assert (await (await client.open(kind, "call", {})).failure()).code == "UNAUTHENTICATED"


@every_call()
async def test_whoever_lacks_the_role_is_denied(guarded, connect, kind):
    client = await connect(await guarded(kind, auth=["admin"]))
    call = await client.open(kind, "call", {}, metadata={"X-Name": "kai", "X-Roles": "guest,user"})
    assert (await call.failure()).code == "PERMISSION_DENIED"


@every_call()
async def test_the_handler_knows_who_calls(guarded, connect, kind):
    async def body(ctx):
        return [ctx.auth.principal, ctx.auth.roles]

    client = await connect(await guarded(kind, body, auth=["admin"]))
    call = await client.open(kind, "call", {}, metadata={"X-Name": "kai", "X-Roles": "user,admin"})
    assert await call.value() == ["kai", ["user", "admin"]]


@every_call()
async def test_a_route_that_is_open_to_all_asks_nobody(guarded, connect, kind):
    client = await connect(await guarded(kind, auth="none"))
    assert await (await client.open(kind, "call", {})).value() is None


@every_protocol()
async def test_authenticate_sees_the_call(serve, probe, connect, kind, carrier):
    seen = []

    async def look(ctx):
        seen.append((ctx.protocol, ctx.route, ctx.params, ctx.metadata["x-name"], ctx.input))

    probe.body, probe.look = nothing, look
    auth = "import probe\nfrom raffel_core import Auth\nasync def authenticate(ctx):\n    await probe.look(ctx)\n"
    server = await serve({"rooms/_auth.py": auth + "    return Auth()\n", **route_file(kind, "rooms/[room]")})
    client = await connect(server)
    await (await client.open(kind, "rooms.42", {"a": 1}, metadata={"X-Name": "kai"})).value()
    assert seen == [(carrier.name, "rooms.[room]", {"room": "42"}, "kai", None)]


@every_protocol()
async def test_what_authenticate_raises_is_the_answer(serve, probe, connect, kind):
    probe.body = nothing
    auth = """
    from raffel_core import RaffelError

    async def authenticate(ctx):
        raise RaffelError("RATE_LIMITED", "too many attempts", details={"wait": 5})
    """
    client = await connect(await serve({"_auth.py": auth, **route_file(kind)}))
    failure = await (await client.open(kind, "call", {})).failure()
    assert failure == Failed("RATE_LIMITED", "too many attempts", {"wait": 5})


# Interceptors


@every_call()
async def test_interceptors_run_from_the_outermost_to_the_handler_and_back(build, connect, kind):
    server, steps = build(), []

    def step(name):
        async def interceptor(call, call_next):
            steps.append(f"{name} before {call.route.name}")
            opened = await call_next(call)
            steps.append(f"{name} after")
            return opened

        return interceptor

    server.use(step("outer"))
    define(server, kind, nothing, use=[step("inner")])
    await server.start()
    client = await connect(server)
    await (await client.open(kind, "call", {})).value()
    assert steps == ["outer before call", "inner before call", "inner after", "outer after"]


@every_call()
async def test_an_interceptor_may_refuse_a_call(build, connect, kind):
    server, called = build(), []

    async def refuse(call, call_next):
        raise RaffelError("FAILED_PRECONDITION", "not today", details=["closed"])

    async def body(ctx):
        called.append(ctx)

    define(server, kind, body, use=[refuse])
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "call", {})).failure()
    assert failure == Failed("FAILED_PRECONDITION", "not today", ["closed"])
    assert not called


@every_protocol()
async def test_what_an_interceptor_leaves_is_there_for_the_handler(build, connect, kind):
    server = build()

    async def leave(call, call_next):
        call.ctx.state.word = call.ctx.metadata["x-word"]
        return await call_next(call)

    async def body(ctx):
        return ctx.state.word

    define(server, kind, body, use=[leave])
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", {}, metadata={"X-Word": "hello"})).value() == "hello"


@every_call()
async def test_an_interceptor_may_change_what_goes_out(build, connect, kind):
    server = build()

    async def shout(call, call_next):
        opened = await call_next(call)
        if not kind.writes:
            return opened.upper()

        async def louder():
            async for item in opened:
                yield item.upper()

        return louder()

    async def body(ctx):
        return "quiet"

    define(server, kind, body, use=[shout])
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", {})).value() == "QUIET"


@over(Kind.UNARY)
async def test_an_interceptor_may_replace_the_input(build, connect):
    server = build()

    async def double(call, call_next):
        call.input = call.input * 2
        return await call_next(call)

    @server.procedure("echo").use(double)
    async def echo(input: int):
        return input

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.UNARY, "echo", 21)).value() == 42


# The order

QUERY = """
from typing import Annotated
from msgspec import Meta, Struct

class Query(Struct):
    a: Annotated[int, Meta(ge=0)] = 0

"""
STEPS = """
import probe
from raffel_core import Auth, RaffelError

async def authenticate(ctx):
    probe.steps.append("authentication")
    return Auth() if "x-name" in ctx.metadata else None
"""
MIDDLEWARE = """
import probe
from raffel_core import RaffelError

async def middleware(call, call_next):
    probe.steps.append("interceptors")
    if "x-stop" in call.ctx.metadata:
        raise RaffelError("RATE_LIMITED")
    return await call_next(call)
"""


@pytest.fixture
def stepwise(serve, probe):
    """A server that notes how far a call has come."""

    async def start(kind):
        async def body(ctx):
            probe.steps.append("handler")

        probe.steps, probe.body = [], body
        (name, source), *_ = route_file(kind).items()
        if kind in READ:
            source = QUERY + source.replace("(input,", "(input: Query,")
        return await serve({"_auth.py": STEPS, "_middleware.py": MIDDLEWARE, name: source})

    return start


@every_call()
async def test_an_unknown_route_asks_nobody_who_calls(stepwise, connect, probe, kind):
    client = await connect(await stepwise(kind))
    assert (await (await client.open(kind, "unknown", {})).failure()).code == "NOT_FOUND"
    assert probe.steps == []


@every_call()
async def test_whoever_may_not_call_does_not_learn_what_is_wrong_with_the_input(stepwise, connect, probe, kind):
    client = await connect(await stepwise(kind))
    call = await client.open(kind, "call", {"a": -1}, metadata={"X-Stop": "1"})
    assert (await call.failure()).code == "UNAUTHENTICATED"
    assert probe.steps == ["authentication"]


@every_call(kinds=READ)
async def test_a_bad_input_does_not_get_to_the_interceptors(stepwise, connect, probe, kind):
    client = await connect(await stepwise(kind))
    call = await client.open(kind, "call", {"a": -1}, metadata={"X-Name": "kai", "X-Stop": "1"})
    assert (await call.failure()).code == "VALIDATION_ERROR"
    assert probe.steps == ["authentication"]


@every_call()
async def test_what_interceptors_refuse_does_not_get_to_the_handler(stepwise, connect, probe, kind):
    client = await connect(await stepwise(kind))
    call = await client.open(kind, "call", {"a": 1}, metadata={"X-Name": "kai", "X-Stop": "1"})
    assert (await call.failure()).code == "RATE_LIMITED"
    assert probe.steps == ["authentication", "interceptors"]


@every_call()
async def test_the_handler_comes_last(stepwise, connect, probe, kind):
    client = await connect(await stepwise(kind))
    await (await client.open(kind, "call", {"a": 1}, metadata={"X-Name": "kai"})).value()
    assert probe.steps == ["authentication", "interceptors", "handler"]
