"""What a handler, `meta`, schemas and interceptors may be, and what is told of those that may not."""

import functools
import inspect
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from raffel_core.context import App, Auth, Context, Event
from raffel_core.errors import Problem, RaffelError
from raffel_core.interceptor import Call
from raffel_core.route import Kind, Meta, Origin, Route, make_route
from raffel_core.stream import RaffelStream, create_stream

if TYPE_CHECKING:
    from nowhere import Unknown

T = TypeVar("T")

ORIGIN = Origin("routes/logs/tail.stream.py", {"handler": 12, "meta": 3, "meta.tags": 4, "input_schema": 8})


class Query(msgspec.Struct):
    limit: int = 100


class Line(msgspec.Struct):
    message: str


class Model(pydantic.BaseModel):
    message: str


async def items(input, ctx):
    yield input


async def result(input, ctx):
    return input


async def nobody(ctx: Context) -> Auth | None:
    return None


def made(handler: Any, *, direction: str = "server", meta: Any = None, **options: Any) -> Route:
    route, problems = make_route(
        "logs.tail", handler, origin=ORIGIN, meta={"direction": direction, **(meta or {})}, **options
    )
    assert problems == []
    assert route is not None
    return route


def procedure(handler: Any, **options: Any) -> Route:
    return made(handler, procedure=True, **options)


def told(handler: Any = items, **options: Any) -> list[Problem]:
    route, problems = make_route("logs.tail", handler, origin=ORIGIN, **options)
    assert route is None
    assert problems
    return problems


def only(handler: Any = items, **options: Any) -> Problem:
    [problem] = told(handler, **options)
    return problem


def context() -> Context:
    return Context("logs.tail", protocol="sse", app=App())


async def opened(route: Route, input: Any = None, ctx: Context | None = None) -> Any:
    """What the handler gave: its iterator, or its result."""
    begun = route.start(input, ctx or context())
    return await begun if route.awaits else begun


async def collected(route: Route, input: Any = None) -> list[Any]:
    return [item async for item in await opened(route, input)]


