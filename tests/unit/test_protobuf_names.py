"""Where a route has its method, and what protobuf calls things."""

from __future__ import annotations

from typing import Any

import pytest

from raffel_core.errors import Problem
from raffel_core.protobuf.names import Place, identifier, json_name, pascal, place_of, snake, tagged
from raffel_core.route import Origin, Route, make_route


async def handler() -> None: ...


def route(name: str, grpc: Any = None) -> Route:
    made, problems = make_route(
        name, handler, origin=Origin("routes/one.py", {"meta": 3}), procedure=True, meta={"grpc": grpc}
    )
    assert made is not None, problems
    return made


def place(name: str, grpc: Any = None, package: str = "") -> Place:
    found, problems = place_of(route(name, grpc), package)
    assert found is not None, problems
    return found


@pytest.mark.parametrize(
    ("text", "method", "package"),
    [
        ("tail", "Tail", "tail"),
        ("tail-logs", "TailLogs", "tail_logs"),
        ("tail_logs", "TailLogs", "tail_logs"),
        ("tailLogs", "TailLogs", "tail_logs"),
        ("HTTPServer", "HTTPServer", "http_server"),
        ("v2", "V2", "v2"),
        ("2fa", "N2fa", "n2fa"),
        ("-", "U002d", "u002d"),
        ("café", "Cafu00e9", "cafu00e9"),
        ("été", "U00e9tu00e9", "u00e9tu00e9"),
    ],
)
def test_words_are_put_in_the_case_of_the_style_guide(text: str, method: str, package: str) -> None:
    assert (pascal(text), snake(text)) == (method, package)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a", "a"), ("_a1", "_a1"), ("from", "from"), ("größe", "gru00f6u00dfe"), ("x-y", "x_y"), ("1st", "n1st")],
)
def test_an_identifier_stays_as_it_is_where_protobuf_allows_it(text: str, expected: str) -> None:
    assert identifier(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dark_blue", "darkBlue"), ("a__b", "aB"), ("_x", "X"), ("x_", "x"), ("a_1b", "a1b"), ("fooBar", "fooBar")],
)
def test_the_json_name_is_that_of_protobuf(name: str, expected: str) -> None:
    assert json_name(name) == expected


def test_a_tag_is_the_end_of_a_members_name() -> None:
    assert [tagged("shape", tag) for tag in ("Circle", "dark-blue", 2, -2)] == [
        "shape_circle",
        "shape_dark_blue",
        "shape_2",
        "shape_n2",
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("market.prices.watch", "/market.Prices/Watch"),
        ("logs.tail", "/Logs/Tail"),
        ("clock", "/Root/Clock"),
        ("eu.market-data.prices.watch", "/eu.market_data.Prices/Watch"),
        ("users.[id].get", "/Users/Get"),
        ("users.[id]", "/Root/Users"),
        ("files.[...path]", "/Root/Files"),
        ("[id]", "/Root/Id"),
        ("[[page]]", "/Root/Page"),
    ],
)
def test_the_last_segments_of_a_name_are_the_method_and_the_service(name: str, path: str) -> None:
    assert place(name).path == path


def test_the_configured_package_is_put_before_all() -> None:
    assert place("logs.tail", package="acme.v1").path == "/acme.v1.Logs/Tail"
    assert place("a.b.c", package="acme.v1").path == "/acme.v1.a.B/C"


@pytest.mark.parametrize(
    ("grpc", "path"),
    [
        (True, "/acme.market.Prices/Watch"),
        ({"package": "eu.v2"}, "/eu.v2.Prices/Watch"),
        ({"package": ""}, "/Prices/Watch"),
        ({"service": "Quotes"}, "/acme.market.Quotes/Watch"),
        ({"method": "watch_all", "service": "S", "package": "p"}, "/p.S/watch_all"),
        ({}, "/acme.market.Prices/Watch"),
    ],
)
def test_meta_overrides_any_part(grpc: Any, path: str) -> None:
    assert place("market.prices.watch", grpc, "acme").path == path


def test_a_route_may_be_left_out() -> None:
    assert place_of(route("a.b", False)) == (None, [])


@pytest.mark.parametrize(
    ("grpc", "found"),
    [
        ({"name": "x"}, "meta['grpc'] has the unknown key 'name'"),
        ({"service": "a-b"}, "meta['grpc'] has the service 'a-b'"),
        ({"method": ""}, "meta['grpc'] has the method ''"),
        ({"method": "2x"}, "meta['grpc'] has the method '2x'"),
        ({"package": "a..b"}, "meta['grpc'] has the package 'a..b'"),
        ({"package": "é"}, "meta['grpc'] has the package 'é'"),
    ],
)
def test_what_is_wrong_in_meta_is_told_at_its_line(grpc: Any, found: str) -> None:
    nowhere, problems = place_of(route("a.b", grpc))
    assert nowhere is None
    assert [(one.file, one.line, one.found) for one in problems] == [("routes/one.py", 3, found)]
    assert all(isinstance(one, Problem) and one.expected for one in problems)
