"""Replies are bounded: who asks and does not read is not listened to, and disturbs nobody else."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

from .conftest import WINDOW, Peak

log = logging.getLogger("measured")

MIB = 1024 * 1024
SENT = int(os.environ.get("RAFFEL_FLOW_JUNK", str(16 * MIB)))
"""Bytes that a client tries to send; 256 MiB are the full size."""

SERVED = {
    "large.rpc.py": "async def handler(input):\n    return 'x' * 64 * 1024\n",
    "small.rpc.py": "async def handler(input):\n    return 1\n",
    "items.stream.py": "async def handler(input):\n    yield 1\n",
}
KINDS = ["junk", "one byte", "pings", "large responses", "small responses", "cancelled streams"]
SENT_OVER = [
    (protocol, kind) for protocol in ("websocket", "tcp") for kind in KINDS if (protocol, kind) != ("tcp", "pings")
]
"""What can be sent over what: TCP has no pings."""
COUNTED = [(protocol, kind) for protocol, kind in SENT_OVER if kind != "large responses"]


def piece(client, kind):
    """A quarter of a MiB or more of what is answered."""
    if kind == "junk":
        return client.frame(b"x" * 100) * 2600
    if kind == "one byte":
        return client.frame(b"{") * 50_000
    if kind == "pings":
        return (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 2000
    requests = []
    for number in range(1500):
        id = f"{number}"
        if kind == "cancelled streams":
            requests.append({"type": "stream:start", "id": id, "procedure": "items"})
            requests.append({"type": "cancel", "id": id})
        else:
            requests.append({"type": "request", "id": id, "procedure": kind.partition(" ")[0]})
    return client.framed(*requests)


async def flood(client, kind):
    """Sends until the server takes no more; returns how many bytes it has taken."""
    data, sent = piece(client, kind), 0
    while sent < SENT:
        try:
            await asyncio.wait_for(client.send_raw(data), 0.3)
        except TimeoutError:
            return sent
        sent += len(data)
    return sent


async def longest_call(client, calls):
    """The longest that a call took on another connection, in seconds; `calls` are made one after the other."""
    longest = 0.0
    for id in range(calls):
        began = time.perf_counter()
        await client.say("request", str(id), procedure="small")
        assert (await client.receive())["payload"] == 1
        longest = max(longest, time.perf_counter() - began)
        await asyncio.sleep(0.002)
    return longest


@pytest.mark.parametrize(("protocol", "kind"), SENT_OVER)
async def test_a_client_that_reads_nothing_is_not_listened_to_and_disturbs_nobody(process, connect, kind):
    server = process(SERVED)
    other = await connect(server)
    await longest_call(other, 1)
    client = await connect(server, WINDOW)
    async with Peak(server) as peak:
        sent, longest = await asyncio.gather(flood(client, kind), longest_call(other, 50))
    log.info(f"{kind}: {sent / MIB:.1f} MiB taken, {peak.growth / 1024:.0f} KiB more, {longest * 1000:.0f} ms at most")
    assert sent < SENT
    # The requests that are open, a hundred at most, have their results: as objects and as bytes.
    assert peak.growth < (20 if kind == "large responses" else 4) * MIB
    assert longest < 0.25


@pytest.mark.parametrize(("protocol", "kind"), COUNTED)
async def test_reading_stops_when_256_kib_wait(build, connect, kind, eventually):
    """Here at twice that: what is on its way is not seen."""
    server = build()

    @server.procedure("small")
    async def small():
        return 1

    @server.stream("items")
    async def items():
        yield 1

    await server.start()
    client = await connect(server, WINDOW)
    sending = asyncio.create_task(_send_for_ever(client, piece(client, kind)))
    await eventually(lambda: server._hub.connections)
    await asyncio.sleep(0)
    most = 0
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        for connection in server._hub.connections:
            if hasattr(connection, "outbox"):
                most = max(most, connection.transport.get_write_buffer_size() + _queued(connection))
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([sending])
    log.info(f"{kind}: {most / 1024:.0f} KiB waited")
    assert 0 < most <= 2 * 256 * 1024


def _queued(connection):
    return sum(map(len, connection.outbox.replies)) + sum(
        sum(map(len, queue.parts)) for lane in connection.outbox._lanes.values() for queue in lane
    )


async def _send_for_ever(client, data):
    while True:
        await client.send_raw(data)


@pytest.mark.parametrize("kind", ["junk", "one byte"])
async def test_one_that_reads_its_answers_does_not_have_the_server_for_itself(process, connect, kind):
    server = process(SERVED)
    client, other = await connect(server), await connect(server)
    tasks = [asyncio.create_task(_send_for_ever(client, piece(client, kind))), asyncio.create_task(_drop(client))]
    longest = await longest_call(other, 5)
    log.info(f"{kind}: {longest * 1000:.1f} ms at most")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert longest < 0.25


async def _drop(client):
    while True:
        await client.more()
        client._raw.clear()


@pytest.mark.parametrize("kind", ["junk", "small responses"])
async def test_all_that_was_sent_is_answered_once_the_client_reads(build, connect, kind):
    server = build()

    @server.procedure("small")
    async def small():
        return 1

    await server.start()
    client = await connect(server, WINDOW)
    count = 20_000
    message = b"x" if kind == "junk" else b'{"type":"request","id":"%d","procedure":"small"}'
    frames = [client.frame(message if kind == "junk" else message % number) for number in range(count)]
    sending = asyncio.create_task(client.send_raw(b"".join(frames)))
    await asyncio.wait([sending], timeout=0.3)
    codes = []
    for _ in range(count):
        envelope = await client.receive()
        codes.append(envelope["payload"]["code"] if envelope["type"] == "error" else envelope["type"])
    await sending
    expected = {"PARSE_ERROR"} if kind == "junk" else {"response", "RESOURCE_EXHAUSTED"}
    assert set(codes) <= expected


async def test_what_was_read_and_not_looked_at_is_bounded(process, connect):
    """Of messages that need no answer, which nothing else holds up."""
    server = process(SERVED)
    client = await connect(server)
    data = client.framed({"type": "cancel", "id": "nobody"}) * 5000
    for _ in range(4):
        await client.send_raw(data)
    async with Peak(server) as peak:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            await client.send_raw(data)
    log.info(f"{peak.growth / 1024:.0f} KiB more")
    assert peak.growth < 4 * MIB
