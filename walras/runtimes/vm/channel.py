"""The server's end of the port into a guest. A guest is hostile: what it says is bounded in size and pace."""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from struct import error as StructError  # noqa: N812
from typing import Any, Final

from walras.runtimes.base import ExitStatus, StartError, Stream
from walras.runtimes.vm.guest import wire

_FRAME_BREATH_S: Final = 50e-6
_BYTES_PER_SECOND_MAX: Final = 16 << 20
# What waits for a guest that does not read. Windows hold back one that does, long before.
UNREAD_BYTES_MAX: Final = 16 << 20
_CHANNELS: Final[dict[int, Stream]] = {wire.STDOUT: "stdout", wire.STDERR: "stderr"}
LOST: Final = ExitStatus(137)

# Takes what a channel says; answers at once, or later with `Remote.taken`.
Hear = Callable[[Stream, bytes], None]


class Remote:
    """A stream: a program or a connection inside the guest."""

    def __init__(self, channel: Channel, number: int, hear: Hear, shut: Callable[[Stream], None]) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[ExitStatus] = loop.create_future()
        self._channel, self._hear, self._shut = channel, hear, shut
        self._unread = dict.fromkeys(_CHANNELS.values(), 0)
        self._credit = wire.WINDOW
        self._room = asyncio.Event()
        self._room.set()

    def send(self, kind: int, payload: bytes = b"") -> None:
        self._channel.send(kind, self.number, payload)

    def taken(self, stream: Stream, size: int) -> None:
        """The reader has `size` bytes of the stream behind it: the guest may send as many more."""
        self._unread[stream] -= size
        number = wire.STDOUT if stream == "stdout" else wire.STDERR
        self.send(wire.TAKEN, wire.TAKEN_PAYLOAD.pack(number, size))

    async def write(self, data: bytes) -> None:
        """Returns when the guest has room for more; nothing once it has ended."""
        view = memoryview(data)
        while view and not self.ended.done():
            while self._credit <= 0 and not self.ended.done():
                self._room.clear()
                await self._room.wait()
            piece = view[: min(wire.CHUNK, max(1, self._credit))]
            self._credit -= len(piece)
            self.send(wire.DATA, bytes((wire.STDIN,)) + piece)
            view = view[len(piece) :]
            await self._channel.drain()

    def end_input(self) -> None:
        self.send(wire.END, bytes((wire.STDIN,)))

    def forget(self) -> None:
        """Nobody listens any more."""
        self._channel.forget(self.number)
        self.lose(LOST)

    # What the guest says

    def heard(self, kind: int, payload: bytes) -> None:
        """Raises ValueError for what it may not say."""
        if kind == wire.STARTED:
            if not self.started.done():
                self.started.set_result(None)
        elif kind == wire.FAILED:
            self.lose(LOST, payload.decode(errors="replace")[:4096])
        elif kind == wire.EXIT:
            code, oom = wire.EXIT_PAYLOAD.unpack(payload)
            self._end(ExitStatus(code, bool(oom)))
        elif kind == wire.TAKEN:
            _, size = wire.TAKEN_PAYLOAD.unpack(payload)
            self._credit = min(wire.WINDOW, self._credit + size)
            self._room.set()
        elif kind in {wire.DATA, wire.END}:
            stream = _CHANNELS[payload[0]]
            if kind == wire.END:
                self._shut(stream)
                return
            if len(payload) == 1:
                raise ValueError("data of no bytes")
            self._unread[stream] += len(payload) - 1
            if self._unread[stream] > wire.WINDOW:
                raise ValueError("more than its window")
            self._hear(stream, payload[1:])
        else:
            raise ValueError(f"kind {kind}")

    def _end(self, status: ExitStatus) -> None:
        if not self.ended.done():
            self.ended.set_result(status)
        self._room.set()

    def lose(self, status: ExitStatus, why: str = "the machine ended") -> None:
        if not self.started.done():
            self.started.set_exception(StartError(why))
            self.started.exception()
        self._end(status)
        for stream in _CHANNELS.values():
            self._shut(stream)


class Channel:
    """All streams of one guest. `run` reads until the guest is gone or says what it may not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._remotes: dict[int, Remote] = {}
        self._numbers = count(1)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, kind: int, words: Any, hear: Hear, shut: Callable[[Stream], None]) -> Remote:
        """Starts a program or connects. Raises StartError with the guest's words."""
        if self._writer.is_closing():
            raise StartError("the machine ended")
        remote = Remote(self, next(self._numbers), hear, shut)
        self._remotes[remote.number] = remote
        remote.send(kind, marshal.dumps(words))
        try:
            await self.drain()
            await asyncio.shield(remote.started)
        except BaseException:
            remote.send(wire.CLOSE if kind == wire.DIAL or "in" in words else wire.KILL)
            remote.forget()
            raise
        return remote

    def send(self, kind: int, stream: int, payload: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(wire.frame(kind, stream, payload))
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._writer.transport.abort()

    async def drain(self) -> None:
        with suppress(OSError):
            await self._writer.drain()

    def forget(self, number: int) -> None:
        self._remotes.pop(number, None)

    async def run(self) -> str:
        """Why it ended: "" when the guest is gone."""
        frames = wire.Frames()
        try:
            while data := await self._reader.read(4 * wire.CHUNK):
                found = frames.feed(data)
                for kind, stream, payload in found:
                    self._heard(kind, stream, payload)
                await asyncio.sleep(max(len(found) * _FRAME_BREATH_S, len(data) / _BYTES_PER_SECOND_MAX))
        except (ValueError, KeyError, IndexError, StructError) as error:
            return f"the guest breaks the protocol: {error}"
        except OSError:
            pass
        return ""

    def _heard(self, kind: int, stream: int, payload: bytes) -> None:
        remote = self._remotes.get(stream)
        if kind == wire.HELLO:
            if not self.ready.done():
                self.ready.set_result(None)
        elif remote is not None:
            # The rest was on its way when its stream was closed.
            remote.heard(kind, payload)

    def close(self, status: ExitStatus) -> None:
        for remote in list(self._remotes.values()):
            remote.lose(status)
        self._remotes.clear()
        self._writer.close()
