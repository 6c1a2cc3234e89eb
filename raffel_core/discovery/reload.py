"""Reload: what changed between two routers, and the watch that notices a save."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import NamedTuple

import watchfiles

from raffel_core.router import Router


class Difference(NamedTuple):
    """The names of routes that a reload added, changed and removed."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def difference(old: Router, new: Router) -> Difference:
    """An unchanged route is the same object in both."""
    before, after = old.routes, new.routes
    return Difference(
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and after[name] is not before[name]),
        removed=tuple(name for name in before if name not in after),
    )


class _Source(watchfiles.DefaultFilter):
    """Python files, and folders: of one that is moved nothing is told but its own name."""

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        name = os.path.basename(path)
        return (name.endswith(".py") or "." not in name) and super().__call__(change, path)


async def saves(folders: Collection[Path], debounce_ms: int) -> AsyncIterator[frozenset[Path]]:
    """The Python files, and folders that came or went, of each save.

    What comes in quick succession is one save, for at most `debounce_ms`.
    """
    step = max(1, min(10, debounce_ms))
    async for changes in watchfiles.awatch(
        *folders,
        watch_filter=_Source(),
        debounce=max(debounce_ms, step),
        step=step,
        rust_timeout=500,
    ):
        yield frozenset(Path(path) for _, path in changes)
