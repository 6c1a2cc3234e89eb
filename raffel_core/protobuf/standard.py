"""The messages that every gRPC server shares: health, reflection, and the details of an error.

The sources are the protos of grpc/grpc-proto and googleapis: the names of files, messages and fields and their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from google.protobuf import any_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileOptions,
    MessageOptions,
    MethodDescriptorProto,
    OneofDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value

from raffel_core.errors import RaffelError
from raffel_core.wire.grpc import status_number

MAX_DETAILS = 4 * 1024
"""Bytes of a `google.rpc.Status`: it travels among the trailers, of which clients take 8 KiB at the least."""

_MAX_MESSAGE = 1024
_VALUE = "type.googleapis.com/google.protobuf.Value"


# How a file is written


def _field(
    name: str, number: int, type: str, *, repeated: bool = False, oneof: bool = False, enum: bool = False
) -> FieldDescriptorProto:
    """A field of a scalar type, or of the message or enum that ".a.Name" says."""
    field = FieldDescriptorProto(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if type.startswith("."):
        field.type = FieldDescriptorProto.TYPE_ENUM if enum else FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = type
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{type.upper()}")
    if oneof:
        field.oneof_index = 0
    return field


def _message(name: str, *fields: FieldDescriptorProto, oneof: str | None = None) -> DescriptorProto:
    oneofs = [] if oneof is None else [OneofDescriptorProto(name=oneof)]
    return DescriptorProto(name=name, field=fields, oneof_decl=oneofs)


def _method(
    name: str, request: str, response: str, *, reads: bool | None = None, writes: bool | None = None
) -> MethodDescriptorProto:
    return MethodDescriptorProto(
        name=name, input_type=request, output_type=response, client_streaming=reads, server_streaming=writes
    )


# grpc.health.v1


def _health() -> FileDescriptorProto:
    package = ".grpc.health.v1"
    request, response = f"{package}.HealthCheckRequest", f"{package}.HealthCheckResponse"
    listed, entry = f"{package}.HealthListResponse", "StatusesEntry"
    answer = _message("HealthCheckResponse", _field("status", 1, f"{response}.ServingStatus", enum=True))
    statuses = EnumDescriptorProto(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        statuses.value.add(name=name, number=number)
    answer.enum_type.append(statuses)
    every = _message("HealthListResponse", _field("statuses", 1, f"{listed}.{entry}", repeated=True))
    pair = _message(entry, _field("key", 1, "string"), _field("value", 2, response))
    pair.options.CopyFrom(MessageOptions(map_entry=True))
    every.nested_type.append(pair)
    return FileDescriptorProto(
        name="grpc/health/v1/health.proto",
        package="grpc.health.v1",
        message_type=[
            _message("HealthCheckRequest", _field("service", 1, "string")),
            answer,
            _message("HealthListRequest"),
            every,
        ],
        service=[
            ServiceDescriptorProto(
                name="Health",
                method=[
                    _method("Check", request, response),
                    _method("List", f"{package}.HealthListRequest", listed),
                    _method("Watch", request, response, writes=True),
                ],
            )
        ],
        options=FileOptions(
            java_package="io.grpc.health.v1",
            java_outer_classname="HealthProto",
            java_multiple_files=True,
            go_package="google.golang.org/grpc/health/grpc_health_v1",
            objc_class_prefix="GrpcHealthV1",
            csharp_namespace="Grpc.Health.V1",
        ),
        syntax="proto3",
    )


# grpc.reflection.v1 and v1alpha


def _reflection(version: str) -> FileDescriptorProto:
    """The two versions differ in their names alone."""
    package = f".grpc.reflection.{version}"
    request, response = f"{package}.ServerReflectionRequest", f"{package}.ServerReflectionResponse"
    messages = [
        _message(
            "ServerReflectionRequest",
            _field("host", 1, "string"),
            _field("file_by_filename", 3, "string", oneof=True),
            _field("file_containing_symbol", 4, "string", oneof=True),
            _field("file_containing_extension", 5, f"{package}.ExtensionRequest", oneof=True),
            _field("all_extension_numbers_of_type", 6, "string", oneof=True),
            _field("list_services", 7, "string", oneof=True),
            oneof="message_request",
        ),
        _message("ExtensionRequest", _field("containing_type", 1, "string"), _field("extension_number", 2, "int32")),
        _message(
            "ServerReflectionResponse",
            _field("valid_host", 1, "string"),
            _field("original_request", 2, request),
            _field("file_descriptor_response", 4, f"{package}.FileDescriptorResponse", oneof=True),
            _field("all_extension_numbers_response", 5, f"{package}.ExtensionNumberResponse", oneof=True),
            _field("list_services_response", 6, f"{package}.ListServiceResponse", oneof=True),
            _field("error_response", 7, f"{package}.ErrorResponse", oneof=True),
            oneof="message_response",
        ),
        _message("FileDescriptorResponse", _field("file_descriptor_proto", 1, "bytes", repeated=True)),
        _message(
            "ExtensionNumberResponse",
            _field("base_type_name", 1, "string"),
            _field("extension_number", 2, "int32", repeated=True),
        ),
        _message("ListServiceResponse", _field("service", 1, f"{package}.ServiceResponse", repeated=True)),
        _message("ServiceResponse", _field("name", 1, "string")),
        _message("ErrorResponse", _field("error_code", 1, "int32"), _field("error_message", 2, "string")),
    ]
    options = FileOptions(
        java_package=f"io.grpc.reflection.{version}",
        java_outer_classname="ServerReflectionProto",
        java_multiple_files=True,
        go_package=f"google.golang.org/grpc/reflection/grpc_reflection_{version}",
    )
    if version == "v1alpha":
        options.deprecated = True
    info = _method("ServerReflectionInfo", request, response, reads=True, writes=True)
    return FileDescriptorProto(
        name=f"grpc/reflection/{version}/reflection.proto",
        package=package[1:],
        message_type=messages,
        service=[ServiceDescriptorProto(name="ServerReflection", method=[info])],
        options=options,
        syntax="proto3",
    )


# google.rpc


def _status() -> FileDescriptorProto:
    status = _message(
        "Status",
        _field("code", 1, "int32"),
        _field("message", 2, "string"),
        _field("details", 3, ".google.protobuf.Any", repeated=True),
    )
    return FileDescriptorProto(
        name="google/rpc/status.proto",
        package="google.rpc",
        dependency=[any_pb2.DESCRIPTOR.name],
        message_type=[status],
        options=FileOptions(
            java_package="com.google.rpc",
            java_outer_classname="StatusProto",
            java_multiple_files=True,
            go_package="google.golang.org/genproto/googleapis/rpc/status;status",
            objc_class_prefix="RPC",
        ),
        syntax="proto3",
    )


HEALTH = _health()
REFLECTION_V1 = _reflection("v1")
REFLECTION_V1ALPHA = _reflection("v1alpha")
STATUS = _status()

# A pool of its own: in the default one the files would meet those of the project's packages, under other names.
_pool = DescriptorPool()
_pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
for _file in (HEALTH, REFLECTION_V1, REFLECTION_V1ALPHA, STATUS):
    _pool.Add(_file)


def message_class(name: str) -> Any:
    """The class of one of these messages, by its full name."""
    return GetMessageClass(_pool.FindMessageTypeByName(name))


class Reflection(NamedTuple):
    """One version of the reflection service."""

    file: FileDescriptorProto
    request: Any
    response: Any

    @property
    def service(self) -> str:
        return f"{self.file.package}.{self.file.service[0].name}"


REFLECTIONS = tuple(
    Reflection(
        file,
        message_class(f"{file.package}.ServerReflectionRequest"),
        message_class(f"{file.package}.ServerReflectionResponse"),
    )
    for file in (REFLECTION_V1, REFLECTION_V1ALPHA)
)

# Errors

_Status = message_class("google.rpc.Status")


def status_details(error: RaffelError) -> bytes:
    """A `google.rpc.Status` whose one detail is the error object, a `google.protobuf.Value`.

    The same error is always the same bytes, and never more than `MAX_DETAILS`. The object lacks its `details` where
    they make it larger, or where a Value cannot hold them: no finite number, nested deeper than protobuf reads. The
    message of the Status, which `grpc-message` repeats, is cut to 1,024 bytes.
    """
    message = str(error.message).encode("utf-8", "backslashreplace")[:_MAX_MESSAGE].decode("utf-8", "ignore")
    for value in _values(error):
        status = _Status(code=status_number(error), message=message)
        status.details.add(type_url=_VALUE, value=value)
        if status.ByteSize() <= MAX_DETAILS:
            return bytes(status.SerializeToString(deterministic=True))
    return bytes(_Status(code=status_number(error), message=message).SerializeToString(deterministic=True))


def _values(error: RaffelError) -> Iterator[bytes]:
    """The error object as a Value, with its details and without, where there is such a Value."""
    for source in (error, RaffelError(error.code, error.message)):
        value = Value()
        try:
            ParseDict(msgspec.json.decode(source.to_json()), value)
            data = value.SerializeToString(deterministic=True)
            Value.FromString(data)  # what is nested too deep is written, and read by nobody
        except (ParseError, DecodeError, OverflowError, RecursionError):
            continue
        yield data
