"""What is wrong with a value, where, and in words that a client may read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from raffel_core.errors import RaffelError

INPUT = "VALIDATION_ERROR"
OUTPUT = "OUTPUT_VALIDATION_ERROR"

UNWRITABLE = (msgspec.EncodeError, TypeError, ValueError, OverflowError, AttributeError, RecursionError)
"""What the encoder raises on a value that JSON cannot hold."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises on bytes that are not JSON."""


class Fault(NamedTuple):
    """One thing that is wrong with a value."""

    path: str
    """Where: `limit`, `filters.level`, `items[2].price`; empty for the whole."""
    message: str


def invalid(code: str, faults: Sequence[Fault]) -> RaffelError:
    """The error of a value that does not fit its schema. `faults` are all that were found, at least one."""
    path, message = faults[0]
    text = f"{path}: {message}" if path else message
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    side = "input" if code == INPUT else "output"
    return RaffelError(code, f"invalid {side}: {text}{more}", details=[fault._asdict() for fault in faults])


def not_json(error: Exception) -> RaffelError:
    """The error of bytes that are not JSON."""
    if isinstance(error, RecursionError):
        return RaffelError("PARSE_ERROR", "not JSON that can be read: nested too deep")
    if isinstance(error, UnicodeDecodeError):
        return RaffelError("PARSE_ERROR", "not JSON: not UTF-8")
    return RaffelError("PARSE_ERROR", f"not JSON: {error}")


def unwritable(code: str, error: Exception) -> RaffelError:
    """The error of a value that JSON cannot hold."""
    match error:
        case RecursionError():
            message = "Nested too deep"
        case UnicodeEncodeError():
            message = "Expected Unicode text, got a lone surrogate"
        case TypeError() | AttributeError():
            message = _plain(str(error))
        case _:
            message = "Expected what JSON can hold"
    return invalid(code, [Fault("", message)])


def path_of(parts: Iterable[str | int]) -> str:
    """A path in the form of the wire: names joined with dots, indices in brackets."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


_PLACE = re.compile(r"(?s)(.*) - at `(key` in `)?\$(.*?)`\Z")
_NAMED = re.compile(r"(?s)Object (?:missing required|contains unknown) field `(.*)`\Z")
_QUOTED = re.compile(r"(?s)(Invalid (?:enum )?value) .*")


def msgspec_fault(code: str, error: msgspec.ValidationError) -> Fault:
    """The one fault that msgspec reports. That of an output holds nothing of the value."""
    text = str(error)
    own = str(error.__cause__) if error.__cause__ is not None else None
    in_key = False
    path = ""
    if own is not None and text.startswith(own):
        # Raised by the type's own __post_init__: its words may look like a place.
        text, place = own, _PLACE.match(text[len(own) :])
    else:
        place = _PLACE.match(text)
        if place is not None:
            text = place[1]
    if place is not None:
        path, in_key = place[3].removeprefix("."), place[2] is not None
    if own is not None:
        return Fault(path, text if code == INPUT else "Invalid value")
    if named := _NAMED.match(text):
        path = f"{path}.{named[1]}".removeprefix(".")
    if code == OUTPUT:
        text = _QUOTED.sub(r"\1", text)
    return Fault(path, _plain(text) + (" as a key" if in_key else ""))


def _plain(text: str) -> str:
    return text.replace("`", "")
