"""A routes folder of each kind, also of the illegal ones, and what is found in it."""

import os
import sys
from pathlib import Path

import pytest

from raffel_core.discovery.scan import RouteFile, Scan, scan, shown, walk
from raffel_core.errors import Problem


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty routes folder below the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "routes"
    folder.mkdir()
    return folder


def make(root: Path, *paths: str) -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise AssertionError('imported')\n")


def found(root: Path, *paths: str) -> Scan:
    make(root, *paths)
    return scan(root)


def names(result: Scan) -> list[str]:
    assert result.problems == ()
    return [route.name for route in result.routes]


def only_problem(result: Scan) -> Problem:
    assert len(result.problems) == 1, result.problems
    return result.problems[0]


def only_route(result: Scan) -> RouteFile:
    assert result.problems == ()
    assert len(result.routes) == 1
    return result.routes[0]


def test_an_empty_folder_has_no_routes(root: Path) -> None:
    assert scan(root) == Scan((), None, ())


def test_streams_and_procedures_are_found_at_every_depth(root: Path) -> None:
    result = found(root, "clock.stream.py", "logs/tail.stream.py", "users/create.rpc.py", "a/b/c/d.stream.py")
    assert [(route.name, route.procedure) for route in result.routes] == [
        ("a.b.c.d", False),
        ("clock", False),
        ("logs.tail", False),
        ("users.create", True),
    ]


def test_a_route_knows_its_file(root: Path) -> None:
    route = only_route(found(root, "rooms/[room]/chat.stream.py"))
    assert route.path == root / "rooms/[room]/chat.stream.py"
    assert route.entry == ("rooms.[room].chat", route.segments, "routes/rooms/[room]/chat.stream.py:1", False)


def test_no_user_code_is_imported(root: Path) -> None:
    before = set(sys.modules)
    found(root, "tail.stream.py", "_middleware.py", "_auth.py", "_app.py")
    assert not {name for name in set(sys.modules) - before if "tail" in name or "_app" in name}
    assert not list(root.rglob("__pycache__"))


def test_private_files_and_folders_are_no_routes(root: Path) -> None:
    result = found(
        root,
        "_draft.stream.py",
        ".hidden.stream.py",
        "_lib/tail.stream.py",
        ".git/tail.stream.py",
        "__pycache__/tail.stream.py",
        "_lib/_app.py",
        "_lib/bad name.stream.py",
        "_lib/x.streams.py",
        "__init__.py",
        "_helpers.py",
    )
    assert result == Scan((), None, ())


def test_helper_modules_are_ignored(root: Path) -> None:
    assert found(root, "helper.py", "tail_stream.py", "logs/format.py", "README.md", "data.json") == Scan((), None, ())


def test_groups_do_not_count(root: Path) -> None:
    assert names(found(root, "(admin)/users/list.stream.py", "(public)/users/(x)/show.stream.py")) == [
        "users.list",
        "users.show",
    ]


def test_an_index_is_its_folders_name(root: Path) -> None:
    assert names(found(root, "users/index.stream.py", "users/[id]/index.rpc.py")) == ["users", "users.[id]"]


def test_middleware_serves_its_folder_and_below_from_the_outermost_in(root: Path) -> None:
    result = found(
        root,
        "_middleware.py",
        "clock.stream.py",
        "a/_middleware.py",
        "a/x.stream.py",
        "a/b/c/_middleware.py",
        "a/b/c/y.stream.py",
        "z/w.stream.py",
    )
    served = {route.name: [str(path.relative_to(root)) for path in route.middleware] for route in result.routes}
    assert served == {
        "clock": ["_middleware.py"],
        "a.x": ["_middleware.py", "a/_middleware.py"],
        "a.b.c.y": ["_middleware.py", "a/_middleware.py", "a/b/c/_middleware.py"],
        "z.w": ["_middleware.py"],
    }


def test_the_middleware_of_a_group_serves_the_group(root: Path) -> None:
    route = only_route(found(root, "(admin)/_middleware.py", "(admin)/users.stream.py"))
    assert route.middleware == (root / "(admin)/_middleware.py",)


def test_the_nearest_auth_serves(root: Path) -> None:
    result = found(root, "_auth.py", "a.stream.py", "b/_auth.py", "b/c/d.stream.py", "e/f.stream.py")
    assert {route.name: route.auth for route in result.routes} == {
        "a": root / "_auth.py",
        "b.c.d": root / "b/_auth.py",
        "e.f": root / "_auth.py",
    }


