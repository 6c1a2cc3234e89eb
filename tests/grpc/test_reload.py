"""A reload under open calls: streams whose messages are the same go on with new code, others are told why they end."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from raffel_core.errors import ProjectError

from .conftest import described, failure

STREAM = """
    # {version}
    import asyncio
    from collections.abc import AsyncIterator
    from msgspec import Struct
    from raffel_core import tracked

    meta = {{"resumable": True}}

    class Query(Struct):
        step: int
        {query}

    class Step(Struct):
        number: int
        version: int
        restarted: bool
        after: str
        {step}

    async def handler(input: Query, ctx) -> AsyncIterator[Step]:
        number = int(ctx.last_event_id or 0)
        while True:
            number += input.step
            yield tracked(number, Step(number, {version}, ctx.restarted, ctx.last_event_id or ""))
            await asyncio.sleep(0.001)
    """
PATH = "/Steps/Run"


def stream(version: int, query: str = "", step: str = "") -> dict[str, str]:
    return {"steps/run.stream.py": STREAM.format(version=version, query=query, step=step)}


@pytest.fixture
def save(project):
    """Writes route files; one whose text is None is removed."""

    def write(files):
        project({f"routes/{name}": text for name, text in files.items()})

    return write


@pytest.fixture
def dev(serve, tls):
    """Starts a server that restarts changed streams in place, as in development."""

    async def start(files, *, development=True, **options):
        if tls is not None:
            options["tls"] = tls.options
        return await serve(files, development=development, **options)

    return start


async def opened(client):
    """A stream that runs."""
    run = client[PATH]
    call = run(run.request(step=3))
    assert [(await call.read()).number for _ in range(3)] == [3, 6, 9]
    return call


async def first_of(call, version: int, last: int = 9):
    """The first item of the new code, behind those of the old one without a gap."""
    while (item := await call.read()).version != version:
        assert item.number == last + 3
        last = item.number
    assert item.number == last + 3
    return item, last


async def test_a_stream_with_the_same_messages_goes_on_with_the_new_code(dev, connect, save):
    server = await dev(stream(1))
    call = await opened(await connect(server))
    save(stream(2))
    assert (await server.reload()).changed == ("steps.run",)
    item, last = await first_of(call, 2)
    assert (item.restarted, item.after) == (True, str(last))
    call.cancel()


async def test_a_changed_request_is_no_reason_to_end(dev, connect, save):
    server = await dev(stream(1))
    call = await opened(await connect(server))
    save(stream(2, query="most: int = 5"))
    await server.reload()
    item, _ = await first_of(call, 2)
    assert item.restarted
    call.cancel()


async def test_a_request_that_fits_no_more_ends_the_stream(dev, connect, save):
    server = await dev(stream(1))
    call = await opened(await connect(server))
    save(stream(2, query="most: dict[str, int]\n        inner: 'Step'"))
    await server.reload()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        while True:
            assert (await call.read()).version == 1
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_changed_response_ends_the_stream_with_a_reason(dev, connect, save):
    server = await dev(stream(1))
    call = await opened(await connect(server))
    save(stream(2, step="more: int = 0"))
    await server.reload()

    async def rest():
        while True:
            assert (await call.read()).version == 1

    found = await failure(rest())
    assert (found.code, found.error["details"]) == ("UNAVAILABLE", {"reason": "reloaded"})


async def test_who_comes_back_gets_the_new_message(dev, connect, save):
    server = await dev(stream(1))
    await connect(server)
    save(stream(2, step="more: int = 7"))
    await server.reload()
    client = await connect(server)
    run = client[PATH]
    call = run(run.request(step=3), metadata=(("last-event-id", "30"),))
    item = await call.read()
    assert (item.number, item.version, item.restarted, item.after, item.more) == (33, 2, False, "30", 7)
    call.cancel()


async def test_reflection_shows_the_new_messages_over_an_open_connection(dev, connect, save, tls):
    server = await dev(stream(1))
    await connect(server)
    before = (await asyncio.to_thread(described, server, tls))[PATH]
    save(stream(2, query="most: int = 5", step="more: int = 0"))
    await server.reload()
    after = (await asyncio.to_thread(described, server, tls))[PATH]
    assert names(after.output_type) - names(before.output_type) == {"more"}
    assert names(after.input_type) - names(before.input_type) == {"most"}


def names(message) -> set[str]:
    return {field.name for field in message.fields}


async def test_methods_come_and_go(dev, connect, save, tls):
    server = await dev(stream(1))
    client = await connect(server)
    call = await opened(client)
    save({"steps/run.stream.py": None, "steps/one.rpc.py": "async def handler(input) -> int:\n    return 1\n"})
    difference = await server.reload()
    assert (difference.added, difference.removed) == (("steps.one",), ("steps.run",))

    async def rest():
        while True:
            await call.read()

    found = await failure(rest())
    assert (found.code, found.error["details"]) == ("UNAVAILABLE", {"reason": "reloaded"})
    run = client[PATH]
    assert (await failure(run(run.request(step=1)).read())).code == "UNIMPLEMENTED"
    paths = await asyncio.to_thread(described, server, tls)
    assert [path for path in paths if not path.startswith("/grpc.")] == ["/Steps/One"]
    again = await connect(server)
    assert (await again["/Steps/One"](again["/Steps/One"].request())).value == 1


async def test_an_unchanged_stream_notices_nothing(dev, connect, save):
    server = await dev({**stream(1), "other.rpc.py": "async def handler(input) -> int:\n    return 1\n"})
    client = await connect(server)
    call = await opened(client)
    other = client["/Root/Other"]
    last = 9
    for number in range(2, 6):
        save({"other.rpc.py": f"async def handler(input) -> int:\n    return {number}\n"})
        await server.reload()
        assert (await other(other.request())).value == number
        item = await call.read()
        assert (item.number, item.version, item.restarted) == (last + 3, 1, False)
        last = item.number
    call.cancel()


async def test_a_reload_that_fails_changes_nothing(dev, connect, save):
    taken = 'meta = {{"grpc": {{"method": "X"}}}}\nasync def handler(input):\n    return {}\n'
    server = await dev({**stream(1), "a.rpc.py": taken.format(1)})
    client = await connect(server)
    call = await opened(client)
    save({"b.rpc.py": taken.format(2)})
    with pytest.raises(ProjectError) as raised:
        await server.reload()
    assert "routes/a.rpc.py" in str(raised.value) and "routes/b.rpc.py" in str(raised.value)
    assert (await call.read()).version == 1
    assert (await client["/Root/X"](client["/Root/X"].request())).number_value == 1
    call.cancel()


async def test_with_finish_open_streams_go_on_with_the_old_code_and_new_ones_with_the_new(dev, connect, save):
    server = await dev(stream(1), development=False)
    client = await connect(server)
    old = await opened(client)
    save(stream(2))
    await server.reload()
    run = client[PATH]
    new = run(run.request(step=3))
    assert (await new.read()).version == 2
    for _ in range(20):
        assert (await old.read()).version == 1
    old.cancel()
    new.cancel()


UPLOAD = """
    # {version}
    from collections.abc import AsyncIterator
    from msgspec import Struct

    meta = {{"direction": "bidi"}}

    class Part(Struct):
        number: int
        {part}

    async def handler(items: AsyncIterator[Part]) -> AsyncIterator[int]:
        async for part in items:
            yield part.number * {version}
    """


async def test_a_bidi_stream_stays_with_its_code_and_its_messages(dev, connect, save):
    server = await dev({"up.stream.py": UPLOAD.format(version=1, part="")})
    client = await connect(server)
    up = client["/Root/Up"]
    call = up()
    await call.write(up.request(number=7))
    assert (await call.read()).value == 7
    save({"up.stream.py": UPLOAD.format(version=2, part="name: str = 'x'")})
    await server.reload()
    await call.write(up.request(number=8))
    assert (await call.read()).value == 8
    fresh = up()
    await fresh.write(up.request(number=8))
    assert (await fresh.read()).value == 16
    for one in (call, fresh):
        await one.done_writing()
        assert await one.read() is grpc.aio.EOF
