"""The lock: numbers that stay, numbers that never come back, and what breaks clients."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from hypothesis import given, settings
from hypothesis import strategies as st

from raffel_core.errors import ProjectError
from raffel_core.protobuf.lock import LOCK_NAME, MAX_NUMBER, Lock, Member, write_whole
from raffel_core.protobuf.messages import EVENT_ID_NUMBER
from raffel_core.protobuf.text import Reserved, proto_source
from raffel_core.route import Origin

GOOGLE = str(files("grpc_tools") / "_proto")
BUF = Path(sys.executable).parent / "buf"


class Folder:
    """Compiles sources, and reads and writes locks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def compiled(self, source: str) -> list[FileDescriptorProto]:
        """The file of a source of package `market`, which needs no head."""
        file, out = self.path / "x.proto", self.path / "out"
        file.write_text('syntax = "proto3";\npackage market;\n' + source)
        assert protoc.main(["protoc", f"-I{self.path}", f"-I{GOOGLE}", f"--descriptor_set_out={out}", str(file)]) == 0
        return [*FileDescriptorSet.FromString(out.read_bytes()).file]

    def lock(self, source: str) -> Lock:
        """The lock of a source, as it is read from its file."""
        Lock.of(self.compiled(source)).write(self.path / LOCK_NAME)
        return self.read()

    def written(self, text: str) -> Lock:
        """The lock of a text, which needs no version."""
        (self.path / LOCK_NAME).write_text("version: 1\n" + textwrap.dedent(text).lstrip())
        return self.read()

    def read(self) -> Lock:
        return Lock.read(self.path / LOCK_NAME)

    def problems(self, text: str) -> list[tuple[int, str, str]]:
        with pytest.raises(ProjectError) as raised:
            self.written(text)
        assert {problem.file for problem in raised.value.problems} == {LOCK_NAME}
        return [(problem.line, problem.found, problem.expected) for problem in raised.value.problems]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


MARKET = """
service Prices {
  rpc Watch(Query) returns (stream Tick);
  rpc Send(stream Tick) returns (Query);
}
message Query {
  string symbol = 1;
  optional int64 limit = 2;
  repeated string tags = 4;
}
message Tick {
  double price = 1;
  map<string, double> levels = 2;
  Side side = 3;
  map<int64, Query> queries = 5;
}
message Nothing {}
enum Side {
  SIDE_UNSPECIFIED = 0;
  SIDE_BUY = 1;
  SIDE_SELL = 2;
}
"""
TEXT = """\
version: 1
messages:
  market.Nothing: {}
  market.Query:
    1: string symbol
    2: optional int64 limit
    4: repeated string tags
  market.Tick:
    1: double price
    2: map<string, double> levels
    3: market.Side side
    5: map<int64, market.Query> queries
enums:
  market.Side:
    0: SIDE_UNSPECIFIED
    1: SIDE_BUY
    2: SIDE_SELL
services:
  market.Prices:
    Send: (stream market.Tick) returns (market.Query)
    Watch: (market.Query) returns (stream market.Tick)
"""


def message(lock: Lock, *fields: tuple[str, str], name: str = "m.M") -> FileDescriptorProto:
    """A file with a message of these scalar fields, numbered by the lock; one of the type `id` is an event's id."""
    made = DescriptorProto(name=name.rpartition(".")[2])
    numbered = [field for field in fields if field[1] != "id"]
    numbers = iter(lock.numbering(name, numbered))
    for field, type in fields:
        added = made.field.add(name=field, number=EVENT_ID_NUMBER if type == "id" else next(numbers))
        added.label = FieldDescriptorProto.LABEL_REPEATED if type.startswith("repeated ") else 1
        added.proto3_optional = type == "id" or type.startswith("optional ")
        scalar = "string" if type == "id" else type.split()[-1]
        added.type = FieldDescriptorProto.Type.Value(f"TYPE_{scalar.upper()}")
    return FileDescriptorProto(name="m.proto", package="m", syntax="proto3", message_type=[made])


def locked(lock: Lock, *fields: tuple[str, str]) -> Lock:
    return lock.merged([message(lock, *fields)])


# Numbers


