"""A file's lines as it grows, over truncation and rotation."""

import os
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from routes_example._files import inside

READ_BYTES = 64 * 1024
"""What one read takes at most. A line that is longer comes in pieces."""


class Tail:
    """Reads the last lines of a file below a folder, then those that are added.

    A file that became shorter, or made way for another of its name, is read from its start. `read` may be called in a
    thread: `close` waits for it.
    """

    def __init__(self, folder: Path, name: str, lines: int) -> None:
        self._folder = folder
        self._name = name
        self._lines = lines
        self._lock = Lock()
        self._file: BinaryIO | None = None
        self._closed = False
        self._rest = b""
        """The beginning of a line whose end has not been written yet."""

    def read(self) -> list[str]:
        """The last lines, the first time; then those that were added since. NOT_FOUND where there is no such file."""
        with self._lock:
            if self._closed:
                return []
            if self._file is None:
                return self._begin()
            data = self._file.read(READ_BYTES)
            return self._split(data) if data else self._at_end(self._file)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _begin(self) -> list[str]:
        file = self._file = self._open()
        start = max(0, os.fstat(file.fileno()).st_size - READ_BYTES)
        file.seek(start)
        lines = self._split(file.read(READ_BYTES))
        if start:
            lines = lines[1:]  # the reading began in the middle of it
        return lines[-self._lines :] if self._lines else []

    def _at_end(self, file: BinaryIO) -> list[str]:
        """Looks whether the writer has begun anew, in this file or in another one."""
        opened = os.fstat(file.fileno())
        if opened.st_size < file.tell():
            file.seek(0)
            return self._end_of_line()
        try:
            replaced = not os.path.samestat(opened, (self._folder / self._name).stat())
        except FileNotFoundError:
            return []  # moved aside, and the next one has not been made yet
        if not replaced:
            return []
        if data := file.read(READ_BYTES):  # written between the last reading and the move
            return self._split(data)
        successor = self._open()
        file.close()
        self._file = successor
        return self._end_of_line()

    def _open(self) -> BinaryIO:
        # Unbuffered: a buffer would still hold what was truncated.
        return inside(self._folder, self._name).open("rb", buffering=0)

    def _split(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= READ_BYTES:
            lines += [self._rest]
            self._rest = b""
        return [line.decode(errors="replace") for line in lines]

    def _end_of_line(self) -> list[str]:
        return self._split(b"\n") if self._rest else []
