"""Finds nghttp2's clients, `nghttp` and `h2load`, for the tests of gRPC, and gets them where there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("nghttp", "h2load")


def installed() -> bool:
    return all(map(shutil.which, NAMES))


def install() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return  # only a distribution has them
    print("no nghttp2 found: installing the system's", flush=True)  # noqa: T201 - says what it installs
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    package = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "nghttp2-client"]
    subprocess.run(package, check=True, env=quiet)


if __name__ == "__main__":
    if not installed():
        install()
    if not installed():
        sys.exit("found no " + " or no ".join(NAMES) + ", expected the package nghttp2-client")
