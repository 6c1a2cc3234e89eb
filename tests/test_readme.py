"""The README and the protocols' pages: commands are run as they stand, code runs, tables are compared with the code."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from grpc import StatusCode
from playwright.async_api import ConsoleMessage, Page, async_playwright
from websockets.asyncio.client import connect

from raffel_core import Config, Server
from raffel_core.config import OPTIONS
from raffel_core.context import MAX_ID
from raffel_core.errors import CODES
from raffel_core.protobuf.messages import EVENT_ID, EVENT_ID_NUMBER
from raffel_core.protobuf.standard import MAX_DETAILS
from raffel_core.protocols.grpc_call import HEAD_SECONDS
from raffel_core.session import REASONS
from raffel_core.wire.envelope import MAX_METADATA, MAX_METADATA_BYTES, TYPES
from raffel_core.wire.grpc import MAX_SENT, MAX_STATUS_MESSAGE
from raffel_core.wire.http2 import CONNECTION_WINDOW
from raffel_core.wire.http2_frames import MAX_FRAME
from raffel_core.wire.http2_heads import HEADER_BYTES
from raffel_core.wire.http2_streams import STREAM_WINDOW

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
ENVELOPES = (REPOSITORY / "docs" / "envelopes.md").read_text()
GRPC = (REPOSITORY / "docs" / "grpc.md").read_text()
BIN = Path(sys.executable).parent

LOCAL = "http://localhost:3000"
"""Where the README's requests go."""

SECONDS = 2
"""After how long the test leaves a stream that has no end."""

_spec = importlib.util.spec_from_file_location("chromium", REPOSITORY / "tests" / "browser" / "chromium.py")
assert _spec is not None and _spec.loader is not None
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)


class Block(NamedTuple):
    before: str
    """The paragraph before it."""
    language: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"([^\n]*(?:\n[^\n]+)*)\n+^```(\w+)\n(.*?)^```$", README, re.M | re.S)]
SHELL = [block for block in BLOCKS if block.language == "sh"]
OVER_GRPC = [block.text.strip() for block in SHELL if "grpc" in block.text]
REQUESTS = [block for block in SHELL if LOCAL in block.text and "grpc" not in block.text]
COMMANDS = [block.text.strip() for block in SHELL if LOCAL not in block.text and "grpc" not in block.text]


def only(language: str, part: str = "") -> str:
    """The one block of this language that has this in it."""
    (block,) = [block for block in BLOCKS if block.language == language and part in block.text]
    return block.text


def aimed(script: str, server: Server) -> str:
    """The script, with this server in the place of the one on port 3000."""
    url = httpx.URL(server.url)
    return script.replace("localhost:3000", f"{url.host}:{url.port}").replace(
        '("localhost", 3000)', f'("{url.host}", {url.port})'
    )


def command(start: str) -> str:
    """The one command that begins so."""
    (found,) = [command for command in COMMANDS if command.startswith(start)]
    return found


def environment(**variables: str) -> dict[str, str]:
    """A new shell's: nothing of the `make` that may have started this test, and the commands of this checkout first."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "RAFFEL_"))}
    return {**outer, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **variables}


class Ran(NamedTuple):
    status: int
    out: str
    err: str


async def run(script: str, cwd: Path, **variables: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script),
        cwd=cwd,
        env=environment(**variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def serving(script: str, cwd: Path, **variables: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Runs a command that serves and gives the URL that it prints; ends it as Ctrl-C does, if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script),
        cwd=cwd,
        env=environment(**variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # a signal reaches the shell and what it runs, as from a terminal
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(20):
            while not (url := re.search(r"http://[\w.]+:\d+", said)):
                line = await process.stdout.readline()
                assert line, f"it ended and said: {said}"
                said += line.decode()
        yield url[0], process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        await process.communicate()


@pytest.fixture
async def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("EXAMPLE_FOLDER", str(tmp_path / "served"))
    config = Config(host="127.0.0.1", port=0, drain_seconds=0.2)
    server = Server(config, root=REPOSITORY, development=True).routes("routes_example")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def curl(tmp_path: Path) -> Path:
    """A folder with a `curl` that leaves endless streams and tells the status of each answer on standard error."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "curl"
    file.write_text(
        f"#!/bin/sh\n{shutil.which('curl')} --max-time {SECONDS} -w '%{{stderr}}\\nanswered %{{http_code}}\\n' \"$@\"\n"
        # 28: the time is over, as after Ctrl-C; 23: `head` has read enough.
        'case $? in 0 | 23 | 28) ;; *) echo "failed: $*" >&2 ;; esac\n'
    )
    file.chmod(0o755)
    return folder


