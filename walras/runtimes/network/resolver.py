"""The name server of an agent: UDP and TCP on sockets in the agent's namespace, at a bounded pace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walras.runtimes.network.dns import UDP_BYTES_MAX

# What an agent may have of the loop's time, a twentieth; beyond it the kernel drops queries, and clients ask
# again. No query counts for less than what makes 500 in a second.
_WINDOW_S: Final = 0.1
_ALLOWED_S: Final = 0.005
_LEAST_S: Final = 0.0001
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
        self._left_s = _ALLOWED_S
        self._window: asyncio.TimerHandle | None = None
        self._paused = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop.add_reader(packets.fileno(), self._readable)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._streams)

    def _readable(self) -> None:
        with suppress(OSError):
            query, client = self._packets.recvfrom(_QUERY_BYTES_MAX)
            if said := self._answered(query, UDP_BYTES_MAX):
                self._packets.sendto(said, client)
        if self._left_s <= 0:
            self._paused = True
            self._loop.remove_reader(self._packets.fileno())

    def _answered(self, query: bytes, bytes_max: int) -> bytes:
        """The answer, whose making is counted."""
        began_s = self._loop.time()
        try:
            return self._answer(query, bytes_max)
        finally:
            self._left_s -= max(_LEAST_S, self._loop.time() - began_s)
            if self._window is None:
                # A window begins with its first query, so that an idle name server has no timer.
                self._window = self._loop.call_later(_WINDOW_S, self._renew)

    def _renew(self) -> None:
        self._left_s = min(_ALLOWED_S, self._left_s + _ALLOWED_S)
        if self._left_s <= 0:
            self._window = self._loop.call_later(_WINDOW_S, self._renew)
            return
        self._window = None
        if self._paused:
            self._paused = False
            self._loop.add_reader(self._packets.fileno(), self._readable)

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
                        query = await reader.readexactly(min(size, _QUERY_BYTES_MAX))
                        while self._left_s <= 0:  # noqa: ASYNC110  it is time that has to pass
                            await asyncio.sleep(_WINDOW_S)
                        said = self._answered(query, 65_535)
                        if not said or size > _QUERY_BYTES_MAX:
                            break
                        writer.write(len(said).to_bytes(2) + said)
                        await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()

    def close(self) -> None:
        self._loop.remove_reader(self._packets.fileno())
        if self._window is not None:
            self._window.cancel()
        self._packets.close()
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
