"""WebSocket (RFC 6455): envelopes as messages, after an upgrade of an HTTP connection."""

from __future__ import annotations

import asyncio

from raffel_core.errors import RaffelError
from raffel_core.protocols.channel import Frame
from raffel_core.protocols.connection import NEVER, Hub
from raffel_core.protocols.envelopes import EnvelopeConnection
from raffel_core.wire import envelope as wire
from raffel_core.wire.http1 import Request
from raffel_core.wire.websocket import (
    BrokenFrame,
    FrameReader,
    Opcode,
    accept,
    binary_head,
    close_frame,
    ping_frame,
    pong_frame,
    text_head,
)

GOING_AWAY = 1001
POLICY = 1008
TOO_LARGE = 1009
FAULT = 1011
RESTART = 1012

_TEXT, _BINARY, _CLOSE, _PING = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING


class WebSocketConnection(EnvelopeConnection):
    """One connection, from the answer to its upgrade request on."""

    __slots__ = ("_handshake", "_heard", "_ping_at", "_pinged", "_reader", "_texts")

    name = "websocket"

    def __init__(self, hub: Hub, request: Request, peer: str) -> None:
        self._handshake = accept(request)
        super().__init__(hub, request.headers)
        self.peer = peer
        self._reader = FrameReader(hub.config.limits.message_bytes)
        self._texts: list[bytes] = []
        """What has been unmasked and not been looked at."""
        self._heard = True
        self._pinged = False
        self._ping_at = NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = self.peer
        super().connection_made(transport)
        self.peer = peer
        self.transport.write(self._handshake)
        self._handshake = b""
        self._ping_at = self.hub.loop.time() + self.hub.config.heartbeat_seconds.websocket
        self.wake_at(self._ping_at)

    def frame(self, binary: bool) -> Frame:
        return binary_head if binary else text_head

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._reader.feed(data)
        if not self.held:
            self.proceed()

    def advance(self) -> None:
        reader, taken = self._reader, False
        try:
            while not self.held:
                texts = self._texts or reader.take_texts()
                if texts and not self.closing:
                    taken = True
                    self._texts = texts[self.messages(texts) :]
                    continue
                frame = reader.take()
                if frame is None:
                    self.expect(partial=reader.partial, taken=taken)
                    return
                opcode, data = frame
                self.look()
                if opcode in (_TEXT, _BINARY):
                    taken = True
                    if not self.closing:
                        self.message(data, text=opcode == _TEXT)
                elif opcode == _CLOSE:
                    self._answer_close(data)
                    return
                elif opcode == _PING and not self.closing:
                    self.send_frame(pong_frame(data))
        except BrokenFrame as broken:
            self._break(broken)

    def messages(self, texts: list[bytes]) -> int:
        """Whole texts, as far as they are wanted now; returns how many that were."""
        return self.receive_all(texts, text=True)

    def message(self, data: bytes, *, text: bool) -> None:
        """One whole message."""
        self.receive(data, text=text)

    def send_frame(self, frame: bytes) -> None:
        """Sends a whole frame before all items."""
        self.outbox.replies.append(frame)
        self.written(len(frame))

    # The end

    def _answer_close(self, payload: bytes) -> None:
        """The peer has said the end: it gets the same back (RFC 6455, 5.5.1), and nothing that was queued."""
        if not self.closing:
            self.closing = True
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000
            self.transport.write(b"".join(self.outbox.replies) + close_frame(code))
            self.end_sessions("client_disconnected")
        self.transport.close()

    def _break(self, broken: BrokenFrame) -> None:
        if self.closing:
            self.transport.abort()
            return
        if broken.code == TOO_LARGE:
            self.say(wire.error(None, RaffelError("MESSAGE_TOO_LARGE", broken.message)))
        self._close(broken.code, broken.message, half_closed=self.transport.can_write_eof())

    def goodbye(self, reason: str) -> None:
        if reason == "server_draining":
            self._close(GOING_AWAY if self.hub.development else RESTART, "the server is shutting down")
        elif reason == "fault":
            self._close(FAULT, "a fault of the server")
        else:
            self._close(POLICY, "a message was not complete in time")

    def _close(self, code: int, reason: str, *, half_closed: bool = False) -> None:
        if not self.closing and not self.outbox.closed:
            self.leave(close_frame(code, reason), half_closed=half_closed)

    # Time

    def on_alarm(self, now: float) -> float:
        due = super().on_alarm(now)
        if self.closing:
            return due
        if now >= self._ping_at:
            self._ping_at = now + self.hub.config.heartbeat_seconds.websocket
            # While we do not read, a pong may lie behind what is not read; while the peer does not, the ping does.
            if self.held or self.outbox.paused:
                self._pinged = False
            elif self._pinged and not self._heard:
                self.cut("client_disconnected")
                return NEVER
            else:
                self._pinged, self._heard = True, False
                self.send_frame(ping_frame())
        return min(due, self._ping_at)
