"""The configuration: every option declared once, and read from raffel.yaml, the environment and flags."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from difflib import get_close_matches
from functools import reduce
from ipaddress import ip_network
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec
import yaml
from msgspec import Meta, Struct, structs
from msgspec import inspect as shapes

from raffel_core.errors import Problem, ProjectError

# The types of options. Messages and the documentation read a constraint off its type; a pattern needs words.

Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86_400)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
Secret: TypeAlias = Annotated[Text, Meta(extra={"secret": True})]
Segment: TypeAlias = Annotated[
    str, Meta(pattern=r"^/[A-Za-z0-9._~-]+\Z", description="a path of one segment that starts with '/'")
]
BasePath: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^/([^/?#\s]+(/[^/?#\s]+)*)?\Z", description="a path that starts with '/' and does not end with one"),
]
HostName: TypeAlias = Annotated[str, Meta(pattern=r"^[^/\s]+\Z", description="a host name without scheme or path")]
Origin: TypeAlias = Annotated[
    str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)\Z", description="an origin like https://example.com, or *")
]
Package: TypeAlias = Annotated[
    str, Meta(pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?\Z", description="a package name like acme.v1, or nothing")
]
TopicUrl: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(memory|rediss?|nats)://",
        description="a URL that starts with memory://, redis://, rediss:// or nats://",
        extra={"secret": True},
    ),
]


class WebSocket(Struct, frozen=True, kw_only=True):
    path: Segment = "/ws"
    """Where WebSocket connections are upgraded, below `base_path`."""


class JsonRpc(Struct, frozen=True, kw_only=True):
    path: Segment = "/rpc"
    """Where JSON-RPC 2.0 is posted to, below `base_path`."""


class Tcp(Struct, frozen=True, kw_only=True):
    port: Port | None = None
    """The port of its own; null: the shared port, 0: a free one."""


class Grpc(Struct, frozen=True, kw_only=True):
    port: Port | None = None
    """The port of its own; null: the shared port, 0: a free one."""
    package: Package = ""
    """The protobuf package that all services are put below."""
    reflection: bool = True
    """Whether clients may ask for the services and their messages."""


class Docs(Struct, frozen=True, kw_only=True):
    path: Segment = "/docs"
    """Where the console and the documents are, below `base_path`."""


class Metrics(Struct, frozen=True, kw_only=True):
    path: Segment = "/metrics"
    """Where Prometheus scrapes, below `base_path`."""
    token: Secret | None = None
    """The bearer token that a scrape must show; null: none."""


class Tls(Struct, frozen=True, kw_only=True):
    cert: Text | None = None
    """The PEM file of the certificate chain, from the project's root; with `key`: TLS on every port."""
    key: Text | None = None
    """The PEM file of the private key, from the project's root."""


class Cors(Struct, frozen=True, kw_only=True):
    origins: tuple[Origin, ...] = ()
    """The foreign origins that browsers may call from; *: any, without credentials."""


class Usd(Struct, frozen=True, kw_only=True):
    info: Mapping[str, Any] = {}
    """The `info` of the USD document: title, version, description."""
    content_types: Mapping[str, Any] = {}
    """The content types of the USD document."""
    streams: Mapping[str, Any] = {}
    """What the USD document says of single streams, by name."""


class Limits(Struct, frozen=True, kw_only=True):
    message_bytes: Count = 1_048_576
    """The largest message or body, in bytes, on every protocol; one of exactly this size is accepted."""
    high_water_mark: Count = 16
    """How many items of a stream are queued while the connection cannot be written; then the handler waits."""
    streams_per_connection: Count = 100
    """How many streams and requests a connection may have open."""
    connections: Count = 10_000
    """How many connections a process accepts."""
    stall_seconds: Seconds = 30.0
    """After how many seconds a peer that takes nothing is cut."""
    request_seconds: Seconds = 10.0
    """Within how many seconds a request must be complete, the first and every later one."""


