"""From the words of a command line to a server: which routes, which configuration, which root."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click

from raffel_core.config import FILE_NAME, Command, Config, load_config
from raffel_core.router import Router
from raffel_core.server import Server

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

routes_argument = click.argument("routes", required=False, metavar="[ROUTES]")
config_option = click.option(
    "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Instead of ./raffel.yaml."
)


def serving_options(function: F) -> F:
    """The options that `dev` and `serve` have in common."""
    port = click.option("--port", type=click.IntRange(0, 65535), help="The shared port; 0 picks a free one.")
    host = click.option("--host", metavar="HOST", help="The address to listen on.")
    return host(port(config_option(function)))


def open_server(
    routes: str | None,
    file: Path | None,
    flags: Mapping[str, object] | None = None,
    command: Command | None = None,
) -> Server:
    """A server with the project's routes, not loaded yet. Raises ProjectError where the configuration has problems.

    ROUTES as an argument starts at the working directory, `routes:` at its file's folder. The root is the folder of
    raffel.yaml, else the parent of ROUTES; for `module:attribute` the working directory.
    """
    config, sources, root = load_config(file, os.environ, flags or {}, command)
    development = command == "dev"
    has_file = file is not None or Path(FILE_NAME).exists()
    named = routes if routes is not None else config.routes
    if _ATTRIBUTE.fullmatch(named):
        given = {name for name, source in sources.items() if source != "default"}
        server = Server(config, root=root, development=development)
        server.include(named, override=given)
        return server
    folder = Path(os.path.abspath(named if routes is not None else root / named))
    server = Server(config, root=root if has_file else folder.parent, development=development)
    server.routes(folder)
    return server


def load_routes(routes: str | None, file: Path | None) -> tuple[Router, Config]:
    """The project's routes, none of them served, and its configuration. Raises ProjectError with every problem found.

    What modules print while they are imported goes to standard error: standard output has the command's answer alone.
    """
    with redirect_stdout(sys.stderr):
        server = open_server(routes, file)
        return server.load().router, server.config
