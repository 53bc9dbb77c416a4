"""Extended resources that a DeviceClass stands for (KEP-5004): limits of containers as a claim. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import WalrasError
from walras.core.quantity import parse_quantity
from walras.devices.request import is_gpu_resource
from walras.tenants.fit import Node
from walras.tenants.objects import Object, uid

Raw = Mapping[str, Any]
ANNOTATION: Final = "resource.kubernetes.io/extended-resource-claim"
IMPLICIT: Final = "deviceclass.resource.kubernetes.io/"
# The claim before it is stored, in messages too.
UNNAMED: Final = "<extended-resources>"


@dataclass(frozen=True, slots=True)
class Extended:
    """The claim, not stored yet; which container gets which of its requests; the resources that it is for."""

    claim: Object
    mappings: tuple[Object, ...]

    @property
    def resources(self) -> frozenset[str]:
        return frozenset(each["resourceName"] for each in self.mappings)


def is_extended(resource: str) -> bool:
    """Whether a DeviceClass may stand for the resource. GPUs are the nodes' own, and bid for as such."""
    domain, slash, _ = resource.partition("/")
    native = domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    return bool(slash) and not is_gpu_resource(resource) and (not native or resource.startswith(IMPLICIT))


def asks(pod_spec: Raw) -> bool:
    """Whether a pod asks for resources that DeviceClasses may stand for."""
    return any(is_extended(name) for container in _containers(pod_spec) for name in _asked(container))


def provided_by(nodes: Iterable[Node]) -> frozenset[str]:
    """The resources that a node has itself."""
    return frozenset(name for node in nodes for name, amount in node.allocatable.items() if amount)


def extended_of(pod: Raw, classes: Callable[[], Iterable[Raw]], provided: Container[str]) -> Extended | None:
    """What classes stand for of the pod's resources, None for nothing. Nodes have those of `provided`."""
    spec = pod["spec"]
    named = {name for container in _containers(spec) for name in _asked(container) if is_extended(name)}
    wanted = sorted(name for name in named if name not in provided)
    if not wanted:
        return None
    by_resource = _by_resource(classes())
    requests: list[Object] = []
    mappings: list[Object] = []
    for resource in wanted:
        device_class = by_resource.get(resource)
        if device_class is not None:
            made = _requests(spec, resource, device_class)
            requests += made[0]
            mappings += made[1]
    if not requests:
        return None
    requests.sort(key=lambda each: str(each["name"]))
    return Extended(_claim(pod, requests), tuple(mappings))


def _by_resource(classes: Iterable[Raw]) -> dict[str, str]:
    """The class for each resource: of two for the same one the newer, then the first by name."""
    found: dict[str, str] = {}
    age: dict[str, str] = {}
    for each in sorted(classes, key=lambda each: str(each["metadata"]["name"])):
        name, created = each["metadata"]["name"], str(each["metadata"].get("creationTimestamp", ""))
        found[IMPLICIT + name] = name
        resource = (each.get("spec") or {}).get("extendedResourceName")
        if resource and (resource not in found or created > age[resource]):
            found[resource], age[resource] = name, created
    return found


def _requests(spec: Raw, resource: str, device_class: str) -> tuple[list[Object], list[Object]]:
    """Requests for one resource, and whose they are.

    Init containers that end before the others begin have the devices of those, and more if they need more:
    as many as the one that needs most.
    """
    every = _containers(spec)
    first = len(spec.get("initContainers") or ())
    lasting: dict[int, Object] = {}
    mappings: list[Object] = []
    for at, container in enumerate(every):
        if at >= first or container.get("restartPolicy") == "Always":
            count = _asked(container).get(resource, 0)
            if count:
                lasting[at] = _request(at, container, resource, device_class, count)
                mappings.append(_mapping(container, resource, lasting[at]))
    passing: list[Object] = []
    of_passing: list[Raw] = []
    for at, container in enumerate(every[:first]):
        left = 0 if at in lasting else _asked(container).get(resource, 0)
        for later, request in lasting.items():
            if later > at and left > 0:
                mappings.append(_mapping(container, resource, request))
                left -= request["exactly"]["count"]
        if left > 0:
            passing.append(_request(at, container, resource, device_class, left))
            of_passing.append(container)
    if passing:
        largest = max(passing, key=lambda each: int(each["exactly"]["count"]))
        mappings += [_mapping(container, resource, largest) for container in of_passing]
        return [largest, *lasting.values()], mappings
    return list(lasting.values()), mappings


def _request(at: int, container: Raw, resource: str, device_class: str, count: int) -> Object:
    place = sorted((container.get("resources") or {}).get("requests") or _asked(container)).index(resource)
    exactly = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    return {"name": f"container-{at}-request-{place}", "exactly": exactly}


def _mapping(container: Raw, resource: str, request: Object) -> Object:
    return {
        "containerName": container["name"],
        "resourceName": resource,
        "requestName": request["name"],
    }


def _claim(pod: Raw, requests: list[Object]) -> Object:
    metadata = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": uid(pod), "controller": True}
    return {
        "metadata": {
            "name": UNNAMED,
            "generateName": f"{metadata['name']}-extended-resources-",
            "namespace": metadata["namespace"],
            "annotations": {ANNOTATION: "true"},
            "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": requests}},
    }


def _containers(spec: Raw) -> list[Raw]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _asked(container: Raw) -> dict[str, int]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return dict(_amounts(asked))


def _amounts(asked: Raw) -> Iterator[tuple[str, int]]:
    for name, value in asked.items():
        try:
            yield name, parse_quantity(str(value))
        except WalrasError:
            # The pod's other parts say so.
            continue