def test_without_a_lock_members_are_numbered_by_their_order() -> None:
    assert [*Lock().numbering("m.M", [("a", "int64"), ("b", "string"), ("c", "")])] == [1, 2, 3]


def test_a_locked_field_keeps_its_number_wherever_it_is_defined() -> None:
    lock = locked(Lock(), ("a", "int64"), ("b", "string"))
    assert [*lock.numbering("m.M", [("b", "string"), ("new", "bool"), ("a", "int64")])] == [2, 3, 1]


def test_numbers_are_those_of_their_own_message() -> None:
    lock = locked(Lock(), ("a", "int64"), ("b", "string"))
    assert [*lock.numbering("m.Other", [("b", "string")])] == [1]


def test_the_number_of_a_removed_field_is_never_given_again() -> None:
    lock = locked(Lock(), ("a", "int64"), ("b", "string"))
    lock = locked(lock, ("a", "int64"))
    assert lock.messages["m.M"] == {1: Member("a", "int64"), 2: Member("b", reserved=True)}
    lock = locked(lock, ("a", "int64"), ("c", "string"))
    assert lock.messages["m.M"][3] == Member("c", "string")


def test_a_removed_field_that_comes_back_has_a_new_number() -> None:
    lock = locked(locked(Lock(), ("a", "int64"), ("b", "string")), ("a", "int64"))
    assert [*lock.numbering("m.M", [("a", "int64"), ("b", "string")])] == [1, 3]
    assert locked(lock, ("a", "int64"), ("b", "string")).reserved["m.M"] == Reserved((2,), ())


def test_a_field_that_is_removed_and_restored_before_it_is_locked_again_keeps_its_number() -> None:
    lock = locked(Lock(), ("a", "int64"), ("b", "string"))
    assert [*lock.numbering("m.M", [("b", "string")])] == [2]
    assert [*lock.numbering("m.M", [("a", "int64"), ("b", "string")])] == [1, 2]


@pytest.mark.parametrize("type", ["string", "repeated int64", "bool", "m.Other", "map<string, int64>"])
def test_a_field_whose_type_changes_has_a_new_number(type: str) -> None:
    lock = locked(Lock(), ("a", "int64"), ("b", "string"))
    assert [*lock.numbering("m.M", [("a", type), ("b", "string")])] == [3, 2]


@pytest.mark.parametrize(("before", "after"), [("int64", "optional int64"), ("optional int64", "int64")])
def test_optional_makes_no_other_type(before: str, after: str) -> None:
    lock = locked(Lock(), ("a", before))
    assert [*lock.numbering("m.M", [("a", after)])] == [1]
    assert locked(lock, ("a", after)).messages["m.M"] == {1: Member("a", after)}


def test_numbers_that_protobuf_keeps_and_that_of_event_ids_are_left_out() -> None:
    lock = Lock({"m.M": {18_997: Member("a", "int64")}})
    assert [*lock.numbering("m.M", [("b", "int64"), ("c", "int64"), ("a", "int64"), ("d", "int64")])] == [
        *(18_998, 20_000, 18_997, 20_001)
    ]


def test_the_event_id_does_not_raise_the_numbers_of_others() -> None:
    lock = locked(Lock(), ("a", "int64"), ("raffel_event_id", "id"))
    assert lock.messages["m.M"][EVENT_ID_NUMBER] == Member("raffel_event_id", "optional string")
    assert [*lock.numbering("m.M", [("a", "int64"), ("b", "int64")])] == [1, 2]


def test_the_event_id_has_its_number_again_after_it_was_gone() -> None:
    lock = locked(Lock(), ("a", "int64"), ("raffel_event_id", "id"))
    without = locked(lock, ("a", "int64"))
    assert without.reserved["m.M"] == Reserved((EVENT_ID_NUMBER,), ("raffel_event_id",))
    assert locked(without, ("a", "int64"), ("raffel_event_id", "id")) == lock
    assert without.breaks([message(without, ("a", "int64"), ("raffel_event_id", "id"))]) == []


def test_where_the_greatest_number_is_used_those_below_are_given() -> None:
    lock = Lock({"m.M": {MAX_NUMBER: Member("a", "int64"), 1: Member("b", reserved=True)}})
    assert [*lock.numbering("m.M", [("c", "int64"), ("d", "int64")])] == [2, 3]


