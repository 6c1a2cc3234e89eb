"""A stream as the body of an HTTP answer: Server-Sent Events, NDJSON or raw bytes."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from raffel_core.context import Event, Outcome
from raffel_core.errors import RaffelError
from raffel_core.protocols.connection import Connection
from raffel_core.protocols.items import as_bytes, dump, mark_of, unseen
from raffel_core.route import Route
from raffel_core.schema.invalid import OUTPUT, UNWRITABLE, unwritable
from raffel_core.session import Session
from raffel_core.wire.http1 import LAST_CHUNK, chunk
from raffel_core.wire.outbox import CHECK_BYTES, FLUSH_BYTES, SLICE_SECONDS, Outbox
from raffel_core.wire.sse import (
    BYTES,
    END,
    NDJSON,
    SSE,
    Form,
    error_block,
    event_block,
    framer,
    one_line,
    retry_block,
)

HEAD_SECONDS = 0.1
"""How long the head of an answer waits for the first item."""

RETRY_MS = (1000, 5000)
"""Between which times, at random, browsers come back from a server that drains."""

_PERHAPS_ERROR = re.compile(rb'\s*\{\s*"(?:error"|[^"]*\\)')

_FORMS = {form.content_type: form for form in (SSE, NDJSON, BYTES)}


def choose_form(accept: str | None, route: Route) -> Form:
    """The form that a client's Accept header (RFC 9110, 12.5.1) asks for; NOT_ACCEPTABLE where there is none such."""
    default = _FORMS.get(route.meta.content_type or "", SSE)
    if default is BYTES and not route.output.bytes:
        default = SSE
    offered = [default, *(form for form in (SSE, NDJSON) if form is not default)]
    if route.output.bytes and default is not BYTES:
        offered.append(BYTES)
    if accept is None or not accept.strip() or accept.strip() == "*/*":
        return default
    weights = _weights(accept)
    quality = {form: _quality(form.content_type, weights) for form in offered}
    best = max(offered, key=lambda form: quality[form])  # the first of equals: the default
    if quality[best] <= 0:
        types = ", ".join(form.content_type for form in offered)
        raise RaffelError("NOT_ACCEPTABLE", f"found Accept: {accept[:100]}; expected one of {types}")
    return best


def _weights(accept: str) -> dict[str, float]:
    weights = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[media] = weight
    return weights


def _quality(content_type: str, weights: dict[str, float]) -> float:
    """The most specific range that matches decides."""
    for media in (content_type, content_type.partition("/")[0] + "/*", "*/*"):
        if media in weights:
            return weights[media]
    return 0.0


