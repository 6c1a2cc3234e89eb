"""gRPC as HTTP/2 carries it: length-prefixed messages, timeouts, metadata and trailers.

The sources are doc/PROTOCOL-HTTP2.md and doc/compression.md of grpc/grpc.
"""

from __future__ import annotations

import binascii
import re
import zlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from struct import Struct

from raffel_core.errors import CODES, NoSuchRoute, RaffelError
from raffel_core.wire.envelope import MAX_METADATA, MAX_METADATA_BYTES

Headers = list[tuple[bytes, bytes]]

ENCODINGS = ("identity", "gzip")
"""How messages may be compressed, as `grpc-encoding` and `grpc-accept-encoding` name it."""

MAX_STATUS_MESSAGE = 1024
"""Bytes of a `grpc-message`, encoded."""
MAX_SENT = 6 * 1024
"""Bytes of the metadata that a handler sends back; with a message it fits into MAX_TRAILERS."""
MAX_TRAILERS = 8 * 1024
"""Bytes of metadata that every client takes, counted as RFC 9113, section 6.5.2 does: 32 more for each field."""

_PREFIX = 5
_FIELD = 32
_INFLATED = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS  # deflated data between a header and a trailer of gzip (RFC 1952)
_pack = Struct(">BI").pack
_unpack = Struct(">BI").unpack_from


# Messages


class MessageReader:
    """Splits what a call's DATA frames carry into messages. Too large a length fails before its message is awaited.

    After each `feed`, call `feed(b"")` while `more` is True. An error ends the call: the messages before it have been
    returned by then, and every later `feed` raises it again.
    """

    __slots__ = ("_error", "_gzip", "_held", "_limit", "_need", "more")

    def __init__(self, limit: int, encoding: str | None) -> None:
        """`encoding` is the `grpc-encoding` of the call, None where there is none; an unknown one is UNIMPLEMENTED."""
        if encoding is not None and encoding not in ENCODINGS:
            raise RaffelError("UNIMPLEMENTED", f"grpc-encoding: found {encoding[:40]!r}, expected identity or gzip")
        self._limit = limit
        self._gzip = encoding == "gzip"
        self._held = bytearray()
        self._need = 0
        """Bytes that must be held before anything more is known of the message that they begin."""
        self._error: RaffelError | None = None
        self.more = False
        """Whether messages, or an error, can be had without more bytes."""

    @property
    def failed(self) -> bool:
        """Whether there was an error."""
        return self._error is not None

    @property
    def partial(self) -> int:
        """Bytes of a message that has begun and is not complete; to be asked when `more` is False."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The next complete messages, in order and decompressed.

        Those that were compressed are some 64 KiB and one message at most: a chunk can inflate to a thousand times its
        size. Raises MESSAGE_TOO_LARGE for a message that is longer than the limit, before or after decompression, and
        INTERNAL_ERROR for a compressed flag that the call does not allow and for broken gzip.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return []
            data, self._held = bytes(self._held), bytearray()
        messages: list[bytes] = []
        append, unpack, limit, end = messages.append, _unpack, self._limit, len(data)
        start = size = inflated = 0
        body = _PREFIX
        try:
            while body <= end:
                flag, size = unpack(data, start)
                stop = body + size
                if flag or size > limit:
                    self._check(flag, size)
                    if stop > end or inflated >= _INFLATED:
                        break
                    append(_inflate(data[body:stop], limit))
                    inflated += len(messages[-1])
                elif stop > end:
                    break
                else:
                    append(data[body:stop])
                start, body = stop, stop + _PREFIX
        except RaffelError as error:
            self._error, self.more = error.with_traceback(None), True  # whose frames would keep what was inflated
            if not messages:
                raise
            return messages
        self.more = body <= end and stop <= end
        if start < end:
            self._held += memoryview(data)[start:]
            self._need = 0 if self.more else _PREFIX if body > end else stop - start
        return messages

    def _check(self, flag: int, size: int) -> None:
        """Whether a message may be compressed, and may have this length."""
        if flag > 1:
            raise RaffelError("INTERNAL_ERROR", f"found the compressed flag {flag} before a message, expected 0 or 1")
        if flag and not self._gzip:
            raise RaffelError(
                "INTERNAL_ERROR", "a message has the compressed flag, and grpc-encoding names no encoding"
            )
        if size > self._limit:
            raise RaffelError("MESSAGE_TOO_LARGE", f"found a message of {size} bytes, expected at most {self._limit}")

    def end(self) -> None:
        """The peer has ended; to be called when `more` is False. INVALID_ARGUMENT: it ended within a message."""
        if self._error is not None:
            raise self._error
        if self._held:
            raise RaffelError("INVALID_ARGUMENT", f"the request ends after {self.partial} bytes of a message")


def _inflate(data: bytes, limit: int) -> bytes:
    """A message of gzip, of one member: a second one, or anything else after the first, is refused.

    Never holds more than a byte beyond the limit.
    """
    inflater = zlib.decompressobj(_GZIP)
    try:
        message = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise RaffelError("INTERNAL_ERROR", f"a compressed message is not gzip: {error}") from None
    if len(message) > limit:
        del message
        raise RaffelError("MESSAGE_TOO_LARGE", f"a message inflates to more than {limit} bytes")
    if not inflater.eof:
        raise RaffelError("INTERNAL_ERROR", "a compressed message ends before its gzip does")
    if inflater.unused_data:
        raise RaffelError("INTERNAL_ERROR", f"found {len(inflater.unused_data)} bytes after the gzip of a message")
    return message


_PREFIXES = tuple(_pack(0, size) for size in range(2048))


def prefix(size: int) -> bytes:
    """What comes before a message of this size. MESSAGE_TOO_LARGE: 4 bytes cannot say it."""
    return _PREFIXES[size] if size < len(_PREFIXES) else _prefix(0, size)


def compressed_prefix(size: int) -> bytes:
    """The same for a message that is compressed to this size."""
    return _prefix(1, size)


def _prefix(flag: int, size: int) -> bytes:
    if size > 0xFFFF_FFFF:
        raise RaffelError("MESSAGE_TOO_LARGE", f"a message of {size} bytes, and none over gRPC has more than 4 GiB")
    return _pack(flag, size)


def gzipped(data: bytes) -> bytes:
    """The message compressed, quickly rather than well; equal messages are equal bytes."""
    return zlib.compress(data, 1, _GZIP)


# Timeouts

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def timeout_seconds(text: str) -> float:
    """A `grpc-timeout` in seconds. Anything but 1 to 8 digits, more than 0, and a unit is INVALID_ARGUMENT."""
    digits, unit = text[:-1], text[-1:]
    if not (unit in _UNITS and len(digits) <= 8 and digits.isascii() and digits.isdigit() and int(digits) > 0):
        expected = "a positive integer of at most 8 digits and one of H, M, S, m, u, n"
        raise RaffelError("INVALID_ARGUMENT", f"grpc-timeout: found {text[:40]!r}, expected {expected}")
    return int(digits) * _UNITS[unit]


# Metadata

_NAME = re.compile(r"[0-9a-z_.-]+")
_PRINTABLE = re.compile(rb"[ -~]*")
_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")

_RESERVED = frozenset(
    (
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers of the connection or of the message itself (RFC 9113, section 8.2.2)."""


