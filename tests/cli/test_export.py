"""`raffel export`: the sources that clients are built from, and the lock that keeps their numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import Result
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

Invoke = Callable[..., Result]
Project = Callable[[Mapping[str, str | None]], Path]

ECHO = "async def handler(input: int) -> str:\n    return ''\n"
WATCH = '''
    """Watch the prices.

    */ All of them.
    """

    import enum
    from collections.abc import AsyncIterator

    from msgspec import Struct


    class Side(enum.Enum):
        BUY = "buy"
        SELL = "sell"


    class Query(Struct):
        symbol: str
        limit: int = 10


    class Tick(Struct):
        price: float
        side: Side


    meta = {"summary": "Prices"}


    async def handler(query: Query) -> AsyncIterator[Tick]:
        yield Tick(1.0, Side.BUY)
'''
SOURCE = """\
syntax = "proto3";

service Market {
  // Prices
  //
  // Watch the prices.
  //
  // */ All of them.
  rpc Watch(MarketWatchQuery) returns (stream MarketWatchTick);
}

message MarketWatchQuery {
  string symbol = 1;
  optional int64 limit = 2;
}

message MarketWatchTick {
  double price = 1;
  MarketWatchSide side = 2;
}

enum MarketWatchSide {
  MARKET_WATCH_SIDE_UNSPECIFIED = 0;
  MARKET_WATCH_SIDE_BUY = 1;
  MARKET_WATCH_SIDE_SELL = 2;
}
"""
FILE = "routes/market/watch.stream.py"


@pytest.fixture
def market(project: Project) -> None:
    project({FILE: WATCH})


@pytest.fixture
def two(project: Project) -> None:
    """Two packages: `a.b` with the service C, and none with the service Root."""
    project({"routes/a/b/c/call.rpc.py": ECHO, "routes/echo.rpc.py": ECHO})


def compiles(folder: Path) -> list[str]:
    """The names of the files of a folder, by their paths below it, which protoc compiles together."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    out = folder / "out"
    google = files("grpc_tools") / "_proto"
    assert protoc.main(["protoc", f"-I{folder}", f"-I{google}", f"--descriptor_set_out={out}", *names]) == 0
    assert sorted(file.name for file in FileDescriptorSet.FromString(out.read_bytes()).file) == names
    out.unlink()
    return names


# The sources


@pytest.mark.usefixtures("market")
def test_one_package_is_printed_as_it_is(invoke: Invoke) -> None:
    result = invoke("export", "proto")
    assert (result.exit_code, result.stdout, result.stderr) == (0, SOURCE, "")


@pytest.mark.usefixtures("two")
def test_several_packages_are_printed_under_their_files_names(invoke: Invoke) -> None:
    result = invoke("export", "proto")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = result.stdout.split("// a/b/routes.proto\n\n")
    assert first.startswith('// routes.proto\n\nsyntax = "proto3";\n\nservice Root {\n')
    assert second.startswith('syntax = "proto3";\n\npackage a.b;\n\nservice C {\n')
    assert second.endswith("}\n") and not second.endswith("\n\n")


@pytest.mark.usefixtures("market")
def test_the_package_of_the_configuration_is_that_of_the_file(invoke: Invoke, project: Project) -> None:
    project({"deploy.yaml": "grpc: {package: acme.v1}\n"})
    result = invoke("export", "proto", "--config", "deploy.yaml", "--output", "out")
    assert result.exit_code == 0
    assert compiles(Path("out")) == ["acme/v1/routes.proto"]
    assert "\npackage acme.v1;\n" in Path("out/acme/v1/routes.proto").read_text()


def test_a_route_that_is_no_method_is_left_out(invoke: Invoke, project: Project) -> None:
    project({"routes/a.rpc.py": ECHO, "routes/b.rpc.py": "meta = {'grpc': False}\n\n\n" + ECHO})
    source = invoke("export", "proto").stdout
    assert "rpc A(" in source
    assert "rpc B(" not in source


def test_another_folder_may_be_named(invoke: Invoke, project: Project) -> None:
    project({"elsewhere/a.rpc.py": ECHO})
    assert "rpc A(" in invoke("export", "proto", "elsewhere").stdout


def test_a_server_built_in_code_is_exported(invoke: Invoke, project: Project) -> None:
    project(
        {
            "app.py": """
                from raffel_core import create_server

                server = create_server()

                @server.procedure("math.add", description="Adds")
                async def add(numbers: list[int]) -> int:
                    return sum(numbers)
                """
        }
    )
    result = invoke("export", "proto", "app:server", "--lock")
    assert "  // Adds\n  rpc Add(MathAddRequest) returns (MathAddResponse);\n" in result.stdout
    assert Path("proto.lock").exists()


def test_what_modules_print_is_no_part_of_the_source(invoke: Invoke, project: Project) -> None:
    project({"routes/a.rpc.py": f"print('loading')\n{ECHO}"})
    result = invoke("export", "proto")
    assert result.stdout.startswith("syntax")
    assert result.stderr == "loading\n"


# Where they are written