def test_values_of_enums_are_numbered_alike(folder: Folder) -> None:
    lock = folder.lock(MARKET)
    assert [*lock.numbering("market.Side", [("SIDE_SELL", ""), ("SIDE_HOLD", ""), ("SIDE_BUY", "")])] == [2, 3, 1]


def test_a_value_that_was_zero_is_not_given_zero() -> None:
    lock = Lock(enums={"m.E": {0: Member("E_A"), 7: Member("E_B")}})
    assert [*lock.numbering("m.E", [("E_A", ""), ("E_B", "")])] == [8, 7]


Fields = Sequence[tuple[str, str]]
VERSIONS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "d", "e"]),
            st.sampled_from(["int64", "optional int64", "string", "repeated string", "bool"]),
        ),
        unique_by=lambda field: field[0],
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=100)
@given(versions=VERSIONS)
def test_a_number_is_one_field_of_one_type_for_ever(versions: Sequence[Fields]) -> None:
    lock, meanings = Lock(), dict[int, tuple[str, str]]()
    for fields in versions:
        numbers = lock.numbering("m.M", fields)
        assert len({*numbers}) == len(fields)
        for number, (name, type) in zip(numbers, fields, strict=True):
            meaning = (name, type.removeprefix("optional "))
            assert meanings.setdefault(number, meaning) == meaning
        before, lock = lock, locked(lock, *fields)
        assert [*lock.numbering("m.M", fields)] == [*numbers]
        assert before.messages.get("m.M", {}).keys() <= lock.messages.get("m.M", {}).keys()
        assert lock.merged([message(lock, *fields)]) == lock
        assert lock.breaks([message(lock, *fields)]) == []


@settings(deadline=None, max_examples=25)
@given(versions=VERSIONS)
def test_every_version_has_a_source_that_compiles(
    tmp_path_factory: pytest.TempPathFactory, versions: Sequence[Fields]
) -> None:
    folder, lock = Folder(tmp_path_factory.mktemp("version")), Lock()
    for fields in versions:
        (file,) = files = [message(lock, *fields)]
        lock = lock.merged(files)
    for field in file.message_type[0].field:
        if field.proto3_optional:
            field.oneof_index = len(file.message_type[0].oneof_decl)
            file.message_type[0].oneof_decl.add(name=f"_{field.name}")
    source = proto_source(file, reserved=lock.reserved)
    (made,) = folder.compiled(source.partition("package m;")[2])
    gone = {number for one in made.message_type[0].reserved_range for number in range(one.start, one.end)}
    live = {field.number for field in made.message_type[0].field}
    assert gone | live == lock.messages["m.M"].keys()


# The file


def test_an_absent_file_is_an_empty_lock(folder: Folder) -> None:
    assert folder.read() == Lock()


def test_the_text_has_a_line_for_each_number(folder: Folder) -> None:
    lock = folder.lock(MARKET)
    head, version, rest = (folder.path / LOCK_NAME).read_text().partition("version:")
    assert version + rest == TEXT
    assert all(line.startswith("# ") for line in head.splitlines())
    assert "`raffel export proto --lock`" in head
    assert lock == Lock.of(folder.compiled(MARKET))


def test_what_goes_changes_one_line_and_what_comes_adds_one(folder: Folder) -> None:
    lock = folder.lock("message M {\n  int64 a = 1;\n  int64 b = 2;\n}\n")
    merged = lock.merged(folder.compiled("message M {\n  int64 b = 2;\n  map<string, M> c = 3;\n}\n"))
    before, after = lock.source.splitlines(), merged.source.splitlines()
    assert [*set(before) - set(after)] == ["    1: int64 a"]
    assert sorted(set(after) - set(before)) == ["    1: {reserved: a}", "    3: map<string, market.M> c"]


def test_what_is_written_is_read_as_it_was(folder: Folder) -> None:
    lock = folder.lock(MARKET).merged(folder.compiled(MARKET.replace("  SIDE_SELL = 2;\n", "").replace("tags", "t")))
    lock.write(folder.path / LOCK_NAME)
    assert folder.read() == lock
    assert folder.read().source == lock.source


