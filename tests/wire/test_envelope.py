"""Envelopes: which bytes of a client are a message, which are a violation and of whom, and what is written."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raffel_core.errors import RaffelError
from raffel_core.wire import envelope as wire
from raffel_core.wire.envelope import (
    CANCEL,
    CREDIT,
    DATA,
    END,
    MAX_CREDIT,
    MAX_DEPTH,
    MAX_ID,
    NO_DATA,
    REQUEST,
    START,
    TYPES,
    Envelope,
    Violation,
    depth,
    encode,
    read_json,
    read_message,
)

Refusal = tuple[str, str | None, str | None]
"""The code of a violation, and the type and id that could be read."""

KINDS: dict[str, bytes] = {
    "null": b"null",
    "boolean": b"true",
    "integer": b"7",
    "number": b"1.5",
    "string": b'"7"',
    "array": b"[]",
    "object": b"{}",
}


def message(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def opening(**fields: Any) -> bytes:
    return message(**{"type": START, "id": "s1", "procedure": "logs.tail", **fields})


def accepted(data: bytes) -> Envelope:
    event = read_message(data)
    assert isinstance(event, Envelope), event
    return event


def refused(data: bytes) -> Refusal:
    event = read_message(data)
    assert isinstance(event, Violation), event
    assert event.error.message
    return event.error.code, event.type, event.id


def nested(levels: int) -> bytes:
    """A message that nests so deep, with its own braces."""
    return b'{"type":"cancel","id":"a","x":%b%b}' % (b"[" * (levels - 1), b"]" * (levels - 1))


# What is read


@pytest.mark.parametrize("type", TYPES)
def test_each_type_is_read(type: str) -> None:
    read = accepted(message(type=type, id="1", procedure="p", credit=1))
    assert (read.type, read.id) == (type, "1")


def test_every_field_is_read() -> None:
    read = accepted(
        opening(payload={"a": 1}, metadata={"k": "v"}, lastEventId="9", priority=-3, credit=32, binary=True)
    )
    assert (read.procedure, json.loads(bytes(read.payload)), read.metadata) == ("logs.tail", {"a": 1}, {"k": "v"})
    assert (read.lastEventId, read.priority, read.credit, read.binary) == ("9", -3, 32, True)
    assert read.data is NO_DATA


@pytest.mark.parametrize("payload", [b"1.00", b'{"b": 2, "a" :1}', b'"\\u00e9"', b"12345678901234567890123", b"null"])
def test_a_payload_stays_as_it_was_sent(payload: bytes) -> None:
    assert bytes(accepted(b'{"type":"stream:data","id":"1","payload":%b}' % payload).payload) == payload


def test_without_a_payload_it_is_empty() -> None:
    assert bytes(accepted(message(type=DATA, id="1")).payload) == b""


def test_white_space_around_tokens_does_not_matter() -> None:
    assert accepted(b' \r\n\t{ "type" : "cancel" ,\n "id" : "1" } \n').id == "1"


@pytest.mark.parametrize("field", ["metadata", "lastEventId", "priority", "credit", "binary"])
def test_an_optional_field_may_be_null(field: str) -> None:
    assert getattr(accepted(opening(**{field: None})), field) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_ignored(kind: str) -> None:
    assert accepted(b'{"type":"cancel","id":"1","x":%b}' % KINDS[kind]) == Envelope(CANCEL, "1")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_called_data_is_ignored(kind: str) -> None:
    assert accepted(b'{"type":"cancel","id":"1","data":%b}' % KINDS[kind]) == Envelope(CANCEL, "1")


def test_of_a_repeated_field_the_last_one_counts() -> None:
    assert accepted(b'{"type":"cancel","id":"a","type":"stream:end","id":"b"}') == Envelope(END, "b")


def test_escapes_are_read_in_names_and_values() -> None:
    assert accepted(b'{"\\u0074ype":"can\\u0063el","id":"\\ud83d\\ude00\\n\\u0000"}') == Envelope(CANCEL, "😀\n\0")


# Fields of a wrong type


def wrong(*right: str) -> list[str]:
    return [kind for kind in KINDS if kind not in right]


def with_field(field: str, kind: str, **others: str) -> bytes:
    fields = {"type": START, "id": "s1", "procedure": "p", **others}
    members = [b"%b:%b" % (encode(name), encode(value)) for name, value in fields.items() if name != field]
    return b"{%b}" % b",".join([*members, b'"%b":%b' % (field.encode(), KINDS[kind])])


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(
    "field,kind",
    [
        *(("procedure", kind) for kind in wrong("string", "null")),
        *(("metadata", kind) for kind in wrong("object", "null")),
        *(("lastEventId", kind) for kind in wrong("string", "null")),
        *(("priority", kind) for kind in wrong("integer", "null")),
        *(("credit", kind) for kind in wrong("integer", "null")),
        *(("binary", kind) for kind in wrong("boolean", "null")),
    ],
)
def test_a_field_of_a_wrong_type_is_no_envelope(type: str, field: str, kind: str) -> None:
    assert refused(with_field(field, kind, type=type)) == ("INVALID_ENVELOPE", type, "s1")


@pytest.mark.parametrize("kind", wrong("string"))
def test_a_type_that_is_no_string_is_no_envelope(kind: str) -> None:
    assert refused(with_field("type", kind)) == ("INVALID_ENVELOPE", None, "s1")


@pytest.mark.parametrize("kind", wrong("string"))
def test_an_id_that_is_no_string_is_no_envelope(kind: str) -> None:
    assert refused(with_field("id", kind)) == ("INVALID_ENVELOPE", START, None)


def test_a_message_without_a_type_is_no_envelope() -> None:
    assert refused(message(id="1")) == ("INVALID_ENVELOPE", None, "1")


@pytest.mark.parametrize("type", TYPES)
def test_a_message_without_an_id_is_no_envelope(type: str) -> None:
    assert refused(message(type=type, procedure="p", credit=1)) == ("INVALID_ENVELOPE", type, None)


@pytest.mark.parametrize("type", [REQUEST, START])
@pytest.mark.parametrize("procedure", [{}, {"procedure": None}, {"procedure": ""}])
def test_an_opening_without_a_procedure_is_no_envelope(type: str, procedure: dict[str, Any]) -> None:
    assert refused(message(type=type, id="1", **procedure)) == ("INVALID_ENVELOPE", type, "1")


@pytest.mark.parametrize("data", [b"null", b"true", b"5", b'"cancel"', b"[]", b'["cancel"]'])
def test_json_that_is_no_object_is_no_envelope(data: bytes) -> None:
    assert refused(data) == ("INVALID_ENVELOPE", None, None)


@pytest.mark.parametrize(
    "field",
    [b'"metadata":{"n":1e400}', b'"credit":%b' % (b"9" * 5000), b'"payload":1e400,"priority":"x"'],
    ids=["metadata", "credit", "payload"],
)
def test_a_number_beyond_all_bounds_does_not_hide_the_id(field: bytes) -> None:
    data = b'{"type":"stream:start","id":"s1","procedure":"p",%b}' % field
    assert refused(data) == ("INVALID_ENVELOPE", START, "s1")


# Unknown types


@pytest.mark.parametrize("type", ["", "nope", "Cancel", "stream:error", "response", "error", "cancel ", "x" * 10_000])
def test_an_unknown_type_is_told_with_the_id(type: str) -> None:
    assert refused(message(type=type, id="1")) == ("INVALID_TYPE", type, "1")


@pytest.mark.parametrize("id", [{}, {"id": ""}, {"id": None}, {"id": 5}, {"id": "x" * 129}])
def test_an_unknown_type_is_told_also_without_an_id(id: dict[str, Any]) -> None:
    assert refused(message(type="nope", **id)) == ("INVALID_TYPE", "nope", None)


def test_an_unknown_type_is_told_also_where_other_fields_are_wrong() -> None:
    assert refused(message(type="nope", id="1", credit="x")) == ("INVALID_TYPE", "nope", "1")


def test_the_answer_to_an_unknown_type_does_not_repeat_a_long_one() -> None:
    event = read_message(message(type="x" * 10_000, id="1"))
    assert isinstance(event, Violation) and len(event.error.message) < 300


# Bounds

BYTES = {1: "a", 2: "é", 3: "€", 4: "😀"}


def of_bytes(size: int, width: int) -> str:
    """A text of this many bytes, as many characters of this width as go into it and an `a` for each byte left."""
    return BYTES[width] * (size // width) + "a" * (size % width)


@pytest.mark.parametrize("width", BYTES)
def test_an_id_has_up_to_128_bytes(width: int) -> None:
    assert accepted(message(type=CANCEL, id=of_bytes(128, width))).id == of_bytes(128, width)
    assert refused(message(type=CANCEL, id=of_bytes(129, width))) == ("INVALID_ENVELOPE", CANCEL, None)


def test_an_id_has_at_least_1_byte() -> None:
    assert accepted(message(type=CANCEL, id="a")).id == "a"
    assert refused(message(type=CANCEL, id="")) == ("INVALID_ENVELOPE", CANCEL, None)


@pytest.mark.parametrize("type", [REQUEST, START])
@pytest.mark.parametrize("width", BYTES)
def test_a_procedure_has_up_to_512_bytes(type: str, width: int) -> None:
    assert accepted(message(type=type, id="1", procedure=of_bytes(512, width))).procedure == of_bytes(512, width)
    assert refused(message(type=type, id="1", procedure=of_bytes(513, width))) == ("INVALID_ENVELOPE", type, "1")


@pytest.mark.parametrize("width", BYTES)
def test_a_last_event_id_has_up_to_256_bytes(width: int) -> None:
    assert accepted(opening(lastEventId=of_bytes(256, width))).lastEventId == of_bytes(256, width)
    assert refused(opening(lastEventId=of_bytes(257, width))) == ("INVALID_ENVELOPE", START, "s1")


def test_a_last_event_id_may_be_empty() -> None:
    assert accepted(opening(lastEventId="")).lastEventId == ""


@pytest.mark.parametrize("type", [REQUEST, START])
def test_metadata_has_up_to_64_entries(type: str) -> None:
    entries = {f"k{n}": "v" for n in range(65)}
    assert refused(opening(type=type, metadata=entries)) == ("INVALID_ENVELOPE", type, "s1")
    del entries["k0"]
    assert accepted(opening(type=type, metadata=entries)).metadata == entries


@pytest.mark.parametrize("type", [REQUEST, START])
@pytest.mark.parametrize("width", BYTES)
def test_metadata_has_up_to_16_kib_with_its_keys(type: str, width: int) -> None:
    full = {"keys": of_bytes(8188, width), "count": of_bytes(8187, width)}
    assert accepted(opening(type=type, metadata=full)).metadata == full
    assert refused(opening(type=type, metadata={**full, "count": full["count"] + "a"})) == (
        "INVALID_ENVELOPE",
        type,
        "s1",
    )


def test_a_value_that_is_no_string_counts_as_the_string_it_becomes() -> None:
    numbers = [1] * 8190  # [1,1,...] of 16,381 bytes
    assert accepted(opening(metadata={"abc": numbers}))
    assert refused(opening(metadata={"abcd": numbers})) == ("INVALID_ENVELOPE", START, "s1")


@pytest.mark.parametrize("priority", [-128, -1, 0, 127])
def test_a_priority_from_minus_128_to_127(priority: int) -> None:
    assert accepted(opening(priority=priority)).priority == priority


@pytest.mark.parametrize("priority", [-129, 128, 2**31, -(2**63), 2**64])
def test_a_priority_beyond_is_no_envelope(priority: int) -> None:
    assert refused(opening(priority=priority)) == ("INVALID_ENVELOPE", START, "s1")


@pytest.mark.parametrize("credit", [1, 2, MAX_CREDIT])
def test_a_credit_from_1_to_2_to_the_31_minus_1(credit: int) -> None:
    assert accepted(opening(credit=credit)).credit == credit
    assert accepted(message(type=CREDIT, id="s1", credit=credit)).credit == credit


@pytest.mark.parametrize("credit", [0, -1, 2**31, 2**64, -(2**64)])
def test_a_credit_beyond_is_no_envelope(credit: int) -> None:
    assert refused(opening(credit=credit)) == ("INVALID_ENVELOPE", START, "s1")
    assert refused(message(type=CREDIT, id="s1", credit=credit)) == ("INVALID_ENVELOPE", CREDIT, "s1")


@pytest.mark.parametrize("credit", [{}, {"credit": None}])
def test_a_grant_without_credit_is_no_envelope(credit: dict[str, Any]) -> None:
    assert refused(message(type=CREDIT, id="s1", **credit)) == ("INVALID_ENVELOPE", CREDIT, "s1")


# Metadata


@pytest.mark.parametrize(
    "value,text",
    [
        (b'"x"', "x"),
        (b'"1"', "1"),
        (b"1", "1"),
        (b"1.5", "1.5"),
        (b"true", "true"),
        (b"null", "null"),
        (b"[1, 2]", "[1,2]"),
        (b'{"a": ["\\u00e9"]}', '{"a":["é"]}'),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_a_value_of_metadata_becomes_a_string(value: bytes, text: str) -> None:
    data = b'{"type":"request","id":"1","procedure":"p","metadata":{"k":%b}}' % value
    assert accepted(data).metadata == {"k": text}


def test_keys_of_metadata_are_in_lower_case_like_those_of_headers() -> None:
    assert accepted(opening(metadata={"Timeout-MS": "5"})).metadata == {"timeout-ms": "5"}


# Depth


@pytest.mark.parametrize("brackets", ["[]", "{}"])
@pytest.mark.parametrize("field", ["payload", "unknown", "metadata"])
def test_a_message_nests_up_to_512_deep(field: str, brackets: str) -> None:
    left, right = (b"[", b"]") if brackets == "[]" else (b'{"k":', b"}")
    start, stop = (b'{"k":', b"}") if field == "metadata" else (left, right)

    def data(levels: int) -> bytes:
        inside = left * (levels - 2) + b"0" + right * (levels - 2)
        return b'{"type":"request","id":"1","procedure":"p","%b":%b%b%b}' % (field.encode(), start, inside, stop)

    assert depth(data(512)) == 512
    assert accepted(data(512)).id == "1"
    assert refused(data(513))[0] == "PARSE_ERROR"


@pytest.mark.parametrize("levels", [513, 1000, 1001, 100_000, 1_000_000])
def test_a_message_that_nests_deeper_is_no_json(levels: int) -> None:
    assert refused(nested(levels))[0] == "PARSE_ERROR"


@pytest.mark.parametrize(
    "text", ["[" * 600, '\\"' + "[" * 600, "\\\\" + "{" * 600, '["[' * 600, "\\" * 601 + "[" * 600]
)
def test_brackets_in_strings_are_not_deep(text: str) -> None:
    assert accepted(message(type=CANCEL, id="1", x=text, y="[" * 600)).id == "1"


@pytest.mark.parametrize("text", ["\\", '\\"', '"', '"]', "\\\\", '\\"]'])
def test_brackets_behind_strings_are_deep(text: str) -> None:
    deep = b"[" * 512 + b"]" * 512
    assert refused(b'{"type":"cancel","id":"1","x":%b,"y":%b}' % (encode(text), deep))[0] == "PARSE_ERROR"


def test_brackets_side_by_side_are_not_deep() -> None:
    assert accepted(message(type=CANCEL, id="1", x=[[], {}] * 10_000)).id == "1"


@pytest.mark.parametrize(
    "data", [b"[" * 600, b"{" * 600, b'["' + b"[" * 600, b"]" * 600 + b"[" * 600, b"[" * 600 + b'"']
)
def test_what_is_deep_may_be_broken_too(data: bytes) -> None:
    assert refused(data) == ("PARSE_ERROR", None, None)


trees = st.recursive(
    st.none() | st.integers() | st.text('[]{}"\\,: é'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\ é', max_size=3), inner, max_size=3),
)


def levels(tree: Any) -> int:
    if isinstance(tree, (list, dict)):
        return 1 + max(map(levels, tree.values() if isinstance(tree, dict) else tree), default=0)
    return 0


@given(trees)
def test_depth_is_that_of_the_tree(tree: Any) -> None:
    assert depth(json.dumps(tree, ensure_ascii=False).encode()) == levels(tree)


# Not JSON


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"x",
        b"{",
        b"{}{}",
        b'{"type":"cancel","id":"1"}x',
        b'{"type":"cancel","id":"1",}',
        b"{'type':'cancel','id':'1'}",
        b'{type:"cancel",id:"1"}',
        b'{"type":"cancel","id":"1","x":NaN}',
        b'{"type":"cancel","id":"1","x":Infinity}',
        b'{"type":"cancel","id":"1","x":01}',
        b'{"type":"cancel","id":"1","x":1.}',
        b'{"type":"cancel","id":"1","x":.5}',
        b'{"type":"cancel","id":"1","x":+1}',
        b'{"type":"cancel","id":"1","x":"\\q"}',
        b'{"type":"cancel","id":"1","x":"\n"}',
        b'{"type":"cancel","id":"1","payload":"\\u12"}',
        b'{"type":"cancel","id":"1"} // why not',
        b'\xef\xbb\xbf{"type":"cancel","id":"1"}',
        '{"type":"cancel","id":"1"}'.encode("utf-16"),
        b"\x00\x00\x00\x02{}",
    ],
)
def test_what_is_no_json_is_a_parse_error(data: bytes) -> None:
    assert refused(data) == ("PARSE_ERROR", None, None)


def test_a_message_that_is_cut_anywhere_is_a_parse_error() -> None:
    whole = opening(payload={"a": ["é", 1.5]}, metadata={"k": "v"}, credit=32)
    assert {refused(whole[:size]) for size in range(len(whole))} == {("PARSE_ERROR", None, None)}


def test_what_is_broken_behind_a_field_of_a_wrong_type_is_a_parse_error() -> None:
    assert refused(b'{"type":5,"id":"1"') == ("PARSE_ERROR", None, None)


@pytest.mark.parametrize("bad", [b"\xff", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
@pytest.mark.parametrize(
    "place",
    [
        b'{"type":"cancel","id":"%b"}',
        b'{"type":"%b","id":"1"}',
        b'{"type":"cancel","id":"1","%b":1}',
        b'{"type":"cancel","id":"1","x":"%b"}',
        b'{"type":"cancel","id":"1","payload":["%b"]}',
        b'{"type":"request","id":"1","procedure":"p","metadata":{"k":"%b"}}',
        b'{"type":5,"id":"1","x":"%b"}',
        b'{"type":"cancel","id":"1"}%b',
    ],
)
def test_what_is_no_utf_8_is_a_parse_error(place: bytes, bad: bytes) -> None:
    assert refused(place % bad) == ("PARSE_ERROR", None, None)


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00", b"\\ud800\\ud800", b"\\ud800x"])
@pytest.mark.parametrize("place", [b'{"type":"cancel","id":"%b"}', b'{"type":"stream:data","id":"1","payload":"%b"}'])
def test_half_a_surrogate_pair_is_a_parse_error(place: bytes, escape: bytes) -> None:
    assert refused(place % escape) == ("PARSE_ERROR", None, None)


# Binary messages


def binary(envelope: bytes, payload: bytes = b"", *, length: int | None = None) -> bytes:
    return b"\x01" + (len(envelope) if length is None else length).to_bytes(2) + envelope + payload


ITEM = b'{"type":"stream:data","id":"s1"}'


@pytest.mark.parametrize("payload", [b"", b"x", b"\x01\x00\x02{}", bytes(range(256)), b"{}", b"\xff" * 100_000])
def test_the_payload_of_a_binary_message_is_what_follows_its_envelope(payload: bytes) -> None:
    read = accepted(binary(ITEM, payload))
    assert read.data is not NO_DATA and bytes(read.data) == payload
    assert (read.type, read.id, bytes(read.payload)) == (DATA, "s1", b"")


@pytest.mark.parametrize("type", TYPES)
def test_a_binary_message_may_be_of_any_type(type: str) -> None:
    read = accepted(binary(message(type=type, id="1", procedure="p", credit=1), b"\xff"))
    assert (read.type, read.data is not NO_DATA) == (type, True)


def test_the_envelope_of_a_binary_message_has_up_to_65535_bytes() -> None:
    envelope = message(type=DATA, id="s1", x="")
    envelope = message(type=DATA, id="s1", x="x" * (65535 - len(envelope)))
    read = accepted(binary(envelope, b"\xff"))
    assert read.data is not NO_DATA and bytes(read.data) == b"\xff"


def test_a_binary_message_that_is_cut_before_its_payload_is_no_envelope() -> None:
    whole = binary(ITEM)
    cut = {refused(whole[:size]) for size in range(1, len(whole))}
    assert cut == {("INVALID_ENVELOPE", None, None)}


def test_a_binary_message_that_is_cut_in_its_payload_has_a_shorter_one() -> None:
    read = accepted(binary(ITEM, b"abcdef")[:-3])
    assert read.data is not NO_DATA and bytes(read.data) == b"abc"


@pytest.mark.parametrize("length", range(len(ITEM)))
def test_a_length_that_ends_inside_the_envelope_is_a_parse_error(length: int) -> None:
    assert refused(binary(ITEM, b"payload", length=length)) == ("PARSE_ERROR", None, None)


def test_a_length_that_takes_some_of_the_payload_is_a_parse_error() -> None:
    assert refused(binary(ITEM, b"payload", length=len(ITEM) + 1)) == ("PARSE_ERROR", None, None)


@pytest.mark.parametrize("payload", [b"1", b"null", b'""'])
def test_a_binary_message_has_no_other_payload(payload: bytes) -> None:
    assert refused(binary(ITEM[:-1] + b',"payload":%b}' % payload)) == ("INVALID_ENVELOPE", DATA, "s1")


def test_the_envelope_of_a_binary_message_is_checked_like_any_other() -> None:
    assert refused(binary(opening(priority=128), b"x")) == ("INVALID_ENVELOPE", START, "s1")
    assert refused(binary(b"[]", b"x")) == ("INVALID_ENVELOPE", None, None)
    assert refused(binary(message(type="nope", id="1"), b"x")) == ("INVALID_TYPE", "nope", "1")
    assert refused(binary(ITEM.replace(b"s1", b"\xff"), b"x")) == ("PARSE_ERROR", None, None)
    assert refused(binary(binary(ITEM), b"x")) == ("PARSE_ERROR", None, None)


def test_a_text_message_is_never_binary() -> None:
    event = read_json(binary(ITEM, b"x"))
    assert isinstance(event, Violation) and event.error.code == "PARSE_ERROR"


def test_a_json_message_need_not_be_text() -> None:
    assert accepted(ITEM) == read_json(ITEM)


# What is written

NASTY = [
    "1",
    'quote"',
    "back\\slash",
    "é€😀",
    "\0\x01\x1f\x7f\n\r\t",
    "\u2028\u2029",
    "</script>",
    "{}",
    " ",
    "x" * 128,
]


@pytest.mark.parametrize("id", NASTY)
def test_what_is_written_is_json_with_the_clients_id(id: str) -> None:
    json_id, problem = encode(id), RaffelError("NOT_FOUND", 'no "such"\n\\route', details={"é": [1]})
    payload = {"code": "NOT_FOUND", "message": 'no "such"\n\\route', "details": {"é": [1]}}
    assert [
        json.loads(data)
        for data in (
            wire.response(json_id, b'{"a":[1]}'),
            wire.error(json_id, problem),
            wire.stream_error(json_id, problem),
            wire.stream_end(json_id),
            wire.stream_credit(json_id, MAX_CREDIT),
            wire.data_prefix(json_id) + b'"x"' + wire.data_suffix(),
            wire.data_prefix(json_id) + b'"x"' + wire.data_suffix("e1"),
        )
    ] == [
        {"type": "response", "id": id, "payload": {"a": [1]}},
        {"type": "error", "id": id, "payload": payload},
        {"type": "stream:error", "id": id, "payload": payload},
        {"type": "stream:end", "id": id},
        {"type": "stream:credit", "id": id, "credit": MAX_CREDIT},
        {"type": "stream:data", "id": id, "payload": "x"},
        {"type": "stream:data", "id": id, "payload": "x", "eventId": "e1"},
    ]


@pytest.mark.parametrize("event_id", NASTY)
def test_an_event_id_is_written_whatever_it_holds(event_id: str) -> None:
    data = wire.data_prefix(b'"1"') + b"null" + wire.data_suffix(event_id)
    assert json.loads(data) == {"type": "stream:data", "id": "1", "payload": None, "eventId": event_id}


def test_an_error_without_an_id_has_no_such_field() -> None:
    problem = RaffelError("PARSE_ERROR", "no JSON")
    assert json.loads(wire.error(None, problem)) == {
        "type": "error",
        "payload": {"code": "PARSE_ERROR", "message": "no JSON"},
    }


@pytest.mark.parametrize("id", NASTY)
@pytest.mark.parametrize("event_id", [None, *NASTY])
def test_bytes_are_written_behind_an_envelope(id: str, event_id: str | None) -> None:
    data = wire.binary_prefix(encode(id), event_id=event_id) + b"\xff\x00"
    end = 3 + int.from_bytes(data[1:3])
    named = {} if event_id is None else {"eventId": event_id}
    assert data[0] == 1
    assert json.loads(data[3:end]) == {"type": "stream:data", "id": id, **named}
    assert data[end:] == b"\xff\x00"


def test_the_bytes_of_a_result_are_written_as_a_response() -> None:
    data = wire.binary_prefix(b'"1"', b"response")
    assert json.loads(data[3:]) == {"type": "response", "id": "1"}


@given(st.text(min_size=1, max_size=40), st.binary(max_size=50))
def test_bytes_that_are_written_can_be_read(id: str, payload: bytes) -> None:
    if len(id.encode()) <= MAX_ID:
        read = accepted(wire.binary_prefix(encode(id)) + payload)
        assert read.data is not NO_DATA and (read.type, read.id, bytes(read.data)) == (DATA, id, payload)


# Any bytes

SEEDS = [
    b'{"type":"request","id":"1","procedure":"users.create","payload":{"name":"Kai"},"metadata":{"a":"b","c":1}}',
    b'{"type":"stream:start","id":"s1","procedure":"logs.tail","payload":{"n":[1,2.5e3]},"priority":-5,"credit":32}',
    b'{"type":"stream:start","id":"s\\u00e9","procedure":"a/b","lastEventId":"9","binary":true,"priority":null}',
    '{"type":"stream:data","id":"é😀","payload":{"part":[true,false,null,"€"]},"data":{"x":[]}}'.encode(),
    b'{"type":"stream:end","id":"s2"}',
    b'{"type":"cancel","id":"s1","unknown":[[[{"deep":"\\"]"}]]]}',
    b'{"type":"stream:credit","id":"s1","credit":2147483647}',
    binary(ITEM, b"\x00\x01\xff"),
    binary(b'{"type":"stream:start","id":"b","procedure":"p","binary":true}', b"{}"),
]
PIECES = [
    *(b"%b" % piece for piece in KINDS.values()),
    *(b'"', b"\\", b"[", b"{", b"]", b"}", b",", b":", b"\x01", b"\x00", b"\xff", b"\xed\xa0\x80", b"\\ud800"),
    *(b'"id":"",', b'"data":7,', b'"type":"nope",', b'"credit":0,', b"1e999", b"-", b"9" * 30, b"[" * 520, b"]" * 520),
]
CODES = {"PARSE_ERROR", "INVALID_ENVELOPE", "INVALID_TYPE"}


def mutated(chance: random.Random) -> bytes:
    """A message that was valid, with some bytes of it changed, left out, repeated or put elsewhere."""
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        stop = at + chance.randrange(8)
        match chance.randrange(5):
            case 0:
                data[at:stop] = chance.randbytes(chance.randrange(4))
            case 1:
                data[at:at] = chance.choice(PIECES)
            case 2:
                del data[at:stop]
            case 3:
                data[at:at] = data[at:stop]
            case _:
                data[at:] = chance.choice(SEEDS)[at:]
    return bytes(data)


def test_any_bytes_are_an_envelope_or_a_violation() -> None:
    chance = random.Random(1)
    for _ in range(100_000):
        data = mutated(chance) if chance.random() < 0.9 else chance.randbytes(chance.randrange(60))
        event = read_message(data)
        if isinstance(event, Violation):
            assert event.error.code in CODES, data
            assert event.id is None or 0 < len(event.id.encode()) <= MAX_ID, data
            assert (event.error.code == "PARSE_ERROR") <= (event.type is event.id is None), data
        else:
            check(event, data)


def check(event: Envelope, data: bytes) -> None:
    """An envelope that was read is what the json module reads, and within its bounds."""
    if data[:1] == b"\x01":
        end = 3 + int.from_bytes(data[1:3])
        assert event.data is not NO_DATA and bytes(event.data) == data[end:]
        data = data[3:end]
    tree = json.loads(data)
    assert levels(tree) <= MAX_DEPTH
    assert event.type in TYPES and tree["type"] == event.type, data
    assert 0 < len(event.id.encode()) <= MAX_ID and tree["id"] == event.id, data
    if "payload" in tree:
        assert json.loads(bytes(event.payload)) == tree["payload"], data
    if event.type in (START, REQUEST):
        assert tree["procedure"] == event.procedure, data
        assert all(isinstance(value, str) for value in (event.metadata or {}).values()), data
    if event.type == CREDIT:
        assert 0 < tree["credit"] <= MAX_CREDIT, data
