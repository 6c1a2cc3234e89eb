"""Items that come one behind the other: each is what it would be alone, and what waits of them is counted whole."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import msgspec
import pydantic
import pytest

from raffel_core.errors import RaffelError

MIB = 1 << 20


class Number(msgspec.Struct):
    n: int = 7


class NumberModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    n: int = 7


DOCUMENT = {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}}

SECOND = [
    '{"n":2}',
    ' {"n":2} ',
    "{}",
    '{"n":2,"m":[{"payload":3}]}',
    '{"n":"x"}',
    '{"n":2.5}',
    "5",
    "null",
    '"x"',
    "",
    " ",
    ",",
    '{"n":2}x',
    '{"n":2}}',
    '{"n":2',
    '{"n":2},',
    '{"n":1} {"n":2}',
    '{"n":2},"id":"other"',
    '{"n":2},"type":"stream:end"',
    '{"n":2},"payload":{"n":3}',
    '{"n":2},"binary":7',
    '{"n":2},"x":{"payload":{"n":3}}',
    '{"n":"é"}',
    '{"n":2,"x":"\\ud800"}',
    '{"n":2,"x":"\n"}',
    '{"n":2,"x":%s}' % ("[" * 600 + "]" * 600),
    '{"n":2,"x":%s}' % ("[" * 200 + "]" * 200),
]
"""What may stand where the payload of a second item belongs."""


async def shown(items: Any):
    """What each item is, also one that is not what the schema wants."""
    while True:
        try:
            chunk = await items.read()
        except RaffelError as error:
            yield error.code
        else:
            if chunk.done:
                return
            yield chunk.value.get("n", 7) if isinstance(chunk.value, dict) else chunk.value.n


def item(payload: str) -> str:
    return f'{{"type":"stream:data","id":"s","payload":{payload}}}'


async def answers(wire: Any, *payloads: str) -> tuple[list[str], list[Any]]:
    """What is said to a stream of these items: the codes of errors that end nothing, and the values."""
    await wire.open("s", "shown")
    await wire.send(*map(item, payloads))
    await wire.finish("s")
    said = await wire.until("stream:end", id="s")
    errors = [message["payload"]["code"] for message in said if message["type"] == "error"]
    return errors, [message["payload"] for message in said if message["type"] == "stream:data"]


@pytest.mark.parametrize("declared", [Number, NumberModel, DOCUMENT], ids=["msgspec", "pydantic", "json"])
@pytest.mark.parametrize("payload", SECOND, ids=range(len(SECOND)))
async def test_an_item_is_what_it_would_be_alone(build, connect, declared, payload):
    server = build()
    server.stream("shown", direction="bidi").input(declared).handler(shown)
    await server.start()
    errors, values = await answers(await connect(server), payload)
    assert await answers(await connect(server), '{"n":1}', payload) == (errors, [1, *values])


@pytest.mark.parametrize("first", ['{"payload":12,"x":{"payload":7}}', '12,"x":{"payload":7}', '1,"payload":2', "1 "])
async def test_a_first_item_of_any_shape_misleads_nobody(build, connect, first):
    server = build()
    server.stream("shown", direction="bidi").input(Number).handler(shown)
    await server.start()
    _, values = await answers(await connect(server), first, '{"n":9}')
    assert values[-1] == 9


async def test_an_item_that_waits_holds_no_more_than_what_is_counted(build, connect):
    server = build()
    server.stream("deaf", direction="bidi").input(Number).handler(deaf)
    await server.start()
    wire = await connect(server)
    await wire.open("s", "deaf")
    assert (await wire.receive())["type"] == "stream:data"
    message = wire.framed('{"type":"stream:data","id":"s","payload":{"n":1},"junk":"%s"}' % ("x" * 500_000))
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(40):
            wire.raw(message)
            await asyncio.sleep(0.001)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size < 11 * MIB  # what the mark lets in, and the pool


async def deaf(items: Any):
    yield "here"
    await asyncio.Event().wait()
