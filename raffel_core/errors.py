"""What can go wrong: one error class, one code table, and the problems of a project that does not load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec


class Code(NamedTuple):
    """One row of the code table: the same error in every protocol's numbers."""

    http: int
    """The HTTP status (RFC 9110, section 15)."""
    grpc: int
    """The gRPC status code (grpc/grpc, doc/statuscodes.md)."""
    jsonrpc: int
    """The JSON-RPC 2.0 error code (specification, section 5.1)."""
    retry: bool = False
    """Whether the same call may succeed when it is tried again."""


CODES: Mapping[str, Code] = {
    "INVALID_ARGUMENT": Code(400, 3, -32602),
    "VALIDATION_ERROR": Code(400, 3, -32602),
    "INVALID_TYPE": Code(400, 3, -32600),
    "INVALID_ENVELOPE": Code(400, 3, -32600),
    "PARSE_ERROR": Code(400, 3, -32700),
    "UNAUTHENTICATED": Code(401, 16, -32001),
    "PERMISSION_DENIED": Code(403, 7, -32001),
    "NOT_FOUND": Code(404, 5, -32004),
    "METHOD_NOT_ALLOWED": Code(405, 12, -32601),
    "NOT_ACCEPTABLE": Code(406, 9, -32000),
    "ALREADY_EXISTS": Code(409, 6, -32000),
    "FAILED_PRECONDITION": Code(412, 9, -32000),
    "PAYLOAD_TOO_LARGE": Code(413, 8, -32000),
    "MESSAGE_TOO_LARGE": Code(413, 8, -32000),
    "UNSUPPORTED_MEDIA_TYPE": Code(415, 3, -32000),
    "UNPROCESSABLE_ENTITY": Code(422, 9, -32602),
    "RATE_LIMITED": Code(429, 8, -32002, retry=True),
    "RESOURCE_EXHAUSTED": Code(429, 8, -32002, retry=True),
    "CANCELLED": Code(499, 1, -32000),
    "INTERNAL_ERROR": Code(500, 13, -32603),
    "STREAM_ERROR": Code(500, 13, -32603),
    "OUTPUT_VALIDATION_ERROR": Code(500, 13, -32603),
    "DATA_LOSS": Code(500, 15, -32603),
    "UNKNOWN": Code(500, 2, -32603),
    "UNIMPLEMENTED": Code(501, 12, -32003),
    "BAD_GATEWAY": Code(502, 14, -32000, retry=True),
    "UNAVAILABLE": Code(503, 14, -32000, retry=True),
    "GATEWAY_TIMEOUT": Code(504, 14, -32000, retry=True),
    "DEADLINE_EXCEEDED": Code(504, 4, -32000, retry=True),
}

_OWN = Code(500, 2, -32000)


class RaffelError(Exception):
    """An error that reaches the client as it is, on every protocol.

    `code` is a row of the table, or a code of your own; `status` is the HTTP status of your own code (default 500).
    `details` is any JSON value; it is left out when there is none.
    """

    def __init__(self, code: str, message: str = "", details: Any = None, *, status: int | None = None) -> None:
        super().__init__(code, message)
        row = CODES.get(code, _OWN)
        self.code = code
        self.message = message
        self.details = details
        self.status = row.http if status is None else status
        self.retry = row.retry

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code

    def to_dict(self) -> dict[str, Any]:
        """The error object of the wire: `code`, `message` and, where there are any, `details`."""
        body = {"code": self.code, "message": self.message}
        return body if self.details is None else {**body, "details": self.details}

    def to_json(self) -> bytes:
        """The error object in JSON; details that JSON cannot hold are left out."""
        try:
            return msgspec.json.encode(self.to_dict())
        except Exception:  # an encoder meets whatever a handler put there, a file name that is no UTF-8 for one
            texts = {"code": str(self.code), "message": str(self.message)}
            return msgspec.json.encode({key: _unicode(text) for key, text in texts.items()})


class NoSuchRoute(RaffelError):
    """NOT_FOUND for a name that nothing answers: some protocols tell it from a handler's own."""

    def __init__(self, message: str) -> None:
        super().__init__("NOT_FOUND", message)


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Problem(NamedTuple):
    """One thing that is wrong in a project, for a person with an editor open."""

    file: str
    """The file's path, relative to the working directory where it lies below it."""
    line: int
    """0 where the thing has no lines: a variable, a flag."""
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.found}; expected {self.expected}"


class ProjectError(Exception):
    """A project does not load. `problems` are all that were found, in the order of their files and lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))
