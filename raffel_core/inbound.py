"""What a client sends to the handler of a client or bidi stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raffel_core.stream import RaffelStream


class Inbound(RaffelStream[Any]):
    """Messages in, items out: each is decoded and checked when the handler reads it.

    One that is not what the schema wants raises its VALIDATION_ERROR from the read that met it; the next read goes on
    with the next item.
    """

    __slots__ = ("_decode",)

    def __init__(self, decode: Callable[[Any], Any], high_water_mark: int) -> None:
        super().__init__(high_water_mark=high_water_mark)
        self._decode = decode

    def _take(self) -> Any:
        return self._decode(super()._take())
