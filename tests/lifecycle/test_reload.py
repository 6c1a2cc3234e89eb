"""Reload under open connections: streams go on with new code, unchanged ones notice nothing, errors change nothing."""

from __future__ import annotations

import asyncio
import gc
import itertools
import textwrap
import threading

import msgspec
import pytest

from raffel_core.context import Auth
from raffel_core.errors import ProjectError

NDJSON = "Accept: application/x-ndjson"

WORD = """
    import asyncio

    async def handler(input, ctx):
        yield "{word}"
        await asyncio.Event().wait()
    """
COUNT = """
    import asyncio

    async def handler(input):
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.0005)
    """
RESUMING = """
    # {version}
    import asyncio
    from msgspec import Struct
    from raffel_core import tracked

    class Query(Struct):
        step: int

    async def handler(input: Query, ctx):
        number = int(ctx.last_event_id or 0)
        yield tracked(number, ["{version}", input.step, ctx.last_event_id, ctx.restarted, ctx.params["room"]])
        while True:
            number += input.step
            yield tracked(number, number)
            await asyncio.sleep(0.001)
    """


@pytest.fixture
def save(project):
    """Writes route files; one whose text is None is removed."""

    def write(files):
        project({f"routes/{name}": text for name, text in files.items()})

    return write


@pytest.fixture
async def dev(serve):
    """Starts a server that restarts changed streams in place, as in development."""

    async def start(files, **options):
        return await serve(files, development=True, **options)

    return start


# Restart in place


async def test_a_changed_stream_goes_on_with_the_new_code(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word="old")})
    peer = await connect(server)
    await peer.stream("word")
    assert await peer.item() == "old"
    save({"word.stream.py": WORD.format(word="new")})
    assert (await server.reload()).changed == ("word",)
    assert await peer.item() == "new"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_has_its_own_input_its_last_id_and_knows_that_it_was_restarted(dev, connect, save, method):
    server = await dev({"rooms/[room]/items.stream.py": RESUMING.format(version=1)})
    peer = await connect(server)
    if method == "GET":
        await peer.stream("rooms/a%2Fb/items?step=3")
    else:
        await peer.stream("rooms/a%2Fb/items", method="POST", body=b'{"step": 3}')
    assert await peer.item() == ["1", 3, None, False, "a/b"]
    for number in range(1, 6):
        assert await peer.item() == 3 * number
    save({"rooms/[room]/items.stream.py": RESUMING.format(version=2)})
    await server.reload()
    last = 3 * 5
    while not isinstance(item := await peer.item(), list):
        assert item == last + 3  # nothing is lost between the last item of the old code and the first of the new
        last = item
    assert item == ["2", 3, str(last), True, "a/b"]
    assert await peer.item() == last + 3


async def test_the_id_that_a_client_came_with_stays_until_there_is_another(dev, connect, save):
    source = """
        # {version}
        import asyncio

        async def handler(input, ctx):
            yield [{version}, ctx.last_event_id]
            await asyncio.Event().wait()
        """
    server = await dev({"s.stream.py": source.format(version=1)})
    peer = await connect(server)
    await peer.stream("s", "Last-Event-ID: 41")
    assert await peer.item() == [1, "41"]
    save({"s.stream.py": source.format(version=2)})
    await server.reload()
    assert await peer.item() == [2, "41"]


@pytest.mark.parametrize("accept", ["Accept: text/event-stream", NDJSON])
async def test_many_reloads_are_many_restarts_on_one_connection(dev, connect, save, accept):
    server = await dev({"word.stream.py": WORD.format(word=0)})
    peer = await connect(server)
    await peer.stream("word", accept)
    for number in range(20):
        found = await (peer.line() if accept is NDJSON else peer.block())
        assert found.removeprefix(b"data: ") == b'"%d"' % number
        save({"word.stream.py": WORD.format(word=number + 1)})
        await server.reload()


@pytest.mark.parametrize(
    "handler",
    [
        "async def handler(input):\n    while True:\n        yield '{word}'\n",
        "def handler(input):\n    while True:\n        yield '{word}'\n",
        "import time\ndef handler(input):\n    while True:\n        yield '{word}'\n        time.sleep(0.001)\n",
        """
        import asyncio
        from raffel_core import create_stream

        async def handler(input):
            stream = create_stream()
            await stream.write('{word}')
            return stream
        """,
    ],
    ids=["restless", "plain", "plain and slow", "returned"],
)
async def test_handlers_of_every_shape_are_restarted(dev, connect, save, handler):
    handler = textwrap.dedent(handler)
    server = await dev({"s.stream.py": handler.format(word="old")})
    peer = await connect(server)
    await peer.stream("s")
    assert await peer.item() == "old"
    save({"s.stream.py": handler.format(word="new")})
    await server.reload()
    while await peer.item() != "new":
        pass


