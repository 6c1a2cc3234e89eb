"""What is compared: the product, the bare limit, and the peers in a virtual environment of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from benchmarks.servers import ROOT, CannotRun

HERE = Path(__file__).parent
PINS = HERE / "peers.txt"
PEERS = ROOT / ".venv-bench"
PEERS_PYTHON = PEERS / "bin" / "python"
INSTALLED = PEERS / "installed.txt"  # a copy of the pins, written last
PROTO = HERE / "peers" / "ticks.proto"
STUBS = HERE / ".build" / "stubs"
STUBBED = STUBS / "made-of.txt"  # a copy of the pins and the .proto, written last


Transport = Literal["http", "ws", "tcp", "grpc"]
ID = "00000000"
"""Of the stream that an opening opens; the load client numbers others in its place."""


class Opening(NamedTuple):
    """How a stream is asked for."""

    transport: Transport
    path: str  # of the request over HTTP, be it an upgrade; unused over TCP
    message: str = ""  # that opens the stream on a WebSocket or over TCP; empty where the path does


class Side(NamedTuple):
    """A server, and the transport over which it is asked for its streams."""

    name: str
    what: str  # for the reader of the table
    command: tuple[str, ...]
    streams: tuple[str, ...]  # what it can be asked for
    transport: Transport = "http"
    prefix: str = ""  # of a stream's path
    envelopes: bool = False  # open streams, as docs/envelopes.md has it; else a path does

    def opening(self, stream: str, **input: float) -> Opening:
        if self.envelopes:
            start = {"type": "stream:start", "id": ID, "procedure": stream, "payload": input}
            return Opening(self.transport, "/ws", _json(start))
        return Opening(self.transport, f"{self.prefix}/{stream}" + (f"?{urlencode(input)}" if input else ""))

    def item(self, payload: dict[str, Any]) -> str:
        """The message that takes an item up a client stream."""
        return _json({"type": "stream:data", "id": ID, "payload": payload} if self.envelopes else payload)

    @property
    def end(self) -> str:
        """The message that ends a client stream."""
        return _json({"type": "stream:end", "id": ID} if self.envelopes else None)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _on_uvicorn(app: str) -> tuple[str, ...]:
    options = ("--host", "127.0.0.1", "--port", "0", "--no-access-log", "--app-dir", str(HERE / "peers"))
    return (str(PEERS_PYTHON), "-m", "uvicorn", *options, f"{app}:app")


def _by_python(program: str) -> tuple[str, ...]:
    return (str(PEERS_PYTHON), str(HERE / "peers" / program))


def _with_stubs(command: tuple[str, ...]) -> tuple[str, ...]:
    return ("env", f"PYTHONPATH={STUBS}", *command)


HTTP = ("hot", "turn", "short", "slow", "idle")
ENVELOPES = ("hot", "nested", "turn", "short", "idle", "up")
GRPC = ("unary", "server", "client", "bidi")

RAFFEL = Side(
    "raffel",
    "raffel serve benchmarks/routes, as it comes",
    (sys.executable, "-m", "raffel_cli", "serve", str(HERE / "routes"), "--host", "127.0.0.1", "--port", "0"),
    (*HTTP, "nested", "unchecked"),
    prefix="/streams",
)
LIMIT = Side(
    "limit",
    "a bare uvloop transport and msgspec, no server at all",
    (sys.executable, "-m", "benchmarks.limit"),
    (*HTTP, "nested"),
)
FASTAPI = Side(
    "fastapi", "FastAPI's own SSE: yields pydantic models; uvicorn[standard]", _on_uvicorn("fastapi_sse"), HTTP
)
STARLETTE = Side("starlette", "StreamingResponse, msgspec; uvicorn[standard]", _on_uvicorn("starlette_stream"), HTTP)
LITESTAR = Side(
    "litestar", "ServerSentEvent, its own encode_json; uvicorn[standard]", _on_uvicorn("litestar_sse"), HTTP
)
AIOHTTP = Side("aiohttp", "StreamResponse.write an item, msgspec; uvloop", _by_python("aiohttp_write.py"), HTTP)
NODE = Side("node", "Node's http, write an item, JSON.stringify", ("node", str(HERE / "peers" / "node_http.mjs")), HTTP)

RAFFEL_WS, RAFFEL_TCP, LIMIT_WS, LIMIT_TCP = (
    side._replace(transport=transport, streams=ENVELOPES, envelopes=True)
    for side in (RAFFEL, LIMIT)
    for transport in ("ws", "tcp")
)
FASTAPI_WS = Side(
    "fastapi-ws",
    "FastAPI's WebSocket: bare pydantic models, a path for each stream; uvicorn[standard]",
    _on_uvicorn("fastapi_websocket"),
    ("hot", "turn", "idle", "up"),
    transport="ws",
)
AIOHTTP_WS = Side(
    "aiohttp-ws",
    "WebSocketResponse: a loop over envelopes, one after another, msgspec; uvloop",
    _by_python("aiohttp_websocket.py"),
    ("hot", "turn", "short", "idle"),
    transport="ws",
    envelopes=True,
)
ASYNCIO = Side(
    "asyncio",
    "start_server: a loop over envelopes, one after another, write and drain an item, msgspec; uvloop",
    _by_python("asyncio_streams.py"),
    ("hot", "turn", "short", "idle", "up"),
    transport="tcp",
    envelopes=True,
)
RAFFEL_GRPC = RAFFEL._replace(transport="grpc", streams=GRPC)
LIMIT_GRPC = LIMIT._replace(transport="grpc", streams=GRPC, command=_with_stubs(LIMIT.command))
GRPC_AIO = Side(
    "grpc.aio",
    "grpc.aio: the generated servicer, yields messages; uvloop",
    _with_stubs(_by_python("grpc_aio.py")),
    GRPC,
    transport="grpc",
)
GRPCLIB = Side(
    "grpclib",
    "grpclib: the generated base class, send_message an item; uvloop",
    _with_stubs(_by_python("grpclib_uvloop.py")),
    GRPC,
    transport="grpc",
)

SIDES = (LIMIT, RAFFEL, FASTAPI, STARLETTE, LITESTAR, AIOHTTP, NODE)
WS_SIDES = (LIMIT_WS, RAFFEL_WS, FASTAPI_WS, AIOHTTP_WS)
TCP_SIDES = (LIMIT_TCP, RAFFEL_TCP, ASYNCIO)
GRPC_SIDES = (LIMIT_GRPC, RAFFEL_GRPC, GRPC_AIO, GRPCLIB)
NAMED = {side.name: side for side in (*SIDES, *WS_SIDES, *TCP_SIDES, *GRPC_SIDES)}
"""One side for each name, for those who read the table."""


def install_peers() -> None:
    """Makes the peers' environment and what is generated by it, where missing or made of something else."""
    _install(PINS.read_text())
    _generate_stubs(PINS.read_text() + PROTO.read_text())


