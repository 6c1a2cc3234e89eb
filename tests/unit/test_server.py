"""The server itself, apart from what is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from raffel_core import Config, create_server
from raffel_core.config import Metrics


async def test_an_option_that_nothing_reads_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_server = create_server(Config(host="127.0.0.1", port=0, metrics=Metrics(token="secret")), root=tmp_path)
    await a_server.start()
    await a_server.stop()
    assert [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()] == [
        "the option metrics.token is set and has no effect: it belongs to what is not served yet"
    ]
