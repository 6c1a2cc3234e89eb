"""Interceptors: the order of a chain, and what a link may do to a call."""

from __future__ import annotations

from typing import Any

import pytest

from raffel_core.context import App, Context
from raffel_core.errors import RaffelError
from raffel_core.interceptor import Call, compose
from raffel_core.route import Origin, Route, make_route


async def handler(input, ctx):
    return input


def a_route() -> Route:
    made, problems = make_route("r", handler, origin=Origin("r.rpc.py"), procedure=True)
    assert made is not None, problems
    return made


def a_call(input: Any = 1) -> Call:
    return Call(a_route(), Context("r", protocol="test", app=App()), input)


async def innermost(call: Call) -> Any:
    return ["innermost", call.input]


def named(name: str) -> Any:
    async def interceptor(call, call_next):
        return [name, *await call_next(call), name]

    return interceptor


async def test_without_interceptors_the_innermost_is_called() -> None:
    assert compose([], innermost) is innermost


async def test_the_first_is_the_outermost() -> None:
    chain = compose([named("a"), named("b"), named("c")], innermost)
    assert await chain(a_call()) == ["a", "b", "c", "innermost", 1, "c", "b", "a"]


async def test_a_chain_is_composed_once_and_serves_any_number_of_calls() -> None:
    chain = compose([named("a")], innermost)
    assert [await chain(a_call(number)) for number in range(3)] == [["a", "innermost", n, "a"] for n in range(3)]


async def test_one_may_replace_the_input_or_the_whole_call() -> None:
    async def double(call, call_next):
        call.input *= 2
        return await call_next(call)

    async def another(call, call_next):
        return await call_next(Call(call.route, call.ctx, call.input + 1))

    assert await compose([double, another], innermost)(a_call(5)) == ["innermost", 11]


async def test_one_may_answer_in_place_of_the_handler() -> None:
    async def cached(call, call_next):
        return "cached"

    assert await compose([cached, named("never")], innermost)(a_call()) == "cached"


async def test_one_may_try_again() -> None:
    tried = []

    async def retry(call, call_next):
        try:
            return await call_next(call)
        except RaffelError:
            return await call_next(call)

    async def flaky(call):
        tried.append(1)
        if len(tried) == 1:
            raise RaffelError("UNAVAILABLE", "not yet")
        return "done"

    assert await compose([retry], flaky)(a_call()) == "done"


async def test_what_one_raises_passes_through_those_around_it() -> None:
    seen = []

    async def watch(call, call_next):
        try:
            return await call_next(call)
        except RaffelError as error:
            seen.append(error.code)
            raise

    async def refuse(call, call_next):
        raise RaffelError("PERMISSION_DENIED", "no")

    with pytest.raises(RaffelError, match="no"):
        await compose([watch, refuse], innermost)(a_call())
    assert seen == ["PERMISSION_DENIED"]


async def test_one_may_be_an_object_or_a_function_that_returns_an_awaitable() -> None:
    class Counter:
        calls = 0

        async def __call__(self, call, call_next):
            self.calls += 1
            return await call_next(call)

    def pass_on(call, call_next):
        return call_next(call)

    counter = Counter()
    assert await compose([counter, pass_on], innermost)(a_call()) == ["innermost", 1]
    assert counter.calls == 1


async def test_a_call_has_the_route_and_the_context() -> None:
    seen = []

    async def look(call, call_next):
        seen.append((call.route.name, call.ctx.protocol, call.input))
        return await call_next(call)

    await compose([look], innermost)(a_call())
    assert seen == [("r", "test", 1)]
