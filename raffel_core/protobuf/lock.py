"""The lock: which numbers the fields and enum values of gRPC's messages have and ever had, and which methods there are.

It is a file that projects keep beside their code, so that clients built from an exported `.proto` go on working. What
breaks them is what `buf breaking` finds by its rules WIRE_JSON: a field may go, for its number and name are reserved.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

import yaml
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from raffel_core.errors import Problem, ProjectError
from raffel_core.protobuf.text import Reserved
from raffel_core.route import Origin

LOCK_NAME = "proto.lock"
"""The file's name, in the project's root."""

VERSION = 1
_DEPTH = 4

MAX_NUMBER = 2**29 - 1
"""The greatest number of a field; those that are given to enum values stay below it too."""

_MAX_VALUE = 2**31 - 1
_SET_ASIDE = range(18_999, 20_000)
"""Never given: protobuf's own, and before them that of `raffel_event_id`."""

_HEAD = """\
# The numbers of gRPC's messages and enums, those in use and those reserved for ever, and its methods.
# `raffel export proto --lock` writes this file: keep it under version control, and leave the editing to it.
"""
_NAME = r"[A-Za-z_]\w*"
_FULL_NAME = rf"{_NAME}(?:\.{_NAME})*"
_FIELD = re.compile(rf"((?:(?:optional|repeated) )?{_FULL_NAME}|map<\w+, {_FULL_NAME}>) ({_NAME})", re.ASCII)
_VALUE = re.compile(rf"()({_NAME})", re.ASCII)
_METHOD = re.compile(rf"\((?:stream )?{_FULL_NAME}\) returns \((?:stream )?{_FULL_NAME}\)", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,9}", re.ASCII)

# A large project has thousands of lines here, for which the loader in Python takes a second, libyaml's a twentieth.
_LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_ACCEPT = "or `raffel export proto --lock` once no client needs it"


class Member(NamedTuple):
    """What a number stands for: a field, or a value of an enum."""

    name: str
    type: str = ""
    """A field's type with its label, as `repeated string`; of an enum's value, and of what is reserved, nothing."""
    reserved: bool = False
    """Whether it is gone, and its number and name with it."""


Numbered: TypeAlias = Mapping[int, Member]
Lines: TypeAlias = Mapping[tuple[str, str, str], int]
"""Where something is: by its kind (`messages`, `enums`, `services`), its full name, and the number or method in it."""


