"""Conflicts between routes, wherever they were declared."""

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.conflict import RESERVED, Entry, conflicts
from raffel_core.errors import Problem
from raffel_core.pattern import parse_name


def entries(*names: str, procedure: bool = False) -> list[Entry]:
    """One entry a name, each declared in a file of its own: a.py, b.py, ..."""
    return [Entry(name, parse_name(name), f"{chr(97 + at)}.py:{at + 1}", procedure) for at, name in enumerate(names)]


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_different_names_are_no_conflict() -> None:
    assert conflicts(entries("a", "b", "a.b", "a.[id]", "a.[id].c", "[x]", "[...rest]", "b.[other]")) == []


def test_one_name_twice_names_both_places() -> None:
    assert conflicts(entries("users.list", "users.list")) == [
        Problem(
            "b.py",
            2,
            "two routes are named 'users.list': a stream here and a stream at a.py:1",
            "one route for each name",
        )
    ]


def test_a_stream_and_a_procedure_may_not_share_a_name() -> None:
    stream = Entry("users.list", parse_name("users.list"), "a.py:1")
    procedure = Entry("users.list", parse_name("users.list"), "b.py:1", procedure=True)
    assert "a procedure here and a stream at a.py:1" in only(conflicts([stream, procedure])).found


def test_a_name_three_times_is_reported_at_each_later_one() -> None:
    assert [problem.file for problem in conflicts(entries("a", "a", "a"))] == ["b.py", "c.py"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Users.list", "users.list"),
        ("users.LIST", "users.list"),
        ("É", "é"),
        ("Users.[id]", "users.[id]"),
        ("Users", "users.[[id]]"),
        ("A.[...rest]", "a.[...rest]"),
    ],
)
def test_names_that_differ_only_in_case_conflict(first: str, second: str) -> None:
    problem = only(conflicts(entries(first, second)))
    assert problem.file == "b.py"
    assert "a.py:1" in problem.found
    assert "only in case" in problem.found


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("users", "users.[[id]]", "users"),
        ("users.[[id]]", "users", "users"),
        ("users.[id]", "users.[[id]]", "users.[id]"),
        ("[a].[[b]]", "[a]", "[a]"),
        ("[[a]]", "[a].[[b]]", "[a]"),
        ("files.[...rest]", "files.[...path]", "files.[...path]"),
    ],
)
def test_two_routes_for_the_same_names_conflict(first: str, second: str, both: str) -> None:
    problem = only(conflicts(entries(first, second)))
    assert problem.found == f"{second!r} and {first!r} at a.py:1 both match {both!r}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("users.[id]", "users.[name]"),
        ("users.[id].posts", "users.[name].likes"),
        ("users.[id].posts", "users.[[name]]"),
        ("a.[x].b.[y]", "a.[x].b.[z].c"),
        ("users.[id]", "users.[ID]"),
    ],
)
def test_parameters_of_different_names_at_one_level_conflict(first: str, second: str) -> None:
    problem = only(conflicts(entries(first, second)))
    assert "a.py:1" in problem.found
    assert problem.expected == "one name for the parameters at one level"


def test_every_level_that_differs_is_reported() -> None:
    assert len(conflicts(entries("[a].[b]", "[x].[y]"))) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("users.[id]", "rooms.[room]"),
        ("users.[id].a", "users.[id].b"),
        ("users.[id].posts", "users.[[id]]"),
        ("users.[id]", "users.[...rest]"),
        ("users.[[id]]", "users.[...rest]"),
        ("users", "users.[...rest]"),
        ("[a].x", "y.[b]"),
        ("Users.list", "users.create"),
    ],
)
def test_routes_that_the_rules_can_tell_apart_are_no_conflict(names: tuple[str, ...]) -> None:
    assert conflicts(entries(*names)) == []


@pytest.mark.parametrize("first", sorted(RESERVED))
def test_a_procedure_may_not_begin_with_a_path_of_the_server(first: str) -> None:
    for name in (first, f"{first}.build"):
        problem = only(conflicts(entries(name, procedure=True)))
        assert problem.found == f"the procedure {name!r} begins with the server's own path /{first}"


def test_the_contract_reserves_six_paths() -> None:
    assert {"streams", "rpc", "ws", "docs", "health", "metrics"} == RESERVED


def test_reserved_paths_are_those_configured() -> None:
    assert conflicts(entries("rpc.x", procedure=True), {"jsonrpc"}) == []
    assert len(conflicts(entries("jsonrpc.x", procedure=True), {"jsonrpc"})) == 1


def test_a_stream_may_begin_with_a_path_of_the_server() -> None:
    assert conflicts(entries("docs.build", "health")) == []


@pytest.mark.parametrize("name", ["[any].x", "[...rest]", "[[docs]]", "my.docs", "docs2"])
def test_a_procedure_that_only_might_match_a_reserved_path_is_legal(name: str) -> None:
    assert conflicts(entries(name, procedure=True)) == []


def test_one_file_is_reported_in_the_order_of_its_lines() -> None:
    name = parse_name("a")
    made = [Entry("a", name, f"app.py:{line}") for line in (100, 9, 20)]
    assert [problem.line for problem in conflicts(made)] == [20, 100]


def test_an_origin_without_a_line_is_its_first_line() -> None:
    name = parse_name("docs")
    assert only(conflicts([Entry("docs", name, "<stdin>", procedure=True)]))[:2] == ("<stdin>", 1)


def test_the_order_of_the_entries_does_not_matter() -> None:
    made = entries("users.[id]", "users.[name]", "Users.[id]", "users.[[id]]")
    assert len({tuple(conflicts(order)) for order in permutations(made)}) == 1


SEGMENTS = st.sampled_from(["a", "A", "b", "[x]", "[y]"])
LAST = SEGMENTS | st.sampled_from(["[...x]", "[[x]]"])
NAMES = st.lists(SEGMENTS, max_size=2).flatmap(
    lambda texts: LAST.map(lambda last: ".".join([*texts, last])).filter(_legal),
)


def _legal(name: str) -> bool:
    try:
        return bool(parse_name(name))
    except ValueError:
        return False


@settings(deadline=None)
@given(st.lists(NAMES, max_size=6))
def test_routes_conflict_if_two_of_them_do(names: list[str]) -> None:
    made = entries(*names)
    later = {problem.file for pair in combinations(made, 2) for problem in conflicts(pair)}
    told = {problem.file for problem in conflicts(made)}
    assert told <= later
    assert bool(told) == bool(later)
