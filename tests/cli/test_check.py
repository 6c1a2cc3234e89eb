"""`raffel check`: every problem at once, as its answer, and nothing served."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
Project = Callable[[Mapping[str, str]], Path]

FINE = "async def handler(input):\n    yield 1\n"


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
    procedure = "async def handler(input):\n    return 1\n"
    project({"routes/api/call.rpc.py": procedure, "deploy.yaml": "jsonrpc: {path: /api}\n"})
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


def test_help_has_an_example(invoke: Invoke) -> None:
    result = invoke("check", "--help")
    assert result.exit_code == 0
    assert "raffel check routes --config deploy/raffel.yaml" in result.stdout


@pytest.mark.parametrize("arguments", [("--jsno",), ("a", "b")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("check", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