class Lock:
    """What clients were built from. Locks of the same content are equal, wherever they were read."""

    __slots__ = ("_file", "_lines", "enums", "messages", "services")

    def __init__(
        self,
        messages: Mapping[str, Numbered] | None = None,
        enums: Mapping[str, Numbered] | None = None,
        services: Mapping[str, Mapping[str, str]] | None = None,
        *,
        file: str = LOCK_NAME,
        lines: Lines | None = None,
    ) -> None:
        self.messages = messages or {}
        self.enums = enums or {}
        self.services = services or {}
        """Their methods by name, as `(market.Query) returns (stream market.Tick)`."""
        self._file = file
        self._lines = lines or {}

    @classmethod
    def read(cls, path: Path) -> Lock:
        """The lock in a file; an empty one where there is none. Raises ProjectError with every problem of the file."""
        name = _shown(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            return cls(file=name)
        except OSError as error:
            raise ProjectError([Problem(name, 0, f"cannot be read ({error.strerror})", "a lock")]) from error
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ProjectError([Problem(name, line, "bytes that are not UTF-8", "text in UTF-8")]) from error
        reader = _Reader(name)
        reader.read(text)
        if reader.problems:
            raise ProjectError(reader.problems)
        return cls(reader.messages, reader.enums, reader.services, file=name, lines=reader.lines)

    @classmethod
    def of(cls, files: Iterable[FileDescriptorProto]) -> Lock:
        """What is in files, with nothing reserved."""
        messages, enums, services = {}, {}, {}
        for file in files:
            for name, definition in _definitions(file.message_type, file.enum_type, file.package):
                if isinstance(definition, DescriptorProto):
                    messages[name] = {one.number: Member(one.name, type) for one, type in _fields(definition, name)}
                else:
                    enums[name] = {one.number: Member(one.name) for one in definition.value}
            for service in file.service:
                methods = {
                    method.name: f"({_streamed(method.input_type, method.client_streaming)})"
                    f" returns ({_streamed(method.output_type, method.server_streaming)})"
                    for method in service.method
                }
                services[_join(file.package, service.name)] = methods
        return cls(messages, enums, services)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lock):
            return NotImplemented
        return (self.messages, self.enums, self.services) == (other.messages, other.enums, other.services)

    __hash__ = None  # type: ignore[assignment]  # what is compared by its mappings has no hash

    # Numbers

    def numbering(self, name: str, members: Sequence[tuple[str, str]]) -> Sequence[int]:
        """The numbers of a message's fields, or an enum's values, of their names and types in order of definition.

        A member that is locked keeps its number, unless its type has become another; that it is or is not `optional`
        makes no difference on the wire. All others have the next numbers above every one that was ever used.
        """
        locked = self.messages.get(name) or self.enums.get(name) or {}
        kept = {(member.name, _bare(member.type)): number for number, member in locked.items() if not member.reserved}
        free = _free(locked)
        return [kept.get((name, _bare(type))) or next(free) for name, type in members]

    @property
    def reserved(self) -> Mapping[str, Reserved]:
        """What is reserved, by the full name of the message or enum, without names that are in use again."""
        return {name: _reserved(numbered) for name, numbered in [*self.messages.items(), *self.enums.items()]}

    def merged(self, files: Iterable[FileDescriptorProto]) -> Lock:
        """The lock that has these files too. What is no more in them is reserved; methods that are gone are forgotten.

        Files that were numbered by this lock and by the merged one are the same.
        """
        now = Lock.of(files)
        messages, enums = _merged(self.messages, now.messages), _merged(self.enums, now.enums)
        return Lock(messages, enums, now.services, file=self._file)

    # What breaks clients

    def breaks(
        self, files: Iterable[FileDescriptorProto], origins: Mapping[str, Origin] | None = None
    ) -> list[Problem]:
        """What these files break for clients that were built from the lock.

        That is: a service, a method, a message or an enum that is gone; a method whose messages or streams are
        others; a field whose type is another; a value whose number or name is another. A field or a value that is gone
        is reserved, which breaks nothing; so a renamed field, one gone and one new, does not either. `origins` are the
        places of routes by the full names of their methods: a problem is at the route that has it, else in the lock.
        """
        now = Lock.of(files)
        return [*_Breaks(self, now, origins or {}).problems()]

    def problem(self, place: tuple[str, str, str], found: str, expected: str) -> Problem:
        """A problem at the line of something in the lock."""
        return Problem(self._file, self._lines.get(place, 1), found, expected)

    # The file

    @property
    def source(self) -> str:
        """The text of the file; equal locks have equal texts."""
        return "\n".join([_HEAD.rstrip(), *self._written()]) + "\n"

    def _written(self) -> Iterator[str]:
        yield f"version: {VERSION}"
        for kind, definitions in (("messages", self.messages), ("enums", self.enums)):
            if definitions:
                yield f"{kind}:"
            for name, numbered in sorted(definitions.items()):
                yield f"  {name}:" if numbered else f"  {name}: {{}}"
                for number, member in sorted(numbered.items()):
                    text = f"{member.type} {member.name}".lstrip()
                    yield f"    {number}: {{reserved: {member.name}}}" if member.reserved else f"    {number}: {text}"
        if self.services:
            yield "services:"
        for name, methods in sorted(self.services.items()):
            yield f"  {name}:" if methods else f"  {name}: {{}}"
            for method, signature in sorted(methods.items()):
                yield f"    {method}: {signature}"

    def write(self, path: Path) -> None:
        """Writes the file whole, or leaves what there is. Raises OSError."""
        write_whole({path: self.source})

    def changes(self, before: Lock) -> Iterator[str]:
        """What this lock has that the one before had not, a line each."""
        for now, then in ((self.messages, before.messages), (self.enums, before.enums)):
            for name, numbered in sorted(now.items()):
                if name not in then:
                    yield f"added {name}"
                    continue
                for number, member in sorted(numbered.items()):
                    was = then[name].get(number)
                    if was is None or was.reserved != member.reserved or was.name != member.name:
                        yield f"{'reserved' if member.reserved else 'added'} {name}.{member.name} = {number}"
                    elif was != member:
                        yield f"changed {name}.{member.name} = {number} from {was.type} to {member.type}"
        yield from _method_changes(self.services, before.services)


def write_whole(sources: Mapping[Path, str]) -> None:
    """Writes files, of which none is ever there in part; where one cannot be written, none is.

    Raises OSError with the name of that file.
    """
    written: dict[Path, Path] = {}
    try:
        for path, source in sources.items():
            target = Path(os.path.realpath(path))  # what is a link stays one
            beside = written[target] = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                beside.write_text(source, encoding="utf-8", newline="\n")
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error
        for target, beside in written.items():
            beside.replace(target)
    finally:
        for beside in written.values():
            with suppress(OSError):
                beside.unlink()


