"""From the words of a command line to a server: which routes, which configuration, which root."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click

from raffel_core.config import FILE_NAME, Command, load_config
from raffel_core.errors import Problem, ProjectError
from raffel_core.protobuf.lock import LOCK_NAME, Lock
from raffel_core.protobuf.services import Services
from raffel_core.route import Route
from raffel_core.server import Loaded, Server

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


def load_project(routes: str | None, file: Path | None) -> tuple[Server, Loaded]:
    """The project's server and what it has loaded, none of it served. Raises ProjectError with every problem found.

    What modules print while they are imported goes to standard error: standard output has the command's answer alone.
    """
    with redirect_stdout(sys.stderr):
        server = open_server(routes, file)
        try:
            return server, server.load()
        except ProjectError as error:
            raise ProjectError([*error.problems, *_lock_problems(server)]) from error


def _lock_problems(server: Server) -> Sequence[Problem]:
    """What is wrong with the lock: a server whose routes do not load has not come to read it."""
    try:
        if server.config.grpc:
            Lock.read(server.root / LOCK_NAME)
    except ProjectError as error:
        return error.problems
    return ()


def methods_of(services: Services) -> Mapping[str, Route]:
    """The routes by the full names of their methods: `market.Prices.Watch` for the one at `/market.Prices/Watch`."""
    return {path[1:].replace("/", "."): method.route for path, method in services.methods.items()}
