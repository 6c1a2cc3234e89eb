"""The server's own gRPC services: health and reflection, as their documents in grpc/grpc's doc folder have them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from raffel_core.context import Context
from raffel_core.errors import CODES, RaffelError
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.standard import HEALTH, REFLECTIONS, Reflection, message_class
from raffel_core.protocols.connection import Hub
from raffel_core.route import Kind, Origin, make_route

if TYPE_CHECKING:
    from raffel_core.protobuf.services import Services

ORIGIN = Origin("the server itself")
"""Where these methods' routes were defined: no reload changes them."""

MAX_LISTED = 100
"""Services in one answer of `Health/List`, as its proto has it."""

_HEALTH = "grpc.health.v1.Health"
_UNKNOWN_SERVICE = "SERVICE_UNKNOWN"

_CheckRequest = message_class("grpc.health.v1.HealthCheckRequest")
_CheckResponse = message_class("grpc.health.v1.HealthCheckResponse")
_ListRequest = message_class("grpc.health.v1.HealthListRequest")
_ListResponse = message_class("grpc.health.v1.HealthListResponse")


def standard_methods(hub: Hub, services: Callable[[], Services], *, reflection: bool) -> dict[str, Method]:
    """The methods of health and, where it is wanted, of reflection, by their paths.

    `services` gives those of the routes as they are now: a reload replaces them, and then `hub.announce()` is called.
    """
    own = [_HEALTH, *(version.service for version in REFLECTIONS if reflection)]

    def names() -> list[str]:
        return sorted({*own, *(path[1:].partition("/")[0] for path in services().methods)})

    methods = _health_methods(hub, names)
    if reflection:
        index = _latest_index(services, names)
        methods += [_reflection_method(version, index) for version in REFLECTIONS]
    return {method.path: method for method in methods}


def _method(path: str, kind: Kind, handler: Callable[..., Any], request: Any, response: Any) -> Method:
    service, _, name = path[1:].partition("/")
    meta = {"check_output": False} if kind is Kind.UNARY else {"check_output": False, "direction": str(kind)}
    route, problems = make_route(f"{service}.{name}", handler, origin=ORIGIN, procedure=kind is Kind.UNARY, meta=meta)
    assert route is not None, problems

    def decode(data: bytes) -> Any:
        try:
            return request.FromString(data)
        except DecodeError:
            raise RaffelError("PARSE_ERROR", f"found no {request.DESCRIPTOR.full_name}") from None

    return Method(path, route, decode=decode, encode=response.SerializeToString, item_type=response)


# Health


def _health_methods(hub: Hub, names: Callable[[], Collection[str]]) -> list[Method]:
    def overall() -> str:
        return "SERVING" if hub.ready else "NOT_SERVING"

    def status(service: str) -> str:
        """Of the server as a whole where no service is named."""
        return overall() if not service or service in names() else _UNKNOWN_SERVICE

    async def check(request: Any) -> Any:
        found = status(request.service)
        if found == _UNKNOWN_SERVICE:
            raise RaffelError("NOT_FOUND", f"no such service: {request.service[:200]!r}")
        return _CheckResponse(status=found)

    async def every(request: Any) -> Any:
        services = ["", *names()]
        if len(services) > MAX_LISTED:
            raise RaffelError("RESOURCE_EXHAUSTED", f"found {len(services)} services, expected at most {MAX_LISTED}")
        return _ListResponse(statuses={service: _CheckResponse(status=overall()) for service in services})

    async def watch(request: Any, ctx: Context) -> AsyncIterator[Any]:
        told = None
        while True:
            ctx.app = hub.app  # after a reload too: nothing that was replaced is kept for this call
            found = status(request.service)
            if found != told:
                told = found
                yield _CheckResponse(status=found)
            else:
                await hub.change()

    return [
        _method(f"/{_HEALTH}/Check", Kind.UNARY, check, _CheckRequest, _CheckResponse),
        _method(f"/{_HEALTH}/List", Kind.UNARY, every, _ListRequest, _ListResponse),
        _method(f"/{_HEALTH}/Watch", Kind.SERVER, watch, _CheckRequest, _CheckResponse),
    ]


# Reflection


