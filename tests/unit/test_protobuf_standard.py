"""Health, reflection and the details of an error, judged by the packages that everyone else uses."""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from raffel_core.config import Config
from raffel_core.context import App, Context
from raffel_core.errors import CODES, RaffelError
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.standard import (
    HEALTH,
    MAX_DETAILS,
    REFLECTION_V1,
    REFLECTION_V1ALPHA,
    REFLECTIONS,
    STATUS,
    Reflection,
    status_details,
)
from raffel_core.protocols.connection import Hub
from raffel_core.protocols.grpc_standard import MAX_LISTED, standard_methods
from raffel_core.router import Router

# The files


def copied(module: Any) -> FileDescriptorProto:
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        (HEALTH, health_pb2, "grpc/health/v1/health.proto"),
        (REFLECTION_V1ALPHA, reflection_pb2, "grpc/reflection/v1alpha/reflection.proto"),
        (STATUS, status_pb2, "google/rpc/status.proto"),
    ],
)
def test_a_file_is_everyones_own_under_its_canonical_name(ours: FileDescriptorProto, theirs: Any, name: str) -> None:
    expected = copied(theirs)
    expected.name = name  # Python's packages have theirs in a folder of their own
    assert ours == expected


def test_reflection_v1_differs_from_v1alpha_in_names_and_in_not_being_deprecated() -> None:
    expected = copied(reflection_pb2)
    expected.options.ClearField("deprecated")
    text = str(expected).replace("v1alpha", "v1").replace("grpc_reflection/", "grpc/reflection/")
    assert str(REFLECTION_V1) == text


# The details of an error


def object_in(data: bytes) -> dict[str, Any]:
    """The error object, as a client with nothing but googleapis reads it."""
    status = status_pb2.Status.FromString(data)
    (detail,) = status.details
    value = struct_pb2.Value()
    assert detail.Unpack(value)
    return MessageToDict(value)


@pytest.mark.parametrize("code", [*CODES, "TEAPOT"])
def test_a_status_has_the_number_of_its_code(code: str) -> None:
    status = status_pb2.Status.FromString(status_details(RaffelError(code, "a message")))
    assert status.code == (CODES[code].grpc if code in CODES else 2)
    assert status.message == "a message"


@pytest.mark.parametrize(
    ("details", "arrives"),
    [
        (
            [{"path": "limit", "message": "Expected int, got str"}],
            [{"path": "limit", "message": "Expected int, got str"}],
        ),
        ({"a": None, "b": [1, 2.5, True], "c": {}}, {"a": None, "b": [1, 2.5, True], "c": {}}),
        ("text", "text"),
        (0, 0),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00Z"),
        (b"bytes", base64.b64encode(b"bytes").decode()),
    ],
)
def test_details_are_the_error_object(details: Any, arrives: Any) -> None:
    error = RaffelError("VALIDATION_ERROR", "no", details)
    assert object_in(status_details(error)) == {"code": "VALIDATION_ERROR", "message": "no", "details": arrives}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "details", [object(), 10**400, nested(60), nested(600), "x" * MAX_DETAILS, "\udcff", {"x": "y" * MAX_DETAILS}]
)
def test_details_that_no_value_holds_or_that_are_too_large_are_left_out(details: Any) -> None:
    data = status_details(RaffelError("NOT_FOUND", "no", details))
    assert object_in(data) == {"code": "NOT_FOUND", "message": "no"}


def test_details_up_to_the_limit_are_kept() -> None:
    sizes = set()
    for size in range(MAX_DETAILS - 300, MAX_DETAILS):
        data = status_details(RaffelError("NOT_FOUND", "no", "x" * size))
        assert len(data) <= MAX_DETAILS
        if "details" in object_in(data):
            sizes.add(len(data))
    assert max(sizes) == MAX_DETAILS


@pytest.mark.parametrize("message", ["x" * 1_000_000, "\u2713" * 100_000, "\ud800" * 100_000])
def test_a_status_of_any_message_is_bounded(message: str) -> None:
    data = status_details(RaffelError("NOT_FOUND", message, {"a": 1}))
    assert len(data) <= MAX_DETAILS
    status = status_pb2.Status.FromString(data)
    assert 1021 < len(status.message.encode()) <= 1024
    assert "\ufffd" not in status.message


