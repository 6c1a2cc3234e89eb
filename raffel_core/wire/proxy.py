"""The PROXY protocol's header, versions 1 and 2: what a proxy says first about whom it connects for.

The specification is doc/proxy-protocol.txt of HAProxy.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from raffel_core.errors import RaffelError

MAX_V1 = 107
"""The longest line, with its CRLF (section 2.1)."""

MAX_V2 = 16 + 2048
"""The longest binary header, with the TLVs that follow its addresses: they have to fit where the addresses do."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_OPENINGS = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", b"PROXY UNKNOWN\r\n", _SIGNATURE)
_PORT = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) " + _PORT + b" " + _PORT)

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: 12, _TCP6: 36}


def parse(data: bytes) -> tuple[int, str | None] | None:
    """The header that these bytes start with: its size, and the client as `host:port` or `[host]:port`.

    None while it is not complete: then every byte so far belongs to it. The client is None where the connection's own
    address counts: a proxy's health check (LOCAL), or a client without an address of TCP (UNKNOWN, UNIX, UDP). An IPv6
    address that stands for an IPv4 one is given as that. TLVs are skipped.

    Raises INVALID_ARGUMENT for what can no longer become a header: at the first byte that fits no opening, version,
    command or length; the addresses of version 1 are judged when their line is whole, as section 2.1 has it.
    """
    opening = next((one for one in _OPENINGS if one.startswith(data[: len(one)])), None)
    if opening is None:
        raise RaffelError("INVALID_ARGUMENT", f"found {data[:16]!r}, expected a PROXY protocol header")
    if len(data) < len(opening):
        return None
    return _parse_v2(data) if opening is _SIGNATURE else _parse_v1(data)


def _parse_v1(data: bytes) -> tuple[int, str | None] | None:
    line, end, _ = data[:MAX_V1].partition(b"\r\n")
    if b"\n" in line or b"\r" in (line if end else line[:-1]):
        raise RaffelError("INVALID_ARGUMENT", f"found a lone CR or LF in the PROXY line {line!r}, expected CRLF")
    if end:
        return len(line) + 2, _client_of(line)
    if len(line) == MAX_V1:
        raise RaffelError("INVALID_ARGUMENT", f"found no CRLF in {MAX_V1} bytes of a PROXY line")
    return None


def _client_of(line: bytes) -> str | None:
    if line.startswith(b"PROXY UNKNOWN"):
        return None
    if match := _LINE.fullmatch(line):
        family, source, destination, port, other_port = (field.decode() for field in match.groups())
        address = IPv4Address if family == "4" else IPv6Address
        try:
            client, _ = address(source), address(destination)
        except ValueError:
            pass
        else:
            if max(int(port), int(other_port)) <= 0xFFFF:
                return _name(client, int(port))
    raise RaffelError("INVALID_ARGUMENT", f"found the PROXY line {line!r}, expected two addresses and two ports")


def _parse_v2(data: bytes) -> tuple[int, str | None] | None:
    command, kind = data[12:13], data[13:14]
    if command and command[0] not in (_LOCAL, _PROXY):
        raise RaffelError("INVALID_ARGUMENT", f"found the PROXY version and command 0x{command.hex()}")
    # What LOCAL says of families is to be ignored; of UNSPEC, UNIX and datagrams the connection's own address is used.
    proxied = kind[0] if kind and command[0] == _PROXY else 0
    if proxied >> 4 > 3 or proxied & 15 > 2:
        raise RaffelError("INVALID_ARGUMENT", f"found the PROXY address family and transport 0x{kind.hex()}")
    if len(data) < 16:
        return None
    size = 16 + int.from_bytes(data[14:16], "big")
    if not 16 + _ADDRESSES.get(proxied, 0) <= size <= MAX_V2:
        raise RaffelError("INVALID_ARGUMENT", f"found a PROXY header of {size} bytes, which does not fit its addresses")
    if len(data) < size:
        return None
    if proxied == _TCP4:
        return size, _name(IPv4Address(data[16:20]), int.from_bytes(data[24:26], "big"))
    if proxied == _TCP6:
        return size, _name(IPv6Address(data[16:32]), int.from_bytes(data[48:50], "big"))
    return size, None


def _name(address: IPv4Address | IPv6Address, port: int) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else address
    return f"[{address}]:{port}" if mapped is None else f"{mapped}:{port}"
