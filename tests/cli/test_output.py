"""What is printed: plain into a pipe, coloured on a terminal, and nothing that is taken for markup."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import msgspec
import pytest

from raffel_cli import output
from raffel_core.errors import Problem

PROBLEMS = [
    Problem("raffel.yaml", 3, "unknown option prot", "port"),
    Problem("RAFFEL_PROT", 0, "unknown variable", "RAFFEL_PORT"),
]
TEXT = "raffel.yaml:3: unknown option prot; expected port\nRAFFEL_PROT: unknown variable; expected RAFFEL_PORT\n"


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal. `written` is what has arrived: what was not flushed has not."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="\n")

    def isatty(self) -> bool:
        return True

    @property
    def written(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    for variable in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)


def on_terminal(call: Callable[..., None], *arguments: Any) -> str:
    with redirect_stdout(Terminal()) as terminal:
        call(*arguments)
        return terminal.written


Captured = pytest.CaptureFixture[str]


def test_a_line_is_plain_without_a_terminal(capsys: Captured) -> None:
    output.line("ready on http://127.0.0.1:3000", "bold green")
    assert capsys.readouterr() == ("ready on http://127.0.0.1:3000\n", "")


def test_an_error_goes_to_standard_error(capsys: Captured) -> None:
    output.error("no such server")
    assert capsys.readouterr() == ("", "error: no such server\n")


def test_problems_go_where_they_were_asked_for(capsys: Captured) -> None:
    output.problems(PROBLEMS)
    assert capsys.readouterr() == (TEXT, "")
    output.problems(PROBLEMS, "stderr")
    assert capsys.readouterr() == ("", TEXT)


def test_a_table_is_aligned_and_neither_cut_nor_padded_at_the_end(capsys: Captured) -> None:
    output.table(("name", "file"), [("logs.tail", "x" * 200), ("a", "b")])
    assert capsys.readouterr().out == f"name       file\nlogs.tail  {'x' * 200}\na          b\n"


def test_a_table_without_rows_is_its_head(capsys: Captured) -> None:
    output.table(("name", "file"), [])
    assert capsys.readouterr().out == "name  file\n"


def test_json_is_what_msgspec_makes_of_it(capsys: Captured) -> None:
    class Route(msgspec.Struct):
        name: str

    output.json([Route("logs.tail")])
    assert capsys.readouterr().out == '[\n  {\n    "name": "logs.tail"\n  }\n]\n'


def test_json_is_the_same_on_a_terminal() -> None:
    assert on_terminal(output.json, {"name": "x" * 100}) == '{\n  "name": "' + "x" * 100 + '"\n}\n'


def test_a_terminal_has_colours() -> None:
    assert on_terminal(output.line, "fine", "green") == "\x1b[32mfine\x1b[0m\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal(output.line, "fine", "green") == "fine\n"


def test_a_long_line_is_not_wrapped_on_a_terminal() -> None:
    assert on_terminal(output.line, "word " * 30).count("\n") == 1


def test_brackets_and_colons_are_no_markup() -> None:
    text = "rooms.[room].chat [red]x[/] :smile:"
    assert on_terminal(output.line, text) == f"{text}\n"
    assert text in on_terminal(output.table, ("name",), [(text,)])


def test_a_table_on_a_terminal_fits_and_keeps_every_character() -> None:
    drawn = on_terminal(output.table, ("name", "file"), [("a", "x" * 100)])
    assert drawn.count("x") == 100
    assert max(len(line) for line in drawn.splitlines()[1:]) <= 40


def test_problems_on_a_terminal_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = on_terminal(output.problems, PROBLEMS)
    assert re.sub(r"\x1b\[\d*m", "", shown) == TEXT


def test_what_cannot_be_encoded_is_printed_as_escapes(capsys: Captured) -> None:
    output.line("routes/\udcff.stream.py")
    assert capsys.readouterr().out == "routes/\\udcff.stream.py\n"
