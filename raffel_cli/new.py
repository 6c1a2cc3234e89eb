"""The command `raffel new`: a project that runs, from a folder of `templates/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from raffel_cli import output

NAME_IN_TEMPLATES = "PROJECT_NAME"
"""What stands in the files of a template where the project's name belongs."""

_LEGAL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DEFAULT = "minimal"


def _templates() -> Mapping[str, Traversable]:
    """The templates by name: of an installed Raffel beside this module, of a checkout beside its packages."""
    package = files("raffel_cli")
    folder = package / "templates"
    if not folder.is_dir():
        folder = Path(str(package)).parent / "templates"
    # A folder without a configuration is something else that is kept there.
    return {one.name: one for one in folder.iterdir() if (one / "raffel.yaml").is_file()} if folder.is_dir() else {}


TEMPLATES = _templates()


def _legal(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """The name, if packaging tools take it for a project's (PEP 508) and so every shell takes it for a folder's."""
    if not _LEGAL.fullmatch(name):
        raise click.BadParameter(
            f"found {name!r}, expected letters, digits, '.', '-' and '_', with a letter or a digit at both ends"
        )
    if name.lower() == "raffel":
        raise click.BadParameter(f"found {name!r}, expected another name: the project depends on the package raffel")
    return name


@click.command("new")
@click.argument("name", callback=_legal)
@click.option(
    "--template",
    type=click.Choice(sorted(TEMPLATES)),
    default=_DEFAULT,
    show_default=True,
    help="What the project starts with.",
)
@click.pass_context
def new_command(context: click.Context, name: str, template: str) -> None:
    """Make a project that runs and passes its own tests.

    It is put into the folder NAME, which must be new or empty.

    \b
    Example:
      raffel new hello && cd hello && raffel dev
    """
    folder = Path(name)
    try:
        if folder.is_dir() and any(folder.iterdir()):
            output.error(f"found files in {name}, expected a new folder or an empty one")
            context.exit(1)
        _copy(TEMPLATES[template], folder, name)
    except OSError as error:
        output.error(f"cannot make {error.filename or name}: {error.strerror}")
        context.exit(1)
    output.line(f"made {name} from the template {template}; next:", "green")
    for step in (f"cd {name}", "raffel dev", "pip install pytest && python -m pytest"):
        output.line(f"  {step}")


def _copy(template: Traversable, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    for source in _sources(template):
        target = folder / source.name
        if source.is_dir():
            _copy(source, target, name)
        else:
            target.write_bytes(source.read_bytes().replace(NAME_IN_TEMPLATES.encode(), name.encode()))


def _sources(folder: Traversable) -> Iterator[Traversable]:
    """What a template has, without what running it in place has left behind."""
    return (one for one in folder.iterdir() if one.name != ".pytest_cache" and one.name != "__pycache__")
