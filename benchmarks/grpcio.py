"""Real grpcio as the client, in a process of its own: `python -m benchmarks.grpcio` is what the functions here start.

It is grpc.aio: threads and futures ask less of a fast server. Messages are bytes to it, so that it has little to do and
compares what was written.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import msgspec

from benchmarks import cores
from benchmarks.client import Load
from benchmarks.servers import ROOT, CannotRun, Server
from benchmarks.ticks import framed, tick

PATIENCE = 5  # seconds for whatever is awaited
AT_ONCE = 10
UNARY = "/Ticks/Unary"


class Failed(Exception):
    """The server did not do what was asked."""


def answers_of(server: Server, path: str, *messages: bytes) -> list[bytes]:
    """What a call is answered with; the messages, there and back, are behind their prefixes."""
    return [bytes.fromhex(line) for line in _client("ask", server, path, *(message.hex() for message in messages))]


def unary_calls_of(server: Server, warm: float, measured: float) -> Load:
    """Unary calls on one connection, each answered by the tick that it should be."""
    (line,) = _client("load", server, str(server.session), str(warm), str(measured))
    return msgspec.json.decode(line, type=Load)


def _client(mode: str, server: Server, *arguments: str) -> list[str]:
    command = (sys.executable, "-m", "benchmarks.grpcio", mode, server.host, str(server.port), *arguments)
    pin = cores.pin(cores.CLIENT)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=pin)  # bounded by its own waits
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CannotRun(lines[-1] if lines else f"the client of grpcio ended with status {done.returncode}")
    return done.stdout.split()


async def _ask(target: str, path: str, *messages: str) -> None:
    """On the wire a call of two streams is one of any kind."""
    async with grpc.aio.insecure_channel(target) as channel:
        requests = [bytes.fromhex(message)[5:] for message in messages]
        async for answer in channel.stream_stream(path)(iter(requests), timeout=PATIENCE):
            print(framed(answer).hex())


async def _load(target: str, session: str, warm: str, measured: str) -> None:
    server = Server("", 0, int(session))
    calls = 0

    async def call_until(end: float) -> None:
        nonlocal calls
        unary, message = channel.unary_unary(UNARY), tick(7)[5:]
        while time.monotonic() < end:
            found = await unary(message, timeout=PATIENCE)
            if found != message:
                raise Failed(f"{UNARY}: found {found.hex()}, expected {message.hex()}")
            calls += 1

    async def call_for(seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(call_until(end) for _ in range(AT_ONCE)))

    async with grpc.aio.insecure_channel(target) as channel:
        await call_for(float(warm))
        calls, before, own, started = 0, server.times(), time.process_time(), time.monotonic()
        await call_for(float(measured))
        seconds, own, after = time.monotonic() - started, time.process_time() - own, server.times()
    load = Load(calls, calls, calls, seconds, after.cpu - before.cpu, after.wait - before.wait, own)
    print(msgspec.json.encode(load).decode())


def _main(mode: str, host: str, port: str, *arguments: str) -> None:
    work = _ask if mode == "ask" else _load
    try:
        asyncio.run(work(f"{host}:{port}", *arguments))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"found {error.code().name}, expected OK: {error.details()}")
    except Failed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    import grpc  # not in the process that forks the servers: its threads would not come along

    _main(*sys.argv[1:])
