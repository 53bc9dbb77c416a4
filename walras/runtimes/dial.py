"""Connections into a pod's network, which has no way in but for who made it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from walras.core.errors import ServiceUnavailable
from walras.runtimes import procfs
from walras.runtimes.network.entrance import take
from walras.runtimes.sandbox import Mode

_CONNECT_S: Final = 10.0
# Runs inside the pod's namespaces and hands the connected socket out.
_HELPER: Final = """
import socket, sys
out = socket.socket(fileno=0)
try:
    made = socket.create_connection(("localhost", int(sys.argv[1])), 10)
    socket.send_fds(out, [b"+"], [made.fileno()])
except OSError as error:
    out.send(b"-" + str(error).encode())
"""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# A TCP socket in the pod's network. Raises OSError.
OpenSocket = Callable[[socket.AddressFamily], Awaitable[socket.socket]]


async def connect(
    mode: Mode, name: str, open_socket: OpenSocket | None, pids: Sequence[int], port: int
) -> Streams:
    """A connection to `port` on the loopback of the pod called `name`. Raises ServiceUnavailable.

    `open_socket`: where the pod's network can be entered so. `pids`: a process of each of its containers.
    """
    try:
        async with asyncio.timeout(_CONNECT_S):
            if open_socket is not None:
                return await _through_namespace(open_socket, port)
            if mode == "user":
                return await _through_helper(pids, port)
            return await _through_host(pids, port)
    except (OSError, TimeoutError) as error:
        why = str(error) or "no answer"
        raise ServiceUnavailable(f'pod "{name}" does not answer on port {port}: {why}') from error


async def _through_namespace(open_socket: OpenSocket, port: int) -> Streams:
    failure: OSError | None = None
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            made = await open_socket(family)
        except OSError as error:
            failure = failure or error
            continue
        made.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, port))
        except BaseException as error:
            made.close()
            if not isinstance(error, OSError):
                raise
            failure = failure or error
            continue
        return await asyncio.open_connection(sock=made)
    raise failure or OSError("no address family")


async def _through_helper(pids: Sequence[int], port: int) -> Streams:
    nsenter = shutil.which("nsenter")
    if nsenter is None:
        raise OSError("nsenter is not installed")
    failure = OSError("no container runs")
    for pid in pids:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                helper = await asyncio.create_subprocess_exec(
                    nsenter, "--preserve-credentials", "-U", "-n", "-t", str(pid),
                    sys.executable, "-I", "-c", _HELPER, str(port), stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            await helper.wait()
            ours.setblocking(False)
            try:
                said, fds = take(ours, 512)
            except BlockingIOError:
                said, fds = b"", []
        if said.startswith(b"+") and fds:
            made = socket.socket(fileno=fds[0])
            made.setblocking(False)
            return await asyncio.open_connection(sock=made)
        failure = OSError(said[1:].decode(errors="replace") or "its network cannot be entered")
    raise failure


async def _through_host(pids: Sequence[int], port: int) -> Streams:
    """Without a network of its own a pod's ports are this machine's: only those it listens on are for it."""
    own = {each for pid in pids for each in (pid, *procfs.descendants(pid))}
    if not procfs.listens(own, port):
        raise OSError("connection refused")
    return await asyncio.open_connection("127.0.0.1", port)