async def test_the_old_code_has_cleaned_up_before_the_new_code_begins(dev, connect, save, probe):
    source = """
        import asyncio
        import probe

        async def handler(input, ctx):
            probe.seen.append("begin {version}")
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                probe.seen.append(f"end {version}, {{ctx.signal.reason}}")
        """
    server = await dev({"s.stream.py": source.format(version=1)})
    peer = await connect(server)
    await peer.stream("s")
    await peer.item()
    save({"s.stream.py": source.format(version=2)})
    await server.reload()
    await peer.item()
    assert probe.seen == ["begin 1", "end 1, reloaded", "begin 2"]


async def test_one_that_waits_for_room_is_restarted_when_its_client_reads(dev, connect, save, eventually):
    source = "async def handler(input):\n    while True:\n        yield '{word}' * 100\n"
    server = await dev({"s.stream.py": source.format(word="old")})
    peer = await connect(server, 16 * 1024)
    await peer.stream("s")
    (connection,) = server._hub.connections
    await eventually(lambda: connection.outbox.paused)
    save({"s.stream.py": source.format(word="new")})
    await server.reload()
    items = [await peer.item()]
    while not items[-1].startswith("new"):
        items.append(await peer.item())
    assert set(items[:-1]) == {"old" * 100}


async def test_one_that_is_still_being_authenticated_is_restarted(dev, connect, save, probe):
    probe.Auth, probe.began, probe.go_on = Auth, asyncio.Event(), asyncio.Event()
    auth = """
        import probe

        async def authenticate(ctx):
            probe.began.set()
            await probe.go_on.wait()
            return probe.Auth("kai")
        """
    server = await dev({"_auth.py": auth, "word.stream.py": WORD.format(word="old")})
    peer = await connect(server)
    await peer.ask("/streams/word")
    await probe.began.wait()
    save({"word.stream.py": WORD.format(word="new")})
    await server.reload()
    probe.go_on.set()
    await peer.head()
    assert await peer.item() == "new"


async def test_a_deadline_is_not_prolonged(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word="old")})
    peer = await connect(server)
    await peer.stream("word", "timeout-ms: 300")
    assert await peer.item() == "old"
    save({"word.stream.py": WORD.format(word="new")})
    await server.reload()
    assert await peer.item() == "new"
    assert b"DEADLINE_EXCEEDED" in await peer.block()


async def test_an_input_that_no_longer_fits_ends_it(dev, connect, save):
    source = """
        import asyncio
        from msgspec import Struct

        class Query(Struct):
            limit: {type}

        async def handler(input: Query):
            yield 1
            await asyncio.Event().wait()
        """
    server = await dev({"s.stream.py": source.format(type="str")})
    peer = await connect(server)
    await peer.stream("s?limit=many")
    await peer.item()
    save({"s.stream.py": source.format(type="int")})
    await server.reload()
    event, data = (await peer.block()).split(b"\n")
    error = msgspec.json.decode(data.removeprefix(b"data: "))
    assert (event, error["code"], error["details"]) == (b"event: error", "UNAVAILABLE", {"reason": "reloaded"})
    await peer.rest()
    await peer.ask("/streams/s?limit=many")  # on the same connection
    assert (await peer.answer()).error()["code"] == "VALIDATION_ERROR"


async def test_one_that_is_now_a_stream_of_another_direction_ends(dev, connect, save):
    server = await dev({"s.stream.py": WORD.format(word="old")})
    peer = await connect(server)
    await peer.stream("s")
    await peer.item()
    save({"s.stream.py": "meta = {'direction': 'client'}\n\nasync def handler(items):\n    return 1\n"})
    await server.reload()
    assert b'"reason":"reloaded"' in await peer.rest()