def test_a_status_of_any_code_is_bounded() -> None:
    data = status_details(RaffelError("X" * 100_000, "no"))
    assert status_pb2.Status.FromString(data) == status_pb2.Status(code=2, message="no")


def test_equal_errors_are_equal_bytes() -> None:
    names = [f"field{number}" for number in range(50)]
    one = RaffelError("NOT_FOUND", "no", {name: name for name in names})
    other = RaffelError("NOT_FOUND", "no", {name: name for name in reversed(names)})
    assert status_details(one) == status_details(other)


# Health


class Services(NamedTuple):
    """The routes as methods, as far as the server's own services look at them."""

    methods: Mapping[str, Any] = {}
    files: Sequence[FileDescriptorProto] = ()


class Server:
    """The server's own services, and what they ask."""

    def __init__(self, services: Services, *, reflection: bool = True) -> None:
        self.services = services
        self.hub = Hub(Config(), Router([]), App())
        self.methods = standard_methods(self.hub, lambda: self.services, reflection=reflection)

    def reload(self, services: Services) -> None:
        self.services = services
        self.hub.announce()

    async def unary(self, path: str, request: Any) -> bytes:
        """One call, from bytes to bytes."""
        method = self.methods[path]
        answer = await method.route.start(method.decode(request.SerializeToString()), context(method))
        assert type(answer) is method.item_type
        return method.encode(answer)

    async def check(self, service: str) -> str:
        data = await self.unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=service))
        return status_in(data)

    async def watch(self, service: str) -> AsyncIterator[str]:
        method = self.methods["/grpc.health.v1.Health/Watch"]
        request = method.decode(health_pb2.HealthCheckRequest(service=service).SerializeToString())
        items = method.route.start(request, context(method))
        try:
            async for item in items:
                yield status_in(method.encode(item))
        finally:
            await items.aclose()


def context(method: Method) -> Context:
    return Context(method.route.name, protocol="grpc", app=App())


def status_in(data: bytes) -> str:
    status = health_pb2.HealthCheckResponse.FromString(data).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


PRICES = Services({"/market.Prices/Watch": None, "/market.Prices/Get": None, "/Logs/Tail": None})
KNOWN = [
    "Logs",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "market.Prices",
]


@pytest.mark.parametrize("service", ["", *KNOWN])
async def test_the_server_and_its_services_are_serving_until_it_is_not_ready(service: str) -> None:
    server = Server(PRICES)
    assert await server.check(service) == "SERVING"
    server.hub.ready = False
    assert await server.check(service) == "NOT_SERVING"


@pytest.mark.parametrize("service", ["Prices", "market", "market.Prices/Watch", "/market.Prices", "market.prices"])
async def test_an_unknown_service_is_not_found(service: str) -> None:
    with pytest.raises(RaffelError) as raised:
        await Server(PRICES).check(service)
    assert raised.value.code == "NOT_FOUND" and repr(service) in raised.value.message


async def test_the_list_has_the_server_and_every_service() -> None:
    data = await Server(PRICES).unary("/grpc.health.v1.Health/List", health_pb2.HealthListRequest())
    statuses = health_pb2.HealthListResponse.FromString(data).statuses
    assert {name: answer.status for name, answer in statuses.items()} == dict.fromkeys(["", *KNOWN], 1)


async def test_a_list_of_too_many_services_is_refused() -> None:
    server = Server(Services({f"/S{number}/M": None for number in range(MAX_LISTED)}))
    with pytest.raises(RaffelError) as raised:
        await server.unary("/grpc.health.v1.Health/List", health_pb2.HealthListRequest())
    assert raised.value.code == "RESOURCE_EXHAUSTED" and "100" in raised.value.message


async def test_watching_tells_the_status_at_once_and_each_change() -> None:
    server = Server(PRICES)
    watch = server.watch("market.Prices")
    assert await anext(watch) == "SERVING"
    server.hub.ready = False
    server.hub.announce()
    assert await anext(watch) == "NOT_SERVING"
    await watch.aclose()


