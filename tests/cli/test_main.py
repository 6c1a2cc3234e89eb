"""`raffel` itself: its commands, their help, and what it is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import Result

from raffel_cli.main import main

Invoke = Callable[..., Result]


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_with_an_example(invoke: Invoke, command: str) -> None:
    result = invoke(command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"raffel {command}" in result.stdout.partition("Example")[2]


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_is_listed_with_a_whole_sentence(invoke: Invoke, command: str) -> None:
    (line,) = [line for line in invoke("--help").stdout.splitlines() if line.startswith(f"  {command} ")]
    assert line.endswith(".") and not line.endswith("...")


def test_the_module_is_the_command(tmp_path: Path) -> None:
    command, module = (
        subprocess.run([*program, "--help"], cwd=tmp_path, capture_output=True, timeout=30, check=True).stdout
        for program in ([Path(sys.executable).parent / "raffel"], [sys.executable, "-m", "raffel_cli"])
    )
    assert command == module
    assert command.startswith(b"Usage: raffel ")


def test_the_version_is_the_packages(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"raffel, version {version('raffel')}\n"


@pytest.mark.parametrize("arguments", [(), ("sevre",), ("--prot",)])
def test_wrong_usage_has_status_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
