"""Descriptors: messages, enums and services as google.protobuf has them, in files, one a package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from raffel_core.protobuf.messages import (
    DURATION,
    TIMESTAMP,
    VALUE,
    Definition,
    Enum,
    Field,
    Member,
    Message,
    Part,
    reached,
)

_WELL_KNOWN = {
    VALUE: struct_pb2.DESCRIPTOR,
    TIMESTAMP: timestamp_pb2.DESCRIPTOR,
    DURATION: duration_pb2.DESCRIPTOR,
}
_TYPES = {
    "int64": FieldDescriptorProto.TYPE_INT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}
_SINGULAR = FieldDescriptorProto.LABEL_OPTIONAL
_REPEATED = FieldDescriptorProto.LABEL_REPEATED


def file_of(
    package: str, definitions: Iterable[Definition], services: Iterable[ServiceDescriptorProto] = ()
) -> FileDescriptorProto:
    """The file of a package, `market/prices/routes.proto` for `market.prices`: everything in the order of its names."""
    folders = [*filter(None, package.split(".")), "routes.proto"]
    file = FileDescriptorProto(name="/".join(folders), package=package, syntax="proto3")
    for definition in sorted(definitions, key=lambda definition: definition.name):
        if isinstance(definition, Enum):
            file.enum_type.append(_enum(definition))
        else:
            file.message_type.append(_message(definition))
    for service in sorted(services, key=lambda service: service.name):
        file.service.append(service)
    names = {field.type_name for message in file.message_type for field in _all_fields(message)}
    names |= {name for service in file.service for one in service.method for name in (one.input_type, one.output_type)}
    file.dependency.extend(sorted(one.name for name, one in _WELL_KNOWN.items() if f".{name}" in names))
    return file


def _all_fields(message: DescriptorProto) -> Iterable[FieldDescriptorProto]:
    yield from message.field
    for nested in message.nested_type:
        yield from nested.field


def _message(message: Message) -> DescriptorProto:
    made = DescriptorProto(name=message.name)
    for member in message.members:
        if member.fields[0].label == "oneof":
            made.oneof_decl.add(name=member.name)
        for field in member.fields:
            _add_field(made, message, field)
    for field in message.others:
        _add_field(made, message, field)
    _add_presence(made)
    return made


def _add_field(made: DescriptorProto, message: Message, field: Field) -> None:
    added = made.field.add(name=field.name, number=field.number, label=_SINGULAR)
    match field.label:
        case "oneof":
            added.oneof_index = len(made.oneof_decl) - 1
        case "optional":
            added.proto3_optional = True
        case "repeated":
            added.label = _REPEATED
        case "map":
            assert field.key is not None
            entry = made.nested_type.add(name=f"{_camel(field.name)}Entry")
            entry.options.map_entry = True
            _set_type(entry.field.add(name="key", number=1, label=_SINGULAR), field.key)
            _set_type(entry.field.add(name="value", number=2, label=_SINGULAR), field.part)
            added.label = _REPEATED
            added.type = FieldDescriptorProto.TYPE_MESSAGE
            added.type_name = f".{message.full_name}.{entry.name}"
            return
    _set_type(added, field.part)


def _add_presence(made: DescriptorProto) -> None:
    """Puts each optional field into a oneof of its own, behind all others, as compilers do ("Field Presence")."""
    taken = {field.name for field in made.field} | {one.name for one in made.oneof_decl}
    taken |= {nested.name for nested in made.nested_type}
    for field in made.field:
        if field.proto3_optional:
            name = f"_{field.name}"
            while name in taken:
                name = f"X{name}"
            taken.add(name)
            field.oneof_index = len(made.oneof_decl)
            made.oneof_decl.add(name=name)


def _set_type(field: FieldDescriptorProto, part: Part) -> None:
    known = _TYPES.get(str(part.proto))
    if known is not None:
        field.type = known
        return
    field.type = FieldDescriptorProto.TYPE_ENUM if isinstance(part.proto, Enum) else FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{part.signature}"


def _enum(enum: Enum) -> EnumDescriptorProto:
    made = EnumDescriptorProto(name=enum.name)
    for name, number, _ in enum.values:
        made.value.add(name=name, number=number)
    return made


def _camel(name: str) -> str:
    """The name of a field as it is in that of its map's entries: underscores go, and the next letter is a capital."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


# Classes that parse


def field_name(field: Field) -> str:
    """The name of a field in the classes of `message_class`, where no name can be in the way of another's."""
    return f"f{field.number}"


def oneof_name(member: Member) -> str:
    """The same of a oneof."""
    return f"o{member.fields[0].number}"


def message_class(root: Part) -> Any:
    """A class that parses the message, in a pool of its own: nothing else is known to it."""
    if root.proto == VALUE:
        return struct_pb2.Value
    assert isinstance(root.proto, Message)
    pool = DescriptorPool()
    file = file_of("", [])
    for known in _WELL_KNOWN.values():
        pool.AddSerializedFile(known.serialized_pb)
        file.dependency.append(known.name)
    for message in _anonymous(root):
        file.message_type.append(_message(message))
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("T0"))


def _anonymous(root: Part) -> list[Message]:
    """The messages of a value with numbers for names. An enum is its number."""
    messages = [one for one in reached(root) if isinstance(one, Message)]
    nameless = {one: Message(f"T{index}", "", one.shape, None) for index, one in enumerate(messages)}

    def part(one: Part) -> Part:
        if isinstance(one.proto, Message):
            return Part(nameless[one.proto], one.shape)
        return Part("int64", one.shape) if isinstance(one.proto, Enum) else one

    def field(one: Field) -> Field:
        return Field(field_name(one), part(one.part), one.label, one.key, one.number)

    for message in messages:
        made = nameless[message]
        made.members = tuple(
            member._replace(name=oneof_name(member), fields=tuple(map(field, member.fields)))
            for member in message.members
        )
        made.others = tuple(map(field, message.others))
    return [*nameless.values()]