def test_without_an_auth_file_there_is_none(root: Path) -> None:
    assert only_route(found(root, "a.stream.py", "b/_auth.py")).auth is None


def test_every_helper_is_found_also_where_no_route_needs_it(root: Path) -> None:
    result = found(root, "_auth.py", "a/_middleware.py", "a/b/_auth.py", "a/b/_middleware.py", "_c/_auth.py")
    assert result.helpers == tuple(
        root / path for path in ("_auth.py", "a/_middleware.py", "a/b/_middleware.py", "a/b/_auth.py")
    )


def test_a_walk_looks_for_no_conflicts(root: Path) -> None:
    make(root, "b.stream.py", "(g)/b.stream.py", "health.rpc.py")
    assert [route.name for route in walk(root).routes] == ["b", "b", "health"]
    assert walk(root).problems == ()


def test_the_app_is_in_the_root(root: Path) -> None:
    assert found(root, "_app.py").app == root / "_app.py"


@pytest.mark.parametrize("path", ["logs/_app.py", "(admin)/_app.py"])
def test_an_app_elsewhere_is_a_problem(root: Path, path: str) -> None:
    result = found(root, path)
    assert result.app is None
    assert only_problem(result) == (f"routes/{path}", 1, "_app.py below the routes folder", "it in routes itself")


def test_routes_come_in_one_order(root: Path) -> None:
    made = ["b.stream.py", "a/z.stream.py", "a/b.rpc.py", "(g)/c.stream.py", "[x].stream.py"]
    assert names(found(root, *made)) == ["[x]", "a.b", "a.z", "b", "c"]


@pytest.mark.parametrize(
    "path",
    [
        "a.b.stream.py",
        "my logs/tail.stream.py",
        "100%.rpc.py",
        "[id.stream.py",
        "[...rest]/tail.stream.py",
        "users/[[id]]/posts.stream.py",
        "[id]/[id].stream.py",
        "index.stream.py",
        "(group).stream.py",
    ],
)
def test_a_route_of_an_illegal_name_is_a_problem_of_its_file(root: Path, path: str) -> None:
    result = found(root, path)
    assert result.routes == ()
    problem = only_problem(result)
    assert (problem.file, problem.line) == (f"routes/{path}", 1)


def test_a_folder_without_routes_may_have_any_name(root: Path) -> None:
    assert found(root, "my data/a.json", "v1.0/notes.txt") == Scan((), None, ())


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("logs/tail.streams.py", "tail.stream.py"),
        ("create.RPC.py", "create.rpc.py"),
        ("logs/_middlewares.py", "_middleware.py"),
        ("_auths.py", "_auth.py"),
    ],
)
def test_a_misspelt_file_is_a_problem_with_a_suggestion(root: Path, path: str, meant: str) -> None:
    problem = only_problem(found(root, path))
    assert problem.file == f"routes/{path}"
    assert problem.expected == repr(meant)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("(admin)/users/list.stream.py", "users/list.stream.py"),
        ("(a)/list.rpc.py", "(b)/list.rpc.py"),
        ("users.stream.py", "users/index.stream.py"),
        ("list.rpc.py", "list.stream.py"),
        ("Users.stream.py", "users.rpc.py"),
        ("users/[id].stream.py", "users/[name].rpc.py"),
        ("users/[id]/a.stream.py", "users/[name]/b.stream.py"),
        ("users/[[id]].stream.py", "users/index.stream.py"),
        ("users/[[id]].stream.py", "users/[id].stream.py"),
        ("[...a].stream.py", "[...b].stream.py"),
    ],
)
def test_a_conflict_names_both_files(root: Path, first: str, second: str) -> None:
    problem = only_problem(found(root, first, second))
    assert problem.file == f"routes/{second}"
    assert f"routes/{first}:1" in problem.found


def test_a_procedure_on_a_reserved_path_is_a_problem(root: Path) -> None:
    assert only_problem(found(root, "docs/build.rpc.py")).file == "routes/docs/build.rpc.py"


def test_the_reserved_paths_are_the_callers(root: Path) -> None:
    make(root, "docs/build.rpc.py", "api/build.rpc.py")
    assert only_problem(scan(root, {"api"})).file == "routes/api/build.rpc.py"


