"""The command `raffel dev`: serve and reload on save."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path

import click

from raffel_cli import output
from raffel_cli.project import routes_argument, serving_options
from raffel_cli.running import run
from raffel_core.discovery.reload import Difference, saves
from raffel_core.errors import ProjectError
from raffel_core.route import Kind, Route
from raffel_core.server import Server


@click.command("dev")
@routes_argument
@serving_options
def dev_command(routes: str | None, file: Path | None, host: str | None, port: int | None) -> None:
    """Serve ROUTES on 127.0.0.1:3000, reloading on save.

    Connections stay open. Each reload is printed: routes added (+), changed (~) and removed (-), or what is wrong; then
    the old code goes on. Ctrl-C ends it within 2 s, a second one at once.

    \b
    Example:
      raffel dev routes --port 4000
    """
    run("dev", routes, file, {"host": host, "port": port}, _serve)


async def _serve(server: Server) -> None:
    """Says where the routes are, and reloads them whenever a file is saved."""
    watch = saves(server.watched, server.config.reload.debounce_ms)
    first = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)  # its first step begins to watch: no save is missed by whoever has read the lines below
    try:
        _announce(server)
        await _reload(server)  # what was saved while the server started
        await _reload(server, await first)
        async for saved in watch:
            await _reload(server, saved)
    except Exception as error:  # whatever the system's watch may raise: a folder that is gone, a limit that is reached
        output.error(f"saves are not noticed any more, restart to reload: {error}")


def _announce(server: Server) -> None:
    output.line(f"raffel dev at {server.url} (Ctrl-C ends)", "bold")
    for route in server.router.routes.values():
        if route.kind is Kind.UNARY:
            output.line(f"  POST {_url(server, route)}")
        elif route.kind is Kind.SERVER:
            output.line(f"  GET  {_url(server, route)}")
        else:
            output.line(f"  {route.kind.upper()} {route.name}")
    config = server.config
    base = config.base_path.rstrip("/")
    output.line(f"  all of them at {server.url.replace('http', 'ws', 1)}{base}{config.websocket.path}")
    if config.tcp:
        output.line(f"  and over TCP at {config.host}:{server.tcp_port}")
    if config.grpc:
        output.line(f"  and over gRPC at {config.host}:{server.grpc_port}")


def _url(server: Server, route: Route) -> str:
    base = server.config.base_path.rstrip("/") + ("/streams" if route.kind is Kind.SERVER else "")
    return "/".join([server.url + base, *map(str, route.segments)])


async def _reload(server: Server, saved: Collection[Path] = ()) -> None:
    started = time.perf_counter()
    try:
        changes = await server.reload(saved)
    except ProjectError as error:
        output.line("not reloaded, the old routes go on:", "yellow")
        output.problems(error.problems)
    except Exception as error:  # a lifespan is the user's code too, and a save may not end the server
        output.line(f"not reloaded, the old routes go on: {type(error).__name__}: {error}", "red")
    else:
        _report(changes, time.perf_counter() - started)


def _report(changes: Difference, seconds: float) -> None:
    if not any(changes):
        return
    names = [f"{sign} {name}" for sign, names in zip("+~-", changes, strict=True) for name in names]
    shown = [*names[:12], f"and {len(names) - 12} more"] if len(names) > 12 else names
    output.line(f"reloaded in {seconds * 1000:.0f} ms: {', '.join(shown)}", "green")