def read_metadata(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A request's headers, of which the names are in lower case, without the pseudo-headers.

    Values of one name are joined with ",", those of `cookie` with "; " (RFC 9113, section 8.2.3). A `-bin` value is
    base64 with padding. INVALID_ARGUMENT: a value is neither printable ASCII nor, where it should be, base64; or there
    is too much of it all.
    """
    metadata: dict[str, str] = {}
    count = size = 0
    for name, value in headers:
        if name.startswith(b":"):
            continue
        count += 1
        size += len(name) + len(value)
        if count > MAX_METADATA or size > MAX_METADATA_BYTES:
            limits = f"{MAX_METADATA} headers and {MAX_METADATA_BYTES} bytes of names and values"
            raise RaffelError("INVALID_ARGUMENT", f"metadata: found more than {limits}")
        key = name.decode("ascii", "backslashreplace")
        text = _read_binary(key, value) if key.endswith("-bin") else _read_ascii(key, value)
        if key in metadata:
            text = f"{metadata[key]}{'; ' if key == 'cookie' else ','}{text}"
        metadata[key] = text
    return metadata


def _read_ascii(key: str, value: bytes) -> str:
    if not _PRINTABLE.fullmatch(value):
        raise RaffelError("INVALID_ARGUMENT", f"metadata {key!r}: found {value[:40]!r}, expected printable ASCII")
    return value.decode("ascii")


def _read_binary(key: str, value: bytes) -> str:
    """A list of base64 values, each with its padding."""
    try:
        return ",".join(b64encode(_decoded(part)).decode() for part in value.split(b","))
    except binascii.Error:
        raise RaffelError("INVALID_ARGUMENT", f"metadata {key!r}: found {value[:40]!r}, expected base64") from None


def _decoded(value: bytes) -> bytes:
    """What base64 says, whether it has its padding or none. Raises binascii.Error."""
    bare = value.strip(b" \t").rstrip(b"=")
    return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)


def metadata_headers(metadata: Mapping[str, str | bytes]) -> Headers:
    """The headers of what a handler sends back.

    A name is of letters, digits, `_`, `-` and `.`, and sent in lower case. The value of one that ends in `-bin` is
    bytes, or base64 text as `ctx.metadata` has it; any other is printable ASCII without space around it.
    OUTPUT_VALIDATION_ERROR: another name or value, a name that is the protocol's own, or more than 64 entries or
    `MAX_SENT` bytes, each entry counted with 32 more.
    """
    headers: Headers = []
    for name, value in metadata.items():
        key = _checked_name(name)
        headers.append((key.encode(), _written_binary(key, value) if key.endswith("-bin") else _written(key, value)))
    if len(headers) > MAX_METADATA or _size(headers) > MAX_SENT:
        found = f"{len(headers)} entries that take {_size(headers)} bytes"
        raise _refused("metadata", f"found {found}, expected at most {MAX_METADATA} and {MAX_SENT}")
    return headers


def _checked_name(name: str) -> str:
    key = name.lower() if isinstance(name, str) else ""
    if not _NAME.fullmatch(key):
        expected = "letters, digits, '_', '-' and '.'"
        raise _refused("metadata", f"found the name {name!r}, expected {expected}")
    if key in _RESERVED or key.startswith("grpc-"):
        raise _refused("metadata", f"found the name {name!r}, which is the protocol's own")
    return key


def _written(key: str, value: str | bytes) -> bytes:
    if not isinstance(value, str):
        raise _refused(key, f"found {type(value).__name__}, expected str; for bytes a name ends in '-bin'")
    if not _VALUE.fullmatch(value):
        raise _refused(key, f"found {value[:40]!r}, expected printable ASCII without space around it")
    return value.encode()


def _written_binary(key: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return _unpadded(value)
    try:
        return b",".join(_unpadded(_decoded(part)) for part in value.encode("ascii").split(b","))
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        raise _refused(key, f"found {_short(value)}, expected bytes, or text that is base64") from None


def _short(value: object) -> str:
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


def _unpadded(data: bytes | bytearray | memoryview) -> bytes:
    return b64encode(data).rstrip(b"=")


def _refused(where: str, message: str) -> RaffelError:
    return RaffelError("OUTPUT_VALIDATION_ERROR", f"metadata {where!r}: {message}" if where != "metadata" else message)


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + _FIELD for name, value in headers)


# Trailers


def percent_encoded(text: str) -> bytes:
    """A `grpc-message`: the text in UTF-8, percent-encoded, cut at a whole character to what the limit leaves."""
    pieces: list[bytes] = []
    left = MAX_STATUS_MESSAGE
    for character in text[:MAX_STATUS_MESSAGE]:
        piece = b"".join(_PERCENT[byte] for byte in character.encode("utf-8", "backslashreplace"))
        left -= len(piece)
        if left < 0:
            break
        pieces.append(piece)
    return b"".join(pieces)


_PERCENT = [bytes((byte,)) if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in range(256)]


def trailers(error: RaffelError | None, details: bytes | None, metadata: Mapping[str, str | bytes]) -> Headers:
    """How a call ended: OK where there is no error, UNKNOWN for an error with a code of its own.

    `details` are a `google.rpc.Status`; they are left out where all is larger than `MAX_TRAILERS` with them. Raises
    what `metadata_headers` raises.
    """
    headers: Headers = [(b"grpc-status", b"0" if error is None else b"%d" % status_number(error))]
    if error is not None and error.message:
        headers.append((b"grpc-message", percent_encoded(str(error.message))))
    if metadata:
        headers += metadata_headers(metadata)
    if details is not None:
        field = (b"grpc-status-details-bin", _unpadded(details))
        if _size([*headers, field]) <= MAX_TRAILERS:
            headers.append(field)
    return headers


def status_number(error: RaffelError) -> int:
    """The status of gRPC that an error is; UNKNOWN for a code of its own."""
    code = "UNIMPLEMENTED" if isinstance(error, NoSuchRoute) else error.code
    return CODES.get(code, CODES["UNKNOWN"]).grpc
