"""`raffel routes`: the list of what is served, and why a name is answered as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Invoke = Callable[..., Result]
Project = Callable[[Mapping[str, str]], Path]

TAIL = '''
    """Tail the log."""

    from collections.abc import AsyncIterator

    from msgspec import Struct


    class Query(Struct):
        limit: int = 10


    class Line(Struct):
        text: str


    meta = {"summary": "Tail", "tags": ["logs"], "deprecated": True}


    async def handler(query: Query) -> AsyncIterator[Line]:
        yield Line("")
'''
BYTES = """
    from collections.abc import AsyncIterator

    async def handler(input) -> AsyncIterator[bytes]:
        yield b""
"""
ANY = "async def handler(input):\n    yield 1\n"
CALL = "async def handler(input: int) -> list[str]:\n    return []\n"
CLIENT = "meta = {'direction': 'client'}\n\n\nasync def handler(items):\n    return 1\n"
BIDI = "meta = {'direction': 'bidi'}\n\n\nasync def handler(items):\n    yield 1\n"
AUTH = "async def authenticate(ctx):\n    return None\n"


def columns(result: Result, *names: str) -> dict[str, list[str]]:
    """The cells of these columns, by the route's name."""
    head, *rows = result.stdout.splitlines()
    starts = [head.index(name) for name in head.split()]
    cells = [[row[start:stop].strip() for start, stop in zip(starts, [*starts[1:], None], strict=True)] for row in rows]
    wanted = [head.split().index(name) for name in names]
    return {row[0]: [row[column] for column in wanted] for row in cells}


def listed(result: Result) -> dict[str, dict[str, Any]]:
    return {route["name"]: route for route in json.loads(result.stdout)}


@pytest.fixture
def routes(project: Project) -> None:
    project(
        {
            "routes/logs/tail.stream.py": TAIL,
            "routes/files/[...path].stream.py": BYTES,
            "routes/sum.stream.py": CLIENT,
            "routes/chat.stream.py": BIDI,
            "routes/words.rpc.py": CALL,
        }
    )


@pytest.mark.usefixtures("routes")
def test_every_route_is_a_row(invoke: Invoke) -> None:
    result = invoke("routes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.split("\n")[0].split() == [
        "name",
        "direction",
        "input",
        "output",
        "protocols",
        "grpc",
        "auth",
        "file",
    ]
    assert list(columns(result)) == ["chat", "files.[...path]", "logs.tail", "sum", "words"]


@pytest.mark.usefixtures("routes")
def test_a_row_tells_direction_and_types(invoke: Invoke) -> None:
    assert columns(invoke("routes"), "direction", "input", "output") == {
        "chat": ["bidi", "any", "any"],
        "files.[...path]": ["server", "any", "bytes"],
        "logs.tail": ["server", "Query", "Line"],
        "sum": ["client", "any", "any"],
        "words": ["procedure", "int", "list[str]"],
    }


@pytest.mark.usefixtures("routes")
def test_a_row_tells_the_protocols_that_carry_the_route(invoke: Invoke) -> None:
    assert columns(invoke("routes"), "protocols") == {
        "chat": ["websocket, tcp, grpc"],
        "files.[...path]": ["sse, ndjson, websocket, tcp, grpc, bytes"],
        "logs.tail": ["sse, ndjson, websocket, tcp, grpc"],
        "sum": ["websocket, tcp, grpc"],
        "words": ["http, websocket, tcp, grpc, jsonrpc"],
    }


@pytest.mark.usefixtures("routes")
def test_a_protocol_that_is_off_carries_nothing(invoke: Invoke, project: Project) -> None:
    project({"raffel.yaml": "tcp: false\n"})
    assert columns(invoke("routes"), "protocols")["sum"] == ["websocket, grpc"]
    project({"raffel.yaml": "tcp: false\ngrpc: false\n"})
    assert columns(invoke("routes"), "protocols")["sum"] == ["websocket"]


@pytest.mark.usefixtures("routes")
def test_a_row_tells_the_path_over_grpc(invoke: Invoke) -> None:
    assert columns(invoke("routes"), "grpc") == {
        "chat": ["/Root/Chat"],
        "files.[...path]": ["/Root/Files"],
        "logs.tail": ["/Logs/Tail"],
        "sum": ["/Root/Sum"],
        "words": ["/Root/Words"],
    }


