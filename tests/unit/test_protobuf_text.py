"""The source of a package, judged by protoc, which makes the same descriptors of it, and by buf."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raffel_core.protobuf.standard import HEALTH, REFLECTION_V1, REFLECTION_V1ALPHA, STATUS
from raffel_core.protobuf.text import Reserved, proto_source

GOOGLE = str(files("grpc_tools") / "_proto")
BUF = Path(sys.executable).parent / "buf"


def compiled(folder: Path, source: str, name: str = "x.proto") -> FileDescriptorProto:
    """What protoc makes of a source, without the names in JSON that it gives every field by itself."""
    file, out = folder / name, folder / "out"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    status = protoc.main(["protoc", f"-I{folder}", f"-I{GOOGLE}", f"--descriptor_set_out={out}", str(file)])
    assert status == 0, f"protoc refuses it:\n{source}"
    (made,) = FileDescriptorSet.FromString(out.read_bytes()).file
    for message in messages(made.message_type):
        for field in message.field:
            if field.json_name == re.sub("_+(.)?", lambda match: (match[1] or "").upper(), field.name):
                field.ClearField("json_name")
    return made


def messages(given: Iterable[DescriptorProto]) -> Iterator[DescriptorProto]:
    for message in given:
        yield message
        yield from messages(message.nested_type)


def dedented(source: str) -> str:
    return textwrap.dedent(source).lstrip()


EVERYTHING = dedented(
    """
    syntax = "proto3";

    package market.v1;

    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";

    option deprecated = true;
    option go_package = "example.com/market;\\"market\\"";

    service Prices {
      option deprecated = true;

      rpc Watch(Query) returns (stream Tick);
      rpc Send(stream Tick) returns (google.protobuf.Value);

      rpc Trade(stream Tick) returns (stream Tick) {
        option deprecated = true;
        option idempotency_level = NO_SIDE_EFFECTS;
      }
    }

    service Root {}

    message Query {
      reserved 2, 4 to 7, 19000 to max;
      reserved "after", "before";

      repeated string symbols = 1;
      optional int64 limit = 3 [deprecated = true];
    }

    message Tick {
      enum Kind {
        option allow_alias = true;

        reserved -2 to -1, 5 to max;
        reserved "KIND_OTHER";

        KIND_UNSPECIFIED = 0;
        KIND_TRADE = 1;
        KIND_DEAL = 1 [deprecated = true];
        KIND_NEGATIVE = -3;
      }

      message Level {
        double price = 1;

        oneof next {
          Tick.Level level = 2;
          Tick tick = 3;
        }
      }

      google.protobuf.Timestamp at = 1;
      Tick.Kind kind = 2;
      map<string, Tick.Level> levels = 3;
      map<int64, double> sizes = 4;

      oneof source {
        Side side = 5;
        bytes raw = 6;
      }

      optional Side other = 7;

      float ratio = 8 [
        json_name = "quota",
        deprecated = true
      ];

      google.protobuf.Value extra = 18999;
    }

    message Empty {}

    enum Side {
      SIDE_UNSPECIFIED = 0;
      SIDE_BUY = 1;
    }
    """
)


def test_a_source_in_our_form_comes_back_as_it_was(tmp_path: Path) -> None:
    assert proto_source(compiled(tmp_path, EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize("file", [HEALTH, REFLECTION_V1, REFLECTION_V1ALPHA, STATUS], ids=lambda file: file.package)
def test_the_files_that_every_server_shares_compile_to_themselves(tmp_path: Path, file: FileDescriptorProto) -> None:
    assert compiled(tmp_path, proto_source(file), file.name) == file


def test_imports_are_in_order(tmp_path: Path) -> None:
    file = FileDescriptorProto(
        name="x.proto", syntax="proto3", dependency=[timestamp_pb2.DESCRIPTOR.name, struct_pb2.DESCRIPTOR.name]
    )
    lines = proto_source(file).splitlines()
    assert lines == [
        'syntax = "proto3";',
        "",
        'import "google/protobuf/struct.proto";',
        'import "google/protobuf/timestamp.proto";',
    ]


# Names


def test_a_type_is_named_from_the_root_where_its_name_would_be_taken_for_another(tmp_path: Path) -> None:
    source = dedented(
        """
        syntax = "proto3";

        package acme.google;

        import "google/protobuf/struct.proto";

        message A {
          message B {}

          B inner = 1;
          .acme.google.B outer = 2;
          .google.protobuf.Value value = 3;
        }

        message B {}
        """
    )
    written = proto_source(compiled(tmp_path, source))
    assert "  A.B inner = 1;\n  .acme.google.B outer = 2;\n  .google.protobuf.Value value = 3;\n" in written
    assert compiled(tmp_path, written) == compiled(tmp_path, source)


@pytest.mark.parametrize("name", ["string", "message", "reserved", "optional", "map", "stream", "option", "group"])
def test_a_type_named_as_a_word_of_the_language_is_named_from_the_root(tmp_path: Path, name: str) -> None:
    source = dedented(
        f"""
        syntax = "proto3";

        service Root {{
          rpc Call(.{name}) returns (stream .{name});
        }}

        message {name} {{
          .{name} a = 1;
          repeated .{name} b = 2;
          map<string, .{name}> c = 3;

          oneof d {{
            .{name} e = 4;
          }}
        }}
        """
    )
    assert proto_source(compiled(tmp_path, source)) == source


def test_a_message_may_have_the_name_of_a_method(tmp_path: Path) -> None:
    source = (
        PLAIN.replace("rpc Set", "rpc Time").replace("(Time)", "(.Time)").replace("(stream Time)", "(stream .Time)")
    )
    assert proto_source(compiled(tmp_path, source)) == source


# Generated files

WORDS = [
    *("Tick", "Root", "Value", "google", "protobuf", "string", "int64", "message", "enum", "map", "oneof", "option"),
    *("optional", "repeated", "reserved", "stream", "returns", "rpc", "a", "b", "dark_blue", "x1", "syntax", "true"),
]
SCALARS = [*range(1, 10), *range(12, 14), *range(15, 19)]
NUMBERS = [1, 2, 3, 5, 16, 18_999, 20_000, 2**29 - 1]
KEYS = [3, 4, 5, 8, 9, 13, 17]
IMPORTED = {
    ".google.protobuf.Value": struct_pb2.DESCRIPTOR.name,
    ".google.protobuf.Timestamp": timestamp_pb2.DESCRIPTOR.name,
}


class Generator:
    """A random file: first the names of its types, which may be any words of the language, then what is in them."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.package = draw(
            st.sampled_from(["", "a", "a.b", "google", "a.google", "string", "a.message.map", "Tick.a"])
        )
        self.file = FileDescriptorProto(name="x.proto", package=self.package or None, syntax="proto3")
        self.types: dict[str, int] = dict.fromkeys(IMPORTED, FieldDescriptorProto.TYPE_MESSAGE)
        self.names: dict[str, list[str]] = {}
        self.values = 0

    def made(self) -> FileDescriptorProto:
        taken = {"google", "protobuf", "a", "string", "Tick"} if self.package.count(".") == 0 else {"google"}
        outer = f".{self.package}" if self.package else ""
        services, *types = self.words(1, 5, taken)
        self.scope(self.file.message_type, self.file.enum_type, types, outer, 2)
        for message in self.file.message_type:
            self.fields(message, f"{outer}.{message.name}")
        service = self.file.service.add(name=services)
        requests = [name for name, kind in self.types.items() if kind == FieldDescriptorProto.TYPE_MESSAGE]
        for name in self.words(0, 4, set()):
            request, response = self.draw(st.sampled_from(requests)), self.draw(st.sampled_from(requests))
            method = service.method.add(name=name, input_type=request, output_type=response)
            if self.draw(st.booleans()):
                method.client_streaming = True
            if self.draw(st.booleans()):
                method.server_streaming = True
        used = str(self.file)
        self.file.dependency.extend(sorted(path for name, path in IMPORTED.items() if f'"{name}"' in used))
        return self.file

    def words(self, least: int, most: int, taken: set[str]) -> list[str]:
        free = [word for word in WORDS if word not in taken]
        drawn: list[str] = self.draw(st.lists(st.sampled_from(free), min_size=least, max_size=most, unique=True))
        return drawn

    def scope(self, messages: Any, enums: Any, names: list[str], outer: str, depth: int) -> None:
        for name in names:
            full = f"{outer}.{name}"
            if self.draw(st.booleans()):
                self.enum(enums.add(name=name))
                self.types[full] = FieldDescriptorProto.TYPE_ENUM
                continue
            message = messages.add(name=name)
            self.types[full] = FieldDescriptorProto.TYPE_MESSAGE
            words = self.words(0, 8, set())
            inner = self.draw(st.integers(0, len(words) // 2)) if depth else 0
            self.names[full] = words[inner:]
            self.scope(message.nested_type, message.enum_type, words[:inner], full, depth - 1)

    def enum(self, enum: EnumDescriptorProto) -> None:
        numbers = self.draw(st.lists(st.integers(-(2**31), 2**31 - 1).filter(bool), max_size=3, unique=True))
        for number in [0, *numbers]:
            self.values += 1
            enum.value.add(name=f"V{self.values}", number=number)

    def fields(self, message: DescriptorProto, full: str) -> None:
        for nested in message.nested_type:
            self.fields(nested, f"{full}.{nested.name}")
        numbers = iter(self.draw(st.permutations(NUMBERS)))
        optional, oneof = [], False
        for name in self.names[full]:
            kind = self.draw(st.sampled_from(["plain", "optional", "repeated", "map", "oneof", "member"]))
            field = message.field.add(name=name, number=next(numbers), label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind == "map":
                self.map(message, field, full)
                oneof = False
                continue
            self.type(field)
            if kind == "repeated":
                field.label = FieldDescriptorProto.LABEL_REPEATED
            elif kind == "optional":
                field.proto3_optional = True
                optional.append(field)
            elif kind == "oneof" or (kind == "member" and oneof):
                if kind == "oneof":
                    message.oneof_decl.add(name=f"one_of_{name}")
                field.oneof_index = len(message.oneof_decl) - 1
            oneof = kind == "oneof" or (kind == "member" and oneof)
        for field in optional:
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")

    def map(self, message: DescriptorProto, field: FieldDescriptorProto, full: str) -> None:
        name = "".join(word[0].upper() + word[1:] for word in field.name.split("_")) + "Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=self.draw(st.sampled_from(KEYS)))
        self.type(entry.field.add(name="value", number=2, label=1))
        field.label = FieldDescriptorProto.LABEL_REPEATED
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f"{full}.{name}"

    def type(self, field: FieldDescriptorProto) -> None:
        kind = self.draw(st.sampled_from([*SCALARS, *self.types]))
        if isinstance(kind, int):
            field.type = kind
        else:
            field.type, field.type_name = self.types[kind], kind


@st.composite
def generated(draw: Any) -> FileDescriptorProto:
    return Generator(draw).made()


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=generated())
def test_every_file_compiles_to_itself(tmp_path: Path, file: FileDescriptorProto) -> None:
    assert compiled(tmp_path, proto_source(file)) == file


@settings(deadline=None, max_examples=20)
@given(file=generated())
def test_equal_files_have_equal_sources(file: FileDescriptorProto) -> None:
    again = FileDescriptorProto.FromString(file.SerializeToString())
    assert proto_source(again) == proto_source(file)


# Comments

PLAIN = dedented(
    """
    syntax = "proto3";

    service Clock {
      rpc Set(Time) returns (Time);
      rpc Watch(Time) returns (stream Time);
    }

    message Time {
      int64 seconds = 1;
    }
    """
)


def test_a_comment_stands_above_what_it_is_about(tmp_path: Path) -> None:
    comments = {
        "Clock": "The clock.",
        "Clock.Watch": "Tells the time.\n\nEvery second.  \n  - or so",
        "Time": "When.",
        "Time.seconds": "Since 1970.",
        "Absent": "Not there.",
    }
    assert proto_source(compiled(tmp_path, PLAIN), comments) == dedented(
        """
        syntax = "proto3";

        // The clock.
        service Clock {
          rpc Set(Time) returns (Time);

          // Tells the time.
          //
          // Every second.
          //   - or so
          rpc Watch(Time) returns (stream Time);
        }

        // When.
        message Time {
          // Since 1970.
          int64 seconds = 1;
        }
        """
    )


ENDS = '\n\r\v\f\x00\x1a\x1c\x85\u2028\u2029\ud800\\/*"'


@pytest.mark.parametrize("end", ENDS)
def test_no_character_ends_a_comment(tmp_path: Path, end: str) -> None:
    file = compiled(tmp_path, PLAIN)
    source = proto_source(file, {"Clock.Set": f"a{end} rpc Evil(Time) returns (Time); {end}*/ message Evil {{}}{end}"})
    assert compiled(tmp_path, source) == file
    assert all(
        line.lstrip().startswith("//") for line in re.split("[\n\r\v\f\x85\u2028\u2029]", source) if "Evil" in line
    )


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(comment=st.text(st.characters() | st.sampled_from(ENDS)))
def test_nothing_written_in_a_comment_changes_the_file(tmp_path: Path, comment: str) -> None:
    file = compiled(tmp_path, PLAIN)
    assert compiled(tmp_path, proto_source(file, {"Clock.Set": comment, "Time.seconds": comment})) == file


def test_text_that_is_not_ascii_is_kept(tmp_path: Path) -> None:
    source = proto_source(compiled(tmp_path, PLAIN), {"Time": "Die Zeit, 時間, für alle 👩\u200d🚀"})
    assert "// Die Zeit, 時間, für alle 👩\u200d🚀\nmessage Time {" in source


# Reserved


def test_reserved_numbers_are_ranges_in_order_beside_those_of_the_file(tmp_path: Path) -> None:
    source = PLAIN.replace("  int64", '  reserved 3;\n  reserved "b";\n\n  int64')
    written = proto_source(compiled(tmp_path, source), reserved={"Time": Reserved((9, 4, 6, 2, 7), ("c", "a"))})
    assert '  reserved 2 to 4, 6 to 7, 9;\n  reserved "a", "b", "c";\n\n  int64 seconds = 1;\n' in written
    (message,) = compiled(tmp_path, written).message_type
    assert [(one.start, one.end) for one in message.reserved_range] == [(2, 5), (6, 8), (9, 10)]
    assert [*message.reserved_name] == ["a", "b", "c"]


def test_an_enum_has_reserved_numbers_too(tmp_path: Path) -> None:
    file = compiled(tmp_path, 'syntax = "proto3";\n\nenum Side {\n  NONE = 0;\n}\n')
    written = proto_source(file, reserved={"Side": Reserved((1, 2, 2**31 - 1), ("BUY",))})
    (enum,) = compiled(tmp_path, written).enum_type
    assert [(one.start, one.end) for one in enum.reserved_range] == [(1, 2), (2**31 - 1, 2**31 - 1)]
    assert [*enum.reserved_name] == ["BUY"]


# What there is no source of


@pytest.mark.parametrize(
    "file",
    [
        FileDescriptorProto(name="x.proto", syntax="proto2"),
        FileDescriptorProto(name="x.proto", syntax="proto3", dependency=["y.proto"], public_dependency=[0]),
        FileDescriptorProto(name="x.proto", syntax="proto3", extension=[FieldDescriptorProto(name="a", number=1)]),
        FileDescriptorProto(
            name="x.proto",
            syntax="proto3",
            message_type=[DescriptorProto(name="A", extension_range=[DescriptorProto.ExtensionRange(start=4, end=8)])],
        ),
    ],
)
def test_what_is_not_proto3_is_refused(file: FileDescriptorProto) -> None:
    with pytest.raises(ValueError, match="proto3"):
        proto_source(file)


# buf


def buf(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *arguments], cwd=folder, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("comments", [{}, {"market.v1.Prices.Send": "Sends.\n\nMuch.", "market.v1.Tick.at": "When."}])
def test_the_form_is_that_of_buf(tmp_path: Path, comments: dict[str, str]) -> None:
    file = compiled(tmp_path, EVERYTHING)
    (tmp_path / "x.proto").write_text(
        proto_source(file, comments, {"market.v1.Side": Reserved((2, 3), ("SIDE_SELL",))})
    )
    result = buf(tmp_path, "format", "--diff", "--exit-code", "x.proto")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_lint_finds_nothing_in_the_form(tmp_path: Path) -> None:
    (tmp_path / "buf.yaml").write_text("version: v2\nlint: {use: [BASIC]}\n")
    name = "market/v1.proto"
    source = proto_source(compiled(tmp_path, PLAIN.replace("\nservice", "\npackage market;\n\nservice"), name))
    (tmp_path / name).unlink()
    (tmp_path / "market").mkdir(exist_ok=True)
    (tmp_path / name).write_text(source)
    result = buf(tmp_path, "lint")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
