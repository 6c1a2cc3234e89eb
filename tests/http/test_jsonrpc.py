"""JSON-RPC 2.0 at `POST /rpc`: the specification's own examples, its batches, and what HTTP has to say of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

JSON = {"Content-Type": "application/json"}

EXAMPLES = {
    "subtract.rpc.py": """
        import msgspec

        class Pair(msgspec.Struct):
            minuend: int
            subtrahend: int

        async def handler(input: Pair) -> int:
            return input.minuend - input.subtrahend
        """,
    "sum.rpc.py": "async def handler(input: list[int]) -> int:\n    return sum(input)\n",
    "get_data.rpc.py": "async def handler():\n    return ['hello', 5]\n",
    "update.rpc.py": """
        async def handler(input, ctx):
            ctx.app.state.__dict__.setdefault("seen", []).append(input)
        """,
    "notify_hello.rpc.py": "async def handler(input):\n    return input\n",
    "notify_sum.rpc.py": "async def handler(input: list[int]) -> int:\n    return sum(input)\n",
}

WAIT = """
async def handler(input, ctx):
    state = ctx.app.state
    state.began.append(input)
    try:
        await state.go_on.wait()
        return input
    finally:
        state.ended.append((input, ctx.signal.reason))
"""
ECHO = "async def handler(input):\n    return input\n"
FAIL = """
from raffel_core import RaffelError

async def handler(input):
    raise RaffelError(**input)
