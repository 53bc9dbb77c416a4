"""Host names of functions, and which of a route's targets is next. Pure.

A route NAME of a namespace of an agent's cluster is at NAME.NAMESPACE.CLUSTER.DOMAIN, a target of it with a
tag at TAG-NAME.NAMESPACE.CLUSTER.DOMAIN. To pods of the cluster they are at NAME.NAMESPACE.svc.cluster.local.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from walras.functions.words import Where

HOST_BYTES_MAX: Final = 255
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_PORT: Final = r"(?::\d{1,5})?"
_DOMAIN: Final = re.compile(rf"((?:{_LABEL}\.)+{_LABEL})\.?{_PORT}", re.ASCII)


class Domain:
    """The domain under which functions are, and the ports of the listeners: `http2_port` is of the one that
    takes HTTP/2 alone, with trailers."""

    def __init__(self, name: str, port: int, http2_port: int = 0) -> None:
        self.name, self.port, self.http2_port = name, port, http2_port
        pattern = rf"({_LABEL})\.({_LABEL})\.({_LABEL})\.{re.escape(name)}\.?{_PORT}"
        self._host = re.compile(pattern, re.ASCII)
        self._inside = re.compile(
            rf"({_LABEL})\.({_LABEL})(?:\.svc(?:\.cluster\.local\.?)?)?{_PORT}", re.ASCII
        )

    def url(self, where: Where, tag: str = "", *, is_http2: bool = False) -> str:
        """Where a route is, or its target with a tag."""
        label = f"{tag}-{where.name}" if tag else where.name
        host = f"{label}.{where.namespace}.{where.cluster}.{self.name}"
        return f"http://{host}{self.suffix(is_http2=is_http2)}"

    def suffix(self, *, is_http2: bool = False) -> str:
        """The port, as a URL has it."""
        port = self.http2_port if is_http2 else self.port
        return "" if port == 80 else f":{port}"

    def inner_url(self, where: Where) -> str:
        """Where a route is for pods of its cluster."""
        return f"http://{where.name}.{where.namespace}.svc.cluster.local"

    def reserves(self, name: str) -> bool:
        """Whether a domain is where functions are anyway, or where a cluster has its own names."""
        own = (self.name, "cluster.local")
        return any(name == each or name.endswith(f".{each}") for each in own)

    def parse_inner(self, host: bytes, cluster: str) -> Where | None:
        """The label and namespace of a Host header of a pod of the cluster; None for any other host."""
        if len(host) > HOST_BYTES_MAX:
            return None
        match = self._inside.fullmatch(host.decode("latin-1").lower())
        return Where(cluster, match[2], match[1]) if match else None

    def parse(self, host: bytes) -> Where | None:
        """The label, namespace and cluster of a Host header; None for any other host."""
        if len(host) > HOST_BYTES_MAX:
            return None
        match = self._host.fullmatch(host.decode("latin-1").lower())
        return Where(match[3], match[2], match[1]) if match else None


def bare(host: bytes) -> str:
    """A Host header as a domain, without its port; "" for what is none."""
    match = _DOMAIN.fullmatch(host.decode("latin-1").lower()) if len(host) <= HOST_BYTES_MAX else None
    return match[1] if match else ""


def readings(label: str) -> Iterator[tuple[str, str]]:
    """(tag, route) that a label may mean, the route without a tag first."""
    yield "", label
    for at, char in enumerate(label):
        if char == "-" and 0 < at < len(label) - 1:
            yield label[:at], label[at + 1 :]


class Split:
    """Hands requests to a route's targets by percent: any hundred in a row are split exactly.

    Smooth weighted round robin, as nginx does it: targets take turns instead of coming in runs.
    """

    def __init__(self, traffic: Sequence[Mapping[str, Any]]) -> None:
        """`traffic`: targets with `revisionName` and `percent`, as in a route's status."""
        self._weights: dict[str, int] = {}
        for target in traffic:
            percent = int(target.get("percent") or 0)
            if percent > 0:
                name = str(target["revisionName"])
                self._weights[name] = self._weights.get(name, 0) + percent
        self._credits = dict.fromkeys(self._weights, 0)
        self._whole = sum(self._weights.values())

    def next(self) -> str | None:
        """The revision that answers the next request; None where nobody does."""
        if not self._weights:
            return None
        for name, weight in self._weights.items():
            self._credits[name] += weight
        chosen = max(self._credits, key=lambda name: self._credits[name])
        self._credits[chosen] -= self._whole
        return chosen
