"""The example routes against the machine they describe: every value is compared with its source."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import stat
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse
from websockets.asyncio.client import connect

from raffel_core import Call, Config, Interceptor, Server

REPOSITORY = Path(__file__).parent.parent
Items = AsyncIterator[ServerSentEvent]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the example logs into and serves files from."""
    path = tmp_path / "served"
    path.mkdir()
    monkeypatch.setenv("EXAMPLE_FOLDER", str(path))
    return path


@pytest.fixture
def shared() -> SimpleNamespace:
    """`app.state` of the example as its routes see it, once a call has been made."""
    return SimpleNamespace(state=None)


@asynccontextmanager
async def example(*interceptors: Interceptor) -> AsyncIterator[Server]:
    """The example's server on a free port, as `raffel dev` runs it."""
    server = Server(Config(host="127.0.0.1", port=0, drain_seconds=0.2), root=REPOSITORY, development=True)
    await server.use(*interceptors).routes("routes_example").start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def server(folder: Path, shared: SimpleNamespace) -> AsyncIterator[Server]:
    async with example(looking(shared)) as server:
        yield server


def looking(shared: SimpleNamespace) -> Interceptor:
    async def look(call: Call, call_next: Any) -> Any:
        shared.state = call.ctx.app.state
        return await call_next(call)

    return look


def calling(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, verify=False)  # plain HTTP: reading the certificates takes longer


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(server) as client:
        yield client


@asynccontextmanager
async def opened(client: httpx.AsyncClient, name: str, **options: Any) -> AsyncIterator[Items]:
    """The events of a stream; its connection is closed at the end."""
    async with aconnect_sse(client, "GET", f"/streams/{name}", **options) as source:
        assert source.response.status_code == 200, await source.response.aread()
        async with closing_events(source) as events:
            yield events


@asynccontextmanager
async def closing_events(source: EventSource) -> AsyncIterator[Items]:
    events = source.aiter_sse()
    try:
        yield events
    finally:
        await events.aclose()


async def take(events: Items, count: int) -> list[Any]:
    return [json.loads((await anext(events)).data) for _ in range(count)]


async def every_item(client: httpx.AsyncClient, name: str, **options: Any) -> list[Any]:
    """All items of a stream that ends, without its end."""
    async with opened(client, name, **options) as events:
        received = [event async for event in events]
    assert received[-1].event == "end"
    return [json.loads(event.data) for event in received[:-1]]


async def refused(client: httpx.AsyncClient, name: str, **options: Any) -> tuple[int, str]:
    response = await client.get(f"/streams/{name}", **options)
    return response.status_code, response.json()["error"]["code"]


class Peer(NamedTuple):
    """A client of WebSocket or TCP, envelope by envelope."""

    write: Callable[[bytes, bool], Awaitable[None]]
    read: Callable[[], Awaitable[bytes | str]]

    async def send(self, type: str, id: str, payload: Any = None, **fields: Any) -> None:
        await self.write(json.dumps({"type": type, "id": id, "payload": payload, **fields}).encode(), False)

    async def send_bytes(self, id: str, payload: bytes) -> None:
        envelope = json.dumps({"type": "stream:data", "id": id}).encode()
        await self.write(b"\x01" + struct.pack(">H", len(envelope)) + envelope + payload, True)

    async def take(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return json.loads(await self.read())


@asynccontextmanager
async def over_websocket(server: Server) -> AsyncIterator[Peer]:
    # With a bound on its queue this client does not see the answer to its closing behind what it has not taken.
    async with connect(f"{server.url.replace('http', 'ws')}/ws", proxy=None, max_queue=None) as connection:
        yield Peer(lambda message, binary: connection.send(message if binary else message.decode()), connection.recv)


@asynccontextmanager
async def over_tcp(server: Server) -> AsyncIterator[Peer]:
    url = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)

    async def write(message: bytes, binary: bool) -> None:
        writer.write(struct.pack(">I", len(message)) + message)
        await writer.drain()

    async def read() -> bytes:
        (length,) = struct.unpack(">I", await reader.readexactly(4))
        return await reader.readexactly(length)

    try:
        yield Peer(write, read)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture(params=[over_websocket, over_tcp])
async def peer(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Peer]:
    """One for each protocol."""
    async with request.param(server) as peer:
        yield peer


@pytest.fixture
async def tcp(server: Server) -> AsyncIterator[Peer]:
    """For what no protocol can change."""
    async with over_tcp(server) as peer:
        yield peer


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def files_open_below(folder: Path) -> list[str]:
    """The files of the folder that this process holds open to read; the request log is open to be written."""
    descriptors = Path("/proc/self/fdinfo")
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            flags = int((descriptors / descriptor).read_text().split("flags:")[1].split()[0], 8)
        except OSError:
            continue  # it was the listing's own
        if target.startswith(f"{folder}/") and flags & os.O_ACCMODE == os.O_RDONLY:
            found.append(target)
    return found


def proc(name: str) -> str:
    return (Path("/proc") / name).read_text()