async def test_watching_says_nothing_where_nothing_has_changed() -> None:
    server = Server(PRICES)
    watch = server.watch("market.Prices")
    assert await anext(watch) == "SERVING"
    waiting = asyncio.ensure_future(anext(watch))
    for _ in range(5):
        server.reload(PRICES)
        await asyncio.sleep(0)
    assert not waiting.done()
    server.hub.ready = False
    server.hub.announce()
    assert await waiting == "NOT_SERVING"
    await watch.aclose()


async def test_watching_an_unknown_service_goes_on_until_a_reload_brings_it_and_after_one_that_takes_it() -> None:
    server = Server(Services())
    watch = server.watch("market.Prices")
    assert await anext(watch) == "SERVICE_UNKNOWN"
    server.reload(PRICES)
    assert await anext(watch) == "SERVING"
    server.reload(Services())
    assert await anext(watch) == "SERVICE_UNKNOWN"
    await watch.aclose()


async def test_all_that_watch_are_told_in_the_next_turn_of_the_loop() -> None:
    server = Server(PRICES)
    watches = [server.watch("") for _ in range(100)]
    assert {await anext(watch) for watch in watches} == {"SERVING"}
    waiting = [asyncio.ensure_future(anext(watch)) for watch in watches]
    await asyncio.sleep(0)
    server.hub.ready = False
    server.hub.announce()
    await asyncio.sleep(0)
    told = {task.result() for task in waiting if task.done()}
    assert told == {"NOT_SERVING"} and all(task.done() for task in waiting)
    for watch in watches:
        await watch.aclose()


async def test_watching_can_be_cancelled_without_harm_to_the_others() -> None:
    server = Server(PRICES)
    gone, stays = server.watch(""), server.watch("")
    await anext(gone)
    await anext(stays)
    waiting, other = asyncio.ensure_future(anext(gone)), asyncio.ensure_future(anext(stays))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    server.hub.ready = False
    server.hub.announce()
    assert waiting.cancelled() and await other == "NOT_SERVING"
    await stays.aclose()


async def test_watching_keeps_nothing_of_an_application_that_a_reload_replaced() -> None:
    server = Server(PRICES)
    method = server.methods["/grpc.health.v1.Health/Watch"]
    ctx = context(method)
    items = method.route.start(method.decode(b""), ctx)
    await anext(items)
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    server.hub.app = App()
    server.hub.ready = False
    server.hub.announce()
    await waiting
    assert ctx.app is server.hub.app
    await items.aclose()


@pytest.mark.parametrize(
    "path", ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
)
async def test_bytes_that_are_no_message_are_a_parse_error(path: str) -> None:
    with pytest.raises(RaffelError) as raised:
        Server(PRICES).methods[path].decode(b"\xff")
    assert raised.value.code == "PARSE_ERROR" and "Request" in raised.value.message


# Reflection


