"""What this machine is. A procedure: one request, one answer."""

import os
import platform
import shutil
from typing import Literal

from msgspec import Struct

from routes_example._machine import memory_bytes

BYTES = {"B": 1, "MiB": 1024**2, "GiB": 1024**3}


class Question(Struct):
    unit: Literal["B", "MiB", "GiB"] = "GiB"


class Machine(Struct):
    host: str
    system: str
    python: str
    cores: int
    load: tuple[float, float, float]
    """The averages of the last minute, five minutes and fifteen minutes."""
    unit: str
    memory: float
    disk: float
    disk_free: float


meta = {"description": "The machine's name, system, load, memory and disk", "tags": ["system"]}


def handler(input: Question) -> Machine:
    """A plain function runs in a thread, so it may take its time: a disk does."""
    disk, size = shutil.disk_usage("/"), BYTES[input.unit]
    return Machine(
        host=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cores=os.cpu_count() or 1,
        load=os.getloadavg(),
        unit=input.unit,
        memory=round(memory_bytes()[0] / size, 2),
        disk=round(disk.total / size, 2),
        disk_free=round(disk.free / size, 2),
    )
