"""Fairness: handlers that never wait share one loop with each other and with everybody else."""

from __future__ import annotations

import asyncio
import select
import socket
import time

import pytest


async def greedy():
    while True:
        yield "x" * 100


def plain():
    while True:
        yield "x" * 100


@pytest.mark.parametrize(("handler", "enough"), [(greedy, 1024 * 1024), (plain, 128 * 1024)])
async def test_none_of_many_greedy_streams_starves(build, connect, handler, enough):
    server = build()
    server.stream("greedy").handler(handler)
    await server.start()
    peers = [await connect(server) for _ in range(20)]
    for peer in peers:
        await peer.ask("/streams/greedy")
    taken = dict.fromkeys(peers, 0)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    async def read(peer):
        while not stop.is_set():
            taken[peer] += len(await loop.sock_recv(peer.sock, 16384))
            if all(size > enough for size in taken.values()):
                stop.set()

    async with asyncio.timeout(10):
        await asyncio.gather(*map(read, peers))
    assert min(taken.values()) >= max(taken.values()) / 2


@pytest.mark.parametrize("handler", [greedy, plain])
async def test_others_have_their_turn_beside_greedy_streams(build, connect, handler, quickest):
    server = build()
    server.stream("greedy").handler(handler)

    @server.procedure("quick")
    async def quick():
        return 1

    await server.start()
    greedy_peers = [await connect(server) for _ in range(5)]
    for peer in greedy_peers:
        await peer.ask("/streams/greedy")
    loop = asyncio.get_running_loop()

    async def read(peer):
        while True:
            await loop.sock_recv(peer.sock, 65536)

    reading = [asyncio.create_task(read(peer)) for peer in greedy_peers]
    peer = await connect(server)

    async def call():
        began = time.perf_counter()
        assert (await peer.call("/quick")).body == b"1"
        return time.perf_counter() - began

    try:
        assert await quickest(call) < 0.5
    finally:
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)


async def test_a_burst_without_waiting_does_not_keep_the_loop(build, connect):
    """The loop turns while one stream produces, though nothing in its handler ever waits."""
    server, turns = build(), 0

    @server.stream("burst")
    async def burst():
        for _ in range(20_000):
            yield "x" * 100

    await server.start()
    peer = await connect(server)
    await peer.ask("/streams/burst")

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    try:
        await peer.head()
        await peer.rest()
    finally:
        counting.cancel()
        await asyncio.wait([counting])
    assert turns > 20


async def test_a_thousand_connections_at_once_are_taken(build):
    """All of them are the kernel's already before the loop has had a turn: none has to try again after a second."""
    server = build()
    await server.start()
    sockets = [socket.socket() for _ in range(1000)]
    try:
        poll = select.poll()
        for sock in sockets:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", server.port))
            poll.register(sock, select.POLLOUT)
        assert len(poll.poll(0)) == 1000
    finally:
        for sock in sockets:
            sock.close()
