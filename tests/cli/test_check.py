"""`raffel check`: every problem at once, as its answer, and nothing served."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
Project = Callable[[Mapping[str, str | None]], Path]

FINE = "async def handler(input):\n    yield 1\n"
PROCEDURE = "async def handler(input):\n    return 1\n"


@pytest.fixture
def broken(project: Project) -> None:
    project(
        {
            "routes/fine.stream.py": FINE,
            "routes/logs/tail.stream.py": "from time import sleep\n\n\ndef handler(:\n    pass\n",
            "routes/users.rpc.py": "meta = {\n    'tag': ['a'],\n}\n\n\nasync def handler(input):\n    yield 1\n",
            "routes/late.streams.py": FINE,
        }
    )


def test_a_project_without_problems_is_one_line(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": FINE, "routes/b.stream.py": FINE})
    result = invoke("check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 routes are fine\n", "")


def test_one_route_is_counted_as_one(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": FINE})
    assert invoke("check").stdout == "1 route is fine\n"


@pytest.mark.usefixtures("broken")
def test_every_problem_is_printed_as_the_answer(invoke: Invoke) -> None:
    result = invoke("check")
    assert result.exit_code == 1
    assert result.stderr == ""
    places = [line.partition(": ")[0] for line in result.stdout.splitlines()]
    assert places == [
        "routes/late.streams.py:1",
        "routes/logs/tail.stream.py:4",
        "routes/users.rpc.py:2",
        "routes/users.rpc.py:6",
    ]


@pytest.mark.usefixtures("broken")
def test_a_problem_says_what_was_found_and_what_was_expected(invoke: Invoke) -> None:
    lines = invoke("check").stdout.splitlines()
    assert "routes/users.rpc.py:2: unknown key 'tag' in `meta`; expected 'tags'" in lines


@pytest.mark.usefixtures("broken")
def test_problems_as_json_are_a_list_of_objects(invoke: Invoke) -> None:
    result = invoke("check", "--json")
    assert result.exit_code == 1
    assert {
        "file": "routes/users.rpc.py",
        "line": 2,
        "found": "unknown key 'tag' in `meta`",
        "expected": "'tags'",
    } in json.loads(result.stdout)


def test_no_problems_as_json_are_an_empty_list(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": FINE})
    result = invoke("check", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_the_configuration_is_checked_too(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": FINE, "raffel.yaml": "prot: 3000\nport: x\n"})
    result = invoke("check", RAFFEL_HOTS="x")
    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        "RAFFEL_HOTS",
        "raffel.yaml:1",
        "raffel.yaml:2",
    ]


def test_what_the_configuration_says_counts(invoke: Invoke, project: Project) -> None:
    project({"routes/api/call.rpc.py": PROCEDURE, "deploy.yaml": "jsonrpc: {path: /api}\n"})
    assert invoke("check").exit_code == 0
    result = invoke("check", "--config", "deploy.yaml")
    assert result.exit_code == 1
    assert "begins with the server's own path /api" in result.stdout


def test_another_folder_may_be_named(invoke: Invoke, project: Project) -> None:
    project({"elsewhere/a.stream.py": FINE})
    assert invoke("check", "elsewhere").stdout == "1 route is fine\n"


def test_an_absent_folder_is_a_problem(invoke: Invoke) -> None:
    result = invoke("check")
    assert (result.exit_code, result.stdout) == (1, "routes:1: no such folder; expected a folder of routes\n")


def test_a_server_built_in_code_is_checked(invoke: Invoke, project: Project) -> None:
    project(
        {
            "app.py": """
                from raffel_core import create_server

                server = create_server()

                @server.stream("ticks", tag="x")
                async def ticks(input):
                    yield 1
                """
        }
    )
    result = invoke("check", "app:server")
    assert result.exit_code == 1
    assert result.stdout == "app.py:6: unknown key 'tag' in `meta`; expected 'tags'\n"


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("absent:server", "no module named 'absent'"),
        ("app:absent", "app has no 'absent'"),
        ("app:number", "'number' is of type int"),
        ("broken:server", "ZeroDivisionError"),
    ],
)
def test_a_name_that_is_no_server_is_a_problem(invoke: Invoke, project: Project, named: str, found: str) -> None:
    project({"app.py": "number = 1\n", "broken.py": "1 / 0\n"})
    result = invoke("check", named)
    assert result.exit_code == 1
    assert found in result.stdout


def test_nothing_is_run_but_imports(invoke: Invoke, project: Project) -> None:
    project(
        {
            "routes/_app.py": "async def lifespan(app):\n    open('ran', 'w').close()\n    yield\n",
            "routes/a.stream.py": "async def handler(input):\n    open('ran', 'w').close()\n    yield 1\n",
        }
    )
    assert invoke("check").exit_code == 0
    assert not Path("ran").exists()


def test_what_modules_print_is_no_part_of_the_answer(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": f"print('loading')\n{FINE}"})
    result = invoke("check", "--json")
    assert json.loads(result.stdout) == []
    assert result.stderr == "loading\n"


def test_a_module_that_exits_is_a_problem(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": f"import sys\nsys.exit(0)\n{FINE}"})
    result = invoke("check")
    assert result.exit_code == 1
    assert result.stdout.startswith("routes/a.stream.py:2: ")


# What clients of gRPC were built from

TICKS = """
    from collections.abc import AsyncIterator

    from msgspec import Struct


    class Tick(Struct):
        price: float
        size: int


    async def handler(input: int) -> AsyncIterator[Tick]:
        yield Tick(1.0, 1)
