"""What built-in types allow, and how a deletion of them is answered, as upstream's strategies say."""

from __future__ import annotations

from typing import Final

from walras.kube.context import Context
from walras.kube.record import Object
from walras.kube.registry import Resource

_ADMISSION: Final = "admissionregistration.k8s.io"

# Types whose deletion answers the object where others answer a Status; typed clients rely on it.
RETURNED: Final = frozenset(
    (
        "namespaces", "persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates", "resourcequotas",
        "serviceaccounts", "services", "deviceclasses.resource.k8s.io", "resourceclaims.resource.k8s.io",
        "resourceclaimtemplates.resource.k8s.io", "resourceslices.resource.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io", "storageclasses.storage.k8s.io", "volumeattachments.storage.k8s.io",
        "volumeattributesclasses.storage.k8s.io",
    )
)  # fmt: skip
# Types whose update must say which version it was made from, as custom resources must.
CONDITIONAL: Final = frozenset(
    (
        "apiservices.apiregistration.k8s.io", "customresourcedefinitions.apiextensions.k8s.io",
        "csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "csistoragecapacities.storage.k8s.io",
        "leases.coordination.k8s.io", "poddisruptionbudgets.policy", "runtimeclasses.node.k8s.io",
        "volumeattachments.storage.k8s.io",
        *(
            f"{plural}.{_ADMISSION}"
            for plural in (
                "mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
                "mutatingwebhookconfigurations",
                "validatingadmissionpolicies", "validatingadmissionpolicybindings",
                "validatingwebhookconfigurations",
            )
        ),
    )
)  # fmt: skip
# Types of which a PUT makes what is not there.
MADE_BY_UPDATE: Final = frozenset(
    (
        "endpoints", "events", "limitranges", "services", "leases.coordination.k8s.io",
        "runtimeclasses.node.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io",
        "roles.rbac.authorization.k8s.io",
    )
)  # fmt: skip


# Types that leave what they own behind unless the caller says otherwise, as they did long ago.
_ORPHANING: Final = ("jobs.batch", "replicationcontrollers")
_ORPHANED: Final = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
    "them or set propagationPolicy=Orphan to suppress this warning"
)


# What a write of the status may change of an object's metadata.
_STATUS: Final = ("labels", "annotations", "finalizers", "ownerReferences", "managedFields")
_STATUS_OF: Final = {
    "deployments.apps": ("annotations", "finalizers", "ownerReferences", "managedFields"),
    "pods": ("labels", "annotations", "finalizers", "managedFields"),
    **dict.fromkeys(
        (
            "flowschemas.flowcontrol.apiserver.k8s.io",
            "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
            "resourceclaims.resource.k8s.io",
            "servicecidrs.networking.k8s.io",
            f"validatingadmissionpolicies.{_ADMISSION}",
            "volumeattachments.storage.k8s.io",
        ),
        ("managedFields",),
    ),
}  # fmt: skip


def metadata_of_status(resource: Resource) -> tuple[str, ...]:
    """Which of an object's metadata a write of its status may change."""
    return _STATUS_OF.get(resource.key, _STATUS) if resource.builtin else ("managedFields",)


def warn_of_orphans(ctx: Context, resource: Resource, asked: str) -> None:
    """Tells who deletes jobs and says nothing of their pods that these stay."""
    if resource.key == "jobs.batch" and not asked:
        ctx.warnings.append(_ORPHANED)


def propagation(resource: Resource, obj: Object, asked: str) -> str:
    """What becomes of an object's dependents when it is deleted: as asked, or as its type has it."""
    kept = obj["metadata"].get("finalizers") or ()
    if asked or resource.key not in _ORPHANING or "orphan" in kept or "foregroundDeletion" in kept:
        return asked
    return "Orphan"
