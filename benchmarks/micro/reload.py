"""How long does a reload take that changes one route of 500? At most 15 ms on an idle core is the aim.

`python -m benchmarks.micro.reload`: the fastest and the median of some reloads, on a project made for it, of one
changed route, and of one changed module that ten routes import.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from raffel_core.discovery.load import FolderLoader
from raffel_core.discovery.modules import ProjectModules

ROUTES, FOLDERS, RELOADS = 500, 50, 30

ROUTE = """\
\"\"\"Route {number}.\"\"\"
from __future__ import annotations
from collections.abc import AsyncIterator
from msgspec import Struct
from raffel_core.context import Context
{more}
class Query(Struct):
    limit: int = {edit}
class Line(Struct):
    message: str
meta = {{"tags": ["benchmark"]}}
async def handler(input: Query, ctx: Context) -> AsyncIterator[Line]:
    yield Line("")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [root / f"routes/f{number % FOLDERS}/r{number}.stream.py" for number in range(ROUTES)]
        shared = root / "shared.py"
        shared.write_text("edit = 0\n")
        for number, file in enumerate(files):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(ROUTE.format(number=number, edit=0, more="import shared" if number < 10 else ""))
        modules = ProjectModules(root)
        loader = FolderLoader(root / "routes", modules)
        print(f"first load of {ROUTES} routes in {FOLDERS} folders: {_seconds(modules, loader, []) * 1e3:.1f} ms")
        time.sleep(2.5)  # files that were written just now are compared by their text
        _seconds(modules, loader, [])
        _show("nothing changed", [_seconds(modules, loader, []) for _ in range(RELOADS)])
        _show("one route changed", list(_after_edits(modules, loader, files[-1], ROUTE)))
        _show("a module of ten routes changed", list(_after_edits(modules, loader, shared, "edit = {edit}\n")))
        loader.close()
        modules.close()


def _after_edits(modules: ProjectModules, loader: FolderLoader, file: Path, text: str) -> Iterator[float]:
    for edit in range(1, RELOADS + 1):
        file.write_text(text.format(number=0, edit=edit, more=""))
        yield _seconds(modules, loader, [file])


def _seconds(modules: ProjectModules, loader: FolderLoader, touched: list[Path]) -> float:
    started = time.perf_counter()
    staged = loader.load(modules.begin(touched), touched)
    assert not staged.problems, staged.problems
    loader.commit()
    modules.commit()
    return time.perf_counter() - started


def _show(what: str, seconds: list[float]) -> None:
    print(f"{what}: fastest {min(seconds) * 1e3:.1f} ms, median {statistics.median(seconds) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
