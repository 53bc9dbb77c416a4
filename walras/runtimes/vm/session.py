"""Sessions with programs of a guest: one that was started for it, or a container's own main program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from walras.runtimes.attaching import Attached, Fan
from walras.runtimes.base import Stream, Wish
from walras.runtimes.vm.channel import Remote
from walras.runtimes.vm.guest import wire

# Beyond the program's end its output is waited for only so long: what it left behind may hold the pipe.
_LINGER_S: Final = 0.5


class Streams:
    """What a remote says, kept until it is read; no more than its window."""

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._said: dict[Stream, asyncio.Queue[bytes]] = {each: asyncio.Queue() for each in streams}
        self._shut: set[Stream] = set()
        self._over: set[Stream] = set()

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return tuple(self._said)

    def hear(self, stream: Stream, data: bytes) -> None:
        if stream in self._said:
            self._said[stream].put_nowait(data)

    def shut(self, stream: Stream) -> None:
        if stream in self._said and stream not in self._shut:
            self._shut.add(stream)
            self._said[stream].put_nowait(b"")

    async def read(self, stream: Stream, remote: Remote) -> bytes:
        """What is said next; empty at the end, and soon after the remote's."""
        queue = self._said[stream]
        if stream in self._over:
            return b""
        getting = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait((getting, remote.ended), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                await asyncio.wait((getting,), timeout=_LINGER_S)
            data = getting.result() if getting.done() else b""
        finally:
            getting.cancel()
        if data:
            remote.taken(stream, len(data))
        else:
            self._over.add(stream)
        return data


class Entered:
    """See base.Session: a program that entered a container."""

    def __init__(self, streams: Streams, remote: Remote, wish: Wish, gone: Callable[[Entered], None]) -> None:
        self._streams, self._remote, self._wish, self._gone = streams, remote, wish, gone

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return self._streams.outputs

    async def read(self, stream: Stream) -> bytes:
        return await self._streams.read(stream, self._remote)

    async def write(self, data: bytes) -> None:
        if self._wish.stdin or self._wish.tty:
            await self._remote.write(data)

    def end_input(self) -> None:
        self._remote.end_input()

    def resize(self, columns: int, rows: int) -> None:
        resize(self._remote, columns, rows)

    async def wait(self) -> int:
        return (await asyncio.shield(self._remote.ended)).code

    async def close(self) -> None:
        self._remote.send(wire.CLOSE)
        self._remote.forget()
        self._gone(self)


class Joined(Attached):
    """A container's main program, with its input and terminal where it has them."""

    def __init__(
        self, fan: Fan, wish: Wish, end: asyncio.Future[Any], remote: Remote, once: bool, has_input: bool
    ) -> None:
        super().__init__(fan, wish, end)
        self._remote, self._once = remote, once
        self._writes = wish.stdin and has_input

    async def write(self, data: bytes) -> None:
        if self._writes:
            await self._remote.write(data)

    def end_input(self) -> None:
        if self._writes and self._once:
            self._remote.end_input()

    def resize(self, columns: int, rows: int) -> None:
        resize(self._remote, columns, rows)


def resize(remote: Remote, columns: int, rows: int) -> None:
    remote.send(wire.RESIZE, wire.SIZE_PAYLOAD.pack(min(columns, 0xFFFF), min(rows, 0xFFFF)))
