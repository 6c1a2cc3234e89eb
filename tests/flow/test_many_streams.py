"""A hundred streams on one connection, one of which is stuck: the others do not notice."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

log = logging.getLogger("measured")

STREAMS = 100
ITEMS = int(os.environ.get("RAFFEL_FLOW_STREAM_ITEMS", "100"))
"""Items of each stream; 1000 is the full size."""


async def naturals(input):
    for number in range(ITEMS):
        yield number


async def count(input):
    number = 0
    async for item in input:
        assert item == number
        number += 1
    return number


async def stuck(input, ctx):
    ctx.app.state.stuck = True
    await asyncio.Event().wait()


async def serving(build, **options):
    server = build(**options)
    server.stream("naturals").handler(naturals)
    server.stream("count", direction="client").handler(count)
    server.stream("stuck", direction="client").handler(stuck)
    await server.start()
    return server


@pytest.mark.parametrize("credit", [{}, {"credit": 2**31 - 1}], ids=["without credit", "with credit"])
async def test_one_whose_client_gives_no_credit_holds_up_none(build, connect, credit):
    server = await serving(build)
    client = await connect(server)
    await client.start("0", "naturals", credit=1)
    assert await client.items("0", 1) == [0]
    began = time.perf_counter()
    for id in range(1, STREAMS):
        await client.start(str(id), "naturals", **credit)
    taken = {str(id): [] for id in range(1, STREAMS)}
    ended = set()
    while len(ended) < STREAMS - 1:
        envelope = await client.receive()
        if envelope["type"] == "stream:data":
            taken[envelope["id"]].append(envelope["payload"])
        else:
            assert envelope["type"] == "stream:end"
            ended.add(envelope["id"])
    log.info(f"{99 * ITEMS} items beside a stalled stream in {time.perf_counter() - began:.2f} s")
    assert all(found == list(range(ITEMS)) for found in taken.values())
    await client.say("stream:credit", "0", credit=1)
    assert await client.items("0", 1) == [1]


async def test_credit_in_small_grants_keeps_each_stream_at_its_own_speed(build, connect):
    server = await serving(build)
    client = await connect(server)
    for id in range(STREAMS):
        await client.start(str(id), "naturals", credit=8)
    taken = {str(id): [] for id in range(STREAMS)}
    ended = set()
    while len(ended) < STREAMS - 1:
        envelope = await client.receive()
        id = envelope["id"]
        if envelope["type"] == "stream:end":
            ended.add(id)
            continue
        taken[id].append(envelope["payload"])
        if id != "0" and len(taken[id]) % 8 == 0:
            await client.say("stream:credit", id, credit=8)
    assert taken.pop("0") == list(range(8))
    assert all(found == list(range(ITEMS)) for found in taken.values())


async def upload(client, first, credit):
    """Sends items on 99 streams at once; returns the responses by id."""
    granted = {str(id): 0 for id in range(first, STREAMS)}
    sent = dict.fromkeys(granted, 0)
    answers = {}
    if not credit:
        for number in range(0, ITEMS, 20):
            some = range(number, min(ITEMS, number + 20))
            await client.send(
                *({"type": "stream:data", "id": id, "payload": payload} for id in granted for payload in some)
            )
        await client.send(*({"type": "stream:end", "id": id} for id in granted))
    while len(answers) < len(granted):
        envelope = await client.receive()
        id = envelope["id"]
        if envelope["type"] != "stream:credit":
            answers[id] = envelope
        elif id in granted and credit:
            granted[id] += envelope["credit"]
            upto = min(ITEMS, granted[id])
            if sent[id] < upto:
                await client.data(id, *range(sent[id], upto))
                sent[id] = upto
                if upto == ITEMS:
                    await client.say("stream:end", id)
    return answers


async def test_one_whose_handler_does_not_read_holds_up_none_with_credit(build, connect):
    server = await serving(build)
    client = await connect(server)
    await client.start("0", "stuck", credit=1)
    assert (await client.receive())["credit"] == 16
    await client.data("0", *range(16))
    began = time.perf_counter()
    await client.send(
        *({"type": "stream:start", "id": str(id), "procedure": "count", "credit": 1} for id in range(1, STREAMS))
    )
    answers = await upload(client, 1, credit=True)
    log.info(f"{99 * ITEMS} items beside a stalled handler in {time.perf_counter() - began:.2f} s")
    assert all(answer["type"] == "response" and answer["payload"] == ITEMS for answer in answers.values())


@pytest.mark.parametrize("parked", [100, 10_000], ids=["a part of the pool", "the whole pool"])
async def test_without_credit_the_others_lose_nothing(build, connect, parked, eventually):
    server = await serving(build, limits={"stall_seconds": 0.3})
    client = await connect(server)
    await client.start("0", "stuck")
    await client.send(*({"type": "stream:start", "id": str(id), "procedure": "count"} for id in range(1, STREAMS)))
    await eventually(lambda: len(server._hub.sessions) == STREAMS)
    await client.data("0", *range(parked))
    answers = await upload(client, 1, credit=False)
    lost = answers.pop("0", None)
    if lost is not None:
        assert lost["payload"]["details"] == {"reason": "handler_stalled"}
    others = answers
    while len(others) < STREAMS - 1:
        answer = await client.receive()
        if answer["id"] != "0":
            others[answer["id"]] = answer
    assert all(answer["type"] == "response" and answer["payload"] == ITEMS for answer in others.values())
