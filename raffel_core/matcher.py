"""The lookup from a requested name to the route that answers it and the values of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote

from raffel_core.pattern import MAX_BYTES, MAX_SEGMENTS, Segment, alternatives, join

V = TypeVar("V")

_BROKEN_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_RANK = {"literal": 0, "parameter": 1, "optional": 1, "rest": 2}
_WORD = {"literal": "literal", "parameter": "parameter", "optional": "parameter", "rest": "catch-all"}


class Match(NamedTuple, Generic[V]):
    """What answers a name. `params` belongs to the caller; an optional segment that was left out is not in it."""

    value: V
    params: dict[str, str]


class Candidate(NamedTuple, Generic[V]):
    """A route that was considered for a name, and why it answers or does not."""

    name: str
    value: V
    answers: bool
    why: str


class Explanation(NamedTuple, Generic[V]):
    """Why a name is answered as it is: the verdict, then the candidates from the one that answers to the farthest.

    Candidates are the routes that match and those that agree in the first segment at least. `near` holds names of
    routes that are spelt alike, where nothing answers.
    """

    verdict: str
    candidates: tuple[Candidate[V], ...]
    near: tuple[str, ...]


class Matcher(Generic[V]):
    """Immutable: literal beats parameter beats catch-all, segment by segment, whatever the order of the entries.

    The entries must be free of conflicts: ValueError for two that match the same names.
    """

    __slots__ = ("_entries", "_root", "_static")

    def __init__(self, entries: Iterable[tuple[tuple[Segment, ...], V]]) -> None:
        self._entries = tuple(_Entry(segments, value) for segments, value in entries)
        self._static: dict[str, V] = {}
        self._root: _Node[V] = _Node()
        for segments, value in self._entries:
            for alternative in alternatives(segments):
                self._add(alternative, value)

    def _add(self, segments: tuple[Segment, ...], value: V) -> None:
        self._root.add(segments, _Leaf(value, segments))
        if all(segment.kind == "literal" for segment in segments):
            texts = [segment.text for segment in segments]
            self._static[".".join(texts)] = self._static["/".join(texts)] = value

    def find(self, name: str) -> Match[V] | None:
        """What answers `name`, `a.b` or `a/b` as envelopes have it: with a slash in it, dots separate nothing."""
        try:
            return Match(self._static[name], {})
        except KeyError:
            return None if len(name) > MAX_BYTES else self._match(_split(name))

    def find_path(self, raw: str) -> Match[V] | None:
        """What answers a name out of a URL, still percent-encoded: it is split first, each segment decoded then."""
        if "%" not in raw:
            return self.find(raw)
        if len(raw) > 3 * MAX_BYTES or _BROKEN_PERCENT.search(raw):
            return None
        try:
            return self._match([unquote(text, errors="strict") for text in _split(raw)])
        except UnicodeDecodeError:
            return None

    def explain(self, name: str) -> Explanation[V]:
        """Which entry `find(name)` takes and why, and what became of the others."""
        texts = _split(name)
        refusal = _refusal(texts)
        if refusal is not None:
            return Explanation(f"nothing answers: {refusal}", (), ())
        matching, others = self._consider(texts)
        candidates = (*_ranked(matching, texts), *others)
        if matching:
            return Explanation(f"{candidates[0].name} answers", candidates, ())
        return Explanation("nothing answers", candidates, self.near(name))

    def near(self, name: str) -> tuple[str, ...]:
        """Up to three routes that are spelt much like `name`, the likest first. It looks at every route."""
        texts = _split(name[:MAX_BYTES])
        # A parameter takes any value, so it is spelt as the request has it.
        spelt = {".".join(_filled(segments, texts)): join(segments) for segments, _ in self._entries}
        return tuple(spelt[close] for close in get_close_matches(".".join(texts), spelt))

    def _match(self, texts: list[str]) -> Match[V] | None:
        if _refusal(texts) is not None:
            return None
        leaf = self._root.find(texts, 0)
        return None if leaf is None else Match(leaf.value, leaf.params(texts))

    def _consider(self, texts: list[str]) -> tuple[list[_Entry[V]], list[Candidate[V]]]:
        matching: list[_Entry[V]] = []
        others: list[tuple[int, Candidate[V]]] = []
        for entry in self._entries:
            agreed, why = _compare(entry.segments, texts)
            if why is None:
                matching.append(entry)
            elif agreed:
                others.append((agreed, Candidate(join(entry.segments), entry.value, False, why)))
        others.sort(key=lambda other: (-other[0], other[1].name))
        return matching, [candidate for _, candidate in others]


class _Entry(NamedTuple, Generic[V]):
    segments: tuple[Segment, ...]
    value: V


class _Leaf(Generic[V]):
    """Where a name may end: the value, and at which depths its parameters stand."""

    __slots__ = ("_parameters", "_rest", "value")

    def __init__(self, value: V, segments: tuple[Segment, ...]) -> None:
        self.value = value
        places = list(enumerate(segments))
        self._parameters = tuple((segment.text, depth) for depth, segment in places if segment.kind == "parameter")
        self._rest = next(((segment.text, depth) for depth, segment in places if segment.kind == "rest"), None)

    def params(self, texts: list[str]) -> dict[str, str]:
        params = {name: texts[depth] for name, depth in self._parameters}
        if self._rest is not None:
            name, depth = self._rest
            params[name] = "/".join(texts[depth:])
        return params


class _Node(Generic[V]):
    """All names that begin alike. Its depth is the number of segments before it, so a search meets it at most once."""

    __slots__ = ("_leaf", "_literals", "_parameter", "_rest")

    def __init__(self) -> None:
        self._leaf: _Leaf[V] | None = None
        self._literals: dict[str, _Node[V]] = {}
        self._parameter: _Node[V] | None = None
        self._rest: _Leaf[V] | None = None

    def add(self, segments: tuple[Segment, ...], leaf: _Leaf[V]) -> None:
        node = self
        for segment in segments:
            if segment.kind == "rest":
                node._rest = _put(node._rest, leaf, segments)
                return
            node = node._child(segment)
        node._leaf = _put(node._leaf, leaf, segments)

    def _child(self, segment: Segment) -> _Node[V]:
        if segment.kind == "literal":
            return self._literals.setdefault(segment.text, _Node())
        if self._parameter is None:
            self._parameter = _Node()
        return self._parameter

    def find(self, texts: list[str], depth: int) -> _Leaf[V] | None:
        if depth == len(texts):
            return self._leaf
        literal = self._literals.get(texts[depth])
        if literal is not None and (leaf := literal.find(texts, depth + 1)) is not None:
            return leaf
        if self._parameter is not None and (leaf := self._parameter.find(texts, depth + 1)) is not None:
            return leaf
        return self._rest


def _put(taken: _Leaf[V] | None, leaf: _Leaf[V], segments: tuple[Segment, ...]) -> _Leaf[V]:
    if taken is not None:
        raise ValueError(f"two entries match {join(segments)!r}")
    return leaf


def _split(name: str) -> list[str]:
    return name.split("/" if "/" in name else ".")


def _refusal(texts: list[str]) -> str | None:
    """Why these texts are no name at all, if they are none."""
    if not all(texts):
        return "a segment is empty"
    if len(texts) > MAX_SEGMENTS:
        return f"more than {MAX_SEGMENTS} segments"
    try:
        size = len("/".join(texts).encode())
    except UnicodeEncodeError:
        return "half a surrogate pair is no text"
    return f"longer than {MAX_BYTES} bytes" if size > MAX_BYTES else None


def _compare(segments: tuple[Segment, ...], texts: list[str]) -> tuple[int, str | None]:
    """How many texts the segments take, and why they do not take the next one, if they do not take them all."""
    for depth, text in enumerate(texts):
        if depth == len(segments):
            return depth, f"it ends before {text!r}"
        segment = segments[depth]
        if segment.kind == "rest":
            break
        if segment.kind == "literal" and segment.text != text:
            return depth, f"segment {depth + 1} is {text!r}, not {segment.text!r}"
    else:
        for segment in segments[len(texts) :]:
            if segment.kind != "optional":
                return len(texts), f"it goes on with {segment}"
    return len(texts), None


def _ranked(matching: list[_Entry[V]], texts: list[str]) -> Iterator[Candidate[V]]:
    """The entries that match, the one that answers first, each with its reason."""
    winner: _Entry[V] | None = None
    for entry in sorted(matching, key=lambda entry: [_RANK[segment.kind] for segment in entry.segments]):
        winner = winner or entry
        answers = entry is winner
        why = _values(entry.segments, texts) if answers else _beaten(winner.segments, entry.segments)
        yield Candidate(join(entry.segments), entry.value, answers, why)


def _values(segments: Sequence[Segment], texts: list[str]) -> str:
    values = []
    for depth, segment in enumerate(segments):
        if segment.kind == "rest":
            values.append(f"{segment} is {'/'.join(texts[depth:])!r}")
        elif segment.kind != "literal":
            values.append(f"{segment} is {texts[depth]!r}" if depth < len(texts) else f"{segment} is left out")
    return ", ".join(values) or "every segment is literal"


def _beaten(winner: Sequence[Segment], loser: Sequence[Segment]) -> str:
    for depth, (better, worse) in enumerate(zip(winner, loser, strict=False), start=1):
        if _RANK[better.kind] < _RANK[worse.kind]:
            return f"at segment {depth} the {_WORD[better.kind]} {better} beats the {_WORD[worse.kind]} {worse}"
    raise AssertionError("entries of one shape were refused")


def _filled(segments: Sequence[Segment], texts: list[str]) -> Iterator[str]:
    for depth, segment in enumerate(segments):
        if segment.kind == "literal":
            yield segment.text
        elif segment.kind == "rest":
            yield from texts[depth:]
        else:
            yield from texts[depth : depth + 1]
