"""Reload under open connections that carry many calls: each goes on, finishes or ends as the policy says."""

from __future__ import annotations

import asyncio

import pytest

WORD = """
    import asyncio

    async def handler(input, ctx):
        yield "{word}"
        await asyncio.Event().wait()
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
ECHO = """
    meta = {{"direction": "bidi"}}

    async def handler(input):
        async for item in input:
            yield "{word} " + item
    """
COLLECT = """
    meta = {{"direction": "client"}}

    async def handler(input):
        return ["{word}"] + [item async for item in input]
    """
# Full speed, resumable: what the old code gave last is what the new code goes on behind.
COUNT = """
    # {version}
    from raffel_core import tracked

    async def handler(input, ctx):
        number = int(ctx.last_event_id or 0)
        while True:
            number += 1
            yield tracked(number, [number, {version}, "x" * {size}])
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
    server = await dev({"word.stream.py": WORD.format(word="old"), "stays.stream.py": WORD.format(word="stays")})
    client = await connect(server)
    await client.start("w", "word")
    assert await client.items("w", 1) == ["old"]
    await client.start("s", "stays")
    assert await client.items("s", 1) == ["stays"]
    save({"word.stream.py": WORD.format(word="new")})
    assert (await server.reload()).changed == ("word",)
    assert await client.items("w", 1) == ["new"]
    await client.nothing()


async def test_it_has_its_own_input_its_last_id_and_knows_that_it_was_restarted(dev, connect, save):
    server = await dev({"rooms/[room]/items.stream.py": RESUMING.format(version=1)})
    client = await connect(server)
    await client.start("s", "rooms/a/items", {"step": 3})
    assert await client.items("s", 6) == [["1", 3, None, False, "a"], 3, 6, 9, 12, 15]
    save({"rooms/[room]/items.stream.py": RESUMING.format(version=2)})
    await server.reload()
    last = 15
    while not isinstance(item := (await client.receive())["payload"], list):
        assert item == last + 3
        last = item
    assert item == ["2", 3, str(last), True, "a"]
    assert await client.items("s", 1) == [last + 3]


async def test_the_id_that_the_client_came_with_stays_until_there_is_another(dev, connect, save):
    source = """
        # {version}
        import asyncio

        async def handler(input, ctx):
            yield [{version}, ctx.last_event_id]
            await asyncio.Event().wait()
        """
    server = await dev({"s.stream.py": source.format(version=1)})
    client = await connect(server)
    await client.start("s", "s", lastEventId="41")
    assert await client.items("s", 1) == [[1, "41"]]
    save({"s.stream.py": source.format(version=2)})
    await server.reload()
    assert await client.items("s", 1) == [[2, "41"]]


async def test_a_hundred_streams_of_one_connection_are_restarted(dev, connect, save):
    server = await dev({"word.stream.py": WORD.format(word="old")})
    client = await connect(server)
    for id in range(100):
        await client.start(str(id), "word")
    assert {(await client.receive())["payload"] for _ in range(100)} == {"old"}
    save({"word.stream.py": WORD.format(word="new")})
    await server.reload()
    found = [await client.receive() for _ in range(100)]
    assert {envelope["payload"] for envelope in found} == {"new"}
    assert len({envelope["id"] for envelope in found}) == 100


# With flow control


async def test_one_that_waits_for_credit_is_restarted_and_keeps_its_credit(dev, connect, save):
    server = await dev({"count.stream.py": COUNT.format(version=1, size=1)})
    client = await connect(server)
    await client.start("s", "count", credit=3)
    assert [item[:2] for item in await client.items("s", 3)] == [[1, 1], [2, 1], [3, 1]]
    save({"count.stream.py": COUNT.format(version=2, size=1)})
    await server.reload()
    await client.nothing()
    await client.say("stream:credit", "s", credit=2)
    assert [item[:2] for item in await client.items("s", 2)] == [[4, 2], [5, 2]]
    await client.nothing()


async def test_many_reloads_use_up_no_credit(dev, connect, save):
    server = await dev({"count.stream.py": COUNT.format(version=0, size=1)})
    client = await connect(server)
    await client.start("s", "count", credit=1)
    assert [item[:2] for item in await client.items("s", 1)] == [[1, 0]]
    for version in range(1, 10):
        save({"count.stream.py": COUNT.format(version=version, size=1)})
        await server.reload()
    await client.nothing()
    await client.say("stream:credit", "s", credit=2)
    assert [item[:2] for item in await client.items("s", 2)] == [[2, 9], [3, 9]]


