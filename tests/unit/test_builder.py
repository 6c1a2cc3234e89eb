"""The builder: routes in code by chain and decorator, beside files, problems at their lines, `module:attribute`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from raffel_core import Config, Server, create_server
from raffel_core.errors import Problem, ProjectError
from raffel_core.route import Kind, Route


class Query(Struct):
    limit: int = 10


class Line(Struct):
    message: str


async def tail(input, ctx):
    """Tails."""
    yield Line("x")


async def create(input, ctx):
    return 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from forgotten(create_server(root=tmp_path))


def forgotten(server: Server) -> Iterator[Server]:
    """A server whose project's modules are not known to Python any more afterwards."""
    yield server
    if server._modules is not None:
        server._modules.close()


def loaded(server: Server) -> dict[str, Route]:
    return dict(server.load().router.routes)


def problems(server: Server) -> list[Problem]:
    with pytest.raises(ProjectError) as caught:
        server.load()
    return caught.value.problems


def line() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


# Chain and decorator


def test_a_chain_says_everything(server: Server) -> None:
    async def interceptor(call, call_next):
        return await call_next(call)

    server.stream("logs.tail").input(Query).output(Line).description("Tail the log").direction("server").priority(
        5
    ).use(interceptor).handler(tail)
    route = loaded(server)["logs.tail"]
    assert route.kind is Kind.SERVER
    assert (route.input.declared, route.output.declared) == (Query, Line)
    assert (route.meta.description, route.meta.priority) == ("Tail the log", 5)
    assert (route.interceptors, route.handler) == ((interceptor,), tail)


def test_a_decorator_leaves_the_function_as_it_was(server: Server) -> None:
    @server.stream("logs.tail", direction="server", priority=3)
    async def tail(input: Query) -> AsyncIterator[Line]:
        """Tail the log."""
        yield Line("x")

    assert inspect.isasyncgenfunction(tail)
    route = loaded(server)["logs.tail"]
    assert (route.handler, route.meta.priority, route.meta.description) == (tail, 3, "Tail the log.")
    assert (route.input.declared, route.output.declared) == (Query, Line)


def test_a_decorator_may_follow_a_chain(server: Server) -> None:
    @server.stream("logs.tail").input(Query).description("Tail")
    async def tail(input):
        yield 1

    assert loaded(server)["logs.tail"].input.declared is Query


def test_a_handler_returns_its_function(server: Server) -> None:
    assert server.stream("a").handler(tail) is tail


def test_one_function_may_serve_many_names(server: Server) -> None:
    for name in ("a", "b.c"):
        server.stream(name).handler(tail)
    assert [route.handler for route in loaded(server).values()] == [tail, tail]


def test_a_procedure_likewise(server: Server) -> None:
    @server.procedure("users.create")
    async def create_user(input: Query) -> int:
        return 1

    server.procedure("users.delete").input(Query).output(int).handler(create)
    routes = loaded(server)
    assert [route.kind for route in routes.values()] == [Kind.UNARY, Kind.UNARY]
    assert routes["users.delete"].input.declared is Query


@pytest.mark.parametrize("direction", ["server", "client", "bidi"])
def test_the_direction_is_said_by_keyword_or_in_the_chain(server: Server, direction: str) -> None:
    handler = create if direction == "client" else tail
    server.stream("a", direction=direction).handler(handler)
    server.stream("b").direction(direction).handler(handler)
    assert [route.kind for route in loaded(server).values()] == [Kind(direction)] * 2


def test_every_key_of_meta_is_a_keyword(server: Server) -> None:
    server.stream("a", tags=["x"], deadline=1.5, high_water_mark=4, check_output=False, summary="s").handler(tail)
    meta = loaded(server)["a"].meta
    assert (meta.tags, meta.deadline, meta.high_water_mark, meta.check_output, meta.summary) == (
        ["x"],
        1.5,
        4,
        False,
        "s",
    )


def test_a_name_may_have_parameters(server: Server) -> None:
    server.stream("rooms.[room].chat").handler(tail)
    route, params = server.load().router.find("rooms.42.chat")
    assert (route.name, dict(params)) == ("rooms.[room].chat", {"room": "42"})


def test_the_interceptors_of_the_server_are_the_outermost(server: Server) -> None:
    async def outer(call, call_next): ...
    async def inner(call, call_next): ...
    async def own(call, call_next): ...

    server.stream("a").use(own).handler(tail)
    assert server.use(outer, inner) is server
    assert loaded(server)["a"].interceptors == (outer, inner, own)


def test_a_reload_keeps_the_routes_of_code(server: Server) -> None:
    server.stream("a").handler(tail)
    assert loaded(server)["a"] is loaded(server)["a"]


# Beside files


def test_files_and_code_make_one_server(server: Server, project: Callable[..., Path]) -> None:
    async def outer(call, call_next):
        return await call_next(call)

    project(
        {
            "routes/logs/tail.stream.py": "async def handler(input):\n    yield 1\n",
            "more/clock.stream.py": "async def handler(input):\n    yield 1\n",
        }
    )
    assert server.routes("routes").routes("more").use(outer) is server
    server.procedure("users.create").handler(create)
    routes = loaded(server)
    assert list(routes) == ["clock", "logs.tail", "users.create"]
    assert all(route.interceptors == (outer,) for route in routes.values())


