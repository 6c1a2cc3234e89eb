"""The name of a route file: decided by its path below the routes folder alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import NamedTuple

from raffel_core.pattern import IllegalName, Segment, join, parse_segments

MIDDLEWARE, AUTH, APP = "_middleware.py", "_auth.py", "_app.py"

_STREAM, _PROCEDURE = ".stream.py", ".rpc.py"
_GROUP = re.compile(r"\([^()]+\)")


class RouteName(NamedTuple):
    """What a path says of its route. `procedure` is true for `.rpc.py`."""

    name: str
    segments: tuple[Segment, ...]
    procedure: bool


def is_private(name: str) -> bool:
    """Whether a file or folder of this name is no route, nor anything in it."""
    return name.startswith(("_", "."))


def route_name(relative: PurePath) -> RouteName | None:
    """The route at a path relative to the routes folder; None where there is none, IllegalName where it has no name."""
    return name_at(relative.as_posix())


@lru_cache(4096)  # a reload asks again for every file, and nothing but the path decides
def name_at(relative: str) -> RouteName | None:
    """`route_name` of a path written with slashes."""
    *folders, file = relative.split("/")
    if not file.endswith((_STREAM, _PROCEDURE)) or is_private(file) or any(map(is_private, folders)):
        return None
    segments = parse_segments(_texts(folders, file))
    if not segments:
        raise IllegalName("an index in the routes folder itself has no name", "index files in named folders")
    return RouteName(join(segments), segments, file.endswith(_PROCEDURE))


def meant(file_name: str) -> str | None:
    """What a file is called whose name is a slip of the pen: `tail.streams.py` was meant to be `tail.stream.py`."""
    stem, typed = "", file_name
    if not is_private(file_name):
        stem, *suffixes = file_name.rsplit(".", 2)
        typed = "".join(f".{suffix}" for suffix in suffixes)
    suggestion = _MEANT.get(typed.lower())
    return None if suggestion in (None, typed) else f"{stem}{suggestion}"


def _texts(folders: Sequence[str], file: str) -> Iterator[str]:
    for folder in folders:
        if not _GROUP.fullmatch(folder):
            yield folder
    stem = file.removesuffix(_PROCEDURE if file.endswith(_PROCEDURE) else _STREAM)
    if stem != "index":
        yield stem


def _slips(word: str) -> Iterator[str]:
    """The word itself (another case is a slip too), its plural, and one letter left out, doubled or swapped."""
    yield word
    yield word + "s"
    for at, letter in enumerate(word):
        yield word[:at] + word[at + 1 :]
        yield word[:at] + letter + word[at:]
        yield word[:at] + word[at + 1 : at + 2] + letter + word[at + 2 :]


_MEANT = {
    f"{mark}{slip}.py": f"{mark}{word}.py"
    for mark, words in ((".", ("stream", "rpc")), ("_", ("middleware", "auth", "app")))
    for word in words
    for slip in _slips(word)
}