class Heartbeat(Struct, frozen=True, kw_only=True):
    sse: Seconds = 15.0
    """After how many seconds of silence a comment is sent on SSE, an empty line on NDJSON."""
    websocket: Seconds = 20.0
    """How many seconds lie between pings; a peer silent for as long again is cut."""


class Reload(Struct, frozen=True, kw_only=True):
    streams: Literal["restart", "finish", "end"] | None = None
    """What becomes of the streams of a changed route; null: restart in dev, finish in serve."""
    debounce_ms: Annotated[int, Meta(ge=0, le=60_000)] = 50
    """How many milliseconds without a further save pass before a reload."""


class Topics(Struct, frozen=True, kw_only=True):
    url: TopicUrl = "memory://"
    """The engine that carries topics between processes: memory://, redis://..., nats://..."""
    history: Count = 1_000
    """How many messages of a topic are kept for those who resume."""


class Log(Struct, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is logged."""
    format: Literal["auto", "json", "text"] = "auto"
    """How a line is written; auto: text in dev, JSON in serve."""


class Config(Struct, frozen=True, kw_only=True):
    """All options with their defaults. Sizes are in bytes and times in seconds, unless the name says otherwise.

    One built in code is taken as it is; `load_config` checks what it reads.
    """

    routes: Text = "routes"
    """The folder of routes, from the project's root, or `module:attribute` naming a Server."""
    host: HostName = "0.0.0.0"
    """The address that is listened on; in dev the default is 127.0.0.1."""
    port: Port = 3000
    """The shared port of all protocols; 0: a free one."""
    base_path: BasePath = "/"
    """The path that all HTTP paths are below."""
    allowed_hosts: tuple[HostName, ...] = ()
    """The Host headers that are answered; none: any in serve, this machine's in dev."""
    trusted_proxies: tuple[Text, ...] = ()
    """The addresses and networks whose X-Forwarded-* headers are believed."""
    proxy_protocol: bool = False
    """Whether every connection starts with a PROXY protocol header."""
    websocket: WebSocket = WebSocket()
    jsonrpc: JsonRpc = JsonRpc()
    tcp: Tcp | Literal[False] = Tcp()
    """Length-prefixed envelopes; false: off."""
    grpc: Grpc | Literal[False] = Grpc()
    """gRPC with health and reflection; false: off."""
    docs: Docs | Literal[False] | None = None
    """The console and the documents; false: off, null: on in dev, off in serve."""
    metrics: Metrics | Literal[False] = Metrics()
    """Metrics for Prometheus; false: off."""
    tls: Tls = Tls()
    cors: Cors = Cors()
    usd: Usd = Usd()
    limits: Limits = Limits()
    drain_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """How many seconds a shutdown gives what is still open; then it is cut."""
    drain_delay_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """For how many seconds a shutdown says not ready and still accepts, for load balancers to notice."""
    heartbeat_seconds: Heartbeat = Heartbeat()
    reload: Reload = Reload()
    topics: Topics = Topics()
    log: Log = Log()


Command: TypeAlias = Literal["dev", "serve"]

BY_COMMAND: Mapping[Command, Mapping[str, Any]] = {
    "dev": {"host": "127.0.0.1", "docs": True, "reload.streams": "restart"},
    "serve": {"host": "0.0.0.0", "docs": False, "reload.streams": "finish"},
}
"""The defaults that depend on the command."""

FILE_NAME = "raffel.yaml"
PREFIX = "RAFFEL_"
MAX_NODES = 100_000
NULL = "tag:yaml.org,2002:null"
RESERVED_PATHS = ("/streams", "/health")


class Option(NamedTuple):
    """One option, as files, the environment, flags and the documentation see it.

    A group that can be switched off is an option as well: whether it is on, beside the options in it.
    """

    name: str
    """Dotted: `tcp.port`."""
    type: Any
    default: Any
    expects: str
    """The type in words."""
    declared: tuple[str, str]
    """The names of the class and of the field."""

    @property
    def variable(self) -> str:
        return PREFIX + self.name.replace(".", "__").upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-")

    def shown(self, value: Any) -> Any:
        """The value, with *** for what is secret in it."""
        secret = any(isinstance(kind, shapes.Metadata) and kind.extra for kind in _kinds(self.type))
        if value is None or not secret:
            return value
        return _without_credentials(value) if isinstance(value, str) and "://" in value else "***"


def _options(group: type[Struct], prefix: str = "") -> Iterator[Option]:
    for field in structs.fields(group):
        name, declared = prefix + field.name, (group.__name__, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        inner = _group_in(field.type)
        if inner is None:
            yield Option(name, field.type, default, _expectation(field.type), declared)
            continue
        if inner is not field.type:
            switch: Any = bool if default is not None else bool | None
            yield Option(name, switch, default and True, f"a mapping, or {_expectation(switch)}", declared)
        yield from _options(inner, name + ".")


def _group_in(declared: Any) -> type[Struct] | None:
    """The Struct of a field that is a group, or a group that can be switched off."""
    candidates = (declared, *get_args(declared))
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Struct)), None)


