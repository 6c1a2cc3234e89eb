"""What a routes folder holds: paths and names, found without importing anything."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from raffel_core.conflict import RESERVED, Entry, conflicts
from raffel_core.discovery import naming
from raffel_core.errors import Problem
from raffel_core.pattern import IllegalName, Segment


class RouteFile(NamedTuple):
    """A route as its path tells it. `middleware` runs from the outermost folder in; `auth` is the nearest one."""

    path: Path
    name: str
    segments: tuple[Segment, ...]
    procedure: bool
    middleware: tuple[Path, ...]
    auth: Path | None

    @property
    def entry(self) -> Entry:
        """The route as `conflicts` wants it."""
        return Entry(self.name, self.segments, f"{shown(self.path)}:1", self.procedure)


class Scan(NamedTuple):
    """All routes with a legal name, sorted by name and path, and every problem, sorted by file."""

    routes: tuple[RouteFile, ...]
    app: Path | None
    problems: tuple[Problem, ...]
    helpers: tuple[Path, ...] = ()
    """Every `_middleware.py` and `_auth.py`, also where no route needs it."""


def scan(root: Path, reserved: Collection[str] = RESERVED) -> Scan:
    """What `walk` finds, and the conflicts of its routes."""
    found = walk(root)
    problems = [*found.problems, *conflicts((route.entry for route in found.routes), reserved)]
    return found._replace(problems=tuple(sorted(problems)))


def walk(root: Path) -> Scan:
    """Walk the routes folder. Problems are told, not raised; links to folders are followed, but never in a circle."""
    found = _Walk(root)
    if os.path.exists(root):
        found.enter(os.fspath(root), "", (), None, frozenset())
    else:
        found.problem(root, "no such folder", "a folder of routes")
    routes = sorted(found.routes, key=lambda route: (route.name, route.path))
    return Scan(tuple(routes), found.app, tuple(sorted(found.problems)), tuple(found.helpers))


def shown(path: Path) -> str:
    """The path as problems show it: relative to the working directory where it lies below, on one printable line."""
    absolute, here = path.absolute(), Path.cwd()
    text = str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
    return "".join(map(_printable, text))


class _Walk:
    """One walk through a routes folder, and what it has found."""

    __slots__ = ("app", "helpers", "problems", "root", "routes")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.app: Path | None = None
        self.helpers: list[Path] = []
        self.routes: list[RouteFile] = []
        self.problems: list[Problem] = []

    def enter(
        self,
        folder: str,
        inner: str,
        middleware: tuple[Path, ...],
        auth: Path | None,
        above: frozenset[tuple[int, int]],
    ) -> None:
        """Walks one folder; `inner` is its path below the root, empty or with a slash at its end."""
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                return
            with os.scandir(folder) as listing:
                entries = {entry.name: entry for entry in listing}
        except OSError as error:
            self.problem(Path(folder), f"cannot be read: {error.strerror}", "a folder")
            return
        middleware += self._helper(entries.get(naming.MIDDLEWARE))
        nearest = self._helper(entries.get(naming.AUTH))
        auth = nearest[0] if nearest else auth
        for name in sorted(entries):
            entry = entries[name]
            if not _is_folder(entry):
                self._file(entry, inner + name, middleware, auth)
            elif not naming.is_private(name):
                self.enter(entry.path, f"{inner}{name}/", middleware, auth, above | {identity})

    def _helper(self, entry: os.DirEntry[str] | None) -> tuple[Path, ...]:
        if entry is None or not self._loadable(entry):
            return ()
        self.helpers.append(Path(entry.path))
        return (self.helpers[-1],)

    def _file(self, entry: os.DirEntry[str], inner: str, middleware: tuple[Path, ...], auth: Path | None) -> None:
        if entry.name == naming.APP:
            self._found_app(entry, inner)
        try:
            named = naming.name_at(inner)
        except IllegalName as error:
            self.problem(Path(entry.path), error.found, error.expected)
            return
        if named is None:
            self._not_a_route(entry)
        elif self._loadable(entry):
            self.routes.append(RouteFile(Path(entry.path), *named, middleware, auth))

    def _loadable(self, entry: os.DirEntry[str]) -> bool:
        # A broken link must not silently leave a folder without its `_auth.py`, and opening a FIFO would wait for ever.
        loadable = os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
        if not loadable:
            found = f"{entry.name!r} is a folder, a broken link or a special file"
            self.problem(Path(entry.path), found, "a regular file")
        return loadable

    def _found_app(self, entry: os.DirEntry[str], inner: str) -> None:
        if inner == naming.APP:
            self.app = Path(entry.path) if self._loadable(entry) else None
        else:
            self.problem(Path(entry.path), f"{naming.APP} below the routes folder", f"it in {shown(self.root)} itself")

    def _not_a_route(self, entry: os.DirEntry[str]) -> None:
        meant = naming.meant(entry.name)
        if meant is not None:
            self.problem(Path(entry.path), f"{entry.name!r} is neither a route nor a helper", f"{meant!r}")

    def problem(self, path: Path, found: str, expected: str) -> None:
        self.problems.append(Problem(shown(path), 1, found, expected))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # Of a link in a circle `is_dir` raises; of everything else it asks the system nothing.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