@pytest.mark.usefixtures("market")
def test_one_package_is_written_to_a_file(invoke: Invoke) -> None:
    result = invoke("export", "proto", "--output", "clients/market.proto")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert Path("clients/market.proto").read_text() == SOURCE
    assert os.listdir("clients") == ["market.proto"]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("folder", ["out", "out/", "an/out", "existing", "existing.proto", "new.proto/"])
def test_several_packages_are_files_below_a_folder(invoke: Invoke, folder: str) -> None:
    Path("existing").mkdir()
    Path("existing.proto").mkdir()
    result = invoke("export", "proto", "--output", folder)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert compiles(Path(folder)) == ["a/b/routes.proto", "routes.proto"]


@pytest.mark.usefixtures("two")
def test_several_packages_for_one_file_are_an_error_that_says_what_to_do(invoke: Invoke) -> None:
    result = invoke("export", "proto", "--output", "x.proto", "--lock")
    assert (result.exit_code, result.stdout) == (1, "")
    found = "found 2 packages for the one file x.proto"
    assert result.stderr == f"error: {found}, expected a folder, which gets routes.proto, a/b/routes.proto\n"
    assert os.listdir() == ["routes"]


@pytest.mark.usefixtures("market")
def test_a_file_is_written_anew_as_a_whole(invoke: Invoke) -> None:
    Path("x.proto").write_text("x" * 100_000)
    assert invoke("export", "proto", "--output", "x.proto").exit_code == 0
    assert Path("x.proto").read_text() == SOURCE


@pytest.mark.usefixtures("two")
def test_where_one_file_cannot_be_written_none_is(invoke: Invoke) -> None:
    Path("out/a").mkdir(parents=True)
    Path("out/a/b").write_text("a file")
    Path("out/routes.proto").write_text("old")
    result = invoke("export", "proto", "--output", "out", "--lock")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: cannot write out/a/b/routes.proto: File exists\n"
    assert Path("out/routes.proto").read_text() == "old"
    assert sorted(path.name for path in Path().rglob("*") if path.is_file() and path.suffix != ".py") == [
        *("b", "routes.proto")
    ]


# What there is nothing to export of


@pytest.mark.usefixtures("market")
def test_grpc_that_is_off_is_an_error_that_says_so(invoke: Invoke, project: Project) -> None:
    project({"raffel.yaml": "grpc: false\n"})
    result = invoke("export", "proto", "--lock")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: found that gRPC is off, expected `grpc` in raffel.yaml not to be false\n"
    assert not Path("proto.lock").exists()


def test_no_method_at_all_is_an_error(invoke: Invoke, project: Project) -> None:
    project({"routes/b.rpc.py": "meta = {'grpc': False}\n\n\n" + ECHO})
    result = invoke("export", "proto")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: found no route that is a method of gRPC, expected at least one\n"


@pytest.mark.usefixtures("market")
def test_problems_of_the_project_are_the_commands_own_trouble(invoke: Invoke, project: Project) -> None:
    project({"routes/b.stream.py": "handle = 1\n", "proto.lock": "version: 7\n"})
    result = invoke("export", "proto", "--output", "x.proto")
    assert (result.exit_code, result.stdout) == (1, "")
    assert {line.partition(": ")[0] for line in result.stderr.splitlines()} == {"proto.lock:1", "routes/b.stream.py:1"}
    assert not Path("x.proto").exists()


@pytest.mark.usefixtures("market")
@pytest.mark.parametrize("kind", ["openapi", "asyncapi", "usd", "typescript", "python", "Proto"])
def test_another_kind_is_wrong_usage_that_names_what_there_is(invoke: Invoke, kind: str) -> None:
    result = invoke("export", kind)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{kind!r} is not 'proto'" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("proto", "a", "b"), ("proto", "--locked"), ("proto", "--output")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("export", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_help_has_an_example(invoke: Invoke) -> None:
    result = invoke("export", "--help")
    assert result.exit_code == 0
    assert "raffel export proto routes --output proto/ --lock" in result.stdout


# The lock


@pytest.mark.usefixtures("market")
def test_the_lock_is_written_and_what_it_has_is_told(invoke: Invoke) -> None:
    result = invoke("export", "proto", "--lock")
    assert (result.exit_code, result.stdout) == (0, SOURCE)
    assert result.stderr.splitlines() == [
        "proto.lock: added MarketWatchQuery",
        "proto.lock: added MarketWatchTick",
        "proto.lock: added MarketWatchSide",
        "proto.lock: added Market.Watch",
    ]
    assert "  MarketWatchQuery:\n    1: string symbol\n    2: optional int64 limit\n" in Path("proto.lock").read_text()


@pytest.mark.usefixtures("market")
def test_without_the_flag_no_lock_is_written(invoke: Invoke) -> None:
    assert invoke("export", "proto").exit_code == 0
    assert os.listdir() == ["routes"]


@pytest.mark.usefixtures("market")
def test_a_lock_that_has_everything_is_written_as_it_was(invoke: Invoke) -> None:
    invoke("export", "proto", "--lock")
    before = Path("proto.lock").read_bytes()
    result = invoke("export", "proto", "--lock")
    assert (result.exit_code, result.stderr) == (0, "proto.lock: nothing new\n")
    assert Path("proto.lock").read_bytes() == before


