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
from typing import Any, Final

from walras.core.errors import ServiceUnavailable
from walras.kube.serve.callers import UNWRITTEN
from walras.kube.serve.relay import Relayed
from walras.kube.serve.server import Running, serve

CONNECTIONS_OF_ONE_MAX: Final = 200
# No method of HTTP/1.1 begins so.
_HTTP2: Final = b"PRI"


class InsideAPI(Relayed[str]):
    """The API server as pods see it."""

    def told(self, scope: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
        raw = scope.get("raw_path") or scope["path"].encode()
        prefix = f"/clusters/{whose}"
        if raw.startswith(f"{prefix}/".encode()):
            # The address that the cluster's issuer of tokens has for everybody.
            return scope
        return {**scope, "path": prefix + scope["path"], "raw_path": prefix.encode() + raw, UNWRITTEN: True}


class Insiders:
    """Takes connections from pods until closed; listens from the first one on."""

    def __init__(
        self,
        inside: Relayed[str],
        cert: Path | None = None,
        key: Path | None = None,
        http2_port: int = 0,
    ) -> None:
        """Without certificate and key pods speak plain HTTP to it. Those that begin with HTTP/2 are passed on
        to `http2_port`, where there is one: `inside` is served there too."""
        self._inside, self._cert, self._key, self._http2_port = inside, cert, key, http2_port
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
            with suppress(OSError, EOFError, ServiceUnavailable):
                first = await reader.readexactly(len(_HTTP2)) if self._http2_port else b""
                port = self._http2_port if first == _HTTP2 else await self._port()
                await self._inside.relay.carry(cluster, port, reader, writer, first)
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
