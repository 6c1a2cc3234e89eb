"""The server: routes from files and from code, the listening port, reload, and the end of it all."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import gc
import importlib
import logging
import math
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from raffel_core.builder import RouteBuilder
from raffel_core.config import Config, in_force, overridden
from raffel_core.conflict import RESERVED
from raffel_core.context import App
from raffel_core.discovery.failure import failure
from raffel_core.discovery.load import FolderLoader
from raffel_core.discovery.modules import ProjectModules
from raffel_core.discovery.reload import Difference, difference
from raffel_core.errors import Problem, ProjectError
from raffel_core.interceptor import Interceptor
from raffel_core.lifespan import Lifespan, RunningLifespan
from raffel_core.protobuf.lock import LOCK_NAME, Lock
from raffel_core.protobuf.services import Services, services_of
from raffel_core.protocols.connection import Hub
from raffel_core.protocols.grpc import Grpc
from raffel_core.protocols.http import Http
from raffel_core.protocols.jsonrpc import JsonRpcCalls
from raffel_core.protocols.listener import BACKLOG, Listener, Served, listening_socket
from raffel_core.protocols.proxied import ProxiedListener
from raffel_core.protocols.tcp import TcpConnection
from raffel_core.protocols.websocket import WebSocketConnection
from raffel_core.registry import Registry
from raffel_core.route import Kind, Route
from raffel_core.router import InProcess, Router
from raffel_core.session import Session
from raffel_core.thread import alone

log = logging.getLogger("raffel")

DEV_DRAIN_SECONDS = 0.8
"""What a shutdown in development gives what is still open."""

CUT_SECONDS = 0.5
"""What handlers have for their `finally` blocks after the cut."""

CLEANUP_SECONDS = 0.3
"""What lifespans have at least for their cleaning up after the cut."""

LAST_SECONDS = 0.95
"""When, after the drain, a process that was told to end does so, whatever still runs in it."""

IDLE_OPTIONS = frozenset({"metrics.token", "topics.url"})
"""Options of the configuration that nothing reads yet."""

_POLL_SECONDS = 0.02

_OWN_ALPN: Mapping[str, tuple[str, ...]] = {"tcp": (), "grpc": ("h2",)}


class Loaded(NamedTuple):
    """A project as it has been loaded: what a server starts with, and what a reload brings."""

    router: Router
    lifespans: tuple[Lifespan, ...]
    services: Services
    """The routes as methods of gRPC; none where it is off."""
    lock: Lock
    """What clients of gRPC were built from; empty where nothing says so."""


class Server:
    """A server of streams and procedures.

    Routes come from `routes(folder)`, from `stream(name)` and `procedure(name)`, or from both. `root` is the folder
    whose modules routes may import; it is put on `sys.path`. With `development` errors tell their cause, only this
    machine's own names are answered, and a shutdown is quick.
    """

    def __init__(self, config: Config | None = None, *, root: Path | None = None, development: bool = False) -> None:
        self.config = config or Config()
        self.root = (root or Path.cwd()).absolute()
        self.development = development
        self._folders: list[Path] = []
        self._loaders: list[FolderLoader] = []
        self._modules: ProjectModules | None = None
        self._included: str | None = None
        self._source: Server = self
        self._overridden: frozenset[str] = frozenset()
        self._builders: list[RouteBuilder] = []
        self._built: dict[int, Route] = {}
        self._interceptors: list[Interceptor] = []
        self._services: Services | None = None
        self._lock = Lock()
        self._hub: Hub | None = None
        self._grpc: Grpc | None = None
        self._listeners: list[asyncio.Server | ProxiedListener] = []
        self._lifespans: list[RunningLifespan] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()
        self._stopping = False

    # Building

    def stream(self, name: str, **meta: Any) -> RouteBuilder:
        """A stream of this name; `meta` is what a route file's `meta` may say. Complete it with a handler."""
        return self._builder(name, meta, procedure=False)

    def procedure(self, name: str, **meta: Any) -> RouteBuilder:
        """A procedure of this name. Complete it with a handler."""
        return self._builder(name, meta, procedure=True)

    def _builder(self, name: str, meta: dict[str, Any], *, procedure: bool) -> RouteBuilder:
        builder = RouteBuilder(name, meta, procedure=procedure, depth=3)
        self._builders.append(builder)
        return builder

    def use(self, *interceptors: Interceptor) -> Server:
        """Adds interceptors around every route, the first one outermost."""
        self._interceptors.extend(interceptors)
        return self

    def routes(self, folder: str | os.PathLike[str]) -> Server:
        """Adds a folder of route files; a relative one starts at `root`."""
        self._folders.append(self.root / folder)
        return self

    def include(self, attribute: str, *, override: Collection[str] = ()) -> Server:
        """Serves the Server that `module:attribute` names, instead of routes of its own.

        Its configuration counts, but for the options (by dotted name) that `override` has.
        """
        self._included = attribute
        self._overridden = frozenset(override)
        return self

    @property
    def watched(self) -> tuple[Path, ...]:
        """The folders in which a save may change a route."""
        outside = [folder for folder in self._source._folders if not folder.is_relative_to(self.root)]
        return (self.root, *outside)

    # Loading

    def load(self, touched: Collection[Path] = ()) -> Loaded:
        """Loads all routes, again those whose files or imports changed. Raises ProjectError with every problem found.

        After an error everything is as it was before. It runs user code and may be called in a thread.
        """
        loaders: list[FolderLoader] = []
        modules = self._modules = self._modules or ProjectModules(self.root)
        dirty = modules.begin(touched)
        try:
            source = self if self._included is None else self._import(self._included, modules)
            loaders += source._folder_loaders(modules)
            staged = [loader.load(dirty, touched) for loader in loaders]
            problems = [problem for one in staged for problem in one.problems]
            registry = Registry(route for one in staged for route in one.routes)
            for route in source._build(problems):
                registry.add(route)
            problems += registry.problems(self._reserved())
            if problems:
                raise ProjectError(problems)
            router = registry.router()
            services, lock = self._methods(router)
        except BaseException:
            for loader in loaders:
                loader.rollback()
            modules.rollback()
            raise
        for loader in loaders:
            loader.commit()
        modules.commit()
        self._source, self._services, self._lock = source, services, lock
        lifespans = tuple(one.lifespan for one in staged if one.lifespan is not None)
        return Loaded(router, lifespans, services, lock)

    def _methods(self, router: Router) -> tuple[Services, Lock]:
        """The routes as methods of gRPC, their fields numbered by the lock. Those that did not change keep theirs."""
        grpc, lock = self.config.grpc, Lock()
        if grpc:
            lock = Lock.read(self.root / LOCK_NAME)
        if lock == self._lock:
            lock = self._lock  # equal numberings are then the same
        routes = router.routes.values() if grpc else ()
        services, problems = services_of(
            routes, package=grpc.package if grpc else "", numbering=lock.numbering, before=self._services
        )
        if problems:
            raise ProjectError(problems)
        return services, lock

    def _folder_loaders(self, modules: ProjectModules) -> list[FolderLoader]:
        self._loaders += [
            FolderLoader(folder, modules, reserved=self._reserved(), interceptors=self._interceptors)
            for folder in self._folders[len(self._loaders) :]
        ]
        return self._loaders

    def _build(self, problems: list[Problem]) -> list[Route]:
        """The routes defined in code. They are made once: a reload keeps them."""
        for number, builder in enumerate(self._builders):
            if number not in self._built:
                route, found = builder.build(self._interceptors)
                problems += found
                if route is not None:
                    self._built[number] = route
        return list(self._built.values())

    def _import(self, attribute: str, modules: ProjectModules) -> Server:
        """The Server that `module:attribute` names, imported anew where its module has changed."""
        module_name, _, name = attribute.partition(":")
        try:
            server = getattr(importlib.import_module(module_name), name, None)
        except (Exception, SystemExit) as error:
            problem = failure(error, attribute, self.root, modules.owns)
            raise ProjectError([problem._replace(line=0) if problem.file == attribute else problem]) from error
        if not isinstance(server, Server):
            found = (
                f"{module_name} has no {name!r}" if server is None else f"{name!r} is of type {type(server).__name__}"
            )
            raise ProjectError([Problem(attribute, 0, found, "a Server")])
        self.config = overridden(server.config, self.config, self._overridden)
        return server

    def _reserved(self) -> frozenset[str]:
        config = self.config
        own = [config.websocket.path, config.jsonrpc.path]
        own += [group.path for group in (config.docs, config.metrics) if group]
        return RESERVED | {path.strip("/").partition("/")[0] for path in own}

    # Running

    @property
    def port(self) -> int:
        """The port that is listened on; the configured one before that."""
        return self._port(0, self.config.port)

    @property
    def tcp_port(self) -> int:
        """The port on which TCP is served: the shared one, unless `tcp.port` gives it its own."""
        return self._own_port("tcp")

    @property
    def grpc_port(self) -> int:
        """The same of gRPC."""
        return self._own_port("grpc")

    def _own_port(self, protocol: str) -> int:
        own = self._own_ports()
        if protocol not in own:
            return self.port
        return self._port(1 + list(own).index(protocol), own[protocol])

    def _own_ports(self) -> dict[str, int]:
        """The protocols that do not use the shared port, in the order of their listeners."""
        groups = {"tcp": self.config.tcp, "grpc": self.config.grpc}
        return {name: group.port for name, group in groups.items() if group and group.port is not None}

    def _port(self, number: int, configured: int) -> int:
        sockets = self._listeners[number].sockets if self._listeners else ()
        return int(sockets[0].getsockname()[1]) if sockets else configured

    @property
    def url(self) -> str:
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'https' if self.config.tls.cert else 'http'}://{host}:{self.port}"

    @property
    def router(self) -> Router:
        """The routes that are being answered now."""
        if self._hub is None:
            raise RuntimeError("the server has not been started")
        return self._hub.router

    async def start(self) -> None:
        """Loads the routes, runs their lifespans and listens. Where it raises, nothing is left running."""
        if self._hub is not None:
            raise RuntimeError("the server has been started")
        loaded = self.load()
        self._limit_connections()
        self._tell_idle_options()
        app = App(debug=self.development)
        hub = Hub(self.config, loaded.router, app, development=self.development)
        app.calls = InProcess(lambda: hub.router)
        try:
            self._tls()  # a fault of it is told before anything runs
            self._lifespans = await self._started(loaded.lifespans, app)
            await self._listen(hub, loaded.services)
        except BaseException:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            await _stop_lifespans(self._lifespans, CLEANUP_SECONDS)
            raise
        self._hub, self._stopping = hub, False

    async def _listen(self, hub: Hub, services: Services) -> None:
        """Opens the shared port, and those of protocols that have one of their own."""
        config, own = self.config, self._own_ports()
        http = Http(hub, {config.websocket.path: WebSocketConnection}, {config.jsonrpc.path: JsonRpcCalls}).connection
        tcp = functools.partial(TcpConnection, hub) if config.tcp else None
        grpc = None
        if config.grpc:
            self._grpc = Grpc(hub, services, reflection=config.grpc.reflection)
            grpc = self._grpc.connection
        shared = Served(http, None if "tcp" in own else tcp, None if "grpc" in own else grpc)
        alpn = ("http/1.1", "h2") if shared.grpc is not None else ("http/1.1",)
        served: list[tuple[int, Served, tuple[str, ...]]] = [(config.port, shared, alpn)]
        for name, port in own.items():
            served.append((port, Served(tcp=tcp) if name == "tcp" else Served(grpc=grpc), _OWN_ALPN[name]))
        for port, what, offered in served:
            factory = functools.partial(Listener, hub, what)
            sock = listening_socket(config.host, port, config.limits)
            tls = self._tls(offered)
            if config.proxy_protocol:
                self._listeners.append(ProxiedListener(sock, hub, factory, tls, self._tls_options()))
                continue
            listener = await hub.loop.create_server(factory, sock=sock, backlog=BACKLOG, ssl=tls, **self._tls_options())
            self._listeners.append(listener)

    async def _started(self, lifespans: Sequence[Lifespan], app: App) -> list[RunningLifespan]:
        """Runs the lifespans as far as their `yield`. One that fails is a problem of the project, at its line."""
        try:
            return await _start_lifespans(lifespans, app)
        except Exception as error:
            assert self._modules is not None
            file = lifespans[0].__code__.co_filename if hasattr(lifespans[0], "__code__") else "lifespan"
            problem = failure(error, file, self.root, self._modules.owns)
            raise ProjectError([problem._replace(expected="a `lifespan` that gets as far as its `yield`")]) from error

    def _tls(self, protocols: Sequence[str] = ()) -> ssl.SSLContext | None:
        """The TLS of a port, which offers these protocols by ALPN (RFC 7301), the ones it likes better first."""
        tls = self.config.tls
        if tls.cert is None or tls.key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if protocols:
            context.set_alpn_protocols([*protocols])
        try:
            context.load_cert_chain(self.root / tls.cert, self.root / tls.key)
        except OSError as error:  # ssl.SSLError is one
            found = f"tls.cert {tls.cert!r} and tls.key {tls.key!r} cannot be loaded: {error.strerror or error}"
            raise ProjectError([Problem("tls", 0, found, "PEM files of a certificate chain and of its key")]) from error
        return context

    def _tls_options(self) -> dict[str, Any]:
        if self.config.tls.cert is None:
            return {}
        return {"ssl_handshake_timeout": self.config.limits.request_seconds, "ssl_shutdown_timeout": CUT_SECONDS}

    def _limit_connections(self) -> None:
        """Raises the limit of open files; where the hard one is too low for the connections, theirs is lowered."""
        try:
            import resource
        except ImportError:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        room = hard - 64  # for what is no connection
        limits = self.config.limits
        if hard != resource.RLIM_INFINITY and room < limits.connections:
            log.warning("found a limit of %d open files: the limit of connections is now %d", hard, room)
            self.config = msgspec.structs.replace(
                self.config, limits=msgspec.structs.replace(limits, connections=max(1, room))
            )

    def _tell_idle_options(self) -> None:
        """Says which options were set for what is not served, so that nobody relies on them."""
        for option, value in in_force(self.config):
            if option.name in IDLE_OPTIONS and value != option.default:
                log.warning("the option %s is set and has no effect: it belongs to what is not served yet", option.name)

    # Reloading

    async def reload(self, touched: Collection[Path] = ()) -> Difference:
        """Loads what changed and swaps it in: connections stay. A problem is a ProjectError and changes nothing."""
        async with self._reloading:
            hub = self._running()
            loaded = await alone(self.load, touched)
            self._running()
            app = hub.app
            # Not whether the load found them changed: those of the load before may have failed to start.
            if loaded.lifespans != tuple(one.lifespan for one in self._lifespans):
                app = App(debug=self.development)
                app.calls = hub.app.calls
                started = await self._started(loaded.lifespans, app)
                if self._stopping:
                    await _stop_lifespans(started, CLEANUP_SECONDS)
                    self._running()
                retired, self._lifespans = self._lifespans, started
                self._spawn(self._retire(hub, hub.app, retired))
            changes = difference(hub.router, loaded.router)
            before, hub.router, hub.app = hub.router, loaded.router, app
            if self._grpc is not None:
                self._grpc.services = loaded.services
            hub.announce()
            for session in list(hub.sessions):
                if session.route.name in before.routes:  # else it is the server's own
                    self._renew(session, loaded.router, app)
            return changes

    def _running(self) -> Hub:
        if self._hub is None or self._stopping:
            raise RuntimeError("the server is not running")
        return self._hub

    def _renew(self, session: Session, router: Router, app: App) -> None:
        """Puts one call on the new routes, as `reload.streams` says."""
        route = router.routes.get(session.route.name)
        policy = self.config.reload.streams or ("restart" if self.development else "finish")
        if session.route.kind is Kind.UNARY or (route is session.route and app is session.ctx.app):
            return
        if route is None or route.kind is not session.route.kind or policy == "end":
            session.cancel("reloaded")
        elif policy == "restart" and route.kind is Kind.SERVER:
            session.restart(route, app)

    async def _retire(self, hub: Hub, app: App, lifespans: list[RunningLifespan]) -> None:
        """Lets what an old `_app.py` set up clean up, once no call has it any more."""
        try:
            await _until(lambda: all(session.ctx.app is not app for session in hub.sessions))
        finally:
            await _stop_lifespans(lifespans, CLEANUP_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Stopping

    async def stop(self) -> None:
        """Drains and ends: not later than `drain_delay_seconds` + `drain_seconds` + 1, whatever is connected.

        The order: not ready, listeners closed, server streams ended one after the other over half of the time, then
        what is left is cut and named in the log, then the lifespans clean up.
        """
        hub, self._stopping = self._hub, True
        if hub is None:
            return
        delay, seconds = self._drain_times()
        hub.ready = False
        hub.announce()
        await asyncio.sleep(delay)  # of 0 too: those who watch are told before they are ended
        end = time.monotonic() + seconds
        hub.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(hub.connections):
            connection.drain()
        await self._drain_streams(hub, seconds / 2)
        await _until(lambda: not hub.connections and not hub.sessions, end)
        await self._cut(hub)
        for task in self._tasks:
            task.cancel()
        await _stop_lifespans(self._lifespans, max(CLEANUP_SECONDS, end - time.monotonic()))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEANUP_SECONDS)
        self._hub = None
        self._lifespans = []
        self._listeners.clear()
        for loader in self._source._loaders:
            loader.close()
        if self._modules is not None:
            self._modules.unhook()

    def _drain_times(self) -> tuple[float, float]:
        """For how many seconds a shutdown still accepts, and how many it then gives what is still open."""
        if self.development:
            return 0.0, min(self.config.drain_seconds, DEV_DRAIN_SECONDS)
        return self.config.drain_delay_seconds, self.config.drain_seconds

    async def _drain_streams(self, hub: Hub, seconds: float) -> None:
        """Ends the server streams one after the other, so that their clients do not come back in a herd."""
        streams = [session for session in hub.sessions if session.route.kind is Kind.SERVER]
        if streams:
            log.info("draining: %d streams end within %.1f s", len(streams), seconds)
        started = time.monotonic()
        for number, session in enumerate(streams, 1):
            session.cancel("server_draining")
            due = started + seconds * number / len(streams)
            if number < len(streams) and due - time.monotonic() > _POLL_SECONDS:
                await asyncio.sleep(due - time.monotonic())

    async def _cut(self, hub: Hub) -> None:
        for session in list(hub.sessions):
            log.warning("cut: %s of %s did not end in time", session.ctx.route, session.ctx.peer)
            session.cancel("server_draining")
        end = time.monotonic() + CUT_SECONDS
        await _until(lambda: not hub.sessions, end - CUT_SECONDS / 2)
        for connection in list(hub.connections):
            connection.abort()
        await _until(lambda: not hub.connections and not hub.sessions, end)
        for session in hub.sessions:
            log.error("abandoned: %s of %s does not end", session.ctx.route, session.ctx.peer)

    def run(self, ready: Callable[[], Awaitable[None] | None] | None = None) -> None:
        """Starts, serves until SIGINT or SIGTERM, and drains; a second signal ends the process at once.

        SIGHUP reloads. `ready` is called when connections are accepted; a coroutine runs until the server stops.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            _run(self._serve(ready))
        finally:
            faulthandler.cancel_dump_traceback_later()
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    async def _serve(self, ready: Callable[[], Awaitable[None] | None] | None) -> None:
        await self.start()
        # What has been loaded stays: a full collection that walks it all holds up every stream (500 routes: 100 ms).
        gc.collect()
        gc.freeze()
        ending = asyncio.Event()
        watch: asyncio.Future[None] | None = None
        try:
            self._heed_signals(ending)
            beside = None if ready is None else ready()
            watch = asyncio.ensure_future(beside) if beside is not None else None
            await ending.wait()
        finally:
            if watch is not None:
                watch.cancel()
            await self.stop()
            if watch is not None:
                await asyncio.wait([watch], timeout=0.1)

    def _heed_signals(self, ending: asyncio.Event) -> None:
        """Sets `ending` on SIGINT and SIGTERM.

        They are heard while a handler keeps the loop to itself too, and what still runs when the time is over does not
        keep the process: it ends, and the log says where each thread was.
        """
        loop, told = asyncio.get_running_loop(), False

        def end(number: int, frame: object) -> None:
            nonlocal told
            if told:
                os._exit(1)
            told = True
            loop.call_soon_threadsafe(ending.set)
            with contextlib.suppress(Exception):  # standard error may be no file: then nothing is said, or watched
                faulthandler.dump_traceback_later(sum(self._drain_times()) + LAST_SECONDS, exit=True)

        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGTERM, end)
        if self.development:
            signal.signal(signal.SIGHUP, end)  # the terminal has been closed
        else:
            loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_on_signal()))

    async def _reload_on_signal(self) -> None:
        try:
            changes = await self.reload()
        except ProjectError as error:
            for problem in error.problems:
                log.error("not reloaded: %s", problem)
        except Exception:
            log.exception("not reloaded")
        else:
            log.info("reloaded: %d added, %d changed, %d removed", *map(len, changes))


async def _start_lifespans(lifespans: Sequence[Lifespan], app: App) -> list[RunningLifespan]:
    running: list[RunningLifespan] = []
    try:
        for lifespan in lifespans:
            one = RunningLifespan(lifespan)
            await one.start(app)
            running.append(one)
    except BaseException:
        await _stop_lifespans(running, CLEANUP_SECONDS)
        raise
    return running


async def _stop_lifespans(lifespans: list[RunningLifespan], seconds: float) -> None:
    """Lets them clean up, the last one first, all within so many seconds."""
    end = time.monotonic() + seconds
    for lifespan in reversed(lifespans):
        try:
            await lifespan.stop(max(0.0, end - time.monotonic()))
        except TimeoutError:
            log.error("the cleaning up of `lifespan` took too long and was cancelled")
        except Exception:
            log.exception("the cleaning up of `lifespan` failed")


async def _until(condition: Callable[[], bool], end: float = math.inf) -> None:
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - at an end only: not worth an event each
        await asyncio.sleep(_POLL_SECONDS)


def _run(main: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
