"""A route: a name, a kind, schemas and a handler of any shape, normalised and checked when it is made."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from raffel_core.context import Auth, Context, Event
from raffel_core.errors import Problem, RaffelError
from raffel_core.interceptor import Call, Interceptor, compose
from raffel_core.pattern import parse_name
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
    auth: Literal["none", "required"] | Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    """`none`, `required`, or the roles of which one is needed."""
    priority: Annotated[int, msgspec.Meta(ge=-128, le=127)] = 0
    high_water_mark: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Items that may be queued while the connection cannot be written."""
    deadline: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] | None = None
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
        return Problem(self.file, line, _one_line(found), expected)


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
        "segments",
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
        self.segments = parse_name(name)
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
    outer: Sequence[Interceptor] = (),
    authenticate: Authenticate | None = None,
    description: str = "",
) -> tuple[Route | None, list[Problem]]:
    """A route, or all that is wrong with it.

    `description` counts where `meta` has none; `outer` are interceptors from elsewhere, which run before its own.
    """
    checked, problems = _meta({} if meta is None else meta, procedure, origin)
    problems += interceptor_problems(interceptors, origin)
    if checked.auth not in (None, "none") and authenticate is None:
        problems.append(
            origin.problem("meta.auth", "auth is required and no `_auth.py` serves this route", "one here or above")
        )
    kind = Kind.UNARY if procedure else Kind(checked.direction)
    unusable = _handler_problems(handler, kind, origin)
    problems += unusable
    schemas: list[Schema[Any]] = []
    for part, given in (("input_schema", input_schema), ("output_schema", output_schema)):
        declared = given
        if given is None and not unusable:
            try:
                declared = _input_hint(handler, kind) if part == "input_schema" else _output_hint(handler, kind)
            except Exception as error:  # an annotation is the user's code
                found = f"an annotation of `handler` cannot be resolved: {error}"
                problems.append(origin.problem("handler", found, f"names that exist at run time, or `{part}`"))
                continue
        try:
            schemas.append(schema_of(declared))
        except Exception as error:  # so is what a schema is made from
            expected = "a msgspec type, a pydantic model or a JSON Schema"
            problems.append(origin.problem(part if given is not None else "handler", f"{part}: {error}", expected))
    if problems:
        return None, problems
    if not checked.description and description:
        checked = msgspec.structs.replace(checked, description=description)
    route = Route(
        name,
        kind,
        handler,
        meta=checked,
        input=schemas[0],
        output=schemas[1],
        interceptors=[*outer, *(interceptors or ())],
        authenticate=authenticate,
        origin=origin,
    )
    return route, []


# What a handler is


class Shape(StrEnum):
    ASYNC_GENERATOR = "an async generator"
    COROUTINE = "a coroutine"
    GENERATOR = "a plain generator"
    FUNCTION = "a plain function"


_LEGAL: Mapping[Kind, tuple[Shape, ...]] = {
    Kind.SERVER: tuple(Shape),
    Kind.BIDI: (Shape.ASYNC_GENERATOR, Shape.GENERATOR),
    Kind.CLIENT: (Shape.COROUTINE, Shape.FUNCTION),
    Kind.UNARY: (Shape.COROUTINE, Shape.FUNCTION),
}
_WANTED: Mapping[Kind, str] = {
    Kind.SERVER: "an async generator (`async def` with `yield`)",
    Kind.BIDI: "an async generator (`async def` with `yield`)",
    Kind.CLIENT: "a coroutine (`async def` with `return` and no `yield`)",
    Kind.UNARY: "a coroutine (`async def` with `return` and no `yield`)",
}


def shape_of(handler: Callable[..., Any]) -> Shape:
    code = handler if inspect.isroutine(handler) or hasattr(handler, "func") else type(handler).__call__
    if inspect.isasyncgenfunction(code):
        return Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(code):
        return Shape.COROUTINE
    if inspect.isgeneratorfunction(code):
        return Shape.GENERATOR
    return Shape.FUNCTION


def _normalise(handler: Callable[..., Any], kind: Kind) -> tuple[Start, bool]:
    """A function of exactly (input, ctx), and whether what it returns is to be awaited."""
    shape = shape_of(handler)
    count = _positional(handler)
    if shape in (Shape.ASYNC_GENERATOR, Shape.COROUTINE):
        awaits = shape is Shape.COROUTINE
        if count >= 2:
            return handler, awaits
        if count == 1:
            return lambda input, ctx: handler(input), awaits
        return lambda input, ctx: handler(), awaits

    def arguments(input: Any, ctx: Context) -> tuple[Any, ...]:
        return (PlainInput(input) if kind.reads else input, ctx)[:count]

    if shape is Shape.GENERATOR:
        return lambda input, ctx: PlainItems(partial(handler, *arguments(input, ctx))), False

    async def start(input: Any, ctx: Context) -> Any:
        result = await call_in_thread(handler, *arguments(input, ctx))
        if inspect.isawaitable(result):
            result = await result  # a decorator's plain function around a coroutine
        if kind.writes and not hasattr(result, "__aiter__"):
            return PlainItems(lambda: result)
        return result

    return start, True


def _positional(handler: Callable[..., Any]) -> int:
    """How many of (input, ctx) the handler takes."""
    count = 0
    for parameter in _parameters(handler):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return 2
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            count += 1
    return min(count, 2)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Raises TypeError or ValueError where a function written in C has no signature."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # Names that exist only for a type checker must not fail here.
        return list(inspect.signature(function, annotation_format=Format.FORWARDREF).parameters.values())
    return list(inspect.signature(function).parameters.values())


