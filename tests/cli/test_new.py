"""`raffel new`: a project that runs, and passes its own tests, from an installed wheel too."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import Result

import raffel_core

Invoke = Callable[..., Result]

CHECKOUT = Path(raffel_core.__path__[0]).parent


def files(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


MINIMAL = {
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "raffel.yaml",
    "routes/clock.stream.py",
    "routes/greet.rpc.py",
    "tests/conftest.py",
    "tests/test_clock.py",
    "tests/test_greet.py",
}


def test_a_project_has_routes_tests_and_a_configuration(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("new", "hello").exit_code == 0
    assert files(tmp_path / "hello") == MINIMAL


def test_a_project_has_its_own_name(invoke: Invoke, tmp_path: Path) -> None:
    invoke("new", "hello-2.you")
    project = tmp_path / "hello-2.you"
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"] == "hello-2.you"
    assert (project / "README.md").read_text().startswith("# hello-2.you\n")
    assert not [file for file in project.rglob("*") if file.is_file() and "PROJECT_NAME" in file.read_text()]


def test_what_to_do_next_is_told(invoke: Invoke) -> None:
    result = invoke("new", "hello")
    assert result.stderr == ""
    first, *steps = result.stdout.splitlines()
    assert first == "made hello from the template minimal; next:"
    assert steps == ["  cd hello", "  raffel dev", "  pip install pytest && python -m pytest"]


def test_a_project_has_no_problems(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke("new", "hello")
    monkeypatch.chdir("hello")
    assert invoke("check").stdout == "2 routes are fine\n"


def test_an_empty_folder_may_be_there(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    assert invoke("new", "hello").exit_code == 0
    assert (tmp_path / "hello" / "raffel.yaml").exists()


def test_a_folder_with_files_is_left_as_it_is(invoke: Invoke, project: Callable[[Mapping[str, str]], Path]) -> None:
    root = project({"hello/.keep": ""})
    result = invoke("new", "hello")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: found files in hello, expected a new folder or an empty one\n"
    assert files(root) == {"hello/.keep"}


def test_a_file_in_the_way_is_left_as_it_is(invoke: Invoke, project: Callable[[Mapping[str, str]], Path]) -> None:
    project({"hello": "mine"})
    result = invoke("new", "hello")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: cannot make hello: File exists\n"
    assert Path("hello").read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "_a", "a_", "ä", "a\n", "Raffel"])
def test_an_illegal_name_is_wrong_usage(invoke: Invoke, tmp_path: Path, name: str) -> None:
    result = invoke("new", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert repr(name) in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("hello", "--template", "maximal"), ("--nmae", "hello")])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("new", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_only_templates_that_exist_are_offered(invoke: Invoke) -> None:
    existing = sorted(folder.parent.name for folder in (CHECKOUT / "templates").glob("*/raffel.yaml"))
    assert f"--template [{'|'.join(existing)}]" in " ".join(invoke("new", "--help").stdout.split())


def test_help_has_an_example(invoke: Invoke) -> None:
    assert "raffel new hello && cd hello && raffel dev" in invoke("new", "--help").stdout


# From an installed wheel


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints on standard output; it must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment with Raffel from its wheel; dependencies are those of this environment."""
    here = tmp_path_factory.mktemp("installed")
    # Isolated, the build fetches its back end from the registry.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", *isolation, "--wheel-dir", here, CHECKOUT, cwd=here)
    (wheel,) = here.glob("raffel-*.whl")
    venv.create(here / "venv", with_pip=False, symlinks=True)
    program = here / "venv" / "bin" / "python"
    run(*pip, "--python", program, "install", "--no-deps", "--no-index", wheel, cwd=here)
    own = Path(run(program, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=here).strip())
    # A path alone: what this environment's own .pth files add, the checkout, is not added there.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return program.parent


@pytest.fixture
def made(installed: Path, tmp_path: Path) -> Path:
    run(installed / "raffel", "new", "hello", cwd=tmp_path)
    return tmp_path / "hello"


def test_an_installed_raffel_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    found = run(installed / "python", "-c", "import raffel_cli; print(raffel_cli.__path__[0])", cwd=tmp_path).strip()
    assert Path(found).is_relative_to(installed.parent)


def test_an_installed_raffel_has_the_whole_template(made: Path) -> None:
    assert files(made) == MINIMAL


def test_a_project_passes_its_own_tests(installed: Path, made: Path) -> None:
    # No plugins: the project's README tells to install pytest alone.
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [installed / "python", "-W", "error", "-m", "pytest", "-q"],
        cwd=made,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert re.search(r"\d+ passed", done.stdout) and done.returncode == 0, done.stdout + done.stderr


def test_a_project_is_served(installed: Path, made: Path) -> None:
    command = [installed / "raffel", "serve", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, cwd=made, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = re.search(r"http://\S+", server.stdout.readline())
            assert ready is not None
            with urlopen(f"{ready[0]}/streams/clock?limit=1", timeout=10) as answer:
                events = answer.read().decode().split("\n\n")
            assert events[0].startswith('data: {"number":1,"time":"')
            assert events[1].startswith("event: end\n")
        finally:
            server.terminate()
    assert server.returncode == 0