"""
STREAM = "async def handler(input, ctx):\n    yield 1\n"


def call(method: str, *params: Any, **members: Any) -> dict[str, Any]:
    given = {"params": params[0]} if params else {}
    return {"jsonrpc": "2.0", "method": method, **given, **members}


def results(answers: list[dict[str, Any]]) -> list[Any]:
    """What a batch was answered with: the result, or the code of the error object."""
    return [one["result"] if "result" in one else one["error"]["data"]["code"] for one in answers]


def brief(answer: Any) -> Any:
    """An answer with nothing of its error but the number, which is all that the specification has of it."""
    if isinstance(answer, list):
        return [brief(one) for one in answer]
    if "error" not in answer:
        return answer
    assert set(answer["error"]) == {"code", "message", "data"} and isinstance(answer["error"]["message"], str)
    return {**answer, "error": answer["error"]["code"]}


def well(result: Any, id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": result, "id": id}


def badly(number: int, id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": number, "id": id}


@pytest.fixture
async def rpc(serve, client):
    """Starts a server and returns what posts a body to it and reads the answer; None is an answer without body."""

    async def start(files: dict[str, str], **options: Any):
        http = client(await serve(files, **options))

        async def post(body: Any, path: str = "/rpc", **headers: str) -> Any:
            content = body if isinstance(body, (bytes, str)) else json.dumps(body)
            answer = await http.post(path, content=content, headers={**JSON, **headers})
            if answer.status_code == 204:
                assert answer.content == b"" and "content-type" not in answer.headers
                return None
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            return answer.json()

        return post

    return start


@pytest.fixture
async def waiting(serve, state):
    """Starts a server whose procedure `wait` waits to be told to go on; what became of its calls is in the state."""

    async def start(files: dict[str, str] | None = None, **options: Any):
        server = await serve({"wait.rpc.py": WAIT, "echo.rpc.py": ECHO, **(files or {})}, **options)
        seen = state(server)
        seen.began, seen.ended, seen.go_on = [], [], asyncio.Event()
        return server, seen

    return start


def request(body: Any, *headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = ["POST /rpc HTTP/1.1", "Host: h", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


# The examples of the specification (7)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', well(19, 1)),
        ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', well(-19, 2)),
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
            well(19, 3),
        ),
        (
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
            well(19, 4),
        ),
        ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
        ('{"jsonrpc": "2.0", "method": "foobar"}', None),
        ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', badly(-32601, "1")),
        ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', badly(-32700)),
        ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', badly(-32600)),
        (
            '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]',
            badly(-32700),
        ),
        ("[]", badly(-32600)),
        ("[1]", [badly(-32600)]),
        ("[1,2,3]", [badly(-32600)] * 3),
        (
            """[
                {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
                {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
                {"foo": "boo"},
                {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
                {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
            ]""",
            [well(7, "1"), well(19, "2"), badly(-32600), badly(-32601, "5"), well(["hello", 5], "9")],
        ),
        (
            """[
                {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
            ]""",
            None,
        ),
    ],
)
async def test_the_examples_of_the_specification(rpc, body: str, answer: Any) -> None:
    found = await (await rpc(EXAMPLES))(body)
    assert (found if found is None else brief(found)) == answer


# Calls


@pytest.mark.parametrize("id", ["1", "1.50", "-0", "1e3", "1E+400", "98765432109876543210", '"1"', '"\\u0041"', "null"])
async def test_an_id_comes_back_byte_for_byte(serve, client, id: str) -> None:
    body = f'{{"jsonrpc":"2.0","method":"get_data","id":{id}}}'
    answer = await client(await serve(EXAMPLES)).post("/rpc", content=body, headers=JSON)
    assert answer.content == b'{"jsonrpc":"2.0","result":["hello",5],"id":%b}' % id.encode()


async def test_an_error_comes_with_the_id_byte_for_byte(serve, client) -> None:
    body = b'{"jsonrpc":"2.0","method":"nothing","id":1.50}'
    answer = await client(await serve()).post("/rpc", content=body, headers=JSON)
    assert answer.content.endswith(b',"id":1.50}')


async def test_a_notification_runs_and_is_not_answered(rpc, state, serve, client) -> None:
    server = await serve(EXAMPLES)
    answer = await client(server).post("/rpc", json=call("update", [1, 2]))
    assert (answer.status_code, answer.content, state(server).seen) == (204, b"", [[1, 2]])


@pytest.mark.parametrize("params", [{"code": "NOT_FOUND"}, {"nonsense": 1}, []])
async def test_a_notification_that_fails_is_not_answered_either(rpc, params: Any) -> None:
    post = await rpc({"fail.rpc.py": FAIL, "ticks.stream.py": STREAM})
    assert await post(call("fail", params)) is None
    assert await post([call("fail", params), call("ticks"), call("rpc.discover")]) is None


async def test_an_id_of_null_is_no_notification(rpc) -> None:
    assert await (await rpc(EXAMPLES))(call("get_data", id=None)) == well(["hello", 5], None)


async def test_no_parameters_are_an_empty_object(rpc) -> None:
    assert await (await rpc({"echo.rpc.py": ECHO}))(call("echo", id=1)) == well({}, 1)


async def test_a_name_is_spelt_as_everywhere(rpc) -> None:
    source = "async def handler(input, ctx):\n    return [ctx.route, dict(ctx.params)]\n"
    post = await rpc({"users/create.rpc.py": source, "rooms/[room]/info.rpc.py": source})
    assert (await post(call("users.create", id=1)))["result"] == ["users.create", {}]
    assert (await post(call("users/create", id=1)))["result"] == ["users.create", {}]
    assert (await post(call("rooms.42.info", id=1)))["result"] == ["rooms.[room].info", {"room": "42"}]
    assert (await post(call("rooms/4.2/info", id=1)))["result"] == ["rooms.[room].info", {"room": "4.2"}]


async def test_a_handler_knows_what_carries_its_call_and_from_where(rpc) -> None:
    source = "async def handler(input, ctx):\n    return [ctx.protocol, ctx.peer, ctx.metadata['x-who']]\n"
    answer = await (await rpc({"who.rpc.py": source}))(call("who", id=1), **{"X-Who": "me"})
    protocol, peer, who = answer["result"]
    assert (protocol, peer.rpartition(":")[0], who) == ("jsonrpc", "127.0.0.1", "me")


@pytest.mark.parametrize(("value", "text"), [("{'a': 1.0}", {"a": 1.0}), ("None", None), ("b'\\x00\\xff'", "AP8=")])
async def test_a_result_is_the_json_of_what_the_handler_returned(rpc, value: str, text: Any) -> None:
    assert await (await rpc({"value.rpc.py": f"async def handler():\n    return {value}\n"}))(
        call("value", id=1)
    ) == well(text, 1)


# Errors


async def test_a_method_that_there_is_not_is_told_with_the_error_object(rpc) -> None:
    answer = await (await rpc({}))(call("users.find", id=1))
    message = "no such route: 'users.find'"
    error = {"code": -32601, "message": message, "data": {"code": "NOT_FOUND", "message": message}}
    assert answer == {"jsonrpc": "2.0", "error": error, "id": 1}


@pytest.mark.parametrize("name", ["rpc.discover", "rpc.", "rpc.tail"])
async def test_names_that_begin_with_rpc_are_no_methods(rpc, name: str) -> None:
    error = (await (await rpc({"rpc/tail.stream.py": STREAM}))(call(name, id=1)))["error"]
    assert (error["code"], error["data"]["code"]) == (-32601, "NOT_FOUND")


async def test_what_a_handler_did_not_find_is_not_a_method_that_there_is_not(rpc) -> None:
    answer = await (await rpc({"fail.rpc.py": FAIL}))(call("fail", {"code": "NOT_FOUND", "message": "who?"}, id=1))
    error = {"code": -32004, "message": "who?", "data": {"code": "NOT_FOUND", "message": "who?"}}
    assert answer == {"jsonrpc": "2.0", "error": error, "id": 1}


async def test_a_code_of_the_handlers_own_is_a_server_error_with_its_details(rpc) -> None:
    given = {"code": "TEAPOT", "message": "short", "details": ["stout"]}
    error = (await (await rpc({"fail.rpc.py": FAIL}))(call("fail", {**given, "status": 418}, id=1)))["error"]
    assert error == {"code": -32000, "message": "short", "data": given}


@pytest.mark.parametrize(
    ("direction", "streams"),
    [
        ("server", ["sse", "websocket", "tcp", "grpc"]),
        ("client", ["websocket", "tcp", "grpc"]),
        ("bidi", ["websocket", "tcp", "grpc"]),
    ],
)
async def test_a_stream_is_refused_and_the_protocols_that_carry_it_named(rpc, direction: str, streams: Any) -> None:
    handler = "async def handler(input, ctx):\n    return 1\n" if direction == "client" else STREAM
    source = f"meta = {{'direction': {direction!r}}}\n{handler}"
    error = (await (await rpc({"ticks.stream.py": source}))(call("ticks", id=1)))["error"]
    assert (error["code"], error["data"]) == (-32003, {"code": "UNIMPLEMENTED", "streams": streams})
    assert "ticks" in error["message"] and direction in error["message"]


async def test_a_protocol_that_is_off_is_not_named(rpc) -> None:
    error = (await (await rpc({"ticks.stream.py": STREAM}, tcp=False, grpc=False))(call("ticks", id=1)))["error"]
    assert error["data"] == {"code": "UNIMPLEMENTED", "streams": ["sse", "websocket"]}


async def test_an_unexpected_exception_says_nothing_of_itself(rpc) -> None:
    error = (
        await (await rpc({"bad.rpc.py": "async def handler():\n    raise ValueError('secret')\n"}))(call("bad", id=1))
    )["error"]
    assert (error["code"], error["data"]["code"]) == (-32603, "INTERNAL_ERROR") and "secret" not in str(error)


# Parameters

POINT = """
import msgspec

class Point(msgspec.Struct, forbid_unknown_fields=True):
    z: int
    a: int = 0
    m: str | None = None

async def handler(input: Point):
    return input
"""
OPTIONAL = POINT.replace("input: Point", "input: Point | None")
TAGGED = POINT.replace("forbid_unknown_fields=True", "tag='point'")
RENAMED = POINT.replace("forbid_unknown_fields=True", "rename='upper'")
TYPED_DICT = """
from typing import TypedDict

class Point(TypedDict):
    z: int
    a: int

async def handler(input: Point):
    return input
"""
DATACLASS = """
import dataclasses

@dataclasses.dataclass
class Point:
    z: int
    a: int = 0

async def handler(input: Point):
    return input
"""
MODEL = """
import pydantic

class Point(pydantic.BaseModel):
    z: int
    a: int = pydantic.Field(0, alias="A")

async def handler(input: Point) -> Point:
    return input
"""
DOCUMENT = """
input_schema = {
    "$ref": "#/$defs/point",
    "$defs": {"point": {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "integer"}}}},
}

async def handler(input):
    return input
"""
CIRCLE = """
input_schema = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "array"}, {"$ref": "#/$defs/a"}]}}}

