"""The lookup of requested names, against the rules and against a search that tries every route."""

from collections.abc import Iterable
from itertools import permutations
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.conflict import Entry, conflicts
from raffel_core.matcher import Match, Matcher
from raffel_core.pattern import Segment, parse_name


def matcher(*names: str) -> Matcher[str]:
    """A matcher whose values are the names of its routes."""
    return Matcher((parse_name(name), name) for name in names)


ROOMS = matcher("clock", "rooms", "rooms.[room].chat", "rooms.lobby.chat", "files.[...rest]", "users.[[id]]")


@pytest.mark.parametrize("name", ["logs.tail", "logs/tail"])
def test_a_static_route_answers_both_forms(name: str) -> None:
    assert matcher("logs.tail").find(name) == Match("logs.tail", {})


def test_the_params_belong_to_the_caller() -> None:
    first = ROOMS.find("clock")
    assert first is not None
    first.params["x"] = "1"
    assert ROOMS.find("clock") == Match("clock", {})


@pytest.mark.parametrize("name", ["rooms.42.chat", "rooms/42/chat"])
def test_a_parameter_takes_one_segment(name: str) -> None:
    assert ROOMS.find(name) == Match("rooms.[room].chat", {"room": "42"})


def test_the_slash_form_lets_a_value_contain_dots() -> None:
    assert ROOMS.find("rooms/a.b/chat") == Match("rooms.[room].chat", {"room": "a.b"})


def test_with_a_slash_dots_separate_nothing() -> None:
    assert ROOMS.find("rooms.42/chat") is None


def test_a_literal_beats_a_parameter() -> None:
    assert ROOMS.find("rooms.lobby.chat") == Match("rooms.lobby.chat", {})


def test_a_parameter_beats_a_catch_all() -> None:
    routes = matcher("[...rest]", "[id]")
    assert routes.find("x") == Match("[id]", {"id": "x"})
    assert routes.find("x.y") == Match("[...rest]", {"rest": "x/y"})


def test_an_earlier_segment_decides_before_a_later_one() -> None:
    routes = matcher("a.[x].[y]", "[z].b.c")
    assert routes.find("a.b.c") == Match("a.[x].[y]", {"x": "b", "y": "c"})


def test_a_search_that_fails_goes_back_to_the_weaker_segment() -> None:
    routes = matcher("a.b.c", "a.[x].d", "[...rest]")
    assert routes.find("a.b.d") == Match("a.[x].d", {"x": "b"})
    assert routes.find("a.b.e") == Match("[...rest]", {"rest": "a/b/e"})


def test_the_nearest_catch_all_answers() -> None:
    routes = matcher("[...all]", "a.[...below]")
    assert routes.find("a.b") == Match("a.[...below]", {"below": "b"})
    assert routes.find("a") == Match("[...all]", {"all": "a"})


def test_a_catch_all_takes_one_segment_or_more_joined_with_slashes() -> None:
    assert ROOMS.find("files.a") == Match("files.[...rest]", {"rest": "a"})
    assert ROOMS.find("files/a.txt/b") == Match("files.[...rest]", {"rest": "a.txt/b"})
    assert ROOMS.find("files") is None


@pytest.mark.parametrize(("name", "params"), [("users", {}), ("users.7", {"id": "7"}), ("users/7", {"id": "7"})])
def test_an_optional_segment_may_be_left_out(name: str, params: dict[str, str]) -> None:
    assert ROOMS.find(name) == Match("users.[[id]]", params)


def test_an_optional_segment_is_at_most_one() -> None:
    assert ROOMS.find("users.7.8") is None


def test_an_optional_segment_can_be_left_out_after_a_parameter() -> None:
    routes = matcher("[a].[[b]]")
    assert routes.find("x") == Match("[a].[[b]]", {"a": "x"})
    assert routes.find("x.y") == Match("[a].[[b]]", {"a": "x", "b": "y"})


@pytest.mark.parametrize(
    "name", ["", ".", "/", "rooms..chat", "rooms//chat", "/clock", "clock/", "clock.", "files//a", "files/"]
)
def test_an_empty_segment_matches_nothing(name: str) -> None:
    assert ROOMS.find(name) is None
    assert ROOMS.find_path(name) is None


def test_an_optional_root_does_not_match_the_empty_name() -> None:
    assert matcher("[[id]]").find("") is None


@pytest.mark.parametrize("name", ["rooms.[room]", "files.[...rest]", "users.[[id]].x", "[id]"])
def test_the_text_of_a_pattern_is_no_name(name: str) -> None:
    assert ROOMS.find(name) is None


def test_the_text_of_a_pattern_is_a_value_like_any_other() -> None:
    assert ROOMS.find("rooms.[room].chat") == Match("rooms.[room].chat", {"room": "[room]"})
    assert ROOMS.find("files/[...rest]") == Match("files.[...rest]", {"rest": "[...rest]"})


def test_case_matters() -> None:
    assert ROOMS.find("Clock") is None


