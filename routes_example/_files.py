"""Files that may be served: those below one folder, found however their names are written."""

from pathlib import Path

from raffel_core import RaffelError


def inside(folder: Path, name: str) -> Path:
    """The regular file of this name below the folder. Whatever leads out of it (`..`, `/`, a link) is NOT_FOUND."""
    try:
        path = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing; links in a circle, until Python 3.13; a NUL
        path = folder
    if not path.is_relative_to(folder) or not path.is_file():
        raise RaffelError("NOT_FOUND", f"found no file {name!r} in the example's folder")
    return path
