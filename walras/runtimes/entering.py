"""Another program in a container that runs, with somebody at the other end of its streams."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from walras.runtimes import procfs
from walras.runtimes.base import StartError, Stream, Wish
from walras.runtimes.sandbox import FAILED, STARTED
from walras.runtimes.spawn import Handle, Spawner, exit_code, read_to_line, resolve

CHUNK: Final = 32_768
# Beyond the program's end its output is waited for only so long: what it left behind may hold the pipe.
_LINGER_S: Final = 0.5
_KILL_ROUNDS: Final = 100
_Add = Callable[[int, Callable[[asyncio.Future[None]], None], asyncio.Future[None]], object]
_Remove = Callable[[int], object]


class Files:
    """The ends of a program's streams: the child's, and ours."""

    def __init__(self, wish: Wish) -> None:
        self.theirs: list[int] = []
        self.output: dict[Stream, int] = {}
        self.input = self.terminal = -1
        self._feeding = asyncio.Lock()
        try:
            if wish.tty:
                self._terminal()
            else:
                self._pipes(wish)
            for fd in (*self.output.values(), *((self.input,) if self.input >= 0 else ())):
                os.set_blocking(fd, False)
        except OSError:
            self.close()
            raise

    def _terminal(self) -> None:
        ours, theirs = pty.openpty()
        self.terminal = ours
        self.theirs.append(theirs)
        for _ in range(2):
            self.theirs.append(os.dup(theirs))
        self.output["stdout"] = os.dup(ours)
        self.input = os.dup(ours)

    def _pipes(self, wish: Wish) -> None:
        if wish.stdin:
            theirs, self.input = os.pipe2(os.O_CLOEXEC)
        else:
            theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.theirs.append(theirs)
        for stream, wanted in (("stdout", wish.stdout), ("stderr", wish.stderr)):
            if wanted:
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                self.output[stream] = ours  # type: ignore[index]
            else:
                theirs = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            self.theirs.append(theirs)

    async def feed(self, data: bytes, over: asyncio.Future[Any]) -> None:
        """Writes it to the program's input, as fast as that is read; until `over` at most."""
        loop, view = asyncio.get_running_loop(), memoryview(data)
        async with self._feeding:
            while view and (fd := self.input) >= 0:
                try:
                    view = view[os.write(fd, view) :]
                except BlockingIOError:
                    if not await _ready(fd, loop.add_writer, loop.remove_writer, over, 0):
                        break
                except OSError:
                    break

    def end_input(self) -> None:
        """To a terminal's reader an end of file is a character."""
        if self.terminal >= 0:
            with suppress(OSError):
                os.write(self.terminal, b"\x04")
        elif self.input >= 0:
            os.close(self.input)
            self.input = -1

    def resize(self, columns: int, rows: int) -> None:
        if self.terminal >= 0:
            size = struct.pack("HHHH", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
            with suppress(OSError):
                fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    def give(self, uid: int) -> None:
        """Lets a program of that user open its streams anew by their names, such as /dev/stdout."""
        for fd in self.theirs:
            if not os.path.samestat(os.fstat(fd), os.stat(os.devnull)):
                os.fchown(fd, uid, uid)

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def close(self) -> None:
        self.close_theirs()
        for fd in (*self.output.values(), self.input, self.terminal):
            if fd >= 0:
                os.close(fd)
        self.output, self.input, self.terminal = {}, -1, -1


def opened(wish: Wish) -> tuple[Files, int, int]:
    """Streams for a program, and both ends of a pipe on which its start is told of. Raises OSError."""
    files = Files(wish)
    try:
        return files, *os.pipe2(os.O_CLOEXEC)
    except OSError:
        files.close()
        raise


async def _ready(fd: int, add: _Add, remove: _Remove, over: asyncio.Future[Any], linger_s: float) -> bool:
    """Waits for the descriptor; not much longer than the program runs. Raises OSError."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    # One of its own: whoever closes the other meanwhile frees its number for a stranger's file.
    own = os.dup(fd)
    add(own, resolve, ready)
    try:
        await asyncio.wait((ready, over), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await asyncio.wait((ready,), timeout=linger_s)
        return ready.done()
    finally:
        remove(own)
        os.close(own)


class Entered:
    """See base.Session. `cpu_ns` and `pids` are for whoever counts what the container uses."""

    def __init__(self, pid: int, files: Files, ended: Callable[[Entered], None]) -> None:
        self._leader = Handle(pid)
        self._files = files
        self._cpu_ns = 0
        self._ended = ended
        self._over = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> int:
        await self._leader.ended()
        self.cpu_ns()
        code = exit_code(self._leader.pid)
        self._ended(self)
        return 128 - code if code < 0 else code

    @property
    def over(self) -> bool:
        return self._over.done()

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return tuple(self._files.output)

    async def read(self, stream: Stream) -> bytes:
        loop = asyncio.get_running_loop()
        while (fd := self._files.output.get(stream, -1)) >= 0:
            try:
                return os.read(fd, CHUNK)
            except BlockingIOError:
                if not await _ready(fd, loop.add_reader, loop.remove_reader, self._over, _LINGER_S):
                    break
            except OSError:
                # So ends a terminal whose programs have gone.
                break
        return b""

    async def write(self, data: bytes) -> None:
        await self._files.feed(data, self._over)

    def end_input(self) -> None:
        self._files.end_input()

    def resize(self, columns: int, rows: int) -> None:
        self._files.resize(columns, rows)

    async def wait(self) -> int:
        return await asyncio.shield(self._over)

    async def end(self) -> None:
        """Kills the program; what it said is still there to be read."""
        for _ in range(_KILL_ROUNDS):
            if self._over.done():
                break
            for pid in (*procfs.descendants(self._leader.pid), self._leader.pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.wait((self._over,), timeout=0.01)

    async def close(self) -> None:
        try:
            await self.end()
        finally:
            self._files.close()

    def pids(self) -> list[int]:
        if self._over.done():
            return []
        return [self._leader.pid, *procfs.descendants(self._leader.pid)]

    def cpu_ns(self) -> int:
        """CPU time so far; a moment old once it has ended."""
        self._cpu_ns = max(self._cpu_ns, sum(procfs.cpu_ns(pid) for pid in self.pids()))
        return self._cpu_ns


async def enter(
    spawner: Spawner,
    argv: Sequence[str],
    env: Mapping[str, str],
    wish: Wish,
    ended: Callable[[Entered], None],
    network: int | None = None,
    more: Sequence[int] = (),
) -> Entered:
    """Starts the command line of `Sandbox.entering`; returns when its program runs.

    `ended` is called when it has ended. `network`: the descriptor of the namespace to start it in.
    `more`: descriptors for it beyond `TELL_FD`. Raises StartError.
    """
    try:
        files, progress, tell = opened(wish)
    except OSError as error:
        raise StartError(f"no streams for it: {error}") from error
    try:
        pid = await spawner.spawn(argv, env, (*files.theirs, tell, *more), network)
    except BaseException as error:
        os.close(progress)
        files.close()
        if isinstance(error, OSError):
            raise StartError(f"the container cannot be entered: {error}") from error
        raise
    finally:
        os.close(tell)
    files.close_theirs()
    session = Entered(pid, files, ended)
    try:
        try:
            said = (await read_to_line(progress)).decode(errors="replace")
        finally:
            os.close(progress)
        if said == STARTED:
            return session
        raise StartError(said.removeprefix(FAILED) if said.startswith(FAILED) else await _complaint(session))
    except BaseException:
        await session.close()
        raise


async def _complaint(session: Entered) -> str:
    """What the way in said before it ended."""
    streams: tuple[Stream, ...] = ("stderr", "stdout")
    for stream in streams:
        if stream in session.outputs and (said := await session.read(stream)):
            return " ".join(said.decode(errors="replace").split())
    return f"the way into the container ended with exit code {await session.wait()}"
