"""TCP: envelopes with a length before each."""

from __future__ import annotations

from raffel_core.errors import RaffelError
from raffel_core.protocols.channel import Frame
from raffel_core.protocols.connection import Hub
from raffel_core.protocols.envelopes import EnvelopeConnection
from raffel_core.wire import envelope as wire
from raffel_core.wire.length_prefix import LengthPrefixReader, head


class TcpConnection(EnvelopeConnection):
    """One connection; `due` is the loop's time when its first message must be complete."""

    __slots__ = ("_messages", "_reader")

    name = "tcp"

    def __init__(self, hub: Hub, due: float) -> None:
        super().__init__(hub, {}, due)
        self._reader = LengthPrefixReader(hub.config.limits.message_bytes)
        self._messages: list[bytes] = []
        """What has been split and not been looked at."""

    def frame(self, binary: bool) -> Frame:
        return head

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._reader.feed(data)
        if not self.held:
            self.proceed()

    def advance(self) -> None:
        reader, taken = self._reader, False
        try:
            while not self.held and not self.closing:
                messages = self._messages or reader.take_all()
                if not messages:
                    self.expect(partial=reader.partial, taken=taken)
                    return
                taken = True
                self._messages = messages[self.receive_all(messages) :]
        except RaffelError as problem:
            self.say(wire.error(None, problem))
            self.goodbye("too_large")

    def goodbye(self, reason: str) -> None:
        if not self.closing and not self.outbox.closed:
            self.leave(half_closed=True)
