"""Somebody at the streams of a container's program: of another one in it, or of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from walras.runtimes import procfs
from walras.runtimes.base import KILLED, StartError, Stream, Wish
from walras.runtimes.engine.client import Engine, EngineError, Streams
from walras.runtimes.engine.streams import BEHIND_MAX, Queues, frames

_ASK_AGAIN_S: Final = 0.02
_UNKNOWN_CODE: Final = 255
# What the engine says of a program that is not there, or is none, or that it could not start.
_NOT_STARTED: Final = (125, 126, 127)
_LINGER_S: Final = 2.0
# How Podman and Docker begin to say so.
_COMPLAINTS: Final = ("Error: ", "OCI runtime exec failed: ")


class Entered:
    """See base.Session: a program that the engine started in a container."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        streams: Streams,
        wish: Wish,
        ended: Callable[[Entered], None],
        gone: asyncio.Future[None],
    ) -> None:
        self._engine, self._name, self._wish, self._gone = engine, name, wish, gone
        self._reader, self._writer = streams
        outputs: tuple[tuple[Stream, bool], ...] = (
            ("stdout", wish.stdout or wish.tty),
            ("stderr", wish.stderr and not wish.tty),
        )
        self._queues = Queues(tuple(stream for stream, on in outputs if on))
        self._ended = ended
        loop = asyncio.get_running_loop()
        self._said = loop.create_task(frames(self._reader, wish.tty, self._queues.put))
        self._over = loop.create_task(self._watch())
        self._resizing: set[asyncio.Task[None]] = set()

    async def _watch(self) -> int:
        try:
            while (code := await self._code()) is None:
                await asyncio.wait((self._said,), timeout=_ASK_AGAIN_S if self._said.done() else 1.0)
                if self._said.done():
                    await asyncio.sleep(_ASK_AGAIN_S)
            return code if code >= 0 else await self._unknown()
        except EngineError:
            return await self._unknown()
        finally:
            self._ended(self)

    async def _unknown(self) -> int:
        """The engine forgets a program with its container, whose end is the program's."""
        await asyncio.wait((self._gone,), timeout=_LINGER_S)
        return KILLED if self._gone.done() else _UNKNOWN_CODE

    async def _code(self) -> int | None:
        found = await self._engine.call("GET", f"/exec/{self._name}/json")
        return None if _is_on_its_way(found) else int(found.get("ExitCode") or 0)

    @property
    def over(self) -> bool:
        return self._over.done()

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return self._queues.names

    async def hear(self, stream: Stream, data: bytes) -> None:
        """What it said before anybody listened."""
        await self._queues.put(stream, data)

    async def read(self, stream: Stream) -> bytes:
        return await self._queues.get(stream, self._said)

    async def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    def end_input(self) -> None:
        with suppress(OSError, RuntimeError):
            if self._wish.tty:
                # To a terminal's reader an end of file is a character.
                self._writer.write(b"\x04")
            else:
                self._writer.write_eof()

    def resize(self, columns: int, rows: int) -> None:
        async def tell() -> None:
            size = {"w": min(columns, 0xFFFF), "h": min(rows, 0xFFFF)}
            with suppress(EngineError):
                await self._engine.call("POST", f"/exec/{self._name}/resize", params=size)

        if self._wish.tty:
            task = asyncio.get_running_loop().create_task(tell())
            self._resizing.add(task)
            task.add_done_callback(self._resizing.discard)

    async def wait(self) -> int:
        return await asyncio.shield(self._over)

    async def _kill(self) -> None:
        with suppress(EngineError):
            found = await self._engine.call("GET", f"/exec/{self._name}/json")
            if (pid := int(found.get("Pid") or 0)) > 0 and found.get("Running"):
                for each in (*procfs.descendants(pid), pid):
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)

    async def end(self) -> None:
        """Kills the program; what it said is still there to be read."""
        if not self._over.done():
            await self._kill()
        # Whoever does not read must not hold up the end for long.
        await asyncio.wait((self._said, self._over), timeout=_LINGER_S)

    async def close(self) -> None:
        try:
            if not self._over.done():
                await self._kill()
                # Whoever reads no more must not hold up the end.
                self._said.cancel()
                await asyncio.wait((self._over,), timeout=5.0)
        finally:
            self._said.cancel()
            self._writer.close()


