"""A name server that is asked more than its agent may ask."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from itertools import pairwise

from walras.runtimes.network.resolver import Resolver


def resolving(answer: Callable[[bytes, int], bytes], story: Callable[[socket.socket], object]) -> None:
    async def run() -> None:
        packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.setblocking(False)
        packets.bind(("127.0.0.1", 0))
        resolver = Resolver(packets, socket.create_server(("127.0.0.1", 0)), answer)
        await resolver.open()
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(packets.getsockname())
        client.settimeout(10)
        try:
            await asyncio.to_thread(story, client)
        finally:
            client.close()
            resolver.close()

    asyncio.run(run())


def test_a_flood_of_queries_is_answered_at_a_pace() -> None:
    at: list[float] = []

    def answer(query: bytes, _: int) -> bytes:
        at.append(time.monotonic())
        return query

    def story(client: socket.socket) -> None:
        for _ in range(200):
            client.send(b"query")
        for _ in range(200):
            assert client.recv(100) == b"query"

    resolving(answer, story)
    assert len(at) == 200 and at[-1] - at[0] >= 0.25, "four windows' worth takes at least three to come"


def test_answers_that_take_long_are_paid_for_in_time() -> None:
    at: list[float] = []

    def answer(query: bytes, _: int) -> bytes:
        at.append(time.monotonic())
        while time.monotonic() - at[-1] < 0.02:
            pass
        return query

    def story(client: socket.socket) -> None:
        for _ in range(3):
            client.send(b"query")
        for _ in range(3):
            assert client.recv(100) == b"query"

    resolving(answer, story)
    assert min(after - before for before, after in pairwise(at)) >= 0.25
