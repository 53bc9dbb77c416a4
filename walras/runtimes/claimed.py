"""The devices of a container: its node's, where its limits ask for any, or those of its claims. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from walras.core.errors import WalrasError
from walras.core.quantity import parse_quantity
from walras.devices.classes import slice_names
from walras.devices.models import DOMAIN
from walras.runtimes.environment import (
    ConfigError,
    Directories,
    EnvSource,
    Gpu,
    Object,
    gpu,
    gpu_of,
    lease_shares,
)  # fmt: skip
from walras.tenants.claims.extended import UNNAMED
from walras.tenants.claims.pod import RESOURCE_CLAIMS, claim_names, is_reserved
from walras.tenants.claims.result import results_of

_MIB: Final = 2**20


def devices_of(source: EnvSource, container: Object, mps: Directories | None = None) -> Gpu | None:
    """None where it asks for none. Raises ConfigError until the pod's claims are there for it."""
    claims = {name: _claim(source, claim) for name, claim in claim_names(source.pod)}
    if not claims:
        return gpu(source.node, mps) if _asks_for_gpu(container) else None
    named = (container.get("resources") or {}).get("claims") or ()
    wanted = [(each["name"], each.get("request", "")) for each in named]
    wanted += [(UNNAMED, request) for request in _extended(source.pod, container)]
    shares = [
        share
        for name, request in wanted
        if name in claims
        for share in _given(source.node, claims[name], request)
    ]
    return gpu_of(shares, mps) if shares else None


def _extended(pod: Object, container: Object) -> Iterator[str]:
    """The requests whose devices the container has for its extended resources."""
    said = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    for each in said.get("requestMappings") or ():
        if each.get("containerName") == container["name"]:
            yield str(each.get("requestName"))


def _claim(source: EnvSource, name: str | None) -> Object:
    claim = source.lookup(RESOURCE_CLAIMS, name) if name else None
    if claim is None:
        raise ConfigError(f'resourceclaim "{name}" not found' if name else "ResourceClaim not created yet")
    if not is_reserved(claim, source.pod):
        raise ConfigError(f'resourceclaim "{name}" is not reserved for the pod')
    return claim


def _given(node: Object, claim: Object, request: str) -> Iterator[dict[str, Any]]:
    """The shares of the node's lease that a claim holds, as much of each as it consumes."""
    shares = lease_shares(node)
    names = slice_names((int(each.get("index", 0)), str(each.get("mig", ""))) for each in shares)
    by_name = dict(zip(names, shares, strict=True))
    for result in results_of(claim):
        here = (result["driver"], result["pool"]) == (DOMAIN, node["metadata"]["name"])
        named = not request or result["request"].partition("/")[0] == request
        if here and named and result["device"] in by_name:
            yield {**by_name[result["device"]], **_consumed(result.get("consumedCapacity") or {})}


def _consumed(capacity: Object) -> dict[str, int]:
    found = {}
    try:
        if "milliGPU" in capacity:
            found["milliGPU"] = parse_quantity(capacity["milliGPU"])
        if "memory" in capacity:
            found["memoryMiB"] = parse_quantity(capacity["memory"]) // _MIB
    except WalrasError:
        # What others wrote there is no amount; then the share counts.
        return {}
    return found


def _asks_for_gpu(container: Object) -> bool:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return any(name.startswith(("nvidia.com/", "walras.dev/")) for name in asked)