class StreamAnswer:
    """The answer to one stream request: its head, its items, its end.

    `head` goes out with the first item, or when `send_head` is called because that takes too long.
    """

    __slots__ = ("_chunked", "_connection", "_form", "_head", "session")

    def __init__(
        self, connection: Connection[Outbox], session: Session, form: Form, head: bytes, *, chunked: bool
    ) -> None:
        self._connection = connection
        self._form = form
        self._head: bytes | None = head
        self._chunked = chunked
        self.session = session
        connection.outbox.frame = self._first_frame

    @property
    def begun(self) -> bool:
        """Whether the body has its first bytes, sent or queued: from then on an error is part of it."""
        return self._head is None or bool(self._connection.outbox.parts)

    @property
    def sse(self) -> bool:
        return self._form is SSE

    def _first_frame(self, parts: list[bytes]) -> bytes:
        head, self._head = self._head, None
        frame = self._connection.outbox.frame = framer(self._form, self._chunked)
        return (head or b"") + frame(parts)

    def send_head(self) -> None:
        """Sends the head by itself, so that the client knows that the stream is open."""
        if self._head is not None:
            self._write(b"")

    def ping(self) -> None:
        """Breaks a silence."""
        if self._form.ping and not self._connection.outbox.paused:
            self._write(self._framed(self._form.ping))

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if self._chunked and data else data

    def _write(self, last: bytes) -> None:
        """Writes what is queued and then these bytes, whether or not the network takes them at once."""
        connection = self._connection
        data = connection.outbox.take_all() + last
        if self._head is not None:
            data = self._head + data
            self._head = None
            connection.outbox.frame = framer(self._form, self._chunked)
        connection.quiet_since = connection.hub.loop.time()
        if data and not connection.outbox.closed:
            connection.transport.write(data)

    async def pump(self, items: AsyncIterator[Any]) -> None:
        """Takes the items of one opening to the outbox."""
        connection, session = self._connection, self.session
        outbox, route = connection.outbox, session.route
        if self._form is BYTES and not route.output.bytes:
            session.cancel("reloaded")  # the new code has other items than this client asked for
        append = outbox.parts.append
        exact, fits, encode = self._quick(route)
        mark = mark_of(items, route, connection.hub.config)
        now = connection.hub.loop.time
        since, size, checkpoint, queued = now(), 0, CHECK_BYTES, 0
        async for item in items:
            try:
                data = encode(item) if type(item) is exact or fits(item) else self._encode(route, item)
            except UNWRITABLE as error:
                raise unwritable(OUTPUT, error) from error
            append(data)
            size += len(data)
            if outbox.attention:
                if outbox.paused:
                    queued += 1
                    if queued >= mark or size >= FLUSH_BYTES:
                        await connection.room()
                        size, checkpoint, queued, since = 0, CHECK_BYTES, 0, now()
                elif not outbox.dirty:
                    outbox.mark()
                    connection.hub.flush_soon(connection)
                if session.interrupted or outbox.closed:
                    raise asyncio.CancelledError
            if size > checkpoint:
                if size < FLUSH_BYTES and now() - since < SLICE_SECONDS:
                    checkpoint = size + CHECK_BYTES
                    continue
                connection.flush()
                if outbox.paused:
                    await connection.room()
                else:
                    await asyncio.sleep(0)
                if session.interrupted:
                    raise asyncio.CancelledError
                size, checkpoint, queued, since = 0, CHECK_BYTES, 0, now()

    def _quick(self, route: Route) -> tuple[type | None, Any, Any]:
        """The type that is encoded unseen, the check for others, and the encoder: what all but a few items need."""
        output = route.output
        if self._form is BYTES:
            return bytes, _never, bytes
        encode = _line_encoder(output.encode) if self._form is NDJSON else output.encode
        return unseen(route), output.fits, encode

    def _encode(self, route: Route, item: Any) -> bytes:
        """Any other item: one with an id, of another type, or one that is not what the route promises."""
        event, item = (item, item.data) if isinstance(item, Event) else (None, item)
        data = as_bytes(item) if self._form is BYTES else dump(route, item)
        if event is not None and event.id is not None:
            self.session.last_event_id = event.id
        if self._form is NDJSON:
            _refuse_error_line(data)
            return one_line(data)
        if self._form is SSE:
            fields = (None, None, None) if event is None else (event.id, event.event, event.retry)
            return event_block(data, *fields)
        return data

    def finish(self, outcome: Outcome) -> bool:
        """Writes the end; says whether the connection can carry another answer."""
        if outcome.reason == "server_draining" and self._form is SSE:
            last, whole = retry_block(random.randint(*RETRY_MS)), True
        elif outcome.error is None:
            last, whole = END if self._form is SSE else b"", True
        elif self._form is BYTES:
            last, whole = b"", False
        else:
            last, whole = self._error(outcome.error), True
        data = self._framed(last)
        if whole and self._chunked:
            data += LAST_CHUNK
        self._write(data)
        return whole and self._chunked

    def _error(self, error: RaffelError) -> bytes:
        data = one_line(error.to_json())
        return b'{"error":%b}\n' % data if self._form is NDJSON else error_block(data, final=not error.retry)


def _never(item: object) -> bool:
    return False


def _refuse_error_line(data: bytes) -> None:
    """An object with the one key `error` is how a stream that failed ends: an item may not look like it."""
    if _PERHAPS_ERROR.match(data) and list(msgspec.json.decode(data, type=dict[str, msgspec.Raw])) == ["error"]:
        message = "an object with the one key `error` is the last line of a stream that failed"
        raise RaffelError("OUTPUT_VALIDATION_ERROR", message, details=[{"path": "error", "message": message}])


def _line_encoder(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def encode_line(item: Any) -> bytes:
        data = encode(item)
        if data.startswith(b'{"error":'):
            _refuse_error_line(data)
        return data

    return encode_line