async def test_every_request_is_answered_as_it_says(example: Server, curl: Path, tmp_path: Path) -> None:
    async def answered(block: Block) -> None:
        script = block.text.replace(LOCAL, example.url)
        result = await run(script, tmp_path, PATH=f"{curl}{os.pathsep}{environment()['PATH']}")
        status = re.search(r"\b4\d\d\b", block.before)
        expected = [status[0] if status else "200"] * block.text.count("curl ")
        assert re.findall(r"^answered (\d+)$", result.err, re.MULTILINE) == expected
        assert "failed:" not in result.err
        assert result.out or "curl -o" in block.text

    assert len(REQUESTS) == 12
    async with asyncio.TaskGroup() as group:
        for block in REQUESTS:
            group.create_task(answered(block))
    assert (tmp_path / "requests.log").exists()


async def test_the_first_answer_looks_as_it_is_shown(example: Server, tmp_path: Path) -> None:
    shown = only("text")
    answer = await run(REQUESTS[0].text.replace(LOCAL, example.url), tmp_path)
    assert outline(answer.out) == outline(shown)


def outline(events: str) -> list[Any]:
    """The lines of a stream of events, of the items only their fields."""
    lines = [line for line in events.splitlines() if line]
    return [list(json.loads(line[6:])) if line.startswith("data: ") else line for line in lines]


class Console(NamedTuple):
    """The console of a browser's tab on /health, and what is logged in it."""

    page: Page
    logged: asyncio.Queue[str]

    async def lines(self, count: int) -> list[str]:
        async with asyncio.timeout(15):
            return [await self.logged.get() for _ in range(count)]


