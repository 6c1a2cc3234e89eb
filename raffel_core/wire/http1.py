"""HTTP/1.1 (RFC 9112) without a socket: bytes in, requests out, and the heads of the answers."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl

import httptools

from raffel_core.errors import RaffelError

MAX_HEAD = 32 * 1024
"""Bytes of a request line and its headers."""

MAX_HEADERS = 100
MAX_QUERY_FIELDS = 1000

FRAMING = 6
"""What a chunked body may take on the wire, in bytes for each of its own: those of a chunk that holds one."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Request:
    """One request, whole: its body has been read."""

    __slots__ = ("body", "close", "headers", "http10", "method", "path", "query", "upgrade")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        """As it was sent: percent-encoded, without the query."""
        self.query = ""
        self.headers: dict[str, str] = {}
        """Keys in lower case; repeated ones are joined as RFC 9110, 5.3 has it."""
        self.body = b""
        self.http10 = False
        self.close = False
        """Whether the connection ends with the answer."""
        self.upgrade = False

    def fields(self) -> list[tuple[str, str]]:
        """The fields of the query, decoded. INVALID_ARGUMENT where they are no UTF-8 or too many."""
        try:
            return parse_qsl(self.query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
        except UnicodeDecodeError:
            raise RaffelError("INVALID_ARGUMENT", "the query is not UTF-8") from None
        except ValueError:
            raise RaffelError("INVALID_ARGUMENT", f"more than {MAX_QUERY_FIELDS} fields in the query") from None


class RequestParser:
    """Splits a connection's bytes into requests, one at a time.

    What comes after a request stays unparsed until `take` is called again, so that a client which pipelines costs bytes
    and not objects. A broken request raises RaffelError, once: the connection cannot be resynchronised.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_done",
        "_expected",
        "_framed",
        "_host",
        "_in_body",
        "_limit",
        "_parser",
        "_request",
        "_rest",
        "_size",
    )

    def __init__(self, body_limit: int) -> None:
        self._buffer = bytearray()
        self._limit = body_limit
        self._parser = httptools.HttpRequestParser(self)
        self._start()

    def _start(self) -> None:
        self._request = Request()
        self._body: list[bytes] = []
        self._size = 0
        self._rest = 0  # of a Content-Length
        self._framed = 0
        self._host = 0
        self._in_body = False
        self._done = False
        self._expected = False

    @property
    def buffered(self) -> int:
        """Bytes that wait for the next `take`."""
        return len(self._buffer)

    def rest(self) -> bytes:
        """What came behind the last request, for a protocol that takes over."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    @property
    def unfinished(self) -> Request | None:
        """The request whose head has been read, while its body has not."""
        return self._request if self._in_body else None

    def expects_continue(self) -> bool:
        """Whether the client waits for 100 (Continue) before it sends the body; true once a request."""
        expected, self._expected = self._expected, False
        return expected

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> Request | None:
        """The next request, or None until more bytes have come."""
        buffer = self._buffer
        if not self._in_body:
            while buffer.startswith(b"\r\n"):
                del buffer[:2]  # RFC 9112, 2.2: empty lines before a request are nothing
            end = _end_of_head(buffer)
            if end < 0 and len(buffer) <= MAX_HEAD:
                return None
            if end < 0 or end > MAX_HEAD:
                raise RaffelError("INVALID_ARGUMENT", f"a head of more than {MAX_HEAD} bytes")
            head = bytes(buffer[:end])
            del buffer[:end]
            self._in_body = True
            self._parse(head)
        if not self._done and buffer:
            size = min(self._rest, len(buffer)) if self._rest else len(buffer)
            body = bytes(buffer[:size])
            del buffer[:size]
            if self._rest:
                self._rest -= size
            else:
                self._framed += size
            self._parse(body)
        if not self._done:
            if self._framed > FRAMING * self._limit + MAX_HEAD:  # extensions and trailers are no part of the body
                raise RaffelError("PAYLOAD_TOO_LARGE", f"{self._framed} bytes of chunks and trailers around a body")
            return None
        request = self._request
        request.body = b"".join(self._body)
        self._start()
        return request

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # An offer that nobody has to take (RFC 9110, 7.8). The parser stops at it: a new one goes on.
            self._buffer[:0] = data[upgrade.args[0] :]
            self._request.upgrade = True
            self._parser = httptools.HttpRequestParser(self)
            self._done = not self._read_body_of_offer()
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, RaffelError):
                raise cause from None
            raise
        except httptools.HttpParserError as error:
            if self._done:
                return  # what is broken came behind the request, which ends the connection anyway
            raise RaffelError("INVALID_ARGUMENT", f"no HTTP/1.1 request: {error}") from None

    def _read_body_of_offer(self) -> bool:
        """Has the new parser read the body of a request that offers an upgrade: its bytes are no next request."""
        if "transfer-encoding" in self._request.headers:
            framing = b"Transfer-Encoding: chunked"
        elif self._rest:
            framing = b"Content-Length: %d" % self._rest
        else:
            return False
        self._done = False
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        return True

    # What the parser calls. It does not stop at the end of a chunked body: what it reads of a next request is left out.

    def on_url(self, url: bytes) -> None:
        if not self._done and not self._request.method:
            self._request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._done or self._request.method:
            return  # trailers are nobody's headers (RFC 9110, 6.5.1)
        headers = self._request.headers
        key = name.decode("latin-1").lower()
        if key == "host":
            self._host += 1
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        if key in headers:
            headers[key] += ("; " if key == "cookie" else ", ") + text
        else:
            if len(headers) >= MAX_HEADERS:
                raise RaffelError("INVALID_ARGUMENT", f"more than {MAX_HEADERS} headers")
            headers[key] = text

    def on_headers_complete(self) -> None:
        if self._done or self._request.method:
            return
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise RaffelError("INVALID_ARGUMENT", f"found HTTP/{version}, expected HTTP/1.1")
        request.http10 = version == "1.0"
        request.close = request.http10 or not self._parser.should_keep_alive()
        if self._host != 1 and not (request.http10 and self._host == 0):
            raise RaffelError("INVALID_ARGUMENT", f"found {self._host} Host headers, expected one")
        request.path, request.query = _split_target(request.path)
        if request.headers.get("content-type", "").startswith("application/grpc"):
            # Its body does not end before the answer has begun: nobody is to wait for it.
            expected = "HTTP/2: h2 alone by ALPN, or prior knowledge"
            raise RaffelError("UNSUPPORTED_MEDIA_TYPE", f"found gRPC over HTTP/{version}, expected {expected}")
        length = request.headers.get("content-length", "")
        if length:
            self._rest = int(length)  # the parser has checked that it is a number of 64 bits
            if self._rest > self._limit:
                raise _too_large(self._limit)
        self._expected = request.headers.get("expect", "").lower() == "100-continue" and not request.http10

    def on_body(self, body: bytes) -> None:
        if self._done:
            return
        self._size += len(body)
        if self._size > self._limit:
            raise _too_large(self._limit)
        self._body.append(body)

    def on_message_begin(self) -> None:
        if self._done:
            self._request.close = True  # the client asks again on another connection (RFC 9112, 9.3.2)

    def on_message_complete(self) -> None:
        self._done = True