async def sent(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


# Kinds


def test_a_stream_is_a_server_stream_unless_meta_says_otherwise() -> None:
    route, _ = make_route("a", items, origin=ORIGIN)
    assert route is not None
    assert (route.name, route.kind, route.meta, route.origin) == ("a", Kind.SERVER, Meta(), ORIGIN)


@pytest.mark.parametrize(
    ("direction", "handler", "kind"),
    [("server", items, Kind.SERVER), ("client", result, Kind.CLIENT), ("bidi", items, Kind.BIDI)],
)
def test_the_direction_is_the_kind(direction: str, handler: Any, kind: Kind) -> None:
    assert made(handler, direction=direction).kind is kind


def test_a_procedure_is_unary() -> None:
    assert procedure(result).kind is Kind.UNARY


@pytest.mark.parametrize("direction", ["client", "bidi"])
def test_a_procedure_has_no_direction(direction: str) -> None:
    problem = only(result, procedure=True, meta={"direction": direction})
    assert problem.line == 3
    assert problem.found == f"a procedure of direction {direction!r}"


@pytest.mark.parametrize(
    ("kind", "reads", "writes"),
    [
        (Kind.UNARY, False, False),
        (Kind.SERVER, False, True),
        (Kind.CLIENT, True, False),
        (Kind.BIDI, True, True),
    ],
)
def test_a_kind_says_who_sends_a_stream(kind: Kind, reads: bool, writes: bool) -> None:
    assert (kind.reads, kind.writes) == (reads, writes)


# Shapes of handlers


def plain_items(input, ctx):
    yield input


def plain_result(input, ctx):
    return input


@pytest.mark.parametrize("handler", [items, result, plain_items, plain_result])
def test_a_server_handler_may_be_of_every_shape(handler: Any) -> None:
    made(handler)


@pytest.mark.parametrize("handler", [items, plain_items])
def test_a_bidi_handler_is_a_generator(handler: Any) -> None:
    made(handler, direction="bidi")


@pytest.mark.parametrize("handler", [result, plain_result])
@pytest.mark.parametrize("options", [{"meta": {"direction": "client"}}, {"procedure": True}])
def test_the_handler_of_a_client_stream_or_procedure_returns(handler: Any, options: dict[str, Any]) -> None:
    route, problems = make_route("a", handler, origin=ORIGIN, **options)
    assert (route is None, problems) == (False, [])


@pytest.mark.parametrize(
    ("handler", "options", "found"),
    [
        (result, {"meta": {"direction": "bidi"}}, "`handler` of a bidi stream is a coroutine"),
        (plain_result, {"meta": {"direction": "bidi"}}, "`handler` of a bidi stream is a plain function"),
        (items, {"meta": {"direction": "client"}}, "`handler` of a client stream is an async generator"),
        (plain_items, {"meta": {"direction": "client"}}, "`handler` of a client stream is a plain generator"),
        (items, {"procedure": True}, "`handler` of a procedure is an async generator"),
        (plain_items, {"procedure": True}, "`handler` of a procedure is a plain generator"),
    ],
)
def test_a_handler_of_the_wrong_shape_for_its_kind_is_told(handler: Any, options: dict[str, Any], found: str) -> None:
    problem = only(handler, **options)
    assert (problem.file, problem.line, problem.found) == (ORIGIN.file, 12, found)
    assert problem.expected.startswith("a coroutine (" if "generator" in found else "an async generator (")


class Source:
    """Handlers that are methods, and an object that is one."""

    async def items(self, input, ctx):
        yield input

    async def __call__(self, input, ctx):
        return input


def test_a_handler_may_be_a_method_a_partial_or_an_object_that_is_called() -> None:
    async def three(extra, input, ctx):
        yield extra

    assert made(Source().items).awaits is False
    assert made(functools.partial(three, 1)).awaits is False
    assert procedure(Source()).awaits is True


def test_a_missing_handler_is_told() -> None:
    assert only(None)[:3] == (ORIGIN.file, 12, "no `handler`")


@pytest.mark.parametrize(
    ("handler", "found"), [("tail", "a str"), ({}, "a dict"), (3, "an int"), (Source, "the class Source")]
)
def test_a_handler_that_is_no_function_is_told(handler: Any, found: str) -> None:
    assert only(handler)[1:] == (12, f"`handler` is {found}", "`async def handler(input, ctx)`")


def test_a_handler_without_a_signature_is_told() -> None:
    assert only(max).found == "`handler` has no signature"


# Parameters


async def test_the_last_parameters_may_be_left_out() -> None:
    async def input_alone(input):
        yield input

    async def none():
        yield "nothing"

    assert await collected(made(items), 1) == [1]
    assert await collected(made(input_alone), 1) == [1]
    assert await collected(made(none), 1) == ["nothing"]


async def test_further_parameters_may_have_defaults() -> None:
    async def more(input, ctx, extra=2, *rest, last=3, **named):
        return [input, ctx is not None, extra, rest, last, named]

    assert await opened(procedure(more), 1) == [1, True, 2, (), 3, {}]


async def test_all_arguments_may_be_taken_as_one() -> None:
    async def every(*arguments):
        return len(arguments)

    assert await opened(procedure(every)) == 2


async def no_ctx(ctx):
    yield


async def swapped(ctx, input):
    yield


async def three(input, ctx, extra):
    yield


async def named_only(input, *, ctx):
    yield


@pytest.mark.parametrize(
    ("handler", "found"),
    [
        (no_ctx, "`handler` takes `ctx` alone, and the first argument is the input"),
        (swapped, "`handler` takes `ctx` first, and the first argument is the input"),
        (three, "`handler` takes (input, ctx, extra)"),
        (named_only, "`handler` takes (input, ctx)"),
    ],
)
def test_wrong_parameters_are_told(handler: Any, found: str) -> None:
    assert only(handler)[1:] == (12, found, "(input, ctx), (input) or ()")


# What a handler gives back


async def test_an_async_generator_is_opened_as_it_is() -> None:
    route = made(items)
    begun = route.start(1, context())
    assert inspect.isasyncgen(begun)
    assert [item async for item in begun] == [1]


async def test_a_server_handler_may_return_an_iterator() -> None:
    async def handler(input, ctx):
        return items(input, ctx)

    assert await collected(made(handler), 1) == [1]


async def test_a_server_handler_may_return_a_stream_itself() -> None:
    stream: RaffelStream[int] = create_stream()

    async def handler(input, ctx):
        return stream

    assert await opened(made(handler)) is stream


async def test_a_plain_generator_runs_in_a_thread() -> None:
    def handler(input, ctx):
        yield threading.current_thread() is threading.main_thread()

    assert await collected(made(handler)) == [False]


async def test_a_plain_function_may_return_any_iterable() -> None:
    def handler(input, ctx):
        return [input, input]

    assert await collected(made(handler), 1) == [1, 1]
    assert await opened(procedure(handler), 1) == [1, 1]


async def test_a_plain_handler_iterates_what_a_client_sends() -> None:
    def total(numbers):
        return sum(numbers)

    def doubled(numbers):
        for number in numbers:
            yield number * 2

    assert await opened(made(total, direction="client"), sent(1, 2, 3)) == 6
    assert await collected(made(doubled, direction="bidi"), sent(1, 2, 3)) == [2, 4, 6]


async def test_a_plain_decorator_around_a_coroutine_is_seen_through() -> None:
    def wrapped(function: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        @functools.wraps(function)
        def inner(*arguments):
            return function(*arguments)

        return inner

    assert await opened(procedure(wrapped(result)), 1) == 1
    assert await collected(made(wrapped(items)), 1) == [1]


# `meta`

LEGAL = {
    "description": "Lines",
    "summary": "Lines",
    "tags": ["logs"],
    "deprecated": True,
    "direction": "bidi",
    "content_type": "application/x-ndjson",
    "content_types": ["application/x-ndjson"],
    "auth": ["admin"],
    "priority": -128,
    "high_water_mark": 1,
    "deadline": 1.5,
    "check_output": False,
    "resumable": True,
    "grpc": {"package": "acme"},
    "examples": [{"limit": 1}],
}


def test_the_keys_of_meta_are_those_of_the_contract() -> None:
    assert set(LEGAL) == set(Meta.__struct_fields__)


@pytest.mark.parametrize(("key", "value"), LEGAL.items())
def test_a_legal_key_is_taken(key: str, value: Any) -> None:
    assert getattr(made(items, meta={key: value}, authenticate=nobody).meta, key) == value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("description", 3, "a string"),
        ("description", None, "a string"),
        ("summary", [], "a string"),
        ("tags", "logs", "a list of strings"),
        ("tags", [1], "a list of strings"),
        ("deprecated", "yes", "True or False"),
        ("direction", "sideways", "'server', 'client' or 'bidi'"),
        ("direction", "unary", "'server', 'client' or 'bidi'"),
        ("content_type", 3, "a string"),
        ("auth", "admin", "'none', 'required' or a list of roles"),
        ("auth", True, "'none', 'required' or a list of roles"),
        ("auth", [], "'none', 'required' or a list of roles"),
        ("auth", [1], "'none', 'required' or a list of roles"),
        ("priority", 128, "an int from -128 to 127"),
        ("priority", -129, "an int from -128 to 127"),
        ("priority", "high", "an int from -128 to 127"),
        ("priority", True, "an int from -128 to 127"),
        ("high_water_mark", 0, "an int, 1 or more"),
        ("high_water_mark", 1.5, "an int, 1 or more"),
        ("deadline", 0, "seconds, more than 0 and at most a year"),
        ("deadline", "5", "seconds, more than 0 and at most a year"),
        ("deadline", float("inf"), "seconds, more than 0 and at most a year"),
        ("deadline", float("nan"), "seconds, more than 0 and at most a year"),
        ("check_output", 1, "True or False"),
        ("resumable", "yes", "True or False"),
        ("grpc", "acme", "True, False or a dict of strings"),
        ("grpc", {"package": 1}, "True, False or a dict of strings"),
    ],
)
def test_an_illegal_value_is_told(key: str, value: Any, expected: str) -> None:
    problem = only(meta={key: value}, authenticate=nobody)
    assert problem == (ORIGIN.file, 4 if key == "tags" else 3, f"meta[{key!r}] is {value!r}", expected)


