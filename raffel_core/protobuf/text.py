"""The source text of a package: what `protoc` makes the same descriptors of.

The form is that of the style guide of protocol buffers and of `buf format`; the language is that of the proto3
specification.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

_INDENT = "  "

_KEYWORDS = frozenset(
    (
        *("export", "extend", "extensions", "local", "map", "oneof", "option", "optional", "repeated", "required"),
        *("reserved", "stream"),
        *(kind.removeprefix("TYPE_").lower() for kind in FieldDescriptorProto.Type.keys()),  # noqa: SIM118 - no dict
    )
)
"""What a type's name may begin with only behind a dot: the parser would take it for the beginning of something else."""

_INVISIBLE = frozenset(("Cc", "Cs", "Zl", "Zp"))


class Reserved(NamedTuple):
    """The numbers and names that a message or an enum has had and may never have again."""

    numbers: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


def proto_source(
    file: FileDescriptorProto,
    comments: Mapping[str, str] | None = None,
    reserved: Mapping[str, Reserved] | None = None,
) -> str:
    """The source of a file of proto3, which ends with a newline; equal files have equal sources.

    Compiled, it is the same file again, where the imports are in order of their names, oneofs in that of their first
    fields, and each message has the entries of its maps last among its nested types, as all files of services do.

    `comments` are put above the services, methods, messages, fields and enums whose full names they have, whatever is
    written in them. `reserved` is by the full name of a message or an enum, and beside what the file itself reserves.
    Raises ValueError for another syntax, for extensions, and for options that are no string, number, bool or enum.
    """
    if file.syntax != "proto3" or file.extension or file.public_dependency or file.weak_dependency:
        raise ValueError(f"{file.name} is no proto3 without extensions and public imports")
    return "\n".join(_Source(file, comments or {}, reserved or {}).lines()) + "\n"


