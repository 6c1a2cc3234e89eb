"""asyncio's own streams: a loop over length-prefixed envelopes, write and drain an item, on uvloop, with msgspec.

The streams of a connection come one after another. What an item's envelope begins with is constant for its stream.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

import msgspec
import uvloop

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123

encode = msgspec.json.Encoder().encode


class Tick(msgspec.Struct):
    seq: int
    symbol: str
    price: float
    ts: float


class Input(msgspec.Struct):
    n: int = 0


class Start(msgspec.Struct, tag_field="type", tag="stream:start"):
    id: str
    procedure: str
    payload: Input


class Data(msgspec.Struct, tag_field="type", tag="stream:data"):
    id: str
    payload: Tick


class End(msgspec.Struct, tag_field="type", tag="stream:end"):
    id: str


decode = msgspec.json.Decoder(Start | Data | End).decode


async def hot(input: Input) -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1


async def turn(input: Input) -> AsyncIterator[Tick]:
    seq = 0
    while True:
        yield Tick(seq, SYMBOL, PRICE, TS)
        seq += 1
        await asyncio.sleep(0)


async def short(input: Input) -> AsyncIterator[Tick]:
    for seq in range(input.n):
        yield Tick(seq, SYMBOL, PRICE, TS)


async def idle(input: Input) -> AsyncIterator[Tick]:
    yield Tick(0, SYMBOL, PRICE, TS)
    await asyncio.Event().wait()


STREAMS = {"hot": hot, "turn": turn, "short": short, "idle": idle}


async def read(reader: StreamReader) -> Start | Data | End:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return decode(await reader.readexactly(size))


async def write(writer: StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(4, "big") + message)
    await writer.drain()


async def answer(writer: StreamWriter, start: Start) -> None:
    id = start.id.encode()
    prefix = b'{"type":"stream:data","id":"%b","payload":' % id
    async for item in STREAMS[start.procedure](start.payload):
        await write(writer, b"%b%b}" % (prefix, encode(item)))
    await write(writer, b'{"type":"stream:end","id":"%b"}' % id)


async def add_up(reader: StreamReader, writer: StreamWriter, start: Start) -> None:
    count = total = 0
    while isinstance(message := await read(reader), Data):
        total += message.payload.seq
        count += 1
    response = {"type": "response", "id": start.id, "payload": {"count": count, "total": total}}
    await write(writer, encode(response))


async def serve(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while True:
            message = await read(reader)
            if isinstance(message, Start):
                await (add_up(reader, writer, message) if message.procedure == "up" else answer(writer, message))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
