"""The server's end of QEMU's monitor (QMP): a machine is held and let go on by it.

QEMU is shut in for what a guest may make of it, so that what it says is bounded like what a guest says.
"""

from __future__ import annotations

import asyncio
import socket
from itertools import count
from typing import Any, Final

import msgspec

from walras.core.errors import ServiceUnavailable

_ANSWER_S: Final = 15.0
_LINE_BYTES_MAX: Final = 64 << 10
_SAID_MAX: Final = 400


class Monitor:
    """Accepts QEMU when it is first needed. What QEMU tells of itself meanwhile waits, unread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._turn, self._numbers = asyncio.Lock(), count(1)

    async def pause(self, paused: bool) -> None:
        """Raises ServiceUnavailable."""
        try:
            async with asyncio.timeout(_ANSWER_S), self._turn:
                await self._do("stop" if paused else "cont")
        except (OSError, ValueError, TimeoutError, RecursionError) as error:
            why = str(error) or "no answer"
            raise ServiceUnavailable(f"the virtual machine does not obey: {why}") from error

    async def _do(self, command: str) -> None:
        if self._writer is None:
            made, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            self._reader, self._writer = await asyncio.open_unix_connection(sock=made, limit=_LINE_BYTES_MAX)
            await self._ask("qmp_capabilities")
        await self._ask(command)

    async def _ask(self, command: str) -> None:
        """Raises OSError for what QEMU refuses, ValueError for what is no QMP."""
        assert self._reader is not None and self._writer is not None
        number = next(self._numbers)
        self._writer.write(msgspec.json.encode({"execute": command, "id": number}) + b"\n")
        await self._writer.drain()
        while True:
            line = await self._reader.readline()
            if not line:
                raise OSError("it has ended")
            said: Any = msgspec.json.decode(line)
            if not isinstance(said, dict):
                raise ValueError("no QMP")
            if said.get("id") != number:
                # An event, or an answer that somebody gave up.
                continue
            if "error" in said:
                raise OSError(str(said["error"])[:_SAID_MAX])
            if "return" in said:
                return

    def close(self) -> None:
        self._listener.close()
        if self._writer is not None:
            self._writer.close()
