"""A server under test: started on its own core, ended by its process group whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import cores

ROOT = Path(__file__).parent.parent
READY = re.compile(rb"http://(?:localhost|([\d.]+)):(\d+)")
START_SECONDS = 20


class CannotRun(Exception):
    """Something needed is missing, or answered other than it should; the message is for the person at the terminal."""


class Times(NamedTuple):
    cpu: float  # seconds that the processes computed
    wait: float  # seconds that their threads were ready to, and another had the core


class Server(NamedTuple):
    host: str
    port: int
    session: int  # of the server and all its children

    def resident_bytes(self) -> int:
        return sum(_resident_bytes(process) for process in _processes_of(self.session))

    def times(self) -> Times:
        """What load.c reads as well, for other load clients."""
        processes = _processes_of(self.session)
        return Times(sum(map(_cpu_of, processes)), sum(map(_wait_of, processes)))


@contextmanager
def serve(command: Sequence[str]) -> Iterator[Server]:
    """The server of `command`, once it accepts connections. Its group is killed on the way out.

    SIGKILL at once: several peers cannot hear SIGTERM while a generator that never waits has their loop.
    """
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads would stop a server that logs
        process = _start(command, log.fileno())
        try:
            yield _await_ready(process, log.fileno())
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(command: Sequence[str], log: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=cores.pin(cores.SERVER),
        )
    except OSError as error:
        raise CannotRun(f"{command[0]}: {error.strerror}") from error


def _await_ready(process: subprocess.Popen[bytes], log: int) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        # The child writes through the same file description: a seek of ours would move its end.
        output = os.pread(log, 1 << 16, 0)
        if ready := READY.search(output):
            return Server((ready[1] or b"127.0.0.1").decode(), int(ready[2]), process.pid)
        if process.poll() is not None:
            raise CannotRun(f"ended with status {process.returncode} before it was ready: {_last_line(output)}")
        time.sleep(0.01)
    raise CannotRun(f"no line with http://HOST:PORT within {START_SECONDS} s: {_last_line(output)}")


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def _processes_of(session: int) -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit() and _session_of(path) == session]


def _session_of(process: Path) -> int | None:
    try:
        # After the name, which may hold anything: state, parent, group, session.
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None  # it ended meanwhile


def _resident_bytes(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_of(process: Path) -> float:
    """By the process clock and not schedstat's own figure, which lags for a thread that is running."""
    clock = ~int(process.name) << 3 | 2  # as clock_getcpuclockid(3) makes it
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0  # it ended meanwhile


def _wait_of(process: Path) -> float:
    try:
        return sum(int((task / "schedstat").read_text().split()[1]) for task in (process / "task").iterdir()) * 1e-9
    except OSError:
        return 0.0
