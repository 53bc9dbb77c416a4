"""What a new state gets before it is stored: what upstream's strategies and admission plugins add to it.

It belongs to no field manager. In place, and idempotent: preparing an object again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.registry import Resource

Object = dict[str, Any]

JOB_NAME: Final = "batch.kubernetes.io/job-name"
JOB_UID: Final = "batch.kubernetes.io/controller-uid"
_JOB_NAME_LABELS: Final = (JOB_NAME, "job-name")
_JOB_UID_LABELS: Final = (JOB_UID, "controller-uid")
_TAINTS_OF_LOST_NODES: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def prepare(resource: Resource, obj: Object, old: Object | None = None) -> None:
    """Fills in what the server says. `obj` has its defaults, name and uid; `old` is what it replaces."""
    fill = _BUILTIN.get(resource.key) if resource.builtin else None
    if fill is not None:
        fill(obj, old is None)


def _pod(obj: Object, new: bool) -> None:
    spec = obj["spec"]
    _admit_pod(spec)
    if new:
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


def _admit_pod(spec: Object) -> None:
    """What upstream's default admission plugins add to every pod: account, priority, patience with nodes."""
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = "default"
    spec["serviceAccount"] = spec["serviceAccountName"]
    if not spec.get("priorityClassName"):
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations = spec.setdefault("tolerations", [])
    for taint in _TAINTS_OF_LOST_NODES:
        if not any(_tolerates(toleration, taint) for toleration in tolerations):
            tolerations.append(
                {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )


def _tolerates(toleration: Object, taint: str) -> bool:
    return toleration.get("key", "") in ("", taint) and toleration.get("effect", "") in ("", "NoExecute")


def qos_class(spec: Object) -> str:
    """The pod's quality of service by its CPU and memory: "Guaranteed", "Burstable" or "BestEffort"."""
    asked = full = True
    any_set = False
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            any_set = any_set or _positive(requests.get(name)) or _positive(limits.get(name))
            full = full and _positive(limits.get(name))
            asked = asked and requests.get(name, limits.get(name)) == limits.get(name)
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if full and asked else "Burstable"


def _positive(amount: Any) -> bool:
    return amount is not None and parse_milli(amount) > 0


def _job(obj: Object, new: bool) -> None:
    """A selector by the job's uid and the labels that its pods then need; what the user wrote is kept, for
    validation to refuse where it disagrees."""
    metadata, spec = obj["metadata"], obj["spec"]
    if not new or spec.get("manualSelector"):
        return
    template = spec["template"]
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for name in _JOB_NAME_LABELS:
        labels.setdefault(name, metadata.get("name", ""))
    for name in _JOB_UID_LABELS:
        labels.setdefault(name, metadata["uid"])
    if not spec.get("selector"):
        spec["selector"] = {"matchLabels": {JOB_UID: metadata["uid"]}}


def _claim(obj: Object, new: bool) -> None:
    if new:
        obj["status"] = {"phase": "Pending"}


def _namespace(obj: Object, new: bool) -> None:
    if new:
        finalizers = (obj.get("spec") or {}).get("finalizers") or []
        kept = finalizers if "kubernetes" in finalizers else [*finalizers, "kubernetes"]
        obj["spec"], obj["status"] = {"finalizers": kept}, {"phase": "Active"}


_BUILTIN: Final[Mapping[str, Callable[[Object, bool], None]]] = {
    "pods": _pod,
    "jobs.batch": _job,
    "persistentvolumeclaims": _claim,
    "namespaces": _namespace,
}
