"""A WebSocket of a client, over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from walras.kube.bodies import Receive
from walras.kube.serve.answers import Answer

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

# A client that takes nothing for this long is gone.
STALLED_S: Final = 60


class SocketGone(Exception):
    """The other end has closed it, or takes nothing any more."""


class Socket:
    """Messages in order; sending waits for a client that reads slowly."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self.gone = False

    async def connected(self) -> None:
        """Takes in the client's wish to connect, which comes first."""
        if (await self._receive())["type"] != "websocket.connect":
            raise SocketGone

    async def accept(self, protocol: str | None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": protocol})

    async def refuse(self, answer: Answer) -> None:
        """Answers as if it had been a request of plain HTTP."""
        headers = [(b"content-type", answer.content_type), *answer.headers]
        start = {"type": "websocket.http.response.start", "status": answer.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": answer.body})

    async def receive(self) -> bytes:
        """The next message. Raises SocketGone."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self.gone = True
            raise SocketGone
        data = message.get("bytes")
        return bytes(data) if data is not None else str(message.get("text") or "").encode()

    async def send(self, data: bytes) -> None:
        """Raises SocketGone."""
        if self.gone:
            raise SocketGone
        async with self._sending:
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._send({"type": "websocket.send", "bytes": data})
            except Exception as error:
                self.gone = True
                raise SocketGone from error

    async def close(self) -> None:
        if not self.gone:
            self.gone = True
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._send({"type": "websocket.close", "code": 1000})
            except Exception:
                return