def test_a_url_segment_is_decoded_after_splitting() -> None:
    assert ROOMS.find_path("rooms/a%2Fb/chat") == Match("rooms.[room].chat", {"room": "a/b"})
    assert ROOMS.find_path("rooms.a%2eb.chat") == Match("rooms.[room].chat", {"room": "a.b"})
    assert ROOMS.find_path("rooms%2F42%2Fchat") is None


def test_a_url_may_encode_a_literal() -> None:
    assert ROOMS.find_path("%63lock") == Match("clock", {})


def test_a_url_without_percent_is_a_name() -> None:
    assert ROOMS.find_path("rooms/42/chat") == ROOMS.find("rooms/42/chat")


def test_a_plus_in_a_url_stays_a_plus() -> None:
    assert ROOMS.find_path("rooms/a+b%20c/chat") == Match("rooms.[room].chat", {"room": "a+b c"})


def test_a_url_is_decoded_once() -> None:
    assert ROOMS.find_path("rooms/%2541/chat") == Match("rooms.[room].chat", {"room": "%41"})


def test_an_envelopes_name_is_not_decoded() -> None:
    assert ROOMS.find("rooms/%41/chat") == Match("rooms.[room].chat", {"room": "%41"})


@pytest.mark.parametrize("value", ["%", "%4", "%zz", "100%", "%ff", "%c3", "%ed%a0%80", "%c0%af", "%+1"])
def test_broken_percent_encoding_matches_nothing(value: str) -> None:
    assert ROOMS.find_path(f"rooms/{value}/chat") is None


def test_half_a_surrogate_pair_matches_nothing() -> None:
    assert ROOMS.find("rooms/\ud800/chat") is None
    assert ROOMS.find_path("rooms/\udcff%41/chat") is None


@settings(deadline=None)
@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_any_encoded_value_arrives_as_it_was(value: str) -> None:
    assert ROOMS.find_path(f"rooms/{quote(value, safe='')}/chat") == (
        Match("rooms.[room].chat", {"room": value}) if value != "lobby" else Match("rooms.lobby.chat", {})
    )


@pytest.mark.parametrize("value", ["a" * 506, "é" * 253])
def test_the_longest_name_is_found(value: str) -> None:
    assert ROOMS.find(f"files/{value}") == Match("files.[...rest]", {"rest": value})
    assert ROOMS.find_path(f"files/{quote(value)}") == Match("files.[...rest]", {"rest": value})


@pytest.mark.parametrize("value", ["a" * 507, "é" * 254, "a" * 100_000])
def test_a_longer_name_finds_nothing(value: str) -> None:
    assert ROOMS.find(f"files/{value}") is None
    assert ROOMS.find_path(f"files/{quote(value)}") is None
    assert ROOMS.find_path(f"files/%61{value[1:]}") is None


def test_sixty_four_segments_are_the_most() -> None:
    assert ROOMS.find("files" + "/a" * 63) is not None
    assert ROOMS.find("files" + "/a" * 64) is None


def test_a_long_static_name_is_found_in_both_forms() -> None:
    name = ".".join("a" * 64)
    assert matcher(name).find(name) == matcher(name).find(name.replace(".", "/")) == Match(name, {})


def test_no_routes_answer_nothing() -> None:
    assert matcher().find("a") is None
    assert matcher().explain("a").verdict == "nothing answers"


@pytest.mark.parametrize("names", [("a", "a"), ("a.[x]", "a.[y]"), ("a", "a.[[x]]"), ("[...a]", "[...b]")])
def test_two_entries_for_the_same_names_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="two entries match"):
        matcher(*names)


def test_the_order_of_the_entries_does_not_matter() -> None:
    routes = ["a.b", "a.[x]", "[...rest]", "[y].b"]
    for order in permutations(routes):
        assert [match and match.value for match in map(matcher(*order).find, ("a.b", "a.c", "c.b", "c"))] == [
            "a.b",
            "a.[x]",
            "[y].b",
            "[...rest]",
        ]


def test_later_changes_of_the_callers_list_do_not_reach_a_matcher() -> None:
    entries = [(parse_name("a"), 1)]
    routes = Matcher(entries)
    entries.append((parse_name("b"), 2))
    assert routes.find("b") is None
    assert routes.near("bb") == ()


def test_an_explanation_says_what_answers_and_what_lost() -> None:
    routes = matcher("users.me", "users.[id]", "users.[...rest]", "users.[id].posts", "clock")
    explanation = routes.explain("users/me")
    assert explanation.verdict == "users.me answers"
    assert [tuple(candidate) for candidate in explanation.candidates] == [
        ("users.me", "users.me", True, "every segment is literal"),
        ("users.[id]", "users.[id]", False, "at segment 2 the literal me beats the parameter [id]"),
        ("users.[...rest]", "users.[...rest]", False, "at segment 2 the literal me beats the catch-all [...rest]"),
        ("users.[id].posts", "users.[id].posts", False, "it goes on with posts"),
    ]
    assert explanation.near == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rooms/42/chat", "[room] is '42'"),
        ("files/a/b", "[...rest] is 'a/b'"),
        ("users.7", "[[id]] is '7'"),
        ("users", "[[id]] is left out"),
    ],
)
def test_an_explanation_shows_the_values(name: str, why: str) -> None:
    assert ROOMS.explain(name).candidates[0].why == why


