"""JSON-RPC 2.0: which bytes are calls, what is wrong with others, and how answers are written."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raffel_core.errors import CODES, RaffelError
from raffel_core.wire import jsonrpc as wire
from raffel_core.wire.jsonrpc import MAX_CALLS, Body, Call, Violation, joined, members_of, read

KINDS: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "false": b"false",
    "a number": b"7",
    "a string": b'"7"',
    "an array": b"[]",
    "an object": b"{}",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def call(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "add", **members}).encode()


def only(body: bytes) -> Call | Violation:
    calls, batch = read(body)
    assert len(calls) == 1 and not batch
    return calls[0]


def accepted(body: bytes) -> Call:
    found = only(body)
    assert isinstance(found, Call), found
    return found


def refused(body: bytes) -> tuple[str, bytes]:
    """The code of the violation that a body is, and the id of its answer."""
    found = only(body)
    assert isinstance(found, Violation), found
    return found.error.code, found.id


# Calls


def test_a_call_has_its_method_parameters_and_id_as_they_were_sent() -> None:
    body = b' {"id" : 1 , "params":{ "a": 1.0 },"method":"users.create", "jsonrpc":"2.0"}\r\n'
    assert accepted(body) == Call("users.create", b'{ "a": 1.0 }', b"1")


@pytest.mark.parametrize("id", ["1", "-1", "0", "1.5", "1.50", "1e3", "1E+400", "123456789012345678901234567890"])
def test_an_id_that_is_a_number_keeps_its_spelling(id: str) -> None:
    assert accepted(f'{{"jsonrpc":"2.0","method":"add","id":{id}}}'.encode()).id == id.encode()


@pytest.mark.parametrize("id", ['""', '"1"', '"\\u0041"', '"a\\"b"', '"é"', '"\\ud83d\\ude00"', '"null"'])
def test_an_id_that_is_a_string_keeps_its_spelling(id: str) -> None:
    assert accepted(f'{{"jsonrpc":"2.0","method":"add","id":{id}}}'.encode()).id == id.encode()


def test_an_id_of_null_is_an_id() -> None:
    assert accepted(call(id=None)).id == b"null"


def test_without_an_id_it_is_a_notification() -> None:
    assert accepted(call()).id is None


@pytest.mark.parametrize("params", [b"[]", b"{}", b'[1, "a", null]', b'{"a": {"b": []}}'])
def test_parameters_are_an_array_or_an_object(params: bytes) -> None:
    assert accepted(b'{"jsonrpc":"2.0","method":"add","params":%b}' % params).params == params


def test_without_parameters_there_are_none() -> None:
    assert accepted(call()).params == b""


def test_other_members_are_ignored() -> None:
    assert accepted(call(id=1, meta={"a": [1]}, result=2)) == Call("add", b"", b"1")


def test_the_spelling_of_a_string_does_not_matter() -> None:
    assert accepted(b'{"jsonrpc":"2\\u002e0","\\u006dethod":"\\u0061dd"}') == Call("add", b"", None)


def test_a_batch_is_read_in_its_order() -> None:
    body = b"[%b, %b, %b]" % (call(id=1), call(method="b"), call(id="c"))
    calls = [Call("add", b"", b"1"), Call("b", b"", None), Call("add", b"", b'"c"')]
    assert read(body) == Body(calls, batch=True)


@pytest.mark.parametrize("space", [b"", b" ", b"\r\n\t "])
def test_a_batch_of_one_is_a_batch(space: bytes) -> None:
    assert read(space + b"[" + call(id=1) + b"]") == Body([Call("add", b"", b"1")], batch=True)


# What is no call


@pytest.mark.parametrize("version", ["1.0", "2", "2.00", "", 2, 2.0, None, [], {}])
def test_the_version_is_exactly_2_0(version: Any) -> None:
    assert refused(call(jsonrpc=version, id=1)) == ("INVALID_ENVELOPE", b"1")


def test_the_version_may_not_be_missing() -> None:
    assert refused(b'{"method":"add","id":1}') == ("INVALID_ENVELOPE", b"1")


@pytest.mark.parametrize("method", [1, None, True, [], {}, ["add"]])
def test_a_method_is_a_string(method: Any) -> None:
    assert refused(call(method=method, id="a")) == ("INVALID_ENVELOPE", b'"a"')


def test_a_method_may_not_be_missing() -> None:
    assert refused(b'{"jsonrpc":"2.0","id":1}') == ("INVALID_ENVELOPE", b"1")


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"an array", "an object"}))
def test_parameters_of_another_type_are_refused_by_name(kind: str) -> None:
    found = only(b'{"jsonrpc":"2.0","method":"add","id":1,"params":%b}' % KINDS[kind])
    assert isinstance(found, Violation) and found.id == b"1"
    assert found.error.message == f"`params` is {kind}, expected an array or an object"


@pytest.mark.parametrize("kind", ["true", "false", "an array", "an object"])
def test_an_id_of_another_type_is_refused_by_name_and_not_echoed(kind: str) -> None:
    found = only(b'{"jsonrpc":"2.0","method":"add","id":%b}' % KINDS[kind])
    assert isinstance(found, Violation) and found.id == b"null"
    assert found.error.message == f"`id` is {kind}, expected a string, a number or null"


@pytest.mark.parametrize("id", [True, [], {}])
def test_an_id_that_is_none_is_not_echoed_to_what_is_no_call_for_another_reason(id: Any) -> None:
    assert refused(call(method=1, id=id)) == ("INVALID_ENVELOPE", b"null")


def test_what_would_be_a_notification_but_is_no_call_is_refused() -> None:
    assert refused(b'{"jsonrpc":"2.0","method":1,"params":"bar"}') == ("INVALID_ENVELOPE", b"null")


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"an array"}))
def test_a_body_that_is_no_request_object_is_refused(kind: str) -> None:
    assert refused(KINDS[kind]) == ("INVALID_ENVELOPE", b"null")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_member_of_a_batch_that_is_no_request_object_is_refused_alone(kind: str) -> None:
    calls, batch = read(b"[%b,%b]" % (KINDS[kind], call(id=2)))
    assert batch and calls[1] == Call("add", b"", b"2")
    assert isinstance(calls[0], Violation) and (calls[0].error.code, calls[0].id) == ("INVALID_ENVELOPE", b"null")


@pytest.mark.parametrize("body", [b"[]", b" [ ] "])
def test_an_empty_batch_is_refused_as_one(body: bytes) -> None:
    assert refused(body) == ("INVALID_ENVELOPE", b"null")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nonsense",
        b"{",
        b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        b'{"jsonrpc":"2.0","method":"add","id":1}x',
        b'{"jsonrpc":"2.0","method":"add","id":1.}',
        b'{"jsonrpc":"2.0","method":"add","id":01}',
        b'{"jsonrpc":"2.0","method":"add","id":NaN}',
        b'{"jsonrpc":"2.0","method":"add","id":"\n"}',
        b'{"jsonrpc":"2.0","method":"add","id":1,"params":[1,]}',
        b'{"jsonrpc":"2.0","method":"add","id":1,"params":["\xff"]}',
        b'{"jsonrpc":"2.0","method":"add","id":1,"params":["\\x"]}',
        b'[{"jsonrpc":"2.0","method":"add","id":1},{"jsonrpc":"2.0","method"]',
        b"[1" + b",1" * MAX_CALLS + b",",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_is_one_parse_error(body: bytes) -> None:
    assert refused(body) == ("PARSE_ERROR", b"null")


@pytest.mark.parametrize("bracket", [b"[", b'{"a":', b'{"jsonrpc":"2.0","method":"add","params":['])
def test_a_body_that_nests_too_deep_is_one_parse_error(bracket: bytes) -> None:
    assert refused(bracket * (1024 * 1024 // len(bracket))) == ("PARSE_ERROR", b"null")


@pytest.mark.parametrize("form", [b'{"jsonrpc":"2.0","method":"add","id":1,"params":%b}', b"%b", b'[{"id":%b}]'])
def test_every_depth_is_read_or_refused(form: bytes) -> None:
    for depth in range(800, 1100):
        calls, _ = read(form % (b"[" * depth + b"]" * depth))
        assert len(calls) == 1 and isinstance(calls[0], (Call, Violation))


# Bounds


def test_a_batch_of_the_greatest_length_is_read() -> None:
    calls, batch = read(b"[" + b",".join([call(id=1)] * MAX_CALLS) + b"]")
    assert batch and calls == [Call("add", b"", b"1")] * MAX_CALLS


def test_a_batch_of_one_more_is_refused_as_one_and_told_the_limit() -> None:
    found = only(b"[" + b",".join([call(id=1)] * (MAX_CALLS + 1)) + b"]")
    assert isinstance(found, Violation)
    assert (found.error.code, found.id) == ("INVALID_ENVELOPE", b"null") and "1000" in found.error.message


@pytest.mark.parametrize("member", [b"1", b"[]", b"{}", b'""', b"null"])
def test_nothing_is_made_of_the_members_of_too_long_a_batch(member: bytes) -> None:
    body = b"[" + (member + b",") * (1024 * 1024 // (len(member) + 1) - 1) + b"1]"
    read(body)  # what is made once, on the first batch, does not count
    tracemalloc.start()
    try:
        assert refused(body) == ("INVALID_ENVELOPE", b"null")
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("array", "most", "members"),
    [
        (b"[]", 0, []),
        (b"[1]", 0, None),
        (b"[1]", 1, [b"1"]),
        (b'[ 1.0 , "a" ]', 2, [b"1.0", b'"a"']),
        (b"[1,2,3]", 2, None),
        (b"[[1,2],{}]", 5, [b"[1,2]", b"{}"]),
    ],
)
def test_the_members_of_an_array(array: bytes, most: int, members: list[bytes] | None) -> None:
    assert members_of(array, most) == members


# Answers


def test_a_result_is_told_with_the_id_of_its_call() -> None:
    assert wire.result(b"1.50", b'{"a":1}') == b'{"jsonrpc":"2.0","result":{"a":1},"id":1.50}'


def test_an_error_is_told_by_number_message_and_error_object() -> None:
    answer = json.loads(wire.error(b'"a"', RaffelError("NOT_FOUND", "no such user", {"id": 7})))
    data = {"code": "NOT_FOUND", "message": "no such user", "details": {"id": 7}}
    assert answer == {"jsonrpc": "2.0", "error": {"code": -32004, "message": "no such user", "data": data}, "id": "a"}


@pytest.mark.parametrize("code", CODES)
def test_the_table_has_the_number_of_a_code(code: str) -> None:
    assert json.loads(wire.error(b"1", RaffelError(code)))["error"]["code"] == CODES[code].jsonrpc


def test_a_code_of_ones_own_has_the_number_of_a_server_error() -> None:
    assert json.loads(wire.error(b"1", RaffelError("TEAPOT", "short")))["error"]["code"] == -32000


def test_a_number_and_data_may_be_given() -> None:
    error = json.loads(wire.error(b"1", RaffelError("NOT_FOUND", "no"), number=-32601, data=b"[1]"))["error"]
    assert error == {"code": -32601, "message": "no", "data": [1]}


def test_an_error_without_a_message_is_told_by_its_code() -> None:
    error = json.loads(wire.error(b"1", RaffelError("NOT_FOUND")))["error"]
    assert error == {"code": -32004, "message": "NOT_FOUND", "data": {"code": "NOT_FOUND", "message": ""}}


def test_what_json_cannot_hold_does_not_keep_an_error_from_being_told() -> None:
    error = json.loads(wire.error(b"1", RaffelError("NOT_FOUND", "no \udcff", object())))["error"]
    assert (error["code"], error["message"], error["data"]["code"]) == (-32004, "no \\udcff", "NOT_FOUND")


def test_the_answers_of_a_batch_are_an_array() -> None:
    assert joined(Body([], batch=True), [b"1"]) == b"[1]"
    assert joined(Body([], batch=True), [b"1", b"2"]) == b"[1,2]"


def test_the_answer_of_a_call_stands_alone() -> None:
    assert joined(Body([], batch=False), [b"1"]) == b"1"


@pytest.mark.parametrize("batch", [True, False])
def test_to_notifications_there_is_nothing_to_say(batch: bool) -> None:
    assert joined(Body([], batch=batch), []) == b""


# Any bytes


@given(st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_are_calls_or_violations_and_at_least_one(data: bytes) -> None:
    calls, batch = read(data)
    assert calls and all(isinstance(one, (Call, Violation)) for one in calls)
    assert batch or len(calls) == 1


@given(
    st.text(), st.lists(JSON) | st.dictionaries(st.text(), JSON), st.text() | st.integers() | st.floats() | st.none()
)
def test_any_call_is_read_as_it_was_written(method: str, params: Any, id: Any) -> None:
    texts = [json.dumps(one, ensure_ascii=False) for one in (method, params, id)]
    body = '{{"jsonrpc": "2.0", "method": {}, "params": {}, "id": {}}}'.format(*texts).encode()
    if texts[2] in ("NaN", "Infinity", "-Infinity"):
        assert refused(body)[0] == "PARSE_ERROR"
    else:
        assert accepted(body) == Call(method, texts[1].encode(), texts[2].encode())
