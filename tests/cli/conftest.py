"""Commands under test: in this process where only their answer counts, as real processes where signals and ports do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raffel_cli.main import main

PATIENCE = 15.0
"""Seconds after which what has not happened will not happen."""


class Process:
    """A `raffel` command as a process of its own."""

    def __init__(self, arguments: tuple[str, ...], root: Path, said: Path, environ: dict[str, str]) -> None:
        self._out, self._err = said / "stdout", said / "stderr"
        self._connections: list[HTTPConnection] = []
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raffel_cli", *arguments], cwd=root, stdout=out, stderr=err, env=environ
            )

    @property
    def out(self) -> str:
        """Everything on standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def _everything(self) -> str:
        return f"status {self._process.poll()}, standard output:\n{self.out}\nstandard error:\n{self.err}"

    def says(self, pattern: str) -> re.Match[str]:
        """Waits until standard output has it."""
        return self._awaited(pattern, self._out)

    def logs(self, pattern: str) -> re.Match[str]:
        """Waits until standard error has it."""
        return self._awaited(pattern, self._err)

    def _awaited(self, pattern: str, file: Path) -> re.Match[str]:
        end = time.monotonic() + PATIENCE
        while self.running and time.monotonic() < end:
            if found := re.search(pattern, file.read_text()):
                return found
            time.sleep(0.005)
        if found := re.search(pattern, file.read_text()):
            return found
        raise AssertionError(f"no {pattern!r}; {self._everything()}")

    @property
    def port(self) -> int:
        """The port of the ready line."""
        return int(self.says(r"http://[^\s/]+:(\d+)")[1])

    def request(self, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
        """Begins a request on a connection of its own; its body may go on for ever. A POST sends `{}`."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self._connections.append(connection)
        body = b"{}" if method == "POST" else None
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        return connection.getresponse()

    def send(self, path: str) -> HTTPConnection:
        """Posts `{}` and does not wait for an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self._connections.append(connection)
        connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
        return connection

    def answer(self, path: str) -> str:
        """The body of a call without input."""
        return self.request(path, "POST").read().decode()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ended(self, within: float = PATIENCE) -> int:
        """Waits for the end and returns the exit status."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {within} s; {self._everything()}") from None

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        if self.running:
            self._process.kill()
        self._process.wait()


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment without what configures Raffel or colours."""
    ours = ("RAFFEL_", "NO_COLOR", "FORCE_COLOR", "TTY_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def raffel(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]
) -> Iterator[Callable[..., Process]]:
    """Starts a command in the project's root: `raffel("serve", "--port", "0", RAFFEL_DRAIN_SECONDS="1")`."""
    processes: list[Process] = []

    def start(*arguments: str, **variables: str) -> Process:
        said = tmp_path_factory.mktemp("said")
        processes.append(Process(arguments, tmp_path, said, environ | variables))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.fixture
def invoke(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Runs a command in this process and in the project's root; what it imports is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "path_hooks", sys.path_hooks.copy())
    before = set(sys.modules)

    def run(*arguments: str, **variables: str) -> Result:
        cleared = dict.fromkeys(os.environ.keys() - environ.keys())
        return CliRunner().invoke(main, arguments, env={**cleared, **variables}, prog_name="raffel")

    yield run
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]