def test_every_problem_is_told_at_once_in_the_order_of_files(root: Path) -> None:
    result = found(
        root,
        "z/a b.stream.py",
        "y/_app.py",
        "x.streams.py",
        "health.rpc.py",
        "b.stream.py",
        "(g)/b.stream.py",
        "ok.stream.py",
    )
    assert [problem.file for problem in result.problems] == [
        "routes/b.stream.py",
        "routes/health.rpc.py",
        "routes/x.streams.py",
        "routes/y/_app.py",
        "routes/z/a b.stream.py",
    ]
    assert "ok" in [route.name for route in result.routes]


def test_a_linked_folder_is_followed(root: Path, tmp_path: Path) -> None:
    make(tmp_path / "shared", "_auth.py", "tail.stream.py")
    (root / "logs").symlink_to(tmp_path / "shared")
    route = only_route(scan(root))
    assert (route.name, route.path) == ("logs.tail", root / "logs/tail.stream.py")
    assert route.auth == root / "logs/_auth.py"


def test_a_folder_may_be_linked_under_a_second_name(root: Path) -> None:
    make(root, "v1/tail.stream.py")
    (root / "v2").symlink_to("v1")
    assert names(scan(root)) == ["v1.tail", "v2.tail"]


def test_links_in_a_circle_end(root: Path) -> None:
    make(root, "a/tail.stream.py", "b/head.stream.py")
    (root / "a/up").symlink_to(root)
    (root / "a/b").symlink_to(root / "b")
    (root / "b/a").symlink_to(root / "a")
    (root / "self").symlink_to(root / "self")
    assert names(scan(root)) == ["a.b.head", "a.tail", "b.a.tail", "b.head"]


def test_a_linked_route_file_is_a_route(root: Path, tmp_path: Path) -> None:
    make(tmp_path, "shared.py")
    (root / "tail.stream.py").symlink_to(tmp_path / "shared.py")
    assert names(scan(root)) == ["tail"]


@pytest.mark.parametrize("name", ["tail.stream.py", "_auth.py", "_middleware.py", "_app.py"])
def test_a_broken_link_is_a_problem(root: Path, name: str) -> None:
    (root / name).symlink_to("nowhere")
    result = scan(root)
    assert result[:2] == ((), None)
    assert only_problem(result).file == f"routes/{name}"


def test_an_editors_lock_file_is_ignored(root: Path) -> None:
    (root / ".#tail.stream.py").symlink_to("someone@somewhere")
    assert scan(root) == Scan((), None, ())


def test_a_fifo_is_a_problem_and_never_opened(root: Path) -> None:
    os.mkfifo(root / "tail.stream.py")
    assert only_problem(scan(root)).file == "routes/tail.stream.py"


def test_a_folder_named_as_the_auth_file_is_a_problem(root: Path) -> None:
    (root / "_auth.py").mkdir()
    assert only_problem(scan(root)).expected == "a regular file"


def test_a_missing_routes_folder_is_a_problem(root: Path) -> None:
    problem = only_problem(scan(root / "nowhere"))
    assert problem == ("routes/nowhere", 1, "no such folder", "a folder of routes")


def test_a_file_instead_of_the_routes_folder_is_a_problem(root: Path) -> None:
    make(root, "clock.stream.py")
    assert only_problem(scan(root / "clock.stream.py")).expected == "a folder"


def test_a_relative_root_gives_the_same_names_and_problems(root: Path) -> None:
    make(root, "(a)/x.stream.py", "x.stream.py", "_app.py", "y/_app.py")
    relative = scan(Path("routes"))
    assert relative.problems == scan(root).problems
    assert [route.name for route in relative.routes] == ["x", "x"]
    assert relative.app == Path("routes/_app.py")


def test_the_working_directory_can_be_the_routes_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, "logs/tail.stream.py", "_app.py")
    monkeypatch.chdir(root)
    result = scan(Path("."))
    assert names(result) == ["logs.tail"]
    assert result.app == Path("_app.py")


def test_a_path_is_shown_relative_to_the_working_directory_where_it_lies_below(root: Path) -> None:
    assert shown(root / "a.stream.py") == "routes/a.stream.py"
    assert shown(Path("/elsewhere/a.stream.py")) == "/elsewhere/a.stream.py"


def test_an_unprintable_file_name_is_told_on_one_line(root: Path) -> None:
    raw = os.fsencode(root) + b"/a\n\xff.stream.py"
    with open(raw, "wb"):
        pass
    problem = only_problem(scan(root))
    assert str(problem).isprintable()
    assert str(problem).encode()
