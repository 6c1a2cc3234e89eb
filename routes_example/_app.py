"""What all routes share: a folder with the request log in it, the calls that are open, and a journal of the load."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from routes_example._journal import Journal
from routes_example._load import Load, load_now

FOLDER = "EXAMPLE_FOLDER"
"""The variable that names the folder: `requests.log` is written there, and files there are tailed and downloaded."""

JOURNAL_ENTRIES = 600
SAMPLE_SECONDS = 0.5
LOG_BYTES = 1_000_000


async def lifespan(app: Any) -> AsyncIterator[None]:
    with _folder() as folder, _request_log(folder / "requests.log") as requests:
        app.state.folder = folder
        app.state.requests = requests
        app.state.open_calls = {}
        app.state.journal = Journal[Load](JOURNAL_ENTRIES)
        sampling = asyncio.create_task(_sample(app.state.journal))
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.wait([sampling])


async def _sample(journal: Journal[Load]) -> None:
    while True:
        journal.append(load_now())
        await asyncio.sleep(SAMPLE_SECONDS)


@contextmanager
def _folder():
    """The configured folder, or a new one of this user's own that goes away at the end."""
    named = os.environ.get(FOLDER)
    if named:
        yield Path(named).resolve(strict=True)
    else:
        with TemporaryDirectory(prefix="raffel-example-") as folder:
            yield Path(folder).resolve()


@contextmanager
def _request_log(path: Path):
    """A logger of its own that writes to one file and moves it aside when it is full."""
    file = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.Logger("requests")
    log.addHandler(file)
    try:
        yield log
    finally:
        file.close()
