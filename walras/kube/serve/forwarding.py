"""port-forward over a WebSocket: kubectl's SPDY tunnelled through it, and the older two channels a port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from walras.core.errors import BadRequest, WalrasError
from walras.kube.serve import spdy
from walras.kube.serve.sockets import Socket, SocketGone

TUNNEL: Final = "SPDY/3.1+portforward.k8s.io"
CHANNELS: Final = "v4.channel.k8s.io"
PROTOCOLS: Final = (TUNNEL, CHANNELS)
STREAMS_MAX: Final = 256
PORTS_MAX: Final = 64
_CHUNK: Final = 32_768

Dial = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""A connection to a port of the pod. Raises WalrasError."""
Deliver = Callable[[bytes], Awaitable[None]]


def port_of(text: str) -> int:
    """Raises BadRequest for what is no port."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 1 << 16):
        raise BadRequest(f'"{text[:16]}" is no port')
    return int(text)


@dataclass
class _Connection:
    """One connection to the pod, from when it is asked for."""

    port: int
    writer: asyncio.StreamWriter | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry(self, dial: Dial, deliver: Deliver) -> str:
        """Delivers what the pod sends until its end; what went wrong, in words, else nothing."""
        try:
            reader, self.writer = await dial(self.port)
        except WalrasError as error:
            return f"error forwarding port {self.port} to the pod: {error.message}"
        finally:
            self.ready.set()
        with suppress(ConnectionError, OSError):
            while data := await reader.read(_CHUNK):
                await deliver(data)
        return ""

    async def take(self, data: bytes) -> None:
        """Returns when the pod has taken the data, or cannot any more."""
        await self.ready.wait()
        if self.writer is not None and data:
            with suppress(ConnectionError, OSError):
                self.writer.write(data)
                await self.writer.drain()

    async def end(self) -> None:
        await self.ready.wait()
        if self.writer is not None and self.writer.can_write_eof():
            with suppress(ConnectionError, OSError):
                self.writer.write_eof()

    def close(self) -> None:
        self.ready.set()
        if self.writer is not None:
            self.writer.close()


class Tunnel:
    """kubectl's way: for each connection a stream for errors, then one for data, of the same request."""

    def __init__(self, socket: Socket, dial: Dial) -> None:
        self._socket = socket
        self._dial = dial
        self._reader, self._writer = spdy.Reader(), spdy.Writer()
        self._errors: dict[str, int] = {}
        self._connections: dict[int, _Connection] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last = 0

    async def run(self) -> None:
        """Until the client has gone, or says what is no SPDY."""
        try:
            while True:
                for event in self._reader.feed(await self._socket.receive()):
                    await self._handle(event)
        except SocketGone:
            return
        except BadRequest:
            with suppress(SocketGone):
                await self._socket.send(self._writer.goaway(self._last))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            for connection in self._connections.values():
                connection.close()

    async def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.Opened(stream, headers, _):
                await self._open(stream, headers)
            case spdy.Data(stream, data, ended) if stream in self._connections:
                await self._connections[stream].take(data)
                if ended:
                    await self._connections[stream].end()
            case spdy.Reset(stream) if stream in self._tasks:
                self._tasks[stream].cancel()
            case spdy.Pinged(number):
                await self._socket.send(self._writer.ping(number))

    async def _open(self, stream: int, headers: Mapping[str, str]) -> None:
        self._last = stream
        kind, request = headers.get("streamtype"), headers.get("requestid", "")
        try:
            port = port_of(headers.get("port", ""))
        except BadRequest:
            port = 0
        crowded = len(self._connections) >= STREAMS_MAX or len(self._errors) >= STREAMS_MAX
        if (
            not port
            or crowded
            or kind not in ("error", "data")
            or (kind == "data") != (request in self._errors)
        ):
            await self._socket.send(self._writer.reset(stream, spdy.REFUSED_STREAM))
            return
        await self._socket.send(self._writer.reply(stream))
        if kind == "error":
            self._errors[request] = stream
            return
        connection = self._connections[stream] = _Connection(port)
        errors = self._errors.pop(request)
        self._tasks[stream] = asyncio.create_task(self._carry(stream, errors, connection))

    async def _carry(self, stream: int, errors: int, connection: _Connection) -> None:
        async def deliver(data: bytes) -> None:
            await self._socket.send(self._writer.data(stream, data))

        try:
            wrong = await connection.carry(self._dial, deliver)
            await self._socket.send(self._writer.data(stream, b"", end=True))
            await self._socket.send(self._writer.data(errors, wrong.encode(), end=True))
        except SocketGone:
            return
        finally:
            connection.close()
            self._connections.pop(stream, None)
            self._tasks.pop(stream, None)


class Channels:
    """The older way: the ports are in the request, each has a channel for data and the next for errors."""

    def __init__(self, socket: Socket, dial: Dial, ports: Sequence[int]) -> None:
        self._socket = socket
        self._dial = dial
        self._connections = [_Connection(port) for port in ports]

    async def run(self) -> None:
        """Until the client has gone or every connection has ended."""
        carrying = [asyncio.create_task(self._carry(number)) for number in range(len(self._connections))]
        hearing = asyncio.create_task(self._hear())
        ended = asyncio.ensure_future(asyncio.gather(*carrying, return_exceptions=True))
        try:
            await asyncio.wait((hearing, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*carrying, hearing):
                task.cancel()
            await asyncio.gather(*carrying, hearing, return_exceptions=True)
            for connection in self._connections:
                connection.close()

    async def _carry(self, number: int) -> None:
        connection = self._connections[number]

        async def deliver(data: bytes) -> None:
            await self._socket.send(bytes((2 * number,)) + data)

        with suppress(SocketGone):
            for channel in (2 * number, 2 * number + 1):
                await self._socket.send(bytes((channel,)) + connection.port.to_bytes(2, "little"))
            wrong = await connection.carry(self._dial, deliver)
            if wrong:
                await self._socket.send(bytes((2 * number + 1,)) + wrong.encode())

    async def _hear(self) -> None:
        with suppress(SocketGone):
            while True:
                message = await self._socket.receive()
                number, is_error = divmod(message[0], 2) if message else (0, 1)
                if not is_error and number < len(self._connections):
                    await self._connections[number].take(message[1:])
