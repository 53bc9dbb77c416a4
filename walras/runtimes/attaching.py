"""Being attached to a container's main process: hearing what it says beside its log, and typing to it."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from walras.runtimes.base import ExitStatus, Output, Stream, Wish

# Chunks that a listener may be behind; beyond them it misses some, the log does not.
BEHIND_MAX: Final = 256


async def got(queue: asyncio.Queue[bytes], over: asyncio.Future[Any]) -> bytes | None:
    """The next of the queue; None when it is `over` before there is any."""
    getting = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait((getting, over), return_when=asyncio.FIRST_COMPLETED)
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()


class Fan:
    """An Output that passes on to another and to whoever listens."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._listeners: dict[Attached, None] = {}

    def __call__(self, stream: Stream, data: bytes) -> None:
        self._output(stream, data)
        for each in tuple(self._listeners):
            each.hear(stream, data)

    def add(self, listener: Attached) -> None:
        self._listeners[listener] = None

    def remove(self, listener: Attached) -> None:
        self._listeners.pop(listener, None)


class Way(Protocol):
    """The way to a program's input."""

    async def feed(self, data: bytes, over: asyncio.Future[Any]) -> None:
        """Writes it as fast as it is read; until `over` at most."""

    def end_input(self) -> None:
        """An end of file."""

    def resize(self, columns: int, rows: int) -> None: ...


class Attached:
    """See base.Session. Input goes nowhere: the main process has none."""

    def __init__(self, fan: Fan, wish: Wish, end: asyncio.Future[ExitStatus]) -> None:
        wanted: tuple[tuple[Stream, bool], ...] = (("stdout", wish.stdout), ("stderr", wish.stderr))
        self._said: dict[Stream, asyncio.Queue[bytes]] = {
            stream: asyncio.Queue(BEHIND_MAX) for stream, on in wanted if on
        }
        self._fan, self._end = fan, end
        fan.add(self)

    def hear(self, stream: Stream, data: bytes) -> None:
        queue = self._said.get(stream)
        if queue is not None and not queue.full():
            queue.put_nowait(data)

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return tuple(self._said)

    async def read(self, stream: Stream) -> bytes:
        queue = self._said[stream]
        if queue.empty() and self._end.done():
            return b""
        if (said := await got(queue, self._end)) is not None:
            return said
        return b"" if queue.empty() else queue.get_nowait()

    async def write(self, data: bytes) -> None:
        del data

    def end_input(self) -> None:
        pass

    def resize(self, columns: int, rows: int) -> None:
        del columns, rows

    async def wait(self) -> int:
        return (await asyncio.shield(self._end)).code

    async def close(self) -> None:
        self._fan.remove(self)


class AttachedInput(Attached):
    """With a way to the input. `once`: it ends with the first that is attached to it."""

    def __init__(
        self, fan: Fan, wish: Wish, end: asyncio.Future[ExitStatus], way: Way, *, tty: bool, once: bool
    ) -> None:
        super().__init__(fan, wish, end)
        self._way, self._tty, self._once, self._types = way, tty, once, wish.stdin

    async def write(self, data: bytes) -> None:
        if self._types:
            await self._way.feed(data, self._end)

    def end_input(self) -> None:
        if self._types and (self._tty or self._once):
            self._way.end_input()

    def resize(self, columns: int, rows: int) -> None:
        if self._tty:
            self._way.resize(columns, rows)

    async def close(self) -> None:
        await super().close()
        if self._types and self._once and not self._tty:
            self._way.end_input()