async def handler(input):
    return input
"""
NAMED_TUPLE = """
from typing import NamedTuple

class Point(NamedTuple):
    z: int
    a: int = 0

async def handler(input: Point):
    return input
"""


def declared(hint: str, before: str = "") -> str:
    imports = "import datetime, enum\nfrom typing import Literal\n"
    return f"{imports}{before}\nasync def handler(input: {hint}):\n    return input\n"


@pytest.mark.parametrize(
    ("source", "params", "input"),
    [
        (POINT, [1], {"z": 1, "a": 0, "m": None}),
        (POINT, [1, 2, "x"], {"z": 1, "a": 2, "m": "x"}),
        (POINT, {"z": 1, "m": "x"}, {"z": 1, "a": 0, "m": "x"}),
        (OPTIONAL, [1, 2], {"z": 1, "a": 2, "m": None}),
        (TAGGED, [1, 2], {"type": "point", "z": 1, "a": 2, "m": None}),
        (RENAMED, [1, 2], {"Z": 1, "A": 2, "M": None}),
        (TYPED_DICT, [1, 2], {"z": 1, "a": 2}),
        (DATACLASS, [1, 2], {"z": 1, "a": 2}),
        (MODEL, [1, 2], {"z": 1, "A": 2}),
        (DOCUMENT, [1, 2], {"z": 1, "a": 2}),
        (CIRCLE, [1, 2], [1, 2]),
        (NAMED_TUPLE, [1, 2], [1, 2]),
        (ECHO, [1, {"a": None}], [1, {"a": None}]),
        (ECHO, [], []),
        (ECHO, {"a": [1]}, {"a": [1]}),
        (declared("list[int]"), [], []),
        (declared("list[int] | dict[str, int]"), [1], [1]),
        (declared("list[int] | dict[str, int]"), {"a": 1}, {"a": 1}),
        (declared("tuple[int, str]"), [1, "a"], [1, "a"]),
        (declared("int"), [7], 7),
        (declared("int | None"), [7], 7),
        (declared("int | str"), ["a"], "a"),
        (declared("Literal['a', 'b']"), ["b"], "b"),
        (declared("datetime.date"), ["2026-11-23"], "2026-11-23"),
        (declared("Colour", "class Colour(enum.Enum):\n    RED = 1\n"), [1], 1),
    ],
)
async def test_parameters_become_the_input(rpc, source: str, params: Any, input: Any) -> None:
    assert await (await rpc({"a.rpc.py": source}))(call("a", params, id=1)) == well(input, 1)


@pytest.mark.parametrize(
    ("source", "params", "fault"),
    [
        (POINT, [1, 2, "x", 4], {"path": "", "message": "Expected array of length <= 3"}),
        (POINT, ["1"], {"path": "z", "message": "Expected int, got str"}),
        (POINT, [1, None], {"path": "a", "message": "Expected int, got null"}),
        (POINT, [], {"path": "z", "message": "Object missing required field z"}),
        (POINT, {"z": 1, "x": 2}, {"path": "x", "message": "Object contains unknown field x"}),
        (declared("dict[str, int]"), [1], {"path": "", "message": "Expected object, got array"}),
        (declared("list[int]"), {}, {"path": "", "message": "Expected array, got object"}),
        (declared("list[int]"), ["a"], {"path": "[0]", "message": "Expected int, got str"}),
        (declared("int"), ["7"], {"path": "", "message": "Expected int, got str"}),
        (declared("int"), [1, 2], {"path": "", "message": "Expected int, got array"}),
        (declared("int"), [], {"path": "", "message": "Expected int, got array"}),
        (declared("int"), {}, {"path": "", "message": "Expected int, got object"}),
    ],
)
async def test_parameters_that_do_not_fit_are_invalid(rpc, source: str, params: Any, fault: Any) -> None:
    error = (await (await rpc({"a.rpc.py": source}))(call("a", params, id=1)))["error"]
    assert (error["code"], error["data"]["code"], error["data"]["details"]) == (-32602, "VALIDATION_ERROR", [fault])


async def test_what_the_name_of_the_method_gives_takes_no_position(rpc) -> None:
    post = await rpc({"top/[a].rpc.py": POINT})
    assert (await post(call("top.7", [1, "x"], id=1)))["result"] == {"z": 1, "a": 7, "m": "x"}
    assert (await post(call("top.7", {"z": 1, "a": 9}, id=1)))["result"] == {"z": 1, "a": 7, "m": None}
    assert (await post(call("top.7", [1, "x", 3], id=1)))["error"]["data"]["code"] == "VALIDATION_ERROR"


async def test_parameters_keep_their_numbers(rpc) -> None:
    answer = await (await rpc({"a.rpc.py": declared("list[float]")}))(
        b'{"jsonrpc":"2.0","method":"a","params":[1e308,1],"id":1}'
    )
    assert answer["result"] == [1e308, 1.0]


@pytest.mark.parametrize("source", [ECHO, POINT, declared("int")])
async def test_parameters_of_any_depth_are_read_or_refused(rpc, source: str) -> None:
    post = await rpc({"a.rpc.py": source})
    for depth in range(850, 1010, 4):
        answer = await post('{"jsonrpc":"2.0","method":"a","params":%s,"id":1}' % ("[" * depth + "]" * depth))
        assert "result" in answer or answer["error"]["data"]["code"] in {
            "PARSE_ERROR",
            "VALIDATION_ERROR",
            "OUTPUT_VALIDATION_ERROR",
        }


# Batches


async def test_answers_come_in_the_order_of_the_calls(waiting, client) -> None:
    source = """
    import asyncio
    async def handler(input, ctx):
        turns = ctx.app.state.turns
        while len(turns) != 4 - input:
            await asyncio.sleep(0)
        turns.append(input)
        return input
    """
    server, seen = await waiting({"last.rpc.py": source.replace("\n    ", "\n") + "\ninput_schema = int\n"})
    seen.turns = []
    answer = await client(server).post("/rpc", json=[call("last", [n], id=n) for n in range(5)])
    assert (seen.turns, answer.json()) == ([4, 3, 2, 1, 0], [well(n, n) for n in range(5)])


async def test_calls_run_side_by_side_up_to_the_limit_and_begin_in_their_order(waiting, client, eventually) -> None:
    server, seen = await waiting(limits={"streams_per_connection": 3})
    batch = [call("wait", [n], id=n) for n in range(7)]
    asking = asyncio.create_task(client(server).post("/rpc", json=batch))
    await eventually(lambda: len(seen.began) == 3)
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen.began == [[0], [1], [2]] and len(server._hub.sessions) == 7
    seen.go_on.set()
    assert (await asking).json() == [well([n], n) for n in range(7)]
    assert seen.began == [[n] for n in range(7)] and not server._hub.sessions


async def test_a_call_that_fails_harms_no_other(rpc) -> None:
    files = {"echo.rpc.py": ECHO, "fail.rpc.py": FAIL, "bad.rpc.py": "async def handler():\n    raise KeyError(1)\n"}
    files["leave.rpc.py"] = "import asyncio\nasync def handler():\n    raise asyncio.CancelledError\n"
    files["wrong.rpc.py"] = "output_schema = int\nasync def handler():\n    return 'a'\n"
    batch = [
        call("echo", [1], id=1),
        call("bad", id=2),
        call("fail", {"code": "TEAPOT"}, id=3),
        call("leave", id=4),
        call("wrong", id=5),
        call("nothing", id=6),
        {},
        call("echo", [2], id=1),
    ]
    answers = await (await rpc(files))(batch)
    assert [one["id"] for one in answers] == [1, 2, 3, 4, 5, 6, None, 1]
    assert results(answers) == [
        *([1], "INTERNAL_ERROR", "TEAPOT", "INTERNAL_ERROR", "OUTPUT_VALIDATION_ERROR", "NOT_FOUND"),
        *("INVALID_ENVELOPE", [2]),
    ]


async def test_notifications_of_a_batch_run_and_are_left_out(waiting, client) -> None:
    server, seen = await waiting()
    seen.go_on.set()
    batch = [call("wait", ["a"]), call("echo", [1], id=1), call("wait", ["b"]), call("nothing")]
    answer = await client(server).post("/rpc", json=batch)
    assert (answer.json(), seen.began) == ([well([1], 1)], [["a"], ["b"]])


async def test_calls_of_a_batch_share_no_context_variables(rpc) -> None:
    source = """
