"""One core for the server and another for the client, so that neither's time is the other's."""

from __future__ import annotations

import os
from collections.abc import Callable

_ours = sorted(os.sched_getaffinity(0))
CLIENT, SERVER = _ours[0], _ours[-1]
SHARED = CLIENT == SERVER


def pin(core: int) -> Callable[[], None]:
    """What a child process runs before its program, to stay on that core with all of its threads."""
    return lambda: os.sched_setaffinity(0, {core})
