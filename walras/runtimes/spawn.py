"""Starting programs and hearing of their end, without polling and without forking the server's threads."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from walras.runtimes.base import Output, Stream

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x1 | 0x40 | 0x8
_HIGH_FD: Final = 10
# What Python ignores, and what a shell or nohup has a server in the background ignore. No program expects
# that, and a shell cannot trap what was ignored when it began.
_IGNORED: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_CHUNK: Final = 65_536
# A program that writes faster than this is held up by its own pipe, not by the server.
_BYTES_PER_SECOND_MAX: Final = 8 << 20
_BREATH_S: Final = _CHUNK / _BYTES_PER_SECOND_MAX


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _copies(files: Sequence[int]) -> list[int]:
    """Beyond every number that a child shall have, so that none overwrites another."""
    made: list[int] = []
    try:
        for fd in files:
            made.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD))
    except OSError:
        _close(made)
        raise
    return made


def _close(files: Sequence[int]) -> None:
    for fd in files:
        os.close(fd)


class Spawner:
    """Starts children from one thread that lives as long as they do.

    The kernel's parent-death signal goes by the thread that forked, and the network namespace by the thread
    too, so this thread can enter a pod's network for as long as one fork or one socket takes.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="spawner")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = -1
        # What whoever started the server left open; all that the server opens itself closes with an exec.
        self._foreign = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and _is_inheritable(fd)]

    async def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        files: Sequence[int],
        network: int | None = None,
    ) -> int:
        """Starts `argv` in a session of its own, with `files` as descriptors 0, 1, 2, ...: its process id.

        Whoever starts it waits for it, as `exit_code` does. Raises OSError.
        """

        def fork(given: Sequence[int]) -> int:
            actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in self._foreign]
            actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(given)]
            return os.posix_spawn(
                argv[0], list(argv), env, file_actions=actions, setsid=True, setsigdef=_IGNORED
            )

        return await self._within(network, fork, files, unwanted=take_away)

    async def make_network(self) -> int:
        """A descriptor of a fresh network namespace with its loopback up. Raises OSError."""

        def make() -> int:
            self._remember_home()
            _check(self._libc.unshare(_CLONE_NEWNET))
            try:
                with socket.socket() as control:
                    request = struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING)
                    fcntl.ioctl(control, _SIOCSIFFLAGS, request)
                return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                _check(self._libc.setns(self._home, _CLONE_NEWNET))

        return await self._done(self._pool.submit(make), os.close)

    async def socket_in(self, network: int, family: socket.AddressFamily) -> socket.socket:
        """A TCP socket that belongs to the namespace for good. Raises OSError."""
        return await self._within(
            network, lambda _: socket.socket(family, socket.SOCK_STREAM), unwanted=socket.socket.close
        )

    async def _within(
        self,
        network: int | None,
        do: Callable[[Sequence[int]], T],
        files: Sequence[int] = (),
        *,
        unwanted: Callable[[T], None],
    ) -> T:
        # Copies stay what they are, though whoever gave the descriptors may close them before it is this
        # thread's turn: their numbers could be another agent's by then.
        held = _copies(files if network is None else (*files, network))

        def enter() -> T:
            if network is None:
                return do(held)
            self._remember_home()
            _check(self._libc.setns(held[-1], _CLONE_NEWNET))
            try:
                return do(held[:-1])
            finally:
                _check(self._libc.setns(self._home, _CLONE_NEWNET))

        future = self._pool.submit(enter)
        future.add_done_callback(lambda _: _close(held))
        return await self._done(future, unwanted)

    @staticmethod
    async def _done(future: Future[T], unwanted: Callable[[T], None]) -> T:
        """What comes of it; given to `unwanted` when nobody waits for it any more."""
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else unwanted(done.result())
            )
            raise

    def _remember_home(self) -> None:
        if self._home < 0:
            self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        if self._home >= 0:
            os.close(self._home)
            self._home = -1


class Handle:
    """A process that is waited for by pidfd, so that signals never hit a stranger who got its number."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._ended: asyncio.Future[None] | None = None

    def signal(self, signum: int) -> None:
        if self._fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signum)

    @property
    def has_ended(self) -> bool:
        """Whether the process has, though nobody may have been told of it yet."""
        if self._fd < 0:
            return True
        told = select.poll()
        told.register(self._fd, select.POLLIN)
        return bool(told.poll(0))

    async def ended(self) -> None:
        """Returns when the process has ended, whosever child it is. The handle is closed then."""
        if self._fd < 0:
            return
        loop = asyncio.get_running_loop()
        if self._ended is None:
            self._ended = loop.create_future()
            loop.add_reader(self._fd, resolve, self._ended)
            self._ended.add_done_callback(lambda _: self.close())
        await asyncio.shield(self._ended)

    def close(self) -> None:
        if self._fd >= 0:
            with suppress(RuntimeError):  # outside a loop there is no reader
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def take_away(pid: int) -> None:
    """A child that nobody asks for any more."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def exit_code(pid: int) -> int:
    """Of a child that has ended, negative for a signal; asked for once."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, os.WNOHANG)[1])


def resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def open_handle(pid: int) -> Handle | None:
    """None when the process is gone already."""
    try:
        return Handle(pid)
    except OSError as error:
        if error.errno in {errno.ESRCH, errno.EINVAL}:
            return None
        raise


class Pump:
    """Carries what comes out of a pipe to an Output, at a bounded pace."""

    def __init__(self, fd: int, stream: Stream, output: Output) -> None:
        os.set_blocking(fd, False)
        self._fd, self._stream, self._output = fd, stream, output
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        size = self._once()
        if size == _CHUNK and self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._resume = self._loop.call_later(_BREATH_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def _once(self) -> int:
        """Bytes carried; closes at the end of the stream."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return -1
        except OSError:
            data = b""
        if data:
            self._output(self._stream, data)
        else:
            self._shut()
        return len(data)

    def finish(self) -> None:
        """Carries what is there and closes, though somebody may hold the other end."""
        left = 64
        while self._fd >= 0 and left and self._once() > 0:
            left -= 1
        self._shut()

    def _shut(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


async def read_to_line(fd: int) -> bytes:
    """The first line that comes out of the pipe, without its end; what there is when it closes before."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    text = b""
    while b"\n" not in text and len(text) < _CHUNK:
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(fd, resolve, ready)
        try:
            await ready
        finally:
            loop.remove_reader(fd)
        data = os.read(fd, _CHUNK)
        if not data:
            break
        text += data
    return text.partition(b"\n")[0]
