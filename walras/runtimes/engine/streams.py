"""The streams of a program in a container, as the engine carries them over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walras.runtimes.attaching import got
from walras.runtimes.base import Stream

CHUNK: Final = 32_768
# Chunks of each stream that wait for a reader; beyond them the program is held up.
BEHIND_MAX: Final = 16
_STREAMS: Final[dict[int, Stream]] = {1: "stdout", 2: "stderr"}


async def frames(reader: asyncio.StreamReader, tty: bool, each: Callable[[Stream, bytes], object]) -> None:
    """Calls `each` with what comes until the end; awaits what it returns. A terminal's stream has no frames.

    The format is that of `attach` in the Docker Engine API: stream, three zeros, four bytes of length.
    """
    with suppress(asyncio.IncompleteReadError, OSError):
        while True:
            if tty:
                data = await reader.read(CHUNK)
                if not data:
                    return
                await _pass(each, "stdout", data)
                continue
            head = await reader.readexactly(8)
            stream, left = _STREAMS.get(head[0]), int.from_bytes(head[4:])
            while left:
                data = await reader.readexactly(min(left, CHUNK))
                left -= len(data)
                if stream is not None:
                    await _pass(each, stream, data)


async def _pass(each: Callable[[Stream, bytes], object], stream: Stream, data: bytes) -> None:
    waited = each(stream, data)
    if asyncio.iscoroutine(waited):
        await waited


class Queues:
    """Output by stream, for readers that may be slow."""

    def __init__(self, wanted: tuple[Stream, ...]) -> None:
        self._queues: dict[Stream, asyncio.Queue[bytes]] = {
            name: asyncio.Queue(BEHIND_MAX) for name in wanted
        }

    @property
    def names(self) -> tuple[Stream, ...]:
        return tuple(self._queues)

    async def put(self, stream: Stream, data: bytes) -> None:
        if (queue := self._queues.get(stream)) is not None:
            await queue.put(data)

    async def get(self, stream: Stream, over: asyncio.Future[None]) -> bytes:
        """The next piece; b"" when there is none any more."""
        queue = self._queues[stream]
        if queue.empty() and not over.done() and (said := await got(queue, over)) is not None:
            return said
        return b"" if queue.empty() else queue.get_nowait()
