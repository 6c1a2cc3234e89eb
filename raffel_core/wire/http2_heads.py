"""Header blocks of HTTP/2 requests, decoded (RFC 7541) and judged (RFC 9113, section 8): each as seldom as may be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from raffel_core.wire.http2_frames import Code
from raffel_core.wire.http2_streams import ConnectionFault, Head, HeaderList

HEADER_BYTES = 16_384
"""What a header list may have, counted as SETTINGS_MAX_HEADER_LIST_SIZE counts it, and a header block before that."""

_HEADS = 64
_HEAD_BYTES = 512
_FREE_FIELDS = 32
_FREE_BYTES = 4096
_TABLE_BYTES = 4096

_PSEUDO = frozenset({b":method", b":path", b":scheme", b":authority"})
_NEEDED = frozenset({b":method", b":path", b":scheme"})
_OF_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

_RESIZE = rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\0-\x7f])"
_RESIZES = re.compile(_RESIZE)
_RESIZES_OFTEN = re.compile(_RESIZE + rb"{17}")
"""A block begins with two of them at most (RFC 7541, 4.2); some encoders write all that there were since the last."""

ReadHead = Callable[[bytes, bytes, HeaderList], Any]
"""Makes of a method, a path and the other fields whatever the owner of a connection wants to know of them."""


class HeadReader:
    """The decoder of a connection. A block that repeats itself means the same while the decoder's table is the same."""

    __slots__ = ("_decoder", "_entries", "_heads", "_newest", "_read_head", "cost")

    def __init__(self, read_head: ReadHead) -> None:
        self._read_head = read_head
        self._decoder = Decoder(max_header_list_size=HEADER_BYTES)
        self._decoder.max_allowed_table_size = _TABLE_BYTES
        self._heads: dict[bytes, Head] = {}
        self._newest: object = None
        self._entries = 0
        self.cost = 0.0
        """What the last block cost beyond those of honest clients: a byte can stand for a field."""

    def head(self, block: bytes) -> Head | None:
        """The head of a request; None where it is malformed (8.1.1)."""
        head = self._heads.get(block)
        if head is not None:
            self.cost = 0.0
            return head
        fields, repeatable = self._decode(block)
        head = self._judged(fields)
        if head is not None and repeatable and len(block) <= _HEAD_BYTES and len(self._heads) < _HEADS:
            self._heads[block] = head
        return head

    def trailers(self, block: bytes) -> HeaderList | None:
        """The trailers of a request; None where they are malformed. Also for a block that is dropped: it counts."""
        fields, _ = self._decode(block)
        return fields if _legal(fields) else None

    def _decode(self, block: bytes) -> tuple[HeaderList, bool]:
        """The fields, and whether the same block will mean the same again."""
        if len(block) > HEADER_BYTES:
            found = f"found a header block of more than {HEADER_BYTES} bytes"
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, found)
        if _RESIZES_OFTEN.match(block):
            raise ConnectionFault(Code.COMPRESSION_ERROR, "found a header block that changes the table again and again")
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            found = f"found a header list of more than {HEADER_BYTES} bytes"
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, found) from None
        except (HPACKError, IndexError, ValueError):  # what the decoder raises on some broken blocks
            raise ConnectionFault(Code.COMPRESSION_ERROR, "found a header block that cannot be decoded") from None
        self.cost = max(0, len(fields) - _FREE_FIELDS) / 16 + max(0, len(block) - _FREE_BYTES) / 1024
        entries = self._decoder.header_table.dynamic_entries
        newest = entries[0] if entries else None
        same = newest is self._newest and len(entries) == self._entries
        if not same:
            self._newest, self._entries = newest, len(entries)
            self._heads.clear()
        return fields, same and not _RESIZES.match(block)  # what changes the table's size is to be heeded

    def _judged(self, fields: HeaderList) -> Head | None:
        count = next((number for number, (name, _) in enumerate(fields) if name[:1] != b":"), len(fields))
        pseudo, headers = dict(fields[:count]), fields[count:]
        if len(pseudo) != count or not pseudo.keys() <= _PSEUDO or not pseudo.keys() >= _NEEDED:
            return None
        if not pseudo[b":path"] or not _legal(headers) or not all(map(_VALUE.fullmatch, pseudo.values())):
            return None
        length = _content_length(headers)
        if length is not None and length < 0:
            return None
        method, path = pseudo[b":method"], pseudo[b":path"]
        return Head(method, path, length, self._read_head(method, path, headers))


_NAME = re.compile(rb"[!-9;-@\[-~]+")
_VALUE = re.compile(rb"(?:[^\0\r\n \t](?:[^\0\r\n]*[^\0\r\n \t])?)?")


def _legal(headers: HeaderList) -> bool:
    """Whether the fields are such as HTTP/2 may carry (8.2)."""
    for name, value in headers:
        if name in _OF_CONNECTION or (name == b"te" and value != b"trailers"):
            return False
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return False
    return True


def _content_length(headers: HeaderList) -> int | None:
    """-1 where it is none."""
    lengths = {value for name, value in headers if name == b"content-length"}
    if not lengths:
        return None
    value = lengths.pop()
    return int(value) if not lengths and value.isdigit() and len(value) < 16 else -1