class Index:
    """The files of one `Services` object, found by their names and by what they define."""

    __slots__ = ("_data", "_pool", "names", "services")

    def __init__(self, services: Services, names: Collection[str]) -> None:
        self.services = services
        self.names = names
        """The services' names, sorted."""
        self._data: dict[str, bytes] = {}
        self._pool = DescriptorPool()
        files = {file.name: file for file in services.files}
        for file in files.values():
            self._add(file, files)
        for file in (HEALTH, *(version.file for version in REFLECTIONS)):
            with contextlib.suppress(TypeError):  # the project has a service of this name, which comes first
                self._add(file, files)

    def _add(self, file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]) -> None:
        """Adds a file behind all that it depends on: a pool takes them in no other order."""
        if file.name in self._data:
            return
        for name in file.dependency:
            self._add(files[name] if name in files else _googles(name), files)
        data = file.SerializeToString(deterministic=True)
        self._pool.AddSerializedFile(data)
        self._data[file.name] = data

    # Each of these raises KeyError for what is not there.

    def named(self, name: str) -> list[bytes]:
        """A file and all that it depends on, each once and the file itself first."""
        found: dict[str, bytes] = {}
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found[one] = self._data[one]
                waiting += [file.name for file in self._pool.FindFileByName(one).dependencies]
        return [*found.values()]

    def defining(self, symbol: str) -> list[bytes]:
        """The file of a service, method, message, enum, enum value, oneof or field, by its full name."""
        try:
            file = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:  # a pool does not know methods
            service, _, method = symbol.rpartition(".")
            file = self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file
        return self.named(file.name)

    def extending(self, message: str, number: int) -> list[bytes]:
        """The file of an extension."""
        extended = self._pool.FindMessageTypeByName(message)
        extension = self._pool.FindExtensionByNumber(extended, number)
        return self.named(extension.file.name)  # type: ignore[attr-defined]  # which the stubs lack

    def extensions(self, message: str) -> list[int]:
        """The numbers of a message's extensions."""
        return sorted(one.number for one in self._pool.FindAllExtensions(self._pool.FindMessageTypeByName(message)))


def _googles(name: str) -> FileDescriptorProto:
    """A file of google.protobuf. Whoever has a message that depends on it has imported it."""
    return FileDescriptorProto.FromString(descriptor_pool.Default().FindFileByName(name).serialized_pb)


def _latest_index(services: Callable[[], Services], names: Callable[[], Collection[str]]) -> Callable[[], Index]:
    """The index of the services as they are now, made when it is asked for and kept until they are replaced."""
    latest: Index | None = None

    def index() -> Index:
        nonlocal latest
        now = services()
        if latest is None or latest.services is not now:
            latest = Index(now, names())
        return latest

    return index


def _reflection_method(version: Reflection, index: Callable[[], Index]) -> Method:
    response = version.response

    async def info(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            answer = response(valid_host=request.host, original_request=request)
            try:
                _answer(answer, request, index())
            except RaffelError as error:
                answer.error_response.error_code = CODES[error.code].grpc
                answer.error_response.error_message = error.message
            yield answer

    return _method(f"/{version.service}/ServerReflectionInfo", Kind.BIDI, info, version.request, response)


def _answer(answer: Any, request: Any, index: Index) -> None:
    """Fills in what a request asks for. NOT_FOUND: it is not there."""
    asked = request.WhichOneof("message_request")
    if asked is None:
        raise RaffelError("INVALID_ARGUMENT", "found a request for nothing, expected one of the fields 3 to 7")
    value = getattr(request, asked)
    files = answer.file_descriptor_response.file_descriptor_proto
    try:
        if asked == "list_services":
            listed = answer.list_services_response
            for name in index.names:
                listed.service.add(name=name)
        elif asked == "file_by_filename":
            files.extend(index.named(value))
        elif asked == "file_containing_symbol":
            files.extend(index.defining(value))
        elif asked == "file_containing_extension":
            files.extend(index.extending(value.containing_type, value.extension_number))
        else:
            numbers = index.extensions(value)
            answer.all_extension_numbers_response.base_type_name = value
            answer.all_extension_numbers_response.extension_number.extend(numbers)
    except KeyError:
        raise RaffelError("NOT_FOUND", f"{asked}: found nothing of the name {str(value)[:200]!r}") from None
