"""A small project on the disk, edited between imports: which of its modules are imported anew, and which stay."""

import gc
import importlib
import importlib.util
import os
import py_compile
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

import raffel_core.errors
from raffel_core.discovery.modules import ROUTES, ProjectModules

Write = Callable[[Mapping[str, str | None]], Path]


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[ProjectModules]:
    modules = ProjectModules(tmp_path)
    yield modules
    modules.close()


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def settle(path: Path, seconds: int = 10) -> None:
    """Makes the last edit an old one."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


def edit_unseen(path: Path, text: str) -> None:
    """Puts a text of the same size in place and leaves every time as it was."""
    status = path.stat()
    assert len(text.encode()) == status.st_size
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def dirty_after(modules: ProjectModules, write: Write, edits: Mapping[str, str | None]) -> set[str]:
    """What one more edit makes dirty, once everything imported so far has been committed."""
    modules.begin()
    modules.commit()
    write(edits)
    return set(modules.begin())


# Where they are imported from


def test_the_root_is_put_at_the_front_of_the_path_once(tmp_path: Path, modules: ProjectModules) -> None:
    sys.path.insert(0, "elsewhere")
    again = ProjectModules(tmp_path)
    assert sys.path[0] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    again.close()
    sys.path.remove("elsewhere")


def test_closing_leaves_path_hooks_and_modules_as_they_were(tmp_path: Path, project: Write) -> None:
    project({"shop/__init__.py": "", "shop/stock.py": ""})
    path, hooks, names = list(sys.path), list(sys.path_hooks), set(sys.modules)
    modules = ProjectModules(tmp_path)
    load("shop.stock")
    modules.close()
    modules.close()
    assert (sys.path, sys.path_hooks, set(sys.modules)) == (path, hooks, names)
    assert not [entry for entry in sys.path_importer_cache if entry.startswith(str(tmp_path))]


def test_no_bytecode_is_written(project: Write, modules: ProjectModules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    root = project({"shop/__init__.py": "", "shop/stock.py": "count = 1"})
    load("shop.stock")
    assert not list(root.rglob("*.pyc"))
    assert sys.dont_write_bytecode is False


def test_a_bytecode_file_is_not_believed(project: Write, modules: ProjectModules) -> None:
    root = project({"stock.py": "count = 1"})
    py_compile.compile(str(root / "stock.py"))
    edit_unseen(root / "stock.py", "count = 2")
    assert load("stock").count == 2


def test_a_file_is_compiled_by_its_own_future_imports_alone(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "def count(of: int): ..."})
    assert load("stock").count.__annotations__ == {"of": int}


def test_a_syntax_error_tells_its_file_and_line(project: Write, modules: ProjectModules) -> None:
    root = project({"stock.py": "count = 1\ncount ="})
    with pytest.raises(SyntaxError) as caught:
        load("stock")
    assert (caught.value.filename, caught.value.lineno) == (str(root / "stock.py"), 2)


# Which ones changed


def test_without_an_edit_nothing_is_imported_anew(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "", "prices.py": "import stock"})
    before = load("prices")
    assert modules.begin() == frozenset()
    assert load("prices") is before


def test_a_changed_module_is_imported_anew(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "count = 1"})
    before = load("stock")
    assert dirty_after(modules, project, {"stock.py": "count = 22"}) == {"stock"}
    assert (before.count, load("stock").count) == (1, 22)


def test_an_edit_of_the_same_size_right_after_the_import_is_seen(project: Write, modules: ProjectModules) -> None:
    root = project({"stock.py": "count = 1"})
    load("stock")
    modules.begin()
    modules.commit()
    edit_unseen(root / "stock.py", "count = 2")
    assert modules.begin() == {"stock"}
    assert load("stock").count == 2


def test_a_file_whose_times_and_size_are_the_same_is_not_read(project: Write, modules: ProjectModules) -> None:
    root = project({"stock.py": "count = 1"})
    settle(root / "stock.py")
    load("stock")
    edit_unseen(root / "stock.py", "count = 2")
    assert modules.begin() == frozenset()


def test_a_touched_file_is_read_whatever_its_times(project: Write, modules: ProjectModules) -> None:
    root = project({"stock.py": "count = 1"})
    settle(root / "stock.py")
    load("stock")
    edit_unseen(root / "stock.py", "count = 2")
    assert modules.begin([root / "stock.py"]) == {"stock"}


def test_what_was_touched_stays_suspect_until_a_commit(project: Write, modules: ProjectModules) -> None:
    root = project({"stock.py": "count = 1"})
    settle(root / "stock.py")
    load("stock")
    edit_unseen(root / "stock.py", "count = 2")
    modules.begin([root / "stock.py"])
    modules.rollback()
    assert modules.begin() == {"stock"}


def test_a_file_that_was_written_again_with_the_same_text_has_not_changed(
    project: Write, modules: ProjectModules
) -> None:
    root = project({"stock.py": "count = 1"})
    load("stock")
    project({"stock.py": "count = 1"})
    settle(root / "stock.py")
    assert modules.begin([root / "stock.py"]) == frozenset()


def test_a_module_that_was_imported_before_is_known_too(tmp_path: Path, project: Write) -> None:
    project({"stock.py": "count = 1"})
    sys.path.insert(0, str(tmp_path))
    before = load("stock")
    modules = ProjectModules(tmp_path)
    try:
        assert dirty_after(modules, project, {"stock.py": "count = 22"}) == {"stock"}
        modules.rollback()
        assert load("stock") is before
        assert modules.begin() == {"stock"}
        assert load("stock").count == 22
    finally:
        modules.close()


def test_a_vanished_module_is_imported_no_more(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "", "prices.py": "import stock"})
    load("prices")
    assert dirty_after(modules, project, {"stock.py": None}) == {"stock", "prices"}
    with pytest.raises(ModuleNotFoundError):
        load("prices")


def test_a_module_that_appears_where_it_was_touched_is_imported_by_who_missed_it(
    project: Write, modules: ProjectModules
) -> None:
    missed = "try:\n    from shop import stock\nexcept ImportError:\n    stock = None"
    root = project({"shop/__init__.py": "", "prices.py": missed, "other.py": ""})
    load("prices"), load("other")
    modules.begin()
    modules.commit()
    project({"shop/stock.py": "count = 1"})
    assert modules.begin([root / "shop/stock.py"]) == {"shop.stock", "prices"}
    assert load("prices").stock.count == 1


def test_a_package_without_init_changes_when_it_gets_one(project: Write, modules: ProjectModules) -> None:
    project({"shop/stock.py": "", "prices.py": "import shop.stock"})
    load("prices")
    assert dirty_after(modules, project, {"shop/__init__.py": "open = True"}) == {"shop", "shop.stock", "prices"}
    load("prices")
    assert sys.modules["shop"].open is True


# What imports them


def test_importers_of_importers_are_imported_anew_and_nothing_else(project: Write, modules: ProjectModules) -> None:
    project({"a.py": "import b", "b.py": "import c", "c.py": "", "d.py": "import e", "e.py": ""})
    load("a"), load("d")
    assert dirty_after(modules, project, {"c.py": "x = 1"}) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("importer", "text"),
    [
        ("prices.py", "import shop.stock"),
        ("prices.py", "import shop.stock as goods"),
        ("prices.py", "from shop import stock"),
        ("prices.py", "from shop.stock import count"),
        ("prices.py", "from shop.stock import *"),
        ("prices.py", "if True:\n    try:\n        import shop.stock\n    finally:\n        pass"),
        ("prices.py", "import shop.stock\ndef price():\n    import shop.stock"),
        ("prices.py", "import shop.stock\nclass Prices:\n    def of(self):\n        from shop import stock"),
        ("shop/prices.py", "from . import stock"),
        ("shop/prices.py", "from .stock import count"),
        ("shop/prices/__init__.py", "from ..stock import count"),
        ("shop/prices/today.py", "from .. import stock"),
    ],
)
def test_every_form_of_import_counts(project: Write, modules: ProjectModules, importer: str, text: str) -> None:
    project({"shop/__init__.py": "", "shop/stock.py": "count = 1", importer: text})
    name = importer.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    load(name)
    assert dirty_after(modules, project, {"shop/stock.py": "count = 22"}) == {"shop.stock", name}


def test_an_import_inside_a_function_counts_before_it_has_run(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "", "prices.py": "def price():\n    import stock"})
    load("stock"), load("prices")
    assert dirty_after(modules, project, {"stock.py": "x = 1"}) == {"stock", "prices"}


def test_the_modules_of_a_changed_package_are_imported_anew(project: Write, modules: ProjectModules) -> None:
    project({"shop/__init__.py": "", "shop/deep/__init__.py": "", "shop/deep/stock.py": ""})
    load("shop.deep.stock")
    assert dirty_after(modules, project, {"shop/__init__.py": "x = 1"}) == {"shop", "shop.deep", "shop.deep.stock"}


def test_a_package_stays_when_one_of_its_modules_changes(project: Write, modules: ProjectModules) -> None:
    project({"shop/__init__.py": "", "shop/stock.py": "count = 1", "shop/staff.py": ""})
    load("shop.stock"), load("shop.staff")
    before = sys.modules["shop"]
    assert dirty_after(modules, project, {"shop/stock.py": "count = 22"}) == {"shop.stock"}
    from shop import stock  # type: ignore[import-not-found]  # it is written by this test

    assert stock.count == 22
    assert sys.modules["shop"] is before


def test_modules_that_import_each_other_are_imported_anew_together(project: Write, modules: ProjectModules) -> None:
    project({"a.py": "import b\nx = 1", "b.py": "import a"})
    load("a")
    assert dirty_after(modules, project, {"a.py": "import b\nx = 22"}) == {"a", "b"}
    assert load("b").a.x == 22


def test_running_code_keeps_the_modules_that_it_has(project: Write, modules: ProjectModules) -> None:
    project({"shop/__init__.py": "size = 1", "shop/stock.py": "count = 1", "prices.py": "import shop.stock"})
    running = load("prices")
    dirty_after(modules, project, {"shop/__init__.py": "size = 22"})
    load("prices")
    modules.commit()
    assert (running.shop.size, running.shop.stock.count) == (1, 1)


# The end of a transaction


def state(*names: str) -> dict[str, dict[str, object]]:
    """The project's modules and what is bound in them."""
    return {name: dict(vars(sys.modules[name])) for name in names if name in sys.modules}


