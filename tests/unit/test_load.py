"""A folder of routes on the disk, loaded, edited and loaded again."""

import asyncio
import gc
import inspect
import logging
import os
import sys
import textwrap
import tracemalloc
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from raffel_core.context import App, Context
from raffel_core.discovery.load import FolderLoader, Staged
from raffel_core.discovery.modules import ROUTES, ProjectModules
from raffel_core.errors import Problem
from raffel_core.route import Kind, Route
from tests.unit.test_modules import edit_unseen, settle

Files = Mapping[str, str | None]

STREAM = """\
async def handler(input, ctx):
    yield {value}
"""
PROCEDURE = """\
async def handler(input, ctx):
    return {value}
"""
MIDDLEWARE = """\
async def middleware(call, call_next):
    return await call_next(call)
"""
AUTH = """\
async def authenticate(ctx):
    return None
"""
APP = """\
async def lifespan(app):
    yield
"""


class Project:
    """A project's files, and its routes loaded in transactions as a server does it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = ProjectModules(root)
        self.loader = FolderLoader(root / "routes", self.modules)
        (root / "routes").mkdir()

    def write(self, files: Files) -> None:
        for name, text in files.items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                file.unlink()
            else:
                file.write_text(textwrap.dedent(text))

    def stage(self, files: Files | None = None, *touched: str) -> Staged:
        self.write(files or {})
        paths = [self.root / name for name in touched]
        return self.loader.load(self.modules.begin(paths), paths)

    def load(self, files: Files | None = None, *touched: str) -> Staged:
        staged = self.stage(files, *touched)
        assert staged.problems == []
        self.loader.commit()
        self.modules.commit()
        return staged

    def fail(self, files: Files | None = None) -> list[Problem]:
        """What is wrong after these edits; then everything is rolled back."""
        problems = self.stage(files).problems
        self.loader.rollback()
        self.modules.rollback()
        return sorted(problems)

    def only(self, files: Files) -> Problem:
        [problem] = self.fail(files)
        return problem

    def close(self) -> None:
        self.loader.close()
        self.modules.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    yield project
    project.close()


def by_name(staged: Staged) -> dict[str, Route]:
    return {route.name: route for route in staged.routes}


def only_route(staged: Staged) -> Route:
    [route] = staged.routes
    return route


def kept(before: Staged, after: Staged) -> set[str]:
    """The names of the routes that are the same objects."""
    return {name for name, route in by_name(after).items() if by_name(before).get(name) is route}


def generations() -> set[str]:
    return {name for name in sys.modules if name.startswith(f"{ROUTES}.")}


@pytest.fixture(autouse=True)
def no_generation_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that other tests load and never start keep their modules, as `raffel check` does until it exits."""
    for name in generations():
        monkeypatch.delitem(sys.modules, name)


async def call(route: Route, input: Any = None) -> Any:
    """The result, or the list of items."""
    ctx = Context(route.name, protocol="sse", app=App())
    begun = route.start(input, ctx)
    opened = await begun if route.awaits else begun
    return [item async for item in opened] if route.kind.writes else opened


# What a file says


async def test_a_file_is_a_route_of_its_name_and_kind(project: Project) -> None:
    staged = project.load(
        {
            "routes/logs/tail.stream.py": STREAM.format(value=1),
            "routes/users/create.rpc.py": PROCEDURE.format(value=2),
        }
    )
    assert [(route.name, route.kind) for route in staged.routes] == [
        ("logs.tail", Kind.SERVER),
        ("users.create", Kind.UNARY),
    ]
    assert [await call(route) for route in staged.routes] == [[1], 2]
    assert (staged.lifespan, staged.lifespan_changed) == (None, False)


def test_an_empty_folder_has_no_routes(project: Project) -> None:
    assert project.load() == Staged((), None, False, [])


def test_meta_schemas_and_interceptors_are_read(project: Project) -> None:
    text = """\
        from msgspec import Struct
        class Query(Struct):
            limit: int = 1
        meta = {"direction": "bidi", "tags": ["logs"]}
        input_schema = Query
        output_schema = dict
        async def first(call, call_next):
            return await call_next(call)
        interceptors = [first]
        async def handler(input, ctx):
            yield {}
    """
    route = only_route(project.load({"routes/tail.stream.py": text}))
    assert (route.kind, route.meta.tags) == (Kind.BIDI, ["logs"])
    assert (route.input.name, route.output.declared) == ("Query", dict)
    assert [interceptor.__name__ for interceptor in route.interceptors] == ["first"]  # type: ignore[attr-defined]  # it is a function


