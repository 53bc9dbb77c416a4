"""What goes where: the Services of an agent with the endpoints behind them. Pure.

As kube-proxy chooses: endpoints that are ready; where none is, those that still serve while they end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address
from itertools import islice
from typing import Any, Final

from walras.runtimes.network.nftables import PROTOCOLS, Forward, Target

Object = Mapping[str, Any]
SERVICE_NAME: Final = "kubernetes.io/service-name"
# The Service by which pods find the API.
API: Final = ("default", "kubernetes")
# Ports of Services that an agent gets rules for, pods behind each, and endpoints that are looked at for all:
# they are gathered on the loop that everybody shares.
FORWARDS_MAX: Final = 2000
TARGETS_MAX: Final = 250
LOOKED_AT_MAX: Final = 10_000
_PORT_MAX: Final = 65_535


def service_of(piece: Object) -> str:
    """The name of the Service that an EndpointSlice is of; "" for none."""
    return str((piece["metadata"].get("labels") or {}).get(SERVICE_NAME) or "")


def forwards(services: Iterable[Object], slices: Iterable[Object]) -> list[Forward]:
    """One for each port of each Service with an address, up to a number that no one agent should need."""
    behind: dict[tuple[str, str], list[Object]] = {}
    for piece in slices:
        key = (str(piece["metadata"]["namespace"]), service_of(piece))
        behind.setdefault(key, []).append(piece)
    found: list[Forward] = []
    room = LOOKED_AT_MAX
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        address = _address(spec.get("clusterIP"))
        if address is None or spec.get("type") == "ExternalName":
            continue
        if (metadata["namespace"], metadata["name"]) == API:
            # Pods reach the API by an entrance of its own at that address.
            continue
        pieces = behind.get((metadata["namespace"], metadata["name"]), [])
        sticky = spec.get("sessionAffinity") == "ClientIP"
        for port in spec.get("ports") or ():
            protocol = str(port.get("protocol") or "TCP")
            if room <= 0 or len(found) >= FORWARDS_MAX:
                return found
            if protocol in PROTOCOLS:
                every = islice(_targets(pieces, str(port.get("name") or ""), protocol), TARGETS_MAX)
                targets = tuple(sorted(set(every)))
                found.append(Forward(address, int(port["port"]), protocol, targets, sticky))
                room -= 1 + sum(len(piece.get("endpoints") or ()) for piece in pieces)
    return found


def chosen(pieces: Iterable[Object]) -> list[tuple[Object, Object]]:
    """The endpoints that get traffic, each with its slice."""
    every = [
        (each, piece) for piece in pieces if piece.get("addressType") == "IPv4"
        for each in piece.get("endpoints") or ()
    ]  # fmt: skip
    ready = [found for found in every if (found[0].get("conditions") or {}).get("ready") is not False]
    return ready or [found for found in every if (found[0].get("conditions") or {}).get("serving")]


def ports_of(piece: Object) -> Iterator[Object]:
    """Those of a slice that have a number which a port may have: whoever writes slices may write any."""
    return (each for each in piece.get("ports") or () if 0 < (each.get("port") or 0) <= _PORT_MAX)


def _targets(pieces: Iterable[Object], name: str, protocol: str) -> Iterator[Target]:
    for endpoint, piece in chosen(pieces):
        for port in ports_of(piece):
            if (port.get("name") or "", port.get("protocol") or "TCP") != (name, protocol):
                continue
            for each in endpoint.get("addresses") or ():
                address = _address(each)
                # Nobody's loopback is behind a Service.
                if address is not None and not address.is_loopback:
                    yield address, int(port["port"])


def _address(text: Any) -> IPv4Address | None:
    try:
        return IPv4Address(str(text))
    except AddressValueError:
        return None
