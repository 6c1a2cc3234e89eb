"""Names and their segments."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.pattern import IllegalName, Kind, Segment, alternatives, join, parse_name, shape

CHARACTERS = "abzAZ019_-éß日नि"
MIDDLE: tuple[Kind, ...] = ("literal", "parameter")
LAST: tuple[Kind, ...] = (*MIDDLE, "rest", "optional")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=6).map(lambda text: unicodedata.normalize("NFC", text))


@st.composite
def names(draw: st.DrawFn) -> tuple[Segment, ...]:
    texts = draw(st.lists(TEXTS, min_size=1, max_size=6, unique=True))
    kinds: list[Kind] = [draw(st.sampled_from(MIDDLE)) for _ in texts]
    kinds[-1] = draw(st.sampled_from(LAST))
    return tuple(Segment(text, kind) for text, kind in zip(texts, kinds, strict=True))


def test_every_kind_of_segment_is_read() -> None:
    assert parse_name("rooms.[room].chat") == (
        Segment("rooms", "literal"),
        Segment("room", "parameter"),
        Segment("chat", "literal"),
    )
    assert parse_name("files.[...rest]")[-1] == Segment("rest", "rest")
    assert parse_name("users.[[id]]")[-1] == Segment("id", "optional")


def test_a_single_segment_is_a_name() -> None:
    assert parse_name("clock") == (Segment("clock", "literal"),)


@settings(deadline=None)
@given(names())
def test_a_joined_name_reads_back(segments: tuple[Segment, ...]) -> None:
    assert parse_name(join(segments)) == segments


@pytest.mark.parametrize("text", ["Straße", "日本", "user-id", "user_id", "2024", "हिन्दी", "_internal"])
def test_letters_digits_underscore_and_hyphen_are_legal(text: str) -> None:
    assert parse_name(text) == (Segment(text, "literal"),)


def test_letters_are_composed() -> None:
    assert parse_name("cafe\u0301") == (Segment("caf\u00e9", "literal"),)


@pytest.mark.parametrize(
    "character", [" ", "%", "?", "#", "/", "\\", ":", "&", "+", "@", "\0", "\n", "\u200b", "²", "(", "🚀"]
)
def test_other_characters_are_named_and_refused(character: str) -> None:
    with pytest.raises(ValueError, match="contains") as caught:
        parse_name(f"a{character}b")
    assert repr(character) in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "a..b", ".a", "a.", "[]", "[...]", "[[]]", "a.[].b"])
def test_an_empty_segment_is_refused(name: str) -> None:
    with pytest.raises(IllegalName, match="empty"):
        parse_name(name)


@pytest.mark.parametrize(
    "name", ["[id", "id]", "[[id]", "[id]]", "x[id]", "[id]x", "[..id]", "[[...id]]", "[a][b]", "[", "]"]
)
def test_crooked_brackets_are_refused_with_the_right_forms(name: str) -> None:
    with pytest.raises(IllegalName) as caught:
        parse_name(f"a.{name}")
    assert caught.value.expected == "[id], [...rest] or [[id]] as a whole segment"


@pytest.mark.parametrize("name", ["[...rest].a", "a.[[id]].b", "[[id]].[...rest]"])
def test_nothing_follows_a_catch_all_or_an_optional(name: str) -> None:
    with pytest.raises(IllegalName, match="not the last segment"):
        parse_name(name)


@pytest.mark.parametrize("name", ["[id].[id]", "[id].a.[[id]]", "[id].[...id]"])
def test_two_parameters_of_one_name_are_refused(name: str) -> None:
    with pytest.raises(IllegalName, match="are named 'id'"):
        parse_name(name)


def test_a_literal_may_have_the_name_of_a_parameter() -> None:
    assert [segment.kind for segment in parse_name("id.[id]")] == ["literal", "parameter"]


def test_the_longest_name_is_legal() -> None:
    assert len(parse_name("a" * 512)) == 1
    assert len(parse_name(".".join("a" * 64))) == 64


@pytest.mark.parametrize("name", ["a" * 513, "é" * 257, ".".join("a" * 65)])
def test_a_name_that_could_never_be_asked_for_is_refused(name: str) -> None:
    with pytest.raises(IllegalName, match="at most"):
        parse_name(name)


def test_an_illegal_name_says_what_was_found_and_expected() -> None:
    with pytest.raises(IllegalName) as caught:
        parse_name("a b")
    assert str(caught.value) == "the segment 'a b' contains ' '; expected letters, digits, '_' and '-'"


def test_an_optional_segment_is_two_names() -> None:
    assert [join(name) for name in alternatives(parse_name("users.[[id]]"))] == ["users", "users.[id]"]
    assert alternatives(parse_name("users.[id]")) == (parse_name("users.[id]"),)


def test_a_name_that_is_nothing_but_optional_is_one_name() -> None:
    assert alternatives(parse_name("[[id]]")) == (parse_name("[id]"),)


def test_names_of_one_shape_differ_only_in_their_parameters() -> None:
    assert shape(parse_name("a.[b].[...c]")) == shape(parse_name("a.[x].[...y]"))
    assert len({shape(parse_name(name)) for name in ("a.b", "a.[b]", "a.[...b]", "[a].b", "b.a")}) == 5
