"""What all routes share: a folder for the request log and uploads, open calls, a journal of the load, and rooms."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from routes_example._journal import Journal, sample
from routes_example._uploads import Uploads

FOLDER = "EXAMPLE_FOLDER"
"""The variable that names the folder: `requests.log` and `uploads` are made there, nothing from elsewhere is served."""

JOURNAL_ENTRIES = 600
SAMPLE_SECONDS = 0.5
LOG_BYTES = 1_000_000


async def lifespan(app: Any) -> AsyncIterator[None]:
    with shared_folder() as folder, request_log(folder / "requests.log") as requests:
        app.state.folder = folder
        app.state.requests = requests
        app.state.uploads = Uploads(folder / "uploads")
        app.state.open_calls = {}
        app.state.rooms = {}
        app.state.journal = Journal(JOURNAL_ENTRIES)
        sampling = asyncio.create_task(fill(app.state.journal))
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.wait([sampling])


async def fill(journal: Journal) -> None:
    while True:
        journal.append(sample())
        await asyncio.sleep(SAMPLE_SECONDS)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """The folder that is configured; else a new one, for this user's eyes only, that goes away at the end."""
    if named := os.environ.get(FOLDER):
        folder = Path(named).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with TemporaryDirectory(prefix="raffel-example-") as temporary:
            yield Path(temporary).resolve()


@contextmanager
def request_log(path: Path) -> Iterator[logging.Logger]:
    """A logger that writes to this file alone and moves it aside (`requests.log.1`) when it is full."""
    file = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("requests")
    log.addHandler(file)
    try:
        yield log
    finally:
        file.close()