def _kinds(declared: Any) -> tuple[shapes.Type, ...]:
    """The members of a union, or the one type."""
    kind = shapes.type_info(declared)
    return kind.types if isinstance(kind, shapes.UnionType) else (kind,)


def _expectation(declared: Any) -> str:
    return " or ".join(sorted(map(_in_words, _kinds(declared)), key="null".__ne__))


def _in_words(kind: shapes.Type) -> str:
    match kind:
        case shapes.Metadata(extra_json_schema={"description": str(words)}):
            return words
        case shapes.Metadata(type=inner):
            return _in_words(inner)
        case shapes.IntType(ge=low, le=high):
            return f"an integer from {low} to {high}"
        case shapes.FloatType(gt=None, ge=low, le=high):
            return f"a number from {low} to {high}"
        case shapes.FloatType(gt=low, le=high):
            return f"a number above {low}, up to {high}"
        case shapes.LiteralType(values=values):
            return " or ".join(map(str, values))
        case shapes.VarTupleType(item_type=item):
            return f"a list, each {_in_words(item)}"
        case shapes.DictType():
            return "a mapping with strings as keys"
        case shapes.BoolType():
            return "true or false"
        case shapes.NoneType():
            return "null"
    raise TypeError(f"no words for {kind}")


OPTIONS: Mapping[str, Option] = {option.name: option for option in _options(Config)}
"""All options by name, in the order of declaration."""


class Row(NamedTuple):
    """An option in the documentation."""

    name: str
    type: str
    default: Any
    doc: str


def describe() -> list[Row]:
    """Every option for the documentation, in the order of declaration. Needs the source of this module."""
    docs = _docstrings(inspect.getsource(sys.modules[__name__]))
    return [Row(option.name, option.expects, option.default, docs[option.declared]) for option in OPTIONS.values()]


