"""What is compared: the product, the bare limit, and the peers in a virtual environment of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from benchmarks.servers import ROOT, CannotRun

HERE = Path(__file__).parent
PINS = HERE / "peers.txt"
PEERS = ROOT / ".venv-bench"
PEERS_PYTHON = PEERS / "bin" / "python"
INSTALLED = PEERS / "installed.txt"  # a copy of the pins, written last


class Side(NamedTuple):
    name: str
    what: str  # for the reader of the table
    command: tuple[str, ...]
    prefix: str = ""

    def path(self, stream: str, **query: float) -> str:
        return f"{self.prefix}/{stream}" + (f"?{urlencode(query)}" if query else "")


def _on_uvicorn(name: str, what: str, app: str) -> Side:
    options = ("--host", "127.0.0.1", "--port", "0", "--no-access-log", "--app-dir", str(HERE / "peers"))
    return Side(name, what, (str(PEERS_PYTHON), "-m", "uvicorn", *options, f"{app}:app"))


RAFFEL = Side(
    "raffel",
    "raffel serve benchmarks/routes, as it comes",
    (sys.executable, "-m", "raffel_cli", "serve", str(HERE / "routes"), "--host", "127.0.0.1", "--port", "0"),
    prefix="/streams",
)
LIMIT = Side("limit", "a bare uvloop transport and msgspec, no server at all", (sys.executable, str(HERE / "limit.py")))
FASTAPI = _on_uvicorn("fastapi", "FastAPI's own SSE: yields pydantic models; uvicorn[standard]", "fastapi_sse")
STARLETTE = _on_uvicorn("starlette", "StreamingResponse, msgspec; uvicorn[standard]", "starlette_stream")
LITESTAR = _on_uvicorn("litestar", "ServerSentEvent, its own encode_json; uvicorn[standard]", "litestar_sse")
AIOHTTP = Side(
    "aiohttp",
    "StreamResponse.write an item, msgspec; uvloop",
    (str(PEERS_PYTHON), str(HERE / "peers" / "aiohttp_write.py")),
)
NODE = Side("node", "Node's http, write an item, JSON.stringify", ("node", str(HERE / "peers" / "node_http.mjs")))

SIDES = (LIMIT, RAFFEL, FASTAPI, STARLETTE, LITESTAR, AIOHTTP, NODE)


def install_peers() -> None:
    """Makes the peers' environment where it is missing or its pins have changed."""
    pins = PINS.read_text()
    if INSTALLED.exists() and INSTALLED.read_text() == pins:
        return
    print(f"installing the peers of {PINS.name} into {PEERS.name} ...", flush=True)
    venv.create(PEERS, with_pip=True, clear=True)
    pip = (str(PEERS_PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", str(PINS))
    if subprocess.run(pip).returncode:
        raise CannotRun(f"the pins of {PINS.name} could not be installed")
    INSTALLED.write_text(pins)


def versions() -> dict[str, str]:
    """What runs on each side, for the head of the report."""
    pinned = dict(line.split("==") for line in PINS.read_text().splitlines() if "==" in line)
    uvicorn = f"uvicorn {pinned['uvicorn[standard]']}"
    node = shutil.which("node")
    return {
        "limit": f"uvloop {pinned['uvloop']}, msgspec {pinned['msgspec']}",
        "fastapi": f"{pinned['fastapi']}, {uvicorn}",
        "starlette": f"{pinned['starlette']}, {uvicorn}",
        "litestar": f"{pinned['litestar']}, {uvicorn}",
        "aiohttp": pinned["aiohttp"],
        "node": subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip() if node else "",
    }
