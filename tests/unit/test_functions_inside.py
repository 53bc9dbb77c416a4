"""Pods ask in HTTP/2 where they ask in HTTP/1.1, and are known by their cluster in either."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import h2.connection
import pytest
from h2.config import H2Configuration
from h2.events import DataReceived, StreamEnded
from support.http2 import GET

from walras.functions.activator import WITHIN
from walras.functions.inside import InsideFunctions
from walras.functions.listener import Listener
from walras.kube.serve.fair import Fair
from walras.kube.serve.inside import Insiders


async def whose(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    """Answers with the cluster of the caller and the version that it speaks."""
    body = f"{scope.get(WITHIN)} {scope['http_version']}".encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def ask_new(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    client = h2.connection.H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, GET, end_stream=True)
    # The first bytes may come one by one.
    for byte in client.data_to_send():
        writer.write(bytes((byte,)))
        await writer.drain()
    heard = b""
    while data := await reader.read(65_536):
        for event in client.receive_data(data):
            if isinstance(event, DataReceived):
                heard += event.data or b""
            if isinstance(event, StreamEnded):
                return heard
    raise AssertionError("the answer was broken off")


async def ask_old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(len("one 1.1"))


@pytest.mark.parametrize(("ask", "version"), [(ask_new, "2"), (ask_old, "1.1")])
def test_a_pod_is_known_by_its_cluster_whatever_it_speaks(ask: Any, version: str) -> None:
    async def story() -> None:
        inside = InsideFunctions(whose)
        listener = Listener(inside, Fair())
        await listener.start("127.0.0.1", 0)
        insiders = Insiders(inside, http2_port=listener.port)
        ours, theirs = socket.socketpair()
        there = await asyncio.open_connection(sock=theirs)
        task = asyncio.create_task(insiders.connected("one", *there))
        reader, writer = await asyncio.open_connection(sock=ours)
        assert await ask(reader, writer) == f"one {version}".encode()
        writer.close()
        await task
        there[1].close()
        await asyncio.gather(writer.wait_closed(), there[1].wait_closed(), return_exceptions=True)
        await insiders.close()
        await listener.close()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_who_comes_to_the_inner_listener_by_itself_is_nobody() -> None:
    async def story() -> None:
        listener = Listener(InsideFunctions(whose), Fair())
        await listener.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert b'"code":401' in await ask_new(reader, writer)
        writer.close()
        await writer.wait_closed()
        await listener.close()

    asyncio.run(asyncio.wait_for(story(), 20))