async def test_new_code_that_raises_ends_it_with_its_error(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word="old")})
    peer = await connect(server)
    await peer.stream("word")
    await peer.item()
    failing = """
        from raffel_core import RaffelError

        async def handler(input):
            raise RaffelError("NOT_FOUND", "no more")
            yield
        """
    save({"word.stream.py": failing})
    await server.reload()
    assert b'"code":"NOT_FOUND"' in await peer.rest()


# What did not change


async def test_an_unchanged_route_is_the_same_and_its_streams_neither_lose_nor_repeat(dev, connect, save):
    server = await dev({"count.stream.py": COUNT, "other.stream.py": WORD.format(word=0)})
    route = server.router.routes["count"]
    peer = await connect(server)
    await peer.stream("count")
    for number in range(1, 21):
        save({"other.stream.py": WORD.format(word=number)})
        assert (await server.reload()).changed == ("other",)
        assert server.router.routes["count"] is route
    seen = [await peer.item() for _ in range(200)]
    assert seen == list(range(200))


async def test_a_call_finishes_on_the_old_code(dev, connect, save, probe):
    probe.began, probe.go_on = asyncio.Event(), asyncio.Event()
    source = """
        import probe

        async def handler(input):
            probe.began.set()
            await probe.go_on.wait()
            return {version}
        """
    server = await dev({"call.rpc.py": source.format(version=1), "gone.rpc.py": source.format(version=3)})
    peer, other = await connect(server), await connect(server)
    await peer.ask("/call", method="POST", body=b"{}")
    await probe.began.wait()
    probe.began.clear()
    await other.ask("/gone", method="POST", body=b"{}")
    await probe.began.wait()
    save({"call.rpc.py": source.format(version=2), "gone.rpc.py": None})
    changes = await server.reload()
    assert (changes.changed, changes.removed) == (("call",), ("gone",))
    probe.go_on.set()
    assert (await peer.answer()).body == b"1"
    assert (await other.answer()).body == b"3"
    assert (await peer.call("/call")).body == b"2"
    assert (await other.call("/gone")).status == 404


async def test_a_save_without_a_change_changes_nothing(dev, save, tmp_path):
    server = await dev({"word.stream.py": WORD.format(word="same")})
    router = dict(server.router.routes)
    save({"word.stream.py": WORD.format(word="same")})
    assert not any(await server.reload({tmp_path / "routes" / "word.stream.py"}))
    assert dict(server.router.routes) == router


# What fails

BROKEN = {
    "syntax": ("async def handler(input:\n", 1),
    "import": ("import absent_module\n\nasync def handler(input):\n    yield 1\n", 1),
    "exception": ("x = 1\ny = x / 0\n\nasync def handler(input):\n    yield 1\n", 2),
    "shape": ("\n\nasync def handler(input, ctx, more):\n    yield 1\n", 3),
    "export": ("inputSchema = int\n\nasync def handler(input):\n    yield 1\n", 1),
    "meta": ("meta = {\n    'prioritty': 1,\n}\n\nasync def handler(input):\n    yield 1\n", 2),
    "exit": ("import sys\nsys.exit(3)\n", 2),
    "bytes": ("\0", 1),
}


async def test_twenty_broken_saves_in_a_row_change_nothing_and_tell_file_and_line(dev, connect, save):
    server = await dev({"count.stream.py": COUNT, "word.stream.py": WORD.format(word="old")})
    routes = dict(server.router.routes)
    counting, word = await connect(server), await connect(server)
    await counting.stream("count")
    await word.stream("word")
    assert await word.item() == "old"
    for number in range(20):
        text, line = list(BROKEN.values())[number % len(BROKEN)]
        save({"word.stream.py": text + f"# {number}\n"})
        with pytest.raises(ProjectError) as caught:
            await server.reload()
        assert any(p.file.endswith("routes/word.stream.py") and p.line == line for p in caught.value.problems), text
        assert all(server.router.routes[name] is route for name, route in routes.items())
    assert [await counting.item() for _ in range(100)] == list(range(100))
    save({"word.stream.py": WORD.format(word="new")})
    assert (await server.reload()).changed == ("word",)
    assert await word.item() == "new"


async def test_every_problem_of_a_save_is_told(dev, save):
    server = await dev({"a.stream.py": WORD.format(word=1)})
    save({"a.stream.py": BROKEN["syntax"][0], "b.stream.py": BROKEN["shape"][0]})
    with pytest.raises(ProjectError) as caught:
        await server.reload()
    assert [(problem.file.rpartition("/")[2], problem.line) for problem in caught.value.problems] == [
        ("a.stream.py", 1),
        ("b.stream.py", 3),
    ]


