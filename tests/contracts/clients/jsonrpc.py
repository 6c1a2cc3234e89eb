"""Procedures over JSON-RPC 2.0, one call a request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec

from raffel_core.errors import CODES
from raffel_core.route import Kind
from raffel_core.server import Server

from .call import NOTHING, Call, Can, Carrier, End, Outcome, failed
from .http import HttpClient

PATH = "/rpc"
ID = "1"
NO_SUCH_METHOD = -32601
OWN_CODE = -32000


async def read(response: httpx.Response, call: Call) -> Outcome:
    answer = json.loads(await response.aread())
    assert (answer.pop("jsonrpc"), answer.pop("id")) == ("2.0", ID), answer
    if "error" not in answer:
        assert set(answer) == {"result"}, answer
        return End(answer["result"])
    assert set(answer) == {"error"} and set(answer["error"]) == {"code", "message", "data"}, answer
    number, message, data = (answer["error"][key] for key in ("code", "message", "data"))
    if "streams" in data:
        assert set(data) == {"code", "streams"}, data
        data = {"code": data["code"], "message": message}
    error = failed(data)
    numbers = [CODES[error.code].jsonrpc if error.code in CODES else OWN_CODE]
    assert number in numbers + [NO_SUCH_METHOD] * (error.code == "NOT_FOUND"), answer
    assert message == (error.message or error.code), answer
    return error


class JsonRpcClient(HttpClient):
    """A client that sends one call a request; an input that is neither object nor array is its only parameter."""

    def request(self, name: str, input: Any) -> tuple[str, bytes]:
        call: dict[str, Any] = {"jsonrpc": "2.0", "method": name, "id": ID}
        if input is not NOTHING:
            params = msgspec.to_builtins(input)
            call["params"] = params if isinstance(params, (dict, list)) else [params]
        return PATH, msgspec.json.encode(call)


async def connect(server: Server) -> JsonRpcClient:
    return JsonRpcClient(server, PATH, read, get=False)


JSONRPC = Carrier(
    "jsonrpc", "JSON-RPC", frozenset({Kind.UNARY}), frozenset({Can.TEXT, Can.UNTYPED, Can.KINDS}), connect
)
