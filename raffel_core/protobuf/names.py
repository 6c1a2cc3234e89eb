"""Names in the case that the style guide of protocol buffers wants, and where a route has its method."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from raffel_core.errors import Problem
from raffel_core.pattern import Segment
from raffel_core.route import Route

ROOT = "Root"
"""The service of routes whose name is one segment."""

_SEPARATORS = re.compile(r"[-_]+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FOREIGN = re.compile(r"[^A-Za-z0-9_]")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_cached = functools.lru_cache(4096)  # there are few names, and they are asked for again and again
_JSON = re.compile(r"_+([a-z])?")


@_cached
def pascal(text: str) -> str:
    """`tail-logs` and `tail_logs` are TailLogs, `2fa` is N2fa, `café` is Cafu00e9."""
    words = _words(text) or [escaped(_SEPARATORS.sub(_code, text))]
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return f"N{joined}" if joined[0].isdigit() else joined


@_cached
def snake(text: str) -> str:
    """`tail-logs`, `tailLogs` and `TailLogs` are tail_logs, `2fa` is n2fa."""
    words = [part for word in _SEPARATORS.split(text) if word for part in _HUMPS.split(word)]
    joined = escaped("_".join(words or [_SEPARATORS.sub(_code, text)]).lower())
    return f"n{joined}" if joined[:1].isdigit() else joined


def upper_snake(text: str) -> str:
    """`DarkBlue` is DARK_BLUE."""
    return snake(text).upper()


@_cached
def identifier(text: str) -> str:
    """The text itself where protobuf allows it; `-` becomes `_`, a digit in front gets an `n` before it."""
    if _IDENTIFIER.fullmatch(text):
        return text
    legal = escaped(text.replace("-", "_"))
    return f"n{legal}" if legal[:1].isdigit() or not legal else legal


def tagged(name: str, tag: str | int | None) -> str:
    """The name of the member of a oneof: `shape_circle` for the tag `Circle`, `shape_2` for 2."""
    text = str(tag)
    return f"{name}_{text if text.isdecimal() and text.isascii() else snake(text)}"


def escaped(text: str) -> str:
    """The text with what no identifier of protobuf may hold as `u` and its code point in hexadecimal: `é` is u00e9."""
    return _FOREIGN.sub(_code, text)


@_cached
def json_name(name: str) -> str:
    """The name of a field in JSON (protocol buffers, "JSON Mapping"): `dark_blue` is darkBlue."""
    return _JSON.sub(lambda match: (match[1] or "").upper(), name)


def _words(text: str) -> list[str]:
    return [escaped(word) for word in _SEPARATORS.split(text) if word]


def _code(match: re.Match[str]) -> str:
    return "".join(f"u{ord(character):04x}" for character in match[0])


# Where a route has its method


class Place(NamedTuple):
    """Where a method stands."""

    package: str
    """`market`; empty where there is none."""
    service: str
    method: str

    @property
    def path(self) -> str:
        return f"/{qualified(self.package, self.service)}/{self.method}"

    @property
    def prefix(self) -> str:
        """What the names of the method's own messages begin with."""
        return self.service + self.method


def qualified(package: str, name: str) -> str:
    """The full name of what a package holds."""
    return f"{package}.{name}" if package else name


def place_of(route: Route, package: str = "") -> tuple[Place | None, list[Problem]]:
    """The place of a route's method, below the configured package; None, with what is wrong, or where it has none."""
    given = route.meta.grpc
    if given is False:
        return None, []
    place = _place(route.segments, package)
    if not isinstance(given, dict):
        return place, []
    problems = [
        route.origin.problem("meta.grpc", f"meta['grpc'] has {found}", expected) for found, expected in _faults(given)
    ]
    return (None, problems) if problems else (place._replace(**given), [])


def _place(segments: tuple[Segment, ...], package: str) -> Place:
    """The place by the name alone: parameters have no part in it, unless there is nothing else."""
    texts = [segment.text for segment in segments if segment.kind == "literal"] or [segments[-1].text]
    *above, method = texts
    service = pascal(above.pop()) if above else ROOT
    return Place(".".join(filter(None, [package, *map(snake, above)])), service, pascal(method))


def _faults(given: dict[str, str]) -> list[tuple[str, str]]:
    faults = []
    for key, value in given.items():
        if key not in Place._fields:
            faults.append((f"the unknown key {key!r}", "package, service or method"))
        elif key == "package" and not (value == "" or all(map(_IDENTIFIER.fullmatch, value.split(".")))):
            faults.append((f"the package {value!r}", "identifiers of letters, digits and '_', joined by dots"))
        elif key != "package" and not _IDENTIFIER.fullmatch(value):
            faults.append((f"the {key} {value!r}", "letters, digits and '_', and no digit first"))
    return faults
