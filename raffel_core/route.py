"""A route: a name, a kind, schemas and a handler of any shape, normalised and checked when it is made."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from raffel_core.context import Auth, Context, Event
from raffel_core.errors import Problem, RaffelError
from raffel_core.interceptor import Call, Interceptor, compose
from raffel_core.schema import Schema, schema_of
from raffel_core.stream import RaffelStream
from raffel_core.thread import PlainInput, PlainItems
from raffel_core.thread import call as call_in_thread

Authenticate = Callable[[Context], Awaitable[Auth | None]]
Start = Callable[[Any, Context], Any]


class Kind(StrEnum):
    """Who sends more than one message; the words are gRPC's."""

    UNARY = "unary"
    SERVER = "server"
    CLIENT = "client"
    BIDI = "bidi"

    @property
    def reads(self) -> bool:
        """Whether the client sends a stream of items."""
        return self in (Kind.CLIENT, Kind.BIDI)

    @property
    def writes(self) -> bool:
        """Whether the handler sends a stream of items."""
        return self in (Kind.SERVER, Kind.BIDI)


class Meta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a route's `meta` may say."""

    description: str = ""
    summary: str = ""
    tags: list[str] = []
    deprecated: bool = False
    direction: Literal["server", "client", "bidi"] = "server"
    content_type: str | None = None
    """The form of the items where the client does not choose one: `application/x-ndjson`, `text/event-stream`, ..."""
    content_types: Any = None
    auth: Literal["none", "required"] | list[str] | None = None
    """`none`, `required`, or the roles of which one is needed."""
    priority: Annotated[int, msgspec.Meta(ge=-128, le=127)] = 0
    high_water_mark: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Items that may be queued while the connection cannot be written."""
    deadline: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds that a call may take."""
    check_output: bool = True
    """False trusts items that already are of the declared type."""
    resumable: bool = False
    grpc: dict[str, str] | bool | None = None
    examples: Any = None


class Origin(NamedTuple):
    """Where a route was defined: its file and the lines of its parts (`handler`, `meta`, `meta.priority`, ...)."""

    file: str
    lines: Mapping[str, int] = {}

    def problem(self, part: str, found: str, expected: str) -> Problem:
        line = self.lines.get(part) or self.lines.get(part.partition(".")[0]) or self.lines.get("", 1)
        return Problem(self.file, line, found, expected)


class Route:
    """One route, ready to be called; never changes once it is made. Make it with `make_route`."""

    __slots__ = (
        "authenticate",
        "awaits",
        "handler",
        "input",
        "interceptors",
        "kind",
        "meta",
        "name",
        "origin",
        "output",
        "roles",
        "start",
    )

    def __init__(
        self,
        name: str,
        kind: Kind,
        handler: Callable[..., Any],
        *,
        meta: Meta,
        input: Schema[Any],
        output: Schema[Any],
        interceptors: Sequence[Interceptor],
        authenticate: Authenticate | None,
        origin: Origin,
    ) -> None:
        self.name = name
        self.kind = kind
        self.handler = handler
        self.meta = meta
        self.input = input
        self.output = output
        self.interceptors = tuple(interceptors)
        needed = meta.auth if meta.auth is not None else ("required" if authenticate is not None else "none")
        self.authenticate = None if needed == "none" else authenticate
        """None where the route is open to all."""
        self.roles: tuple[str, ...] = tuple(needed) if isinstance(needed, list) else ()
        self.origin = origin
        start, awaits = _normalise(handler, kind)
        self.start: Start = self._through(start, awaits) if self.interceptors else start
        """`start(input, ctx)` opens the call: its iterator or result, to be awaited first if `awaits`."""
        self.awaits = awaits or bool(self.interceptors)

    def _through(self, start: Start, awaits: bool) -> Start:
        async def innermost(call: Call) -> Any:
            opened = start(call.input, call.ctx)
            if awaits:
                opened = await opened
            call.ctx.opened = opened
            return opened

        chain = compose(self.interceptors, innermost)
        return lambda input, ctx: chain(Call(self, ctx, input))

    async def admit(self, ctx: Context) -> None:
        """Sets `ctx.auth`. Raises UNAUTHENTICATED or PERMISSION_DENIED for who may not call this route."""
        if self.authenticate is None:
            return
        auth = ctx.auth = await self.authenticate(ctx)
        if auth is None:
            raise RaffelError("UNAUTHENTICATED", "no valid credentials were given")
        if self.roles and not set(self.roles).intersection(auth.roles):
            raise RaffelError("PERMISSION_DENIED", f"none of the roles that {self.name} needs")

    def __repr__(self) -> str:
        return f"<Route {self.name} {self.kind} {self.origin.file}>"


