"""CRDs in a cluster: served as soon as they are committed, and gone only after their objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from walras.core.clock import rfc3339
from walras.kube import crd
from walras.kube.conversion.config import webhook
from walras.kube.record import Object, Record
from walras.kube.registry import Registry

CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"


def establish(definition: Object, now_ms: int, others: Iterable[Object]) -> None:
    """Writes in place the status that makes the definition served; one that is going keeps what it has.

    `others` are the cluster's other definitions.
    """
    if "deletionTimestamp" not in definition["metadata"]:
        group = definition["spec"]["group"]
        near = (each for each in others if each["spec"]["group"] == group)
        definition["status"] = crd.establish(definition, rfc3339(now_ms), near)


def hold(definition: Object, now_ms: int) -> None:
    """Keeps, in place, a deleted definition until its last object is gone."""
    metadata = definition["metadata"]
    finalizers = metadata.get("finalizers") or []
    if CLEANUP in finalizers:
        return
    metadata["finalizers"] = [*finalizers, CLEANUP]
    status = definition.setdefault("status", {})
    status["conditions"] = [
        *(status.get("conditions") or ()),
        {
            "type": "Terminating",
            "status": "True",
            "reason": "InstanceDeletionInProgress",
            "message": "CustomResource deletion is in progress",
            "lastTransitionTime": rfc3339(now_ms),
        },
    ]


def let_go(definition: Object) -> None:
    """Takes back `hold`."""
    metadata = definition["metadata"]
    metadata["finalizers"] = [name for name in metadata.get("finalizers") or () if name != CLEANUP]


def converts_anew(record: Record, previous: Record | None) -> bool:
    """Whether what a webhook converts, or did, may be converted otherwise now."""
    if previous is None or record.object["spec"] == previous.object["spec"]:
        return False
    return any(webhook(each.object["spec"]) is not None for each in (record, previous))


def is_own(registry: Registry, resource: str) -> bool:
    """Whether the cluster serves the resource by a CRD of its own."""
    return registry.is_own(resource)


def served(base: Registry, definitions: Iterable[Object]) -> Registry:
    """The base and what the definitions add to it."""
    return base.with_crds(resource for each in definitions for resource in crd.resources(each))
