"""What was picked for a claim as its `status.allocation` says it, and what such a status takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from walras.core.errors import Invalid
from walras.core.quantity import exact, written_like
from walras.kube.record import copy
from walras.tenants.claims.asks import Asked
from walras.tenants.claims.pools import DeviceId
from walras.tenants.claims.search import Pick, Taken

Raw = Mapping[str, Any]


def allocation(asked: Asked, picks: Sequence[Pick], node: str, new_uid: Callable[[], str]) -> dict[str, Any]:
    """The AllocationResult: devices, configuration, and the nodes that can reach them."""
    devices: dict[str, Any] = {"results": [_result(pick, new_uid) for pick in picks]}
    config = [*_class_config(asked, picks), *_claim_config(asked, picks)]
    if config:
        devices["config"] = config
    found: dict[str, Any] = {"devices": devices}
    selector = _node_selector(picks, node)
    if selector is not None:
        found["nodeSelector"] = selector
    return found


def _result(pick: Pick, new_uid: Callable[[], str]) -> dict[str, Any]:
    ask, device, part = pick
    found: dict[str, Any] = {
        "request": ask.name,
        "driver": device.id.driver,
        "pool": device.id.pool,
        "device": device.id.name,
    }
    if ask.admin:
        found["adminAccess"] = True
    if ask.tolerations:
        found["tolerations"] = [copy(dict(each)) for each in ask.tolerations]
    if part is not None:
        capacity = device.raw.get("capacity") or {}
        found["shareID"] = new_uid()
        if part:
            found["consumedCapacity"] = {
                name: written_like(amount, str(capacity[name]["value"])) for name, amount in part.items()
            }
    return found


def _class_config(asked: Asked, picks: Sequence[Pick]) -> Iterator[dict[str, Any]]:
    """Each class' configuration once, for all requests of that class."""
    chosen = {pick.ask.name: pick.ask for pick in picks}
    by_class: dict[str, list[str]] = {}
    classes: dict[str, Raw] = {}
    for alternatives in asked.requests:
        for ask in alternatives:
            if ask.name in chosen:
                name = str(ask.device_class["metadata"]["name"])
                by_class.setdefault(name, []).append(ask.name)
                classes[name] = ask.device_class
    for name, requests in by_class.items():
        for each in (classes[name].get("spec") or {}).get("config") or ():
            yield {"source": "FromClass", "requests": requests, **copy(dict(each))}


def _claim_config(asked: Asked, picks: Sequence[Pick]) -> Iterator[dict[str, Any]]:
    chosen = {name for pick in picks for name in (pick.ask.name, pick.ask.parent)}
    spec = (asked.raw.get("spec") or {}).get("devices") or {}
    for each in spec.get("config") or ():
        requests = list(each.get("requests") or ())
        if not requests or chosen.intersection(requests):
            yield {"source": "FromClaim", **copy(dict(each))}


def _node_selector(picks: Sequence[Pick], node: str) -> dict[str, Any] | None:
    if any(pick.device.place is None for pick in picks):
        here = {"key": "metadata.name", "operator": "In", "values": [node]}
        return {"nodeSelectorTerms": [{"matchFields": [here]}]}
    merged: dict[str, list[Any]] = {}
    for pick in picks:
        for term in (pick.device.place or {}).get("nodeSelectorTerms") or ():
            for kind in ("matchFields", "matchExpressions"):
                have = merged.setdefault(kind, [])
                have += [copy(each) for each in term.get(kind) or () if each not in have]
    term = {kind: each for kind, each in merged.items() if each}
    return {"nodeSelectorTerms": [term]} if term else None


def results_of(claim: Raw) -> list[Raw]:
    """The devices that a claim holds by its status."""
    allocated = (claim.get("status") or {}).get("allocation") or {}
    return list((allocated.get("devices") or {}).get("results") or ())


def taken_by(claims: Iterable[Raw]) -> Taken:
    """What claims hold. Access by administrators takes nothing."""
    taken = Taken()
    for claim in claims:
        for result in results_of(claim):
            if not result.get("adminAccess"):
                device = DeviceId(result["driver"], result["pool"], result["device"])
                taken.add(device, _part(result) if result.get("shareID") else None)
    return taken


def _part(result: Raw) -> dict[str, Fraction] | None:
    try:
        return {name: exact(str(each)) for name, each in (result.get("consumedCapacity") or {}).items()}
    except Invalid:
        # Others wrote it: nothing more of the device is given away.
        return None