def _docstrings(source: str) -> dict[tuple[str, str], str]:
    """The string below each field, by the names of the class and of the field."""
    texts = {}
    for definition in ast.parse(source).body:
        if isinstance(definition, ast.ClassDef):
            for field, text in pairwise(definition.body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                        texts[definition.name, name] = words
    return texts


def in_force(config: Config) -> Iterator[tuple[Option, Any]]:
    """Each option with its value, in the order of declaration, without those of a group that is off."""
    for option in OPTIONS.values():
        *above, last = option.name.split(".")
        group = reduce(getattr, above, config)
        if isinstance(group, Struct):
            value = getattr(group, last)
            yield option, isinstance(value, Struct) or value


def overridden(weak: Config, strong: Config, names: Collection[str]) -> Config:
    """`weak` with what `strong` has for these options and, where `weak` has the default, for those by command."""
    values = {option.name: option.default for option in OPTIONS.values()}
    values |= {option.name: value for option, value in in_force(weak)}
    by_command = (name for name in BY_COMMAND["dev"] if values.get(name) == OPTIONS[name].default)
    chosen = {*names, *by_command}
    return _build(Config, values | {option.name: value for option, value in in_force(strong) if option.name in chosen})  # type: ignore[no-any-return]  # it builds what it is given


class Loaded(NamedTuple):
    """A configuration and where it came from."""

    config: Config
    sources: dict[str, str]
    """By the option's name: `default`, `raffel.yaml:12`, `RAFFEL_PORT` or `--port`."""
    root: Path
    """The folder of the file, or the working directory where there is none; relative paths start here."""


def load_config(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object], command: Command | None = None
) -> Loaded:
    """The configuration in force: flags over RAFFEL_* variables over the file over the defaults (those of `command`).

    A `file` that is given must exist; None is raffel.yaml of the working directory, if there is one. `flags` are by
    name, and one that is None was not given. Where a source says `false` of a group, a stronger one that sets an option
    of the group turns it on again. Raises ProjectError with every problem of every source; of a problem with a
    variable or a flag, `file` is its name and `line` is 0.
    """
    settings = _Settings()
    if command is not None:
        settings.values |= BY_COMMAND[command]
    path = Path(FILE_NAME) if file is None else file
    if file is not None or path.exists():
        _FileReader(path, settings).read()
    _read_environ(environ, settings)
    _read_flags(flags, settings)
    config = _build(Config, settings.values)
    for contradiction in _contradictions(config):
        settings.refuse_together(contradiction)
    if settings.problems:
        raise ProjectError(settings.problems)
    sources = {name: str(settings.places.get(name, "default")) for name in OPTIONS}
    # Not resolve(): a file mounted as a link belongs to the folder where it appears.
    return Loaded(config, sources, Path(os.path.abspath(path)).parent)


