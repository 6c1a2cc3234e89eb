"""A folder of routes as Route objects: loaded once, and again as far as it changed."""

from __future__ import annotations

import ast
import inspect
import itertools
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import msgspec

from raffel_core.conflict import RESERVED, conflicts
from raffel_core.context import App, Auth, Context
from raffel_core.discovery.failure import failure
from raffel_core.discovery.modules import ROUTES, ProjectModules, Version, read, spellings
from raffel_core.discovery.naming import APP, AUTH, MIDDLEWARE
from raffel_core.discovery.outline import imported, outline, slips, with_packages
from raffel_core.discovery.scan import RouteFile, shown, walk
from raffel_core.errors import Problem
from raffel_core.interceptor import Interceptor
from raffel_core.route import (
    Authenticate,
    Origin,
    Route,
    Shape,
    fault_of,
    interceptor_fault,
    interceptor_problems,
    make_route,
)

_generations = itertools.count(1)  # of all folders: a generation's names are never used twice


class Staged(NamedTuple):
    """A folder as it would be after `commit`. With problems it must not be committed."""

    routes: tuple[Route, ...]
    lifespan: Callable[[App], AsyncIterator[None]] | None
    lifespan_changed: bool
    problems: list[Problem]


class _File(msgspec.Struct, frozen=True, eq=False):
    """One file of the folder, loaded; the same object as long as neither the file nor what it imports changes."""

    name: str
    module: ModuleType
    version: Version
    imports: frozenset[str]
    exports: Mapping[str, Any]
    """What it says to Raffel, by the names that Raffel reads; one meant to be such a name counts as that name."""
    origin: Origin


class _Made(NamedTuple):
    """A route and the files that it was made from: its own, its middleware and its authentication."""

    parts: tuple[_File | None, ...]
    route: Route


class _Generation:
    """What one load found: files and routes by path."""

    __slots__ = ("files", "lifespan", "number", "problems", "routes")

    def __init__(self, number: int) -> None:
        self.number = number
        self.files: dict[str, _File | None] = {}
        self.routes: dict[str, _Made] = {}
        self.lifespan: _File | None = None
        self.problems: list[Problem] = []