import contextvars
name = contextvars.ContextVar("name", default=None)

async def handler(input):
    before = name.get()
    name.set(input)
    return before
"""
    answers = await (await rpc({"a.rpc.py": source}, limits={"streams_per_connection": 1}))(
        [call("a", [n], id=n) for n in range(3)]
    )
    assert results(answers) == [None, None, None]


async def test_the_longest_batch_is_answered_whole(rpc) -> None:
    answers = await (await rpc({"echo.rpc.py": ECHO}))([call("echo", [n], id=n) for n in range(1000)])
    assert answers == [well([n], n) for n in range(1000)]


async def test_a_longer_batch_runs_nothing_and_is_told_the_limit(serve, client, state) -> None:
    server = await serve(EXAMPLES)
    answer = (await client(server).post("/rpc", json=[call("update", [1], id=1)] * 1001)).json()
    assert brief(answer) == badly(-32600) and "1000" in answer["error"]["message"]
    assert not hasattr(state(server), "seen")


async def test_requests_that_are_sent_at_once_are_answered_in_their_order(serve, connect) -> None:
    wire = await connect(await serve({"echo.rpc.py": ECHO}))
    await wire.send(request([call("echo", [1], id=1)] * 3) + request(call("echo", [2])) + request([call("x", id=2)]))
    first, second, third = [await wire.answer() for _ in range(3)]
    assert (first.json(), second.status, second.body) == ([well([1], 1)] * 3, 204, b"")
    assert brief(third.json()) == [badly(-32601, 2)]


# Deadlines


async def test_a_deadline_ends_each_call_for_itself(waiting, client) -> None:
    server, seen = await waiting()
    batch = [call("wait", [1], id=1), call("echo", [2], id=2), call("wait", [3])]
    answer = await client(server).post("/rpc", json=batch, headers={"timeout-ms": "30"})
    first, second = answer.json()
    assert (first["error"]["code"], first["error"]["data"]["code"]) == (-32000, "DEADLINE_EXCEEDED")
    assert second == well([2], 2)
    assert sorted(seen.ended) == [([1], "deadline_exceeded"), ([3], "deadline_exceeded")]


async def test_the_deadline_of_one_route_is_its_own(waiting, client, eventually) -> None:
    server, seen = await waiting({"quick.rpc.py": "meta = {'deadline': 0.02}\n" + WAIT})
    asking = asyncio.create_task(client(server).post("/rpc", json=[call("wait", [1], id=1), call("quick", [2], id=2)]))
    await eventually(lambda: seen.ended == [([2], "deadline_exceeded")])
    seen.go_on.set()
    assert results((await asking).json()) == [[1], "DEADLINE_EXCEEDED"]


async def test_a_call_whose_deadline_passes_before_its_turn_never_begins(waiting, client, eventually) -> None:
    quick = {"quick.rpc.py": "meta = {'deadline': 0.02}\n" + WAIT}
    server, seen = await waiting(quick, limits={"streams_per_connection": 1})
    asking = asyncio.create_task(client(server).post("/rpc", json=[call("wait", [1], id=1), call("quick", [2], id=2)]))
    await eventually(lambda: any(session.reason for session in server._hub.sessions))
    seen.go_on.set()
    assert results((await asking).json()) == [[1], "DEADLINE_EXCEEDED"]
    assert seen.began == [[1]]


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "1.5"])
async def test_a_timeout_that_is_none_is_an_error_of_every_call(waiting, client, timeout: str) -> None:
    server, seen = await waiting()
    batch = [call("wait", [1], id=1), call("wait", [2]), call("nothing", id=3)]
    answer = await client(server).post("/rpc", json=batch, headers={"timeout-ms": timeout})
    assert (brief(answer.json()), seen.began) == ([badly(-32602, 1), badly(-32601, 3)], [])


# Clients that leave, servers that end


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_client_that_leaves_ends_its_calls_and_no_further_one_begins(
    waiting, connect, eventually, way: str
) -> None:
    server, seen = await waiting(limits={"streams_per_connection": 2})
    wire = await connect(server)
    await wire.send(request([call("wait", [n], id=n) for n in range(5)]))
    await eventually(lambda: len(seen.began) == 2)
    await getattr(wire, way)()
    await eventually(lambda: not server._hub.sessions and not server._hub.connections)
    assert seen.began == [[0], [1]]
    assert seen.ended == [([0], "client_disconnected"), ([1], "client_disconnected")]


async def test_a_client_that_leaves_ends_its_only_call_and_its_notification(waiting, connect, eventually) -> None:
    server, seen = await waiting()
    for n, members in enumerate([{"id": 1}, {}]):
        wire = await connect(server)
        await wire.send(request(call("wait", [n], **members)))
        await eventually(lambda: len(seen.began) > n)  # noqa: B023 - it is asked at once
        await wire.abort()
        await eventually(lambda: len(seen.ended) > n)  # noqa: B023 - it is asked at once
    assert seen.ended == [([0], "client_disconnected"), ([1], "client_disconnected")]


async def test_a_server_that_ends_gives_calls_their_time(waiting, connect, eventually) -> None:
    server, seen = await waiting(drain_seconds=5)
    wire = await connect(server)
    await wire.send(request([call("wait", [n], id=n) for n in range(2)]))
    await eventually(lambda: len(seen.began) == 2)
    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: server._hub.draining)
    seen.go_on.set()
    answer = await wire.answer()
    assert (answer.json(), answer.headers["connection"]) == ([well([0], 0), well([1], 1)], "close")
    await stopping


async def test_what_a_server_cuts_when_it_ends_is_unavailable_and_no_further_call_begins(
    waiting, connect, eventually
) -> None:
    server, seen = await waiting(drain_seconds=0.05, limits={"streams_per_connection": 2})
    wire = await connect(server)
    await wire.send(request([call("echo", id="first"), *(call("wait", [n], id=n) for n in range(4))]))
    await eventually(lambda: len(seen.began) == 2)
    await server.stop()
    answers = (await wire.answer()).json()
    assert [one["id"] for one in answers] == ["first", 0, 1, 2, 3]
    assert results(answers) == [{}, *["UNAVAILABLE"] * 4]
    assert {one["error"]["code"] for one in answers[1:]} == {-32000} and seen.began == [[0], [1]]


# Bounds

BIG = """
async def handler(input, ctx):
    ctx.app.state.__dict__.setdefault("ran", []).append(input)
    return "x" * 5000