def _install(pins: str) -> None:
    if INSTALLED.exists() and INSTALLED.read_text() == pins:
        return
    print(f"installing the peers of {PINS.name} into {PEERS.name} ...", flush=True)
    venv.create(PEERS, with_pip=True, clear=True)
    pip = (str(PEERS_PYTHON), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", str(PINS))
    if subprocess.run(pip).returncode:
        raise CannotRun(f"the pins of {PINS.name} could not be installed")
    INSTALLED.write_text(pins)


def _generate_stubs(source: str) -> None:
    if STUBBED.exists() and STUBBED.read_text() == source:
        return
    STUBS.mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={STUBS}" for kind in ("python", "grpc_python", "grpclib_python")]
    plugin = f"--plugin={PEERS / 'bin' / 'protoc-gen-grpclib_python'}"
    protoc = (str(PEERS_PYTHON), "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", plugin, *outputs, PROTO.name)
    if subprocess.run(protoc).returncode:
        raise CannotRun(f"{PROTO.name} does not compile")
    STUBBED.write_text(source)


def versions() -> dict[str, str]:
    """What runs on each side, for the head of the report."""
    pinned = dict(line.split("==") for line in PINS.read_text().splitlines() if "==" in line)
    uvicorn = f"uvicorn {pinned['uvicorn[standard]']}"
    node = shutil.which("node")
    return {
        "limit": f"uvloop {pinned['uvloop']}, msgspec {pinned['msgspec']}, protobuf {pinned['protobuf']}",
        "fastapi": f"{pinned['fastapi']}, {uvicorn}",
        "starlette": f"{pinned['starlette']}, {uvicorn}",
        "litestar": f"{pinned['litestar']}, {uvicorn}",
        "aiohttp": pinned["aiohttp"],
        "fastapi-ws": f"{pinned['fastapi']}, {uvicorn}, websockets {pinned['websockets']}",
        "aiohttp-ws": pinned["aiohttp"],
        "asyncio": f"uvloop {pinned['uvloop']}",
        "grpc.aio": f"{pinned['grpcio']}, uvloop {pinned['uvloop']}",
        "grpclib": f"{pinned['grpclib']}, uvloop {pinned['uvloop']}",
        "node": subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip() if node else "",
    }