def meminfo(field: str) -> int:
    line = next(line for line in proc("meminfo").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended and waited for at the latest at the end."""
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def pretend(root: Path, pid: int, name: str, started: int) -> None:
    """Writes a process with the numbers of this one below `root`, as /proc has it."""
    state, *fields = proc("self/stat").rsplit(") ", 1)[1].split()
    fields[18] = str(started)
    file = root / str(pid) / "stat"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"{pid} ({name}) {state} {' '.join(fields)}\n")


# system/cpu


async def test_cpu_shows_every_core_of_a_machine_that_works(client: httpx.AsyncClient) -> None:
    with running("sh", "-c", "while :; do :; done"):
        items = await every_item(client, "system/cpu", params={"interval": 0.3, "limit": 2})
    cores = len([line for line in proc("stat").splitlines() if line.startswith("cpu")]) - 1
    assert [len(item["cores"]) for item in items] == [cores] * 2
    assert all(0 <= percent <= 100 for item in items for percent in item["cores"])
    assert max(items[-1]["cores"]) > 0


async def test_cpu_has_the_load_average_of_the_system(client: httpx.AsyncClient) -> None:
    before = os.getloadavg()[0]
    (item,) = await every_item(client, "system/cpu", params={"interval": 0.1, "limit": 1})
    after = os.getloadavg()[0]
    assert min(before, after) - 0.01 <= item["load"] <= max(before, after) + 0.01


async def test_items_of_cpu_come_in_their_interval(client: httpx.AsyncClient) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await every_item(client, "system/cpu", params={"interval": 0.1, "limit": 3})
    assert loop.time() - started >= 0.3


async def test_an_input_out_of_bounds_is_refused_by_name(client: httpx.AsyncClient) -> None:
    for field, value in [("interval", "0"), ("interval", "61"), ("interval", "soon"), ("limit", "0"), ("limit", "1.5")]:
        response = await client.get("/streams/system/cpu", params={field: value})
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "VALIDATION_ERROR")
        assert [fault["path"] for fault in error["details"]] == [field]


async def test_cpu_without_proc_still_tells_the_load(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._machine.PROC", tmp_path / "none")
    (item,) = await every_item(client, "system/cpu", params={"interval": 0.1, "limit": 1})
    assert item["cores"] is None
    assert item["load"] >= 0


# system/memory


async def test_memory_is_what_meminfo_says(client: httpx.AsyncClient) -> None:
    (item,) = await every_item(client, "system/memory", params={"limit": 1})
    assert item["total_bytes"] == meminfo("MemTotal")
    assert 0 < item["available_bytes"] < item["total_bytes"]
    assert 0 < item["server_peak_bytes"] <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_memory_without_proc_is_told_as_far_as_it_is_known(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._machine.PROC", tmp_path / "none")
    (item,) = await every_item(client, "system/memory", params={"limit": 1})
    assert item["total_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert item["available_bytes"] is None


async def test_memory_comes_as_lines_and_takes_its_input_from_a_body(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/streams/system/memory", json={"interval": 0.1, "limit": 2}, headers={"Accept": "application/x-ndjson"}
    )
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["total_bytes"] for line in response.text.splitlines()] == [meminfo("MemTotal")] * 2


# system/info


async def test_info_describes_this_machine(client: httpx.AsyncClient) -> None:
    response = await client.post("/system/info", json={"unit": "B"})
    answer = response.json()
    assert response.status_code == 200
    assert answer["host"] == platform.node()
    assert answer["python"] == platform.python_version()
    assert answer["cores"] == os.cpu_count()
    assert answer["memory"] == meminfo("MemTotal")
    assert answer["disk"] == shutil.disk_usage("/").total


async def test_info_answers_in_the_unit_it_is_asked_for(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/system/info", json={"unit": "MiB"})).json()
    assert answer["unit"] == "MiB"
    assert answer["memory"] == round(meminfo("MemTotal") / 1024**2, 2)


async def test_info_refuses_an_unknown_unit(client: httpx.AsyncClient) -> None:
    response = await client.post("/system/info", json={"unit": "furlongs"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


# processes/[pid]


async def test_a_process_is_shown_as_it_is(client: httpx.AsyncClient) -> None:
    (item,) = await every_item(client, f"processes/{os.getpid()}", params={"limit": 1})
    status = dict(line.split(":\t", 1) for line in proc("self/status").splitlines())
    assert (item["pid"], item["name"]) == (os.getpid(), status["Name"])
    assert item["threads"] >= 1
    assert item["memory_bytes"] == pytest.approx(int(status["VmRSS"].split()[0]) * 1024, rel=0.2)
    assert 0 < item["cpu_seconds"] <= sum(os.times()[:2]) + 0.1


async def test_the_stream_of_a_process_ends_with_the_process(client: httpx.AsyncClient) -> None:
    with running("sleep", "60") as sleeper:
        async with opened(client, f"processes/{sleeper.pid}", params={"interval": 0.1}) as events:
            (item,) = await take(events, 1)
            assert (item["pid"], item["name"]) == (sleeper.pid, "sleep")
            sleeper.terminate()
            sleeper.wait()
            last = [event async for event in events][-1]
    assert last.event == "end"


async def test_a_process_whose_parent_has_not_asked_for_its_end_has_ended(client: httpx.AsyncClient) -> None:
    with running("sleep", "60") as sleeper:
        async with opened(client, f"processes/{sleeper.pid}", params={"interval": 0.1}) as events:
            await take(events, 1)
            sleeper.terminate()
            last = [event async for event in events][-1]
    assert last.event == "end"


async def test_another_process_with_the_number_of_the_first_is_not_shown(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._machine.PROC", tmp_path)
    pretend(tmp_path, 77, "first", started=100)
    async with opened(client, "processes/77", params={"interval": 0.1}) as events:
        await take(events, 1)
        pretend(tmp_path, 77, "second", started=200)
        last = [event async for event in events][-1]
    assert last.event == "end"


async def test_a_process_may_have_any_name(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._machine.PROC", tmp_path)
    pretend(tmp_path, 77, "a) S (b\n", started=100)
    (item,) = await every_item(client, "processes/77", params={"limit": 1})
    assert item["name"] == "a) S (b\n"


async def test_a_number_without_a_process_is_not_found(client: httpx.AsyncClient) -> None:
    with running("true") as gone:
        gone.wait()
    assert await refused(client, f"processes/{gone.pid}") == (404, "NOT_FOUND")
    assert await refused(client, "processes/99999999999999") == (404, "NOT_FOUND")


async def test_what_is_no_number_of_a_process_is_refused(client: httpx.AsyncClient) -> None:
    assert await refused(client, "processes/0") == (400, "VALIDATION_ERROR")
    assert await refused(client, "processes/init") == (400, "VALIDATION_ERROR")


async def test_processes_without_proc_are_unavailable(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._machine.PROC", tmp_path / "none")
    assert await refused(client, f"processes/{os.getpid()}") == (503, "UNAVAILABLE")


# admin/sessions


async def sessions(client: httpx.AsyncClient, authorization: str | None) -> httpx.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return await client.get("/streams/admin/sessions", params={"limit": 1}, headers=headers)


async def test_who_shows_no_token_is_not_let_in(client: httpx.AsyncClient) -> None:
    for given in (None, b"", b"Bearer", b"Bearer wrong", b"Basic let-me-in", b"let-me-in", b"Bearer \xe9"):
        headers = [] if given is None else [(b"Authorization", given)]
        response = await client.get("/streams/admin/sessions", params={"limit": 1}, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHENTICATED"), given


async def test_a_guest_may_not_see_the_sessions(client: httpx.AsyncClient) -> None:
    response = await sessions(client, "Bearer just-looking")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "PERMISSION_DENIED")


async def test_an_admin_sees_every_open_call(client: httpx.AsyncClient) -> None:
    async with opened(client, "system/cpu", params={"interval": 0.1}) as events:
        await take(events, 1)
        response = await sessions(client, "bearer let-me-in")
    assert response.status_code == 200
    listed = json.loads(response.text.partition("\n")[0].removeprefix("data: "))["open"]
    assert [(call["route"], call["protocol"]) for call in listed] == [("system.cpu", "sse"), ("admin.sessions", "sse")]
    assert listed[0]["open_seconds"] >= 0.1


async def test_a_call_that_is_over_is_listed_no_more(client: httpx.AsyncClient, shared: SimpleNamespace) -> None:
    async with opened(client, "system/cpu", params={"interval": 0.1}) as events:
        await take(events, 1)
        assert [ctx.route for ctx in shared.state.open_calls] == ["system.cpu"]
    await until(lambda: not shared.state.open_calls)


async def test_tokens_are_what_the_environment_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_ADMIN_TOKEN", "s3cret")
    async with example() as server, calling(server) as client:
        tokens = ("s3cret", "let-me-in", "just-looking")
        statuses = [(await sessions(client, f"Bearer {token}")).status_code for token in tokens]
    assert statuses == [200, 401, 403]


async def test_an_empty_token_in_the_environment_lets_nobody_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_ADMIN_TOKEN", "")
    async with example() as server, calling(server) as client:
        response = await sessions(client, "Bearer")
    assert response.status_code == 401


# logs/tail


async def test_tail_begins_with_the_last_lines(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "app.log").write_text("one\ntwo\nthree\n")
    async with opened(client, "logs/tail", params={"file": "app.log", "lines": 2}) as events:
        assert await take(events, 2) == [{"text": "two"}, {"text": "three"}]


async def test_tail_follows_a_file_as_it_grows(client: httpx.AsyncClient, folder: Path) -> None:
    log = folder / "app.log"
    log.write_text("old\n")
    async with opened(client, "logs/tail", params={"file": "app.log", "lines": 1}) as events:
        await take(events, 1)
        for number in range(3):
            with log.open("a") as file:
                file.write(f"line {number}\n")
            assert await take(events, 1) == [{"text": f"line {number}"}]


async def test_tail_sends_a_line_when_its_end_has_been_written(client: httpx.AsyncClient, folder: Path) -> None:
    log = folder / "app.log"
    log.write_text("first\nsec")
    async with opened(client, "logs/tail", params={"file": "app.log", "lines": 5}) as events:
        assert await take(events, 1) == [{"text": "first"}]
        with log.open("a") as file:
            file.write("ond\n")
        assert await take(events, 1) == [{"text": "second"}]


async def test_tail_reads_a_truncated_file_from_its_start(client: httpx.AsyncClient, folder: Path) -> None:
    log = folder / "app.log"
    log.write_text("a long line of before\n")
    async with opened(client, "logs/tail", params={"file": "app.log"}) as events:
        await take(events, 1)
        log.write_text("anew\n")
        assert await take(events, 1) == [{"text": "anew"}]
        with log.open("a") as file:
            file.write("and on\n")
        assert await take(events, 1) == [{"text": "and on"}]


async def test_tail_goes_on_in_the_file_that_replaces_the_first(client: httpx.AsyncClient, folder: Path) -> None:
    log = folder / "app.log"
    log.write_text("before\n")
    async with opened(client, "logs/tail", params={"file": "app.log"}) as events:
        await take(events, 1)
        with log.open("a") as file:
            log.rename(folder / "app.log.1")
            file.write("last of the old\n")
        log.write_text("first of the new\n")
        assert await take(events, 2) == [{"text": "last of the old"}, {"text": "first of the new"}]


async def test_tail_shows_the_requests_of_this_server(client: httpx.AsyncClient) -> None:
    async with opened(client, "logs/tail", params={"lines": 0}) as events:
        for name in ("system/memory", "system/nothing"):
            await client.get(f"/streams/{name}", params={"limit": 1})
        await client.post("/system/info", json={})
        texts = [item["text"] for item in await take(events, 2)]
    assert "sse system.memory OK" in texts[0]
    assert "http system.info OK" in texts[1]


async def test_tail_follows_the_request_log_when_it_is_moved_aside(
    client: httpx.AsyncClient, folder: Path, shared: SimpleNamespace
) -> None:
    async with opened(client, "logs/tail", params={"lines": 0}) as events:
        await client.post("/system/info", json={})
        await take(events, 1)
        shared.state.requests.handlers[0].doRollover()
        await client.post("/system/info", json={})
        assert "system.info" in (await take(events, 1))[0]["text"]
    assert (folder / "requests.log.1").exists()


@pytest.mark.parametrize("route", ["logs/tail", "files/download"])
async def test_only_files_below_the_folder_are_served(client: httpx.AsyncClient, folder: Path, route: str) -> None:
    outside = folder.parent / "outside.log"
    outside.write_text("secret\n")
    (folder / "sub").mkdir()
    (folder / "link.log").symlink_to(outside)
    (folder / "linked").symlink_to(folder.parent)
    (folder / "circle").symlink_to(folder / "circle")
    names = ["../outside.log", "sub/../../outside.log", str(outside), "link.log", "linked/outside.log"]
    names += ["missing.log", "sub", "", ".", "circle", "nul\0.log", "x" * 300]
    answers = {name: await refused(client, route, params={"file": name}) for name in names}
    assert answers == dict.fromkeys(names, (404, "NOT_FOUND"))


async def test_a_special_file_is_not_served(client: httpx.AsyncClient, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert await refused(client, "logs/tail", params={"file": "pipe"}) == (404, "NOT_FOUND")


async def test_files_in_folders_below_are_served(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "app.log").write_text("there\n")
    async with opened(client, "logs/tail", params={"file": "sub/app.log"}) as events:
        assert await take(events, 1) == [{"text": "there"}]


async def test_a_file_that_a_link_out_of_the_folder_replaces_ends_the_tail(
    client: httpx.AsyncClient, folder: Path
) -> None:
    outside = folder.parent / "outside.log"
    outside.write_text("secret\n")
    log = folder / "app.log"
    log.write_text("mine\n")
    async with opened(client, "logs/tail", params={"file": "app.log"}) as events:
        await take(events, 1)
        log.unlink()
        log.symlink_to(outside)
        last = await anext(events)
    assert (last.event, json.loads(last.data)["code"]) == ("error", "NOT_FOUND")


async def test_the_tailed_file_is_closed_when_the_client_goes(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "app.log").write_text("one\n")
    async with opened(client, "logs/tail", params={"file": "app.log"}) as events:
        await take(events, 1)
        assert files_open_below(folder) == [str(folder / "app.log")]
    await until(lambda: not files_open_below(folder))


# The parts of tail that a client cannot time


Tailing = Callable[..., Any]


@pytest.fixture
def tail(folder: Path, server: Server) -> Tailing:
    """Makes a `Tail` of a file; the server has put the example's modules on `sys.path`."""
    from routes_example._tail import Tail

    (folder / "app.log").touch()
    return lambda lines=10: Tail(folder, "app.log", lines)


def append(folder: Path, text: str) -> None:
    with (folder / "app.log").open("a") as file:
        file.write(text)


async def test_tail_waits_while_a_file_is_between_two_names(tail: Tailing, folder: Path) -> None:
    reader = tail()
    assert reader.read() == []
    (folder / "app.log").rename(folder / "app.log.1")
    assert reader.read() == []
    append(folder, "new\n")
    assert [*reader.read(), *reader.read()] == ["new"]
    reader.close()


async def test_tail_ends_an_unfinished_line_where_its_file_ends(tail: Tailing, folder: Path) -> None:
    append(folder, "done\nhalf")
    reader = tail()
    assert reader.read() == ["done"]
    (folder / "app.log").rename(folder / "app.log.1")
    append(folder, "new\n")
    assert [*reader.read(), *reader.read()] == ["half", "new"]
    reader.close()


async def test_tail_sends_a_line_without_end_in_pieces(tail: Tailing, folder: Path) -> None:
    reader = tail()
    assert reader.read() == []
    append(folder, "x" * 300_000)
    pieces = []
    while lines := reader.read():
        pieces += lines
    append(folder, "\n")
    pieces += reader.read()
    reader.close()
    assert "".join(pieces) == "x" * 300_000
    assert max(map(len, pieces)) <= 2 * 65536


async def test_tail_begins_a_large_file_with_a_whole_line(tail: Tailing, folder: Path) -> None:
    append(folder, "".join(f"line {number}\n" for number in range(20_000)))
    reader = tail(1000)
    lines = reader.read()
    reader.close()
    assert lines == [f"line {number}" for number in range(19_000, 20_000)]


async def test_tail_reads_what_is_not_utf_8(tail: Tailing, folder: Path) -> None:
    (folder / "app.log").write_bytes(b"caf\xe9\n")
    reader = tail()
    assert reader.read() == ["caf\N{REPLACEMENT CHARACTER}"]
    reader.close()


async def test_a_closed_tail_opens_nothing(tail: Tailing, folder: Path) -> None:
    reader = tail()
    reader.close()
    assert reader.read() == []
    assert files_open_below(folder) == []


# events/journal


async def journal_entries(client: httpx.AsyncClient, count: int, **options: Any) -> list[ServerSentEvent]:
    async with opened(client, "events/journal", **options) as events:
        return [await anext(events) for _ in range(count)]


async def test_the_journal_is_filled_while_nobody_looks(client: httpx.AsyncClient) -> None:
    first, second = await journal_entries(client, 2)
    before, after = json.loads(first.data), json.loads(second.data)
    assert before["type"] == after["type"] == "sample"
    assert before["at"] < after["at"]
    assert 0 < before["server_cpu_seconds"] <= after["server_cpu_seconds"]
    assert first.id != second.id


async def test_a_client_that_comes_back_gets_exactly_what_came_after(
    client: httpx.AsyncClient, shared: SimpleNamespace
) -> None:
    from routes_example._journal import sample

    (seen,) = await journal_entries(client, 1)
    for _ in range(20):
        shared.state.journal.append(sample())
    missed = await journal_entries(client, 10, headers={"Last-Event-ID": seen.id})
    rest = await journal_entries(client, 10, headers={"Last-Event-ID": missed[-1].id})
    name, _, number = seen.id.partition("-")
    assert [event.id for event in (*missed, *rest)] == [f"{name}-{int(number) + after}" for after in range(1, 21)]
    assert {json.loads(event.data)["type"] for event in (*missed, *rest)} == {"sample"}


async def test_a_client_resumes_by_query_where_it_cannot_set_headers(
    client: httpx.AsyncClient, shared: SimpleNamespace
) -> None:
    from routes_example._journal import sample

    (first,) = await journal_entries(client, 1)
    shared.state.journal.append(sample())
    (by_query,) = await journal_entries(client, 1, params={"lastEventId": first.id})
    (by_header,) = await journal_entries(client, 1, headers={"Last-Event-ID": first.id})
    assert (by_query.id, by_query.data) == (by_header.id, by_header.data)


async def test_an_id_of_another_journal_says_that_entries_are_lost(client: httpx.AsyncClient) -> None:
    for foreign in ("0badcafe-17", "17", "-", "nonsense", "x" * 200, "0badcafe-" + "9" * 4400):
        lost, oldest = await journal_entries(client, 2, headers={"Last-Event-ID": foreign})
        assert json.loads(lost.data) == {"type": "lost", "asked": foreign, "resumed": oldest.id}
        assert oldest.id.endswith("-1")


async def test_what_the_journal_keeps_no_more_is_said_to_be_lost(
    client: httpx.AsyncClient, shared: SimpleNamespace
) -> None:
    from routes_example._journal import sample

    (seen,) = await journal_entries(client, 1)
    for _ in range(700):
        shared.state.journal.append(sample())
    lost, oldest = await journal_entries(client, 2, headers={"Last-Event-ID": seen.id})
    assert json.loads(lost.data) == {"type": "lost", "asked": seen.id, "resumed": oldest.id}
    name, _, number = seen.id.partition("-")
    assert oldest.id in [f"{name}-{int(number) + after}" for after in range(101, 111)]


# files/download


async def test_a_download_is_the_file(client: httpx.AsyncClient, folder: Path) -> None:
    content = os.urandom(300_001)
    (folder / "random.bin").write_bytes(content)
    response = await client.get("/streams/files/download", params={"file": "random.bin"})
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.content == content


async def test_curl_saves_the_same_bytes(server: Server, folder: Path, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (folder / "random.bin").write_bytes(content)
    url = f"{server.url}/streams/files/download?file=random.bin&chunk_bytes=1024"
    curl = await asyncio.create_subprocess_exec("curl", "-sSf", "-o", str(tmp_path / "saved"), url)
    assert await curl.wait() == 0
    assert (tmp_path / "saved").read_bytes() == content


async def test_an_empty_file_is_no_bytes(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "empty").touch()
    response = await client.get("/streams/files/download", params={"file": "empty"})
    assert (response.status_code, response.content) == (200, b"")


async def test_chunks_have_a_bound(client: httpx.AsyncClient, folder: Path) -> None:
    (folder / "file").write_bytes(b"x")
    for size in (1023, 65537):
        params = {"file": "file", "chunk_bytes": size}
        assert await refused(client, "files/download", params=params) == (400, "VALIDATION_ERROR")


async def test_the_downloaded_file_is_closed_when_the_client_goes(client: httpx.AsyncClient, folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(100_000_000)
    async with client.stream("GET", "/streams/files/download", params={"file": "large"}) as response:
        async for _ in response.aiter_raw():
            break
        assert files_open_below(folder) == [str(folder / "large")]
    await until(lambda: not files_open_below(folder))


# files/upload


CONTENT = bytes(range(256)) * 1000


async def upload(peer: Peer, name: Any, *parts: bytes, id: str = "up") -> dict[str, Any]:
    """The last answer to an upload in JSON."""
    await peer.send("stream:start", id, {"name": name}, procedure="files.upload")
    for part in parts:
        await peer.send("stream:data", id, base64.b64encode(part).decode())
    await peer.send("stream:end", id)
    return await peer.take()


def stored(folder: Path) -> dict[str, bytes]:
    """Every file in the folder of uploads, hidden ones too."""
    return {file.name: file.read_bytes() for file in (folder / "uploads").iterdir()}


async def arriving(peer: Peer, folder: Path, name: str) -> None:
    """Opens an upload and sends its first part, which is in the folder when this returns."""
    await peer.send("stream:start", "up", {"name": name}, procedure="files.upload")
    await peer.send_bytes("up", CONTENT)
    await until(lambda: any(file.name.startswith(f".{name}.") for file in (folder / "uploads").iterdir()))


async def test_an_upload_in_json_is_stored_and_its_hash_returned(peer: Peer, folder: Path) -> None:
    answer = await upload(peer, "data.bin", CONTENT[:100_000], CONTENT[100_000:])
    expected = {"name": "data.bin", "bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    assert answer == {"type": "response", "id": "up", "payload": expected}
    assert stored(folder) == {"data.bin": CONTENT}


async def test_an_upload_in_binary_is_stored_and_its_hash_returned(peer: Peer, folder: Path) -> None:
    await peer.send("stream:start", "up", {"name": "data.bin"}, procedure="files.upload")
    for at in range(0, len(CONTENT), 50_000):
        await peer.send_bytes("up", CONTENT[at : at + 50_000])
    await peer.send("stream:end", "up")
    answer = await peer.take()
    assert answer["payload"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert stored(folder) == {"data.bin": CONTENT}


async def test_an_upload_can_be_downloaded(tcp: Peer, client: httpx.AsyncClient) -> None:
    await upload(tcp, "data.bin", CONTENT)
    response = await client.get("/streams/files/download", params={"file": "uploads/data.bin"})
    assert response.content == CONTENT


async def test_an_upload_without_parts_is_an_empty_file(tcp: Peer, folder: Path) -> None:
    answer = await upload(tcp, "empty")
    assert answer["payload"] == {"name": "empty", "bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    assert stored(folder) == {"empty": b""}


async def test_uploads_side_by_side_on_one_connection_are_kept_apart(tcp: Peer, folder: Path) -> None:
    for id in "ab":
        await tcp.send("stream:start", id, {"name": id}, procedure="files.upload")
    for number in range(10):
        for id in "ab":
            await tcp.send_bytes(id, f"{id}{number}".encode())
    for id in "ab":
        await tcp.send("stream:end", id)
    assert {(await tcp.take())["type"] for _ in "ab"} == {"response"}
    assert stored(folder) == {id: "".join(f"{id}{number}" for number in range(10)).encode() for id in "ab"}


async def test_only_a_plain_name_is_stored(tcp: Peer, folder: Path) -> None:
    names = [
        "../up",
        "a/b",
        "/tmp/up",
        "..",
        ".",
        "",
        ".hidden",
        "a\\b",
        "nul\0",
        "line\n",
        "caf\xe9",
        "x" * 101,
        5,
        None,
    ]
    for name in names:
        answer = await upload(tcp, name, b"content")
        assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "INVALID_ARGUMENT"), name
    await tcp.send("stream:start", "nameless", procedure="files.upload")
    assert (await tcp.take())["payload"]["code"] == "INVALID_ARGUMENT"
    assert stored(folder) == {}
    assert sorted(file.name for file in folder.iterdir()) == ["requests.log", "uploads"]


async def test_a_file_keeps_its_content_until_its_successor_is_whole(tcp: Peer, folder: Path) -> None:
    await upload(tcp, "data.bin", b"old")
    await arriving(tcp, folder, "data.bin")
    assert stored(folder)["data.bin"] == b"old"
    await tcp.send("stream:end", "up")
    assert (await tcp.take())["type"] == "response"
    assert stored(folder) == {"data.bin": CONTENT}


async def test_a_cancelled_upload_leaves_nothing_behind(peer: Peer, folder: Path) -> None:
    await arriving(peer, folder, "data.bin")
    await peer.send("cancel", "up")
    assert (await peer.take())["payload"]["code"] == "CANCELLED"
    await until(lambda: stored(folder) == {})


@pytest.mark.parametrize("over", [over_websocket, over_tcp])
async def test_an_upload_whose_client_goes_leaves_nothing_behind(server: Server, folder: Path, over: Any) -> None:
    async with over(server) as peer:
        await arriving(peer, folder, "data.bin")
    await until(lambda: stored(folder) == {})


async def test_an_upload_with_a_part_that_is_no_base64_leaves_nothing_behind(peer: Peer, folder: Path) -> None:
    await arriving(peer, folder, "data.bin")
    await peer.send("stream:data", "up", "no base64!")
    answer = await peer.take()
    assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "VALIDATION_ERROR")
    assert stored(folder) == {}


async def test_a_file_that_becomes_too_large_is_refused(
    tcp: Peer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._uploads.FILE_BYTES", 10)
    assert (await upload(tcp, "whole", b"12345", b"67890"))["type"] == "response"
    answer = await upload(tcp, "larger", b"12345", b"67890", b"1")
    assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "RESOURCE_EXHAUSTED")
    assert stored(folder) == {"whole": b"1234567890"}


async def test_all_files_together_have_a_bound_and_those_that_failed_do_not_count(
    tcp: Peer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routes_example._uploads.TOTAL_BYTES", 10)
    codes = [(await upload(tcp, name, b"12345", b"6")).get("payload", {}).get("code") for name in ("a", "b", "c")]
    assert codes == [None, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    assert (await upload(tcp, "d", b"1234"))["type"] == "response"
    assert stored(folder) == {"a": b"123456", "d": b"1234"}


async def test_a_file_that_was_replaced_does_not_count(tcp: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routes_example._uploads.TOTAL_BYTES", 10)
    answers = [await upload(tcp, "a", b"12345") for _ in range(5)]
    assert [answer["type"] for answer in answers] == ["response"] * 5


async def test_there_are_only_so_many_files(tcp: Peer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routes_example._uploads.FILES", 2)
    answers = [await upload(tcp, name) for name in "abc"]
    assert [answer["payload"].get("code") for answer in answers] == [None, None, "RESOURCE_EXHAUSTED"]
    assert stored(folder) == {"a": b"", "b": b""}


async def test_what_an_earlier_server_stored_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with example() as server, over_tcp(server) as peer:
        await upload(peer, "a", b"123456")
    async with example() as server, over_tcp(server) as peer:
        monkeypatch.setattr("routes_example._uploads.TOTAL_BYTES", 10)
        assert (await upload(peer, "b", b"12345"))["payload"]["code"] == "RESOURCE_EXHAUSTED"


# rooms/[room]/chat


async def enter(peer: Peer, name: Any, id: str = "chat", room: str = "lobby", **fields: Any) -> None:
    await peer.send("stream:start", id, {"name": name}, procedure=f"rooms.{room}.chat", **fields)


async def say(peer: Peer, text: Any, id: str = "chat") -> None:
    await peer.send("stream:data", id, {"text": text})


async def hear(peer: Peer, count: int) -> list[tuple[str | None, str]]:
    """What the next lines say, and who."""
    answers = [await peer.take() for _ in range(count)]
    assert {answer["type"] for answer in answers} == {"stream:data"}, answers[-1]
    assert all(set(answer["payload"]) == {"from", "text", "at"} for answer in answers)
    return [(answer["payload"]["from"], answer["payload"]["text"]) for answer in answers]


async def ended(peer: Peer) -> str:
    """The code that a chat ends with; empty where nothing is wrong."""
    answer = await peer.take()
    assert answer["type"] in ("stream:end", "stream:error"), answer
    return answer.get("payload", {}).get("code", "")


@pytest.fixture
async def kai(server: Server) -> AsyncIterator[Peer]:
    """Kai in the lobby, over WebSocket."""
    async with over_websocket(server) as peer:
        await enter(peer, "Kai")
        assert await hear(peer, 1) == [(None, "Kai joined")]
        yield peer


async def test_members_hear_each_other_whatever_they_are_connected_by(kai: Peer, peer: Peer) -> None:
    await enter(peer, "Ada")
    assert await hear(peer, 1) == await hear(kai, 1) == [(None, "Ada joined")]
    await say(peer, "Hello!")
    assert await hear(peer, 1) == await hear(kai, 1) == [("Ada", "Hello!")]
    await say(kai, "Hello, Ada!")
    assert await hear(peer, 1) == await hear(kai, 1) == [("Kai", "Hello, Ada!")]


async def test_two_members_can_share_a_connection(kai: Peer) -> None:
    await enter(kai, "Ada", id="second")
    answers = [await kai.take() for _ in range(2)]
    assert sorted((answer["id"], answer["payload"]["text"]) for answer in answers) == [
        ("chat", "Ada joined"),
        ("second", "Ada joined"),
    ]


async def test_rooms_are_apart(kai: Peer, tcp: Peer) -> None:
    await enter(tcp, "Kai", room="kitchen")
    assert await hear(tcp, 1) == [(None, "Kai joined")]
    await say(tcp, "Anybody here?")
    await say(kai, "Hello!")
    assert await hear(kai, 1) == [("Kai", "Hello!")]
    assert await hear(tcp, 1) == [("Kai", "Anybody here?")]


async def test_who_comes_later_is_shown_what_was_said_last(kai: Peer, tcp: Peer) -> None:
    for number in range(30):
        await say(kai, str(number))
    await hear(kai, 30)
    await enter(tcp, "Ada")
    assert await hear(tcp, 21) == [*(("Kai", str(number)) for number in range(10, 30)), (None, "Ada joined")]


async def test_a_name_is_taken_once(kai: Peer, tcp: Peer) -> None:
    await enter(tcp, "Kai")
    assert await ended(tcp) == "ALREADY_EXISTS"
    await enter(tcp, "Ada")
    assert await hear(kai, 1) == [(None, "Ada joined")]


async def test_a_name_is_one_line_of_bounded_length(tcp: Peer) -> None:
    for name in ("", " Kai", "two\nlines", "x" * 41, 5, None):
        await enter(tcp, name)
        assert await ended(tcp) == "INVALID_ARGUMENT", name


async def test_a_bad_message_is_told_to_its_sender_alone_and_the_next_ones_are_heard(kai: Peer, tcp: Peer) -> None:
    await enter(tcp, "Ada")
    await hear(tcp, 1)
    for bad in (5, "", "x" * 2001, None):
        await say(tcp, bad)
    await say(tcp, "good")
    heard = await hear(tcp, 5)
    assert [speaker for speaker, _ in heard] == [None, None, None, None, "Ada"]
    assert "text" in heard[0][1]
    assert await hear(kai, 2) == [(None, "Ada joined"), ("Ada", "good")]


async def test_who_ends_the_stream_leaves(kai: Peer, peer: Peer) -> None:
    await enter(peer, "Ada")
    await hear(peer, 1)
    await say(peer, "Bye!")
    await peer.send("stream:end", "chat")
    assert await hear(peer, 1) == [("Ada", "Bye!")]
    assert await ended(peer) == ""
    assert await hear(kai, 3) == [(None, "Ada joined"), ("Ada", "Bye!"), (None, "Ada left")]


async def test_who_cancels_leaves(kai: Peer, peer: Peer) -> None:
    await enter(peer, "Ada")
    await hear(peer, 1)
    await peer.send("cancel", "chat")
    assert await ended(peer) == "CANCELLED"
    assert await hear(kai, 2) == [(None, "Ada joined"), (None, "Ada left")]


@pytest.mark.parametrize("over", [over_websocket, over_tcp])
async def test_who_disconnects_leaves(kai: Peer, server: Server, over: Any) -> None:
    async with over(server) as peer:
        await enter(peer, "Ada")
        await hear(peer, 1)
    assert await hear(kai, 2) == [(None, "Ada joined"), (None, "Ada left")]


async def test_a_room_is_gone_with_its_last_member(tcp: Peer, shared: SimpleNamespace) -> None:
    await enter(tcp, "Ada")
    await say(tcp, "Anybody here?")
    await hear(tcp, 2)
    assert list(shared.state.rooms) == ["lobby"]
    await tcp.send("stream:end", "chat")
    await ended(tcp)
    assert shared.state.rooms == {}
    await enter(tcp, "Ada")
    assert await hear(tcp, 1) == [(None, "Ada joined")]


async def test_a_room_has_room_for_only_so_many(kai: Peer, tcp: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routes_example._rooms.MEMBERS", 1)
    await enter(tcp, "Ada")
    assert await ended(tcp) == "RESOURCE_EXHAUSTED"


async def test_a_burst_is_heard_whole(kai: Peer, server: Server) -> None:
    messages = [{"type": "stream:start", "id": "1", "procedure": "rooms.lobby.chat", "payload": {"name": "Ada"}}]
    messages += [{"type": "stream:data", "id": "1", "payload": {"text": str(number)}} for number in range(300)]
    encoded = [json.dumps(message).encode() for message in messages]
    url = httpx.URL(server.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"".join(struct.pack(">I", len(message)) + message for message in encoded))
    assert await hear(kai, 301) == [(None, "Ada joined"), *(("Ada", str(number)) for number in range(300))]
    writer.close()
    await writer.wait_closed()


async def fall_behind(slow: Peer, others: Peer) -> list[tuple[str | None, str]]:
    """Has one member, who grants little credit, fall too far behind another; what that one heard meanwhile."""
    await enter(slow, "Ada", credit=1)
    assert (await slow.take())["type"] == "stream:credit"
    await hear(slow, 1)
    for number in range(66):  # one that waits for credit, 64 behind it, and one that is too much
        await say(others, str(number))
    return await hear(others, 68)


async def test_who_cannot_keep_up_is_dropped_and_the_others_go_on(kai: Peer, tcp: Peer) -> None:
    said = [("Kai", str(number)) for number in range(66)]
    assert await fall_behind(tcp, kai) == [(None, "Ada joined"), *said, (None, "Ada could not keep up")]


async def test_who_reads_nothing_is_dropped(kai: Peer, server: Server) -> None:
    url = httpx.URL(server.url)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((url.host, url.port))
        start = {"type": "stream:start", "id": "1", "procedure": "rooms.lobby.chat", "payload": {"name": "Ada"}}
        message = json.dumps(start).encode()
        deaf.sendall(struct.pack(">I", len(message)) + message)
        assert await hear(kai, 1) == [(None, "Ada joined")]
        for _ in range(2000):
            await say(kai, "x" * 2000)
            if await hear(kai, 1) == [(None, "Ada could not keep up")]:
                break
        else:
            raise AssertionError("nobody was dropped")


async def test_who_was_dropped_hears_what_came_before_and_then_why(kai: Peer, peer: Peer) -> None:
    await fall_behind(peer, kai)
    await peer.send("stream:credit", "chat", credit=100)
    assert await hear(peer, 65) == [("Kai", str(number)) for number in range(65)]
    assert await ended(peer) == "RESOURCE_EXHAUSTED"


async def test_who_was_dropped_speaks_no_more_and_its_name_is_free(kai: Peer, tcp: Peer) -> None:
    await fall_behind(tcp, kai)
    await say(tcp, "I am still here!")
    await enter(tcp, "Ada", id="again")
    assert await hear(kai, 1) == [(None, "Ada joined")]
    await say(tcp, "I am back.", id="again")
    assert await hear(kai, 1) == [("Ada", "I am back.")]


async def test_a_fault_while_reading_ends_the_call_that_it_belongs_to(
    kai: Peer, tcp: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault")

    await enter(tcp, "Ada")
    await hear(tcp, 1)
    monkeypatch.setattr("routes_example._rooms.Room.say", fail)
    await say(tcp, "Hello!")
    assert await ended(tcp) == "INTERNAL_ERROR"
    assert await hear(kai, 2) == [(None, "Ada joined"), (None, "Ada left")]


# _app.py and _middleware.py


async def test_a_client_that_goes_is_logged_with_the_reason(client: httpx.AsyncClient, folder: Path) -> None:
    async with opened(client, "system/cpu", params={"interval": 0.1}) as events:
        await take(events, 1)
    log = folder / "requests.log"
    await until(lambda: "sse system.cpu client_disconnected" in log.read_text())


async def test_a_refusal_of_the_handler_is_logged_with_its_code(client: httpx.AsyncClient, folder: Path) -> None:
    await refused(client, "files/download", params={"file": "missing"})
    assert "files.download NOT_FOUND" in (folder / "requests.log").read_text()


async def test_without_a_configured_folder_there_is_a_private_one_until_the_end(shared: SimpleNamespace) -> None:
    async with example(looking(shared)) as server, calling(server) as client:
        await client.post("/system/info", json={})
        folder = shared.state.folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


async def test_a_configured_folder_is_made_and_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_FOLDER", str(folder / "made"))
    async with example():
        pass
    assert (folder / "made" / "requests.log").exists()


async def test_every_route_of_the_example_says_what_it_is(server: Server) -> None:
    assert {route.name for route in server.router.routes.values() if not route.meta.description} == set()
    assert len(server.router.routes) == 10


# gRPC, where what a stream is opened with is metadata


@asynccontextmanager
async def over_grpc(server: Server) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        yield channel


def fields(*values: bytes) -> bytes:
    """A message whose fields 1, 2, ... are these strings or bytes, each shorter than 128."""
    return b"".join(bytes((number << 3 | 2, len(value))) + value for number, value in enumerate(values, 1))


async def test_an_upload_over_grpc_is_stored_under_the_name_in_its_metadata(server: Server, folder: Path) -> None:
    async with over_grpc(server) as channel:
        call = channel.stream_unary("/Files/Upload")
        answer = await call(iter([fields(b"one, "), fields(b"two")]), metadata=[("name", "data.bin")], timeout=5)
    assert hashlib.sha256(b"one, two").hexdigest().encode() in answer
    assert stored(folder) == {"data.bin": b"one, two"}


async def test_an_upload_over_grpc_without_a_plain_name_is_refused(server: Server, folder: Path) -> None:
    async with over_grpc(server) as channel:
        for metadata in ([], [("name", "../data.bin")]):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await channel.stream_unary("/Files/Upload")(iter([fields(b"x")]), metadata=metadata, timeout=5)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert stored(folder) == {}


async def test_members_of_a_room_hear_each_other_over_any_protocol(server: Server, tcp: Peer) -> None:
    await tcp.send("stream:start", "1", {"name": "Ada"}, procedure="rooms.lobby.chat")
    assert (await tcp.take())["payload"]["text"] == "Ada joined"
    async with over_grpc(server) as channel:
        call = channel.stream_stream("/Rooms/Chat")(metadata=[("name", "Kai")], timeout=5)
        await call.write(fields(b"Hello, Ada!", b"lobby"))
        assert b"Kai joined" in await call.read()
        assert b"Hello, Ada!" in await call.read()
        heard = [(await tcp.take())["payload"] for _ in range(2)]
        assert [(one["from"], one["text"]) for one in heard] == [(None, "Kai joined"), ("Kai", "Hello, Ada!")]
        await tcp.send("stream:data", "1", {"text": "Hello, Kai!"})
        assert b"Hello, Kai!" in await call.read()
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
        assert await call.code() is grpc.StatusCode.OK