def test_a_folder_may_be_anywhere(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "clock.stream.py").write_text("async def handler(input):\n    yield 1\n")
    assert list(loaded(server.routes(folder))) == ["clock"]
    assert folder in server.watched


def test_a_name_of_a_file_and_of_code_is_told_with_both_places(server: Server, project: Callable[..., Path]) -> None:
    project({"routes/a.stream.py": "async def handler(input):\n    yield 1\n"})
    server.routes("routes").stream("a").handler(tail)
    here = line() - 1
    (problem,) = problems(server)
    assert "routes/a.stream.py" in str(problem)
    assert f"test_builder.py:{here}" in str(problem)


# Problems


def test_problems_have_the_file_and_the_line_of_the_definition(server: Server) -> None:
    server.stream("a", prioritty=1).handler(tail)
    server.stream("b").handler(create)
    server.procedure("c")
    here = line()
    found = [(problem.file.rpartition("/")[2], problem.line) for problem in problems(server)]
    assert found == [("test_builder.py", here - 3), ("test_builder.py", here - 1)]


def test_all_of_them_are_told_at_once(server: Server, project: Callable[..., Path]) -> None:
    project({"routes/bad.stream.py": "async def handler(a, b, c):\n    yield 1\n"})
    server.routes("routes")
    server.stream("a..b").handler(tail)
    server.stream("b", prioritty=1).handler(tail)
    server.stream("c").use("no interceptor").handler(tail)  # type: ignore[arg-type]  # that is the problem
    server.stream("d").input(object()).handler(tail)
    server.stream("e", direction="sideways").handler(tail)
    server.procedure("f", direction="bidi").handler(create)
    server.procedure("g").handler(tail)
    server.procedure("streams.h").handler(create)
    found = "\n".join(map(str, problems(server)))
    for part in (
        "bad.stream.py:1",
        "'a..b'",
        "'priority'",
        "interceptor",
        "input_schema",
        "'sideways'",
        "bidi",
        "procedure",
    ):
        assert part in found, (part, found)


def test_a_segment_that_the_server_uses_is_told(server: Server) -> None:
    server.procedure("rpc.x").handler(create)
    (problem,) = problems(server)
    assert "rpc" in problem.found and problem.line


def test_a_problem_that_was_mended_is_none_any_more(server: Server) -> None:
    builder = server.stream("a")
    assert "no `handler`" in problems(server)[0].found
    builder.handler(tail)
    assert list(loaded(server)) == ["a"]


# By module:attribute

APP = """
    from raffel_core import Config, create_server

    server = create_server(Config(port={port}, base_path="/api"))

    @server.procedure("one")
    async def one(input):
        return {value}
    """


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Server]:
    """What `raffel serve builder_app:server --port 1` makes."""
    server = Server(Config(port=1), root=tmp_path)
    server.include("builder_app:server", override={"port"})
    yield from forgotten(server)
    sys.modules.pop("builder_app", None)


def test_a_server_is_served_by_its_name(serving: Server, project: Callable[..., Path]) -> None:
    project({"builder_app.py": APP.format(port=4000, value=1)})
    assert list(loaded(serving)) == ["one"]
    assert (serving.config.base_path, serving.config.port) == ("/api", 1)


def test_it_is_built_anew_when_its_module_changes(
    serving: Server, project: Callable[..., Path], tmp_path: Path
) -> None:
    project({"builder_app.py": APP.format(port=4000, value=1)})
    first = loaded(serving)["one"]
    assert loaded(serving)["one"] is first
    project({"builder_app.py": APP.format(port=4000, value=22)})
    assert serving.load({tmp_path / "builder_app.py"}).router.routes["one"] is not first


def test_its_folders_are_loaded_and_kept(
    serving: Server, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(serving.root)
    project(
        {
            "builder_app.py": "from raffel_core import create_server\nserver = create_server().routes('routes')\n",
            "routes/a.stream.py": "async def handler(input):\n    yield 1\n",
        }
    )
    source = loaded(serving)
    assert list(source) == ["a"]
    assert loaded(serving)["a"] is source["a"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no 'server'"),
        ("server = 1\n", "'server' is of type int"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("(\n", "syntax error"),
        (None, "builder_app"),
    ],
)
def test_what_is_no_server_is_told(serving: Server, project: Callable[..., Path], text: str | None, found: str) -> None:
    if text is not None:
        project({"builder_app.py": text})
    (problem,) = problems(serving)
    assert found in problem.found


def test_a_broken_one_is_told_at_its_line_and_the_next_load_is_fine(
    serving: Server, project: Callable[..., Path], tmp_path: Path
) -> None:
    project({"builder_app.py": APP.format(port=4000, value=1)})
    first = loaded(serving)["one"]
    project({"builder_app.py": "x = 1\nx / 0\n"})
    (problem,) = problems(serving)
    assert (problem.file.rpartition("/")[2], problem.line) == ("builder_app.py", 2)
    project({"builder_app.py": APP.format(port=4000, value=333)})
    again: Any = serving.load({tmp_path / "builder_app.py"}).router.routes["one"]
    assert again is not first
