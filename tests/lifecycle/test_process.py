"""`raffel dev` and `raffel serve` as processes: they end in time whatever is connected, and at once when told twice."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

PATIENCE = 20.0
SLACK = 0.5
"""Seconds that a busy machine may take on top of what is promised."""
STREAMS = 1000


class Process:
    """A command in a project's root; what it says goes to a file."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self._said = root / "said"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAFFEL_")}
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raffel_cli", *arguments], cwd=root, stdout=said, stderr=said, env=environ
            )
        self.port = int(self.says(r"http://[^\s/]+:(\d+)")[1])

    def says(self, pattern: str) -> re.Match[str]:
        """Waits until the output has it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := re.search(pattern, self._said.read_text()):
                return found
            time.sleep(0.005)
        raise AssertionError(f"no {pattern!r} in: {self._said.read_text()}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> tuple[int, float]:
        """Waits for the end: the exit status, and how long that took."""
        began = time.monotonic()
        try:
            return self._process.wait(PATIENCE), time.monotonic() - began
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs; it said: {self._said.read_text()}") from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def command(project):
    """Starts a command with routes: `command("dev", {"a.stream.py": source}, "drain_seconds: 1")`."""
    processes = []

    def start(name, routes, config=""):
        root = project({f"routes/{file}": text for file, text in routes.items()})
        project({"raffel.yaml": f"host: 127.0.0.1\n{config}\n"})
        processes.append(Process(root, name, "--port", "0"))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def open_stream():
    """Opens a stream and reads its first event."""
    opened = []

    def open(process, path):
        sock = socket.create_connection(("127.0.0.1", process.port), PATIENCE)
        opened.append(sock)
        sock.sendall(f"GET /streams/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        file = sock.makefile("rb")
        opened.append(file)
        while not file.readline().startswith(b"data: "):
            pass
        return file

    yield open
    for one in opened:
        one.close()


@pytest.fixture
def thousand() -> Iterator[list[socket.socket]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_all(process, sockets):
    """Opens a thousand streams and waits until each has sent an item."""
    for _ in range(STREAMS):
        sock = socket.create_connection(("127.0.0.1", process.port), PATIENCE)
        sock.sendall(b"GET /streams/ticks HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sockets.append(sock)
    for sock in sockets:
        data = b""
        while b"data: " not in data:
            data += sock.recv(4096)


def rest_of(sock):
    data = b""
    with suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


TICKS = """
    import asyncio

    async def handler(input):
        while True:
            yield 1
            await asyncio.sleep(1)
    """
STUBBORN = {
    "a finally that never ends": """
        import asyncio

        async def handler(input):
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                while True:
                    try:
                        await asyncio.sleep(3600)
                    except asyncio.CancelledError:
                        pass
        """,
    "a plain handler that sleeps": """
        import time

        def handler(input):
            yield 1
            time.sleep(3600)
        """,
    "a handler that keeps the loop to itself": """
        import time

        async def handler(input):
            yield 1
            await __import__("asyncio").sleep(0.05)
            print("blocked", flush=True)
            time.sleep(3600)
        """,
    "a thread of the handler's own": """
        import asyncio
        import time

        async def handler(input):
            yield 1
            await asyncio.to_thread(time.sleep, 3600)
        """,
}


def test_ctrl_c_ends_dev_in_two_seconds_with_a_thousand_streams(command, thousand):
    process = command("dev", {"ticks.stream.py": TICKS})
    open_all(process, thousand)
    process.signal(signal.SIGINT)
    status, seconds = process.ended()
    assert status == 0
    assert seconds < 2 + SLACK
    assert all(b"retry: " in rest_of(sock) for sock in thousand)


def test_sigterm_ends_serve_in_time_with_a_thousand_streams(command, thousand):
    process = command("serve", {"ticks.stream.py": TICKS}, "drain_seconds: 1")
    open_all(process, thousand)
    process.signal(signal.SIGTERM)
    status, seconds = process.ended()
    assert status == 0
    assert seconds < 1 + 1 + SLACK
    ends = [rest_of(sock) for sock in thousand]
    assert all(re.search(rb"retry: \d+\n\n\r\n0\r\n\r\n$", end) for end in ends)


@pytest.mark.parametrize("kind", STUBBORN)
def test_ctrl_c_ends_dev_in_two_seconds_whatever_is_connected(command, open_stream, kind):
    process = command("dev", {"a.stream.py": STUBBORN[kind]})
    open_stream(process, "a")
    if "loop" in kind:
        process.says("blocked")
    process.signal(signal.SIGINT)
    assert process.ended()[1] < 2 + SLACK
    if "loop" in kind:
        process.says(r'File ".*routes/a\.stream\.py", line 8 in handler')  # what held it up


@pytest.mark.parametrize("kind", STUBBORN)
def test_sigterm_ends_serve_in_time_whatever_is_connected(command, open_stream, kind):
    process = command("serve", {"a.stream.py": STUBBORN[kind]}, "drain_seconds: 0.1\ndrain_delay_seconds: 0.1")
    open_stream(process, "a")
    if "loop" in kind:
        process.says("blocked")
    process.signal(signal.SIGTERM)
    assert process.ended()[1] < 0.1 + 0.1 + 1 + SLACK


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", STUBBORN)
def test_a_second_signal_ends_it_at_once(command, open_stream, kind, number):
    process = command("serve", {"a.stream.py": STUBBORN[kind]}, "drain_seconds: 60")
    open_stream(process, "a")
    if "loop" in kind:
        process.says("blocked")
        process.signal(number)
        time.sleep(0.1)  # nothing shows that it has been heard, and two signals at once would be one
    else:
        process.signal(number)
        process.says("draining: 1 streams")
    process.signal(number)
    status, seconds = process.ended()
    assert status == 1
    assert seconds < SLACK


def test_a_module_that_hangs_while_it_is_loaded_does_not_hold_the_end_up(command, project):
    process = command("dev", {"a.stream.py": TICKS})
    project({"routes/a.stream.py": "import time\nprint('loading', flush=True)\ntime.sleep(3600)\n"})
    process.says("loading")
    process.signal(signal.SIGINT)
    status, seconds = process.ended()
    assert status == 0
    assert seconds < 2 + SLACK


def test_a_lifespan_that_never_ends_does_not_hold_the_end_up(command):
    stubborn = """
        import asyncio

        async def lifespan(app):
            yield
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        """
    process = command("dev", {"_app.py": stubborn})
    process.signal(signal.SIGINT)
    assert process.ended()[1] < 2 + SLACK


def test_the_signals_are_a_programs_own_again_after_run(tmp_path):
    program = """
        import os, signal, threading, time
        from raffel_core import Config, create_server

        before = signal.signal(signal.SIGTERM, lambda number, frame: print("mine", flush=True))
        mine = signal.getsignal(signal.SIGTERM)
        server = create_server(Config(host="127.0.0.1", port=0, drain_seconds=0))
        server.run(lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.2)  # what would end a process that does not end by itself has been called off
        print("still here")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == ("mine\nstill here\n", "")


def test_saves_do_not_disturb_an_unchanged_stream(command, project, open_stream):
    count = """
        import asyncio

        async def handler(input):
            number = 0
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.001)
        """
    process = command("dev", {"count.stream.py": count, "other.rpc.py": "def handler(input):\n    return 0\n"})
    stream = open_stream(process, "count")
    for number in range(1, 11):
        project({"routes/other.rpc.py": f"def handler(input):\n    return {number}\n"})
        process.says(rf"(?s)(?:~ other\n.*){{{number}}}")
        project({"routes/other.rpc.py": f"({number}\n"})
        process.says(rf"(?s)(?:not reloaded.*){{{number}}}")
    seen = [int(line[6:]) for line in (stream.readline() for _ in range(600)) if line.startswith(b"data: ")]
    assert seen == list(range(1, len(seen) + 1))
