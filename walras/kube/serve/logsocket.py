"""A container's log over a WebSocket: what it says as messages, as kube-apiserver's wsstream sends them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from walras.kube.serve.answers import Answer, Stream
from walras.kube.serve.sockets import Socket, SocketGone

PROTOCOLS: Final = ("binary.k8s.io",)


async def send(socket: Socket, protocol: str, log: Answer | Stream) -> None:
    """Accepts the connection, in a protocol or "" for none, and sends all of a log, until it ends or the
    other side is gone. The log is closed."""
    tasks: list[asyncio.Task[None]] = []
    try:
        await socket.accept(protocol or None)
        tasks += [asyncio.create_task(_copy(socket, log)), asyncio.create_task(_until_gone(socket))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(log, Stream):
            await log.chunks.aclose()
            log.close()


async def _copy(socket: Socket, log: Answer | Stream) -> None:
    with suppress(SocketGone):
        # An empty message first, which tells clients that the connection is good.
        await socket.send(b"")
        if isinstance(log, Answer):
            await socket.send(log.body)
            return
        async for chunk in log.chunks:
            await socket.send(chunk)


async def _until_gone(socket: Socket) -> None:
    """Returns once the other side has closed; what it says before is nobody's."""
    with suppress(SocketGone):
        while True:
            await socket.receive()
