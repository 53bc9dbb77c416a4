"""The HTTPS server: granian in this process, on this event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from granian._granian import SocketHolder
from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from walras.core.errors import ServiceUnavailable
from walras.kube.bodies import Receive

_BACKLOG: Final = 1024
# Requests in flight, idle watches among them; the default hangs at some thousands of watches.
_BACKPRESSURE: Final = 262_144
_STREAMS_PER_CONNECTION: Final = 1000
_HEADERS_BYTES_MAX: Final = 64 * 1024
_CLOSE_TIMEOUT_S: Final = 5.0
# Levels only: granian's own configuration would replace the handlers that others have set.
_SILENT: Final[dict[str, Any]] = {"incremental": True, "handlers": {}, "loggers": {"_granian": {}}}


# Its stub leaves out the constructor.
_HOLDER: Final[Any] = SocketHolder


class Served(Protocol):
    """An application that can be closed."""

    async def __call__(
        self, scope: Mapping[str, Any], receive: Receive, send: Callable[[Mapping[str, Any]], Awaitable[None]]
    ) -> None: ...

    async def close(self) -> None:
        """Ends what goes on."""


class _Embedded(Server):
    """Granian on a socket that is bound already.

    Granian binds with SO_REUSEPORT: two servers would share a port without a word, and one bound to port 0
    could not be found.
    """

    def __init__(self, bound: socket.socket, *args: Any, **options: Any) -> None:
        self._bound = bound
        super().__init__(*args, **options)

    def _init_shared_socket(self) -> None:
        # Granian closes the descriptor that it is given.
        descriptor: Any = os.dup(self._bound.fileno())
        self._ssp, self._sfd = None, descriptor
        self._shd = _HOLDER(descriptor, False, _BACKLOG)


@dataclass(slots=True)
class Running:
    """A server that accepts connections on `host` and `port`."""

    host: str
    port: int
    _app: Served
    _server: _Embedded
    _serving: asyncio.Task[None]
    _socket: socket.socket

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    async def close(self) -> None:
        """Ends the streams, lets running requests finish for some seconds, and stops."""
        await self._app.close()
        self._server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait((self._serving,), timeout=_CLOSE_TIMEOUT_S)
        self._serving.cancel()
        with suppress(asyncio.CancelledError):
            await self._serving
        self._socket.close()


async def serve(
    app: Served, host: str, port: int, cert: Path | None = None, key: Path | None = None
) -> Running:
    """Serves HTTP/1.1 and HTTP/2 over TLS 1.2 or later with a PEM certificate chain and its key.

    Without them there is no TLS, which only whoever has ended it already may want. Port 0 takes any free one.
    Raises ServiceUnavailable when the address cannot be bound.
    """
    bound = _bind(host, port)
    server = _Embedded(
        bound,
        app,
        interface=Interfaces.ASGINL,
        websockets=True,
        backlog=_BACKLOG,
        backpressure=_BACKPRESSURE,
        http1_settings=HTTP1Settings(),
        http2_settings=HTTP2Settings(
            max_concurrent_streams=_STREAMS_PER_CONNECTION, max_headers_size=_HEADERS_BYTES_MAX
        ),
        log_enabled=False,
        log_dictconfig=_SILENT,
        ssl_cert=cert,
        ssl_key=key,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    serving = asyncio.create_task(server.serve())
    # The socket listens already; one turn of the loop lets a worker that cannot start say so.
    await asyncio.sleep(0)
    if serving.done():
        bound.close()
        serving.result()
    return Running(host, bound.getsockname()[1], app, server, serving, bound)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or "0.0.0.0",  # noqa: S104
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServiceUnavailable(f"cannot listen on {host}:{port}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it. Without it an event may wait 40 ms until the last one is acknowledged.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise ServiceUnavailable(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return bound
