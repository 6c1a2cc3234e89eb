"""gRPC: HTTP/2 by h2, messages by google.protobuf, whose JSON mapping is what the scenarios see."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, struct_pb2, timestamp_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from raffel_core.errors import CODES, RaffelError
from raffel_core.protobuf.services import services_of
from raffel_core.route import Kind
from raffel_core.server import Server

from .call import NOTHING, PATIENCE, Call, Can, Carrier, Cut, End, Failed, Item, failed, reset_on_close

CANCEL, REFUSED_STREAM, GOAWAY = 8, 7, 7
NO_SUCH_ROUTE = 12
_VALUE = "google.protobuf.Value"
_LONG = 80_000


class Messages:
    """The methods of a server by the names of their routes, and their messages."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._routes: object = None

    def find(self, name: str) -> tuple[str, Any, Any, dict[str, str]]:
        """The path, the classes of request and response, and the parameters of a name."""
        self._load()
        try:
            route, params = self._server.router.find(name)
        except RaffelError:
            return f"/Root/{name}", struct_pb2.Value, struct_pb2.Value, {}
        path = self._services.by_route[route.name].path
        service, _, method = path[1:].partition("/")
        described = self._pool.FindServiceByName(service).methods_by_name[method]
        return path, GetMessageClass(described.input_type), GetMessageClass(described.output_type), dict(params)

    def _load(self) -> None:
        """A reload brings new routes."""
        if self._routes is self._server.router:
            return
        self._routes = self._server.router
        self._services, problems = services_of(self._server.router.routes.values())
        assert not problems, problems
        self._pool = descriptor_pool.DescriptorPool()
        for module in (struct_pb2, timestamp_pb2, duration_pb2):
            file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
            self._pool.Add(file)
        for file in self._services.files:
            self._pool.Add(file)


def _request(cls: Any, value: Any, params: Mapping[str, str]) -> bytes:
    """A message of what JSON says."""
    name = cls.DESCRIPTOR.full_name
    tree = None if value is NOTHING else msgspec.to_builtins(value, str_keys=True)
    if name == _VALUE:
        return b"" if value is NOTHING else ParseDict(tree, cls()).SerializeToString()
    rest = [field.name for field in cls.DESCRIPTOR.fields if field.name not in params]
    if value is NOTHING:
        tree = {}
    elif rest == ["value"]:
        tree = {"value": tree}
    given = {key: text for key, text in params.items() if key in cls.DESCRIPTOR.fields_by_name}
    return ParseDict({**tree, **given}, cls()).SerializeToString()


def _plain(message: Any) -> tuple[Any, str | None]:
    """A message as JSON has it, and its id."""
    event_id = None
    fields = message.DESCRIPTOR.fields_by_name
    if "raffel_event_id" in fields:
        event_id = message.raffel_event_id if message.HasField("raffel_event_id") else None
        message.ClearField("raffel_event_id")
    if message.DESCRIPTOR.full_name == _VALUE:
        return _numbers(MessageToDict(message)), event_id
    tree = {name: _json(message, field) for name, field in fields.items() if name != "raffel_event_id"}
    return tree["value"] if list(tree) == ["value"] else tree, event_id


