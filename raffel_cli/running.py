"""What `dev` and `serve` have in common: from the words of a command line to an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from raffel_cli import logs, output
from raffel_cli.project import open_server
from raffel_core import thread
from raffel_core.config import Command
from raffel_core.errors import ProjectError
from raffel_core.protocols.listener import CannotListen
from raffel_core.server import Server

Ready = Callable[[Server], Awaitable[None] | None]


def run(command: Command, routes: str | None, file: Path | None, flags: Mapping[str, object], ready: Ready) -> None:
    """Runs a server until it ends and exits: 0 when it was told to, 1 when the project or the address has a problem."""
    status = 1
    try:
        server = open_server(routes, file, flags, command)
        _log(command, server)
        status = _serve(command, server, ready)
    except ProjectError as error:
        output.problems(error.problems, "stderr")
    sys.stdout.flush()
    sys.stderr.flush()
    if thread.busy():
        os._exit(status)  # a plain handler still runs in its thread, which nothing can end
    sys.exit(status)


def _serve(command: Command, server: Server, ready: Ready) -> int:
    def listening() -> Awaitable[None] | None:
        _log(command, server)  # a server built in code brings a configuration of its own
        return ready(server)

    try:
        server.run(listening)
    except CannotListen as error:
        output.error(str(error.strerror))
        return 1
    return 0


def _log(command: Command, server: Server) -> None:
    wanted = server.config.log
    if wanted.format == "auto":
        logs.configure(wanted.level, "json" if command == "serve" else "text")
    else:
        logs.configure(wanted.level, wanted.format)
