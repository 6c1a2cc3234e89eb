"""The encoding of protocol buffers ("Encoding"): varints, keys, and the well-known types that have two numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

VARINT, FIXED64, LEN = 0, 1, 2
"""Wire types."""

SMALL = 1 << 14
"""Below it varints come from a table."""

VARINTS: Sequence[bytes] = tuple(
    bytes((value,)) if value < 128 else bytes((value & 127 | 128, value >> 7)) for value in range(SMALL)
)

_MORE = tuple(bytes((value | 128,)) for value in range(128))
"""Seven bits that are not the last."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAIVE_EPOCH = datetime(1970, 1, 1)
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""The seconds of a Timestamp: the years 1 to 9999."""
_LONGEST = 315_576_000_000
"""The seconds of a Duration: 10,000 years."""
_MICROSECOND = timedelta(microseconds=1)


def varint(value: int) -> bytes:
    """An int64 or the size of something. OverflowError: it has more than 64 bits."""
    if value < 0:
        if value < -(1 << 63):
            raise OverflowError("less than an int64")
        value += 1 << 64
    elif value >= 1 << 63:
        raise OverflowError("more than an int64")
    if value < SMALL:
        return VARINTS[value]
    low, high = _MORE[value & 127], value >> 7
    if high < SMALL:
        return low + VARINTS[high]
    low, high = low + _MORE[high & 127], high >> 7
    if high < SMALL:
        return low + VARINTS[high]
    return low + _MORE[high & 127] + _MORE[high >> 7 & 127] + varint(high >> 14)


def key(number: int, wire_type: int) -> bytes:
    """What comes before a field."""
    return varint(number << 3 | wire_type)


@functools.cache
def sized(key: bytes) -> Sequence[bytes]:
    """A key with each size that is one byte."""
    return tuple(key + VARINTS[size] for size in range(128))


def delimited(key: bytes, data: bytes) -> bytes:
    """A field of type LEN."""
    return key + varint(len(data)) + data


def timestamp(value: datetime) -> bytes:
    """A google.protobuf.Timestamp; no time zone is UTC. OverflowError: it is not within the years 1 to 9999."""
    since = value - NAIVE_EPOCH if value.tzinfo is None else value - EPOCH
    seconds, micros = since.days * 86_400 + since.seconds, since.microseconds
    if not _FIRST <= seconds <= _LAST:
        raise OverflowError("no Timestamp")
    return b"\x08" + varint(seconds) + (b"\x10" + varint(micros * 1000) if micros else b"")


def duration(value: timedelta) -> bytes:
    """A google.protobuf.Duration, whose two numbers have one sign. OverflowError: it is over 10,000 years."""
    micros = value // _MICROSECOND
    sign = -1 if micros < 0 else 1
    seconds, micros = divmod(abs(micros), 1_000_000)
    if seconds > _LONGEST:
        raise OverflowError("no Duration")
    return b"\x08" + varint(sign * seconds) + (b"\x10" + varint(sign * micros * 1000) if micros else b"")


def read_timestamp(message: Any) -> datetime:
    """The datetime of a Timestamp, in UTC; below a microsecond is lost. ValueError, OverflowError: there is none."""
    return EPOCH + _since_epoch(message)


def read_naive_timestamp(message: Any) -> datetime:
    """The same without a time zone."""
    return NAIVE_EPOCH + _since_epoch(message)


def _since_epoch(message: Any) -> timedelta:
    nanos = message.nanos
    if not 0 <= nanos < 1_000_000_000:
        raise ValueError("no nanoseconds of a Timestamp")
    return timedelta(0, message.seconds, nanos // 1000)


def read_duration(message: Any) -> timedelta:
    """The timedelta of a Duration; below a microsecond is lost. ValueError: it is none."""
    seconds, nanos = message.seconds, message.nanos
    if not (-_LONGEST <= seconds <= _LONGEST and -1_000_000_000 < nanos < 1_000_000_000) or seconds * nanos < 0:
        raise ValueError("no Duration")
    return timedelta(0, seconds, int(nanos / 1000))
