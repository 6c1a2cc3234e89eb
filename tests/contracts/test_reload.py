"""A reload under open calls: what goes on, with which code, and what ends."""

from __future__ import annotations

import asyncio

import pytest

from raffel_core.route import Kind

from .clients.call import Can, End
from .clients.table import every_call, every_protocol, over
from .handlers import Watched, route_file

READS = [Kind.CLIENT, Kind.BIDI]

RESUMING = """
    import probe
    from raffel_core import tracked

    async def handler(input, ctx):
        try:
            known = [input, ctx.params, ctx.last_event_id, ctx.restarted, ctx.request_id]
            yield tracked("{version}", ["{version}", *known])
            await probe.wait()
            yield "{version} went on"
        finally:
            probe.reasons.append(ctx.signal.reason)
    """
FIRST, SECOND = (RESUMING.format(version=version) for version in ("first", "second"))
READING = """
    async def handler(items, ctx):
        found = ["{version}"]
        async for item in items:
            found.append(item)
        {last} found

    meta = {meta}
    """


@pytest.fixture
def go_on(probe):
    """Lets the handlers go on."""
    event = asyncio.Event()
    probe.wait, probe.reasons = event.wait, []
    return event


@pytest.fixture
def save(project):
    """Writes route files; one whose text is None is removed."""

    def write(files):
        project({f"routes/{name}": text for name, text in files.items()})

    return write


def reading(kind, version):
    source = READING.format(version=version, last="yield" if kind.writes else "return", meta={"direction": str(kind)})
    return {"parts.stream.py": source}


# Restart, as in development


@over(Kind.SERVER)
async def test_a_changed_stream_goes_on_in_place_with_the_new_code(serve, connect, save, go_on, probe):
    server = await serve({"rooms/[room].stream.py": FIRST}, development=True)
    client = await connect(server)
    call = await client.open(Kind.SERVER, "rooms.42", {"a": 1})
    before = await call.data()
    assert before[:-1] == ["first", {"a": 1, "room": "42"}, {"room": "42"}, None, False]
    save({"rooms/[room].stream.py": SECOND})
    await server.reload()
    after = await call.data()
    assert after == ["second", {"a": 1, "room": "42"}, {"room": "42"}, "first", True, before[-1]]
    assert probe.reasons == ["reloaded"]
    go_on.set()
    assert await call.all() == (["second went on"], End())


@over(Kind.SERVER, Can.RESUME)
async def test_the_id_that_the_client_came_with_stays_until_there_is_another(serve, connect, save):
    source = """
        import asyncio

        async def handler(input, ctx):
            yield [{n}, ctx.last_event_id]
            await asyncio.Event().wait()
        """
    server = await serve({"s.stream.py": source.format(n=1)}, development=True)
    client = await connect(server)
    call = await client.open(Kind.SERVER, "s", last_event_id="41")
    assert await call.data() == [1, "41"]
    save({"s.stream.py": source.format(n=2)})
    await server.reload()
    assert await call.data() == [2, "41"]


@over(Kind.SERVER)
async def test_a_stream_whose_input_no_longer_fits_ends_as_reloaded(serve, connect, save, go_on):
    server = await serve({"s.stream.py": FIRST}, development=True)
    client = await connect(server)
    call = await client.open(Kind.SERVER, "s", {"limit": "many"})
    await call.item()
    save({"s.stream.py": SECOND.replace("(input,", "(input: dict[str, int],")})
    await server.reload()
    failure = await call.failure()
    assert (failure.code, failure.details) == ("UNAVAILABLE", {"reason": "reloaded"})


@over(Kind.SERVER)
async def test_a_stream_that_did_not_change_notices_nothing(serve, connect, save, go_on, probe):
    server = await serve({"s.stream.py": FIRST, "other.stream.py": FIRST}, development=True)
    client = await connect(server)
    call = await client.open(Kind.SERVER, "s")
    await call.item()
    save({"other.stream.py": SECOND})
    await server.reload()
    go_on.set()
    assert await call.all() == (["first went on"], End())
    assert probe.reasons == [None]


