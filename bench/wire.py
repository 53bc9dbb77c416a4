"""A client that costs little: keep-alive HTTP/1.1 over TLS, one request in flight on each connection."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

Request = Callable[[int], bytes]
# As long as a stream may say nothing that is waited for.
_SILENCE_S: Final = 120.0


class Connection:
    """One connection. `send` gives status and body of the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, ca_file: str) -> Connection:
        context = ssl.create_default_context(cafile=ca_file)
        return cls(
            *await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        )

    async def send(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        if at >= 0:
            length = int(lowered[at + 15 : lowered.index(b"\r", at)])
            return status, await self._reader.readexactly(length)
        body = b""
        while True:
            size = int(await self._reader.readline(), 16)
            chunk = await self._reader.readexactly(size + 2)
            if not size:
                return status, body
            body += chunk[:-2]

    async def lines(self, request: bytes) -> AsyncLines:
        """Begin a stream, such as a watch; the answer's head is read."""
        self._writer.write(request)
        await self._reader.readuntil(b"\r\n\r\n")
        return AsyncLines(self._reader)

    def close(self) -> None:
        self._writer.close()


class AsyncLines:
    """Lines of a chunked body."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._rest = reader, b""

    async def next(self) -> bytes:
        """Raises TimeoutError when there is none for long."""
        async with asyncio.timeout(_SILENCE_S):
            while b"\n" not in self._rest:
                size = int(await self._reader.readline(), 16)
                self._rest += (await self._reader.readexactly(size + 2))[:-2]
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def request(method: str, path: str, token: str, body: bytes = b"") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def rate(connections: list[Connection], make: Request, seconds: float, expected: int) -> float:
    """Answers a second with every connection busy. Raises AssertionError on another status."""
    until = time.perf_counter() + seconds
    count = 0

    async def run(connection: Connection) -> None:
        nonlocal count
        while time.perf_counter() < until:
            count += 1
            status, body = await connection.send(make(count))
            assert status == expected, (status, body[:300])

    started = time.perf_counter()
    await asyncio.gather(*(run(connection) for connection in connections))
    return count / (time.perf_counter() - started)


async def timed(work: Coroutine[Any, Any, Any]) -> float:
    """Milliseconds that it took."""
    started = time.perf_counter()
    await work
    return (time.perf_counter() - started) * 1000


def percentile(values: list[float], percent: int) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))]