@pytest.fixture
async def console(example: Server) -> AsyncIterator[Console]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium.find(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = await browser.new_page()
        await page.goto(f"{example.url}/health")
        console = Console(page, asyncio.Queue(64))

        def heard(message: ConsoleMessage) -> None:
            if message.type != "error":  # the page has no icon
                console.logged.put_nowait(message.text)

        page.on("console", heard)
        yield console
        await browser.close()


async def test_the_browser_gets_items(example: Server, console: Console) -> None:
    await console.page.add_script_tag(content=aimed(only("js", "EventSource"), example))
    assert all("cores" in item for item in await console.lines(2))


async def test_the_browser_is_a_member_of_the_chat_until_it_cancels(example: Server, console: Console) -> None:
    async with connect(f"{example.url.replace('http', 'ws')}/ws", proxy=None) as other:
        start = {"type": "stream:start", "id": "1", "procedure": "rooms.lobby.chat", "payload": {"name": "Ada"}}
        await other.send(json.dumps(start))
        assert "Ada joined" in await other.recv()
        await console.page.add_script_tag(content=aimed(only("js", "WebSocket"), example))
        assert await console.lines(2) == ["*: Kai joined", "Kai: Hello!"]
        await other.send(json.dumps({"type": "stream:data", "id": "1", "payload": {"text": "Hello, Kai!"}}))
        assert await console.lines(1) == ["Ada: Hello, Kai!"]
        await console.page.evaluate('send("cancel")')
        (end,) = await console.lines(1)
        assert (json.loads(end)["type"], json.loads(end)["payload"]["code"]) == ("stream:error", "CANCELLED")
        heard = [json.loads(await other.recv())["payload"] for _ in range(4)]
    assert [(one["from"], one["text"]) for one in heard] == [
        (None, "Kai joined"),
        ("Kai", "Hello!"),
        ("Ada", "Hello, Kai!"),
        (None, "Kai left"),
    ]


async def test_the_upload_is_stored_whole(example: Server) -> None:
    ran = await python(only("python", "websockets"), example)
    content = (REPOSITORY / "README.md").read_bytes()
    assert ast.literal_eval(ran)["payload"] == {
        "name": "README.md",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (path,) = re.findall(r"`(/streams/files/download[^`]+)`", README)
    async with httpx.AsyncClient(base_url=example.url, verify=False) as client:
        assert (await client.get(path)).content == content


async def test_tcp_needs_no_library(example: Server) -> None:
    ran = await python(only("python", "socket.create_connection"), example)
    assert [ast.literal_eval(line)["type"] for line in ran.splitlines()] == ["stream:data", "stream:data", "stream:end"]


async def test_buf_lists_the_methods_of_all_routes(example: Server) -> None:
    ran = await buf("--list-methods", example)
    paths = {f"/{line}" for line in ran.splitlines() if not line.startswith("grpc.")}
    routes = json.loads((await run("raffel routes routes_example --json", REPOSITORY)).out)
    assert paths == {route["grpc"] for route in routes}


async def test_buf_calls_a_stream_and_a_procedure(example: Server) -> None:
    first, second, machine = documents(await buf("System/Info", example))
    assert "cores" in first and "cores" in second
    assert (machine["unit"], machine["cores"]) == ("MiB", str(os.cpu_count()))


async def test_buf_uploads_and_chats(example: Server) -> None:
    stored, joined, said = documents(await buf("Files/Upload", example))
    assert stored == {"name": "hello.txt", "bytes": "12", "sha256": hashlib.sha256(b"Hello, world").hexdigest()}
    assert (joined["text"], said["from"], said["text"]) == ("Kai joined", "Kai", "Hello!")


async def test_grpcurl_names_what_there_is(example: Server) -> None:
    """It need not be installed: buf takes the same words."""
    (line,) = [line for line in OVER_GRPC if line.startswith("grpcurl ")]
    name, plain, flag, data, server, method = shlex.split(line)
    assert (name, plain, flag, server) == ("grpcurl", "-plaintext", "-d", "localhost:3000")
    ran = await run(
        shlex.join(["buf", "curl", "--protocol", "grpc", "-d", data, f"{example.url}/{method}"]), REPOSITORY
    )
    assert (ran.status, len(documents(ran.out))) == (0, 2)


async def test_python_calls_grpc_by_reflection(example: Server) -> None:
    ran = await python(only("python", "grpc.insecure_channel"), example)
    assert len(ran.splitlines()) == 2
    assert all(line.startswith("20") and line.endswith("]") for line in ran.splitlines())


async def buf(part: str, server: Server) -> str:
    """What the one script of `buf` that has this in it prints."""
    (script,) = [script for script in OVER_GRPC if part in script and script.startswith("buf ")]
    ran = await run(f"set -e\n{script.replace(LOCAL, server.url)}", REPOSITORY)
    assert (ran.status, ran.err) == (0, "")
    return ran.out


def documents(text: str) -> list[Any]:
    """JSON documents one behind the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        one, at = decoder.raw_decode(text, at)
        found.append(one)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


async def test_a_call_of_json_rpc_has_its_result(example: Server, tmp_path: Path) -> None:
    (block,) = [block for block in REQUESTS if "/rpc" in block.text]
    answer = json.loads((await run(block.text.replace(LOCAL, example.url), tmp_path)).out)
    assert (answer["id"], answer["result"]["unit"]) == (1, "MiB")


async def python(script: str, server: Server) -> str:
    """What a script prints."""
    ran = await run(f"python -W error -c {shlex.quote(aimed(script, server))}", REPOSITORY, NO_PROXY="*")
    assert (ran.status, ran.err) == (0, "")
    return ran.out


async def test_the_route_is_served_under_the_name_it_is_said_to_have(serve: Any) -> None:
    source = only("python", "async def handler")
    path, name, url = re.findall(r"`routes/(disk[\w./]+)`.*?`([\w.]+)`, at\s+`(/[\w/]+)`", README, re.DOTALL)[0]
    server = await serve({path: source})
    assert list(server.router.routes) == [name]
    async with (
        httpx.AsyncClient(base_url=server.url, verify=False) as client,
        client.stream("GET", url, headers={"Accept": "application/x-ndjson"}) as response,
    ):
        async for line in response.aiter_lines():
            room = json.loads(line)
            break
    assert room["total_bytes"] == shutil.disk_usage("/").total
    assert 0 < room["free_bytes"] <= room["total_bytes"]


async def test_the_route_answers_what_it_cannot_find(serve: Any) -> None:
    source = only("python", "async def handler")
    server = await serve({"disk/free.stream.py": source})
    async with httpx.AsyncClient(base_url=server.url, verify=False) as client:
        missing = await client.get("/streams/disk/free", params={"path": "/no/such/place"})
        refused = await client.get("/streams/disk/free", params={"interval": 0})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert (refused.status_code, refused.json()["error"]["details"][0]["path"]) == (400, "interval")


async def test_make_dev_serves_the_example(tmp_path: Path) -> None:
    dry = await run(f"{command('make dev')} --dry-run", REPOSITORY)
    script = dry.out.splitlines()[-1].replace(".venv/bin/", f"exec {BIN}/")
    async with (
        serving(script, REPOSITORY, RAFFEL_PORT="0", EXAMPLE_FOLDER=str(tmp_path)) as (url, process),
        httpx.AsyncClient(verify=False) as client,
    ):
        answer = await client.post(f"{url}/system/info", json={})
        os.killpg(process.pid, signal.SIGINT)
        assert await process.wait() == 0
    assert answer.status_code == 200


async def test_make_test_runs_pytest() -> None:
    dry = await run(f"{command('make test')} --dry-run", REPOSITORY)
    assert dry.status == 0
    assert dry.out.splitlines()[-1].endswith("-m pytest")


async def test_the_commands_that_only_tell_are_fine() -> None:
    told = [await run(command(f"raffel {name}"), REPOSITORY) for name in ("routes", "check", "config", "export")]
    assert [(one.status, one.err) for one in told] == [(0, "")] * 4
    assert "processes.[pid]" in told[0].out
    assert "service System {" in told[3].out


async def test_a_new_project_is_served(tmp_path: Path) -> None:
    async with (
        serving(command("raffel new"), tmp_path, RAFFEL_PORT="0") as (url, _),
        httpx.AsyncClient(verify=False) as client,
    ):
        answer = await client.get(f"{url}/health")
    assert answer.status_code == 200
    assert (tmp_path / "hello" / "routes").is_dir()


async def test_production_is_ready_until_it_is_told_to_end(tmp_path: Path) -> None:
    script = f"exec {command('raffel serve')}".replace("8080", "0")
    async with serving(script, REPOSITORY, EXAMPLE_FOLDER=str(tmp_path)) as (url, process):
        health = command("curl http://localhost:8080").replace(
            "http://localhost:8080", url.replace("0.0.0.0", "127.0.0.1")
        )
        answer = await run(f"{health} -sf", REPOSITORY)
        os.killpg(process.pid, signal.SIGTERM)
        assert await process.wait() == 0
    assert json.loads(answer.out)["status"] == "ok"


def test_every_command_is_run_here() -> None:
    run_here = ["make dev", "make test", "raffel routes", "raffel check", "raffel config", "raffel new"]
    run_here += ["raffel export", "raffel serve", "curl http://localhost:8080"]
    assert [found for found in COMMANDS if not found.startswith(tuple(run_here))] == []


def test_options_have_the_defaults_that_the_tables_say() -> None:
    rows = re.findall(r"^\| (`[a-z_.]+`(?:, `[a-z_.]+`)*)[^|]*\| ([^|]+) \|", README, re.MULTILINE)
    said = {
        name.strip("`"): value.strip("`")
        for names, values in rows
        if names.split("`")[1] in OPTIONS
        for name, value in zip(names.split(", "), values.split(", "), strict=True)
    }
    assert len(said) == 29
    assert said == {name: in_words(OPTIONS[name].default) for name in said}


def in_words(value: Any) -> str:
    """A default as raffel.yaml would have it."""
    match value:
        case None:
            return "null"
        case "":
            return '""'
        case bool():
            return json.dumps(value)
        case tuple():
            return json.dumps(value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


# docs/envelopes.md

TRANSCRIPTS = re.findall(r"^```transcript\n(.*?)^```$", ENVELOPES, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=range(len(TRANSCRIPTS)))
async def test_the_server_answers_as_the_transcript_says(example: Server, transcript: str) -> None:
    url = httpx.URL(example.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for line in transcript.splitlines():
        who, message = line[0], line[2:]
        if who == ">":
            writer.write(struct.pack(">I", len(message.encode())) + message.encode())
        else:
            async with asyncio.timeout(5):
                (length,) = struct.unpack(">I", await reader.readexactly(4))
                answer = json.loads(await reader.readexactly(length))
            assert shape(answer) == shape(json.loads(message))
    writer.close()
    await writer.wait_closed()


VARYING = {
    "message",
    "at",
    "eventId",
    "resumed",
    "host",
    "system",
    "python",
    "cores",
    "load",
    "memory",
    "disk",
    "disk_free",
}
VARYING |= {"total_bytes", "available_bytes", "server_peak_bytes", "server_cpu_seconds"}
"""The fields whose values the machine, the time or the wording decides."""


def shape(value: Any) -> Any:
    """A message without what varies."""
    match value:
        case dict():
            return {key: ... if key in VARYING else shape(one) for key, one in value.items()}
        case list():
            return list(map(shape, value))
        case _:
            return value


def test_every_type_of_message_is_described() -> None:
    rows = set(re.findall(r"^\| `([\w:]+)` \|", section("Types"), re.MULTILINE))
    assert rows == {*TYPES, "response", "error", "stream:error"}


def test_every_code_is_listed_with_whether_to_try_again() -> None:
    cells = re.findall(r"\| ([A-Z_]+) \| (yes)? ?(?=\|)", section("Codes"))
    assert {code: retry == "yes" for code, retry in cells} == {code: row.retry for code, row in CODES.items()}


def test_every_reason_that_a_client_can_be_told_has_its_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section("Ended early"), re.MULTILINE))
    untold = {"client_disconnected", "slow_consumer"}
    assert rows == {reason: code for reason, (code, _) in REASONS.items() if reason not in untold}


def test_limits_have_the_defaults_that_the_page_says() -> None:
    for page in (ENVELOPES, GRPC):
        rows = re.findall(r"\| ([\d,]+)[^|]*\| `([\w.]+)` \|", section("Limits", page))
        assert len(rows) == 5
        assert {name: float(value.replace(",", "")) for value, name in rows} == {
            name: OPTIONS[name].default for _, name in rows
        }


def test_links_of_the_pages_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", ENVELOPES) + re.findall(r"\]\(([^)]+)\)", GRPC)
    places = {ENVELOPES: "envelopes.md", GRPC: "grpc.md", README: "../README.md"}
    known = {f"{name}#{anchor(heading)}" for page, name in places.items() for heading in headings(page)}
    found = {
        f"{name}{link}" if link[0] == "#" else link
        for page, name in places.items()
        if page != README
        for link in re.findall(r"\]\(([^)]+)\)", page)
    }
    assert [link for link in found if "#" in link and link not in known] == []
    assert [link for link in links if "#" not in link and not (REPOSITORY / "docs" / link).exists()] == []


def headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", page, re.MULTILINE)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def section(heading: str, page: str = ENVELOPES) -> str:
    """What is under a heading of a page."""
    return re.split(r"^#", page.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]


# docs/grpc.md


async def test_routes_have_the_paths_that_the_page_says(tmp_path: Path) -> None:
    said = dict(re.findall(r"^\| `([^`]+)`[^|]*\| `(/[^`]+)` \|", section("Paths", GRPC), re.MULTILINE))
    assert len(said) == 5
    for name in said:
        write(tmp_path / f"routes/{name.replace('.', '/')}.rpc.py", "async def handler(input): ...\n")
    listed = json.loads((await run("raffel routes --json", tmp_path)).out)
    assert {route["name"]: route["grpc"] for route in listed} == said


async def test_the_source_of_the_example_is_what_is_exported() -> None:
    (shown,) = re.findall(r"^```proto\n(.*?)^```$", GRPC, re.MULTILINE | re.DOTALL)
    exported = (await run("raffel export proto routes_example", REPOSITORY)).out
    for definition in shown.split("\n\n"):
        lines = definition.strip().removesuffix("\n}")
        assert lines in exported


TYPES_OF_THE_PAGE = """
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from msgspec import Raw, Struct


class Colour(Enum):
    RED = "red"


class Point(Struct):
    x: int


class Circle(Struct, tag="circle"):
    pass


class Square(Struct, tag="square"):
    pass
"""


async def test_types_are_in_messages_what_the_page_says(tmp_path: Path) -> None:
    rows = re.findall(r"^\| (`.+?) \| `([^`]+)` \|", section("Types", GRPC), re.MULTILINE)
    pairs = [(python.replace("\\|", "|"), proto) for types, proto in rows for python in re.findall(r"`([^`]+)`", types)]
    assert len(pairs) == 26
    fields = "".join(f"    f{number}: {python}\n" for number, (python, _) in enumerate(pairs))
    write(tmp_path / "shapes.py", TYPES_OF_THE_PAGE)
    write(
        tmp_path / "routes/a.rpc.py",
        f"from shapes import *\n\nclass In(Struct):\n{fields}\n\nasync def handler(input: In): ...\n",
    )
    source = (await run("raffel export proto", tmp_path)).out
    declared = {number: proto for proto, number in re.findall(r"^  (\S.*|oneof) f(\d+) [={]", source, re.MULTILINE)}
    assert declared == {str(number): proto for number, (_, proto) in enumerate(pairs)}


async def test_what_is_absent_is_what_the_page_says(serve: Any, tmp_path: Path) -> None:
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", section("Presence", GRPC), re.MULTILINE)
    said = {python.replace("\\|", "|"): told for types, told in rows for python in re.findall(r"`([^`]+)`", types)}
    assert len(said) == 11
    write(tmp_path / "shapes.py", TYPES_OF_THE_PAGE)
    head, handler = "from shapes import *\n\nclass In(Struct):\n", "async def handler(input: In) -> str:\n"
    routes = [f"{head}    {field}\n\n{handler}    return repr(input.a)\n" for field in said]
    server = await serve({f"r{number}.rpc.py": source for number, source in enumerate(routes)})
    for number, told in enumerate(said.values()):
        ran = await run(f"buf curl --protocol grpc -d '{{}}' {server.url}/Root/R{number}", tmp_path)
        if "VALIDATION_ERROR" in told:
            assert '"code": "VALIDATION_ERROR"' in ran.err
        else:
            expected = {"an empty one": {"[]", "{}"}}.get(told, {re.split("[;:]", told)[0].strip("`")})
            assert {*json.loads(ran.out).values()} <= expected, ran.err


async def test_the_stream_is_resumed_as_the_page_says(example: Server) -> None:
    (script,) = re.findall(r"^```sh\n(.*?)\n```$", GRPC, re.MULTILINE | re.DOTALL)
    asked = re.search(r"last-event-id: ([\w-]+)", script)
    assert asked is not None
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"exec {script.replace(LOCAL, example.url)}"),
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        first = json.loads(await process.stdout.readuntil(b"\n}\n"))
    process.terminate()
    await process.communicate()
    assert first["valueLost"]["asked"] == asked[1]


def test_every_code_has_the_status_that_the_page_says() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \| ([A-Z_, ]+)", section("Statuses", GRPC), re.MULTILINE)
    said = {code: int(number) for _, number, codes in rows for code in re.findall(r"[A-Z_]+", codes)}
    assert said == {code: row.grpc for code, row in CODES.items()}
    assert {name: int(number) for name, number, _ in rows} == {
        status.name: status.value[0] for status in StatusCode if status.value[0] in said.values()
    }


def test_the_object_of_an_error_is_an_error() -> None:
    (shown,) = re.findall(r"^```json\n(.*?)^```$", GRPC, re.MULTILINE | re.DOTALL)
    error = json.loads(shown)
    assert error["code"] in CODES
    assert error.keys() == {"code", "message", "details"}


def test_reasons_have_the_statuses_that_the_page_says() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section("Ended early", GRPC), re.MULTILINE))
    others = {"client_cancelled", "client_disconnected", "slow_consumer", "credit_exceeded"}
    assert rows == {reason: code for reason, (code, _) in REASONS.items() if reason not in others}


def test_sizes_are_those_of_the_code() -> None:
    page = " ".join(GRPC.split())
    assert f"{STREAM_WINDOW // 1024} KiB a stream and {CONNECTION_WINDOW // 1024**2} MiB a connection" in page
    assert f"At most {MAX_METADATA} headers and {MAX_METADATA_BYTES // 1024} KiB" in page
    assert f"| headers of a request | {MAX_METADATA}, {MAX_METADATA_BYTES // 1024} KiB |" in page
    assert f"more than {MAX_METADATA} entries or {MAX_SENT // 1024} KiB" in page
    assert f"cut to {MAX_STATUS_MESSAGE:,} bytes" in page
    assert f"It has at most {MAX_DETAILS // 1024} KiB" in page
    assert f"| a header block of HTTP/2 | {HEADER_BYTES // 1024} KiB |" in page
    assert f"| `last-event-id` | {MAX_ID} bytes |" in page
    assert f"Frames have at most {MAX_FRAME // 1024} KiB" in page
    assert f"after {HEAD_SECONDS * 1000:g} ms without one" in page
    assert f"optional string {EVENT_ID} = {EVENT_ID_NUMBER}" in page


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