class _Place(NamedTuple):
    """Where an option was set, or something is wrong."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class _Settings:
    """What the sources have said so far, the weakest first, and everything that is wrong with it."""

    __slots__ = ("places", "problems", "values", "wrong")

    def __init__(self) -> None:
        self.values = {option.name: copy(option.default) for option in OPTIONS.values()}
        self.places: dict[str, _Place] = {}
        self.problems: list[Problem] = []
        self.wrong: set[str] = set()

    def set(self, name: str, value: object, place: _Place, *, strict: bool = True) -> None:
        option = OPTIONS[name]
        try:
            self.values[name] = msgspec.convert(value, option.type, strict=strict)
        except msgspec.ValidationError:
            self.wrong.add(name)
            self.refuse(place, f"{name} is {_quoted(option.shown(value))}", option.expects)
            return
        self.places[name] = place
        group = name.rpartition(".")[0]
        if group in OPTIONS and self.values[group] is not True:
            self.set(group, True, place)

    def refuse(self, place: _Place, found: str, expected: str) -> None:
        self.problems.append(Problem(place.file, place.line, found, expected))

    def refuse_together(self, these: _Contradiction) -> None:
        """Refuses at the first of the options that was set, unless one is wrong already, which may be the cause."""
        if self.wrong.isdisjoint(these.names):
            place = next(self.places[name] for name in these.names if name in self.places)
            self.refuse(place, these.found, these.expected)


def _build(group: type[Struct], values: Mapping[str, Any], prefix: str = "") -> Any:
    fields = {}
    for field in structs.fields(group):
        name = prefix + field.name
        inner = _group_in(field.type)
        value = values.get(name, True)
        fields[field.name] = _build(inner, values, name + ".") if inner is not None and value is True else value
    return group(**fields)


class _Contradiction(NamedTuple):
    """Options that are fine alone but not together."""

    names: tuple[str, ...]
    found: str
    expected: str


def _contradictions(config: Config) -> Iterator[_Contradiction]:
    cert, key = config.tls.cert, config.tls.key
    if (cert is None) != (key is None):
        found = "tls.cert without tls.key" if cert else "tls.key without tls.cert"
        yield _Contradiction(("tls.cert", "tls.key"), found, "both or none")
    for entry in config.trusted_proxies:
        if not _is_network(entry):
            expected = "an address or a network like 10.0.0.0/8"
            yield _Contradiction(("trusted_proxies",), f"trusted_proxies has {_quoted(entry)}", expected)
    paths = {"websocket.path": config.websocket.path, "jsonrpc.path": config.jsonrpc.path}
    if config.docs is not False:
        paths["docs.path"] = (config.docs or Docs()).path
    if config.metrics:
        paths["metrics.path"] = config.metrics.path
    for name, path in paths.items():
        if path in RESERVED_PATHS:
            yield _Contradiction((name,), f"{name} is {path}, which the server uses itself", "another path")
    yield from _same(paths, "paths that differ")
    ports = {"port": config.port}
    if config.tcp and config.tcp.port:
        ports["tcp.port"] = config.tcp.port
    if config.grpc and config.grpc.port:
        ports["grpc.port"] = config.grpc.port
    yield from _same(ports, "ports that differ, or null for the shared port")


def _same(values: Mapping[str, object], expected: str) -> Iterator[_Contradiction]:
    for (one, value), (other, same) in combinations(values.items(), 2):
        if value == same:
            yield _Contradiction((other, one), f"{one} and {other} are both {value}", expected)


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _read_environ(environ: Mapping[str, str], settings: _Settings) -> None:
    known = {option.variable.removeprefix(PREFIX): option for option in OPTIONS.values()}
    # Backwards, so that RAFFEL_TCP comes after RAFFEL_TCP__PORT: within one source `false` has the last word.
    for variable in sorted((name for name in environ if name.startswith(PREFIX)), reverse=True):
        name, place = variable.removeprefix(PREFIX), _Place(variable)
        if option := known.get(name):
            settings.set(option.name, _parsed(environ[variable], option), place, strict=False)
        else:
            near = _nearest(name, known)
            expected = PREFIX + near if near else f"an option's name, as {PREFIX}TCP__PORT is for tcp.port"
            settings.refuse(place, "unknown variable", expected)


def _parsed(text: str, option: Option) -> object:
    """What a variable says, as far as conversion to the option's type does not see to it."""
    kinds = _kinds(option.type)
    if text in ("", "null") and any(isinstance(kind, shapes.NoneType) for kind in kinds):
        return None
    match kinds[0]:
        case shapes.VarTupleType():
            return [part.strip() for part in text.split(",") if part.strip()]
        case shapes.DictType():
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(text)
    return text


def _read_flags(flags: Mapping[str, object], settings: _Settings) -> None:
    for name in sorted(flags, reverse=True):
        if flags[name] is not None:
            settings.set(name, flags[name], _Place(OPTIONS[name].flag))