async def test_a_conflict_changes_nothing(dev, connect, save):
    server = await dev({"rooms/[room].stream.py": WORD.format(word="room")})
    save({"rooms/[name].stream.py": WORD.format(word="name")})
    with pytest.raises(ProjectError, match=r"rooms/\[room\]\.stream\.py"):
        await server.reload()
    peer = await connect(server)
    await peer.stream("rooms/1")
    assert await peer.item() == "room"


async def test_a_module_that_hangs_while_it_is_loaded_holds_no_stream_up(dev, connect, save, probe):
    probe.release = threading.Event()
    server = await dev({"count.stream.py": COUNT, "word.stream.py": WORD.format(word=1)})
    peer = await connect(server)
    await peer.stream("count")
    save({"word.stream.py": "import probe\nprobe.release.wait(10)\n" + textwrap.dedent(WORD).format(word=2)})
    reloading = asyncio.create_task(server.reload())
    try:
        assert [await peer.item() for _ in range(100)] == list(range(100))
        assert not reloading.done()
    finally:
        probe.release.set()
    assert (await reloading).changed == ("word",)


async def test_one_that_is_cancelled_is_over_before_the_next_begins(dev, save, probe):
    probe.release, probe.loads = threading.Event(), []
    server = await dev({"word.stream.py": WORD.format(word=1)})
    slow = "import probe\nprobe.loads.append('begin')\nprobe.release.wait(10)\nprobe.loads.append('end')\n"
    save({"word.stream.py": slow + textwrap.dedent(WORD).format(word=2)})
    first = asyncio.create_task(server.reload())
    async with asyncio.timeout(10):
        while not probe.loads:
            await asyncio.sleep(0.001)
    first.cancel()
    second = asyncio.create_task(server.reload())
    await asyncio.sleep(0.01)
    assert probe.loads == ["begin"]
    probe.release.set()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert probe.loads == ["begin", "end"]


# What is added and removed


async def test_the_streams_of_a_removed_route_end(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word="old"), "stays.stream.py": WORD.format(word="stays")})
    sse, ndjson = await connect(server), await connect(server)
    await sse.stream("word")
    await ndjson.stream("word", NDJSON)
    save({"word.stream.py": None})
    assert (await server.reload()).removed == ("word",)
    event, data = (await sse.rest()).split(b"\n\n")[-2].split(b"\n")
    assert event == b"event: error" and b'"reason":"reloaded"' in data
    assert msgspec.json.decode((await ndjson.rest()).splitlines()[-1])["error"]["code"] == "UNAVAILABLE"
    await sse.ask("/streams/word")
    assert (await sse.answer()).status == 404


async def test_an_added_route_is_answered(dev, connect, save):
    server = await dev({})
    peer = await connect(server)
    await peer.ask("/streams/word")
    assert (await peer.answer()).status == 404
    save({"deep/er/word.stream.py": WORD.format(word="here")})
    assert (await server.reload()).added == ("deep.er.word",)
    await peer.stream("deep/er/word")
    assert await peer.item() == "here"


# The policies


async def test_finish_lets_them_finish_on_the_old_code(dev, connect, save):
    server = await dev({"count.stream.py": COUNT}, reload={"streams": "finish"})
    peer, other = await connect(server), await connect(server)
    await peer.stream("count")
    save({"count.stream.py": WORD.format(word="new")})
    await server.reload()
    assert [await peer.item() for _ in range(100)] == list(range(100))
    await other.stream("count")
    assert await other.item() == "new"


async def test_it_is_the_default_of_production(serve, connect, save):
    server = await serve({"count.stream.py": COUNT})
    peer = await connect(server)
    await peer.stream("count")
    save({"count.stream.py": WORD.format(word="new")})
    await server.reload()
    assert [await peer.item() for _ in range(100)] == list(range(100))


async def test_end_ends_them(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word="old"), "count.stream.py": COUNT}, reload={"streams": "end"})
    peer, counting = await connect(server), await connect(server)
    await peer.stream("word")
    await counting.stream("count")
    save({"word.stream.py": WORD.format(word="new")})
    await server.reload()
    assert b'"reason":"reloaded"' in await peer.rest()
    assert [await counting.item() for _ in range(100)] == list(range(100))  # of an unchanged route


