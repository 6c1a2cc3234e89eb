"""What `dev` and `serve` have in common: from their troubles to an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from raffel_cli import output
from raffel_core import thread
from raffel_core.errors import ProjectError


def run(start: Callable[[], None]) -> None:
    """Runs a server until it ends and exits: 0 when it was told to, 1 when the project or the address has a problem."""
    status = 1
    try:
        start()
        status = 0
    except ProjectError as error:
        output.problems(error.problems, "stderr")
    except OSError as error:
        output.error(f"cannot listen: {error.strerror or error}")
    sys.stdout.flush()
    sys.stderr.flush()
    if thread.busy():
        os._exit(status)  # a plain handler still runs in its thread, which nothing can end
    sys.exit(status)
