"""grpclib on uvloop: the generated base class, a message sent or received at a time."""

import socket

import uvloop
from grpclib.server import Server, Stream
from grpclib.utils import graceful_exit
from ticks_grpc import TicksBase
from ticks_pb2 import Query, Sum, Tick

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Ticks(TicksBase):
    async def Unary(self, stream: Stream[Tick, Tick]) -> None:
        request = await stream.recv_message()
        await stream.send_message(Tick(seq=request.seq, symbol=SYMBOL, price=PRICE, ts=TS))

    async def Server(self, stream: Stream[Query, Tick]) -> None:
        request = await stream.recv_message()
        for seq in range(1, request.n + 1):
            await stream.send_message(Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS))

    async def Client(self, stream: Stream[Tick, Sum]) -> None:
        count = total = 0
        async for tick in stream:
            total += tick.seq
            count += 1
        await stream.send_message(Sum(count=count, total=total))

    async def Bidi(self, stream: Stream[Tick, Tick]) -> None:
        async for tick in stream:
            await stream.send_message(Tick(seq=tick.seq, symbol=SYMBOL, price=PRICE, ts=TS))


async def main() -> None:
    server = Server([Ticks()])
    with socket.create_server(("127.0.0.1", 0)) as listening, graceful_exit([server]):
        await server.start(sock=listening)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    uvloop.run(main())