@pytest.mark.usefixtures("routes")
def test_a_path_is_below_the_package_and_as_the_route_says(invoke: Invoke, project: Project) -> None:
    meta = "meta = {'grpc': {'package': 'other.v1', 'service': 'Sums', 'method': 'Add'}}"
    project({"raffel.yaml": "grpc: {package: acme.v1}\n", "routes/math/add.rpc.py": f"{meta}\n{CALL}"})
    paths = columns(invoke("routes"), "grpc")
    assert (paths["logs.tail"], paths["math.add"]) == (["/acme.v1.Logs/Tail"], ["/other.v1.Sums/Add"])


@pytest.mark.usefixtures("routes")
def test_a_route_that_grpc_leaves_out_has_no_path(invoke: Invoke, project: Project) -> None:
    project({"routes/words.rpc.py": f"meta = {{'grpc': False}}\n{CALL}"})
    assert columns(invoke("routes"), "grpc")["words"] == ["-"]
    assert listed(invoke("routes", "--json"))["words"]["grpc"] is None
    project({"raffel.yaml": "grpc: false\n"})
    assert {*map(tuple, columns(invoke("routes"), "grpc").values())} == {("-",)}


@pytest.mark.usefixtures("routes")
def test_a_row_tells_the_file(invoke: Invoke) -> None:
    assert columns(invoke("routes"), "file")["files.[...path]"] == ["routes/files/[...path].stream.py"]


@pytest.mark.parametrize(
    ("meta", "auth", "row", "value"),
    [
        ("{}", None, "none", "none"),
        ("{}", AUTH, "required", "required"),
        ("{'auth': 'none'}", AUTH, "none", "none"),
        ("{'auth': ['admin', 'ops']}", AUTH, "admin, ops", ["admin", "ops"]),
    ],
)
def test_who_may_call(invoke: Invoke, project: Project, meta: str, auth: str | None, row: str, value: object) -> None:
    project({"routes/a.stream.py": f"meta = {meta}\n{ANY}", **({"routes/_auth.py": auth} if auth else {})})
    assert columns(invoke("routes"), "auth") == {"a": [row]}
    assert listed(invoke("routes", "--json"))["a"]["auth"] == value


@pytest.mark.usefixtures("routes")
def test_json_is_a_list_of_objects(invoke: Invoke) -> None:
    assert listed(invoke("routes", "--json"))["logs.tail"] == {
        "name": "logs.tail",
        "kind": "server",
        "direction": "server",
        "input": "Query",
        "output": "Line",
        "protocols": ["sse", "ndjson", "websocket", "tcp", "grpc"],
        "grpc": "/Logs/Tail",
        "auth": "none",
        "file": "routes/logs/tail.stream.py",
        "line": 20,
        "summary": "Tail",
        "description": "Tail the log.",
        "tags": ["logs"],
        "deprecated": True,
    }


@pytest.mark.usefixtures("routes")
def test_json_has_the_kinds_of_grpc(invoke: Invoke) -> None:
    routes = listed(invoke("routes", "--json"))
    assert {name: (route["kind"], route["direction"]) for name, route in routes.items()} == {
        "chat": ("bidi", "bidi"),
        "files.[...path]": ("server", "server"),
        "logs.tail": ("server", "server"),
        "sum": ("client", "client"),
        "words": ("unary", "procedure"),
    }


