"""What a workload says of its latency: the objective on its pods, the measurement on who owns them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from walras.core.errors import Invalid
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.validation.walras import (
    ANNOTATION_LATENCY,
    ANNOTATION_SLO,
    ANNOTATION_SLO_BAD,
    parse_latency,
)

# An objective without a bad end is worth nothing at so many times of it, as the curves of classes have it.
BAD_TIMES: Final = 10
# So many replicas are looked ahead.
MORE_MAX: Final = 64
_OWNERS: Final = {
    "Deployment": "deployments.apps",
    "ReplicaSet": "replicasets.apps",
    "Job": "jobs.batch",
}
_CHAIN_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; None is what nobody says. `with_ms`: with one replica more, with two, up to all that are
    asked for, by the model of `with_more`; empty where nobody measures."""

    good_ms: int | None = None
    bad_ms: int | None = None
    without_ms: int | None = None
    with_ms: tuple[int, ...] = ()


def with_more(latency_ms: int, ready: int, more: int) -> int:
    """What it would be with so many replicas more: load spreads evenly, and latency goes with load."""
    return latency_ms * ready // (ready + more)


def latency_of(api: API, cluster: str, pod: Object) -> Latency:
    """What is known for more replicas such as the pod; what cannot be read counts as not said."""
    good = _ms(pod, ANNOTATION_SLO)
    bad = _ms(pod, ANNOTATION_SLO_BAD)
    if good is not None and bad is None:
        bad = good * BAD_TIMES
    if good is None or bad is None or bad <= good:
        good = bad = None
    for workload in reversed(_chain(api, cluster, pod)):
        measured = _ms(workload, ANNOTATION_LATENCY)
        if measured is None:
            continue
        status = workload.get("status") or {}
        ready = status.get("readyReplicas", status.get("ready", 0)) or 0
        if not ready:
            break  # it is of replicas that are gone
        more = range(1, 1 + max(1, min(MORE_MAX, _wanted(workload) - ready)))
        return Latency(good, bad, measured, tuple(with_more(measured, ready, each) for each in more))
    return Latency(good, bad)


def _wanted(workload: Object) -> int:
    spec = workload.get("spec") or {}
    return int(spec.get("replicas", spec.get("parallelism", 1)))


def _chain(api: API, cluster: str, pod: Object) -> list[Object]:
    """The pod's controller, that one's controller, and so on."""
    found: list[Object] = []
    child = pod
    for _ in range(_CHAIN_MAX):
        parent = _controller(api, cluster, child)
        if parent is None:
            break
        found.append(parent)
        child = parent
    return found


def _controller(api: API, cluster: str, child: Object) -> Object | None:
    metadata = child["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        resource = _OWNERS.get(owner.get("kind", ""))
        if owner.get("controller") and resource is not None:
            parent = api.find(cluster, resource, metadata.get("namespace", ""), owner.get("name", ""))
            return parent if parent and parent["metadata"]["uid"] == owner.get("uid") else None
    return None


def _ms(obj: Object, annotation: str) -> int | None:
    said = (obj["metadata"].get("annotations") or {}).get(annotation)
    try:
        return parse_latency(said) if said else None
    except Invalid:
        return None
