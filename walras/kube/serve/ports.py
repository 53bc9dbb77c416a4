"""What the API server needs of the rest of the program, and gets at its composition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from walras.kube.context import Identity

__all__ = [
    "Asked", "Authenticator", "Entrance", "Extra", "Identity", "Machines", "PodAccess", "Session", "Stream",
    "Wish",
]  # fmt: skip

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A GET or POST of `path` below /clusters/NAME/walras/v1/.

    `body` reads what a POST brings. Raises BadRequest, UnsupportedMediaType, RequestEntityTooLarge, Timeout.
    """

    identity: Identity
    cluster: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Callable[[], Awaitable[Object]]


# The JSON answer to it.
Extra = Callable[[Asked], Awaitable[Object]]


class Authenticator(Protocol):
    """Knows the bearer tokens."""

    def identify(self, token: str) -> Identity | None:
        """Whose token it is; None when it is nobody's."""


Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of a program's streams. A terminal has one output, "stdout"."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class Session(Protocol):
    """A program with somebody at the other end. Whoever has it closes it."""

    @property
    def outputs(self) -> tuple[Stream, ...]:
        """The streams that can be read."""

    async def read(self, stream: Stream) -> bytes:
        """What it says next; empty at the end of the stream."""

    async def write(self, data: bytes) -> None:
        """Returns when the program, or the pipe before it, has taken the input; nothing once it has ended."""

    def end_input(self) -> None:
        """The program reads the end of its input."""

    def resize(self, columns: int, rows: int) -> None:
        """The terminal's size, where there is one."""

    async def wait(self) -> int:
        """The program's exit code, 128+n for signal n."""

    async def close(self) -> None:
        """Ends the program if it was started for the session."""


class PodAccess(Protocol):
    """The way to the pods of every cluster; the runtime behind the nodes is one."""

    def logs(
        self,
        cluster: str,
        pod: Object,
        container: str,
        *,
        follow: bool,
        previous: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        timestamps: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """The container's log. Raises BadRequest or NotFound, at the first step at the latest."""

    async def dial(
        self, cluster: str, pod: Object, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a port inside the pod's network. Raises ServiceUnavailable."""

    async def exec(
        self, cluster: str, pod: Object, container: str, argv: tuple[str, ...], wish: Wish
    ) -> Session:
        """Another program in a running container. Raises NotFound, or InternalError if it cannot start."""

    def attach(self, cluster: str, pod: Object, container: str, wish: Wish) -> Session:
        """What the main process of a running container says from now on. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a connection leads: a pod, and the program there that stands for a machine's console."""

    pod: Object
    container: str
    console: tuple[str, ...]


class Machines(Protocol):
    """What is done with virtual machines, by KubeVirt's subresources. `resource` is either kind's plural."""

    async def act(
        self, cluster: str, resource: str, namespace: str, name: str, act: str, options: Object
    ) -> int:
        """The code with which it is answered. Raises NotFound, Conflict, BadRequest, Forbidden."""

    def entrance(self, cluster: str, resource: str, namespace: str, name: str, act: str) -> Entrance:
        """Raises as `act`."""