def make_route(
    name: str,
    handler: Any,
    *,
    origin: Origin,
    procedure: bool = False,
    meta: Any = None,
    input_schema: Any = None,
    output_schema: Any = None,
    interceptors: Any = (),
    authenticate: Authenticate | None = None,
    description: str = "",
) -> tuple[Route | None, list[Problem]]:
    """A route, or all that is wrong with it. `description` counts where `meta` has none."""
    checked, problems = _meta({} if meta is None else meta, origin)
    if handler is None or not callable(handler):
        found = "no `handler`" if handler is None else f"`handler` is {_a(type(handler).__name__)}"
        problems.append(origin.problem("handler", found, "`async def handler(input, ctx)`"))
        return None, problems
    if checked is None:
        return None, problems
    if not checked.description and description:
        checked = msgspec.structs.replace(checked, description=description)
    kind = Kind.UNARY if procedure else Kind(checked.direction)
    problems += _shape_problems(handler, kind, origin)
    hints, hint_problem = _hints(handler)
    declared_input = input_schema if input_schema is not None else _input_hint(handler, hints, kind)
    declared_output = output_schema if output_schema is not None else _output_hint(hints, kind)
    if hint_problem and (input_schema is None or output_schema is None):
        expected = "names that the module has at run time, or `input_schema` and `output_schema`"
        problems.append(origin.problem("handler", hint_problem, expected))
    schemas: list[Schema[Any]] = []
    for part, given, declared in (
        ("input_schema", input_schema, declared_input),
        ("output_schema", output_schema, declared_output),
    ):
        try:
            schemas.append(schema_of(declared))
        except (TypeError, ValueError) as error:
            expected = "a msgspec type, a pydantic model or a JSON Schema"
            problems.append(origin.problem(part if given is not None else "handler", f"{part}: {error}", expected))
    problems += _interceptor_problems(interceptors, origin)
    if checked.auth not in (None, "none") and authenticate is None:
        problems.append(
            origin.problem("meta.auth", "auth is required and no `_auth.py` serves this route", "one here or above")
        )
    if problems:
        return None, problems
    route = Route(
        name,
        kind,
        handler,
        meta=checked,
        input=schemas[0],
        output=schemas[1],
        interceptors=interceptors or (),
        authenticate=authenticate,
        origin=origin,
    )
    return route, []


# What a handler is


class _Shape(StrEnum):
    ASYNC_GENERATOR = "an async generator"
    COROUTINE = "a coroutine"
    GENERATOR = "a plain generator"
    FUNCTION = "a plain function"


_LEGAL: Mapping[Kind, tuple[_Shape, ...]] = {
    Kind.SERVER: tuple(_Shape),
    Kind.BIDI: (_Shape.ASYNC_GENERATOR, _Shape.GENERATOR),
    Kind.CLIENT: (_Shape.COROUTINE, _Shape.FUNCTION),
    Kind.UNARY: (_Shape.COROUTINE, _Shape.FUNCTION),
}
_WANTED: Mapping[Kind, str] = {
    Kind.SERVER: "an async generator (`async def` with `yield`)",
    Kind.BIDI: "an async generator (`async def` with `yield`)",
    Kind.CLIENT: "a coroutine (`async def` with `return` and no `yield`)",
    Kind.UNARY: "a coroutine (`async def` with `return` and no `yield`)",
}


def _shape(handler: Callable[..., Any]) -> _Shape:
    code = handler if inspect.isroutine(handler) or hasattr(handler, "func") else type(handler).__call__
    if inspect.isasyncgenfunction(code):
        return _Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(code):
        return _Shape.COROUTINE
    if inspect.isgeneratorfunction(code):
        return _Shape.GENERATOR
    return _Shape.FUNCTION


def _normalise(handler: Callable[..., Any], kind: Kind) -> tuple[Start, bool]:
    """A function of exactly (input, ctx), and whether what it returns is to be awaited."""
    shape = _shape(handler)
    count = _positional(handler)
    if shape in (_Shape.ASYNC_GENERATOR, _Shape.COROUTINE):
        awaits = shape is _Shape.COROUTINE
        if count >= 2:
            return handler, awaits
        if count == 1:
            return lambda input, ctx: handler(input), awaits
        return lambda input, ctx: handler(), awaits

    def arguments(input: Any, ctx: Context) -> tuple[Any, ...]:
        return (PlainInput(input) if kind.reads else input, ctx)[:count]

    if shape is _Shape.GENERATOR:
        return lambda input, ctx: PlainItems(partial(handler, *arguments(input, ctx))), False

    async def start(input: Any, ctx: Context) -> Any:
        result = await call_in_thread(handler, *arguments(input, ctx))
        if kind.writes and not hasattr(result, "__aiter__"):
            return PlainItems(lambda: result)
        return result

    return start, True


