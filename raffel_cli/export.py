"""The command `raffel export`: what a project is to others, in a language of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from raffel_cli import output
from raffel_cli.project import config_option, load_project, methods_of, routes_argument
from raffel_core.errors import ProjectError
from raffel_core.protobuf.lock import LOCK_NAME, Lock, write_whole
from raffel_core.protobuf.text import proto_source
from raffel_core.route import Route
from raffel_core.server import Loaded, Server

KINDS = ("proto",)


class _Refused(Exception):
    """There is nothing to export, or no way to where it is wanted; the text says which."""


@click.command("export")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@routes_argument
@config_option
@click.option(
    "--output", "target", metavar="PATH", help="A file that ends in .proto, or a folder; else standard output."
)
@click.option(
    "--lock", "locking", is_flag=True, help=f"Write {LOCK_NAME}, which keeps the numbers of fields as they are."
)
@click.pass_context
def export_command(
    context: click.Context, kind: str, routes: str | None, file: Path | None, target: str | None, locking: bool
) -> None:
    """Write what clients are built from; KIND is proto.

    It has the messages and methods of gRPC, in one file a package. --output is a file where PATH ends in .proto, and
    may be one if there is one package; any other PATH is a folder, and each package gets its file below it.

    --lock writes proto.lock into the project's root, beside raffel.yaml: fields keep their numbers from then on, the
    numbers of those that go are reserved, and `raffel check` reports what breaks clients. Run it whenever clients get
    new sources, and keep the file under version control.

    \b
    Examples:
      raffel export proto
      raffel export proto routes --output proto/ --lock
    """
    try:
        server, loaded = load_project(routes, file)
        _export(server, loaded, target, locking)
    except ProjectError as error:
        output.problems(error.problems, "stderr")
        context.exit(1)
    except _Refused as error:
        output.error(str(error))
        context.exit(1)
    except OSError as error:
        output.error(f"cannot write {error.filename}: {error.strerror}")
        context.exit(1)


def _export(server: Server, loaded: Loaded, target: str | None, locking: bool) -> None:
    if not server.config.grpc:
        raise _Refused("found that gRPC is off, expected `grpc` in raffel.yaml not to be false")
    files = loaded.services.files
    if not files:
        raise _Refused("found no route that is a method of gRPC, expected at least one")
    lock = loaded.lock.merged(files)
    comments = {name: _comment(route) for name, route in methods_of(loaded.services).items()}
    sources = {one.name: proto_source(one, comments, lock.reserved) for one in files}
    written = {} if target is None else _placed(target, sources)
    if locking:
        written[server.root / LOCK_NAME] = lock.source
    write_whole(written)
    if target is None:
        output.line(_printed(sources))
    if locking:
        _tell(lock, loaded.lock)


def _comment(route: Route) -> str:
    meta = route.meta
    return "\n\n".join(text for text in dict.fromkeys((meta.summary, meta.description)) if text)


def _placed(target: str, sources: Mapping[str, str]) -> dict[Path, str]:
    """The files of an `--output`."""
    path = Path(target)
    if target.endswith(".proto") and not path.is_dir():
        if len(sources) > 1:
            found = f"found {len(sources)} packages for the one file {target}"
            raise _Refused(f"{found}, expected a folder, which gets {', '.join(sources)}")
        return dict.fromkeys([path], *sources.values())
    return {path / name: source for name, source in sources.items()}


def _printed(sources: Mapping[str, str]) -> str:
    """The sources one after the other, each of several under its file's name."""
    if len(sources) == 1:
        return "".join(sources.values()).rstrip("\n")
    return "\n".join(f"// {name}\n\n{source}" for name, source in sources.items()).rstrip("\n")


def _tell(lock: Lock, before: Lock) -> None:
    changes = [*lock.changes(before)] or ["nothing new"]
    for change in changes:
        click.echo(f"{LOCK_NAME}: {change}", err=True)