"""
ACCEPT = "as in proto.lock, or `raffel export proto --lock` once no client needs it"


@pytest.fixture
def locked(invoke: Invoke, project: Project) -> None:
    project({"routes/ticks.stream.py": TICKS, "routes/echo.rpc.py": PROCEDURE})
    assert invoke("export", "proto", "--lock").exit_code == 0


@pytest.mark.usefixtures("locked")
def test_what_is_as_it_was_locked_is_fine(invoke: Invoke) -> None:
    result = invoke("check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 routes are fine\n", "")


@pytest.mark.usefixtures("locked")
def test_a_change_that_breaks_clients_is_a_problem_at_its_route_until_it_is_locked(
    invoke: Invoke, project: Project
) -> None:
    project({"routes/ticks.stream.py": TICKS.replace("size: int", "size: str")})
    result = invoke("check")
    found = "routes/ticks.stream.py:12: the field size of RootTicksTick is string; expected int64"
    assert (result.exit_code, result.stdout, result.stderr) == (1, f"{found} {ACCEPT}\n", "")
    assert json.loads(invoke("check", "--json").stdout) == [
        {
            "file": "routes/ticks.stream.py",
            "line": 12,
            "found": "the field size of RootTicksTick is string",
            "expected": f"int64 {ACCEPT}",
        }
    ]
    invoke("export", "proto", "--lock")
    assert invoke("check").exit_code == 0


@pytest.mark.usefixtures("locked")
def test_every_change_that_breaks_clients_is_told_at_once(invoke: Invoke, project: Project) -> None:
    changed = TICKS.replace("AsyncIterator[Tick]:", "Tick:").replace("yield", "return")
    project({"routes/ticks.stream.py": None, "routes/ticks.rpc.py": changed, "routes/echo.rpc.py": None})
    result = invoke("check")
    assert result.exit_code == 1
    gone = next(n for n, line in enumerate(Path("proto.lock").read_text().splitlines(), 1) if "    Echo:" in line)
    assert [line.partition("; ")[0] for line in result.stdout.splitlines()] == [
        f"proto.lock:{gone}: the method Root.Echo is gone",
        "routes/ticks.rpc.py:12: the method Root.Ticks is (RootTicksRequest) returns (RootTicksTick)",
    ]


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize(
    ("before", "after"), [("size: int", "size: int | None"), ("size: int", "amount: int"), ("        size: int\n", "")]
)
def test_a_field_that_is_optional_renamed_or_gone_is_fine(
    invoke: Invoke, project: Project, before: str, after: str
) -> None:
    project({"routes/ticks.stream.py": TICKS.replace(before, after)})
    assert invoke("check").exit_code == 0


def test_without_a_lock_no_change_is_a_problem(invoke: Invoke, project: Project) -> None:
    project({"routes/ticks.stream.py": TICKS})
    assert invoke("check").exit_code == 0
    project({"routes/ticks.stream.py": TICKS.replace("size: int", "size: str")})
    assert invoke("check").exit_code == 0
    assert not Path("proto.lock").exists()


@pytest.mark.usefixtures("locked")
def test_a_lock_that_cannot_be_read_is_told_with_the_other_problems(invoke: Invoke, project: Project) -> None:
    project({"proto.lock": "version: 1\nmessages: 1\n", "routes/late.streams.py": FINE})
    result = invoke("check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "proto.lock:2: '1' for messages; expected a mapping"
    assert [line.partition(": ")[0] for line in lines] == ["proto.lock:2", "routes/late.streams.py:1"]


@pytest.mark.usefixtures("locked")
def test_the_lock_does_not_count_where_grpc_is_off(invoke: Invoke, project: Project) -> None:
    project({"routes/echo.rpc.py": None})
    assert invoke("check").exit_code == 1
    assert invoke("check", RAFFEL_GRPC="false").exit_code == 0


def test_help_has_an_example(invoke: Invoke) -> None:
    result = invoke("check", "--help")
    assert result.exit_code == 0
    assert "raffel check routes --config deploy/raffel.yaml" in result.stdout


@pytest.mark.parametrize("arguments", [("--jsno",), ("a", "b")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("check", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
