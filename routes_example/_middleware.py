"""Around every call: it is listed while it is open, and a line in the request log when it has ended."""

import time
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from raffel_core import Call


class OpenCall(Struct):
    id: str
    route: str
    protocol: str
    peer: str
    since: datetime


async def middleware(call: Call, call_next: Any) -> Any:
    ctx, state, started = call.ctx, call.ctx.app.state, time.monotonic()

    def ended(outcome: Any) -> None:
        del state.open_calls[ctx.request_id]
        how = outcome.reason or outcome.code
        state.requests.info("%s %s %s %s %.3f s", ctx.peer, ctx.protocol, ctx.route, how, time.monotonic() - started)

    state.open_calls[ctx.request_id] = OpenCall(ctx.request_id, ctx.route, ctx.protocol, ctx.peer, datetime.now(UTC))
    ctx.on_close(ended)
    return await call_next(call)
