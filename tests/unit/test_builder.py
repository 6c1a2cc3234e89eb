"""Routes defined in code: the chain, the decorator, and their company with files in one server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from raffel_core import Config, Server, create_server
from raffel_core.errors import ProjectError


class Query(Struct):
    n: int = 2


class Tick(Struct):
    seq: int


async def ticks(input: Query, ctx: Any) -> AsyncIterator[Tick]:
    """Counts."""
    for seq in range(input.n):
        yield Tick(seq)


def server(root: Path) -> Server:
    return create_server(Config(host="127.0.0.1", port=0, drain_seconds=0.1), root=root)


def problems(a_server: Server) -> list[str]:
    with pytest.raises(ProjectError) as raised:
        a_server.load()
    return [str(problem) for problem in raised.value.problems]


async def lines(a_server: Server, path: str) -> list[str]:
    """Starts the server, reads a stream as NDJSON to its end, and stops."""
    await a_server.start()
    try:
        async with httpx.AsyncClient(base_url=a_server.url) as client:
            answer = await client.get(path, headers={"Accept": "application/x-ndjson"})
            return answer.text.splitlines()
    finally:
        await a_server.stop()


def test_a_chain_says_what_a_file_would(tmp_path: Path) -> None:
    a_server = server(tmp_path)

    async def audit(call: Any, call_next: Any) -> Any:
        return await call_next(call)

    chain = a_server.stream("logs.tail").input(Query).output(Tick).description("Tails.").direction("server")
    assert chain.priority(3).use(audit).handler(ticks) is ticks
    route = a_server.load().router.routes["logs.tail"]
    assert (route.meta.description, route.meta.priority, route.kind) == ("Tails.", 3, "server")
    assert (route.input.declared, route.output.declared, route.interceptors) == (Query, Tick, (audit,))


def test_a_decorator_takes_what_meta_may_say(tmp_path: Path) -> None:
    a_server = server(tmp_path)

    @a_server.stream("ticks", direction="server", high_water_mark=4)
    async def handler(input: Query) -> AsyncIterator[Tick]:
        yield Tick(0)

    route = a_server.load().router.routes["ticks"]
    assert route.meta.high_water_mark == 4
    assert (route.input.declared, route.output.declared) == (Query, Tick)
    assert handler.__name__ == "handler"


def test_the_docstring_describes_where_nothing_else_does(tmp_path: Path) -> None:
    a_server = server(tmp_path)
    a_server.stream("ticks").handler(ticks)
    assert a_server.load().router.routes["ticks"].meta.description == "Counts."


async def test_a_stream_in_code_is_served(tmp_path: Path) -> None:
    a_server = server(tmp_path)
    a_server.stream("ticks").handler(ticks)
    assert await lines(a_server, "/streams/ticks?n=2") == ['{"seq":0}', '{"seq":1}']


async def test_code_and_files_are_mixed(tmp_path: Path, project: Any) -> None:
    project({"routes/filed.stream.py": "async def handler():\n    yield 'file'\n"})
    a_server = server(tmp_path).routes("routes")
    a_server.stream("coded").handler(ticks)
    assert sorted(a_server.load().router.routes) == ["coded", "filed"]
    assert await lines(a_server, "/streams/filed") == ['"file"']


def test_code_and_files_of_one_name_are_a_problem_that_names_both(tmp_path: Path, project: Any) -> None:
    project({"routes/ticks.stream.py": "async def handler():\n    yield 1\n"})
    a_server = server(tmp_path).routes("routes")
    a_server.stream("ticks").handler(ticks)
    (problem,) = problems(a_server)
    assert "test_builder.py" in problem and "ticks.stream.py" in problem


async def test_the_servers_interceptors_are_outermost(tmp_path: Path, project: Any) -> None:
    project(
        {
            "routes/_middleware.py": """
                async def middleware(call, call_next):
                    call.ctx.state.order.append("folder")
                    return await call_next(call)
            """,
            "routes/order.stream.py": """
                async def own(call, call_next):
                    call.ctx.state.order.append("route")
                    return await call_next(call)

                interceptors = [own]

                async def handler(input, ctx):
                    yield ctx.state.order
            """,
        }
    )

    async def first(call: Any, call_next: Any) -> Any:
        call.ctx.state.order = ["server"]
        return await call_next(call)

    assert await lines(server(tmp_path).use(first).routes("routes"), "/streams/order") == [
        '["server","folder","route"]'
    ]


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda s: s.stream("a..b").handler(ticks), "empty"),
        (lambda s: s.stream("a"), "no `handler`"),
        (lambda s: s.stream("a", prioritty=1).handler(ticks), "'prioritty'"),
        (lambda s: s.stream("a").direction("up").handler(ticks), "'up'"),
        (lambda s: s.stream("a").input(object()).handler(ticks), "input_schema"),
        (lambda s: s.procedure("a").handler(ticks), "an async generator"),
        (lambda s: s.procedure("health").handler(lambda: 1), "/health"),
        (lambda s: s.stream("a", auth="required").handler(ticks), "auth"),
    ],
)
def test_a_problem_has_the_line_of_the_call(tmp_path: Path, build: Any, found: str) -> None:
    a_server = server(tmp_path)
    build(a_server)
    (problem,) = problems(a_server)
    assert found in problem
    file, line, _ = problem.split(":", 2)
    assert file.endswith("test_builder.py")
    assert "a_server" in (text := Path(__file__).read_text().splitlines()[int(line) - 1]) or "lambda s" in text


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    a_server = server(tmp_path)
    a_server.stream("a")
    a_server.stream("b", deadline=-1).handler(ticks)
    assert len(problems(a_server)) == 2


def test_a_procedure_in_code_has_its_kind(tmp_path: Path) -> None:
    a_server = server(tmp_path)

    @a_server.procedure("add")
    async def add(input: dict[str, int]) -> int:
        return sum(input.values())

    assert a_server.load().router.routes["add"].kind == "unary"


async def test_a_reload_keeps_the_routes_of_code(tmp_path: Path, project: Any) -> None:
    project({"routes/filed.stream.py": "async def handler():\n    yield 1\n"})
    a_server = server(tmp_path).routes("routes")
    a_server.stream("coded").handler(ticks)
    await a_server.start()
    try:
        before = a_server.router.routes["coded"]
        project({"routes/filed.stream.py": "async def handler():\n    yield 2\n"})
        assert (await a_server.reload()).changed == ("filed",)
        assert a_server.router.routes["coded"] is before
    finally:
        await a_server.stop()


def test_a_server_that_a_module_holds_brings_its_routes_and_its_configuration(project: Any, tmp_path: Path) -> None:
    project(
        {
            "held_app.py": """
                from raffel_core import Config, create_server

                server = create_server(Config(port=4321, base_path="/api"))

                @server.procedure("ping")
                async def ping() -> str:
                    return "pong"
            """
        }
    )
    outer = Server(Config(port=0), root=tmp_path).include("held_app:server", override={"port"})
    assert list(outer.load().router.routes) == ["ping"]
    assert (outer.config.port, outer.config.base_path) == (0, "/api")