def _handler_problems(handler: Any, kind: Kind, origin: Origin) -> list[Problem]:
    expected = "`async def handler(input, ctx)`"
    if handler is None:
        return [origin.problem("handler", "no `handler`", expected)]
    if not callable(handler) or isinstance(handler, type):
        return [origin.problem("handler", f"`handler` is {_what(handler)}", expected)]
    try:
        parameters = _parameters(handler)
    except (TypeError, ValueError):
        return [origin.problem("handler", "`handler` has no signature", "a Python function")]
    problems = []
    shape = shape_of(handler)
    if shape not in _LEGAL[kind]:
        what = "procedure" if kind is Kind.UNARY else f"{kind} stream"
        problems.append(origin.problem("handler", f"`handler` of a {what} is {shape}", _WANTED[kind]))
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    expected = "(input, ctx), (input) or ()"
    if len(needed) > 2 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        problems.append(origin.problem("handler", f"`handler` takes ({', '.join(p.name for p in needed)})", expected))
    elif parameters and parameters[0].name == "ctx":
        alone = "alone" if len(parameters) == 1 else "first"
        found = f"`handler` takes `ctx` {alone}, and the first argument is the input"
        problems.append(origin.problem("handler", found, expected))
    return problems


# What a handler's annotations say


def _hint(handler: Callable[..., Any], name: str) -> Any:
    """One annotation, resolved; None where there is none. The others may name what exists only for a type checker."""
    code = handler if inspect.isroutine(handler) else getattr(handler, "func", type(handler).__call__)
    annotations = _annotations(code)
    if name not in annotations:
        return None

    def alone() -> None: ...

    alone.__annotations__ = {name: annotations[name]}
    names = getattr(inspect.unwrap(code), "__globals__", {})
    return typing.get_type_hints(alone, names, include_extras=True)[name]


def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return getattr(function, "__annotations__", {})


_ITERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.Sequence,
    list,
    RaffelStream,
)


def _input_hint(handler: Callable[..., Any], kind: Kind) -> Any:
    parameters = _parameters(handler)
    hint = _hint(handler, parameters[0].name) if parameters else None
    return _item(hint) if kind.reads else _declared(hint)


def _output_hint(handler: Callable[..., Any], kind: Kind) -> Any:
    hint = _hint(handler, "return")
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

_KEYS = {field.name: field.type for field in msgspec.structs.fields(Meta)}
_WORDS = {
    "auth": "'none', 'required' or a list of roles",
    "check_output": "True or False",
    "deadline": "seconds, more than 0 and at most a year",
    "deprecated": "True or False",
    "direction": "'server', 'client' or 'bidi'",
    "grpc": "True, False or a dict of strings",
    "high_water_mark": "an int, 1 or more",
    "priority": "an int from -128 to 127",
    "resumable": "True or False",
    "tags": "a list of strings",
}


def _meta(meta: Any, procedure: bool, origin: Origin) -> tuple[Meta, list[Problem]]:
    """What is right in `meta`, and what is wrong with the rest."""
    if not isinstance(meta, Mapping):
        return Meta(), [origin.problem("meta", f"`meta` is {_what(meta)}", "a dict")]
    problems = []
    values: dict[str, Any] = {}
    for key, value in meta.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1)
            expected = repr(near[0]) if near else f"one of {', '.join(sorted(_KEYS))}"
            problems.append(origin.problem(f"meta.{key}", f"unknown key {key!r} in `meta`", expected))
            continue
        try:
            values[key] = msgspec.convert(value, _KEYS[key])
        except msgspec.ValidationError:
            problems.append(origin.problem(f"meta.{key}", f"meta[{key!r}] is {value!r}", _WORDS.get(key, "a string")))
    if procedure and values.get("direction", "server") != "server":
        found = f"a procedure of direction {values['direction']!r}"
        problems.append(origin.problem("meta.direction", found, "a stream: a file that ends in .stream.py"))
    return Meta(**values), problems


def interceptor_problems(interceptors: Any, origin: Origin) -> list[Problem]:
    """What is wrong with a list of interceptors; None is an empty one."""
    expected = "a list of `async def interceptor(call, call_next)`"
    if interceptors is None:
        return []
    if not isinstance(interceptors, Sequence) or isinstance(interceptors, str):
        return [origin.problem("interceptors", f"`interceptors` is {_what(interceptors)}", expected)]
    return [
        origin.problem("interceptors", f"interceptor {number} {fault}", expected)
        for number, one in enumerate(interceptors, 1)
        if (fault := interceptor_fault(one))
    ]


def interceptor_fault(one: Any) -> str:
    """Why something is no interceptor, as in "it takes (call)"; empty where it may be one."""
    return fault_of(one, (Shape.COROUTINE, Shape.FUNCTION), 2)


def fault_of(value: Any, shapes: Collection[Shape], arguments: int) -> str:
    """Why a value is no function of one of these shapes, to be called with so many arguments; empty where it is."""
    if not callable(value) or isinstance(value, type):
        return f"is {_what(value)}"
    shape = shape_of(value)
    if shape not in shapes:
        return f"is {shape}"
    try:
        parameters = _parameters(value)
    except (TypeError, ValueError):
        return ""  # it is written in C and does not say what it takes
    try:
        inspect.Signature(parameters).bind(*range(arguments))
    except TypeError:
        return f"takes ({', '.join(parameter.name for parameter in parameters)})"
    return ""


def _what(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    noun = type(value).__name__
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