def test_a_rollback_restores_modules_and_attributes_exactly(project: Write, modules: ProjectModules) -> None:
    project(
        {
            "shop/__init__.py": "",
            "shop/stock.py": "count = 1",
            "shop/fresh.py": "",
            "space/room.py": "import shop.stock",
            "prices.py": "import shop.stock, space.room",
        }
    )
    load("prices")
    modules.begin()
    modules.commit()
    names = set(sys.modules)
    before = dict(sys.modules)
    bound = state("shop", "shop.stock", "space", "space.room", "prices")
    project({"shop/stock.py": "count = 22"})
    modules.begin()
    load("prices"), load("shop.fresh")
    modules.rollback()
    assert {name: sys.modules[name] for name in sys.modules if name in names} == before
    assert set(sys.modules) == names
    assert state(*bound) == bound


def test_a_rollback_restores_what_a_new_module_took_the_place_of(project: Write, modules: ProjectModules) -> None:
    project({"shop/__init__.py": "stock = 'none'", "shop/stock.py": ""})
    shop = load("shop")
    modules.begin()
    load("shop.stock")
    modules.rollback()
    assert shop.stock == "none"


def test_after_a_rollback_the_edit_is_still_news(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "count = 1"})
    load("stock")
    assert dirty_after(modules, project, {"stock.py": "count = 22"}) == {"stock"}
    load("stock")
    modules.rollback()
    assert load("stock").count == 1
    assert modules.begin() == {"stock"}


