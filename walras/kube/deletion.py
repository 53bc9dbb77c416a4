"""What a delete does to an object: removes it now, or marks it and waits for finalizers or a grace period."""

from __future__ import annotations

from typing import Final

from walras.core.clock import parse_rfc3339, rfc3339
from walras.kube.objects import CRDS, NAMESPACES, PODS, is_done
from walras.kube.record import Object
from walras.kube.registry import Resource

GRACE_DEFAULT_S: Final = 30
ORPHAN: Final = "orphan"
FOREGROUND: Final = "foregroundDeletion"
# What takes its time, or is held by what is in it, is marked even when nothing else keeps it.
_MARKED: Final = (CRDS, NAMESPACES, PODS)


def _grace_s(resource: Resource, obj: Object, wanted_s: int | None) -> int:
    """Only a pod on a node that has not ended gets time; elsewhere a deletion is immediate."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if resource.key != PODS or not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    declared = spec.get("terminationGracePeriodSeconds")
    grace = wanted_s if wanted_s is not None else declared if declared is not None else GRACE_DEFAULT_S
    return max(0, int(grace)) if grace >= 0 else 1


def _wanted_finalizers(metadata: Object, propagation: str) -> list[str]:
    kept = [name for name in metadata.get("finalizers") or () if name not in (ORPHAN, FOREGROUND)]
    match propagation:
        case "Orphan":
            return [*kept, ORPHAN]
        case "Foreground":
            return [*kept, FOREGROUND]
        case "Background":
            return kept
    return list(metadata.get("finalizers") or ())


def _mark(resource: Resource, metadata: Object, grace_s: int, now_ms: int) -> None:
    if "deletionTimestamp" not in metadata:
        if metadata.get("generation"):
            metadata["generation"] = int(metadata["generation"]) + 1
        metadata["deletionTimestamp"] = rfc3339(now_ms + grace_s * 1000)
        if resource.key != NAMESPACES:
            metadata["deletionGracePeriodSeconds"] = grace_s
        return
    running_s = int(metadata.get("deletionGracePeriodSeconds") or 0)
    if grace_s < running_s:
        # The end moves forward, never back: counted from when the deletion began.
        began_ms = parse_rfc3339(metadata["deletionTimestamp"]) - running_s * 1000
        metadata["deletionTimestamp"] = rfc3339(max(began_ms + grace_s * 1000, now_ms) if grace_s else now_ms)
        metadata["deletionGracePeriodSeconds"] = grace_s


def begin(resource: Resource, obj: Object, now_ms: int, grace_s: int | None, propagation: str) -> bool:
    """Marks a private copy for deletion in place; True when the object is to be removed now.

    `propagation` is "Background", "Foreground", "Orphan" or "" (as the object's finalizers say).
    """
    metadata = obj["metadata"]
    if resource.key == NAMESPACES and "deletionTimestamp" in metadata and obj["spec"].get("finalizers"):
        # It is emptied as the first deletion said.
        return False
    running_s = metadata.get("deletionGracePeriodSeconds")
    if resource.key == PODS and running_s is not None and (grace_s is None or grace_s >= running_s):
        # It is under way: a deletion may only be hastened.
        return is_done(resource, obj)
    finalizers = _wanted_finalizers(metadata, propagation)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if resource.key not in _MARKED and not metadata.get("finalizers"):
        return True
    _mark(resource, metadata, _grace_s(resource, obj, grace_s), now_ms)
    if resource.key == NAMESPACES:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    return is_done(resource, obj)