def test_the_docstring_is_the_description(project: Project) -> None:
    text = '"""Tails a log.\n\n    From its end.\n"""\n' + STREAM.format(value=1)
    assert only_route(project.load({"routes/a.stream.py": text})).meta.description == "Tails a log.\n\nFrom its end."


def test_meta_beats_the_docstring(project: Project) -> None:
    text = '"""Tails a log."""\nmeta = {"description": "Lines"}\n' + STREAM.format(value=1)
    assert only_route(project.load({"routes/a.stream.py": text})).meta.description == "Lines"


def test_a_route_knows_its_file_and_lines(project: Project) -> None:
    text = 'import os\nmeta = {\n    "priority": 1,\n}\n\n\n@staticmethod\n' + STREAM.format(value=1)
    route = only_route(project.load({"routes/logs/tail.stream.py": text}))
    assert route.origin.file == "routes/logs/tail.stream.py"
    assert route.origin.lines == {"meta": 2, "meta.priority": 3, "handler": 8}


@pytest.mark.parametrize("kind", ["msgspec.Struct", "pydantic.BaseModel", "typing.TypedDict", "object"])
def test_annotations_that_are_strings_find_the_names_of_their_file(project: Project, kind: str) -> None:
    text = f"""\
        from __future__ import annotations
        import collections.abc, dataclasses, msgspec, pydantic, typing
        {"@dataclasses.dataclass" if kind == "object" else ""}
        class Line({kind}):
            inner: list[Inner]
            last: typing.Optional[Inner]
        {"@dataclasses.dataclass" if kind == "object" else ""}
        class Inner({kind}):
            text: str
        async def handler(input: Line, ctx) -> collections.abc.AsyncIterator[Line]:
            yield input
    """
    route = only_route(project.load({"routes/tail.stream.py": text}))
    value = route.input.decode(b'{"inner": [{"text": "a"}], "last": null}')
    assert (route.input.name, route.output.name) == ("Line", "Line")
    assert b'"text":"a"' in route.output.dump(value)


async def test_a_route_may_import_from_the_root(project: Project) -> None:
    staged = project.load(
        {
            "shared/db.py": "rows = [1]",
            "routes/_lib/format.py": "suffix = 2",
            "routes/tail.stream.py": (
                "from shared.db import rows\nfrom routes._lib.format import suffix\n"
                + STREAM.format(value="rows, suffix")
            ),
        }
    )
    assert await call(only_route(staged)) == [([1], 2)]


def test_the_folder_of_routes_is_not_on_the_path(project: Project) -> None:
    problem = project.only({"routes/helper.py": "", "routes/a.stream.py": "import helper\n" + STREAM.format(value=1)})
    assert problem == (
        "routes/a.stream.py",
        1,
        "no module named 'helper'",
        "the whole name, 'routes.helper'",
    )


def test_a_file_is_compiled_by_its_own_future_imports_alone(project: Project) -> None:
    route = only_route(project.load({"routes/a.stream.py": "async def handler(input: int, ctx):\n    yield 1"}))
    assert route.handler.__annotations__ == {"input": int}


def test_the_source_of_a_handler_is_found(project: Project) -> None:
    route = only_route(project.load({"routes/a.stream.py": STREAM.format(value=1)}))
    assert inspect.getsource(route.handler) == STREAM.format(value=1)
    assert inspect.getsourcefile(route.handler) == str(project.root / "routes/a.stream.py")


