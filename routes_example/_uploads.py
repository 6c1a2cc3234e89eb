"""Uploaded files: within bounds, and either whole or not there at all."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from raffel_core import RaffelError

FILES = 500
"""How many there may be, those that are still arriving among them."""

FILE_BYTES = 8 * 1024**2
TOTAL_BYTES = 64 * 1024**2


class Upload:
    """A file that is arriving."""

    __slots__ = ("_file", "_hash", "_uploads", "size")

    def __init__(self, uploads: "Uploads", file: BinaryIO) -> None:
        self.size = 0
        self._uploads = uploads
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    async def write(self, part: bytes) -> None:
        """Adds a part, in a thread: a disk takes its time, and so does the hash of a megabyte."""
        if self.size + len(part) > FILE_BYTES:
            raise RaffelError("RESOURCE_EXHAUSTED", f"a file may have {FILE_BYTES} bytes")
        self._uploads.take(len(part))
        self.size += len(part)
        await asyncio.to_thread(self._add, part)

    def _add(self, part: bytes) -> None:
        self._file.write(part)
        self._hash.update(part)


class Uploads:
    """The files of one folder. Only parts are written in threads, so that what is counted needs no lock."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        self._arriving = 0
        self._bytes = sum(self._sizes.values())

    @contextmanager
    def receive(self, name: str) -> Iterator[Upload]:
        """A file that takes its name, and the place of an older one, when the block is done; if it fails, none is left.

        The name must be a plain one that does not begin with a dot: those are the names of what is still arriving.
        """
        if len(self._sizes) + self._arriving >= FILES:
            raise RaffelError("RESOURCE_EXHAUSTED", f"there may be {FILES} files")
        arriving = self._folder / f".{name}.{os.urandom(4).hex()}"
        upload = Upload(self, file := arriving.open("xb"))
        self._arriving += 1
        try:
            yield upload
            file.close()
            arriving.replace(self._folder / name)
        except BaseException:
            file.close()  # a thread that still writes to it is waited for
            arriving.unlink(missing_ok=True)
            self._bytes -= upload.size
            raise
        finally:
            self._arriving -= 1
        self._bytes -= self._sizes.get(name, 0)
        self._sizes[name] = upload.size

    def take(self, count: int) -> None:
        """Takes so many bytes of the total."""
        if self._bytes + count > TOTAL_BYTES:
            raise RaffelError("RESOURCE_EXHAUSTED", f"all files together may have {TOTAL_BYTES} bytes")
        self._bytes += count
