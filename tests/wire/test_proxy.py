"""The PROXY header out of bytes: whom it names, how much it takes, and what is refused as soon as it is known."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raffel_core.errors import RaffelError
from raffel_core.wire.proxy import MAX_V1, MAX_V2, parse

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V1 = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"
WORST = b"PROXY UNKNOWN " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UDP6, UNIX, UNIX_DATAGRAM = 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32


def v2(body: bytes = b"", kind: int = UNSPEC, command: int = PROXY) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


def addresses(client: str, port: int, server: str = "", server_port: int = 443) -> bytes:
    packed = ip_address(client).packed + ip_address(server or client).packed
    return packed + struct.pack("!HH", port, server_port)


V2_TCP4 = v2(addresses("192.0.2.7", 4711, "10.0.0.1"), TCP4)
V2_TCP6 = v2(addresses("2001:db8::7", 4711, "2001:db8::1"), TCP6)
V2_UNIX = v2(b"/run/client".ljust(108, b"\0") * 2, UNIX)
TLV = b"\x04\0\x05noise"
HEADERS = [V1, UNKNOWN, WORST, V2_TCP4, V2_TCP6, V2_UNIX, v2(command=LOCAL), v2(addresses("::1", 1) + TLV * 9, TCP6)]


def client(data: bytes) -> str | None:
    """The client that a whole header names."""
    found = parse(data)
    assert found is not None and found[0] == len(data)
    return found[1]


def refusal(data: bytes) -> str:
    with pytest.raises(RaffelError) as raised:
        parse(data)
    assert raised.value.code == "INVALID_ARGUMENT"
    return raised.value.message


def refused_at(data: bytes) -> int:
    """How many bytes are read before these are refused."""
    for size in range(len(data) + 1):
        try:
            assert parse(data[:size]) is None
        except RaffelError:
            return size
    raise AssertionError("not refused")


# Version 1


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324"),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"),
        (b"PROXY TCP6 2001:DB8::7 2001:db8:0::1 4711 443\r\n", "[2001:db8::7]:4711"),
        (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n", f"[{'ffff:' * 7}ffff]:65535"),
    ],
)
def test_a_line_names_the_client(line: bytes, name: str) -> None:
    assert client(line) == name


@pytest.mark.parametrize("line", [UNKNOWN, b"PROXY UNKNOWN \r\n", b"PROXY UNKNOWN \0\xff PROXY 1\r\n", WORST])
def test_an_unknown_client_has_the_connections_own_address(line: bytes) -> None:
    assert client(line) is None


@pytest.mark.parametrize(
    "data", [b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", v2(addresses("::ffff:c000:207", 1), TCP6)]
)
def test_an_ipv4_client_of_an_ipv6_socket_is_named_as_itself(data: bytes) -> None:
    assert client(data) == "192.0.2.7:1"


@pytest.mark.parametrize(
    "rest",
    [
        b"TCP4 192.168.0.1 192.168.0.11 56324",
        b"TCP4 192.168.0.1 192.168.0.11 56324 443 ",
        b"TCP4  192.168.0.1 192.168.0.11 56324 443",
        b"TCP4 192.168.0.1\t192.168.0.11 56324 443",
        b"TCP4 192.168.0.01 192.168.0.11 56324 443",
        b"TCP4 192.168.0.256 192.168.0.11 56324 443",
        b"TCP4 192.168.1 192.168.0.11 56324 443",
        b"TCP4 192.168.0.1 192.168.0 56324 443",
        b"TCP4 \xb2.168.0.1 192.168.0.11 56324 443",
        b"TCP4 ::1 ::1 56324 443",
        b"TCP4 192.168.0.1 192.168.0.11 65536 443",
        b"TCP4 192.168.0.1 192.168.0.11 56324 65536",
        b"TCP4 192.168.0.1 192.168.0.11 056 443",
        b"TCP4 192.168.0.1 192.168.0.11 +56 443",
        b"TCP4 192.168.0.1 192.168.0.11 -1 443",
        b"TCP6 192.168.0.1 192.168.0.11 56324 443",
        b"TCP6 fe80::1%eth0 fe80::2 56324 443",
        b"TCP6 [::1] [::1] 56324 443",
        b"TCP6 1::2::3 ::1 56324 443",
        b"TCP6 12345::1 ::1 56324 443",
    ],
)
def test_a_line_without_two_addresses_and_two_ports_is_refused(rest: bytes) -> None:
    assert "expected two addresses and two ports" in refusal(b"PROXY " + rest + b"\r\n")


def test_addresses_are_judged_when_their_line_is_whole() -> None:
    assert refused_at(b"PROXY TCP4 nonsense\r\n") == len(b"PROXY TCP4 nonsense\r\n")


@pytest.mark.parametrize("line", [V1[:-2] + b"\n", b"PROXY UNKNOWN a\nb\r\n", b"PROXY UNKNOWN \n"])
def test_a_lone_lf_is_refused_when_it_comes(line: bytes) -> None:
    assert refused_at(line) == line.index(b"\n") + 1


@pytest.mark.parametrize("line", [V1[:-2] + b"\rGET", b"PROXY UNKNOWN a\rb\r\n", b"PROXY UNKNOWN a\r\r\n"])
def test_a_lone_cr_is_refused_at_the_byte_behind_it(line: bytes) -> None:
    assert refused_at(line) == line.index(b"\r") + 2


def test_the_longest_line_is_107_bytes() -> None:
    assert len(WORST) == MAX_V1 == 107 and client(WORST) is None


def test_a_line_that_does_not_end_is_refused_at_its_107th_byte() -> None:
    assert refused_at(b"PROXY UNKNOWN " + b"a" * 1000) == MAX_V1


def test_a_line_one_byte_too_long_is_refused() -> None:
    assert "no CRLF in 107 bytes" in refusal(WORST[:-2] + b"a\r\n")


# Version 2


def test_tcp4_of_version_2() -> None:
    assert client(V2_TCP4) == "192.0.2.7:4711"


def test_tcp6_of_version_2() -> None:
    assert client(V2_TCP6) == "[2001:db8::7]:4711"


@pytest.mark.parametrize(
    ("kind", "size"), [(UNSPEC, 0), (UDP4, 12), (UDP6, 36), (UNIX, 216), (UNIX_DATAGRAM, 216), (0x01, 0), (0x10, 12)]
)
def test_what_is_not_tcp_has_the_connections_own_address(kind: int, size: int) -> None:
    assert client(v2(bytes(size), kind)) is None


def test_a_health_check_of_the_proxy_has_the_connections_own_address() -> None:
    assert client(v2(command=LOCAL)) is None


@pytest.mark.parametrize("kind", [TCP4, TCP6, 0x00, 0xFF])
@pytest.mark.parametrize("body", [b"", bytes(12), bytes(300)])
def test_whatever_a_health_check_says_of_addresses_is_skipped(kind: int, body: bytes) -> None:
    assert client(v2(body, kind, LOCAL)) is None


def test_tlvs_are_skipped() -> None:
    assert client(v2(addresses("192.0.2.7", 1) + TLV * 3, TCP4)) == "192.0.2.7:1"


def test_a_header_of_the_largest_size_is_read() -> None:
    largest = v2(addresses("192.0.2.7", 1).ljust(2048, b"\0"), TCP4)
    assert len(largest) == MAX_V2 == 16 + 2048 and client(largest) == "192.0.2.7:1"


def test_a_larger_header_is_refused_at_its_length() -> None:
    assert refused_at(v2(bytes(2049), TCP4)) == 16


@pytest.mark.parametrize("command", [0x00, 0x01, 0x11, 0x22, 0x2F, 0x31, 0xFF])
def test_another_version_or_command_is_refused_at_its_byte(command: int) -> None:
    assert refused_at(v2(command=command)) == 13


@pytest.mark.parametrize("kind", [0x13, 0x1F, 0x41, 0xF1, 0xFF])
def test_another_family_or_transport_is_refused_at_its_byte(kind: int) -> None:
    assert refused_at(v2(kind=kind)) == 14


@pytest.mark.parametrize(("kind", "size"), [(TCP4, 11), (TCP4, 0), (TCP6, 35), (TCP6, 12)])
def test_a_length_that_leaves_no_room_for_the_addresses_is_refused_at_once(kind: int, size: int) -> None:
    assert refused_at(v2(bytes(size), kind)) == 16


# Both


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (b"\x16\x03\x01\x02\0\x01", 1),
        (b"\0\0\0\x10{}", 1),
        (b" PROXY", 1),
        (b"proxy UNKNOWN\r\n", 1),
        (b"POST / HTTP/1.1\r\n", 2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3),
        (b"PROXY\tTCP4", 6),
        (b"PROXY TCP5 ", 10),
        (b"PROXY TCP46", 11),
        (b"PROXY UDP4 ", 8),
        (b"PROXY UNKNOWN1", 14),
        (b"PROXY UNKNOWN\n", 14),
        (b"\r\n\r\nGET / HTTP/1.1", 5),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
    ],
)
def test_what_is_no_header_is_refused_at_the_first_byte_that_does_not_fit(data: bytes, size: int) -> None:
    assert refused_at(data) == size


def test_nothing_may_still_become_a_header() -> None:
    assert parse(b"") is None


def test_a_refusal_says_what_was_found_and_what_was_expected() -> None:
    assert (
        refusal(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        == "found b'GET / HTTP/1.1\\r\\n', expected a PROXY protocol header"
    )


@pytest.mark.parametrize("header", HEADERS)
def test_no_part_of_a_header_is_one(header: bytes) -> None:
    assert {parse(header[:size]) for size in range(len(header))} == {None}


@pytest.mark.parametrize("header", HEADERS)
@given(behind=st.binary(max_size=50))
def test_what_comes_behind_a_header_is_no_part_of_it(header: bytes, behind: bytes) -> None:
    assert parse(header + behind) == parse(header)


# Any bytes


def outcome(data: bytes) -> tuple[int, str | None] | str | None:
    """What `parse` says, checked against its promise."""
    try:
        found = parse(data)
    except RaffelError as error:
        assert error.code == "INVALID_ARGUMENT"
        return "refused"
    if found is None:
        assert len(data) < (MAX_V2 if data.startswith(b"\r") else MAX_V1)
        return None
    size, name = found
    assert 0 < size <= len(data)
    if name is not None:
        host, _, port = name.rpartition(":")
        assert 0 <= int(port) <= 65535 and ip_address(host.strip("[]")).version == (6 if host.startswith("[") else 4)
    return found


def flipped(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def reworded(chance: random.Random, data: bytes) -> bytes:
    words = data.split(b" ")
    words[chance.randrange(len(words))] = chance.choice([b"", b"TCP4", b"TCP6", b"1.2.3.4", b"::1", b"65535", b"\r\n"])
    return b" ".join(words)


def resized(chance: random.Random, data: bytes) -> bytes:
    return data[:14] + struct.pack("!H", chance.randrange(400)) + data[16:]


MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [
    flipped,
    reworded,
    resized,
    lambda chance, data: data,
    lambda chance, data: data[: chance.randrange(len(data) + 1)],
    lambda chance, data: data + chance.randbytes(chance.randrange(100)),
    lambda chance, data: data[: chance.randrange(20)] + chance.randbytes(chance.randrange(300)),
]


def inputs(count: int) -> Iterator[tuple[bytes, int]]:
    """Headers and what is near to one, each with a place to split it."""
    chance = random.Random(20)
    for _ in range(count):
        data = chance.choice(MUTATIONS)(chance, chance.choice(HEADERS))
        yield data, chance.randrange(len(data) + 1)


def test_any_bytes_split_anywhere_have_one_documented_outcome() -> None:
    """What a part says holds for the whole: None leaves everything open, anything else is final."""
    for data, split in inputs(100_000):
        whole, part = outcome(data), outcome(data[:split])
        if part is not None:
            assert part == whole, data
        elif isinstance(whole, tuple):
            assert split < whole[0], data