def test_messages_in_messages_are_locked_too(folder: Folder) -> None:
    lock = folder.lock(
        "message A {\n  message B {\n    enum C {\n      X = 0;\n    }\n    C c = 1;\n  }\n  B b = 1;\n}\n"
    )
    assert lock.messages == {"market.A": {1: Member("b", "market.A.B")}, "market.A.B": {1: Member("c", "market.A.B.C")}}
    assert lock.enums == {"market.A.B.C": {0: Member("X")}}


def test_names_that_yaml_takes_for_something_else_are_names(folder: Folder) -> None:
    source = (
        "service Yes {\n  rpc On(No) returns (No);\n  rpc Null(No) returns (No);\n}\nmessage No {\n  string y = 1;\n}\n"
    )
    assert folder.lock(source) == Lock.of(folder.compiled(source))


def test_locks_are_equal_by_their_content_alone(folder: Folder) -> None:
    lock = folder.lock(MARKET)
    (folder.path / LOCK_NAME).write_text(f"\ufeff# Another head.\n\n{TEXT}".replace("\n", "\r\n"), encoding="utf-8")
    assert folder.read() == lock
    assert folder.written("messages: {market.M: {1: string a}}") != folder.written("messages: {market.M: {1: bytes a}}")
    assert lock != TEXT


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("messages:\n  m.M:\n    1: int64 a\n    1: int64 b\n", 5, "1 twice in m.M", "each key once"),
        (
            "messages:\n  m.M:\n    1: int64 a\n    2: string a\n",
            *(5, "a twice in m.M", "one number of it, and others reserved"),
        ),
        ("messages:\n  m.M:\n    x: int64 a\n", 4, "the number x in m.M", "an integer that protobuf allows"),
        ("messages:\n  m.M:\n    0: int64 a\n", 4, "the number 0 in m.M", "an integer that protobuf allows"),
        ("messages:\n  m.M:\n    19000: int64 a\n", 4, "the number 19000 in m.M", "an integer that protobuf allows"),
        (
            "messages:\n  m.M:\n    536870912: int64 a\n",
            *(4, "the number 536870912 in m.M", "an integer that protobuf allows"),
        ),
        ("messages:\n  m.M:\n    1: a\n", 4, "'a' in m.M", "as `int64 size`, or `{reserved: NAME}`"),
        ("messages:\n  m.M:\n    1: {gone: a}\n", 4, "a mapping in m.M", "as `int64 size`, or `{reserved: NAME}`"),
        ("messages:\n  m.M:\n    1: [a]\n", 4, "a list in m.M", "as `int64 size`, or `{reserved: NAME}`"),
        ("messages:\n  m.M: 1\n", 3, "'1' for m.M", "a mapping"),
        ("messages:\n  m-M: {}\n", 3, "'m-M' among the messages", "a full name as market.Tick"),
        ("enums:\n  m.E:\n    1: int64 A\n", 4, "'int64 A' in m.E", "as `SIDE_BUY`, or `{reserved: NAME}`"),
        ("enums:\n  m.E:\n    2147483648: A\n", 4, "the number 2147483648 in m.E", "an integer that protobuf allows"),
        ("services:\n  m.S:\n    A: x\n", 4, "'x' in m.S", "as `(market.Query) returns (stream market.Tick)`"),
        ("services:\n  m.S:\n    A-B: (m.M) returns (m.M)\n", 4, "the method 'A-B' in m.S", "a name"),
        ("fields: {}\n", 2, "the unknown key 'fields'", "version, messages, enums or services"),
        ("? [a]\n: b\n", 2, "a list as a key of the lock", "a name or a number"),
        ("messages: [\n", 3, "no YAML: did not find expected node content", "a lock"),
        ("messages: " + "[" * 100_000, 2, "a value nested too deep", "kinds, names and numbers"),
        (
            "messages:\n  m.M:\n<<<<<<< HEAD\n    1: int64 a\n=======\n    1: int64 b\n>>>>>>> other\n",
            *(4, "a conflict of versions", "both sides' lines, each number once"),
        ),
    ],
)  # fmt: skip
def test_what_is_no_lock_is_a_problem_at_its_line(
    folder: Folder, text: str, line: int, found: str, expected: str
) -> None:
    assert folder.problems(text) == [(line, found, expected)]


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        (b"version: 2\n", 1, "version '2'"),
        (b"messages: {}\n", 1, "no version"),
        (b"", 1, "an empty file"),
        (b"# a head\n", 1, "an empty file"),
        (b"- 1\n", 1, "a list for the lock"),
        (b"version: 1\nmessages: {\xff: {}}\n", 2, "bytes that are not UTF-8"),
        (b"version: \x00\n", 1, "no YAML: "),
    ],
)  # fmt: skip
def test_another_file_under_its_name_is_a_problem(folder: Folder, content: bytes, line: int, found: str) -> None:
    (folder.path / LOCK_NAME).write_bytes(content)
    with pytest.raises(ProjectError) as raised:
        folder.read()
    (problem,) = raised.value.problems
    assert (problem.file, problem.line) == (LOCK_NAME, line)
    assert problem.found.startswith(found)