def test_a_module_that_failed_is_gone_after_the_rollback(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "count = 1", "prices.py": "import stock"})
    load("prices")
    dirty_after(modules, project, {"prices.py": "import stock, extra\n1 / 0", "extra.py": ""})
    with pytest.raises(ZeroDivisionError):
        load("prices")
    modules.rollback()
    assert "extra" not in sys.modules
    assert load("prices").stock.count == 1


def test_a_new_begin_rolls_back_what_was_not_committed(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "count = 1"})
    before = load("stock")
    dirty_after(modules, project, {"stock.py": "count = 22"})
    load("stock")
    project({"stock.py": "count = 1"})
    assert modules.begin() == frozenset()
    assert load("stock") is before


def test_a_commit_keeps_what_was_imported(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "count = 1"})
    load("stock")
    dirty_after(modules, project, {"stock.py": "count = 22"})
    after = load("stock")
    modules.commit()
    modules.rollback()
    assert modules.begin() == frozenset()
    assert load("stock") is after


def test_a_replaced_module_is_collected(project: Write, modules: ProjectModules) -> None:
    project({"stock.py": "class Item:\n    def price(self): ..."})
    old = weakref.ref(load("stock").Item)
    dirty_after(modules, project, {"stock.py": "class Item: ..."})
    load("stock")
    modules.commit()
    gc.collect()
    assert old() is None


