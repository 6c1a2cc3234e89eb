"""@grpc/grpc-js, everyone's own client in Node: it knows a server by reflection alone."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha import reflection_pb2

from .handlers import add_routes

_spec = importlib.util.spec_from_file_location("node", Path(__file__).parents[1] / "envelopes" / "node.py")
assert _spec is not None and _spec.loader is not None
node = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(node)

DISCOVER = Path(__file__).with_name("discover.js").read_text()
REFLECTION = list(reflection_pb2.DESCRIPTOR.serialized_pb)

Script = Callable[..., Awaitable[Any]]

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="session")
def packages() -> None:
    if not node.installed():
        node.install()


@pytest.fixture
async def waiting(build) -> Any:
    server = build()
    handler = add_routes(server)
    handler.server = server
    await server.start()
    return handler


@pytest.fixture
def script(packages, waiting, tls, run) -> Script:
    """Runs the body of an async function that knows the services as `math`, `talk`, `trouble`; returns its result."""

    async def start(body: str, options: Any = None) -> Any:
        secured = "createInsecure()"
        if tls is not None:
            secured = f"createSsl(require('fs').readFileSync({json.dumps(str(tls.cert))}))"
        target = json.dumps(f"127.0.0.1:{waiting.server.grpc_port}")
        text = f"""
            {DISCOVER}
            const main = async ({{ Math: math, Talk: talk, Trouble: trouble }}) => {{ {body} }};
            const channel = {json.dumps(options or {})};
            const found = discover({target}, grpc.credentials.{secured}, [Buffer.from({REFLECTION})], channel);
            found.then(main).then((result) => {{
                console.log(JSON.stringify(result ?? null));
                process.exit();
            }});
        """
        env = {**os.environ, "NODE_PATH": str(node.FOLDER / "node_modules"), "NODE_NO_WARNINGS": "1"}
        return json.loads(await run(node.NODE, "-e", text, env=env))

    return start


async def test_all_four_kinds(script):
    found = await script(
        """
        const sum = await unary(math, "Add", { a: 1, b: 2 });
        const count = await watch(math.Count({ to: 3 }));
        const total = await new Promise((resolve) => {
            const call = math.Total((error, answer) => resolve(error ?? answer));
            for (let n = 0; n < 100; n++) call.write({ a: n, b: 1 });
            call.end();
        });
        const call = talk.Echo(), words = [];
        for (const text of ["a", "é", "🦜"]) {
            const answer = next(call);
            call.write({ text });
            words.push((await answer).text);
        }
        const end = watch(call);
        call.end();
        const numbers = count.items.map(({ number }) => number);
        return { sum, count: [count.code, numbers], total, words, end: (await end).code };
        """
    )
    assert found == {
        "sum": {"value": 3},
        "count": [0, [0, 1, 2]],
        "total": {"total": 5050, "items": 100},
        "words": ["A", "É", "🦜"],
        "end": 0,
    }


async def test_an_error_and_its_details(script):
    found = await script(
        """
        const seen = await watch(trouble.Fail({ code: "NOT_FOUND", message: "nicht da: é%", after: 2 }));
        const details = [...seen.trailing.get("grpc-status-details-bin")[0]];
        return [seen.code, seen.details, seen.items.length, details];
        """
    )
    assert found[:3] == [5, "nicht da: é%", 2]
    status = Status.FromString(bytes(found[3]))
    assert (status.code, status.message) == (5, "nicht da: é%")


async def test_cancel_and_deadline_end_the_handler(script, waiting, eventually):
    found = await script(
        """
        const cancelled = talk.Wait({});
        await next(cancelled);
        const seen = watch(cancelled);
        cancelled.cancel();
        const late = await watch(talk.Wait({}, { deadline: Date.now() + 200 }));
        return [(await seen).code, late.code];
        """
    )
    assert found == [1, 4]
    await eventually(lambda: len(waiting.reasons) == 2)
    assert waiting.reasons[0] == "client_cancelled"


async def test_metadata_both_ways(script):
    found = await script(
        """
        const metadata = new grpc.Metadata();
        metadata.set("X-Word", "a b");
        metadata.set("x-data-bin", Buffer.from([0, 1, 255]));
        const call = talk.Told({}, metadata, (error, answer) => (call.answer = answer));
        const seen = await watch(call);
        return [call.answer, seen.initial, seen.trailing];
        """
    )
    answer, initial, trailing = found
    fields = {entry["key"]: entry["value"]["string_value"] for entry in answer["struct_value"]["fields"]}
    assert (fields["x-word"], fields["x-data-bin"]) == ("a b", "AAH/")
    assert initial["x-initial"] == ["first"]
    assert initial["x-initial-bin"] == [{"type": "Buffer", "data": [0, 255]}]
    assert trailing["x-trailing"] == ["last"]


async def test_compressed_both_ways(script):
    found = await script(
        """
        const count = await watch(math.Count({ to: 2, size: 10000 }));
        const { value } = await unary(math, "Add", { a: 1, b: 2 });
        return [count.code, count.items.map(({ text }) => text.length), value];
        """,
        {"grpc.default_compression_algorithm": 2},
    )
    assert found == [0, [10_000, 10_000], 3]


async def test_a_hundred_calls_at_once(script):
    found = await script(
        """
        const calls = [...Array(100).keys()].map((n) => unary(math, "Add", { a: n, b: 1 }));
        return (await Promise.all(calls)).map(({ value }) => value);
        """
    )
    assert found == list(range(1, 101))