class _Source:
    __slots__ = ("_comments", "_file", "_reserved", "_scopes")

    def __init__(
        self, file: FileDescriptorProto, comments: Mapping[str, str], reserved: Mapping[str, Reserved]
    ) -> None:
        self._file = file
        self._comments = comments
        self._reserved = reserved
        self._scopes = frozenset(_scopes(file))

    def lines(self) -> Iterator[str]:
        file = self._file
        yield f'syntax = "{file.syntax}";'
        if file.package:
            yield from ("", f"package {file.package};")
        if file.dependency:
            yield from ("", *(f"import {_quoted(name)};" for name in sorted(file.dependency)))
        if options := _options(file.options):
            yield from ("", *(f"option {option};" for option in sorted(options)))
        for service in file.service:
            yield from ("", *self._service(service))
        for message in file.message_type:
            yield from ("", *self._message(message, file.package))
        for enum in file.enum_type:
            yield from ("", *self._enum(enum, file.package))

    # Services

    def _service(self, service: ServiceDescriptorProto) -> Iterator[str]:
        name = _join(self._file.package, service.name)
        sections = [[f"option {option};" for option in _options(service.options)]]
        sections += _spaced([*self._method(method, name)] for method in service.method)
        yield from self._comment(name)
        yield from _block(f"service {service.name}", sections)

    def _method(self, method: MethodDescriptorProto, service: str) -> Iterator[str]:
        name = _join(service, method.name)
        request = self._type(method.input_type, name, stream=method.client_streaming)
        response = self._type(method.output_type, name, stream=method.server_streaming)
        head = f"rpc {method.name}({request}) returns ({response})"
        options = [f"option {option};" for option in _options(method.options)]
        yield from self._comment(name)
        if options:
            yield from _block(head, [options])
        else:
            yield f"{head};"

    # Messages

    def _message(self, message: DescriptorProto, outer: str) -> Iterator[str]:
        if message.extension or message.extension_range:
            raise ValueError(f"{message.name} has extensions, which are not proto3")
        name = _join(outer, message.name)
        own = [(one.start, one.end - 1) for one in message.reserved_range]
        sections = [[f"option {option};" for option in _options(message.options)]]
        sections += [[*self._reservations(name, own, message.reserved_name, 2**29 - 1)]]
        sections += [[*self._enum(enum, name)] for enum in message.enum_type]
        entries = {_join(name, one.name): one for one in message.nested_type if one.options.map_entry}
        sections += [[*self._message(one, name)] for one in message.nested_type if not one.options.map_entry]
        sections += _spaced(self._fields(message, name, entries))
        yield from self._comment(name)
        yield from _block(f"message {message.name}", sections)

    def _fields(
        self, message: DescriptorProto, name: str, entries: Mapping[str, DescriptorProto]
    ) -> Iterator[list[str]]:
        """The lines of each field and each oneof."""
        seen: set[int] = set()
        for field in message.field:
            if not field.HasField("oneof_index") or field.proto3_optional:
                yield [*self._field(field, name, entries)]
            elif field.oneof_index not in seen:
                seen.add(field.oneof_index)
                oneof = message.oneof_decl[field.oneof_index]
                options = [f"option {option};" for option in _options(oneof.options)]
                members = (
                    [*self._field(one, name, entries)]
                    for one in message.field
                    if one.HasField("oneof_index") and one.oneof_index == field.oneof_index
                )
                yield [*_block(f"oneof {oneof.name}", [options, *_spaced(members)])]

    def _field(self, field: FieldDescriptorProto, outer: str, entries: Mapping[str, DescriptorProto]) -> Iterator[str]:
        name = _join(outer, field.name)
        options = _options(field.options)
        if field.json_name not in ("", _json_name(field.name)):
            options.insert(0, f"json_name = {_quoted(field.json_name)}")
        yield from self._comment(name)
        yield from _with_options(f"{self._declared(field, name, entries)} {field.name} = {field.number}", options)

    def _declared(self, field: FieldDescriptorProto, scope: str, entries: Mapping[str, DescriptorProto]) -> str:
        """The type of a field with its label."""
        entry = entries.get(field.type_name.removeprefix("."))
        if entry is not None:
            key, value = (self._field_type(one, scope) for one in entry.field)
            return f"map<{key}, {value}>"
        kind = self._field_type(field, scope)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {kind}"
        return f"optional {kind}" if field.proto3_optional else kind

    def _field_type(self, field: FieldDescriptorProto, scope: str) -> str:
        if field.type_name:
            return self._type(field.type_name, scope)
        return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()

    # Enums

    def _enum(self, enum: EnumDescriptorProto, outer: str) -> Iterator[str]:
        name = _join(outer, enum.name)
        own = [(one.start, one.end) for one in enum.reserved_range]
        sections = [[f"option {option};" for option in _options(enum.options)]]
        sections += [[*self._reservations(name, own, enum.reserved_name, 2**31 - 1)]]
        values = (_with_options(f"{value.name} = {value.number}", _options(value.options)) for value in enum.value)
        sections += [[line for lines in values for line in lines]]
        yield from self._comment(name)
        yield from _block(f"enum {enum.name}", sections)

    # What they have in common

    def _reservations(
        self, name: str, own: Iterable[tuple[int, int]], own_names: Iterable[str], last: int
    ) -> Iterator[str]:
        numbers, names = self._reserved.get(name, Reserved())
        ranges = _joined([*own, *((number, number) for number in numbers)])
        if ranges:
            yield f"reserved {', '.join(_range(first, final, last) for first, final in ranges)};"
        if every := sorted({*own_names, *names}):
            yield f"reserved {', '.join(map(_quoted, every))};"

    def _comment(self, name: str) -> Iterator[str]:
        for line in self._comments.get(name, "").strip().splitlines():
            yield f"// {_visible(line.rstrip())}".rstrip()

    def _type(self, name: str, scope: str, *, stream: bool = False) -> str:
        """The name of a type as it is written in a scope: from the package on, where that is what protoc finds there.

        protoc looks for the first part of a name in the scope, then in what is around it, and stays with what it finds
        (descriptor.proto, `type_name`).
        """
        full = name.removeprefix(".")
        package = self._file.package
        short = full.removeprefix(f"{package}.") if package else full
        first = short.partition(".")[0]
        meant = full[: len(full) - len(short)] + first
        found = next((_join(outer, first) for outer in _outwards(scope) if _join(outer, first) in self._scopes), None)
        safe = found == meant and first not in _KEYWORDS
        return ("stream " if stream else "") + (short if safe else f".{full}")


