"""A client of gRPC by hand (RFC 9113): it sends any bytes as frames, and reads only when a test says so."""

from __future__ import annotations

import array
import asyncio
import fcntl
import gzip
import socket
import struct
import termios
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from hpack import Decoder

PATIENCE = 20.0
"""Seconds after which a test gives up. None waits for it unless something is wrong."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384
MAX_WINDOW = 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = range(1, 5)

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 0, 1, 3, 4
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14


# What a client sends


def frame(type: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", type, flags, stream) + payload


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer of HPACK (RFC 7541, 5.1) behind the bits of its first byte."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out, value = bytearray((first | most,)), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A field that says its name; `indexed` puts it into the decoder's table."""
    return (b"\x40" if indexed else b"\x00") + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def fields(path: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The head of a call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


def head(stream: int, path: str, *more: tuple[bytes, bytes], end: bool = False) -> bytes:
    """HEADERS that open a call; with `end` nothing follows."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields(path, *more)))


def data(stream: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    """DATA, in as many frames as it needs."""
    pieces = [payload[at : at + MAX_FRAME] for at in range(0, len(payload), MAX_FRAME)] or [b""]
    last = len(pieces) - 1
    return b"".join(frame(DATA, end and n == last, stream, piece) for n, piece in enumerate(pieces))


def message(payload: bytes, flag: int = 0) -> bytes:
    """A message behind its prefix."""
    return struct.pack("!BI", flag, len(payload)) + payload


def blob(value: bytes) -> bytes:
    """The message that a schema of `bytes` is: one field, which is left out where it is empty."""
    return b"\x0a" + integer_of(len(value)) + value if value else b""


def number(value: int) -> bytes:
    """The message that a schema of `int` is."""
    return b"\x08" + integer_of(value) if value else b""


def integer_of(value: int) -> bytes:
    """A varint of protocol buffers."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def call(stream: int, path: str, payload: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
    """A whole unary call."""
    return head(stream, path, *more) + data(stream, message(payload), end=True)


def update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", size))


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def settings(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", key, value) for key, value in values.items()))


def ping(payload: bytes = b"12345678") -> bytes:
    return frame(PING, 0, 0, payload)


# What it receives


def number_in(payload: bytes) -> int:
    """The one field of a message that a schema of `int` is."""
    value = 0
    for shift, byte in enumerate(payload[1:]):
        value |= (byte & 127) << 7 * shift
    return value


def blob_in(payload: bytes) -> bytes:
    """The one field of a message that a schema of `bytes` is."""
    at = 1
    while at < len(payload) and payload[at] & 128:
        at += 1
    return payload[at + 1 :]


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    payload: bytes


class Closed(Exception):
    """The server has closed. `how` is "end" for a FIN, "reset" for an RST."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Answer:
    """What has come on one stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.messages: list[bytes] = []
        self.size = 0
        """Bytes of DATA."""
        self.ended = False
        """Whether END_STREAM has come."""
        self.reset: int | None = None
        """The code of an RST_STREAM."""
        self._rest = bytearray()

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def status(self) -> int | None:
        """The `grpc-status`; None where there is none."""
        found = self.trailers.get("grpc-status")
        return None if found is None else int(found)

    def on_headers(self, found: dict[str, str]) -> None:
        if not self.headers:
            self.headers = found
        if "grpc-status" in found:
            self.trailers = found

    def on_data(self, payload: bytes) -> None:
        self.size += len(payload)
        rest = self._rest
        rest += payload
        at = 0
        while len(rest) - at >= 5:
            end = at + 5 + int.from_bytes(rest[at + 1 : at + 5], "big")
            if end > len(rest):
                break
            body = bytes(rest[at + 5 : end])
            self.messages.append(gzip.decompress(body) if rest[at] else body)
            at = end
        del rest[:at]


class Raw:
    """One connection over a bare socket. `granting`: it gives windows back as fast as they are used."""

    def __init__(self, sock: socket.socket, *, granting: bool = True) -> None:
        self.sock = sock
        self.granting = granting
        self.answers: dict[int, Answer] = {}
        self.updates: Counter[int] = Counter()
        """How much window the server has given back, by stream."""
        self.goaway: tuple[int, str] | None = None
        """The code and the text of the last GOAWAY."""
        self.pongs = 0
        self.acknowledged = 0
        """How many SETTINGS of this side the server has acknowledged."""
        self.received = 0
        """Bytes that have been taken from the kernel."""
        self.settings: dict[int, int] = {}
        """What the server has said."""
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(max_header_list_size=1 << 20)
        self._raw = bytearray()

    # Up

    async def send(self, *frames: bytes) -> None:
        await self._loop.sock_sendall(self.sock, b"".join(frames))

    async def begin(self, values: Mapping[int, int] | None = None, *, window: int = MAX_WINDOW - 65_535) -> None:
        """Introduces itself; `window` is what it adds to the connection's."""
        more = update(0, window) if window else b""
        await self.send(PREFACE, settings({INITIAL_WINDOW_SIZE: MAX_WINDOW} if values is None else values), more)

    # Down

    async def more(self, size: int = 256 * 1024, patience: float = PATIENCE) -> int:
        """Takes what the kernel has, at most so much of it. Raises Closed."""
        async with asyncio.timeout(patience):
            try:
                found = await self._loop.sock_recv(self.sock, size)
            except (ConnectionResetError, BrokenPipeError):
                raise Closed("reset") from None
        if not found:
            raise Closed("end")
        self._raw += found
        self.received += len(found)
        return len(found)

    def frames(self) -> list[Frame]:
        """All frames that have been taken from the kernel, noted down."""
        raw, at, found = self._raw, 0, []
        while len(raw) - at >= 9:
            end = at + 9 + int.from_bytes(raw[at : at + 3], "big")
            if end > len(raw):
                break
            type, flags, stream = struct.unpack_from("!BBI", raw, at + 3)
            found.append(Frame(type, flags, stream, bytes(raw[at + 9 : end])))
            at = end
        del raw[:at]
        for one in found:
            self._note(one)
        return found

    def _note(self, one: Frame) -> None:
        type, flags, id, payload = one
        if type in (DATA, HEADERS, RST_STREAM):
            self._note_answer(self.answers.setdefault(id, Answer()), one)
        elif type == WINDOW_UPDATE:
            self.updates[id] += int.from_bytes(payload, "big")
        elif type == GOAWAY:
            self.goaway = (int.from_bytes(payload[4:8], "big"), payload[8:].decode())
        elif type == PING and flags & ACK:
            self.pongs += 1
        elif type == SETTINGS and flags & ACK:
            self.acknowledged += 1
        elif type == SETTINGS:
            pairs = struct.iter_unpack("!HI", payload)
            self.settings = dict(pairs)

    def _note_answer(self, answer: Answer, one: Frame) -> None:
        type, flags, _, payload = one
        if type == RST_STREAM:
            answer.reset = int.from_bytes(payload, "big")
            return
        if type == HEADERS:
            assert flags & END_HEADERS, "no answer of these tests needs CONTINUATION"
            answer.on_headers(dict(self._decoder.decode(payload)))
        else:
            answer.on_data(payload)
        answer.ended = answer.ended or bool(flags & END_STREAM)

    async def receive(self) -> list[Frame]:
        """The next frames. Raises Closed."""
        while not (found := self.frames()):
            await self.more()
        if self.granting:
            await self._grant(found)
        return found

    async def _grant(self, found: list[Frame]) -> None:
        sizes: Counter[int] = Counter()
        for one in found:
            if one.type == DATA and one.payload:
                sizes[one.stream] += len(one.payload)
        if sizes:
            streams = (update(id, size) for id, size in sizes.items() if not self.answers[id].over)
            await self.send(update(0, sizes.total()), *streams)

    async def until(self, condition: Callable[[], object]) -> None:
        """Receives until something is true. Raises Closed."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self.receive()

    async def answer(self, stream: int) -> Answer:
        """All that comes on a stream, up to its end."""
        await self.until(lambda: stream in self.answers and self.answers[stream].over)
        return self.answers[stream]

    async def messages(self, stream: int, count: int) -> list[bytes]:
        """The first so many messages of a stream."""
        await self.until(lambda: stream in self.answers and len(self.answers[stream].messages) >= count)
        return self.answers[stream].messages[:count]

    async def synchronise(self) -> None:
        """Sees that the server has looked at all that was sent, and has answered it."""
        pongs = self.pongs
        await self.send(ping(b"all read"))
        await self.until(lambda: self.pongs > pongs)

    async def rest(self) -> str:
        """Reads to the end of the connection, closes, and says how the server ended it."""
        try:
            await self.until(lambda: False)
        except Closed as closed:
            self.sock.close()
            return closed.how
        raise AssertionError("unreachable")

    async def flood(self, frames: bytes) -> None:
        """Sends all this while it reads what comes, until the server has looked at it or has closed."""
        sending = asyncio.create_task(self._send_all(frames + ping(b"all read")))
        pongs = self.pongs
        try:
            await self.until(lambda: self.pongs > pongs and sending.done())
        except Closed:
            self.sock.close()
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def _send_all(self, frames: bytes) -> None:
        try:
            await self.send(frames)
        except OSError:
            return  # the server has closed

    async def nothing(self, seconds: float = 0.05) -> None:
        """Sees that nothing comes for a while."""
        assert not self.frames()
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_recv(self.sock, 1)
        except TimeoutError:
            return
        raise AssertionError("something has come")

    def unread(self) -> int:
        """Bytes that this machine has received and nobody has read."""
        size = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.FIONREAD, size)
        return size[0]

    # The end

    def vanish(self) -> None:
        """Closes: the server gets a FIN."""
        self.sock.close()

    def break_off(self) -> None:
        """The server gets an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self) -> None:
        """Will send no more, and still reads."""
        self.sock.shutdown(socket.SHUT_WR)


async def connect(port: int, window: int | None = None, *, granting: bool = True) -> Raw:
    """A new connection. `window` bounds what the client's kernel takes unread."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if window is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return Raw(sock, granting=granting)
