"""What load balancers ask: whether the process lives, and whether it may be sent more."""

from __future__ import annotations

import msgspec

from raffel_core.errors import RaffelError
from raffel_core.protocols.connection import Hub

PATH = "/health"
_LIVE, _READY = "/health/live", "/health/ready"


def asks_health(path: str) -> bool:
    """Whether a path, without `base_path`, belongs to the health checks."""
    return path == PATH or path.startswith(PATH + "/")


def health(hub: Hub, path: str) -> tuple[int, bytes]:
    """The status and the JSON body of the answer to a path; NOT_FOUND where no check has it.

    `/health/live` is 200 as long as there is an answer at all; the others are 503 while no more shall be sent.
    """
    if path not in (PATH, _LIVE, _READY):
        raise RaffelError("NOT_FOUND", f"found {path[:100]!r}, expected {PATH}, {_LIVE} or {_READY}")
    ready = hub.ready or path == _LIVE
    body = {"status": "ok" if ready else "draining", "streams": len(hub.sessions)}
    return 200 if ready else 503, msgspec.json.encode(body)
