"""What the commands print: coloured and in tables on a terminal, plain without one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TextIO

import msgspec

from raffel_core.errors import Problem


def line(text: str, style: str = "") -> None:
    """One line on standard output, at once; `style` (as rich names it: `bold`, `green`) counts on a terminal only."""
    _write(sys.stdout, (text, style))


def error(text: str) -> None:
    """A trouble of the command itself, on standard error."""
    _write(sys.stderr, ("error: ", "bold red"), (text, ""))


def problems(found: Iterable[Problem], to: Literal["stdout", "stderr"] = "stdout") -> None:
    """What is wrong in a project, a line each. One of line 0 is shown by its file, a variable or a flag, alone."""
    stream = sys.stdout if to == "stdout" else sys.stderr
    for problem in found:
        place = f"{problem.file}:{problem.line}" if problem.line else problem.file
        _write(stream, (f"{place}: ", "bold"), (problem.found, "red"), (f"; expected {problem.expected}", ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their columns' names; without a terminal no cell is cut or wrapped."""
    rows = [columns, *rows]
    if sys.stdout.isatty():
        _draw(rows)
        return
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def json(value: Any) -> None:
    """The value as indented JSON on standard output, the same with and without a terminal."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)


def _write(stream: TextIO, *parts: tuple[str, str]) -> None:
    """Writes the texts of (text, style) as one line that is never wrapped, and flushes: its reader may be a program."""
    if stream.isatty():
        from rich.console import Console  # takes longer to import than a plain command to run
        from rich.text import Text

        text = Text.assemble(*((_printable(text, stream), style) for text, style in parts))
        Console(file=stream, highlight=False).print(text, soft_wrap=True)
    else:
        print(_printable("".join(text for text, _ in parts), stream), file=stream, flush=True)


def _draw(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Cells are Text: `rooms.[room].chat` is a name, not markup.
    drawn = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows[1:]:
        drawn.add_row(*(Text(_printable(cell, sys.stdout), overflow="fold") for cell in row))
    Console(file=sys.stdout, highlight=False).print(drawn)


def _printable(text: str, stream: TextIO) -> str:
    """The text with what the stream cannot encode (a file name that is not UTF-8) written as escapes."""
    return text.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
