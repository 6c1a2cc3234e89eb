"""What the clients of WebSocket and TCP share: JSON envelopes, and the calls that their ids tell apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from raffel_core.route import Kind

from .call import NOTHING, Call, Can, Cut, End, Item, Outcome, failed, reset_on_close

CAN = frozenset(Can)

_FIELDS = {
    "response": {"type", "id", "payload"},
    "error": {"type", "id", "payload"},
    "stream:data": {"type", "id", "payload", "eventId"},
    "stream:end": {"type", "id"},
    "stream:error": {"type", "id", "payload"},
}


class Wire(Protocol):
    """A connection that carries messages. What it receives, and its end, it tells its client."""

    async def send(self, message: bytes) -> None: ...

    async def close(self) -> None: ...

    def abort(self) -> None: ...

    def fileno(self) -> int: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class EnvelopeCall(Call):
    def __init__(self, client: EnvelopeClient, id: str, kind: Kind, binary: bool) -> None:
        super().__init__()
        self._client = client
        self.id = id
        self.kind = kind
        self.binary = binary

    async def leave(self, *, reset: bool = False) -> None:
        if reset:
            reset_on_close(self._client.wire.fileno())
        self._client.wire.abort()

    async def cancel(self) -> None:
        await self._client.wire.send(msgspec.json.encode({"type": "cancel", "id": self.id}))

    async def send(self, data: Any) -> None:
        await self._client.wire.send(_message({"type": "stream:data", "id": self.id}, data, self.binary))

    async def end(self) -> None:
        await self._client.wire.send(msgspec.json.encode({"type": "stream:end", "id": self.id}))

    def told(self, type: str, message: dict[str, Any]) -> None:
        """One message of this call; AssertionError for one that a call of this kind does not get."""
        if type == "stream:data":
            assert self.kind.writes, f"an item for a {self.kind} call"
            self.arrive(Item(message["payload"], message.get("eventId")))
            return
        assert not self.over, f"{message} after the end"
        if type == "response":
            assert not self.kind.writes, f"a response for a {self.kind} call"
            self.finish(End(message["payload"]))
        elif type == "stream:end":
            assert self.kind.writes, f"the end of a stream for a {self.kind} call"
            self.finish(End())
        else:
            assert type == ("error" if self.kind is Kind.UNARY else "stream:error"), f"{type} for a {self.kind} call"
            self.finish(failed(message["payload"]))


class EnvelopeClient:
    """Many calls on one connection."""

    wire: Wire

    def __init__(self) -> None:
        self._calls: dict[str, EnvelopeCall] = {}
        self._faults: list[str] = []
        self._last: Outcome = Cut()
        """What calls get that are open when the connection ends."""

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
        id = f"{len(self._calls):06}"
        opening = _opening(kind, id, name)
        known = {**(metadata or {}), **({} if timeout_ms is None else {"timeout-ms": str(timeout_ms)})}
        if known:
            opening["metadata"] = known
        if last_event_id is not None:
            opening["lastEventId"] = last_event_id
        if binary:
            opening["binary"] = True
        call = self._calls[id] = EnvelopeCall(self, id, kind, binary)
        await self.wire.send(_message(opening, input, binary))
        return call

    def weigh(self, kind: Kind, name: str, input: Any) -> int:
        return len(_message(_opening(kind, "000000", name), input, binary=False))

    def weigh_item(self, data: Any) -> int:
        return len(_message({"type": "stream:data", "id": "000000"}, data, binary=False))

    def pause(self) -> None:
        self.wire.pause()

    def resume(self) -> None:
        self.wire.resume()

    async def close(self) -> None:
        await self.wire.close()
        assert not self._faults, self._faults

    def received(self, message: bytes) -> None:
        """A message has come. What is wrong with it is told at the end: nobody would hear it here."""
        try:
            self._read(message)
        except Exception as error:
            self._faults.append(f"{error!r}: {message[:500]!r}")

    def _read(self, message: bytes) -> None:
        if message[:1] == b"\x01":
            stop = 3 + int.from_bytes(message[1:3], "big")
            envelope = json.loads(message[3:stop])
            assert "payload" not in envelope
            envelope["payload"] = message[stop:]
        else:
            envelope = json.loads(message)
        type = envelope["type"]
        assert type in _FIELDS, "no type that a server sends"
        assert set(envelope) <= _FIELDS[type], "a field that is in no envelope of this type"
        if "id" not in envelope:
            assert type == "error" and envelope["payload"]["code"] == "MESSAGE_TOO_LARGE", "an error of no call"
            self._last = failed(envelope["payload"])
            return
        self._calls[envelope["id"]].told(type, envelope)

    def lost(self) -> None:
        """The connection has ended."""
        for call in self._calls.values():
            if not call.over:
                call.finish(self._last)


def _opening(kind: Kind, id: str, name: str) -> dict[str, Any]:
    return {"type": "request" if kind is Kind.UNARY else "stream:start", "id": id, "procedure": name}


def _message(envelope: dict[str, Any], payload: Any, binary: bool) -> bytes:
    if payload is NOTHING:
        return msgspec.json.encode(envelope)
    if binary and isinstance(payload, bytes):
        head = msgspec.json.encode(envelope)
        return b"\x01" + len(head).to_bytes(2, "big") + head + payload
    return msgspec.json.encode({**envelope, "payload": payload})
