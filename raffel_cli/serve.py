"""The command `raffel serve`: production."""

from __future__ import annotations

from pathlib import Path

import click

from raffel_cli import output
from raffel_cli.project import routes_argument, serving_options
from raffel_cli.running import run
from raffel_core.server import Server


@click.command("serve")
@routes_argument
@serving_options
def serve_command(routes: str | None, file: Path | None, host: str | None, port: int | None) -> None:
    """Serve ROUTES for production, all protocols on one port.

    That is 0.0.0.0:3000 unless configured. Logs are JSON, on standard error. SIGTERM drains: streams end over half of
    `drain_seconds`, what is left after all of it is cut; a second signal ends at once. SIGHUP loads the routes again.

    \b
    Example:
      raffel serve routes --port 8080
    """
    run("serve", routes, file, {"host": host, "port": port}, _ready)


def _ready(server: Server) -> None:
    output.line(f"serving {len(server.router.routes)} routes at {server.url}")
