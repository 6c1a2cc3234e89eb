"""A neighbour: an honest client in a process of its own, on a connection of its own, that says what it has noticed.

Each port that it is told, a line each, is that of a server: it calls it and reads a stream of it until it is told
anything more, and then writes as JSON what it went through.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import grpc

CALL, TICKS = "/Root/Echo", "/Root/Ticks"
PAUSE = 0.002
"""Seconds between two calls."""
PATIENCE = 30.0


class Neighbour:
    """The longest that a call took, the longest silence of the stream, in seconds, and every error."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._over = threading.Event()
        self.calls = self.items = 0
        self.slowest = self.gap = 0.0
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._guarded, args=(run,)) for run in (self._call, self._read)]

    def start(self) -> None:
        """Returns once both have begun."""
        for thread in self._threads:
            thread.start()
        end = time.monotonic() + PATIENCE
        while (self.calls < 20 or self.items < 5) and not self.errors and time.monotonic() < end:
            time.sleep(0.001)
        self.slowest = self.gap = 0.0  # what it took to connect is nobody's fault

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    def _guarded(self, run: object) -> None:
        try:
            run()  # type: ignore[operator]  # one of the two below
        except grpc.RpcError as error:
            self.errors.append(f"{error.code()}: {error.details()}")

    def _call(self) -> None:
        echo = self._channel.unary_unary(CALL)
        while not self._over.is_set():
            began = time.perf_counter()
            answer = echo(b"\x0a\x02hi", timeout=PATIENCE)
            self.slowest = max(self.slowest, time.perf_counter() - began)
            if answer != b"\x0a\x02hi":
                self.errors.append(f"found {answer!r}")
            self.calls += 1
            time.sleep(PAUSE)

    def _read(self) -> None:
        ticks = self._channel.unary_stream(TICKS)(b"")
        last = time.perf_counter()
        for expected, item in enumerate(ticks, 1):
            now = time.perf_counter()
            self.gap, last = max(self.gap, now - last), now
            if len(item) < 2 or (expected < 128 and item[1] != expected):
                self.errors.append(f"found {item!r} as item {expected}")
            self.items += 1
            if self._over.is_set():
                ticks.cancel()
                return
        self.errors.append("the stream has ended")

    def report(self) -> str:
        names = ("calls", "items", "slowest", "gap", "errors")
        return json.dumps({name: getattr(self, name) for name in names})


def main() -> None:
    for line in sys.stdin:
        neighbour = Neighbour(int(line))
        neighbour.start()
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        sys.stdin.readline()
        neighbour.stop()
        sys.stdout.write(neighbour.report() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