def _too_large(limit: int) -> RaffelError:
    return RaffelError("PAYLOAD_TOO_LARGE", f"a body of more than {limit} bytes")


def _end_of_head(buffer: bytearray) -> int:
    """Where the head ends, -1 while it does not. Bare line feeds count, so that the parser can refuse them at once."""
    at = buffer.find(b"\n\r\n", 0, MAX_HEAD + 3)
    if at >= 0:
        return at + 3
    at = buffer.find(b"\n\n", 0, MAX_HEAD + 2)
    return at + 2 if at >= 0 else -1


def _split_target(target: str) -> tuple[str, str]:
    """Path and query of a request's target in origin or absolute form (RFC 9112, 3.2)."""
    if not target.startswith("/"):
        scheme, slashes, rest = target.partition("://")
        if not slashes or scheme.lower() not in ("http", "https"):
            if target == "*":
                return target, ""
            raise RaffelError("INVALID_ARGUMENT", "found a request target that is neither a path nor a URL")
        at = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
        target = rest[at:] if rest[at : at + 1] == "/" else "/" + rest[at:]
    path, _, query = target.partition("?")
    return path, query.partition("#")[0]


def head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """A status line and headers; values are the server's own, CR and LF in one are a fault of ours."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Client Closed Request" if status == 499 else "Error"
    lines = [f"HTTP/1.1 {status} {phrase}\r\n"]
    for name, value in headers:
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"a line break in the header {name}")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """One chunk of a body in the chunked transfer coding (RFC 9112, 7.1). `data` may not be empty: that is the end."""
    return b"%x\r\n%b\r\n" % (len(data), data)
