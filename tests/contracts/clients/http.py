"""What the clients of all HTTP protocols share: httpx, and one request a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast
from urllib.parse import quote

import httpx
import msgspec

from raffel_core.route import Kind
from raffel_core.server import Server

from .call import NOTHING, PATIENCE, Call, Cut, Outcome, failed, reset_on_close

Read = Callable[[httpx.Response, Call], Awaitable[Outcome]]
"""Gives the items of an answer of status 200 to the call and returns its end."""


class Gated(httpx.AsyncByteStream):
    """A body that is read only while a client wants to."""

    def __init__(self, stream: httpx.AsyncByteStream, reading: asyncio.Event) -> None:
        self._stream = stream
        self._reading = reading

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self._reading.wait()
        async for piece in self._stream:
            yield piece
            await self._reading.wait()

    async def aclose(self) -> None:
        await self._stream.aclose()


class HttpCall(Call):
    """A call that is a request of its own."""

    def __init__(self, answer: Callable[[HttpCall], Awaitable[Outcome]]) -> None:
        super().__init__()
        self._socket: int | None = None
        self._task = asyncio.create_task(self._run(answer))

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Notes the connection that httpx opens for this call."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket").fileno()

    async def _run(self, answer: Callable[[HttpCall], Awaitable[Outcome]]) -> None:
        try:
            outcome = await answer(self)
        except (httpx.RemoteProtocolError, httpx.NetworkError):
            outcome = Cut()
        except Exception:
            self.finish(Cut())  # and `close` says what it was
            raise
        self.finish(outcome)

    async def leave(self, *, reset: bool = False) -> None:
        if reset:
            assert self._socket is not None, "the call shares a connection"
            reset_on_close(self._socket)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def close(self) -> None:
        await self.leave()
        if not self._task.cancelled():
            self._task.result()


class HttpClient:
    """A client of one HTTP protocol."""

    def __init__(self, server: Server, prefix: str, read: Read, *, get: bool, accept: str | None = None) -> None:
        # Without TLS there is nothing to verify, and the certificates of the world take long to load.
        self._http = httpx.AsyncClient(base_url=server.url, verify=False, trust_env=False, timeout=PATIENCE)
        self._prefix = prefix
        self._read = read
        self._get = get
        self._headers = {} if accept is None else {"Accept": accept}
        self._calls: list[HttpCall] = []
        self._reading = asyncio.Event()
        self._reading.set()

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
        assert not binary, "not of this protocol"
        headers = {**self._headers, **(metadata or {})}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        if timeout_ms is not None:
            headers["timeout-ms"] = str(timeout_ms)
        options: dict[str, Any] = {"headers": headers}
        path, body = self.request(name, input)
        if body is not None:
            headers["Content-Type"] = "application/json"
            options["content"] = body
        method = "GET" if self._get and body is None else "POST"

        async def answer(call: HttpCall) -> Outcome:
            async with self._http.stream(method, path, **options, extensions={"trace": call.trace}) as response:
                if response.status_code != 200:
                    body = json.loads(await response.aread())
                    assert set(body) == {"error"}, body
                    return failed(body["error"])
                response.stream = Gated(cast("httpx.AsyncByteStream", response.stream), self._reading)
                return await self._read(response, call)

        call = HttpCall(answer)
        self._calls.append(call)
        return call

    def request(self, name: str, input: Any) -> tuple[str, bytes | None]:
        """The path and the body that ask for a call."""
        return self._prefix + quote(name), None if input is NOTHING else msgspec.json.encode(input)

    def weigh(self, kind: Kind, name: str, input: Any) -> int:
        return len(self.request(name, input)[1] or b"")

    def weigh_item(self, data: Any) -> int:
        raise NotImplementedError  # HTTP carries no items up, so no scenario has one to weigh

    def pause(self) -> None:
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    async def close(self) -> None:
        for call in self._calls:
            await call.close()
        await self._http.aclose()
