"""Routes that cannot stand side by side, wherever they were declared: each is a problem that names both places."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from raffel_core.errors import Problem
from raffel_core.pattern import Segment, Shape, alternatives, join, shape

RESERVED = frozenset({"streams", "rpc", "ws", "docs", "health", "metrics"})
"""The first segments of the server's own paths, as long as nothing else is configured."""


class Entry(NamedTuple):
    """A route as far as its name matters. `origin` is where it was declared: `file:line`."""

    name: str
    segments: tuple[Segment, ...]
    origin: str
    procedure: bool = False


def conflicts(entries: Iterable[Entry], reserved: Collection[str] = RESERVED) -> list[Problem]:
    """Every conflict of these routes, reported at the later one; the order of `entries` does not matter.

    Two routes conflict if they match a common shape of names, also if only up to case, or if their parameters at one
    level are called differently. A procedure conflicts with the server itself if it begins with a reserved segment.
    """
    problems: list[Problem] = []
    earlier = _Earlier()
    for entry in sorted(entries, key=lambda entry: (_place(entry), entry)):
        file, line = _place(entry)
        found = [*_reserved(entry, reserved), *earlier.clashes(entry)]
        problems += [Problem(file, line, *texts) for texts in found]
    return problems


class _Found(NamedTuple):
    found: str
    expected: str


class _Earlier:
    """The routes seen so far, by whatever a later one may take from them."""

    __slots__ = ("_exact", "_folded", "_parameters")

    def __init__(self) -> None:
        self._parameters: dict[Shape, tuple[Segment, Entry]] = {}
        self._exact: dict[Shape, Entry] = {}
        self._folded: dict[Shape, Entry] = {}

    def clashes(self, entry: Entry) -> Iterator[_Found]:
        """The conflicts of `entry` with earlier routes; with each of them under one heading only."""
        told: set[Entry] = set()
        for segment, named, rival in self._renamed(entry):
            told.add(rival)
            yield _Found(
                f"the parameter {segment} of {entry.name!r} is {named} in {rival.name!r} at {rival.origin}",
                "one name for the parameters at one level",
            )
        for alternative in alternatives(entry.segments):
            key = shape(alternative)
            rival = self._exact.setdefault(key, entry)
            if rival is not entry and rival not in told:
                told.add(rival)
                yield _same_names(entry, rival, join(alternative))
            rival = self._folded.setdefault(tuple(text.casefold() for text in key), entry)
            if rival is not entry and rival not in told:
                told.add(rival)
                yield _Found(
                    f"{entry.name!r} and {rival.name!r} at {rival.origin} match names that differ only in case",
                    "names that differ in more",
                )

    def _renamed(self, entry: Entry) -> Iterator[tuple[Segment, Segment, Entry]]:
        for depth, segment in enumerate(entry.segments):
            if segment.kind in ("parameter", "optional"):
                named, rival = self._parameters.setdefault(shape(entry.segments[:depth]), (segment, entry))
                if named.text != segment.text:
                    yield segment, named, rival


def _reserved(entry: Entry, reserved: Collection[str]) -> Iterator[_Found]:
    first = entry.segments[0]
    if entry.procedure and first.kind == "literal" and first.text in reserved:
        yield _Found(
            f"the procedure {entry.name!r} begins with the server's own path /{first}", "another first segment"
        )


def _same_names(entry: Entry, rival: Entry, matched: str) -> _Found:
    if entry.name == rival.name:
        found = f"two routes are named {entry.name!r}: a {_kind(entry)} here and a {_kind(rival)} at {rival.origin}"
    else:
        found = f"{entry.name!r} and {rival.name!r} at {rival.origin} both match {matched!r}"
    return _Found(found, "one route for each name")


def _kind(entry: Entry) -> str:
    return "procedure" if entry.procedure else "stream"


def _place(entry: Entry) -> tuple[str, int]:
    file, _, line = entry.origin.rpartition(":")
    return (file, int(line)) if file and line.isdecimal() else (entry.origin, 1)