def test_an_explanation_says_where_a_route_stops_matching() -> None:
    explanation = matcher("a", "a.b.c", "a.b.[x].d", "a.b.[...rest]", "z").explain("a.b")
    assert explanation.verdict == "nothing answers"
    assert [(candidate.name, candidate.why) for candidate in explanation.candidates] == [
        ("a.b.[...rest]", "it goes on with [...rest]"),
        ("a.b.[x].d", "it goes on with [x]"),
        ("a.b.c", "it goes on with c"),
        ("a", "it ends before 'b'"),
    ]


def test_an_explanation_names_the_segment_that_differs() -> None:
    candidate = ROOMS.explain("rooms.42.chta").candidates[0]
    assert (candidate.name, candidate.why) == ("rooms.[room].chat", "segment 3 is 'chta', not 'chat'")


def test_where_nothing_answers_near_names_are_given() -> None:
    routes = matcher("logs.tail", "logs.head", "rooms.[room].chat", "clock")
    assert routes.explain("logs.tial").near[0] == "logs.tail"
    assert routes.explain("rooms/42/chta").near == ("rooms.[room].chat",)
    assert routes.explain("Clock").near == ("clock",)
    assert routes.explain("something.else.entirely").near == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a..b", "a segment is empty"),
        ("", "a segment is empty"),
        ("a" * 513, "longer than 512 bytes"),
        (".".join("a" * 65), "more than 64 segments"),
    ],
)
def test_an_explanation_says_what_is_no_name_at_all(name: str, why: str) -> None:
    assert ROOMS.explain(name).verdict == f"nothing answers: {why}"


# The reference: try every route, sort those that match by the rule of the contract.

LITERALS = ("a", "b", "c")
RANKS = {"literal": 0, "parameter": 1, "optional": 1, "rest": 2}


def takes(segments: tuple[Segment, ...], texts: list[str]) -> dict[str, str] | None:
    """The params if these segments match the texts: one segment and one text at a time."""
    if not segments:
        return None if texts else {}
    first = segments[0]
    if first.kind == "rest":
        return {first.text: "/".join(texts)} if texts else None
    if not texts:
        return {} if first.kind == "optional" else None
    if first.kind == "literal" and first.text != texts[0]:
        return None
    rest = takes(segments[1:], texts[1:])
    if rest is None or first.kind == "literal":
        return rest
    return {first.text: texts[0], **rest}


def reference(routes: Iterable[str], texts: list[str]) -> Match[str] | None:
    matches = []
    for name in routes:
        segments = parse_name(name)
        params = takes(segments, texts)
        if params is not None:
            matches.append(([RANKS[segment.kind] for segment in segments], name, params))
    if not matches:
        return None
    _, name, params = min(matches)
    return Match(name, params)


@st.composite
def route_sets(draw: st.DrawFn) -> list[str]:
    """Routes without conflicts: those that would make one are left out."""
    middle = st.sampled_from((*LITERALS, "[{}]"))
    last = st.sampled_from((*LITERALS, "[{}]", "[[{}]]", "[...r]"))
    routes: list[str] = []
    for texts in draw(st.lists(st.tuples(st.lists(middle, max_size=3), last), max_size=14)):
        # A parameter is called by its depth, so that no level has two.
        name = ".".join(text.format(f"p{depth}") for depth, text in enumerate([*texts[0], texts[1]]))
        if not conflicts([Entry(route, parse_name(route), "x.py:1") for route in [*routes, name]]):
            routes.append(name)
    return routes


REQUESTS = st.lists(st.sampled_from((*LITERALS, "x", "[p0]")), min_size=1, max_size=5)


@settings(deadline=None)
@given(route_sets(), st.lists(REQUESTS, min_size=1, max_size=10))
def test_the_matcher_agrees_with_trying_every_route(routes: list[str], requests: list[list[str]]) -> None:
    made = matcher(*routes)
    for texts in requests:
        expected = reference(routes, texts)
        assert made.find(".".join(texts)) == expected
        if len(texts) > 1:
            assert made.find("/".join(texts)) == expected
        assert made.find_path(".".join(f"%{ord(text[0]):02x}{text[1:]}" for text in texts)) == expected


@settings(deadline=None)
@given(route_sets(), REQUESTS)
def test_an_explanation_agrees_with_the_lookup(routes: list[str], texts: list[str]) -> None:
    made = matcher(*routes)
    found = made.find(".".join(texts))
    explanation = made.explain(".".join(texts))
    answering = [candidate.value for candidate in explanation.candidates if candidate.answers]
    assert answering == ([] if found is None else [found.value])


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_the_lookup(text: str) -> None:
    for look in (ROOMS.find, ROOMS.find_path):
        match = look(text)
        assert match is None or match.value
    assert ROOMS.explain(text).verdict