@pytest.mark.parametrize(
    ("key", "expected"),
    [("descripton", "'description'"), ("dead_line", "'deadline'"), ("tag", "'tags'"), ("roles", None), (3, None)],
)
def test_an_unknown_key_is_told_with_what_is_near(key: Any, expected: str | None) -> None:
    problem = only(meta={key: 1})
    assert problem[:3] == (ORIGIN.file, 3, f"unknown key {key!r} in `meta`")
    assert problem.expected == expected or (expected is None and problem.expected.startswith("one of auth, check_"))


@pytest.mark.parametrize(("meta", "found"), [([], "a list"), ("x", "a str"), (Meta, "the class Meta")])
def test_a_meta_that_is_no_dict_is_told(meta: Any, found: str) -> None:
    assert only(meta=meta) == (ORIGIN.file, 3, f"`meta` is {found}", "a dict")


def test_the_description_given_beside_counts_where_meta_has_none() -> None:
    assert made(items, description="Tails").meta.description == "Tails"
    assert made(items, description="Tails", meta={"description": "Lines"}).meta.description == "Lines"


def test_every_problem_is_told_at_once() -> None:
    problems = told(
        three,
        meta={"priority": 500, "tagz": [], "auth": "required"},
        input_schema=3,
        interceptors=[3],
    )
    assert [(problem.line, problem.found.split()[0]) for problem in problems] == [
        (3, "meta['priority']"),
        (3, "unknown"),
        (1, "interceptor"),
        (3, "auth"),
        (12, "`handler`"),
        (8, "input_schema:"),
    ]


