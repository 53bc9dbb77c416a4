"""A WebSocket between a caller and an instance (RFC 6455): messages of ASGI here, frames there."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from walras.core.clock import Ids
from walras.core.errors import WalrasError
from walras.functions.backend import Backend, Instance
from walras.functions.backends import Backends
from walras.functions.client import Client
from walras.functions.connections import (
    LOST,
    BadAnswer,
    Connection,
    Head,
    Headers,
    end_to_end,
    listed,
)
from walras.functions.forwarding import BadGateway, forwarded, target_of
from walras.functions.frames import BINARY, CLOSE, TEXT, frame, messages
from walras.functions.shares import Share
from walras.kube.serve import status

_DENIAL_BYTES_MAX: Final = 1 << 20
_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GOING_AWAY: Final = (1001).to_bytes(2)
# Said by the two ends of a connection to each other, so anew to the instance. No extension is agreed on.
_HANDSHAKE: Final = frozenset(
    (b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-accept")
)


class SocketClient(Client):
    """The caller's end: its messages as pieces, one read ahead."""

    kind = "websocket.receive"

    async def connected(self) -> None:
        """Takes in the wish to connect, which comes first."""
        await self.message()

    async def message(self) -> Mapping[str, Any]:
        """The next message."""
        found = await self._next()
        self._listen()
        return found

    def _is_piece(self, message: Mapping[str, Any]) -> bool:
        return message["type"] in ("websocket.connect", self.kind)

    def _is_last(self, message: Mapping[str, Any]) -> bool:
        del message
        return False

    async def accept(self, protocol: str | None) -> None:
        self.has_begun = True
        await self._send({"type": "websocket.accept", "subprotocol": protocol, "headers": []})

    async def tell(self, opcode: int, data: bytes) -> None:
        said: dict[str, Any] = {"text": data.decode()} if opcode == TEXT else {"bytes": data}
        await self._send({"type": "websocket.send", **said})

    async def hang_up(self, code: int) -> None:
        with suppress(Exception):
            await self._send({"type": "websocket.close", "code": code})

    async def deny(self, code: int, headers: Headers, body: bytes) -> None:
        """Answers as if it had been a request of plain HTTP."""
        with suppress(Exception):
            start = {"type": "websocket.http.response.start", "status": code, "headers": headers}
            await self._send(start)
            await self._send({"type": "websocket.http.response.body", "body": body})

    async def refuse(self, error: WalrasError) -> None:
        said = status.answer(error)
        await self.deny(said.status, [(b"content-type", said.content_type), *said.headers], said.body)


class Conversation:
    """A WebSocket that a caller wants. Like an Exchange, it is run with an instance."""

    def __init__(
        self,
        scope: Mapping[str, Any],
        client: SocketClient,
        host: bytes,
        ids: Ids,
        share: Share,
        *,
        hides: frozenset[bytes] = frozenset(),
    ) -> None:
        """Raises BadRequest."""
        self._client, self._share = client, share
        self._protocols = [str(each) for each in scope.get("subprotocols") or ()]
        self._key = base64.b64encode(hashlib.sha256(ids.uid().encode()).digest()[:16])
        headers = [each for each in forwarded(scope, host, hides) if each[0] not in _HANDSHAKE]
        headers += [
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-key", self._key),
            (b"sec-websocket-version", b"13"),
        ]
        lines = [b"GET %b HTTP/1.1" % target_of(scope), *(b"%b: %b" % each for each in headers)]
        self._asking = b"\r\n".join(lines) + b"\r\n\r\n"

    async def run(self, backends: Backends, backend: Backend, instance: Instance) -> bool:
        """Until one side closes it; False when the instance accepts no connection. Raises BadGateway."""
        try:
            connection = await backends.connect(backend, instance)
        except (WalrasError, OSError):
            return False
        assert isinstance(connection, Connection)
        try:
            await connection.send(self._asking)
            head = await connection.head("GET")
            if head.status != 101:
                await self._deny(connection, head)
                return True
            await self._client.accept(self._agreed(head))
            await self._relay(connection)
        except LOST as error:
            if self._client.has_begun:
                await self._client.hang_up(1011)
                return True
            raise BadGateway(f"the instance did not answer: {str(error) or type(error).__name__}") from None
        finally:
            connection.abort()
        return True

    def _agreed(self, head: Head) -> str | None:
        """The subprotocol that the instance chose. Raises BadAnswer where it has not accepted."""
        proof = base64.b64encode(hashlib.sha1(self._key + _MAGIC).digest())  # noqa: S324  as the RFC has it
        said = [value for name, value in head.headers if name == b"sec-websocket-accept"]
        if said != [proof] or listed(head.headers, b"upgrade") != [b"websocket"]:
            raise BadAnswer("it does not accept as RFC 6455 has it")
        chosen = [
            value.decode("latin-1") for name, value in head.headers if name == b"sec-websocket-protocol"
        ]
        if chosen and (len(chosen) > 1 or chosen[0] not in self._protocols):
            raise BadAnswer("it speaks a protocol that was not asked for")
        return chosen[0] if chosen else None

    async def _deny(self, connection: Connection, head: Head) -> None:
        body = bytearray()
        async for data in connection.body(head):
            body += data
            if len(body) > _DENIAL_BYTES_MAX:
                raise BadAnswer("its answer is too long")
        headers = [each for each in end_to_end(head.headers) if each[0] != b"content-length"]
        await self._client.deny(head.status, headers, bytes(body))

    async def _relay(self, connection: Connection) -> None:
        """Passes messages both ways."""
        ways = [
            asyncio.create_task(self._share.run(way))
            for way in (self._to(connection), self._back(connection))
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with suppress(OSError):
                connection.write(frame(CLOSE, _GOING_AWAY))
        for way in done:
            way.result()

    async def _to(self, connection: Connection) -> None:
        while True:
            message = await self._client.message()
            await self._share.again()
            data = message.get("bytes")
            if data is not None:
                await connection.send(frame(BINARY, bytes(data)))
            else:
                await connection.send(frame(TEXT, str(message.get("text") or "").encode()))

    async def _back(self, connection: Connection) -> None:
        async for opcode, data in messages(connection):
            await self._share.again()
            if opcode == CLOSE:
                code = int.from_bytes(data[:2]) if len(data) >= 2 else 1000
                await self._client.hang_up(code if 1000 <= code < 5000 else 1002)
                return
            try:
                await self._client.tell(opcode, data)
            except UnicodeDecodeError:
                raise BadAnswer("a text is not UTF-8") from None