"""


async def test_a_batch_whose_answer_is_too_large_runs_no_further_call(serve, client, state) -> None:
    server = await serve({"big.rpc.py": BIG}, limits={"message_bytes": 1000, "streams_per_connection": 1})
    answers = (await client(server).post("/rpc", json=[call("big", id=n) for n in range(10)])).json()
    assert [one.get("result") for one in answers] == ["x" * 5000] * 4 + [None] * 6
    assert len(state(server).ran) == 4
    for one in answers[4:]:
        assert (one["error"]["code"], one["error"]["data"]["code"]) == (-32002, "RESOURCE_EXHAUSTED")
        assert one["error"]["data"]["details"] == {"reason": "batch_answer_too_large"}
        assert "16000 bytes" in one["error"]["message"]


async def test_a_result_that_comes_when_there_is_no_room_is_dropped_and_said_to_be(serve, client, state) -> None:
    source = BIG.replace("    return", "    import asyncio\n    await asyncio.sleep(0)\n    return")
    server = await serve({"big.rpc.py": source}, limits={"message_bytes": 1000})
    answers = (await client(server).post("/rpc", json=[call("big", id=n) for n in range(10)])).json()
    assert [one.get("result") for one in answers] == ["x" * 5000] * 4 + [None] * 6
    assert len(state(server).ran) == 10


async def test_notifications_run_where_there_is_no_room_for_answers(serve, client, state) -> None:
    server = await serve({"big.rpc.py": BIG}, limits={"message_bytes": 1000, "streams_per_connection": 1})
    batch = [*(call("big", id=n) for n in range(5)), call("big", ["told"])]
    assert len((await client(server).post("/rpc", json=batch)).json()) == 5
    assert state(server).ran == [*[{}] * 4, ["told"]]


async def test_errors_for_which_there_is_no_room_are_told_without_their_details(rpc) -> None:
    source = """
