"""grpc.aio on uvloop: the generated servicer, async generators that yield messages."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import ticks_pb2_grpc
import uvloop
from ticks_pb2 import Query, Sum, Tick

SYMBOL, PRICE, TS = "ACME", 101.25, 1712345678.123


class Ticks(ticks_pb2_grpc.TicksServicer):
    async def Unary(self, request: Tick, context: grpc.aio.ServicerContext) -> Tick:
        return Tick(seq=request.seq, symbol=SYMBOL, price=PRICE, ts=TS)

    async def Server(self, request: Query, context: grpc.aio.ServicerContext) -> AsyncIterator[Tick]:
        for seq in range(1, request.n + 1):
            yield Tick(seq=seq, symbol=SYMBOL, price=PRICE, ts=TS)

    async def Client(self, request_iterator: AsyncIterator[Tick], context: grpc.aio.ServicerContext) -> Sum:
        count = total = 0
        async for tick in request_iterator:
            total += tick.seq
            count += 1
        return Sum(count=count, total=total)

    async def Bidi(
        self, request_iterator: AsyncIterator[Tick], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Tick]:
        async for tick in request_iterator:
            yield Tick(seq=tick.seq, symbol=SYMBOL, price=PRICE, ts=TS)


async def main() -> None:
    server = grpc.aio.server()
    ticks_pb2_grpc.add_TicksServicer_to_server(Ticks(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