@every_call(kinds=READS)
async def test_a_stream_that_reads_finishes_on_the_old_code(serve, connect, save, eventually, kind):
    server = await serve(reading(kind, "first"), development=True)
    client = await connect(server)
    old = await client.open(kind, "parts")
    await old.send(1)
    await eventually(lambda: server._hub.sessions)
    save(reading(kind, "second"))
    await server.reload()
    new = await client.open(kind, "parts")
    for call in (old, new):
        await call.send(2)
        await call.end()
    assert await old.value() == ["first", 1, 2]
    assert await new.value() == ["second", 2]


@over(Kind.UNARY)
async def test_a_procedure_finishes_on_the_old_code(serve, connect, save, probe):
    watched = probe.body = Watched()
    (name, source), *_ = route_file(Kind.UNARY).items()
    server = await serve({name: source}, development=True)
    client = await connect(server)
    call = await client.open(Kind.UNARY, "call")
    await watched.began.wait()
    save({name: "async def handler():\n    return 'new'\n"})
    await server.reload()
    assert await (await client.open(Kind.UNARY, "call")).value() == "new"
    watched.go_on.set()
    assert await call.value() == "done"


# What is gone


@every_call(kinds=[Kind.SERVER, Kind.CLIENT, Kind.BIDI])
@pytest.mark.parametrize("development", [True, False], ids=["dev", "serve"])
async def test_a_stream_whose_route_was_removed_ends_as_reloaded(
    serve, connect, save, eventually, probe, kind, development
):
    watched = probe.body = Watched()
    (name, source), *_ = route_file(kind).items()
    server = await serve({name: source}, development=development)
    client = await connect(server)
    call = await client.open(kind, "call")
    await watched.began.wait()
    save({name: None})
    assert (await server.reload()).removed == ("call",)
    failure = await call.failure()
    assert (failure.code, failure.details) == ("UNAVAILABLE", {"reason": "reloaded"})
    await eventually(lambda: watched.steps == ["reloaded", ("UNAVAILABLE", "reloaded")])
    assert (await (await client.open(kind, "call", {})).failure()).code == "NOT_FOUND"


# The other policies


@every_call(kinds=[Kind.SERVER, Kind.BIDI, Kind.CLIENT])
async def test_where_streams_finish_a_changed_one_does(serve, connect, save, probe, kind):
    watched = probe.body = Watched()
    (name, source), *_ = route_file(kind).items()
    server = await serve({name: source}, reload={"streams": "finish"})
    client = await connect(server)
    call = await client.open(kind, "call")
    await watched.began.wait()
    save({name: source + "# changed\n"})
    assert (await server.reload()).changed == ("call",)
    watched.go_on.set()
    assert await call.value() == "done"
    assert watched.steps[0] is None


@every_call(kinds=[Kind.SERVER, Kind.BIDI, Kind.CLIENT])
async def test_where_streams_end_a_changed_one_does(serve, connect, save, probe, kind):
    watched = probe.body = Watched()
    (name, source), *_ = route_file(kind).items()
    server = await serve({name: source}, reload={"streams": "end"})
    client = await connect(server)
    call = await client.open(kind, "call")
    await watched.began.wait()
    save({name: source + "# changed\n"})
    await server.reload()
    failure = await call.failure()
    assert (failure.code, failure.details) == ("UNAVAILABLE", {"reason": "reloaded"})


@every_protocol()
async def test_a_client_finds_new_routes_without_connecting_anew(serve, connect, save, probe, kind):
    probe.body = Watched()
    probe.body.go_on.set()
    server = await serve({})
    client = await connect(server)
    assert (await (await client.open(kind, "call", {})).failure()).code == "NOT_FOUND"
    save(route_file(kind))
    await server.reload()
    assert await (await client.open(kind, "call", {})).value() == "done"
