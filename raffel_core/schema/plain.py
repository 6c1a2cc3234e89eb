"""Values as JSON's own types, with a mark wherever JSON has no number."""

from __future__ import annotations

import math

import msgspec


class NaN:
    """Stands where a float is not a number. No schema allows it, and its name is what the message says was got."""


class Infinity:
    """Stands where a float is infinite."""


def plain(value: object) -> object:
    """The value as dicts, lists, strings and numbers, as its JSON would have them; floats stay as they are."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_raw)


def marked(tree: object) -> object:
    """The tree with NaN and Infinity for the floats of which the encoder, without a word, makes null."""
    match tree:
        case float() if not math.isfinite(tree):
            return NaN() if math.isnan(tree) else Infinity()
        case dict():
            return {key: marked(value) for key, value in tree.items()}
        case list() | tuple():
            return [marked(value) for value in tree]
        case _:
            return tree


def _raw(value: object) -> object:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