def a_package() -> FileDescriptorProto:
    """A package with one of everything that has a name."""
    file = FileDescriptorProto(name="market.proto", package="market", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.dependency.append("common.proto")
    request = file.message_type.add(name="WatchRequest")
    request.field.add(
        name="symbol", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    inner = request.nested_type.add(name="Inner")
    inner.field.add(name="deep", number=1, type=FieldDescriptorProto.TYPE_BOOL, label=1)
    side = request.enum_type.add(name="Side")
    side.value.add(name="SIDE_UNSPECIFIED", number=0)
    file.message_type.add(name="Price").field.add(
        name="at", number=1, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1
    )
    mode = file.enum_type.add(name="Mode")
    mode.value.add(name="MODE_UNSPECIFIED", number=0)
    file.service.add(name="Prices").method.add(
        name="Watch", input_type=".market.WatchRequest", output_type=".market.Price", server_streaming=True
    )
    return file


def an_extension() -> FileDescriptorProto:
    """A file that has extensions, which only proto2 has."""
    file = FileDescriptorProto(name="common.proto", package="common", syntax="proto2")
    file.dependency.append("google/protobuf/timestamp.proto")
    open_message = file.message_type.add(name="Open")
    open_message.extension_range.add(start=100, end=200)
    for number in (151, 150):
        file.extension.add(
            name=f"extra{number}", number=number, type=FieldDescriptorProto.TYPE_INT32, label=1, extendee=".common.Open"
        )
    return file


TIMESTAMP = "google/protobuf/timestamp.proto"
MARKET = Services({"/market.Prices/Watch": None}, (a_package(), an_extension()))

both_versions = pytest.mark.parametrize("version", REFLECTIONS, ids=lambda version: version.file.package)


async def asked(server: Server, version: Reflection, *requests: Any) -> list[Any]:
    """The answers to requests of one stream, from bytes to bytes."""
    method = server.methods[f"/{version.service}/ServerReflectionInfo"]

    async def inbound() -> AsyncIterator[Any]:
        for request in requests:
            yield method.decode(request.SerializeToString())

    items = method.route.start(inbound(), context(method))
    return [version.response.FromString(method.encode(item)) async for item in items]


async def ask(version: Reflection, services: Services = MARKET, **request: Any) -> Any:
    (answer,) = await asked(Server(services), version, version.request(**request))
    return answer


def files_in(answer: Any) -> list[str]:
    data = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(one).name for one in data]


@both_versions
async def test_the_list_of_services_has_all_of_them_sorted(version: Reflection) -> None:
    answer = await ask(version, list_services="*")
    names = [service.name for service in answer.list_services_response.service]
    assert names == sorted(set(KNOWN) - {"Logs"})


@both_versions
async def test_a_file_comes_with_all_it_depends_on_each_once(version: Reflection) -> None:
    answer = await ask(version, file_by_filename="market.proto")
    names = files_in(answer)
    assert names[0] == "market.proto"
    assert sorted(names) == ["common.proto", TIMESTAMP, "market.proto"]
    database = DescriptorDatabase()
    for data in answer.file_descriptor_response.file_descriptor_proto:
        database.Add(FileDescriptorProto.FromString(data))
    pool = DescriptorPool(database)
    assert pool.FindServiceByName("market.Prices").methods[0].output_type.full_name == "market.Price"


@both_versions
async def test_files_arrive_as_they_were_made(version: Reflection) -> None:
    answer = await ask(version, file_by_filename="market.proto")
    files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
    by_name = {file.name: file for file in files}
    assert by_name["market.proto"] == a_package() and by_name["common.proto"] == an_extension()
    assert by_name[TIMESTAMP] == copied(timestamp_pb2)


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("market.Prices", "market.proto"),
        ("market.Prices.Watch", "market.proto"),
        ("market.WatchRequest", "market.proto"),
        ("market.WatchRequest.symbol", "market.proto"),
        ("market.WatchRequest.Inner", "market.proto"),
        ("market.WatchRequest.Inner.deep", "market.proto"),
        ("market.WatchRequest.Side", "market.proto"),
        ("market.WatchRequest.SIDE_UNSPECIFIED", "market.proto"),
        ("market.Mode", "market.proto"),
        ("market.MODE_UNSPECIFIED", "market.proto"),
        ("common.extra150", "common.proto"),
        ("google.protobuf.Timestamp", TIMESTAMP),
        ("grpc.health.v1.Health", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.Health.Check", "grpc/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1.ServerReflectionRequest.message_request", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "grpc/reflection/v1alpha/reflection.proto"),
    ],
)
@both_versions
async def test_everything_that_has_a_name_is_found(version: Reflection, symbol: str, file: str) -> None:
    assert files_in(await ask(version, file_containing_symbol=symbol))[0] == file


@both_versions
async def test_extensions_are_found_by_their_message_and_number(version: Reflection) -> None:
    extension = {"containing_type": "common.Open", "extension_number": 150}
    assert files_in(await ask(version, file_containing_extension=extension)) == ["common.proto", TIMESTAMP]


@pytest.mark.parametrize(("message", "numbers"), [("common.Open", [150, 151]), ("market.Price", [])])
@both_versions
async def test_the_numbers_of_extensions_are_those_of_a_known_type(
    version: Reflection, message: str, numbers: list[int]
) -> None:
    answer = (await ask(version, all_extension_numbers_of_type=message)).all_extension_numbers_response
    assert answer.base_type_name == message and list(answer.extension_number) == numbers


