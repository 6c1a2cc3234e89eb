"""Why a file did not load, told to the person who wrote it."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from raffel_core.discovery.modules import ROUTES
from raffel_core.discovery.scan import shown
from raffel_core.errors import Problem


def failure(error: BaseException, file: str, root: Path, own: Callable[[str], bool]) -> Problem:
    """The problem behind an exception that loading `file` raised: at the innermost line that is the project's own."""
    if (
        isinstance(error, SyntaxError)
        and error.filename is not None
        and (error.filename == file or own(error.filename))
    ):
        return Problem(shown(Path(error.filename)), error.lineno or 1, f"syntax error: {_text(error.msg)}", _VALID)
    place, line = file, 1
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == file or own(frame.f_code.co_filename):
            place, line = frame.f_code.co_filename, number
    return Problem(shown(Path(place)), line, *_halves(error, place, root))


_VALID = f"valid Python {sys.version_info.major}.{sys.version_info.minor}"


def _halves(error: BaseException, place: str, root: Path) -> tuple[str, str]:
    """What was found, and what was expected."""
    match error:
        case ModuleNotFoundError(name=str(name)) if not name.startswith(f"{ROUTES}"):
            return f"no module named {name!r}", _module(name, place, root)
        case ImportError() if "relative import" in str(error) or isinstance(error, ModuleNotFoundError):
            return "a relative import", "the whole name, from the project's root on"
        case ImportError(name=str(name)):
            return _text(error), _name(error, name)
        case SystemExit():
            return f"SystemExit({error.code!r}) while it was imported", "a module that only defines things"
    return f"{type(error).__name__}: {_text(error)}".rstrip(": "), "an import without an error"


def _module(name: str, place: str, root: Path) -> str:
    """What to import instead of a module that there is not."""
    beside = os.path.relpath(os.path.dirname(place) or root, root)
    package = ".".join(Path(beside).parts)
    if package and all(map(str.isidentifier, package.split("."))) and _exists(Path(place).parent, name):
        return f"the whole name, {f'{package}.{name}'!r}"
    above, _, last = name.rpartition(".")
    folder = root.joinpath(*above.split(".")) if above else root
    near = difflib.get_close_matches(last, set(_modules(folder)), 1)
    if not near and not above:
        near = difflib.get_close_matches(last, sys.stdlib_module_names, 1)
    if near:
        return repr(f"{above}.{near[0]}" if above else near[0])
    return "an installed module, or one below the project's root"


def _name(error: ImportError, module: str) -> str:
    """What to import instead of a name that a module does not have."""
    wanted = getattr(error, "name_from", None) or str(error).partition("'")[2].partition("'")[0]
    near = difflib.get_close_matches(wanted, vars(sys.modules[module]), 1) if module in sys.modules else []
    return repr(near[0]) if near else f"a name that {module} has by then"


def _exists(folder: Path, name: str) -> bool:
    return name.partition(".")[0] in _modules(folder)


def _modules(folder: Path) -> Iterator[str]:
    """The names of the modules in a folder; of one that cannot be read, none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        stem = name.removesuffix(".py")
        if stem.isidentifier() and (stem != name or os.path.isdir(folder / name)):
            yield stem


def _text(error: object) -> str:
    """What the error says, on one line; it may come from any code."""
    try:
        return " ".join(str(error).split())[:300]
    except Exception:
        return ""