def test_no_bytecode_is_written(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    project.load({"lib.py": "", "routes/_auth.py": AUTH, "routes/a.stream.py": "import lib\n" + STREAM.format(value=1)})
    assert not list(project.root.rglob("*.pyc"))


# `_middleware.py`, `_auth.py`, `_app.py`


def interceptor(name: str) -> str:
    return f"""\
async def {name}(call, call_next):
    call.input = [*(call.input or []), "{name}"]
    return await call_next(call)
"""


async def test_interceptors_run_from_the_servers_to_the_routes_own(project: Project) -> None:
    server: dict[str, Any] = {}
    exec(interceptor("server"), server)
    project.loader.close()
    project.loader = FolderLoader(project.root / "routes", project.modules, interceptors=[server["server"]])
    staged = project.load(
        {
            "routes/_middleware.py": interceptor("root") + "interceptors = [root]\n" + interceptor("middleware"),
            "routes/a/_middleware.py": interceptor("middleware").replace('"middleware"', '"a"'),
            "routes/a/b/c.rpc.py": interceptor("own") + "interceptors = [own]\n" + PROCEDURE.format(value="input"),
            "routes/d.rpc.py": PROCEDURE.format(value="input"),
        }
    )
    routes = by_name(staged)
    assert await call(routes["a.b.c"]) == ["server", "root", "middleware", "a", "own"]
    assert await call(routes["d"]) == ["server", "root", "middleware"]


def test_the_nearest_authentication_serves_and_is_required(project: Project) -> None:
    stream = STREAM.format(value=1)
    routes = by_name(
        project.load(
            {
                "routes/open.stream.py": stream,
                "routes/a/_auth.py": AUTH,
                "routes/a/closed.stream.py": stream,
                "routes/a/public.stream.py": 'meta = {"auth": "none"}\n' + stream,
                "routes/a/b/_auth.py": AUTH,
                "routes/a/b/deep.stream.py": stream,
            }
        )
    )
    files = {
        name: route.authenticate and route.authenticate.__code__.co_filename  # type: ignore[attr-defined]  # it is a function
        for name, route in routes.items()
    }
    assert files == {
        "open": None,
        "a.closed": str(project.root / "routes/a/_auth.py"),
        "a.public": None,
        "a.b.deep": str(project.root / "routes/a/b/_auth.py"),
    }


async def test_the_lifespan_is_that_of_the_app_file(project: Project) -> None:
    staged = project.load({"routes/_app.py": "async def lifespan(app):\n    app.state.db = 1\n    yield"})
    assert staged.lifespan is not None
    assert staged.lifespan_changed
    generator = staged.lifespan(app := App())
    await anext(generator)
    assert app.state.db == 1
    await generator.aclose()  # type: ignore[attr-defined]  # it is a generator


def test_the_lifespan_changes_with_its_file_and_what_that_imports(project: Project) -> None:
    files = {"routes/_app.py": "import db\n" + APP, "db.py": "", "other.py": "", "routes/a.stream.py": "import other\n"}
    files["routes/a.stream.py"] += STREAM.format(value=1)
    first = project.load(files)
    unchanged = project.load()
    assert (unchanged.lifespan, unchanged.lifespan_changed) == (first.lifespan, False)
    assert not project.load({"other.py": "x = 1", "routes/a.stream.py": STREAM.format(value=22)}).lifespan_changed
    assert project.load({"db.py": "x = 1"}).lifespan_changed
    assert project.load({"routes/_app.py": "import db, os\n" + APP}).lifespan_changed
    gone = project.load({"routes/_app.py": None})
    assert (gone.lifespan, gone.lifespan_changed) == (None, True)
    assert not project.load().lifespan_changed


def test_helpers_are_checked_where_no_route_needs_them(project: Project) -> None:
    problems = project.fail({"routes/a/_auth.py": "", "routes/b/_middleware.py": "1 / 0"})
    assert [problem.file for problem in problems] == ["routes/a/_auth.py", "routes/b/_middleware.py"]


# What a reload keeps


def test_unchanged_routes_are_the_same_objects(project: Project) -> None:
    first = project.load({f"routes/{name}.stream.py": STREAM.format(value=1) for name in "abc"})
    again = project.load()
    assert again == first._replace(problems=[])
    assert kept(first, again) == {"a", "b", "c"}


async def test_a_changed_file_is_a_new_route_and_the_others_stay(project: Project) -> None:
    first = project.load({f"routes/{name}.stream.py": STREAM.format(value=1) for name in "abc"})
    again = project.load({"routes/b.stream.py": STREAM.format(value=2)})
    assert kept(first, again) == {"a", "c"}
    assert await call(by_name(again)["b"]) == [2]
    assert await call(by_name(first)["b"]) == [1]


def test_files_are_added_and_removed(project: Project) -> None:
    first = project.load({f"routes/{name}.stream.py": STREAM.format(value=1) for name in "ab"})
    again = project.load({"routes/a.stream.py": None, "routes/c.stream.py": STREAM.format(value=1)})
    assert list(by_name(again)) == ["b", "c"]
    assert kept(first, again) == {"b"}


def test_middleware_renews_the_routes_of_its_folder_and_below(project: Project) -> None:
    stream = STREAM.format(value=1)
    paths = ["top", "a/x", "a/b/y", "c/z"]
    first = project.load(
        {
            **{f"routes/{path}.stream.py": stream for path in paths},
            "routes/_middleware.py": MIDDLEWARE,
            "routes/a/_middleware.py": MIDDLEWARE,
        }
    )
    second = project.load({"routes/a/_middleware.py": "import os\n" + MIDDLEWARE})
    assert kept(first, second) == {"top", "c.z"}
    third = project.load({"routes/c/_middleware.py": MIDDLEWARE})
    assert kept(second, third) == {"top", "a.x", "a.b.y"}
    fourth = project.load({"routes/a/_middleware.py": None})
    assert kept(third, fourth) == {"top", "c.z"}
    assert kept(fourth, project.load({"routes/_middleware.py": None})) == set()


def test_authentication_renews_the_routes_that_it_serves(project: Project) -> None:
    stream = STREAM.format(value=1)
    first = project.load({"routes/x.stream.py": stream, "routes/a/_auth.py": AUTH, "routes/a/y.stream.py": stream})
    second = project.load({"routes/a/_auth.py": "import os\n" + AUTH})
    assert kept(first, second) == {"x"}
    third = project.load({"routes/a/_auth.py": None})
    assert kept(second, third) == {"x"}
    assert kept(third, project.load({"routes/_auth.py": AUTH})) == set()


async def test_a_changed_import_renews_the_routes_that_reach_it(project: Project) -> None:
    first = project.load(
        {
            "db.py": "x = 1",
            "shop/__init__.py": "",
            "shop/stock.py": "from db import x",
            "routes/far.stream.py": "from shop import stock\n" + STREAM.format(value="stock.x"),
            "routes/near.stream.py": "import db\n" + STREAM.format(value="db.x"),
            "routes/late.rpc.py": "async def handler():\n    import db\n    return db.x",
            "routes/other.stream.py": STREAM.format(value=1),
            "routes/a/_middleware.py": "import db\n" + MIDDLEWARE,
            "routes/a/below.stream.py": STREAM.format(value=1),
        }
    )
    again = project.load({"db.py": "x = 22"})
    assert kept(first, again) == {"other"}
    routes = by_name(again)
    assert [await call(routes[name]) for name in ("far", "near", "late")] == [[22], [22], 22]


async def test_a_running_handler_goes_on_with_its_own_code(project: Project) -> None:
    text = "from db import x\nmark = {mark}\nasync def handler(input, ctx):\n    yield mark\n    yield mark, x"
    first = project.load({"db.py": "x = 1", "routes/a.stream.py": text.format(mark=1)})
    running = only_route(first).handler(None, None)
    assert await anext(running) == 1
    project.load({"db.py": "x = 22", "routes/a.stream.py": text.format(mark=22)})
    gc.collect()
    assert await anext(running) == (1, 1)
    await running.aclose()


def test_a_file_written_again_with_the_same_text_has_not_changed(project: Project) -> None:
    first = project.load({"routes/a.stream.py": STREAM.format(value=1)})
    again = project.load({"routes/a.stream.py": STREAM.format(value=1)}, "routes/a.stream.py")
    assert kept(first, again) == {"a"}


async def test_an_edit_of_the_same_size_right_after_the_load_is_seen(project: Project) -> None:
    project.load({"routes/a.stream.py": STREAM.format(value=1)})
    edit_unseen(project.root / "routes/a.stream.py", STREAM.format(value=2))
    assert await call(only_route(project.load())) == [2]


async def test_a_file_whose_times_and_size_are_the_same_is_read_only_if_touched(project: Project) -> None:
    project.write({"routes/a.stream.py": STREAM.format(value=1)})
    settle(project.root / "routes/a.stream.py")
    first = project.load()
    edit_unseen(project.root / "routes/a.stream.py", STREAM.format(value=2))
    assert kept(first, project.load()) == {"a"}
    assert await call(only_route(project.load(None, "routes/a.stream.py"))) == [2]


async def test_what_was_touched_stays_suspect_until_a_commit(project: Project) -> None:
    project.write({"routes/a.stream.py": STREAM.format(value=1)})
    settle(project.root / "routes/a.stream.py")
    project.load()
    edit_unseen(project.root / "routes/a.stream.py", STREAM.format(value=2))
    project.write({"routes/b.stream.py": "1 / 0"})
    assert project.stage(None, "routes/a.stream.py").problems
    staged = project.load({"routes/b.stream.py": STREAM.format(value=3)})
    assert await call(by_name(staged)["a"]) == [2]


def test_a_missing_module_that_appears_mends_the_route(project: Project) -> None:
    project.fail({"routes/a.stream.py": "import late\n" + STREAM.format(value=1)})
    project.load({"late.py": ""})


async def test_folders_share_the_projects_modules(project: Project) -> None:
    text = "import db\n" + STREAM.format(value="db.x")
    project.write({"db.py": "x = 1", "routes/a.stream.py": text, "more/a.stream.py": text})
    other = FolderLoader(project.root / "more", project.modules)
    for number in (1, 22):
        project.write({"db.py": f"x = {number}"})
        dirty = project.modules.begin()
        routes = [only_route(loader.load(dirty)) for loader in (project.loader, other)]
        for loader in (project.loader, other):
            loader.commit()
        project.modules.commit()
        assert [await call(route) for route in routes] == [[number], [number]]
        assert routes[0].handler.__globals__["db"] is routes[1].handler.__globals__["db"]
    other.close()


async def test_the_event_loop_goes_on_while_a_thread_loads(project: Project) -> None:
    project.write({"routes/a.stream.py": "import time\ntime.sleep(0.02)\n" + STREAM.format(value=1)})
    turns = 0
    work = asyncio.create_task(asyncio.to_thread(project.load))
    while not work.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert await call(only_route(await work)) == [1]
    assert turns > 3


# What goes wrong


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("x = 1\nx =", 2, "syntax error: ", "valid Python 3."),
        ("return 1", 1, "syntax error: 'return' outside function", "valid Python 3."),
        ("x = 1\nx = '\udcff'", 2, "syntax error: ", "valid Python 3."),
        ("\n1 / 0", 2, "ZeroDivisionError: division by zero", "an import without an error"),
        ("raise ValueError('one\\n  two')", 1, "ValueError: one two", "an import without an error"),
        ("raise Exception", 1, "Exception", "an import without an error"),
        ("\nraise SystemExit(3)", 2, "SystemExit(3) while it was imported", "a module that only defines things"),
        ("import sys\nsys.exit('bye')", 2, "SystemExit('bye') while it was imported", "a module that only defines"),
        ("class E(BaseException): ...\nraise E", 2, "E", "an import without an error"),
        ("import nowhere", 1, "no module named 'nowhere'", "an installed module, or one below the project's root"),
        ("import jsonn", 1, "no module named 'jsonn'", "'json'"),
        ("import dbs", 1, "no module named 'dbs'", "'db'"),
        ("from shop import stok", 1, "cannot import name 'stok' from 'shop'", "a name that shop has by then"),
        ("import shop.stok", 1, "no module named 'shop.stok'", "'shop.stock'"),
        ("from db import rwos", 1, "cannot import name 'rwos' from 'db'", "'rows'"),
        ("from . import db", 1, "a relative import", "the whole name, from the project's root on"),
        ("from .db import x", 1, "a relative import", "the whole name, from the project's root on"),
        ("import json\n\njson.loads('x')", 3, "JSONDecodeError: Expecting value", "an import without an error"),
        ("", 1, "no `handler`", "`async def handler(input, ctx)`"),
        ("handler = 3", 1, "`handler` is an int", "`async def handler(input, ctx)`"),
        ("x = 1\nasync def handle(input, ctx): yield", 2, "unknown export `handle`", "`handler`"),
    ],
)
def test_a_file_that_cannot_be_a_route_is_told_with_its_line(
    project: Project, text: str, line: int, found: str, expected: str
) -> None:
    project.write({"db.py": "rows = []", "shop/__init__.py": "", "shop/stock.py": ""})
    (project.root / "routes/a.stream.py").write_text(text, errors="surrogateescape")
    [problem] = project.fail()
    assert (problem.file, problem.line) == ("routes/a.stream.py", line)
    assert problem.found.startswith(found)
    assert problem.expected.startswith(expected)
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("inputSchema = dict", 3, "unknown export `inputSchema`", "`input_schema`"),
        ("output = dict", 3, "unknown export `output`", "`output_schema`"),
        ("Meta = {}", 3, "unknown export `Meta`", "`meta`"),
        ("interceptor = []", 3, "unknown export `interceptor`", "`interceptors`"),
        ("meta = 3", 3, "`meta` is an int", "a dict"),
        ("meta = {\n'tags': [],\n'priority': 500}", 5, "meta['priority'] is 500", "an int from -128 to 127"),
        ("meta = {}\nmeta['priorty'] = 1", 4, "unknown key 'priorty' in `meta`", "'priority'"),
        ("meta = {'auth': 'required'}", 3, "auth is required and no `_auth.py` serves", "one here or above"),
        ("meta = {'direction': 'client'}", 1, "`handler` of a client stream is an async generator", "a coroutine ("),
        ("input_schema = 3", 3, "input_schema: ", "a msgspec type, a pydantic model or a JSON Schema"),
        ("output_schema = 3", 3, "output_schema: ", "a msgspec type, a pydantic model or a JSON Schema"),
        ("interceptors = [3]", 3, "interceptor 1 is an int", "a list of `async def interceptor(call, call_next)`"),
        ("from db import interceptors", 3, "interceptor 1 is a str", "a list of `async def"),
    ],
)
def test_what_is_wrong_with_an_export_is_told_with_its_line(
    project: Project, text: str, line: int, found: str, expected: str
) -> None:
    problem = project.only({"db.py": "interceptors = ['x']", "routes/a.stream.py": STREAM.format(value=1) + text})
    assert (problem.file, problem.line) == ("routes/a.stream.py", line)
    assert problem.found.startswith(found)
    assert problem.expected.startswith(expected)


