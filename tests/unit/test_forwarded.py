"""X-Forwarded-*: whom a trusted proxy speaks for, and that nobody else does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from raffel_core.protocols.forwarded import TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.1", "2001:db8:aaaa::/48", "fe80::/10"])
PROXY = "10.0.0.1:5000"


def client(listed: str, peer: str = PROXY) -> str:
    return PROXIES.client(peer, {"x-forwarded-for": listed})


class Untouched(Mapping[str, str]):
    """Headers that fail a test when they are looked at."""

    def __getitem__(self, key: str) -> str:
        raise AssertionError(f"{key} was read")

    __iter__ = __len__ = None  # type: ignore[assignment]  # nothing may be asked of it


# The client


def test_without_trusted_proxies_no_header_is_looked_at() -> None:
    assert TrustedProxies(()).client(PROXY, Untouched()) == PROXY


def test_a_peer_that_is_not_trusted_is_the_client() -> None:
    assert client("203.0.113.9", peer="203.0.113.1:5000") == "203.0.113.1:5000"


def test_a_trusted_peer_that_names_nobody_is_the_client() -> None:
    assert PROXIES.client(PROXY, {}) == PROXY


@pytest.mark.parametrize("listed", ["", " ", ",", " , ,"])
def test_an_empty_list_names_nobody(listed: str) -> None:
    assert client(listed) == PROXY


@pytest.mark.parametrize(
    "peer", ["10.255.0.1:1", "192.0.2.1:1", "[2001:db8:aaaa::1]:1", "[::ffff:10.0.0.1]:1", "[::ffff:a00:1]:1"]
)
def test_a_trusted_peer_speaks_for_the_client(peer: str) -> None:
    assert client("203.0.113.9", peer) == "203.0.113.9"


@pytest.mark.parametrize("peer", ["[fe80::1%eth0]:1", "[fe80::1]:1"])
def test_a_trusted_peer_of_the_same_link_may_have_its_scope(peer: str) -> None:
    assert client("203.0.113.9", peer) == "203.0.113.9"


@pytest.mark.parametrize("peer", ["192.0.2.2:1", "11.0.0.1:1", "[2001:db8:aaab::1]:1", "[::10.0.0.1]:1", "", "/run/a"])
def test_a_peer_outside_of_all_networks_speaks_for_itself(peer: str) -> None:
    assert client("203.0.113.9", peer) == peer


def test_a_network_may_be_written_with_an_address_in_it() -> None:
    assert TrustedProxies(["10.1.2.3/8"]).client(PROXY, {"x-forwarded-for": "203.0.113.9"}) == "203.0.113.9"


@pytest.mark.parametrize("network", ["::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3/104"])
def test_a_network_of_mapped_addresses_is_one_of_ipv4(network: str) -> None:
    assert TrustedProxies([network]).client(PROXY, {"x-forwarded-for": "203.0.113.9"}) == "203.0.113.9"


def test_the_last_who_is_not_trusted_is_the_client() -> None:
    assert client("198.51.100.1, 203.0.113.9, 10.0.0.3, 10.0.0.2") == "203.0.113.9"


def test_what_a_client_claims_of_itself_is_not_believed() -> None:
    assert client("127.0.0.1, 10.0.0.9, 203.0.113.9") == "203.0.113.9"


def test_where_all_are_trusted_the_first_is_the_client() -> None:
    assert client("10.0.0.4, 10.0.0.3,10.0.0.2") == "10.0.0.4"


@pytest.mark.parametrize("listed", ["203.0.113.9,10.0.0.2", "203.0.113.9 ,\t10.0.0.2", "203.0.113.9,, 10.0.0.2,"])
def test_spaces_and_empty_entries_are_nothing(listed: str) -> None:
    assert client(listed) == "203.0.113.9"


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9:4711"),
        ("2001:db8::7", "[2001:db8::7]"),
        ("[2001:db8::7]", "[2001:db8::7]"),
        ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
        ("2001:DB8:0:0::7", "[2001:db8::7]"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:4711", "203.0.113.9:4711"),
        ("::ffff:cb00:7109", "203.0.113.9"),
    ],
)
def test_a_client_is_named_in_one_form(entry: str, name: str) -> None:
    assert client(entry) == name


@pytest.mark.parametrize("entry", ["10.0.0.2:80", "::ffff:10.0.0.2", "[2001:db8:aaaa::2]:80", "2001:db8:aaaa::2"])
def test_a_trusted_entry_is_passed_in_every_form(entry: str) -> None:
    assert client(f"203.0.113.9, {entry}") == "203.0.113.9"


MALFORMED = [
    *("unknown", "_hidden", "localhost", "203.0.113", "203.0.113.256", "203.0.113.09", "203.0.113.9/32", "1.2.3.4 5"),
    *("203.0.113.9:", "203.0.113.9:99999", "203.0.113.9:x", "[2001:db8::7", "2001:db8::7]", "[2001:db8::7]4711", "[]"),
    *("fe80::1%eth0", '"203.0.113.9"', "for=203.0.113.9", "2001:db8::7::", "٣.0.0.1", "203.0.113.9\n", ":80", "::1%"),
]


@pytest.mark.parametrize("entry", MALFORMED)
def test_a_malformed_entry_leaves_the_last_believable_one(entry: str) -> None:
    assert client(f"203.0.113.9, {entry}, 10.0.0.2") == "10.0.0.2"


@pytest.mark.parametrize("entry", MALFORMED)
def test_a_peer_whose_own_entry_is_malformed_is_the_client(entry: str) -> None:
    assert client(f"203.0.113.9, {entry}") == PROXY


def test_the_header_forwarded_is_not_read() -> None:
    assert PROXIES.client(PROXY, {"forwarded": "for=203.0.113.9;proto=https"}) == PROXY


# The host


def test_a_trusted_peer_names_the_host() -> None:
    assert PROXIES.host(PROXY, {"host": "inside:3000", "x-forwarded-host": "example.com:8443"}) == "example.com:8443"


def test_another_peer_does_not_name_the_host() -> None:
    assert PROXIES.host("203.0.113.1:1", {"host": "inside", "x-forwarded-host": "example.com"}) == "inside"


def test_without_trusted_proxies_nobody_names_the_host() -> None:
    assert TrustedProxies(()).host(PROXY, {"host": "inside", "x-forwarded-host": "example.com"}) == "inside"


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-host": ""}, {"x-forwarded-host": "example.com, "}])
def test_a_trusted_peer_that_names_no_host_has_its_own(headers: dict[str, str]) -> None:
    assert PROXIES.host(PROXY, {"host": "inside", **headers}) == "inside"


def test_of_several_hosts_the_one_that_the_peer_wrote_counts() -> None:
    assert PROXIES.host(PROXY, {"host": "inside", "x-forwarded-host": "evil.example, example.com"}) == "example.com"


def test_a_request_without_a_host_has_none() -> None:
    assert PROXIES.host(PROXY, {}) == ""


# The scheme


@pytest.mark.parametrize(
    ("scheme", "secure"),
    [("https", True), ("HTTPS", True), ("wss", True), ("http", False), ("ws", False), ("ftp", None), ("", None)],
)
def test_a_trusted_peer_says_whether_the_client_uses_tls(scheme: str, secure: bool | None) -> None:
    assert PROXIES.secure(PROXY, {"x-forwarded-proto": scheme}) is secure


def test_what_nobody_says_of_tls_is_not_known() -> None:
    assert PROXIES.secure(PROXY, {}) is None


def test_another_peer_is_not_believed_about_tls() -> None:
    assert PROXIES.secure("203.0.113.1:1", {"x-forwarded-proto": "https"}) is None


def test_without_trusted_proxies_nobody_is_believed_about_tls() -> None:
    assert TrustedProxies(()).secure(PROXY, {"x-forwarded-proto": "https"}) is None


def test_of_several_schemes_the_one_that_the_peer_wrote_counts() -> None:
    assert PROXIES.secure(PROXY, {"x-forwarded-proto": "https, http"}) is False
