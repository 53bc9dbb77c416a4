"""What the API server needs of the rest of the program, and gets at its composition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from walras.kube.context import Identity

__all__ = ["Asked", "Authenticator", "Extra", "Identity", "PodAccess"]

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