# What is in a file of protobuf


def _definitions(
    messages: Iterable[DescriptorProto], enums: Iterable[EnumDescriptorProto], outer: str
) -> Iterator[tuple[str, DescriptorProto | EnumDescriptorProto]]:
    for enum in enums:
        yield _join(outer, enum.name), enum
    for message in messages:
        if not message.options.map_entry:
            name = _join(outer, message.name)
            yield name, message
            yield from _definitions(message.nested_type, message.enum_type, name)


def _fields(message: DescriptorProto, name: str) -> Iterator[tuple[FieldDescriptorProto, str]]:
    """The fields with their types."""
    entries = {f".{name}.{one.name}": one for one in message.nested_type if one.options.map_entry}
    for field in message.field:
        if entry := entries.get(field.type_name):
            key, value = map(_type, entry.field)
            yield field, f"map<{key}, {value}>"
        elif field.label == FieldDescriptorProto.LABEL_REPEATED:
            yield field, f"repeated {_type(field)}"
        else:
            yield field, f"optional {_type(field)}" if field.proto3_optional else _type(field)


def _type(field: FieldDescriptorProto) -> str:
    return field.type_name[1:] or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _streamed(name: str, stream: bool) -> str:
    return f"stream {name[1:]}" if stream else name[1:]


def _join(outer: str, name: str) -> str:
    return f"{outer}.{name}" if outer else name


def _bare(type: str) -> str:
    """A type as the wire has it, where presence is nothing of its own."""
    return type.removeprefix("optional ")


# Numbers


def _free(used: Numbered) -> Iterator[int]:
    """Numbers above all that are used; below them only where there is nothing above, as after the greatest of all."""
    last = max((number for number in used if number not in _SET_ASIDE), default=0)
    above = range(max(last, 0) + 1, MAX_NUMBER + 1)
    return (number for number in chain(above, range(1, MAX_NUMBER)) if number not in used and number not in _SET_ASIDE)


def _merged(then: Mapping[str, Numbered], now: Mapping[str, Numbered]) -> dict[str, Numbered]:
    merged: dict[str, Numbered] = {}
    for name in then.keys() | now.keys():
        gone = {number: Member(member.name, reserved=True) for number, member in then.get(name, {}).items()}
        if name in now or gone:
            merged[name] = {**gone, **now.get(name, {})}
    return merged


def _reserved(numbered: Numbered) -> Reserved:
    live = {member.name for member in numbered.values() if not member.reserved}
    gone = {number: member.name for number, member in numbered.items() if member.reserved}
    return Reserved(tuple(sorted(gone)), tuple(sorted({*gone.values()} - live)))


