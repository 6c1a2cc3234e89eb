"""Which hosts are answered and which origins may ask: what keeps a page of somebody else's away from this server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from raffel_core.errors import RaffelError

LOCAL_NAMES = ("localhost", "*.localhost")
ALLOWED_HEADERS = "content-type, authorization, last-event-id, timeout-ms"
ALLOWED_METHODS = "GET, HEAD, POST"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_WILDCARDS = ("0.0.0.0", "::", "")
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::[0-9]{1,5})?")


class OriginPolicy:
    """Host and Origin of a request against what the configuration allows (RFC 6454; the Fetch standard)."""

    __slots__ = ("_any_address", "_any_host", "_hosts", "_local", "_origins", "_schemes")

    def __init__(
        self, allowed_hosts: Sequence[str], origins: Sequence[str], *, development: bool, host: str, tls: bool = False
    ) -> None:
        self._hosts = tuple(name.lower() for name in allowed_hosts)
        self._local = development
        self._any_host = not development and not allowed_hosts
        self._any_address = development and host in _WILDCARDS
        if development:
            self._hosts += (*LOCAL_NAMES, host.lower())
        self._origins = frozenset(origin.lower() for origin in origins)
        self._schemes = ("https",) if tls else ("http", "https")  # without TLS of ours, a proxy may have ended it

    def check_host(self, host: str) -> None:
        """Raises MISDIRECTED_REQUEST (421) for a Host that is not served here."""
        if self._any_host:
            return
        name = _host_name(host)
        if name is not None:
            if _is_loopback(name) and self._local:
                return
            if self._any_address and _is_address(name):
                return  # an address in Host was typed, not rebound: no page can make a browser send it for a name
            if any(_matches(name, pattern) for pattern in self._hosts):
                return
        raise RaffelError(
            "MISDIRECTED_REQUEST",
            f"the host {host[:100]!r} is not served here; `allowed_hosts` says which are",
            status=421,
        )

    def check_origin(self, origin: str, host: str, secure: bool | None = None) -> None:
        """Raises PERMISSION_DENIED for an origin that is neither the Host's own nor allowed."""
        if not self.allows(origin.lower(), host.lower(), secure):
            raise RaffelError(
                "PERMISSION_DENIED",
                f"the origin {origin[:100]!r} may not call this server; `cors.origins` says which may",
            )

    def allows(self, origin: str, host: str, secure: bool | None = None) -> bool:
        """Both in lower case; `secure` is whether the client uses TLS, where a proxy in between has said so."""
        scheme, _, authority = origin.partition("://")
        if not authority:
            return False  # `null` is every sandboxed frame and every file
        if origin in self._origins or "*" in self._origins:
            return True
        name, port = _host_name(authority), _DEFAULT_PORTS.get(scheme)
        if name is None or port is None:
            return False
        schemes = self._schemes if secure is None else ("https",) if secure else ("http",)
        if scheme in schemes and authority.removesuffix(port) == host.removesuffix(port):
            return True
        return self._local and (_is_loopback(name) or any(_matches(name, local) for local in LOCAL_NAMES))

    def cors_headers(self, origin: str) -> list[tuple[str, str]]:
        """What lets the page of an allowed origin read the answer."""
        if "*" in self._origins and origin.lower() not in self._origins:
            return [("Access-Control-Allow-Origin", "*")]
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Vary", "Origin"),
            ("Access-Control-Allow-Credentials", "true"),
        ]


def preflight_headers() -> list[tuple[str, str]]:
    return [
        ("Access-Control-Allow-Methods", ALLOWED_METHODS),
        ("Access-Control-Allow-Headers", ALLOWED_HEADERS),
        ("Access-Control-Max-Age", "600"),
    ]


def _host_name(authority: str) -> str | None:
    """The name or address of `host:port`, without brackets and a final dot, in lower case; None where it is neither."""
    match = _AUTHORITY.fullmatch(authority.lower())
    return None if match is None else match[1] or match[2]


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
    return name == pattern


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ip_address(name).is_loopback