LIFESPAN = "`async def lifespan(app)` with one `yield` and no decorator"


@pytest.mark.parametrize(
    ("file", "text", "line", "found", "expected"),
    [
        (
            "_middleware.py",
            "x = 1",
            1,
            "neither `interceptors` nor `middleware`",
            "`interceptors = [...]` or `async def middleware(call, call_next)`",
        ),
        ("_middleware.py", "\nmiddlewares = []", 2, "unknown export `middlewares`", "`middleware`"),
        ("_middleware.py", "\ninterceptors = {}", 2, "`interceptors` is a dict", "a list of `async def"),
        ("_middleware.py", "\ninterceptors = [3]", 2, "interceptor 1 is an int", "a list of `async def"),
        (
            "_middleware.py",
            "\nasync def middleware(call): ...",
            2,
            "`middleware` takes (call)",
            "`async def middleware(call, call_next)`",
        ),
        (
            "_middleware.py",
            "\nasync def middleware(call, call_next): yield",
            2,
            "`middleware` is an async generator",
            "`async def middleware(call, call_next)`",
        ),
        ("_auth.py", "x = 1", 1, "no `authenticate`", "`async def authenticate(ctx)`"),
        ("_auth.py", "\nasync def authentikate(ctx): ...", 2, "unknown export `authentikate`", "`authenticate`"),
        (
            "_auth.py",
            "\ndef authenticate(ctx): ...",
            2,
            "`authenticate` is a plain function",
            "`async def authenticate(ctx)`",
        ),
        (
            "_auth.py",
            "\nasync def authenticate(): ...",
            2,
            "`authenticate` takes ()",
            "`async def authenticate(ctx)`",
        ),
        ("_auth.py", "\nauthenticate = 3", 2, "`authenticate` is an int", "`async def authenticate(ctx)`"),
        ("_app.py", "x = 1", 1, "no `lifespan`", LIFESPAN),
        ("_app.py", "\nasync def life_span(app): yield", 2, "unknown export `life_span`", "`lifespan`"),
        ("_app.py", "\nasync def lifespan(app): ...", 2, "`lifespan` is a coroutine", LIFESPAN),
        ("_app.py", "\nasync def lifespan(): yield", 2, "`lifespan` takes ()", LIFESPAN),
        (
            "_app.py",
            "import contextlib\n@contextlib.asynccontextmanager\nasync def lifespan(app): yield",
            3,
            "`lifespan` is a plain function",
            LIFESPAN,
        ),
        ("_app.py", "\n1 / 0", 2, "ZeroDivisionError: division by zero", "an import without an error"),
    ],
)
def test_what_is_wrong_with_a_helper_is_told_and_the_routes_below_have_no_problem(
    project: Project, file: str, text: str, line: int, found: str, expected: str
) -> None:
    route = 'meta = {"auth": "required"}\n' if file == "_auth.py" else ""
    problem = project.only({f"routes/{file}": text, "routes/a.stream.py": route + STREAM.format(value=1)})
    assert problem[:3] == (f"routes/{file}", line, found)
    assert problem.expected.startswith(expected)


