"""`raffel serve` as a real process: the ready line, the logs, the signals and the exit status."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
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
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.01)
    """
WAIT = """
    import asyncio

    async def handler(input):
        print("called", flush=True)
        await asyncio.sleep(3600)
    """
SLACK = 0.5
"""Seconds that a busy machine may take on top."""
SERVE = ("serve", "--host", "127.0.0.1", "--port", "0")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def records(process: Any) -> list[dict[str, str]]:
    return [json.loads(line) for line in process.err.splitlines()]


# Ready


def test_the_ready_line_has_the_address_that_answers(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*SERVE)
    assert process.answer("/one") == "1"
    assert process.out == f"serving 1 routes at http://127.0.0.1:{process.port}\n"


def test_every_address_is_listened_on_unless_told_otherwise(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel("serve", "--port", "0")
    process.says(r"http://0\.0\.0\.0:\d+")
    assert process.answer("/one") == "1"


def test_a_server_built_in_code_is_served(raffel: Raffel, project: Project) -> None:
    project(
        {
            "app.py": """
                from raffel_core import Config, create_server

                server = create_server(Config(base_path="/api", port=1))

                @server.procedure("one")
                async def one(input):
                    return 1
                """
        }
    )
    assert raffel("serve", "app:server", "--port", "0").answer("/api/one") == "1"


def test_the_configuration_file_counts_unless_a_flag_says_otherwise(raffel: Raffel, project: Project) -> None:
    project({"api/one.rpc.py": ONE, "deploy.yaml": "routes: api\nhost: 127.0.0.1\nport: 1\n"})
    process = raffel("serve", "--config", "deploy.yaml", "--port", "0")
    assert process.says(r"http://127\.0\.0\.1:")
    assert process.answer("/one") == "1"


# Logs


def test_logs_are_json_lines_on_standard_error(raffel: Raffel, project: Project) -> None:
    project(
        {
            "routes/noisy.rpc.py": """
                import logging
                import warnings

                async def handler(input):
                    logging.getLogger("mine").info("two\\nlines \\udcff")
                    warnings.warn("old")
                    raise ValueError("broken")
                """
        }
    )
    process = raffel(*SERVE)
    assert process.request("/noisy", "POST").status == 500
    process.logs("broken")
    mine, warning, failed = records(process)
    assert (mine["level"], mine["logger"], mine["message"]) == ("info", "mine", "two\nlines \udcff")
    assert warning["level"] == "warning" and "UserWarning: old" in warning["message"]
    assert failed["level"] == "error" and failed["request"] and "noisy" in failed["message"]
    assert failed["exception"].endswith("ValueError: broken")


def test_logs_are_text_where_it_is_configured(raffel: Raffel, project: Project) -> None:
    project({"routes/a.rpc.py": "import logging\n\nasync def handler(input):\n    logging.warning('hm')\n"})
    process = raffel(*SERVE, RAFFEL_LOG__FORMAT="text")
    process.answer("/a")
    assert process.logs(r"\d\d:\d\d:\d\d warning hm\n")


def test_the_log_options_of_a_server_built_in_code_count(raffel: Raffel, project: Project) -> None:
    project(
        {
            "app.py": """
                import logging

                import msgspec

                from raffel_core import Config, create_server

                server = create_server(msgspec.convert({"log": {"level": "debug", "format": "text"}}, Config))

                @server.procedure("a")
                async def a(input):
                    logging.debug("hm")
                """
        }
    )
    process = raffel("serve", "app:server", "--port", "0")
    process.answer("/a")
    process.logs("debug   hm")


# What is wrong


def test_problems_end_it_with_status_1(raffel: Raffel, project: Project) -> None:
    project({"routes/a.stream.py": "meta = {'tag': []}\n\n\ndef handle():\n    pass\n", "routes/b.rpc.py": "(\n"})
    process = raffel(*SERVE)
    assert process.ended() == 1
    assert process.out == ""
    lines = process.err.splitlines()
    assert "routes/a.stream.py:1: unknown key 'tag' in `meta`; expected 'tags'" in lines
    assert [line.partition(": ")[0] for line in lines] == [
        "routes/a.stream.py:1",
        "routes/a.stream.py:4",
        "routes/b.rpc.py:1",
    ]


def test_a_wrong_configuration_ends_it_with_status_1(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE, "raffel.yaml": "prot: 3000\n"})
    process = raffel(*SERVE)
    assert process.ended() == 1
    assert (process.out, process.err) == ("", "raffel.yaml:1: unknown option prot; expected port\n")


def test_a_port_in_use_ends_it_with_status_1(raffel: Raffel, project: Project, taken: int) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel("serve", "--host", "127.0.0.1", "--port", str(taken))
    assert process.ended() == 1
    assert process.out == ""
    assert process.err == f"error: cannot listen on 127.0.0.1:{taken}: Address already in use\n"


