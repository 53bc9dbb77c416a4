"""Ways into network namespaces: a thread of root's, or a helper in a user namespace for everybody else."""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

from walras.runtimes.network.acts import Acts

_LENGTH: Final = struct.Struct("=I")
_DESCRIPTOR: Final = struct.Struct("=i")
_DESCRIPTORS_MAX: Final = 4
_FIRST_S: Final = 10.0


class Entrance(Protocol):
    """Has acts done. One at a time, in order.

    The namespaces are those of the descriptors at the time of the call, whatever becomes of them afterwards.
    """

    async def do(self, act: str, namespaces: Sequence[int], *arguments: Any) -> int:
        """What the act of `acts.Acts` returns, -1 for nothing. Raises OSError."""

    def way_in(self, namespace: int) -> list[str]:
        """What a command line begins with whose program starts there; empty where its starter enters it."""

    def close(self) -> None:
        """Namespaces end with their descriptors and processes."""


class Thread:
    """A thread that enters namespaces, for a server with the right to."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="networks")
        self._acts: Acts | None = None

    async def do(self, act: str, namespaces: Sequence[int], *arguments: Any) -> int:
        held = [os.dup(each) for each in namespaces]

        def work() -> int:
            if self._acts is None:
                self._acts = Acts()
            found = getattr(self._acts, act)(*held, *arguments)
            return -1 if found is None else int(found)

        return await _done(self._pool, work, held)

    def way_in(self, namespace: int) -> list[str]:
        del namespace
        return []

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        if self._acts is not None:
            self._acts.close()


_HELPER: Final = (
    "import sys; sys.path[:] = {path!r}; from walras.runtimes.network import helper; helper.main()"
)


class Helper:
    """A process in a user namespace of its own, in which it may make networks, and nothing outside of it."""

    def __init__(self) -> None:
        """Raises OSError where user namespaces are not to be had."""
        self._nsenter = shutil.which("nsenter") or ""
        if not self._nsenter:
            raise OSError("nsenter of util-linux is not installed")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="networks")
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(_FIRST_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _HELPER.format(path=sys.path)],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        try:
            self._user = answered(*receive(self._ours))
            # An answer that nobody waited for would be taken for the next one's: another agent's namespace.
            self._ours.settimeout(None)
        except OSError:
            self.close()
            raise

    async def do(self, act: str, namespaces: Sequence[int], *arguments: Any) -> int:
        held = [os.dup(each) for each in namespaces]

        def work() -> int:
            send(self._ours, (act, arguments), held)
            return answered(*receive(self._ours))

        return await _done(self._pool, work, held)

    def way_in(self, namespace: int) -> list[str]:
        own = f"/proc/{os.getpid()}/fd"
        return [
            self._nsenter, f"--user={own}/{self._user}", f"--net={own}/{namespace}",
            "--preserve-credentials", "--",
        ]  # fmt: skip

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._ours.close()
        # It ends with the other end of its socket.
        self._process.wait()
        if (user := getattr(self, "_user", -1)) >= 0:
            os.close(user)


async def _done(pool: ThreadPoolExecutor, work: Callable[[], int], held: Sequence[int]) -> int:
    """The descriptor that comes of the work; closed where nobody waits for it any more, as `held` are."""
    future = pool.submit(work)
    future.add_done_callback(lambda _: _close(held))
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        future.add_done_callback(_unwanted)
        raise


def _unwanted(future: Future[int]) -> None:
    if not future.cancelled() and future.exception() is None and future.result() >= 0:
        os.close(future.result())


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def send(to: socket.socket, what: Any, descriptors: Sequence[int]) -> None:
    """Literals, and descriptors with them. Raises OSError."""
    data = repr(what).encode()
    socket.send_fds(to, [_LENGTH.pack(len(data))], list(descriptors))
    to.sendall(data)


def take(from_: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Data and descriptors that no program inherits. Raises OSError.

    Those of `socket.recv_fds` are inherited by what another thread starts before they can be told not to be.
    """
    room = socket.CMSG_SPACE(_DESCRIPTORS_MAX * _DESCRIPTOR.size)
    data, brought, _, _ = from_.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    return data, [
        number
        for level, kind, packed in brought
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _DESCRIPTOR.iter_unpack(packed)
    ]


def receive(from_: socket.socket) -> tuple[Any, list[int]]:
    """What was sent. Raises OSError when the other end is gone."""
    head, descriptors = take(from_, _LENGTH.size)
    if len(head) < _LENGTH.size:
        raise OSError("the helper for networks has ended")
    (left,) = _LENGTH.unpack(head)
    data = bytearray()
    while len(data) < left:
        piece = from_.recv(left - len(data))
        if not piece:
            raise OSError("the helper for networks has ended")
        data += piece
    return ast.literal_eval(data.decode()), descriptors


def answered(said: Any, descriptors: list[int]) -> int:
    """The descriptor that an answer brings, -1 for none. Raises OSError."""
    number, why = said
    if number:
        raise OSError(number, why)
    return descriptors[0] if descriptors else -1
