"""Route names: what a segment may be, and how segments make a name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias
from unicodedata import category, normalize

MAX_BYTES = 512
"""A longer name, pattern or requested, is no name (in UTF-8, separators counted)."""
MAX_SEGMENTS = 64

Kind: TypeAlias = Literal["literal", "parameter", "rest", "optional"]
Shape: TypeAlias = tuple[str, ...]

_FORMS: tuple[tuple[str, str, Kind], ...] = (
    ("[[", "]]", "optional"),
    ("[...", "]", "rest"),
    ("[", "]", "parameter"),
)
# Every dot but the three that make a catch-all.
_DOT = re.compile(r"(?<!\[)(?<!\[\.)(?<!\[\.\.)\.")
_CHARACTERS = "letters, digits, '_' and '-'"
_BRACKETS = "[id], [...rest] or [[id]] as a whole segment"
_HINTS = {
    ".": f"{_CHARACTERS}, and a folder for each segment",
    "/": f"{_CHARACTERS}, and dots between segments",
    "(": "a group to be a folder, (name)",
    ")": "a group to be a folder, (name)",
    "[": _BRACKETS,
    "]": _BRACKETS,
}


class IllegalName(ValueError):
    """A text that is no route name. `found` and `expected` are the halves of a Problem."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found}; expected {expected}")
        self.found = found
        self.expected = expected


class Segment(NamedTuple):
    """One part of a route's name. `text` is a literal itself or a parameter's name; `str()` is how it is written."""

    text: str
    kind: Kind

    def __str__(self) -> str:
        for opening, closing, kind in _FORMS:
            if kind == self.kind:
                return f"{opening}{self.text}{closing}"
        return self.text


def parse_name(name: str) -> tuple[Segment, ...]:
    """The segments of a dotted name such as `rooms.[room].chat`, or IllegalName, a ValueError."""
    return parse_segments(_DOT.split(name))


def parse_segments(texts: Iterable[str]) -> tuple[Segment, ...]:
    """The segments of a name that is already split, or IllegalName. Letters become composed ones (NFC)."""
    segments = tuple(map(_parse_segment, texts))
    name = join(segments)
    size = len(name.encode())
    if size > MAX_BYTES:
        raise IllegalName(f"a name of {size} bytes", f"at most {MAX_BYTES}")
    if len(segments) > MAX_SEGMENTS:
        raise IllegalName(f"a name of {len(segments)} segments", f"at most {MAX_SEGMENTS}")
    for segment in segments[:-1]:
        if segment.kind in ("rest", "optional"):
            raise IllegalName(f"{segment} is not the last segment of {name!r}", "nothing after it")
    names = [segment.text for segment in segments if segment.kind != "literal"]
    for text in names:
        if names.count(text) > 1:
            raise IllegalName(f"two parameters of {name!r} are named {text!r}", "a name for each")
    return segments


def join(segments: Iterable[Segment]) -> str:
    """The dotted name of the segments, which `parse_name` takes apart again."""
    return ".".join(map(str, segments))


def alternatives(segments: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], ...]:
    """The segments without an optional part: with it left out, unless nothing is left then, and with it given."""
    *before, last = segments
    if last.kind != "optional":
        return (segments,)
    given = (*before, Segment(last.text, "parameter"))
    return (tuple(before), given) if before else (given,)


def shape(segments: Iterable[Segment]) -> Shape:
    """What the segments match, whatever their parameters are called: equal shapes match the same names."""
    return tuple(segment.text if segment.kind == "literal" else str(Segment("", segment.kind)) for segment in segments)


def _parse_segment(text: str) -> Segment:
    text = normalize("NFC", text)
    for opening, closing, kind in _FORMS:
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            _check(inner, text)
            return Segment(inner, kind)
    _check(text, text)
    return Segment(text, "literal")


def _check(text: str, written: str) -> None:
    if not text:
        raise IllegalName(f"the segment {written!r} is empty", _BRACKETS if written else _CHARACTERS)
    for character in text:
        if not _allowed(character):
            malformed = character == "." and written.startswith("[")
            expected = _BRACKETS if malformed else _HINTS.get(character, _CHARACTERS)
            raise IllegalName(f"the segment {written!r} contains {character!r}", expected)


def _allowed(character: str) -> bool:
    # Marks are part of letters in many scripts, also where no composed form exists.
    kind = category(character)
    return character in "_-" or kind[0] in "LM" or kind == "Nd"
