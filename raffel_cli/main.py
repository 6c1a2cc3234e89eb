"""The command `raffel`."""

from __future__ import annotations

import click

from raffel_cli.check import check_command
from raffel_cli.config import config_command
from raffel_cli.dev import dev_command
from raffel_cli.export import export_command
from raffel_cli.new import new_command
from raffel_cli.routes import routes_command
from raffel_cli.serve import serve_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raffel")
def main() -> None:
    """Serve a folder of stream files: one handler, every protocol, one port.

    \b
    Example:
      raffel new hello && cd hello && raffel dev
    """


for command in (
    dev_command,
    serve_command,
    routes_command,
    check_command,
    new_command,
    export_command,
    config_command,
):
    main.add_command(command)
