"""A path inside the routes folder, and the name it stands for."""

from pathlib import PurePosixPath

import pytest

from raffel_core.discovery.naming import is_private, meant, route_name
from raffel_core.pattern import IllegalName, parse_name


def name_of(path: str) -> str:
    named = route_name(PurePosixPath(path))
    assert named is not None
    return named.name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("logs/tail.stream.py", "logs.tail"),
        ("clock.stream.py", "clock"),
        ("users/create.rpc.py", "users.create"),
        ("a/b/c/d.stream.py", "a.b.c.d"),
        ("rooms/[room]/chat.stream.py", "rooms.[room].chat"),
        ("users/[id].stream.py", "users.[id]"),
        ("users/[[id]].stream.py", "users.[[id]]"),
        ("files/[...rest].stream.py", "files.[...rest]"),
    ],
)
def test_the_path_is_the_name_joined_with_dots(path: str, name: str) -> None:
    assert name_of(path) == name


def test_the_segments_are_those_of_the_name() -> None:
    named = route_name(PurePosixPath("rooms/[room]/[...rest].stream.py"))
    assert named is not None
    assert named.segments == parse_name("rooms.[room].[...rest]")


@pytest.mark.parametrize(("path", "procedure"), [("a.stream.py", False), ("a.rpc.py", True)])
def test_the_suffix_is_the_kind(path: str, procedure: bool) -> None:
    named = route_name(PurePosixPath(path))
    assert named is not None
    assert named.procedure is procedure


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("users/index.stream.py", "users"),
        ("users/index.rpc.py", "users"),
        ("users/[id]/index.stream.py", "users.[id]"),
        ("files/[...rest]/index.stream.py", "files.[...rest]"),
        ("index/index.stream.py", "index"),
        ("index/tail.stream.py", "index.tail"),
        ("[index].stream.py", "[index]"),
    ],
)
def test_an_index_is_its_folders_name(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("(admin)/users/list.stream.py", "users.list"),
        ("users/(admin)/list.stream.py", "users.list"),
        ("(a)/(b)/clock.stream.py", "clock"),
        ("(v1.2 beta)/clock.stream.py", "clock"),
        ("users/(admin)/index.stream.py", "users"),
    ],
)
def test_groups_do_not_count(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize("path", ["index.stream.py", "(admin)/index.rpc.py"])
def test_an_index_of_the_routes_folder_has_no_name(path: str) -> None:
    with pytest.raises(IllegalName, match="index"):
        route_name(PurePosixPath(path))


@pytest.mark.parametrize(
    "path",
    [
        "_draft.stream.py",
        ".tail.stream.py",
        ".stream.py",
        "_drafts/tail.stream.py",
        ".git/tail.stream.py",
        "__pycache__/tail.stream.py",
        "users/_old/deep/tail.rpc.py",
        "_middleware.py",
        "_bad name/a b.stream.py",
    ],
)
def test_what_starts_with_underscore_or_dot_is_no_route(path: str) -> None:
    assert route_name(PurePosixPath(path)) is None


@pytest.mark.parametrize(
    "path", ["helper.py", "stream.py", "tail.stream.pyc", "tail.stream", "tail.stream.py~", "a b.py"]
)
def test_other_files_are_no_route(path: str) -> None:
    assert route_name(PurePosixPath(path)) is None


@pytest.mark.parametrize(
    ("path", "segment"),
    [
        ("a.b.stream.py", "a.b"),
        ("a.rpc.py.stream.py", "a.rpc.py"),
        ("a.stream.py.rpc.py", "a.stream.py"),
        ("v1.0/tail.stream.py", "v1.0"),
        ("my logs/tail.stream.py", "my logs"),
        ("50%.stream.py", "50%"),
        ("what?.rpc.py", "what?"),
        ("a#b.rpc.py", "a#b"),
        ("a\tb.rpc.py", "a\tb"),
        ("(admin).stream.py", "(admin)"),
        ("(admin/tail.stream.py", "(admin"),
        ("()/tail.stream.py", "()"),
        ("(a)b/tail.stream.py", "(a)b"),
        ("[id/tail.stream.py", "[id"),
        ("user-[id]/tail.stream.py", "user-[id]"),
    ],
)
def test_an_illegal_segment_is_refused_by_name(path: str, segment: str) -> None:
    with pytest.raises(IllegalName) as caught:
        route_name(PurePosixPath(path))
    assert repr(segment) in caught.value.found


def test_a_dot_in_a_file_name_is_answered_with_folders() -> None:
    with pytest.raises(IllegalName, match="a folder for each segment"):
        route_name(PurePosixPath("users.list.stream.py"))


@pytest.mark.parametrize(
    "path", ["[...rest]/tail.stream.py", "users/[[id]]/posts.rpc.py", "[...rest]/[id]/index.stream.py"]
)
def test_a_catch_all_or_an_optional_must_be_last(path: str) -> None:
    with pytest.raises(IllegalName, match="not the last segment"):
        route_name(PurePosixPath(path))


@pytest.mark.parametrize(("name", "private"), [("_x", True), (".x", True), ("__pycache__", True), ("x_", False)])
def test_underscore_and_dot_make_a_name_private(name: str, private: bool) -> None:
    assert is_private(name) is private


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("tail.streams.py", "tail.stream.py"),
        ("tail.Stream.py", "tail.stream.py"),
        ("tail.stream.PY", "tail.stream.py"),
        ("tail.steam.py", "tail.stream.py"),
        ("tail.straem.py", "tail.stream.py"),
        ("Tail.STREAM.py", "Tail.stream.py"),
        ("[...rest].streams.py", "[...rest].stream.py"),
        ("create.rcp.py", "create.rpc.py"),
        ("create.rpcs.py", "create.rpc.py"),
        ("create.RPC.py", "create.rpc.py"),
        ("_middlewares.py", "_middleware.py"),
        ("_Middleware.py", "_middleware.py"),
        ("_midleware.py", "_middleware.py"),
        ("_auths.py", "_auth.py"),
        ("_AUTH.py", "_auth.py"),
        ("_apps.py", "_app.py"),
    ],
)
def test_a_slip_of_the_pen_is_understood(typed: str, right: str) -> None:
    assert meant(typed) == right


@pytest.mark.parametrize(
    "name",
    [
        "tail.stream.py",
        "create.rpc.py",
        "_middleware.py",
        "_auth.py",
        "_app.py",
        "__init__.py",
        "helper.py",
        "streams.py",
        "stream.py",
        "tail_stream.py",
        "tail.streams.pyc",
        "tail.streams.txt",
        "tail.test.py",
        "tail.old.py",
        "tail.master.py",
        "_oauth.py",
        "_author.py",
        "_api.py",
        "_map.py",
        "_middleware_helpers.py",
        ".tail.streams.py",
        "İ.py",
    ],
)
def test_any_other_name_is_taken_as_it_is(name: str) -> None:
    assert meant(name) is None