# What routes are made from


async def test_a_changed_middleware_restarts_the_streams_below_it(dev, connect, save):
    middleware = """
        async def middleware(call, call_next):
            call.ctx.state.word = "{word}"
            return await call_next(call)
        """
    source = """
        import asyncio

        async def handler(input, ctx):
            yield ctx.state.word
            await asyncio.Event().wait()
        """
    files = {"in/_middleware.py": middleware.format(word="old"), "in/s.stream.py": source}
    server = await dev({**files, "out.stream.py": WORD.format(word="out")})
    peer = await connect(server)
    await peer.stream("in/s")
    assert await peer.item() == "old"
    save({"in/_middleware.py": middleware.format(word="new")})
    assert (await server.reload()).changed == ("in.s",)
    assert await peer.item() == "new"


async def test_a_changed_authentication_is_asked_again(dev, connect, save):
    auth = """
        from raffel_core import Auth

        async def authenticate(ctx):
            return {result}
        """
    source = """
        import asyncio

        async def handler(input, ctx):
            yield ctx.auth.principal
            await asyncio.Event().wait()
        """
    server = await dev({"_auth.py": auth.format(result="Auth('old')"), "s.stream.py": source})
    peer = await connect(server)
    await peer.stream("s")
    assert await peer.item() == "old"
    save({"_auth.py": auth.format(result="Auth('new')")})
    assert (await server.reload()).changed == ("s",)
    assert await peer.item() == "new"
    save({"_auth.py": auth.format(result="None")})
    await server.reload()
    assert b'"code":"UNAUTHENTICATED"' in await peer.rest()


async def test_a_changed_module_restarts_the_streams_that_import_it(dev, connect, project, tmp_path):
    source = """
        import asyncio
        from lifecycle_words.current import WORD

        async def handler(input):
            yield WORD
            await asyncio.Event().wait()
        """
    project({"lifecycle_words/current.py": "from .stem import STEM\nWORD = STEM + '!'\n"})
    project({"lifecycle_words/stem.py": "STEM = 'old'\n"})
    server = await dev({"s.stream.py": source, "other.stream.py": WORD.format(word="other")})
    peer = await connect(server)
    await peer.stream("s")
    assert await peer.item() == "old!"
    project({"lifecycle_words/stem.py": "STEM = 'new'\n"})
    assert (await server.reload({tmp_path / "lifecycle_words" / "stem.py"})).changed == ("s",)
    assert await peer.item() == "new!"


# The lifespan

APP = """
    import probe

    async def lifespan(app):
        app.state.version = {version}
        probe.seen.append("up {version}")
        {trouble}
        yield
        probe.seen.append("down {version}")
    """
USER = """
    # {version}
    import asyncio
    import probe

    async def handler(input, ctx):
        try:
            yield ctx.app.state.version
            await asyncio.Event().wait()
        finally:
            probe.seen.append("user of %s gone" % ctx.app.state.version)
    """


def app(version, trouble="pass"):
    return APP.format(version=version, trouble=trouble)


async def test_the_lifespan_survives_reloads_of_routes(dev, connect, save, probe):
    server = await dev({"_app.py": app(1), "user.stream.py": USER.format(version=1)})
    server._hub.app.state.extra = "kept"
    for version in range(2, 5):
        save({"user.stream.py": USER.format(version=version)})
        await server.reload()
    assert probe.seen == ["up 1"]
    assert server._hub.app.state.extra == "kept"
    await server.stop()
    assert probe.seen == ["up 1", "down 1"]


async def test_a_changed_lifespan_runs_anew_and_the_old_one_cleans_up_after_its_last_call(
    dev, connect, save, probe, eventually
):
    server = await dev({"_app.py": app(1), "user.stream.py": USER.format(version=1)})
    peer = await connect(server)
    await peer.stream("user")
    assert await peer.item() == 1
    save({"_app.py": app(2)})
    assert not any(await server.reload())
    assert await peer.item() == 2  # restarted, though its route is the same
    await eventually(lambda: "down 1" in probe.seen)
    assert probe.seen == ["up 1", "up 2", "user of 1 gone", "down 1"]