def test_a_problem_is_one_line() -> None:
    class Schema:
        def __repr__(self) -> str:
            return "two\nlines"

    assert "\n" not in str(only(meta={"priority": Schema()}))


def test_a_problem_of_a_part_without_a_line_is_told_at_that_of_the_whole() -> None:
    assert Origin("a.py").problem("meta.tags", "x", "y").line == 1
    assert Origin("a.py", {"": 7}).problem("meta.tags", "x", "y").line == 7
    assert Origin("a.py", {"": 7, "meta": 3}).problem("meta.tags", "x", "y").line == 3
    assert Origin("a.py", {"": 7, "meta": 3, "meta.tags": 4}).problem("meta.tags", "x", "y").line == 4


# Authentication


async def test_without_authentication_a_route_is_open_to_all() -> None:
    route = made(items)
    await route.admit(ctx := context())
    assert (route.authenticate, ctx.auth) == (None, None)


def test_authentication_makes_it_required() -> None:
    assert made(items, authenticate=nobody).authenticate is nobody


def test_none_opts_out_of_it() -> None:
    assert made(items, authenticate=nobody, meta={"auth": "none"}).authenticate is None


@pytest.mark.parametrize("auth", ["required", ["admin"]])
def test_authentication_that_is_nowhere_is_told(auth: Any) -> None:
    problem = only(meta={"auth": auth})
    assert problem[1:] == (3, "auth is required and no `_auth.py` serves this route", "one here or above")


def authentication(auth: Auth | None) -> Any:
    async def authenticate(ctx: Context) -> Auth | None:
        return auth

    return authenticate


async def test_who_is_known_is_admitted() -> None:
    auth = Auth("ada")
    await made(items, authenticate=authentication(auth)).admit(ctx := context())
    assert ctx.auth is auth


async def test_who_is_unknown_is_unauthenticated() -> None:
    with pytest.raises(RaffelError, match="UNAUTHENTICATED"):
        await made(items, authenticate=authentication(None)).admit(context())


async def test_one_of_the_roles_is_needed() -> None:
    meta = {"auth": ["admin", "owner"]}
    await made(items, authenticate=authentication(Auth(roles=["owner", "guest"])), meta=meta).admit(context())
    with pytest.raises(RaffelError, match="PERMISSION_DENIED"):
        await made(items, authenticate=authentication(Auth(roles=["guest"])), meta=meta).admit(context())


# Schemas


class Fields(TypedDict):
    limit: int


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    "declared", [Query, Point, Fields, Model, Query | int, list[int], Annotated[int, msgspec.Meta(ge=0)], None]
)
def test_a_schema_may_be_declared_in_every_way(declared: Any) -> None:
    route = made(items, input_schema=declared, output_schema=declared)
    assert route.input.declared == route.output.declared == declared