def test_an_error_in_an_imported_module_is_told_where_it_happened(project: Project) -> None:
    routes = {"routes/a.stream.py": "import shop.stock\n" + STREAM.format(value=1)}
    stock = {"shop/stock.py": "def count():\n    return [][0]\ncount()"}
    assert project.only(routes | stock)[:3] == ("shop/stock.py", 2, "IndexError: list index out of range")
    assert project.only({"shop/stock.py": "x = 1\nx ="})[:2] == ("shop/stock.py", 2)


def test_an_error_inside_an_installed_module_is_told_at_the_projects_own_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(
        {
            "env/pyvenv.cfg": "",
            "env/fragile.py": "def use():\n    compile('x =', 'x', 'exec')",
            "routes/a.stream.py": "import fragile\n\nfragile.use()\n",
        }
    )
    monkeypatch.syspath_prepend(str(project.root / "env"))
    problem = project.only({})
    assert problem[:2] == ("routes/a.stream.py", 3)
    assert problem.found.startswith("SyntaxError: ")
    del sys.modules["fragile"]


def test_modules_that_import_each_other_too_early_are_told(project: Project) -> None:
    project.write({"a.py": "from b import y\nx = 1", "b.py": "from a import x\ny = 1"})
    problem = project.only({"routes/a.stream.py": "import a\n" + STREAM.format(value=1)})
    assert problem[:2] == ("b.py", 1)
    assert "circular import" in problem.found