def test_a_project_without_routes_is_an_empty_list(invoke: Invoke, project: Project) -> None:
    (project({}) / "routes").mkdir()
    result = invoke("routes", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_routes_built_in_code_are_listed(invoke: Invoke, project: Project) -> None:
    project(
        {
            "app.py": """
                from raffel_core import create_server

                server = create_server()

                @server.procedure("add", description="Adds")
                async def add(numbers: list[int]) -> int:
                    return sum(numbers)
                """
        }
    )
    route = listed(invoke("routes", "app:server", "--json"))["add"]
    assert route["file"] == "app.py"
    assert (route["line"], route["input"], route["description"]) == (6, "list[int]", "Adds")


def test_routes_that_the_configuration_names_are_listed(invoke: Invoke, project: Project) -> None:
    project({"streams/a.stream.py": ANY, "raffel.yaml": "routes: streams\n"})
    assert list(columns(invoke("routes"))) == ["a"]


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--explain", "a")])
def test_problems_are_the_commands_own_trouble(invoke: Invoke, project: Project, arguments: tuple[str, ...]) -> None:
    project({"routes/a.stream.py": ANY, "routes/b.stream.py": "handle = 1\n"})
    result = invoke("routes", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("routes/b.stream.py:1: ")


def test_what_modules_print_is_no_part_of_the_answer(invoke: Invoke, project: Project) -> None:
    project({"routes/a.stream.py": f"print('loading')\n{ANY}"})
    result = invoke("routes", "--json")
    assert list(listed(result)) == ["a"]
    assert result.stderr == "loading\n"


# --explain


@pytest.fixture
def rooms(project: Project) -> None:
    files = ("rooms/[room]/chat", "rooms/[...rest]", "rooms/lobby/chat", "rooms/[room]/users")
    project({f"routes/{name}.stream.py": ANY for name in files})


@pytest.mark.usefixtures("rooms")
@pytest.mark.parametrize("name", ["rooms.42.chat", "rooms/42/chat"])
def test_the_file_that_answers_is_told(invoke: Invoke, name: str) -> None:
    result = invoke("routes", "--explain", name)
    assert (result.exit_code, result.stderr) == (0, "")
    first = result.stdout.splitlines()[0]
    assert first == f"{name}: rooms.[room].chat answers, in routes/rooms/[room]/chat.stream.py"


@pytest.mark.usefixtures("rooms")
def test_the_parameters_are_told(invoke: Invoke) -> None:
    assert "  room = '42'\n" in invoke("routes", "--explain", "rooms.42.chat").stdout
    assert "  rest = 'a/b/c'\n" in invoke("routes", "--explain", "rooms.a.b.c").stdout


@pytest.mark.usefixtures("rooms")
def test_every_candidate_that_lost_is_told_with_its_reason(invoke: Invoke) -> None:
    output = invoke("routes", "--explain", "rooms.42.chat").stdout
    table = [line.split("  ") for line in output.partition("\n\n")[2].splitlines()]
    rows = [[cell.strip() for cell in row if cell] for row in table]
    assert rows[0] == ["answers", "route", "why", "file"]
    assert rows[1][:2] == ["yes", "rooms.[room].chat"]
    assert [
        "no",
        "rooms.[...rest]",
        "at segment 2 the parameter [room] beats the catch-all [...rest]",
        "routes/rooms/[...rest].stream.py",
    ] in rows
    assert [row[1] for row in rows[2:]] == ["rooms.[...rest]", "rooms.[room].users", "rooms.lobby.chat"]


@pytest.mark.usefixtures("rooms")
def test_a_name_that_nothing_answers_has_status_1_and_near_names(invoke: Invoke, project: Project) -> None:
    project({"routes/logs/tail.stream.py": ANY})
    result = invoke("routes", "--explain", "logs.tial")
    assert (result.exit_code, result.stderr) == (1, "")
    first, second, *_ = result.stdout.splitlines()
    assert first == "logs.tial: nothing answers"
    assert second.startswith("did you mean logs.tail")


@pytest.mark.usefixtures("rooms")
def test_what_is_no_name_at_all_is_told(invoke: Invoke) -> None:
    result = invoke("routes", "--explain", "rooms..chat")
    assert (result.exit_code, result.stdout) == (1, "rooms..chat: nothing answers: a segment is empty\n")


@pytest.mark.usefixtures("rooms")
def test_an_explanation_as_json(invoke: Invoke) -> None:
    explained = json.loads(invoke("routes", "--json", "--explain", "rooms.42.chat").stdout)
    candidates = explained.pop("candidates")
    assert explained == {
        "name": "rooms.42.chat",
        "verdict": "rooms.[room].chat answers",
        "route": "rooms.[room].chat",
        "file": "routes/rooms/[room]/chat.stream.py",
        "parameters": {"room": "42"},
        "near": [],
    }
    assert candidates[1] == {
        "name": "rooms.[...rest]",
        "file": "routes/rooms/[...rest].stream.py",
        "answers": False,
        "why": "at segment 2 the parameter [room] beats the catch-all [...rest]",
    }


@pytest.mark.usefixtures("routes")
def test_no_answer_as_json(invoke: Invoke) -> None:
    result = invoke("routes", "--json", "--explain", "logs.tial")
    explained = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (explained["route"], explained["file"], explained["near"][0]) == (None, None, "logs.tail")


def test_help_has_an_example(invoke: Invoke) -> None:
    result = invoke("routes", "--help")
    assert result.exit_code == 0
    assert "raffel routes --explain rooms.42.chat" in result.stdout


@pytest.mark.parametrize("arguments", [("--explian", "a"), ("--explain",), ("a", "b")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("routes", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