async def enter(
    engine: Engine,
    container: str,
    argv: tuple[str, ...],
    wish: Wish,
    ended: Callable[[Entered], None],
    gone: asyncio.Future[None],
) -> Entered:
    """Starts a program in a container; `ended` is called when it has ended. Raises StartError.

    `gone` is done when the container has ended.
    """
    body = {
        "Cmd": list(argv),
        "Tty": wish.tty,
        "AttachStdin": wish.stdin,
        "AttachStdout": wish.stdout or wish.tty,
        "AttachStderr": wish.stderr and not wish.tty,
        "Env": ["TERM=xterm"] if wish.tty else [],
    }
    early: list[tuple[Stream, bytes]] = []
    streams: Streams | None = None
    try:
        made = await engine.call("POST", f"/containers/{container}/exec", body=body)
        name = str(made["Id"])
        streams = await engine.hijack(f"/exec/{name}/start", body={"Detach": False, "Tty": wish.tty})
        state = await _begun(engine, name)
        if not state.get("Running") and state.get("ExitCode") in _NOT_STARTED:
            early = await _complaint(streams, wish.tty)
    except BaseException as error:
        if streams is not None:
            streams[1].close()
        if isinstance(error, EngineError):
            raise StartError(spoken(error.message)) from error
        raise
    session = Entered(engine, name, streams, wish, ended, gone)
    for stream, data in early:
        await session.hear(stream, data)
    return session


def _is_on_its_way(state: Mapping[str, Any]) -> bool:
    """Docker shows a program that does not run yet by an exit code that is null."""
    return bool(state.get("Running")) or state.get("ExitCode", 0) is None


async def _begun(engine: Engine, name: str) -> dict[str, Any]:
    """The program's state once it runs or has ended, or what there is after a while."""
    deadline_s = asyncio.get_running_loop().time() + _LINGER_S
    while True:
        state = dict(await engine.call("GET", f"/exec/{name}/json"))
        # Docker says so before there is a process.
        runs = state.get("Running") and state.get("Pid")
        if runs or not _is_on_its_way(state) or asyncio.get_running_loop().time() > deadline_s:
            return state
        await asyncio.sleep(_ASK_AGAIN_S)


async def _complaint(streams: Streams, tty: bool) -> list[tuple[Stream, bytes]]:
    """All that a program said that ended at once. Raises StartError when it was Podman or its runtime."""
    said: list[tuple[Stream, bytes]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            await frames(streams[0], tty, lambda stream, data: said.append((stream, data)))
    text = b"".join(data for _, data in said).decode(errors="replace")
    if text.startswith(_COMPLAINTS) and ("exec failed: " in text or "conmon" in text):
        raise StartError(spoken(text.partition("\n")[0]))
    return said[:BEHIND_MAX]


class Typing:
    """See attaching.Way: the input that the engine carries."""

    def __init__(
        self, writer: Callable[[], asyncio.StreamWriter], resize: Callable[[int, int], None], *, tty: bool
    ) -> None:
        """`writer`: of the connection that there is now."""
        self._writer, self._tty, self.resize = writer, tty, resize

    async def feed(self, data: bytes, over: asyncio.Future[Any]) -> None:
        del over
        writer = self._writer()
        with suppress(OSError):
            writer.write(data)
            await writer.drain()

    def end_input(self) -> None:
        with suppress(OSError, RuntimeError):
            if self._tty:
                self._writer().write(b"\x04")
            else:
                self._writer().write_eof()


def spoken(message: str) -> str:
    """What an OCI runtime says of a program, without those through whom it was said."""
    for before in ("unable to start container process: ", "OCI runtime exec failed: ", "create failed: "):
        _, found, rest = message.rpartition(before)
        if found:
            message = rest
            break
    return message.partition(": OCI ")[0].strip().removesuffix(": unknown")
