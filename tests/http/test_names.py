"""Names as they stand in URLs: dots and slashes, percent-encoding, parameters and what beats what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from raffel_core.errors import ProjectError

SAY = """
async def handler(input, ctx):
    return [ctx.route, ctx.params, input]
"""
STREAM = SAY.replace("return", "yield")


async def said(http, path: str) -> Any:
    """The route that answers, the parameters and the input, for a procedure; None where nothing answers."""
    answer = await http.post(path)
    return answer.json() if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("clock.rpc.py", "clock"),
        ("users/create.rpc.py", "users.create"),
        ("a/b/c/d.rpc.py", "a.b.c.d"),
        ("users/index.rpc.py", "users"),
        ("(admin)/users/list.rpc.py", "users.list"),
        ("users/(internal)/list.rpc.py", "users.list"),
        ("(admin)/users/index.rpc.py", "users"),
        ("user-list/by_name.rpc.py", "user-list.by_name"),
        ("straße.rpc.py", "straße"),
    ],
)
@pytest.mark.parametrize("separator", [".", "/"])
async def test_the_path_of_a_file_is_its_name(serve, client, file: str, name: str, separator: str) -> None:
    http = client(await serve({file: SAY}))
    assert await said(http, f"/{name.replace('.', separator)}") == [name, {}, {}]


@pytest.mark.parametrize("path", ["/streams/logs.tail", "/streams/logs/tail"])
async def test_a_stream_is_below_streams_in_both_forms(serve, curl, path: str) -> None:
    server = await serve({"logs/tail.stream.py": STREAM})
    output = await curl("-H", "Accept: application/x-ndjson", server.url + path)
    assert json.loads(output) == ["logs.tail", {}, {}]


@pytest.mark.parametrize("file", ["_hidden.rpc.py", "_private/ask.rpc.py", ".hidden.rpc.py", ".git/ask.rpc.py"])
@pytest.mark.parametrize("path", ["/_hidden", "/_private/ask", "/.hidden", "/.git/ask", "/hidden", "/ask"])
async def test_what_starts_with_a_mark_is_no_route(serve, client, file: str, path: str) -> None:
    http = client(await serve({file: SAY}))
    assert await said(http, path) == 404


# Parameters

ROOMS = {"rooms/[room]/chat.rpc.py": SAY}


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("/rooms.42.chat", "42"),
        ("/rooms/42/chat", "42"),
        ("/rooms/a.b/chat", "a.b"),
        ("/rooms/v1.2.3/chat", "v1.2.3"),
        ("/rooms/a%2Fb/chat", "a/b"),
        ("/rooms.a%2Eb.chat", "a.b"),
        ("/rooms.a%2Fb.chat", "a/b"),
        ("/rooms/caf%C3%A9/chat", "café"),
        ("/rooms/a%20b/chat", "a b"),
        ("/rooms/a+b/chat", "a+b"),
        ("/rooms/%2525/chat", "%25"),
        ("/rooms/%00/chat", "\0"),
        ("/r%6Foms/42/ch%61t", "42"),
        ("/rooms/../chat", ".."),
        ("/rooms/42/chat?room=7", "42"),
    ],
)
async def test_a_parameter_is_a_segment_decoded_after_splitting(serve, connect, path: str, room: str) -> None:
    wire = await connect(await serve(ROOMS))
    await wire.send(b"POST %b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
    assert (await wire.answer()).json() == ["rooms.[room].chat", {"room": room}, {"room": room}]


@pytest.mark.parametrize(
    "path",
    [
        "/rooms//chat",
        "/rooms/chat",
        "/rooms/42/chat/",
        "/rooms/42",
        "/rooms/42/43/chat",
        "/rooms.4.2.chat",
        "/rooms.42/chat",
        "/rooms/42.chat",
        "/rooms/%/chat",
        "/rooms/%4/chat",
        "/rooms/%zz/chat",
        "/rooms/%ff/chat",
        "/rooms%2F42%2Fchat",
        "/rooms%2E42%2Echat",
        "/Rooms/42/chat",
    ],
)
async def test_what_is_no_name_is_not_found(serve, connect, path: str) -> None:
    wire = await connect(await serve(ROOMS))
    await wire.send(b"POST %b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
    assert (await wire.answer()).status == 404


@pytest.mark.parametrize(("size", "status"), [(512, 200), (513, 404)])
async def test_a_name_of_more_than_512_bytes_is_not_found(serve, client, size: int, status: int) -> None:
    http = client(await serve(ROOMS))
    room = "a" * (size - len("rooms//chat"))
    assert (await http.post(f"/rooms/{room}/chat")).status_code == status


async def test_a_target_that_is_not_ascii_is_refused(serve, connect) -> None:
    wire = await connect(await serve(ROOMS))
    await wire.send("POST /rooms/café/chat HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (await wire.answer()).status == 400


async def test_a_parameter_fills_the_field_of_its_name(serve, client) -> None:
    source = """
        import msgspec

        class Query(msgspec.Struct):
            id: int
            limit: int = 5

        async def handler(input: Query, ctx):
            return [input.id, input.limit, ctx.params]
        """
    http = client(await serve({"users/[id].rpc.py": source}))
    assert (await http.post("/users/7", json={"limit": 1})).json() == [7, 1, {"id": "7"}]


async def test_a_parameter_that_does_not_fit_its_field_is_named(serve, client) -> None:
    source = "import msgspec\nclass Q(msgspec.Struct):\n    id: int\nasync def handler(input: Q):\n    return 1\n"
    answer = await client(await serve({"users/[id].rpc.py": source})).post("/users/me")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"][0]["path"]) == (400, "VALIDATION_ERROR", "id")


# Catch-all and optional


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/files/a", "a"),
        ("/files/a/b/c", "a/b/c"),
        ("/files.a.b", "a/b"),
        ("/files/a.txt", "a.txt"),
        ("/files/%C3%A9", "é"),
    ],
)
async def test_a_catch_all_takes_all_segments(serve, client, path: str, rest: str) -> None:
    http = client(await serve({"files/[...rest].rpc.py": SAY}))
    assert await said(http, path) == ["files.[...rest]", {"rest": rest}, {"rest": rest}]


async def test_a_catch_all_fills_a_list_with_its_segments(serve, client) -> None:
    source = (
        "import msgspec\nclass Q(msgspec.Struct):\n    rest: list[str]\n"
        "async def handler(input: Q):\n    return input.rest\n"
    )
    http = client(await serve({"files/[...rest].rpc.py": source}))
    assert (await http.post("/files/a/b")).json() == ["a", "b"]


@pytest.mark.parametrize("path", ["/files", "/files/", "/files//a"])
async def test_a_catch_all_takes_at_least_one_segment(serve, client, path: str) -> None:
    assert await said(client(await serve({"files/[...rest].rpc.py": SAY})), path) == 404


@pytest.mark.parametrize(("path", "params"), [("/posts", {}), ("/posts/7", {"page": "7"}), ("/posts.7", {"page": "7"})])
async def test_an_optional_segment_may_be_left_out(serve, client, path: str, params: dict[str, str]) -> None:
    http = client(await serve({"posts/[[page]].rpc.py": SAY}))
    assert await said(http, path) == ["posts.[[page]]", params, params]


async def test_an_optional_segment_is_one(serve, client) -> None:
    assert await said(client(await serve({"posts/[[page]].rpc.py": SAY})), "/posts/7/8") == 404


# Literal beats parameter beats catch-all, segment by segment

RIVALS = {
    "a/b/c.rpc.py": SAY,
    "a/b/[id].rpc.py": SAY,
    "a/[id]/c.rpc.py": SAY,
    "a/[id]/d.rpc.py": SAY,
    "a/[...rest].rpc.py": SAY,
    "[id]/b/x.rpc.py": SAY,
}


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/a/b/c", "a.b.c"),
        ("/a/b/x", "a.b.[id]"),
        ("/a/b/d", "a.b.[id]"),
        ("/a/x/c", "a.[id].c"),
        ("/a/x/d", "a.[id].d"),
        ("/a/x/x", "a.[...rest]"),
        ("/a/b", "a.[...rest]"),
        ("/a/b/c/d", "a.[...rest]"),
        ("/z/b/x", "[id].b.x"),
    ],
)
async def test_literal_beats_parameter_beats_catch_all(serve, client, path: str, route: str) -> None:
    assert (await said(client(await serve(RIVALS)), path))[0] == route


@pytest.mark.parametrize(
    "files",
    [
        ("users/list.rpc.py", "(admin)/users/list.rpc.py"),
        ("users.rpc.py", "users/index.rpc.py"),
        ("users/list.rpc.py", "users/list.stream.py"),
        ("users/[id].rpc.py", "users/[name].rpc.py"),
        ("users/[id]/a.rpc.py", "users/[name]/b.rpc.py"),
        ("users/list.rpc.py", "users/List.rpc.py"),
    ],
)
async def test_two_files_that_cannot_stand_side_by_side_are_named(serve, files: tuple[str, str]) -> None:
    sources = {file: STREAM if file.endswith(".stream.py") else SAY for file in files}
    with pytest.raises(ProjectError) as raised:
        await serve(sources)
    assert all(file in str(raised.value) for file in files)


@pytest.mark.parametrize("name", ["streams", "rpc", "ws", "docs", "health", "metrics"])
@pytest.mark.parametrize("file", ["{}.rpc.py", "{}/ask.rpc.py"])
async def test_a_procedure_may_not_take_a_path_of_the_server(serve, name: str, file: str) -> None:
    with pytest.raises(ProjectError):
        await serve({file.format(name): SAY})


@pytest.mark.parametrize("name", ["live", "probe"])
async def test_a_procedure_may_not_take_a_path_of_the_server_as_configured(serve, name: str) -> None:
    with pytest.raises(ProjectError):
        await serve({f"{name}.rpc.py": SAY}, websocket={"path": "/live"}, jsonrpc={"path": "/probe"})


async def test_a_stream_may_be_called_like_a_path_of_the_server(serve, client) -> None:
    http = client(await serve({"health.stream.py": STREAM}))
    answer = await http.get("/streams/health", headers={"Accept": "application/x-ndjson"})
    assert answer.json()[0] == "health"


# Below a base path


@pytest.mark.parametrize(("path", "status"), [("/api/ask", 200), ("/ask", 404), ("/apiask", 404), ("/api", 404)])
async def test_all_paths_are_below_the_base_path(serve, client, path: str, status: int) -> None:
    http = client(await serve({"ask.rpc.py": SAY}, base_path="/api"))
    assert (await http.post(path)).status_code == status


@pytest.mark.parametrize("path", ["/api/streams/logs/tail", "/api/health"])
async def test_streams_and_health_are_below_the_base_path_too(serve, client, path: str) -> None:
    http = client(await serve({"logs/tail.stream.py": STREAM}, base_path="/api"))
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("target", ["http://h/ask", "http://other:80/ask?x=1", "HTTP://h/ask"])
async def test_a_whole_url_is_its_path(serve, connect, target: str) -> None:
    wire = await connect(await serve({"ask.rpc.py": SAY}))
    await wire.send(b"POST %b HTTP/1.1\r\nHost: h\r\n\r\n" % target.encode())
    assert (await wire.answer()).status == 200
