"""Connections passed on to a listener on loopback, which knows by their addresses whose they are."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any, Final, Generic, TypeVar

from walras.core.errors import Unauthorized
from walras.kube.bodies import Receive
from walras.kube.serve import status
from walras.kube.serve.streams import Send, send_answer

T = TypeVar("T")
Peer = tuple[str, int]
Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]
CHUNK: Final = 64 << 10
# 127.64.0.0/10: four million addresses, taken in turn, so that none is soon another's.
_ADDRESSES: Final = (0x7F400000, 1 << 22)


class Relay(Generic[T]):
    """`peers`: by where a connection comes from, whose it is. Without an entry it is nobody's."""

    def __init__(self) -> None:
        self.peers: dict[Peer, T] = {}
        self._numbers = itertools.count()

    def _address(self) -> str:
        base, count = _ADDRESSES
        return str(IPv4Address(base + next(self._numbers) % count))

    async def carry(
        self,
        whose: T,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        first: bytes = b"",
    ) -> None:
        """Passes bytes both ways until one side is done, `first` what was read already. Raises OSError."""
        inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        inner.setblocking(False)
        peer: Peer | None = None
        try:
            inner.bind((self._address(), 0))
            peer = inner.getsockname()
            # Known before the first byte is sent, forgotten before the port can be another's.
            self.peers[peer] = whose
            await asyncio.get_running_loop().sock_connect(inner, ("127.0.0.1", port))
            inner_reader, inner_writer = await asyncio.open_connection(sock=inner, limit=CHUNK)
            try:
                inner_writer.write(first)
                done = [
                    asyncio.create_task(_copy(reader, inner_writer)),
                    asyncio.create_task(_copy(inner_reader, writer)),
                ]
                await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.cancel()
                await asyncio.gather(*done, return_exceptions=True)
            finally:
                self.peers.pop(peer, None)
                inner_writer.close()
        finally:
            if peer is not None:
                self.peers.pop(peer, None)
            inner.close()


class Relayed(Generic[T]):
    """An application as the listener on loopback sees it. It is told of each request whose it is: `told` has
    the scope that says so. Nobody's are refused."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.relay: Relay[T] = Relay()

    def told(self, scope: Mapping[str, Any], whose: T) -> Mapping[str, Any]:
        raise NotImplementedError

    async def close(self) -> None:
        """What goes on is the application's own."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        client = scope.get("client") or ("", 0)
        whose = self.relay.peers.get((str(client[0]), int(client[1])))
        if whose is not None:
            await self._app(self.told(scope, whose), receive, send)
        elif scope["type"] == "http":
            await send_answer(send, status.answer(Unauthorized("Unauthorized")))
        else:
            await receive()
            with suppress(Exception):
                await send({"type": "websocket.close", "code": 1008})


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side is done; at the pace of the slower one."""
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
