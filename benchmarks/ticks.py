"""The messages of peers/ticks.proto as every side must write them, each behind the five bytes of its prefix."""

from __future__ import annotations

from struct import pack

SYMBOL, PRICE, TS = b"ACME", 101.25, 1712345678.123


def tick(seq: int) -> bytes:
    return framed(_int(1, seq) + b"\x12%c%b\x19%b\x21%b" % (len(SYMBOL), SYMBOL, pack("<d", PRICE), pack("<d", TS)))


def query(n: int) -> bytes:
    return framed(_int(1, n))


def sum_(count: int, total: int) -> bytes:
    return framed(_int(1, count) + _int(2, total))


def size_of_ticks(n: int) -> int:
    """The bytes of the ticks from 1 to that, without making them: what they have in common, and their varints."""
    common, varints = len(tick(1)) - 1, 0
    power = 1
    while power <= n:
        varints += n - power + 1
        power *= 128
    return n * common + varints


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(5, "big") + message  # the first of them says that it is not compressed


def _int(field: int, value: int) -> bytes:
    """Of a value that is not zero: one that is may be left out or written."""
    return bytes((field << 3,)) + _varint(value)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