import asyncio
from raffel_core import RaffelError

async def handler():
    await asyncio.sleep(0)
    raise RaffelError("TEAPOT", "m" * 500, details="x" * 5000)
"""
    post = await rpc({"fail.rpc.py": source}, limits={"message_bytes": 1000})
    answers = await post([call("fail", id=n) for n in range(10)])
    assert results(answers) == ["TEAPOT"] * 10
    assert ["details" in one["error"]["data"] for one in answers] == [True] * 3 + [False] * 7
    assert answers[-1]["error"]["message"] == "m" * 200


async def test_one_result_may_be_as_large_as_that_of_any_procedure(rpc) -> None:
    post = await rpc({"big.rpc.py": BIG.replace("5000", "50000")}, limits={"message_bytes": 1000})
    assert len((await post(call("big", id=1)))["result"]) == 50000


async def test_the_answer_to_the_longest_batch_of_large_results_is_bounded(serve, client) -> None:
    server = await serve({"big.rpc.py": "async def handler():\n    return 'x' * 1024 * 1024\n"})
    answer = await client(server).post("/rpc", json=[call("big", id=n) for n in range(1000)])
    assert len(answer.json()) == 1000 and len(answer.content) < 18 * 1024 * 1024


@pytest.mark.parametrize("piece", [b"1,", b"[],", b'"",', b"["])
async def test_a_body_of_the_largest_size_that_is_no_batch_is_one_error(serve, client, piece: bytes) -> None:
    body = (b"[" + piece * (1024 * 1024 // len(piece)))[: 1024 * 1024 - 4]
    body = body[: body.rindex(piece)] + b"1]" if piece != b"[" else body
    answer = await client(await serve()).post("/rpc", content=body, headers=JSON)
    assert brief(answer.json()) == badly(-32700 if piece == b"[" else -32600)


# What HTTP has to say of it


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_it_is_posted_to(serve, client, method: str) -> None:
    answer = await client(await serve(EXAMPLES)).request(method, "/rpc")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert (answer.content == b"") == (method == "HEAD")


async def test_a_preflight_of_a_page_of_its_own_is_allowed(serve, client) -> None:
    headers = {"Origin": "http://app.com", "Host": "app.com", "Access-Control-Request-Method": "POST"}
    answer = await client(await serve(EXAMPLES)).options("/rpc", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" in answer.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "text/json", "", None])
async def test_a_body_of_another_type_is_refused(serve, client, state, media: str | None) -> None:
    server = await serve(EXAMPLES)
    headers = {} if media is None else {"Content-Type": media}
    answer = await client(server).post("/rpc", content=json.dumps(call("update")), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert not hasattr(state(server), "seen")


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "application/json-rpc+json", "APPLICATION/JSON"])
async def test_a_body_of_any_type_that_is_json_is_read(rpc, media: str) -> None:
    assert await (await rpc(EXAMPLES))(call("get_data", id=1), **{"Content-Type": media}) == well(["hello", 5], 1)


async def test_no_body_is_a_parse_error(serve, client) -> None:
    answer = await client(await serve()).post("/rpc")
    assert (answer.status_code, brief(answer.json())) == (200, badly(-32700))


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_the_limit_of_a_body(serve, client, size: int, status: int) -> None:
    body = json.dumps(call("echo", id=1)).encode().ljust(size)
    http = client(await serve({"echo.rpc.py": ECHO}, limits={"message_bytes": 1000}))
    answer = await http.post("/rpc", content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.json() == well({}, 1) if status == 200 else answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://app.com.evil.com"])
async def test_pages_of_others_are_refused_before_any_handler_runs(serve, client, state, origin: str) -> None:
    server = await serve(EXAMPLES)
    headers = {"Origin": origin, "Host": "app.com"}
    answer = await client(server).post("/rpc", json=call("update"), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert not hasattr(state(server), "seen")


async def test_an_allowed_page_may_read_its_answer(serve, client) -> None:
    http = client(await serve(EXAMPLES, cors={"origins": ["https://app.com"]}))
    answer = await http.post("/rpc", json=call("get_data", id=1), headers={"Origin": "https://app.com"})
    assert (answer.json(), answer.headers["access-control-allow-origin"]) == (
        well(["hello", 5], 1),
        "https://app.com",
    )


async def test_a_host_that_is_not_served_is_misdirected(serve, client, state) -> None:
    server = await serve(EXAMPLES, allowed_hosts=["app.com"])
    answer = await client(server).post("/rpc", json=call("update"), headers={"Host": "other.com"})
    assert answer.status_code == 421 and not hasattr(state(server), "seen")


async def test_it_is_where_the_configuration_has_it(serve, client) -> None:
    http = client(await serve(EXAMPLES, base_path="/api/v1", jsonrpc={"path": "/call"}))
    assert (await http.post("/api/v1/call", json=call("get_data", id=1))).json() == well(["hello", 5], 1)
    for path in ("/api/v1/rpc", "/call", "/rpc", "/api/v1/call/more"):
        assert (await http.post(path, json=call("get_data", id=1))).status_code == 404


async def test_a_connection_is_kept(serve, connect) -> None:
    wire = await connect(await serve({"echo.rpc.py": ECHO}))
    for body, status in [(call("echo", id=1), 200), (call("echo"), 204), ([], 200), ([call("echo", id=1)], 200)]:
        await wire.send(request(body))
        assert (await wire.answer()).status == status


# Any body

MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2.0, None]),
        "method": st.sampled_from(["echo", "subtract", "sum", "bad", "ticks", "rpc.x", "nothing", "", 1]) | st.text(),
        "params": st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=6,
        ),
        "id": st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=1),
    },
)
CALLS = st.builds(lambda members: {"jsonrpc": "2.0", "method": "echo", **members}, MEMBERS) | MEMBERS
BODIES = st.one_of(
    CALLS.map(json.dumps).map(str.encode),
    st.lists(CALLS | st.integers(), max_size=5).map(json.dumps).map(str.encode),
    st.binary(max_size=50),
    st.tuples(st.lists(CALLS, max_size=3).map(json.dumps).map(str.encode), st.integers(0), st.binary(max_size=2)).map(
        lambda cut: cut[0][: cut[1] % (len(cut[0]) + 1)] + cut[2]
    ),
)


def is_answer(answer: Any) -> bool:
    """Whether this is a response object, and nothing else (5)."""
    if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0" or "id" not in answer:
        return False
    if not isinstance(answer["id"], (str, int, float, type(None))) or isinstance(answer["id"], bool):
        return False
    if set(answer) == {"jsonrpc", "result", "id"}:
        return True
    error = answer["error"] if set(answer) == {"jsonrpc", "error", "id"} else {}
    return isinstance(error.get("code"), int) and isinstance(error.get("message"), str) and "data" in error


async def test_every_body_is_answered_as_the_specification_has_it_or_not_at_all(serve) -> None:
    bad = {"bad.rpc.py": "async def handler():\n    raise ValueError\n", "ticks.stream.py": STREAM}
    server = await serve({**EXAMPLES, **bad, "echo.rpc.py": ECHO})

    def ask_all() -> None:
        with httpx.Client(base_url=server.url, verify=False, trust_env=False, timeout=5) as http:

            @settings(deadline=None, max_examples=300)
            @given(BODIES)
            def ask(body: bytes) -> None:
                answer = http.post("/rpc", content=body, headers=JSON)
                if answer.status_code == 204:
                    assert answer.content == b""
                    return
                assert answer.status_code == 200
                found = answer.json()
                assert all(map(is_answer, found)) if isinstance(found, list) and found else is_answer(found)

            ask()

    await asyncio.to_thread(ask_all)
    assert not server._hub.sessions
