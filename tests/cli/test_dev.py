"""`raffel dev` as a real process: the URLs, the reloads it prints, and how it ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Raffel = Callable[..., Any]
Invoke = Callable[..., Result]
Project = Callable[[Mapping[str, str | None]], Path]

ONE = "async def handler(input):\n    return 1\n"
TWO = "async def handler(input):\n    return 2\n"
TICKS = """
    import asyncio

    async def handler(input):
        while True:
            yield {word!r}
            await asyncio.sleep(0.01)
    """
SLACK = 0.5
"""Seconds that a busy machine may take on top."""
DEV = ("dev", "--port", "0")


# The start


def test_it_listens_on_this_machine_alone(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV)
    assert process.answer("/one") == "1"
    assert process.out.startswith(f"raffel dev at http://127.0.0.1:{process.port} ")


def test_the_urls_are_printed(raffel: Raffel, project: Project) -> None:
    stream = "async def handler(input):\n    yield 1\n"
    project(
        {
            "routes/users/create.rpc.py": ONE,
            "routes/rooms/[room]/chat.stream.py": stream,
            "routes/files/[...path].stream.py": stream,
            "routes/sum.stream.py": "meta = {'direction': 'client'}\nasync def handler(items):\n    return 1\n",
        }
    )
    process = raffel(*DEV, RAFFEL_BASE_PATH="/api")
    process.says("over gRPC")
    base = f"http://127.0.0.1:{process.port}/api"
    assert process.out.splitlines()[1:] == [
        f"  GET  {base}/streams/files/[...path]",
        f"  GET  {base}/streams/rooms/[room]/chat",
        "  CLIENT sum",
        f"  POST {base}/users/create",
        f"  all of them at ws://127.0.0.1:{process.port}/api/ws",
        f"  and over TCP at 127.0.0.1:{process.port}",
        f"  and over gRPC at 127.0.0.1:{process.port}",
    ]


def test_grpc_with_a_port_of_its_own_is_printed_with_it(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV, RAFFEL_GRPC__PORT="0")
    port = int(process.says(r"  and over gRPC at 127\.0\.0\.1:(\d+)\n")[1])
    assert port != process.port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        settings = connection.recv(9)
    assert settings[3:] == b"\4\0\0\0\0\0"


def test_grpc_that_is_off_is_not_printed(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV, RAFFEL_GRPC="false")
    assert process.answer("/one") == "1"
    process.says("over TCP at .*\n")
    project({"routes/one.rpc.py": TWO})
    process.says("~ one\n")
    assert "gRPC" not in process.out


def test_problems_end_it_with_status_1(raffel: Raffel, project: Project) -> None:
    project({"routes/a.stream.py": "meta = {'tag': []}\n\n\nasync def handler(input):\n    yield 1\n"})
    process = raffel(*DEV)
    assert process.ended() == 1
    assert process.out == ""
    assert process.err == "routes/a.stream.py:1: unknown key 'tag' in `meta`; expected 'tags'\n"


def test_a_port_in_use_ends_it_with_status_1(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        process = raffel("dev", "--port", str(port))
        assert process.ended() == 1
    assert process.err == f"error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("arguments", [("--prot", "1"), ("--port", "x"), ("a", "b")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("dev", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_help_has_an_example(invoke: Invoke) -> None:
    assert "raffel dev routes --port 4000" in invoke("dev", "--help").stdout


def test_logs_are_text_unless_configured(raffel: Raffel, project: Project) -> None:
    project({"routes/a.rpc.py": "import logging\n\nasync def handler(input):\n    logging.warning('hm')\n"})
    text, json = raffel(*DEV), raffel(*DEV, RAFFEL_LOG__FORMAT="json")
    text.answer("/a")
    json.answer("/a")
    text.logs(r"\d\d:\d\d:\d\d warning hm\n")
    json.logs('"message": "hm"}\n')


# Reloads


def test_a_reload_is_printed_as_what_was_added_changed_and_removed(raffel: Raffel, project: Project) -> None:
    project({"routes/a/one.rpc.py": ONE})
    process = raffel(*DEV)
    process.says("a/one\n")
    project({"routes/a/one.rpc.py": TWO})
    process.says(r"reloaded in \d+ ms: ~ a\.one\n")
    project({"routes/a/two.rpc.py": TWO})
    process.says(r"reloaded in \d+ ms: \+ a\.two\n")
    project({"routes/a/one.rpc.py": None})
    process.says(r"reloaded in \d+ ms: - a\.one\n")
    assert process.answer("/a/two") == "2"
    assert process.err == ""


def test_a_save_by_whoever_has_read_the_ready_line_is_not_missed(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV)
    process.says("http://")
    project({"routes/one.rpc.py": TWO})
    process.says("~ one\n")


def test_a_save_of_an_imported_module_changes_its_routes(raffel: Raffel, project: Project) -> None:
    one = "import shared\n\nasync def handler(input):\n    return shared.x\n"
    project({"routes/one.rpc.py": one, "shared.py": "x = 1\n"})
    process = raffel(*DEV)
    assert process.answer("/one") == "1"
    project({"shared.py": "x = 2\n"})
    process.says("~ one\n")
    assert process.answer("/one") == "2"


def test_a_save_that_changes_no_route_prints_nothing(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV)
    process.says("/one\n")
    project({"unrelated.py": "x = 1\n"})
    project({"routes/one.rpc.py": TWO})
    process.says("~ one\n")
    assert process.out.count("\n") == 6


def test_errors_are_printed_and_the_old_routes_go_on(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV)
    process.says("/one\n")
    project({"routes/one.rpc.py": "meta = {'tag': []}\n\n\nasync def handler(input):\n    yield 1\n"})
    process.says("not reloaded, the old routes go on:\n")
    process.says("routes/one.rpc.py:1: unknown key 'tag' in `meta`; expected 'tags'\n")
    process.says(r"routes/one\.rpc\.py:4: .*; expected .*\n")
    assert process.answer("/one") == "1"
    project({"routes/one.rpc.py": TWO})
    process.says("~ one\n")
    assert process.answer("/one") == "2"


def test_a_lifespan_that_fails_is_printed_and_the_old_one_goes_on(raffel: Raffel, project: Project) -> None:
    app = "async def lifespan(app):\n    app.state.x = {}\n    yield\n"
    project(
        {
            "routes/_app.py": app.format(1),
            "routes/one.rpc.py": "async def handler(i, ctx):\n    return ctx.app.state.x\n",
        }
    )
    process = raffel(*DEV)
    assert process.answer("/one") == "1"
    project({"routes/_app.py": app.format("1 / 0")})
    process.says("not reloaded, the old routes go on")
    process.says("_app.py:.*ZeroDivisionError")
    assert process.answer("/one") == "1"


def test_an_open_stream_goes_on_with_the_new_code(raffel: Raffel, project: Project) -> None:
    project({"routes/ticks.stream.py": TICKS.format(word="old")})
    process = raffel(*DEV)
    stream = process.request("/streams/ticks")
    assert stream.readline() == b'data: "old"\n'
    project({"routes/ticks.stream.py": TICKS.format(word="new")})
    process.says("~ ticks\n")
    while (line := stream.readline()) in (b'data: "old"\n', b"\n"):
        pass
    assert line == b'data: "new"\n'


def test_a_server_built_in_code_is_reloaded(raffel: Raffel, project: Project) -> None:
    app = """
        from raffel_core import create_server

        server = create_server()

        @server.procedure("one")
        async def one(input):
            return {}
        """
    project({"app.py": app.format(1)})
    process = raffel("dev", "app:server", "--port", "0")
    assert process.answer("/one") == "1"
    project({"app.py": app.format(2)})
    process.says("~ one\n")
    assert process.answer("/one") == "2"


def test_a_folder_that_is_renamed_is_noticed(raffel: Raffel, project: Project) -> None:
    root = project({"routes/old/one.rpc.py": ONE})
    process = raffel(*DEV)
    process.says("old/one\n")
    project({"routes/old/one.rpc.py": TWO})
    process.says("~ old.one\n")
    (root / "routes" / "old").rename(root / "routes" / "new")
    process.says(r"\+ new\.one, - old\.one\n")


# The end

CONNECTED = {
    "nothing": "",
    "a stream": TICKS.format(word="tick"),
    "a stream that waits": """
        import asyncio

        async def handler(input):
            yield 1
            await asyncio.sleep(3600)
        """,
    "a stream that catches its cancellation": """
        import asyncio

        async def handler(input):
            yield 1
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    print("caught", flush=True)
        """,
    "a plain function": """
        import time

        def handler(input):
            yield 1
            time.sleep(3600)
        """,
}


@pytest.mark.parametrize("connected", CONNECTED)
def test_ctrl_c_ends_it_within_two_seconds(raffel: Raffel, project: Project, connected: str) -> None:
    project({"routes/a.stream.py": CONNECTED[connected] or CONNECTED["a stream"]})
    process = raffel(*DEV)
    process.says("streams/a\n")
    if CONNECTED[connected]:
        for _ in range(3):
            process.request("/streams/a").readline()
    process.signal(signal.SIGINT)
    began = time.monotonic()
    process.ended()
    assert time.monotonic() - began < 2 + SLACK


def test_ctrl_c_ends_it_with_status_0(raffel: Raffel, project: Project) -> None:
    project({"routes/a.stream.py": CONNECTED["a stream"]})
    process = raffel(*DEV)
    process.request("/streams/a").readline()
    process.signal(signal.SIGINT)
    assert process.ended() == 0


def test_a_second_ctrl_c_ends_it_at_once(raffel: Raffel, project: Project) -> None:
    wait = (
        "import asyncio\n\nasync def handler(input):\n    print('called', flush=True)\n    await asyncio.sleep(3600)\n"
    )
    project({"routes/wait.rpc.py": wait, "routes/ticks.stream.py": TICKS.format(word="tick")})
    process = raffel(*DEV)
    process.send("/wait")
    process.says("called")
    stream = process.request("/streams/ticks")
    process.signal(signal.SIGINT)
    stream.read()  # its end shows that the first one has been taken
    process.signal(signal.SIGINT)
    assert process.ended(within=0.5) == 1


def test_nothing_is_said_on_standard_error_when_it_ends(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV)
    assert process.answer("/one") == "1"
    process.signal(signal.SIGINT)
    assert process.ended() == 0
    assert process.err == ""


# A terminal


@pytest.fixture
def on_terminal(tmp_path: Path, environ: dict[str, str]) -> Callable[..., str]:
    """What a command prints on a terminal, up to the ready line."""

    def run(*arguments: str, **variables: str) -> str:
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "raffel_cli", *arguments],
                cwd=tmp_path,
                stdout=theirs,
                stderr=theirs,
                env={**environ, "TERM": "xterm-256color", **variables},
            )
            os.close(theirs)
            with process:
                said = "".join(_lines_until_ready(ours))
                process.terminate()
        finally:
            os.close(ours)
        return said

    return run


def _lines_until_ready(terminal: int) -> Iterator[str]:
    with suppress(OSError):  # EIO: nobody writes to it any more
        while data := os.read(terminal, 4096):
            yield data.decode()
            if b"http://" in data:
                return


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_no_color_is_honoured_on_a_terminal(on_terminal: Callable[..., str], project: Project, command: str) -> None:
    project({"routes/one.rpc.py": ONE})
    assert "\x1b[" not in on_terminal(command, "--port", "0", NO_COLOR="1").replace("\x1b[1m", "").replace(
        "\x1b[0m", ""
    )


def test_a_terminal_has_colours(on_terminal: Callable[..., str], project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    assert "\x1b[" in on_terminal(*DEV)


def test_without_a_terminal_all_is_plain(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*DEV, TERM="xterm-256color")
    process.says("/one\n")
    project({"routes/one.rpc.py": "1 / 0\n"})
    process.says("ZeroDivisionError")
    assert not re.search("\x1b", process.out + process.err)
