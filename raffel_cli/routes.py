"""The command `raffel routes`: all routes, or why one of them answers a name."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from raffel_cli import output
from raffel_cli.project import config_option, load_project, routes_argument
from raffel_core.config import Config
from raffel_core.errors import ProjectError
from raffel_core.protobuf.services import Services
from raffel_core.protocols.carried import carried_by
from raffel_core.route import Kind, Route
from raffel_core.router import Router
from raffel_core.server import Loaded


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A route as a machine reads it."""

    name: str
    kind: Kind
    direction: str
    input: str
    output: str
    protocols: tuple[str, ...]
    grpc: str | None
    """The path of its method, None where it has none."""
    auth: str | tuple[str, ...]
    """`none`, `required`, or the roles of which one is needed."""
    file: str
    line: int
    """Where its handler is."""
    summary: str
    description: str
    tags: list[str]
    deprecated: bool


class Considered(msgspec.Struct, frozen=True):
    """A route that was considered for a name."""

    name: str
    file: str
    answers: bool
    why: str


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Why a name is answered as it is."""

    name: str
    verdict: str
    route: str | None
    file: str | None
    parameters: dict[str, str]
    candidates: list[Considered]
    """The one that answers first, then those that lost, the nearest first."""
    near: tuple[str, ...]


@click.command("routes")
@routes_argument
@config_option
@click.option("--explain", "name", metavar="NAME", help="Say which file answers NAME and why.")
@click.option("--json", "as_json", is_flag=True, help="Print objects, for a machine.")
@click.pass_context
def routes_command(
    context: click.Context, routes: str | None, file: Path | None, name: str | None, as_json: bool
) -> None:
    """List the routes, or say which one answers a name.

    The list has their names, directions, types and protocols, their paths over gRPC, who may call them, and their
    files. With --explain: the file that answers NAME (a.b or a/b), with which parameters, and why no other does; if
    none does, the exit status is 1.

    \b
    Examples:
      raffel routes
      raffel routes --explain rooms.42.chat
    """
    try:
        server, loaded = load_project(routes, file)
    except ProjectError as error:
        output.problems(error.problems, "stderr")
        context.exit(1)
    if name is None:
        _list(loaded, server.config, as_json)
        return
    explained = _explain(loaded.router, name)
    if as_json:
        output.json(explained)
    else:
        _tell(explained)
    context.exit(0 if explained.route is not None else 1)


def _list(loaded: Loaded, config: Config, as_json: bool) -> None:
    listed = [_listed(route, config, loaded.services) for route in loaded.router.routes.values()]
    if as_json:
        output.json(listed)
    else:
        columns = ("name", "direction", "input", "output", "protocols", "grpc", "auth", "file")
        output.table(columns, [[_cell(getattr(route, column)) for column in columns] for route in listed])


def _listed(route: Route, config: Config, services: Services) -> Listed:
    meta, method = route.meta, services.by_route.get(route.name)
    return Listed(
        name=route.name,
        kind=route.kind,
        direction="procedure" if route.kind is Kind.UNARY else meta.direction,
        input=route.input.name,
        output=route.output.name,
        protocols=carried_by(route, config),
        grpc=None if method is None else method.path,
        auth="none" if route.authenticate is None else route.roles or "required",
        file=route.origin.file,
        line=route.origin.lines.get("handler", 1),
        summary=meta.summary,
        description=meta.description,
        tags=meta.tags,
        deprecated=meta.deprecated,
    )


def _cell(value: str | tuple[str, ...] | None) -> str:
    return value if isinstance(value, str) else ", ".join(value or ()) or "-"


def _explain(router: Router, name: str) -> Explained:
    verdict, candidates, near = router.explain(name)
    considered = [Considered(one.name, one.value.origin.file, one.answers, one.why) for one in candidates]
    winner = next((one for one in considered if one.answers), None)
    return Explained(
        name=name,
        verdict=verdict,
        route=winner.name if winner else None,
        file=winner.file if winner else None,
        parameters=router.find(name).params if winner else {},
        candidates=considered,
        near=near,
    )


def _tell(explained: Explained) -> None:
    answered = explained.route is not None
    where = f", in {explained.file}" if answered else ""
    output.line(f"{explained.name}: {explained.verdict}{where}", "bold" if answered else "bold red")
    for name, value in explained.parameters.items():
        output.line(f"  {name} = {value!r}")
    if explained.near:
        output.line(f"did you mean {' or '.join(explained.near)}?")
    if explained.candidates:
        output.line("")
        rows = [("yes" if one.answers else "no", one.name, one.why, one.file) for one in explained.candidates]
        output.table(("answers", "route", "why", "file"), rows)
