"""The command `raffel config`: each option in force and where its value came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from raffel_cli import output
from raffel_core.config import BY_COMMAND, in_force, load_config
from raffel_core.errors import ProjectError


@click.command("config")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Instead of ./raffel.yaml.")
@click.option("--check", is_flag=True, help="Print what is wrong, and no options.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, for a machine.")
@click.pass_context
def config_command(context: click.Context, file: Path | None, check: bool, as_json: bool) -> None:
    """Print each option in force and where its value came from.

    RAFFEL_* variables override the file, and the file the defaults; the flags of dev and serve override both. What is
    secret is shown as ***. If anything is wrong, all of it is printed and the exit status is 1.

    \b
    Example:
      RAFFEL_TCP__PORT=4000 raffel config --config deploy/raffel.yaml
    """
    try:
        config, sources, _ = load_config(file, os.environ, {})
    except ProjectError as error:
        if check and as_json:
            output.json([problem._asdict() for problem in error.problems])
        else:
            output.problems(error.problems, "stdout" if check else "stderr")
        context.exit(1)
    settings = [(option.name, option.shown(value), sources[option.name]) for option, value in in_force(config)]
    if as_json:
        output.json([] if check else [dict(zip(("name", "value", "source"), row, strict=True)) for row in settings])
    elif check:
        output.line("the configuration is fine", "green")
    else:
        rows = [(name, _described(name, value, source), source) for name, value, source in settings]
        output.table(("option", "value", "from"), rows)


def _described(name: str, value: Any, source: str) -> str:
    """The value in words; of a default that depends on the command, both."""
    if source == "default" and name in BY_COMMAND["dev"]:
        return ", ".join(f"{_text(defaults[name])} in {command}" for command, defaults in BY_COMMAND.items())
    return _text(value)


def _text(value: Any) -> str:
    """As in raffel.yaml."""
    return value if value and isinstance(value, str) else msgspec.json.encode(value).decode()
