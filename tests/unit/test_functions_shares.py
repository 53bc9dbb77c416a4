"""Whose pieces are next: streams of functions have the server's time in turns, agent by agent."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from hashlib import sha1
from itertools import count
from typing import Any

from support.functions import DOMAIN, Call, Program, Stage, service, stage

from walras.kube.serve.fair import Fair

Object = dict[str, Any]
STREAMS = 200
PIECES = 50


def ticking() -> Fair:
    """Each step of work takes 50 microseconds, however fast the machine is."""
    times = count(0, 50_000)
    return Fair(lambda: next(times))


def accepting(key: bytes) -> bytes:
    proof = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    said = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + proof
    return b"HTTP/1.1 101 Switching Protocols\r\n" + said + b"\r\n\r\n"


async def busy(on: Stage) -> None:
    for agent in ("one", "two"):
        await on.ready(service(), agent)


async def heard(pieces: Callable[[], int]) -> None:
    """Lets streams go on until the quiet one has had its pieces."""
    for _ in range(100_000):
        if pieces() >= PIECES:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{pieces()} were heard")


def test_one_stream_has_its_share_beside_many_of_another_agents() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x" * 65_536)
                await writer.drain()

        await busy(on)
        on.program = program
        flood = [on.call(f"hello.default.one.{DOMAIN}") for _ in range(STREAMS)]
        quiet = on.call(f"hello.default.two.{DOMAIN}")

        def size(call: Call) -> int:
            return len(call.answer.body) // 65_536

        await on.until(lambda: all(call.answer.status for call in flood))
        before = sum(size(call) for call in flood), size(quiet)
        await heard(lambda: size(quiet) - before[1])
        # Without turns it would be one of as many as there are streams.
        assert sum(size(call) for call in flood) - before[0] < STREAMS // 4 * PIECES
        for call in (*flood, quiet):
            call.gone.set()
        await asyncio.gather(*(call.task for call in (*flood, quiet)), return_exceptions=True)

    stage(story, agents=("one", "two"), fair=ticking())


def reading(read: Counter[str]) -> Program:
    """Instances that only read, and count for their agents what."""

    async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if key := re.search(rb"sec-websocket-key: (.*)\r\n", head):
            writer.write(accepting(key[1]))
        host = re.search(rb"host: hello.default.(\w+)", head)
        assert host is not None
        while data := await reader.read(65_536):
            read[host[1].decode()] += len(data)

    return program


def test_what_many_callers_send_does_not_keep_anothers_back() -> None:
    async def story(on: Stage) -> None:
        read = Counter[str]()
        await busy(on)
        on.program = reading(read)
        body = (b"x" * 10_000,) * 1000
        hosts = [*[f"hello.default.one.{DOMAIN}"] * STREAMS, f"hello.default.two.{DOMAIN}"]
        calls = [on.call(host, method="POST", body=body) for host in hosts]
        await heard(lambda: read["two"] // 10_000)
        assert read["one"] < STREAMS // 4 * read["two"]
        for call in calls:
            call.task.cancel()
        await asyncio.gather(*(call.task for call in calls), return_exceptions=True)

    stage(story, agents=("one", "two"), fair=ticking())


def test_messages_of_many_conversations_do_not_keep_anothers_back() -> None:
    async def story(on: Stage) -> None:
        read = Counter[str]()
        await busy(on)
        on.program = reading(read)
        hosts = [*[f"hello.default.one.{DOMAIN}"] * STREAMS, f"hello.default.two.{DOMAIN}"]
        talks = [on.talk(host) for host in hosts]
        for talk in talks:
            for _ in range(1000):
                talk.say(data=b"x" * 10_000)
        await heard(lambda: read["two"] // 10_000)
        assert read["one"] < STREAMS // 4 * read["two"]
        for talk in talks:
            talk.task.cancel()
        await asyncio.gather(*(talk.task for talk in talks), return_exceptions=True)

    stage(story, agents=("one", "two"), fair=ticking())