def test_a_schema_may_be_a_json_schema() -> None:
    declared = {"type": "object"}
    assert made(items, input_schema=declared).input.json_schema() == declared


@pytest.mark.parametrize("part", ["input_schema", "output_schema"])
@pytest.mark.parametrize("declared", [3, "Query", lambda: 0, {"type": "nonsense"}])
def test_what_is_no_schema_is_told(part: str, declared: Any) -> None:
    problem = only(**{part: declared})
    assert problem.line == (8 if part == "input_schema" else 1)
    assert problem.found.startswith(f"{part}: ")
    assert problem.expected == "a msgspec type, a pydantic model or a JSON Schema"


def test_a_schema_with_a_name_that_does_not_exist_is_told() -> None:
    class Broken(msgspec.Struct):
        limit: "Unknown"

    assert "Unknown" in only(input_schema=Broken).found


def declared(handler: Any, direction: str = "server") -> tuple[Any, Any]:
    """The types of input and output that the annotations give."""
    route = made(handler, direction=direction)
    return route.input.declared, route.output.declared


def test_without_annotations_there_is_no_schema() -> None:
    assert declared(items) == (None, None)


async def yields(input: Query, ctx: Context) -> AsyncIterator[Line]:
    yield Line("")


async def returns(input: Query, ctx: Context) -> Line:
    return Line("")


async def gathers(lines: AsyncIterator[Line], ctx: Context) -> Query:
    return Query()


async def answers(lines: RaffelStream[Query], ctx: Context) -> AsyncGenerator[Line, None]:
    yield Line("")


def test_the_annotations_are_the_schemas() -> None:
    assert declared(yields) == (Query, Line)
    assert declared(gathers, "client") == (Line, Query)
    assert declared(answers, "bidi") == (Query, Line)
    route = procedure(returns)
    assert (route.input.declared, route.output.declared) == (Query, Line)


def test_a_declared_schema_beats_the_annotation() -> None:
    route = made(yields, input_schema=Line, output_schema=Query)
    assert (route.input.declared, route.output.declared) == (Line, Query)


@pytest.mark.parametrize(
    "annotation",
    [
        AsyncIterator[Line],
        AsyncIterable[Line],
        AsyncGenerator[Line, None],
        Iterator[Line],
        Iterable[Line],
        Generator[Line, None, None],
        RaffelStream[Line],
        Sequence[Line],
        list[Line],
        AsyncIterator[Event[Line]],
    ],
)
def test_an_item_is_what_the_iterator_is_of(annotation: Any) -> None:
    def handler(input, ctx):
        yield

    handler.__annotations__["return"] = annotation
    assert declared(handler)[1] is Line


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Event[Line], Line),
        (Event[Line] | int, Line | int),
        (Event[Line] | None, Line | None),
        (Line | None, Line | None),
        (Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]),
        (Event[Any], None),
        (Event[Any] | Line, None),
        (Event, None),
        (Any, None),
        (object, None),
        (T, None),
        (None, type(None)),
    ],
)
def test_an_event_counts_as_what_it_carries_and_any_as_nothing(annotation: Any, schema: Any) -> None:
    async def handler(input, ctx): ...

    handler.__annotations__["return"] = annotation
    assert procedure(handler).output.declared == schema


@pytest.mark.parametrize("annotation", [AsyncIterator, Line, "AsyncIterator[Any]"])
def test_an_iterator_of_nothing_in_particular_is_of_any_json(annotation: Any) -> None:
    async def handler(input, ctx):
        yield

    handler.__annotations__["return"] = annotation
    assert declared(handler)[1] is None


def test_annotations_may_be_strings() -> None:
    async def handler(input: "Query", ctx: "Context") -> "AsyncIterator[Line]":
        yield Line("")

    assert declared(handler) == (Query, Line)


def test_other_annotations_may_name_what_only_a_type_checker_knows() -> None:
    async def handler(input: "Query", ctx: "Unknown", more: "Unknown" = None) -> "AsyncIterator[Line]":
        yield Line("")

    assert declared(handler) == (Query, Line)


