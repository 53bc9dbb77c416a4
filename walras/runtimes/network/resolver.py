"""The name server of an agent: UDP and TCP on sockets in the agent's namespace, at a bounded pace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walras.runtimes.network.dns import UDP_BYTES_MAX

# What an agent may have of the loop's time: beyond it the kernel drops queries, and clients ask again.
QUERIES_PER_S_MAX: Final = 500
_WINDOW_S: Final = 0.1
_QUERY_BYTES_MAX: Final = 4096
CONNECTIONS_MAX: Final = 16
_IDLE_S: Final = 5.0

# A query and how long its answer may be.
Answer = Callable[[bytes, int], bytes]


class Resolver:
    """Answers until closed, by `answer`."""

    def __init__(self, packets: socket.socket, streams: socket.socket, answer: Answer) -> None:
        self._packets, self._streams, self._answer = packets, streams, answer
        self._loop = asyncio.get_running_loop()
        self._left = int(QUERIES_PER_S_MAX * _WINDOW_S)
        self._pause: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop.add_reader(packets.fileno(), self._readable)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._streams)

    def _readable(self) -> None:
        if self._pause is None:
            # A window begins with its first query, so that an idle name server has no timer.
            self._pause = self._loop.call_later(_WINDOW_S, self._renew)
        self._left -= 1
        with suppress(OSError):
            query, client = self._packets.recvfrom(_QUERY_BYTES_MAX)
            if said := self._answer(query, UDP_BYTES_MAX):
                self._packets.sendto(said, client)
        if self._left <= 0:
            self._loop.remove_reader(self._packets.fileno())

    def _renew(self) -> None:
        self._pause = None
        if self._left <= 0:
            self._loop.add_reader(self._packets.fileno(), self._readable)
        self._left = int(QUERIES_PER_S_MAX * _WINDOW_S)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._writers.add(writer)
        try:
            with suppress(OSError, EOFError, TimeoutError):
                while True:
                    async with asyncio.timeout(_IDLE_S):
                        size = int.from_bytes(await reader.readexactly(2))
                        said = self._answer(await reader.readexactly(min(size, _QUERY_BYTES_MAX)), 65_535)
                        if not said or size > _QUERY_BYTES_MAX:
                            break
                        writer.write(len(said).to_bytes(2) + said)
                        await writer.drain()
                    await asyncio.sleep(1 / QUERIES_PER_S_MAX)
        finally:
            self._writers.discard(writer)
            writer.close()

    def close(self) -> None:
        self._loop.remove_reader(self._packets.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._packets.close()
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
