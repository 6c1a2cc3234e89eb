"""X-Forwarded-For, -Host and -Proto: what is believed of them, and of whom."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_ENTRY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")
_SCHEMES = {"https": True, "wss": True, "http": False, "ws": False}


class TrustedProxies:
    """The addresses and networks of `trusted_proxies`: a peer in them speaks for others, any other only for itself.

    A peer is `host:port`, headers have their keys in lower case. An IPv4 address counts as itself where it is written
    as an IPv6 one, as on a socket of both families.
    """

    __slots__ = ("_networks", "_trusts")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(_network(text) for text in networks)
        self._trusts = lru_cache(1024)(self._trusts_host)  # a few proxies send everything

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Whom a request is from: as `host` or `host:port`, IPv6 in brackets, where a trusted peer names the client.

        That is the last of X-Forwarded-For who is not trusted; the first, where all are. What is left of an entry that
        is no address is not believed.
        """
        listed = headers.get("x-forwarded-for") if self._networks else None
        if not listed or not self._trusts_peer(peer):
            return peer
        client = peer
        for entry in reversed(listed.split(",")):
            if text := entry.strip(" \t"):  # RFC 9110, 5.6.1: empty elements of a list are nothing
                address, name = _parsed(text)
                if address is None:
                    break
                client = name
                if not self._trusts_address(address):
                    break
        return client

    def host(self, peer: str, headers: Mapping[str, str]) -> str:
        """The host that the client asked for: X-Forwarded-Host of a trusted peer, else Host; "" where there is none."""
        return self._said(peer, headers, "x-forwarded-host") or headers.get("host", "")

    def secure(self, peer: str, headers: Mapping[str, str]) -> bool | None:
        """Whether the client uses TLS, as X-Forwarded-Proto of a trusted peer has it; None where that is not known."""
        return _SCHEMES.get(self._said(peer, headers, "x-forwarded-proto").lower())

    def _said(self, peer: str, headers: Mapping[str, str], name: str) -> str:
        """What the peer says in a header: the last of several values, the only one that it wrote itself for certain."""
        said = headers.get(name) if self._networks else None
        if not said or not self._trusts_peer(peer):
            return ""
        return said.rpartition(",")[2].strip(" \t")

    def _trusts_peer(self, peer: str) -> bool:
        return self._trusts(peer.rpartition(":")[0])

    def _trusts_host(self, host: str) -> bool:
        try:
            return self._trusts_address(_plain(ip_address(host.strip("[]"))))
        except ValueError:
            return False  # no address: a socket in the file system

    def _trusts_address(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _network(text: str) -> _Network:
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - _MAPPED.prefixlen))
    return network


def _parsed(entry: str) -> tuple[_Address | None, str]:
    """An entry of X-Forwarded-For: its address, None where it has none, and how the client is called."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return None, ""
    bracketed, dotted, port, bare = match.groups()
    if port and int(port) > 0xFFFF:
        return None, ""
    try:
        address = _plain(ip_address(bracketed or dotted or bare))
    except ValueError:
        return None, ""
    host = f"[{address}]" if address.version == 6 else str(address)
    return address, f"{host}:{port}" if port else host


def _plain(address: _Address) -> _Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