class FolderLoader:
    """Loads a folder of routes, in transactions: `load`, then `commit` or `rollback`.

    `interceptors` run before those of the folder. Loading runs user code, and may do so in a thread of its own.
    """

    __slots__ = ("_folder", "_interceptors", "_modules", "_now", "_reserved", "_staged", "_suspects")

    def __init__(
        self,
        folder: Path,
        modules: ProjectModules,
        reserved: Collection[str] = RESERVED,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._modules = modules
        self._reserved = reserved
        self._interceptors = tuple(interceptors)
        self._now = _Generation(0)
        self._staged: _Generation | None = None
        self._suspects: set[str] = set()

    def load(self, dirty: frozenset[str], touched: Collection[Path] = ()) -> Staged:
        """Loads what changed, what imports one of the `dirty` modules and what is new; tells every problem of it.

        Files whose times and sizes are the same are not read, unless they were touched. A route none of whose files
        was loaded anew is the same Route object. Conflicts between routes are looked for only where there are other
        problems: else the caller does so, who knows the routes of other places too.
        """
        self.rollback()
        self._suspects.update(spellings(touched))
        staged = self._staged = _Generation(next(_generations))
        found = walk(self._folder)
        staged.problems += found.problems
        for path in found.helpers:
            self._file(path, dirty)
        if found.app is not None:
            staged.lifespan = self._file(found.app, dirty)
        routes = [route for file in found.routes if (route := self._route(file, dirty)) is not None]
        if staged.problems:
            staged.problems += conflicts((file.entry for file in found.routes), self._reserved)
        lifespan = staged.lifespan.exports.get("lifespan") if staged.lifespan is not None else None
        return Staged(tuple(routes), lifespan, staged.lifespan is not self._now.lifespan, staged.problems)

    def commit(self) -> None:
        """Keeps what was loaded; modules that were replaced leave `sys.modules` and end with the code they run."""
        if self._staged is not None:
            before, self._now, self._staged = self._now, self._staged, None
            self._suspects.clear()
            _retire(before, self._now)

    def rollback(self) -> None:
        """Forgets what was loaded since `commit`."""
        if self._staged is not None:
            staged, self._staged = self._staged, None
            _retire(staged, self._now)

    def close(self) -> None:
        """Takes the folder's modules out of `sys.modules`."""
        self.rollback()
        before, self._now = self._now, _Generation(0)
        _retire(before, self._now)

    def _route(self, found: RouteFile, dirty: frozenset[str]) -> Route | None:
        """The route of a file: the one that there is, if it is made from the same parts."""
        assert self._staged is not None
        own = self._file(found.path, dirty)
        middleware = [self._file(path, dirty) for path in found.middleware]
        auth = self._file(found.auth, dirty) if found.auth is not None else None
        if own is None:
            return None
        parts = (own, *middleware, auth)
        made = self._now.routes.get(os.fspath(found.path))
        if made is None or made.parts != parts:
            route, problems = make_route(
                found.name,
                **{"handler": None, **own.exports},
                origin=own.origin,
                procedure=found.procedure,
                outer=[*self._interceptors, *(one for file in middleware if file for one in _interceptors(file))],
                authenticate=_authenticate(auth) if found.auth is not None else None,
                description=inspect.getdoc(own.module) or "",
            )
            self._staged.problems += problems
            if route is None:
                return None
            made = _Made(parts, route)
        self._staged.routes[os.fspath(found.path)] = made
        return made.route

    def _file(self, path: Path, dirty: frozenset[str]) -> _File | None:
        """The loaded file: as it is, or anew if it or what it imports changed; None if it cannot be loaded."""
        assert self._staged is not None
        text = os.fspath(path)
        if text not in self._staged.files:
            file = self._now.files.get(text)
            if file is None or file.version.changed(text in self._suspects) or not file.imports.isdisjoint(dirty):
                file = self._import(text)
            self._staged.files[text] = file
        return self._staged.files[text]

    def _import(self, path: str) -> _File | None:
        assert self._staged is not None
        relative = Path(path).relative_to(self._folder).with_suffix("")
        module = ModuleType(".".join((ROUTES, *relative.parts, f"g{self._staged.number}")))
        name, module.__file__, module.__package__ = module.__name__, path, ""
        sys.modules[name] = module  # annotations that are strings are resolved through it
        try:
            data, version = read(path)
            tree = ast.parse(data, path)
            exec(compile(tree, path, "exec", dont_inherit=True), vars(module))
        except BaseException as error:  # SystemExit too: it must not end the server
            _forget(name)
            if isinstance(error, KeyboardInterrupt):
                raise
            self._staged.problems.append(failure(error, path, self._modules.root, self._modules.owns))
            return None
        exports, origin, problems = _read_exports(module, tree, path)
        self._staged.problems += problems
        return _File(name, module, version, imported(tree), exports, origin)


# What the files of a folder export

_Check: TypeAlias = Callable[[Mapping[str, Any], Origin], list[Problem]]


def _read_exports(module: ModuleType, tree: ast.Module, path: str) -> tuple[dict[str, Any], Origin, list[Problem]]:
    """What a file exports, where, and what is wrong with it; a route's own problems are `make_route`'s."""
    names, check = _KINDS.get(os.path.basename(path), _ROUTE)
    found = outline(tree)
    lines = {part: line for part, line in found.lines.items() if part.partition(".")[0] in names}
    origin = Origin(shown(Path(path)), lines)
    exports = {name: value for name in names if (value := vars(module).get(name)) is not None}
    problems = []
    for written, meant, line in slips(tree, found, [name for name in names if name not in exports]):
        lines[meant] = line
        exports[meant] = vars(module).get(written)
        problems.append(origin.problem(meant, f"unknown export `{written}`", f"`{meant}`"))
    return exports, origin, problems or check(exports, origin)


def _middleware_problems(exports: Mapping[str, Any], origin: Origin) -> list[Problem]:
    function = "`async def middleware(call, call_next)`"
    if not exports:
        found = "neither `interceptors` nor `middleware`"
        return [origin.problem("", found, f"`interceptors = [...]` or {function}")]
    problems = interceptor_problems(exports.get("interceptors"), origin)
    fault = interceptor_fault(exports["middleware"]) if "middleware" in exports else ""
    return [*problems, *([origin.problem("middleware", f"`middleware` {fault}", function)] if fault else [])]


def _auth_problems(exports: Mapping[str, Any], origin: Origin) -> list[Problem]:
    expected = "`async def authenticate(ctx)`"
    if "authenticate" not in exports:
        return [origin.problem("", "no `authenticate`", expected)]
    fault = fault_of(exports["authenticate"], (Shape.COROUTINE,), 1)
    return [origin.problem("authenticate", f"`authenticate` {fault}", expected)] if fault else []


def _app_problems(exports: Mapping[str, Any], origin: Origin) -> list[Problem]:
    expected = "`async def lifespan(app)` with one `yield` and no decorator"
    if "lifespan" not in exports:
        return [origin.problem("", "no `lifespan`", expected)]
    fault = fault_of(exports["lifespan"], (Shape.ASYNC_GENERATOR,), 1)
    return [origin.problem("lifespan", f"`lifespan` {fault}", expected)] if fault else []


_ROUTE: tuple[tuple[str, ...], _Check] = (
    ("handler", "meta", "input_schema", "output_schema", "interceptors"),
    lambda exports, origin: [],
)
_KINDS: Mapping[str, tuple[tuple[str, ...], _Check]] = {
    MIDDLEWARE: (("interceptors", "middleware"), _middleware_problems),
    AUTH: (("authenticate",), _auth_problems),
    APP: (("lifespan",), _app_problems),
}


def _interceptors(middleware: _File) -> list[Interceptor]:
    listed = middleware.exports.get("interceptors")
    single = middleware.exports.get("middleware")
    return [*(listed if isinstance(listed, Sequence) else ()), *([single] if single is not None else ())]


def _authenticate(auth: _File | None) -> Authenticate:
    """The authentication of a file. Of one that has a problem: anything, so that the routes below it have none."""
    return auth.exports.get("authenticate", _nobody) if auth is not None else _nobody


async def _nobody(ctx: Context) -> Auth | None:
    return None


# The end of a generation


def _retire(leaving: _Generation, staying: _Generation) -> None:
    for path, file in leaving.files.items():
        if file is not None and staying.files.get(path) is not file:
            _forget(file.name)


def _forget(name: str) -> None:
    """Takes a module out of `sys.modules`, and its loggers out of `logging`, which would keep those of every load."""
    sys.modules.pop(name, None)
    loggers = logging.Logger.manager.loggerDict
    if name not in loggers:  # not even a placeholder above another logger
        return
    for gone in [known for known in loggers.copy() if f"{known}.".startswith(f"{name}.")]:
        logger = loggers.pop(gone)
        for above in map(loggers.get, with_packages(name)):
            if isinstance(above, logging.PlaceHolder) and isinstance(logger, logging.Logger):
                above.loggerMap.pop(logger, None)
