"""The project's own modules: which of `sys.modules` they are, and importing anew those that changed."""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import sys
import sysconfig
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple, TypeAlias

from raffel_core import errors
from raffel_core.discovery.outline import imported, with_packages

ROUTES = "raffel_routes"
"""The package of names under which files of routes folders are loaded."""

_SETTLED_NS = 2_000_000_000
"""The coarsest file times in use are FAT's: two edits within them may leave the same time and size behind."""

_INSTALLED = ("site-packages", "dist-packages")
_RAFFEL = os.path.dirname(os.path.abspath(errors.__file__))
_FOREIGN = frozenset(
    {
        _RAFFEL,
        os.path.join(os.path.dirname(_RAFFEL), "raffel_cli"),
        *(os.path.abspath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")),
    }
)

_Stamp: TypeAlias = tuple[int, int, int]


class Version:
    """A source file as it was when it was read. Whether it changed is asked of its times and size, then of its text."""

    __slots__ = ("_digest", "_path", "_stamp")

    def __init__(self, path: str, stamp: _Stamp | None, data: bytes | None) -> None:
        self._path = path
        self._stamp = _settled(stamp)
        self._digest = None if data is None else hashlib.blake2b(data).digest()

    def changed(self, suspect: bool = False) -> bool:
        """Whether the file is another now. A suspect is read even where its times and size are the same."""
        stamp = _stamp(self._path)
        if stamp is None:
            return self._digest is not None
        if stamp == self._stamp and not suspect:
            return False
        try:
            now = read(self._path)[1]
        except OSError:
            return True
        if now._digest == self._digest:
            self._stamp = now._stamp
        return now._digest != self._digest


def read(path: str) -> tuple[bytes, Version]:
    """A file's text and its version. What is written meanwhile counts as a later change."""
    stamp = _stamp(path)
    with open(path, "rb") as file:
        data = file.read()
    return data, Version(path, stamp, data)


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _settled(stamp: _Stamp | None) -> _Stamp | None:
    """The stamp if another edit would change it; a file that was only just written is compared by its text."""
    return stamp if stamp is not None and time.time_ns() - stamp[0] > _SETTLED_NS else None


def spellings(paths: Iterable[Path]) -> Iterator[str]:
    """Each path as it was given and with its links resolved: a watcher may tell either."""
    for path in paths:
        yield os.path.abspath(path)
        yield os.path.realpath(path)


class _SourceLoader(SourceFileLoader):
    """Compiles from source, always: a bytecode file may be older than an edit of the same size in the same second."""

    version: Version | None = None
    imports: frozenset[str] = frozenset()

    def get_code(self, fullname: str) -> CodeType:
        data, self.version = read(self.path)
        tree = ast.parse(data, self.path)
        self.imports = _dependencies(tree, fullname, self.is_package(fullname))
        return compile(tree, self.path, "exec", dont_inherit=True)


def _dependencies(tree: ast.Module, name: str, is_package: bool) -> frozenset[str]:
    package = name if is_package else _package(name)
    return imported(tree, package) | frozenset(with_packages(_package(name)))


class _Known(NamedTuple):
    """A module of the project. A package without `__init__.py` is one that changes when it gets one."""

    module: ModuleType
    path: str
    version: Version
    imports: frozenset[str]


class _Package(NamedTuple):
    """A package and the names in it at one time."""

    module: ModuleType
    names: Mapping[str, object]


class ProjectModules:
    """The modules below `root`, in transactions: `begin`, imports, then `commit` or `rollback`.

    What lies in a virtual environment or among installed packages is not the project's, nor are Raffel, Python, the
    program itself (`__main__`) and the files of routes folders. No bytecode of the project is read or written.
    """

    __slots__ = ("_before", "_known", "_own", "_packages", "_path_before", "_roots", "_suspects", "root")

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._roots = frozenset(spellings([root]))
        self._own: dict[str, bool] = {}
        self._known: dict[str, _Known] = {}
        self._before: dict[str, ModuleType] | None = None
        self._packages: dict[str, _Package] = {}
        self._suspects: set[str] = set()
        self._path_before = os.fspath(self.root) in sys.path
        self._hook()

    def _hook(self) -> None:
        """Puts the root first on `sys.path`, and has what lies below it imported from source."""
        if self._finder in sys.path_hooks:
            return
        text = os.fspath(self.root)
        if text in sys.path:
            sys.path.remove(text)
        sys.path.insert(0, text)
        sys.path_hooks.insert(0, self._finder)
        self._forget_finders()

    def unhook(self) -> None:
        """Lets imports go their ordinary way again, until the next `begin`; what has been imported stays."""
        self._forget_finders()
        if self._finder in sys.path_hooks:
            sys.path_hooks.remove(self._finder)
            if not self._path_before and os.fspath(self.root) in sys.path:
                sys.path.remove(os.fspath(self.root))

    def owns(self, file: str) -> bool:
        """Whether a file, given by its absolute path, is the project's."""
        return self._owns_folder(os.path.dirname(file))

    def begin(self, touched: Collection[Path] = ()) -> frozenset[str]:
        """Takes out of `sys.modules` what changed, vanished or imports such a module; they are imported anew.

        Returns their names, with those of modules that appeared in `touched`. Running code keeps the old modules;
        only where it reaches one as an attribute of a package that stays (`package.module.x`) it misses it until it
        has been imported anew.
        """
        self.rollback()
        self._hook()
        importlib.invalidate_caches()
        self._suspects.update(spellings(touched))
        known = self._survey()
        self._before = {name: one.module for name, one in known.items()}
        self._packages = {name: _Package(module, vars(module).copy()) for name, module in _packages(known)}
        dirty = {name for name, one in known.items() if one.version.changed(one.path in self._suspects)}
        dirty |= self._appeared(known)
        _add_importers(dirty, known)
        taken = {name: sys.modules.pop(name) for name in dirty if name in known}
        for name, module in taken.items():
            _unbind(name, module)  # of a package that was taken out too nothing is: running code may be using it
        return frozenset(dirty)

    def commit(self) -> None:
        """Keeps what was imported since `begin`."""
        self._before = None
        self._packages.clear()
        self._suspects.clear()
        # What has been replaced must not outlive the code that runs on it.
        self._known = {name: one for name, one in self._known.items() if sys.modules.get(name) is one.module}

    def rollback(self) -> None:
        """Makes `sys.modules` and the packages' attributes what they were at `begin`; without effect after `commit`."""
        if self._before is None:
            return
        before, self._before = self._before, None
        new = [(name, module) for name, module in self._modules() if before.get(name) is not module]
        for name, _ in new:
            sys.modules.pop(name, None)
        sys.modules.update(before)
        for name, module in new:
            _unbind(name, module)
        for name in {*before, *(name for name, _ in new)}:
            package, child = self._packages.get(_package(name)), _child(name)
            if package is not None and child in package.names:
                setattr(package.module, child, package.names[child])
        self._packages.clear()

    def close(self) -> None:
        """Takes the project's modules out of `sys.modules`, and the root off `sys.path`."""
        self.rollback()
        for name in [name for name, _ in self._modules()]:
            _unbind(name, sys.modules.pop(name))
        self._known.clear()
        self._path_before = False
        self.unhook()

    # Which modules are the project's

    def _owns_folder(self, folder: str) -> bool:
        own = self._own.get(folder)
        if own is None:
            own = self._own[folder] = folder in self._roots or self._belongs(folder)
        return own

    def _belongs(self, folder: str) -> bool:
        above, name = os.path.split(folder)
        if above == folder or name in _INSTALLED or folder in _FOREIGN:
            return False
        return self._owns_folder(above) and not os.path.exists(os.path.join(folder, "pyvenv.cfg"))

    def _modules(self) -> Iterator[tuple[str, ModuleType]]:
        for name, module in sys.modules.copy().items():
            if self._path(name, module) is not None:
                yield name, module

    def _path(self, name: str, module: ModuleType) -> str | None:
        """The module's source file, or what would be it; None where the module is not the project's."""
        if name == "__main__" or name.startswith(f"{ROUTES}.") or not isinstance(module, ModuleType):
            return None
        names = vars(module)
        path = names.get("__file__") or _initial(names.get("__path__"))
        return path if isinstance(path, str) and path.endswith(".py") and self.owns(path) else None

    def _survey(self) -> dict[str, _Known]:
        before, self._known = self._known, {}
        for name, module in sys.modules.copy().items():
            known = before.get(name)
            if known is None or known.module is not module:
                known = self._recognise(name, module)
            if known is not None:
                self._known[name] = known
        return self._known

    def _recognise(self, name: str, module: ModuleType) -> _Known | None:
        path = self._path(name, module)
        if path is None:
            return None
        loader = getattr(module.__spec__, "loader", None)
        if isinstance(loader, _SourceLoader):
            # Without a version it is being imported by another thread at this moment.
            return _Known(module, path, loader.version, loader.imports) if loader.version else None
        try:
            data, version = read(path)
            tree = ast.parse(data, path)
        except OSError:
            return _Known(module, path, Version(path, None, None), frozenset(with_packages(_package(name))))
        except (SyntaxError, ValueError):
            tree = ast.Module([], [])  # it has changed since it was imported
        return _Known(module, path, version, _dependencies(tree, name, hasattr(module, "__path__")))

    def _appeared(self, known: Mapping[str, _Known]) -> set[str]:
        """The names of the touched files that are no imported modules yet."""
        paths = {one.path for one in known.values()}
        found = set()
        for path in self._suspects - paths:
            for entry in sys.path:
                if entry and path.startswith(os.path.join(entry, "")) and self.owns(path) and os.path.exists(path):
                    found.add(_module_name(os.path.relpath(path, entry)))
        return found - {""}

    # Importing them

    def _finder(self, path: str) -> FileFinder:
        """The entry in `sys.path_hooks`: folders of the project are imported from with `_SourceLoader`."""
        if not self._owns_folder(os.path.abspath(path)) or not os.path.isdir(path):
            raise ImportError("not a folder of the project", path=path)
        return FileFinder(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (_SourceLoader, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )

    def _forget_finders(self) -> None:
        for path in list(sys.path_importer_cache):
            if self._owns_folder(path):
                sys.path_importer_cache.pop(path, None)


def _add_importers(dirty: set[str], known: Mapping[str, _Known]) -> None:
    """Adds whatever imports one of these modules, also by way of others."""
    size = -1
    while dirty and len(dirty) != size:
        size = len(dirty)
        dirty.update(name for name, one in known.items() if not one.imports.isdisjoint(dirty))


def _unbind(name: str, module: ModuleType) -> None:
    """Takes a module off the package it lies in, from which it would be imported again as it is."""
    package = sys.modules.get(_package(name))
    if isinstance(package, ModuleType) and vars(package).get(_child(name)) is module:
        delattr(package, _child(name))


def _packages(names: Iterable[str]) -> Iterator[tuple[str, ModuleType]]:
    """The packages among these modules, and those that they lie in."""
    for name in {name for each in names for name in (each, _package(each))}:
        package = sys.modules.get(name)
        if isinstance(package, ModuleType) and "__path__" in vars(package):
            yield name, package


def _package(name: str) -> str:
    return name.rpartition(".")[0]


def _child(name: str) -> str:
    return name.rpartition(".")[2]


def _initial(folders: object) -> str | None:
    """The `__init__.py` that a package without one would have."""
    try:
        return os.path.join(next(iter(folders)), "__init__.py")  # type: ignore[call-overload]  # anything may be a `__path__`
    except Exception:
        return None


def _module_name(relative: str) -> str:
    """The dotted name of a source file; empty where it has none."""
    stem, suffix = os.path.splitext(relative)
    parts = stem.split(os.sep)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) if suffix == ".py" and all(map(str.isidentifier, parts)) else ""
