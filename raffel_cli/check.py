"""The command `raffel check`: every problem of a project at once, for CI."""

from __future__ import annotations

from pathlib import Path

import click

from raffel_cli import output
from raffel_cli.project import config_option, load_project, methods_of, routes_argument
from raffel_core.errors import ProjectError


@click.command("check")
@routes_argument
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a list of objects, for a machine.")
@click.pass_context
def check_command(context: click.Context, routes: str | None, file: Path | None, as_json: bool) -> None:
    """Report every problem of a project at once, for CI.

    Loads the configuration and all of ROUTES and serves nothing: the code is imported, no handler or lifespan is run.
    Where there is a proto.lock, a change that breaks clients of gRPC is a problem too. The exit status is 1 if there is
    a problem.

    \b
    Example:
      raffel check routes --config deploy/raffel.yaml
    """
    try:
        _, loaded = load_project(routes, file)
        origins = {name: route.origin for name, route in methods_of(loaded.services).items()}
        if broken := loaded.lock.breaks(loaded.services.files, origins):
            raise ProjectError(broken)
        count = len(loaded.router.routes)
    except ProjectError as error:
        if as_json:
            output.json([problem._asdict() for problem in error.problems])
        else:
            output.problems(error.problems)
        context.exit(1)
    if as_json:
        output.json([])
    else:
        output.line("1 route is fine" if count == 1 else f"{count} routes are fine", "green")
