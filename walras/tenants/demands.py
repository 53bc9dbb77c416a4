"""What scheduling looks at in a pod: what it asks for, where it may be, and among whom. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from walras.core.errors import Invalid, WalrasError
from walras.core.quantity import parse_milli, parse_quantity
from walras.devices.request import GpuRequest, gpu_request, is_gpu_resource

Raw = Mapping[str, Any]
Port = tuple[str, str, int]
"""Address, protocol and number of a host port."""

# The address that stands for every one.
ANY: Final = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True, slots=True)
class Demand:
    """What scheduling looks at in a pod. `requests` is in milli for cpu, in units for all else."""

    name: str
    requests: Mapping[str, int]
    gpu: GpuRequest | None
    node_selector: Mapping[str, str]
    affinity: Raw
    tolerations: tuple[Raw, ...]
    ports: tuple[Port, ...] = ()
    # What only matters among other pods; see `relations`.
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pod_affinity: Raw = field(default_factory=dict)
    pod_anti_affinity: Raw = field(default_factory=dict)
    spread: tuple[Raw, ...] = ()
    priority: int = 0
    # On its way out.
    leaving: bool = False
    generation: int = 0
    # Whether it has devices by ResourceClaims.
    claims: bool = False

    def is_of(self, pod: Raw) -> bool:
        """Whether it still says what the pod's newest state does, without reading all of that."""
        metadata = pod["metadata"]
        newest = (metadata.get("generation", 0), "deletionTimestamp" in metadata)
        return (self.generation, self.leaving) == newest and self.labels == (metadata.get("labels") or {})


def demand_of(pod: Raw, priority: int = 0) -> Demand:
    """Raises Invalid for a GPU request that no node can have, or a quantity that is none."""
    spec = pod["spec"]
    affinity = spec.get("affinity") or {}
    gpu = gpu_request(spec)
    if gpu is not None and spec.get("resourceClaims"):
        raise Invalid("a pod asks for GPUs by limits of its containers or by resource claims, not by both")
    given = _by_claim(pod)
    return Demand(
        name=pod["metadata"]["name"],
        requests={name: asked for name, asked in _requests(spec).items() if name not in given},
        gpu=gpu,
        node_selector=spec.get("nodeSelector") or {},
        affinity=affinity.get("nodeAffinity") or {},
        tolerations=tuple(spec.get("tolerations") or ()),
        ports=_ports(spec),
        **_relations(pod, priority),
    )


def by_claims(demand: Demand, resources: Container[str]) -> Demand:
    """The demand of a pod that gets some of its resources by a claim."""
    left = {name: asked for name, asked in demand.requests.items() if name not in resources}
    return replace(demand, requests=left, claims=True)


def _by_claim(pod: Raw) -> frozenset[str]:
    """The extended resources that a pod has by a claim, as its status says."""
    said = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    names = (str(each.get("resourceName", "")) for each in said.get("requestMappings") or ())
    return frozenset(name for name in names if "/" in name)


def _relations(pod: Raw, priority: int) -> dict[str, Any]:
    metadata, spec = pod["metadata"], pod["spec"]
    affinity = spec.get("affinity") or {}
    return {
        "namespace": metadata.get("namespace", ""),
        "labels": metadata.get("labels") or {},
        "pod_affinity": affinity.get("podAffinity") or {},
        "pod_anti_affinity": affinity.get("podAntiAffinity") or {},
        "spread": tuple(spec.get("topologySpreadConstraints") or ()),
        "priority": priority,
        "leaving": "deletionTimestamp" in metadata,
        "generation": metadata.get("generation", 0),
        "claims": bool(spec.get("resourceClaims") or _by_claim(pod)),
    }


def _ports(spec: Raw) -> tuple[Port, ...]:
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    return tuple(
        (port.get("hostIP") or ANY, port.get("protocol", "TCP"), int(port["hostPort"]))
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def taken_by(pod: Raw, priority: int = 0) -> Demand:
    """What a pod that is on a node takes of it, whatever its manifest looks like. Never raises."""
    try:
        return demand_of(pod, priority)
    except WalrasError:
        return Demand(pod["metadata"]["name"], {}, None, {}, {}, (), **_relations(pod, priority))


def _requests(spec: Raw) -> Mapping[str, int]:
    """Containers and sidecars together, or the largest init container if that is more, and overhead."""
    running: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            running.update(asked)
            largest |= running
        else:
            largest |= Counter(asked) + running
    for container in spec.get("containers") or ():
        running.update(_asked(container))
    total = running | largest
    total.update({name: amount(name, str(value)) for name, value in (spec.get("overhead") or {}).items()})
    return dict(total)


def _asked(container: Raw) -> dict[str, int]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(name, str(value)) for name, value in asked.items() if not is_gpu_resource(name)}


@lru_cache(maxsize=4096)
def amount(resource: str, text: str) -> int:
    return parse_milli(text) if resource == "cpu" else parse_quantity(text)
