"""What does a message of gRPC cost to write and to read, beside google.protobuf's and beside the same item as JSON?

The items are Structs at rest: `write` makes bytes of one, `read` one of bytes, checked. google.protobuf has no Structs,
so its figures are of its own message objects, made of four values and read for them, and once more with the Struct
around it. On a core of its own: `taskset -c 1 python benchmarks/micro/protobuf.py`.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from raffel_core.protobuf.method import Method
from raffel_core.protobuf.services import services_of
from raffel_core.route import Origin, make_route

NUMBER, REPEAT = 5_000, 60


class Tick(msgspec.Struct):
    seq: int
    symbol: str
    price: float
    ts: float


TICK = Tick(70_000, "ACME", 101.25, 1712345678.123)


async def handler(input: Tick) -> Tick:
    return input


def method() -> Method:
    """What gRPC calls the handler by."""
    route, problems = make_route("ticks.unary", handler, origin=Origin(__file__), procedure=True)
    assert route is not None, problems
    services, problems = services_of([route])
    assert not problems, problems
    return services.methods["/Ticks/Unary"]


def google_class() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    types = {"seq": field.TYPE_INT64, "symbol": field.TYPE_STRING, "price": field.TYPE_DOUBLE, "ts": field.TYPE_DOUBLE}
    fields = [
        field(name=name, number=number, type=type, label=field.LABEL_OPTIONAL)
        for number, (name, type) in enumerate(types.items(), start=1)
    ]
    message = descriptor_pb2.DescriptorProto(name="Tick", field=fields)
    file = descriptor_pb2.FileDescriptorProto(name="tick.proto", syntax="proto3", message_type=[message])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Tick"))


def best(*calls: Callable[[], object]) -> list[float]:
    """Nanoseconds of each call, the best of many rounds taken in turns, so that they meet the same clock speed."""
    found = [float("inf")] * len(calls)
    for _ in range(REPEAT):
        for index, call in enumerate(calls):
            found[index] = min(found[index], timeit.timeit(call, number=NUMBER) / NUMBER * 1e9)
    return found


def inline(source: str, **names: Any) -> Callable[[], object]:
    """The statement as a loop has it: the names are local."""
    made: dict[str, Any] = {}
    exec(f"def make({', '.join(names)}):\n def call():\n  {source}\n return call", made)
    call: Callable[[], object] = made["make"](**names)
    return call


def main() -> None:
    raffel, google = method(), google_class()
    fits = raffel.route.output.fits
    to_json, of_json = msgspec.json.Encoder().encode, msgspec.json.Decoder(Tick).decode
    data, text = raffel.encode(TICK), to_json(TICK)
    message = google.FromString(data)
    assert message.SerializeToString() == data, "the two do not write the same bytes"
    assert raffel.decode(data) == TICK == of_json(text)

    made = "google(seq=item.seq, symbol=item.symbol, price=item.price, ts=item.ts)"
    values = "message.seq, message.symbol, message.price, message.ts"
    lines = (
        ("raffel", "encode(item)", "decode(data)", {"encode": raffel.encode, "decode": raffel.decode}),
        ("raffel, items checked", "fits(item) and encode(item)", "", {"encode": raffel.encode, "fits": fits}),
        ("google.protobuf, values", f"{made}.SerializeToString()", f"message = google.FromString(data); {values}", {}),
        ("google.protobuf, Structs", "", f"message = google.FromString(data); Tick({values})", {}),
        ("google.protobuf, messages", "message.SerializeToString()", "google.FromString(data)", {"message": message}),
        ("JSON", "encode(item)", "decode(text)", {"encode": to_json, "decode": of_json}),
    )
    sources = [(source or "pass", names) for _, write, read, names in lines for source in (write, read)]
    common = {"item": TICK, "data": data, "text": text, "google": google, "Tick": Tick}
    nothing, *found = best(inline("pass"), *(inline(source, **common, **names) for source, names in sources))
    print(f"{len(data)} bytes, as JSON {len(text)}")
    print(f"{'ns an item':<28}{'write':>9}{'read':>9}")
    for (name, write, read, _), spent_writing, spent_reading in zip(lines, found[::2], found[1::2], strict=True):
        figures = ((write, spent_writing), (read, spent_reading))
        print(
            f"{name:<28}" + "".join(f"{spent - nothing:>9.0f}" if source else f"{'':>9}" for source, spent in figures)
        )


if __name__ == "__main__":
    main()