# Names


def _scopes(file: FileDescriptorProto) -> Iterator[str]:
    """The full names that the first part of a type's name may be taken for.

    They are those of packages, messages, enums and services; and of methods, for where a method's messages are named
    protoc does not look on when it has found one.
    """
    yield from _outwards(file.package)
    for service in file.service:
        yield _join(file.package, service.name)
        for method in service.method:
            yield _join(_join(file.package, service.name), method.name)
            yield from _outwards(method.input_type.removeprefix("."))
            yield from _outwards(method.output_type.removeprefix("."))
    yield from _types(file.message_type, file.enum_type, file.package)


def _types(messages: Iterable[DescriptorProto], enums: Iterable[EnumDescriptorProto], outer: str) -> Iterator[str]:
    for enum in enums:
        yield _join(outer, enum.name)
    for message in messages:
        name = _join(outer, message.name)
        yield name
        for field in message.field:
            yield from _outwards(field.type_name.removeprefix("."))
        yield from _types(message.nested_type, message.enum_type, name)


def _outwards(name: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a` and the root, which has no name."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _join(outer: str, name: str) -> str:
    return f"{outer}.{name}" if outer else name


def _json_name(name: str) -> str:
    """What protoc itself gives a field as the name in JSON."""
    return re.sub("_+(.)?", lambda match: (match[1] or "").upper(), name)


# Lines


def _block(head: str, sections: Sequence[Sequence[str]]) -> Iterator[str]:
    """A head and its body in braces, with an empty line between any two sections that are not empty."""
    body = [section for section in sections if section]
    if not body:
        yield head + " {}"
        return
    yield head + " {"
    for number, section in enumerate(body):
        if number:
            yield ""
        yield from (_INDENT + line if line else line for line in section)
    yield "}"


def _spaced(members: Iterable[list[str]]) -> list[list[str]]:
    """The members as sections: those of one line that follow each other are one."""
    sections: list[list[str]] = []
    single = False
    for lines in members:
        if single and len(lines) == 1:
            sections[-1] += lines
        else:
            sections.append(lines)
        single = len(lines) == 1
    return sections


def _with_options(declaration: str, options: list[str]) -> Iterator[str]:
    if len(options) < 2:
        yield declaration + "".join(f" [{option}]" for option in options) + ";"
        return
    yield declaration + " ["
    yield from (f"{_INDENT}{option}," for option in options[:-1])
    yield _INDENT + options[-1]
    yield "];"


def _options(options: Any) -> list[str]:
    """`deprecated = true`; what protoc sets by itself is left out."""
    return [
        f"{field.name} = {_constant(field, value)}"
        for field, value in options.ListFields()
        if field.name != "map_entry"
    ]


def _constant(field: Any, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() if field.enum_type is not None:
            return str(field.enum_type.values_by_number[value].name)
        case int():
            return str(value)
        case str():
            return _quoted(value)
    raise ValueError(f"the option {field.name} is neither a string, a number, a bool nor an enum")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\{ord(match[0]):03o}", escaped) + '"'


def _visible(line: str) -> str:
    """A line with what ends comments, or cannot be written in UTF-8, as escapes; a NUL ends one for protoc."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _INVISIBLE else character
        for character in line.expandtabs(4)
    )


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges, of first and last number, in order, those that touch made one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _range(first: int, last: int, greatest: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == greatest else last}"
