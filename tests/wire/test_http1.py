"""HTTP/1.1 requests out of bytes: what is read, what is refused, and that nothing depends on how they are split."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.errors import RaffelError
from raffel_core.wire.http1 import MAX_HEAD, MAX_HEADERS, Request, RequestParser, head

GET = b"GET /streams/a?x=1&y=%20 HTTP/1.1\r\nHost: here\r\n\r\n"
POST = b"POST /add HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n[12]"
CHUNKED = b"POST /add HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n2\r\n2]\r\n0\r\n\r\n"


def parse(*pieces: bytes, limit: int = 1000) -> list[Request]:
    parser, requests = RequestParser(limit), []
    for piece in pieces:
        parser.feed(piece)
        while (request := parser.take()) is not None:
            requests.append(request)
    return requests


def refusal(data: bytes, limit: int = 1000) -> RaffelError:
    with pytest.raises(RaffelError) as raised:
        parse(data, limit=limit)
    return raised.value


def test_a_request_is_method_path_query_and_headers() -> None:
    (request,) = parse(GET)
    assert (request.method, request.path, request.query) == ("GET", "/streams/a", "x=1&y=%20")
    assert request.headers == {"host": "here"}
    assert request.fields() == [("x", "1"), ("y", " ")]


@pytest.mark.parametrize("data", [POST, CHUNKED])
def test_a_body_is_whole(data: bytes) -> None:
    assert parse(data)[0].body == b"[12]"


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_split_gives_the_same_requests(data: st.DataObject) -> None:
    stream = GET + POST + GET + CHUNKED
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    requests = parse(*pieces)
    assert [request.body for request in requests] == [b"", b"[12]", b"", b"[12]"]


def test_what_is_pipelined_waits_as_bytes() -> None:
    parser = RequestParser(1000)
    parser.feed(GET * 1000)
    assert parser.take() is not None
    assert parser.buffered == len(GET) * 999


def test_a_request_behind_a_chunked_body_in_the_same_bytes_ends_the_connection() -> None:
    (request,) = parse(CHUNKED + GET)
    assert request.close and request.body == b"[12]"


def test_repeated_headers_are_joined() -> None:
    (request,) = parse(b"GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n")
    assert request.headers["x"] == "1, 2" and request.headers["cookie"] == "a=1; b=2"


def test_an_absolute_target_is_its_path() -> None:
    (request,) = parse(b"GET http://here:80/streams/a?x HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (request.path, request.query) == ("/streams/a", "x")


def test_an_offer_to_upgrade_is_not_taken() -> None:
    upgrade = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    first, second = parse(upgrade + GET)
    assert first.upgrade and second.path == "/streams/a"


@pytest.mark.parametrize("request_bytes", [POST, CHUNKED])
@pytest.mark.parametrize("size", [1, 1000])
def test_the_body_of_an_offer_to_upgrade_is_no_next_request(request_bytes: bytes, size: int) -> None:
    offer = request_bytes.replace(b"Host: here", b"Host: here\r\nConnection: Upgrade\r\nUpgrade: h2c")
    requests = parse(*(offer[at : at + size] for at in range(0, len(offer), size)), GET)
    assert [(request.method, request.body) for request in requests] == [("POST", b"[12]"), ("GET", b"")]


def test_100_continue_is_expected_once() -> None:
    parser = RequestParser(1000)
    parser.feed(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert parser.take() is None
    assert parser.expects_continue() and not parser.expects_continue()


@pytest.mark.parametrize(
    ("version", "connection", "close"),
    [("1.1", "", False), ("1.1", "Connection: close\r\n", True), ("1.0", "", True)],
)
def test_whether_the_connection_ends(version: str, connection: str, close: bool) -> None:
    (request,) = parse(f"GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n".encode())
    assert request.close is close


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET no-path HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n[12]",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    assert refusal(data).status == 400


def test_a_head_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    def request(size: int) -> bytes:
        rest = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"%b" + b"\r\n\r\n"
        return rest % (b"a" * (size - len(rest) + 2))

    assert len(request(MAX_HEAD)) == MAX_HEAD
    assert parse(request(MAX_HEAD))
    assert refusal(request(MAX_HEAD + 1)).code == "INVALID_ARGUMENT"


def test_a_head_that_does_not_end_is_refused_at_the_limit() -> None:
    assert parse(b"GET /" + b"a" * (MAX_HEAD - 5)) == []
    assert refusal(b"GET /" + b"a" * MAX_HEAD).code == "INVALID_ARGUMENT"


def test_too_many_headers_are_refused() -> None:
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(MAX_HEADERS))
    assert "headers" in refusal(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n").message


@pytest.mark.parametrize("size", [0, 1000])
def test_a_body_of_at_most_the_limit_is_read(size: int) -> None:
    data = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, b"a" * size)
    assert len(parse(data)[0].body) == size


def test_a_body_over_the_limit_is_refused_before_it_comes() -> None:
    assert refusal(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n").code == "PAYLOAD_TOO_LARGE"


def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_limit() -> None:
    data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + b"a" * 100 + b"\r\n"
    assert refusal(data, limit=99).code == "PAYLOAD_TOO_LARGE"


def test_a_query_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(RaffelError, match="UTF-8"):
        parse(b"GET /?x=%ff HTTP/1.1\r\nHost: h\r\n\r\n")[0].fields()


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_requests_or_a_refusal(data: bytes) -> None:
    try:
        parse(b"G" + data)
        parse(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    except RaffelError:
        pass


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b"])
def test_no_header_can_be_injected_into_an_answer(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        head(200, [("X", value)])
