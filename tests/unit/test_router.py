"""The router: from a name to its route; and calls from one handler to another, without a protocol in between."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from msgspec import Struct

from raffel_core.context import App, Auth, Context, Event, Outcome
from raffel_core.errors import RaffelError
from raffel_core.registry import Registry
from raffel_core.route import Origin, Route, make_route
from raffel_core.router import InProcess, Router
from raffel_core.stream import create_stream


def a_route(name: str, handler, **options) -> Route:
    made, problems = make_route(name, handler, origin=Origin(f"{name}.py"), **options)
    assert made is not None, problems
    return made


async def ticks(input):
    yield 1


async def one(input):
    return 1


# Names


@pytest.fixture
def router() -> Router:
    return Router(
        [
            a_route("logs.tail", ticks),
            a_route("rooms.[room].chat", ticks),
            a_route("rooms.lobby.chat", ticks),
            a_route("files.[...path]", ticks),
        ]
    )


@pytest.mark.parametrize(
    ("name", "route", "params"),
    [
        ("logs.tail", "logs.tail", {}),
        ("logs/tail", "logs.tail", {}),
        ("rooms.42.chat", "rooms.[room].chat", {"room": "42"}),
        ("rooms/4.2/chat", "rooms.[room].chat", {"room": "4.2"}),
        ("rooms.lobby.chat", "rooms.lobby.chat", {}),
        ("files/a/b.txt", "files.[...path]", {"path": "a/b.txt"}),
    ],
)
def test_a_name_is_found_with_dots_or_slashes(router, name, route, params) -> None:
    found, values = router.find(name)
    assert (found.name, dict(values)) == (route, params)


def test_in_a_url_each_segment_is_decoded_after_splitting(router) -> None:
    route, params = router.find_path("rooms/a%2Fb%2E/chat")
    assert (route.name, dict(params)) == ("rooms.[room].chat", {"room": "a/b."})


@pytest.mark.parametrize("name", ["", "logs", "logs.tail.x", "logs..tail", "x" * 10_000])
def test_a_name_that_there_is_not_is_not_found(router, name) -> None:
    with pytest.raises(RaffelError) as caught:
        router.find(name)
    assert caught.value.code == "NOT_FOUND"
    assert len(caught.value.message) < 300


def test_the_routes_are_in_the_order_of_their_names(router) -> None:
    assert list(router.routes) == sorted(router.routes)


def test_a_registry_tells_conflicts_by_both_places() -> None:
    registry = Registry([a_route("rooms.[room]", ticks)])
    registry.add(a_route("rooms.[name]", ticks))
    (problem,) = registry.problems()
    assert "rooms.[room].py" in str(problem) and "rooms.[name].py" in str(problem)


def test_a_registry_without_conflicts_is_a_router() -> None:
    registry = Registry([a_route("a", ticks)])
    registry.add(a_route("b", ticks))
    assert not registry.problems()
    assert list(registry.router().routes) == ["a", "b"]


# In process


class User(Struct):
    name: str


class Server:
    """Routes that can call each other, and the context of a caller."""

    def __init__(self, *routes: Route) -> None:
        self.app = App()
        self.app.calls = InProcess(lambda: Router(routes))
        self.ctx = Context("caller", protocol="sse", app=self.app, metadata={"authorization": "x"})


async def test_a_procedure_is_called_with_its_input() -> None:
    async def greet(input: User):
        return f"hello {input.name}"

    server = Server(a_route("greet", greet, procedure=True))
    assert await server.ctx.call("greet", {"name": "Kai"}) == "hello Kai"
    assert await server.ctx.call("greet", User("Kai")) == "hello Kai"


async def test_a_path_parameter_fills_the_input() -> None:
    async def greet(input: User, ctx):
        return [input.name, ctx.params["name"]]

    server = Server(a_route("users.[name].greet", greet, procedure=True))
    assert await server.ctx.call("users.kai.greet") == ["kai", "kai"]


async def test_a_stream_gives_its_items() -> None:
    async def count(input):
        for number in range(input["to"]):
            yield number

    server = Server(a_route("count", count))
    assert [item async for item in server.ctx.stream("count", {"to": 3})] == [0, 1, 2]


async def test_a_stream_that_a_handler_returns_is_one_too() -> None:
    stream = create_stream()

    async def returned(input):
        await stream.write(1)
        stream.end()
        return stream

    server = Server(a_route("returned", returned))
    assert [item async for item in server.ctx.stream("returned")] == [1]


async def test_an_input_that_does_not_fit_is_refused() -> None:
    async def greet(input: User):
        return 1

    server = Server(a_route("greet", greet, procedure=True))
    with pytest.raises(RaffelError) as caught:
        await server.ctx.call("greet", {"name": 1})
    assert caught.value.code == "VALIDATION_ERROR"


async def test_what_comes_back_is_checked() -> None:
    async def greet(input) -> User:
        return {"name": 1}

    async def watch(input):
        yield User("kai")
        yield {"name": "eve"}
        yield Event({"name": "eve"}, id="7")
        yield Event({"name": 1})

    server = Server(a_route("greet", greet, procedure=True), a_route("watch", watch, output_schema=User))
    with pytest.raises(RaffelError) as caught:
        await server.ctx.call("greet")
    assert caught.value.code == "OUTPUT_VALIDATION_ERROR"
    items = server.ctx.stream("watch")
    assert [await anext(items), await anext(items)] == [User("kai"), User("eve")]
    event = await anext(items)
    assert (event.data, event.id) == (User("eve"), "7")
    with pytest.raises(RaffelError) as caught:
        await anext(items)
    assert caught.value.code == "OUTPUT_VALIDATION_ERROR"


async def test_a_route_that_trusts_its_handler_is_trusted_here_too() -> None:
    async def greet(input) -> User:
        return "anything"

    server = Server(a_route("greet", greet, procedure=True, meta={"check_output": False}))
    assert await server.ctx.call("greet") == "anything"


@pytest.mark.parametrize("name", ["absent", "ticks"])
async def test_what_is_no_procedure_is_not_called(name) -> None:
    server = Server(a_route("ticks", ticks))
    with pytest.raises(RaffelError) as caught:
        await server.ctx.call(name)
    assert caught.value.code == ("NOT_FOUND" if name == "absent" else "UNIMPLEMENTED")


async def test_what_is_no_server_stream_is_not_opened() -> None:
    server = Server(a_route("one", one, procedure=True))
    with pytest.raises(RaffelError) as caught:
        await anext(server.ctx.stream("one"))
    assert caught.value.code == "UNIMPLEMENTED"


async def test_its_errors_are_raised() -> None:
    async def refuse(input):
        raise RaffelError("NOT_FOUND", "no such log")

    server = Server(a_route("refuse", refuse, procedure=True))
    with pytest.raises(RaffelError, match="no such log"):
        await server.ctx.call("refuse")


async def test_an_unforeseen_exception_is_internal_and_its_cause_is_known_to_the_caller(caplog) -> None:
    async def fail(input):
        raise ValueError("broken")
        yield

    server = Server(a_route("fail", fail))
    with pytest.raises(RaffelError) as caught:
        await anext(server.ctx.stream("fail"))
    assert caught.value.code == "INTERNAL_ERROR"
    assert isinstance(caught.value.__cause__, ValueError)
    assert "broken" in caplog.text


async def test_authentication_is_asked_with_the_callers_metadata() -> None:
    async def authenticate(ctx):
        return Auth("kai") if ctx.metadata.get("authorization") == "x" else None

    async def who(input, ctx):
        return ctx.auth.principal

    server = Server(a_route("who", who, procedure=True, authenticate=authenticate))
    assert await server.ctx.call("who") == "kai"
    server.ctx.metadata = {}
    with pytest.raises(RaffelError) as caught:
        await server.ctx.call("who")
    assert caught.value.code == "UNAUTHENTICATED"


async def test_its_interceptors_run() -> None:
    async def double(call, call_next):
        return 2 * await call_next(call)

    server = Server(a_route("one", one, procedure=True, interceptors=[double]))
    assert await server.ctx.call("one") == 2


async def test_the_called_shares_the_signal_and_the_request() -> None:
    async def look(input, ctx):
        return [ctx.signal is server.ctx.signal, ctx.request_id == server.ctx.request_id, ctx.route]

    server = Server(a_route("look", look, procedure=True))
    assert await server.ctx.call("look") == [True, True, "look"]


@pytest.mark.parametrize("reason", [None, "client_disconnected"])
async def test_a_caller_that_is_cancelled_cancels_what_it_called(reason) -> None:
    began, ended = asyncio.Event(), []

    async def work(input, ctx):
        ctx.on_close(lambda outcome: ended.append((outcome.code, outcome.reason)))
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            ended.append("finally")

    server = Server(a_route("work", work, procedure=True))
    task = asyncio.create_task(server.ctx.call("work"))
    await began.wait()
    if reason:
        server.ctx.signal.abort(reason)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["finally", ("CANCELLED", reason)]


async def test_leaving_a_stream_early_closes_its_handler() -> None:
    ended = []

    async def endless(input, ctx):
        ctx.on_close(lambda outcome: ended.append(outcome.code))
        try:
            while True:
                yield 1
        finally:
            ended.append("finally")

    server = Server(a_route("endless", endless))
    async with aclosing(server.ctx.stream("endless")) as items:
        async for _ in items:
            break
    assert ended == ["finally", "CANCELLED"]


async def test_a_stream_that_ends_by_itself_is_ok() -> None:
    outcomes = []

    async def short(input, ctx):
        ctx.on_close(outcomes.append)
        yield 1

    server = Server(a_route("short", short))
    assert [item async for item in server.ctx.stream("short")] == [1]
    assert outcomes == [Outcome()]


async def test_a_stream_whose_interceptor_fails_after_the_opening_is_closed() -> None:
    stream = create_stream()

    async def returned(input):
        return stream

    async def fail(call, call_next):
        await call_next(call)
        raise RaffelError("PERMISSION_DENIED", "no")

    server = Server(a_route("returned", returned, interceptors=[fail]))
    with pytest.raises(RaffelError, match="no"):
        await anext(server.ctx.stream("returned"))
    assert stream.errored


async def test_a_reload_counts_for_the_next_call() -> None:
    async def two(input):
        return 2

    routers = [Router([a_route("n", one, procedure=True)])]
    app = App()
    app.calls = InProcess(lambda: routers[-1])
    ctx = Context("caller", protocol="sse", app=app)
    assert await ctx.call("n") == 1
    routers.append(Router([a_route("n", two, procedure=True)]))
    assert await ctx.call("n") == 2