def test_every_problem_of_every_file_is_told_at_once(project: Project) -> None:
    stream = STREAM.format(value=1)
    problems = project.fail(
        {
            "routes/_middleware.py": "middlewere = 1",
            "routes/_auth.py": "1 / 0",
            "routes/_app.py": "",
            "routes/a b.stream.py": stream,
            "routes/b.stream.py": "x =",
            "routes/(g)/b.stream.py": stream,
            "routes/c.stream.py": "meta = {'priority': 'x',\n'tagz': 1}\ninterceptors = 3\ninput_schema = 3",
            "routes/health.rpc.py": PROCEDURE.format(value=1),
        }
    )
    assert [(problem.file, problem.line) for problem in problems] == [
        ("routes/_app.py", 1),
        ("routes/_auth.py", 1),
        ("routes/_middleware.py", 1),
        ("routes/a b.stream.py", 1),
        ("routes/b.stream.py", 1),
        ("routes/b.stream.py", 1),
        ("routes/c.stream.py", 1),
        ("routes/c.stream.py", 1),
        ("routes/c.stream.py", 2),
        ("routes/c.stream.py", 3),
        ("routes/c.stream.py", 4),
        ("routes/health.rpc.py", 1),
    ]


def test_conflicts_alone_are_left_to_the_caller(project: Project) -> None:
    stream = STREAM.format(value=1)
    staged = project.stage({"routes/b.stream.py": stream, "routes/(g)/b.stream.py": stream})
    assert [route.name for route in staged.routes] == ["b", "b"]
    assert staged.problems == []