def test_every_problem_of_a_lock_is_told(folder: Folder) -> None:
    text = "messages:\n  m.M:\n    0: int64 a\n    1: b\nservices:\n  m.S:\n    A: x\nother: 1\n"
    assert [line for line, _, _ in folder.problems(text)] == [4, 5, 8, 9]


def test_a_lock_that_cannot_be_read_is_a_problem(folder: Folder) -> None:
    (folder.path / LOCK_NAME).mkdir()
    with pytest.raises(ProjectError, match=r"proto\.lock: cannot be read \(Is a directory\)"):
        folder.read()


# Writing


@pytest.mark.parametrize("bad", ["file/b", "folder", "long/" + "x" * 300])
def test_nothing_is_written_where_one_file_cannot_be(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=bad) as raised:
        write_whole({tmp_path / "a": "new", tmp_path / bad: "new", tmp_path / "b": "new"})
    assert raised.value.filename == str(tmp_path / bad)
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == ["a", "file"]


def test_a_link_stays_a_link_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_whole({tmp_path / "link": "new"})
    assert os.readlink(tmp_path / "link") == "target"
    assert (tmp_path / "target").read_text() == "new"


# What breaks clients


def breaks(folder: Folder, before: str, after: str, **origins: Origin) -> list[tuple[int, str, str]]:
    lock = folder.lock(before)
    found = lock.breaks(folder.compiled(after), {name.replace("__", "."): origin for name, origin in origins.items()})
    assert all(problem.expected.endswith("`raffel export proto --lock` once no client needs it") for problem in found)
    return [(problem.line, problem.found, problem.expected.partition(",")[0]) for problem in found]


def test_the_same_files_break_nothing(folder: Folder) -> None:
    assert breaks(folder, MARKET, MARKET) == []


def test_without_a_lock_nothing_breaks(folder: Folder) -> None:
    assert folder.read().breaks(folder.compiled(MARKET)) == []


def test_what_is_added_breaks_nothing(folder: Folder) -> None:
    after = MARKET.replace("double price = 1;", "double price = 1;\n  string more = 6;\n  Other other = 7;")
    after = after.replace("SIDE_SELL = 2;", "SIDE_SELL = 2;\n  SIDE_HOLD = 3;") + "message Other {}\nservice New {}\n"
    after = after.replace("service Prices {", "service Prices {\n  rpc Another(Other) returns (Other);")
    assert breaks(folder, MARKET, after) == []


def test_a_field_that_is_gone_or_renamed_breaks_nothing(folder: Folder) -> None:
    after = MARKET.replace("  string symbol = 1;\n", "").replace(
        "repeated string tags = 4", "repeated string labels = 5"
    )
    assert breaks(folder, MARKET, after) == []


def test_a_value_that_is_gone_breaks_nothing(folder: Folder) -> None:
    assert breaks(folder, MARKET, MARKET.replace("  SIDE_SELL = 2;\n", "")) == []


@pytest.mark.parametrize(
    ("before", "after"), [("optional int64 limit", "int64 limit"), ("string symbol", "optional string symbol")]
)
def test_optional_breaks_nothing(folder: Folder, before: str, after: str) -> None:
    assert breaks(folder, MARKET, MARKET.replace(before, after)) == []


