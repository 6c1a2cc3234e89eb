"""`raffel config`: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raffel_cli.config import config_command
from raffel_core.config import OPTIONS


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("RAFFEL_")]:
        monkeypatch.delenv(variable)
    return tmp_path


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(config_command, arguments, env=environ)


def lines(result: Result) -> dict[str, list[str]]:
    """The words of each line after its first."""
    return {words[0]: words[1:] for line in result.stdout.splitlines() if (words := line.split())}


def test_each_option_is_printed_with_its_value_and_source() -> None:
    Path("raffel.yaml").write_text("port: 4000\nlimits:\n  connections: 5\n")
    result = run(RAFFEL_LOG__LEVEL="debug")
    assert result.exit_code == 0
    printed = lines(result)
    assert printed["option"] == ["value", "from"]
    assert printed["port"] == ["4000", "raffel.yaml:1"]
    assert printed["limits.connections"] == ["5", "raffel.yaml:3"]
    assert printed["log.level"] == ["debug", "RAFFEL_LOG__LEVEL"]
    assert printed["tcp.port"] == ["null", "default"]
    assert printed["grpc.package"] == ['""', "default"]


def test_every_option_in_force_is_printed() -> None:
    assert set(lines(run())) - {"option"} == set(OPTIONS) - {"docs.path"}


def test_a_default_that_depends_on_the_command_is_printed_for_both() -> None:
    output = run().stdout
    assert "127.0.0.1 in dev, 0.0.0.0 in serve" in output
    assert "restart in dev, finish in serve" in output
    assert "true in dev, false in serve" in output


def test_a_value_that_was_set_is_printed_alone() -> None:
    Path("raffel.yaml").write_text("host: 10.0.0.1\n")
    assert lines(run())["host"] == ["10.0.0.1", "raffel.yaml:1"]


def test_a_group_that_is_off_is_one_line() -> None:
    printed = lines(run(RAFFEL_GRPC="false"))
    assert printed["grpc"] == ["false", "RAFFEL_GRPC"]
    assert "grpc.package" not in printed


def test_another_file_is_named() -> None:
    Path("other.yaml").write_text("port: 4000\n")
    assert lines(run("--config", "other.yaml"))["port"] == ["4000", "other.yaml:1"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_secrets_are_not_printed(form: list[str]) -> None:
    Path("raffel.yaml").write_text("tls: {cert: cert.pem, key: key.pem}\n")
    result = run(*form, RAFFEL_METRICS__TOKEN="hunter2", RAFFEL_TOPICS__URL="redis://me:hunter2@cache:6379/0")
    assert "hunter2" not in result.output
    assert "redis://***@cache:6379/0" in result.stdout
    assert "key.pem" in result.stdout


def test_json_is_a_list_of_objects() -> None:
    options = json.loads(run("--json", RAFFEL_ALLOWED_HOSTS="a,b").stdout)
    assert {"name": "allowed_hosts", "value": ["a", "b"], "source": "RAFFEL_ALLOWED_HOSTS"} in options
    assert {"name": "tcp", "value": True, "source": "default"} in options
    assert {"name": "tcp.port", "value": None, "source": "default"} in options


def test_json_has_the_names_of_the_lines() -> None:
    assert [option["name"] for option in json.loads(run("--json").stdout)] == list(lines(run()))[1:]


def test_problems_are_the_commands_own_trouble() -> None:
    Path("raffel.yaml").write_text("prot: 3000\n")
    result = run()
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "raffel.yaml:1: unknown option prot; expected port\n"


def test_check_prints_one_line_if_all_is_fine() -> None:
    result = run("--check")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "the configuration is fine\n", "")


def test_check_prints_every_problem_as_its_answer() -> None:
    Path("raffel.yaml").write_text("prot: 3000\nport: x\n")
    result = run("--check", RAFFEL_X="1")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [
        "RAFFEL_X",
        "raffel.yaml:1",
        "raffel.yaml:2",
    ]


def test_check_as_json_is_a_list_of_problems() -> None:
    Path("raffel.yaml").write_text("prot: 3000\n")
    result = run("--check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"file": "raffel.yaml", "line": 1, "found": "unknown option prot", "expected": "port"}
    ]


def test_check_as_json_is_empty_if_all_is_fine() -> None:
    result = run("--check", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_an_absent_file_is_a_problem() -> None:
    result = run("--config", "absent.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("absent.yaml: cannot be read (No such file or directory)")


def test_help_has_an_example() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "raffel config --config deploy/raffel.yaml" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text", "status"),
    [
        ([], "port: 4000\n", 0),
        (["--check"], "port: x\n", 1),
        ([], "port: x\n", 1),
        (["--chekc"], "", 2),
        (["x"], "", 2),
    ],
)
def test_exit_status(arguments: list[str], text: str, status: int) -> None:
    Path("raffel.yaml").write_text(text)
    program = "from raffel_cli.config import config_command; config_command()"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, timeout=30, check=False)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
