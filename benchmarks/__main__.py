"""`python -m benchmarks`: measures what was asked for and prints it. Speed fails nothing; what could not run does."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time

from benchmarks import report
from benchmarks.client import compile_load
from benchmarks.comparison import Effort
from benchmarks.rows import ROWS
from benchmarks.servers import CannotRun
from benchmarks.sides import install_peers

WHOLE = Effort(
    rounds=7,
    slow_rounds=5,
    warm=0.2,
    measured=0.5,
    idle=4000,
    open=1000,
    probes=400,
    up=100_000,
    every_side=True,
)
QUICK = WHOLE._replace(rounds=3, slow_rounds=1, measured=0.25, idle=1000, probes=200, up=20_000, every_side=False)


def main() -> int:
    arguments = _parser().parse_args()
    _end_tidily()
    _raise_open_files()
    started = time.monotonic()
    try:
        compile_load()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
    complete = _installed()
    report.show_head()
    for name in arguments.rows:
        result = ROWS[name](QUICK if arguments.quick else WHOLE)
        report.show(name, result)
        complete = complete and not result.missing
    print(f"\n{time.monotonic() - started:.0f} s" + ("" if complete else "; not everything could run: see above"))
    return 0 if complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures Raffel beside the bare limit and its peers. How to read it: benchmarks/README.md.",
        epilog="example: python -m benchmarks --quick --rows hot,turn",
    )
    parser.add_argument(
        "--quick", action="store_true", help="about three minutes: few rounds, only the sides with a target"
    )
    parser.add_argument("--rows", type=_rows, default=list(ROWS), metavar="NAME,...", help=f"of {', '.join(ROWS)}")
    return parser


def _rows(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"no such row: {name!r}; there are {', '.join(ROWS)}")
    return names


def _installed() -> bool:
    try:
        install_peers()
    except CannotRun as error:
        print(error, file=sys.stderr)
        return False
    return True


def _end_tidily() -> None:
    """A signal unwinds the stack, so that no server is left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


def _raise_open_files() -> None:
    """Thousands of streams need as many files; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