def test_an_annotation_that_is_needed_and_unknown_is_told() -> None:
    async def handler(input: "Unknown", ctx: Context) -> AsyncIterator[Line]:
        yield Line("")

    problem = only(handler)
    assert problem.line == 12
    assert problem.found == "an annotation of `handler` cannot be resolved: name 'Unknown' is not defined"
    assert problem.expected == "names that exist at run time, or `input_schema`"
    made(handler, input_schema=Query)


def test_an_annotation_that_is_no_schema_is_told_at_the_handler() -> None:
    async def handler(input: Callable[[], None], ctx: Context):
        yield

    problem = only(handler)
    assert problem.line == 12
    assert problem.found.startswith("input_schema: ")


def test_the_annotations_of_methods_partials_and_wrapped_functions_count() -> None:
    class Tail:
        async def __call__(self, input: "Query", ctx: Context) -> "AsyncIterator[Line]":
            yield Line("")

        async def method(self, input: "Query", ctx: Context) -> "AsyncIterator[Line]":
            yield Line("")

    async def more(extra: int, input: Query, ctx: Context) -> AsyncIterator[Line]:
        yield Line("")

    @functools.wraps(yields)
    async def wrapper(*arguments):
        async for line in yields(*arguments):
            yield line

    for handler in (Tail(), Tail().method, functools.partial(more, 1), wrapper):
        assert declared(handler) == (Query, Line)


# Interceptors


def tracing(name: str, trace: list[str]) -> Any:
    async def interceptor(call: Call, call_next: Any) -> Any:
        trace.append(name)
        return await call_next(call)

    return interceptor


async def test_interceptors_run_from_the_outermost_in() -> None:
    trace: list[str] = []
    route = made(
        items,
        interceptors=[tracing("own", trace), tracing("innermost", trace)],
        outer=[tracing("outer", trace)],
    )
    assert await collected(route, 1) == [1]
    assert trace == ["outer", "own", "innermost"]


async def test_an_interceptor_knows_the_route_and_may_replace_the_input() -> None:
    async def interceptor(call: Call, call_next: Any) -> Any:
        call.input = (call.route, call.input)
        return await call_next(call)

    route = procedure(result, interceptors=[interceptor])
    assert await opened(route, 1) == (route, 1)


async def test_an_interceptor_that_raises_refuses_the_call() -> None:
    async def interceptor(call: Call, call_next: Any) -> Any:
        raise RaffelError("RATE_LIMITED")

    with pytest.raises(RaffelError, match="RATE_LIMITED"):
        await opened(made(items, interceptors=[interceptor]))


async def test_what_the_handler_opened_is_known_to_its_context() -> None:
    route = made(items, interceptors=[tracing("own", [])])
    ctx = context()
    assert await opened(route, 1, ctx) is ctx.opened
    await ctx.opened.aclose()


@pytest.mark.parametrize("interceptors", [None, [], (), [lambda call, call_next: call_next(call)]])
def test_interceptors_are_a_list_of_functions(interceptors: Any) -> None:
    made(items, interceptors=interceptors)


class Limit:
    def __init__(self, rate: int, per: int) -> None: ...

    async def __call__(self, call: Call, call_next: Any) -> Any: ...


def test_an_interceptor_may_be_an_object() -> None:
    made(items, interceptors=[Limit(1, 1)])


@pytest.mark.parametrize(
    ("interceptors", "found"),
    [
        ("trace", "`interceptors` is a str"),
        ({}, "`interceptors` is a dict"),
        (tracing, "`interceptors` is a function"),
        ([tracing("a", []), 3], "interceptor 2 is an int"),
        ([Limit], "interceptor 1 is the class Limit"),
        ([items], "interceptor 1 is an async generator"),
        ([plain_items], "interceptor 1 is a plain generator"),
        ([nobody], "interceptor 1 takes (ctx)"),
    ],
)
def test_a_wrong_interceptor_is_told(interceptors: Any, found: str) -> None:
    problem = only(interceptors=interceptors)
    assert problem == (ORIGIN.file, 1, found, "a list of `async def interceptor(call, call_next)`")
