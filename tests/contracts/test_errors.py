"""The same error on every protocol, and what a client may learn of one that nobody foresaw."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import datetime
from typing import Annotated

import pytest
from msgspec import Meta, Struct

from raffel_core import Event, RaffelError, tracked
from raffel_core.errors import CODES
from raffel_core.route import Kind

from .clients.call import Can, Failed
from .clients.table import CARRIERS, every_call, every_protocol, over
from .handlers import define

SECRET = "hunter2"
WRITES = [Kind.SERVER, Kind.BIDI]


class Inner(Struct):
    value: float


class Outer(Struct):
    name: str
    inner: Inner | None = None


WRONG = [
    (int, "text", [{"path": "", "message": "Expected int, got str"}]),
    (float, math.nan, None),
    (float, math.inf, None),
    (list[float], [1.0, -math.inf], None),
    (Outer, {"name": 1}, [{"path": "name", "message": "Expected str, got int"}]),
    (Outer, {}, [{"path": "name", "message": "Object missing required field name"}]),
    (Outer, Outer(1), [{"path": "name", "message": "Expected str, got int"}]),  # type: ignore[arg-type]  # which is the point
    (
        Outer,
        Outer("a", Inner("b")),  # type: ignore[arg-type]  # which is the point
        [{"path": "inner.value", "message": "Expected float, got str"}],
    ),
    (Outer, Outer("a", Inner(math.nan)), None),
    (Outer, Inner(1.0), None),
    (Outer, None, None),
    (datetime, "yesterday", None),
    (None, object(), None),
    (None, {"deep": [object()]}, None),
    (None, "\ud800", None),
]
"""What a route promises, what its handler gives, and what is said of it where the contract has the words."""


def failing(kind, error):
    async def body(ctx):
        raise error

    return body


# What a handler raises


@every_call()
async def test_every_code_arrives_with_its_message_and_details(build, connect, kind):
    server = build()

    async def body(ctx):
        raise RaffelError(ctx.metadata["x-code"], "why", details={"n": [1, None]})

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    found = [await (await client.open(kind, "call", {}, metadata={"X-Code": code})).failure() for code in CODES]
    assert found == [Failed(code, "why", {"n": [1, None]}) for code in CODES]


@every_protocol()
async def test_a_code_of_ones_own_arrives(build, connect, kind):
    server = build()
    define(server, kind, failing(kind, RaffelError("TEAPOT", "short\nand “stout”", ["tip", "me"], status=418)))
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "call", {})).failure()
    assert failure == Failed("TEAPOT", "short\nand “stout”", ["tip", "me"])


@every_protocol()
async def test_an_error_without_a_message_or_details_has_none(build, connect, kind):
    server = build()
    define(server, kind, failing(kind, RaffelError("NOT_FOUND")))
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call", {})).failure() == Failed("NOT_FOUND", "")


@every_protocol()
async def test_details_are_any_json(build, connect, kind):
    server = build()
    values = [{}, [], 0, "", False, {"a": [1, {"b": "ä"}]}, "text"]
    left = iter(values)

    async def body(ctx):
        raise RaffelError("NOT_FOUND", details=next(left))

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    failures = [await (await client.open(kind, "call", {})).failure() for _ in values]
    assert [failure.details for failure in failures] == values


@every_call(kinds=WRITES)
async def test_an_error_between_items_comes_after_those_before_it(build, connect, kind):
    server = build()

    @server.stream("items", direction=str(kind))
    async def items():
        for number in range(100):
            yield number
        raise RaffelError("DATA_LOSS", "a hole", details={"after": 99})

    await server.start()
    client = await connect(server)
    found, outcome = await (await client.open(kind, "items")).all()
    assert (found, outcome) == (list(range(100)), Failed("DATA_LOSS", "a hole", {"after": 99}))


@every_call(kinds=WRITES)
async def test_an_error_long_after_the_last_item_arrives(build, connect, kind):
    server, go_on = build(), asyncio.Event()

    @server.stream("items", direction=str(kind))
    async def items():
        yield 1
        await go_on.wait()
        raise RaffelError("NOT_FOUND", "gone")

    await server.start()
    client = await connect(server)
    call = await client.open(kind, "items")
    assert await call.data() == 1
    go_on.set()
    assert await call.all() == ([], Failed("NOT_FOUND", "gone"))


@over(Kind.SERVER)
async def test_an_error_of_a_plain_generator_arrives(build, connect):
    server = build()

    @server.stream("items")
    def items():
        yield 1
        raise RaffelError("NOT_FOUND", "gone")

    await server.start()
    client = await connect(server)
    assert await (await client.open(Kind.SERVER, "items")).all() == ([1], Failed("NOT_FOUND", "gone"))


@every_protocol()
async def test_an_error_harms_no_other_call_of_the_client(build, connect, kind):
    server, go_on = build(), asyncio.Event()

    async def waiting(ctx):
        await go_on.wait()
        return "fine"

    define(server, kind, waiting, "waiting")
    define(server, kind, failing(kind, KeyError(SECRET)), "failing")
    await server.start()
    client = await connect(server)
    call = await client.open(kind, "waiting")
    assert (await (await client.open(kind, "failing")).failure()).code == "INTERNAL_ERROR"
    go_on.set()
    assert await call.value() == "fine"
    assert await (await client.open(kind, "waiting")).value() == "fine"


# What nobody foresaw


@every_call()
async def test_an_unexpected_exception_is_internal_and_says_only_where_to_look(build, connect, kind, caplog):
    server, ids = build(), []

    async def body(ctx):
        ids.append(ctx.request_id)
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError(f"the password is {SECRET}") from error

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    with caplog.at_level(logging.ERROR, "raffel"):
        failure = await (await client.open(kind, "call", {})).failure()
    assert failure.code == "INTERNAL_ERROR"
    assert failure.details == {"request_id": ids[0]}
    assert SECRET not in str(failure) and "Error" not in failure.message
    assert SECRET in caplog.text and [record.request for record in caplog.records] == ids


@every_protocol()
async def test_its_message_is_always_the_same(build, connect, kind):
    server, errors = build(), iter([KeyError("a"), ValueError("b"), OSError(2, "c"), ExceptionGroup("d", [KeyError()])])

    async def body(ctx):
        raise next(errors)

    define(server, kind, body)
    await server.start()
    client = await connect(server)
    failures = [await (await client.open(kind, "call", {})).failure() for _ in range(4)]
    assert {failure.code for failure in failures} == {"INTERNAL_ERROR"}
    assert len({failure.message for failure in failures}) == 1


@every_call(kinds=WRITES)
async def test_an_unexpected_exception_between_items_is_internal(build, connect, kind):
    server, ids = build(), []

    @server.stream("items", direction=str(kind))
    async def items(input, ctx):
        ids.append(ctx.request_id)
        yield 1
        raise ValueError(SECRET)

    await server.start()
    client = await connect(server)
    found, failure = await (await client.open(kind, "items")).all()
    assert found == [1]
    assert (failure.code, failure.details) == ("INTERNAL_ERROR", {"request_id": ids[0]})
    assert SECRET not in str(failure)


@every_call()
async def test_in_development_it_says_what_happened(build, connect, kind):
    server = build(development=True)
    define(server, kind, failing(kind, ValueError("the reason")))
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "call", {})).failure()
    assert failure.code == "INTERNAL_ERROR" and "the reason" not in failure.message
    assert failure.details["request_id"] and "the reason" in str(failure.details)


@every_protocol()
async def test_request_ids_are_never_the_same(build, connect, kind):
    server = build()
    define(server, kind, failing(kind, ValueError()))
    await server.start()
    clients = [await connect(server), await connect(server)]
    failures = [await (await client.open(kind, "call", {})).failure() for client in clients * 3]
    assert len({failure.details["request_id"] for failure in failures}) == 6


# What a route did not promise


@every_call()
async def test_what_the_route_did_not_promise_never_goes_out(build, connect, kind):
    server, found = build(), []
    for number, (promised, given, _) in enumerate(WRONG):

        async def body(ctx, given=given):
            return given

        define(server, kind, body, f"wrong.n{number}", output=promised)
    await server.start()
    client = await connect(server)
    for number, (_, _, details) in enumerate(WRONG):
        failure = await (await client.open(kind, f"wrong.n{number}")).failure()
        assert isinstance(failure.details, list)
        found.append((failure.code, details and failure.details))
    assert found == [("OUTPUT_VALIDATION_ERROR", details) for _, _, details in WRONG]


@every_protocol()
async def test_what_is_said_of_it_holds_nothing_of_its_value(build, connect, kind):
    server = build()

    class Place(Struct, tag=SECRET):
        x: int

    async def body(ctx):
        return {"type": SECRET * 2, "x": SECRET}

    define(server, kind, body, output=Place)
    await server.start()
    client = await connect(server)
    failure = await (await client.open(kind, "call")).failure()
    assert failure.code == "OUTPUT_VALIDATION_ERROR" and SECRET not in str(failure)


@every_call(kinds=WRITES)
async def test_good_items_before_a_wrong_one_arrive(build, connect, kind):
    server, closed = build(), []

    @server.stream("items", direction=str(kind)).output(float)
    async def items():
        try:
            yield 1.0
            yield 2.0
            yield math.nan
            yield 3.0
        finally:
            closed.append(True)

    await server.start()
    client = await connect(server)
    found, outcome = await (await client.open(kind, "items")).all()
    assert (found, outcome.code) == ([1.0, 2.0], "OUTPUT_VALIDATION_ERROR")
    assert closed


@over(Kind.SERVER)
@pytest.mark.parametrize(
    "event",
    [
        lambda: tracked("raffel:end", 1),
        lambda: Event(1, id="a\nb"),
        lambda: Event(1, event="end"),
        lambda: tracked("", 1),
    ],
)
async def test_an_event_that_could_be_taken_for_another_never_goes_out(build, connect, event):
    server = build()

    @server.stream("events")
    async def events():
        yield 0
        yield event()

    await server.start()
    client = await connect(server)
    found, outcome = await (await client.open(Kind.SERVER, "events")).all()
    assert (found, outcome.code) == ([0], "OUTPUT_VALIDATION_ERROR")


@every_call(Can.UNTYPED)
async def test_a_route_that_trusts_its_handler_sends_its_type_unseen(build, connect, kind):
    server = build()

    async def body(ctx):
        return Outer(1)  # type: ignore[arg-type]  # which is the point

    define(server, kind, body, output=Outer, check_output=False)
    await server.start()
    client = await connect(server)
    assert await (await client.open(kind, "call")).value() == {"name": 1, "inner": None}


@every_protocol()
async def test_a_route_that_trusts_its_handler_still_checks_other_types(build, connect, kind):
    server = build()

    async def body(ctx):
        return {"name": 1}

    define(server, kind, body, output=Outer, check_output=False)
    await server.start()
    client = await connect(server)
    assert (await (await client.open(kind, "call")).failure()).code == "OUTPUT_VALIDATION_ERROR"


# Everywhere alike


class Query(Struct):
    limit: Annotated[int, Meta(ge=0)]


@pytest.fixture
async def everywhere():
    """Asks for a call of every kind on every protocol that carries it; returns the errors, each told once."""
    clients = []

    async def ask(server, name, input, kinds=Kind, **options):
        told = []
        for carrier in CARRIERS:
            clients.append(client := await carrier.connect(server))
            for kind in carrier.kinds.intersection(kinds):
                failure = await (await client.open(kind, f"{kind}.{name}", input, **options)).failure()
                if failure not in told:
                    told.append(failure)
        return told

    yield ask
    for client in clients:
        await client.close()


async def test_the_same_error_is_told_in_the_same_words_everywhere(build, everywhere):
    server = build()

    async def fine(ctx):
        return "fine"

    async def waiting(ctx):
        await asyncio.Event().wait()

    for kind in Kind:
        define(server, kind, failing(kind, RaffelError("DATA_LOSS", "why", [1])), f"{kind}.raising")
        define(server, kind, fine, f"{kind}.checked", input=Query)
        define(server, kind, fine, f"{kind}.wrong", output=int)
        define(server, kind, waiting, f"{kind}.waiting")
    await server.start()
    assert await everywhere(server, "raising", {}) == [Failed("DATA_LOSS", "why", [1])]
    assert len(await everywhere(server, "checked", {"limit": -1}, {Kind.UNARY, Kind.SERVER})) == 1
    assert len(await everywhere(server, "wrong", {})) == 1
    assert len(await everywhere(server, "waiting", {}, timeout_ms=10)) == 1
    refused = await everywhere(server, "waiting", {}, timeout_ms="soon")
    assert {failure.code for failure in refused} == {"INVALID_ARGUMENT"}
    # gRPC has a header of its own for it (grpc/grpc, doc/PROTOCOL-HTTP2.md).
    assert sorted(failure.message.partition(":")[0] for failure in refused) == ["grpc-timeout", "timeout-ms"]
