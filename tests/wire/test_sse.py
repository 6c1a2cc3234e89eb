"""The forms of a body: read back by a parser written from the specification (WHATWG HTML, 9.2.6)."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.context import Event, tracked
from raffel_core.errors import RaffelError
from raffel_core.wire.sse import (
    BYTES,
    END,
    NDJSON,
    SSE,
    error_block,
    event_block,
    framer,
    one_line,
    retry_block,
)


class Dispatched(NamedTuple):
    type: str
    data: str
    last_id: str


def dispatched(stream: bytes) -> list[Dispatched]:
    """What an EventSource makes of a stream."""
    text = stream.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events, data, kind, last_id = [], [], "", ""
    for line in text.split("\n"):
        if line == "":
            if data:
                events.append(Dispatched(kind or "message", "\n".join(data), last_id))
            data, kind = [], ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                data.append(value)
            case "event":
                kind = value
            case "id" if "\0" not in value:
                last_id = value
    return events


def sse(*parts: bytes) -> bytes:
    return framer(SSE, False)(list(parts))


anything = st.text(st.characters(codec="utf-8"))
line_breaks = st.text(st.sampled_from("\r\n\0:\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029 a"), max_size=8)


@given(
    st.recursive(anything | line_breaks | st.none(), lambda inner: st.lists(inner) | st.dictionaries(anything, inner))
)
@settings(max_examples=300, deadline=None)
def test_one_item_is_one_event_whatever_it_holds(item: object) -> None:
    data = json.dumps(item, ensure_ascii=False).encode()
    events = dispatched(sse(event_block(data, None, None, None), b"2"))
    assert [json.loads(event.data) for event in events] == [item, 2]
    assert [event.type for event in events] == ["message", "message"]


@given(anything | line_breaks, anything | line_breaks)
@settings(max_examples=300, deadline=None)
def test_no_field_can_be_injected(id: str, name: str) -> None:
    try:
        event = Event(1, id=id, event=name)
    except RaffelError:
        assert (
            not id
            or not name
            or any(mark in id + name for mark in "\r\n\0")
            or len(id) > 64
            or name in ("end", "error")
        )
        return
    (got,) = dispatched(sse(event_block(b"1", event.id, event.event, None)))
    assert got == Dispatched(name, "1", id)


@pytest.mark.parametrize("text", ["[1,\n2]", "[1,\r2]", "[1,\r\n2]", "\n[1, 2]\n"])
def test_raw_json_with_line_breaks_is_one_event(text: str) -> None:
    events = dispatched(sse(event_block(text.encode(), "7", None, None), b"3"))
    assert [json.loads(event.data) for event in events] == [[1, 2], 3]


@pytest.mark.parametrize("text", ["[1,\n2]", "[1,\r2]", "[1,\r\n2]"])
def test_raw_json_with_line_breaks_is_one_line(text: str) -> None:
    assert json.loads(one_line(text.encode())) == [1, 2]
    assert b"\n" not in one_line(text.encode()) and b"\r" not in one_line(text.encode())


def test_the_end_is_an_event_with_the_final_id() -> None:
    assert dispatched(END) == [Dispatched("end", "{}", "raffel:end")]


@pytest.mark.parametrize(("final", "last_id"), [(True, "raffel:end"), (False, "")])
def test_an_error_has_the_final_id_unless_it_may_be_tried_again(final: bool, last_id: str) -> None:
    assert dispatched(error_block(b'{"code":"X"}', final=final)) == [Dispatched("error", '{"code":"X"}', last_id)]


def test_pings_and_retry_dispatch_nothing() -> None:
    assert dispatched(SSE.ping + retry_block(1000) + sse(b"1")) == [Dispatched("message", "1", "")]


def test_ndjson_is_a_line_an_item() -> None:
    assert framer(NDJSON, False)([b"1", b"2"]) == b"1\n2\n"


def test_bytes_are_as_they_are() -> None:
    assert framer(BYTES, False)([b"ab", b"", b"c"]) == b"abc"


def test_a_flush_is_one_chunk() -> None:
    assert framer(BYTES, True)([b"ab", b"c"]) == b"3\r\nabc\r\n"


def test_an_empty_chunk_which_would_be_the_last_is_never_written() -> None:
    assert framer(BYTES, True)([b"", b""]) == b""


@pytest.mark.parametrize("id", ["", "a\nb", "a\rb", "a\0b", "raffel:end", "raffel:x", "x" * 257, "ü" * 129, 1.5])
def test_an_illegal_id_is_refused(id: object) -> None:
    with pytest.raises(RaffelError) as raised:
        tracked(id, 1)  # type: ignore[arg-type]  # what a handler might do
    assert raised.value.code == "OUTPUT_VALIDATION_ERROR"


@pytest.mark.parametrize("name", ["", "a\nb", "end", "error"])
def test_an_illegal_event_name_is_refused(name: str) -> None:
    with pytest.raises(RaffelError):
        Event(1, event=name)


@pytest.mark.parametrize("retry", [-1, 1.5, "1", True])
def test_an_illegal_retry_is_refused(retry: object) -> None:
    with pytest.raises(RaffelError):
        Event(1, retry=retry)  # type: ignore[arg-type]  # what a handler might do


def test_a_number_may_be_an_id() -> None:
    assert tracked(7, "x").id == "7"