def test_a_missing_folder_is_told(project: Project) -> None:
    os.rmdir(project.root / "routes")
    assert project.fail() == [("routes", 1, "no such folder", "a folder of routes")]


def test_a_file_elsewhere_is_told_by_its_whole_path(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write({"routes/a.stream.py": ""})
    monkeypatch.chdir("/")
    (problem,) = project.fail()
    assert problem.file == str(project.root / "routes/a.stream.py").lstrip("/")
    monkeypatch.chdir(project.root / "routes")
    project.write({"db.py": "1 / 0", "routes/a.stream.py": "import db"})
    (problem,) = project.fail()
    assert problem.file == str(project.root / "db.py")


def test_an_interrupt_while_loading_is_not_swallowed(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt):
        project.stage({"routes/a.stream.py": "raise KeyboardInterrupt"})
    project.loader.rollback()
    project.modules.rollback()
    assert generations() == set()


def test_an_error_that_cannot_be_shown_is_told(project: Project) -> None:
    text = "class E(Exception):\n    def __str__(self): raise E\nraise E"
    assert project.only({"routes/a.stream.py": text})[1:3] == (3, "E")


# Generations


def test_a_rollback_leaves_everything_as_it_was(project: Project) -> None:
    files = {
        "db.py": "x = 1",
        "routes/a.stream.py": "import db\n" + STREAM.format(value="db.x"),
        "routes/_auth.py": AUTH,
    }
    first = project.load(files)
    before = dict(sys.modules)
    project.fail(
        {"db.py": "x = 22", "routes/_auth.py": "import os\n" + AUTH, "routes/b.stream.py": "import csv\n1 / 0"}
    )
    new = {name for name in sys.modules if name not in before}
    assert not {name for name in new if getattr(sys.modules[name], "__file__", "").startswith(str(project.root))}
    assert {name: module for name, module in sys.modules.items() if name not in new} == before
    again = project.load({**files, "routes/b.stream.py": None})
    assert kept(first, again) == {"a"}


async def test_after_a_rollback_the_edits_are_still_news(project: Project) -> None:
    project.load({"db.py": "x = 1", "routes/a.stream.py": "import db\n" + STREAM.format(value="db.x")})
    project.fail({"db.py": "x = 22", "routes/b.stream.py": "1 / 0"})
    staged = project.load({"routes/b.stream.py": None})
    assert await call(only_route(staged)) == [22]


def test_a_new_load_forgets_what_was_not_committed(project: Project) -> None:
    project.stage({"routes/a.stream.py": STREAM.format(value=1)})
    project.load()
    assert len(generations()) == 1


def test_replaced_modules_leave_sys_modules(project: Project) -> None:
    project.load({f"routes/{name}.stream.py": STREAM.format(value=1) for name in "ab"})
    before = generations()
    project.load({"routes/a.stream.py": STREAM.format(value=22)})
    assert len(before) == len(generations()) == 2
    assert len(before & generations()) == 1
    project.load({"routes/a.stream.py": None})
    assert len(generations()) == 1


def test_closing_takes_all_modules_out(project: Project) -> None:
    project.load({f"routes/{name}.stream.py": STREAM.format(value=1) for name in "ab"})
    project.loader.close()
    assert generations() == set()


def test_a_module_is_collected_once_nothing_runs_on_it(project: Project) -> None:
    text = "class Marker: ...\nasync def handler(input, ctx):\n    yield Marker\n    yield {value}"
    running = only_route(project.load({"routes/a.stream.py": text.format(value=1)})).handler(None, None)
    marker = weakref.ref(running.ag_frame.f_globals["Marker"])
    project.load({"routes/a.stream.py": text.format(value=22)})
    gc.collect()
    assert marker() is not None
    del running
    gc.collect()
    assert marker() is None


def test_the_modules_of_a_failed_load_are_collected(project: Project) -> None:
    project.stage({"routes/a.stream.py": "class Marker: ...\n" + STREAM.format(value=1), "routes/b.stream.py": "1 / 0"})
    [name] = generations()
    marker = weakref.ref(sys.modules[name].Marker)
    project.loader.rollback()
    gc.collect()
    assert marker() is None


@pytest.mark.parametrize("child", ["", ".getChild('sql')"])
def test_loggers_named_after_a_module_end_with_it(project: Project, child: str) -> None:
    text = f"import logging\nlog = logging.getLogger(__name__){child}\n"
    known = logging.Logger.manager.loggerDict
    project.load({"routes/logs/tail.stream.py": text + STREAM.format(value=1)})
    before = set(known)
    project.load({"routes/logs/tail.stream.py": text + STREAM.format(value=22)})
    project.fail({"routes/logs/tail.stream.py": text + "1 / 0"})
    assert len(known) == len(before)
    above = known[f"{ROUTES}.logs.tail.stream"]
    assert isinstance(above, logging.PlaceHolder)
    assert len(above.loggerMap) == 1


def test_a_logger_may_be_configured_by_the_name_of_its_file(project: Project) -> None:
    logging.getLogger(f"{ROUTES}.logs.tail").setLevel("DEBUG")
    text = "import logging\nlog = logging.getLogger(__name__)\n" + STREAM.format(value=1)
    route = only_route(project.load({"routes/logs/tail.stream.py": text}))
    assert route.handler.__globals__["log"].getEffectiveLevel() == logging.DEBUG


REAL = """\
from __future__ import annotations
import logging
from collections.abc import AsyncIterator
from typing import Optional
from msgspec import Struct
from db import Row
log = logging.getLogger(__name__)
class Query(Struct):
    limit: Optional[int] = None
class Line(Struct):
    text: str
    row: Row
    def shown(self) -> str:
        return self.text
async def handler(input: Query, ctx) -> AsyncIterator[Line]:
    yield Line("{value}", Row({value}))
"""


def test_two_hundred_reloads_need_no_more_memory(project: Project) -> None:
    row = "from msgspec import Struct\nclass Row(Struct):\n    id: int = {value}\n"

    def reload(value: int) -> None:
        files = {"routes/a.stream.py": REAL.format(value=value)}
        if value % 4 == 0:
            files["db.py"] = row.format(value=value)
        project.load(files, *files)

    for value in range(1000, 1020):
        reload(value)
    gc.collect()
    tracemalloc.start()
    try:
        reload(1020)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for value in range(1021, 1221):
            reload(value)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 200 * 1024  # a generation that stayed would be 20 KiB, and 200 of them 4 MiB
    assert len(generations()) == 1


def test_generations_are_numbered_across_folders(project: Project) -> None:
    other = FolderLoader(project.root / "routes", project.modules)
    project.load({"routes/a.stream.py": STREAM.format(value=1)})
    other.load(frozenset())
    assert len(generations()) == 2
    other.close()
    assert len(generations()) == 1
