"""The server itself, apart from what is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from raffel_core import Config, create_server
from raffel_core.config import Tcp


async def test_an_option_that_nothing_reads_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_server = create_server(Config(host="127.0.0.1", port=0, tcp=Tcp(port=4000)), root=tmp_path)
    await a_server.start()
    await a_server.stop()
    assert [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()] == [
        "the option tcp.port is set and has no effect: only HTTP/1.1 is served"
    ]
