"""The metadata that the server, not the client, is in charge of, and Kubernetes' words about objects."""

from __future__ import annotations

from typing import Any, Final

from walras.core.clock import Ids, rfc3339
from walras.core.errors import AlreadyExists, Conflict, NotFound
from walras.kube.record import Object
from walras.kube.registry import Resource

CRDS: Final = "customresourcedefinitions.apiextensions.k8s.io"
NAMESPACES: Final = "namespaces"
PODS: Final = "pods"
ACCOUNTS: Final = "serviceaccounts"
SERVICES: Final = "services"
SLICES: Final = "endpointslices.discovery.k8s.io"
# The finalizers that need no domain.
FINALIZERS: Final = ("kubernetes", "orphan", "foregroundDeletion")
# A new PriorityClass has generation 1 for ever, a CSIDriver none before its first change.
_CLASSES: Final = "priorityclasses.scheduling.k8s.io"
_DRIVERS: Final = "csidrivers.storage.k8s.io"
# Built-in types whose metadata.generation counts changes of all but metadata and status.
_GENERATION: Final = frozenset(
    (
        PODS, CRDS, SLICES, _CLASSES, _DRIVERS, "podtemplates", "replicationcontrollers", "daemonsets.apps",
        "deployments.apps", "replicasets.apps", "statefulsets.apps", "cronjobs.batch", "jobs.batch",
        "ingresses.networking.k8s.io", "ingressclasses.networking.k8s.io",
        "networkpolicies.networking.k8s.io",
        "poddisruptionbudgets.policy", "deviceclasses.resource.k8s.io", "resourceslices.resource.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        *(
            f"{plural}.admissionregistration.k8s.io"
            for plural in (
                "mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
                "mutatingwebhookconfigurations",
                "validatingadmissionpolicies", "validatingadmissionpolicybindings",
                "validatingwebhookconfigurations",
            )
        ),
    )
)  # fmt: skip
# A prefix is cut so that five random characters fit into a name of at most 63.
_PREFIX_MAX: Final = 58
_OWN: Final = ("uid", "creationTimestamp", "name", "namespace", "selfLink")


def details(resource: str, name: str) -> dict[str, Any]:
    """`Status.details` of an error about one object, by `Resource.key`."""
    plural, _, group = resource.partition(".")
    return {"name": name, **({"group": group} if group else {}), "kind": plural}


def not_found(resource: str, name: str) -> NotFound:
    return NotFound(f'{resource} "{name}" not found', details=details(resource, name))


def already_exists(resource: str, name: str, *, going: bool = False) -> AlreadyExists:
    """`going` where what is there is being deleted."""
    said = f'{resource} "{name}" already exists'
    return AlreadyExists(
        f"object is being deleted: {said}" if going else said, details=details(resource, name)
    )


def conflict(resource: str, name: str, why: str = "") -> Conflict:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    return Conflict(
        f'Operation cannot be fulfilled on {resource} "{name}": {why}', details=details(resource, name)
    )


def generated_name(prefix: str, ids: Ids) -> str:
    """A name for `metadata.generateName`."""
    return prefix[:_PREFIX_MAX] + ids.suffix()


def counts_generation(resource: Resource) -> bool:
    return not resource.builtin or resource.key in _GENERATION


def initialise(resource: Resource, obj: Object, now_ms: int, ids: Ids) -> None:
    """Fills in place what a new object gets from the server; the name is there already."""
    obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    metadata = obj["metadata"]
    metadata["uid"] = ids.uid()
    metadata["creationTimestamp"] = rfc3339(now_ms)
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(name, None)
    if not resource.namespaced:
        metadata.pop("namespace", None)
    if counts_generation(resource) and resource.key != _DRIVERS:
        metadata["generation"] = 1


def with_version(shown: Object, stored: Object) -> Object:
    """What was converted before it was written, with the resourceVersion that it has since, in place."""
    version = stored["metadata"].get("resourceVersion")
    if version is not None:
        shown["metadata"]["resourceVersion"] = version
    return shown


def _substance(resource: Resource, obj: Object) -> Object:
    """What a generation counts: the spec, or everything but metadata where a type has no status."""
    if resource.key == _CLASSES:
        return {}
    has_status = resource.builtin or resource.has_status
    skipped = ("metadata", "status") if has_status else ("metadata",)
    substance = {name: value for name, value in obj.items() if name not in skipped}
    if resource.key == PODS:
        # Upstream's bindings go past what counts it.
        substance["spec"] = {name: value for name, value in obj["spec"].items() if name != "nodeName"}
    if resource.key == SLICES:
        substance["labels"] = obj["metadata"].get("labels") or {}
    if resource.key == "deployments.apps":
        # Upstream's deployments count their annotations in, which rollouts carry over to replica sets.
        substance["annotations"] = obj["metadata"].get("annotations") or {}
    return substance


def preserve(resource: Resource, old: Object, new: Object, read: Object | None = None) -> None:
    """Restores in place what no write may change, and counts the generation.

    `read` is the old object as it reads, where that is not as it lies in the store: no change either.
    """
    if not (resource.is_mixed and new["apiVersion"] == resource.api_version):
        new["apiVersion"] = old["apiVersion"]
    new["kind"] = old["kind"]
    before, after = old["metadata"], new["metadata"]
    for name in (*_OWN, "resourceVersion", "generation"):
        if name in before:
            after[name] = before[name]
        else:
            after.pop(name, None)
    same = [_substance(resource, each) for each in (old, read) if each is not None]
    if counts_generation(resource) and _substance(resource, new) not in same:
        after["generation"] = int(before.get("generation", 0)) + 1


def is_done(resource: Resource, obj: Object) -> bool:
    """Whether a deletion has nothing left to wait for: no finalizer and no grace period."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    if resource.key == NAMESPACES and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")