@pytest.mark.parametrize(
    "request_",
    [
        {"file_by_filename": "missing.proto"},
        {"file_by_filename": "google/protobuf/api.proto"},
        {"file_containing_symbol": "market"},
        {"file_containing_symbol": ""},
        {"file_containing_symbol": "market.Prices.Missing"},
        {"file_containing_symbol": "market.Price.missing"},
        {"file_containing_symbol": "x" * 10_000},
        {"file_containing_symbol": "market\0"},
        {"file_containing_extension": {"containing_type": "common.Open", "extension_number": 1}},
        {"file_containing_extension": {"containing_type": "missing", "extension_number": 1}},
        {"all_extension_numbers_of_type": "missing"},
        {"all_extension_numbers_of_type": "market.Prices"},
    ],
)
@both_versions
async def test_what_is_not_there_is_an_error_response(version: Reflection, request_: dict[str, Any]) -> None:
    answer = await ask(version, **request_)
    assert answer.WhichOneof("message_response") == "error_response"
    assert answer.error_response.error_code == 5
    assert next(iter(request_)) in answer.error_response.error_message
    assert len(answer.error_response.error_message) < 400


@both_versions
async def test_a_request_for_nothing_is_an_invalid_argument(version: Reflection) -> None:
    answer = await ask(version, host="example.com")
    assert answer.error_response.error_code == 3 and answer.error_response.error_message


@both_versions
async def test_an_answer_has_its_request_and_its_host(version: Reflection) -> None:
    for request in ({"list_services": ""}, {"file_by_filename": "missing"}):
        answer = await ask(version, host="example.com", **request)
        assert answer.valid_host == "example.com"
        assert answer.original_request == version.request(host="example.com", **request)


@both_versions
async def test_requests_of_one_stream_are_answered_in_order_whatever_fails(version: Reflection) -> None:
    names = ["market.Price", "missing", "common.Open"]
    requests = [version.request(file_containing_symbol=name) for name in names]
    answers = await asked(Server(MARKET), version, *requests)
    assert [answer.original_request.file_containing_symbol for answer in answers] == names
    assert [answer.WhichOneof("message_response") for answer in answers] == [
        "file_descriptor_response",
        "error_response",
        "file_descriptor_response",
    ]


@both_versions
async def test_reflection_follows_a_reload(version: Reflection) -> None:
    server = Server(MARKET)
    request = version.request(file_containing_symbol="market.Prices")
    (before,) = await asked(server, version, request)
    server.reload(Services())
    (after,) = await asked(server, version, request)
    (services,) = await asked(server, version, version.request(list_services=""))
    assert files_in(before)[0] == "market.proto"
    assert after.error_response.error_code == 5
    assert [service.name for service in services.list_services_response.service] == KNOWN[1:-1]


@both_versions
async def test_a_service_of_the_project_comes_before_the_servers_own_of_its_name(version: Reflection) -> None:
    file = FileDescriptorProto(name="mine.proto", package="grpc.health.v1", syntax="proto3")
    file.service.add(name="Health")
    services = Services({"/grpc.health.v1.Health/Check": None}, (file,))
    answer = await ask(version, services, file_containing_symbol="grpc.health.v1.Health")
    assert files_in(answer) == ["mine.proto"]


async def test_without_reflection_there_is_health_alone() -> None:
    methods = Server(MARKET, reflection=False).methods
    assert [*methods] == [f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")]


async def test_without_reflection_health_knows_no_service_of_it() -> None:
    server = Server(MARKET, reflection=False)
    assert await server.check("market.Prices") == "SERVING"
    with pytest.raises(RaffelError):
        await server.check("grpc.reflection.v1.ServerReflection")


async def test_every_method_is_under_its_path_and_of_its_kind() -> None:
    kinds = {path: str(method.route.kind) for path, method in Server(MARKET).methods.items()}
    assert kinds == {
        "/grpc.health.v1.Health/Check": "unary",
        "/grpc.health.v1.Health/List": "unary",
        "/grpc.health.v1.Health/Watch": "server",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "bidi",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "bidi",
    }