def _json(message: Any, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.is_repeated:
        return [_plain(one)[0] for one in value]
    return _plain(value)[0]


def _numbers(tree: Any) -> Any:
    """A Value has doubles alone: a whole one that a double holds exactly was an int."""
    match tree:
        case float() if tree.is_integer() and abs(tree) <= 2**53:
            return int(tree)
        case dict():
            return {key: _numbers(value) for key, value in tree.items()}
        case list():
            return [_numbers(value) for value in tree]
        case _:
            return tree


class GrpcCall(Call):
    def __init__(self, client: GrpcClient, kind: Kind, stream: int, request: Any, response: Any) -> None:
        super().__init__()
        self._client = client
        self._kind = kind
        self.stream = stream
        self.request = request
        self._response = response
        self._buffer = bytearray()
        self._results: list[Any] = []
        self.headers: dict[str, str] = {}
        self._room = asyncio.Event()
        self._sending = asyncio.Lock()

    async def leave(self, *, reset: bool = False) -> None:
        if reset:
            reset_on_close(self._client.transport.get_extra_info("socket").fileno())
        self._client.transport.abort()

    async def cancel(self) -> None:
        """A client's own answer to itself, once the server has heard it."""
        await self._client.reset(self)
        if not self.over:
            self.finish(Failed("CANCELLED", "cancelled by the client", {"reason": "client_cancelled"}))

    async def send(self, data: Any) -> None:
        await self.write(_request(self.request, data, {}))

    async def write(self, message: bytes, *, end: bool = False) -> None:
        async with self._sending, asyncio.timeout(PATIENCE):
            await self._client.send(self, b"\0" + len(message).to_bytes(4, "big") + message, end=end)

    async def end(self) -> None:
        async with self._sending, asyncio.timeout(PATIENCE):
            await self._client.send(self, b"", end=True)

    def told_headers(self, headers: list[tuple[str, str]]) -> None:
        self.headers.update(headers)

    def told_data(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 5 and len(buffer) >= 5 + int.from_bytes(buffer[1:5], "big"):
            assert buffer[0] == 0, "compressed without having been asked for"
            stop = 5 + int.from_bytes(buffer[1:5], "big")
            value, event_id = _plain(self._response.FromString(bytes(buffer[5:stop])))
            del buffer[:stop]
            if self._kind.writes:
                self.arrive(Item(value, event_id))
            else:
                self._results.append(value)

    def told_end(self) -> None:
        assert not self._buffer, "the end of a message is missing"
        assert self.headers[":status"] == "200" and self.headers["content-type"] == "application/grpc", self.headers
        status = int(self.headers["grpc-status"])
        if status == 0:
            assert self._kind.writes or len(self._results) == 1, self._results
            self.finish(End() if self._kind.writes else End(self._results[0]))
            return
        details = self.headers["grpc-status-details-bin"]
        rpc = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
        value = struct_pb2.Value()
        assert rpc.details[0].Unpack(value)
        error = failed(_numbers(MessageToDict(value)))
        expected = CODES[error.code].grpc if error.code in CODES else CODES["UNKNOWN"].grpc
        assert status == rpc.code and status in (expected, NO_SUCH_ROUTE), (status, error)
        assert unquote(self.headers.get("grpc-message", "")) == rpc.message == error.message
        self.finish(error)


class GrpcClient(asyncio.Protocol):
    """Many calls on one connection."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._messages = Messages(server)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._calls: dict[int, GrpcCall] = {}
        self._faults: list[str] = []
        self._room = asyncio.Event()
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self._pongs: dict[bytes, asyncio.Event] = {}
        self._buffer = bytearray()

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(self._but_goaway(data)):
                self._on_event(event)
        except Exception as error:  # nobody would hear it here
            self._faults.append(repr(error))
        self._flush()

    def _but_goaway(self, data: bytes) -> bytes:
        """The whole frames that are here but GOAWAY, after which h2 would take nothing of the streams that go on."""
        buffer, frames = self._buffer, []
        buffer += data
        while len(buffer) >= 9 and len(buffer) >= (stop := 9 + int.from_bytes(buffer[:3], "big")):
            if buffer[3] != GOAWAY:
                frames.append(bytes(buffer[:stop]))
            del buffer[:stop]
        return b"".join(frames)

    def _on_event(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self._h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 2**31 - 1
                self._h2.remote_settings.acknowledge()  # it is the server's to refuse what is too much
                self._ready.set()
                self._room.set()
            case h2.events.PingAckReceived():
                self._pongs.pop(event.ping_data).set()
            case h2.events.WindowUpdated():
                self._room.set()
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._calls[event.stream_id].told_headers(event.headers)
            case h2.events.DataReceived():
                call = self._calls[event.stream_id]
                if not call.over:
                    call.told_data(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                if not self._calls[event.stream_id].over:
                    self._calls[event.stream_id].told_end()
                self._room.set()
            case h2.events.StreamReset():
                call = self._calls[event.stream_id]
                self._room.set()
                if not call.over:
                    refused = Failed("RESOURCE_EXHAUSTED", "refused")
                    call.finish(refused if event.error_code == REFUSED_STREAM else Cut())

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._room.set()
        for pong in self._pongs.values():
            pong.set()
        for call in self._calls.values():
            if not call.over:
                call.finish(Cut())

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    async def send(self, call: GrpcCall, data: bytes, *, end: bool) -> None:
        """Sends bytes as the windows let it; what is left of those for a call that is over is dropped."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while data and not call.over:
                size = min(self._h2.local_flow_control_window(call.stream), self._h2.max_outbound_frame_size, len(data))
                if size <= 0:
                    self._flush()
                    self._room.clear()
                    await self._room.wait()
                    if self._lost.is_set():
                        return
                    continue
                self._h2.send_data(call.stream, data[:size])
                data = data[size:]
            if end and not call.over:
                self._h2.end_stream(call.stream)
        self._flush()

    async def reset(self, call: GrpcCall) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):  # it has ended already
            self._h2.reset_stream(call.stream, CANCEL)
        mark = call.stream.to_bytes(8, "big")
        pong = self._pongs[mark] = asyncio.Event()
        self._h2.ping(mark)
        self._flush()
        if not self.transport.is_reading():
            return  # nobody would hear the answer
        async with asyncio.timeout(PATIENCE):
            await pong.wait()

    # What scenarios ask for

    async def open(
        self,
        kind: Kind,
        name: str,
        input: Any = NOTHING,
        *,
        metadata: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        timeout_ms: object = None,
        binary: bool = False,
    ) -> Call:
        path, request, response, params = self._messages.find(name)
        headers = list(_headers(path, metadata or {}, last_event_id, timeout_ms))
        stream = self._h2.get_next_available_stream_id()
        call = self._calls[stream] = GrpcCall(self, kind, stream, request, response)
        self._h2.send_headers(stream, headers)
        self._flush()
        if not kind.reads:
            await call.write(_request(request, input, params), end=True)
        elif params:
            await call.write(_request(request, NOTHING, params))
        return call

    def weigh(self, kind: Kind, name: str, input: Any) -> int:
        _, request, _, params = self._messages.find(name)
        return _weight(request, input, params)

    def weigh_item(self, data: Any) -> int:
        last = next(reversed(self._calls.values()), None)
        return _weight(struct_pb2.Value if last is None else last.request, data, {})

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    async def close(self) -> None:
        self.transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await self._lost.wait()
        self.transport.abort()
        await self._lost.wait()
        assert not self._faults, self._faults


def _weight(request: Any, value: Any, params: Mapping[str, str]) -> int:
    """The bytes of a message but those of its text, which the scenarios make long: so are the lengths before it."""
    return len(_request(request, _stretched(value), params)) - _LONG


def _stretched(value: Any) -> Any:
    if value == "":
        return "x" * _LONG
    return {key: _stretched(one) for key, one in value.items()} if isinstance(value, dict) else value


def _headers(
    path: str, metadata: Mapping[str, str], last_event_id: str | None, timeout_ms: object
) -> Iterator[tuple[str, str]]:
    yield from ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"))
    yield from (("te", "trailers"), ("content-type", "application/grpc"))
    yield from ((key.lower(), value) for key, value in metadata.items())
    if last_event_id is not None:
        yield "last-event-id", last_event_id
    if timeout_ms is not None:
        yield "grpc-timeout", f"{timeout_ms}m"


async def connect(server: Server) -> GrpcClient:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: GrpcClient(server), "127.0.0.1", server.grpc_port)
    async with asyncio.timeout(PATIENCE):
        await client._ready.wait()
    return client


GRPC = Carrier("grpc", "gRPC", frozenset(Kind), frozenset({Can.CANCEL, Can.RESUME, Can.SHARE, Can.SCALARS}), connect)