async def test_with_finish_the_old_lifespan_stays_as_long_as_its_streams(serve, connect, save, probe, eventually):
    server = await serve({"_app.py": app(1), "user.stream.py": USER.format(version=1)})
    old, new = await connect(server), await connect(server)
    await old.stream("user")
    assert await old.item() == 1
    save({"_app.py": app(2)})
    await server.reload()
    await new.stream("user")
    assert await new.item() == 2
    await asyncio.sleep(0.05)
    assert probe.seen == ["up 1", "up 2"]
    old.vanish()
    await eventually(lambda: "down 1" in probe.seen)
    assert probe.seen == ["up 1", "up 2", "user of 1 gone", "down 1"]


async def test_a_lifespan_that_fails_keeps_the_old_one_and_the_old_routes(dev, connect, save, probe):
    server = await dev({"_app.py": app(1), "user.stream.py": USER.format(version=1)})
    peer = await connect(server)
    await peer.stream("user")
    assert await peer.item() == 1
    route = server.router.routes["user"]
    save({"_app.py": app(2, "raise ConnectionError('no database')"), "user.stream.py": USER.format(version=2)})
    with pytest.raises(ProjectError, match=r"_app\.py:7: ConnectionError: no database"):
        await server.reload()
    assert server.router.routes["user"] is route
    assert server._hub.app.state.version == 1
    assert probe.seen == ["up 1", "up 2"]


async def test_it_is_tried_again_with_the_next_save(dev, connect, save, probe):
    server = await dev({"_app.py": app(1), "user.stream.py": USER.format(version=1)})
    peer = await connect(server)
    await peer.stream("user")
    assert await peer.item() == 1
    probe.reachable = False
    save({"_app.py": app(2, "assert probe.reachable")})
    with pytest.raises(ProjectError):
        await server.reload()
    probe.reachable = True
    save({"user.stream.py": USER.format(version=2)})
    await server.reload()
    assert server._hub.app.state.version == 2
    assert await peer.item() == 2


async def test_a_removed_lifespan_cleans_up(dev, save, probe, eventually):
    server = await dev({"_app.py": app(1)})
    save({"_app.py": None})
    await server.reload()
    await eventually(lambda: probe.seen == ["up 1", "down 1"])
    save({"_app.py": app(2)})
    await server.reload()
    assert probe.seen == ["up 1", "down 1", "up 2"]


async def test_a_lifespan_whose_imports_changed_runs_anew(dev, project, save, probe, tmp_path):
    project({"lifecycle_db.py": "NAME = 'old'\n"})
    source = """
        import lifecycle_db
        import probe

        async def lifespan(app):
            probe.seen.append(lifecycle_db.NAME)
            yield
        """
    server = await dev({"_app.py": source})
    project({"lifecycle_db.py": "NAME = 'new'\n"})
    await server.reload({tmp_path / "lifecycle_db.py"})
    assert probe.seen == ["old", "new"]


async def test_a_shutdown_lets_every_lifespan_clean_up(serve, connect, save, probe):
    server = await serve({"_app.py": app(1), "user.stream.py": USER.format(version=1)})
    peer = await connect(server)
    await peer.stream("user")
    assert await peer.item() == 1
    save({"_app.py": app(2)})
    await server.reload()
    await server.stop()
    assert sorted(probe.seen) == ["down 1", "down 2", "up 1", "up 2", "user of 1 gone"]


async def test_a_shutdown_during_a_reload_leaves_no_lifespan_behind(dev, save, probe):
    probe.began, probe.go_on = asyncio.Event(), asyncio.Event()
    server = await dev({"_app.py": app(1)})
    save({"_app.py": app(2, "probe.began.set(); await probe.go_on.wait()")})
    reloading = asyncio.create_task(server.reload())
    await probe.began.wait()
    await server.stop()
    probe.go_on.set()
    with pytest.raises(RuntimeError, match="not running"):
        await reloading
    assert probe.seen == ["up 1", "up 2", "down 1", "down 2"]


# Memory


async def test_what_was_replaced_is_forgotten(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word=0), "count.stream.py": COUNT})
    peer = await connect(server)
    await peer.stream("word")

    words = itertools.count(1)

    async def objects_after(reloads):
        for word in itertools.islice(words, reloads):
            save({"word.stream.py": WORD.format(word=word)})
            await server.reload()
            while await peer.item() != str(word):
                pass
        gc.collect()
        return len(gc.get_objects())

    before = await objects_after(10)
    assert await objects_after(200) - before < 200 * 5  # a route is some fifty objects