def _method_changes(now: Mapping[str, Mapping[str, str]], then: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    added, before = (
        {f"{name}.{one}": methods[one] for name, methods in all.items() for one in methods} for all in (now, then)
    )
    for name in sorted(added.keys() | before.keys()):
        if name not in added:
            yield f"removed {name}"
        elif name not in before:
            yield f"added {name}"
        elif added[name] != before[name]:
            yield f"changed {name} from {before[name]} to {added[name]}"


# What breaks clients


class _Breaks:
    """Finds what a lock has and files have otherwise, or not at all."""

    __slots__ = ("_broken", "_lock", "_now", "_origins", "_places")

    def __init__(self, lock: Lock, now: Lock, origins: Mapping[str, Origin]) -> None:
        self._lock = lock
        self._now = now
        self._origins = origins
        self._places: dict[str, Origin] = {}
        """By type: the first route that has it."""
        self._broken: list[str] = []
        """The locked types of what is broken: a type that is gone with them need not be told too."""

    def problems(self) -> Iterator[Problem]:
        for service, methods in sorted(self._now.services.items()):
            for method, signature in sorted(methods.items()):
                if origin := self._origins.get(f"{service}.{method}"):
                    for name in _reached([signature], self._now.messages):
                        self._places.setdefault(name, origin)
        for name, methods in sorted(self._lock.services.items()):
            yield from self._service(name, methods)
        for kind, locked, present in self._kinds():
            for name in sorted(locked.keys() & present.keys()):
                yield from self._members(kind, name, locked[name], present[name])
        told = _reached(self._broken, self._lock.messages)
        for kind, locked, present in self._kinds():
            for name in sorted(locked.keys() - present.keys() - told):
                if not all(member.reserved for member in locked[name].values()):
                    yield self._problem((kind, name, ""), None, f"the {kind[:-1]} {name} is gone", "it")

    def _kinds(self) -> Iterator[tuple[str, Mapping[str, Numbered], Mapping[str, Numbered]]]:
        yield "messages", self._lock.messages, self._now.messages
        yield "enums", self._lock.enums, self._now.enums

    def _service(self, service: str, methods: Mapping[str, str]) -> Iterator[Problem]:
        present = self._now.services.get(service)
        if present is None:
            self._broken += methods.values()
            yield self._problem(("services", service, ""), None, f"the service {service} is gone", "it")
            return
        for method, was in sorted(methods.items()):
            name, place, signature = f"{service}.{method}", ("services", service, method), present.get(method)
            if signature == was:
                continue
            self._broken.append(was)
            if signature is None:
                yield self._problem(place, None, f"the method {name} is gone", "it")
            else:
                yield self._differs(place, self._origins.get(name), f"the method {name} is {signature}", was)

    def _members(self, kind: str, name: str, locked: Numbered, present: Numbered) -> Iterator[Problem]:
        """What is wrong with the fields of a message or the values of an enum that is still there."""
        numbers = {member.name: number for number, member in locked.items() if not member.reserved}
        for number, member in sorted(present.items()):
            what = f"{'the field' if kind == 'messages' else 'the value'} {member.name} of {name}"
            number_was, owner = numbers.get(member.name), locked.get(number)
            place = (kind, name, str(number if number_was is None else number_was))
            if number_was is not None:
                was = locked[number_was].type
                if _bare(was) != _bare(member.type):
                    self._broken.append(was)
                    yield self._differs(place, self._places.get(name), f"{what} is {member.type}", was)
                elif number != number_was:
                    yield self._differs(place, self._places.get(name), f"{what} is {number}", str(number_was))
            elif owner is not None and owner.name != member.name:
                found = f"{what} is {number}, which is the number of {owner.name}"
                yield self._problem(place, self._places.get(name), found, "another number")

    def _differs(self, place: tuple[str, str, str], origin: Origin | None, found: str, was: str) -> Problem:
        return self._problem(place, origin, found, f"{was} as in {LOCK_NAME}")

    def _problem(self, place: tuple[str, str, str], origin: Origin | None, found: str, expected: str) -> Problem:
        """A problem at its route, or in the lock where that is not known."""
        expected = f"{expected}, {_ACCEPT}"
        if origin is None:
            return self._lock.problem(place, found, expected)
        return origin.problem("handler", found, expected)


def _reached(types: Iterable[str], messages: Mapping[str, Numbered]) -> set[str]:
    """The names in these types, and those in the fields of the messages among them, and so on."""
    reached: set[str] = set()
    waiting = [*types]
    while waiting:
        for name in re.findall(_FULL_NAME, waiting.pop(), re.ASCII):
            if name not in reached:
                reached.add(name)
                waiting += (member.type for member in messages.get(name, {}).values())
    return reached


# How the file is read


class _Reader:
    """Reads a lock node by node, for a node knows its line and has a key twice where it is written twice."""

    __slots__ = ("_file", "enums", "lines", "messages", "problems", "services")

    def __init__(self, file: str) -> None:
        self._file = file
        self.messages: dict[str, dict[int, Member]] = {}
        self.enums: dict[str, dict[int, Member]] = {}
        self.services: dict[str, dict[str, str]] = {}
        self.lines: dict[tuple[str, str, str], int] = {}
        self.problems: list[Problem] = []

    def read(self, text: str) -> None:
        for line, content in enumerate(text.splitlines(), 1):
            if content.startswith(("<<<<<<<", "=======", ">>>>>>>")):
                self._refuse(line, "a conflict of versions", "both sides' lines, each number once")
                return
        try:
            too_deep = _too_deep(text)
            root = None if too_deep else yaml.compose(text, _LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(mark.line + 1 if mark else 1, f"no YAML: {error.problem or error.context}", "a lock")
        except yaml.YAMLError as error:
            self._refuse(1, f"no YAML: {str(error).splitlines()[0]}", "a lock")
        else:
            if too_deep:
                self._refuse(too_deep, "a value nested too deep", "kinds, names and numbers")
            elif root is None:
                self._refuse(1, "an empty file", "a lock, or no file")
            else:
                self._read_root(root)

    def _read_root(self, root: yaml.Node) -> None:
        entries = {key: (line, node) for key, line, node in self._entries(root, "the lock")}
        if self.problems:
            return
        line, version = entries.pop("version", (1, None))
        if not isinstance(version, yaml.ScalarNode) or version.value != str(VERSION):
            found = "no version" if version is None else f"version {_written(version)}"
            self._refuse(line, found, f"version {VERSION}, which this Raffel writes")
            return
        for key, (line, node) in entries.items():
            match key:
                case "messages":
                    self._read_numbered(key, node, self.messages, _FIELD, "as `int64 size`", range(1, MAX_NUMBER + 1))
                case "enums":
                    self._read_numbered(key, node, self.enums, _VALUE, "as `SIDE_BUY`", range(-(2**31), _MAX_VALUE + 1))
                case "services":
                    self._read_services(node)
                case _:
                    self._refuse(line, f"the unknown key {key!r}", "version, messages, enums or services")

    def _read_numbered(
        self,
        kind: str,
        node: yaml.Node,
        into: dict[str, dict[int, Member]],
        form: re.Pattern[str],
        expected: str,
        legal: range,
    ) -> None:
        for name, members in self._definitions(kind, node):
            numbered = into[name] = {}
            names: set[str] = set()
            for key, line, value in self._entries(members, name):
                number, member = int(key) if _INTEGER.fullmatch(key) else None, _member(value, form)
                self.lines[kind, name, key] = line
                if number is None or number not in legal or (kind == "messages" and 19_000 <= number < 20_000):
                    self._refuse(line, f"the number {key} in {name}", "an integer that protobuf allows")
                elif member is None:
                    self._refuse(line, f"{_written(value)} in {name}", f"{expected}, or `{{reserved: NAME}}`")
                elif not member.reserved and member.name in names:
                    self._refuse(line, f"{member.name} twice in {name}", "one number of it, and others reserved")
                else:
                    numbered[number] = member
                    if not member.reserved:
                        names.add(member.name)

    def _read_services(self, node: yaml.Node) -> None:
        for name, methods in self._definitions("services", node):
            signatures = self.services[name] = {}
            for method, line, value in self._entries(methods, name):
                self.lines["services", name, method] = line
                if not isinstance(value, yaml.ScalarNode) or not _METHOD.fullmatch(value.value):
                    self._refuse(
                        line, f"{_written(value)} in {name}", "as `(market.Query) returns (stream market.Tick)`"
                    )
                elif not re.fullmatch(_NAME, method, re.ASCII):
                    self._refuse(line, f"the method {method!r} in {name}", "a name")
                else:
                    signatures[method] = value.value

    def _definitions(self, kind: str, node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
        for name, line, value in self._entries(node, kind):
            self.lines[kind, name, ""] = line
            if re.fullmatch(_FULL_NAME, name, re.ASCII):
                yield name, value
            else:
                self._refuse(line, f"{name!r} among the {kind}", "a full name as market.Tick")

    def _entries(self, node: yaml.Node, what: str) -> Iterator[tuple[str, int, yaml.Node]]:
        """The keys of a mapping as they are written, with their lines and values."""
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            self._refuse(line, f"{_written(node)} for {what}", "a mapping")
            return
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(line, f"{_written(key)} as a key of {what}", "a name or a number")
            elif key.value in seen:
                self._refuse(line, f"{key.value} twice in {what}", "each key once")
            else:
                seen.add(key.value)
                yield key.value, line, value

    def _refuse(self, line: int, found: str, expected: str) -> None:
        self.problems.append(Problem(self._file, line, found, expected))


def _too_deep(text: str) -> int:
    """The line where values are nested deeper than in any lock, or 0: to compose them overflows libyaml's stack."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH:
                return event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return 0


def _member(node: yaml.Node, form: re.Pattern[str]) -> Member | None:
    """`int64 size`, `SIDE_BUY` or `{reserved: size}`; None for anything else."""
    match node:
        case yaml.ScalarNode(value=str(text)) if found := form.fullmatch(text):
            return Member(found[2], found[1])
        case yaml.MappingNode(value=[(yaml.ScalarNode(value="reserved"), yaml.ScalarNode(value=str(name)))]):
            return Member(name, reserved=True) if re.fullmatch(_NAME, name, re.ASCII) else None
    return None


def _written(node: yaml.Node) -> str:
    return (
        repr(node.value[:40])
        if isinstance(node, yaml.ScalarNode)
        else "a mapping"
        if isinstance(node, yaml.MappingNode)
        else "a list"
    )


def _shown(path: Path) -> str:
    """The path as messages have it: relative to the working directory where it lies below it."""
    here, full = Path.cwd(), Path(os.path.abspath(path))
    return str(full.relative_to(here) if full.is_relative_to(here) else full)
