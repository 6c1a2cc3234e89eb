"""grpcio, everyone's own client in Python, with its blocking calls: it knows a server by reflection alone."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from .conftest import Client, channel, describe, told
from .handlers import add_routes

pytestmark = pytest.mark.timeout(90)

Ask = Callable[[Callable[[Client], Any]], Any]


@pytest.fixture
async def waiting(build) -> Any:
    server = build()
    handler = add_routes(server)
    handler.server = server
    await server.start()
    return handler


@pytest.fixture
def ask(waiting, tls) -> Ask:
    """Runs a function with a blocking client, in a thread; returns what it returns."""

    def work(function: Callable[[Client], Any]) -> Any:
        with channel(waiting.server, tls) as opened:
            return function(Client(opened, describe(opened)))

    async def start(function: Callable[[Client], Any]) -> Any:
        return await asyncio.to_thread(work, function)

    return start


async def test_a_unary_call(ask):
    def calls(client: Client) -> list[int]:
        add = client["/Math/Add"]
        return [add(add.request(a=a, b=2)).value for a in (1, -5, 0, 2**62)]

    assert await ask(calls) == [3, -3, 2, 2**62 + 2]


async def test_a_server_stream(ask):
    def call(client: Client) -> list[tuple[int, str]]:
        count = client["/Math/Count"]
        return [(tick.number, tick.text) for tick in count(count.request(to=3, size=2))]

    assert await ask(call) == [(0, ".."), (1, ".."), (2, "..")]


async def test_a_client_stream(ask):
    def call(client: Client) -> tuple[int, int]:
        total = client["/Math/Total"]
        answer = total(total.request(a=number, b=1) for number in range(100))
        return answer.total, answer.items

    assert await ask(call) == (5050, 100)


async def test_a_bidi_stream_in_lockstep(ask):
    def call(client: Client) -> list[str]:
        echo = client["/Talk/Echo"]
        notes: queue.Queue[Any] = queue.Queue()
        answers = echo(iter(notes.get, None))
        found = []
        for word in ("a", "é", "🦜"):
            notes.put(echo.request(text=word))
            found.append(next(answers).text)
        notes.put(None)
        return found + [note.text for note in answers]

    assert await ask(call) == ["A", "É", "🦜"]


async def test_an_error_of_a_unary_call(ask):
    def call(client: Client) -> Any:
        refuse = client["/Trouble/Refuse"]
        with pytest.raises(grpc.RpcError) as raised:
            refuse(refuse.request(code="ALREADY_EXISTS", message="schon da: é%"))
        return told(raised.value)

    code, message, error = await ask(call)
    assert (code, message) == ("ALREADY_EXISTS", "schon da: é%")
    assert error == {"code": "ALREADY_EXISTS", "message": "schon da: é%", "details": {"fields": ["a", 1, None]}}


async def test_an_error_behind_items(ask):
    def call(client: Client) -> Any:
        fail = client["/Trouble/Fail"]
        answers, found = fail(fail.request(code="DATA_LOSS", message="gone", after=2)), []
        with pytest.raises(grpc.RpcError):
            found += [next(answers).value, next(answers).value]
            next(answers)
        return found, told(answers).code

    assert await ask(call) == ([0, 1], "DATA_LOSS")


async def test_a_cancelled_stream_ends_its_handler(ask, waiting, eventually):
    def call(client: Client) -> int:
        wait = client["/Talk/Wait"]
        answers = wait(wait.request())
        found = next(answers).value
        answers.cancel()
        return found

    assert await ask(call) == 1
    await eventually(lambda: waiting.reasons == ["client_cancelled"])


async def test_a_deadline(ask, waiting, eventually):
    def call(client: Client) -> str:
        wait = client["/Talk/Wait"]
        with pytest.raises(grpc.RpcError) as raised:
            list(wait(wait.request(), timeout=0.2))
        return raised.value.code().name

    assert await ask(call) == "DEADLINE_EXCEEDED"
    await eventually(lambda: len(waiting.reasons) == 1)


async def test_metadata_both_ways(ask):
    def call(client: Client) -> Any:
        method = client["/Talk/Told"]
        metadata = (("x-word", "a b"), ("x-data-bin", b"\x00\x01\xff"), ("x-twice", "1"), ("x-twice", "2"))
        answer, call = method.with_call(method.request(), metadata=metadata)
        return MessageToDict(answer), dict(call.initial_metadata()), dict(call.trailing_metadata())

    found, initial, trailing = await ask(call)
    assert (found["x-word"], found["x-data-bin"], found["x-twice"]) == ("a b", "AAH/", "1,2")
    assert (initial["x-initial"], initial["x-initial-bin"]) == ("first", b"\x00\xff")
    assert (trailing["x-trailing"], trailing["x-trailing-bin"]) == ("last", b"\xfe\x01")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
async def test_all_kinds_compressed_and_not(ask, compression):
    def calls(client: Client) -> Any:
        add, count, total, echo = map(client.__getitem__, ("/Math/Add", "/Math/Count", "/Math/Total", "/Talk/Echo"))
        options = {"compression": compression}
        return (
            add(add.request(a=1, b=2), **options).value,
            [len(tick.text) for tick in count(count.request(to=2, size=10_000), **options)],
            total(iter([total.request(a=1, b=2)] * 100), **options).total,
            [note.text for note in echo(iter([echo.request(text="a" * 10_000)] * 2), **options)],
        )

    assert await ask(calls) == (3, [10_000, 10_000], 300, ["A" * 10_000] * 2)


async def test_many_threads_share_a_connection(ask):
    def calls(client: Client) -> list[int]:
        count = client["/Math/Count"]
        calls = [count(count.request(to=50)) for _ in range(40)]
        return [sum(tick.number for tick in call) for call in calls]

    assert await ask(calls) == [sum(range(50))] * 40
