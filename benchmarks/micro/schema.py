"""What does checking an item cost beside encoding it?

The limit is the encoder alone. `fits + encode` is what a stream pays for each right item, `dump` what it pays for one
that the compiled check leaves to the decoder. On a core of its own: `taskset -c 1 python benchmarks/micro/schema.py`.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pydantic
from msgspec import Struct

from raffel_core.schema import Schema, schema_of

NUMBER, REPEAT = 5_000, 60


class Tick(Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class WideTick(Tick):
    venue: str = ""


class Quote(Struct):
    symbol: str
    bid: float
    ask: float


class Book(Struct):
    id: int
    best: Quote
    last: Tick | None
    levels: list[Quote]
    counts: dict[str, int]


class TickModel(pydantic.BaseModel):
    seq: int
    symbol: str
    price: float
    ts: float


DOCUMENT = {
    "type": "object",
    "properties": {
        "seq": {"type": "integer"},
        "symbol": {"type": "string"},
        "price": {"type": "number"},
        "ts": {"type": "number"},
    },
    "required": ["seq", "symbol", "price", "ts"],
}

FIELDS: dict[str, Any] = {"seq": 1, "symbol": "ACME", "price": 101.25, "ts": 1767225600.5}
TICK = Tick(**FIELDS)
BOOK = Book(1, Quote("ACME", 1.5, 2.5), TICK, [Quote("ACME", 1.5, 2.5)] * 3, {"bids": 3, "asks": 4})


def best(*calls: Callable[[], object]) -> list[float]:
    """Nanoseconds of each call, the best of many rounds taken in turns, so that they meet the same clock speed."""
    found = [float("inf")] * len(calls)
    for _ in range(REPEAT):
        for index, call in enumerate(calls):
            found[index] = min(found[index], timeit.timeit(call, number=NUMBER) / NUMBER * 1e9)
    return found


def inline(source: str, schema: Schema[Any], item: object) -> Callable[[], object]:
    """The expression as a loop has it: `fits`, `encode` and `item` are local."""
    names: dict[str, Any] = {}
    exec(f"def make(fits, encode, dump, item):\n def call():\n  {source}\n return call", names)
    call: Callable[[], object] = names["make"](schema.fits, schema.encode, schema.dump, item)
    return call


def row(name: str, schema: Schema[Any], item: object) -> None:
    sources = ["pass", "encode(item)"]
    fits = schema.fits(item)
    sources.append("encode(item) if fits(item) else dump(item)" if fits else "dump(item)")
    nothing, encode, checked = best(*(inline(source, schema, item) for source in sources))
    way = "fits + encode" if fits else "dump"
    share = (encode - nothing) / (checked - nothing)
    print(f"{name:<28}{encode - nothing:>9.0f}{checked - nothing:>9.0f}{share:>8.2f}  {way}")


def main() -> None:
    print(f"{'ns an item':<28}{'encode':>9}{'checked':>9}{'of it':>8}")
    tick = schema_of(Tick)
    row("any, a dict", schema_of(None), FIELDS)
    row("flat", tick, TICK)
    row("nested", schema_of(Book), BOOK)
    row("JSON Schema, a dict", schema_of(DOCUMENT), FIELDS)
    row("a dict for the flat one", tick, FIELDS)
    row("a subclass of the flat one", tick, WideTick(**FIELDS))
    row("an int for a float", tick, Tick(1, "ACME", 101, 1767225600.5))
    row("pydantic, flat", schema_of(TickModel), TickModel(**FIELDS))


if __name__ == "__main__":
    main()