# Which modules are the project's


@pytest.mark.parametrize(
    "folder", ["env/lib/python3/site-packages", "env/code", "vendor/site-packages", "vendor/dist-packages"]
)
def test_installed_modules_are_not_the_projects(
    project: Write, modules: ProjectModules, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project({"env/pyvenv.cfg": "", f"{folder}/stock.py": "count = 1"})
    monkeypatch.syspath_prepend(str(root / folder))
    load("stock")
    assert not modules.owns(str(root / folder / "stock.py"))
    assert dirty_after(modules, project, {f"{folder}/stock.py": "count = 22"}) == set()
    sys.modules.pop("stock")


def test_a_root_that_is_itself_a_virtual_environment_has_modules(project: Write, modules: ProjectModules) -> None:
    project({"pyvenv.cfg": "", "stock.py": ""})
    load("stock")
    assert dirty_after(modules, project, {"stock.py": "x = 1"}) == {"stock"}


def test_a_folder_on_the_path_below_the_root_is_the_projects(
    project: Write, modules: ProjectModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project({"src/stock.py": "count = 1"})
    monkeypatch.syspath_prepend(str(root / "src"))
    load("stock")
    assert dirty_after(modules, project, {"src/stock.py": "count = 22"}) == {"stock"}
    assert not list(root.rglob("*.pyc"))


def test_neither_raffel_nor_python_is_the_projects_even_below_its_root() -> None:
    modules = ProjectModules(Path("/"))
    try:
        assert not modules.owns(raffel_core.errors.__file__)
        assert not modules.owns(str(Path(raffel_core.errors.__file__).parents[1] / "raffel_cli/main.py"))
        assert not modules.owns(os.__file__)
        assert not modules.owns(pytest.__file__)
        assert not modules.owns("<string>")
    finally:
        for name in ("path", "path_hooks"):  # not `close`: it would take this test's own modules along
            getattr(sys, name).pop(0)


def test_the_program_itself_and_files_of_routes_stay(
    project: Write, modules: ProjectModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project({"app.py": "import stock", "stock.py": ""})
    load("stock")
    for name in ("__main__", f"{ROUTES}.app.g1"):
        module = types.ModuleType(name)
        module.__file__ = str(root / "app.py")
        monkeypatch.setitem(sys.modules, name, module)
    assert dirty_after(modules, project, {"app.py": "", "stock.py": "x = 1"}) == {"stock"}


def test_what_is_no_module_in_sys_modules_is_passed_over(
    modules: ProjectModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trap:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

    odd = types.ModuleType("odd")
    odd.__path__ = 3  # type: ignore[assignment]  # anything may stand there
    for name, value in {"trap": Trap(), "blocked": None, "odd": odd}.items():
        monkeypatch.setitem(sys.modules, name, value)
    assert modules.begin() == frozenset()


def test_a_root_that_is_a_link_has_modules(tmp_path: Path, project: Write) -> None:
    root = project({"real/stock.py": "count = 1"})
    (root / "link").symlink_to("real")
    modules = ProjectModules(root / "link")
    try:
        load("stock")
        modules.begin()
        modules.commit()
        settle(root / "real/stock.py")
        edit_unseen(root / "real/stock.py", "count = 2")
        assert modules.begin([root / "link/stock.py"]) == {"stock"}
    finally:
        modules.close()