class _FileReader:
    """Reads a YAML file node by node: a node knows its line, and a mapping's node keeps a key that is given twice."""

    __slots__ = ("_loader", "_name", "_path", "_settings", "_weights")

    def __init__(self, path: Path, settings: _Settings) -> None:
        here = Path.cwd()
        self._path = path
        full = Path(os.path.abspath(path))
        self._name = str(full.relative_to(here) if full.is_relative_to(here) else full)
        self._settings = settings
        self._weights: dict[int, int] = {}

    def read(self) -> None:
        try:
            text = self._path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            self._refuse(0, f"cannot be read ({error.strerror})", "a YAML file")
        except UnicodeDecodeError as error:
            self._refuse(error.object.count(b"\n", 0, error.start) + 1, "bytes that are not UTF-8", "text in UTF-8")
        else:
            self._read_text(text)

    def _read_text(self, text: str) -> None:
        try:
            self._loader = yaml.SafeLoader(text)
            root = self._loader.get_single_node()
            if isinstance(root, yaml.MappingNode):
                if self._sound(root):
                    self._read_group(Config, root, "")
            elif root is not None and root.tag != NULL:
                self._refuse(_line(root), f"{_written(root)} alone", "a mapping of options")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._refuse(line, f"the character U+{error.character:04X}", "characters that YAML allows")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(mark.line + 1 if mark else 1, str(error.problem or error.context), "YAML")
        except RecursionError:
            self._refuse(1, "lists or mappings nested too deeply", "a few levels")

    def _sound(self, root: yaml.MappingNode) -> bool:
        """Whether the tree stays small when each alias is written out: a few lines of aliases can stand for billions.

        Refuses keys that are given twice on the way.
        """
        self._refuse_duplicates(root)
        for key, value in root.value:
            if self._weight(value) > MAX_NODES:
                self._refuse(_line(key), f"{_written(key)} has aliases that stand for too much", f"{MAX_NODES} values")
                return False
        return True

    def _weight(self, node: yaml.Node) -> int:
        """How many nodes this is with every alias written out: too many where an alias is inside its own anchor."""
        if id(node) not in self._weights:
            self._weights[id(node)] = MAX_NODES + 1  # what counts if the node is met again below itself
            self._refuse_duplicates(node)
            self._weights[id(node)] = 1 + sum([self._weight(child) for child in _children(node)])
        return self._weights[id(node)]

    def _refuse_duplicates(self, node: yaml.Node) -> None:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                identity = (key.tag, key.value)
                if identity in lines:
                    expected = f"it once, as on line {lines[identity]}"
                    self._refuse(_line(key), f"{_written(key)} for the second time", expected)
                lines.setdefault(identity, _line(key))

    def _read_group(self, group: type[Struct], node: yaml.MappingNode, prefix: str) -> None:
        """Sets what a mapping says of a group's options, whose names start with `prefix`."""
        fields = {field.name: field for field in structs.fields(group)}
        for key, value in node.value:
            name = prefix + _written(key)
            field = fields.get(_written(key))
            inner = _group_in(field.type) if field else None
            if field is None:
                self._refuse(_line(key), f"unknown option {name}", _suggestion(_written(key), prefix, fields))
            elif inner is not None and isinstance(value, yaml.MappingNode):
                if name in OPTIONS:
                    self._settings.set(name, True, _Place(self._name, _line(key)))
                self._read_group(inner, value, name + ".")
            elif name in OPTIONS:
                self._read_option(OPTIONS[name], value, _line(key))
            else:
                self._refuse(_line(key), f"{name} is {_written(value)}", "a mapping")

    def _read_option(self, option: Option, node: yaml.Node, line: int) -> None:
        try:
            value = self._loader.construct_object(node, deep=True)
        except yaml.MarkedYAMLError as error:
            self._settings.wrong.add(option.name)
            self._refuse(line, f"{option.name}: {error.problem}", option.expects)
        except (ValueError, LookupError, AttributeError):  # what PyYAML's conversions raise, on 2026-13-01 or !!int x
            self._settings.wrong.add(option.name)
            found = f"{option.name} is {option.shown(_written(node))}, which does not fit its YAML tag"
            self._refuse(line, found, option.expects)
        else:
            self._settings.set(option.name, value, _Place(self._name, line))

    def _refuse(self, line: int, found: str, expected: str) -> None:
        self._settings.refuse(_Place(self._name, line), found, expected)


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return chain.from_iterable(node.value)
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _written(node: yaml.Node) -> str:
    """What the file says, in short."""
    if isinstance(node, yaml.ScalarNode):
        return "null" if node.tag == NULL else _short(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _suggestion(key: str, prefix: str, siblings: Iterable[str]) -> str:
    if near := _nearest(key, siblings):
        return prefix + near
    elsewhere = {name.rpartition(".")[2]: name for name in OPTIONS}
    near = _nearest(key, elsewhere)
    return elsewhere[near] if near else f"one of {', '.join(siblings)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _quoted(value: object) -> str:
    """The value as YAML's flow style has it, in short."""
    return _short(json.dumps(value, default=str, skipkeys=True, ensure_ascii=False))


def _without_credentials(url: str) -> str:
    url = re.sub(r"://.*@", "://***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&]*(?:password|token|secret)[^=&]*=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(word, known, n=1)), None)
