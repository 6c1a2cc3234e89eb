"""Messages of all sizes, plain and compressed: what is taken, what is refused, and that nothing is lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator

import grpc
import pytest

from raffel_core.server import Server

from .conftest import failure, items

LIMIT = 10_000
COMPRESSIONS = [grpc.Compression.NoCompression, grpc.Compression.Gzip]


async def mirror(input: bytes) -> bytes:
    return input


async def size(input: bytes) -> int:
    return len(input)


async def mirror_all(items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for item in items:
        yield item


async def digest(items: AsyncIterator[bytes]) -> str:
    found = hashlib.sha256()
    async for item in items:
        found.update(item)
    return found.hexdigest()


async def repeated(input: bytes) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield input


def routes(server: Server) -> None:
    server.procedure("mirror").handler(mirror)
    server.procedure("size").handler(size)
    server.stream("all", direction="bidi").handler(mirror_all)
    server.stream("digest", direction="client").handler(digest)
    server.stream("repeated").handler(repeated)


@pytest.fixture
async def client(serve_and_connect):
    return await serve_and_connect(routes, limits={"message_bytes": LIMIT})


def sized(request, size: int, *, random: bool = True):
    """A request that takes so many bytes."""
    message = request()
    while (missing := size - message.ByteSize()) > 0:
        message.value += os.urandom(missing) if random else bytes(missing)
        if message.ByteSize() > size:
            message.value = message.value[: size - message.ByteSize()]
    assert message.ByteSize() == size
    return message


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("length", [0, 1, 127, 128, 9_000])
async def test_bytes_come_back_as_they_were(client, compression, length):
    mirror, value = client["/Root/Mirror"], os.urandom(length)
    assert (await mirror(mirror.request(value=value), compression=compression)).value == value


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_an_empty_message_is_one(client, compression):
    repeated = client["/Root/Repeated"]
    call = repeated(repeated.request(), compression=compression)
    assert [item.value for item in await items(call)] == [b""] * 3


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("random", [False, True], ids=["zeros", "random"])
async def test_a_message_of_exactly_the_limit_is_taken(client, compression, random):
    size = client["/Root/Size"]
    message = sized(size.request, LIMIT, random=random)
    assert (await size(message, compression=compression)).value == len(message.value)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("random", [False, True], ids=["zeros", "random"])
@pytest.mark.parametrize("more", [1, 1_000_000])
async def test_a_larger_one_is_refused(client, compression, random, more):
    size = client["/Root/Size"]
    found = await failure(size(sized(size.request, LIMIT + more, random=random), compression=compression))
    assert (found.code, found.error["code"]) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert (await size(size.request(value=b"a"))).value == 1  # the connection is unharmed


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("random", [False, True], ids=["zeros", "random"])
async def test_the_limit_holds_for_each_item_of_a_stream(client, compression, random):
    every = client["/Root/All"]
    call = every(compression=compression)
    for size in (LIMIT, 0, LIMIT):
        await call.write(sized(every.request, size, random=random))
        assert (await call.read()).ByteSize() == size
    await call.write(sized(every.request, LIMIT + 1, random=random))
    assert (await failure(call.read())).error["code"] == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_items_before_one_that_is_too_large_are_answered(client, compression):
    every = client["/Root/All"]
    call = every(compression=compression)
    for number in range(10):
        await call.write(every.request(value=b"%d" % number))
    await call.write(sized(every.request, LIMIT + 1))
    assert [(await call.read()).value for _ in range(10)] == [b"%d" % number for number in range(10)]
    assert (await failure(call.read())).code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_a_megabyte_both_ways(serve_and_connect, compression):
    client = await serve_and_connect(routes)
    mirror = client["/Root/Mirror"]
    message = sized(mirror.request, 1_048_576)
    assert (await mirror(message, compression=compression)).value == message.value


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_many_megabytes_up(serve_and_connect, compression):
    client = await serve_and_connect(routes)
    digest, expected = client["/Root/Digest"], hashlib.sha256()

    async def parts():
        for number in range(200):
            value = os.urandom(1000) * (number % 50)
            expected.update(value)
            yield digest.request(value=value)

    found = await digest(parts(), compression=compression)
    assert found.value == expected.hexdigest()


async def test_one_call_may_be_compressed_and_the_next_not(client):
    mirror = client["/Root/Mirror"]
    for number in range(20):
        value = bytes([number]) * 1000
        answer = await mirror(mirror.request(value=value), compression=COMPRESSIONS[number % 2])
        assert answer.value == value


async def test_a_compression_that_is_not_served_is_unimplemented(client):
    size = client["/Root/Size"]
    found = await failure(size(size.request(value=bytes(1000)), compression=grpc.Compression.Deflate))
    assert found.code == "UNIMPLEMENTED"
    assert "gzip" in found.message
