"""Words for what controllers read and write in Kubernetes objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from walras.core.clock import parse_rfc3339

Object = dict[str, Any]

FLEET: Final = "fleet"

PODS: Final = "pods"
NODES: Final = "nodes"
NAMESPACES: Final = "namespaces"
SECRETS: Final = "secrets"
EVENTS: Final = "events"
CONFIG_MAPS: Final = "configmaps"
SERVICE_ACCOUNTS: Final = "serviceaccounts"
CLAIMS: Final = "persistentvolumeclaims"
JOBS: Final = "jobs.batch"
REPLICA_SETS: Final = "replicasets.apps"
DEPLOYMENTS: Final = "deployments.apps"
STATEFUL_SETS: Final = "statefulsets.apps"
DAEMON_SETS: Final = "daemonsets.apps"
REVISIONS: Final = "controllerrevisions.apps"
CRON_JOBS: Final = "cronjobs.batch"
REPLICATION_CONTROLLERS: Final = "replicationcontrollers"
SERVICES: Final = "services"
ENDPOINTS: Final = "endpoints"
ENDPOINT_SLICES: Final = "endpointslices.discovery.k8s.io"
AGENTS: Final = "agents.walras.dev"
PRIORITY_CLASSES: Final = "priorityclasses.scheduling.k8s.io"
CRDS: Final = "customresourcedefinitions.apiextensions.k8s.io"

# Set by whoever takes a pod's place away through no fault of its own.
DISRUPTION_TARGET: Final = "DisruptionTarget"


def uid(obj: Mapping[str, Any]) -> str:
    return str(obj["metadata"]["uid"])


def deleting(obj: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def finalizers(obj: Mapping[str, Any]) -> list[str]:
    return list(obj["metadata"].get("finalizers") or ())


def drop_finalizer(obj: Object, finalizer: str) -> None:
    """Removes it in place, and the list when it was the last."""
    left = [each for each in finalizers(obj) if each != finalizer]
    if left:
        obj["metadata"]["finalizers"] = left
    else:
        obj["metadata"].pop("finalizers", None)


def status(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    return obj.get("status") or {}


def phase(obj: Mapping[str, Any]) -> str:
    return str(status(obj).get("phase", ""))


def finished(pod: Mapping[str, Any]) -> bool:
    return phase(pod) in {"Succeeded", "Failed"}


def owners(obj: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(obj["metadata"].get("ownerReferences") or ())


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference with `controller: true`."""
    return next((owner for owner in owners(obj) if owner.get("controller")), None)


def controlled_by(obj: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == uid(owner)


def owner_reference(owner: Mapping[str, Any], *, controller: bool = True) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": uid(owner),
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    conditions: Iterable[Mapping[str, Any]] = status(obj).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), None)


def is_true(obj: Mapping[str, Any], kind: str) -> bool:
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


def transition_ms(obj: Mapping[str, Any], kind: str) -> int | None:
    """When the condition last changed, in milliseconds; None when it is not there or says no time."""
    found = condition(obj, kind)
    return parse_ms(found.get("lastTransitionTime")) if found is not None else None


def parse_ms(text: Any) -> int | None:
    """Milliseconds of an RFC 3339 time, None for anything else."""
    try:
        return parse_rfc3339(text) if isinstance(text, str) else None
    except ValueError:
        return None


def set_condition(
    obj: Object, kind: str, value: str, now: str, *, reason: str = "", message: str = "", probed: bool = False
) -> None:
    """Sets the condition in place; its transition time moves only when its value does.

    `probed`: also gives a fresh condition lastProbeTime, as pods' and jobs' conditions have.
    """
    conditions: list[Object] = obj.setdefault("status", {}).setdefault("conditions", [])
    found = next((each for each in conditions if each.get("type") == kind), None)
    if found is None:
        found = {"type": kind}
        conditions.append(found)
    if found.get("status") != value:
        found["status"] = value
        found["lastTransitionTime"] = now
        if probed:
            found["lastProbeTime"] = now
    for field, text in (("reason", reason), ("message", message)):
        if text:
            found[field] = text
        else:
            found.pop(field, None)
