"""The forms of a stream's body over HTTP: Server-Sent Events (WHATWG HTML, 9.2), NDJSON and raw bytes."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from raffel_core.wire.outbox import Frame


class Form(NamedTuple):
    """How items become a body: `prefix item separator item ... suffix` for those of one flush."""

    name: str
    content_type: str
    prefix: bytes
    separator: bytes
    suffix: bytes
    ping: bytes
    """What breaks a silence; b"" where the form has nothing that says nothing."""


SSE = Form("sse", "text/event-stream", b"data: ", b"\n\ndata: ", b"\n\n", b": ping\n\n")
NDJSON = Form("ndjson", "application/x-ndjson", b"", b"\n", b"\n", b"\n")
BYTES = Form("bytes", "application/octet-stream", b"", b"", b"", b"")

LAST_ID = "raffel:end"
"""The id of an end that is final: who comes back with it is told to stay away (204)."""

END = b"event: end\ndata: {}\nid: raffel:end\n\n"

_TERMINATOR = re.compile(rb"\r\n|\r|\n")


def event_block(data: bytes, id: str | None, event: str | None, retry: int | None) -> bytes:
    """One event as a part: without the `data: ` before it and the empty line after it. The fields have been checked."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_TERMINATOR.split(data))
    if id is not None:
        data += b"\nid: " + id.encode()
    if event is not None:
        data += b"\nevent: " + event.encode()
    if retry is not None:
        data += b"\nretry: %d" % retry
    return data


def error_block(error: bytes, *, final: bool) -> bytes:
    """The last event of a stream that failed. A final one keeps a browser from coming back."""
    return b"event: error\ndata: %b\n%b\n" % (error, b"id: raffel:end\n" if final else b"")


def retry_block(milliseconds: int) -> bytes:
    """Tells a browser when to come back."""
    return b"retry: %d\n\n" % milliseconds


def one_line(data: bytes) -> bytes:
    """JSON as one line: outside of strings, where no raw line break is legal, one is as good as a space."""
    return _TERMINATOR.sub(b" ", data) if b"\n" in data or b"\r" in data else data


@functools.cache
def framer(form: Form, chunked: bool) -> Frame:
    """Joins the parts of one flush, as one chunk (RFC 9112, 7.1) or as they are."""
    prefix, join, suffix = form.prefix, form.separator.join, form.suffix
    around = len(prefix) + len(suffix)

    def frame_chunk(parts: list[bytes]) -> bytes:
        body = join(parts)
        if not (size := len(body) + around):
            return b""  # an empty chunk would be the last
        return b"%x\r\n%b%b%b\r\n" % (size, prefix, body, suffix)

    def frame_plain(parts: list[bytes]) -> bytes:
        return b"%b%b%b" % (prefix, join(parts), suffix)

    return frame_chunk if chunked else frame_plain
