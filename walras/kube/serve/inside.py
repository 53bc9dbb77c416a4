"""Callers in pods: to them their own cluster's API is the whole of the server, as in any Kubernetes.

A pod asks for /api/v1 at an address in its agent's network. What arrives there is passed on, TLS and all, to
a listener of this server on the loopback device, which puts the cluster before every path: no path that a pod
can name leads to another cluster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from walras.core.errors import ServiceUnavailable, Unauthorized
from walras.kube.bodies import Receive
from walras.kube.serve import status
from walras.kube.serve.app import Application
from walras.kube.serve.relay import Relay
from walras.kube.serve.server import Running, serve
from walras.kube.serve.streams import Send, send_answer

CONNECTIONS_OF_ONE_MAX: Final = 200


class Inside(Protocol):
    """An application as pods see it; its relay knows whose a connection is."""

    relay: Relay[str]

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None: ...

    async def close(self) -> None: ...


class InsideAPI:
    """The API server as pods see it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.relay: Relay[str] = Relay()

    async def close(self) -> None:
        """The streams are the application's own."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        client = scope.get("client") or ("", 0)
        cluster = self.relay.peers.get((str(client[0]), int(client[1])))
        if scope["type"] == "http" and cluster is None:
            await send_answer(send, status.answer(Unauthorized("Unauthorized")))
        elif scope["type"] in ("http", "websocket") and cluster is not None:
            await self._app(_within(scope, cluster), receive, send)
        elif scope["type"] == "websocket":
            await receive()
            with suppress(Exception):
                await send({"type": "websocket.close", "code": 1008})


def _within(scope: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    raw = scope.get("raw_path") or scope["path"].encode()
    prefix = f"/clusters/{cluster}"
    return {**scope, "path": prefix + scope["path"], "raw_path": prefix.encode() + raw}


class Insiders:
    """Takes connections from pods until closed; listens from the first one on."""

    def __init__(self, inside: Inside, cert: Path | None = None, key: Path | None = None) -> None:
        """Without certificate and key pods speak plain HTTP to it."""
        self._inside, self._cert, self._key = inside, cert, key
        self._running: Running | None = None
        self._starting = asyncio.Lock()
        self._open: Counter[str] = Counter()

    async def connected(
        self, cluster: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A connection from a pod of the cluster, until it is over."""
        if self._open[cluster] >= CONNECTIONS_OF_ONE_MAX:
            return
        self._open[cluster] += 1
        try:
            with suppress(OSError, ServiceUnavailable):
                port = await self._port()
                await self._inside.relay.carry(cluster, port, reader, writer)
        finally:
            self._open[cluster] -= 1
            self._open += Counter()

    async def _port(self) -> int:
        async with self._starting:
            if self._running is None:
                self._running = await serve(self._inside, "127.0.0.1", 0, self._cert, self._key)
            return self._running.port

    async def close(self) -> None:
        if self._running is not None:
            await self._running.close()