def _positional(handler: Callable[..., Any]) -> int:
    """How many of (input, ctx) the handler takes."""
    count = 0
    for parameter in inspect.signature(handler).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return 2
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            count += 1
    return min(count, 2)


def _shape_problems(handler: Callable[..., Any], kind: Kind, origin: Origin) -> list[Problem]:
    problems = []
    shape = _shape(handler)
    if shape not in _LEGAL[kind]:
        what = "procedure" if kind is Kind.UNARY else f"{kind} stream"
        problems.append(origin.problem("handler", f"`handler` of a {what} is {shape}", _WANTED[kind]))
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return [*problems, origin.problem("handler", "`handler` has no signature", "a Python function")]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    expected = "(input, ctx), (input) or ()"
    if len(needed) > 2 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        problems.append(origin.problem("handler", f"`handler` takes ({', '.join(p.name for p in needed)})", expected))
    elif [p.name for p in parameters] == ["ctx"]:
        found = "`handler` takes `ctx` alone, and the first argument is the input"
        problems.append(origin.problem("handler", found, expected))
    return problems


# What a handler's annotations say


def _hints(handler: Callable[..., Any]) -> tuple[dict[str, Any], str]:
    target = handler if inspect.isroutine(handler) else getattr(handler, "func", type(handler).__call__)
    try:
        return typing.get_type_hints(target, include_extras=True), ""
    except Exception as error:  # an annotation is the user's code
        return {}, f"the annotations of `handler` cannot be resolved: {error}"


_ITERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    RaffelStream,
)


def _input_hint(handler: Callable[..., Any], hints: Mapping[str, Any], kind: Kind) -> Any:
    try:
        first = next(iter(inspect.signature(handler).parameters), None)
    except (TypeError, ValueError):
        return None
    hint = hints.get(first) if first is not None else None
    return _item(hint) if kind.reads else _declared(hint)


def _output_hint(hints: Mapping[str, Any], kind: Kind) -> Any:
    hint = hints.get("return")
    return _item(hint) if kind.writes else _declared(hint)


def _item(hint: Any) -> Any:
    """The T of AsyncIterator[T] and its kin; None where the annotation does not say."""
    if typing.get_origin(hint) in _ITERATORS:
        arguments = typing.get_args(hint)
        return _declared(arguments[0]) if arguments else None
    return None


def _declared(hint: Any) -> Any:
    """A schema from an annotation: `Event[T]` is T; what says nothing is None."""
    if hint in (None, Any, object, Event) or isinstance(hint, typing.TypeVar):
        return None
    if typing.get_origin(hint) is Event:
        return _declared(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [_declared(member) for member in typing.get_args(hint)]
        if None in members:
            return None
        return typing.Union[tuple(members)]  # noqa: UP007 - the members are known only at run time
    return hint


# What a route says of itself


def _meta(meta: Any, origin: Origin) -> tuple[Meta | None, list[Problem]]:
    if not isinstance(meta, Mapping):
        return None, [origin.problem("meta", f"`meta` is {_a(type(meta).__name__)}", "a dict")]
    known = {field.name: field for field in msgspec.structs.fields(Meta)}
    problems = []
    values: dict[str, Any] = {}
    for key, value in meta.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            expected = f"{near[0]!r}" if near else "one of " + ", ".join(sorted(known))
            problems.append(origin.problem(f"meta.{key}", f"unknown key {key!r} in `meta`", expected))
            continue
        try:
            values[key] = msgspec.convert(value, known[key].type)
        except msgspec.ValidationError as error:
            found, expected = _found_and_expected(str(error))
            problems.append(origin.problem(f"meta.{key}", f"meta[{key!r}]: {found} {value!r}"[:200], expected))
    return (None, problems) if problems else (Meta(**values), [])


def _found_and_expected(text: str) -> tuple[str, str]:
    """The halves of msgspec's `Expected X, got Y`."""
    text = text.replace("`", "").partition(" - at ")[0]
    expected, _, found = text.removeprefix("Expected ").partition(", got ")
    return f"found {found}" if found else "found", expected


def _interceptor_problems(interceptors: Any, origin: Origin) -> list[Problem]:
    expected = "a list of `async def interceptor(call, call_next)`"
    if interceptors is None:
        return []
    if not isinstance(interceptors, Sequence) or isinstance(interceptors, str):
        return [origin.problem("interceptors", f"`interceptors` is {_a(type(interceptors).__name__)}", expected)]
    return [
        origin.problem("interceptors", f"interceptor {number} is {_a(type(one).__name__)}", expected)
        for number, one in enumerate(interceptors, 1)
        if not callable(one)
    ]


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
