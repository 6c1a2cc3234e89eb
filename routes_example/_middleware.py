"""Around every call: it is listed while it is open, and has a line in the request log when it is over."""

import time
from typing import Any

from raffel_core import Call


async def middleware(call: Call, call_next: Any) -> Any:
    ctx = call.ctx
    state = ctx.app.state
    started = state.open_calls[ctx] = time.monotonic()

    def over(outcome: Any) -> None:
        del state.open_calls[ctx]
        how, seconds = outcome.reason or outcome.code, time.monotonic() - started
        state.requests.info("%s %s %s %s %.3f s", ctx.peer, ctx.protocol, ctx.route, how, seconds)

    ctx.on_close(over)
    return await call_next(call)
