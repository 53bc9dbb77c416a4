"""Callers with client certificates: a listener of their own, in front of the same application.

The HTTP server tells an application nothing of the certificate of its peer. So TLS ends here, and each
connection goes on to a plain listener of the HTTP server on the loopback device, from an address and port
of its own: by them the application is told whose certificate it was. Whatever else comes there is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from walras.core.errors import ServiceUnavailable
from walras.kube.access.certificates import Holder, holder
from walras.kube.serve.app import Application
from walras.kube.serve.callers import CERTIFICATE
from walras.kube.serve.relay import CHUNK, Peer, Relayed
from walras.kube.serve.server import Running, serve

CONNECTIONS_MAX: Final = 4000
CONNECTIONS_OF_ONE_MAX: Final = 400
_HANDSHAKE_S: Final = 10


class Certified(Relayed[tuple[Holder, Peer]]):
    """The application as the plain listener sees it: whose a connection is, and where the client is."""

    def told(self, scope: Mapping[str, Any], whose: tuple[Holder, Peer]) -> Mapping[str, Any]:
        found, client = whose
        return {**scope, "client": client, CERTIFICATE: found}


class CertificateListener:
    """Listens for callers with certificates of `ca`, until closed."""

    def __init__(self, certified: Certified, inner: Running, server: asyncio.Server) -> None:
        self._certified = certified
        self._inner = inner
        self._server = server
        host, port = server.sockets[0].getsockname()[:2]
        self.host, self.port = str(host), int(port)

    async def close(self) -> None:
        self._server.close()
        await self._inner.close()
        with suppress(Exception):
            async with asyncio.timeout(1):
                await self._server.wait_closed()


async def listen(
    app: Application, host: str, port: int, *, cert: Path, key: Path, ca_pem: bytes
) -> CertificateListener:
    """Serves who shows a certificate that `ca_pem` signed. Raises ServiceUnavailable if it cannot listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    context.load_verify_locations(cadata=ca_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2", "http/1.1"])
    certified = Certified(app)
    inner = await serve(certified, "127.0.0.1", 0)
    gate = _Gate(certified, inner.port)
    try:
        server = await asyncio.start_server(
            gate.connected, host, port, ssl=context, ssl_handshake_timeout=_HANDSHAKE_S, limit=CHUNK
        )
    except OSError as error:
        await inner.close()
        raise ServiceUnavailable(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return CertificateListener(certified, inner, server)


class _Gate:
    """Takes connections, one address each, and passes on what goes over them."""

    def __init__(self, certified: Certified, port: int) -> None:
        self._certified, self._port = certified, port
        self._open: Counter[str] = Counter()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls else None
        found = holder(der) if der else None
        try:
            if found is not None and self._has_room(found.cluster):
                self._open[found.cluster] += 1
                try:
                    client = writer.get_extra_info("peername")[:2]
                    whose = (found, (str(client[0]), int(client[1])))
                    await self._certified.relay.carry(whose, self._port, reader, writer)
                finally:
                    self._open[found.cluster] -= 1
                    self._open += Counter()
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _has_room(self, cluster: str) -> bool:
        return self._open[cluster] < CONNECTIONS_OF_ONE_MAX and self._open.total() < CONNECTIONS_MAX