def test_a_service_that_is_gone_is_told_once(folder: Folder) -> None:
    after = MARKET[MARKET.index("message Query") :]
    assert breaks(folder, MARKET, after) == [(line_of("  market.Prices:"), "the service market.Prices is gone", "it")]


def test_a_method_that_is_gone_is_told_without_the_messages_that_went_with_it(folder: Folder) -> None:
    after = "service Prices {\n  rpc Watch(Query) returns (stream Query);\n}\nmessage Query {}\n"
    before = after.replace("Watch", "Send") + "message Tick {\n  Part part = 1;\n}\nmessage Part {\n  int64 a = 1;\n}\n"
    before = before.replace("service Prices {", "service Prices {\n  rpc Watch(Query) returns (stream Query);")
    before = before.replace("rpc Send(Query)", "rpc Send(Tick)")
    (problem,) = breaks(folder, before, after)
    assert problem[1:] == ("the method market.Prices.Send is gone", "it")


@pytest.mark.parametrize(
    ("after", "signature"),
    [
        ("rpc Watch(Query) returns (Tick)", "(market.Query) returns (market.Tick)"),
        ("rpc Watch(stream Query) returns (stream Tick)", "(stream market.Query) returns (stream market.Tick)"),
        ("rpc Watch(Tick) returns (stream Tick)", "(market.Tick) returns (stream market.Tick)"),
        ("rpc Watch(Query) returns (stream Query)", "(market.Query) returns (stream market.Query)"),
    ],
)
def test_a_method_with_other_messages_or_streams_is_told(folder: Folder, after: str, signature: str) -> None:
    found = breaks(folder, MARKET, MARKET.replace("rpc Watch(Query) returns (stream Tick)", after))
    was = "(market.Query) returns (stream market.Tick) as in proto.lock"
    assert found == [(line_of("    Watch:"), f"the method market.Prices.Watch is {signature}", was)]


def test_a_message_that_is_gone_with_its_field_is_told(folder: Folder) -> None:
    after = MARKET.replace("  Side side = 3;\n", "")
    after = after[: after.index("enum Side")]
    assert breaks(folder, MARKET, after) == [(line_of("  market.Side:"), "the enum market.Side is gone", "it")]


def test_an_empty_message_that_is_gone_breaks_nothing(folder: Folder) -> None:
    assert breaks(folder, MARKET, MARKET.replace("message Nothing {}\n", "")) == []


def test_a_field_of_another_type_is_told_with_both(folder: Folder) -> None:
    lock = folder.lock(MARKET)
    numbers = lock.numbering("market.Query", [("symbol", "bytes")])
    after = MARKET.replace("string symbol = 1;", f"bytes symbol = {numbers[0]};")
    assert [*numbers] == [5]
    assert breaks(folder, MARKET, after) == [
        (line_of("    1: string symbol"), "the field symbol of market.Query is bytes", "string as in proto.lock")
    ]


def test_a_value_of_another_number_is_told(folder: Folder) -> None:
    found = breaks(folder, MARKET, MARKET.replace("SIDE_SELL = 2;", "SIDE_SELL = 3;"))
    assert found == [(line_of("    2: SIDE_SELL"), "the value SIDE_SELL of market.Side is 3", "2 as in proto.lock")]


def test_a_value_that_has_the_number_of_another_is_told(folder: Folder) -> None:
    (problem,) = breaks(folder, MARKET, MARKET.replace("SIDE_SELL = 2;", "SIDE_HOLD = 2;"))
    assert problem == (
        line_of("    2: SIDE_SELL"),
        "the value SIDE_HOLD of market.Side is 2, which is the number of SIDE_SELL",
        "another number",
    )


def test_a_value_that_has_a_reserved_number_is_told_until_it_is_locked(folder: Folder) -> None:
    lock = folder.lock(MARKET).merged(folder.compiled(MARKET.replace("  SIDE_SELL = 2;\n", "")))
    after = folder.compiled(MARKET.replace("SIDE_SELL = 2;", "SIDE_HOLD = 2;"))
    assert [problem.found for problem in lock.breaks(after)] == [
        "the value SIDE_HOLD of market.Side is 2, which is the number of SIDE_SELL"
    ]
    merged = lock.merged(after)
    assert merged.breaks(after) == []
    assert merged.enums["market.Side"][2] == Member("SIDE_HOLD")


