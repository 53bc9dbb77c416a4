"""What the controllers that make pods have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.core.errors import BadRequest, Denied, Forbidden, InternalError, Invalid
from walras.kube import defaults, preparing
from walras.kube.api import API
from walras.kube.record import copy
from walras.kube.registry_builtin import for_agents
from walras.tenants.objects import (
    NAMESPACES,
    PODS,
    Object,
    deleting,
    finished,
    is_true,
    owner_reference,
    phase,
    transition_ms,
)

# By what admission refuses a pod that a template asks for.
REFUSALS = (BadRequest, Denied, Forbidden, InternalError, Invalid)
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def new_pod(owner: Object, template: Mapping[str, Any]) -> Object:
    """A pod of a template, controlled by `owner`, with a generated name and every default filled in."""
    described = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if described.get(field):
            metadata[field] = described[field]
    pod: Object = copy(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}
    )
    complete(PODS, pod)
    return pod


def complete(resource: str, obj: Object) -> None:
    """Gives an object that a controller makes what every client's gets: defaults, and what servers add."""
    defaults.apply(for_agents()[resource], obj)
    preparing.prepare(for_agents()[resource], obj)


def is_active(pod: Mapping[str, Any]) -> bool:
    return not finished(pod) and not deleting(pod)


def is_ready(pod: Mapping[str, Any]) -> bool:
    return is_true(pod, "Ready") and phase(pod) == "Running"


def available_in_ms(pod: Mapping[str, Any], ready_s: int, now_ms: int) -> int | None:
    """How long until the pod has been ready for `ready_s`: 0 when it has; None while it is not ready."""
    if not is_ready(pod):
        return None
    since_ms = transition_ms(pod, "Ready")
    return max(0, (now_ms if since_ms is None else since_ms) + ready_s * 1000 - now_ms) if ready_s else 0


def share_of(value: int | str, count: int, *, up: bool) -> int:
    """A number of pods, or "25%" of `count` rounded up or down."""
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * count
    return -(-share // 100) if up else share // 100


def deletion_rank(pod: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which pod to give up first when there are too many, as Kubernetes' ActivePodsWithRanks sorts."""
    metadata = pod["metadata"]
    cost = (metadata.get("annotations") or {}).get(DELETION_COST, "0")
    return (
        bool(pod["spec"].get("nodeName")),
        ("Pending", "Unknown", "Running").index(phase(pod)) if phase(pod) in {"Unknown", "Running"} else 0,
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdecimal() else 0,
        # Times as text sort as times; the newest goes first.
        tuple(-ord(char) for char in metadata["creationTimestamp"]),
        metadata["name"],
    )


def takes_pods(api: API, cluster: str, namespace: str) -> bool:
    """Whether new objects may be made there: a namespace on its way out takes none."""
    found = api.find(cluster, NAMESPACES, "", namespace)
    return found is not None and not deleting(found)