@pytest.mark.parametrize("size", [10, 1000])
async def test_a_queue_that_is_full_keeps_its_items_and_their_order(dev, connect, save, eventually, size):
    server = await dev({"count.stream.py": COUNT.format(version=1, size=size)})
    client = await connect(server, 4 * 1024)
    await client.start("s", "count")
    await eventually(lambda: server._hub.sessions)
    (connection,) = server._hub.connections
    await eventually(lambda: connection.outbox.paused and connection._waiters)
    save({"count.stream.py": COUNT.format(version=2, size=size)})
    await server.reload()
    await asyncio.sleep(0.02)
    version, last = 1, 0
    while version == 1 or last < 5000:
        number, version, _ = (await client.receive())["payload"]
        assert number == last + 1
        last = number


async def test_credit_that_comes_meanwhile_is_not_lost(dev, connect, save, probe_slow):
    """The old code cleans up for a while; the grant comes then."""
    server = await dev({"slow.stream.py": probe_slow.format(version=1)})
    client = await connect(server)
    await client.start("s", "slow", credit=1)
    assert await client.items("s", 1) == [[1, 1]]
    save({"slow.stream.py": probe_slow.format(version=2)})
    await server.reload()
    await client.say("stream:credit", "s", credit=2)
    assert await client.items("s", 2) == [[2, 2], [3, 2]]
    await client.nothing()


@pytest.fixture
def probe_slow():
    return """
        # {version}
        import asyncio
        from raffel_core import tracked

        async def handler(input, ctx):
            number = int(ctx.last_event_id or 0)
            try:
                while True:
                    number += 1
                    yield tracked(number, [number, {version}])
            finally:
                await asyncio.sleep(0.05)
        """


async def test_a_cancel_while_the_old_code_cleans_up_ends_it(dev, connect, save, probe_slow):
    server = await dev({"slow.stream.py": probe_slow.format(version=1)})
    client = await connect(server)
    await client.start("s", "slow", credit=1)
    await client.items("s", 1)
    save({"slow.stream.py": probe_slow.format(version=2)})
    await server.reload()
    await client.say("stream:credit", "s", credit=5)
    await client.say("cancel", "s")
    answer = await client.receive()
    assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "CANCELLED")
    await client.nothing(0.1)


# Client and bidi streams


@pytest.mark.parametrize("options", [{}, {"reload": {"streams": "finish"}}])
async def test_bidi_and_client_streams_finish_on_the_old_code(dev, connect, save, options):
    server = await dev(
        {"echo.stream.py": ECHO.format(word="old"), "c.stream.py": COLLECT.format(word="old")}, **options
    )
    client = await connect(server)
    await client.start("e", "echo")
    await client.start("c", "c", credit=1)
    await client.until("stream:credit", "c")
    await client.data("e", "1")
    assert await client.items("e", 1) == ["old 1"]
    await client.data("c", 1)
    save({"echo.stream.py": ECHO.format(word="new"), "c.stream.py": COLLECT.format(word="new")})
    await server.reload()
    await client.data("e", "2")
    assert await client.items("e", 1) == ["old 2"]
    await client.data("c", 2)
    await client.say("stream:end", "c")
    assert await client.receive() == {"type": "response", "id": "c", "payload": ["old", 1, 2]}
    await client.start("e2", "echo")
    await client.data("e2", "3")
    assert await client.items("e2", 1) == ["new 3"]


# The other policies


async def test_finish_lets_them_finish_on_the_old_code(dev, connect, save):
    server = await dev({"count.stream.py": COUNT.format(version=1, size=1)}, reload={"streams": "finish"})
    client = await connect(server)
    await client.start("s", "count", credit=2)
    assert [item[:2] for item in await client.items("s", 2)] == [[1, 1], [2, 1]]
    save({"count.stream.py": COUNT.format(version=2, size=1)})
    await server.reload()
    await client.say("stream:credit", "s", credit=2)
    assert [item[:2] for item in await client.items("s", 2)] == [[3, 1], [4, 1]]
    await client.start("t", "count", credit=1)
    assert [item[:2] for item in await client.items("t", 1)] == [[1, 2]]