def test_what_is_locked_anew_is_told_no_more(folder: Folder) -> None:
    after = folder.compiled("service Other {\n  rpc Watch(M) returns (M);\n}\nmessage M {\n  int64 a = 1;\n}\n")
    lock = folder.lock(MARKET)
    assert lock.breaks(after)
    merged = lock.merged(after)
    assert merged.breaks(after) == []
    assert merged.services == {"market.Other": {"Watch": "(market.M) returns (market.M)"}}


def test_a_message_that_is_gone_keeps_its_numbers_for_ever(folder: Folder) -> None:
    lock = folder.lock(MARKET).merged([])
    assert {*lock.messages} == {"market.Query", "market.Tick"}
    assert [*lock.numbering("market.Query", [("symbol", "string")])] == [5]
    assert lock.merged([]) == lock


def test_a_problem_is_at_the_route_that_has_it(folder: Folder) -> None:
    lock = folder.lock(MARKET)
    after = MARKET.replace("double price = 1", "string price = 6").replace("returns (Query)", "returns (Tick)")
    watch = Origin("routes/watch.stream.py", {"handler": 7})
    send = Origin("routes/send.stream.py", {"handler": 9})
    found = lock.breaks(
        folder.compiled(after.replace("SIDE_SELL = 2", "SIDE_SELL = 3")),
        {"market.Prices.Watch": watch, "market.Prices.Send": send},
    )
    assert {(problem.file, problem.line, problem.found) for problem in found} == {
        ("routes/send.stream.py", 9, "the method market.Prices.Send is (stream market.Tick) returns (market.Tick)"),
        ("routes/send.stream.py", 9, "the field price of market.Tick is string"),
        ("routes/send.stream.py", 9, "the value SIDE_SELL of market.Side is 3"),
    }


def line_of(start: str) -> int:
    """The line of the market's lock that starts so, below its two lines of head."""
    return next(number for number, line in enumerate(TEXT.splitlines(), 3) if line.startswith(start))


def broken_by_buf(folder: Folder, old: str, new: str) -> bool:
    """Whether buf finds anything between two sources, by its rules WIRE_JSON."""
    for side, source in (("old", old), ("new", new)):
        (folder.path / side).mkdir()
        (folder.path / side / "x.proto").write_text(source)
        (folder.path / side / "buf.yaml").write_text("version: v2\nbreaking: {use: [WIRE_JSON]}\n")
    command = [BUF, "breaking", "new", "--against", "old"]
    result = subprocess.run(command, cwd=folder.path, capture_output=True, text=True, timeout=50)
    assert result.returncode in (0, 100), result.stderr
    return result.returncode == 100


@pytest.mark.parametrize(
    ("before", "after", "ours"),
    [
        ("string symbol = 1;", "", False),
        ("string symbol = 1;", "string name = 5;", False),
        ("string symbol = 1;", "bytes symbol = 5;", True),
        ("repeated string tags = 4;", "string tags = 5;", True),
        ("optional int64 limit = 2;", "int64 limit = 2;", False),
        ("  SIDE_SELL = 2;\n", "", False),
        ("SIDE_SELL = 2;", "SIDE_SELL = 3;", True),
        ("SIDE_SELL = 2;", "SIDE_HOLD = 2;", True),
        ("returns (stream Tick)", "returns (Tick)", True),
        ("rpc Watch(Query)", "rpc Watch(Tick)", True),
    ],
)
def test_buf_finds_broken_what_we_say_is_broken(folder: Folder, before: str, after: str, ours: bool) -> None:
    lock, (old,) = folder.lock(MARKET), folder.compiled(MARKET)
    (new,) = folder.compiled(MARKET.replace(before, after))
    assert bool(lock.breaks([new])) == ours
    source = proto_source(new, reserved=lock.merged([new]).reserved)
    assert broken_by_buf(folder, proto_source(old), source) == ours
