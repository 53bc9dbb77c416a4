"""What `walras up` was told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from walras.kube.admission.reach import Network
from walras.runtimes.handlers import PROCESS


@dataclass(frozen=True, slots=True)
class Options:
    data: Path
    host: str = "127.0.0.1"
    port: int = 7443
    gpus: str = "auto"
    # What keeps parts of a card apart, where it can be had: "mps" or "timeslice".
    parts: str = "mps"
    audit_log: Path | None = None
    # Where callers with client certificates are served.
    certificates: tuple[str, int] | None = None
    # What URLs of agents' webhooks may lead to beside public addresses.
    webhook_networks: tuple[Network, ...] = ()
    # Which runtime runs the pods that name none.
    runtime: str = PROCESS
    # Where functions are: None is the next port or, where that is taken or for certificates, any free one.
    functions_port: int | None = None
    # Where they are asked in HTTP/2, as gRPC is; None as above.
    functions_http2_port: int | None = None
    functions_domain: str = "functions.localhost"
    # The socket of the engine that runs containers; None has the server start one.
    engine: Path | None = None