@pytest.mark.parametrize("direction", ["server", "bidi"])
async def test_end_ends_them(dev, connect, save, direction):
    text = (
        WORD
        if direction == "server"
        else 'meta = {{"direction": "bidi"}}\n'
        + "import asyncio\n"
        + ("async def handler(input):\n    yield '{word}'\n    await asyncio.Event().wait()\n")
    )
    server = await dev(
        {"word.stream.py": text.format(word="old"), "stays.stream.py": WORD.format(word="stays")},
        reload={"streams": "end"},
    )
    client = await connect(server)
    await client.start("stays", "stays")
    await client.items("stays", 1)
    await client.start("s", "word")
    assert await client.items("s", 1) == ["old"]
    save({"word.stream.py": text.format(word="new")})
    await server.reload()
    answer = await client.receive()
    assert (answer["type"], answer["id"]) == ("stream:error", "s")
    assert answer["payload"]["code"] == "UNAVAILABLE"
    assert answer["payload"]["details"] == {"reason": "reloaded"}
    await client.nothing()
    await client.start("s", "word")
    assert await client.items("s", 1) == ["new"]


@pytest.mark.parametrize("kind", ["word", "echo", "waiting for credit"])
async def test_the_streams_of_a_removed_route_end(dev, connect, save, kind):
    server = await dev({"word.stream.py": WORD.format(word="old"), "echo.stream.py": ECHO.format(word="old")})
    client = await connect(server)
    name = "echo" if kind == "echo" else "word"
    await client.start("s", name, **({"credit": 1} if kind == "waiting for credit" else {}))
    if kind == "echo":
        await client.data("s", "x")
    await client.items("s", 1)
    save({f"{name}.stream.py": None})
    assert (await server.reload()).removed == (name,)
    answer = await client.receive()
    assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "UNAVAILABLE")
    assert answer["payload"]["details"] == {"reason": "reloaded"}
    await client.start("s", name)
    assert (await client.receive())["payload"]["code"] == "NOT_FOUND"


async def test_a_route_that_has_changed_its_direction_ends_its_streams(dev, connect, save):
    server = await dev({"s.stream.py": WORD.format(word="old")})
    client = await connect(server)
    await client.start("s", "s")
    assert await client.items("s", 1) == ["old"]
    save({"s.stream.py": ECHO.format(word="new")})
    await server.reload()
    answer = await client.receive()
    assert answer["payload"]["details"] == {"reason": "reloaded"}
    await client.start("s", "s")
    await client.data("s", "x")
    assert await client.items("s", 1) == ["new x"]


async def test_an_input_that_no_longer_fits_ends_its_stream(dev, connect, save):
    source = """
        import asyncio
        from msgspec import Struct

        class Query(Struct):
            {field}: int

        async def handler(input: Query):
            yield input.{field}
            await asyncio.Event().wait()
        """
    server = await dev({"s.stream.py": source.format(field="old")})
    client = await connect(server)
    await client.start("s", "s", {"old": 1})
    assert await client.items("s", 1) == [1]
    save({"s.stream.py": source.format(field="new")})
    await server.reload()
    answer = await client.receive()
    assert (answer["type"], answer["payload"]["code"]) == ("stream:error", "UNAVAILABLE")
    assert answer["payload"]["details"] == {"reason": "reloaded"}


async def test_saves_do_not_disturb_unchanged_streams(dev, connect, save):
    server = await dev({"count.stream.py": COUNT.format(version=1, size=1), "word.stream.py": WORD.format(word=0)})
    client = await connect(server)
    await client.start("s", "count", credit=1)
    last = 0
    for number in range(1, 20):
        save({"word.stream.py": WORD.format(word=number)})
        await server.reload()
        await client.say("stream:credit", "s", credit=10)
        for item in await client.items("s", 10):
            assert item[:2] == [last + 1, 1]
            last += 1


async def test_a_changed_priority_counts_for_a_restarted_stream(dev, connect, save):
    source = """
        import asyncio

        meta = {{"priority": {priority}}}

        async def handler(input):
            yield {priority}
            await asyncio.Event().wait()
        """
    server = await dev({"s.stream.py": source.format(priority=1)})
    client = await connect(server)
    await client.start("s", "s")
    assert await client.items("s", 1) == [1]
    save({"s.stream.py": source.format(priority=7)})
    await server.reload()
    assert await client.items("s", 1) == [7]
    (connection,) = server._hub.connections
    assert [channel.queue.priority for channel in connection._channels] == [7]