def test_a_host_that_does_not_exist_ends_it_with_status_1(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel("serve", "--host", "absent.invalid", "--port", "0")
    assert process.ended() == 1
    assert process.err.startswith("error: cannot listen on absent.invalid:0: ")
    assert process.err.count("\n") == 1


@pytest.mark.parametrize("error", ["ConnectionRefusedError('no database')", "ZeroDivisionError('no database')"])
def test_a_lifespan_that_fails_ends_it_with_status_1(raffel: Raffel, project: Project, error: str) -> None:
    project({"routes/_app.py": f"async def lifespan(app):\n    raise {error}\n    yield\n"})
    process = raffel(*SERVE)
    assert process.ended() == 1
    assert process.out == ""
    assert re.search(r'_app\.py(:|", line )2', process.err)
    assert "no database" in process.err
    assert "cannot listen" not in process.err


@pytest.mark.parametrize("arguments", [("--prot", "1"), ("--port", "x"), ("--port", "65536"), ("a", "b")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("serve", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_help_has_an_example(invoke: Invoke) -> None:
    assert "raffel serve routes --port 8080" in invoke("serve", "--help").stdout


# Signals


def test_sigterm_lets_a_call_finish(raffel: Raffel, project: Project) -> None:
    project(
        {
            "routes/slow.rpc.py": """
                import asyncio

                async def handler(input):
                    print("called", flush=True)
                    await asyncio.sleep(0.3)
                    return "done"
                """
        }
    )
    process = raffel(*SERVE)
    connection = process.send("/slow")
    process.says("called")
    process.signal(signal.SIGTERM)
    assert connection.getresponse().read() == b'"done"'
    assert process.ended() == 0


def test_sigterm_ends_streams_so_that_browsers_come_back(raffel: Raffel, project: Project) -> None:
    project({"routes/ticks.stream.py": TICKS})
    process = raffel(*SERVE, RAFFEL_DRAIN_SECONDS="5")
    stream = process.request("/streams/ticks")
    stream.readline()
    process.signal(signal.SIGTERM)
    last = stream.read().decode().splitlines()[-2]
    assert last.startswith("retry: ")
    assert process.ended() == 0


def test_sigterm_closes_the_port(raffel: Raffel, project: Project) -> None:
    project({"routes/wait.rpc.py": WAIT})
    process = raffel(*SERVE, RAFFEL_DRAIN_SECONDS="2")
    process.send("/wait")
    process.says("called")
    process.signal(signal.SIGTERM)
    port, refused = process.port, False
    while process.running and not refused:
        with socket.socket() as sock:
            refused = sock.connect_ex(("127.0.0.1", port)) != 0
    assert refused and process.running


CONNECTED = {
    "nothing": "",
    "a stream": TICKS,
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
    "a stream whose end takes long": """
        import asyncio

        async def handler(input):
            try:
                yield 1
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(3600)
        """,
    "a plain function": """
        import time

        def handler(input):
            yield 1
            time.sleep(3600)
        """,
}


@pytest.mark.parametrize("connected", CONNECTED)
def test_sigterm_ends_it_whatever_is_connected(raffel: Raffel, project: Project, connected: str) -> None:
    project({"routes/a.stream.py": CONNECTED[connected] or TICKS})
    process = raffel(*SERVE, RAFFEL_DRAIN_SECONDS="0.5")
    if CONNECTED[connected]:
        process.request("/streams/a").readline()
    else:
        socket.create_connection(("127.0.0.1", process.port)).close()
    process.signal(signal.SIGTERM)
    began = time.monotonic()
    process.ended()
    assert time.monotonic() - began < 0.5 + 1 + SLACK


def test_sigterm_ends_it_with_status_0(raffel: Raffel, project: Project) -> None:
    project({"routes/ticks.stream.py": TICKS})
    process = raffel(*SERVE, RAFFEL_DRAIN_SECONDS="0.5")
    process.request("/streams/ticks").readline()
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_a_second_signal_ends_it_at_once(raffel: Raffel, project: Project) -> None:
    project({"routes/wait.rpc.py": WAIT, "routes/ticks.stream.py": TICKS})
    process = raffel(*SERVE)
    process.send("/wait")
    process.says("called")
    stream = process.request("/streams/ticks")
    process.signal(signal.SIGTERM)
    stream.read()  # its end shows that the first signal has been taken
    process.signal(signal.SIGTERM)
    assert process.ended(within=1) == 1


def test_sighup_reloads(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE, "routes/old.rpc.py": ONE})
    process = raffel(*SERVE)
    assert process.answer("/one") == "1"
    project({"routes/one.rpc.py": TWO, "routes/old.rpc.py": None, "routes/new.rpc.py": ONE})
    process.signal(signal.SIGHUP)
    process.logs('"message": "reloaded: 1 added, 1 changed, 1 removed"')
    assert process.answer("/one") == "2"


def test_sighup_with_a_problem_keeps_the_old_routes(raffel: Raffel, project: Project) -> None:
    project({"routes/one.rpc.py": ONE})
    process = raffel(*SERVE)
    assert process.answer("/one") == "1"
    project({"routes/one.rpc.py": "meta = {'tag': []}\n" + TWO})
    process.signal(signal.SIGHUP)
    process.logs("not reloaded")
    (record,) = records(process)
    assert record["level"] == "error"
    assert record["message"] == "not reloaded: routes/one.rpc.py:1: unknown key 'tag' in `meta`; expected 'tags'"
    assert process.answer("/one") == "1"
