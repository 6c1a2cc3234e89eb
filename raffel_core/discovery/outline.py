"""What a source file says before it runs: which names it binds, on which lines, and what it imports."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_NEAR = 0.85


class Outline(NamedTuple):
    """The names bound at the top level of a file."""

    lines: Mapping[str, int]
    """The line of each name, imported ones too, and of each key of a dict: `meta.tags`."""
    assigned: frozenset[str]
    scopes: frozenset[str]
    """The functions and classes that the file defines."""


def outline(tree: ast.Module) -> Outline:
    lines: dict[str, int] = {}
    assigned: set[str] = set()
    scopes: set[str] = set()
    for node in _statements(tree, inside=False):
        if isinstance(node, _SCOPES):
            lines[node.name] = node.lineno
            scopes.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            lines.update((alias.asname or alias.name, alias.lineno) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names = dict(_bound(target))
                assigned.update(names)
                lines.update(names)
                lines.update(_keys(target, node.value))
    return Outline(lines, frozenset(assigned), frozenset(scopes))


def slips(tree: ast.Module, found: Outline, absent: Collection[str]) -> Iterator[tuple[str, str, int]]:
    """Public names of the file that were meant to be an export that is absent: as written, as meant, and the line.

    A function or class that the file itself uses is no slip.
    """
    meant = {_plain(export): export for export in absent}
    for name in sorted(found.assigned | found.scopes):
        plain = _plain(name)
        near = [f"{plain}schema"] if plain in ("input", "output") else difflib.get_close_matches(plain, meant, 1, _NEAR)
        if name.startswith("_") or not near or near[0] not in meant:
            continue
        if name in found.assigned or not _uses(tree, name):
            yield name, meant[near[0]], found.lines[name]


def _uses(tree: ast.Module, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) for n in ast.walk(tree))


def imported(tree: ast.Module, package: str = "") -> frozenset[str]:
    """Every module that the file may import, also inside functions, with the packages around it.

    Of `from a import b` both `a` and `a.b` count: only running it tells whether `b` is a module.
    """
    names: set[str] = set()
    for node in _statements(tree, inside=True):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names.update(f"{base}.{alias.name}" for alias in node.names if base)
    return frozenset(around for name in names for around in with_packages(name))


def with_packages(name: str) -> Iterator[str]:
    """The module's name and those of the packages that it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module of `from module import`; empty where it lies beyond the topmost package."""
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    above = len(parts) - node.level + 1
    if above < 1:
        return ""
    return ".".join([*parts[:above], *([node.module] if node.module else [])])


def _statements(tree: ast.Module, *, inside: bool) -> Iterator[ast.AST]:
    """The statements in the order of their lines; those of functions and classes only if `inside`."""
    stack: list[ast.AST] = [tree]
    while stack:  # no recursion: an `elif` is nested in the one before it
        node = stack.pop()
        yield node
        if inside or not isinstance(node, _SCOPES):
            stack.extend([child for block in _BLOCKS for child in getattr(node, block, ())][::-1])


def _bound(target: ast.expr) -> Iterator[tuple[str, int]]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def _keys(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, int]]:
    """The lines of the keys in `x = {"key": ...}`, `x = dict(key=...)` and `x["key"] = ...`."""
    match target, value:
        case ast.Name(name), ast.Dict(keys):
            for key in keys:
                if isinstance(key, ast.Constant):
                    yield f"{name}.{key.value!s}", key.lineno
        case ast.Name(name), ast.Call(keywords=keywords):
            yield from ((f"{name}.{keyword.arg}", keyword.lineno) for keyword in keywords)
        case ast.Subscript(ast.Name(name), ast.Constant(key)), _:
            yield f"{name}.{key!s}", target.lineno


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