@pytest.mark.usefixtures("market")
def test_the_lock_lies_in_the_projects_root(invoke: Invoke, project: Project) -> None:
    project({"deploy/raffel.yaml": "routes: ../routes\n"})
    assert invoke("export", "proto", "--config", "deploy/raffel.yaml", "--lock").exit_code == 0
    assert sorted(os.listdir("deploy")) == ["proto.lock", "raffel.yaml"]


@pytest.mark.usefixtures("market")
def test_locked_numbers_stay_and_gone_ones_are_reserved(invoke: Invoke, project: Project) -> None:
    invoke("export", "proto", "--lock")
    changed = WATCH.replace("symbol: str", "note: bytes\n        symbol: list[str]").replace(
        "price: float\n", "at: int\n"
    )
    project({FILE: changed.replace('BUY = "buy"\n', 'HOLD = "hold"\n').replace("Side.BUY", "Side.HOLD")})
    source = """\
message MarketWatchQuery {
  reserved 1;

  bytes note = 3;
  repeated string symbol = 4;
  optional int64 limit = 2;
}

message MarketWatchTick {
  reserved 1;
  reserved "price";

  int64 at = 3;
  MarketWatchSide side = 2;
}

enum MarketWatchSide {
  reserved 1;
  reserved "MARKET_WATCH_SIDE_BUY";

  MARKET_WATCH_SIDE_UNSPECIFIED = 0;
  MARKET_WATCH_SIDE_SELL = 2;
  MARKET_WATCH_SIDE_HOLD = 3;
}
"""
    assert invoke("export", "proto").stdout.endswith(source)
    result = invoke("export", "proto", "--lock")
    assert result.stdout.endswith(source)
    assert result.stderr.splitlines() == [
        "proto.lock: reserved MarketWatchQuery.symbol = 1",
        "proto.lock: added MarketWatchQuery.note = 3",
        "proto.lock: added MarketWatchQuery.symbol = 4",
        "proto.lock: reserved MarketWatchTick.price = 1",
        "proto.lock: added MarketWatchTick.at = 3",
        "proto.lock: reserved MarketWatchSide.MARKET_WATCH_SIDE_BUY = 1",
        "proto.lock: added MarketWatchSide.MARKET_WATCH_SIDE_HOLD = 3",
    ]
    assert invoke("export", "proto").stdout.endswith(source)


@pytest.mark.usefixtures("market")
def test_methods_that_come_go_and_change_are_told(invoke: Invoke, project: Project) -> None:
    project({"routes/echo.rpc.py": ECHO})
    invoke("export", "proto", "--lock")
    project({"routes/echo.rpc.py": None, "routes/other.rpc.py": ECHO})
    project(
        {
            FILE: WATCH.replace(
                "async def handler(query: Query) -> AsyncIterator[Tick]:",
                "async def handler(query: Query) -> AsyncIterator[Query]:",
            )
        }
    )
    told = invoke("export", "proto", "--lock").stderr.splitlines()
    assert "proto.lock: removed Root.Echo" in told
    assert "proto.lock: added Root.Other" in told
    assert "proto.lock: reserved RootEchoRequest.value = 1" in told
    was, now = "stream MarketWatchTick", "stream MarketWatchQuery"
    signatures = [f"(MarketWatchQuery) returns ({item})" for item in (was, now)]
    assert f"proto.lock: changed Market.Watch from {signatures[0]} to {signatures[1]}" in told


@pytest.mark.usefixtures("market")
def test_a_field_that_becomes_optional_is_told_as_changed(invoke: Invoke, project: Project) -> None:
    invoke("export", "proto", "--lock")
    project({FILE: WATCH.replace("symbol: str\n", "symbol: str = ''\n")})
    told = invoke("export", "proto", "--lock").stderr
    assert told == "proto.lock: changed MarketWatchQuery.symbol = 1 from string to optional string\n"


@pytest.mark.usefixtures("market")
def test_the_event_id_of_a_resumable_stream_does_not_raise_the_numbers_of_others(
    invoke: Invoke, project: Project
) -> None:
    resumable = WATCH.replace('"Prices"', '"Prices", "resumable": True')
    project({FILE: resumable})
    assert "  optional string raffel_event_id = 18999;\n" in invoke("export", "proto", "--lock").stdout
    project({FILE: resumable.replace("price: float\n", "price: float\n        size: int\n")})
    result = invoke("export", "proto", "--lock")
    assert "  double price = 1;\n  int64 size = 3;\n  MarketWatchSide side = 2;\n" in result.stdout
    assert "  optional string raffel_event_id = 18999;\n" in result.stdout


@pytest.mark.usefixtures("market")
def test_a_lock_that_cannot_be_written_is_an_error(invoke: Invoke) -> None:
    Path(f".proto.lock.{os.getpid()}").mkdir()
    result = invoke("export", "proto", "--lock")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: cannot write {Path.cwd()}/proto.lock: Is a directory\n"
