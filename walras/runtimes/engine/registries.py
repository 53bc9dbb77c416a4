"""Which registries the server asks on behalf of pods: public ones, and those that the operator names."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import tomllib
from pathlib import Path
from typing import Any

from walras.kube.admission.reach import is_public
from walras.runtimes.base import ImageError


async def check(name: str, config: Path) -> None:
    """Raises ImageError for an image in a registry that only the server can reach.

    `name` is full; `config` is the operator's registries.conf, whose registries may be anywhere.
    """
    if any(_below(name, each) for each in _named(config)):
        return
    host = name.partition("/")[0]
    for address in await _addresses(host):
        if not is_public(address):
            why = f"add it to {config.name} of the server's engine if pods may have its images"
            raise ImageError(f"registry {host} is at {address}, which is not a public address; {why}")


def _named(config: Path) -> list[str]:
    try:
        told = tomllib.loads(config.read_text())
    except (OSError, ValueError):
        # Podman complains of it better than we can.
        return []
    entries: Any = told.get("registry")
    found = [each for each in entries or () if isinstance(each, dict)] if isinstance(entries, list) else []
    return [str(each.get("prefix") or each.get("location") or "") for each in found]


def _below(name: str, prefix: str) -> bool:
    """As containers-registries.conf(5): a registry, or a path in one; "*." stands for its subdomains."""
    if prefix.startswith("*."):
        return name.partition("/")[0].partition(":")[0].endswith(prefix[1:])
    return bool(prefix) and name.startswith(prefix) and name[len(prefix) :][:1] in ("", "/", ":", "@")


async def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Where the registry is; nothing when nobody here knows, as behind a proxy."""
    bare = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    try:
        found = await asyncio.get_running_loop().getaddrinfo(bare.strip("[]"), 443, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
