"""Which server and cluster a command talks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.cli.kubeconfig import Connection, connection, load
from walras.core.errors import BadRequest, NotFound

FLEET: Final = "fleet"
OPERATOR_KUBECONFIG: Final = "operator.kubeconfig"


def default_data() -> Path:
    """Where `walras up` keeps its state unless told otherwise."""
    return Path("~/.local/share/walras").expanduser()


@dataclass(frozen=True, slots=True)
class Target:
    """A server's address without a path, the logical cluster that the credentials are for, and both."""

    base: str
    cluster: str
    connection: Connection
    source: Path

    @property
    def is_operator(self) -> bool:
        return self.cluster == FLEET


def find(kubeconfig: Path | None, data: Path | None) -> Target:
    """The target that a kubeconfig names, or the operator's of a data directory.

    Raises NotFound when there is no such file, BadRequest when it is not one of Walras.
    """
    source = kubeconfig.expanduser() if kubeconfig else (data or default_data()) / OPERATOR_KUBECONFIG
    if not source.exists():
        raise NotFound(
            f"there is no kubeconfig {source}"
            if kubeconfig
            else f"no server has run on {source.parent}: start one with `walras up`, "
            "or name its data with --data or a kubeconfig with --kubeconfig"
        )
    if not os.access(source, os.R_OK):
        raise BadRequest(f"{source} may not be read by you; run as the user that runs `walras up`")
    found = connection(load(source), source)
    base, slash, cluster = found.server.rstrip("/").rpartition("/clusters/")
    if not slash or not cluster or "/" in cluster:
        raise BadRequest(
            f"{source} is not of Walras: its server {found.server!r} does not end in /clusters/NAME"
        )
    return Target(base, cluster, found, source)
